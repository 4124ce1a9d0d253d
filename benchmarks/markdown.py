"""How numbers and tables stand on a page that is made of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["bold", "device", "ms", "table"]


def device(header: dict[str, Any]) -> str:
    """What was measured on."""
    if header["device"] == "cpu":
        return f"CPU: {header['cpu']}"
    return f"{header['device']}: {header['device_kind']}"


def ms(seconds: float | None) -> str:
    """Milliseconds."""
    return "-" if seconds is None else f"{seconds * 1e3:.3g}"


def bold(ratio: float | None) -> str:
    """A speed-up; bold where it is none."""
    if ratio is None:
        return "-"
    return f"**{ratio:.2f}**" if ratio < 1 else f"{ratio:.2f}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the head."""
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])
