"""Strides made dilations: against shift-and-stitch, in numpy, on random stacks of whole numbers."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdil
from jaxdil import modules, reference
from jaxdil.modules import remove_strides, stack

pytestmark = pytest.mark.core


def pooled(x, window, *, stride, dilation, padding, best):
    """The largest or the mean of each window, tap by tap."""
    fill = -np.inf if best else 0
    x = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=fill)
    taps = []
    for t in itertools.product(*map(range, window)):
        at = [
            slice(i * d, n - (k - 1 - i) * d, s)
            for i, n, k, s, d in zip(t, x.shape[1:], window, stride, dilation, strict=False)
        ]
        taps.append(x[:, *at])
    return np.max(taps, 0) if best else np.mean(taps, 0)


def run(plan, x):
    """The stack by definition."""
    for kind, w, window in plan:
        if kind == "relu":
            x = np.maximum(x, 0)
        elif kind == "conv":
            x = reference.conv(x, w, **window)
        else:
            x = pooled(x, w, best=kind == "max", **window)
    return x


def called(plan):
    """The same as parameters and layers of `stack`."""
    params, layers = [], []
    for kind, w, window in plan:
        params.append({"w": jnp.asarray(w)} if kind == "conv" else None)
        if kind == "relu":
            layers.append(jax.nn.relu)
        elif kind == "conv":
            layers.append(functools.partial(modules.conv_layer, **window))
        else:
            pool = jaxdil.max_pool if kind == "max" else jaxdil.avg_pool
            layers.append(functools.partial(pool, window=w, **window))
    return params, layers


def random_plan(rng, rank, *, pads):
    """Convolutions, poolings and a relu; with ``pads``, not only the first of them pads."""
    plan = []
    for i in range(3):
        kind = rng.choice(["conv", "conv", "max", "avg"]) if i else "conv"
        # Means over 2 or 4 taps are exact.
        taps = rng.integers(1, 4, rank) if kind != "avg" else np.full(rank, 2)
        most = 2 if pads or not i else 1
        window = {
            "stride": rng.integers(1, 3, rank) if i else rng.integers(2, 4, rank),
            "dilation": rng.integers(1, 3, rank) if i else np.ones(rank, int),
            "padding": [tuple(rng.integers(0, min(most, k), 2)) for k in taps.tolist()],
        }
        window = {
            name: [tuple(map(int, v)) if name == "padding" else int(v) for v in value]
            for name, value in window.items()
        }
        w = rng.integers(-3, 4, (*taps, 2, 2)).astype(float) if kind == "conv" else taps.tolist()
        plan += [(kind, w, window), ("relu", None, None)][: 2 if i == 1 else 1]
    return plan


def strides(plan):
    every = [window["stride"] for _, _, window in plan if window]
    return tuple(math.prod(s) for s in zip(*every, strict=True))


def shift_and_stitch(plan, x, factors):
    """The strided stack on each shift of the padded input, and what it gives interleaved."""
    (kind, w, window), *rest = plan
    x = np.pad(x, [(0, 0), *window["padding"], (0, 0)])
    plan = [(kind, w, window | {"padding": [(0, 0)] * (x.ndim - 2)}), *rest]
    parts = {}
    for shift in itertools.product(*map(range, factors)):
        parts[shift] = run(plan, x[:, *(slice(i, None) for i in shift)])
    first = parts[(0,) * len(factors)]
    sizes = [
        sum(
            part.shape[axis + 1] for shift, part in parts.items() if not any(np.delete(shift, axis))
        )
        for axis in range(len(factors))
    ]
    y = np.zeros((len(x), *sizes, first.shape[-1]))
    for shift, part in parts.items():
        y[:, *(slice(i, None, f) for i, f in zip(shift, factors, strict=True))] = part
    return y


@pytest.mark.parametrize(("seed", "rank"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2)])
def test_the_dense_stack_is_shift_and_stitch(seed, rank):
    rng = np.random.default_rng(seed)
    plan = random_plan(rng, rank, pads=False)
    x = rng.integers(-3, 4, (1, *(41, 22)[:rank], 2)).astype(float)
    params, layers = called(plan)
    dense = stack(params, jnp.asarray(x), layers=remove_strides(layers))
    expected = shift_and_stitch(plan, x, strides(plan))
    np.testing.assert_array_equal(dense, expected)
    assert np.unique(expected).size > 5  # not all of them zero


@pytest.mark.parametrize(("seed", "rank"), [(10, 1), (11, 1), (12, 1), (13, 1), (14, 2)])
def test_the_strided_outputs_stand_among_the_dense_ones(seed, rank):
    """Whatever is padded, and wherever strides stop being removed."""
    rng = np.random.default_rng(seed)
    plan = random_plan(rng, rank, pads=True)
    x = rng.integers(-3, 4, (1, *(41, 22)[:rank], 2)).astype(float)
    params, layers = called(plan)
    expected, factors = run(plan, x), strides(plan)
    for goal in (1, 3):
        converted = remove_strides(layers, output_stride=goal)
        dense = stack(params, jnp.asarray(x), layers=converted)
        left = [
            math.prod(
                layer.keywords["stride"][a] for layer in converted if hasattr(layer, "keywords")
            )
            for a in range(rank)
        ]
        assert all(n <= goal for n in left)
        steps = [slice(None, None, f // n) for f, n in zip(factors, left, strict=True)]
        np.testing.assert_array_equal(np.asarray(dense)[:, *steps], expected)


def windows(layers):
    return [tuple(layer.keywords.get(n, 1) for n in ("stride", "dilation")) for layer in layers]


def test_rates_multiply_after_removed_strides():
    """DeepLab's last blocks (arXiv 1706.05587, section 3.2)."""
    resnet = [
        functools.partial(modules.conv_layer, stride=s, padding=1) for s in (2, 2, 1, 2, 2, 2)
    ]
    assert windows(remove_strides(resnet, output_stride=16)) == [
        *[(2, 1), (2, 1), (1, 1), (2, 1), (2, 1)],
        (1, 1),
    ]
    assert windows(remove_strides([*resnet, resnet[2]], output_stride=8)) == [
        *[(2, 1), (2, 1), (1, 1), (2, 1)],
        *[(1, 1), (1, 2), (1, 4)],
    ]
    # What does not change is the same function.
    assert remove_strides(resnet, output_stride=16)[:5] == resnet[:5]
    assert remove_strides([]) == []


