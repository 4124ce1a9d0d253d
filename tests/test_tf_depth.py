"""tf.nn's and tf.image's functions between space and channels, by their definitions in loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdil import tf

X = jnp.arange(2 * 6 * 4 * 3).reshape(2, 6, 4, 3)


def test_space_to_depth_and_back():
    y = tf.space_to_depth(X, 2)
    assert y.shape == (2, 3, 2, 12)
    for n, i, j, c in np.ndindex(X.shape):
        assert y[n, i // 2, j // 2, (i % 2 * 2 + j % 2) * 3 + c] == X[n, i, j, c]
    np.testing.assert_array_equal(tf.depth_to_space(y, 2, "NHWC", "name"), X)
    first = jnp.moveaxis(X, -1, 1)
    z = tf.space_to_depth(first, 2, "NCHW")
    np.testing.assert_array_equal(z, jnp.moveaxis(y, -1, 1))
    np.testing.assert_array_equal(tf.depth_to_space(z, 2, "NCHW"), first)


@pytest.mark.parametrize(
    ("padding", "lo", "size"),
    [
        # The 5 rows of a patch step by 2 over 6 rows: 3 are added, 1 of them before. Its 3 columns
        # step by 1 over 4: 2 are added, 1 before.
        ("SAME", (1, 1), (3, 4)),
        ("VALID", (0, 0), (1, 2)),
    ],
)
def test_extract_patches(padding, lo, size):
    y = tf.extract_patches(X, [1, 3, 2, 1], [1, 2, 1, 1], [1, 2, 2, 1], padding)
    assert y.shape == (2, *size, 18)
    for n, p, q, a, b, c in np.ndindex(*y.shape[:3], 3, 2, 3):
        i, j = 2 * p + 2 * a - lo[0], q + 2 * b - lo[1]
        inside = 0 <= i < 6 and 0 <= j < 4
        assert y[n, p, q, (2 * a + b) * 3 + c] == (X[n, i, j, c] if inside else 0)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: tf.space_to_depth(X, 5), ValueError, "block_size"),
        (lambda: tf.space_to_depth(X[0], 2), ValueError, "tf.space_to_depth: input must have 4"),
        (lambda: tf.space_to_depth(X, 2, "NWC"), ValueError, "data_format must be 'NHWC' or"),
        (lambda: tf.depth_to_space(X, 2), ValueError, "must be a multiple of 4"),
        (lambda: tf.depth_to_space(X, 1.0), TypeError, "block_size must be an integer"),
        (lambda: tf.depth_to_space(X[0], 2), ValueError, "tf.depth_to_space: input must have 4"),
        (
            lambda: tf.extract_patches(X, 2, 1, 1, [(1, 1)]),
            ValueError,
            "padding must be 'SAME' or 'VALID', got [(1, 1)]",
        ),
        (lambda: tf.extract_patches(X, [2, 2, 2], 1, 1, "SAME"), ValueError, "sizes must be an in"),
        (lambda: tf.extract_patches(X, 2, 1, 0, "SAME"), ValueError, "rates must be >= 1, got 0"),
        (
            lambda: tf.extract_patches(X, 2, 1, 9, "VALID"),
            ValueError,
            "unfold: the kernel does not fit",
        ),
        (lambda: tf.extract_patches(X[0], 2, 1, 1, "SAME"), ValueError, "images must have 4 axes"),
    ],
)
def test_refusal(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
