"""Which samples of an operand each sample of a result reads, and what follows from it.

A program is a tape of edges; an edge is a link: what one result reads of one operand. Followed from
the input on, links give the bounds of the field of every unit; followed back from a unit, the
number of ways in which each sample of the input reaches it. NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import numpy as np

__all__ = [
    "Bounds",
    "Edge",
    "Link",
    "Reads",
    "Reshaped",
    "Taken",
    "Window",
    "lines",
    "union",
    "whole",
]

Shape: TypeAlias = tuple[int, ...]


class Bounds(NamedTuple):
    """First and last sample, on one axis of the input, that each sample of a value can depend on.

    Both are counted on beyond the edges, as if the input and every value between had none; an
    axis on which they do not change has size 1. A sample that depends on none has (inf, -inf).
    """

    first: np.ndarray
    last: np.ndarray
    jump: tuple[Fraction, ...]
    """How far both move from one sample of the value to the next, on each of its axes."""
    turn: tuple[int, ...]
    """After how many samples they have moved by so much; before that, samples take turns.

    Behind a transposed convolution of stride 2, say, only every other sample sees the same.
    """


def union(one: Bounds, other: Bounds) -> Bounds:
    """What depends on both: from the first to the last of either."""
    jump = tuple(max(pair, key=abs) for pair in zip(one.jump, other.jump, strict=True))
    turn = tuple(map(math.lcm, one.turn, other.turn))
    return Bounds(np.minimum(one.first, other.first), np.maximum(one.last, other.last), jump, turn)


class Reads(NamedTuple):
    """What result p reads on one axis of an operand: for each tap t, the sample q.

    q = (stride (p // repeat) + step t + offset) / spread, if that is an integer and lies within the
    operand.
    """

    axis: int | None
    """The axis of the result on which p lies; None if every result reads the same, p = 0."""
    taps: int = 1
    stride: int = 1
    step: int = 1
    offset: int = 0
    spread: int = 1
    repeat: int = 1
    padded: bool = False
    """Whether a sample beyond the operand is one of its padding, and so belongs to the field."""

    def at(self, tap: int, results: int) -> tuple[np.ndarray, np.ndarray]:
        """(p, q) of every result that the tap reads for, q perhaps beyond the operand."""
        p = np.arange(results)
        q, rest = np.divmod(
            self.stride * (p // self.repeat) + self.step * tap + self.offset, self.spread
        )
        return p[rest == 0], q[rest == 0]

    def serves(self, n: int, results: int) -> bool:
        """Whether every result reads something of ``n`` samples."""
        served = np.zeros(results, bool)
        for tap in range(self.taps):
            p, q = self.at(tap, results)
            served[p if self.padded else p[(q >= 0) & (q < n)]] = True
            if served.all():
                return True
        return False


class Window(tuple[Reads, ...]):
    """A link that is one of its own on every axis of the operand: a `Reads` for each."""

    __slots__ = ()

    def bounds(self, given: Bounds, n: Shape, results: Shape) -> Bounds:
        """Bounds of the result, whose shape is ``results``, from those of the operand, ``n``."""
        jump, turn = [Fraction(0)] * len(results), [1] * len(results)
        first, last = given.first, given.last
        for j, reads in enumerate(self):
            size = 1 if reads.axis is None else results[reads.axis]
            if given.jump[j] == 0 and first.shape[j] == 1 and reads.serves(n[j], size):
                continue
            pace = given.jump[j], given.turn[j]
            first = _along(first, j, n[j], pace, reads, size, np.minimum, np.inf)
            last = _along(last, j, n[j], pace, reads, size, np.maximum, -np.inf)
            if reads.axis is not None:
                jump[reads.axis] = given.jump[j] * reads.stride / (reads.spread * reads.repeat)
                cycle = reads.spread * given.turn[j]
                turn[reads.axis] = reads.repeat * cycle // math.gcd(reads.stride, cycle)
        dropped = tuple(j for j, reads in enumerate(self) if reads.axis is None)
        axes = [reads.axis for reads in self if reads.axis is not None]
        missing = tuple(k for k in range(len(results)) if k not in axes)

        def placed(a: np.ndarray) -> np.ndarray:
            return np.expand_dims(a.squeeze(dropped).transpose(np.argsort(axes)), missing)

        return Bounds(placed(first), placed(last), tuple(jump), tuple(turn))

    def back(self, ways: np.ndarray, n: Shape) -> np.ndarray:
        """Ways from each sample of the operand, from those of the result."""
        used = [reads.axis for reads in self if reads.axis is not None]
        ways = ways.sum(tuple(k for k in range(ways.ndim) if k not in used))
        order = np.argsort(np.argsort(used))
        ways = ways.transpose(order) if used else ways
        ways = np.expand_dims(ways, tuple(j for j, r in enumerate(self) if r.axis is None))
        for j, reads in enumerate(self):
            ways = _spread(ways, j, n[j], reads)
        return ways


class Reshaped:
    """The same samples in the same order, under another shape."""

    def bounds(self, given: Bounds, n: Shape, results: Shape) -> Bounds:
        """Axes that are merged or split are written out in full; the others stay as they are."""
        groups = list(_groups(n, results))
        full, kept = [], []
        for old, new in groups:
            changes = any(given.first.shape[j] > 1 for j in old)
            full += [n[j] if changes else 1 for j in old]
            kept += [results[k] if changes else 1 for k in new]
        first, last = (np.broadcast_to(a, full).reshape(kept) for a in given[:2])
        paces = [_pace(*line) for line in lines(first, last)]
        for old, new in groups:
            # An axis that stays keeps its jump. One of one sample has nothing to measure: it goes
            # on as the last that moved.
            moving = [j for j in old if given.jump[j]] or old
            for k in new if moving else ():
                if len(old) == len(new) == 1 or results[k] == 1:
                    paces[k] = given.jump[moving[-1]], given.turn[moving[-1]]
        return Bounds(first, last, *_columns(paces))

    def back(self, ways: np.ndarray, n: Shape) -> np.ndarray:
        """Ways from each sample of the operand, from those of the result."""
        return ways.reshape(n)


class Taken:
    """Samples by number: ``index`` has the shape of the result, -1 where nothing is read."""

    def __init__(self, index: np.ndarray) -> None:
        self.index = index

    def bounds(self, given: Bounds, n: Shape, results: Shape) -> Bounds:
        """Bounds of the result, whose shape is ``results``, from those of the operand, ``n``."""
        assert self.index.shape == results
        inside = self.index >= 0
        first = np.where(inside, np.broadcast_to(given.first, n).ravel()[self.index], np.inf)
        last = np.where(inside, np.broadcast_to(given.last, n).ravel()[self.index], -np.inf)
        return Bounds(first, last, *_columns([_pace(*line) for line in lines(first, last)]))

    def back(self, ways: np.ndarray, n: Shape) -> np.ndarray:
        """Ways from each sample of the operand, from those of the result."""
        inside = self.index >= 0
        summed = np.bincount(self.index[inside], ways[inside], minlength=math.prod(n))
        return summed.reshape(n)


Link: TypeAlias = Window | Reshaped | Taken


class Edge(NamedTuple):
    """``result`` and ``operand`` are numbers of values on the tape."""

    operand: int
    result: int
    link: Link


def lines(first: np.ndarray, last: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bounds along each axis, whatever the place on the others."""
    rest = [tuple(k for k in range(first.ndim) if k != axis) for axis in range(first.ndim)]
    return [(first.min(others), last.max(others)) for others in rest]


def whole(shape: Sequence[int]) -> Window:
    """Every result reads the whole operand."""
    return Window(Reads(None, taps=n) for n in shape)


Pace: TypeAlias = tuple[Fraction, int]  # a jump and its turn


def _columns(paces: list[Pace]) -> tuple[tuple[Fraction, ...], tuple[int, ...]]:
    return tuple(jump for jump, _ in paces), tuple(turn for _, turn in paces)


def _along(
    values: np.ndarray,
    axis: int,
    n: int,
    pace: Pace,
    reads: Reads,
    results: int,
    combine: np.ufunc,
    none: float,
) -> np.ndarray:
    """The least or greatest of what is read on one axis."""
    moved = np.moveaxis(values, axis, 0)
    moved = np.broadcast_to(moved, (n, *moved.shape[1:]))
    out = np.full((results, *moved.shape[1:]), none)
    for tap in range(reads.taps):
        p, q = reads.at(tap, results)
        if not reads.padded:
            p, q = p[(q >= 0) & (q < n)], q[(q >= 0) & (q < n)]
        out[p] = combine(out[p], _beyond(moved, q, pace))
    return np.moveaxis(out, 0, axis)


def _beyond(values: np.ndarray, q: np.ndarray, pace: Pace) -> np.ndarray:
    """Values at q along axis 0, carried on past both ends by whole turns."""
    n, (jump, turn) = len(values), pace
    turn = turn if turn <= n else 1
    turns = np.where(q < 0, -((turn - 1 - q) // turn), 0)
    turns = np.where(q >= n, (q - n + turn) // turn, turns)
    shift = (turns * float(turn * jump)).reshape(-1, *[1] * (values.ndim - 1))
    return values[q - turns * turn] + shift


def _spread(ways: np.ndarray, axis: int, n: int, reads: Reads) -> np.ndarray:
    """Give the ways of each result to what it reads, on one axis."""
    if reads._replace(padded=False) == Reads(reads.axis) and ways.shape[axis] == n:
        return ways
    moved = np.moveaxis(ways, axis, 0)
    if reads.repeat > 1:
        moved = moved.reshape(-1, reads.repeat, *moved.shape[1:]).sum(1)
        reads = reads._replace(repeat=1)
    out = np.zeros((n, *moved.shape[1:]))
    if reads == whole((n,))[0]:
        return np.moveaxis(out + moved, 0, axis)
    for tap in range(reads.taps):
        p, q = reads.at(tap, len(moved))
        inside = (q >= 0) & (q < n)
        out[q[inside]] += moved[p[inside]]
    return np.moveaxis(out, 0, axis)


def _groups(old: Shape, new: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """The axes of two shapes, in the smallest groups of equal size."""
    j = k = 0
    while j < len(old) or k < len(new):
        if old[j : j + 1] == new[k : k + 1]:
            yield [j], [k]
            j, k = j + 1, k + 1
            continue
        group: tuple[list[int], list[int]] = ([], [])
        a = b = 1
        while not (group[0] or group[1]) or a != b:
            if a <= b and j < len(old):
                a *= old[j]
                group[0].append(j)
                j += 1
            else:
                b *= new[k]
                group[1].append(k)
                k += 1
        yield group


_TURN = 64  # samples that take turns, at most


def _pace(first: np.ndarray, last: np.ndarray) -> Pace:
    """How far bounds move, after their smallest turn; no jump if there is none."""
    if np.isfinite(first).all() and np.isfinite(last).all():
        for turn in range(1, min(len(first) // 2, _TURN) + 1):
            moves = np.unique([b[turn:] - b[:-turn] for b in (first, last)])
            if len(moves) == 1:
                return Fraction(int(moves[0]), turn), turn
    return Fraction(0), 1
