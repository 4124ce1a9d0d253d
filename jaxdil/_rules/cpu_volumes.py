"""C9: convolutions in three axes and more, for all of which XLA has one slow loop.

Planes, phases and taps of a volume are images, for which the other rules are asked in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from jaxdil._choice import Choice
from jaxdil._problem import Problem
from jaxdil._rules.cpu_products import Rule

__all__ = ["volumes"]

# What is kept in a cache whatever the sizes of input and output.
FEW_BYTES = 4 << 20
# Multiply-adds from which on a volume of doubles is slow.
DOUBLES = 4e6


def volumes(problem: Problem, rule: Rule, *, single: bool) -> Iterator[tuple[bool, Choice]]:
    """Convolutions of one group in three axes and more; ``single`` are halves and singles."""
    if not _is_slow(problem):
        return
    dilated = any(a > 1 for a in problem.input_dilation)
    what = "3-D, input dilated: one matrix product"
    yield dilated and problem.taps == 1, rule(9, "phases", what)
    if problem.taps == 1:
        return
    # The patches of a kernel gradient are few where its positions are, and no larger than the
    # image where it is strided.
    gradient = problem.is_window and problem.exchanged and single and not dilated
    few = math.prod(problem.kernel) < 64
    few = few or math.prod(problem.positions) <= math.prod(problem.dilation)
    what = "3-D, kernel gradient by few patches: one matrix product"
    yield gradient and few, rule(9, "im2col", what)
    # One whose taps lie far apart: a product each.
    apart = gradient and problem.rank == 3 and min(problem.stride) >= 3
    yield apart, rule(9, "correlate", "3-D, taps far apart")
    yield dilated, rule(9, "phases", "3-D, input dilated")
    # Side by side the planes take several times the memory of the input; that pays only where
    # channels are so few that a plane by itself would not occupy a matrix product.
    planes = math.prod((problem.batch, *problem.positions[:1], *problem.size[1:], problem.channels))
    planes *= problem.kernel[0] * problem.x_dtype.itemsize
    light = planes <= max(2 * problem.bytes, FEW_BYTES)
    yield light and problem.channels < 64, rule(9, "planes", "3-D by 2-D")
    yield True, rule(9, "slabs", "3-D by 2-D, plane by plane")


def _is_slow(problem: Problem) -> bool:
    """Whether the loop is slow in this dtype: of integers no image is fast either."""
    if problem.x_dtype == np.float64:
        work = math.prod(problem.y_shape) * problem.taps * problem.group_channels
        return problem.taps > 1 and problem.out_channels >= 16 and work >= DOUBLES
    return jnp.issubdtype(problem.x_dtype, jnp.inexact)
