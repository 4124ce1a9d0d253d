"""What `explain` answers: a record for each convolution, and how they print as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from jaxdil._choice import Choice
from jaxdil._problem import Problem

__all__ = ["Explanation", "Row", "table"]

# Columns of numbers, aligned to the right.
_NUMBERS = {"times", "MFLOP", "MB", "lax ms", "ms", "faster", "share", "parameters"}


class Row(NamedTuple):
    """One convolution of a function."""

    source: str
    """Where it stands in the user's source: ``file:line (function)``."""
    name: str
    """The scope it stands in (``jax.named_scope``, and the names that layers give)."""
    role: str
    """"forward", "input gradient" or "kernel gradient"."""
    times: int
    """How often it runs: the trips of the scans around it (1 for a while loop)."""
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    flops: int
    """Multiplications and additions of one run that touch a sample."""
    bytes: int
    """Size of input, kernel and output together."""
    method: str
    because: str
    problem: Problem
    choices: dict[str, Choice]
    """What each platform would be given, and why; ``method`` and ``because`` are of the one asked
    for."""
    lax_ms: float | None = None
    """Measured milliseconds of one run under lax; None if nothing was measured."""
    ms: float | None = None
    """Measured milliseconds of one run by the method."""

    @property
    def cost(self) -> float:
        """What all its runs take: milliseconds under lax if measured, else FLOPs."""
        return self.times * (self.flops if self.lax_ms is None else self.lax_ms)


class Explanation(tuple[Row, ...]):
    """The rows of `explain`, in the order of the program; prints as a table, costliest first."""

    __slots__ = ()

    def __str__(self) -> str:
        """The table, with totals."""
        return _text(self)

    def __repr__(self) -> str:
        """The table too: this is what a notebook shows."""
        return _text(self)


def _text(rows: Explanation) -> str:
    """The table, the costliest convolution first, and what they come to together."""
    timed = any(row.ms is not None for row in rows)
    total = sum(row.cost for row in rows) or 1
    head = ["source", "name", "role", "x", "w", "y", "times", "MFLOP", "MB"]
    head += (["lax ms", "ms", "faster"] if timed else []) + ["share", "method", "because"]
    head += ["elsewhere"]
    lines = []
    for row in sorted(rows, key=lambda row: -row.cost):
        shapes = ("x".join(map(str, s)) for s in (row.x_shape, row.w_shape, row.y_shape))
        line = [row.source, row.name, row.role, *shapes, str(row.times)]
        line += [f"{row.flops / 1e6:.2f}", f"{row.bytes / 1e6:.2f}"]
        if row.lax_ms is not None and row.ms is not None:
            line += [f"{row.lax_ms:.3f}", f"{row.ms:.3f}", f"{row.lax_ms / row.ms:.1f}x"]
        line += [f"{row.cost / total:.1%}", row.method, row.because, _elsewhere(row)]
        lines.append(line)
    return "\n".join([*table(head, lines), _totals(rows)])


def _elsewhere(row: Row) -> str:
    """The platforms whose choice is another, those of one choice together."""
    others: dict[Choice, list[str]] = {}
    for name, choice in row.choices.items():
        if choice != Choice(row.method, row.because):
            others.setdefault(choice, []).append(name)
    return "; ".join(
        f"{', '.join(names)}: {choice.method} ({choice.because})"
        for choice, names in others.items()
    )


def _totals(rows: Explanation) -> str:
    counts = Counter(row.method for row in rows)
    served = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    runs = sum(row.times for row in rows)
    text = (
        f"{len(rows)} convolutions ({served or 'none'}), {runs} runs, "
        f"{math.fsum(row.times * row.flops for row in rows) / 1e9:.3f} GFLOP"
    )
    before = math.fsum(row.times * row.lax_ms for row in rows if row.lax_ms is not None)
    after = math.fsum(row.times * row.ms for row in rows if row.ms is not None)
    if after:
        text += f", {before:.3f} ms under lax, {after:.3f} ms here: {before / after:.1f} times"
    return text


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns under a head and a rule."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(head, line, widths, strict=True)
        ).rstrip()
        for line in (head, ["-" * width for width in widths], *lines)
    ]
