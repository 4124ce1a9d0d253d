"""Maximum and average over dilated windows.

    max_pool   y[n, p, c] = max_t  x[n, s p + d t - lo, c]
    avg_pool   y[n, p, c] = sum_t  x[n, s p + d t - lo, c] / count[p]

Slices and selections, one axis at a time: everything has derivatives of any order, dilated too.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Real

from jaxdil import _arguments, _slide
from jaxdil._arguments import Ints, Layout, Padding
from jaxdil._errors import error
from jaxdil._window import Window

Pads: TypeAlias = tuple[tuple[int, int], ...]

__all__ = ["Pads", "average", "avg_pool", "max_pool", "maximum", "pool"]


def max_pool(
    x: Real[Array, "..."],
    *,
    window: Ints,
    stride: Ints | None = None,
    dilation: Ints = 1,
    padding: Padding = "VALID",
    data_format: str | None = None,
) -> Real[Array, "..."]:
    """Largest sample of each window, over any number of spatial axes.

    ``y[n, p, c] = max_t x[n, s p + d t - lo, c]``. Taps that lie in the padding are left out. Where
    several samples are largest, the gradient goes to the first of them in row-major order, as in
    ``lax`` and PyTorch. A NaN in a window is its result.

    Args:
      x: input (N, *S, C); integers too. Without N where window is a list. With the layout in
        letters (``data_format="NHWC"``) any number of batch axes may stand in place of N.
      window: taps, >= 1; an int or one for each spatial axis.
      stride: samples between neighbouring windows, >= 1; None is the window, so that windows tile.
      dilation: samples between neighbouring taps, >= 1.
      padding: as in `conv`.
      data_format: "channels_last" (the default), "channels_first", or letters.

    Returns:
      y (N, *P, C), P as in `conv`.

    Raises:
      ValueError: if the window is larger than the padded input, or lies in the padding altogether.
      TypeError: for integers that are not, and for complex numbers, which have no order.

    Cost: about ``2 N C prod(P) sum(log2 window)`` comparisons.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([3.0, 1, 4, 1, 5, 9, 2, 6]).reshape(1, 8, 1)
    >>> jaxdil.max_pool(x, window=2).ravel()
    Array([3., 4., 9., 6.], dtype=float32)
    >>> jaxdil.max_pool(x, window=2, stride=1, dilation=4).ravel()
    Array([5., 9., 4., 6.], dtype=float32)
    """
    return pool(
        "max_pool",
        x,
        mean=False,
        window=window,
        stride=stride,
        dilation=dilation,
        padding=padding,
        data_format=data_format,
    )


def avg_pool(
    x: Inexact[Array, "..."],
    *,
    window: Ints,
    stride: Ints | None = None,
    dilation: Ints = 1,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    data_format: str | None = None,
) -> Inexact[Array, "..."]:
    """Mean of each window, over any number of spatial axes.

    ``y[n, p, c] = sum_t x[n, s p + d t - lo, c] / count[p]``.

    Args:
      x: input (N, *S, C), as in `max_pool`, floating-point or complex.
      window: as in `max_pool`.
      stride: as in `max_pool`.
      dilation: as in `max_pool`.
      padding: as in `conv`.
      count_include_pad: whether padding counts as samples that are zero, as PyTorch and Flax have
        it; if not, count is the number of taps that meet a sample, as TensorFlow and Keras have it.
      data_format: as in `max_pool`.

    Returns:
      y (N, *P, C), P as in `conv`. Half precision is summed in float32.

    Raises:
      ValueError: as `max_pool`; a window of padding alone is refused where padding does not count.
      TypeError: for integers that are not, and where x holds integers, whose means are none.

    Cost: about ``2 N C prod(P) sum(log2 window)`` additions.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([3.0, 3, 6, 6]).reshape(1, 4, 1)
    >>> jaxdil.avg_pool(x, window=3, stride=1, padding="SAME").ravel()
    Array([2., 4., 5., 4.], dtype=float32)
    >>> jaxdil.avg_pool(x, window=3, stride=1, padding="SAME", count_include_pad=False).ravel()
    Array([3., 4., 5., 6.], dtype=float32)
    """
    return pool(
        "avg_pool",
        x,
        mean=True,
        window=window,
        stride=stride,
        dilation=dilation,
        padding=padding,
        count_include_pad=count_include_pad,
        data_format=data_format,
    )


def pool(
    where: str, x: jax.Array, *, mean: bool, count_include_pad: bool = False, **options: Any
) -> jax.Array:
    """Check the arguments, and take the maximum or the mean of each window."""
    _arguments.check_arrays(where, x=x)
    if mean and not jnp.issubdtype(x.dtype, jnp.inexact):
        what = f"x must hold floating-point numbers, got dtype {x.dtype}"
        raise TypeError(error(where, what, "The mean of integers is none: cast x."))
    if not mean and jnp.issubdtype(x.dtype, jnp.complexfloating):
        what = f"x must be real, got dtype {x.dtype}"
        raise TypeError(error(where, what, "Complex numbers have no order: pool jnp.abs(x)."))
    layout, window = _slide.slide(where, x.shape, **options)
    if not count_include_pad:
        _slide.check_samples(where, window)
    merged = layout.merge(x)
    if not mean:
        return layout.restore(maximum(merged, layout, window))
    counted = window.padding if count_include_pad else None
    return layout.restore(average(merged, layout, window, counted))


@functools.partial(jax.jit, static_argnums=(1, 2))
def maximum(x: jax.Array, layout: Layout, window: Window) -> jax.Array:
    """Largest sample of each window of x (one batch axis)."""
    y = _slide.widened(x)
    # The last axis first: then the first of equals is the first in row-major order.
    for side in reversed(_slide.sides(layout, window)):
        y = _slide.windowed(_slide.frame(y, side, _slide.extremes(y.dtype)[0]), side, _slide.better)
    return y.astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def average(x: jax.Array, layout: Layout, window: Window, counted: Pads | None) -> jax.Array:
    """Mean of each window of x (one batch axis), over x and so many samples ``counted`` around it.

    Samples that are padding and not counted are zero in the sum and absent from the divisor.
    """
    y = _slide.widened(x)
    count = jnp.ones((), y.real.dtype)
    sides = _slide.sides(layout, window)
    for side, counts in zip(sides, _slide.samples(window, counted), strict=True):
        y = _slide.windowed(_slide.frame(y, side), side, jnp.add)
        along = jnp.asarray(counts, count.dtype)
        count = count * lax.expand_dims(along, [a for a in range(x.ndim) if a != side.axis])
    return (y / count.astype(y.dtype)).astype(x.dtype)
