"""How the kernel for a TPU cuts a dense convolution of rows or images into blocks.

    y[n, p, q, o] = sum_{a, b, i}  x~[n, s p + d a - lo, s q + d b - lo, i] w[a, b, i, o]

A block of x is whole images, of w and y all channels or 128 or 256 of the output's. The images lie
padded in the memory on the chip, once for each place that outputs begin to read their columns at,
so that what a tap reads is whole registers. A row is an image one sample high.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

from jaxdil._pallas.asked import (
    MOST_PRODUCTS,
    as_image,
    fits,
    of_numbers,
    sizes_of,
    too_large,
)
from jaxdil._pallas.axes import Axis, Phase, Tap, axis_of, up
from jaxdil._pallas.joined import Side, joined, sides_of
from jaxdil._pallas.layouts import is_outer_first
from jaxdil._pallas.plan_1d import is_turned
from jaxdil._pallas.plan_2d import LANES, MEMORY, SUBLANES
from jaxdil._problem import Problem

__all__ = [
    "LANES",
    "MEMORY",
    "MOST_PRODUCTS",
    "SUBLANES",
    "Plan",
    "as_image",
    "of_numbers",
    "plan_of",
    "plans_of",
    "reason",
    "sizes_of",
    "too_large",
]

# Rows of a product at the most: so many fill a matrix unit, and their sums stay near it.
MOST_ROWS = 256

# Columns of rows that are laid out together.
STAGED = 256

# Outputs of a block at the most.
WIDEST = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One dense convolution, and its blocks."""

    batch: int
    channels: int
    out_channels: int
    kernel: tuple[int, int]
    positions: tuple[int, int]
    rows: Axis
    columns: Axis
    turned: bool
    """Whether the kernel is given turned round."""
    outer_first: bool
    """Whether its outputs are given before its inputs, as they lie in memory."""
    across: tuple[bool, bool]
    """Whether the columns of x and those of y lie in the lanes in memory."""
    itemsizes: tuple[int, int, int]
    """Bytes of an element of x, of w and of y."""
    images: int
    """Images in a block."""
    wide: int
    """Outputs in a block."""
    even: bool = False
    """Whether the columns of a long row are to be a multiple of `MOST_ROWS`."""
    abreast: int = 1
    """Images in the sublanes, which are one here, whose columns are theirs in turn."""
    apart: int = 0
    """How far apart columns lie that are joined in one product, or 0."""

    @property
    def lies(self) -> tuple[tuple[bool, int], tuple[bool, int]]:
        """How x and y lie in memory."""
        return (self.across[0], self.abreast), (self.across[1], self.abreast)

    @property
    def steps(self) -> tuple[int, int]:
        """Blocks of images and of output channels."""
        return self.batch // self.images, -(-self.out_channels // self.wide)

    @property
    def images_first(self) -> bool:
        """Whether the kernel comes anew for each block of images, and not x for each of outputs."""
        images, outputs = self.steps
        x, w, _ = self.copied
        return images * outputs * w + images * x <= outputs * w + images * outputs * x

    @property
    def packed(self) -> bool:
        """Whether two rows of half precision fill a register."""
        return self.itemsizes[0] == 2 and up(self.columns.outputs, SUBLANES) % (2 * SUBLANES) == 0

    @property
    def pitch(self) -> int:
        """Columns that are computed, whole registers of them."""
        unit = 2 * SUBLANES if self.packed else SUBLANES
        width = up(self.columns.outputs, unit)
        if width <= MOST_ROWS:
            return width
        if self.across[1] or self.even:
            return up(width, MOST_ROWS)
        blocks = -(-width // MOST_ROWS)
        return blocks * up(-(-width // blocks), unit)

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of a block of y; the last columns may lie beyond y."""
        columns = self.pitch * self.columns.step
        return self.positions[0], up(columns, LANES) if self.across[1] else columns

    @property
    def columns_given(self) -> int:
        """Columns of a block of x; the last may lie beyond x."""
        return up(self.columns.size, LANES) if self.across[0] else self.columns.size

    @property
    def beside(self) -> int:
        """Taps of a row whose few channels lie side by side in the lanes."""
        return max(LANES // self.channels, 1) if self.channels % (2 * SUBLANES) == 0 else 1

    @property
    def sides(self) -> tuple[Side, ...]:
        """The phases of columns, those together that are one product."""
        return sides_of(self.columns, self.apart)

    def groups_of(self, side: Side | Phase) -> list[tuple[Tap, ...]]:
        """The taps of some columns, those together that lie side by side."""
        firsts = range(0, len(side.taps), self.beside)
        return [side.taps[first : first + self.beside] for first in firsts]

    @property
    def groups(self) -> int:
        """How many taps, or kernels of those that lie side by side, a row of the kernel has."""
        if not self.apart:
            return self.kernel[1]
        return sum(len(self.groups_of(side)) for side in self.sides)

    @property
    def block(self) -> tuple[int, int]:
        """Inputs and outputs of the kernel of a product."""
        return self.image[-1], len(self.sides[0].phases) * self.wide

    @property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where outputs begin to read their columns, for taps that lie side by side."""
        groups = itertools.chain(*map(self.groups_of, self.sides))
        return tuple(sorted({tuple(tap.offset for tap in group) for group in groups}))

    @property
    def window(self) -> tuple[int, int, int]:
        """Padded rows of an image, of 128 channels: steps are for single precision only."""
        columns = self.columns
        last = max(itertools.chain(*self.starts)) + columns.stride * (self.pitch - 1) + 1
        width = up(max(last, columns.lo + columns.size), SUBLANES)
        # So many that one is laid out while another is read.
        together = min(max(STAGED // width, 1), 8, self.rows.size)
        return together, width, LANES

    @property
    def image(self) -> tuple[int, ...]:
        """The padded images of a block, one below the other, for each of the starts."""
        span = max(self.rows.window(self.rows.outputs), self.rows.lo + self.rows.size)
        lanes = self.channels * max(map(len, self.starts))
        return len(self.starts), self.images, span, self.pitch, lanes

    @property
    def result(self) -> tuple[int, ...] | None:
        """Where the phases of columns are put in order."""
        if self.columns.step == 1:
            return None
        images, height, width = self.chunk
        return -(-self.wide // LANES), images, height, width * self.columns.step, LANES

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Images, rows and columns of a product."""
        if self.pitch > MOST_ROWS:
            return 1, 1, self.pitch // -(-self.pitch // MOST_ROWS)
        height = max(min(MOST_ROWS // self.pitch, self.rows.outputs), 1)
        blocks = -(-self.rows.outputs // height)
        height = -(-self.rows.outputs // blocks)
        most = MOST_ROWS // (height * self.pitch) if blocks == 1 else 1
        return _divisor(self.images, most), height, self.pitch

    @property
    def copies(self) -> tuple[int, int, int]:
        """Blocks of x, w and y that are on the chip: two of each, one being copied, if several."""
        images, outputs = self.steps
        return 1 + (images > 1), 1 + (outputs > 1), 1 + (images * outputs > 1)

    @property
    def copied(self) -> tuple[int, int, int]:
        """Bytes of a block of x, of w and of y, as they lie in tiles."""
        x, w, y = self.itemsizes
        taps = math.prod(self.kernel)
        inner, outer = up(self.channels, LANES), up(self.wide, LANES)
        image = self.rows.size * up(self.columns_given, SUBLANES)
        kernel = up(self.channels, SUBLANES) * outer
        if self.outer_first:
            kernel = up(self.wide, SUBLANES) * inner
        result = math.prod(self.outputs)
        if self.across[0]:
            inner = up(self.channels, SUBLANES)
        if self.across[1]:
            outer = up(self.wide, SUBLANES)
        return self.images * image * inner * x, taps * kernel * w, self.images * result * outer * y

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        images, outputs = self.steps
        x, w, y = self.copied
        both = images * outputs
        if self.images_first:
            return images * x + (both if outputs > 1 else 1) * w + both * y
        return (both if images > 1 else 1) * x + outputs * w + both * y

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip."""
        return sum(n * of for n, of in zip(self.copies, self.copied, strict=True)) + self.work(1)

    def work(self, padded: int) -> int:
        """Bytes in the memory on the chip beside the blocks, of some of the padded images."""
        held = 2 if self.packed else 4
        work = (
            padded * math.prod(self.image[:-1]) * up(self.image[-1], LANES) * held
            + math.prod(self.window) * 4
        )
        if self.result is not None:
            work += math.prod(self.result) * 4
        # The sums of a product, and what is rounded of them.
        return work + 2 * MOST_ROWS * up(self.block[1], LANES) * 4

    @property
    def products(self) -> int:
        """Products of 8 rows by 128 channels by 128 that are written out."""
        taps = sum(len(row.taps) for row in self.rows.phases)
        taps *= sum(len(self.groups_of(side)) for side in self.sides)
        tiles = -(-self.channels // LANES) * -(-self.block[1] // LANES)
        return taps * tiles * -(-math.prod(self.chunk) // SUBLANES)


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(most, 1))


def plan_of(problem: Problem) -> Plan | None:
    """The plan of a dense convolution along one or two axes, or None if none fits."""
    return _plan_of(problem, turned=problem.turned)


@functools.lru_cache(maxsize=1024)
def _plan_of(problem: Problem, *, turned: bool) -> Plan | None:
    # Problems are the same whether their kernels are turned or not; plans are not.
    problem = problem.replace(turned=turned)
    return next(filter(fits, plans_of(problem)), None)


def plans_of(problem: Problem, planes: int = 0) -> list[Plan]:
    """Ways to cut it into blocks, the best first.

    Of volumes it is a plane, of so many taps along the ``planes``; columns are joined there.
    """
    image, outer, first = as_image(problem), problem.out_channels, problem.channels_first
    rows, columns = (
        axis_of(n, k, p, s, d, a, lo, 1)
        for n, k, p, s, d, a, (lo, _) in zip(
            image.size,
            image.kernel,
            image.positions,
            image.stride,
            image.dilation,
            image.input_dilation,
            image.padding,
            strict=True,
        )
    )
    plan = Plan(
        batch=image.batch,
        channels=image.channels,
        out_channels=image.out_channels,
        kernel=(image.kernel[0], image.kernel[1]),
        positions=(image.positions[0], image.positions[1]),
        rows=rows,
        columns=columns,
        turned=problem.turned,
        outer_first=is_outer_first(problem),
        across=(
            is_turned(problem.size[-1], problem.channels, channels_first=first),
            is_turned(problem.positions[-1], outer, channels_first=first),
        ),
        itemsizes=sizes_of(problem),
        images=1,
        wide=outer,
    )
    if planes:
        sums = planes * max(len(phase.taps) for phase in rows.phases)
        columns, apart = joined(columns, plan.channels, outer, sums)
        # What is joined is put together in whole registers.
        first = plan.outer_first and not (apart and outer % (2 * SUBLANES))
        plan = dataclasses.replace(plan, columns=columns, apart=apart, outer_first=first)
    wides = [outer] if outer <= WIDEST or outer % LANES else []
    wides += [LANES * n for n in (4, 2, 1) if outer % (LANES * n) == 0 and LANES * n < outer]
    divisors = [d for d in range(min(problem.batch, 32), 0, -1) if problem.batch % d == 0]
    # Few images, so that one block is copied while another is computed; with the kernel in parts
    # many, as each part goes by anew for each block.
    enough = [d for d in divisors if d * rows.outputs * plan.pitch >= 2 * MOST_ROWS]
    few = [*enough[::-1], *(d for d in divisors if d not in enough)]
    return [
        dataclasses.replace(plan, images=images, wide=wide)
        for wide in wides
        for images in (few if wide == outer else divisors)
    ]


def reason(problem: Problem) -> str | None:
    """Why the kernel cannot serve a dense convolution along one or two axes, or None."""
    if (why := of_numbers(problem)) is not None:
        return why
    if problem.is_window:
        return "a window larger than the output"
    plans = plans_of(problem)
    if not plans[0].starts:
        return "no tap meets a sample"
    return None if plan_of(problem) is not None else too_large(plans)
