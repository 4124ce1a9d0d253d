"""The kernel gradient of narrow groups on a GPU: one pass over image and cotangent.

    y[i, t, o] = sum_{n, p}  x~[n, (s t + d p - lo) / a, g I + i]  c[n, p, o]       g = o // (O / G)

A program has a few taps t by a tile of channels, and goes through a share of the terms (n, p). A
tile of products stays in registers for each tap, in float32, and is summed at the end; the shares
are summed by XLA afterwards, so that the result is the same every time, which atomics would not
give. A row of the tile stands for some neighbouring terms along the last axis, and a sample that
several of them meet, at one tap or another, is loaded once. Where the input is dilated only every
a-th p meets a sample, and only those are terms.
"""

from __future__ import annotations

import functools
import math
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

__all__ = ["kernel_gradient"]

# Sums that a thread keeps, a tile of them for each tap of a program: more taps together mean fewer
# passes over memory.
SUMS = 36

# Bytes of a tile for each thread, and terms along the last axis that a row of a tile stands for, at
# the most, as they were fastest on an H100. Fewer bytes make more threads, which hide better how
# long memory takes; with more, fewer instructions say where it is. Taps of a dilated kernel, or in
# another plane, share no samples, and there is more to load.
APART, FEW, MANY = (16, 4), (4, 4), (8, 8)

# Programs that fill a GPU of about 132 multiprocessors, eight on each; and tiles of terms that a
# program should have at the least, so that the shares written are few beside what was read.
PROGRAMS, PASSES = 1024, 8


