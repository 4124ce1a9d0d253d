"""The gradient of a dense convolution by its kernel on a TPU: each array goes through memory once.

    dw[a, b, i, o] = sum_{n, p, q}  x~[n, s p + d a - lo, s q + d b - lo, i] g[n, p, q, o]

lax sums over a batch as over channels, of which there are few, and copies images for that. Here a
tap is a matrix product over positions. One of the two images lies padded in the memory on the chip,
as it does for the convolution, and is read at the place of the tap; the other is turned once, with
its positions in the lanes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._pallas.lying import order, parts_of, swapped
from jaxdil._pallas.mended import begin, note, tell, told
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_2d import LANES
from jaxdil._pallas.plan_dense_gradient import Plan
from jaxdil._pallas.tpu_2d import repeat, split
from jaxdil._pallas.tpu_dense import (
    Multiply,
    clear,
    multiplied,
    read,
    stage,
)
from jaxdil._pallas.varying import like

__all__ = [
    "add_products",
    "correlate",
    "kernel_gradient",
    "scratch_of",
    "several",
    "turn",
]


@narrow
def kernel_gradient(
    x: jax.Array,
    g: jax.Array,
    plan: Plan,
    *,
    dtype: Any,
    precision: Any = None,
    interpret: Any = False,
) -> tuple[jax.Array, jax.Array | None]:
    """(K, L, C, O) in ``dtype`` of x (N, H, W, C) and g (N, P, Q, O).

    Where outputs come first it is (K, L, O, C). Beside it whether it is in doubt, if it may be.
    """
    image = plan.image
    moving, still = (g, x) if plan.exchanged else (x, g)
    across, beside = image.across
    taps, rows, columns = plan.shape
    block = order(image.images, image.rows.size, image.columns_given, image.channels, across)
    other = order(image.images, *image.outputs, plan.wide, beside)
    pair = (plan.still, image.channels)[:: -1 if plan.turned else 1]
    held = [pl.Buffered(count) for count in plan.copies]
    specs, shapes, scratch = told(x, plan.doubted)
    dw, *doubt = pl.pallas_call(
        functools.partial(correlate, plan=plan, multiply=multiplied(precision, interpret)),
        grid=plan.steps,
        in_specs=[
            pl.BlockSpec(block, lambda u, n: (n, 0, 0, 0), pipeline_mode=held[0]),  # noqa: ARG005
            pl.BlockSpec(other, lambda u, n: order(n, 0, 0, u, beside), pipeline_mode=held[1]),
        ],
        out_specs=[
            pl.BlockSpec(
                (taps, rows, columns),
                lambda u, n: (0, 0, u) if plan.turned else (0, u, 0),  # noqa: ARG005
                pipeline_mode=held[2],
            ),
            *specs,
        ],
        out_shape=[like(x, (taps, *pair), dtype), *shapes],
        scratch_shapes=[*scratch, *scratch_of(plan, x.dtype)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary" if specs else "parallel", "arbitrary")
        ),
        cost_estimate=_cost(plan),
        name="jaxdil_dense_kernel_gradient",
        interpret=interpret,
    )(swapped(moving, across), swapped(still, beside))
    return dw.reshape(*image.kernel, *pair), doubt[0] if doubt else None


def _cost(plan: Plan) -> pl.CostEstimate:
    image = plan.image
    positions = image.batch * image.positions[0] * image.positions[1]
    taps = image.kernel[0] * image.kernel[1]
    return pl.CostEstimate(
        flops=2 * positions * taps * image.channels * plan.still,
        bytes_accessed=plan.moved,
        transcendentals=0,
    )


def scratch_of(plan: Plan, dtype: Any) -> list[Any]:
    """The memory that `correlate` works in."""
    image = plan.image
    scratch = [
        pltpu.VMEM(image.window, jnp.float32),
        pltpu.VMEM(plan.padded, dtype if image.packed else jnp.float32),
        pltpu.VMEM((plan.positions, LANES), jnp.float32),
        pltpu.VMEM((plan.wide, plan.positions), dtype),
    ]
    if not plan.alone:
        sums = plan.shape[0], plan.wide, image.channels
        scratch.append(pltpu.VMEM(sums, jnp.float32))
    return scratch


def correlate(
    x: Any,
    g: Any,
    dw: Any,
    *held: Any,
    plan: Plan,
    multiply: Multiply,
    kept: Callable[[Any], Any] = lambda total: total,
) -> None:
    """A block of dw: ``kept`` of what each tap sums up to."""
    n = pl.program_id(1)
    held = held if plan.doubted else (None, None, *held)
    doubt, nothing, window, image, lying, turned, *sums = held
    begin(nothing, (pl.program_id(0) == 0) & (n == 0))

    @pl.when(n == 0)
    def _() -> None:
        clear(window, image)
        for each in (lying, *sums):
            each[...] = jnp.zeros(each.shape, each.dtype)

    stage(x, window, image, plan.image, used=plan.image.columns.outputs)
    turn(g, lying, turned, plan)
    images, height, width = plan.strip

    def store(tap: int, total: Any) -> None:
        part = kept(total.T if plan.turned else total)
        dw[tap] = part.astype(dw.dtype)
        note(nothing, part)

    if plan.alone:
        if plan.meeting < dw.shape[0]:
            dw[...] = jnp.zeros(dw.shape, dw.dtype)
        add_products(image, turned, store, (0, 0, 0), plan, multiply)
        tell(doubt, nothing)
        return

    def add(tap: int, term: Any) -> None:
        sums[0][tap] += term

    strips = plan.image.pitch // width
    repeat(
        plan.image.images // images,
        lambda i: repeat(
            plan.height // height,
            lambda r: repeat(
                strips,
                lambda q: add_products(
                    image, turned, add, (i, r * height, q * width), plan, multiply
                ),
            ),
        ),
    )

    @pl.when(n == pl.num_programs(1) - 1)
    def _() -> None:
        for tap in range(dw.shape[0]):
            store(tap, sums[0][tap])
        tell(doubt, nothing)


def turn(g: Any, lying: Any, turned: Any, plan: Plan, together: int = 1) -> None:
    """Write the image that stays with its positions in the lanes, some rows after the other."""
    image = plan.image
    count = image.positions[1]
    for first in range(0, plan.wide, LANES):
        lanes = slice(first, min(first + LANES, plan.wide))

        def row(n: Any, r: Any, lanes: slice = lanes) -> None:
            for at, part in parts_of(g, n, r, count, lanes, image.lies[1]):
                start = (n * plan.height + r) * image.pitch + at
                lying[pl.ds(start, part.shape[0]), : lanes.stop - lanes.start] = part

        def rows(n: Any, row: Any = row) -> None:
            split(image.positions[0], together, several(functools.partial(row, n)))

        repeat(image.images, rows)

        def square(i: Any, lanes: slice = lanes) -> None:
            at = pl.ds(pl.multiple_of(i * LANES, LANES), LANES)
            part = lying[at, : lanes.stop - lanes.start].T
            turned[lanes, at] = part.astype(turned.dtype)

        split(plan.positions // LANES, together, several(square))


def several(body: Callable[[Any], None]) -> Callable[[Any, int], None]:
    """``body(first)``, ``body(first + 1)``, ... written out, so that none waits for another."""

    def each(first: Any, count: int) -> None:
        for i in range(count):
            body(first + i)

    return each


def add_products(
    image: Any, turned: Any, add: Any, at: Any, plan: Plan, multiply: Multiply
) -> None:
    """``add(tap, product)`` over some images, rows and columns, for each tap."""
    n, r, q = at
    images, height, width = plan.strip
    count = images * height * width
    first = (n * plan.height + r) * plan.image.pitch + q
    some = slice(None) if count == plan.positions else pl.ds(pl.multiple_of(first, LANES), count)
    fixed = turned[:, some]
    (phase,), (side,) = plan.image.rows.phases, plan.image.columns.phases
    for row in phase.taps:
        for group in plan.image.groups_of(side):
            start = plan.image.starts.index(tuple(tap.offset for tap in group))
            place = r * plan.image.rows.stride + row.offset
            part = read(image, (start, n, place, q), plan.strip, plan.image.rows.stride)
            part = part[..., : plan.image.channels * len(group)]
            part = part.reshape(count, -1).astype(turned.dtype)
            if count < fixed.shape[1]:
                part = jnp.pad(part, [(0, fixed.shape[1] - count), (0, 0)])
            term = multiply(fixed, part, 0)
            for i, tap in enumerate(group):
                channels = slice(i * plan.image.channels, (i + 1) * plan.image.channels)
                add(_tap(row.tap, tap.tap, plan), term[:, channels])


def _tap(a: int, b: int, plan: Plan) -> int:
    """The number of a tap; the cotangent is read from the last on."""
    rows, columns = plan.image.kernel
    if plan.exchanged:
        a, b = rows - 1 - a, columns - 1 - b
    return a * columns + b
