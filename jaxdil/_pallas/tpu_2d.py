"""Depthwise convolution of images on a TPU: x is read once but for halos, y is written once.

    y[n, p, q, c] = sum_{a, b}  x~[n, s p + d a - lo, s q + d b - lo, c] w[a, b, c]

A block of rows is copied, 128 channels at a time, into a float32 image with a border of zeros that
stays in the memory on the chip. There a register is loaded from wherever a tap lies, so that taps
cost a multiplication and an addition and no shift; the sums of some rows stay in registers until
all taps are in. A dilated input (a transposed convolution, the input gradient of a strided one) is
computed phase by phase: each has taps of its own, and its outputs are stored in steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._pallas.plan_2d import Axis, Phase, Plan

__all__ = [
    *("clear", "convolution", "cost", "over", "repeat", "split", "stage", "steps"),
    *("x_block", "y_block"),
]

# Taps that are written out. Of more, a loop goes through the rows of the kernel.
MOST_TAPS = 64

# Rows that are copied together.
COPIED = 4


def convolution(
    x: jax.Array, w: jax.Array, plan: Plan, *, dtype: Any, interpret: Any = False
) -> jax.Array:
    """(N, P, Q, C) in ``dtype`` of x (N, H, W, C) and w (K, L, C)."""
    taps = plan.kernel[0] * plan.kernel[1]
    shape = (plan.batch, *plan.positions, plan.channels)
    scratch = [plan.image] if plan.result is None else [plan.image, plan.result]
    return pl.pallas_call(
        functools.partial(_convolve, plan=plan),
        grid=plan.grid,
        in_specs=[x_block(plan), pl.BlockSpec((taps, plan.wide), lambda c, n, i: (0, c))],  # noqa: ARG005
        out_specs=y_block(plan),
        out_shape=jax.ShapeDtypeStruct(shape, dtype),
        scratch_shapes=[pltpu.VMEM(each, jnp.float32) for each in scratch],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=cost(plan, x, dtype),
        name="jaxdil_depthwise_2d",
        interpret=interpret,
    )(x, w.reshape(taps, plan.channels).astype(jnp.float32))


# --- blocks ---------------------------------------------------------------------------------------


def x_block(plan: Plan) -> pl.BlockSpec:
    """The rows that a step reads: whole images, or a window that overlaps the next."""
    shape = (plan.images, plan.window, plan.columns.size, plan.wide)
    if plan.blocks == 1:
        return pl.BlockSpec(shape, lambda c, n, i: (n, i, 0, c))

    def index(c: Any, n: Any, i: Any) -> tuple[Any, ...]:
        return n * plan.images, _first(plan, i), 0, c * plan.wide

    return pl.BlockSpec(tuple(map(pl.Element, shape)), index)


def y_block(plan: Plan) -> pl.BlockSpec:
    """The rows of the output, or of its cotangent."""
    shape = (plan.images, plan.out_rows, plan.positions[1], plan.wide)
    return pl.BlockSpec(shape, lambda c, n, i: (n, i, 0, c))


def cost(plan: Plan, x: jax.Array, y_dtype: Any) -> pl.CostEstimate:
    """Operations of all taps, in the padding too, and bytes of x and y."""
    outputs = plan.batch * plan.positions[0] * plan.positions[1] * plan.channels
    return pl.CostEstimate(
        flops=2 * outputs * plan.kernel[0] * plan.kernel[1],
        bytes_accessed=x.size * x.dtype.itemsize + outputs * jnp.dtype(y_dtype).itemsize,
        transcendentals=0,
    )


def _top(plan: Plan, i: Any) -> Any:
    """Where in x the image of a block of rows begins; before the first row in the padding."""
    return i * (plan.height * plan.rows.stride) - plan.rows.lo


def _first(plan: Plan, i: Any) -> Any:
    """The first row of x in a block, which lies inside of x altogether."""
    return jnp.clip(_top(plan, i), 0, plan.rows.size - plan.window)


# --- loops ----------------------------------------------------------------------------------------


def repeat(times: int, body: Callable[[Any], None]) -> None:
    """``body(i)``, which writes into memory, for i = 0, 1, ..."""
    if times == 1:
        body(0)
    elif times:
        lax.fori_loop(np.int32(0), np.int32(times), lambda i, _: body(i), None)


def split(count: int, together: int, body: Callable[[Any, int], None]) -> None:
    """``body(first, how many)`` for 0, 1, ..., ``together`` at a time and what is left."""
    whole, rest = divmod(count, together)
    repeat(whole, lambda i: body(i * together, together))
    if rest:
        body(whole * together, rest)


def over(plan: Plan, body: Callable[[Any, Any, Any], None]) -> None:
    """``body(image, tile, lanes)`` for each image of a block and each 128 of its channels."""

    def lanes(tile: Any) -> Any:
        if plan.tiles == 1:
            return slice(None)
        return pl.ds(pl.multiple_of(tile * plan.lanes, plan.lanes), plan.lanes)

    repeat(plan.images, lambda n: repeat(plan.tiles, lambda tile: body(n, tile, lanes(tile))))


def steps(axis: Axis, first: Any, count: int, offset: Any) -> Any:
    """What outputs ``first, first + 1, ...`` read of an axis for a tap."""
    return pl.ds(first * axis.stride + offset, count, axis.stride)


# --- the padded image -----------------------------------------------------------------------------


def clear(image: Any) -> None:
    """Zeros everywhere; what is not written over stays the border."""

    def row(r: Any) -> None:
        image[r] = jnp.zeros(image.shape[1:], image.dtype)

    repeat(image.shape[0], row)


def stage(x: Any, image: Any, plan: Plan, i: Any) -> None:
    """Write rows of x (H, W, C) of block ``i`` to where they lie in the padded image."""
    columns = pl.ds(plan.columns.lo, plan.columns.size)
    if plan.blocks == 1:

        def rows(r: Any, count: int) -> None:
            rows = x[pl.ds(r, count)].astype(image.dtype)
            image[pl.ds(r + plan.rows.lo, count), columns, :] = rows

        split(plan.rows.size, COPIED, rows)
        return

    # Rows of the image may lie outside of x, and the block then begins further down.
    top = _top(plan, i)
    shift = _first(plan, i) - top

    def row(r: Any) -> None:
        inside = (top + r >= 0) & (top + r < plan.rows.size)
        row = x[jnp.clip(r - shift, 0, plan.window - 1)].astype(image.dtype)
        image[r, columns, :] = jnp.where(inside, row, 0.0)

    repeat(image.shape[0], row)


# --- the convolution ------------------------------------------------------------------------------


def _convolve(x: Any, w: Any, y: Any, image: Any, *results: Any, plan: Plan) -> None:
    i = pl.program_id(2)
    pl.when((pl.program_id(1) == 0) & (i == 0))(lambda: clear(image))

    def one(n: Any, tile: Any, lanes: Any) -> None:  # noqa: ARG001
        stage(x.at[n, :, :, lanes], image, plan, i)
        out = y.at[n, :, :, lanes]
        for phase in plan.rows.phases:
            for side in plan.columns.phases:
                to = results[0] if results else out
                _sums(image, w.at[:, lanes], to, plan, phase, side)
        for result in results:

            def copy(r: Any, count: int, result: Any = result) -> None:
                rows = result[pl.ds(r, count), : plan.positions[1], :]
                out[pl.ds(r, count)] = rows.astype(out.dtype)

            split(plan.out_rows, COPIED, copy)

    over(plan, one)


def _sums(image: Any, w: Any, y: Any, plan: Plan, phase: Phase, side: Phase) -> None:
    """The outputs of one phase of rows and one of columns, some rows of 8 or 16 columns a time."""
    many = len(phase.taps) * len(side.taps)
    # So many sums that each weight is loaded for several, so few that they stay in registers.
    width, together = (16, 8) if many <= 32 and side.outputs > 8 else (8, 16)
    height = plan.height if plan.blocks > 1 else phase.outputs
    rows, columns = plan.rows, plan.columns

    def block(r: Any, count: int, q: Any, wide: int) -> None:
        def row_of_taps(total: Any, row: Any, offset: Any) -> Any:
            for each in side.taps:
                at = steps(rows, r, count, offset), steps(columns, q, wide, each.offset)
                weight = w[pl.ds(row * plan.kernel[1] + each.tap, 1), :]
                total = total + image[*at, :] * weight[None]
            return total

        total = jnp.zeros((count, wide, image.shape[2]), jnp.float32)
        if many <= MOST_TAPS:
            for each in phase.taps:
                total = row_of_taps(total, *each)
        else:
            # They lie evenly apart, as all taps of a phase do.
            first, second = phase.taps[0], phase.taps[min(1, len(phase.taps) - 1)]
            tap, offset = second.tap - first.tap, second.offset - first.offset

            def add(u: Any, total: Any) -> Any:
                return row_of_taps(total, first.tap + tap * u, first.offset + offset * u)

            total = lax.fori_loop(np.int32(0), np.int32(len(phase.taps)), add, total)
        to_rows = pl.ds(r * rows.step + phase.phase, count, rows.step)
        y[to_rows, pl.ds(q * columns.step + side.phase, wide, columns.step), :] = total.astype(
            y.dtype
        )

    split(
        height,
        together,
        lambda r, count: split(side.outputs, width, lambda q, wide: block(r, count, q, wide)),
    )
