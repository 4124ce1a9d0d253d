"""The gradient of a dense convolution of volumes by its kernel on a TPU, in one pass.

    dw[e, a, b, i, o] = sum_{n, r, p, q}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, i]
                                          g[n, r, p, q, o]

Planes of the array that is read at each tap's place come into a ring of padded planes. Once all are
there that a plane of the other one meets, it is turned, and multiplied with each as images are. The
sums of all taps stay on the chip.
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
from jaxdil._pallas.lying import order
from jaxdil._pallas.mended import begin, note, tell, told
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_2d import LANES
from jaxdil._pallas.plan_volumes_gradient import TOGETHER, Plan
from jaxdil._pallas.tpu_2d import repeat
from jaxdil._pallas.tpu_3d import come, nearest, slot
from jaxdil._pallas.tpu_dense import Multiply, multiplied, stage
from jaxdil._pallas.tpu_dense_gradient import add_products, turn
from jaxdil._pallas.varying import like

__all__ = ["kernel_gradient"]


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
    """(J, K, L, C, O) in ``dtype`` of x (N, D, H, W, C) and g (N, R, P, Q, O), in plan's order.

    Where outputs come first it is (J, K, L, O, C). Beside it whether it is in doubt, if it may be.
    """
    plane, planes, image = plan.plane, plan.planes, plan.plane.image
    moving, still = (g, x) if plane.exchanged else (x, g)
    across, beside = image.across
    taps, rows, columns = plane.shape
    taps *= plan.taps
    pair = (plane.still, image.channels)[:: -1 if plane.turned else 1]
    read = _order(image.images, 1, image.rows.size, image.columns_given, image.channels, across)
    other = _order(image.images, 1, *image.outputs, plane.wide, beside)

    def moving_at(at: int) -> pl.BlockSpec:
        return pl.BlockSpec(read, lambda u, n, i: (n, nearest(plan, i, at), 0, 0, 0))  # noqa: ARG005

    def still_at(u: Any, n: Any, i: Any) -> tuple[Any, ...]:
        return _order(n, jnp.maximum(i - plan.late, 0), 0, 0, u, beside)

    moving, still = _swapped(moving, across), _swapped(still, beside)
    specs, shapes, scratch = told(x, plan.doubted)
    dw, *doubt = pl.pallas_call(
        functools.partial(_correlate, plan=plan, multiply=multiplied(precision, interpret)),
        grid=plan.grid,
        in_specs=[
            *(moving_at(at) for at in range(planes.stride)),
            pl.BlockSpec(other, still_at),
        ],
        out_specs=[
            pl.BlockSpec(
                (taps, rows, columns),
                lambda u, n, i: (0, 0, u) if plane.turned else (0, u, 0),  # noqa: ARG005
                pipeline_mode=pl.Buffered(1 + (plane.steps[0] > 1)),
            ),
            *specs,
        ],
        out_shape=[like(x, (taps, *pair), dtype), *shapes],
        scratch_shapes=[
            *scratch,
            pltpu.VMEM(image.window, jnp.float32),
            pltpu.VMEM((plan.ring, *plane.padded), x.dtype if image.packed else jnp.float32),
            pltpu.VMEM((plane.positions, LANES), jnp.float32),
            pltpu.VMEM((plane.wide, plane.positions), x.dtype),
            pltpu.VMEM((taps, plane.wide, image.channels), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary" if specs else "parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=_cost(plan),
        name="jaxdil_volumes_kernel_gradient",
        interpret=interpret,
    )(*[moving] * planes.stride, still)
    return dw.reshape(plan.taps, *image.kernel, *pair), doubt[0] if doubt else None


def _order(n: Any, d: Any, h: Any, w: Any, c: Any, across: bool) -> tuple[Any, ...]:  # noqa: FBT001
    """Something of each axis in the order in memory."""
    n, *rest = order(n, h, w, c, across)
    return n, d, *rest


def _swapped(x: jax.Array, across: bool) -> jax.Array:  # noqa: FBT001
    """(N, D, H, W, C) in the order in memory."""
    return transpose(x, (0, 1, 2, 4, 3)) if across else x


def _cost(plan: Plan) -> pl.CostEstimate:
    image, planes = plan.plane.image, plan.planes
    positions = image.batch * planes.outputs * math.prod(image.positions)
    taps = plan.taps * math.prod(image.kernel)
    return pl.CostEstimate(
        flops=2 * positions * taps * image.channels * plan.plane.still,
        bytes_accessed=plan.moved,
        transcendentals=0,
    )


def _correlate(*refs: Any, plan: Plan, multiply: Multiply) -> None:
    n, i = pl.program_id(1), pl.program_id(2)
    plane, planes = plan.plane, plan.planes
    xs, rest = refs[: planes.stride], refs[planes.stride :]
    g, dw, *held = rest if plan.doubted else (*rest[:2], None, None, *rest[2:])
    doubt, nothing, window, ring, lying, turned, sums = held
    begin(nothing, (pl.program_id(0) == 0) & (n == 0) & (i == 0))

    def clear(each: Any, when: Any) -> None:
        """Zeros, a row at a time: it is what most steps do without."""

        def row(r: Any, _: None) -> None:
            each[r] = jnp.zeros(each.shape[1:], each.dtype)

        lax.fori_loop(0, jnp.where(when, each.shape[0], 0), row, None)

    begins = (n == 0) & (i == 0)
    clear(sums, begins)

    @pl.when(begins)
    def _() -> None:
        for each in (window, lying):
            each[...] = jnp.zeros(each.shape, each.dtype)

    def put(at: int, here: Any) -> None:
        image = plane.image
        stage(xs[at].at[:, 0], window, ring.at[here], image, used=image.columns.outputs)

    def blank(here: Any, row: Any) -> None:
        starts, images = plane.padded[:2]
        for start in range(starts):
            for image in range(images):
                ring[here, start, image, row] = jnp.zeros(ring.shape[4:], ring.dtype)

    come(plan, i, put, blank, plane.padded[2])

    @pl.when(i >= plan.late)
    def _() -> None:
        turn(g.at[:, 0], lying, turned, plane, TOGETHER)
        start = (i - plan.late) * planes.stride
        (phase,) = planes.phases
        for each in phase.taps:
            image = ring.at[slot(plan, start + each.offset)]
            tap = plan.taps - 1 - each.tap if plane.exchanged else each.tap
            _add(image, turned, sums, tap * math.prod(plane.image.kernel), plane, multiply)

    def store(tap: Any, _: None) -> None:
        total = sums[tap].T if plane.turned else sums[tap]
        dw[tap] = total.astype(dw.dtype)
        note(nothing, total)

    last = (n == pl.num_programs(1) - 1) & (i == pl.num_programs(2) - 1)
    lax.fori_loop(0, jnp.where(last, dw.shape[0], 0), store, None)
    pl.when(last)(lambda: tell(doubt, nothing))


def _add(image: Any, turned: Any, sums: Any, first: int, plane: Any, multiply: Multiply) -> None:
    """Add the products of a plane with each tap of a plane of the kernel."""
    images, height, width = plane.strip

    def add(tap: int, term: Any) -> None:
        sums[first + tap] += term

    def strip(n: Any, r: Any, q: Any) -> None:
        add_products(image, turned, add, (n, r, q), plane, multiply)

    def columns(n: Any, r: Any) -> None:
        repeat(plane.image.pitch // width, lambda q: strip(n, r, q * width))

    def rows(n: Any) -> None:
        repeat(plane.height // height, lambda r: columns(n, r * height))

    repeat(plane.image.images // images, lambda n: rows(n * images))
