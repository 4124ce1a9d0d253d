"""What both kernels for a GPU share: how output, kernel and samples meet, and tiles of rows.

Arrays are matrices here, channels last: x (N S, C), y (N P, O), w (K I, O). A program computes a
tile of rows by columns; an index of a row is taken apart into batch and position, which costs a few
divisions by constants a row and makes one kernel serve every rank.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._problem import Problem

__all__ = [
    "WARPS",
    "Axis",
    "Index",
    "Tile",
    "axes_of",
    "both",
    "fits",
    "iota",
    "quotient",
    "ravel",
    "tile_of",
    "unravel",
]

# An integer that is known when the kernel is written, or only in the program.
Index: TypeAlias = Any

# Warps of a program. A thread has some bytes of a tile, at most the 16 that it loads at a time.
WARPS = 4

# Columns of a tile at the most: 256 bytes of half precision, two of the lines that memory moves.
MOST_COLUMNS = 128

# Of so many pieces of a row one may have nothing to do: rows of 7, 14 and 28 are still in pieces.
IDLE = 7


class Tile(NamedTuple):
    """Rows and columns of a tile, and outputs or terms that a row stands for.

    Those are ``pieces`` along the last axis, in ``lines`` along the one before. All are powers of
    two, which Triton needs of the first ones.
    """

    rows: int
    columns: int
    pieces: int
    lines: int = 1

    @property
    def each(self) -> int:
        """Elements of a tile that a thread has."""
        return max(self.rows * self.columns // (WARPS * 32), 1)


@dataclasses.dataclass(frozen=True)
class Axis:
    """Output p and tap t meet sample j = (s p + d t - lo) / a where that is an integer.

    Along p that repeats every ``phases`` = a / gcd(s, a) outputs, along t every ``tap_step`` = a /
    gcd(d, a) taps; in these steps j moves by ``row_step`` and ``sample_step``.
    """

    samples: int
    taps: int
    outputs: int
    stride: int
    dilation: int
    lo: int
    spread: int

    @property
    def phases(self) -> int:
        """Outputs after which the taps that meet a sample are the same again, at most all."""
        return min(self.spread // math.gcd(self.stride, self.spread), self.outputs)

    @property
    def rows(self) -> int:
        """Outputs of the longest phase."""
        return -(-self.outputs // self.phases)

    @property
    def row_step(self) -> int:
        """Samples between outputs of a phase that follow each other."""
        return self.stride * self.phases // self.spread

    @property
    def tap_step(self) -> int:
        """Taps between those that meet a sample."""
        return self.spread // math.gcd(self.dilation, self.spread)

    @property
    def terms(self) -> int:
        """Taps of an output that meet a sample, at the most."""
        return -(-self.taps // self.tap_step)

    @property
    def sample_step(self) -> int:
        """Samples between those that the taps of an output meet."""
        return self.dilation * self.tap_step // self.spread

    def first(self, output: Index) -> tuple[Index, Index, Index]:
        """The first tap of an output that meets a sample, that sample, and whether there is one."""
        if self.spread == 1:
            return 0, output * self.stride - self.lo, True
        common = math.gcd(self.dilation, self.spread)
        period = self.spread // common
        inverse = pow(self.dilation // common, -1, period)
        # lo - s p, modulo a, from above zero: remainders of negative numbers differ in sign.
        need = self.lo + output * (-self.stride % self.spread)
        tap = remainder(quotient(need, common) * inverse, period)
        sample = quotient(output * self.stride + tap * self.dilation - self.lo, self.spread)
        return tap, sample, remainder(need, common) == 0


def axes_of(problem: Problem) -> tuple[Axis, ...]:
    """The spatial axes of a problem."""
    return tuple(
        Axis(n, k, p, s, d, lo, a)
        for n, k, p, s, d, (lo, _), a in zip(
            problem.size,
            problem.kernel,
            problem.positions,
            problem.stride,
            problem.dilation,
            problem.padding,
            problem.input_dilation,
            strict=True,
        )
    )


def quotient(a: Index, b: int) -> Index:
    """``a / b`` towards zero; what is divided is exact, or not negative."""
    if b == 1:
        return a
    if isinstance(a, int):
        return a // b if a >= 0 else -(-a // b)
    return lax.div(a, lax.full_like(a, b))


def remainder(a: Index, b: int) -> Index:
    """``a`` modulo ``b``, for an ``a`` that is not negative."""
    if b == 1:
        return a * 0
    return a % b if isinstance(a, int) else lax.rem(a, lax.full_like(a, b))


def unravel(index: Index, sizes: Sequence[int]) -> tuple[Index, ...]:
    """The coordinates of an index among ``sizes``, the last axis running fastest."""
    at: list[Index] = []
    for i in range(len(sizes) - 1, 0, -1):
        # Of a single place nothing is left, and Triton should know that.
        only = all(size == 1 for size in sizes[:i])
        at.append(index if only else remainder(index, sizes[i]))
        index = 0 if only else quotient(index, sizes[i])
    return (index, *reversed(at))


def ravel(at: Sequence[Index], sizes: Sequence[int]) -> Index:
    """The index of coordinates."""
    index = at[0]
    for each, size in zip(at[1:], sizes[1:], strict=True):
        index = index * size + each
    return index


def both(a: Index, b: Index) -> Index:
    """Whether two conditions hold, of which either may be known beforehand."""
    if isinstance(a, bool | np.bool_):
        return b if a else False
    if isinstance(b, bool | np.bool_):
        return a if b else False
    return a & b


def iota(size: int, axis: int) -> jax.Array:
    """0, 1, ... along an axis of a tile."""
    return lax.broadcasted_iota(np.int32, (size, 1) if axis == 0 else (1, size), axis)


def tile_of(channels: int, dtype: Any, length: int, width: int = 16, most: int = 4) -> Tile:
    """The tile for some channels of a dtype, its rows in pieces of an axis of some length.

    A thread has ``width`` bytes of it, and a row at most ``most`` pieces.
    """
    widest = min(MOST_COLUMNS, _power(channels))
    sizes = [widest >> i for i in range(3) if widest >> i >= min(32, widest)]
    columns = min(sizes, key=lambda size: (-(-channels // size) * size, -size))
    rows = max(WARPS * 32 * width // jnp.dtype(dtype).itemsize // columns, 1)
    return Tile(rows, columns, next(n for n in (8, 4, 2, 1) if n <= most and fits(length, n)))


def fits(length: int, pieces: int) -> bool:
    """Whether few enough are idle of an axis in pieces."""
    return -(-length // pieces) * pieces <= length + length // IDLE


def _power(n: int) -> int:
    """The smallest power of two that is not below ``n``."""
    return 1 << (n - 1).bit_length()
