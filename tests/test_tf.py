"""jaxdil.tf: each twin against the definition, its signature against TensorFlow's, refusals."""

import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_bilinear, assert_conv, assert_input_grad
from jax.test_util import check_grads

import jaxdil
from jaxdil import reference, tf


def ints(seed, *shape, dtype=np.float32):
    """Small integers, so that every order of summation gives the same result."""
    return jnp.asarray(np.random.default_rng(seed).integers(-4, 5, shape), dtype)


def same(n, k, r, s):
    """TensorFlow's SAME: ceil(n / s) outputs, the odd sample at the end."""
    total = max((math.ceil(n / s) - 1) * s + (k - 1) * r + 1 - n, 0)
    return total // 2, total - total // 2


def pads_of(padding, sizes, taps, rates, strides):
    """Pairs for the spatial axes, worked out apart from the library."""
    if padding == "VALID":
        return [(0, 0)] * len(sizes)
    if padding == "SAME":
        return [same(*axis) for axis in zip(sizes, taps, rates, strides, strict=True)]
    return [tuple(pair) for pair in padding[1:-1]]


def first(x):
    """Channels first, from channels last."""
    return jnp.moveaxis(x, -1, 1)


# --- signatures -----------------------------------------------------------------------------------

# As `inspect.signature` prints them in TensorFlow 2.21, but for [1, 1, 1, 1], a default that can be
# written to.
SIGNATURES = {
    "atrous_conv2d": "value, filters, rate, padding, name=None",
    "atrous_conv2d_transpose": "value, filters, output_shape, rate, padding, name=None",
    "avg_pool": "input, ksize, strides, padding, data_format=None, name=None",
    "avg_pool1d": "input, ksize, strides, padding, data_format='NWC', name=None",
    "avg_pool2d": "input, ksize, strides, padding, data_format='NHWC', name=None",
    "avg_pool3d": "input, ksize, strides, padding, data_format='NDHWC', name=None",
    "batch_to_space_nd": "input, block_shape, crops, name=None",
    "conv1d": "input, filters, stride, padding, data_format='NWC', dilations=None, name=None",
    "conv1d_transpose": "input, filters, output_shape, strides, padding='SAME', data_format='NWC', "
    "dilations=None, name=None",
    "conv2d": "input, filters, strides, padding, data_format='NHWC', dilations=None, name=None",
    "conv2d_transpose": "input, filters, output_shape, strides, padding='SAME', "
    "data_format='NHWC', dilations=None, name=None",
    "conv2d_backprop_filter": "input, filter_sizes, out_backprop, strides, padding, "
    "use_cudnn_on_gpu=True, data_format='NHWC', dilations=(1, 1, 1, 1), name=None",
    "conv2d_backprop_input": "input_sizes, filter, out_backprop, strides, padding, "
    "use_cudnn_on_gpu=True, data_format='NHWC', dilations=(1, 1, 1, 1), name=None",
    "conv3d": "input, filters, strides, padding, data_format='NDHWC', dilations=None, name=None",
    "conv3d_transpose": "input, filters, output_shape, strides, padding='SAME', "
    "data_format='NDHWC', dilations=None, name=None",
    "conv_transpose": "input, filters, output_shape, strides, padding='SAME', data_format=None, "
    "dilations=None, name=None",
    "convolution": "input, filters, strides=None, padding='VALID', data_format=None, "
    "dilations=None, name=None",
    "depth_to_space": "input, block_size, data_format='NHWC', name=None",
    "depthwise_conv2d": "input, filter, strides, padding, data_format=None, dilations=None, "
    "name=None",
    "depthwise_conv2d_backprop_filter": "input, filter_sizes, out_backprop, strides, padding, "
    "data_format='NHWC', dilations=(1, 1, 1, 1), name=None",
    "depthwise_conv2d_backprop_input": "input_sizes, filter, out_backprop, strides, padding, "
    "data_format='NHWC', dilations=(1, 1, 1, 1), name=None",
    "dilation2d": "input, filters, strides, padding, data_format, dilations, name=None",
    "erosion2d": "value, filters, strides, padding, data_format, dilations, name=None",
    "extract_patches": "images, sizes, strides, rates, padding, name=None",
    "max_pool": "input, ksize, strides, padding, data_format=None, name=None",
    "max_pool1d": "input, ksize, strides, padding, data_format='NWC', name=None",
    "max_pool2d": "input, ksize, strides, padding, data_format='NHWC', name=None",
    "max_pool3d": "input, ksize, strides, padding, data_format='NDHWC', name=None",
    "pool": "input, window_shape, pooling_type, strides=None, padding='VALID', data_format=None, "
    "dilations=None, name=None",
    "required_space_to_batch_paddings": "input_shape, block_shape, base_paddings=None, name=None",
    "separable_conv2d": "input, depthwise_filter, pointwise_filter, strides, padding, "
    "data_format=None, dilations=None, name=None",
    "space_to_batch_nd": "input, block_shape, paddings, name=None",
    "space_to_depth": "input, block_size, data_format='NHWC', name=None",
    "with_space_to_batch": "input, dilation_rate, padding, op, filter_shape=None, "
    "spatial_dims=None, data_format=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_is_tensorflows(name):
    every = inspect.signature(getattr(tf, name)).parameters.values()
    positional = [p.replace(annotation=p.empty) for p in every if p.kind != p.KEYWORD_ONLY]
    assert ", ".join(map(str, positional)) == SIGNATURES[name]
    more = [p.name for p in every if p.kind == p.KEYWORD_ONLY]
    # The name of `dilations` in TensorFlow 1, which tutorials use.
    assert more == (["rate"] if name in ("depthwise_conv2d", "separable_conv2d") else [])


def test_every_twin_is_exported():
    assert list(tf.__all__) == sorted(SIGNATURES)


# --- dense convolutions ---------------------------------------------------------------------------

CONVS = {
    1: (tf.conv1d, (2, 9, 4), (3, 4, 6), [[0, 0], [1, 3], [0, 0]]),
    2: (tf.conv2d, (2, 8, 7, 4), (3, 2, 4, 6), [[0, 0], [1, 2], [0, 3], [0, 0]]),
    3: (tf.conv3d, (1, 5, 6, 4, 2), (2, 3, 1, 2, 3), [[0, 0], [1, 0], [2, 1], [0, 0], [0, 0]]),
}
WINDOWS = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2)]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID", "pairs"])
@pytest.mark.parametrize("rank", CONVS)
def test_conv(rank, padding, window):
    function, x_shape, w_shape, pairs = CONVS[rank]
    stride, rate = window
    padding = pairs if padding == "pairs" else padding
    x, w = ints(0, *x_shape), ints(1, *w_shape)
    taps, sizes = w_shape[:-2], x_shape[1:-1]
    strides, rates = [stride] * rank, [rate] * rank
    pads = pads_of(padding, sizes, taps, rates, strides)
    y = function(x, w, stride, padding, dilations=rate)
    assert_conv(y, x, w, stride=stride, dilation=rate, padding=pads)

    turned = [padding[0], padding[-1], *padding[1:-1]] if padding is pairs else padding
    letters = ["NCW", "NCHW", "NCDHW"][rank - 1]
    z = function(first(x), w, [1, 1, *strides], turned, letters, [1, 1, *rates])
    np.testing.assert_array_equal(z, first(y))

    if stride == 1 or rate == 1:
        np.testing.assert_array_equal(tf.convolution(x, w, stride, padding, None, rate), y)


