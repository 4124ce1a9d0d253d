"""How the terms of a kernel gradient are cut out of image and cotangent, along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax import lax

from jaxdil._layout import cut
from jaxdil._problem import Problem

__all__ = ["Axis", "axes_of", "cut_out"]

Cut: TypeAlias = tuple[int, int, int]


class Axis(NamedTuple):
    """How terms are cut out of an axis: tap t takes every ``x_step``-th of x from ``x_move t``."""

    taps: int
    terms: int
    x_pad: tuple[int, int, int]
    w_pad: tuple[int, int, int]
    x_step: int
    w_step: int
    x_move: int
    w_move: int
    w_start: int
    w_size: int

    def cut(self, tap: int, first: int, terms: int) -> tuple[Cut, Cut, np.ndarray]:
        """Where x and w are cut for some terms of a tap, and which terms are not in w's padding."""
        for_x = self.x_move * tap + self.x_step * first
        for_w = self.w_start + self.w_move * tap + self.w_step * first
        at = for_w + self.w_step * np.arange(terms) - self.w_pad[0]
        return (
            (for_x, for_x + self.x_step * (terms - 1) + 1, self.x_step),
            (for_w, for_w + self.w_step * (terms - 1) + 1, self.w_step),
            (at >= 0) & (at < self.w_size),
        )


def axes_of(problem: Problem) -> list[Axis]:
    """The axes of a problem."""
    return [
        _axis(n, k, t, s, d, lo, hi, a)
        for n, k, t, s, d, (lo, hi), a in zip(
            problem.size,
            problem.kernel,
            problem.positions,
            problem.stride,
            problem.dilation,
            problem.padding,
            problem.input_dilation,
            strict=True,
        )
    ]


def _axis(n: int, k: int, taps: int, s: int, d: int, lo: int, hi: int, a: int) -> Axis:
    """Where the input is not dilated, x is windowed and all of w taken.

    With samples a apart and d = 1 it is the other way round, ``p = a j + lo - s t``: w is windowed
    in steps of a and all of x taken. Otherwise zeros are inserted after all.
    """
    if a == 1 or d > 1:
        return Axis(taps, k, (lo, hi, a - 1), (0, 0, 0), d, 1, s, 0, 0, k)
    before, after = max(s * (taps - 1) - lo, 0), max(a * (n - 1) + lo + 1 - k, 0)
    return Axis(taps, n, (0, 0, 0), (before, after, 0), 1, a, 0, -s, lo + before, k)


def cut_out(x: jax.Array, cuts: Sequence[Cut], move: Any = None) -> jax.Array:
    """Cut the spatial axes of x (I, *S, F), the first of them ``move`` further on."""
    start, stop, step = zip((0, x.shape[0], 1), *cuts, (0, x.shape[-1], 1), strict=True)
    shape = tuple(n - m for n, m in zip(stop, start, strict=True))
    if move is None:
        return cut(x, start, stop, step)
    # One slice for each tap, at a place known when it runs. One slice of all that a row of taps
    # reads, and slices of that, would be copied.
    at: list[Any] = [np.uint32(n) for n in start]
    at[1] = at[1] + move if start[1] else move
    x = lax.dynamic_slice(x, at, shape)
    return cut(x, (0,) * x.ndim, shape, step)
