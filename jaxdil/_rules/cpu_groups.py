"""The rules for groups on a CPU: C1, C4 and C5.

The fast kernels that XLA calls serve one group, in 1-D several; the rest are loops of its own, by
the kernel a thousand times slower than what the products take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_vectors, multiplies_bfloat16
from jaxdil._problem import Problem
from jaxdil._rules.cpu_amd import is_amd
from jaxdil._rules.cpu_intel import is_xeon
from jaxdil._rules.cpu_products import LIBRARY, LIBRARY_11, Rule

__all__ = ["group_gradients", "groups"]

# Products kept side by side, beyond which the memory for them costs more than they.
PRODUCTS = 4 << 20


def group_gradients(problem: Problem, rule: Rule, *, single: bool) -> Iterator[tuple[bool, Choice]]:
    """Kernel gradients of groups, whose batch is split into them."""
    outer, dilated = problem.out_channels, any(a > 1 for a in problem.input_dilation)
    what = "kernel gradient of groups"
    if is_xeon() and problem.rank == 2 and not dilated and problem.x_dtype == jnp.float32:
        yield from _gradients_on_intel(problem, rule)
    if problem.rank == 1 and not dilated and problem.x_dtype == jnp.float32:
        yield from _lines(problem, rule)
    # With a stride XLA's library reads the image in steps, once for each output.
    strided = set(problem.dilation) != {1} and 1 < math.prod(problem.positions) <= 25
    strided = strided and single and problem.rank == 2 and not dilated
    strided = strided and problem.batch >= 24 * problem.batch_groups
    yield strided, rule(1, "im2col", f"{what} with a stride, a batched product of patches")
    wide = _is_wide(problem) and single
    # One by one each would be of too little work without AVX-512.
    small = cpu_vectors() == "AVX2" and problem.rank == 2 and not dilated
    small = small and problem.channels * problem.taps <= 64 and math.prod(problem.positions) <= 9
    yield wide and small, rule(1, "im2col", f"{what}, a batched product of patches")
    yield wide, rule(1, "split", f"{what}, one by one")
    # Of one tap the products of narrow groups are few, and lie apart.
    lone = single and math.prod(problem.positions) == 1
    narrow = problem.batch_groups <= 4 and problem.batch <= 20 * problem.batch_groups
    together = is_xeon() and (narrow or problem.batch_groups == 2)
    together = together or (is_amd() and narrow and outer <= 2 * problem.batch)
    together = together and (is_xeon() or set(problem.dilation) == {1})
    together = together and LIBRARY and not LIBRARY_11 and problem.rank == 2 and lone
    together = together and not problem.kernel_first
    yield together, rule(1, "expand", f"{what}, as one")
    lone = lone and problem.batch <= 8 * problem.batch_groups and outer > problem.batch_groups
    little = problem.channels * problem.taps < 2000
    yield lone and little, rule(1, "im2col", f"{what}, a batched product")
    yield lone and problem.batch * outer <= 1 << 16, rule(1, "expand", f"{what}, as one")
    yield lone, rule(1, "split", f"{what}, one by one")
    # Too many to write out one by one, which it does where the input is dilated.
    yield dilated and math.prod(problem.positions) > 64, rule(1, "exchange", what)
    # A sum for each of many taps takes longer than what it adds.
    short = problem.rank > 2 and math.prod(problem.positions) > 64 >= 2 * math.prod(problem.kernel)
    short = short and problem.batch_groups <= 32 and single and not dilated
    yield short, rule(1, "split", f"{what} of more taps than terms, one by one")
    # With a stride an image of each tap is cut out, which in three axes is most of it.
    cut = is_xeon() and problem.rank == 3 and single and not dilated
    cut = cut and min(problem.dilation) > 1 and 3 * problem.batch_groups <= problem.batch
    yield cut, rule(1, "im2col", f"{what} with a stride, a batched product of patches")
    if single and not dilated:
        yield from _narrow_gradients(problem, rule)
    yield True, rule(1, "correlate", what)


def _gradients_on_intel(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Of groups of 8 channels and more, under the one JAX that it was measured with."""
    inner, outer = (n // problem.batch_groups for n in (problem.batch, problem.out_channels))
    taps, positions = math.prod(problem.positions), math.prod(problem.kernel)
    if not LIBRARY or LIBRARY_11 or not 1 < taps <= 25:
        return
    strided, what = set(problem.dilation) != {1}, "kernel gradient of groups"
    apart = taps == 25 and 8 <= inner < 24 and outer >= 8
    if strided:
        apart = apart or (taps == 25 and inner >= 24 and problem.channels * positions >= 49)
        apart = apart or (taps == 9 and 20 <= inner < 24 and problem.batch_groups >= 4)
    yield apart, rule(1, "split", f"{what}, one by one")
    if strided or taps > 9:
        return
    fewer = 20 <= inner < 32 and 2 * outer <= inner
    yield fewer, rule(1, "exchange", f"{what}, to half as many outputs")
    few = problem.channels <= 2 and positions >= 196 and inner >= 24
    yield few, rule(1, "im2col", f"{what} of few images, a batched product of patches")


def _lines(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """In 1-D: sums for each tap and channel of a group, of which many also take long to compile."""
    inner, outer = (n // problem.batch_groups for n in (problem.batch, problem.out_channels))
    taps, positions = math.prod(problem.positions), problem.taps
    if taps == 1:
        return
    what, intel = "kernel gradient of groups of lines", is_xeon()
    work = problem.channels * positions * inner * outer * taps
    lone = intel and problem.channels == 1 and positions <= 500 and work <= 3e5
    lone = lone and inner >= 3 and problem.batch_groups <= 8
    yield lone, rule(1, "im2col", f"{what}, a batched product of patches")
    # With a stride what is read lies apart, and of more taps than positions most is padding.
    short = taps <= positions and (set(problem.dilation) == {1} or positions <= 300)
    few = intel and problem.batch_groups <= 4 and inner >= 6
    many = inner >= 3 and problem.batch_groups <= 32 and inner * taps >= (80 if intel else 200)
    # To one and two outputs of several groups the exchange below is as short.
    many = many and not (outer <= 2 and outer < inner and problem.batch_groups > 4)
    yield short and (few or many), rule(1, "split", f"{what}, one by one")


def _narrow_gradients(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Kernel gradients of groups that are too narrow for a convolution each."""
    inner, outer = (n // problem.batch_groups for n in (problem.batch, problem.out_channels))
    image, cotangent = math.prod(problem.x_shape), math.prod(problem.w_shape)
    # Narrow ones are products of the image, once for each output, or of the cotangent.
    by_output = outer == 1 or outer * image <= PRODUCTS
    narrow = inner <= 8 and (inner < 4 or inner * cotangent <= PRODUCTS)
    few = outer < inner and outer <= (8 if 8 < inner < 24 else 4)
    yield few and by_output, rule(1, "exchange", "kernel gradient of groups, to few outputs")
    if problem.rank != 2:
        return
    taps, rows = math.prod(problem.positions), problem.channels * problem.taps
    what = "kernel gradient of groups, a batched product of patches"
    short = rows <= (100 if set(problem.dilation) == {1} else 50) * inner
    yield 4 <= inner <= 8 and 1 < taps <= 9 and short, rule(1, "im2col", what)
    if narrow or not 1 < taps <= 64:
        return
    patches = 8 <= inner < 24 and outer <= 32 and taps <= 25
    if cpu_vectors() == "AVX2" and inner >= 16:
        # Without AVX-512 one by one, but for a single image, of which XLA's library makes little.
        lone = problem.channels == 1 and by_output and set(problem.dilation) == {1}
        yield patches and lone, rule(1, "exchange", "kernel gradient of groups, of one image")
        patches = patches and problem.channels == 1
    yield patches, rule(1, "im2col", what)
    yield True, rule(1, "split", "kernel gradient of groups, one by one")


def groups(problem: Problem, rule: Rule, *, single: bool) -> Iterator[tuple[bool, Choice]]:
    """Groups: the fast kernel that XLA calls serves one, in 1-D several."""
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    window, plain = problem.is_window, set(problem.stride) == {1}
    dilated = any(a > 1 for a in problem.input_dilation)
    # Each by itself is large enough for XLA's library.
    sides = list(zip(problem.kernel, problem.input_dilation, strict=True))
    apart = inner >= 16 and problem.x_dtype != jnp.bfloat16 and any(k > a > 1 for k, a in sides)
    apart = apart and problem.rank == 2 and single and not window
    one = "groups, one by one, input dilated"
    yield apart and is_xeon(), rule(4, "split", one)
    if is_xeon() and problem.rank == 2 and single and not window:
        yield from _on_intel(problem, rule)
    lone = problem.rank == 2 and problem.taps == 1 and single and not dilated and not window
    if lone and is_amd() and problem.x_dtype == jnp.float32:
        yield from _as_one(problem, rule)
    most = 8 if cpu_vectors() == "AVX2" else 5
    few = problem.groups <= 4 and inner > 8 and outer <= most and not window and single
    few = few and problem.rank == 2
    # Windows side by side are a product each, and the zeros of others are none.
    few = few and (cpu_vectors() == "AVX2" or any(k > a for k, a in sides))
    few = few and dilated and problem.batch * math.prod(problem.size) >= 1000
    yield few, rule(4, "expand", "a few groups as one, input dilated")
    yield apart and is_amd(), rule(4, "split", one)
    yield dilated, rule(4, "phases", "groups, input dilated")
    if window and 4 <= inner <= 8 and problem.taps >= 25:
        # Few outputs of many taps, a product of few numbers each.
        work = math.prod(problem.y_shape) * problem.taps * inner
        much = problem.rank > 2 or (problem.rank == 2 and LIBRARY and work >= 1e5)
        yield much and single, rule(5, "split", "groups, one by one")
        return
    narrow = inner <= 8 and (inner <= 4 or problem.taps < 25)
    # What is too much for one sum of `taps`; in 3-D a few groups are one convolution sooner.
    products, small = problem.taps * inner, problem.groups * max(inner, outer) <= 48 and inner < 24
    if problem.rank == 2:
        narrow = narrow and (inner <= 4 or products <= 100)
    elif problem.rank > 2 and inner > 1 and not window and single:
        narrow = narrow and products <= (100 if small else 200)
    # Of two groups XLA makes no vectors, unless the outputs of each are a power of two.
    two = problem.groups == 2 and outer > 16 and outer.bit_count() > 1
    two = two and narrow and single and not window
    yield two, rule(5, "expand", "two narrow groups to many outputs, as one")
    # Many outputs are too much for one sum.
    many = narrow and inner > 1 and inner * outer >= 512
    many = many and problem.rank == 2 and not window and problem.taps > 1
    yield many and single, rule(5, "split", "narrow groups to many outputs, one by one")
    # Less than a vector of channels, of which each is an image to another rule.
    slim = problem.channels == problem.out_channels == problem.groups <= 8
    slim = slim and cpu_vectors() == "AVX2" and plain and not window and single
    large = problem.rank == 2 and 49 <= problem.taps <= 128
    yield slim and large, rule(5, "split", "a large kernel on few channels, one by one")
    # A sum in single precision, rounded, is no vectorised loop for a few groups.
    half = problem.x_dtype == jnp.bfloat16 and multiplies_bfloat16()
    half = half and problem.taps == 1 and 4 <= inner <= 8 and plain and not window
    yield half, rule(5, "im2col", "1x1 groups in bfloat16: a batched product")
    yield narrow, rule(5, "taps", "depthwise or narrow groups")
    # lax goes through its kernel for one group after the other, and its fast one serves one group.
    apart = not window and problem.taps > 1 and (single or inner >= 32)
    # Along one axis it serves several groups too, wide ones of a few taps better than one by one.
    long = problem.taps >= (9 if plain else 25)
    apart = apart and (problem.rank > 1 or long or (inner <= 16 and plain))
    if LIBRARY_11 and problem.taps == 1 and problem.x_dtype != jnp.bfloat16:
        # It is good at these, and bringing groups together costs more from there on.
        apart = single and problem.groups <= 4 and (inner >= 64 or outer >= 128)
        yield apart, rule(5, "split", "groups, one by one")
        return
    # Few of them are one dense convolution, of which the products of two groups are zero.
    short = problem.rank > 2 and inner <= 4 and problem.taps <= 64
    flat = problem.rank == 2 and (small or (outer <= 2 and inner < 24))
    dense = apart and single and (flat or (short and small))
    yield dense, rule(5, "expand", "a few narrow groups, as one")
    # To a few outputs a group its fast one is not fast.
    lopsided = apart and problem.groups >= 8 and inner <= 16 and outer <= 4
    lopsided = lopsided and problem.rank > 1 and problem.taps <= 9
    yield lopsided, rule(5, "taps", "groups to few outputs: a matrix product each")
    yield apart, rule(5, "split", "groups, one by one")
    full = problem.x_dtype.itemsize > 2 and single and LIBRARY and problem.rank > 1
    spread = problem.channels >= 128 and problem.out_channels < 2 * problem.channels
    yield problem.taps == 1 and full and spread, rule(5, "split", "groups, one by one")
    enough = inner >= (16 if problem.groups >= 4 else 32)
    several = 1 < problem.taps <= 128 or enough
    short = problem.rank > 1 or problem.taps <= (1 if single else 16)
    wide = (single or inner >= 64) and short
    # Of a kernel much larger than its image most taps meet few samples.
    most = 16 if cpu_vectors() == "AVX2" else 64
    wide = wide and not (window and problem.rank == 2 and problem.taps >= most)
    yield several and wide, rule(5, "taps", "groups: a matrix product each")


def _on_intel(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Groups of several channels in two axes, on Intel's processors."""
    inner, half = problem.group_channels, problem.x_dtype == jnp.bfloat16
    outer, groups = problem.out_channels // problem.groups, problem.groups
    one = "groups, one by one"
    if any(a > 1 for a in problem.input_dilation):
        return
    # A sum of so many products is cut in pieces, and each of them goes through memory.
    much = 2 <= inner <= 4 and problem.taps * inner > 128
    yield much and inner > 2, rule(5, "split", f"narrow {one}")
    small = groups * max(inner, outer) <= 32 or (outer >= 8 and groups <= 8)
    yield much and small, rule(5, "expand", "narrow groups of a large kernel, as one")
    # Of one tap the library is slow at what is cut out for each group.
    lone = problem.taps == 1 and not half and LIBRARY and not LIBRARY_11
    rows, plain = math.prod(problem.y_shape[:-1]), set(problem.stride) == {1}
    if lone:
        yield from _as_one(problem, rule)
        some = 9 <= inner < 16 and _are_alone(problem)
        yield some and plain, rule(5, "split", f"narrow 1x1 {one}")
    if inner < 16:
        return
    fast = half and multiplies_bfloat16() and problem.taps > 1 and LIBRARY
    yield fast and inner >= 48, rule(5, "taps", "groups in bfloat16: a matrix product each")
    few = groups <= 4
    if lone:
        slim = few and max(inner, outer) <= 48
        # Fewer than 32 channels that are no full vector.
        apart = inner < 32 and inner % 16 > 0
        step = slim and rows < 1500 and apart and not plain
        yield step, rule(5, "xla", "a few small 1x1 groups with a stride")
        yield slim and rows < 1500, rule(5, "split", f"1x1 {one}")
        many = not few and rows >= 3000 and apart
        yield many, rule(5, "taps", "1x1 groups: a matrix product each")
        yield not few or inner < 256, rule(5, "im2col", "1x1 groups: a batched product")
    yield few and 20 <= inner < 24 and not half and problem.taps > 1, rule(5, "split", one)


def _as_one(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """1x1 groups with AVX-512 under JAX 0.10, the library of which is slow at each by itself."""
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    rows, plain = math.prod(problem.y_shape[:-1]), set(problem.stride) == {1}
    narrow = 9 <= inner < 16 and _are_alone(problem)
    many = rows >= (2000 if plain else 1000)
    yield narrow and many, rule(5, "expand", "narrow 1x1 groups, as one")
    few = problem.groups <= (4 if is_xeon() else 3) and max(inner, outer) <= 48
    # Fewer than 32 channels that are no full vector.
    few = few and plain and 16 < inner < 32
    yield few and rows >= 1500, rule(5, "expand", "a few 1x1 groups, as one")


def _are_alone(problem: Problem) -> bool:
    """Whether the products with zeros that narrow 1x1 groups as one have are not too many."""
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    spread = problem.channels >= 128 and outer < 2 * inner
    return not spread and (problem.groups <= 8 or outer <= 2 * inner)


def _is_wide(problem: Problem) -> bool:
    """Whether the groups of a kernel gradient have work enough for a convolution each.

    Its taps are the positions here, its batch the channels.
    """
    taps, groups = math.prod(problem.positions), problem.batch_groups
    narrower = min(problem.batch, problem.out_channels) // groups
    much = taps >= 25 or problem.channels >= 16
    return 1 < taps <= 64 and narrower >= (16 if much else 32)
