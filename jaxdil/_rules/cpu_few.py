"""A rule for few outputs, or few channels, of images, which XLA's library is slow at: C22.

Outputs are its lanes, and the channels that it sums over its terms, which of a kernel gradient are
the images. Where both are few most of its work is on nothing, forward and by the kernel. Matrix
products of patches have the taps among their terms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_vectors, multiplies_bfloat16
from jaxdil._problem import Problem
from jaxdil._rules.cpu_intel import is_xeon
from jaxdil._rules.cpu_library import GRADIENT
from jaxdil._rules.cpu_products import LIBRARY, LIBRARY_11, Rule, exchanges_well

__all__ = ["few_outputs"]

# Taps of the largest kernel that was measured.
TAPS = 49
# Bytes of the images from which on many of them are slow: new memory each time.
MANY, NEW = 1_500_000, 4_400_000


def few_outputs(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Convolutions of one group in two axes, in single precision or bfloat16, with AVX-512."""
    # It was measured nowhere else.
    if cpu_vectors() != "AVX-512":
        return
    if problem.rank != 2 or problem.is_window != problem.exchanged:
        return
    known = problem.x_dtype in (jnp.float32, jnp.bfloat16)
    if any(a > 1 for a in problem.input_dilation) or not known:
        return
    if problem.is_window:
        yield from _gradients(problem, rule)
    else:
        yield from _forward(problem, rule)


def _forward(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    inner, outer, what = problem.channels, problem.out_channels, "few channels to few outputs"
    full, terms = problem.x_dtype == jnp.float32, problem.taps * inner
    plain = (full or multiplies_bfloat16()) and set(problem.stride) == {1}
    plain = plain and 1 < problem.taps <= TAPS and inner >= 3
    # To one or two it was measured on Intel's, where it holds of few terms.
    plain = plain and (outer >= 3 or (is_xeon() and terms <= 150))
    if is_xeon():
        # Of a row of taps XLA has a better loop there, and many terms fill its vectors.
        plain = plain and problem.kernel[0] > 1 and (inner < 8 or problem.taps <= 16)
    if not plain or min(problem.positions) < 16 or not 10 <= terms <= 400:
        return
    bare = set(problem.padding) == {(0, 0)}
    few = inner <= (16 if LIBRARY else 12) and outer <= (7 if bare else 8 if LIBRARY else 12)
    # Of three channels a row of taps is enough terms, and fewer than all of these.
    yield few and inner == 3 and problem.taps >= 25 and full, rule(22, "planes", what)
    yield few, rule(22, "im2col", what)
    some = LIBRARY and inner <= 8 < outer <= 12 and not bare and full
    yield some, rule(22, "planes", what)


def _gradients(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    # As a layer has them: its channels, its outputs, its images, its positions.
    inner, outer, images = problem.batch, problem.out_channels, problem.channels
    rows, taps = math.prod(problem.kernel) * images, math.prod(problem.positions)
    if not 1 < taps <= TAPS or min(inner, outer) < 3:
        return
    full = problem.x_dtype == jnp.float32
    strided, bare = set(problem.dilation) != {1}, not exchanges_well(problem)
    what = "kernel gradient to few outputs"
    if outer <= 20 and images <= 3:
        yield strided, rule(22, "im2col", f"{what}, with a stride")
        small = not strided and not bare and rows * taps * inner * outer < GRADIENT
        # Of columns XLA has a better loop.
        small = small and problem.positions[-1] > 1
        yield small and 2 * inner > outer, rule(22, "im2col", what)
        # Patches of so few channels are narrow.
        yield small and full and problem.kernel[-1] >= 40, rule(22, "planes", what)
    if LIBRARY_11:
        return
    size = 4 * math.prod(problem.x_shape)
    if outer <= 20 and strided:
        enough = inner >= 32 and size >= MANY and (rows >= 1500 or images <= 4)
        yield enough, rule(22, "im2col", f"{what}, with a stride")
    elif outer <= 20 and not bare:
        square = min(problem.positions) > 1 and not problem.kernel_first
        square = square and rows * taps * inner * outer < GRADIENT
        yield square and images == 4 and inner >= 6, rule(22, "im2col", what)
    if not LIBRARY:
        return
    if bare and not strided and images > 3 and outer <= 20:
        few = inner >= 32 and outer <= 8 and not problem.kernel_first
        large = size >= NEW and inner >= 16 <= images and set(problem.stride) == {1}
        yield few or large, rule(22, "im2col", f"{what}, not padded")
    if not full:
        return
    what = "kernel gradient of few channels"
    column = problem.positions[-1] == 1 and 8 <= inner <= 64 and outer > 24 and rows >= 600
    yield column, rule(22, "correlate", f"{what}, of a column")
    some = 20 < outer <= 32 and inner >= 24 and images <= 3
    some = some and rows * taps * inner * outer >= 5e6
    yield some and strided, rule(22, "im2col", "kernel gradient to few outputs, with a stride")
    wide = outer > 32 and inner >= 4 and not strided and problem.positions[-1] > 1
    near = rows >= 4000 and taps >= 9 and set(problem.stride) == {1}
    yield wide and inner <= 6 and not bare and near, rule(22, "slabs", what)
    large = inner <= 16 and rows >= 1500 and size >= 1_000_000
    yield wide and large and bare, rule(22, "planes", f"{what}, not padded")
