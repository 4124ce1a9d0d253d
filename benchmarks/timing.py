"""The clock: contenders take turns, so that whatever disturbs the machine disturbs them all.

In a turn a contender is called once untimed, for its data to be in the caches and its threads
awake, then up to ten times or for ten milliseconds. The order rotates from round to round. A call
that takes longer than a turn needs no untimed one.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.contenders import Contender

__all__ = ["quantiles", "round_robin"]

TURN_S = 0.01
TURN_CALLS = 10
LEAST_ROUNDS = 3
MOST_ROUNDS = 12


def round_robin(
    contenders: Sequence[tuple[Contender, float]], *, seconds: float
) -> dict[str, list[float]]:
    """Seconds of each timed call, by name, of contenders given with roughly how long a call takes.

    Rounds go on for ``seconds``, at least three and at most twelve. An optional contender whose
    call takes longer than ``seconds`` is timed once.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender, _ in contenders}
    started = time.perf_counter()
    was_on = gc.isenabled()
    gc.disable()
    try:
        for turn in range(MOST_ROUNDS):
            if turn >= LEAST_ROUNDS and time.perf_counter() - started > seconds:
                break
            first = turn % max(len(contenders), 1)
            for contender, estimate in (*contenders[first:], *contenders[:first]):
                if contender.optional and estimate > seconds and times[contender.name]:
                    continue
                times[contender.name] += _turn(contender, estimate)
    finally:
        if was_on:
            gc.enable()
    return times


def _turn(contender: Contender, estimate: float) -> list[float]:
    if estimate < TURN_S:
        contender.call()
    took: list[float] = []
    while len(took) < TURN_CALLS and sum(took) < TURN_S:
        started = time.perf_counter()
        out = contender.call()
        took.append(time.perf_counter() - started)
        del out
    if contender.settle:
        time.sleep(contender.settle)
    return took


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """The 10, 50 and 90 % quantiles."""
    low, middle, high = np.quantile(times, (0.1, 0.5, 0.9))
    return {"q10": float(low), "median": float(middle), "q90": float(high)}
