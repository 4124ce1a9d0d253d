"""The rules for a CPU in their order, each with what it was measured on: C1 to C24.

XLA hands a convolution to a fast kernel there if it has at most two spatial axes, one group and
a window smaller than its output. The rest, and what is one matrix product, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_vectors, multiplies_bfloat16
from jaxdil._methods import trim
from jaxdil._problem import Problem
from jaxdil._rules import cpu_amd
from jaxdil._rules.cpu_channels import uneven_channels
from jaxdil._rules.cpu_cores import idle_cores
from jaxdil._rules.cpu_few import few_outputs
from jaxdil._rules.cpu_groups import group_gradients, groups
from jaxdil._rules.cpu_intel import (
    has_good_patches,
    is_xeon,
    kernel_gradients,
    small_gradients,
    spread_gradients,
    strided,
)
from jaxdil._rules.cpu_library import slow_library
from jaxdil._rules.cpu_pooled import one_with_pooling
from jaxdil._rules.cpu_products import (
    EXCHANGED,
    LIBRARY,
    LIBRARY_11,
    Rule,
    exchanges_well,
    is_lopsided,
    mostly_padding,
    products,
)
from jaxdil._rules.cpu_taps import by_taps
from jaxdil._rules.cpu_volumes import volumes

__all__ = ["rules"]

# The part of all pairs of a tap and an output that is left without those beyond the image: from
# here down it is worth cutting the kernel.
MOST_LEFT = 0.9


def rules(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """What each rule asks, and what it chooses, in their order."""
    inner, outer = problem.channels, problem.out_channels
    dense = problem.groups == 1
    dilated = any(a > 1 for a in problem.input_dilation)
    window = problem.is_window
    volume = problem.rank > 2
    # Doubles, integers and complex numbers take other paths of XLA, which some rules do not beat.
    single = jnp.issubdtype(problem.x_dtype, jnp.floating) and problem.x_dtype.itemsize <= 4

    def rule(number: int, method: str, what: str) -> Choice:
        return Choice(method, f"rule C{number}: {what}")

    few = trim.left(problem) <= MOST_LEFT
    yield few, rule(21, "trim", "taps or outputs that meet padding alone")
    what = "XLA has no code for its product transposed"
    yield dense and _is_one_row(problem), rule(14, "xla", f"bfloat16, a single row: {what}")
    yield dense and _is_turned_half(problem), rule(14, "xla", f"bfloat16, a turned kernel: {what}")
    if problem.batch_groups > 1:
        yield from group_gradients(problem, rule, single=single)
    if dense:
        yield from spread_gradients(problem, rule)
    wide = dense and (volume or min(problem.batch, outer) >= 16)
    spread = list(zip(problem.positions, problem.input_dilation, strict=True))
    even = all(k % a == 0 for k, a in spread)
    tiles = all(k == a for k, a in spread) or math.prod(problem.input_dilation) >= 64
    what = "kernel gradient of a transposed convolution"
    # Products to each phase of a volume, of a few channels each.
    slight = window and dilated and dense and volume and single and problem.batch < 8
    yield slight and even and tiles, rule(2, "correlate", what)
    yield (
        window and dilated and wide and even and (problem.rank == 1 or tiles),
        rule(2, "phases", what),
    )
    few = window and dilated and dense and single and problem.batch <= 16
    same = all(k == a for k, a in spread)
    yield few and outer >= 16, rule(2, "correlate" if same else "phases", what)
    if few and outer < 16 and inner == 1 < problem.batch:
        # Of a single image too little for the exchange.
        yield same or all(k < a for k, a in spread), rule(2, "phases", what)
        yield problem.batch * outer >= 48, rule(2, "correlate", what)
        yield True, rule(2, "xla", what)
    # From one channel to few: little to do, and XLA's loop is short.
    lone = window and dilated and dense and single and problem.batch == 1
    yield lone and outer >= 4 and inner <= 8, rule(2, "phases", what)
    yield lone and outer < 4, rule(2, "xla", what)
    several = window and dilated and dense and inner >= 8 and even and cpu_vectors() == "AVX2"
    yield several and single and problem.rank == 2, rule(2, "phases", what)
    yield window and dilated and single, rule(2, "exchange", what)
    yield window and dilated, rule(2, "correlate", what)
    if dense and single:
        yield from _alone(problem, rule)
        # A padding that makes the output larger than the image, as transposed convolutions have it.
        beyond = problem.exchanged and not volume and not dilated and _is_beyond(problem)
        what = "kernel gradient, the cotangent larger than the image"
        light = problem.bytes < EXCHANGED
        yield beyond and light and exchanges_well(problem), rule(12, "exchange", what)
        yield beyond, rule(12, "im2col", what)
        if problem.is_small:
            yield from _small(problem, rule)
        yield from _short(problem, rule)
        yield from kernel_gradients(problem, rule)
        yield from mostly_padding(problem, rule)
        if cpu_vectors() == "AVX2":
            yield from slow_library(problem, rule)
        yield from one_with_pooling(problem, rule)
        yield from idle_cores(problem, rule)
    if window and dense and single and math.prod(problem.positions) > 1:
        yield is_lopsided(problem), rule(12, "exchange", "kernel gradient to few channels")
        yield from products(problem, rule)
    product = window and dense and math.prod(problem.positions) == 1
    product = product and single
    # Of fewer outputs than channels the outputs are better the rows; along one axis XLA has a
    # product, which to a few outputs is slow.
    fewer = problem.batch > outer if problem.rank > 1 else outer <= 16 and problem.batch >= 64
    fewer = product and fewer and problem.exchanged and set(problem.dilation) == {1}
    yield fewer, rule(12, "exchange", "kernel gradient of a 1x1 kernel to fewer channels")
    product = product and problem.rank > 1
    # Few outputs of many terms lie badly for it.
    few = outer <= 32 and problem.batch >= 256
    yield product and few, rule(3, "im2col", "kernel gradient of a 1x1 kernel to few channels")
    yield product, rule(3, "correlate", "kernel gradient of a 1x1 kernel: one matrix product")
    if not dense:
        yield from groups(problem, rule, single=single)
        return
    if single:
        yield from _patches(problem, rule)
    yield from by_taps(problem, rule, single=single)
    if single:
        yield from uneven_channels(problem, rule)
    close = all(k <= 2 * a for k, a in zip(problem.kernel, problem.input_dilation, strict=True))
    far = math.prod(problem.input_dilation) >= 64 and close
    yield dilated and far, rule(8, "phases", "samples far apart, few of them to an output")
    # Of shorter kernels XLA's own is as good at leaving the zeros out.
    spread = list(zip(problem.kernel, problem.input_dilation, strict=True))
    even = all(k % a == 0 and k >= 3 * a for k, a in spread)
    long = problem.taps >= (16 if inner <= 4 and outer >= 16 else 100)
    # From few to few it takes more of all, or that every window that meets a sample is an output.
    long = long and (outer >= 16 or inner >= 8)
    much = problem.taps >= 81 and inner * outer >= 8
    much = much and problem.batch * math.prod(problem.size) >= 4000
    few = max(inner, outer) < 16
    long = long or (few and (much or (problem.taps >= 49 and _is_full(problem))))
    # Without AVX-512 some of these do not pay (C20).
    long = even or (long and cpu_vectors() != "AVX2")
    long = long and problem.rank == 2 and min(problem.input_dilation) > 1 and not window
    yield long and single, rule(8, "phases", "a long kernel, input dilated")
    if single and not window:
        yield from products(problem, rule)
    if single:
        yield from few_outputs(problem, rule)
    # With AVX-512 whatever was measured for it has gone first.
    if single and cpu_vectors() != "AVX2":
        yield from slow_library(problem, rule)
    if single:
        yield from small_gradients(problem, rule)
        yield from cpu_amd.kernel_gradients(problem, rule)
        yield from cpu_amd.few_channels(problem, rule)
        yield from strided(problem, rule)
    if volume:
        yield from volumes(problem, rule, single=single)


def _is_one_row(problem: Problem) -> bool:
    """Whether the output is a single row in bfloat16, which lax serves.

    XLA makes one of a product and of the transpose that brings channels to the front of it, in the
    layer or anywhere behind it, and has no code for that in bfloat16: an error when it runs.
    """
    row = problem.batch == 1 and sum(n > 1 for n in problem.positions) == 1
    return row and problem.x_dtype == jnp.bfloat16 and not problem.exchanged


def _is_turned_half(problem: Problem) -> bool:
    """Whether a product in bfloat16 would be with a kernel turned round: so before JAX 0.10 too."""
    sides = zip(problem.size, problem.kernel, problem.input_dilation, strict=True)
    product = all(n == 1 or k <= a for n, k, a in sides)
    return product and problem.turned and problem.x_dtype == jnp.bfloat16 and not LIBRARY


def _small(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Kernels of more taps than the image has samples: XLA exchanges the two, at a loss."""
    what = "more taps than samples"
    least = min(problem.channels, problem.out_channels)
    work = math.prod(problem.y_shape) * problem.taps * problem.channels
    much = least >= 16 and work >= (1e5 if least >= 32 else 6e5)
    dilated = any(a > 1 for a in problem.input_dilation)
    yield much and dilated, rule(17, "phases", what)
    several = math.prod(problem.positions) > 1
    yield much and several, rule(17, "im2col", f"{what}: one matrix product")