class _Plan(NamedTuple):
    """How a problem is cut into programs. A line is the taps along the last axis."""

    problem: Problem
    axes: tuple[Axis, ...]
    tile: Tile

    @property
    def inner(self) -> int:
        """I, the input channels of a group."""
        return self.problem.batch // self.problem.batch_groups

    @property
    def sizes(self) -> tuple[int, ...]:
        """What a row of a tile counts: batch, terms of each axis, of the last in pieces."""
        *others, last = (axis.terms for axis in self.axes)
        return (self.problem.channels, *others, -(-last // self.tile.pieces))

    @property
    def lines(self) -> int:
        """Lines of the kernel, for each input channel of a group."""
        return self.inner * math.prod(self.problem.positions[:-1])

    @property
    def together(self) -> tuple[int, int]:
        """Lines, and taps of a line, that a program has."""
        long, most = self.problem.positions[-1], max(SUMS // self.tile.each, 1)
        return _share(self.lines, max(most // long, 1)), _share(long, most)

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Groups of lines, parts of a line, tiles of columns."""
        lines, taps = self.together
        return (
            -(-self.lines // lines),
            -(-self.problem.positions[-1] // taps),
            -(-self.problem.out_channels // self.tile.columns),
        )

    @property
    def passes(self) -> int:
        """Tiles of terms that a program goes through."""
        tiles = -(-math.prod(self.sizes) // self.tile.rows)
        return min(max(PASSES, -(-tiles * math.prod(self.tiles) // PROGRAMS)), tiles)

    @property
    def shares(self) -> int:
        """Programs among which the terms of a tap are divided."""
        return -(-math.prod(self.sizes) // (self.tile.rows * self.passes))


def _share(n: int, most: int) -> int:
    """The largest of as few and as equal shares of ``n`` as are no larger than ``most``."""
    return -(-n // -(-n // most))


def kernel_gradient(x: jax.Array, c: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    """The result (I, *K, O) of the image (N, *S, G I) and the cotangent (N, *P, O)."""
    axes = axes_of(problem)
    plan = _Plan(problem, axes, _tile(problem, axes[-1].terms))
    taps = plan.inner * math.prod(problem.positions)
    shares = pl.pallas_call(
        functools.partial(_kernel, plan=plan),
        # One axis, the only one that CUDA allows more than 65,535 of.
        grid=(plan.shares * math.prod(plan.tiles),),
        out_shape=like(x, (plan.shares * taps, problem.out_channels), jnp.float32),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS),
        cost_estimate=pl.CostEstimate(
            flops=problem.flops, bytes_accessed=problem.bytes, transcendentals=0
        ),
        name="jaxdil_narrow_groups_kernel_gradient",
        interpret=interpret,
    )(x.reshape(-1, x.shape[-1]), c.reshape(-1, c.shape[-1]))
    y = jnp.sum(shares.reshape(plan.shares, taps, problem.out_channels), axis=0)
    return y.reshape(problem.y_shape).astype(problem.out_dtype)


def _tile(problem: Problem, terms: int) -> Tile:
    taps = math.prod(problem.positions)
    shape = APART if max(problem.stride) > 1 or problem.rank > 2 else FEW if taps < 10 else MANY
    return tile_of(problem.out_channels, problem.x_dtype, terms, *shape)


def _kernel(x: Any, c: Any, y: Any, *, plan: _Plan) -> None:
    problem = plan.problem
    share, line, tap, column = unravel(pl.program_id(0), (plan.shares, *plan.tiles))
    lines, taps = plan.together
    # What is known when the kernel is written makes the kernel shorter.
    line = line * lines if plan.tiles[0] > 1 else 0
    tap = tap * taps if plan.tiles[1] > 1 else 0

    column = column * plan.tile.columns + iota(plan.tile.columns, 1)
    kept = column < problem.out_channels
    group = quotient(column, problem.out_channels // problem.batch_groups) * plan.inner

    def add(i: Index, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        row = (share * plan.passes + i) * plan.tile.rows + iota(plan.tile.rows, 0)
        inside = row < math.prod(plan.sizes)
        n, *at = unravel(row, plan.sizes)
        at[-1] = at[-1] * plan.tile.pieces
        products = []
        for each in range(lines):
            inner, samples, positions = _line(line + each, inside, n, at[:-1], plan)
            image = _Rows(x, *samples, group + inner, kept)
            cotangent = _Rows(c, *positions, column, kept)
            products += _products(image, cotangent, tap, at[-1], plan)
        return tuple(total + product for total, product in zip(totals, products, strict=True))

    zeros = lax.full((plan.tile.rows, plan.tile.columns), 0, jnp.float32)
    totals = lax.fori_loop(np.int32(0), np.int32(plan.passes), add, (zeros,) * (lines * taps))
    for i, total in enumerate(totals):
        here, there = line + i // taps, tap + i % taps
        row = (share * plan.lines + here) * problem.positions[-1] + there
        mask = both(kept, both(here < plan.lines, there < problem.positions[-1]))
        rows = lax.full((1, 1), row, np.int32)
        plgpu.store(y.at[rows, column], jnp.sum(total, axis=0, keepdims=True), mask=mask)


class _Rows(NamedTuple):
    """Rows of image or cotangent up to the last axis, whether there are such, and columns."""

    array: Any
    row: Index
    inside: Index
    column: Index
    kept: Index

    def load(self, at: Index, size: int, inside: Index) -> jax.Array:
        """The rows at a place of the last axis, which has ``size``."""
        mask = both(both(self.inside, inside), self.kept)
        rows = self.array.at[self.row * size + at, self.column]
        return plgpu.load(rows, mask=mask, other=0).astype(jnp.float32)


def _line(
    line: Index, inside: Index, n: Index, at: list[Index], plan: _Plan
) -> tuple[Index, tuple[Index, Index], tuple[Index, Index]]:
    """The input channel of a line; rows of image and cotangent at its terms, and whether any."""
    problem = plan.problem
    inner, *taps = unravel(line, (plan.inner, *problem.positions[:-1]))
    inside = both(inside, line < plan.lines)
    samples, positions, met = [n], [n], inside
    for axis, tap, u in zip(plan.axes[:-1], taps, at, strict=True):
        position, sample, meets = axis.first(tap)
        samples.append(sample + u * axis.sample_step)
        positions.append(position + u * axis.tap_step)
        met = both(met, (samples[-1] >= 0) & (samples[-1] < axis.samples))
        if axis.spread > 1:
            inside = both(inside, both(meets, positions[-1] < axis.taps))
    image = ravel(samples, (n, *problem.size[:-1])), both(met, inside)
    return inner, image, (ravel(positions, (n, *problem.kernel[:-1])), inside)


def _products(
    image: _Rows, cotangent: _Rows, tap: Index, at: Index, plan: _Plan
) -> list[jax.Array]:
    """A tile of products for each tap of a line, summed over the pieces of its rows."""
    axis, taps = plan.axes[-1], range(plan.together[1])
    # Without a dilated input the taps meet samples in steps of the stride, from the first of them.
    even = axis.spread == 1
    starts = [axis.first(tap)] if even else [axis.first(tap + i) for i in taps]
    known = isinstance(tap, int)

    @functools.cache
    def samples(start: int, steps: int) -> jax.Array:
        sample = at * axis.sample_step + steps + (0 if known else starts[start][1])
        return image.load(sample, axis.samples, (sample >= 0) & (sample < axis.samples))

    # A row of the tile ends where the terms end, or beyond.
    sure = even and axis.terms % plan.tile.pieces == 0

    @functools.cache
    def positions(start: int, steps: int) -> tuple[jax.Array, Index]:
        position = at * axis.tap_step + steps + starts[start][0]
        there = sure or both(starts[start][2], position < axis.taps)
        return cotangent.load(position, axis.taps, there), there

    def product(i: int, piece: int) -> jax.Array:
        start = 0 if even else i
        steps = piece * axis.sample_step + (axis.stride * i if even else 0)
        # A sample that is known is the same for whichever tap it is the first.
        sample = samples(0, steps + starts[start][1]) if known else samples(start, steps)
        position, there = positions(start, piece * axis.tap_step)
        # A sample that no position meets may be NaN, which zero times it is too.
        return sample * position if there is True else jnp.where(there, sample * position, 0)

    pieces = range(plan.tile.pieces)
    return [functools.reduce(jnp.add, [product(i, piece) for piece in pieces]) for i in taps]
