"""A rule for processors whose widest vectors are AVX2's: C20.

XLA's library has kernels for AVX-512, and those that it has for AVX2 are slow by the kernel under
every JAX, and forward under 0.10: the other library, which `margin` calls, is faster there, and so
is whatever makes of a kernel gradient a convolution with the kernel's own few taps. None of these
processors multiplies in bfloat16, which XLA computes as float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_vectors
from jaxdil._methods import margin
from jaxdil._problem import Problem
from jaxdil._rules.cpu_products import LIBRARY, LIBRARY_11, Rule, exchanges_well, is_lopsided

__all__ = ["narrow_vectors"]

# Multiply-adds from which on: of a convolution, of a kernel gradient, and of one since JAX 0.11.
WORK, GRADIENT, GRADIENT_11 = 7e6, 1.2e7, 2.5e7


def narrow_vectors(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Convolutions of one group in two axes, of floats of single precision and less."""
    if cpu_vectors() != "AVX2" or problem.rank != 2 or any(a > 1 for a in problem.input_dilation):
        return
    if problem.x_dtype not in (jnp.float32, jnp.bfloat16) or problem.is_window != problem.exchanged:
        return
    work = math.prod(problem.y_shape) * problem.taps * problem.channels
    if problem.is_window:
        yield from _gradients(problem, rule, work)
    elif LIBRARY and not LIBRARY_11 and problem.taps > 1 and work >= WORK:
        yield from _forward(problem, rule)


def _gradients(problem: Problem, rule: Rule, work: int) -> Iterator[tuple[bool, Choice]]:
    """As a layer has them: its channels, its outputs, its images."""
    inner, outer, images = problem.batch, problem.out_channels, problem.channels
    taps, least = math.prod(problem.positions), min(inner, outer)
    if taps == 1 or least < 3 or work < (GRADIENT_11 if LIBRARY_11 else GRADIENT):
        return
    strided = set(problem.dilation) != {1}
    bare = not strided and not exchanges_well(problem)
    # XLA is as good at large kernels of few channels, and without padding from many to few.
    if (least < 8 and taps > 49) or (bare and outer <= 16 < inner):
        return
    # C12 and C15 have better.
    lopsided = is_lopsided(problem) and (outer < 8 or 16 * outer <= inner)
    if lopsided or _has_few_rows(problem, least):
        return
    what = "kernel gradient without AVX-512"
    patches = strided and least >= 24 and not LIBRARY_11
    yield patches, rule(20, "im2col", f"{what}, with a stride")
    several = least >= 32 and not problem.kernel_first and (images > 1 or taps >= 25)
    several = several or LIBRARY_11 or set(problem.stride) != {1} or bare
    yield several, rule(20, "planes", what)
    yield True, rule(20, "slabs", what)


def _has_few_rows(problem: Problem, least: int) -> bool:
    """Whether positions and images are so few that all of it is one product."""
    rows = math.prod(problem.kernel) * problem.channels
    return LIBRARY and least >= 192 and rows <= min(1.5 * least, 256)


def _forward(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    inner, outer = problem.channels, problem.out_channels
    few = inner < 8 and problem.taps >= 49 and outer >= 32
    yield few, rule(20, "planes", "a large kernel of few channels without AVX-512")
    if margin.supports(problem, "cpu") is not None:
        return
    more = math.prod(margin.with_margin(problem).positions) / math.prod(problem.positions)
    full = outer >= 16 and (outer % 8 == 0 or outer >= 40 or (outer >= 24 and outer % 2 == 1))
    full = full and inner >= 8 and inner * outer >= 512
    full = full and more <= 1.1 and problem.padded < 3.2
    yield full, rule(20, "margin", "XLA's other library, without AVX-512")
