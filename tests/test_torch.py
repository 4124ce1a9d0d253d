"""jaxdil.torch: each twin against PyTorch, live and as kept in arrays, its signature, its refusals.

Everything is an integer where it can be, so that every order of summation gives the same result and
"equal" means equal.
"""

import inspect
import itertools
import math
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import peer
import pytest
import torch_cases

from jaxdil import torch

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
    function = getattr(torch, name)
    assert positional(function) == SIGNATURES[name]
    every = inspect.signature(function).parameters.values()
    more = [p.name for p in every if p.kind == p.KEYWORD_ONLY]
    assert more == MORE.get(name[:-2], [])


def test_signatures_are_still_pytorchs():
    peers = pytest.importorskip("torch").nn.functional
    for name, signature in SIGNATURES.items():
        function = getattr(peers, name)
        told = re.search(rf"{name}\((.*?)\)", function.__doc__)  # C code has no other signature
        text = told[1].replace('"', "'") if told else positional(function)
        assert text == signature


def test_every_twin_is_exported():
    assert list(torch.__all__) == sorted(SIGNATURES)


# --- PyTorch's numbers ----------------------------------------------------------------------------

NAMES = sorted({case.function for case in torch_cases.CASES})


def cases_of(name):
    return [case for case in torch_cases.CASES if case.function == name]


def call(case, arrays):
    return getattr(torch, case.function)(*arrays, **case.options)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_gradients(name):
    cases = cases_of(name)
    for case, ours in zip(cases, peer.ours(call, cases), strict=True):
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


# --- what no case says ----------------------------------------------------------------------------


