"""Rates for a stack of dilated convolutions: the rule against holes, and rates for a field."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdil._arguments import integer, integers
from jaxdil._errors import error

__all__ = ["hdc_distance", "plan_dilations"]


def hdc_distance(dilations: Sequence[int] | np.ndarray) -> int:
    """The distance M_2 of hybrid dilated convolution; the rule is ``M_2 <= kernel``.

        M_n = r_n,  M_i = max(M_{i+1} - 2 r_i, M_{i+1} - 2 (M_{i+1} - r_i), r_i)

    for layers of rates r_1 to r_n: the farthest that two samples of the second layer's result can
    be apart and both be read, with none between. The rule takes ascending rates from
    r_1 = 1 for granted: it lets (2, 2, 2) pass, which sees every other sample, and refuses
    (1, 5, 2), which sees what (1, 2, 5) does. `covers` is exact, for any kernel and stride.

    Args:
      dilations: the rate of each layer, from the input on, >= 1.

    Returns:
      M_2; of one layer M_1, its rate.

    Raises:
      ValueError: without a rate, or for one below 1.
      TypeError: for rates that are no integers.

    Source: Wang et al., Understanding Convolution for Semantic Segmentation, arXiv:1702.08502,
    equation 2.

    >>> jaxdil.hdc_distance([1, 2, 5]), jaxdil.hdc_distance([1, 2, 9])
    (2, 5)
    """
    where = "hdc_distance"
    given: Any = dilations
    if not isinstance(given, Sequence | np.ndarray) or not len(given):
        what = f"dilations must be one rate a layer, at least one, got {dilations!r}"
        raise ValueError(error(where, what))
    rates = integers(where, "dilations", dilations, len(dilations))
    distance = rates[-1]
    for rate in reversed(rates[1:-1]):
        distance = max(distance - 2 * rate, 2 * rate - distance, rate)
    return distance


def plan_dilations(size: int, *, kernel: int = 3, layers: int | None = None) -> tuple[int, ...]:
    """Rates for a stack of convolutions of stride 1 that sees ``size`` samples without holes.

    ``field = 1 + (kernel - 1) sum_i r_i``, with r_1 = 1 and every rate at most the field before it,
    which is what leaves no hole.

    Args:
      size: samples to see, >= 1. The field is the smallest that holds them.
      kernel: taps of each layer, >= 2.
      layers: how many; as few as do without holes if None.

    Returns:
      The rates, ascending, the largest of them as small as can be. Any order of them sees the same.

    Raises:
      ValueError: for a size below 1, a kernel below 2, or a number of layers that cannot see
        ``size``: the message says what it can.
      TypeError: for what is no integer.

    Cost: integers only.

    >>> jaxdil.plan_dilations(15)
    (1, 3, 3)
    >>> jaxdil.plan_dilations(127, kernel=3, layers=6)
    (1, 3, 9, 16, 17, 17)
    >>> jaxdil.plan_dilations(64, kernel=2)
    (1, 2, 4, 8, 16, 32)
    """
    where = "plan_dilations"
    size = integer(where, "size", size, least=1)
    kernel = integer(where, "kernel", kernel, least=2)
    wanted = -(-(size - 1) // (kernel - 1))  # sum of the rates
    fewest = 0
    while kernel**fewest < size:
        fewest += 1
    count = fewest if layers is None else integer(where, "layers", layers, least=0)
    if not fewest <= count <= wanted:
        low, high = 1 + (kernel - 1) * count, kernel**count
        what = f"{count} layers of {kernel} taps see {low} to {high} samples without holes"
        hint = f"For {size} take {fewest} to {wanted} layers."
        raise ValueError(error(where, f"{what}, got size={size}", hint))
    most = bisect.bisect_left(range(size), wanted, key=lambda m: sum(_rising(count, kernel, m)))
    rates = _rising(count, kernel, most)
    # Were the largest one less, the sum would fall short: what is over comes off them, one each.
    for _ in range(sum(rates) - wanted):
        rates[rates.index(most)] -= 1
    return tuple(rates)


def _rising(count: int, kernel: int, most: int) -> list[int]:
    """The largest rates up to ``most`` that leave no hole."""
    rates: list[int] = []
    for _ in range(count):
        rates.append(min(most, 1 + (kernel - 1) * sum(rates)))
    return rates
