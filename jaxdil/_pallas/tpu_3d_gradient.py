"""The gradient of a depthwise convolution of volumes by its kernel, on a TPU, in one pass.

    dw[e, a, b, c] = sum_{n, r, p, q}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, c]
                                       g[n, r, p, q, c]

Planes of x come into a ring of padded planes, as they do for the convolution. Once all are there
that a plane of the output reads, that plane of the cotangent is multiplied with each of them. The
sums, one register for each tap, stay on the chip until the last plane.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._layout import transpose
from jaxdil._pallas.mended import begin, note, tell, told
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_2d import SUBLANES
from jaxdil._pallas.plan_3d import Plan
from jaxdil._pallas.tpu_2d import MOST_TAPS, repeat
from jaxdil._pallas.tpu_2d_gradient import add
from jaxdil._pallas.tpu_3d import cost, order, plane_of, slot, stage_planes, x_blocks, y_block
from jaxdil._pallas.varying import like

__all__ = ["kernel_gradient"]


@narrow
def kernel_gradient(
    x: jax.Array, g: jax.Array, plan: Plan, *, dtype: Any, interpret: Any = False
) -> tuple[jax.Array, jax.Array | None]:
    """(J, K, L, C) in ``dtype`` of x (N, D, H, W, C) and g (N, R, P, Q, C), in the plan's order.

    Beside it whether it is in doubt, if it may be.
    """
    plane = plan.plane
    taps = math.prod(plane.kernel)
    x, g = (transpose(each, order(plan, 0, 1, 2, 3, 4)) for each in (x, g))
    specs, shapes, scratch = told(x, plan.doubted)
    dw, *doubt = pl.pallas_call(
        functools.partial(_correlate, plan=plan),
        grid=plan.grid,
        in_specs=[*x_blocks(plan), y_block(plan)],
        out_specs=[
            pl.BlockSpec((plan.taps * taps, 1, plane.lanes), lambda c, n, i: (0, 0, c)),  # noqa: ARG005
            *specs,
        ],
        out_shape=[like(x, (plan.taps * taps, 1, plane.channels), jnp.float32), *shapes],
        scratch_shapes=[
            *scratch,
            pltpu.VMEM((plan.ring, *plane.image), jnp.float32),
            pltpu.VMEM((plan.taps * taps, SUBLANES, plane.lanes), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary" if specs else "parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=cost(plan, plan.taps * taps),
        name="jaxdil_depthwise_3d_kernel_gradient",
        interpret=interpret,
    )(*[x] * plan.planes.stride, g)
    dw = dw.reshape(plan.taps, *plane.kernel, plane.channels).astype(dtype)
    return dw, doubt[0] if doubt else None


def _correlate(*refs: Any, plan: Plan) -> None:
    c, n, i = (pl.program_id(axis) for axis in range(3))
    planes, used = plan.planes, plan.plane.channels - c * plan.plane.lanes
    xs, (g, dw, *held) = refs[: planes.stride], refs[planes.stride :]
    held = held if plan.doubted else [None, None, *held]
    doubt, nothing, ring, sums = held
    begin(nothing, (c == 0) & (n == 0) & (i == 0))

    def blank(tap: Any, _: None) -> None:
        sums[tap] = jnp.zeros(sums.shape[1:], sums.dtype)

    def store(tap: Any, _: None) -> None:
        total = sums[tap].sum(axis=0, keepdims=True)
        dw[tap] = total
        note(nothing, total, used)

    lax.fori_loop(0, jnp.where((n == 0) & (i == 0), sums.shape[0], 0), blank, None)

    stage_planes(xs, ring, plan, i)
    taps = planes.phases[0].taps

    @pl.when(i >= plan.late)
    def _() -> None:
        start = (i - plan.late) * planes.stride
        if len(taps) * math.prod(plan.plane.kernel) <= MOST_TAPS:
            images = [(each.tap, ring.at[slot(plan, start + each.offset)]) for each in taps]
            add(images, plane_of(g, plan, 0), sums, plan.plane, 0)
            return
        # They lie evenly apart, as all taps of a phase do.
        first, second = taps[0], taps[min(1, len(taps) - 1)]
        apart = second.offset - first.offset

        def multiply(u: Any) -> None:
            image = ring.at[slot(plan, start + first.offset + apart * u)]
            add([(first.tap + u, image)], plane_of(g, plan, 0), sums, plan.plane, 0)

        repeat(len(taps), multiply)

    last = (n == pl.num_programs(1) - 1) & (i == pl.num_programs(2) - 1)
    lax.fori_loop(0, jnp.where(last, sums.shape[0], 0), store, None)
    pl.when(last)(lambda: tell(doubt, nothing))