def test_axes_have_strides_of_their_own():
    conv = modules.conv_layer
    first = functools.partial(conv, stride=(4, 1), dilation=(1, 2), padding=2)
    second = functools.partial(conv, stride=2, padding=[(1, 2), 3])
    third = functools.partial(conv, padding="VALID")
    assert [d.keywords for d in remove_strides([first, second, third], output_stride=2)] == [
        {"stride": (2, 1), "dilation": (1, 2), "padding": [2, 2]},
        {"stride": (1, 2), "dilation": (2, 1), "padding": [(2, 4), 3]},
        {"stride": (1, 1), "dilation": (4, 1), "padding": ["VALID", "VALID"]},
    ]


@pytest.mark.parametrize(
    "padding", ["SAME", "SAME_LOWER", "CAUSAL", "FULL", lambda k_eff: k_eff // 2]
)
def test_padding_by_name_keeps_what_it_means(padding):
    """An even kernel, dilated: "SAME" pads it unevenly, and that is scaled, not asked for anew."""
    rng = np.random.default_rng(3)
    kernels = [rng.integers(-3, 4, (k, 1, 1)).astype(float) for k in (2, 4)]
    layers = [
        functools.partial(modules.conv_layer, stride=3, padding=1),
        functools.partial(modules.conv_layer, dilation=3, padding=padding),
    ]
    x = jnp.asarray(rng.integers(-3, 4, (1, 30, 1)).astype(float))
    params = [{"w": jnp.asarray(w)} for w in kernels]
    dense = stack(params, x, layers=remove_strides(layers))
    np.testing.assert_array_equal(dense[:, ::3], stack(params, x, layers=layers))


def test_blocks_of_papers_are_layers():
    rng = np.random.default_rng(5)
    key = jax.random.key(0)
    params = jax.eval_shape(
        lambda: [
            modules.init_conv_layer(key, 1, 2, rank=1),
            modules.init_inverted_residual(key, 2, 2, expansion=2, rank=1),
            modules.init_inverted_residual(key, 2, 2, expansion=2, rank=1),
            modules.init_xception_block(key, 2, (2, 3), skip=True, rank=1),
            modules.init_atrous_xception_block(key, 3, (3, 2), skip=True, rank=1),
        ]
    )
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.integers(-1, 2, leaf.shape).astype(float)), params
    )
    layers = [
        functools.partial(modules.conv_layer, stride=2, padding=1),
        functools.partial(modules.inverted_residual, stride=2, padding=1),
        functools.partial(modules.inverted_residual, residual=True),
        functools.partial(modules.xception_block, stride=2, padding=1),
        functools.partial(modules.atrous_xception_block, stride=2, padding=1),
    ]
    x = jnp.asarray(rng.integers(-2, 3, (1, 64, 1)).astype(float))
    strided = jax.jit(functools.partial(stack, layers=layers))(params, x)
    dense = jax.jit(functools.partial(stack, layers=remove_strides(layers, output_stride=4)))
    assert strided.shape == (1, 4, 2)
    assert np.unique(strided).size > 2
    np.testing.assert_array_equal(dense(params, x)[:, ::4], strided)


