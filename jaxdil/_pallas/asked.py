"""What the dense kernels for a TPU ask of a problem: numbers they multiply, blocks that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._pallas.plan_2d import MEMORY
from jaxdil._problem import Problem

__all__ = ["MOST_PRODUCTS", "as_image", "fits", "of_numbers", "sizes_of", "too_large"]

# Products of 8 rows by 128 x 128 that are written out at the most.
MOST_PRODUCTS = 8192


def sizes_of(problem: Problem) -> tuple[int, int, int]:
    """Bytes of an element of x, of w and of y."""
    return problem.x_dtype.itemsize, problem.w_dtype.itemsize, problem.out_dtype.itemsize


def as_image(problem: Problem) -> Problem:
    """A row as an image of one row."""
    if problem.rank == 2:
        return problem
    return problem.replace(
        size=(1, *problem.size),
        kernel=(1, *problem.kernel),
        stride=(1, *problem.stride),
        padding=((0, 0), *problem.padding),
        input_dilation=(1, *problem.input_dilation),
        dilation=(1, *problem.dilation),
    )


def of_numbers(problem: Problem) -> str | None:
    """Why a dense kernel takes no numbers such as a problem's, or None."""
    for dtype in (problem.x_dtype, problem.w_dtype, problem.out_dtype):
        if dtype not in (np.dtype(np.float32), np.dtype(jnp.bfloat16)):
            return f"{dtype}, and it serves float32 and bfloat16"
    if problem.x_dtype != problem.w_dtype:
        return "two dtypes at once"
    precision = problem.precision
    both = precision if isinstance(precision, tuple) else (precision,)
    if not set(both) <= {None, lax.Precision.DEFAULT, lax.Precision.HIGHEST}:
        return f"a precision of {precision}"
    return None


def fits(plan: Any) -> bool:
    """Whether the blocks of a plan fit into the memory on the chip, and its products are few."""
    return plan.memory <= MEMORY and plan.products <= MOST_PRODUCTS


def too_large(plans: Sequence[Any]) -> str:
    """What the least of some plans would need that there is not."""
    least = min(plan.memory for plan in plans)
    products = min(plan.products for plan in plans)
    return f"{least} bytes of a block, of {MEMORY}, or {products} products, of {MOST_PRODUCTS}"
