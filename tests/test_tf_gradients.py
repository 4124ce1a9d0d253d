"""tf.nn's gradients by name: those that JAX derives from the convolutions' own twins, exactly."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdil
from jaxdil import tf

PAIRS = [[0, 0], [1, 2], [0, 3], [0, 0]]
WINDOWS = [
    (1, (1, 2), "SAME", "NHWC"),
    (2, (1, 1), PAIRS, "NHWC"),
    ([1, 1, 2, 3], [1, 1, 2, 1], "VALID", "NCHW"),
]


def integers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 4, shape), jnp.float32)


def image(letters):
    return integers(0, *((2, 4, 8, 9) if letters == "NCHW" else (2, 8, 9, 4)))


@pytest.mark.parametrize(("strides", "rates", "padding", "letters"), WINDOWS)
def test_gradients_of_conv2d(strides, rates, padding, letters):
    x, w = image(letters), integers(1, 3, 2, 2, 6)  # two groups
    y, vjp = jax.vjp(lambda x, w: tf.conv2d(x, w, strides, padding, letters, rates), x, w)
    g = integers(2, *y.shape)
    dx, dw = vjp(g)
    options = {"data_format": letters, "dilations": rates}
    by_input = tf.conv2d_backprop_input(list(x.shape), w, g, strides, padding, **options)
    by_filter = tf.conv2d_backprop_filter(x, np.array(w.shape), g, strides, padding, **options)
    np.testing.assert_array_equal(by_input, dx)
    np.testing.assert_array_equal(by_filter, dw)


@pytest.mark.parametrize(("strides", "rates", "padding", "letters"), WINDOWS)
def test_gradients_of_a_depthwise_convolution(strides, rates, padding, letters):
    """Of the uniform one, which TensorFlow's is only where the stride or the rate is 1."""
    x, w = image(letters), integers(1, 3, 2, 4, 2)
    axes = slice(2, 4) if letters == "NCHW" else slice(1, 3)
    uniform = {
        "stride": strides[axes] if isinstance(strides, list) else strides,
        "dilation": rates[axes] if isinstance(rates, list) else rates,
        "padding": padding if isinstance(padding, str) else padding[1:3],
        "data_format": letters,
    }
    y, vjp = jax.vjp(lambda x, w: jaxdil.depthwise_conv(x, w, **uniform), x, w)
    g = integers(2, *y.shape)
    dx, dw = vjp(g)
    options = {"data_format": letters, "dilations": rates}
    by_input = tf.depthwise_conv2d_backprop_input(x.shape, w, g, strides, padding, **options)
    by_filter = tf.depthwise_conv2d_backprop_filter(x, w.shape, g, strides, padding, **options)
    np.testing.assert_array_equal(by_input, dx)
    np.testing.assert_array_equal(by_filter, dw)


def test_conv_transpose_is_the_one_of_its_rank():
    sizes = {1: (5,), 2: (5, 4), 3: (2, 3, 4)}
    for rank, own in enumerate([tf.conv1d_transpose, tf.conv2d_transpose, tf.conv3d_transpose], 1):
        x, w = integers(0, 1, *sizes[rank], 4), integers(1, *(3, 2, 1)[:rank], 3, 4)
        out = (1, *(2 * n for n in sizes[rank]), 3)
        np.testing.assert_array_equal(
            tf.conv_transpose(x, w, out, 2, dilations=1), own(x, w, out, 2)
        )


X, W, G = jnp.ones((1, 6, 7, 4)), jnp.ones((3, 3, 4, 5)), jnp.ones((1, 3, 4, 5))
D, H = jnp.ones((3, 3, 4, 2)), jnp.ones((1, 3, 4, 8))
REFUSALS = [
    (
        tf.conv2d_backprop_input,
        ((6, 7), W, G),
        "input_sizes must be a shape of 4 sizes, got (6, 7)",
    ),
    (
        tf.conv2d_backprop_input,
        ("NHWC", W, G),
        "input_sizes must be a shape of 4 sizes, got 'NHWC'",
    ),
    (tf.conv2d_backprop_input, ((1, 6, 7, 3), W, G), "input_sizes has 3 channels, which is no"),
    (tf.conv2d_backprop_input, ((1, 6, 7, -4), W, G), "input_sizes[3] must be >= 0, got -4"),
    (tf.conv2d_backprop_input, ((1, 6, 9, 4), W, G), "conv_input_grad: g must "),
    (tf.conv2d_backprop_input, (X.shape, W, G[0]), "out_backprop must have 4 axes"),
    (tf.conv2d_backprop_filter, (X, (3, 4, 5), G), "filter_sizes must be a shape of 4 sizes"),
    (tf.conv2d_backprop_filter, (X, (3, 3, 3, 5), G), "which is no multiple of the 3 of filter_si"),
    (tf.conv2d_backprop_filter, (X, (3, 3, 4, 6), G), "conv_kernel_grad: g must "),
    (
        tf.depthwise_conv2d_backprop_input,
        ((1, 6, 7, 3), D, H),
        "filter must be (KH, KW, C, M) with C = 3, the channels of input_sizes, got (3, 3, 4, 2)",
    ),
    (
        tf.depthwise_conv2d_backprop_filter,
        (X, (3, 3, 2, 4), H),
        "filter_sizes must be (KH, KW, C, M) with C = 4, the channels of input, got (3, 3, 2, 4)",
    ),
]


@pytest.mark.parametrize(("function", "arrays", "text"), REFUSALS, ids=[t for *_, t in REFUSALS])
def test_refusal(function, arrays, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        function(*arrays, 2, "SAME")


def test_conv_transpose_needs_a_whole_output_shape():
    for shape in [(9, 9), 9, "NHWC"]:
        with pytest.raises(ValueError, match=r"tf.conv_transpose: output_shape must be a shape of"):
            tf.conv_transpose(G, jnp.ones((3, 3, 4, 5)), shape, 2)


def test_a_stride_with_a_rate_is_uniform():
    """The first taps of a depthwise kernel, read from the gradient: rows 0, 4, 8 and 12."""
    rows = itertools.count()
    w = jnp.zeros((4, 1, 1, 1)).at[0].set(1)
    dx = tf.depthwise_conv2d_backprop_input(
        (1, 24, 1, 1), w, jnp.ones((1, 4, 1, 1)), [4, 1], "VALID", dilations=[3, 1]
    )
    assert [row for row, hit in zip(rows, dx.ravel().tolist(), strict=False) if hit] == [
        0,
        4,
        8,
        12,
    ]
