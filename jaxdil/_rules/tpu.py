"""The rules for a TPU in their order, from what its compiler estimates: T1 to T18.

Its matrix unit multiplies 128 channels by 128 at a time, zeros or not. lax leaves it idle where
groups are narrow, goes through inserted zeros where samples are spread, and knows two spatial
axes best. A batch below 8 it makes larger out of parts of the image, in five copies that the
other methods do without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._pallas.layouts import lies_in_rows, yields_rows
from jaxdil._pallas.plan_1d import is_copied, is_turned
from jaxdil._pallas.plan_2d import lies_across, one_lies_across
from jaxdil._problem import Problem
from jaxdil._rules.tpu_kernel_gradients import kernel_gradients

__all__ = ["rules"]


def rules(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """What each rule asks, and what it chooses, in their order."""
    groups, inner = problem.groups, problem.group_channels
    outer = problem.out_channels // max(groups, problem.batch_groups)
    samples, positions = math.prod(problem.kernel), math.prod(problem.positions)
    window = samples > positions
    dilated = any(a > 1 for a in problem.input_dilation)
    direct = not dilated and not window
    small = direct and problem.batch < 8
    first = math.prod(problem.kernel[:1])

    def rule(number: int, method: str, what: str) -> Choice:
        return Choice(method, f"rule T{number}: {what}")

    # Complex numbers, integers and doubles were not looked at.
    if not jnp.issubdtype(problem.x_dtype, jnp.floating) or problem.x_dtype.itemsize > 4:
        return
    yield from kernel_gradients(problem)
    if problem.batch_groups > 1:
        return
    volume = problem.rank > 2 and 1 < first <= 8 and not window
    # Taps of one axis alone, to fewer channels: `slabs` would loop, to save memory.
    volume = volume and (problem.taps > first or problem.out_channels >= problem.channels)
    if groups > 1:
        width = groups * max(inner, outer)
        # Fewer channels leave most lanes empty.
        wide = min(problem.channels, problem.out_channels) >= 48
        whole = problem.rank in (1, 2) and max(inner, outer) > 1 and not window
        # With a stride lax lays out larger batches as it wants them.
        strided = (
            max(problem.stride, default=1) > 1 and problem.batch >= 8 and max(inner, outer) > 32
        )
        # A large batch may lie in the lanes, where kernels of groups do not read it.
        across = one_lies_across(problem)
        one = whole and wide and not strided and not across
        yield one, rule(17, "pallas_tpu", "groups, in one pass")
        # The kernel gradient of each example, by vmap, is groups with an image for a kernel: what
        # zeros make wider there is no product of the matrix unit, but all that is read.
        narrow = 1 < inner <= 8 and width <= 256 and not window
        yield narrow, rule(2, "expand", "narrow groups")
        among = 8 < inner <= 16 and width >= 512 and not window and not across
        yield among, rule(2, "expand", "groups of up to 16 among 512 channels")
        several = inner > outer == 1 or (inner == 1 < outer and width >= 128)
        yield several and not window, rule(2, "expand", "a channel to several")
        single = problem.taps == 1 and groups <= 4 and not dilated
        single = single and not (across and width > 256)
        yield single, rule(2, "expand", "1x1 of up to 4 groups")
        beside = 8 < inner <= 32 and width <= 256 and direct and problem.batch <= 8
        even = problem.rank == 2 and min(problem.positions) >= 14 and max(problem.stride) == 1
        yield beside and even and 1 < first <= 8, rule(2, "slabs", "groups, row by row")
        long = problem.rank == 1 < inner and first > problem.size[0] and not dilated
        long = long and problem.batch <= 16
        yield long, rule(2, "space_to_batch", "groups, a kernel longer than the input")
        depthwise = inner == outer == 1
        planes = depthwise and problem.rank == 3 and 1 < problem.taps <= 128
        planes = planes and positions >= 196 and problem.channels >= 16
        planes = planes and not lies_across(problem)
        yield planes, rule(11, "pallas_tpu", "depthwise volumes of 16 channels and more")
        # Sums of more examples go through memory once a tap.
        volume = volume and (problem.batch < 8 or not depthwise)
        yield volume, rule(3, "slabs", "3-D as sums of 2-D")
        row = direct and depthwise and problem.rank == 1 and positions >= 64
        # What is copied for a kernel or for sums, lax does well as it lies: where examples lie in
        # the sublanes and reach too far, and two of them with time in the lanes.
        copied = depthwise and problem.rank == 1 and is_copied(problem)
        pair = problem.batch == 2 and problem.channels % 8 != 0 and positions >= 1024
        copied = copied or (pair and 40 <= problem.channels < 128)
        large = problem.channels >= 40 and not copied
        # Examples fill the lanes together; half of them empty, a long row takes as long as taps.
        turned = row and is_turned(
            problem.size[0], problem.channels, channels_first=problem.channels_first
        )
        turned = turned and (problem.batch * problem.channels >= 64 or positions <= 8192)
        yield row and (large or turned), rule(10, "pallas_tpu", "depthwise in 1-D")
        image = problem.rank == 2 and problem.taps > 1 and depthwise
        across = image and lies_across(problem)
        alike = across and problem.channels % 8 == 0 and positions >= 9
        yield alike, rule(11, "pallas_tpu", "depthwise images of a large batch")
        usual = problem.batch % 8 == 0 or problem.batch in (1, 2, 4)
        image = image and positions >= 49 and usual and problem.channels >= 64 and not across
        yield image, rule(11, "pallas_tpu", "depthwise images of 64 channels and more")
        image = problem.rank == 2 and 1 < first <= 8 and min(problem.positions) >= 16
        yield small and depthwise and image, rule(4, "slabs", "depthwise, a batch below 8")
        row = problem.rank == 1 and 1 < first <= 8 and not copied
        yield small and depthwise and row, rule(4, "taps", "depthwise in 1-D, a batch below 8")
        return
    # Parts of volumes have few channels and a large batch, which lax may lay out as it likes.
    image = problem.rank in (1, 2) and not window and problem.taps > 1
    image = image and min(inner, outer) >= (16 if problem.batch < 8 else 64)
    # A single sample meets each tap once: that is one product of many examples.
    image = image and (math.prod(problem.size) > 1 or problem.batch < 8)
    rows = image and lies_in_rows(problem)
    # A batch that lies in the sublanes costs copies, which other methods of a small one need too.
    near = max(problem.dilation, default=1) <= 2 and min(problem.positions, default=1) >= 14
    square = near and min(problem.kernel, default=1) > 1
    copied = image and problem.batch < 8 and min(inner, outer) >= 64
    rows = rows or (copied and (square or problem.rank == 1))
    yield rows, rule(16, "pallas_tpu", "dense, in one pass")
    volumes = _volumes(problem) and not (window or one_lies_across(problem))
    yield volumes, rule(18, "pallas_tpu", "dense volumes, in one pass")
    ones = (1,) * problem.rank
    tiles = problem.taps > 1 and problem.kernel == problem.stride
    apart = problem.taps > 1 and problem.kernel == problem.input_dilation
    enough = problem.batch * positions
    tiles = tiles and enough >= outer and (problem.batch < 8 or inner <= 4)
    tiles = tiles and not lies_across(problem)
    large = problem.rank > 1 and problem.batch < 8 and outer >= 128
    # Zeros between samples, of which there are not yet many, cost a matrix product less than the
    # copy that interleaves phases.
    few = max(problem.input_dilation, default=1) <= (4 if problem.rank == 1 else 2)
    usual = problem.dilation == problem.stride == ones and not window
    zeros = dilated and few and usual and 1 < problem.taps <= 25
    # Where outputs are few, reading the kernel is what takes the time, and lax reads it once.
    zeros = zeros and enough >= max(inner, outer) and outer > 4
    narrow = problem.rank == 1 and max(inner, outer) <= 128 and problem.batch <= 64
    zeros = zeros and (narrow or (problem.rank in (1, 2) and problem.batch < 8))
    thin = outer <= 4 and (problem.batch <= 32 or problem.taps >= 64)
    joined = apart and (thin or (large and (problem.channels_first or not zeros)))
    yield tiles or joined, rule(5, "patches", "windows that tile the image")
    # Phases as channels: of few channels, or of many phases.
    plane = dilated and usual and problem.rank == 2 and not apart
    thin = outer <= 4 and min(problem.positions, default=1) >= 64
    thin = thin and 8 <= problem.batch <= (16 if max(problem.positions) <= 128 else 8)
    far = (
        min(problem.input_dilation, default=1) >= 4
        and max(inner, outer) <= 64
        and problem.batch <= 8
    )
    yield plane and (thin or far), rule(5, "planes", "2-D, phases as channels")
    volumes = dilated and usual and problem.rank == 3 and problem.batch < 8 and outer > 4
    volumes = volumes and min(problem.input_dilation[:2]) > 1
    yield volumes, rule(5, "planes", "3-D, phases as channels")
    # The output is the larger array, so that a copy of the input alone may be made.
    onto = zeros and problem.rank == 2 and inner >= 8 and yields_rows(problem)
    onto = onto and (outer >= 16 or (outer >= 8 and min(problem.positions) < 48))
    yield onto, rule(16, "pallas_tpu", "2-D, the input dilated, in one pass")
    # Sums to more channels take longer than lax's copies, and what is small it does not cut.
    if problem.rank == 1:
        light = positions >= 256 or (outer % 8 == 0 and (positions >= 128 or first <= 4))
    else:
        light = outer <= 16 and problem.taps <= 9 and min(problem.positions, default=1) >= 24
    yield zeros and light, rule(5, "taps", "the input dilated, few zeros")
    # Rows of one image: those of several would be laid out anew around the sums.
    overlap = dilated and problem.rank == problem.batch == 1 and positions * inner >= 32768
    yield overlap and first >= 8, rule(5, "patches", "1-D, patches that overlap")
    flat = problem.rank == 2 and problem.batch < 8 and problem.dilation == ones and not window
    spread = flat and problem.input_dilation[0] > 1 and not apart and enough >= max(inner, outer)
    spread = spread and not zeros
    yield spread, rule(5, "slabs", "2-D, the input dilated, a batch below 8")
    far = math.prod(problem.input_dilation) >= 64 and not window and problem.batch <= 8
    yield dilated and far, rule(5, "phases", "samples far apart")
    # A stride on all axes but the last leaves few of the copies that `planes` makes.
    strided = problem.rank == 3 and min(problem.stride[:2]) > 1
    rows = strided and problem.batch < 8 and inner <= 64 and problem.size[-1] >= 24
    rows = (rows or inner <= 4) and problem.rank == 3 and direct and problem.taps > first > 1
    yield rows, rule(3, "planes", "3-D, few channels or strided")
    volume = volume and problem.batch < 8 and not (strided and inner < 32)
    yield volume and (not dilated or outer <= 4), rule(3, "slabs", "3-D as sums of 2-D")
    line = problem.rank > 2 and 1 < problem.taps == first <= 8
    yield small and line, rule(3, "taps", "3-D, taps of one axis alone")
    # Otherwise reading the kernel is what takes the time, and lax reads it once.
    direct = direct and 2 * enough >= max(inner, outer)
    row = problem.rank == 1 and 1 < first <= 16 and direct
    narrow = max(inner, outer) <= 128 and first <= 7 and problem.stride == ones and enough >= 1024
    yield row and (small or narrow), rule(6, "taps", "1-D, a batch below 8 or few channels")
    stem = problem.rank == 2 and 1 < first <= 8 and inner <= 4
    # A row of the kernel with one channel fills nothing; all rows do, side by side. In a network
    # lax fuses what follows into its convolution, which of small images is as much.
    alone = stem and inner == 1 and min(problem.positions) >= 16
    yield small and alone, rule(7, "planes", "2-D, one channel, a batch below 8")
    yield small and stem and inner > 1, rule(7, "slabs", "2-D, few channels, a batch below 8")
    steps = problem.rank == 2 and problem.taps > 25 and min(problem.stride) >= 4
    steps = steps and max(problem.kernel) <= 16 and max(inner, outer) <= 64
    yield small and steps, rule(7, "planes", "2-D, long strides, a batch below 8")
    broad = min(problem.positions, default=1) >= (32 if problem.batch <= 16 else 64)
    plain = direct and problem.dilation == ones and min(problem.kernel, default=1) > 1
    colours = stem and plain and outer >= 16 and problem.batch >= 8
    # Without a stride the rows that are put side by side are several times what is read.
    colours = colours and (max(problem.stride) > 1 or max(problem.positions) <= 64)
    colours = colours and not lies_across(problem)
    yield colours and broad, rule(7, "planes", "2-D, few channels, a batch of 8 and more")
    spacing, side = max(problem.dilation, default=1), min(problem.size, default=1)
    near = spacing <= 2 and min(problem.positions, default=1) >= 14
    wide = spacing > 2 and side >= 40 and problem.batch <= 2
    square = problem.rank == 2 and min(problem.kernel) > 1 < inner and direct
    square = square and problem.taps <= (25 if outer >= 8 else 9)
    yield small and square and (near or wide), rule(7, "taps", "2-D, a batch below 8")
    yield small and problem.taps == 1, rule(9, "taps", "1x1, a batch below 8")


def _volumes(problem: Problem) -> bool:
    """Whether dense volumes go through memory once: of channels that fill registers, or many.

    A stride on the last axes alone makes x and y lie in different orders. Of fewer positions than
    channels reading the kernel is what takes the time, and large batches of many lax does well.
    """
    inner, positions = problem.channels, problem.batch * math.prod(problem.positions)
    most = max(inner, problem.out_channels)
    if positions < most or (problem.batch >= 8 and most > 64):
        return False
    whole = problem.rank == 3 and problem.taps > 1 and (inner % 16 == 0 or inner >= 40)
    return whole and (max(problem.stride) == 1 or min(problem.stride) > 1)
