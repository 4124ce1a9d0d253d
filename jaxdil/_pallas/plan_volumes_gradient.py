"""How the kernel for a TPU goes through the gradient of a dense convolution of volumes.

    dw[e, a, b, i, o] = sum_{n, r, p, q}  x~[n, s r + d e - lo, s p + d a - lo, s q + d b - lo, i]
                                          g[n, r, p, q, o]

Plane by plane: those of the one array come into a ring, from which they are read at each tap's
place, and with each plane of the other there are the products of a gradient of images. Which array
is which, and how planes are cut, is as it is of images; which axis comes first does not matter.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from jaxdil._pallas import plan_3d, plan_dense, plan_dense_gradient
from jaxdil._pallas.axes import axis_of
from jaxdil._pallas.plan_2d import MEMORY
from jaxdil._problem import Problem

__all__ = ["TOGETHER", "Plan", "plan_of", "reason"]

# Rows that are brought to their places together.
TOGETHER = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Plan(plan_3d.Ring):
    """One kernel gradient of volumes, and its blocks."""

    order: tuple[int, int, int]
    """The spatial axes as the kernel has them: planes, rows, columns."""
    taps: int
    """Taps along the planes."""
    plane: plan_dense_gradient.Plan
    """The gradient of a plane of each of some examples."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks of the channels that stay, of examples, and steps along the planes."""
        return *self.plane.steps, self.steps

    @property
    def doubted(self) -> int | None:
        """As of the plan of a plane."""
        (phase,) = self.planes.phases
        return self.plane.shape[-1] if len(phase.taps) < self.taps else self.plane.doubted

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        blocks, examples = self.plane.steps
        read, stays, dw = self.plane.copied
        planes = self.planes.size * read + self.planes.outputs * stays
        return blocks * (examples * planes + self.taps * dw)

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip."""
        plane = self.plane
        read, stays, dw = plane.copied
        blocks = 2 * (self.planes.stride * read + stays)
        blocks += (1 + (plane.steps[0] > 1)) * self.taps * dw
        return blocks + plane.images_held * self.ring + plane.others_held(self.taps)

    @property
    def products(self) -> int:
        """Products of 8 channels by 128 positions by 128 channels that are written out."""
        return self.taps * self.plane.products


@functools.lru_cache(maxsize=1024)
def plan_of(problem: Problem) -> Plan | None:
    """The plan of a kernel gradient of volumes, or None if none fits."""
    most = plan_dense_gradient.MOST_PRODUCTS
    fitting = (p for p in _plans(problem) if p.memory <= MEMORY and p.products <= most)
    return next(fitting, None)


def _plans(problem: Problem) -> list[Plan]:
    """Ways to cut it into blocks, the best first."""
    exchanged = plan_dense_gradient.is_read_in_places(problem)
    x, g = (problem.channels, *problem.size), (problem.channels, *problem.kernel)
    lies = plan_3d.in_sublanes(max(x, g, key=math.prod), problem.x_dtype.itemsize)
    order = plan_3d.ORDERS[lies]
    first, *rest = order
    plane = problem.replace(
        **{
            name: tuple(getattr(problem, name)[axis] for axis in rest)
            for name in ("size", "kernel", "stride", "padding", "input_dilation", "dilation")
        }
    )
    size, positions, taps = problem.size[first], problem.kernel[first], problem.positions[first]
    stride, dilation = problem.dilation[first], problem.stride[first]
    lo, _ = problem.padding[first]
    if exchanged:
        apart = problem.input_dilation[first]
        planes = axis_of(positions, taps, size, apart, 1, 1, taps - 1 - lo, 1)
    else:
        planes = axis_of(size, taps, positions, stride, dilation, 1, lo, 1)
    return [
        Plan(planes=planes, order=order, taps=taps, plane=each)
        for each in plan_dense_gradient.plans_of(plane, exchanged=exchanged)
    ]


def reason(problem: Problem) -> str | None:
    """Why the kernel cannot serve a dense kernel gradient of volumes, or None."""
    if (why := plan_dense.of_numbers(problem)) is not None:
        return why
    apart = max(problem.input_dilation) > 1
    if apart and max(*problem.dilation, *problem.stride) > 1:
        return "a kernel gradient with the input dilated, and a stride or a dilation"
    plans = _plans(problem)
    plan = plans[0]
    image = plan.plane.image
    if not all(axis.phases[0].taps for axis in (plan.planes, image.rows, image.columns)):
        return "no tap meets a sample"
    reach = plan.planes.window(1) - 1
    if plan.planes.lo > reach:
        return f"padding {plan.planes.lo} of planes, beyond the kernel's reach of {reach}"
    return None if plan_of(problem) is not None else plan_dense.too_large(plans)
