"""A rule for what XLA's library is slow at, on processors with AVX2 and with AVX-512: C20.

It is slow by the kernel, along one axis, and with zeros between the samples, whatever the
vectors. What makes of a kernel gradient a convolution with the kernel's own few taps, or multiplies
no zeros, is faster. Its kernels for AVX2 are slow forward too, under JAX 0.10, where the other
library, which `margin` calls, is faster; and by the kernel so slow that there this rule goes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_vectors
from jaxdil._methods import margin
from jaxdil._problem import Problem
from jaxdil._rules.cpu_amd import gains_by_phases, is_put_back
from jaxdil._rules.cpu_intel import is_xeon
from jaxdil._rules.cpu_products import (
    LIBRARY,
    LIBRARY_11,
    Rule,
    exchanges_well,
    is_lopsided,
    is_upright,
)

__all__ = ["slow_library"]

# Multiply-adds from which on: of a convolution, of a kernel gradient, and of one since JAX 0.11;
# and on the samples alone where there is a dilation between the taps too.
WORK, GRADIENT, GRADIENT_11, DILATED = 7e6, 1.2e7, 2.5e7, 1e6


def slow_library(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Convolutions of one group in at most two axes, of single precision or bfloat16."""
    if problem.x_dtype not in (jnp.float32, jnp.bfloat16) or not cpu_vectors():
        return
    if any(a > 1 for a in problem.input_dilation):
        yield _gains_by_phases(problem), rule(20, "phases", "zeros between the samples")
        return
    narrow = cpu_vectors() == "AVX2"
    if problem.is_window != problem.exchanged:
        return
    if problem.rank == 1:
        yield from _lines(problem, rule)
    if problem.rank != 2:
        return
    work = math.prod(problem.y_shape) * problem.taps * problem.channels
    if problem.is_window:
        yield from _gradients(problem, rule, work)
    elif narrow and LIBRARY and not LIBRARY_11 and problem.taps > 1 and work >= WORK:
        yield from _forward(problem, rule)


