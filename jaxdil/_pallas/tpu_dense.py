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
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._pallas.axes import Phase, Tap
from jaxdil._pallas.lying import order, parts_of, swapped, write
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_dense import LANES, SUBLANES, Plan
from jaxdil._pallas.tpu_2d import repeat, split
from jaxdil._pallas.varying import like

__all__ = [
    "Channels",
    "Multiply",
    "clear",
    "convolution",
    "multiplied",
    "read",
    "rows",
    "stage",
    "within",
]


Multiply: TypeAlias = Callable[[Any, Any, int], Any]

# Channels from the one to before the other.
Channels: TypeAlias = tuple[Any, Any]


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


def multiplied(precision: Any, interpret: Any) -> Multiply:
    """The product of a (M, K) and b, summed over axis ``inner`` of b, in single precision."""

    def multiply(a: Any, b: Any, inner: int) -> Any:
        # A CPU may have no product of half precision, and Mosaic none with a vector; theirs are
        # exact in single.
        if interpret or b.shape[1 - inner] == 1:
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
        rows(phase, [(w, image)], y, results, plan, multiply)


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


def stage(
    x: Any,
    window: Any,
    image: Any,
    plan: Plan,
    used: int | None = None,
    kept: Channels | None = None,
) -> None:
    """Write each row of x to where it lies in the padded images, from each of the starts on.

    ``used`` are the columns that outputs are wanted for, others stay zero; all if None. ``kept``
    are the channels that do not become zero; all if None.
    """
    columns = plan.columns

    def lay(n: Any, r: Any, high: int, lanes: slice, filled: slice) -> None:
        for i in range(high):
            for at, given in parts_of(x, n, r + i, columns.size, lanes, plan.lies[0]):
                part = given
                if kept is not None:
                    part = jnp.where(within(part.shape, 1, kept, lanes.start), part, 0)
                window[i, columns.lo + at : columns.lo + at + part.shape[0], filled] = part

    def group(n: Any, r: Any, high: int) -> None:
        for first in range(0, plan.channels, LANES):
            lanes = slice(first, min(first + LANES, plan.channels))
            filled = slice(0, lanes.stop - first)
            lay(n, r, high, lanes, filled)
            for i, (at, starts) in itertools.product(range(high), enumerate(plan.starts)):
                reads = [pl.ds(start, plan.pitch, columns.stride) for start in starts]
                part = lax.concatenate([window.at[i][read, :][:, filled] for read in reads], 1)
                part = part.astype(image.dtype)[:used]
                to = (
                    pl.ds(n, 1),
                    pl.ds(r + i + plan.rows.lo, 1),
                    pl.ds(0, part.shape[0]),
                    _lanes(lanes, len(starts)),
                )
                image.at[at][to] = part[None, None]

    together = window.shape[0]
    repeat(plan.images, lambda n: split(plan.rows.size, together, functools.partial(group, n)))


def within(shape: Sequence[int], axis: int, kept: Channels, start: int = 0) -> Any:
    """Where the channels along an axis, the first of which is ``start``, are kept."""
    channel = lax.broadcasted_iota(jnp.int32, shape, axis) + start
    return (channel >= kept[0]) & (channel < kept[1])


def _lanes(lanes: slice, times: int) -> slice:
    """The lanes of some channels, and of as many more that lie beside them."""
    return slice(lanes.start, lanes.start + times * (lanes.stop - lanes.start))


# --- products -------------------------------------------------------------------------------------


def rows(
    phase: Phase,
    sources: Sequence[tuple[Any, Any]],
    y: Any,
    results: Any,
    plan: Plan,
    multiply: Multiply,
    kept: Channels | None = None,
) -> None:
    """The outputs of a phase of rows, some images, rows and columns a time.

    Of several kernels, each with its own padded images, it is one sum. ``kept`` are the outputs
    that are written; all if None.
    """
    images, height, width = plan.chunk
    step = plan.columns.step
    written = None if kept is None else functools.partial(within, kept=kept)

    def block(n: Any, r: Any, high: int, q: Any) -> None:
        total: Any = None
        for side in range(len(plan.sides)):
            total = _sum(phase, side, sources, (n, r, q), (images, high, width), plan, multiply)
            total = total.reshape(images, high, width, -1)
            if plan.apart:
                # Zero, or else a sample that is no number may have reached outputs beside its own.
                none = (total * 0).reshape(-1, SUBLANES, total.shape[-1]).sum(0)
                results[1][:, : none.shape[1]] += none
            for i, each in enumerate(plan.sides[side].phases if results else ()):
                part = total[..., i * plan.wide : (i + 1) * plan.wide]
                _put(part, results[0], high, pl.ds(each.phase, width, step))
        for i in range(high):
            row = _ordered(results[0], i, plan) if results else total[:, i]
            at = n, (r + i) * plan.rows.step + phase.phase, q * step
            write(y, row, at, plan.lies[1], written)

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


def _weights(w: Any, row: Tap, side: int, group: Sequence[Tap], plan: Plan) -> Any:
    """The kernel of taps that lie side by side."""
    height, width = plan.kernel[0], plan.groups
    if plan.apart:
        at = sum(len(plan.groups_of(each)) for each in plan.sides[:side])
        at += group[0].tap // plan.beside
        inner = plan.channels * len(group)
        kernel = w.at[(height - 1 - row.tap if plan.turned else row.tap) * width + at]
        return kernel[:, :inner] if plan.outer_first else kernel[:inner]
    taps = [row.tap * width + each.tap for each in group]
    if plan.turned:
        taps = [height * width - 1 - tap for tap in taps]
    return lax.concatenate([w[tap] for tap in taps], 1 if plan.outer_first else 0)


def _sum(
    phase: Phase,
    side: int,
    sources: Sequence[tuple[Any, Any]],
    place: Any,
    shape: Any,
    plan: Plan,
    multiply: Multiply,
) -> Any:
    """The sums of a phase of rows and one of columns: (outputs, O)."""
    (n, r, q), (images, high, width) = place, shape
    total: Any = None
    for (w, image), row in itertools.product(sources, phase.taps):
        for group in plan.groups_of(plan.sides[side]):
            start = plan.starts.index(tuple(tap.offset for tap in group))
            first = r * plan.rows.stride + row.offset
            part = read(image, (start, n, first, q), shape, plan.rows.stride)
            part = part[..., : plan.channels * len(group)]
            part = part.reshape(images * high * width, -1).astype(w.dtype)
            weights = _weights(w, row, side, group, plan)
            term = multiply(part, weights, 1 if plan.outer_first else 0)
            total = term if total is None else total + term
    if total is None:
        return jnp.zeros((images * high * width, plan.block[1]), jnp.float32)
    return total
