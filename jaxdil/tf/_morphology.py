"""Morphology of tf.nn: jaxdil.dilation2d and jaxdil.erosion2d, called TensorFlow's way.

dilation2d   y[p, c] = max_t  x[s p + r t - lo, c] + filters[t, c]
erosion2d    y[p, c] = min_t  x[s p + r t - lo, c] - filters[K - 1 - t, c]
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Real

from jaxdil import _arguments as _own
from jaxdil import _morphology
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil.tf import _arguments
from jaxdil.tf._arguments import TfPadding

__all__ = ["dilation2d", "erosion2d"]


def dilation2d(
    input: Real[Array, "N H W C"],
    filters: Real[Array, "KH KW C"],
    strides: Ints,
    padding: TfPadding,
    data_format: str,
    dilations: Ints,
    name: str | None = None,
) -> Real[Array, "N P Q C"]:
    """Greyscale dilation: ``y[p, c] = max_t input[s p + r t - lo, c] + filters[t, c]``.

    Taps outside the image are left out. Of equal sums, the gradient goes to the first tap in
    row-major order. Integers wrap around, as in TensorFlow; a NaN, which TensorFlow skips, is the
    largest number here.

    Args:
      input: image (N, H, W, C), integers too.
      filters: structuring function (KH, KW, C).
      strides: an int, or a list of 2 or 4, such as [1, s, s, 1].
      padding: "SAME", "VALID", or a pair for each axis (which TensorFlow does not take).
      data_format: "NHWC", or "NCHW" (which TensorFlow does not take).
      dilations: the rates, as strides.
      name: not used.

    Returns:
      y (N, P, Q, C).

    Raises:
      ValueError: if the dilated kernel is larger than the image, for a window that meets no sample
        (for which TensorFlow returns the lowest number), wrong ranks, channels that do not match.
      TypeError: for integers that are not, two dtypes at once, complex numbers.

    Twin of tf.nn.dilation2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([0.0, 0, 5, 0]).reshape(1, 1, 4, 1)
    >>> w = jnp.array([-1.0, 0, -2]).reshape(1, 3, 1)
    >>> dilation2d(x, w, [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1]).ravel()
    Array([0., 3., 5., 4.], dtype=float32)
    """
    where = "tf.dilation2d"
    window = _filters(where, input, filters, strides, padding, data_format, dilations, x="input")
    return _morphology.morphology(where, input, filters, erodes=False, **window)


def erosion2d(
    value: Real[Array, "N H W C"],
    filters: Real[Array, "KH KW C"],
    strides: Ints,
    padding: TfPadding,
    data_format: str,
    dilations: Ints,
    name: str | None = None,
) -> Real[Array, "N P Q C"]:
    """Greyscale erosion: ``y[p, c] = min_t value[s p + r t - lo, c] - filters[K - 1 - t, c]``.

    It is ``-dilation2d(-value, filters turned around)`` at the padding of the dilation. Unsigned
    integers, which TensorFlow cannot negate, are eroded too.

    Args:
      value: image (N, H, W, C).
      filters: as in `dilation2d`.
      strides: as in `dilation2d`.
      padding: as in `dilation2d`.
      data_format: as in `dilation2d`.
      dilations: as in `dilation2d`.
      name: not used.

    Returns:
      y (N, P, Q, C).

    Raises:
      ValueError: as `dilation2d`.
      TypeError: as `dilation2d`.

    Twin of tf.nn.erosion2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([5.0, 5, 0, 5]).reshape(1, 1, 4, 1)
    >>> w = jnp.array([-1.0, 0, -2]).reshape(1, 3, 1)
    >>> erosion2d(x, w, [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1]).ravel()
    Array([5., 1., 0., 2.], dtype=float32)
    """
    where = "tf.erosion2d"
    window = _filters(where, value, filters, strides, padding, data_format, dilations, x="value")
    return _morphology.morphology(where, value, filters, erodes=True, **window)


def _filters(
    where: str,
    image: jax.Array,
    filters: jax.Array,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    *,
    x: str,
) -> dict[str, Any]:
    """The options of a morphological function, in jaxdil's words."""
    _arguments.ranks(where, 2, batches=False, **{x: image})
    _own.check_arrays(where, **{x: image, "filters": filters})
    if filters.ndim != 3:
        raise ValueError(error(where, f"filters must be (KH, KW, C), got shape {filters.shape}"))
    window = _arguments.window(
        where,
        2,
        strides=strides,
        dilations=dilations,
        padding=padding,
        data_format=data_format,
        short=False,
    )
    return window.options
