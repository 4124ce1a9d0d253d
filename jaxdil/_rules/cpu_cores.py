"""A rule for JAX 0.10, one of whose libraries leaves cores idle where outputs are few: C18.

It gives a thread a block of outputs and of columns of the image, and never of rows or of images.
So 64 channels of 56 columns are computed by one core, however many there are and however large
the batch. Where a large image is not padded it is slow besides, whatever the cores, and writes
patches of it out. JAX 0.8 and 0.11 have others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cores, cpu_model, cpu_vectors, multiplies_bfloat16
from jaxdil._methods import margin
from jaxdil._problem import Problem
from jaxdil._rules.cpu_channels import is_uneven
from jaxdil._rules.cpu_intel import is_xeon
from jaxdil._rules.cpu_products import (
    EXCHANGED,
    LIBRARY,
    LIBRARY_11,
    Rule,
    exchanges_well,
)

__all__ = ["idle_cores"]

# The share of two cores up to which it pays, and multiply-adds from which on.
SHARE, WORK = 0.86, 2.5e7
# Multiply-adds from which on it does on Intel's processors to 25 to 32 outputs, and of numbers of
# channels that are not round.
FULL, UNEVEN = 6e7, 5e7
# Columns of outputs from which on it is slow where the image is not padded, and bytes of patches,
# which it writes out there: from these on they are new memory each time.
WIDE, PATCHES = 56, 32 << 20
# The unit of those with AVX-512, where they need only be more than a cache keeps, and outputs that
# are few.
MANY, FEW = 1 << 20, 8
# Rows of the output up to which sums of slabs pay there with a stride, on AMD's.
ROWS = 1500


def idle_cores(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Convolutions in two axes that would leave a core idle, forward and by the kernel."""
    what = "few outputs: a core would be idle"
    if not LIBRARY or LIBRARY_11 or problem.rank != 2:
        return
    if any(a > 1 for a in problem.input_dilation):
        return
    unpadded, full = "a large image that is not padded", problem.x_dtype == jnp.float32
    intel = "Intel" in cpu_model()
    known = full or (problem.x_dtype == jnp.bfloat16 and multiplies_bfloat16())
    if is_xeon() and known:
        yield from _not_padded(problem, rule, unpadded)
    else:
        if cpu_vectors() == "AVX-512" and known:
            yield from _not_padded_on_amd(problem, rule, unpadded)
        # To few outputs the other is not fast either.
        few = problem.out_channels <= FEW and set(problem.stride) == {1} and full
        few = few and _is_patched(problem, least=17)
        yield few, rule(18, "im2col", f"{unpadded}, to few outputs")
        patched = _is_patched(problem, least=24)
        yield patched and margin.supports(problem, "cpu") is None, rule(18, "margin", unpadded)
        yield patched and full, rule(18, "slabs", unpadded)
    if not full or cores() < 2:
        return
    work = math.prod(problem.y_shape) * problem.taps * problem.channels
    if problem.is_window != problem.exchanged or work < WORK:
        return
    if problem.is_window:
        # A kernel gradient: its batch is the channels, its taps are the positions.
        inner, outer, columns = problem.batch, problem.out_channels, problem.positions[-1]
        if math.prod(problem.positions) == 1 or set(problem.dilation) != {1}:
            return
        share, other = _share(outer, columns), _share(inner, columns)
        better = other >= share + 0.2 and outer >= 24 and exchanges_well(problem)
        yield better and problem.bytes < EXCHANGED, rule(18, "exchange", what)
        # Slabs of an image that is mostly padding are mostly padding.
        several = min(inner, outer) >= 32 and problem.padded <= 1.5
        # Of more terms patches are better (C16).
        several = several and problem.channels * problem.taps < 24000
        yield share <= SHARE and several, rule(18, "slabs", what)
        return
    inner, outer = problem.channels, problem.out_channels
    rows, columns = math.prod(problem.y_shape[:-1]), problem.positions[-1]
    if problem.taps == 1 or outer < 16 or inner < 8:
        return
    enough = inner * outer >= 1024 and inner >= (24 if rows < 20000 else 16)
    uneven = is_uneven(problem)
    enough = enough or (uneven and work >= UNEVEN and inner >= 13 and outer > 32)
    terms = problem.taps * inner
    block = 64 if terms > 576 or terms * columns > 18432 else 128 if terms > 288 else 256
    share = _share(outer, columns, block)
    if margin.supports(problem, "cpu") is None:
        more = math.prod(margin.with_margin(problem).positions) / math.prod(problem.positions)
        # A row more of mostly padding is a row more of products.
        idle = enough and share * more <= SHARE and problem.padded < 3.2
        # Fewer than 32 outputs one core computes as fast, without AVX-512 fewer than 40.
        least = 40 if cpu_vectors() == "AVX2" else 25 if is_xeon() else 33 if intel else 32
        idle = idle and outer >= least
        # To 32 of little work the margin costs as much.
        idle = idle and (outer > 32 or not is_xeon() or (work >= FULL and problem.padded < 1.5))
        # A block and a half of many channels it divides.
        idle = idle and not (is_xeon() and inner >= 96 and 96 < outer < 128)
        # With channels more (C11) one core is faster than two of little work.
        idle = idle and (work >= UNEVEN or not uneven)
        yield idle, rule(18, "margin", what)
        cropped = problem.size[-1] > columns >= WIDE and more <= 1.1
        cropped = cropped and inner * outer >= 256 and max(inner, outer) > 16
        yield cropped, rule(18, "margin", unpadded)
        return
    # On Intel's processors what is cut out of the image for it costs more than the idle core.
    if 1 in problem.stride or intel:
        return
    # Windows side by side are no rows of a convolution along one axis.
    beside = any(s >= k > 1 for s, k in zip(problem.stride, problem.kernel, strict=True))
    # The smaller of the two is kept once a row of the kernel.
    less, more = sorted((inner, outer))
    light = problem.kernel[0] * less <= 2 * (less + more)
    method = "planes" if inner <= outer else "slabs"
    several = enough and outer >= 24 and light and not beside
    if cpu_vectors() == "AVX2":
        several = several and inner >= 48
    else:
        # With AVX-512 fewer outputs one core computes as fast, and of a gradient by the input; and
        # slabs, which are summed, are too much of large images.
        small = outer >= 48 and rows <= ROWS
        several = several and outer >= 37 and not problem.turned
        several = several and (small or method == "planes")
    yield several and share <= SHARE, rule(18, method, what)