def _lines(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """One axis."""
    what = "kernel gradient of a few lines"
    if problem.is_window:
        # As a layer has them: its images, its channels, its outputs, its positions and taps.
        images, inner, outer = problem.channels, problem.batch, problem.out_channels
        several, least = math.prod(problem.positions) > 1, min(inner, outer)
        strided = set(problem.dilation) != {1}
        if cpu_vectors() != "AVX2":
            # What lies channels first would be moved, and wide patches are more than the gradient.
            width = math.prod(problem.positions) * inner
            several = several and not problem.kernel_first and width <= (6000 if strided else 8000)
            bare = not strided and not exchanges_well(problem)
            several = several and not (bare and least >= 32)
        long = several and strided and problem.taps >= 100
        yield long and images <= 4 and inner >= 32, rule(20, "im2col", f"{what}, with a stride")
        short = several and images <= 2 and images * problem.taps <= (256 if least >= 192 else 1000)
        yield short and least >= 8, rule(20, "im2col", what)
        return
    few = problem.out_channels <= 8 and problem.channels >= 64 and set(problem.stride) == {1}
    rows = math.prod(problem.y_shape[:-1])
    few = few and problem.taps >= 3 and rows >= 500
    yield few, rule(20, "im2col", "one axis, to few outputs")


def _gradients(problem: Problem, rule: Rule, work: int) -> Iterator[tuple[bool, Choice]]:
    """As a layer has them: its channels, its outputs, its images."""
    inner, outer, images = problem.batch, problem.out_channels, problem.channels
    taps, least = math.prod(problem.positions), min(inner, outer)
    if (
        taps == 1
        or least < 3
        or is_upright(problem)
        or work < (GRADIENT_11 if LIBRARY_11 else GRADIENT)
    ):
        return
    strided = set(problem.dilation) != {1}
    bare = not strided and not exchanges_well(problem)
    # XLA is as good at large kernels of few channels, and without padding from many to few.
    if (least < 8 and taps > 49) or (bare and outer <= 16 < inner):
        return
    narrow = cpu_vectors() == "AVX2"
    if not narrow and not _is_slow_with_avx_512(problem, strided=strided, bare=bare):
        return
    # Images are the input channels here, and eight of them fill a vector.
    if (images % 8 == 0 and outer < 32) if LIBRARY else images >= 8:
        return
    # C12 and C15 have better.
    if (is_lopsided(problem) and outer <= 24) or _has_few_rows(problem, least):
        return
    what = "kernel gradient by few taps"
    patches = strided and least >= 24 and not LIBRARY_11
    yield patches, rule(20, "im2col", f"{what}, with a stride")
    several = least >= 32 and not problem.kernel_first and (images > 1 or taps >= 25)
    several = several or LIBRARY_11 or set(problem.stride) != {1} or bare
    # Slabs are moved to channels last at a price.
    several = several or (problem.kernel_first and not narrow)
    yield several, rule(20, "planes", what)
    yield True, rule(20, "slabs", what)


def _is_slow_with_avx_512(problem: Problem, *, strided: bool, bare: bool) -> bool:
    """Whether a kernel gradient is one that the library is slow at with AVX-512 too.

    That of JAX 0.11 is not, nor that of 0.8 without padding; none to many outputs of few channels,
    of many channels in half precision, or with a stride of many images, channels first or dilated.
    """
    inner, outer = problem.batch, problem.out_channels
    least, dilated = min(inner, outer), set(problem.stride) != {1}
    if LIBRARY_11 or (bare and not LIBRARY):
        return False
    if problem.x_dtype != jnp.float32 and least >= 24:
        return False
    many = problem.channels >= 8 or problem.kernel_first or dilated
    if strided and least >= 24 and many:
        return False
    if bare and dilated and least < 24:
        return False
    # What it is at its best with.
    best = inner % 128 == outer % 128 == 0 and not bare
    return outer <= 4 * inner and not best


def _has_few_rows(problem: Problem, least: int) -> bool:
    """Whether positions and images are so few that all of it is one product."""
    rows = math.prod(problem.kernel) * problem.channels
    return LIBRARY and least >= 192 and rows <= min(1.5 * least, 256)


def _gains_by_phases(problem: Problem) -> bool:
    """Whether the zeros between the samples cost more than a convolution for each phase.

    Those are transposed convolutions, and the gradients by the input of strided ones.
    """
    inner, outer, taps = problem.channels, problem.out_channels, problem.taps
    if problem.rank > 2 or problem.is_window or set(problem.stride) != {1}:
        return False
    samples = problem.batch * math.prod(problem.size)
    narrow = cpu_vectors() == "AVX2"
    # With a dilation besides all but the smallest are slow, with AVX2 and AVX-512, under every JAX.
    dilated = max(problem.dilation) > 1 and inner > 1
    if is_put_back(problem):
        return True
    if dilated and samples * taps * inner * outer >= DILATED:
        return True
    if is_xeon() and inner > 1 and set(problem.dilation) == {1}:
        return _gains_on_intel(problem, samples)
    plain = inner > 1 and set(problem.dilation) == {1}
    if plain and gains_by_phases(problem) and _gains_on_intel(problem, samples):
        return True
    # With AVX-512 the zeros cost little to few outputs.
    if inner > 5 * outer and not narrow:
        return False
    if problem.rank == 1:
        if inner == 1:
            return samples >= 200 or taps <= 16
        enough = outer >= 16 or (outer >= 8 and (samples >= 4000 or taps >= 16))
        return samples >= 2000 and enough and (inner >= 4 or taps >= 8)
    # Those of all taps are one matrix product (C10).
    if taps <= math.prod(problem.input_dilation) and set(problem.dilation) == {1}:
        return False
    if inner == 1:
        return True
    if min(inner, outer) < 8:
        # A convolution of so few channels needs many outputs, or much else.
        much = taps >= 16 and samples >= 16_000 and inner * outer >= 16
        return (outer >= 16 and samples >= 700) or (outer >= max(inner, 4) and much)
    # Those of the smallest images are too small for XLA's library.
    if min(problem.size) < 12:
        return False
    # The library of JAX 0.8 leaves the zeros of few taps out as well, to few outputs.
    many = samples >= 2000 and (taps >= 16 or outer >= inner or LIBRARY)
    many = many or (samples >= 1000 and taps >= 16 and outer >= 48)
    # Nor of few samples and taps.
    return many and (narrow or samples >= 2500 or taps >= 25)


def _gains_on_intel(problem: Problem, samples: int) -> bool:
    """The same on Intel's processors with AVX-512, which gain from it far more often."""
    inner, outer, line = problem.channels, problem.out_channels, problem.rank == 1
    # No more taps than samples and zeros: one tap to an output.
    spread = zip(problem.kernel, problem.input_dilation, strict=True)
    if all(k <= a for k, a in spread) and outer >= 3 and (not line or samples >= 100):
        return True
    if line and outer < 8:
        return False
    work = samples * problem.taps * inner * outer
    return inner <= 5 * outer and samples >= (200 if line else 250) and work >= 1e6


def _forward(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    inner, outer = problem.channels, problem.out_channels
    few = inner < 8 and problem.taps >= 49 and outer >= 32
    wide = max(problem.dilation) > 1 and problem.padded >= 3 and 25 <= problem.taps <= 128
    few = few or (1 < inner <= 8 and wide)
    yield few, rule(20, "planes", "a large kernel of few channels without AVX-512")
    # What is kept of each tap would be too much for C13.
    waste = problem.padded >= 2.2 and min(inner, outer) >= 192 and max(problem.dilation) > 1
    yield waste, rule(20, "planes", "most of it padding, to many outputs")
    if margin.supports(problem, "cpu") is not None:
        return
    more = math.prod(margin.with_margin(problem).positions) / math.prod(problem.positions)
    # Outputs are the lanes, which these leave empty in the one library and not in the other.
    uneven = 8 < outer < 16 and inner >= 24
    bare = set(problem.padding) == {(0, 0)} and problem.positions[-1] >= 54
    uneven = uneven or (bare and 4 <= outer < 16 and inner >= 32)
    full = outer >= 16 and (outer % 8 == 0 or outer >= 40 or (outer >= 24 and outer % 2 == 1))
    full = (full and inner >= 8 and inner * outer >= 512) or uneven
    full = full and more <= 1.1 and problem.padded < 3.2
    yield full, rule(20, "margin", "XLA's other library, without AVX-512")
