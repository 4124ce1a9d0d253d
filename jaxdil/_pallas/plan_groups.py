"""How the kernel for a TPU cuts a convolution of groups of several channels into blocks.

    y[n, p, q, (g, o)] = sum_{a, b, i}  x~[n, s p + d a - lo, s q + d b - lo, (g, i)]
                                        w[a, b, i, (g, o)]

A block is some groups together, about 128 channels of them, whose kernel is zero between one group
and another; of that it is a dense convolution. A block of channels is a multiple of 128 of them, or
all.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from jaxdil._pallas import plan_dense
from jaxdil._pallas.axes import up
from jaxdil._pallas.plan_1d import is_turned
from jaxdil._pallas.plan_2d import LANES, MEMORY, SUBLANES, together
from jaxdil._problem import Problem

__all__ = ["WIDEST", "Plan", "joined", "plan_of", "plans_of", "reason", "tiles"]

# Channels of a block at the most, of input or output.
WIDEST = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One convolution of groups, and its blocks."""

    dense: plan_dense.Plan
    """The convolution of the groups of a block, with zeros between them."""
    blocks: int
    together: int
    """Groups of a block."""
    slices: int
    """Parts of an image, by rows, that are images here: of one tap any are."""

    @property
    def steps(self) -> tuple[int, int]:
        """Blocks of groups, and of images."""
        return self.blocks, self.dense.batch // self.dense.images

    @property
    def compact(self) -> tuple[int, int, int]:
        """The kernel of a block as it is given: of each tap the channels of one group, and all."""
        return math.prod(self.dense.kernel), self.wide[1] // self.together, self.wide[2]

    @property
    def wide(self) -> tuple[int, int, int]:
        """The kernel of a block, with zeros between groups."""
        dense = self.dense
        pair = dense.channels, dense.wide
        return math.prod(dense.kernel), *(pair[::-1] if dense.outer_first else pair)

    @property
    def copies(self) -> tuple[int, int, int]:
        """Blocks of x, w and y that are on the chip: two of each, one being copied, if several."""
        blocks, images = self.steps
        return 1 + (blocks * images > 1), 1 + (blocks > 1), 1 + (blocks * images > 1)

    @property
    def copied(self) -> tuple[int, int, int]:
        """Bytes of a block of x, of w and of y, as they lie in tiles."""
        x, _, y = self.dense.copied
        return x, self._kernel(self.compact), y

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        blocks, images = self.steps
        x, w, y = self.copied
        return blocks * (images * (x + y) + w)

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip."""
        dense = self.dense
        work = dense.memory - sum(n * of for n, of in zip(dense.copies, dense.copied, strict=True))
        work += self._kernel(self.wide)
        return work + sum(n * of for n, of in zip(self.copies, self.copied, strict=True))

    @property
    def tiles(self) -> list[tuple[slice, slice]]:
        """The channels of input and of output which no products but with each other have."""
        dense, count = self.dense, self.together
        return tiles(count, dense.channels // count, dense.wide // count)

    @property
    def products(self) -> int:
        """Products of 8 rows by 128 channels by 128 that are written out."""
        return self.dense.products

    def _kernel(self, shape: tuple[int, int, int]) -> int:
        taps, rows, lanes = shape
        return taps * up(rows, 2 * SUBLANES) * up(lanes, LANES) * self.dense.itemsizes[1]


def joined(groups: int, inner: int, outer: int) -> int | None:
    """Groups of a block: as few as fill registers, or None if none do."""
    for count in range(1, groups + 1):
        fills = (count * inner) % LANES == (count * outer) % LANES == 0
        if groups % count == 0 and (fills or count == groups):
            return count if count * max(inner, outer) <= WIDEST else None
    return None


def tiles(count: int, inner: int, outer: int) -> list[tuple[slice, slice]]:
    """The channels of input and of output of a block which no products but with each other have.

    These are 128 or a multiple of each, and what is left.
    """
    unit = math.lcm(*(LANES // math.gcd(LANES, n) for n in (inner, outer)))
    cuts = [(at, min(at + unit, count)) for at in range(0, count, unit)]
    return [(slice(a * inner, b * inner), slice(a * outer, b * outer)) for a, b in cuts]


def plan_of(problem: Problem) -> Plan | None:
    """The plan of a convolution of groups along one or two axes, or None if none fits."""
    return _plan_of(problem, turned=problem.turned)


@functools.lru_cache(maxsize=1024)
def _plan_of(problem: Problem, *, turned: bool) -> Plan | None:
    # Problems are the same whether their kernels are turned or not; plans are not.
    problem = problem.replace(turned=turned)
    most = plan_dense.MOST_PRODUCTS
    fitting = (p for p in plans_of(problem) if p.memory <= MEMORY and p.products <= most)
    return next(fitting, None)


def plans_of(problem: Problem) -> list[Plan]:
    """Ways to cut it into blocks, the best first."""
    groups = problem.groups
    inner, outer = problem.group_channels, problem.out_channels // groups
    count = joined(groups, inner, outer)
    if count is None:
        return []
    block = problem.replace(channels=count * inner, out_channels=count * outer, groups=1)
    first = problem.channels_first
    # The columns lie in the lanes or not by all channels.
    across = (
        is_turned(problem.size[-1], problem.channels, channels_first=first),
        is_turned(problem.positions[-1], problem.out_channels, channels_first=first),
    )
    images = _abreast(problem, across)
    found = []
    for slices in _slices(problem):
        part = block.replace(
            batch=block.batch * slices, size=(block.size[0] // slices, *block.size[1:])
        )
        for whole in plan_dense.plans_of(_in_turn(part, images)):
            dense = dataclasses.replace(
                whole, outer_first=problem.turned, across=across, abreast=images
            )
            if dense.wide == block.out_channels and (slices == 1 or dense.images == 1):
                found.append(Plan(dense, groups // count, count, slices))
    return found


def _slices(problem: Problem) -> list[int]:
    """Into how many parts images may be cut by rows."""
    ones = max(*problem.kernel, *problem.stride, *problem.input_dilation) == 1
    if problem.rank != 2 or not ones or any(map(any, problem.padding)):
        return [1]
    return [n for n in range(1, problem.size[0] + 1) if problem.size[0] % n == 0]


def _abreast(problem: Problem, across: tuple[bool, bool]) -> int:
    """How many images lie in the sublanes in memory, in x as in y, else 1."""
    if any(across) or problem.stride[-1] > 1 or problem.input_dilation[-1] > 1:
        return 1
    images = {together(problem.batch, size) for size in (problem.size[-1], problem.positions[-1])}
    return max(images.pop(), 1) if len(images) == 1 else 1


def _in_turn(problem: Problem, images: int) -> Problem:
    """Some images as one whose columns are theirs in turn."""
    lo, hi = problem.padding[-1]
    return problem.replace(
        batch=problem.batch // images,
        size=(*problem.size[:-1], problem.size[-1] * images),
        padding=(*problem.padding[:-1], (lo * images, hi * images)),
        dilation=(*problem.dilation[:-1], problem.dilation[-1] * images),
    )


def reason(problem: Problem) -> str | None:
    """Why the kernel cannot serve a convolution of groups along one or two axes, or None."""
    if (why := plan_dense.of_numbers(problem)) is not None:
        return why
    if problem.is_window:
        return "a window larger than the output"
    ways = plans_of(problem)
    if not ways:
        return f"no groups of up to {WIDEST} channels together fill registers of {LANES}"
    if not ways[0].dense.starts:
        return "no tap meets a sample"
    return None if plan_of(problem) is not None else plan_dense.too_large(ways)
