"""The rules for dense convolutions on a CPU that are better as matrix products: C13 to C16.

XLA hands them to a library, which is at its best with a multiple of 64 channels and thousands of
positions in single precision. It multiplies padding too, and half precision as single.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_model, cpu_vectors, multiplies_bfloat16
from jaxdil._problem import Problem

__all__ = [
    "EXCHANGED",
    "LIBRARY",
    "LIBRARY_11",
    "LIBRARY_12",
    "Rule",
    "exchanges_well",
    "is_lopsided",
    "is_of_few_lines",
    "is_upright",
    "mostly_padding",
    "products",
]

# Whether this is a JAX whose XLA has the library that these and C11 were measured with.
LIBRARY = jax.__version_info__ >= (0, 10)
# And whether that library is the one of JAX 0.11, better at 64 channels, at strides as large as the
# kernel and at groups of one tap; or of 0.12, better at a few channels of an odd number.
LIBRARY_11 = jax.__version_info__ >= (0, 11)
LIBRARY_12 = jax.__version_info__ >= (0, 12)

# Bytes of image and cotangent from which on to exchange them costs more than it brings: the copies
# that the library wants of them are new memory each time.
EXCHANGED = 16_000_000

# Bytes of patches, in single precision, from which on fewer than 21 channels in half precision gain
# on AMD's processors.
PATCHES = 17_000_000

Rule: TypeAlias = Callable[[int, str, str], Choice]


def mostly_padding(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Wide dilations that read more padding than image: C13."""
    inner, taps, spread = problem.channels, problem.taps, problem.dilation
    window = problem.is_window
    if window:
        inner, taps, spread = problem.batch, math.prod(problem.positions), problem.stride
    dilated = any(a > 1 for a in problem.input_dilation)
    if problem.rank > 2 or taps == 1 or dilated or max(spread, default=1) == 1:
        return
    half, waste = _is_fast_half(problem), problem.padded
    # The products of all taps of an image are kept.
    light = window or math.prod(problem.y_shape[1:]) * taps <= 1 << 24
    # Where a core is left idle (C18) fewer channels are enough.
    idle = LIBRARY and not LIBRARY_11 and waste >= 3.2 and not window
    some = 64 if half or idle else 192
    wide = min(inner, problem.out_channels) >= (32 if waste >= 5 else some)
    what = "most of it padding: products of the samples that a tap meets"
    yield (
        waste >= (1.6 if half else 2.2) and light and wide,
        rule(13, "correlate" if window else "im2col", what),
    )