def patches_of(x, kernel, dilation, padding, stride):
    """unfold, by its definition."""
    x = np.pad(x, [(0, 0)] * 2 + [(p, p) for p in padding])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], spans, stride, strict=True)]
    y = np.zeros((*x.shape[:2], *kernel, *counts))
    for tap in itertools.product(*map(range, kernel)):
        for p in itertools.product(*map(range, counts)):
            at = tuple(s * i + d * t for s, i, d, t in zip(stride, p, dilation, tap, strict=True))
            y[(..., *tap, *p)] = x[(..., *at)]
    return y.reshape(x.shape[0], -1, math.prod(counts))


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "padding", "stride"),
    [((9,), (3,), (2,), (1,), (2,)), ((4, 1, 3), (2, 1, 3), (2, 1, 1), (1, 0, 2), (2, 1, 3))],
)
def test_patches_of_other_ranks(size, kernel, dilation, padding, stride):
    x = peer.integers("x", (2, 2, *size))
    window = kernel, dilation, padding, stride
    y = torch.unfold(jnp.asarray(x), *window)
    expected = patches_of(x, *window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(torch.unfold(jnp.asarray(x[0]), *window), expected[0])
    g = peer.integers("g", expected.shape)
    # The adjoint, one sample of the image at a time.
    basis = np.eye(x[0].size).reshape(-1, *x.shape[1:])
    adjoint = np.einsum("npl,bpl->bn", g, patches_of(basis, *window)).T.reshape(x.shape)
    np.testing.assert_array_equal(torch.fold(jnp.asarray(g), size, *window), adjoint)
    np.testing.assert_array_equal(torch.fold(jnp.asarray(g[1]), list(size), *window), adjoint[1])


def test_convolution_is_its_patches_times_the_kernel():
    x, w = peer.integers("x", (2, 4, 3, 5, 4)), peer.integers("w", (6, 4, 2, 3, 1))
    window = {"dilation": (1, 2, 1), "padding": (1, 2, 0), "stride": (1, 2, 3)}
    y = torch.conv3d(jnp.asarray(x), jnp.asarray(w), **window)
    patches = torch.unfold(jnp.asarray(x), (2, 3, 1), **window)
    product = np.einsum("ok,nkl->nol", w.reshape(6, -1), patches)
    np.testing.assert_array_equal(y.reshape(product.shape), product)


def test_places_of_nans_and_of_equals():
    """PyTorch: the last NaN, the first of equals, never a place in the padding."""
    x = jnp.array([[1, np.nan, 3, np.nan, 2], [-np.inf] * 5, [2, 2, 1, 1, 2]])
    y, at = torch.max_pool1d(x, 3, 1, 1, return_indices=True)
    np.testing.assert_array_equal(at, [[1, 1, 3, 3, 3], [0, 0, 1, 2, 3], [0, 0, 1, 4, 4]])
    np.testing.assert_array_equal(y, jnp.take_along_axis(x, at, axis=1))


def test_half_precision_sums_in_float32():
    x, w, b = (jnp.ones(shape, jnp.bfloat16) for shape in [(1, 1, 4096), (1, 1, 1), (1,)])
    program = jax.make_jaxpr(lambda b, g: jax.vjp(lambda b: torch.conv1d(x, w, b), b)[1](g))(b, x)
    sums = [line for line in program.eqns if line.primitive.name == "reduce_sum"]
    assert [line.invars[0].aval.dtype for line in sums] == [jnp.float32]
    assert torch.avg_pool1d(x, 1024).tolist() == [[[1.0] * 4]]  # in bfloat16 it would stop at 256


def test_a_batch_is_its_images():
    x, w = (
        jnp.asarray(peer.integers(*entry)) for entry in [("x", (3, 2, 5, 4)), ("w", (4, 2, 3, 3))]
    )

    def f(x):
        return torch.conv2d(x, w, padding=2, padding_mode="reflect")

    np.testing.assert_array_equal(jax.vmap(f)(x), f(x))


def test_no_channels_give_the_bias_alone():
    b = jnp.arange(6.0)
    for y in (
        torch.conv1d(jnp.ones((1, 0, 4)), jnp.ones((6, 0, 2)), b),
        torch.conv_transpose1d(jnp.ones((1, 0, 2)), jnp.ones((0, 6, 2)), b),
    ):
        np.testing.assert_array_equal(y, np.broadcast_to(b[:, None], (1, 6, 3)))


def test_numpy_arrays_and_numbers_are_taken():
    y = torch.conv2d(
        np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), np.ones(3), np.int64(2), np.array([1])
    )
    assert isinstance(y, jax.Array)
    assert y.shape == (1, 3, 3, 3)
    assert torch.pad(np.ones((2, 3)), np.array([1, 1])).shape == (2, 5)
    assert torch.pixel_shuffle(np.ones((4, 1, 1)), np.int32(2)).shape == (1, 2, 2)


# --- refusals -------------------------------------------------------------------------------------

