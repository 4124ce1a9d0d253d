"""How the kernels for a TPU cut a depthwise convolution along one axis into blocks.

    y[n, p, c] = sum_j  x~[n, p + d j - lo, c] w[j, c]

Channels lie in the 128 lanes of a register, time in its 8 sublanes. A block of the output needs the
same block of x and what lies just before and after it: those halos are two more blocks of x, read
again, so that the blocks depend on nothing but x and may come in any order. Rows are powers of two,
which makes a halo divide a block.

Where channels would leave lanes empty and time does not, the compiler lays out an array with time
in the lanes. It is read and written as it lies there, and turned on the chip; channels of all
examples lie beside each other then. Where time would leave sublanes empty and examples do not, it
lays these there, where they are taken one by one. A block has all that lie in a tile.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdil._pallas.axes import LANES, SUBLANES, crosses, together, up
from jaxdil._problem import Problem

__all__ = ["Plan", "is_copied", "is_turned", "plan_of", "reason", "refusal"]

# Rows of the smallest block: two to a sublane, as half precision is packed.
LEAST = 16

# Rows of a block if there are as many, and of the largest. Half a thousand rows of as many channels
# are half a megabyte of bfloat16: long enough to hide what a step of the grid costs.
ROWS, MOST_ROWS = 512, 2048

# Channels of a block; fewer where its rows are many.
CHANNELS = 512

# Frames of halo at the most, and taps: each is written out.
MOST_HALO, MOST_TAPS = 2048, 32

# Taps at the most where each frame has a mask: the chip holds one of a block for each tap.
MOST_MASKED = 8


def _power(n: int) -> int:
    """The least power of two that is n or more."""
    return 1 << max(n - 1, 0).bit_length()


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One convolution along one axis, stride 1, and its blocks."""

    batch: int
    size: int
    channels: int
    taps: int
    dilation: int
    lo: int
    hi: int
    masked: bool = False
    """Whether each frame of the output says which of the taps count for it."""
    resumed: bool = False
    """Whether frames before the first are there, and not padding."""
    turned: bool = False
    """Whether time lies in the lanes in memory; channels are those of all examples then."""
    abreast: int = 1
    """Examples in the sublanes of a tile in memory, as many as a block has; if 1, time is there."""
    rows: int = 0
    lanes: int = 0
    """Rows and channels of a block; 0 for the usual."""

    def __post_init__(self) -> None:
        """Fill in the usual block."""
        if not self.rows and self.turned:
            # All frames in one block, which then has no halo, or few halos.
            whole = up(max(self.size, self.positions), LANES)
            object.__setattr__(self, "rows", min(whole, MOST_ROWS))
        if not self.rows:
            halo = max(self.before, self.after)
            # A mask comes with time in the lanes, and is turned a square at a time.
            least = LANES if self.masked else LEAST
            most = MOST_ROWS // self.abreast
            wanted = min(max(ROWS, _power(4 * halo)), _power(self.positions), most)
            wanted = max(wanted, least)
            object.__setattr__(self, "rows", max(wanted, halo))
        if not self.lanes:
            most = CHANNELS * ROWS // max(self.rows * self.abreast, ROWS) // LANES * LANES
            whole = up(self.channels, LANES)
            # Of channels that fill no tile a block of examples abreast has one.
            single = self.abreast > 1 and self.channels % LANES
            object.__setattr__(self, "lanes", LANES if single else max(min(most, whole), LANES))

    @property
    def reach(self) -> int:
        """Frames from the first tap to the last."""
        return (self.taps - 1) * self.dilation

    @property
    def positions(self) -> int:
        """Frames of the output."""
        return self.size + self.lo + self.hi - self.reach

    @property
    def before(self) -> int:
        """Rows of the halo before a block, 0 for none."""
        return max(_power(self.lo), self._least) if self.lo else 0

    @property
    def after(self) -> int:
        """Rows of the halo after a block, 0 for none."""
        ahead = self.reach - self.lo
        return max(_power(ahead), self._least) if ahead > 0 else 0

    @property
    def _least(self) -> int:
        return LANES if self.turned else SUBLANES if self.abreast > 1 else LEAST

    @property
    def alone(self) -> bool:
        """Whether a block has all frames, so that its halos are padding and nothing is read."""
        return max(self.size, self.positions) <= self.rows

    @property
    def windows(self) -> int:
        """Blocks of x that a step reads: one, and a halo on either side that has one."""
        return 1 if self.alone else 1 + (self.before > 0) + (self.after > 0)

    @property
    def window(self) -> int:
        """Rows of a block with its halos."""
        return self.before + self.rows + self.after

    def bytes(self, x_size: int, y_size: int) -> int:
        """Bytes read and written, halos and masks too, for numbers of so many bytes."""
        time = self.blocks[2]
        halos = 0 if self.alone else time * (self.before + self.after)
        read = self.size + halos + self.resumed * self.lo
        each = read * x_size + self.positions * y_size
        masks = time * self.rows * 4 if self.masked else 0
        return self.batch * (self.channels * each + self.blocks[1] * masks)

    def row(self, tap: int) -> int:
        """The row of the window that a tap meets for the first frame of a block."""
        return self.before - self.lo + tap * self.dilation

    @property
    def padded(self) -> list[tuple[int, int, int]]:
        """Where a window has padding that an output reads: block, first row, row after the last."""
        padding = self.lo and not self.resumed
        spans = [(0, self.before - self.lo, self.before)] if padding else []
        for block in range(self.blocks[2] if self.hi > 0 else 0):
            end = self.size - block * self.rows + self.before
            first, stop = max(end, 0), min(end + self.hi, self.window)
            spans += [(block, first, stop)] if first < stop else []
        return spans

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Blocks along batch, channels and time."""
        examples = self.batch // self.abreast
        return examples, -(-self.channels // self.lanes), -(-self.positions // self.rows)


def plan_of(problem: Problem) -> Plan:
    """The plan of a depthwise convolution or of its kernel gradient."""
    ((lo, hi),), size = problem.padding, problem.size[0]
    batch, channels = problem.batch, problem.channels
    taps, dilation = problem.kernel[0], problem.dilation[0]
    if problem.batch_groups > 1:
        # x (C, T, N) with w (P, N, C): taps are the positions, which lie `stride` apart.
        batch, channels = channels, batch
        taps, dilation = problem.positions[0], problem.stride[0]
        hi -= _rest(problem)
    first = problem.channels_first and problem.batch_groups == 1
    if is_turned(size, channels, channels_first=first):
        return Plan(1, size, batch * channels, taps, dilation, lo, hi, turned=True)
    plan = Plan(batch, size, channels, taps, dilation, lo, hi)
    plan = dataclasses.replace(plan, abreast=_abreast(plan), rows=0, lanes=0)
    far = plan.abreast * max(plan.before, plan.after) > MOST_HALO
    return dataclasses.replace(plan, abreast=1, rows=0, lanes=0) if far else plan


def _abreast(plan: Plan) -> int:
    """Examples in the sublanes of a tile of x and of y whose lanes are channels, 1 if none."""
    # Else time lies in the lanes, and channels between the examples where they are no whole tiles.
    if is_turned(plan.size, plan.channels, unit=1) or not together(plan.batch, plan.size):
        return 1
    return together(plan.batch, plan.positions) or 1


def is_copied(problem: Problem) -> bool:
    """Whether the kernel costs copies that lax, as it is, is cheaper than.

    Examples lie in the lanes; or in the sublanes, also those of y, which takes several times as
    long to copy as x, and reach too far for a block of all. Of 2 and 4 that is no reason unless the
    kernel reaches far for their length, where lax is quick.
    """
    if crosses(problem.batch, problem.channels, problem.size[0]):
        return True
    plan = plan_of(problem)
    near = problem.batch % SUBLANES != 0 and 8 * plan.reach <= problem.size[0]
    return not plan.turned and plan.abreast < _abreast(plan) and not near


def is_turned(
    size: int, channels: int, *, channels_first: bool = False, unit: int = SUBLANES
) -> bool:
    """Whether the compiler lays out (N, T, C) with time in the lanes, whole tiles of channels.

    Of two that fill the lanes alike it takes the last axis, and that of (N, C, T) is time.
    """
    turned, straight = up(size, LANES) * channels, size * up(channels, LANES)
    fuller = turned <= straight if channels_first else turned < straight
    return channels % unit == 0 and fuller


def _rest(problem: Problem) -> int:
    """Frames after the last that a kernel gradient reads."""
    ((lo, hi),) = problem.padding
    return (
        problem.size[0]
        + lo
        + hi
        - problem.kernel[0]
        - ((problem.positions[0] - 1) * problem.stride[0])
    )


def reason(problem: Problem) -> str | None:
    """Why the kernels cannot serve a convolution along one axis, or None."""
    groups = max(problem.groups, problem.batch_groups)
    if min(problem.groups, problem.batch_groups) > 1 or groups == 1:
        return "it is not depthwise"
    stride, dilation = problem.stride[0], problem.dilation[0]
    step = dilation if problem.batch_groups > 1 else stride
    if step != 1:
        return f"a stride of {step}, and it serves 1"
    if problem.input_dilation[0] != 1:
        return "the input is dilated"
    return refusal(plan_of(problem), problem.x_dtype, problem.w_dtype, problem.out_dtype)


def refusal(plan: Plan, *dtypes: Any) -> str | None:
    """Why the kernels cannot serve a plan for arrays of these dtypes, or None."""
    for dtype in dtypes:
        if dtype not in (np.dtype(np.float32), np.dtype(jnp.bfloat16)):
            return f"{dtype}, and it serves float32 and bfloat16"
    most = MOST_MASKED if plan.masked else MOST_TAPS
    if plan.taps > most:
        return f"{plan.taps} taps, more than {most}"
    if max(plan.lo, plan.hi) > plan.reach:
        return f"padding {max(plan.lo, plan.hi)}, beyond the kernel's reach of {plan.reach}"
    if max(plan.before, plan.after) > MOST_HALO:
        return f"a reach of {max(plan.lo, plan.reach - plan.lo)} frames, more than {MOST_HALO}"
    return None
