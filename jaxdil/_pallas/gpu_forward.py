"""Convolution of narrow groups on a GPU: one pass that reads each sample and writes each output.

    y[n, p, o] = sum_{t, i}  x~[n, (s p + d t - lo) / a, g I + i]  w[t, i, o]       g = o // (O / G)

A program has some neighbouring outputs along the last axis for each row of a tile, in registers and
in float32, and goes through the taps. A sample that several of its outputs read is loaded once, and
so is a row of w; what lies outside is masked. Where the input is dilated the outputs of a program
are of one phase and meet the same taps, so the zeros between samples are neither made nor read, and
every output is written in the same pass.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxdil._pallas.gpu_tiles import (
    WARPS,
    Axis,
    Index,
    Tile,
    axes_of,
    both,
    fits,
    iota,
    quotient,
    ravel,
    tile_of,
    unravel,
)
from jaxdil._pallas.varying import like
from jaxdil._problem import Problem

__all__ = ["convolution"]

# Taps written out; a kernel of more loops over its first axes.
UNROLL = 64

# Taps from which on two lines of outputs are computed together: what a multiprocessor reads of its
# cache, a sample for each tap, is then what takes the time.
LARGE = 25

# Bytes of a tile for each thread: as many as it loads at a time; fewer, and more threads, where it
# keeps much in registers; fewer still where a stride lies between outputs, which share little.
WIDTH, LARGE_WIDTH, STRIDED_WIDTH = 16, 8, 4


class _Plan(NamedTuple):
    """How a problem is cut into programs."""

    problem: Problem
    axes: tuple[Axis, ...]
    tile: Tile

    @property
    def sizes(self) -> tuple[int, ...]:
        """What a row of a tile counts: batch, outputs of each axis, of the last two in pieces."""
        counts = zip(self.axes, self.pieces, strict=True)
        return (self.problem.batch, *(-(-axis.rows // pieces) for axis, pieces in counts))

    @property
    def pieces(self) -> tuple[int, ...]:
        """Outputs of each axis that a row of a tile stands for."""
        return (*(1,) * (len(self.axes) - 2), self.tile.lines, self.tile.pieces)[-len(self.axes) :]

    def block(self, level: int) -> int:
        """Taps of an axis that are written out: all, or an equal share, for a pass of a loop."""
        terms = self.axes[level].terms
        rest = self.problem.group_channels * math.prod(a.terms for a in self.axes[level + 1 :])
        shares = (n for n in range(terms, 0, -1) if terms % n == 0)
        return next((n for n in shares if n * rest <= UNROLL), 1)

    @property
    def grid(self) -> tuple[int, ...]:
        """Programs: phases of each axis, tiles of rows, tiles of columns."""
        return (
            *(axis.phases for axis in self.axes),
            -(-math.prod(self.sizes) // self.tile.rows),
            -(-self.problem.out_channels // self.tile.columns),
        )


def convolution(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    """The output (N, *P, O) of x (N, *S, C) and w (*K, I, O)."""
    axes = axes_of(problem)
    plan = _Plan(problem, axes, _tile(problem, axes))
    y_shape = (math.prod(problem.y_shape[:-1]), problem.out_channels)
    y = pl.pallas_call(
        functools.partial(_kernel, plan=plan),
        # One axis, the only one that CUDA allows more than 65,535 of.
        grid=(math.prod(plan.grid),),
        out_shape=like(x, y_shape, problem.out_dtype),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS),
        cost_estimate=pl.CostEstimate(
            flops=problem.flops, bytes_accessed=problem.bytes, transcendentals=0
        ),
        name="jaxdil_narrow_groups",
        interpret=interpret,
    )(x.reshape(-1, problem.channels), w.reshape(-1, problem.out_channels))
    return y.reshape(problem.y_shape)


def _tile(problem: Problem, axes: tuple[Axis, ...]) -> Tile:
    channels, dtype, length = problem.out_channels, problem.x_dtype, axes[-1].rows
    if axes[-1].row_step > 1:
        return tile_of(channels, dtype, length, STRIDED_WIDTH)
    if problem.taps < LARGE:
        return tile_of(channels, dtype, length, WIDTH)
    if len(axes) > 1:
        above = axes[-2]
        if above.row_step == above.sample_step == 1 and above.taps > 1 and fits(above.rows, 2):
            # Samples are in single precision once they are loaded.
            width = LARGE_WIDTH * dtype.itemsize // 4
            return tile_of(channels, dtype, length, width)._replace(lines=2)
    return tile_of(channels, dtype, length, LARGE_WIDTH)


def _kernel(x: Any, w: Any, y: Any, *, plan: _Plan) -> None:
    problem, axes = plan.problem, plan.axes
    *phases, row, column = unravel(pl.program_id(0), plan.grid)

    column = column * plan.tile.columns + iota(plan.tile.columns, 1)
    kept = column < problem.out_channels
    row = row * plan.tile.rows + iota(plan.tile.rows, 0)
    inside = row < math.prod(plan.sizes)
    n, *at = unravel(row, plan.sizes)
    at = [q * pieces for q, pieces in zip(at, plan.pieces, strict=True)]
    outputs, starts, met = [], [], inside
    for axis, phase, q in zip(axes, phases, at, strict=True):
        tap, sample, meets = axis.first(phase)
        starts.append((tap, sample + q * axis.row_step))
        met = both(met, meets)
        outputs.append(q * axis.phases + phase)
    for axis, p in zip(axes[:-1], outputs[:-1], strict=True):
        inside = both(inside, p < axis.outputs)

    zeros = lax.full((plan.tile.rows, plan.tile.columns), 0, jnp.float32)
    totals = (zeros,) * (plan.tile.lines * plan.tile.pieces)
    n = lax.full_like(row, n) if isinstance(n, int) else n
    place = _Place(n, both(met, inside))
    totals = _taps(totals, place, starts, None, _Arrays(x, w, column, kept), plan)

    for i, total in enumerate(totals):
        line, piece = divmod(i, plan.tile.pieces)
        to, there = list(outputs), inside
        for back, step in ((-1, piece), (-2, line)):
            if step or back == -1:
                to[back] = to[back] + step * axes[back].phases
                there = both(there, to[back] < axes[back].outputs)
        # Rows that are not there go beyond the end; they would name rows that are.
        row = ravel((n, *to), (problem.batch, *problem.positions))
        row = jnp.where(there, row, math.prod(problem.y_shape[:-1]))
        plgpu.store(y.at[row, column], total.astype(problem.out_dtype), mask=there & kept)


class _Arrays(NamedTuple):
    """The arrays, the columns of a tile, and whether there are such."""

    x: Any
    w: Any
    column: Index
    kept: Index


class _Place(NamedTuple):
    """What the taps of the axes gone through so far read: a row of x and a row of w, if any."""

    row: Index
    inside: Index
    tap: Index = 0
    there: Index = True


# Steps along the last axis and an input channel of the group -> a tile of samples.
_Samples: TypeAlias = Callable[[int, int], jax.Array]


def _taps(
    totals: tuple[jax.Array, ...],
    place: _Place,
    starts: list[tuple[Index, Index]],
    shared: _Samples | None,
    arrays: _Arrays,
    plan: _Plan,
) -> tuple[jax.Array, ...]:
    """``totals`` and all taps of the axes that are left; ``shared`` has samples of the last one."""
    level = len(plan.axes) - len(starts)
    axis, (tap, sample) = plan.axes[level], starts[0]
    block = plan.block(level)
    passes = axis.terms // block

    def add(first: Index, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        def tap_at(u: int) -> tuple[Index, Index]:
            t = tap + (first + u) * axis.tap_step
            last = axis.tap_step * (axis.terms if passes > 1 else u + 1) - 1
            there = both(place.there, last < axis.taps or t < axis.taps)
            return place.tap * axis.taps + t, there

        def sample_at(steps: int) -> tuple[Index, Index]:
            return _sample(place, axis, sample + first * axis.sample_step + steps)

        if len(starts) == 1:
            samples = shared or _reader(sample_at, arrays, plan)
            return _last(totals, samples, tap_at, block, arrays, plan)
        lines = plan.tile.lines if len(starts) == 2 else 1
        count = len(totals) // lines
        parts = [totals[i * count : (i + 1) * count] for i in range(lines)]
        # Lines of outputs that meet a row of x at different taps load it once.
        above = functools.cache(lambda steps: _Place(*sample_at(steps)))
        readers = functools.cache(
            lambda steps: _reader(
                lambda along: _sample(above(steps), plan.axes[-1], starts[1][1] + along),
                arrays,
                plan,
            )
        )
        share = len(starts) == 2 and plan.block(level + 1) == plan.axes[-1].terms
        for u in range(block):
            for line in range(lines):
                steps = u * axis.sample_step + line * axis.row_step
                here = _Place(*above(steps)[:2], *tap_at(u))
                read = readers(steps) if share else None
                parts[line] = _taps(parts[line], here, starts[1:], read, arrays, plan)
        return tuple(total for part in parts for total in part)

    if passes == 1:
        return add(0, totals)
    return lax.fori_loop(np.int32(0), np.int32(passes), lambda i, y: add(i * block, y), totals)


def _sample(place: _Place, axis: Axis, j: Index) -> tuple[Index, Index]:
    """The row of x that is sample ``j`` of an axis, and whether it is one."""
    return place.row * axis.samples + j, both(place.inside, (j >= 0) & (j < axis.samples))


def _reader(
    sample_at: Callable[[int], tuple[Index, Index]], arrays: _Arrays, plan: _Plan
) -> _Samples:
    """Tiles of x along the last axis, each loaded once."""
    channel = quotient(arrays.column, plan.problem.out_channels // plan.problem.groups)
    channel = channel * plan.problem.group_channels

    @functools.cache
    def samples(steps: int, i: int) -> jax.Array:
        row, inside = sample_at(steps)
        rows = arrays.x.at[row, channel + i]
        return plgpu.load(rows, mask=inside & arrays.kept, other=0).astype(jnp.float32)

    return samples


def _last(
    totals: tuple[jax.Array, ...],
    samples: _Samples,
    tap_at: Callable[[int], tuple[Index, Index]],
    block: int,
    arrays: _Arrays,
    plan: _Plan,
) -> tuple[jax.Array, ...]:
    """``totals`` and some taps of the last axis, of which the outputs of a row share samples."""
    axis, inner = plan.axes[-1], plan.problem.group_channels
    sums = list(totals)
    for u in range(block):
        row, there = tap_at(u)
        for i in range(inner):
            # Once for each row of the tile: a row of its own would go round by shared memory.
            rows = lax.full((plan.tile.rows, 1), row * inner + i, np.int32)
            taps = arrays.w.at[rows, arrays.column]
            taps = plgpu.load(taps, mask=both(arrays.kept, there), other=0).astype(jnp.float32)
            for piece in range(len(sums)):
                term = samples(piece * axis.row_step + u * axis.sample_step, i) * taps
                # A sample that no tap meets may be NaN, which zero times it is too.
                sums[piece] += term if there is True else jnp.where(there, term, 0)
    return tuple(sums)
