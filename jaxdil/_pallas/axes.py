"""One axis of an image as a kernel sees it: padded, and each of its phases with taps of its own.

    y[step q + phase] = sum_t  x~[stride q + offset_t] w[t]

x~ begins ``lo`` before x. An axis that is not dilated has one phase, in steps of 1.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxdil import _geometry

__all__ = ["LANES", "SUBLANES", "Axis", "Phase", "Tap", "axis_of", "crosses", "together", "up"]

# Of a register.
LANES, SUBLANES = 128, 8


class Tap(NamedTuple):
    """A tap of the kernel, and where the first output reads it in the padded axis."""

    tap: int
    offset: int


class Phase(NamedTuple):
    """Outputs ``phase, phase + step, ...`` of an axis, which read the same taps."""

    phase: int
    outputs: int
    taps: tuple[Tap, ...]


class Axis(NamedTuple):
    """One axis: output ``q`` of a phase reads ``stride q + offset`` of the axis padded by lo."""

    size: int
    stride: int
    step: int
    lo: int
    phases: tuple[Phase, ...]

    @property
    def outputs(self) -> int:
        """Outputs of the longest phase, which is the first."""
        return self.phases[0].outputs

    def window(self, outputs: int) -> int:
        """Positions that some outputs of every phase read, from the first to the last."""
        last = max((tap.offset for phase in self.phases for tap in phase.taps), default=0)
        return self.stride * (outputs - 1) + last + 1


def up(n: int, unit: int) -> int:
    """The least multiple of ``unit`` that is n or more."""
    return -(-n // unit) * unit


def axis_of(
    size: int,
    k: int,
    outputs: int,
    stride: int,
    dilation: int,
    input_dilation: int,
    lo: int,
    unit: int,
) -> Axis:
    """An axis whose padding before is rounded up to ``unit``."""
    found = _geometry.phases(
        k, outputs, stride=stride, dilation=dilation, input_dilation=input_dilation, lo=lo
    )
    before = up(max((phase.lo for phase in found if phase.taps), default=0), unit)
    before = max(before, 0)
    phases = []
    for phase in found:
        # Where the first output reads each tap. Taps that read padding alone are left out.
        at = [phase.dilation * u - phase.lo for u in range(phase.taps)]
        last = phase.stride * (phase.outputs - 1)
        taps = [
            Tap(phase.tap + phase.tap_step * u, before + start)
            for u, start in enumerate(at)
            if start < size and start + last >= 0
        ]
        phases.append(Phase(phase.phase, phase.outputs, tuple(taps)))
    return Axis(size, found[0].stride, found[0].step, before, tuple(phases))


def crosses(batch: int, *others: int) -> bool:
    """Whether the compiler lays examples into the lanes, which they fill better than other axes."""
    return all(up(batch, LANES) * n < batch * up(n, LANES) for n in others)


def together(batch: int, size: int) -> int:
    """How many examples the compiler lays into the sublanes of a tile; 0 if samples of an axis."""
    if size % SUBLANES == 0:
        return 0
    if batch % SUBLANES == 0:
        return SUBLANES
    return batch if batch in (2, 4) else 0