# (call, our type, our words). PyTorch refuses each of them too, those in TAKEN excepted.
REFUSALS = [
    # windows
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), dilation=(1, 4)),
        ValueError,
        "torch.conv2d: the kernel must not be larger than the padded input, on spatial axis 1",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), dilation=(1, 4)),
        ValueError,
        "it spans 9 samples (3 taps at dilation 4), the input has 7 and with padding 7",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), stride=0),
        ValueError,
        "torch.conv1d: stride must be >= 1, got 0",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), dilation=-1),
        ValueError,
        "torch.conv1d: dilation must be >= 1, got -1",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), stride=1.0),
        TypeError,
        "stride must be an integer, got 1.0",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), stride=True),
        TypeError,
        "stride must be an integer, got True",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), stride=(1, 1, 1)),
        ValueError,
        "stride must be an integer or 2 of them",
    ),
    # padding
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), padding=(1, -1)),
        ValueError,
        "padding[1] must be >= 0, got -1",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), padding="SAME"),
        ValueError,
        "padding must be 'same', 'valid' or integers, got 'SAME'",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), stride=2, padding="same"),
        ValueError,
        "padding='same' is not for a stride above 1, got stride (2, 2)",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), padding=((1, 2), (0, 1))),
        ValueError,
        "padding must be an integer for each axis, on both sides alike",
    ),
    # shapes
    (
        lambda F, ones: F.conv2d(ones(6, 7), ones(4, 2, 3, 3)),
        ValueError,
        "input must be (N, C, H, W), or (C, H, W) without a batch, got shape (6, 7)",
    ),
    (
        lambda F, ones: F.conv2d(ones(2, 1, 2, 6, 7), ones(4, 2, 3, 3)),
        ValueError,
        "input must be (N, C, H, W)",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 0, 7), ones(4, 2, 3, 3), padding=3),
        ValueError,
        "input must have samples on every spatial axis, got shape (1, 2, 0, 7)",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3)),
        ValueError,
        "weight must be (O, C / groups, *K) with 2 spatial axes, no axis empty",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(0, 2, 3, 3)),
        ValueError,
        "no axis empty, got shape (0, 2, 3, 3)",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), groups=2),
        ValueError,
        "input has 2 channels, and weight of shape (4, 2, 3, 3) takes 4",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(3, 1, 3, 3), groups=2),
        ValueError,
        "groups must divide the 3 output channels of weight, got 2",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), groups=0),
        ValueError,
        "groups must be >= 1, got 0",
    ),
    (
        lambda F, ones: F.conv2d(ones(1, 2, 6, 7), ones(4, 2, 3, 3), ones(3)),
        ValueError,
        "bias must have shape (4,), a number for each output channel, got (3,)",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3, dtype="float32")),
        TypeError,
        "input and weight must have one dtype",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), ones(4, dtype="float32")),
        TypeError,
        "input and weight and bias must have one dtype",
    ),
    (
        lambda F, ones: F.conv1d([[1.0]], ones(4, 1, 1)),
        TypeError,
        "input must be an array, got list",
    ),
    # padding modes
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), padding=6, padding_mode="reflect"),
        ValueError,
        "torch.conv1d: padding of mode 'reflect' must be at most 5 on spatial axis 0, got (6, 6)",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), padding=7, padding_mode="circular"),
        ValueError,
        "padding of mode 'circular' must be at most 6",
    ),
    (
        lambda F, ones: F.conv1d(ones(1, 2, 6), ones(4, 2, 3), padding_mode="edge"),
        ValueError,
        "padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', got 'edge'",
    ),
    (lambda F, ones: F.pad(ones(1, 5), (5, 0), "reflect"), ValueError, "must be at most 4 on spat"),
    (lambda F, ones: F.pad(ones(1, 5), (5, -1), "circular"), ValueError, "at most 4 on spatial"),
    (lambda F, ones: F.pad(ones(1, 5), (1, 1), "CONSTANT"), ValueError, "mode must be 'constant'"),
    (lambda F, ones: F.pad(ones(1, 5), (1, 1), "reflect", 2.0), ValueError, "value is for mode="),
    (
        lambda F, ones: F.pad(ones(1, 2, 5, 5), (1, 1), "replicate"),
        ValueError,
        "pad must have two entries for each spatial axis of input, got 2 for shape (1, 2, 5, 5)",
    ),
    (lambda F, ones: F.pad(ones(5), (1, 1, 1)), ValueError, "pad must have two entries an axis"),
    (lambda F, ones: F.pad(ones(5), (1, 1, 1, 1)), ValueError, "of 1 axes at most, got 4"),
    (lambda F, ones: F.pad(ones(5), 1), TypeError, "pad must be a list of integers"),
    (lambda F, ones: F.pad(ones(5), (1.0, 1)), TypeError, "pad[0] must be an integer, got 1.0"),
    (
        lambda F, ones: F.pad(ones(2, 5), (-3, -3)),
        ValueError,
        "padding must leave at least 0 of the samples of an axis, got (-3, -3) for 5 samples",
    ),
    (lambda F, ones: F.pad(ones(2, 5), (-3, -2), "replicate"), ValueError, "leave at least 1 of"),
    (
        lambda F, ones: F.pad(ones(5, dtype="int32"), (1, 1), value=1.5),
        TypeError,
        "value must fit the dtype of input, int32, got 1.5",
    ),
    (lambda F, ones: F.pad([1.0], (1, 1)), TypeError, "input must be an array, got list"),
    # transposed convolutions
    (
        lambda F, ones: F.conv_transpose1d(
            ones(1, 2, 6), ones(2, 3, 3), stride=2, output_padding=2
        ),
        ValueError,
        "output_padding must be below max(stride, dilation) = 2 on spatial axis 0, got 2",
    ),
    (
        lambda F, ones: F.conv_transpose1d(ones(1, 2, 6), ones(2, 3, 3), output_padding=-1),
        ValueError,
        "output_padding must be >= 0, got -1",
    ),
    (
        lambda F, ones: F.conv_transpose1d(ones(1, 2, 3), ones(2, 3, 3), padding=3),
        ValueError,
        "padding 3 cuts off all 5 samples of spatial axis 0",
    ),
    (
        lambda F, ones: F.conv_transpose1d(ones(1, 2, 6), ones(2, 3, 3), padding="same"),
        TypeError,
        "padding must be an integer, got 'same'",
    ),
    (
        lambda F, ones: F.conv_transpose1d(ones(1, 2, 6), ones(3, 2, 3)),
        ValueError,
        "input has 2 channels, and weight of shape (3, 2, 3) takes 3",
    ),
    (
        lambda F, ones: F.conv_transpose1d(ones(1, 3, 6), ones(3, 2, 3), groups=2),
        ValueError,
        "groups must divide the 3 channels of input, got 2",
    ),
    (
        lambda F, ones: F.conv_transpose1d(ones(1, 3, 6), ones(3, 2, 3, 3)),
        ValueError,
        "weight must be (C, O / groups, *K) with 1 spatial axes",
    ),
    (
        lambda F, ones: F.conv_transpose1d(
            ones(1, 2, 5), ones(2, 3, 3), stride=2, output_size=[13]
        ),
        ValueError,
        "output_size must be 11 to 12 on spatial axis 0, got 13",
    ),
    (
        lambda F, ones: F.conv_transpose1d(ones(1, 2, 5), ones(2, 3, 3), output_size=(3, 7)),
        ValueError,
        "output_size must have the 1 spatial sizes, or all 3 of the result, got (3, 7)",
    ),
    (
        lambda F, ones: F.conv_transpose1d(
            ones(1, 2, 5), ones(2, 3, 3), stride=2, output_padding=1, output_size=[12]
        ),
        ValueError,
        "output_padding and output_size exclude each other",
    ),
    # patches
    (lambda F, ones: F.unfold(ones(1, 2, 6, 7), 8), ValueError, "it spans 8 samples (8 taps at"),
    (
        lambda F, ones: F.unfold(ones(2, 1, 2, 6, 7), 3),
        ValueError,
        "torch.unfold: input must be (N, C, H, W), or (C, H, W) without a batch",
    ),
    (lambda F, ones: F.unfold(ones(1, 2, 6, 7), 3, padding=-1), ValueError, "padding must be >= 0"),
    (lambda F, ones: F.unfold(ones(1, 2, 6, 7), 3, 0), ValueError, "dilation must be >= 1, got 0"),
    (
        lambda F, ones: F.unfold(ones(1, 2, 6, 7), (3, 3), stride=(1, 1, 1)),
        ValueError,
        "stride must be an integer or 2 of them",
    ),
    (
        lambda F, ones: F.fold(ones(2, 36, 4), 5, 3),
        ValueError,
        "input must have 9 windows, 3 x 3, for output_size (5, 5), got 4 in shape (2, 36, 4)",
    ),
    (
        lambda F, ones: F.fold(ones(2, 35, 4), 4, 3),
        ValueError,
        "input must be (N, C prod(kernel_size), L), or without N, with prod(kernel_size) = 9, got",
    ),
    (lambda F, ones: F.fold(ones(2, 36, 4), 0, 3), ValueError, "output_size must be >= 1, got 0"),
    (
        lambda F, ones: F.pixel_shuffle(ones(5, 2, 2), 2),
        ValueError,
        "upscale_factor squared must divide the channels of input, got 2 and 5",
    ),
    (lambda F, ones: F.pixel_shuffle(ones(4, 2, 2), 0), ValueError, "upscale_factor must be >= 1"),
    (
        lambda F, ones: F.pixel_shuffle(ones(4, 2, 2), (2, 2)),
        TypeError,
        "must be an integer, got (",
    ),
    (
        lambda F, ones: F.pixel_shuffle(ones(4, 2), 2),
        ValueError,
        "must have channels, rows and col",
    ),
    (
        lambda F, ones: F.pixel_unshuffle(ones(1, 3, 4), 2),
        ValueError,
        "downscale_factor must divide the sizes of input, got 2 and (3, 4)",
    ),
    # pooling
    (
        lambda F, ones: F.max_pool2d(ones(1, 2, 6, 7), 3, padding=2, dilation=2),
        ValueError,
        "padding must be at most half of kernel_size 3 on spatial axis 0, got 2",
    ),
    (lambda F, ones: F.avg_pool1d(ones(2, 6), 2, padding=-1), ValueError, "padding must be >= 0"),
    (lambda F, ones: F.avg_pool1d(ones(2, 6), 7), ValueError, "it spans 7 samples (7 taps at"),
    (lambda F, ones: F.max_pool1d(ones(2, 6), 3, dilation=3), ValueError, "spans 7 samples"),
    (lambda F, ones: F.max_pool1d(ones(2, 6), 0), ValueError, "kernel_size must be >= 1, got 0"),
    (lambda F, ones: F.max_pool1d(ones(2, 6), 2, 0), ValueError, "stride must be >= 1, got 0"),
    (lambda F, ones: F.max_pool1d(ones(6), 2), ValueError, "input must be (N, C, W), or (C, W)"),
    (lambda F, ones: F.avg_pool2d(ones(2, 0, 6, 7), 2), ValueError, "input must have channels"),
    (lambda F, ones: F.max_pool2d(ones(2, 1, 0, 7), 2), ValueError, "must have samples on every"),
    (
        lambda F, ones: F.avg_pool2d(ones(1, 6, 7, dtype="int32"), 2),
        TypeError,
        "input must hold floating-point numbers, got dtype int32",
    ),
    (
        lambda F, ones: F.avg_pool2d(ones(1, 6, 7), 2, divisor_override=0),
        ValueError,
        "divisor_override must not be 0",
    ),
]
TAKEN = ["value must fit the dtype of input, int32, got 1.5"]  # it stands there as 1
refusals = pytest.mark.parametrize(
    ("call", "kind", "text"), REFUSALS, ids=[text for *_, text in REFUSALS]
)


@refusals
def test_refusal(call, kind, text):
    with pytest.raises(kind) as caught:
        call(torch, lambda *shape, dtype="float64": jnp.ones(shape, dtype))
    assert text in str(caught.value)
    assert str(caught.value).startswith("torch.")


def test_pytorch_refuses_the_same():
    pytorch = pytest.importorskip("torch")

    def ones(*shape, dtype="float64"):
        return pytorch.ones(shape, dtype=getattr(pytorch, dtype))

    taken = []
    for call, _, text in REFUSALS:
        try:
            call(pytorch.nn.functional, ones)
        except (RuntimeError, TypeError, ValueError, IndexError):
            continue
        taken.append(text)
    assert taken == TAKEN
