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
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._layout import transpose
from jaxdil._pallas.axes import Axis, Phase
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_2d import SUBLANES, Plan
from jaxdil._pallas.varying import like

__all__ = [
    "MOST_TAPS",
    "arranged",
    "clear",
    "convolution",
    "cost",
    "finish",
    "over",
    "repeat",
    "split",
    "stage",
    "steps",
    "sums",
    "x_block",
    "y_block",
]

# Taps that are written out. Of more, a loop goes through the rows of the kernel.
MOST_TAPS = 64

# Rows that are copied together.
COPIED = 4


@narrow
def convolution(
    x: jax.Array, w: jax.Array, plan: Plan, *, dtype: Any, interpret: Any = False
) -> jax.Array:
    """(N, P, Q, C) in ``dtype`` of x (N, H, W, C) and w (K, L, C)."""
    taps = plan.kernel[0] * plan.kernel[1]
    scratch = [plan.image] if plan.result is None else [plan.image, plan.result]
    w = w.reshape(taps, 1, plan.batch if plan.crossed else plan.channels).astype(jnp.float32)
    weights = pl.BlockSpec((taps, 1, plan.wide), lambda c, n, i: (0, 0, c))  # noqa: ARG005
    if plan.crossed:
        w = w[:, 0].T
        weights = pl.BlockSpec((SUBLANES, taps), lambda c, n, i: (n, 0))  # noqa: ARG005
        scratch = [(taps, SUBLANES, plan.lanes), *scratch]
    y = pl.pallas_call(
        functools.partial(_convolve, plan=plan),
        grid=plan.grid,
        in_specs=[x_block(plan), weights],
        out_specs=y_block(plan),
        out_shape=like(x, _order(plan, plan.batch, *plan.positions, plan.channels), dtype),
        scratch_shapes=[pltpu.VMEM(each, jnp.float32) for each in scratch],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=cost(plan),
        name="jaxdil_depthwise_2d",
        interpret=interpret,
    )(arranged(plan, x), w)
    return transpose(y, (2, 0, 1, 3)) if plan.together else y


# --- blocks ---------------------------------------------------------------------------------------


def _order(plan: Plan, n: Any, h: Any, w: Any, c: Any) -> tuple[Any, ...]:
    """Something of each axis in the order of a kernel: what lies in the sublanes comes third."""
    return (h, w, n, c) if plan.together else (n, h, w, c)


def arranged(plan: Plan, x: jax.Array) -> jax.Array:
    """(N, H, W, C) in the order of a kernel."""
    return transpose(x, (1, 2, 0, 3)) if plan.together else x


def x_block(plan: Plan) -> pl.BlockSpec:
    """The rows that a step reads: whole images, or a window that overlaps the next."""
    images = plan.images * max(plan.together, 1)
    shape = _order(plan, images, plan.window, plan.columns.size, plan.wide)
    if plan.blocks == 1:
        return pl.BlockSpec(shape, lambda c, n, i: _order(plan, n, i, 0, c))

    def index(c: Any, n: Any, i: Any) -> tuple[Any, ...]:
        # The compiler wants proof that channels begin with a tile.
        channel = c * plan.wide if plan.grid[0] > 1 else 0
        image = n * images if plan.grid[1] > 1 else 0
        return _order(plan, image, _first(plan, i), 0, channel)

    return pl.BlockSpec(tuple(map(pl.Element, shape)), index)


def y_block(plan: Plan) -> pl.BlockSpec:
    """The rows of the output, or of its cotangent."""
    images = plan.images * max(plan.together, 1)
    shape = _order(plan, images, plan.out_rows, plan.positions[1], plan.wide)
    return pl.BlockSpec(shape, lambda c, n, i: _order(plan, n, i, 0, c))


