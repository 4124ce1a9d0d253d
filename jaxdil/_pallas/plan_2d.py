"""How the kernels for a TPU cut a depthwise convolution of images into blocks, and at what cost.

    y[n, p, q, c] = sum_{a, b}  x~[n, s p + d a - lo, s q + d b - lo, c] w[a, b, c]

Channels lie in the 128 lanes of a register, and in its 8 sublanes image columns, or images where
those fill it better: the compiler lays out an array by the same rule if nothing else is wanted. A
block is some rows of some images, 128 channels or a multiple. Where an image does not fit, or where
copying and computing would wait for each other, it is cut into blocks of rows, and the rows that
two of them need are read twice. Of all the ways to cut, the one of the fewest cycles is taken.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from jaxdil._pallas.axes import LANES, SUBLANES, Axis, axis_of, crosses, together, up
from jaxdil._problem import Problem

__all__ = [
    "LANES",
    "MEMORY",
    "MOST_SUMS",
    "SUBLANES",
    "Plan",
    "lies_across",
    "one_lies_across",
    "plan_of",
    "plans_of",
    "reason",
    "together",
    "whole",
]

# Bytes that a program may have in the memory on the chip, of 16 MiB that the compiler grants; what
# is left is for registers that it spills.
MEMORY = 14 * 2**20

# Taps of one axis of a kernel gradient at the most: each is a sum that stays in registers.
MOST_SUMS = 25

# Bytes that a v5e copies to or from its memory in a cycle: the plan is made for the chip with the
# least of them.
BYTES_A_CYCLE = 546

# Bytes that the compiler brings into another order in a cycle, by its own estimate.
REORDERED = 80

# Cycles of a step of the grid beside its work, and words of instructions for a register: staged,
# staged at an edge, rounded, and for each tap. So the listings of the compiler for a v5e have it
# (docs/accelerators.md): four vector operations to a word, and a tap is two.
STEP, TILE = 400, 60
STAGED, CHECKED, COPIED, TAP, CORRELATED = 1.3, 1.9, 1.3, 0.56, 0.6


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One convolution of images, or the gradient by its kernel, and its blocks."""

    batch: int
    channels: int
    kernel: tuple[int, int]
    positions: tuple[int, int]
    rows: Axis
    columns: Axis
    is_gradient: bool
    itemsizes: tuple[int, int]
    """Bytes of an element of x, and of one of y or of the cotangent."""
    together: int
    """Images that lie in the sublanes of a register; 0 where columns do."""
    height: int
    """Outputs of each phase of the rows in a block."""
    images: int
    """Images in a block, or groups of those that lie together."""
    tiles: int
    """Multiples of 128 channels in a block."""
    crossed: bool = False
    """Whether channels and images have changed places: images lie in the lanes in memory."""

    @property
    def all_tiles(self) -> int:
        """Multiples of 128 channels."""
        return -(-self.channels // LANES)

    @property
    def lanes(self) -> int:
        """Channels that are computed together."""
        return min(self.channels, LANES)

    @property
    def wide(self) -> int:
        """Channels of a block."""
        return self.lanes * self.tiles

    @property
    def blocks(self) -> int:
        """Blocks of rows in an image."""
        return -(-self.rows.outputs // self.height)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks of channels, of images and of rows."""
        images = self.images * max(self.together, 1)
        return self.all_tiles // self.tiles, self.batch // images, self.blocks

    @property
    def window(self) -> int:
        """Rows of x in a block."""
        if self.blocks == 1:
            return self.rows.size
        return min(self.rows.window(self.height), self.rows.size)

    @property
    def out_rows(self) -> int:
        """Rows of y, or of the cotangent, in a block."""
        return min(self.height * self.rows.step, self.positions[0])

    @property
    def doubted(self) -> int | None:
        """Channels of a gradient, if rows beyond its last are read, or some tap meets no sample."""
        (rows,), (columns,) = self.rows.phases, self.columns.phases
        met = len(rows.taps) * len(columns.taps) == self.kernel[0] * self.kernel[1]
        return None if met and rows.outputs % self.height == 0 else self.lanes

    @property
    def image(self) -> tuple[int, ...]:
        """The padded image of a block, in the memory on the chip."""
        span, columns = self.rows.window(self.height), self.columns
        if self.blocks == 1:
            span = max(span, self.rows.lo + self.rows.size)
        pitch = max(columns.window(columns.outputs), columns.lo + columns.size)
        if self.together:
            return span, pitch, self.together, self.lanes
        return span, up(pitch, SUBLANES), self.lanes

    @property
    def result(self) -> tuple[int, ...] | None:
        """Where phases are put in order before they are rounded: steps are for float32 only."""
        if self.rows.step == self.columns.step == 1:
            return None
        if self.together:
            return self.out_rows, self.positions[1], self.together, self.lanes
        return self.out_rows, up(self.positions[1], SUBLANES), self.lanes

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip: two of each block, one being copied."""
        taps, register = math.prod(self.kernel), SUBLANES * LANES * 4
        x, y = self.copied
        work = self.registers(*self.image[:2])
        if self.result is not None:
            work += self.registers(*self.result[:2])
        if self.is_gradient:
            work += taps * self.tiles
        if self.crossed:
            work += taps
        return 2 * (x + y) + (work + 2 * taps * self.tiles) * register

    def registers(self, rows: int, columns: int) -> int:
        """Registers that some rows of some columns fill."""
        return rows * (columns if self.together else -(-columns // SUBLANES))

    @property
    def copied(self) -> tuple[int, int]:
        """Bytes of a block of x, and of y or the cotangent, as they lie in tiles."""
        each = self.images * up(self.wide, LANES) * (self.together or SUBLANES)
        x = self.registers(self.window, self.columns.size) * self.itemsizes[0]
        y = self.registers(self.out_rows, self.positions[1]) * self.itemsizes[1]
        return each * x, each * y

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        return math.prod(self.grid) * sum(self.copied)

    @property
    def reordered(self) -> int:
        """Bytes of x and y that lie in another order, unless what is around can do without."""
        x, y = (
            self.batch * size[0] * size[1] * self.channels * itemsize
            for size, itemsize in zip(
                ((self.rows.size, self.columns.size), self.positions), self.itemsizes, strict=True
            )
        )
        if self.crossed:
            return 0
        usual_x = together(self.batch, self.columns.size)
        usual_y = together(self.batch, self.positions[1])
        return x * (usual_x != self.together) + y * (usual_y != self.together)

    @property
    def instructions(self) -> int:
        """Bundles of instructions of a step of the grid."""
        taps = outputs = 0
        for row in self.rows.phases:
            height = min(self.height, row.outputs)
            for column in self.columns.phases:
                registers = self.registers(height, column.outputs)
                outputs += registers
                taps += registers * len(row.taps) * len(column.taps)
        staged = self.registers(self.window, self.columns.size)
        work = staged * (STAGED if self.blocks == 1 else CHECKED)
        if self.is_gradient:
            work += taps * CORRELATED
        else:
            work += taps * TAP
        if self.result is not None:
            work += outputs * COPIED
        return math.ceil(self.images * self.tiles * (work + TILE))

    def cycles(self, bytes_a_cycle: float = BYTES_A_CYCLE) -> int:
        """Estimated cycles: each step copies one block and computes another, whichever is longer.

        The first block must have come and the last be written before and after that.
        """
        x, y = self.copied
        copied = (x + y) / bytes_a_cycle
        each = max(copied, self.instructions) + STEP
        cleared = self.grid[0] * self.registers(*self.image[:2])
        reordered = self.reordered / REORDERED
        return math.ceil(math.prod(self.grid) * each + copied + cleared + reordered)


# --- from a problem -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def plan_of(problem: Problem) -> Plan | None:
    """The plan of the fewest cycles of a convolution or kernel gradient; None if none fits."""
    fitting = [plan for plan in plans_of(problem) if plan.memory <= MEMORY]
    return min(fitting, key=Plan.cycles, default=None)


def plans_of(problem: Problem, orders: set[int] | None = None) -> Iterator[Plan]:
    """All ways to cut a convolution into blocks that are looked at, of images together or not."""
    gradient = problem.batch_groups > 1
    # A kernel gradient (C, H, W, N) with (P, Q, N, C) is described by the convolution that it is
    # the gradient of.
    kernel, positions = problem.kernel, problem.positions
    stride, dilation = problem.stride, problem.dilation
    batch, channels = problem.batch, problem.channels
    if gradient:
        kernel, positions = positions, kernel
        stride, dilation = dilation, stride
        batch, channels = channels, batch
    y_dtype = problem.w_dtype if gradient else problem.out_dtype
    usual = {together(batch, size) for size in (problem.size[1], positions[1])}
    # Where only one of x and y lies with images together, as an image that was padded for a stride
    # does, what is around it in a network has columns there, like the other one.
    usual = usual | {0} if len(usual) == 1 else {0}
    crossed = not gradient and lies_across(problem) and channels % SUBLANES == 0
    if crossed and orders is None:
        batch, channels, usual = channels, batch, {SUBLANES}
    for beside in sorted(usual if orders is None else orders):
        rows, columns = (
            axis_of(n, k, p, s, d, a, lo, unit)
            for n, k, p, s, d, a, (lo, _), unit in zip(
                problem.size,
                kernel,
                positions,
                stride,
                dilation,
                problem.input_dilation,
                problem.padding,
                (1, 1 if beside else SUBLANES),
                strict=True,
            )
        )
        plan = Plan(
            batch=batch,
            channels=channels,
            kernel=(kernel[0], kernel[1]),
            positions=(positions[0], positions[1]),
            rows=rows,
            columns=columns,
            is_gradient=gradient,
            itemsizes=(problem.x_dtype.itemsize, y_dtype.itemsize),
            together=beside,
            height=rows.outputs,
            images=1,
            tiles=1,
            crossed=crossed and orders is None,
        )
        # Rows are computed eight at a time.
        heights = {up(-(-rows.outputs // blocks), 8) for blocks in range(2, 33)}
        for tiles in _divisors(plan.all_tiles):
            # Each eight channels have weights of their own.
            for images in [1] if plan.crossed else _divisors(batch // max(beside, 1)):
                yield dataclasses.replace(plan, tiles=tiles, images=images)
            for height in sorted(h for h in heights if h < rows.outputs):
                yield dataclasses.replace(plan, tiles=tiles, height=height)


def lies_across(problem: Problem) -> bool:
    """Whether images lie in the lanes, of x and of y."""
    sizes = problem.size, problem.positions
    return all(crosses(problem.batch, problem.channels, *size) for size in sizes)


def one_lies_across(problem: Problem) -> bool:
    """Whether images lie in the lanes, of x or of y."""
    x, y = (problem.channels, *problem.size), (problem.out_channels, *problem.positions)
    return crosses(problem.batch, *x) or crosses(problem.batch, *y)


def whole(problem: Problem, beside: int) -> Plan:
    """The plan whose blocks are one image, or ``beside`` together, of 128 channels."""
    plans = plans_of(problem, {beside})
    return next(p for p in plans if p.tiles == p.images == p.blocks == 1)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, min(n, 16) + 1) if n % d == 0]


def reason(problem: Problem) -> str | None:
    """Why the kernels cannot serve a convolution of images, or None."""
    groups = max(problem.groups, problem.batch_groups)
    gradient = problem.batch_groups > 1
    if min(problem.groups, problem.batch_groups) > 1 or groups == 1:
        return "it is not depthwise"
    for dtype in (problem.x_dtype, problem.w_dtype, problem.out_dtype):
        if dtype not in (np.dtype(np.float32), np.dtype(jnp.bfloat16)):
            return f"{dtype}, and it serves float32 and bfloat16"
    if gradient and max(problem.input_dilation) > 1:
        return "a kernel gradient with the input dilated"
    if gradient and max(problem.positions) > MOST_SUMS:
        return f"a kernel gradient of {max(problem.positions)} taps an axis, more than {MOST_SUMS}"
    if plan_of(problem) is None:
        least = min(plan.memory for plan in plans_of(problem))
        return f"{least} bytes of a block and its halo in the memory on the chip, of {MEMORY}"
    return None
