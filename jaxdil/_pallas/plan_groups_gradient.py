"""How the kernel for a TPU cuts the kernel gradient of groups of several channels into blocks.

    dw[a, b, i, (g, o)] = sum_{n, p, q}  x~[n, s p + d a - lo, s q + d b - lo, (g, i)]
                                         y'[n, p, q, (g, o)]

y' is the cotangent. A block is some groups together, as in `plan_groups`: of the products of all
its channels with all others those of one and the same group are kept.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from jaxdil._pallas import plan_dense, plan_dense_gradient
from jaxdil._pallas.axes import up
from jaxdil._pallas.plan_1d import is_turned
from jaxdil._pallas.plan_2d import LANES, MEMORY, SUBLANES, together
from jaxdil._pallas.plan_groups import WIDEST, joined, tiles
from jaxdil._problem import Problem

__all__ = ["Plan", "plan_of", "plans_of", "reason"]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One kernel gradient of groups, and its blocks."""

    dense: plan_dense_gradient.Plan
    """The gradient of the groups of a block, with the products between them."""
    blocks: int
    together: int
    """Groups of a block."""

    @property
    def steps(self) -> tuple[int, int]:
        """Blocks of groups, and of images."""
        return self.blocks, self.dense.steps[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """A block of dw: of each tap the inputs of one group, and the outputs of all."""
        taps, rows, lanes = self.dense.shape
        return taps, rows // self.together, lanes

    @property
    def copies(self) -> tuple[int, int, int]:
        """Blocks of each that are on the chip: two, one being copied, if several."""
        blocks, images = self.steps
        several = 1 + (blocks * images > 1)
        return several, several, 1 + (blocks > 1)

    @property
    def copied(self) -> tuple[int, int, int]:
        """Bytes of a block of the image that is read in places, of the other and of dw."""
        taps, rows, lanes = self.shape
        size = self.dense.image.itemsizes[2]
        return *self.dense.copied[:2], taps * up(rows, SUBLANES) * up(lanes, LANES) * size

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        blocks, images = self.steps
        read, stays, dw = self.copied
        return blocks * (images * (read + stays) + dw)

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip."""
        dense = self.dense
        work = dense.memory - sum(n * of for n, of in zip(dense.copies, dense.copied, strict=True))
        # What is kept of a product.
        work += math.prod(up(n, LANES) for n in dense.shape[1:]) * 4
        return work + sum(n * of for n, of in zip(self.copies, self.copied, strict=True))

    @property
    def tiles(self) -> list[tuple[slice, slice]]:
        """The channels of what stays and of what is read in places of which products are kept."""
        dense, count = self.dense, self.together
        return tiles(count, dense.wide // count, dense.image.channels // count)

    @property
    def products(self) -> int:
        """Products of 8 channels by 128 positions by 128 channels that are written out."""
        return self.dense.products


@functools.lru_cache(maxsize=1024)
def plan_of(problem: Problem) -> Plan | None:
    """The plan of a kernel gradient along one or two axes, or None if none fits."""
    most = plan_dense_gradient.MOST_PRODUCTS
    fitting = (p for p in plans_of(problem) if p.memory <= MEMORY and p.products <= most)
    return next(fitting, None)


def plans_of(problem: Problem) -> list[Plan]:
    """Ways to cut it into blocks, the best first."""
    groups = problem.batch_groups
    inner, outer = problem.batch // groups, problem.out_channels // groups
    count = joined(groups, inner, outer)
    if count is None:
        return []
    block = problem.replace(batch=count * inner, out_channels=count * outer, batch_groups=1)
    # The columns lie in the lanes or not by all channels.
    x = is_turned(problem.size[-1], problem.batch)
    g = is_turned(problem.kernel[-1], problem.out_channels)
    images = _abreast(problem, (x, g))
    found = []
    # With x turned, products come as dw has them.
    exchanged = plan_dense_gradient.is_read_in_places(block, either=True)
    for whole in plan_dense_gradient.plans_of(_in_turn(block, images), exchanged=exchanged):
        across = (g, x) if whole.exchanged else (x, g)
        image = dataclasses.replace(whole.image, across=across, abreast=images)
        dense = dataclasses.replace(whole, image=image, outer_first=False)
        if dense.wide == dense.still:
            found.append(Plan(dense, groups // count, count))
    return found


def _abreast(problem: Problem, across: tuple[bool, bool]) -> int:
    """How many images lie in the sublanes in memory, in x as in the cotangent, else 1."""
    if any(across) or problem.dilation[-1] > 1 or problem.input_dilation[-1] > 1:
        return 1
    images = {together(problem.channels, size) for size in (problem.size[-1], problem.kernel[-1])}
    return max(images.pop(), 1) if len(images) == 1 else 1


def _in_turn(problem: Problem, images: int) -> Problem:
    """Some images as one whose columns are theirs in turn."""
    lo, hi = problem.padding[-1]
    return problem.replace(
        channels=problem.channels // images,
        size=(*problem.size[:-1], problem.size[-1] * images),
        kernel=(*problem.kernel[:-1], problem.kernel[-1] * images),
        padding=(*problem.padding[:-1], (lo * images, hi * images)),
        stride=(*problem.stride[:-1], problem.stride[-1] * images),
    )


def reason(problem: Problem) -> str | None:
    """Why the kernel cannot serve a kernel gradient along one or two axes, or None."""
    if (why := plan_dense_gradient.of_windows(problem)) is not None:
        return why
    ways = plans_of(problem)
    if not ways:
        return f"no groups of up to {WIDEST} channels together fill registers of {LANES}"
    if not ways[0].dense.meeting:
        return "no tap meets a sample"
    return None if plan_of(problem) is not None else plan_dense.too_large(ways)
