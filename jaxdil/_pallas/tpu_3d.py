"""Depthwise convolution of volumes on a TPU: planes come one by one, and go one by one.

    y[n, r, p, q, c] = sum_{e, a, b}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, c]
                                      w[e, a, b, c]

Each step of the grid copies a plane of x, 128 channels of it, into a padded plane in float32. The
last few of them stay in a ring, and once all that a plane of y reads are there it is computed, all
taps in one sum in registers. Before the first plane of x and after the last the ring has zeros.
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
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_3d import Plan, Ring
from jaxdil._pallas.tpu_2d import finish, stage, sums
from jaxdil._pallas.varying import like

__all__ = [
    "come",
    "convolution",
    "cost",
    "nearest",
    "order",
    "plane_of",
    "slot",
    "stage_planes",
    "x_blocks",
    "y_block",
]


@narrow
def convolution(
    x: jax.Array, w: jax.Array, plan: Plan, *, dtype: Any, interpret: Any = False
) -> jax.Array:
    """(N, R, P, Q, C) in ``dtype`` of x (N, D, H, W, C) and w (J, K, L, C), in the plan's order."""
    plane, planes = plan.plane, plan.planes
    taps, positions = plan.taps * plane.kernel[0] * plane.kernel[1], plane.positions
    ring = (plan.ring, *plane.image)
    scratch = [ring] if plane.result is None else [ring, plane.result]
    y = pl.pallas_call(
        functools.partial(_convolve, plan=plan),
        grid=plan.grid,
        in_specs=[
            *x_blocks(plan),
            pl.BlockSpec((taps, 1, plane.lanes), lambda c, n, i: (0, 0, c)),  # noqa: ARG005
        ],
        out_specs=y_block(plan),
        out_shape=like(
            x, order(plan, plane.batch, plan.positions, *positions, plane.channels), dtype
        ),
        scratch_shapes=[pltpu.VMEM(each, jnp.float32) for each in scratch],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=cost(plan, taps),
        name="jaxdil_depthwise_3d",
        interpret=interpret,
    )(
        *[transpose(x, order(plan, 0, 1, 2, 3, 4))] * planes.stride,
        w.reshape(taps, 1, plane.channels).astype(jnp.float32),
    )
    return transpose(y, (3, 0, 1, 2, 4)) if plane.together else y


def order(plan: Plan, n: Any, d: Any, h: Any, w: Any, c: Any) -> tuple[Any, ...]:
    """Something of each axis in the order of the kernel: examples may lie in the sublanes."""
    return (d, h, w, n, c) if plan.plane.together else (n, d, h, w, c)


def x_blocks(plan: Plan) -> list[pl.BlockSpec]:
    """The planes of x that come with a step, as many as the stride."""
    plane = plan.plane
    sizes = plane.rows.size, plane.columns.size, plane.lanes
    shape = order(plan, max(plane.together, 1), 1, *sizes)

    def block(at: int) -> pl.BlockSpec:
        return pl.BlockSpec(shape, lambda c, n, i: order(plan, n, nearest(plan, i, at), 0, 0, c))

    return [block(at) for at in range(plan.planes.stride)]


def y_block(plan: Plan) -> pl.BlockSpec:
    """The planes of the output of a step, or of its cotangent."""
    plane = plan.plane
    sizes = *plane.positions, plane.lanes
    return pl.BlockSpec(
        order(plan, max(plane.together, 1), plan.planes.step, *sizes),
        lambda c, n, i: order(plan, n, jnp.maximum(i - plan.late, 0), 0, 0, c),
    )


def padded_of(plan: Ring, i: Any, at: int) -> Any:
    """The padded plane that comes with a step: the last is the last that its outputs read."""
    planes = plan.planes
    return (i - plan.late) * planes.stride + (planes.window(1) - planes.stride + at)


def nearest(plan: Ring, i: Any, at: int) -> Any:
    """The plane of x that comes with a step; beyond the ends, where none does, any."""
    return jnp.clip(padded_of(plan, i, at) - plan.planes.lo, 0, plan.planes.size - 1)


def cost(plan: Plan, taps: int) -> pl.CostEstimate:
    plane = plan.plane
    outputs = plane.batch * plan.positions * plane.positions[0] * plane.positions[1]
    return pl.CostEstimate(
        flops=2 * outputs * plane.channels * taps, bytes_accessed=plan.moved, transcendentals=0
    )


def plane_of(block: Any, plan: Plan, at: int) -> Any:
    """One plane of a block: (H, W, C), or (H, W, N, C) of the examples that lie together."""
    return block.at[at] if plan.plane.together else block.at[0, at]


def slot(plan: Ring, padded: Any) -> Any:
    """Where a padded plane lies in the ring; those before the first there are below zero."""
    return lax.rem(padded + plan.ring, np.int32(plan.ring))


def come(
    plan: Ring,
    i: Any,
    put: Callable[[int, Any], None],
    blank: Callable[[Any, Any], None],
    rows: int,
) -> None:
    """``put(which, slot)`` for the planes that come with a step; beyond the ends a slot is blank.

    ``blank(slot, row)`` makes a row zero, a row at a time: it is what most steps do without.
    """
    planes, high = plan.planes, np.int32(rows)

    def row(each: Any, _: None) -> None:
        blank(lax.div(each, high), lax.rem(each, high))

    for at in range(planes.stride):
        padded = padded_of(plan, i, at)
        inside = (padded >= planes.lo) & (padded < planes.lo + planes.size)
        # One place for both: all of the ring before the first plane, one of it beyond the ends.
        here = slot(plan, padded)
        first, stop = here, jnp.where(inside, here, here + 1)
        if at == 0:
            first, stop = jnp.where(i == 0, 0, first), jnp.where(i == 0, plan.ring, stop)
        lax.fori_loop(first * high, stop * high, row, None)
        pl.when(inside)(functools.partial(put, at, here))


def stage_planes(xs: Sequence[Any], ring: Any, plan: Plan, i: Any) -> None:
    """Write the planes of x that come with a step into the ring, or zeros beyond the ends."""

    def put(at: int, here: Any) -> None:
        stage(plane_of(xs[at], plan, 0), ring.at[here], plan.plane, 0)

    def blank(here: Any, row: Any) -> None:
        ring[here, row] = jnp.zeros(ring.shape[2:], ring.dtype)

    come(plan, i, put, blank, plan.plane.image[0])


def _convolve(*refs: Any, plan: Plan) -> None:
    plane, planes, i = plan.plane, plan.planes, pl.program_id(2)
    xs, (w, y, ring, *results) = refs[: planes.stride], refs[planes.stride :]
    stage_planes(xs, ring, plan, i)

    @pl.when(i >= plan.late)
    def _() -> None:
        start = (i - plan.late) * planes.stride
        for phase in planes.phases:
            images = [(each.tap, ring.at[slot(plan, start + each.offset)]) for each in phase.taps]
            out = plane_of(y, plan, phase.phase)
            for row in plane.rows.phases:
                for side in plane.columns.phases:
                    sums(images, w, results[0] if results else out, plane, row, side)
            if results:
                finish(results[0], out, plane)