def _short(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """The same of any size in one and two axes."""
    size, what = math.prod(problem.size), "more taps than samples"
    if problem.rank not in (1, 2):
        return
    if any(a > 1 for a in problem.input_dilation):
        least = min(problem.channels, problem.out_channels)
        apart = problem.taps > size >= 64 and not problem.exchanged
        yield apart and least >= 16, rule(17, "phases", what)
        return
    if problem.rank == 1:
        least = min(problem.channels, problem.out_channels)
        line = problem.taps > size >= 64 and problem.positions[0] > 1
        yield line and least >= 16, rule(17, "im2col", f"{what}: matrix products")
        return
    if problem.exchanged:
        # A kernel gradient, the taps of which are its positions, and its channels the batch.
        beyond = not problem.is_window and math.prod(problem.positions) > size
        beyond = beyond and set(problem.dilation) == {1}
        least = min(problem.batch, problem.out_channels)
        # Of many images the library has enough to sum over.
        few = problem.channels <= 8
        yield beyond and few and least >= 8, rule(17, "planes", f"kernel gradient, {what}")
        return
    least = min(problem.channels, problem.out_channels)
    beyond = problem.taps > size and math.prod(problem.positions) > 1
    # Every sample meets every tap of a full convolution, and few of another.
    full = math.prod(problem.positions) > size and least >= 16
    yield beyond and full, rule(17, "slabs", what)
    beyond = beyond and least >= 8 and not problem.is_small
    # One after another the planes of the longest kernels take long to compile.
    long = problem.kernel[0] > 17
    yield beyond, rule(17, "im2col" if long else "planes", what)


def _alone(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """One window as large as the image, or an image of one sample: a layer of all with all."""
    ones = (1,) * problem.rank
    if problem.taps == 1 or problem.dilation != ones:
        return
    bare = set(problem.padding) == {(0, 0)} and problem.input_dilation == ones
    bare = bare and set(problem.positions) == {1}
    # A kernel gradient of 1x1 is another matter.
    bare = bare and not problem.exchanged
    work = problem.batch * problem.taps * problem.channels * problem.out_channels
    better = work >= 5e4 and (problem.batch > 1 or problem.kernel_first)
    yield bare and better, rule(10, "patches", "one window: one matrix product")
    yield bare, rule(10, "xla", "one window, of one image or of few products")
    lone = set(problem.size) == {1} and problem.stride == ones and work >= 5e4
    yield lone, rule(10, "patches", "one sample: one matrix product")


def _patches(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Windows side by side, of the image, of its gradient, of that of the kernel."""
    ones, whole = (1,) * problem.rank, set(problem.padding) <= {(0, 0)}
    steps = problem.stride, problem.dilation, problem.input_dilation
    covered = zip(problem.positions, problem.kernel, problem.size, strict=True)
    whole = whole and all(p * k == n for p, k, n in covered)
    what = "windows that tile the image: one matrix product"
    apart = whole and steps == (problem.kernel, ones, ones) and problem.taps > 1
    yield apart and _has_good_patches(problem), rule(10, "patches", what)
    joined = problem.taps > 1 and steps == (ones, ones, problem.kernel)
    # In half precision XLA's products of many outputs are slow where no instruction is for them.
    half = problem.x_dtype == jnp.bfloat16 and not multiplies_bfloat16()
    joined = joined and not (half and problem.out_channels >= 96)
    yield joined, rule(10, "patches", "windows that tile the output: one matrix product")
    what, several = "kernel gradient of patches: one matrix product", problem.channels > 1
    taps, inner, outer = math.prod(problem.positions), problem.batch, problem.out_channels
    gradient = whole and steps == (ones, problem.positions, ones) and taps > 1 < problem.rank
    # Patches much longer than the outputs are many are better copied than split into axes.
    copied = problem.rank == 2 and inner >= 12 and outer <= min(96, taps * inner // 2)
    copied = copied and taps <= 16
    # Channels first they are copied at a higher price.
    work = math.prod(problem.x_shape) * outer
    much = not problem.kernel_first or (several and work >= 5e7)
    yield gradient and copied and much, rule(10, "im2col", what)
    enough = (taps <= 16 and not copied) or (outer >= 128 and (taps <= 64 or several))
    yield gradient and enough, rule(10, "space_to_batch", what)


def _has_good_patches(problem: Problem) -> bool:
    """Whether windows side by side are better as one product than for XLA's library.

    The product wants many outputs, and a kernel that need not be turned round for a few windows.
    """
    if problem.rank > 2:
        return True
    forward = not problem.kernel_first and not problem.turned
    if is_xeon() and problem.rank == 2 and problem.taps > 16 and forward:
        return has_good_patches(problem)
    if LIBRARY_11 and problem.x_dtype != jnp.bfloat16:
        return False
    weights = problem.taps * problem.channels * problem.out_channels
    if problem.kernel_first and problem.stride == problem.kernel:
        # Channels first a patch is in pieces, which are copied first.
        work = math.prod(problem.y_shape[:-1]) * weights
        if problem.taps > 64 or (problem.channels >= 12 and work < 5e7):
            return False
    if problem.rank == 1:
        wide = max(problem.channels, problem.out_channels) > 256
        few = weights <= 1 << 16 if problem.turned else not wide
        return few and problem.taps >= 4
    if problem.taps < 16:
        many = problem.out_channels >= 64 and math.prod(problem.x_shape) >= 1 << 22
        return many or min(problem.channels, problem.out_channels) >= 512
    # Large patches of a single image lax does as well.
    large = problem.taps > 16 and problem.batch == 1
    rows = math.prod(problem.y_shape[:-1])
    return not large and problem.out_channels >= 96 and (rows >= 1024 or not problem.turned)


def _is_full(problem: Problem) -> bool:
    """Whether the padding is a kernel but for a tap, as transposed convolutions uncropped have."""
    spread = zip(problem.padding, problem.dilation, problem.kernel, strict=True)
    return all(min(pair) >= d * (k - 1) for pair, d, k in spread)


def _is_beyond(problem: Problem) -> bool:
    """Whether the kernel is larger than the image on some axis: XLA calls no library."""
    spread = zip(problem.size, problem.kernel, problem.dilation, strict=True)
    return any(d * (k - 1) + 1 > n for n, k, d in spread)
