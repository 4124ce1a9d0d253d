"""Pooling of tf.nn, a function for each number of axes: `max_pool` and `avg_pool` of that rank."""

from __future__ import annotations

from jaxtyping import Array, Inexact, Real

from jaxdil._arguments import Ints
from jaxdil.tf._arguments import TfPadding
from jaxdil.tf._pool import pooled

__all__ = ["avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"]


def max_pool1d(
    input: Real[Array, "N W C"],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NWC",
    name: str | None = None,
) -> Real[Array, "..."]:
    """`max_pool` over one axis.

    Args:
      input: input (N, W, C); or channels first.
      ksize: taps; an int, or a list of 1 or 3.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NWC" (also None) or "NCW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not.

    Twin of tf.nn.max_pool1d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(6.0).reshape(1, 6, 1)
    >>> max_pool1d(x, 2, 2, "SAME").ravel()
    Array([1., 3., 5.], dtype=float32)
    """
    return pooled("tf.max_pool1d", 1, input, ksize, strides, padding, data_format, mean=False)


def max_pool2d(
    input: Real[Array, "N H W C"],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NHWC",
    name: str | None = None,
) -> Real[Array, "..."]:
    """`max_pool` over two axes.

    Args:
      input: input (N, H, W, C); or channels first.
      ksize: taps; an int, or a list of 1, 2 or 4.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NHWC" (also None) or "NCHW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not.

    Twin of tf.nn.max_pool2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    >>> max_pool2d(x, 2, 2, "SAME").ravel()
    Array([5., 7.], dtype=float32)
    """
    return pooled("tf.max_pool2d", 2, input, ksize, strides, padding, data_format, mean=False)


def max_pool3d(
    input: Real[Array, "N D H W C"],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NDHWC",
    name: str | None = None,
) -> Real[Array, "..."]:
    """`max_pool` over three axes.

    Args:
      input: input (N, D, H, W, C); or channels first.
      ksize: taps; an int, or a list of 1, 3 or 5.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NDHWC" (also None) or "NCDHW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not.

    Twin of tf.nn.max_pool3d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
    >>> max_pool3d(x, 2, 2, "SAME").ravel()
    Array([7.], dtype=float32)
    """
    return pooled("tf.max_pool3d", 3, input, ksize, strides, padding, data_format, mean=False)


def avg_pool1d(
    input: Inexact[Array, "N W C"],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NWC",
    name: str | None = None,
) -> Inexact[Array, "..."]:
    """`avg_pool` over one axis.

    Args:
      input: input (N, W, C); or channels first.
      ksize: taps; an int, or a list of 1 or 3.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NWC" (also None) or "NCW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not; for integers, whose means are none.

    Twin of tf.nn.avg_pool1d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(6.0).reshape(1, 6, 1)
    >>> avg_pool1d(x, 2, 2, "SAME").ravel()
    Array([0.5, 2.5, 4.5], dtype=float32)
    """
    return pooled("tf.avg_pool1d", 1, input, ksize, strides, padding, data_format, mean=True)


def avg_pool2d(
    input: Inexact[Array, "N H W C"],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NHWC",
    name: str | None = None,
) -> Inexact[Array, "..."]:
    """`avg_pool` over two axes.

    Args:
      input: input (N, H, W, C); or channels first.
      ksize: taps; an int, or a list of 1, 2 or 4.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NHWC" (also None) or "NCHW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not; for integers, whose means are none.

    Twin of tf.nn.avg_pool2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    >>> avg_pool2d(x, 2, 2, "SAME").ravel()
    Array([2.5, 4.5], dtype=float32)
    """
    return pooled("tf.avg_pool2d", 2, input, ksize, strides, padding, data_format, mean=True)


def avg_pool3d(
    input: Inexact[Array, "N D H W C"],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NDHWC",
    name: str | None = None,
) -> Inexact[Array, "..."]:
    """`avg_pool` over three axes.

    Args:
      input: input (N, D, H, W, C); or channels first.
      ksize: taps; an int, or a list of 1, 3 or 5.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NDHWC" (also None) or "NCDHW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not; for integers, whose means are none.

    Twin of tf.nn.avg_pool3d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
    >>> avg_pool3d(x, 2, 2, "SAME").ravel()
    Array([3.5], dtype=float32)
    """
    return pooled("tf.avg_pool3d", 3, input, ksize, strides, padding, data_format, mean=True)
