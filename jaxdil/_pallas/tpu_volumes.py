"""Dense convolution of volumes on a TPU: planes come one by one, and go one by one.

    y[n, r, p, q, o] = sum_{e, a, b, i}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, i]
                                         w[e, a, b, i, o]

Each step of the grid copies a plane of x into a padded one, as the kernel of images lays it out:
once for each column that outputs begin to read at. The last few of them stay in a ring, and once
all that a plane of y reads are there it is computed, all taps in one sum of products. Before the
first plane of x and after the last the ring has zeros.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._layout import transpose
from jaxdil._pallas.joined import weights
from jaxdil._pallas.lying import order
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_dense import LANES, SUBLANES
from jaxdil._pallas.plan_volumes import Plan
from jaxdil._pallas.tpu_dense import Multiply, multiplied, rows, stage
from jaxdil._pallas.varying import like

__all__ = ["convolution"]


@narrow
def convolution(
    x: jax.Array,
    w: jax.Array,
    plan: Plan,
    *,
    dtype: Any,
    precision: Any = None,
    interpret: Any = False,
) -> tuple[jax.Array, jax.Array | None]:
    """(N, R, P, Q, O) in ``dtype`` of x (N, D, H, W, C) and w (J, K, L, C, O), in plan's order.

    Where the plan of a plane is turned, the taps of w are in reverse; where outputs come first, w
    is (J, K, L, O, C). Where columns are joined, beside it numbers that are zero, unless a sample
    that is none may have reached more than it should.
    """
    plane, planes = plan.plane, plan.planes
    across_x, across_y = plane.across
    w = w.reshape(-1, *w.shape[3:])
    kernel = (plane.wide, plane.channels) if plane.outer_first else (plane.channels, plane.wide)
    x_block = _beside(
        1, *order(plane.images, plane.rows.size, plane.columns_given, plane.channels, across_x)
    )
    y_block = _beside(planes.step, *order(plane.images, *plane.outputs, plane.wide, across_y))
    y_shape = order(plane.batch, *plane.positions, plane.out_channels, across_y)
    scratch = [
        pltpu.VMEM(plane.window, jnp.float32),
        pltpu.VMEM((plan.ring, *plane.image), x.dtype if plane.packed else jnp.float32),
    ]
    if plane.result is not None:
        scratch.append(pltpu.VMEM(plane.result, jnp.float32))

    def x_at(o: Any, n: Any, i: Any, *, at: int) -> tuple[Any, ...]:  # noqa: ARG001
        return n, _nearest(plan, i, at), 0, 0, 0

    def w_at(o: Any, n: Any, i: Any) -> tuple[Any, ...]:  # noqa: ARG001
        return (0, o, 0) if plane.outer_first else (0, 0, o)

    def y_at(o: Any, n: Any, i: Any) -> tuple[Any, ...]:
        r = jnp.maximum(i - plan.late, 0)
        return (n, r, 0, o, 0) if across_y else (n, r, 0, 0, o)

    def doubt_at(o: Any, n: Any, i: Any) -> tuple[Any, ...]:  # noqa: ARG001
        return o, n, 0, 0

    out_specs = [pl.BlockSpec(y_block, y_at)]
    out_shape = [like(x, (y_shape[0], plan.positions, *y_shape[1:]), dtype)]
    if plan.joint is not None:
        scratch.append(pltpu.VMEM(plan.joint, w.dtype))
        out_specs.append(pl.BlockSpec((None, None, SUBLANES, LANES), doubt_at))
        out_shape.append(like(x, (*plan.grid[:2], SUBLANES, LANES), jnp.float32))
    held = pl.Buffered(1 + (plan.grid[0] > 1))
    y, *doubt = pl.pallas_call(
        functools.partial(_convolve, plan=plan, multiply=multiplied(precision, interpret)),
        grid=plan.grid,
        in_specs=[
            *(pl.BlockSpec(x_block, functools.partial(x_at, at=at)) for at in range(planes.stride)),
            pl.BlockSpec((w.shape[0], *kernel), w_at, pipeline_mode=held),
        ],
        out_specs=out_specs,
        out_shape=out_shape,
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=_cost(plan),
        name="jaxdil_dense_3d",
        interpret=interpret,
    )(*[_swapped(x, across_x)] * planes.stride, w)
    return _swapped(y, across_y), doubt[0] if doubt else None


def _beside(d: Any, n: Any, *rest: Any) -> tuple[Any, ...]:
    """Something of planes, behind that of examples."""
    return (n, d, *rest)


def _swapped(x: jax.Array, across: bool) -> jax.Array:  # noqa: FBT001
    """(N, D, H, W, C) in the order in memory, or back."""
    return transpose(x, (0, 1, 2, 4, 3)) if across else x


def _padded(plan: Plan, i: Any, at: int) -> Any:
    """The padded plane that comes with a step: the last is the last that its outputs read."""
    planes = plan.planes
    return (i - plan.late) * planes.stride + (planes.window(1) - planes.stride + at)


def _nearest(plan: Plan, i: Any, at: int) -> Any:
    """The plane of x that comes with a step; beyond the ends, where none does, any."""
    return jnp.clip(_padded(plan, i, at) - plan.planes.lo, 0, plan.planes.size - 1)


def _cost(plan: Plan) -> pl.CostEstimate:
    plane = plan.plane
    outputs = plane.batch * plan.positions * plane.positions[0] * plane.positions[1]
    taps = plan.taps * plane.kernel[0] * plane.kernel[1]
    return pl.CostEstimate(
        flops=2 * outputs * taps * plane.channels * plane.out_channels,
        bytes_accessed=plan.moved,
        transcendentals=0,
    )


def _convolve(*refs: Any, plan: Plan, multiply: Multiply) -> None:
    plane, planes, i = plan.plane, plan.planes, pl.program_id(2)
    xs, (w, y, *held) = refs[: planes.stride], refs[planes.stride :]
    doubt = [held.pop(0)] if plane.apart else []
    window, ring, *results = held
    if plane.apart:
        joint = results.pop()
        now, lines = i == 0, plan.taps * plane.kernel[0]
        weights(w, joint, plane, jnp.where(now, lines, 0))
        pl.when(now)(lambda: _zero(doubt[0]))
        w, results = joint, [*results, *doubt]

    def slot(padded: Any) -> Any:
        """Where a padded plane lies; those before the first that is there are below zero."""
        return lax.rem(padded + plan.ring, np.int32(plan.ring))

    pl.when(i == 0)(lambda: _zero(window))
    for at, x in enumerate(xs):
        padded = _padded(plan, i, at)
        inside = (padded >= planes.lo) & (padded < planes.lo + planes.size)
        # One place for both: all of the ring before the first plane, one of it beyond the ends.
        here = slot(padded)
        start, stop = here, jnp.where(inside, here, here + 1)
        if at == 0:
            start, stop = jnp.where(i == 0, 0, start), jnp.where(i == 0, plan.ring, stop)
        _clear(ring, start, stop)
        pl.when(inside)(functools.partial(stage, x.at[:, 0], window, ring.at[here], plane))

    @pl.when(i >= plan.late)
    def _() -> None:
        start = (i - plan.late) * planes.stride
        for phase in planes.phases:
            sources = [
                (_kernel(w, each.tap, plan), ring.at[slot(start + each.offset)])
                for each in phase.taps
            ]
            for row in plane.rows.phases:
                rows(row, sources, y.at[:, phase.phase], results, plane, multiply)


def _zero(block: Any) -> None:
    block[...] = jnp.zeros(block.shape, block.dtype)


def _clear(ring: Any, first: Any, stop: Any) -> None:
    """Zeros in some planes; what is not written over stays the border."""
    span = np.int32(ring.shape[3])

    def row(at: Any, _: None) -> None:
        plane, r = lax.div(at, span), lax.rem(at, span)
        for start, n in itertools.product(*map(range, ring.shape[1:3])):
            _zero(ring.at[plane, start, n, pl.ds(r, 1)])

    lax.fori_loop(first * span, stop * span, row, None)


def _kernel(w: Any, tap: int, plan: Plan) -> Any:
    """The kernel of a plane of taps."""
    each = plan.plane.kernel[0] * plan.plane.groups
    first = plan.taps - 1 - tap if plan.plane.turned else tap
    return w.at[pl.ds(first * each, each)]
