"""Pooling of tf.nn over any number of axes: jaxdil's pooling, called TensorFlow's way.

max_pool   y[p, c] = max_t  x[s p + r t - lo, c]
avg_pool   y[p, c] = mean of x[s p + r t - lo, c] over the taps t that lie inside x
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Inexact, Real

from jaxdil import _arguments as _own
from jaxdil import _pool
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil.tf import _arguments
from jaxdil.tf._arguments import TfPadding

__all__ = ["avg_pool", "max_pool", "pool", "pooled"]


def pool(
    input: Real[Array, "..."],
    window_shape: Ints,
    pooling_type: str,
    strides: Ints | None = None,
    padding: TfPadding = "VALID",
    data_format: str | None = None,
    dilations: Ints | None = None,
    name: str | None = None,
) -> Real[Array, "..."]:
    """The maximum or the mean of each window, over one, two or three axes.

    Args:
      input: input (N, *S, C), or (N, C, *S).
      window_shape: list of taps, one a spatial axis.
      pooling_type: "MAX" or "AVG". The mean is of the taps that lie inside.
      strides: an int, or a list of 1 or N; None means 1.
      padding: "VALID", "SAME", or a pair for each axis.
      data_format: "NWC", "NHWC" or "NDHWC" (None), or "NCW", "NCHW" or "NCDHW".
      dilations: as strides; None means 1.
      name: not used.

    Returns:
      y (N, *P, C), or (N, C, *P).

    Raises:
      ValueError: for another pooling_type, wrong ranks, windows that do not fit; and as TensorFlow
        for dilations above 1 with strides above 1 or with "SAME" (`jaxdil.max_pool` takes both).
      TypeError: for integers that are not, and the mean of integers.

    Twin of tf.nn.pool, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([3.0, 1, 4, 1, 5, 9]).reshape(1, 6, 1)
    >>> pool(x, [2], "MAX", dilations=[3]).ravel()
    Array([3., 5., 9.], dtype=float32)
    """
    where = "tf.pool"
    if pooling_type not in ("MAX", "AVG"):
        raise ValueError(error(where, f"pooling_type must be 'MAX' or 'AVG', got {pooling_type!r}"))
    rank = _rank(where, input)
    window = _arguments.window(
        where, rank, strides=strides, dilations=dilations, padding=padding, data_format=data_format
    )
    ksize = _arguments.integers(where, "window_shape", window_shape, rank, first=window.first)
    if max(window.dilation) > 1 and (max(window.stride) > 1 or window.padding == "SAME"):
        what = "dilations > 1 exclude strides > 1 and padding 'SAME'"
        came = f"got {dilations!r}, {strides!r} and {padding!r}"
        more = "TensorFlow refuses them together; jaxdil.max_pool and jaxdil.avg_pool take them."
        raise ValueError(error(where, f"{what}, {came}", more))
    return _pool.pool(where, input, window=ksize, mean=pooling_type == "AVG", **window.options)


def max_pool(
    input: Real[Array, "..."],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = None,
    name: str | None = None,
) -> Real[Array, "..."]:
    """The largest sample of each window: ``y[p, c] = max_t input[s p + t - lo, c]``.

    Of equal ones, the gradient goes to the first in row-major order. (On a CPU, TensorFlow 2.21
    gives all of it to each of them if three axes are spatial, so that it adds up to too much.) A
    NaN, which TensorFlow skips there, is the largest.

    Args:
      input: input (N, *S, C) with one, two or three spatial axes; or channels first.
      ksize: taps; an int, or a list of 1, N or N + 2.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NWC", "NHWC" or "NDHWC" (None), or "NCW", "NCHW" or "NCDHW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not.

    Twin of tf.nn.max_pool, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    >>> max_pool(x, 2, 2, "SAME").ravel()
    Array([5., 7.], dtype=float32)
    """
    return pooled("tf.max_pool", None, input, ksize, strides, padding, data_format, mean=False)


def avg_pool(
    input: Inexact[Array, "..."],
    ksize: Ints,
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = None,
    name: str | None = None,
) -> Inexact[Array, "..."]:
    """The mean of each window, over the taps that lie inside the input.

    Args:
      input: input (N, *S, C) with one, two or three spatial axes; or channels first.
      ksize: taps; an int, or a list of 1, N or N + 2.
      strides: as ksize.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      data_format: "NWC", "NHWC" or "NDHWC" (None), or "NCW", "NCHW" or "NCDHW".
      name: not used.

    Returns:
      y, the axes in the order of input.

    Raises:
      ValueError: for wrong ranks, windows that do not fit or meet no sample.
      TypeError: for integers that are not; for integers, whose means are none.

    Twin of tf.nn.avg_pool, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    >>> avg_pool(x, 2, 2, "SAME").ravel()
    Array([2.5, 4.5], dtype=float32)
    """
    return pooled("tf.avg_pool", None, input, ksize, strides, padding, data_format, mean=True)


def pooled(
    where: str,
    rank: int | None,
    x: jax.Array,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    *,
    mean: bool,
) -> jax.Array:
    """The pooling functions that have no dilation; ``rank`` None takes it from x."""
    rank = _rank(where, x, rank)
    window = _arguments.window(
        where, rank, strides=strides, padding=padding, data_format=data_format
    )
    taps = _arguments.integers(where, "ksize", ksize, rank, first=window.first)
    return _pool.pool(where, x, window=taps, mean=mean, **window.options)


def _rank(where: str, x: jax.Array, rank: int | None = None) -> int:
    """The number of spatial axes, if x has a batch and channels beside them."""
    _own.check_arrays(where, input=x)
    if rank is None and x.ndim not in (3, 4, 5):
        what = f"input must have a batch, 1 to 3 spatial axes and channels, got shape {x.shape}"
        raise ValueError(error(where, what, "jaxdil.max_pool and avg_pool take any."))
    rank = x.ndim - 2 if rank is None else rank
    _arguments.ranks(where, rank, batches=False, input=x)
    return rank
