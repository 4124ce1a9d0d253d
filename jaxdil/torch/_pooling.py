"""PyTorch's windows of pooling: how many there are, what each counts, where its largest stands.

P = floor((n + 2 padding - k_eff) / s) + 1       ceil in place of floor for ``ceil_mode``,
less a window that starts beyond n + padding
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdil import _arguments as _own
from jaxdil import _geometry, _pool, _slide
from jaxdil._arguments import Layout
from jaxdil._errors import error
from jaxdil._window import Window
from jaxdil.torch import _arguments
from jaxdil.torch._arguments import Pairs

__all__ = ["averages", "maxima"]


class Windows(NamedTuple):
    """The windows of one call over ``x`` (N, C, *S), and the padding that it asked for."""

    x: jax.Array
    layout: Layout
    window: Window
    pads: Pairs


def maxima(
    where: str, rank: int, x: jax.Array, geometry: tuple[Any, ...], *, ceil: Any, indices: Any
) -> Any:
    """The largest sample of each window, and if asked for its index in the flattened image."""
    over = _windows(where, rank, x, geometry, ceil=ceil)
    y = _pool.maximum(over.x, over.layout, over.window)
    if not indices:
        return over.layout.restore(y)
    return over.layout.restore(y), over.layout.restore(_places(over, y))


def averages(
    where: str,
    rank: int,
    x: jax.Array,
    geometry: tuple[Any, ...],
    *,
    ceil: Any,
    include_pad: Any,
    divisor: Any,
) -> jax.Array:
    """The sum of each window over its count, or over ``divisor``."""
    over = _windows(where, rank, x, geometry, ceil=ceil)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        what = f"input must hold floating-point numbers, got dtype {x.dtype}"
        raise TypeError(error(where, what, "Cast it: the mean of integers is no integer."))
    if divisor is None:
        counted = over.pads if include_pad else None
        y = _pool.average(over.x, over.layout, over.window, counted)
        return over.layout.restore(y)
    if _own.integer(where, "divisor_override", divisor) == 0:
        raise ValueError(error(where, "divisor_override must not be 0", "None means the count."))
    y = _slide.widened(over.x)
    for side in _slide.sides(over.layout, over.window):
        y = _slide.windowed(_slide.frame(y, side), side, jnp.add)
    return over.layout.restore((y / jnp.asarray(divisor, y.dtype)).astype(x.dtype))


def _windows(where: str, rank: int, x: Any, geometry: tuple[Any, ...], *, ceil: Any) -> Windows:
    """The arguments of a pooling, checked."""
    _own.check_arrays(where, input=x)
    _arguments.images(where, x, rank)
    if x.shape[-rank - 1] == 0:
        raise ValueError(error(where, f"input must have channels, got shape {x.shape}"))
    kernel, stride, both, dilation = _integers(where, rank, *geometry)
    size = x.shape[-rank:]
    pads = tuple((p, p) for p in both)
    reach = tuple(
        (p, _end(n, _geometry.dilated_size(k, d), s, p) if ceil else p)
        for n, k, s, p, d in zip(size, kernel, stride, both, dilation, strict=True)
    )
    _arguments.check_fit(where, size, kernel, dilation, reach)
    layout, window = _slide.slide(
        where,
        x.shape,
        window=kernel,
        stride=stride,
        dilation=dilation,
        padding=reach,
        data_format="channels_first",
    )
    return Windows(layout.merge(x), layout, window, pads)


def _integers(
    where: str, rank: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding and dilation, one each an axis."""
    kernel = _arguments.integers(where, "kernel_size", kernel_size, rank)
    given = stride is not None and not (_arguments.listed(stride) and len(stride) == 0)
    stride = _arguments.integers(where, "stride", stride, rank) if given else kernel
    padding = _arguments.integers(where, "padding", padding, rank, least=0)
    for axis, (k, p) in enumerate(zip(kernel, padding, strict=True)):
        if 2 * p > k:
            what = f"padding must be at most half of kernel_size {k} on spatial axis {axis}"
            hint = "More would make windows of padding alone: torch.pad the input first."
            raise ValueError(error(where, f"{what}, got {p}", hint))
    return kernel, stride, padding, _arguments.integers(where, "dilation", dilation, rank)


def _end(n: int, k_eff: int, stride: int, padding: int) -> int:
    """Padding at the end with which all windows of ``ceil_mode`` fit."""
    steps = -(-max(n + 2 * padding - k_eff, 0) // stride)
    if steps * stride >= n + padding:
        steps -= 1
    return max(padding, steps * stride + k_eff - n - padding)


def _places(over: Windows, y: jax.Array) -> jax.Array:
    """Index of the largest sample of each window: the first of equals, the last of NaNs."""
    size = over.window.size
    at = jnp.arange(math.prod(size)).reshape(1, 1, *size)
    x = over.x
    for side in reversed(_slide.sides(over.layout, over.window)):
        at = _slide.unfold_axis(_slide.frame(at, side, -1), side)
        x = _slide.unfold_axis(_slide.frame(x, side, _slide.extremes(x.dtype)[0]), side)
    taps = tuple(range(2, x.ndim, 2))
    largest = jnp.expand_dims(y, taps)
    nan = jnp.isnan(x) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros(x.shape, bool)
    inside = at >= 0
    first = jnp.where(inside & (x == largest), at, math.prod(size)).min(taps)
    last = jnp.where(inside & nan, at, -1).max(taps)
    return jnp.where(last >= 0, last, first)
