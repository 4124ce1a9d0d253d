"""How the kernels for a TPU go through a depthwise convolution of volumes: plane by plane.

    y[n, r, p, q, c] = sum_{e, a, b}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, c]
                                      w[e, a, b, c]

Planes of x come one after the other into a ring of padded planes in the memory on the chip, as many
as the taps of the first axis reach. From them a plane of y is computed as an image is. So x is read
once, and y written once. Which axis comes first, and which lies in the sublanes, is a matter of how
the compiler lays out the larger of x and y, for a convolution does not care. The gradient by the
kernel goes through the same planes, of x and of the cotangent, which takes the place of y.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np

from jaxdil._pallas import plan_2d
from jaxdil._pallas.axes import Axis, axis_of, up
from jaxdil._pallas.plan_2d import LANES, MEMORY, SUBLANES
from jaxdil._problem import Problem

__all__ = ["ORDERS", "Plan", "Ring", "in_sublanes", "plan_of", "reason"]

# The axis in the sublanes (2 the columns, 3 the batch) -> the spatial axes in the order of memory.
ORDERS = {2: (0, 1, 2), 1: (0, 2, 1), 0: (1, 2, 0), 3: (0, 1, 2)}


@dataclasses.dataclass(frozen=True, slots=True)
class Ring:
    """Planes that come one after the other into a ring on the chip."""

    planes: Axis
    """The axis that they are of."""

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
    def steps(self) -> int:
        """Steps from the first plane of x to the last of y."""
        return self.late + self.planes.outputs


@dataclasses.dataclass(frozen=True, slots=True)
class Plan(Ring):
    """One convolution of volumes."""

    order: tuple[int, int, int]
    """The spatial axes as the kernel has them: planes, rows, columns."""
    positions: int
    """Planes of the output."""
    taps: int
    """Taps along the planes."""
    plane: plan_2d.Plan
    """A plane of each of some examples, by itself."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks of channels, examples that do not lie together, and steps along the planes."""
        return *self.plane.grid[:2], self.steps

    @property
    def doubted(self) -> int | None:
        """As of the plan of a plane."""
        (phase,) = self.planes.phases
        return self.plane.lanes if len(phase.taps) < self.taps else self.plane.doubted

    @property
    def _block(self) -> tuple[int, int]:
        """Bytes of the planes of x and of y that a step has."""
        x, y = self.plane.copied
        return x * self.planes.stride, y * self.planes.step

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip: two of each block, one being copied."""
        work = self.ring * self.plane.registers(*self.plane.image[:2])
        if self.plane.result is not None:
            work += self.plane.registers(*self.plane.result[:2])
        weights = 2 * self.taps * math.prod(self.plane.kernel)
        if self.plane.is_gradient:
            work += self.taps * math.prod(self.plane.kernel)
        return 2 * sum(self._block) + (work + weights) * SUBLANES * LANES * 4

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        x, y = self.plane.copied
        each = self.planes.size * x + up(self.positions, self.planes.step) * y
        return self.grid[0] * self.grid[1] * each


@functools.lru_cache(maxsize=1024)
def plan_of(problem: Problem) -> Plan:
    """The plan of a depthwise convolution of volumes, or of its gradient by the kernel."""
    kernel, positions, batch = problem.kernel, problem.positions, problem.batch
    stride, dilation = problem.stride, problem.dilation
    if problem.batch_groups > 1:
        # (C, *S, N) with (*P, N, C): described by the convolution that it is the gradient of.
        kernel, positions, batch = positions, kernel, problem.channels
        stride, dilation = dilation, stride
    x, y = (batch, *problem.size), (batch, *positions)
    lies = in_sublanes(max(x, y, key=math.prod), problem.x_dtype.itemsize)
    order = ORDERS[lies]
    first, *rest = order
    image = problem.replace(
        **{
            name: tuple(getattr(problem, name)[axis] for axis in rest)
            for name in ("size", "kernel", "stride", "padding", "input_dilation", "dilation")
        }
    )
    together = plan_2d.together(batch, 1) if lies == 3 else 0
    planes = axis_of(
        problem.size[first],
        kernel[first],
        positions[first],
        stride[first],
        dilation[first],
        problem.input_dilation[first],
        problem.padding[first][0],
        1,
    )
    return Plan(
        order=order,
        planes=planes,
        positions=positions[first],
        taps=kernel[first],
        plane=plan_2d.whole(image, together),
    )


def in_sublanes(sizes: tuple[int, ...], itemsize: int) -> int:
    """The axis that the compiler lays into the sublanes: the last that leaves fewest empty."""
    batch, *spatial = sizes

    def share(n: int) -> float:
        full = n in (2, 4) or (n == 1 and itemsize == 4)
        return 1 if full else up(n, SUBLANES) / n

    by_axis = {2: spatial[2], 1: spatial[1], 0: spatial[0], 3: batch}
    return min(by_axis, key=lambda axis: share(by_axis[axis]))


def reason(problem: Problem) -> str | None:
    """Why the kernels cannot serve a convolution of volumes or its kernel gradient, or None."""
    groups, gradient = max(problem.groups, problem.batch_groups), problem.batch_groups > 1
    if groups == 1:
        return "it is not depthwise"
    inner = problem.batch // groups if gradient else problem.group_channels
    if inner != 1:
        return f"{inner} channels a group, and it serves one"
    if problem.out_channels != groups:
        return f"{problem.out_channels // groups} outputs a channel, and it serves one"
    for dtype in (problem.x_dtype, problem.w_dtype, problem.out_dtype):
        if dtype not in (np.dtype(np.float32), np.dtype(jnp.bfloat16)):
            return f"{dtype}, and it serves float32 and bfloat16"
    if gradient and max(problem.input_dilation) > 1:
        return "a kernel gradient with the input dilated"
    if gradient and max(problem.positions) > plan_2d.MOST_SUMS:
        most = plan_2d.MOST_SUMS
        return f"a kernel gradient of {max(problem.positions)} taps an axis, more than {most}"
    plan = plan_of(problem)
    reach = plan.planes.window(1) - 1
    if plan.planes.lo > reach:
        return f"padding {plan.planes.lo} of planes, beyond the kernel's reach of {reach}"
    if plan.memory > MEMORY:
        return f"{plan.memory} bytes of planes in the memory on the chip, of {MEMORY}"
    return None
