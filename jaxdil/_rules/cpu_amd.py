"""Rules for AMD's processors with AVX-512, under JAX 0.10: C24, and parts of C1, C4, C5, C14, C20.

XLA's library is slow there at much of what it is slow at on Intel's (C19), but gains begin at other
sizes. What both have is where the first of them was found; what differs is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_model, cpu_vectors
from jaxdil._problem import Problem
from jaxdil._rules.cpu_products import (
    LIBRARY,
    LIBRARY_11,
    Rule,
    exchanges_well,
    is_of_few_lines,
)

__all__ = [
    "few_channels",
    "gains_by_phases",
    "is_amd",
    "is_cut_first",
    "is_cut_well",
    "is_put_back",
    "kernel_gradients",
]

# Multiply-adds, or bytes in all, from which on a kernel gradient in two axes is slow; and bytes of
# its cotangent up to which it is.
GRADIENT, LARGE, SMALL = 8.5e7, 5_000_000, 60_000
# Taps of one axis, up to which few channels or outputs are a matrix product better.
FEW_TAPS = 11
# Multiply-adds from which on one matrix product pays for what is cut out for it.
PRODUCT = 1e5
# Of a convolution with zeros between its samples, of one of many channels, rows of it that are
# many, and bytes of a line.
WORK, HEAVY, ROWS, LINE = 5e6, 4e8, 36_000, 600_000


def is_amd() -> bool:
    """Whether this is one of AMD's processors with AVX-512, under the JAX measured there."""
    known = LIBRARY and not LIBRARY_11
    return known and cpu_vectors() == "AVX-512" and "AMD" in cpu_model()


def kernel_gradients(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """What of kernel gradients of one group C12 to C22 have left."""
    if not is_amd() or not problem.is_window or not problem.exchanged:
        return
    if any(a > 1 for a in problem.input_dilation):
        return
    # As a layer has them: its channels, its outputs, its images, its positions.
    inner, outer, images = problem.batch, problem.out_channels, problem.channels
    rows, taps = math.prod(problem.kernel) * images, math.prod(problem.positions)
    strided, single = set(problem.dilation) != {1}, problem.x_dtype == jnp.float32
    what = "kernel gradient on an AMD processor"
    # More images fill the vectors of XLA's own.
    product = taps == problem.rank == 1 and strided and images <= 8
    product = product and rows * inner * outer >= PRODUCT
    product = product and not (problem.kernel_first and inner < 16)
    turned = "correlate" if outer > inner and single else "im2col"
    yield product, rule(24, turned, f"{what}, of a strided 1x1: one matrix product")
    if taps == 1 or min(inner, outer) < 3 or not single:
        return
    bare = not exchanges_well(problem)
    if problem.rank == 1:
        yield is_of_few_lines(problem), rule(24, "im2col", f"{what}, of a few lines")
        return
    if problem.rank != 2:
        return
    # To few outputs of a large image the library is fast, and of short rows the image is small.
    large = problem.bytes >= LARGE or rows * taps * inner * outer >= GRADIENT
    large = large and outer >= 17 and problem.kernel[-1] >= 16
    # As it is at the first layer of a network, and what it is at its best with.
    best = inner % 128 == outer % 128 == 0 and not bare and taps <= 9
    large = large and not (strided and inner < 5) and not best
    # Outputs are the lanes of a tap's product, and channels of all taps those of the patches.
    wide = 2 * outer >= 3 * inner or taps >= 49
    yield large, rule(24, "planes" if wide else "im2col", f"{what}, of a large image")
    cotangent = 4 * rows * outer
    several = images < 8 and taps <= 9 and not problem.kernel_first
    small = problem.bytes < LARGE and cotangent <= (SMALL if several else SMALL // 4)
    yield small, rule(24, "im2col", f"{what}, of a small cotangent")


def few_channels(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Convolutions of one group in one axis, to few outputs or of few channels."""
    if not is_amd() or problem.is_window or problem.exchanged or problem.rank != 1:
        return
    plain = set(problem.stride) == set(problem.input_dilation) == {1}
    if not plain or problem.x_dtype != jnp.float32:
        return
    inner, outer, taps = problem.channels, problem.out_channels, problem.taps
    rows, dilated = math.prod(problem.y_shape[:-1]), set(problem.dilation) != {1}
    several = 1 < taps <= FEW_TAPS and rows >= 500
    some = several and taps <= 9 and outer <= 8 and inner >= 12
    yield some, rule(24, "im2col", "one axis on an AMD processor, to few outputs")
    # A tap's product of so few channels by so few is little; what is left is to read it once.
    slim = several and 1 < inner <= 7 and rows >= 1000 and (dilated or taps <= 5)
    yield slim, rule(24, "planes", "one axis on an AMD processor, of few channels")


def is_cut_first(problem: Problem) -> bool:
    """Whether a strided 1x1 is better a product of what is cut out of the image before."""
    if not is_amd() or problem.rank > 2 or problem.taps > 1 or max(problem.stride, default=1) == 1:
        return False
    inner, outer = problem.channels, problem.out_channels
    work = math.prod(problem.y_shape[:-1]) * inner * outer
    if problem.exchanged or work < PRODUCT:
        return False
    if problem.x_dtype == jnp.bfloat16:
        return not (problem.channels_first and inner < 16)
    few = inner <= 24 or outer <= 8
    return problem.x_dtype == jnp.float32 and problem.rank == 1 and few and work <= 4e6


def is_cut_well(problem: Problem) -> bool:
    """Whether XLA's own kernel is as good at a strided 1x1 of many channels in one axis."""
    if not is_amd() or problem.rank != 1 or max(problem.stride) == 1 or problem.channels_first:
        return False
    return problem.x_dtype == jnp.float32 and math.prod(problem.y_shape[:-1]) >= 500


def is_put_back(problem: Problem) -> bool:
    """Whether the gradient of one by its input is better that product, with zeros put between."""
    if not is_amd() or problem.rank > 2 or problem.taps > 1 or problem.channels_first:
        return False
    samples = problem.batch * math.prod(problem.size)
    work = samples * problem.channels * problem.out_channels
    if problem.x_dtype == jnp.bfloat16:
        return work >= 4 * PRODUCT
    # To many more than it has the product is as long as the zeros.
    even = problem.out_channels <= 2.2 * problem.channels
    return problem.x_dtype == jnp.float32 and problem.rank == 1 and even and work >= PRODUCT


def gains_by_phases(problem: Problem) -> bool:
    """Whether what gains by phases on Intel's processors (C20) does so here."""
    inner, outer = problem.channels, problem.out_channels
    if not is_amd() or problem.channels_first:
        return False
    least, apart = min(inner, outer), math.prod(problem.input_dilation)
    if problem.rank == 1:
        return problem.bytes >= LINE and least < 100
    rows = math.prod(problem.y_shape[:-1])
    work = rows * problem.taps * inner * outer
    # To fewer outputs the zeros cost little, but where they are new memory each time.
    enough = outer >= 2 * inner if problem.x_dtype == jnp.bfloat16 else inner <= 2.3 * outer
    # A few taps to a phase cost it no more than putting together the phases does.
    heavy = least <= 30 or work >= HEAVY or 1.5 * problem.taps <= apart
    best = inner % 128 == outer % 128 == 0
    return work >= WORK and (enough or rows >= ROWS) and least >= 6 and heavy and not best
