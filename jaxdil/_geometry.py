"""Integers only: how large, how much padding, which positions. No arrays, no JAX.

    k_eff = d (k - 1) + 1                       extent of a dilated kernel
    n_eff = a (n - 1) + 1                       extent of a dilated input (0 if n = 0)
    P     = floor((n_eff + lo + hi - k_eff) / s) + 1

for n inputs, k taps, stride s, kernel dilation d, input dilation a and padding (lo, hi).
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = [
    "Phase",
    "crop_negative",
    "dilated_size",
    "meeting",
    "meetings",
    "output_size",
    "phases",
    "progressions",
    "string_padding",
]


def dilated_size(n: int, dilation: int) -> int:
    """Extent of ``n`` samples spread apart: ``dilation * (n - 1) + 1``, or 0 if there are none."""
    return dilation * (n - 1) + 1 if n else 0


def output_size(
    n: int, k: int, *, stride: int, dilation: int, padding: tuple[int, int], input_dilation: int = 1
) -> int:
    """Number of positions, ``stride`` apart, at which the kernel lies inside the padded input."""
    room = dilated_size(n, input_dilation) + sum(padding) - dilated_size(k, dilation)
    return max(room // stride + 1, 0)


def string_padding(name: str, n: int, k_eff: int, stride: int) -> tuple[int, int]:
    """Padding (lo, hi) of one axis by name, for ``n`` inputs and a kernel that spans ``k_eff``."""
    match name:
        case "VALID":
            return 0, 0
        case "CAUSAL":
            return k_eff - 1, 0
        case "REVERSE_CAUSAL":
            return 0, k_eff - 1
        case "FULL":
            return k_eff - 1, k_eff - 1
    # SAME: ceil(n / stride) outputs. The odd sample goes to the end; SAME_LOWER puts it at the
    # start.
    total = max((-(-n // stride) - 1) * stride + k_eff - n, 0)
    half = total // 2
    return (half, total - half) if name == "SAME" else (total - half, half)


def crop_negative(n: int, input_dilation: int, lo: int, hi: int) -> tuple[int, int, int, int]:
    """Negative padding as a slice: ``(start, stop, lo, hi)`` with both pads >= 0.

    Cutting ``c`` positions off a dilated row removes ``ceil(c / a)`` samples and leaves
    ``a * ceil(c / a) - c`` inserted zeros in front of the next one, which is padding again.

    >>> crop_negative(5, 1, -2, 0)
    (2, 5, 0, 0)
    >>> crop_negative(5, 2, -3, 1)
    (2, 5, 1, 1)
    """
    first, last = max(-(lo // input_dilation), 0), max(-(hi // input_dilation), 0)
    # A row that is cut away altogether has no samples left whose distance to the edge could be
    # told.
    if first + last >= n:
        return 0, 0, max(dilated_size(n, input_dilation) + lo + hi, 0), 0
    return first, n - last, lo + first * input_dilation, hi + last * input_dilation


class Phase(NamedTuple):
    """Outputs ``phase, phase + step, ...`` of one axis, which all read the same taps of the kernel.

    Output ``phase + step * q`` is ``sum_u x[stride * q + dilation * u - lo] * w[tap + tap_step *
    u]``, ``taps`` terms long: a convolution of the undilated input. No terms: the output is zero.
    """

    phase: int
    step: int
    outputs: int
    tap: int
    tap_step: int
    taps: int
    stride: int
    dilation: int
    lo: int


def phases(
    k: int, positions: int, *, stride: int, dilation: int, input_dilation: int, lo: int
) -> list[Phase]:
    """The phases of one axis with input dilation ``a``: its outputs grouped by the taps they read.

    Output p and tap t meet a sample only where ``stride p + dilation t - lo`` is a multiple of
    ``a``. Along p that repeats every ``a / gcd(stride, a)``, along t every ``a / gcd(dilation,
    a)``.
    """
    a = input_dilation
    step, tap_step = a // math.gcd(stride, a), a // math.gcd(dilation, a)
    found = []
    for phase in range(min(step, positions)):
        taps = [t for t in range(min(tap_step, k)) if (stride * phase + dilation * t - lo) % a == 0]
        tap = taps[0] if taps else 0
        found.append(
            Phase(
                phase=phase,
                step=step,
                outputs=-(-(positions - phase) // step),
                tap=tap,
                tap_step=tap_step,
                taps=-(-(k - tap) // tap_step) if taps else 0,
                stride=stride * step // a,
                dilation=dilation * tap_step // a,
                lo=-(stride * phase + dilation * tap - lo) // a if taps else 0,
            )
        )
    return found


class Progression(NamedTuple):
    """Where one output meets samples along an axis: kernel taps and samples, both evenly spaced.

    The ``terms`` pairs are (tap + tap_step * u, sample + sample_step * u) for u = 0, 1, ...
    """

    tap: int
    tap_step: int
    sample: int
    sample_step: int
    terms: int


def progressions(
    n: int, k: int, positions: int, *, stride: int, dilation: int, lo: int, input_dilation: int = 1
) -> list[Progression]:
    """For each output position of one axis, the taps that meet a sample, and which sample."""
    found = []
    for phase in phases(
        k, positions, stride=stride, dilation=dilation, input_dilation=input_dilation, lo=lo
    ):
        for q in range(phase.outputs):
            # Samples j(u) = at + dilation u, wanted inside [0, n).
            at = phase.stride * q - phase.lo
            first = max(-(at // phase.dilation), 0)
            last = min(phase.taps, -((at - n) // phase.dilation))
            if last <= first:
                progression = Progression(0, 1, 0, 1, 0)
            else:
                progression = Progression(
                    tap=phase.tap + phase.tap_step * first,
                    tap_step=phase.tap_step,
                    sample=at + phase.dilation * first,
                    sample_step=phase.dilation,
                    terms=last - first,
                )
            found.append((phase.phase + phase.step * q, progression))
    return [progression for _, progression in sorted(found, key=lambda pair: pair[0])]


def meetings(
    n: int, k: int, positions: int, *, stride: int, dilation: int, lo: int, input_dilation: int = 1
) -> int:
    """Number of (output, tap) pairs of one axis that meet a sample; the others meet a zero."""
    # The relation is symmetric in tap and output; walk whichever is shorter.
    if positions > k:
        k, positions, stride, dilation = positions, k, dilation, stride
    return sum(
        p.terms
        for p in progressions(
            n, k, positions, stride=stride, dilation=dilation, lo=lo, input_dilation=input_dilation
        )
    )


def meeting(n: int, k: int, positions: int, *, stride: int, dilation: int, lo: int) -> range:
    """The taps of one axis from the first that meets a sample at some position to the last.

    With tap and position exchanged, and dilation and stride, the positions that meet a sample.

    >>> meeting(1, 3, 1, stride=1, dilation=1, lo=1)
    range(1, 2)
    """

    def meets(tap: int) -> bool:
        at = dilation * tap - lo
        position = max(-(at // stride), 0)
        return position < positions and at + stride * position < n

    first = next((tap for tap in range(k) if meets(tap)), 0)
    after = next((tap + 1 for tap in reversed(range(k)) if meets(tap)), 0)
    return range(first, after)
