"""The rules for kernel gradients on a TPU, with the numbers of docs/accelerators.md.

A kernel gradient has an image for a window and few positions. The batch and the stride of the
forward convolution are its channels and its dilation, the dilation of the forward is its stride.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from jaxdil._choice import Choice
from jaxdil._pallas.axes import crosses, together, up
from jaxdil._pallas.layouts import is_in_rows
from jaxdil._pallas.plan_1d import is_turned
from jaxdil._pallas.plan_3d import in_sublanes
from jaxdil._problem import Problem

__all__ = ["kernel_gradients"]


def kernel_gradients(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """What each rule asks, and what it chooses. T15 holds for other convolutions as well."""
    if problem.batch_groups > 1:
        return _of_groups(problem)
    return iter(()) if problem.groups > 1 else _dense(problem)


def _of_groups(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    images, outer = problem.channels, problem.out_channels // problem.batch_groups
    samples, positions = math.prod(problem.kernel), math.prod(problem.positions)
    rows = problem.batch // problem.batch_groups
    channels = problem.batch_groups * outer
    # A matrix product of XLA's.
    single = positions == 1 < rows and problem.batch_groups <= 4 and samples * images >= 4096
    whole = problem.rank in (1, 2) and rows > 1 and samples > positions
    whole = whole and min(problem.batch, problem.out_channels) >= 48 and _lies_well(problem)
    across = crosses(images, problem.batch, *problem.size)
    across = across or crosses(images, problem.out_channels, *problem.kernel)
    # With a stride lax lays out larger batches as it wants them.
    strided = max(problem.dilation, default=1) > 1 and images >= 8 and max(rows, outer) > 32
    yield (
        whole and not (single or strided or across),
        _rule(17, "pallas_tpu", "kernel gradient of groups, in one pass"),
    )
    depthwise = rows == outer == 1
    turned = depthwise and problem.rank == 1 and samples >= 64
    turned = turned and is_turned(problem.size[0], channels)
    one = _rule(10, "pallas_tpu", "kernel gradient of a depthwise row, time in the lanes")
    yield turned and problem.size[0] <= 2048, one
    thin = depthwise and max(problem.dilation, default=1) == 1 and _fills(problem, channels)
    yield thin, _rule(12, "columns", "kernel gradient, rows fill lanes better")
    yield turned, one
    several = rows == 1 < outer
    yield several, _rule(1, "expand", "kernel gradient, a channel to several")
    many = rows <= 8 or samples * images >= 2048
    narrow = rows > 1 and problem.batch_groups * max(rows, outer) <= 256 and many
    narrow = narrow and images <= 64 and not (across and rows > 8 and positions > 1)
    yield narrow, _rule(1, "expand", "kernel gradient of narrow groups")
    single = single and not across
    yield single, _rule(1, "expand", "kernel gradient of a 1x1 kernel of up to 4 groups")
    alone = problem.rank == 1 and depthwise and images < 4 and positions <= 8
    # Other lengths lie in memory in an order that has to be changed for a kernel.
    aligned = samples % 8 == 0 == problem.size[0] % 8 if problem.rank else False
    alone = alone and samples >= 64 and problem.batch >= 128 and aligned
    yield alone, _rule(10, "pallas_tpu", "kernel gradient of a depthwise row, a batch below 4")
    image = problem.rank == 2 and depthwise and problem.batch > 64
    image = image and positions > 1 and samples >= 49 and max(problem.dilation) == 1
    # lax reads each array once as well, but for one image, and slowly for spread taps.
    usual = images % 8 == 0 or images in (1, 2, 4)
    image = image and usual and (images == 1 or max(problem.stride) > 1)
    image = image and not crosses(images, problem.batch, *problem.size)
    yield image, _rule(11, "pallas_tpu", "kernel gradient of a depthwise image")
    # lax goes through a single volume as often as the kernel has taps along an axis or two; of a
    # batch it does not.
    volume = problem.rank == 3 and depthwise and images == 1 and problem.batch >= 16
    volume = volume and samples >= 512 and 1 < positions <= 125
    # Otherwise x or the cotangent is laid out anew for the kernel.
    yield volume and _lie_in_rows(problem), _rule(11, "pallas_tpu", "kernel gradient of a volume")
    # lax makes it dearer with the dilation of the forward convolution.
    work = samples * channels * max(problem.stride, default=1)
    large = depthwise and images == 1 and _across(problem) <= 8 and problem.rank in (1, 2)
    large = large and work >= (3 << 19 if problem.rank == 2 else 3 << 20)
    yield large, _rule(12, "columns", "kernel gradient of one image, large or dilated")


def _dense(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    images, inner, outer = problem.channels, problem.batch, problem.out_channels
    samples, positions = math.prod(problem.kernel), math.prod(problem.positions)
    window = samples > positions
    yield window and _in_one_pass(problem), _rule(16, "pallas_tpu", "dense kernel gradient")
    volume = problem.rank == 3 and window and _is_faster_by_planes(problem)
    yield volume, _rule(16, "pallas_tpu", "dense kernel gradient of volumes")
    if max(problem.input_dilation, default=1) > 1:
        return
    strided, spread = max(problem.dilation, default=1) > 1, max(problem.stride, default=1) > 1
    apart = all(p <= d for p, d in zip(problem.positions, problem.dilation, strict=True))
    patches = apart and inner <= 4 and strided and not spread and images <= 16
    yield patches, _rule(13, "space_to_batch", "kernel gradient of patches")
    large = problem.rank == 2 and 16 <= problem.kernel[0] <= 128 and samples >= 1024
    yield (
        large and inner == images == outer == 1,
        _rule(15, "planes", "one channel, a large kernel"),
    )
    meets = problem.flops <= samples * positions * images * inner * outer
    edges = window and meets and images == 1 and problem.rank == 2
    edges = edges and positions <= 25 and min(inner, outer) >= 128
    yield edges, _rule(14, "correlate", "kernel gradient, most taps in the padding")
    thin = problem.rank == 2 and _fills(problem, inner) and _fills(problem, outer)
    yield thin, _rule(12, "columns", "kernel gradient, rows fill lanes better")
    volumes = problem.rank == 3 and window and images == 1 and _across(problem) <= 8
    volumes = volumes and spread and not strided
    yield volumes, _rule(12, "columns", "kernel gradient in 3-D, dilated")
    row = problem.rank == 1 and 1 < positions <= 4 and samples >= 2048 and min(inner, outer) < 128
    yield row, _rule(8, "columns", "kernel gradient of a few taps in 1-D")
    single = window and _across(problem) == 1 and _length(problem) >= max(28, 8 * images)
    yield single and not strided, _rule(9, "columns", "kernel gradient of one tap a row")
    product = window and positions == 1 and not strided and (images == 1 or images >= 8)
    yield product, _rule(9, "correlate", "kernel gradient of a 1x1 kernel")


def _in_one_pass(problem: Problem) -> bool:
    """Whether the dense kernel is faster: lax is slow for a batch of 1 or 2, and many channels."""
    inner, outer = problem.batch, problem.out_channels
    if problem.rank not in (1, 2) or min(inner, outer) < 16 or math.prod(problem.positions) == 1:
        return False
    # Where channels come before rows, what it gives is copied, and has to be in a longer pass.
    if problem.kernel_first and problem.rank == 2 and max(problem.input_dilation) > 1:
        return False
    images = problem.channels
    summed = images * min(math.prod(problem.size), math.prod(problem.kernel))
    x = images, problem.size[-1], inner, problem.x_dtype.itemsize
    g = images, problem.kernel[-1], outer, problem.w_dtype.itemsize
    if is_in_rows(*x) and is_in_rows(*g):
        # Long sums to many channels lax does as well, in 1-D.
        few = images <= 2 and (problem.rank == 2 or min(inner, outer) < 256)
        return few or summed <= 2 * max(inner, outer)
    return summed <= max(inner, outer)


def _lies_well(problem: Problem) -> bool:
    """Whether x and the cotangent of groups lie as the kernel reads them, so neither is copied."""
    images, *sizes = problem.channels, problem.size[-1], problem.kernel[-1]
    abreast = {together(images, size) for size in sizes}
    if len(abreast) > 1 or (abreast != {0} and problem.dilation[-1] > 1):
        return False
    # Rows fill the sublanes better than columns.
    height, width = problem.size[0], problem.size[-1]
    return images > 1 or up(width, 8) * height <= up(height, 8) * width


def _is_faster_by_planes(problem: Problem) -> bool:
    """Whether the dense kernel of volumes is faster: few channels, or samples that lie apart."""
    inner, outer = problem.batch, problem.out_channels
    few = problem.channels <= 2 and min(inner, outer) >= 16 and max(inner, outer) <= 128
    # All taps have a volume to go through, and not one or two axes alone.
    few = few and min(problem.positions) > 1 and max(problem.input_dilation) == 1
    apart = min(problem.dilation) > 1 or min(problem.stride) > 1
    samples = math.prod(problem.kernel)
    return few and ((min(inner, outer) <= 32 and samples >= 4096) or (apart and samples >= 512))


def _lie_in_rows(problem: Problem) -> bool:
    """Whether x and the cotangent, volumes, both have their columns in the sublanes."""
    x = in_sublanes((problem.channels, *problem.size), problem.x_dtype.itemsize)
    g = in_sublanes((problem.channels, *problem.kernel), problem.w_dtype.itemsize)
    return x == g == 2


def _rule(number: int, method: str, what: str) -> Choice:
    return Choice(method, f"rule T{number}: {what}")


def _length(problem: Problem) -> int:
    """Samples of a row, the last axis."""
    return problem.kernel[-1] if problem.rank else 1


def _across(problem: Problem) -> int:
    """Taps of the last axis."""
    return problem.positions[-1] if problem.rank else 1


def _fills(problem: Problem, channels: int) -> bool:
    """Whether a long row of few images fills registers, of 128 lanes by 8, better than channels."""
    length = _length(problem)
    window = problem.is_window
    long = window and length >= {1: 2048, 2: 64}.get(problem.rank, math.inf)
    few = problem.channels <= 8 and _across(problem) <= 8
    return long and few and _tiles(length, channels) < _tiles(channels, length)


def _tiles(last: int, before: int) -> int:
    """Elements that two axes take in registers."""
    return -(-last // 128) * 128 * (-(-before // 8) * 8)
