"""A window without a kernel, sliding over an array: its arguments checked, its taps as slices.

    tap t of output p reads x[s p + d t - lo]

A box is the product of its sides, so whatever is taken over one (a maximum, a sum, the samples
themselves) is taken one axis at a time: sum(K) slices in place of prod(K).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil import _arguments, _geometry, _window
from jaxdil._arguments import Layout
from jaxdil._errors import error
from jaxdil._window import Window

__all__ = [
    "Side",
    "better",
    "check_samples",
    "extremes",
    "fold_axis",
    "forward",
    "frame",
    "samples",
    "sides",
    "slide",
    "tap",
    "taps",
    "unfold_axis",
    "unframe",
    "widened",
    "windowed",
]

# Taps of one axis that are written out as slices. Beyond, one gather reads them all.
UNROLL = 128


# --- arguments ------------------------------------------------------------------------------------


def slide(
    where: str,
    shape: Sequence[int],
    *,
    window: Any,
    stride: Any,
    dilation: Any,
    padding: Any,
    data_format: Any,
    name: str = "window",
    x_name: str = "x",
) -> tuple[Layout, Window]:
    """The order of axes of x and the window over it; a stride of None is the window's size."""
    kernel, layout = taps(where, shape, window, data_format, name=name, x_name=x_name)
    axes = {"stride": kernel if stride is None else stride, "dilation": dilation}
    return layout, forward(where, layout, layout.merged(shape), kernel, **axes, padding=padding)


def forward(
    where: str, layout: Layout, shape: Sequence[int], kernel: tuple[int, ...], **options: Any
) -> Window:
    """The window of so many taps over x (one batch axis)."""
    channels = layout.image(shape)[2]
    return _window.forward(where, layout, shape, (*kernel, channels, 1), **options)


def taps(
    where: str,
    shape: Sequence[int],
    window: Any,
    data_format: Any,
    *,
    name: str = "window",
    x_name: str = "x",
) -> tuple[tuple[int, ...], Layout]:
    """The taps of a window on each spatial axis, and the order of axes of x."""
    if data_format is not None and not isinstance(data_format, str):
        what = f"data_format must be a name or letters, got {data_format!r}"
        raise TypeError(error(where, what, "Transpose x for any other order."))
    letters = data_format not in (None, "channels_last", "channels_first")
    listed = isinstance(window, Sequence | np.ndarray) and not isinstance(window, str)
    rank = len(window) if listed else (len(data_format or "") if letters else len(shape)) - 2
    if letters and rank != len(data_format or "") - 2:
        what = f"{name} must have an entry for each spatial axis of {data_format!r}, got {window!r}"
        raise ValueError(error(where, what))
    lead = len(shape) - rank - 1
    if rank < 1 or lead < 0 or (lead > 1 and not letters):
        what = f"{x_name} must have a batch, spatial axes and channels, got shape {tuple(shape)}"
        hints = [
            f"{name}={window!r} says that {rank} of them are spatial.",
            f"If {x_name} has several batch axes, name the layout in letters: data_format='NHWC'.",
        ]
        raise ValueError(error(where, what, *hints[not listed :]))
    kernel = _arguments.integers(where, name, window, rank)
    return kernel, _arguments.layout(where, shape, (*kernel, 1, 1), data_format, x_name=x_name)


def samples(window: Window, counted: Sequence[tuple[int, int]] | None = None) -> list[np.ndarray]:
    """For each axis, how many taps of each window lie inside x, or x and ``counted`` around it."""
    around = counted or ((0, 0),) * len(window.size)
    counts = []
    for n, k, s, d, (lo, _), p, (before, after) in zip(
        window.size,
        window.kernel,
        window.stride,
        window.dilation,
        window.padding,
        window.positions,
        around,
        strict=True,
    ):
        at = s * np.arange(p)[:, None] + d * np.arange(k) - lo
        counts.append(np.sum((at >= -before) & (at < n + after), axis=1))
    return counts


def check_samples(where: str, window: Window) -> None:
    """Raise if some window lies in the padding altogether."""
    for axis, counts in enumerate(samples(window)):
        if 0 in counts:
            p = int(np.argmin(counts))
            what = f"window {p} on spatial axis {axis} lies in the padding altogether"
            k, d, n = window.kernel[axis], window.dilation[axis], window.size[axis]
            raise ValueError(
                error(
                    where,
                    f"{what}, which has no value: {k} taps at dilation {d} over {n} samples "
                    f"with padding {window.padding[axis]}",
                    "Pad less, or dilate less.",
                )
            )


# --- arrays ---------------------------------------------------------------------------------------


class Side(NamedTuple):
    """A window along one axis of an array."""

    axis: int
    size: int
    taps: int
    stride: int
    dilation: int
    padding: tuple[int, int]
    positions: int

    @property
    def padded(self) -> int:
        """Size of the axis with its padding."""
        return self.size + sum(self.padding)


