"""jaxdil.torch: each twin against PyTorch, live and as kept in arrays, its signature, its refusals.

Everything is an integer where it can be, so that every order of summation gives the same result and
"equal" means equal.
"""

import inspect
import itertools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import peer
import pytest
import torch_cases

import jaxdil.torch as F
from jaxdil import reference

KEPT, VERSIONS = peer.load("torch")

# As PyTorch 2.13 documents them.
SIGNATURES = {
    "avg_pool1d": "input, kernel_size, stride=None, padding=0, ceil_mode=False, "
    "count_include_pad=True",
    "avg_pool2d": "input, kernel_size, stride=None, padding=0, ceil_mode=False, "
    "count_include_pad=True, divisor_override=None",
    "avg_pool3d": "input, kernel_size, stride=None, padding=0, ceil_mode=False, "
    "count_include_pad=True, divisor_override=None",
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"),
        "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1",
    ),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1",
    ),
    "fold": "input, output_size, kernel_size, dilation=1, padding=0, stride=1",
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d", "max_pool3d"),
        "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, "
        "return_indices=False",
    ),
    "pad": "input, pad, mode='constant', value=None",
    "pixel_shuffle": "input, upscale_factor",
    "pixel_unshuffle": "input, downscale_factor",
    "unfold": "input, kernel_size, dilation=1, padding=0, stride=1",
}
# Options that PyTorch has in its modules only.
MORE = {"conv": ["padding_mode"], "conv_transpose": ["output_size"]}


def positional(function):
    every = inspect.signature(function).parameters.values()
    shown = [p.replace(annotation=p.empty) for p in every if p.kind != p.KEYWORD_ONLY]
    return ", ".join(map(str, shown))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_is_pytorchs(name):
    function = getattr(F, name)
    assert positional(function) == SIGNATURES[name]
    every = inspect.signature(function).parameters.values()
    more = [p.name for p in every if p.kind == p.KEYWORD_ONLY]
    assert more == MORE.get(name[:-2], [])


def test_signatures_are_still_pytorchs():
    peers = pytest.importorskip("torch").nn.functional
    for name, signature in SIGNATURES.items():
        function = getattr(peers, name)
        try:
            inspected = inspect.signature(function)
            if "args" in inspected.parameters:
                raise ValueError  # a dispatcher, whose docstring tells
            assert positional(function) == signature
        except ValueError:
            text = re.search(rf"{name}\((.*?)\)", function.__doc__)[1].replace('"', "'")
            assert text == signature


def test_every_twin_is_exported():
    assert list(F.__all__) == sorted(SIGNATURES)


# --- PyTorch's numbers ----------------------------------------------------------------------------

NAMES = sorted({case.function for case in torch_cases.CASES})


def cases_of(name):
    return [case for case in torch_cases.CASES if case.function == name]


def run(cases):
    """Ours of each case, in one program, which compiles faster than one for each."""
    inputs = [[jnp.asarray(a).astype(case.dtype) for a in case.arrays()] for case in cases]

    def every(inputs):
        return [_run(case, arrays) for case, arrays in zip(cases, inputs, strict=True)]

    return jax.jit(every, compiler_options={"xla_backend_optimization_level": 0})(inputs)


def _run(case, arrays):
    def call(*arrays):
        made = getattr(F, case.function)(*arrays, **case.options)
        y, *more = made if isinstance(made, tuple) else (made,)
        return y, more

    if not case.differentiable:
        y, more = call(*arrays)
    else:
        y, vjp, more = jax.vjp(call, *arrays, has_aux=True)
    results = {"y": y} | {f"more {i}": extra for i, extra in enumerate(more)}
    if case.differentiable:
        g = jnp.asarray(case.cotangent(y.shape)).astype(case.dtype)
        results |= {f"grad {i}": grad for i, grad in enumerate(vjp(g))}
    for name, array in results.items():
        assert array.dtype == case.dtype or "more" in name
    return results


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_gradients(name):
    cases = cases_of(name)
    for case, ours in zip(cases, run(cases), strict=True):
        peer.assert_same(ours, KEPT[str(case)], case)


@pytest.mark.parametrize("name", NAMES)
def test_kept_numbers_are_still_pytorchs(name):
    """What ours are held against above, live: where PyTorch is installed they are held to both."""
    pytest.importorskip("torch")
    for case in cases_of(name):
        peer.assert_same(torch_cases.run(case), KEPT[str(case)], case)


def test_kept_numbers_are_of_the_cases():
    keys = Counter(map(str, torch_cases.CASES))
    assert max(keys.values()) == 1
    assert keys.keys() == KEPT.keys(), "run: python tests/torch_cases.py"
    assert VERSIONS["torch"].startswith("2.13.")
    assert {case.function for case in torch_cases.CASES} == set(SIGNATURES)
