"""The oracle itself: against arithmetic done by hand, SciPy, lax, and its own adjoints.

Every array here holds small integers, so every comparison is exact and no tolerance is needed.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jaxdil import reference

# Geometry, x shape, w shape. The letters of the library: x (N, *S, C), w (*K, I, O).
CASES = {
    "plain": ({}, (2, 7, 1), (3, 1, 1)),
    "dense_2d": ({"padding": 1}, (2, 6, 5, 3), (3, 3, 3, 4)),
    "uneven_padding": ({"padding": [(2, 0), (0, 3)]}, (1, 6, 5, 2), (3, 2, 2, 3)),
    "stride_and_dilation": (
        {"stride": [2, 3], "dilation": [3, 2], "padding": [(3, 2), (1, 4)]},
        (2, 9, 8, 2),
        (3, 2, 2, 3),
    ),
    "groups": ({"groups": 2, "stride": 2, "padding": [(1, 2)]}, (2, 9, 4), (4, 2, 6)),
    "depthwise": ({"groups": 3, "dilation": [2, 1], "padding": 2}, (1, 6, 6, 3), (3, 3, 1, 6)),
    "three_axes": ({"dilation": [1, 2, 1], "stride": [1, 1, 2]}, (1, 3, 5, 4, 2), (2, 2, 3, 2, 2)),
    "crop": ({"padding": [(-1, -2), (-2, 1)], "stride": [1, 2]}, (2, 8, 8, 2), (3, 3, 2, 2)),
    "empty_output": ({"dilation": 4}, (2, 5, 2), (3, 2, 3)),
    "empty_batch": ({}, (0, 5, 2), (3, 2, 3)),
}
FORWARD_ONLY = {
    "input_dilation": (
        {"input_dilation": [2, 3], "padding": [(2, 1), (0, 3)], "dilation": [1, 2]},
        (2, 4, 3, 2),
        (3, 2, 2, 3),
    ),
    "input_dilation_crop": (
        {"input_dilation": 3, "padding": [(-1, -2)], "stride": 2},
        (2, 5, 2),
        (3, 2, 3),
    ),
    "batch_groups": ({"batch_groups": 2, "padding": 1, "stride": 2}, (6, 7, 3), (3, 3, 4)),
    "batch_groups_kernel_gradient": (
        {"batch_groups": 3, "dilation": 2, "padding": [(1, 0)]},
        (3, 9, 2),
        (4, 2, 3),
    ),
}
ALL = CASES | FORWARD_ONLY


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-9, 10, shape)


def case(name):
    geometry, x_shape, w_shape = ALL[name]
    return geometry, integers(*x_shape, seed=1), integers(*w_shape, seed=2)


# Hand-worked values.


def test_conv_one_axis():
    x = np.array([1, 2, 3, 4, 5]).reshape(1, 5, 1)
    w = np.array([1, 10, 100]).reshape(3, 1, 1)
    # 1 + 20 + 300, 2 + 30 + 400, 3 + 40 + 500: correlation, the kernel is not flipped
    assert reference.conv(x, w).ravel().tolist() == [321, 432, 543]
    # dilation 2: 1 + 10*3 + 100*5
    assert reference.conv(x, w, dilation=2).ravel().tolist() == [531]
    # stride 2, one zero at each end: 0 + 10 + 200, 2 + 30 + 400, 4 + 50 + 0
    assert reference.conv(x, w, stride=2, padding=1).ravel().tolist() == [210, 432, 54]
    # cropped to 2, 3, 4
    assert reference.conv(x, w, padding=-1).ravel().tolist() == [432]
    # uneven: 0 0 1 2 3 4 5 cropped by one at the end -> 0 0 1 2 3 4
    assert reference.conv(x, w, padding=[(2, -1)]).ravel().tolist() == [100, 210, 321, 432]


def test_conv_input_dilation():
    x = np.array([1, 2]).reshape(1, 2, 1)
    w = np.array([1, 10]).reshape(2, 1, 1)
    # 1 0 0 2: 1 + 0, 0 + 0, 0 + 20
    assert reference.conv(x, w, input_dilation=3).ravel().tolist() == [1, 0, 20]


def test_conv_two_axes():
    x = np.arange(9).reshape(1, 3, 3, 1)
    w = np.array([[1, 2], [3, 4]]).reshape(2, 2, 1, 1)
    # rows 0 1 2 / 3 4 5 / 6 7 8; first window 0*1 + 1*2 + 3*3 + 4*4 = 27, each step right adds 10
    # (the sum of w), each step down 30
    assert reference.conv(x, w)[0, :, :, 0].tolist() == [[27, 37], [57, 67]]
    # the four corners: 0*1 + 2*2 + 6*3 + 8*4
    assert reference.conv(x, w, dilation=2).ravel().tolist() == [54]


def test_conv_channels_and_groups():
    x = np.array([1, 2, 3, 4]).reshape(1, 1, 4)
    w = np.array([[1, 10, 100, 1000], [2, 20, 200, 2000]]).reshape(1, 2, 4)
    # outputs 0, 1 read channels 1, 2; outputs 2, 3 read channels 3, 4
    # 1*1 + 2*2, 1*10 + 2*20, 3*100 + 4*200, 3*1000 + 4*2000
    assert reference.conv(x, w, groups=2).ravel().tolist() == [5, 50, 1100, 11000]


def test_conv_batch_groups():
    x = np.array([1, 2, 3, 4]).reshape(4, 1, 1)
    w = np.array([10, 100]).reshape(1, 1, 2)
    # channel 0 reads batches 0, 1; channel 1 reads batches 2, 3
    assert reference.conv(x, w, batch_groups=2)[:, 0].tolist() == [[10, 300], [20, 400]]


def test_conv_transpose_by_hand():
    y = np.array([1, 2]).reshape(1, 2, 1)
    w = np.array([1, 10, 100]).reshape(3, 1, 1)
    # 1 10 100 at 0 and 2 20 200 at 2: they meet in 100 + 2
    full = reference.conv_transpose(y, w, input_shape=5, stride=2)
    assert full.ravel().tolist() == [1, 10, 102, 20, 200]
    # padding 1 drops the first and the last
    cropped = reference.conv_transpose(y, w, input_shape=3, stride=2, padding=1)
    assert cropped.ravel().tolist() == [10, 102, 20]
    # an input one longer is reached by no tap
    longer = reference.conv_transpose(y, w, input_shape=6, stride=2)
    assert longer.ravel().tolist() == [1, 10, 102, 20, 200, 0]


def test_conv_kernel_grad_by_hand():
    x = np.array([1, 2, 3, 4, 5]).reshape(1, 5, 1)
    g = np.array([1, 10]).reshape(1, 2, 1)
    # stride 2: tap t meets x[t] with 1 and x[t + 2] with 10
    grad = reference.conv_kernel_grad(x, g, kernel_shape=3, stride=2)
    assert grad.ravel().tolist() == [31, 42, 53]


def test_depthwise_channel_order():
    x = np.array([1, 2]).reshape(1, 1, 2)
    w = np.array([[10, 100, 1000], [1, 2, 3]]).reshape(1, 2, 3)
    # channel c * M + m: 1 * (10, 100, 1000), then 2 * (1, 2, 3)
    assert reference.depthwise_conv(x, w).ravel().tolist() == [10, 100, 1000, 2, 4, 6]


def test_separable_by_hand():
    x = np.array([[1, 10], [2, 20]]).reshape(1, 2, 2)
    depthwise = np.array([[1, 1], [1, 2]]).reshape(2, 2, 1)
    pointwise = np.array([[1, 3], [1, 0]]).reshape(1, 2, 2)
    # depthwise: 1 + 2 and 10 + 40; pointwise: 3 + 50 and 3 * 3
    assert reference.separable_conv(x, depthwise, pointwise).ravel().tolist() == [53, 9]


def test_space_to_batch_order():
    x = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    y = reference.space_to_batch(x, block_shape=[2, 3], paddings=[(0, 0), (0, 0)])
    assert y.shape == (12, 2, 2, 1)
    for phase, n in itertools.product(range(6), range(2)):
        expected = x[n, phase // 3 :: 2, phase % 3 :: 3]
        np.testing.assert_array_equal(y[phase * 2 + n], expected)


def test_dilate_kernel_by_hand():
    w = np.array([[1, 2], [3, 4]]).reshape(2, 2, 1, 1)
    dilated = reference.dilate_kernel(w, dilation=[3, 2])[:, :, 0, 0]
    assert dilated.tolist() == [[1, 0, 2], [0, 0, 0], [0, 0, 0], [3, 0, 4]]


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (np.int8, np.int64),
        (np.float16, np.float64),
        (jnp.bfloat16, np.float64),
        (np.float32, np.float64),
        (np.complex64, np.complex128),
    ],
)
def test_arithmetic_is_wide(dtype, wide):
    # 100 * 100 * 3 overflows int8 and has no exact bfloat16; (1+i)^2 = 2i is not conjugated
    x, w = np.full((1, 3, 1), 100, dtype), np.full((3, 1, 1), 100, dtype)
    y = reference.conv(x, w)
    assert y.dtype == wide
    assert y.item() == 30000
    if wide == np.complex128:
        unit = np.full((1, 1, 1), 1 + 1j, dtype)
        assert reference.conv(unit, unit).item() == 2j


def test_integers_wrap_without_warning():
    # 2 * 2**62 * 2 = 2**64, which is 0 modulo 2**64
    x = np.full((1, 2, 1), 2**62)
    assert reference.conv(x, np.full((2, 1, 1), 2)).item() == 0


# SciPy.


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv_is_scipy_correlate(rank, dilation):
    x, w = integers(*[7, 6, 5][:rank]), integers(*[3, 2, 3][:rank], seed=3)
    kernel = reference.dilate_kernel(w[..., None, None], dilation=dilation)[..., 0, 0]
    expected = signal.correlate(x, kernel, mode="valid", method="direct")
    actual = reference.conv(x[None, ..., None], w[..., None, None], dilation=dilation)
    np.testing.assert_array_equal(actual[0, ..., 0], expected)


@pytest.mark.parametrize(("mode", "pad"), [("valid", 0), ("same", 1), ("full", 2)])
def test_conv_is_scipy_convolve2d_flipped(mode, pad):
    x, w = integers(6, 7), integers(3, 3, seed=3)
    actual = reference.conv(x[None, ..., None], w[::-1, ::-1, None, None], padding=pad)
    np.testing.assert_array_equal(actual[0, ..., 0], signal.convolve2d(x, w, mode=mode))


@pytest.mark.parametrize("pad", [(0, 0), (2, 1), (0, 3), (-1, 0)])
def test_conv_is_numpy_correlate_for_every_small_geometry(pad):
    for n, k, s, r in itertools.product(range(1, 9), range(1, 4), range(1, 4), range(1, 4)):
        x, w = integers(n, seed=n), integers(k, seed=k + 50)
        padded = np.pad(x, np.maximum(pad, 0))[max(0, -pad[0]) :]
        kernel = reference.dilate_kernel(w[:, None, None], dilation=r).ravel()
        # np.correlate swaps its arguments when the kernel is the longer one
        fits = len(kernel) <= len(padded)
        expected = np.correlate(padded, kernel, "valid")[::s] if fits else []
        options = {"stride": s, "dilation": r, "padding": [pad]}
        actual = reference.conv(x[None, :, None], w[:, None, None], **options)
        np.testing.assert_array_equal(actual.ravel(), expected)


# lax.


def lax_conv(x, w, *, stride=1, dilation=1, input_dilation=1, padding=0, groups=1, batch_groups=1):
    """lax on float32: exact, since the operands are small integers."""
    rank = x.ndim - 2
    stride, dilation, input_dilation = (
        [v] * rank if isinstance(v, int) else v for v in (stride, dilation, input_dilation)
    )
    pads = [(padding, padding)] * rank if isinstance(padding, int) else list(padding)
    if any(p < 0 for pair in pads for p in pair):
        # XLA on a CPU reads out of bounds under negative padding (openxla/xla#48713): pad and crop
        # here, before the call.
        for axis, (d, (lo, hi)) in enumerate(zip(input_dilation, pads, strict=True), start=1):
            x = np.moveaxis(x, axis, 0)
            spread = np.zeros((d * (len(x) - 1) + 1, *x.shape[1:]), x.dtype)
            spread[::d] = x
            spread = spread[max(0, -lo) : len(spread) - max(0, -hi)]
            ends = [(max(0, lo), max(0, hi)), *[(0, 0)] * (x.ndim - 1)]
            x = np.moveaxis(np.pad(spread, ends), 0, axis)
        pads, input_dilation = [(0, 0)] * rank, [1] * rank
    letters = "".join("DHW"[-rank:])
    return jax.lax.conv_general_dilated(
        jnp.asarray(x, np.float32),
        jnp.asarray(w, np.float32),
        window_strides=stride,
        padding=pads,
        lhs_dilation=input_dilation,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=groups,
        batch_group_count=batch_groups,
        precision=jax.lax.Precision.HIGHEST,
    )


@pytest.mark.parametrize("name", ALL)
def test_conv_is_lax(name):
    geometry, x, w = case(name)
    np.testing.assert_array_equal(reference.conv(x, w, **geometry), lax_conv(x, w, **geometry))


# Without "crop", which lax_conv does in numpy: test_adjoints has it.
@pytest.mark.parametrize("name", [n for n in CASES if n != "crop" and not n.startswith("empty")])
def test_gradients_are_those_of_lax(name):
    geometry, x, w = case(name)
    x, w = x.astype(np.float32), w.astype(np.float32)
    y, pullback = jax.vjp(lambda x, w: lax_conv(x, w, **geometry), x, w)
    g = integers(*y.shape, seed=4).astype(np.float32)
    dx = reference.conv_transpose(g, w, input_shape=x.shape[1:-1], **geometry)
    dw = reference.conv_kernel_grad(x, g, kernel_shape=w.shape[:-2], **geometry)
    for actual, expected in zip((dx, dw), pullback(g), strict=True):
        np.testing.assert_array_equal(actual, expected)


# Identities.


@pytest.mark.parametrize("name", CASES)
def test_adjoints(name):
    geometry, x, w = case(name)
    y = reference.conv(x, w, **geometry)
    g = integers(*y.shape, seed=4)
    dx = reference.conv_transpose(g, w, input_shape=x.shape[1:-1], **geometry)
    dw = reference.conv_kernel_grad(x, g, kernel_shape=w.shape[:-2], **geometry)
    assert dx.shape == x.shape
    assert dw.shape == w.shape
    assert (y * g).sum() == (x * dx).sum() == (w * dw).sum()


@pytest.mark.parametrize("name", ["plain", "dense_2d", "stride_and_dilation", "three_axes"])
def test_depthwise_is_a_grouped_conv(name):
    geometry, x, _ = case(name)
    taps = ALL[name][2][:-2]
    w = integers(*taps, x.shape[-1], 2, seed=5)
    grouped = w.reshape(*taps, 1, 2 * x.shape[-1])
    np.testing.assert_array_equal(
        reference.depthwise_conv(x, w, **geometry),
        reference.conv(x, grouped, groups=x.shape[-1], **geometry),
    )


def test_dilation_is_a_conv_with_the_dilated_kernel():
    x, w = integers(2, 9, 8, 2), integers(3, 2, 2, 3, seed=3)
    dilated = reference.dilate_kernel(w, dilation=[2, 3])
    options = {"stride": [1, 2], "padding": [(1, 2), (3, 0)]}
    np.testing.assert_array_equal(
        reference.conv(x, w, dilation=[2, 3], **options), reference.conv(x, dilated, **options)
    )


@pytest.mark.parametrize("block", [(1, 1), (2, 1), (2, 3), (3,)])
@pytest.mark.parametrize("pad", [(0, 0), (1, 2), (4, 0)])
def test_batch_to_space_inverts_space_to_batch(block, pad):
    x = integers(2, 5, 4, 3)
    pads = [(pad[0], pad[1] + -(n + sum(pad)) % b) for n, b in zip((5, 4), block, strict=False)]
    phases = reference.space_to_batch(x, block_shape=block, paddings=pads)
    back = reference.batch_to_space(phases, block_shape=block, crops=pads)
    assert phases.dtype == back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)


def test_space_to_batch_refuses_a_block_that_does_not_divide():
    with pytest.raises(ValueError, match="must divide the padded sizes"):
        reference.space_to_batch(integers(1, 5), block_shape=[2], paddings=[(0, 0)])


# TensorFlow's depthwise rule.


@pytest.mark.parametrize(("stride", "rate"), [(1, 1), (1, 3), (2, 1), ([3, 2], 1), (1, [2, 1])])
@pytest.mark.parametrize("padding", [0, [(1, 2), (0, 3)]])
def test_tf_depthwise_is_uniform_where_stride_or_rate_is_one(stride, rate, padding):
    x, w = integers(2, 9, 8, 2), integers(3, 2, 2, 2, seed=3)
    np.testing.assert_array_equal(
        reference.tf_depthwise_conv(x, w, stride=stride, rate=rate, padding=padding),
        reference.depthwise_conv(x, w, stride=stride, dilation=rate, padding=padding),
    )


@pytest.mark.parametrize(
    ("n", "k", "r", "s", "tf", "uniform"), [(24, 4, 3, 4, 6, 4), (136, 3, 3, 2, 64, 65)]
)
def test_tf_depthwise_size_differs_from_uniform(n, k, r, s, tf, uniform):
    x, w = integers(1, n, 1), integers(k, 1, 1)
    assert reference.tf_depthwise_conv(x, w, stride=s, rate=r).shape == (1, tf, 1)
    assert reference.depthwise_conv(x, w, stride=s, dilation=r).shape == (1, uniform, 1)


def test_tf_depthwise_first_tap_rows():
    # 3 phases of 24 rows, stride 4 inside each: rows 0, 1, 2, then 3 * 4 further
    x, w = np.arange(24).reshape(1, 24, 1), np.array([1, 0, 0, 0]).reshape(4, 1, 1)
    y = reference.tf_depthwise_conv(x, w, stride=4, rate=3)
    assert y.ravel().tolist() == [0, 1, 2, 12, 13, 14]


@pytest.mark.parametrize("padding", [0, (1, 0), (2, 3)])
def test_tf_depthwise_is_a_strided_conv_of_every_phase(padding):
    lo, hi = (padding, padding) if isinstance(padding, int) else padding
    for n, k, s, r in itertools.product(range(6, 13), range(1, 4), range(1, 4), range(1, 4)):
        x, w = integers(2, n, 2, seed=n), integers(k, 2, 2, seed=k + 50)
        if (extra := -(n + lo + hi) % r) + n + lo + hi < r * k:
            continue  # no window fits into a phase; TensorFlow refuses
        phases = reference.space_to_batch(x, block_shape=[r], paddings=[(lo, hi + extra)])
        convolved = reference.depthwise_conv(phases, w, stride=s)
        if convolved.shape[1] * r < extra:
            continue
        expected = reference.batch_to_space(convolved, block_shape=[r], crops=[(0, extra)])
        actual = reference.tf_depthwise_conv(x, w, stride=s, rate=r, padding=[(lo, hi)])
        np.testing.assert_array_equal(actual, expected)


def test_module_exports_its_functions():
    functions = {
        name
        for name, value in vars(reference).items()
        if callable(value) and getattr(value, "__module__", "") == reference.__name__
    }
    assert {name for name in functions if not name.startswith("_")} == set(reference.__all__)


def test_groups_and_batch_groups_are_one_or_the_other():
    with pytest.raises(ValueError, match="cannot both be more than 1: 2, 4"):
        reference.conv(np.ones((4, 5, 2)), np.ones((3, 1, 4)), groups=2, batch_groups=4)