def cost(plan: Plan) -> pl.CostEstimate:
    """Operations of all taps, in the padding too, and what is copied, tiles and halos whole."""
    outputs = plan.batch * plan.positions[0] * plan.positions[1] * plan.channels
    return pl.CostEstimate(
        flops=2 * outputs * plan.kernel[0] * plan.kernel[1],
        bytes_accessed=plan.moved,
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


def over(plan: Plan, body: Callable[[Callable[[Any], Any], Any, Any], None]) -> None:
    """``body(image of, tile, lanes)`` for each image of a block and each 128 of its channels.

    ``image of`` a block is (H, W, C), or (H, W, N, C) of the images that lie together.
    """

    def one(n: Any, tile: Any) -> None:
        lanes: Any = slice(None)
        if plan.tiles > 1:
            lanes = pl.ds(pl.multiple_of(tile * plan.lanes, plan.lanes), plan.lanes)
        images = n
        if plan.together and plan.images > 1:
            images = pl.ds(pl.multiple_of(n * plan.together, plan.together), plan.together)
        elif plan.together:
            images = slice(None)
        at = _order(plan, images, slice(None), slice(None), lanes)
        body(lambda block: block.at[at], tile, lanes)

    repeat(plan.images, lambda n: repeat(plan.tiles, lambda tile: one(n, tile)))


def steps(axis: Axis, first: Any, count: int, offset: Any) -> Any:
    """What outputs ``first, first + 1, ...`` read of an axis for a tap."""
    return pl.ds(first * axis.stride + offset, count, axis.stride)


# --- the padded image -----------------------------------------------------------------------------


def clear(image: Any) -> None:
    """Zeros everywhere; what is not written over stays the border."""

    def rows(r: Any, count: int) -> None:
        image[pl.ds(r, count)] = jnp.zeros((count, *image.shape[1:]), image.dtype)

    split(image.shape[0], COPIED, rows)


def stage(x: Any, image: Any, plan: Plan, i: Any) -> None:
    """Write rows of x of block ``i`` to where they lie in the padded image."""
    columns = pl.ds(plan.columns.lo, plan.columns.size)

    def copy(count: int, below: int) -> None:
        def rows(r: Any, count: int) -> None:
            image[pl.ds(r + below, count), columns] = x[pl.ds(r, count)].astype(image.dtype)

        split(count, COPIED, rows)

    if plan.blocks == 1:
        copy(plan.rows.size, plan.rows.lo)
        return

    # At the edge rows of the image lie outside of x, and the block begins elsewhere.
    top, first = _top(plan, i), _first(plan, i)
    edge = (top < 0) | (top + image.shape[0] > plan.rows.size)

    def row(r: Any) -> None:
        inside = (top + r >= 0) & (top + r < plan.rows.size)
        row = x[jnp.clip(top + r - first, 0, plan.window - 1)].astype(image.dtype)
        image[r, columns] = jnp.where(inside, row, 0.0)

    pl.when(edge)(lambda: repeat(image.shape[0], row))
    if image.shape[0] == plan.window:
        pl.when(jnp.logical_not(edge))(lambda: copy(plan.window, 0))


# --- the convolution ------------------------------------------------------------------------------


def _convolve(x: Any, w: Any, y: Any, *scratch: Any, plan: Plan) -> None:
    i = pl.program_id(2)
    if plan.crossed:
        given, w = w, scratch[0]
        pl.when(i == 0)(lambda: _spread(given, w))
    image, *results = scratch[plan.crossed :]
    pl.when((pl.program_id(1) == 0) & (i == 0))(lambda: clear(image))

    def one(image_of: Any, tile: Any, lanes: Any) -> None:  # noqa: ARG001
        stage(image_of(x), image, plan, i)
        out = image_of(y)
        for phase in plan.rows.phases:
            for side in plan.columns.phases:
                to = results[0] if results else out
                weights = w if plan.crossed else w.at[:, :, lanes]
                sums([(0, image)], weights, to, plan, phase, side)
        if results:
            finish(results[0], out, plan)

    over(plan, one)


def _spread(given: Any, w: Any) -> None:
    """The weights of eight channels, each in all lanes."""
    for tap in range(w.shape[0]):
        w[tap] = jnp.broadcast_to(given[:, tap : tap + 1], w.shape[1:])


def finish(result: Any, out: Any, plan: Plan) -> None:
    """Round phases that were put in order."""

    def copy(r: Any, count: int) -> None:
        rows = result[pl.ds(r, count), : plan.positions[1]]
        out[pl.ds(r, count)] = rows.astype(out.dtype)

    split(plan.out_rows, COPIED, copy)


def sums(
    images: Sequence[tuple[int, Any]], w: Any, y: Any, plan: Plan, phase: Phase, side: Phase
) -> None:
    """The outputs of one phase of rows and one of columns, some rows of some columns a time.

    Of several padded images, each with its own kernel of those in w, it is one sum.
    """
    many = len(images) * len(phase.taps) * len(side.taps)
    # So many sums that each weight is loaded for several, so few that they stay in registers.
    wide, high = (2, 8) if many <= 32 and (plan.together or side.outputs > SUBLANES) else (1, 16)
    if not plan.together:
        wide *= SUBLANES
    rows, columns = plan.rows, plan.columns

    def block(r: Any, height: int, q: Any, width: int) -> None:
        def row_of_taps(total: Any, image: Any, row: Any, offset: Any) -> Any:
            for each in side.taps:
                at = steps(rows, r, height, offset), steps(columns, q, width, each.offset)
                weight = w[row * plan.kernel[1] + each.tap]
                weight = weight.reshape((1,) * (total.ndim - 2) + weight.shape)
                total = total + image[at] * weight
            return total

        def taps_of(total: Any, image: Any, top: int) -> Any:
            if many <= MOST_TAPS:
                for each in phase.taps:
                    total = row_of_taps(total, image, top + each.tap, each.offset)
                return total
            # They lie evenly apart, as all taps of a phase do.
            first, second = phase.taps[0], phase.taps[min(1, len(phase.taps) - 1)]
            tap, offset = second.tap - first.tap, second.offset - first.offset

            def add(u: Any, total: Any) -> Any:
                row, start = top + first.tap + tap * u, first.offset + offset * u
                return row_of_taps(total, image, row, start)

            return lax.fori_loop(np.int32(0), np.int32(len(phase.taps)), add, total)

        total = jnp.zeros((height, width, *plan.image[2:]), jnp.float32)
        for tap, image in images:
            total = taps_of(total, image, tap * plan.kernel[0])
        to = (
            pl.ds(r * rows.step + phase.phase, height, rows.step),
            pl.ds(q * columns.step + side.phase, width, columns.step),
        )
        y[to] = total.astype(y.dtype)

    def row(r: Any, height: int) -> None:
        split(side.outputs, wide, lambda q, width: block(r, height, q, width))

    split(plan.height if plan.blocks > 1 else phase.outputs, high, row)
