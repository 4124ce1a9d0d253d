"""How long calls take here: contenders take turns, so that a disturbance meets them all."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax

__all__ = ["progress", "race"]

T = TypeVar("T")

LEAST, MOST, SECONDS = 3, 50, 0.1


def race(
    contenders: Sequence[Callable[[], Any]],
    *,
    seconds: float = SECONDS,
    most: int = MOST,
    hopeless: float = math.inf,
) -> list[float]:
    """The median seconds of a call of each contender; all are called once before the clock.

    Each is timed at least LEAST times, and further until it has run for ``seconds`` or ``most``
    times. One that takes ``hopeless`` times the fastest runs only for the lesser of the two.
    """
    for call in contenders:
        jax.block_until_ready(call())
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(most):
        limit = hopeless * min((min(took) for took in times if took), default=math.inf)
        for call, took in zip(contenders, times, strict=True):
            early, brief = turn < LEAST, sum(took) < seconds
            fair = not took or min(took) <= limit
            if (early or brief) if fair else (early and brief):
                started = time.perf_counter()
                jax.block_until_ready(call())
                took.append(time.perf_counter() - started)
    return [statistics.median(took) for took in times]


def progress(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """The items, with a bar on standard error while they are taken, if a person is watching."""
    watched = sys.stderr.isatty()
    width = 30
    for done, item in enumerate(items):
        if watched:
            full = width * done // max(total, 1)
            bar = "#" * full + "." * (width - full)
            sys.stderr.write(f"\r{what} [{bar}] {done}/{total}")
            sys.stderr.flush()
        yield item
    if watched:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