def products(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Matrix products, where they are better than the convolution of the library that XLA calls."""
    window, outer = problem.is_window, problem.out_channels
    inner, rows, taps = problem.channels, math.prod(problem.y_shape[:-1]), problem.taps
    steps = problem.stride
    if window:
        # A kernel gradient: its batch is the channels, its taps the positions, and steps exchanged.
        inner, rows, taps = problem.batch, inner * taps, math.prod(problem.positions)
        steps = problem.dilation
    if problem.rank > 2 or taps == 1:
        return
    least, plain = min(inner, outer), set(steps) == {1}
    half = _is_fast_half(problem)
    if any(a > 1 for a in problem.input_dilation):
        yield half and least >= 64, rule(14, "phases", "bfloat16: matrix products")
        return
    waste = problem.padded
    what = "bfloat16: matrix products"
    if window:
        many = rows >= (6000 if least >= 64 else 3000)
        many = many and least >= 40 and not LIBRARY_11
        enough = least >= (80 if problem.rank > 1 else 96) or many
        lopsided = inner >= 1.5 * outer and plain
        lopsided = lopsided and exchanges_well(problem)
        yield half and enough and lopsided and LIBRARY, rule(14, "exchange", what)
    else:
        enough = least >= 64
    # The library of JAX 0.10 would leave a core idle (C18), so that fewer channels are enough.
    narrow = LIBRARY and not LIBRARY_11 and problem.rank == 2 and inner >= 24 and outer >= 32
    narrow = narrow and rows * taps * inner * outer >= (5e7 if window else 2.5e7)
    # Intel's products gain with fewer outputs too.
    some = not window and problem.rank == 2 and inner >= 48 and outer >= 12 and taps <= 49
    fewer = not window and problem.rank == 2 and inner >= 32 and 5 <= taps <= 49
    large = math.prod(problem.positions) >= 700
    some = some or (
        fewer and LIBRARY and (outer >= 32 or (outer >= 16 and large and not LIBRARY_11))
    )
    # AMD's with AVX-512 too, but for long rows; of fewer channels where there is more to do.
    intel = "Intel" in cpu_model()
    other = "AMD" in cpu_model() and cpu_vectors() == "AVX-512"
    other = other and LIBRARY and not LIBRARY_11
    other = other and (least >= 21 or 4 * rows * taps * inner >= PATCHES)
    other = other and problem.positions[-1] <= 88
    some = some and (intel or other) and rows * taps * inner * outer >= 5e6
    enough = enough or narrow or some
    yield half and enough and (LIBRARY or not window), rule(14, "im2col", what)
    few = rows <= (1.5 if window or plain else 0.5) * least
    # In 1-D the library is as good without AVX-512, and C20 has kernel gradients.
    lines = not window and cpu_vectors() != "AVX2"
    few = few and least >= (192 if window else 256) and (problem.rank > 1 or lines)
    few = few and (not window or rows <= 256 or max(inner, outer) < 512)
    # A strided convolution with a kernel that is turned round is of a transposed one.
    few = few and (plain or window or (problem.rank > 1 and not problem.turned))
    # Channels first its patches take longer to bring together.
    first = problem.rank > 1 and rows >= (190 if window else 49)
    few = few and (first or not problem.kernel_first)
    what = "few positions of many channels: matrix products"
    yield few and LIBRARY, rule(15, "im2col", what)
    if window and LIBRARY and problem.rank > 1 and not half:
        better = waste < 1.3 and _has_better_products(inner, outer, rows, taps, plain=plain)
        yield better, rule(16, "im2col", "kernel gradient by patches: matrix products")


def _is_fast_half(problem: Problem) -> bool:
    """Whether it is in half precision, on a processor that multiplies in it.

    XLA makes a convolution in bfloat16 one in float32, but not a matrix product. Without
    instructions for them such products are no faster, and their patches for nothing; nor are they
    on Intel's processors before JAX 0.10.
    """
    fast = LIBRARY or "Intel" not in cpu_model()
    return problem.x_dtype == jnp.bfloat16 and multiplies_bfloat16() and fast


def exchanges_well(problem: Problem) -> bool:
    """Whether the library serves a kernel gradient with image and kernel exchanged.

    It has none for a kernel larger than its image, as they are where nothing was padded: loops
    that take many times as long.
    """
    spread = zip(problem.size, problem.input_dilation, problem.kernel, strict=True)
    return all(k >= a * (n - 1) + 1 for n, a, k in spread)


def is_of_few_lines(problem: Problem) -> bool:
    """Whether a kernel gradient along one axis is of one or two lines, with a stride or short."""
    images = problem.channels
    rows, strided = math.prod(problem.kernel) * images, set(problem.dilation) != {1}
    short = exchanges_well(problem) and rows <= (2048 if images == 1 else 600)
    return problem.rank == 1 and images <= 2 and (strided or short)


def is_lopsided(problem: Problem) -> bool:
    """Whether the library that XLA calls has better kernels for x as the cotangent than for x.

    Outputs are its lanes, which fewer than 32 leave empty; input channels are the batch here, and
    the images the channels.
    """
    inner, outer = problem.batch, problem.out_channels
    few = outer < 32 <= inner and (outer != 16 or problem.channels < 8)
    # Up to eight outputs leave nearly all of them empty.
    lone = problem.channels == outer == 1
    few = few or (inner >= (16 if lone else 8) and 2 * outer <= inner and outer <= 8)
    uneven = 32 < outer < 64 and inner % 64 == 0 and problem.bytes < EXCHANGED
    plain = set(problem.dilation) == {1} and exchanges_well(problem)
    return problem.rank <= 2 and plain and (few or uneven) and not is_upright(problem)


def is_upright(problem: Problem) -> bool:
    """Whether a kernel gradient is of one column to few outputs, which XLA does well with AVX2."""
    upright = problem.rank == 2 and problem.positions[-1] == 1 < problem.positions[0]
    return upright and problem.out_channels <= 16 and cpu_vectors() == "AVX2"


def _has_better_products(inner: int, outer: int, rows: int, taps: int, *, plain: bool) -> bool:
    """Whether a kernel gradient of so many terms is better as products of patches.

    The library is at its best with a multiple of 64 channels and thousands of terms.
    """
    least = min(inner, outer)
    if taps > 9 or inner > 2 * outer:
        return False
    if not plain:
        return rows >= (400 if least >= 160 else 3000) and least >= 64
    # What the library does well needs more of them.
    if least < 80:
        return least >= 48 and rows >= 24000 and not LIBRARY_11
    return rows >= (24000 if least % 128 == 0 else 6000)
