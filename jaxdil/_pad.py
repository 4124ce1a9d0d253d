"""An array continued beyond its edges, and the adjoint, which adds what lies beyond back inside.

    pad    y[q] = x[f(q - lo)]                      0 <= q < lo + n + hi
    fold   x[i] = sum of the y[q] that read it      <fold(y), x> = <y, pad(x)>

    zeros      nothing is read outside              0 0 0 | a b c d | 0 0 0
    reflect    f mirrors about the edge samples     d c b | a b c d | c b a
    replicate  f(i) = min(max(i, 0), n - 1)         a a a | a b c d | d d d
    circular   f(i) = i mod n                       b c d | a b c d | a b c

Slices and their concatenation, no gather: what XLA fuses, and what has the same kind of derivative.
A negative entry crops. Only a reflection is limited: it has n - 1 samples to give.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._errors import error

__all__ = ["MODES", "check", "fold", "pad"]

MODES = ("zeros", "reflect", "replicate", "circular")


def pad(
    x: jax.Array, pads: Sequence[tuple[int, int]], first_axis: int, mode: str, *, where: str = "pad"
) -> jax.Array:
    """``x`` with (before, after) more samples on each axis from ``first_axis`` on."""
    x = jnp.asarray(x)
    mode = check(where, mode, x.shape[first_axis : first_axis + len(pads)], pads)
    for axis, (lo, hi) in enumerate(pads, start=first_axis):
        if lo == hi == 0:
            continue
        x = _pad(x, max(lo, 0), max(hi, 0), axis, mode)
        x = _slice(x, max(-lo, 0), x.shape[axis] - max(-hi, 0), axis)
    return x


def fold(
    y: jax.Array, pads: Sequence[tuple[int, int]], first_axis: int, mode: str, *, where: str = "pad"
) -> jax.Array:
    """The adjoint of `pad`: every sample of y added to the one that it is a copy of."""
    sizes = [y.shape[a] - lo - hi for a, (lo, hi) in enumerate(pads, start=first_axis)]
    mode = check(where, mode, sizes, pads)
    for axis, (lo, hi) in enumerate(pads, start=first_axis):
        if lo == hi == 0:
            continue
        y = _zeros(y, max(-lo, 0), max(-hi, 0), axis)  # what was cropped reaches nothing
        y = _fold(y, max(lo, 0), max(hi, 0), axis, mode)
    return y


def check(where: str, mode: Any, sizes: Sequence[int], pads: Sequence[tuple[int, int]]) -> str:
    """The mode in lower case; raise if it is none, or cannot continue so few samples so far."""
    if not isinstance(mode, str) or mode.lower() not in MODES:
        names = ", ".join(map(repr, MODES))
        raise ValueError(
            error(
                where,
                f"padding_mode must be one of {names}, got {mode!r}",
                "It says what the padding holds; how much there is of it is said by padding.",
            )
        )
    mode = mode.lower()
    for axis, (n, (lo, hi)) in enumerate(zip(sizes, pads, strict=True)):
        most = max(lo, hi)
        if mode == "zeros" or most <= 0:
            continue
        if n == 0:
            raise ValueError(
                error(
                    where,
                    f"padding_mode={mode!r} repeats samples, and spatial axis {axis} has none",
                    f"Padding ({lo}, {hi}) can hold zeros there.",
                )
            )
        if mode == "reflect" and most > n - 1:
            raise ValueError(
                error(
                    where,
                    f"padding_mode='reflect' has {n - 1} samples to mirror on spatial axis {axis} "
                    f"of {n}, got padding ({lo}, {hi})",
                    "Pad less there, or take 'replicate' or 'circular', which go on for ever.",
                )
            )
    return mode


# --- what stands outside --------------------------------------------------------------------------


def _pad(x: jax.Array, lo: int, hi: int, axis: int, mode: str) -> jax.Array:
    n = x.shape[axis]
    match mode:
        case "reflect":
            before, after = _slice(x, 1, lo + 1, axis), _slice(x, n - 1 - hi, n - 1, axis)
            before, after = lax.rev(before, (axis,)), lax.rev(after, (axis,))
        case "replicate":
            before = _repeat(_slice(x, 0, 1, axis), lo, axis)
            after = _repeat(_slice(x, n - 1, n, axis), hi, axis)
        case "circular":
            times = -(-max(lo, hi) // max(n, 1))
            periods = _repeat(x, times, axis)
            before = _slice(periods, times * n - lo, times * n, axis)
            after = _slice(periods, 0, hi, axis)
        case _:
            return _zeros(x, lo, hi, axis)
    pieces = ([before] if lo else []) + [x] + ([after] if hi else [])
    return jnp.concatenate(pieces, axis) if len(pieces) > 1 else x


def _fold(y: jax.Array, lo: int, hi: int, axis: int, mode: str) -> jax.Array:
    n = y.shape[axis] - lo - hi
    if mode == "circular":
        # Zeros until both ends stand at the border of a period, then the periods upon each other.
        y = _zeros(y, -lo % n, -hi % n, axis)
        y = y.reshape(*y.shape[:axis], -1, n, *y.shape[axis + 1 :])
        return y.sum(axis, dtype=y.dtype)
    spans = ((0, lo), (lo, lo + n), (lo + n, lo + n + hi))
    before, inside, after = (_slice(y, *span, axis) for span in spans)
    terms = [inside]
    if mode == "reflect":
        before, after = lax.rev(before, (axis,)), lax.rev(after, (axis,))
        terms += [_zeros(before, 1, n - 1 - lo, axis)] if lo else []
        terms += [_zeros(after, n - 1 - hi, 1, axis)] if hi else []
    elif mode == "replicate":
        before, after = (p.sum(axis, dtype=y.dtype, keepdims=True) for p in (before, after))
        terms += [_zeros(before, 0, n - 1, axis)] if lo else []
        terms += [_zeros(after, n - 1, 0, axis)] if hi else []
    return functools.reduce(jnp.add, terms)


# --- along one axis -------------------------------------------------------------------------------


def _slice(x: jax.Array, start: int, stop: int, axis: int) -> jax.Array:
    return lax.slice_in_dim(x, start, max(start, stop), axis=axis)


def _repeat(x: jax.Array, times: int, axis: int) -> jax.Array:
    return jnp.tile(x, [times if a == axis else 1 for a in range(x.ndim)])


def _zeros(x: jax.Array, lo: int, hi: int, axis: int) -> jax.Array:
    widths = [(lo, hi, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), widths)
