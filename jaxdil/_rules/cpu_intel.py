"""Rules for Intel's processors, on which XLA's library is slow by the kernel: C19, part of C2.

Once the cotangent is larger than the second cache (2 MB) it computes kernel gradients several times
more slowly, and few channels or few positions too. AMD's processors know neither, nor does the
library of JAX before 0.10. With AVX-512 it is slow with a stride as well, whichever the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_model, cpu_vectors
from jaxdil._problem import Problem
from jaxdil._rules.cpu_products import (
    EXCHANGED,
    LIBRARY,
    LIBRARY_11,
    Rule,
    exchanges_well,
    is_of_few_lines,
)

__all__ = ["has_good_patches", "is_xeon", "kernel_gradients"]
__all__ += ["small_gradients", "spread_gradients", "strided"]

# Bytes of the cotangent from which on the library is slow, and positions of an image: it is not
# where many small images make up the bytes.
CACHE, LARGE = 2_000_000, 400
# Multiply-adds from which on a convolution with a stride is worth it.
SMALL = 8e6


def is_xeon() -> bool:
    """Whether this is one of Intel's processors with AVX-512, where most of it was measured."""
    return "Intel" in cpu_model() and cpu_vectors() == "AVX-512"


def kernel_gradients(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Kernel gradients of one group in two axes, of floats of single precision and less."""
    taps, positions = math.prod(problem.positions), math.prod(problem.kernel)
    if not LIBRARY or problem.rank != 2 or not problem.is_window or taps == 1:
        return
    # A layer with more taps than outputs is none.
    if not problem.exchanged:
        return
    if "Intel" not in cpu_model() or any(a > 1 for a in problem.input_dilation):
        return
    # As a layer has them: its channels, its outputs, and how many of these positions there are.
    inner, outer, rows = problem.batch, problem.out_channels, positions * problem.channels
    least = min(inner, outer)
    what = "kernel gradient on an Intel processor, of a large cotangent"
    large = 4 * rows * outer >= CACHE and positions >= LARGE and least >= 24
    half = problem.x_dtype == jnp.bfloat16
    patches = half or (least <= 128 and taps <= 9)
    yield large, rule(19, "im2col" if patches else "planes", what)
    if problem.x_dtype != jnp.float32:
        return
    what = "kernel gradient on an Intel processor, of few channels"
    few = inner >= 3 and least < 48
    # Up to 16 outputs image and cotangent are better exchanged, but for what is copied for it.
    spread = outer > 16 or problem.bytes >= EXCHANGED
    lone = few and problem.channels == 1 and rows * taps >= 18000
    lone = lone and ((least >= 8 and (outer >= 16 or inner < 32)) or (taps >= 25 and spread))
    lone = lone and not (LIBRARY_11 and _is_better_since_11(problem, rows * taps * inner * outer))
    # With a stride a small image is little to do.
    enough = rows >= 2500 and not (LIBRARY_11 and inner <= 4)
    lone = lone and (set(problem.dilation) == {1} or enough)
    yield lone, rule(19, "slabs", what)
    many = rows >= 10000 and (rows >= 30000 or taps >= 25 or inner >= 12)
    yield few and many and spread, rule(19, "planes", what)
    what = "kernel gradient on an Intel processor, of few positions"
    short = LARGE <= rows <= 8 * least and least >= 128 and taps <= 9
    yield short and set(problem.dilation) == {1}, rule(19, "planes", what)


def _is_better_since_11(problem: Problem, work: int) -> bool:
    """Whether the library of JAX 0.11 is as good at a single image: with a stride, or unpadded."""
    inner = problem.batch
    if set(problem.dilation) != {1}:
        return inner >= 32
    bare, dilated = not exchanges_well(problem), set(problem.stride) != {1}
    return inner >= 96 or (bare and (inner > 24 or dilated or work < 4e7))


def small_gradients(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """What of kernel gradients C20 and C22 have left, which were made on other processors."""
    if not is_xeon() or not LIBRARY or problem.rank not in (1, 2):
        return
    if not problem.is_window or not problem.exchanged:
        return
    if any(a > 1 for a in problem.input_dilation) or problem.x_dtype != jnp.float32:
        return
    inner, outer, images = problem.batch, problem.out_channels, problem.channels
    rows, taps = math.prod(problem.kernel) * images, math.prod(problem.positions)
    if taps == 1 or min(inner, outer) < 3:
        return
    strided, bare = set(problem.dilation) != {1}, not exchanges_well(problem)
    columns, what = problem.positions[-1], "kernel gradient on an Intel processor"
    if problem.rank == 1:
        few = is_of_few_lines(problem) and not LIBRARY_11
        yield few, rule(19, "im2col", f"{what}, of a few lines")
        return
    # A row of one or two taps is no vector to XLA.
    narrow = strided and columns <= 2 and set(problem.stride) == {1}
    column = narrow and columns == 1 and outer > 20
    yield column, rule(19, "correlate", f"{what}, of a column with a stride")
    yield narrow, rule(19, "im2col", f"{what}, of few columns with a stride")
    wide = outer >= 24 and (
        (inner <= 8 and rows >= 1500) or (inner <= 16 and 4 * rows * outer >= 1_500_000)
    )
    yield wide, rule(19, "planes", f"{what}, of few channels to many")
    few = outer <= 20 and images <= 4
    several, long = few and strided and taps <= 49, few and strided and images <= 3 and taps <= 128
    yield (
        several or (long and inner >= 8),
        rule(19, "im2col", f"{what}, of few images with a stride"),
    )
    yield long, rule(19, "slabs", f"{what}, of few images with a stride")
    yield few and not strided and not bare, rule(19, "planes", f"{what}, of few images")


def spread_gradients(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Kernel gradients of transposed convolutions of one group in two axes, under every JAX."""
    if not is_xeon() or problem.rank != 2 or problem.x_dtype != jnp.float32:
        return
    if not problem.is_window or not problem.exchanged or min(problem.input_dilation) == 1:
        return
    if set(problem.stride) | set(problem.dilation) != {1}:
        return
    inner, outer, apart = problem.batch, problem.out_channels, min(problem.input_dilation)
    long, taps = max(problem.positions) >= 5, math.prod(problem.positions)
    what = "kernel gradient of a transposed convolution on an Intel processor"
    if apart >= 3:
        yield outer >= 16, rule(2, "correlate", what)
        yield 4 <= outer <= 8, rule(2, "phases", what)
    elif outer >= 96:
        yield inner <= 12 and taps <= 16, rule(2, "correlate", what)
        yield long, rule(2, "phases", what)
    else:
        slim = inner < 16 if outer >= 16 else outer >= 4 and long and inner <= 8
        yield slim or (outer >= 16 and long), rule(2, "phases", what)
    yield True, rule(2, "exchange", what)


def has_good_patches(problem: Problem) -> bool:
    """Whether large windows side by side in two axes are better as one product (C10)."""
    outer, rows = problem.out_channels, math.prod(problem.y_shape[:-1])
    if problem.x_dtype == jnp.bfloat16:
        return outer >= 96 and problem.batch > 1
    # From here on a window is more than its library keeps at a time.
    huge = problem.taps * problem.channels >= 2352
    if not LIBRARY:
        return False
    if LIBRARY_11:
        return huge and outer >= 192
    return outer >= 384 if huge else outer >= 192 and rows * outer >= 5e5


def strided(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Convolutions with a stride to many outputs, the library of which JAX 0.11 has not."""
    if not is_xeon() or not LIBRARY or LIBRARY_11 or problem.rank != 2:
        return
    if problem.is_window or problem.exchanged or any(a > 1 for a in problem.input_dilation):
        return
    inner, outer, taps = problem.channels, problem.out_channels, problem.taps
    many = min(problem.stride) > 1 and outer >= 40 and problem.x_dtype == jnp.float32
    work = math.prod(problem.y_shape) * taps * inner
    if not many or taps == 1 or work < SMALL:
        return
    what = "with a stride to many outputs on an Intel processor"
    # Of a row or two of taps, and of images that are not padded, which XLA writes patches of.
    yield problem.kernel[0] == 1 or set(problem.kernel) == {2}, rule(19, "planes", what)
    bare = set(problem.padding) == {(0, 0)} and work >= 2 * SMALL
    yield bare, rule(19, "slabs" if inner >= 40 else "planes", f"{what}, not padded")