def _not_padded(problem: Problem, rule: Rule, what: str) -> Iterator[tuple[bool, Choice]]:
    """Images without padding on Intel's processors with AVX-512, which may multiply bfloat16."""
    inner, outer, taps = problem.channels, problem.out_channels, problem.taps
    size, dilated = _patches(problem), set(problem.dilation) != {1}
    if set(problem.padding) != {(0, 0)} or taps == 1 or inner < 17 or problem.is_window:
        return
    if problem.x_dtype == jnp.bfloat16:
        yield size >= 2 * MANY, rule(18, "im2col", f"{what}, bfloat16")
        return
    if 1 not in problem.stride:
        # Few outputs of few taps are little to do.
        some = size >= 4 * MANY and outer >= 12
        some = some or (size >= 6 * MANY and taps >= 25) or size >= PATCHES
        method = "planes" if outer <= FEW and taps <= 9 else "slabs"
        yield some, rule(18, method, f"{what}, with a stride")
    if set(problem.stride) != {1}:
        yield 1 in problem.stride and size >= PATCHES and not dilated, rule(18, "margin", what)
        return
    # Beyond the second cache it is slow.
    large, few = size >= 4 * MANY, f"{what}, to few outputs"
    if outer <= FEW and inner < 64:
        # Of more terms the patches are wider than they are long; of a row of taps XLA makes them
        # no worse.
        patched = size >= 2 * MANY and taps * inner <= 1600
        yield patched and problem.kernel[0] > 1, rule(18, "im2col", few)
        yield large and problem.kernel[0] == 1, rule(18, "slabs", few)
    elif outer <= FEW:
        yield large, rule(18, "slabs", few)
    # Of small images the margin is a large part.
    more = math.prod(margin.with_margin(problem).positions) / math.prod(problem.positions)
    # An odd number of channels it is slow at besides.
    odd = inner % 2 == 1 and size >= MANY // 2 and is_uneven(problem)
    yield odd and FEW < outer <= 48 and more <= 1.25, rule(18, "margin", f"{what}, odd channels")
    most = 2 if size >= 8 * MANY else 1.45 if dilated or outer <= FEW else 1.25
    yield large and more <= most, rule(18, "margin", what)