# --- refusals -------------------------------------------------------------------------------------


def refused(kind, *fragments, layers, **options):
    with pytest.raises(kind) as caught:
        remove_strides(layers, **options)
    for fragment in ("remove_strides: ", *fragments):
        assert fragment in str(caught.value)


STRIDED = functools.partial(modules.conv_layer, stride=4, padding=1)


def test_what_cannot_be_converted_is_refused():
    refused(ValueError, "output_stride must be >= 1, got 0", layers=[], output_stride=0)
    refused(
        ValueError,
        "layers[0] has stride 4, of which 3 cannot stay",
        "output_stride=3 must be a product of strides",
        layers=[STRIDED],
        output_stride=3,
    )
    refused(
        ValueError,
        "layers[0] has padding 'SAME' and a stride",
        "jaxdil.resolve_padding",
        layers=[functools.partial(modules.conv_layer, stride=2)],
    )
    refused(
        ValueError,
        "layers[1] has padding by the names of axes",
        "Write it as a list",
        layers=[STRIDED, functools.partial(modules.conv_layer, padding={"W": 1})],
    )
    refused(
        TypeError,
        "layers[1] slides a window, and its options",
        "stride=, dilation= and padding=",
        layers=[STRIDED, modules.context_module],
    )
    refused(
        TypeError,
        "layers[0] slides a window",
        layers=[lambda x, *, stride: x],
    )
    refused(
        TypeError,
        "layers[0].stride must be an integer, got 1.5",
        layers=[functools.partial(modules.conv_layer, stride=1.5)],
    )

    def reflecting(params, x, *, stride=1, dilation=1, padding=1, padding_mode="reflect"):
        return x

    refused(
        ValueError,
        "layers[1] has padding_mode='reflect', not 'zeros'",
        "At the far border",
        layers=[STRIDED, reflecting],
    )
    # A window before any stride is removed stays as it is.
    assert remove_strides([modules.context_module]) == [modules.context_module]


def test_a_stack_needs_an_entry_of_params_for_each_layer():
    with pytest.raises(ValueError, match=r"stack: params must .* each of the 1 layers, got 0"):
        stack([], jnp.ones((1, 3, 1)), layers=[jax.nn.relu])