def sides(layout: Layout, window: Window) -> list[Side]:
    """A window, one axis at a time."""
    return [
        Side(*entries)
        for entries in zip(
            layout.numbers.lhs_spec[2:],
            window.size,
            window.kernel,
            window.stride,
            window.dilation,
            window.padding,
            window.positions,
            strict=True,
        )
    ]


def widened(x: jax.Array) -> jax.Array:
    """``x``, half precision as float32: what is summed, gradients included, is summed in that."""
    half = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
    return x.astype(jnp.float32) if half else x


def extremes(dtype: Any) -> tuple[Any, Any]:
    """What never is a maximum, and what never is a minimum."""
    if jnp.issubdtype(dtype, jnp.floating):
        return -jnp.inf, jnp.inf
    return jnp.iinfo(dtype).min, jnp.iinfo(dtype).max


def better(a: jax.Array, b: jax.Array, *, least: bool = False) -> jax.Array:
    """The larger of two, or the smaller: the first of equals, and NaN if there is one.

    The other gets no gradient, where ``jnp.maximum`` would split it among equals.
    """
    second = b < a if least else b > a
    if jnp.issubdtype(b.dtype, jnp.floating):
        second |= jnp.isnan(b)
    return jnp.where(second, b, a)


def frame(x: jax.Array, side: Side, fill: Any = 0) -> jax.Array:
    """``fill`` before and after one axis; negative padding crops, by a slice."""
    start, stop, lo, hi = _geometry.crop_negative(side.size, 1, *side.padding)
    x = lax.slice_in_dim(x, start, stop, axis=side.axis)
    widths = [(0, 0, 0)] * x.ndim
    widths[side.axis] = (lo, hi, 0)
    return lax.pad(x, jnp.asarray(fill, x.dtype), widths) if lo or hi else x


def unframe(y: jax.Array, side: Side) -> jax.Array:
    """The adjoint of `frame` with zeros."""
    lo, hi = side.padding
    y = lax.slice_in_dim(y, max(lo, 0), side.padded - max(hi, 0), axis=side.axis)
    widths = [(0, 0, 0)] * y.ndim
    widths[side.axis] = (max(-lo, 0), max(-hi, 0), 0)
    return lax.pad(y, jnp.zeros((), y.dtype), widths) if lo < 0 or hi < 0 else y


def tap(x: jax.Array, axis: int, start: int, stride: int, count: int) -> jax.Array:
    """Samples ``start, start + stride, ...`` of one axis, ``count`` of them."""
    stop = start + stride * (count - 1) + 1 if count else start
    return lax.slice_in_dim(x, start, stop, stride, axis)


def windowed(
    x: jax.Array, side: Side, op: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """An associative ``op`` over the taps of each window along one framed axis, in their order.

    A window is its two halves, and halves are shared by windows: 2 log2(taps) steps, no loop.
    """
    axis, stride, positions = side.axis, side.stride, side.positions
    if side.taps == 1 or not positions:
        return tap(x, axis, 0, stride, positions)
    half, odd = divmod(side.taps, 2)
    apart = half * side.dilation
    reach = stride * (positions - 1) + 1 + apart
    part = windowed(x, side._replace(taps=half, stride=1, positions=reach), op)
    y = op(tap(part, axis, 0, stride, positions), tap(part, axis, apart, stride, positions))
    last = side.dilation * (side.taps - 1)
    return op(y, tap(x, axis, last, stride, positions)) if odd else y


def unfold_axis(x: jax.Array, side: Side) -> jax.Array:
    """One framed axis as (K, P): what each tap of each window reads."""
    if side.taps > UNROLL:
        return jnp.take(x, _read(side), axis=side.axis)
    starts = range(0, side.dilation * side.taps, side.dilation)
    slices = [tap(x, side.axis, start, side.stride, side.positions) for start in starts]
    return jnp.stack(slices, side.axis)


def fold_axis(y: jax.Array, side: Side) -> jax.Array:
    """The adjoint of `unfold_axis`: (K, P) summed into one framed axis, where they were read."""
    axis = side.axis
    shape = (*y.shape[:axis], side.padded, *y.shape[axis + 2 :])
    zero = jnp.zeros((), y.dtype)
    if side.taps > UNROLL or not side.positions:
        index = (slice(None),) * axis + (_read(side),)
        return jnp.broadcast_to(zero, shape).at[index].add(y)
    extent = side.stride * (side.positions - 1) + 1
    rows = []
    for t in range(side.taps):
        start = side.dilation * t
        widths = [(0, 0, 0)] * len(shape)
        widths[axis] = (start, side.padded - extent - start, side.stride - 1)
        rows.append(lax.pad(lax.index_in_dim(y, t, axis, keepdims=False), zero, widths))
    return functools.reduce(jnp.add, rows)


def _read(side: Side) -> jax.Array:
    """The framed sample that each tap (K) of each window (P) reads."""
    starts = side.dilation * np.arange(side.taps)
    return jnp.asarray(starts[:, None] + side.stride * np.arange(side.positions), np.int32)