def _not_padded_on_amd(problem: Problem, rule: Rule, what: str) -> Iterator[tuple[bool, Choice]]:
    """The same on AMD's, which are as slow at those beyond a cache, but for few channels."""
    inner, outer, taps = problem.channels, problem.out_channels, problem.taps
    size, dilated = _patches(problem), set(problem.dilation) != {1}
    if set(problem.padding) != {(0, 0)} or taps == 1 or inner < 16 or problem.is_window:
        return
    if problem.x_dtype == jnp.bfloat16:
        some = size >= (2 if outer > FEW else 8) * MANY and inner >= 17
        yield some, rule(18, "im2col", f"{what}, bfloat16")
        return
    if set(problem.stride) != {1}:
        # Windows that tile the image are read once, and no more than that.
        over = all(k > s for k, s in zip(problem.kernel, problem.stride, strict=True))
        some = over and outer >= 25 and size >= 2 * MANY
        method = "planes" if 3 * inner <= 2 * outer else "slabs"
        yield some, rule(18, method, f"{what}, with a stride")
    if inner < 17 or set(problem.stride) != {1}:
        return
    if outer <= FEW:
        some = size >= (16 if dilated else 8) * MANY and inner < 64
        yield some, rule(18, "im2col", f"{what}, to few outputs")
        return
    more = math.prod(margin.with_margin(problem).positions) / math.prod(problem.positions)
    most = 2 if size >= 8 * MANY else 1.25
    yield size >= 4 * MANY and more <= most, rule(18, "margin", what)


def _patches(problem: Problem) -> int:
    """Bytes of what all taps read, in single precision."""
    return 4 * math.prod(problem.y_shape[:-1]) * problem.taps * problem.channels


def _is_patched(problem: Problem, *, least: int) -> bool:
    """Whether XLA writes out patches, as it does without padding, and of so large an image."""
    dilated = set(problem.dilation) != {1}
    if is_xeon() and set(problem.stride) == {1}:
        # Of half precision; beyond its second cache they are slow there, and with a dilation later.
        large = _patches(problem) >= (12 if dilated else 4) * MANY
    else:
        large = _patches(problem) >= PATCHES and not dilated
    bare = set(problem.padding) == {(0, 0)} and not problem.is_window
    return bare and large and problem.taps > 1 and problem.channels >= least


def _share(outer: int, columns: int, block: int = 64) -> float:
    """What the library occupies of two cores, of 1, if a thread has so many outputs at a time."""
    pieces = [o * c for o in _cut(outer, block) for c in _cut(max(columns, 64), 64)]
    busy = [0, 0]
    for piece in sorted(pieces, reverse=True):
        busy[busy.index(min(busy))] += piece
    return sum(busy) / (2 * max(busy))


def _cut(size: int, block: int) -> list[int]:
    """Into blocks, the last of which may be smaller."""
    return [min(block, size - at) for at in range(0, size, block)]
