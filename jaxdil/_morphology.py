"""Dilation and erosion of images, the max-plus relatives of convolution.

    dilation2d   y[n, p, c] = max_t  x[n, s p + d t - lo, c] + w[t, c]
    erosion2d    y[n, p, c] = min_t  x[n, s p + d t - lo, c] - w[K - 1 - t, c]

over the taps t that lie inside x. One slice a tap, the larger kept: no patch is written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Real

from jaxdil import _arguments, _slide
from jaxdil._arguments import Ints, Layout, Padding
from jaxdil._errors import error
from jaxdil._slide import Side
from jaxdil._window import Window

__all__ = ["dilation2d", "erosion2d", "morphology"]

# Twice as many taps are written out in one program; more run in a loop over chunks of so many. The
# gradient of each is a selection and a padded sum, which XLA compiles slowly in great numbers.
UNROLL = 16


def dilation2d(
    x: Real[Array, "..."],
    w: Real[Array, "*K C"],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    data_format: str | None = None,
) -> Real[Array, "..."]:
    """Greyscale dilation: the largest sum of a sample and its tap, over any number of axes.

    ``y[n, p, c] = max_t x[n, s p + d t - lo, c] + w[t, c]``. Taps outside x are left out, where a
    convolution would meet zeros. Where several are largest, the gradient goes to the first of them
    in row-major order, as in TensorFlow; a NaN is the largest. The name is TensorFlow's: one, two,
    three or more axes are spatial, as w says.

    Args:
      x: input (N, *S, C), or without N; integers too, which wrap around as sums of integers do.
        With the layout in letters any number of batch axes may stand in place of N.
      w: structuring function (*K, C). Zeros make the maximum over a box; -inf leaves a tap out.
      stride: samples between neighbouring outputs, >= 1.
      dilation: samples between neighbouring taps (the rate), >= 1.
      padding: as in `conv`; it decides where windows stand, and adds no samples.
      data_format: "channels_last" (the default), "channels_first", or letters, for x and y.

    Returns:
      y (N, *P, C), P as in `conv`.

    Raises:
      ValueError: as `conv`, and if a window lies outside x altogether.
      TypeError: as `conv`, and for complex numbers, which have no order.

    Cost: ``2 N C prod(P) prod(K)`` operations; a box of zeros is cheaper as `max_pool`.

    Source: Serra, Image Analysis and Mathematical Morphology, 1982; ``tf.nn.dilation2d``.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([0.0, 0, 5, 0, 0, 0]).reshape(1, 6, 1)
    >>> w = jnp.array([[-1.0], [0.0], [-1.0]])
    >>> jaxdil.dilation2d(x, w).ravel()
    Array([0., 4., 5., 4., 0., 0.], dtype=float32)
    >>> jaxdil.dilation2d(x, w, dilation=2).ravel()
    Array([4., 0., 5., 0., 4., 0.], dtype=float32)
    """
    return morphology(
        "dilation2d",
        x,
        w,
        stride=stride,
        dilation=dilation,
        padding=padding,
        data_format=data_format,
        erodes=False,
    )


def erosion2d(
    x: Real[Array, "..."],
    w: Real[Array, "*K C"],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    data_format: str | None = None,
) -> Real[Array, "..."]:
    """Greyscale erosion: the smallest difference of a sample and its tap, over any number of axes.

    ``y[n, p, c] = min_t x[n, s p + d t - lo, c] - w[K - 1 - t, c]``: minus the `dilation2d` of -x
    with w turned around, as in TensorFlow, at the same padding also where K is even. Ties, NaN and
    integers as in `dilation2d`.

    Args:
      x: input (N, *S, C), as in `dilation2d`.
      w: structuring function (*K, C). Zeros make the minimum over a box; -inf leaves a tap out.
      stride: as in `dilation2d`.
      dilation: as in `dilation2d`.
      padding: as in `dilation2d`.
      data_format: as in `dilation2d`.

    Returns:
      y (N, *P, C), P as in `conv`.

    Raises:
      ValueError: as `dilation2d`.
      TypeError: as `dilation2d`.

    Cost: as `dilation2d`.

    Source: Serra, Image Analysis and Mathematical Morphology, 1982; ``tf.nn.erosion2d``.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([5.0, 5, 0, 5, 5, 5]).reshape(1, 6, 1)
    >>> jaxdil.erosion2d(x, jnp.zeros((3, 1))).ravel()
    Array([5., 0., 0., 0., 5., 5.], dtype=float32)
    """
    return morphology(
        "erosion2d",
        x,
        w,
        stride=stride,
        dilation=dilation,
        padding=padding,
        data_format=data_format,
        erodes=True,
    )


def morphology(
    where: str, x: jax.Array, w: jax.Array, *, data_format: Any, erodes: bool, **options: Any
) -> jax.Array:
    """Check the arguments, and dilate or erode."""
    _arguments.check_arrays(where, x=x, w=w)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        what = f"x must be real, got dtype {x.dtype}"
        raise TypeError(error(where, what, "Complex numbers have no order."))
    if w.ndim < 2:
        raise ValueError(error(where, f"w must be (*K, C), with at least 2 axes, got {w.shape}"))
    layout, window = _slide.slide(
        where, x.shape, window=w.shape[:-1], data_format=data_format, name="kernel", **options
    )
    channels = layout.image(layout.merged(x.shape))[2]
    if w.shape[-1] != channels:
        what = f"w must be (*K, C) with C = {channels}, the channels of x, got {w.shape}"
        raise ValueError(error(where, what, f"x has shape {x.shape}."))
    _slide.check_samples(where, window)
    return layout.restore(_largest(layout.merge(x), jnp.asarray(w), layout, window, erodes=erodes))


@functools.partial(jax.jit, static_argnums=(2, 3), static_argnames="erodes")
def _largest(
    x: jax.Array, w: jax.Array, layout: Layout, window: Window, *, erodes: bool
) -> jax.Array:
    """The dilation of x (one batch axis), or its erosion, tap by tap in row-major order."""
    dtype, sides = x.dtype, _slide.sides(layout, window)
    x, w = _slide.widened(x), _slide.widened(w)
    worst = _slide.extremes(x.dtype)[erodes]
    rows = w.reshape(-1, w.shape[-1])
    rows = rows[::-1] if erodes else rows
    for side in sides:
        x = _slide.frame(x, side, worst)

    def step(y: jax.Array, start: Sequence[Any], row: jax.Array) -> jax.Array:
        row = lax.expand_dims(row, [a for a in range(x.ndim) if a != layout.numbers.lhs_spec[1]])
        part = _samples(x, start, sides)
        part = part - row if erodes else part + row
        if not jnp.issubdtype(x.dtype, jnp.floating):
            # What lies outside is infinite among floats, but among integers it wraps around.
            part = jnp.where(_inside(start, sides, x.ndim), part, worst)
        return _slide.better(y, part, least=erodes)

    y = jnp.full(_samples(x, [0] * len(sides), sides).shape, worst, x.dtype)
    starts = np.stack([t.ravel() for t in np.indices(window.kernel)], 1) * window.dilation
    return _all(step, y, starts.astype(np.int32), rows).astype(dtype)


def _all(step: Callable[..., jax.Array], y: jax.Array, starts: np.ndarray, rows: jax.Array) -> Any:
    """``step`` over every tap; in chunks, if there are many."""
    taps = len(starts)
    looped = taps // UNROLL * UNROLL if taps > 2 * UNROLL else 0

    def chunk(y: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        for i in range(UNROLL):
            y = step(y, list(part[0][i]), part[1][i])
        return y, None

    if looped:
        table = jnp.asarray(starts[:looped]).reshape(-1, UNROLL, starts.shape[1])
        y, _ = lax.scan(chunk, y, (table, rows[:looped].reshape(-1, UNROLL, rows.shape[1])))
    for i in range(looped, taps):
        y = step(y, starts[i].tolist(), rows[i])
    return y


def _samples(x: jax.Array, start: Sequence[Any], sides: list[Side]) -> jax.Array:
    """What the tap that begins at ``start`` reads of framed x."""
    for side, at in zip(sides, start, strict=True):
        if isinstance(at, int):
            x = _slide.tap(x, side.axis, at, side.stride, side.positions)
        else:
            extent = side.stride * (side.positions - 1) + 1
            x = lax.dynamic_slice_in_dim(x, at, extent, side.axis)
            x = _slide.tap(x, side.axis, 0, side.stride, side.positions)
    return x


def _inside(start: Sequence[Any], sides: list[Side], ndim: int) -> jax.Array:
    """Which outputs read a sample with the tap that begins at ``start``."""
    every = jnp.ones((1,) * ndim, bool)
    for side, at in zip(sides, start, strict=True):
        read = side.stride * jnp.arange(side.positions, dtype=np.int32) + at - side.padding[0]
        along = (read >= 0) & (read < side.size)
        every &= lax.expand_dims(along, [a for a in range(ndim) if a != side.axis])
    return every
