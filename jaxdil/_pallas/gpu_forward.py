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
from typing import Any, NamedTuple

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
UNROLL = 32


class _Plan(NamedTuple):
    """How a problem is cut into programs."""

    problem: Problem
    axes: tuple[Axis, ...]
    tile: Tile

    @property
    def sizes(self) -> tuple[int, ...]:
        """What a row of a tile counts: batch, outputs of each axis, of the last in pieces."""
        *others, last = (axis.rows for axis in self.axes)
        return (self.problem.batch, *others, -(-last // self.tile.pieces))

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
    plan = _Plan(problem, axes, tile_of(problem.out_channels, x.dtype, axes[-1].rows))
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


def _kernel(x: Any, w: Any, y: Any, *, plan: _Plan) -> None:
    problem, axes = plan.problem, plan.axes
    *phases, row, column = unravel(pl.program_id(0), plan.grid)

    column = column * plan.tile.columns + iota(plan.tile.columns, 1)
    kept = column < problem.out_channels
    row = row * plan.tile.rows + iota(plan.tile.rows, 0)
    inside = row < math.prod(plan.sizes)
    n, *at = unravel(row, plan.sizes)
    at[-1] = at[-1] * plan.tile.pieces
    outputs, starts, met = [], [], inside
    for axis, phase, q in zip(axes, phases, at, strict=True):
        tap, sample, meets = axis.first(phase)
        starts.append((tap, sample + q * axis.row_step))
        met = both(met, meets)
        outputs.append(q * axis.phases + phase)
    for axis, p in zip(axes[:-1], outputs[:-1], strict=True):
        inside = both(inside, p < axis.outputs)

    totals = (lax.full((plan.tile.rows, plan.tile.columns), 0, jnp.float32),) * plan.tile.pieces
    n = lax.full_like(row, n) if isinstance(n, int) else n
    place = _Place(n, both(met, inside), 0)
    totals = _taps(totals, place, x, w, (column, kept), starts, plan)

    for piece, total in enumerate(totals):
        last = outputs[-1] + piece * axes[-1].phases
        there = both(inside, last < axes[-1].outputs)
        # Rows that are not there go beyond the end; they would name rows that are.
        to = ravel((n, *outputs[:-1], last), (problem.batch, *problem.positions))
        to = jnp.where(there, to, math.prod(problem.y_shape[:-1]))
        plgpu.store(y.at[to, column], total.astype(problem.out_dtype), mask=there & kept)


class _Place(NamedTuple):
    """What the taps of the axes gone through so far read: row of x, if it is one, and of w."""

    row: Index
    inside: Index
    tap: Index


def _taps(
    totals: tuple[jax.Array, ...],
    place: _Place,
    x: Any,
    w: Any,
    columns: tuple[Index, Index],
    starts: list[tuple[Index, Index]],
    plan: _Plan,
) -> tuple[jax.Array, ...]:
    """``totals`` and all taps of the axes that are left."""
    level = len(plan.axes) - len(starts)
    axis, (tap, sample) = plan.axes[level], starts[0]
    rest = plan.problem.group_channels * math.prod(a.terms for a in plan.axes[level + 1 :])
    # A pass of a loop takes as many taps of this axis as may be written out.
    passes = -(-axis.terms // max(UNROLL // rest, 1))
    block = -(-axis.terms // passes)

    def add(first: Index, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        def row_of_w(u: int) -> tuple[Index, Index]:
            t = tap + (first + u) * axis.tap_step
            last = axis.tap_step * (axis.terms if passes > 1 else u + 1) - 1
            sure = last < axis.taps and axis.terms % block == 0
            return place.tap * axis.taps + t, sure or t < axis.taps

        def row_of_x(steps: int) -> tuple[Index, Index]:
            j = sample + first * axis.sample_step + steps
            inside = both(place.inside, (j >= 0) & (j < axis.samples))
            return place.row * axis.samples + j, inside

        if len(starts) == 1:
            return _last(totals, row_of_x, row_of_w, block, x, w, columns, plan)
        for u in range(block):
            (row, inside), (t, there) = row_of_x(u * axis.sample_step), row_of_w(u)
            here = _Place(row, both(inside, there), t)
            totals = _taps(totals, here, x, w, columns, starts[1:], plan)
        return totals

    if passes == 1:
        return add(0, totals)
    return lax.fori_loop(np.int32(0), np.int32(passes), lambda i, y: add(i * block, y), totals)


def _last(
    totals: tuple[jax.Array, ...],
    row_of_x: Callable[[int], tuple[Index, Index]],
    row_of_w: Callable[[int], tuple[Index, Index]],
    block: int,
    x: Any,
    w: Any,
    columns: tuple[Index, Index],
    plan: _Plan,
) -> tuple[jax.Array, ...]:
    """``totals`` and some taps of the last axis, of which the outputs of a row share samples."""
    column, kept = columns
    axis, inner = plan.axes[-1], plan.problem.group_channels
    group = quotient(column, plan.problem.out_channels // plan.problem.groups) * inner

    @functools.cache
    def samples(steps: int, i: int) -> jax.Array:
        row, inside = row_of_x(steps)
        return plgpu.load(x.at[row, group + i], mask=inside & kept, other=0).astype(jnp.float32)

    sums = list(totals)
    for u in range(block):
        row, there = row_of_w(u)
        for i in range(inner):
            # Once for each row of the tile: a row of its own would go round by shared memory.
            rows = lax.full((plan.tile.rows, 1), row * inner + i, np.int32)
            taps = plgpu.load(w.at[rows, column], mask=both(kept, there), other=0)
            for piece in range(len(sums)):
                steps = piece * axis.row_step + u * axis.sample_step
                term = samples(steps, i) * taps.astype(jnp.float32)
                # A sample that no tap meets may be NaN, which zero times it is too.
                sums[piece] += term if there is True else jnp.where(there, term, 0)
    return tuple(sums)
