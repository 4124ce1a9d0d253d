"""The window of one call: its geometry resolved together, and refused where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxdil import _arguments, _geometry, _padding
from jaxdil._arguments import Layout
from jaxdil._errors import error

__all__ = ["Window", "check_channels", "check_taps", "forward"]

# Paddings under which stride 1 keeps the size.
KEEPING = ("SAME", "SAME_LOWER", "CAUSAL", "REVERSE_CAUSAL")


class Window(NamedTuple):
    """Geometry of a convolution, an entry for each spatial axis."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    groups: int

    @property
    def extent(self) -> tuple[int, ...]:
        """Size of the input with its inserted zeros."""
        return tuple(map(_geometry.dilated_size, self.size, self.input_dilation))

    @property
    def kernel_extent(self) -> tuple[int, ...]:
        """k_eff, the size of the dilated kernel."""
        return tuple(map(_geometry.dilated_size, self.kernel, self.dilation))


def forward(
    where: str,
    layout: Layout,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    padding: Any,
    stride: Any = 1,
    dilation: Any = 1,
    input_dilation: Any = 1,
    groups: Any = 1,
) -> Window:
    """The window of a convolution of x (one batch axis) with w, every argument checked."""
    _, size, channels = layout.image(x_shape)
    kernel, inner, outer = layout.window(w_shape)
    check_taps(where, kernel)
    if groups is None:  # what the channels say, if they say anything
        groups = channels // inner if inner and channels and channels % inner == 0 else 1
    groups = _arguments.integer(where, "groups", groups, least=1)
    check_channels(where, channels, inner, outer, groups)
    axes = {
        "stride": _arguments.integers(where, "stride", stride, layout.rank),
        "dilation": _arguments.integers(where, "dilation", dilation, layout.rank),
        "input_dilation": _arguments.integers(where, "input_dilation", input_dilation, layout.rank),
    }
    entries = _padding.entries(where, padding, layout)
    pads = _padding.paddings(where, entries, size=size, kernel=kernel, **axes)
    positions = _positions(where, entries, size=size, kernel=kernel, padding=pads, **axes)
    return Window(size, kernel, **axes, padding=pads, positions=positions, groups=groups)


def check_taps(where: str, kernel: Sequence[int]) -> None:
    """Raise if a kernel has no tap on some axis."""
    if 0 in kernel:
        raise ValueError(
            error(where, f"w must have at least one tap an axis, got a kernel of {tuple(kernel)}")
        )


def check_channels(where: str, channels: int, inner: int, outer: int, groups: int) -> None:
    """Raise unless w (*K, inner, outer) serves x with so many channels in so many groups."""
    if inner * groups != channels:
        divides = inner and channels % inner == 0
        raise ValueError(
            error(
                where,
                f"x has {channels} channels, but w with {inner} input channels and groups={groups} "
                f"takes {inner * groups}",
                f"Pass groups={channels // inner}."
                if divides
                else "The input channels of w must be the channels of x divided by groups.",
            )
        )
    if outer % groups:
        raise ValueError(
            error(
                where,
                f"groups must divide the {outer} output channels of w, got groups={groups}",
            )
        )


def _positions(
    where: str,
    entries: Sequence[Any],
    *,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    input_dilation: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> tuple[int, ...]:
    """The output size; raise where the kernel fits nowhere."""
    positions = []
    for axis, (n, k, s, d, a, (lo, hi)) in enumerate(
        zip(size, kernel, stride, dilation, input_dilation, padding, strict=True)
    ):
        count = _geometry.output_size(
            n, k, stride=s, dilation=d, padding=(lo, hi), input_dilation=a
        )
        # Padding that keeps the size keeps nothing of nothing: ceil(0 / s) = 0 outputs is right.
        kept = n == 0 and _padding.name_of(entries[axis]) in KEEPING
        if count == 0 and not kept:
            extent, k_eff = _geometry.dilated_size(n, a), _geometry.dilated_size(k, d)
            raise ValueError(
                error(
                    where,
                    f"the kernel does not fit into the input on spatial axis {axis}: it spans "
                    f"{k_eff} samples ({k} taps at dilation {d}), the input has {extent} and with "
                    f"padding ({lo}, {hi}) {extent + lo + hi}",
                    "Pad more (padding='SAME' keeps the size), or dilate less.",
                )
            )
        positions.append(count)
    return tuple(positions)
