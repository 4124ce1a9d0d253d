"""Columns of few channels side by side: several outputs are one product with more of the input.

    y[J q + j, o] = sum_b  x~[s (J q + j) + d b, i] w[b, i, o]
                  = sum_u  x~[s J q + u, i] w'[u, i, j, o]       w'[s j + d b, i, j, o] = w[b, i, o]

A matrix unit multiplies 128 channels to 128, fewer take as long. J outputs beside each other read
some samples more than one does, and are so many channels of the output. Phases of a dilated input
are joined so too. With a dilation only those outputs are that meet the same samples.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._pallas.axes import Axis, Phase, Tap
from jaxdil._pallas.plan_2d import LANES, SUBLANES

__all__ = ["Side", "joined", "sides_of", "spread", "weights"]

# Words that an output of its own place in a register takes, beside those of a product.
PUT, PRODUCT = 3, 2


class Side(NamedTuple):
    """Phases of columns that are one product, and all that they read; numbered, if several do."""

    phases: tuple[Phase, ...]
    taps: tuple[Tap, ...]


def sides_of(columns: Axis, apart: int) -> tuple[Side, ...]:
    """The phases of columns that are joined: those ``apart`` from each other, where that is > 0."""
    if not apart:
        return tuple(Side((each,), each.taps) for each in columns.phases)
    sides = []
    for first in range(apart):
        phases = tuple(each for each in columns.phases if each.phase % apart == first)
        offsets = sorted({tap.offset for each in phases for tap in each.taps})
        sides.append(Side(phases, tuple(Tap(i, offset) for i, offset in enumerate(offsets))))
    return tuple(side for side in sides if side.phases)


def joined(columns: Axis, channels: int, outer: int, sums: int) -> tuple[Axis, int]:
    """The columns as they are best computed, and how far apart joined ones lie, or 0.

    ``sums`` is how many products there are of other taps.
    """

    def words(axis: Axis, apart: int) -> float:
        rows = -(-axis.outputs // SUBLANES)
        products = 0
        for side in sides_of(axis, apart):
            inner = -(-channels * len(side.taps) // LANES)
            if channels > LANES:
                inner = len(side.taps) * -(-channels // LANES)
            elif channels * len(side.taps) > LANES:
                inner = -(-len(side.taps) // (LANES // channels))
            products += inner * -(-outer * len(side.phases) // LANES)
        put = PUT * axis.step * -(-outer // LANES) if axis.step > 1 else 0
        return rows * (PRODUCT * products * sums + put)

    ways = [(columns, 0)]
    if channels % (2 * SUBLANES):
        return ways[0]
    apart = 1 if columns.step > 1 else _apart(columns)
    for times in (1, 2, 3, 4, 6, 8):
        axis = spread(columns, times * apart)
        few = outer * times * columns.step <= LANES
        if few and axis.step > apart and all(each.outputs > 0 for each in axis.phases):
            ways.append((axis, apart))
    return min(ways, key=lambda way: words(*way))


def _apart(columns: Axis) -> int:
    """How far apart the next output lies that reads the same samples."""
    offsets = [tap.offset for tap in columns.phases[0].taps]
    gaps = math.gcd(*(b - a for a, b in itertools.pairwise(offsets)))
    return max(gaps // math.gcd(gaps, columns.stride), 1)


def spread(columns: Axis, times: int) -> Axis:
    """The same columns with as many times the phases."""
    phases = [
        Phase(
            each.phase + columns.step * i,
            -(-(each.outputs - i) // times),
            tuple(Tap(tap.tap, tap.offset + columns.stride * i) for tap in each.taps),
        )
        for i in range(times)
        for each in columns.phases
    ]
    return columns._replace(
        stride=columns.stride * times, step=columns.step * times, phases=tuple(phases)
    )


def weights(w: Any, joint: Any, plan: Any, rows: Any) -> None:
    """Write (rows * groups, K, N), or (..., N, K), of a kernel (rows * L, C, O), or (..., O, C).

    A group are taps of a side that lie side by side, whose channels are K; N are the outputs of its
    phases.
    """
    taps, groups = plan.kernel[1], plan.groups
    before, last = (plan.wide, plan.channels) if plan.outer_first else (plan.channels, plan.wide)

    def row(r: Any, _: None) -> None:
        def tap_of(phase: Phase, offset: int) -> Any:
            for tap, at in phase.taps:
                if at == offset:
                    return w[r * taps + (taps - 1 - tap if plan.turned else tap)]
            return jnp.zeros((before, last), w.dtype)

        at = r * groups
        for side in plan.sides:
            for group in plan.groups_of(side):
                table = [[tap_of(phase, tap.offset) for tap in group] for phase in side.phases]
                if not plan.outer_first:
                    table = [list(each) for each in zip(*table, strict=True)]
                for i, blocks in enumerate(table):
                    line = lax.concatenate(blocks, 1)
                    joint.at[at][i * before : (i + 1) * before, : line.shape[1]] = line
                at += 1

    lax.fori_loop(np.int32(0), rows, row, None)
