"""Dense convolution of rows and images on a TPU: x, w and y go through memory once.

    y[n, p, q, o] = sum_{a, b, i}  x~[n, s p + d a - lo, s q + d b - lo, i] w[a, b, i, o]

lax makes a larger batch of a small one first, and copies x for that, and y. Here each tap is a
matrix product of what it reads of the padded images in the memory on the chip. These are kept once
for each column that outputs begin to read at, with a stride in steps of that; so a tap reads whole
registers, and is not shifted. Taps of few channels lie side by side there, and are one product. A
dilated input (a transposed convolution, the input gradient of a strided one) is computed phase by
phase, each with taps of its own; phases of columns are put in order on the chip, those of rows are
where they belong.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._layout import transpose
from jaxdil._pallas.axes import Phase, Tap
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_dense import LANES, Plan
from jaxdil._pallas.tpu_2d import repeat, split
from jaxdil._pallas.varying import like

__all__ = [
    "Multiply",
    "clear",
    "convolution",
    "multiplied",
    "order",
    "part_of",
    "read",
    "stage",
    "stage_row",
    "swapped",
]


Multiply: TypeAlias = Callable[[Any, Any, int], Any]


@narrow
def convolution(
    x: jax.Array,
    w: jax.Array,
    plan: Plan,
    *,
    dtype: Any,
    precision: Any = None,
    interpret: Any = False,
) -> jax.Array:
    """(N, P, Q, O) in ``dtype`` of x (N, H, W, C) and w (K, L, C, O).

    Where the plan is turned, the taps of w are in reverse; where outputs come first, w is (K, L, O,
    C).
    """
    taps = plan.kernel[0] * plan.kernel[1]
    w = w.reshape(taps, *w.shape[2:])
    images, outputs = plan.steps

    def at(i: Any, j: Any) -> tuple[Any, Any]:
        return (i, j) if plan.images_first else (j, i)

    across_x, across_y = plan.across

    def x_at(i: Any, j: Any) -> tuple[Any, ...]:
        return at(i, j)[0], 0, 0, 0

    def w_at(i: Any, j: Any) -> tuple[Any, ...]:
        o = at(i, j)[1]
        return (0, o, 0) if plan.outer_first else (0, 0, o)

    def y_at(i: Any, j: Any) -> tuple[Any, ...]:
        n, o = at(i, j)
        return (n, 0, o, 0) if across_y else (n, 0, 0, o)

    kernel = (plan.wide, plan.channels) if plan.outer_first else (plan.channels, plan.wide)
    scratch = [
        pltpu.VMEM(plan.window, jnp.float32),
        pltpu.VMEM(plan.image, x.dtype if plan.packed else jnp.float32),
    ]
    if plan.result is not None:
        scratch.append(pltpu.VMEM(plan.result, jnp.float32))
    x_block = order(plan.images, plan.rows.size, plan.columns_given, plan.channels, across_x)
    y_block = order(plan.images, *plan.outputs, plan.wide, across_y)
    held = [pl.Buffered(count) for count in plan.copies]
    y = pl.pallas_call(
        functools.partial(_convolve, plan=plan, multiply=multiplied(precision, interpret)),
        grid=at(images, outputs),
        in_specs=[
            pl.BlockSpec(x_block, x_at, pipeline_mode=held[0]),
            pl.BlockSpec((taps, *kernel), w_at, pipeline_mode=held[1]),
        ],
        out_specs=pl.BlockSpec(y_block, y_at, pipeline_mode=held[2]),
        out_shape=like(x, order(plan.batch, *plan.positions, plan.out_channels, across_y), dtype),
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=_cost(plan),
        name="jaxdil_dense",
        interpret=interpret,
    )(swapped(x, across_x), w)
    return swapped(y, across_y)


def order(n: Any, h: Any, w: Any, c: Any, across: bool) -> tuple[Any, ...]:  # noqa: FBT001
    """Something of each axis in the order in memory."""
    return (n, h, c, w) if across else (n, h, w, c)


def swapped(x: jax.Array, across: bool) -> jax.Array:  # noqa: FBT001
    """(N, H, W, C) in the order in memory, or back."""
    return transpose(x, (0, 1, 3, 2)) if across else x


def multiplied(precision: Any, interpret: Any) -> Multiply:
    """The product of a (M, K) and b, summed over axis ``inner`` of b, in single precision."""

    def multiply(a: Any, b: Any, inner: int) -> Any:
        if (
            interpret
        ):  # where a CPU may have no product of half precision; theirs are exact in single
            a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        contract = ((1,), (inner,)), ((), ())
        return lax.dot_general(
            a, b, contract, precision=precision, preferred_element_type=jnp.float32
        )

    return multiply


def _cost(plan: Plan) -> pl.CostEstimate:
    outputs = plan.batch * plan.positions[0] * plan.positions[1] * plan.out_channels
    taps = plan.kernel[0] * plan.kernel[1]
    return pl.CostEstimate(
        flops=2 * outputs * taps * plan.channels, bytes_accessed=plan.moved, transcendentals=0
    )


def _convolve(
    x: Any, w: Any, y: Any, window: Any, image: Any, *results: Any, plan: Plan, multiply: Multiply
) -> None:
    inner = pl.program_id(1)

    @pl.when(inner == 0)
    def _() -> None:
        clear(window, image)

    if plan.images_first:
        pl.when(inner == 0)(lambda: stage(x, window, image, plan))
    else:
        stage(x, window, image, plan)
    for phase in plan.rows.phases:
        _rows(phase, w, y, image, results, plan, multiply)


# --- the padded images ----------------------------------------------------------------------------


def clear(window: Any, image: Any) -> None:
    """Zeros everywhere; what is not written over stays the border."""
    window[...] = jnp.zeros(window.shape, window.dtype)
    starts, images, span = image.shape[:3]

    def row(r: Any) -> None:
        for start in range(starts):
            for n in range(images):
                image.at[start, n][pl.ds(r, 1)] = jnp.zeros((1, *image.shape[3:]), image.dtype)

    repeat(span, row)


def stage(x: Any, window: Any, image: Any, plan: Plan, used: int | None = None) -> None:
    """Write each row of x to where it lies in the padded images, from each of the starts on.

    ``used`` are the columns that outputs are wanted for, others stay zero; all if None.
    """

    def row(n: Any, r: Any) -> None:
        stage_row(x, window, image, plan, (n, r), used)

    repeat(plan.images, lambda n: repeat(plan.rows.size, functools.partial(row, n)))


def stage_row(x: Any, window: Any, image: Any, plan: Plan, of: Any, used: int | None) -> None:
    """Write a row of an image to where it lies, by way of the window."""
    (n, r), rows, columns = of, plan.rows, plan.columns
    for first in range(0, plan.channels, LANES):
        lanes = slice(first, min(first + LANES, plan.channels))
        filled = slice(0, lanes.stop - first)
        for at in range(0, columns.size, LANES if plan.across[0] else columns.size):
            count = min(columns.size, LANES) if plan.across[0] else columns.size
            count = min(count, columns.size - at)
            part = part_of(x, n, r, at, count, lanes, plan.across[0])
            window[columns.lo + at : columns.lo + at + count, filled] = part
        for i, starts in enumerate(plan.starts):
            reads = [pl.ds(at, plan.pitch, columns.stride) for at in starts]
            part = lax.concatenate([window[read, :][:, filled] for read in reads], 1)
            part = part.astype(image.dtype)[:used]
            to = (
                pl.ds(n, 1),
                pl.ds(r + rows.lo, 1),
                pl.ds(0, part.shape[0]),
                _lanes(lanes, len(starts)),
            )
            image.at[i][to] = part[None, None]


def _lanes(lanes: slice, times: int) -> slice:
    """The lanes of some channels, and of as many more that lie beside them."""
    return slice(lanes.start, lanes.start + times * (lanes.stop - lanes.start))


def part_of(x: Any, n: Any, r: Any, at: int, count: int, lanes: slice, across: bool) -> Any:  # noqa: FBT001
    """Some columns of some channels of a row, in single precision."""
    one = pl.ds(n, 1), pl.ds(r, 1)
    if not across:
        return x[(*one, slice(at, at + count), lanes)].astype(jnp.float32)[0, 0]
    square = x[(*one, lanes, slice(at, at + LANES))].astype(jnp.float32)
    return square[0, 0].T[:count]


# --- products -------------------------------------------------------------------------------------


def _rows(
    phase: Phase, w: Any, y: Any, image: Any, results: Any, plan: Plan, multiply: Multiply
) -> None:
    """The outputs of a phase of rows, some images, rows and columns a time."""
    images, height, width = plan.chunk
    step = plan.columns.step

    def block(n: Any, r: Any, high: int, q: Any) -> None:
        total: Any = None
        for side in plan.columns.phases:
            total = _sum(phase, side, w, image, (n, r, q), (images, high, width), plan, multiply)
            total = total.reshape(images, high, width, plan.wide)
            if results:
                _put(total, results[0], high, pl.ds(side.phase, width, step))
        for i in range(high):
            row = _ordered(results[0], i, plan) if results else total[:, i]
            at = pl.ds((r + i) * plan.rows.step + phase.phase, 1)
            if plan.across[1]:
                row = lax.transpose(row, (0, 2, 1))
            columns = pl.ds(q * step, width * step)
            to = order(pl.ds(n, images), at, columns, slice(None), plan.across[1])
            y[to] = row[:, None].astype(y.dtype)

    def strip(n: Any, r: Any, high: int) -> None:
        repeat(plan.pitch // width, lambda i: block(n, r, high, i * width))

    repeat(
        plan.images // images,
        lambda i: split(phase.outputs, height, lambda r, high: strip(i * images, r, high)),
    )


def _put(total: Any, result: Any, high: int, columns: Any) -> None:
    """Outputs of one phase to where they belong; a step is for 128 lanes at a time."""
    for tile in range(result.shape[0]):
        part = total[..., tile * LANES : (tile + 1) * LANES]
        result.at[tile][:, :high, columns, : part.shape[-1]] = part


def _ordered(result: Any, i: int, plan: Plan) -> Any:
    """A row of outputs of all phases."""
    parts = [result[tile, :, i] for tile in range(result.shape[0])]
    return lax.concatenate(parts, 2)[..., : plan.wide]


def read(image: Any, at: Any, shape: Any, step: int) -> Any:
    """Some rows, ``step`` apart, of some columns and images."""
    (start, n, r, q), (images, high, width) = at, shape
    if step == 1:
        return image.at[start][pl.ds(n, images), pl.ds(r, high), pl.ds(q, width)]
    rows = [
        image.at[start][pl.ds(n, images), pl.ds(r + step * i, 1), pl.ds(q, width)]
        for i in range(high)
    ]
    return lax.concatenate(rows, 1)


def _weights(w: Any, row: Tap, group: Sequence[Tap], plan: Plan) -> Any:
    """The kernel of taps that lie side by side."""
    taps = [row.tap * plan.kernel[1] + each.tap for each in group]
    if plan.turned:
        taps = [plan.kernel[0] * plan.kernel[1] - 1 - tap for tap in taps]
    return lax.concatenate([w[tap] for tap in taps], 1 if plan.outer_first else 0)


def _sum(
    phase: Phase,
    side: Phase,
    w: Any,
    image: Any,
    at: Any,
    shape: Any,
    plan: Plan,
    multiply: Multiply,
) -> Any:
    """The sums of a phase of rows and one of columns: (outputs, O)."""
    (n, r, q), (images, high, width) = at, shape
    total: Any = None
    for row in phase.taps:
        for group in plan.groups_of(side):
            start = plan.starts.index(tuple(tap.offset for tap in group))
            first = r * plan.rows.stride + row.offset
            part = read(image, (start, n, first, q), shape, plan.rows.stride)
            part = part[..., : plan.channels * len(group)]
            part = part.reshape(images * high * width, -1).astype(w.dtype)
            weights = _weights(w, row, group, plan)
            term = multiply(part, weights, 1 if plan.outer_first else 0)
            total = term if total is None else total + term
    if total is None:
        return jnp.zeros((images * high * width, plan.wide), jnp.float32)
    return total
