"""How the compiler for TPUs lays out images and kernels, if nothing else is asked of it.

Which axes lie in the lanes and which in the sublanes it decides by what leaves fewest of them
empty.
A kernel that finds its arrays as they lie costs no copy of them.
"""

from __future__ import annotations

from jaxdil._pallas.axes import crosses, up
from jaxdil._pallas.plan_1d import is_turned
from jaxdil._pallas.plan_2d import LANES, SUBLANES, together
from jaxdil._problem import Problem

__all__ = ["is_exchanged", "is_in_rows", "is_outer_first", "lies_in_rows", "yields_rows"]


def is_outer_first(problem: Problem) -> bool:
    """Whether the kernel lies in memory with its inputs in the lanes."""
    pair = problem.group_channels, problem.out_channels
    before, last = pair[::-1] if problem.turned else pair
    return problem.turned != is_exchanged(before, last)


def is_exchanged(before: int, last: int) -> bool:
    """Whether the compiler lays the axis before the last into the lanes, which it fills better."""
    return up(before, LANES) * up(last, SUBLANES) < up(last, LANES) * up(before, SUBLANES)


def lies_in_rows(problem: Problem) -> bool:
    """Whether x and y lie in memory as the kernel reads them, so that neither is copied."""
    x = problem.batch, problem.size[-1], problem.channels, problem.x_dtype.itemsize
    return is_in_rows(*x) and yields_rows(problem)


def yields_rows(problem: Problem) -> bool:
    """Whether y lies in memory as the kernel writes it."""
    y = problem.batch, problem.positions[-1], problem.out_channels, problem.out_dtype.itemsize
    return is_in_rows(*y)


def is_in_rows(batch: int, width: int, channels: int, itemsize: int) -> bool:
    """Whether columns lie in the sublanes or in the lanes, and channels in the others."""
    if (channels % SUBLANES and channels < LANES // 2) or crosses(batch, width, channels):
        return False
    single = batch == 1 and itemsize == 4 and width % SUBLANES != 0
    return is_turned(width, channels) or (together(batch, width) == 0 and not single)
