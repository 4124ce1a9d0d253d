"""Rules for dense convolutions of one input channel and of one tap: C6 and C7.

Of a single input channel a tap is a product of the image with a row of the kernel; of a single tap
the whole is a matrix product, which XLA does not recognise as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from jaxdil._choice import Choice
from jaxdil._device import cpu_vectors, multiplies_bfloat16
from jaxdil._problem import Problem
from jaxdil._rules.cpu_amd import is_cut_first, is_cut_well
from jaxdil._rules.cpu_intel import is_xeon
from jaxdil._rules.cpu_products import LIBRARY, LIBRARY_11, Rule

__all__ = ["by_taps"]

# Bytes of arrays from which on a product is slower than XLA's kernel where JAX's is not 0.10, and
# up to which it was measured.
MATRICES = 32 << 20
# Multiply-adds from which on a strided 1x1x1 is one.
VOLUME = 5e4


def by_taps(problem: Problem, rule: Rule, *, single: bool) -> Iterator[tuple[bool, Choice]]:
    """Inputs that are not dilated; ``single`` says that they are half or single precision."""
    if any(a > 1 for a in problem.input_dilation):
        return
    yield _has_one_channel(problem), rule(6, "taps", "one input channel")
    yield single and _has_one_tap(problem), rule(7, "taps", "1x1: one matrix product")


def _has_one_channel(problem: Problem) -> bool:
    outer, window = problem.out_channels, problem.is_window
    if problem.channels != 1 or problem.x_dtype == np.float64:
        return False
    if outer == 1:
        return True
    few = problem.taps <= 128 and (problem.rank > 2 or problem.taps * outer < 800)
    if problem.rank == 2 and problem.kernel_first and problem.taps > 1:
        # So the output has its channels first too, and would be moved; XLA writes it in place.
        padded = any(map(any, problem.padding))
        few = problem.taps * outer <= (200 if outer <= 8 and padded else 160)
    if problem.rank == 2 and math.prod(problem.y_shape[:-1]) < 400:
        # A small image is done before the taps are under way.
        few = few and problem.taps * outer <= 100
    # The kernel gradient of a single image has one too, and is another matter but for one position.
    return few and not window and (problem.taps == 1 or not problem.exchanged)


def _has_one_tap(problem: Problem) -> bool:
    inner, outer, rank = problem.channels, problem.out_channels, problem.rank
    half = problem.x_dtype == jnp.bfloat16 and multiplies_bfloat16()
    known = problem.x_dtype == np.float32 or half
    if is_xeon() and rank <= 2 and LIBRARY and known:
        moderate = problem.bytes <= MATRICES or not LIBRARY_11
        return problem.taps == 1 and moderate and _is_product(problem)
    channels, rows = min(inner, outer), math.prod(problem.y_shape[:-1])
    if is_cut_first(problem):
        return True
    alone = problem.taps == 1
    if rank > 2 and max(problem.stride) > 1:
        # Without a stride XLA makes a product of it itself, with one a loop over every sample.
        return alone and rows * inner * outer >= VOLUME
    alone = alone and (channels >= 32 or (rank == 2 and channels >= 8 and rows >= 2048))
    # At longer ones in 1-D XLA's own kernel is as good, and it fuses what follows with the layout.
    alone = alone and (rank > 1 or math.prod(problem.y_shape) < 1 << 19)
    alone = alone and not is_cut_well(problem)
    # Nor where it would be moved to channels last and back, without AVX-512.
    moved = rank == 1 and problem.channels_first and cpu_vectors() == "AVX2"
    alone = alone and not (moved and rows * inner * outer > 4e6)
    if rank > 2 or (LIBRARY and not LIBRARY_11):
        return alone
    # Before JAX 0.10 it is as good on Intel's in two axes, and fuses what follows too.
    fused = is_xeon() and rank == 2 and not LIBRARY
    return alone and problem.bytes <= MATRICES and not fused


def _is_product(problem: Problem) -> bool:
    """Whether it is better a matrix product on Intel's processors with AVX-512, up to two axes."""
    inner, outer = problem.channels, problem.out_channels
    work = math.prod(problem.y_shape[:-1]) * inner * outer
    half = problem.x_dtype == jnp.bfloat16
    if problem.exchanged and (LIBRARY_11 or not half):
        # The kernel gradient of a kernel as large as its image, which is moved for it.
        return not LIBRARY_11 and min(inner, outer) >= 8 and work >= 5e6
    if half:
        # XLA makes a convolution in bfloat16 one in single precision.
        several = inner >= (3 if problem.rank > 1 else 8) and outer >= 20 and work >= 4e5
        return several or (inner >= 16 and work >= 1e5 and outer > 1) or min(inner, outer) >= 32
    if problem.rank < 2:
        # XLA's kernel is as good along one axis, but for few outputs.
        few = 2 <= outer <= 8 and inner >= 64 and work >= 3e5 and max(problem.stride) == 1
        large = math.prod(problem.y_shape) >= 1 << 19
        return not LIBRARY_11 and (few or (min(inner, outer) >= 32 and outer >= 64 and not large))
    if max(problem.stride) > 1:
        # What is left of the image is cut out first.
        return (inner >= 32 and outer >= 48) or (inner >= 24 and work >= 2e7)
    if inner >= 24:
        least = 1e5 if outer <= 2 and inner >= 32 else 5e5
        return work >= least or min(inner, outer) >= 32
    # Few outputs of few channels are done before it is under way.
    return outer >= 20 and work >= 1.5e6 and inner >= (8 if LIBRARY_11 else 2)
