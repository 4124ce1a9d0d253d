"""How the kernel for a TPU goes through a dense convolution of volumes: plane by plane.

    y[n, r, p, q, o] = sum_{e, a, b, i}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, i]
                                         w[e, a, b, i, o]

Planes of x come one after the other into a ring of padded planes in the memory on the chip, each as
the image of a dense convolution lies there. From them a plane of y is computed as an image is, with
the taps along the planes in the same sum. Which axis comes first, and which lies in the sublanes,
is a matter of how the compiler lays out the larger of x and y.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from jaxdil._pallas import plan_dense
from jaxdil._pallas.asked import fits, of_numbers, too_large
from jaxdil._pallas.axes import Axis, axis_of, up
from jaxdil._pallas.plan_1d import is_turned
from jaxdil._pallas.plan_3d import ORDERS, in_sublanes
from jaxdil._pallas.plan_dense import LANES
from jaxdil._problem import Problem

__all__ = ["Plan", "arranged", "plan_of", "reason"]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One dense convolution of volumes."""

    order: tuple[int, int, int]
    """The spatial axes as the kernel has them: planes, rows, columns."""
    planes: Axis
    positions: int
    """Planes of the output."""
    taps: int
    """Taps along the planes."""
    plane: plan_dense.Plan
    """A plane of each of some examples, by itself."""

    @property
    def ring(self) -> int:
        """Planes in the memory on the chip: those that a step reads, or those that come with it."""
        return max(self.planes.window(1), self.planes.stride)

    @property
    def late(self) -> int:
        """Steps before the first that has outputs: planes come, as many as the stride at a time."""
        planes = self.planes
        missing = planes.window(1) - planes.stride - planes.lo
        return max(-(-missing // planes.stride), 0)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks of output channels, of examples, and steps along the planes."""
        examples, outputs = self.plane.steps
        return outputs, examples, self.late + self.planes.outputs

    @property
    def copied(self) -> tuple[int, int, int]:
        """Bytes of the planes of x, of w and of the planes of y that a step has."""
        x, w, y = self.plane.copied
        return x * self.planes.stride, w * self.taps, y * self.planes.step

    @property
    def joint(self) -> tuple[int, int, int] | None:
        """The kernel of columns that are joined, in the memory on the chip."""
        if not self.plane.apart:
            return None
        block = self.plane.block
        taps = self.taps * self.plane.kernel[0] * self.plane.groups
        return (taps, *(block[::-1] if self.plane.outer_first else block))

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip: two of each block, one being copied."""
        x, w, y = self.copied
        kernels = 1 + (self.grid[0] > 1)
        work = self.plane.work(self.ring)
        if self.joint is not None:
            taps, before, last = self.joint
            work += taps * before * up(last, LANES) * self.plane.itemsizes[1]
        return work + 2 * (x + y) + kernels * w

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        x, w, y = self.plane.copied
        outputs, examples, _ = self.grid
        each = self.planes.size * x + up(self.positions, self.planes.step) * y
        return outputs * (examples * each + self.taps * w)

    @property
    def products(self) -> int:
        """Products of 8 rows by 128 channels by 128 that are written out."""
        return self.plane.products * sum(len(phase.taps) for phase in self.planes.phases)


def plan_of(problem: Problem, *, join: bool = True) -> Plan | None:
    """The plan of a dense convolution of volumes, or None if none fits.

    Columns may be joined, where there is a plan without that too.
    """
    plan = _plan_of(problem, turned=problem.turned, join=False)
    if plan is None or not join:
        return plan
    return _plan_of(problem, turned=problem.turned, join=True) or plan


@functools.lru_cache(maxsize=1024)
def _plan_of(problem: Problem, *, turned: bool, join: bool) -> Plan | None:
    # Problems are the same whether their kernels are turned or not; plans are not.
    plans = _plans(problem.replace(turned=turned), join=join)
    return next(filter(fits, plans), None)


def _plans(problem: Problem, *, join: bool = False) -> list[Plan]:
    """Ways to cut it into blocks, the best first."""
    order = _order_of(problem)
    problem = arranged(problem, order)
    planes = axis_of(
        problem.size[0],
        problem.kernel[0],
        problem.positions[0],
        problem.stride[0],
        problem.dilation[0],
        problem.input_dilation[0],
        problem.padding[0][0],
        1,
    )
    return [
        Plan(
            order=order,
            planes=planes,
            positions=problem.positions[0],
            taps=problem.kernel[0],
            plane=plane,
        )
        for plane in plan_dense.plans_of(
            arranged(problem, (1, 2)), problem.kernel[0] if join else 0
        )
    ]


def _order_of(problem: Problem) -> tuple[int, int, int]:
    """The order of the axes in which the larger of x and y lies in memory."""
    x = problem.batch, *problem.size, problem.channels
    y = problem.batch, *problem.positions, problem.out_channels
    *sizes, channels = max(x, y, key=math.prod)
    if is_turned(sizes[-1], channels, channels_first=problem.channels_first):
        return 0, 1, 2
    return ORDERS[in_sublanes((sizes[0], *sizes[1:]), problem.x_dtype.itemsize)]


def arranged(problem: Problem, order: tuple[int, ...]) -> Problem:
    """The problem of some of its spatial axes, in an order."""
    names = ("size", "kernel", "stride", "padding", "input_dilation", "dilation")
    held = {name: tuple(getattr(problem, name)[axis] for axis in order) for name in names}
    return problem.replace(**held)


def reason(problem: Problem) -> str | None:
    """Why the kernel cannot serve a dense convolution of volumes, or None."""
    if (why := of_numbers(problem)) is not None:
        return why
    if problem.is_window:
        return "a window larger than the output"
    plans = _plans(problem)
    planes = plans[0].planes
    if not plans[0].plane.starts or not any(phase.taps for phase in planes.phases):
        return "no tap meets a sample"
    reach = planes.window(1) - 1
    if planes.lo > reach:
        return f"padding {planes.lo} of planes, beyond the kernel's reach of {reach}"
    return None if plan_of(problem) is not None else too_large(plans)
