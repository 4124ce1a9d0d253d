"""Convolution of groups of several channels on a TPU: x, w and y go through memory once.

    y[n, p, q, (g, o)] = sum_{a, b, i}  x~[n, s p + d a - lo, s q + d b - lo, (g, i)]
                                        w[a, b, i, (g, o)]

A matrix unit multiplies 128 channels by 128 in the time in which it multiplies 4 by 4. So some
groups together are a dense convolution whose kernel is zero between one group and another. The
zeros are written where they are read, in the memory on the chip, once for each block of groups.

Zero times NaN is NaN. So that a sample which is not finite reaches the outputs of its group alone,
an image that has one is gone through once for each group of the block, with the samples of all
others zero.
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

from jaxdil._pallas.lying import all_of, arranged, back, block_at
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_groups import Plan
from jaxdil._pallas.tpu_2d import split
from jaxdil._pallas.tpu_dense import (
    Multiply,
    clear,
    multiplied,
    rows,
    stage,
    within,
)
from jaxdil._pallas.varying import like

__all__ = ["convolution"]

# Bits of the least number in single precision that half precision rounds to infinity.
_INFINITE = 0x7F7F8000

# Taps whose zeros are written one by one, without a loop.
_TAPS = 9


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
    """(N, P, Q, O) in ``dtype`` of x (N, H, W, C) and w (K, L, I, O).

    Where the plan is turned, the taps of w are in reverse; where outputs come first, w has the
    outputs of a group before the inputs of all, (K, L, O / G, C).
    """
    dense = plan.dense
    x_lies, y_lies = dense.lies
    taps, *pair = plan.compact
    scratch = [
        pltpu.VMEM(dense.window, jnp.float32),
        pltpu.VMEM(dense.image, x.dtype if dense.packed else jnp.float32),
        pltpu.VMEM(plan.wide, w.dtype),
    ]
    if dense.result is not None:
        scratch.append(pltpu.VMEM(dense.result, jnp.float32))
    images = dense.images * dense.abreast
    x_block = arranged(
        images, dense.rows.size, dense.columns_given // dense.abreast, dense.channels, x_lies
    )
    height, width = dense.outputs
    y_block = arranged(images, height, width // dense.abreast, dense.wide, y_lies)
    height, width = dense.positions[0] * plan.slices, dense.positions[1] // dense.abreast
    y_shape = dense.batch * dense.abreast // plan.slices, height, width
    held = [pl.Buffered(count) for count in plan.copies]
    channels = plan.blocks * dense.wide
    y = pl.pallas_call(
        functools.partial(_convolve, plan=plan, multiply=_tiled(precision, interpret, plan)),
        grid=plan.steps,
        in_specs=[
            pl.BlockSpec(
                x_block, lambda u, n: block_at(n, u, plan.slices, x_lies), pipeline_mode=held[0]
            ),
            pl.BlockSpec((taps, *pair), lambda u, n: (0, 0, u), pipeline_mode=held[1]),  # noqa: ARG005
        ],
        out_specs=pl.BlockSpec(
            y_block, lambda u, n: block_at(n, u, plan.slices, y_lies), pipeline_mode=held[2]
        ),
        out_shape=like(x, arranged(*y_shape, channels, y_lies), dtype),
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=_cost(plan),
        name="jaxdil_groups",
        interpret=interpret,
    )(back(x, x_lies, away=True), w.reshape(taps, *w.shape[2:]))
    return back(y, y_lies)


def _cost(plan: Plan) -> pl.CostEstimate:
    dense = plan.dense
    outputs = dense.batch * dense.positions[0] * dense.positions[1] * dense.wide * plan.blocks
    products = outputs * dense.kernel[0] * dense.kernel[1] * (dense.channels // plan.together)
    return pl.CostEstimate(flops=2 * products, bytes_accessed=plan.moved, transcendentals=0)


def _convolve(
    x: Any,
    w: Any,
    y: Any,
    window: Any,
    image: Any,
    wide: Any,
    *results: Any,
    plan: Plan,
    multiply: Multiply,
) -> None:
    dense = plan.dense

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        clear(window, image)
        widen(w, wide, plan.together)

    def compute(kept: tuple[Any, Any] | None, written: tuple[Any, Any] | None) -> None:
        stage(x, window, image, dense, kept=kept)
        for phase in dense.rows.phases:
            rows(phase, [(wide, image)], y, results, dense, multiply, written)

    if plan.together == 1:
        compute(None, None)
        return
    finite = _is_finite(x, plan)
    inner, outer = dense.channels // plan.together, dense.wide // plan.together

    def part(g: Any, _: Any) -> None:
        first, last = jnp.where(finite, 0, g), jnp.where(finite, plan.together, g + 1)
        compute((first * inner, last * inner), (first * outer, last * outer))

    lax.fori_loop(np.int32(0), jnp.where(finite, np.int32(1), np.int32(plan.together)), part, None)


def _tiled(precision: Any, interpret: Any, plan: Plan) -> Multiply:
    """The product of samples and a kernel, without registers that are all zeros."""
    multiply = multiplied(precision, interpret)
    if len(plan.tiles) == 1:
        return multiply

    def tiled(a: Any, b: Any, inner: int) -> Any:
        terms = []
        for x, y in plan.tiles:
            kernel = b[y, x] if inner else b[x, y]
            terms.append(multiply(a[:, x], kernel, inner))
        return lax.concatenate(terms, 1)

    return tiled


def widen(w: Any, wide: Any, together: int) -> None:
    """Write the kernels of groups below each other, with zeros between them."""
    lanes = w.shape[2] // together

    def one(tap: Any) -> None:
        kernel = w[tap].astype(jnp.float32)
        parts = [
            jnp.where(within(kernel.shape, 1, (g * lanes, (g + 1) * lanes)), kernel, 0)
            for g in range(together)
        ]
        wide[tap] = lax.concatenate(parts, 0).astype(wide.dtype)

    def some(first: Any, count: int) -> None:
        for i in range(count):
            one(first + i)

    split(w.shape[0], _TAPS, some)


def _is_finite(x: Any, plan: Plan) -> Any:
    """Whether all samples of a block are finite, also if they are rounded to half precision."""
    dense = plan.dense
    across, abreast = dense.lies[0]

    def over(times: int, body: Any, value: Any) -> Any:
        return (
            lax.fori_loop(np.int32(0), np.int32(times), body, value)
            if times > 1
            else body(0, value)
        )

    def row(n: Any, r: Any, largest: Any) -> Any:
        # The bits of numbers without a sign are in the order of the numbers, NaN the last.
        part = all_of(x, n, r, dense.columns.size, dense.lies[0])
        bits = lax.bitcast_convert_type(part, jnp.int32) & 0x7FFFFFFF
        return jnp.maximum(largest, bits.max(0, keepdims=abreast == 1))

    def image(n: Any, largest: Any) -> Any:
        return over(dense.rows.size, functools.partial(row, n), largest)

    lanes = dense.columns.size if across else dense.channels
    largest = over(dense.images, image, jnp.zeros((abreast, lanes), jnp.int32))
    return largest.max() < _INFINITE