@pytest.mark.parametrize("rate", [1, 2, 3, (2, 3), [1, 2], np.int64(2)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [3, 0], [0, 0]]], ids=str)
def test_atrous_conv2d(rate, padding):
    x, w = ints(0, 2, 9, 8, 2), ints(1, 3, 2, 2, 3)
    rates = np.broadcast_to(rate, 2).tolist()
    pads = pads_of(padding, (9, 8), (3, 2), rates, (1, 1))
    assert_conv(tf.atrous_conv2d(x, w, rate, padding), x, w, dilation=rates, padding=pads)


@pytest.mark.parametrize(
    ("strides", "dilations"),
    [(2, None), ([2], None), ([2, 2], [1]), ([1, 2, 2, 1], [1, 1]), (np.array([2, 2]), 1)],
    ids=str,
)
def test_ways_to_write_strides_and_dilations(strides, dilations):
    x, w = ints(0, 1, 8, 7, 2), ints(1, 3, 3, 2, 3)
    y = tf.conv2d(x, w, strides, "same", dilations=dilations, name="ignored")
    np.testing.assert_array_equal(y, jaxdil.conv(x, w, stride=2))


def test_several_batch_axes_and_groups():
    x, w = ints(0, 2, 3, 6, 5, 4), ints(1, 3, 3, 2, 6)
    y = tf.conv2d(x, w, 1, "SAME")
    assert y.shape == (2, 3, 6, 5, 6)
    flat = x.reshape(6, 6, 5, 4)
    assert_conv(y.reshape(6, 6, 5, 6), flat, w, padding=[(1, 1)] * 2, groups=2)
    z = tf.convolution(x, w, padding="SAME", data_format="NHWC", dilations=2)
    assert_conv(
        z.reshape(6, 6, 5, 6), flat, w, padding=[(2, 2)] * 2, groups=2, dilation=2, out_dtype="f4"
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int32", "complex64"])
def test_dtypes(dtype):
    x, w = ints(0, 1, 6, 6, 2, dtype=dtype), ints(1, 3, 3, 2, 2, dtype=dtype)
    assert_conv(tf.conv2d(x, w, 1, "SAME"), x, w, padding=[(1, 1)] * 2)
    y = tf.depthwise_conv2d(x, w, 2, "VALID", rate=2)
    geometry = {"stride": 2, "rate": 2, "padding": 0}
    assert_bilinear(y, reference.tf_depthwise_conv, x, w, terms=9, **geometry)


def test_empty_batches_and_images():
    w = jnp.ones((3, 3, 4, 6))
    assert tf.conv2d(jnp.ones((0, 9, 10, 4)), w, 1, "VALID").shape == (0, 7, 8, 6)
    assert tf.conv2d(jnp.ones((1, 0, 5, 4)), w, 1, "SAME").shape == (1, 0, 5, 6)
    y = tf.depthwise_conv2d(jnp.ones((0, 9, 10, 4)), w, 2, "VALID", dilations=2)
    assert y.shape == (0, 3, 4, 24)


def test_numpy_arrays_are_taken():
    x, w = np.ones((1, 5, 5, 2), np.float32), np.ones((3, 3, 2, 4), np.float32)
    assert isinstance(tf.conv2d(x, w, 1, "SAME"), jax.Array)
    assert tf.depthwise_conv2d(x, w, 2, "SAME", rate=[2, 2]).shape == (1, 3, 3, 8)


# --- depthwise: stride with rate ------------------------------------------------------------------


def base_pads(padding, sizes, taps, rates, strides):
    """Padding by TensorFlow's rule: as for stride 1 on every axis as soon as one has a rate."""
    return pads_of(padding, sizes, taps, rates, strides if max(rates) == 1 else [1] * len(rates))


PAIRS = [[0, 0], [1, 2], [0, 1], [0, 0]]


@pytest.mark.parametrize("padding", ["SAME", "VALID", PAIRS], ids=str)
@pytest.mark.parametrize("rate", [1, 2, 3, 4])
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_depthwise_rule(taps, rate, padding):
    """Every size and stride; the other axis has another size, kernel, rate and stride."""
    calls, expected = [], []
    for n, stride in itertools.product(range((taps - 1) * rate + 1, 12), [1, 2, 3]):
        sizes, ks = (n, 12 - n // 2), (taps, 4 - taps)
        rates, strides = (rate, 1 + n % 2), (stride, 1 + (n + stride) % 3)
        x, w = ints(n, 1, *sizes, 1), ints(taps, *ks, 1, 2)
        pads = base_pads(padding, sizes, ks, rates, strides)
        calls.append((x, w, strides, padding, None, rates))
        geometry = {"stride": strides, "rate": rates, "padding": pads}
        expected.append(reference.tf_depthwise_conv(x, w, **geometry))
    # One program for all of them, which compiles faster than all of theirs.
    arrays, options = [call[:2] for call in calls], [call[2:] for call in calls]
    results = jax.jit(
        lambda arrays: [tf.depthwise_conv2d(*a, *o) for a, o in zip(arrays, options, strict=True)]
    )(arrays)
    for call, y, right in zip(calls, results, expected, strict=True):
        np.testing.assert_array_equal(
            y, right, err_msg=f"{call[0].shape} {call[1].shape} {call[2:]}"
        )


def test_depthwise_size_formula():
    """out = r m - extra, on the sizes that TensorFlow's users have asked about."""
    for n, k, r, s, size in [(24, 4, 3, 4, 6), (136, 3, 3, 2, 64), (12, 2, 2, 2, 6)]:
        x, w = jnp.ones((1, n, 1, 1)), jnp.ones((k, 1, 1, 1))
        assert tf.depthwise_conv2d(x, w, [1, s, 1, 1], "VALID", rate=[r, 1]).shape[1] == size
        extra = -n % r
        assert r * (((n + extra) // r - k) // s + 1) - extra == size


@pytest.mark.parametrize(("stride", "rate"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, (1, 2))], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_depthwise_layouts_and_channels(stride, rate, padding):
    x, w = ints(0, 2, 9, 8, 3), ints(1, 3, 2, 3, 2)
    rates = np.broadcast_to(rate, 2).tolist()
    pads = base_pads(padding, (9, 8), (3, 2), rates, [stride] * 2)
    y = tf.depthwise_conv2d(x, w, [1, stride, stride, 1], padding, dilations=rates)
    geometry = {"stride": stride, "rate": rates, "padding": pads}
    assert_bilinear(y, reference.tf_depthwise_conv, x, w, terms=6, **geometry)
    z = tf.depthwise_conv2d(first(x), w, [1, 1, stride, stride], padding, "NCHW", rates)
    np.testing.assert_array_equal(z, first(y))
    by_rate = tf.depthwise_conv2d(x, w, stride, padding, rate=[1, *rates, 1], name="ignored")
    np.testing.assert_array_equal(by_rate, y)

    mix = ints(2, 1, 1, 6, 5)
    mixed = tf.separable_conv2d(x, w, mix, stride, padding, None, rates)
    assert_conv(mixed, y, mix)
    turned = tf.separable_conv2d(first(x), w, mix, stride, padding, "NCHW", rate=rates)
    np.testing.assert_array_equal(turned, first(mixed))


def test_depthwise_without_both_is_the_uniform_one():
    x, w = ints(0, 1, 9, 8, 3), ints(1, 3, 2, 3, 2)
    for stride, rate in [(1, 3), (3, 1)]:
        y = tf.depthwise_conv2d(x, w, stride, "SAME", dilations=rate)
        uniform = jaxdil.depthwise_conv(x, w, stride=stride, dilation=rate)
        np.testing.assert_array_equal(y, uniform)


def test_depthwise_under_jit_and_grad():
    x, w = ints(0, 1, 7, 8, 2, dtype=np.float64), ints(1, 3, 2, 2, 1, dtype=np.float64)

    def f(x, w):
        return tf.depthwise_conv2d(x, w, [1, 2, 2, 1], "SAME", dilations=[2, 3])

    np.testing.assert_array_equal(jax.jit(f)(x, w), f(x, w))
    check_grads(f, (x, w), order=1, modes=("fwd", "rev"))


# --- transposed convolutions ----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [0, 0]]], ids=str)
def test_conv1d_transpose_at_every_size(padding, stride, rate):
    """Each output size is served by the one input size that it convolves to, and by no other."""
    k, w = 3, ints(1, 3, 2, 3)
    for size in range(1, 14):
        (pads,) = pads_of(padding, [size], [k], [rate], [stride])
        n = (size + sum(pads) - (k - 1) * rate - 1) // stride + 1
        if n < 1:
            continue
        x = ints(0, 2, n, 3)
        y = tf.conv1d_transpose(x, w, (2, size, 2), stride, padding, dilations=rate)
        geometry = {"stride": stride, "dilation": rate, "padding": [pads]}
        assert_input_grad(y, x, w, input_shape=size, **geometry)
        with pytest.raises(ValueError, match="output_shape must be"):
            tf.conv1d_transpose(ints(0, 2, n + 1, 3), w, [size], stride, padding, dilations=rate)


TRANSPOSES = {
    2: (tf.conv2d_transpose, (2, 3, 4, 6), (3, 2, 2, 6), (7, 10)),
    3: (tf.conv3d_transpose, (1, 2, 3, 2, 2), (2, 3, 1, 4, 2), (6, 7, 4)),
}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rank", TRANSPOSES)
def test_transpose_in_more_axes(rank, groups):
    function, x_shape, w_shape, size = TRANSPOSES[rank]
    strides = [-(-o // n) for o, n in zip(size, x_shape[1:-1], strict=True)]
    x, w = ints(0, *x_shape), ints(1, *w_shape)
    out = (x_shape[0], *size, groups * w_shape[-2])
    y = function(x, w, out, strides)
    pads = pads_of("SAME", size, w_shape[:-2], [1] * rank, strides)
    assert_input_grad(y, x, w, groups=groups, input_shape=size, stride=strides, padding=pads)
    letters = ["NCHW", "NCDHW"][rank - 2]
    turned = (out[0], out[-1], *out[1:-1])
    z = function(first(x), w, np.array(turned), [1, 1, *strides], "SAME", letters)
    np.testing.assert_array_equal(z, first(y))
    if groups == 1:
        np.testing.assert_array_equal(function(x, w, list(size), strides), y)


@pytest.mark.parametrize("rate", [1, 2, 3, (1, 2)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_atrous_conv2d_transpose_is_the_gradient(rate, padding):
    x, w = ints(0, 1, 8, 7, 2), ints(1, 3, 2, 2, 3)
    y, vjp = jax.vjp(lambda x: tf.atrous_conv2d(x, w, rate, padding), x)
    g = ints(2, *y.shape)
    transposed = tf.atrous_conv2d_transpose(g, w, x.shape, rate, padding)
    np.testing.assert_array_equal(transposed, vjp(g)[0])
    rates = np.broadcast_to(rate, 2).tolist()
    pads = pads_of(padding, (8, 7), (3, 2), rates, (1, 1))
    geometry = {"dilation": rates, "padding": pads}
    assert_input_grad(transposed, g, w, input_shape=(8, 7), **geometry)


# --- space to batch -------------------------------------------------------------------------------


def test_space_to_batch_nd_and_back():
    x = ints(0, 2, 5, 6, 3)
    paddings, crops = tf.required_space_to_batch_paddings(x.shape[1:3], [2, 4], [[1, 0], [0, 1]])
    assert paddings.dtype == crops.dtype == np.int32
    np.testing.assert_array_equal(paddings, [[1, 0], [0, 2]])
    np.testing.assert_array_equal(crops, [[0, 0], [0, 1]])
    y = tf.space_to_batch_nd(x, np.array([2, 4]), paddings, name="ignored")
    expected = reference.space_to_batch(x, block_shape=[2, 4], paddings=paddings.tolist())
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(tf.batch_to_space_nd(y, [2, 4], paddings), x)
    back = reference.batch_to_space(y, block_shape=[2, 4], crops=crops.tolist())
    np.testing.assert_array_equal(tf.batch_to_space_nd(y, (2, 4), crops), back)


def test_no_blocks_are_fine():
    paddings, crops = tf.required_space_to_batch_paddings([], [])
    assert paddings.shape == crops.shape == (0, 2)


@pytest.mark.parametrize("rates", [(1, 1), (2, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID", PAIRS], ids=str)
def test_with_space_to_batch_dilates_one_convolution(padding, rates):
    x, w = ints(0, 2, 9, 8, 2), ints(1, 3, 2, 2, 3)
    seen = []

    def op(x, rank, padding):
        seen.append((rank, padding))
        return tf.conv2d(x, w, 1, padding)

    y = tf.with_space_to_batch(x, rates, padding, op, w.shape)
    assert seen == [(2, padding if max(rates) == 1 else "VALID")]
    np.testing.assert_array_equal(y, tf.atrous_conv2d(x, w, rates, padding))


def test_with_space_to_batch_on_other_axes():
    x, w = ints(0, 2, 2, 9, 8), ints(1, 3, 2, 2, 3)

    def op(x, rank, padding):
        return tf.conv2d(x, w, 1, padding, "NCHW")

    y = tf.with_space_to_batch(x, [2, 3], "VALID", op, data_format="NCHW")
    np.testing.assert_array_equal(y, tf.conv2d(x, w, 1, "VALID", "NCHW", [2, 3]))
    np.testing.assert_array_equal(y, tf.with_space_to_batch(x, [2, 3], "VALID", op, None, [2, 3]))
    columns = tf.with_space_to_batch(x, [3], "VALID", op, spatial_dims=[3])
    np.testing.assert_array_equal(columns, tf.conv2d(x, w, 1, "VALID", "NCHW", [1, 3]))


@pytest.mark.parametrize(("size", "wrong"), [(8, 0), (9, 11)])
def test_with_space_to_batch_chains_as_wrongly_as_tensorflow(size, wrong):
    """TensorFlow's own advice: SAME inside the op, VALID outside. Its padding then fills up."""
    x, w = jnp.ones((1, size, size, 1)), jnp.ones((3, 3, 1, 1))
    chained = tf.with_space_to_batch(
        x, [2, 2], "VALID", lambda x, *_: tf.conv2d(tf.conv2d(x, w, 1, "SAME"), w, 1, "SAME")
    )
    right = tf.atrous_conv2d(tf.atrous_conv2d(x, w, 2, "SAME"), w, 2, "SAME")
    assert right.max() == {8: 64, 9: 81}[size]
    assert jnp.abs(chained - right).max() == wrong


# --- refusals -------------------------------------------------------------------------------------

X, W = jnp.ones((1, 6, 7, 2)), jnp.ones((3, 3, 2, 4))
X1, W1 = jnp.ones((1, 6, 2)), jnp.ones((3, 2, 4))
Y, V = jnp.ones((1, 5, 5, 4)), jnp.ones((3, 3, 2, 4))


def identity(x, *_):
    return x


REFUSALS = [
    # sizes that cannot be: TensorFlow 2.21 returns memory that nobody wrote
    (lambda: tf.atrous_conv2d(X, W, 3, "VALID"), ValueError, "it spans 7 samples (3 taps at dil"),
    (
        lambda: tf.conv2d(X, W, 1, "VALID", dilations=3),
        ValueError,
        "tf.conv2d: the kernel does not",
    ),
    (
        lambda: tf.convolution(X1, W1, dilations=3),
        ValueError,
        "tf.convolution: the kernel does not",
    ),
    (lambda: tf.depthwise_conv2d(X, W, 2, "VALID", rate=3), ValueError, "2d: the kernel does not"),
    (lambda: tf.conv2d(X[:, :0], W, 1, "VALID"), ValueError, "the input has 0"),
    # rates and strides
    (lambda: tf.atrous_conv2d(X, W, 0, "SAME"), ValueError, "rate must be >= 1, got 0"),
    (lambda: tf.atrous_conv2d(X, W, 2.7, "SAME"), TypeError, "rate must be an integer, got 2.7"),
    (lambda: tf.atrous_conv2d(X, W, "2", "SAME"), TypeError, "rate must be an integer, got '2'"),
    (lambda: tf.atrous_conv2d(X, W, True, "SAME"), TypeError, "rate must be an integer, got True"),
    (lambda: tf.conv2d(X, W, 0, "SAME"), ValueError, "strides must be >= 1, got 0"),
    (lambda: tf.conv2d(X, W, [1, 0], "SAME"), ValueError, "strides[1] must be >= 1, got 0"),
    (lambda: tf.conv1d(X1, W1, 0, "SAME"), ValueError, "stride must be >= 1, got 0"),
    (lambda: tf.conv1d(X1, W1, [1, 1], "SAME"), ValueError, "a list of 1 or 3, got 2: [1, 1]"),
    (lambda: tf.conv2d(X, W, [1, 1, 1], "SAME"), ValueError, "a list of 1, 2 or 4, got 3"),
    (lambda: tf.conv2d(X, W, [2, 1, 1, 1], "SAME"), ValueError, "strides must be 1 on the batch"),
    (
        lambda: tf.conv2d(X, W, 1, "SAME", dilations=[1, 2, 2, 2]),
        ValueError,
        "dilations must be 1 on the batch and the channel axis, got [1, 2, 2, 2]",
    ),
    (lambda: tf.depthwise_conv2d(X, W, 1, "SAME", rate=[2]), ValueError, "a list of 2 or 4, got 1"),
    (
        lambda: tf.depthwise_conv2d(X, W, 1, "SAME", dilations=[2, 2], rate=[2, 2]),
        ValueError,
        "dilations and rate are one argument",
    ),
    (
        lambda: tf.convolution(X, W, 2, dilations=2),
        ValueError,
        "strides > 1 and dilations > 1 excl",
    ),
    # ranks, on some of which TensorFlow 2.21 ends the process
    (lambda: tf.conv2d(X[0], W, 1, "SAME"), ValueError, "A single image needs a batch axis: input"),
    (lambda: tf.conv2d(X, W[0], 1, "SAME"), ValueError, "filters must have 4 axes, 2 of them spat"),
    (lambda: tf.depthwise_conv2d(X[None], W, 1, "SAME"), ValueError, "input must have 4 axes"),
    (lambda: tf.convolution(X, W[0]), ValueError, "input must have 3 axes"),
    (lambda: tf.convolution(X, W[0, 0]), ValueError, "filters must have 1, 2 or 3 spatial axes"),
    (lambda: tf.conv2d_transpose(Y[0], V, [5, 5], 1), ValueError, "input must have 4 axes"),
    # padding and layout
    (lambda: tf.conv2d(X, W, 1, "SAME_LOWER"), ValueError, "padding must be 'SAME', 'VALID' or a"),
    (lambda: tf.conv2d(X, W, 1, [(1, 1), (1, 1)]), ValueError, "for each axis of NHWC, got [(1,"),
    (lambda: tf.conv2d(X, W, 1, 1), ValueError, "padding must have one pair (before, after)"),
    (
        lambda: tf.conv2d(X, W, 1, [[0, 0], [1, 1], [1, 1], [1, 1]]),
        ValueError,
        "padding must be [0, 0] on the batch and the channel axis of NHWC",
    ),
    (
        lambda: tf.conv2d(X, W, 1, [[0, 0], [-1, 1], [1, 1], [0, 0]]),
        ValueError,
        "padding must be >= 0, got -1",
    ),
    (lambda: tf.conv2d(X, W, 1, "SAME", "NWC"), ValueError, "must be 'NHWC' or 'NCHW', got 'NWC'"),
    # channels and dtypes
    (lambda: tf.conv2d(X, W[:, :, :0], 1, "SAME"), ValueError, "input has 2 channels, which is no"),
    (
        lambda: tf.conv2d(X, jnp.ones((3, 3, 3, 4)), 1, "SAME"),
        ValueError,
        "input has 2 channels, which is no multiple of the 3 of filters",
    ),
    (
        lambda: tf.conv2d(jnp.ones((1, 6, 7, 4)), W[..., :3], 1, "SAME"),
        ValueError,
        "groups must divide the 3 output channels",
    ),
    (
        lambda: tf.depthwise_conv2d(X, jnp.ones((3, 3, 1, 4)), 1, "SAME"),
        ValueError,
        "filter must be (KH, KW, C, M) with C = 2",
    ),
    (
        lambda: tf.separable_conv2d(X, W, jnp.ones((3, 3, 8, 4)), 1, "SAME"),
        ValueError,
        "pointwise_filter must be (1, 1, C M, O)",
    ),
    (
        lambda: tf.separable_conv2d(X, W, jnp.ones((1, 1, 9, 4)), 1, "SAME"),
        ValueError,
        "the depthwise part has 8 channels, which is no multiple of the 9",
    ),
    (
        lambda: tf.conv2d(X, W.astype(np.float32), 1, "SAME"),
        TypeError,
        "input and filters must have one dtype",
    ),
    (lambda: tf.conv2d([[1.0]], W, 1, "SAME"), TypeError, "input must be an array, got list"),
    # transposed convolutions
    (
        lambda: tf.conv2d_transpose(Y, V, [1, 11, 9, 2], 2),
        ValueError,
        "output_shape must be 9 to 10 on spatial axis 0, got 11",
    ),
    (
        lambda: tf.conv2d_transpose(Y, V, [1, 11, 13, 2], 2, "VALID"),
        ValueError,
        "output_shape must be 11 to 12 on spatial axis 1, got 13",
    ),
    (
        lambda: tf.atrous_conv2d_transpose(Y, V, [1, 5, 6, 2], 2, "SAME"),
        ValueError,
        "output_shape must be 5 on spatial axis 1, got 6",
    ),
    (lambda: tf.conv2d_transpose(Y, V, [2, 9, 9, 2], 2), ValueError, "keep the batch of 1, got 2"),
    (lambda: tf.conv2d_transpose(Y, V, [9, 9, 2], 2), ValueError, "must have 4 entries, or the 2"),
    (lambda: tf.conv2d_transpose(Y, V, 9, 2), ValueError, "must have 4 entries, or the 2 spatial"),
    (lambda: tf.conv2d_transpose(Y, V, [9.0, 9], 2), TypeError, "output_shape[0] must be an integ"),
    (
        lambda: tf.conv2d_transpose(Y, V, [1, 9, 9, 3], 2),
        ValueError,
        "output_shape has 3 channels, which is no multiple of the 2 of filters",
    ),
    (
        lambda: tf.conv2d_transpose(Y, W[:, :, :, :3], [1, 9, 9, 2], 2),
        ValueError,
        "filters must be (*K, O, I) with I = 4",
    ),
    # space to batch
    (lambda: tf.space_to_batch_nd(X, [4, 1], [[0, 0]] * 2), ValueError, "must divide the padded"),
    (
        lambda: tf.space_to_batch_nd(X, [2, 0], [[0, 0]] * 2),
        ValueError,
        "block_shape[1] must be >=",
    ),
    (lambda: tf.space_to_batch_nd(X, 2, [[0, 0]]), ValueError, "block_shape must be a list of int"),
    (lambda: tf.space_to_batch_nd(X, [2], [[-1, 1]]), ValueError, "paddings must be >= 0, got -1"),
    (lambda: tf.space_to_batch_nd(X, [2], [0, 0]), ValueError, "paddings must be 1 pairs (before"),
    (lambda: tf.batch_to_space_nd(X, [2], [[0, 0]]), ValueError, "batch_to_space: "),
    (lambda: tf.batch_to_space_nd(X, [1], [[4, 3]]), ValueError, "batch_to_space: crops[0] must "),
    (
        lambda: tf.required_space_to_batch_paddings([5], [2, 2]),
        ValueError,
        "input_shape and block_shape must be equally long, got 1 and 2",
    ),
    (
        lambda: tf.with_space_to_batch(X, [2, 2], "SAME", identity),
        ValueError,
        "filter_shape must have at least 2 entries for 'SAME', got None",
    ),
    (
        lambda: tf.with_space_to_batch(X, [2, 2], "VALID", identity, None, [2, 1]),
        ValueError,
        "spatial_dims must be 2 axes >= 1 in increasing order",
    ),
    (
        lambda: tf.with_space_to_batch(X, [2, 2], "VALID", identity, None, [3, 4]),
        ValueError,
        "input must have more than 4 axes",
    ),
    (
        lambda: tf.with_space_to_batch(X, [2, 0], "VALID", identity),
        ValueError,
        "dilation_rate[1] must be >= 1, got 0",
    ),
    (
        lambda: tf.with_space_to_batch(X, [2, 2], "FULL", identity),
        ValueError,
        "padding must be 'SAME', 'VALID' or a list of pairs, got 'FULL'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), REFUSALS, ids=[text for *_, text in REFUSALS])
def test_refusal(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
