"""Depthwise convolution of volumes on a TPU: planes come one by one, and go one by one.

    y[n, r, p, q, c] = sum_{e, a, b}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, c]
                                      w[e, a, b, c]

Each step of the grid copies a plane of x, 128 channels of it, into a padded plane in float32. The
last few of them stay in a ring, and once all that a plane of y reads are there it is computed, all
taps in one sum in registers. Before the first plane of x and after the last the ring has zeros.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._layout import transpose
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_3d import Plan
from jaxdil._pallas.tpu_2d import clear, finish, stage, sums
from jaxdil._pallas.varying import like

__all__ = ["convolution"]


@narrow
def convolution(
    x: jax.Array, w: jax.Array, plan: Plan, *, dtype: Any, interpret: Any = False
) -> jax.Array:
    """(N, R, P, Q, C) in ``dtype`` of x (N, D, H, W, C) and w (J, K, L, C), in the plan's order."""
    plane, planes = plan.plane, plan.planes
    taps, positions = plan.taps * plane.kernel[0] * plane.kernel[1], plane.positions
    rows, columns, ring = plane.rows.size, plane.columns.size, (plan.ring, *plane.image)
    scratch = [ring] if plane.result is None else [ring, plane.result]
    beside = max(plane.together, 1)
    y = pl.pallas_call(
        functools.partial(_convolve, plan=plan),
        grid=plan.grid,
        in_specs=[
            pl.BlockSpec(
                _order(plan, beside, 1, rows, columns, plane.lanes),
                lambda c, n, i: _order(plan, n, jnp.minimum(i, planes.size - 1), 0, 0, c),
            ),
            pl.BlockSpec((taps, 1, plane.lanes), lambda c, n, i: (0, 0, c)),  # noqa: ARG005
        ],
        out_specs=pl.BlockSpec(
            _order(plan, beside, planes.step, *positions, plane.lanes),
            lambda c, n, i: _order(plan, n, _due(plan, i), 0, 0, c),
        ),
        out_shape=like(
            x, _order(plan, plane.batch, plan.positions, *positions, plane.channels), dtype
        ),
        scratch_shapes=[pltpu.VMEM(each, jnp.float32) for each in scratch],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=_cost(plan, taps),
        name="jaxdil_depthwise_3d",
        interpret=interpret,
    )(
        transpose(x, _order(plan, 0, 1, 2, 3, 4)),
        w.reshape(taps, 1, plane.channels).astype(jnp.float32),
    )
    return transpose(y, (3, 0, 1, 2, 4)) if plane.together else y


def _order(plan: Plan, n: Any, d: Any, h: Any, w: Any, c: Any) -> tuple[Any, ...]:
    """Something of each axis in the order of the kernel: examples may lie in the sublanes."""
    return (d, h, w, n, c) if plan.plane.together else (n, d, h, w, c)


def _ahead(plan: Plan, i: Any) -> Any:
    """Planes by which those of a step are ahead of the first that its outputs read."""
    return i + plan.planes.lo - (plan.ring - 1)


def _due(plan: Plan, i: Any) -> Any:
    """The block of y that a step has; before the first is computed it is there already."""
    return lax.div(jnp.maximum(_ahead(plan, i), 0), np.int32(plan.planes.stride))


def _cost(plan: Plan, taps: int) -> pl.CostEstimate:
    plane = plan.plane
    outputs = plane.batch * plan.positions * plane.positions[0] * plane.positions[1]
    return pl.CostEstimate(
        flops=2 * outputs * plane.channels * taps, bytes_accessed=plan.moved, transcendentals=0
    )


def _plane_of(block: Any, plan: Plan, at: int) -> Any:
    """One plane of a block: (H, W, C), or (H, W, N, C) of the examples that lie together."""
    return block.at[at] if plan.plane.together else block.at[0, at]


def _convolve(x: Any, w: Any, y: Any, ring: Any, *results: Any, plan: Plan) -> None:
    plane, planes, i = plan.plane, plan.planes, pl.program_id(2)

    def slot(offset: int) -> Any:
        """Where the plane of this step lies, or one of so many steps later."""
        return lax.rem(i + (planes.lo + offset), np.int32(plan.ring))

    # One place for both, as the ring before the first plane and one of it after the last.
    first = jnp.where(i == 0, 0, slot(0))
    stop = jnp.where(i == 0, plan.ring, jnp.where(i < planes.size, first, first + 1))
    lax.fori_loop(first, stop, lambda at, _: clear(ring.at[at]), None)
    pl.when(i < planes.size)(lambda: stage(_plane_of(x, plan, 0), ring.at[slot(0)], plane, 0))

    ahead = _ahead(plan, i)

    @pl.when((ahead >= 0) & (lax.rem(ahead, np.int32(planes.stride)) == 0))
    def _() -> None:
        for phase in planes.phases:
            # The ring goes round: what is next to be written over came first.
            images = [(each.tap, ring.at[slot(each.offset + 1)]) for each in phase.taps]
            out = _plane_of(y, plan, phase.phase)
            for row in plane.rows.phases:
                for side in plane.columns.phases:
                    sums(images, w, results[0] if results else out, plane, row, side)
            if results:
                finish(results[0], out, plane)
