"""A rule for convolutions that only a pooling reads: C23. XLA makes one program of the two.

From JAX 0.10 on, where it has a library for that: the output is never written, and every core has
its part, so that most of what is gained elsewhere, of memory and of idle cores, is lax's here too.
What is left is what the library computes slowly in itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._problem import Problem
from jaxdil._rules.cpu_products import LIBRARY, LIBRARY_11, Rule

__all__ = ["one_with_pooling"]

# Bytes of image and output from which on a matrix product of its own is the slower, and of the
# patches of an image without padding from which on XLA's library is slow by itself.
MATRICES, PATCHES = 32 << 20, 4 << 20
# Channels up to which it was measured.
WIDE = 256
# Channels times outputs from which on, behind such an image, the other methods win all the same.
MANY = 8192


def one_with_pooling(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Dense convolutions in two axes, forward."""
    what = "only a pooling reads it: XLA makes one program of the two"
    yield _is_as_fast(problem), rule(23, "xla", what)


def _is_as_fast(problem: Problem) -> bool:
    """Whether XLA's program of a convolution in two axes and its pooling is the fastest known."""
    inner, outer, half = problem.channels, problem.out_channels, problem.x_dtype == jnp.bfloat16
    if not (problem.pooled and LIBRARY) or problem.rank != 2 or problem.is_window:
        return False
    if max(problem.input_dilation) > 1:
        return False
    # Of many channels, and of as few positions, a matrix product is better than its library.
    least, rows = min(inner, outer), math.prod(problem.y_shape[:-1])
    if max(inner, outer) > WIDE or (problem.taps > 1 and least >= 128 and rows <= 1.5 * least):
        return False
    strided = max(problem.stride) > 1
    if problem.taps == 1:
        return strided or 2 * outer > inner or problem.bytes > MATRICES
    if inner == 1:
        return outer > (8 if half else 20)
    if LIBRARY_11:
        return False
    patches = 4 * rows * problem.taps * inner
    large = set(problem.padding) == {(0, 0)} and patches >= PATCHES
    if inner % 2 == 1 and inner <= 31:
        return large
    if inner < 8 or outer < 16:
        return False
    if half:
        return strided or inner < 64 or large
    return strided or not large or inner * outer < MANY
