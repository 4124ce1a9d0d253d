"""The gradient of a depthwise convolution of images by its kernel, on a TPU, in one pass.

    dw[a, b, c] = sum_{n, p, q}  x~[n, s p + d a - lo, s q + d b - lo, c] g[n, p, q, c]

x lies in a padded image as it does for the convolution, and a register of it is loaded from
wherever a tap lies. The sums of some taps stay in registers while all rows of a block go by; what
lies in the eight sublanes is added up only after the last block.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._pallas.axes import Tap
from jaxdil._pallas.mended import begin, note, tell, told
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_2d import MOST_SUMS, SUBLANES, Plan
from jaxdil._pallas.tpu_2d import (
    arranged,
    clear,
    cost,
    over,
    repeat,
    split,
    stage,
    steps,
    x_block,
    y_block,
)
from jaxdil._pallas.varying import like

__all__ = ["add", "kernel_gradient"]

# Rows that are multiplied together.
TOGETHER = 16


@narrow
def kernel_gradient(
    x: jax.Array, g: jax.Array, plan: Plan, *, dtype: Any, interpret: Any = False
) -> tuple[jax.Array, jax.Array | None]:
    """(K, L, C) in ``dtype`` of x (N, H, W, C) and g (N, P, Q, C).

    Beside it whether it is in doubt, if it may be.
    """
    taps = plan.kernel[0] * plan.kernel[1]
    specs, shapes, scratch = told(x, plan.doubted)
    dw, *doubt = pl.pallas_call(
        functools.partial(_correlate, plan=plan),
        grid=plan.grid,
        in_specs=[x_block(plan), y_block(plan)],
        out_specs=[pl.BlockSpec((taps, plan.wide), lambda c, n, i: (0, c)), *specs],  # noqa: ARG005
        out_shape=[like(x, (taps, plan.channels), jnp.float32), *shapes],
        scratch_shapes=[
            *scratch,
            pltpu.VMEM(plan.image, jnp.float32),
            pltpu.VMEM((plan.tiles, taps, SUBLANES, plan.lanes), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary" if specs else "parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=cost(plan),
        name="jaxdil_depthwise_2d_kernel_gradient",
        interpret=interpret,
    )(arranged(plan, x), arranged(plan, g))
    return dw.reshape(*plan.kernel, plan.channels).astype(dtype), doubt[0] if doubt else None


def _correlate(x: Any, g: Any, dw: Any, *held: Any, plan: Plan) -> None:
    c, n, i = (pl.program_id(axis) for axis in range(3))
    used = plan.channels - c * plan.wide
    held = held if plan.doubted else (None, None, *held)
    doubt, nothing, image, sums = held
    begin(nothing, (c == 0) & (n == 0) & (i == 0))

    @pl.when((n == 0) & (i == 0))
    def _() -> None:
        clear(image)
        repeat(plan.tiles, lambda tile: clear(sums.at[tile]))

    def one(image_of: Any, tile: Any, lanes: Any) -> None:  # noqa: ARG001
        stage(image_of(x), image, plan, i)
        add([(0, image)], image_of(g), sums.at[tile], plan, i)

    over(plan, one)

    @pl.when((n == pl.num_programs(1) - 1) & (i == pl.num_programs(2) - 1))
    def _() -> None:
        for tile in range(plan.tiles):
            lanes = slice(tile * plan.lanes, (tile + 1) * plan.lanes)
            total = sums[tile].sum(axis=1)
            dw[:, lanes] = total
            note(nothing, total, used - lanes.start)
        tell(doubt, nothing)


def add(images: Sequence[tuple[int, Any]], g: Any, sums: Any, plan: Plan, i: Any) -> None:
    """Add what a block contributes, as many columns of the kernel at a time as registers hold.

    Of several padded images, each with its own kernel of those in the sums.
    """
    ((_, _, down),), ((_, _, across),) = plan.rows.phases, plan.columns.phases
    if not down:
        return
    # A kernel of 3 x 3 x 3 taps is 27 sums, which registers hold as well.
    beside = max((MOST_SUMS if len(images) == 1 else 27) // (len(down) * len(images)), 1)
    for first in range(0, len(across), beside):
        taps = [
            (image, tap * plan.kernel[0] + a.tap, a, b)
            for b in across[first : first + beside]
            for tap, image in images
            for a in down
        ]
        _add_taps(g, sums, plan, i, taps)


def _folded(rows: jax.Array) -> jax.Array:
    """The sum of rows, by halves: a reduction would mask registers that are not full."""
    half, odd = divmod(rows.shape[0], 2)
    if not half:
        return rows[0]
    total = _folded(rows[:half] + rows[half : 2 * half])
    return total + rows[2 * half] if odd else total


def _add_taps(
    g: Any, sums: Any, plan: Plan, i: Any, taps: Sequence[tuple[Any, int, Tap, Tap]]
) -> None:
    rest = plan.rows.outputs % plan.height

    def columns(q: Any, wide: int) -> None:
        def rows(carry: tuple[Any, ...], r: Any, count: int) -> tuple[Any, ...]:
            part = g[pl.ds(r, count), pl.ds(q, wide)].astype(jnp.float32)
            if rest:
                # The last block has rows that are none of the cotangent's.
                row = i * plan.height + r + lax.broadcasted_iota(np.int32, part.shape, 0)
                part = jnp.where(row < plan.rows.outputs, part, 0.0)
            added = []
            for total, (image, _, a, b) in zip(carry, taps, strict=True):
                at = steps(plan.rows, r, count, a.offset), steps(plan.columns, q, wide, b.offset)
                added.append(total + _folded(image[at] * part))
            return tuple(added)

        carry = (jnp.zeros((wide, *plan.image[2:]), jnp.float32),) * len(taps)
        whole, left = divmod(plan.out_rows, TOGETHER)
        if whole:

            def block(r: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
                return rows(carry, r * TOGETHER, TOGETHER)

            carry = lax.fori_loop(np.int32(0), np.int32(whole), block, carry)
        if left:
            carry = rows(carry, whole * TOGETHER, left)
        for total, (_, row, _, b) in zip(carry, taps, strict=True):
            part = total.reshape(-1, plan.lanes)
            sums[row * plan.kernel[1] + b.tap, : part.shape[0], :] += part

    split(plan.columns.outputs, 1 if plan.together else SUBLANES, columns)
