"""The kernel gradient of groups of several channels on a TPU: each array goes through memory once.

    dw[a, b, i, (g, o)] = sum_{n, p, q}  x~[n, s p + d a - lo, s q + d b - lo, (g, i)]
                                         y'[n, p, q, (g, o)]

y' is the cotangent. For some groups together it is that of a dense convolution, of which the
products between a group and another are left out when it is stored.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._pallas.lying import arranged, back
from jaxdil._pallas.mended import told
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_groups_gradient import Plan
from jaxdil._pallas.tpu_dense import Multiply, multiplied, within
from jaxdil._pallas.tpu_dense_gradient import correlate, scratch_of
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
    """(K, L, I, O) in ``dtype`` of x (N, H, W, C) and g (N, P, Q, O).

    Beside it whether it is in doubt, if it may be.
    """
    dense, image = plan.dense, plan.dense.image
    moving, still = (g, x) if dense.exchanged else (x, g)
    lies, beside = image.lies
    taps, rows, lanes = plan.shape
    images = image.images * image.abreast
    columns = image.columns_given // image.abreast
    block = arranged(images, image.rows.size, columns, image.channels, lies)
    height, width = image.outputs
    other = arranged(images, height, width // image.abreast, dense.wide, beside)
    held = [pl.Buffered(count) for count in plan.copies]
    specs, shapes, scratch = told(x, dense.doubted)
    dw, *doubt = pl.pallas_call(
        functools.partial(
            correlate,
            plan=dense,
            multiply=_tiled(precision, interpret, plan),
            kept=functools.partial(_kept, together=plan.together),
        ),
        grid=plan.steps,
        in_specs=[
            pl.BlockSpec(block, lambda u, n: arranged(n, 0, 0, u, lies), pipeline_mode=held[0]),
            pl.BlockSpec(other, lambda u, n: arranged(n, 0, 0, u, beside), pipeline_mode=held[1]),
        ],
        out_specs=[
            pl.BlockSpec((taps, rows, lanes), lambda u, n: (0, 0, u), pipeline_mode=held[2]),  # noqa: ARG005
            *specs,
        ],
        out_shape=[like(x, (taps, rows, lanes * plan.blocks), dtype), *shapes],
        scratch_shapes=[*scratch, *scratch_of(dense, x.dtype)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary" if specs else "parallel", "arbitrary")
        ),
        cost_estimate=_cost(plan),
        name="jaxdil_groups_kernel_gradient",
        interpret=interpret,
    )(back(moving, lies, away=True), back(still, beside, away=True))
    return dw.reshape(*image.kernel, rows, lanes * plan.blocks), doubt[0] if doubt else None


def _cost(plan: Plan) -> pl.CostEstimate:
    image = plan.dense.image
    positions = image.batch * image.positions[0] * image.positions[1]
    taps, rows, lanes = plan.shape
    products = positions * taps * rows * lanes * plan.blocks
    return pl.CostEstimate(flops=2 * products, bytes_accessed=plan.moved, transcendentals=0)


def _tiled(precision: Any, interpret: Any, plan: Plan) -> Multiply:
    """The products of channels that are kept, and zeros for others."""
    multiply = multiplied(precision, interpret)
    tiles = plan.tiles
    if len(tiles) == 1:
        return multiply

    def tiled(a: Any, b: Any, inner: int) -> Any:
        rows = []
        for still, moving in tiles:
            term = multiply(a[still], b[:, moving], inner)
            rows.append(jnp.pad(term, [(0, 0), (moving.start, b.shape[1] - moving.stop)]))
        return lax.concatenate(rows, 0)

    return tiled


def _kept(total: Any, together: int) -> Any:
    """Of (g, i) with (h, o) those of g = h: (i, (h, o))."""
    rows, lanes = (n // together for n in total.shape)
    parts = [total[g * rows : (g + 1) * rows] for g in range(together)]
    if together == 1:
        return total
    kept: Any = 0
    for g, part in enumerate(parts):
        kept = jnp.where(within(part.shape, 1, (g * lanes, (g + 1) * lanes)), part, kept)
    return kept
