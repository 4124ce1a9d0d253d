"""Which method serves a convolution, and why: pinned by the caller, then measured, then a rule.

``choose`` is the one place where that is decided. It runs when a convolution is lowered, once for
each platform. Each rule carries the number of its paragraph in docs/choosing-a-method.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax

from jaxdil._errors import MethodError, error
from jaxdil._methods import METHODS, load
from jaxdil._problem import Problem

__all__ = ["Choice", "check_pin", "choose", "convolve", "derived"]

_OR_AUTO = " or auto"


class Choice(NamedTuple):
    """A method and the reason it was taken."""

    method: str
    because: str


def derived(pin: str) -> str:
    """The pin of a pinned convolution's derivatives: the same method where it can, else chosen."""
    return pin if pin == "auto" or pin.endswith(_OR_AUTO) else pin + _OR_AUTO


def check_pin(where: str, pin: str) -> None:
    """Raise unless ``pin`` is "auto", a method, or a method followed by " or auto"."""
    if not isinstance(pin, str):
        raise TypeError(error(where, f"method must be a string, got {pin!r}"))
    if pin.removesuffix(_OR_AUTO) not in (*METHODS, "auto"):
        names = ", ".join(map(repr, METHODS))
        raise ValueError(
            error(
                where,
                f"method must be 'auto' or one of {names}, got {pin!r}",
                f"A name followed by '{_OR_AUTO}' takes that method where it can serve.",
            )
        )


def choose(problem: Problem, *, pinned: str = "auto", platform: str | None) -> Choice:
    """The method for a convolution on a platform, and the reason.

    Raises:
      MethodError: if the pinned method cannot serve; the message has the reason of each that
        cannot.
    """
    name = pinned.removesuffix(_OR_AUTO)
    if name != "auto":
        reason = load(name).supports(problem, platform)
        if reason is None:
            return Choice(name, "pinned by the caller")
        if name == pinned:
            raise MethodError(_refusal(problem, name, platform))
    return _rule(problem, platform)


def _refusal(problem: Problem, pinned: str, platform: str | None) -> str:
    reasons = {name: load(name).supports(problem, platform) for name in METHODS}
    able = [name for name, reason in reasons.items() if reason is None]
    return error(
        "jaxdil",
        f"method={pinned!r} cannot serve the convolution of x {problem.x_shape} with "
        f"w {problem.w_shape} (channels last)",
        *(reason for reason in reasons.values() if reason is not None),
        f"Able: {', '.join(able)}. Pass one of these, method='auto', or '{pinned}{_OR_AUTO}'.",
    )


def _rule(problem: Problem, platform: str | None) -> Choice:
    if problem.is_empty:
        return Choice("xla", "nothing to compute")
    if platform != "cpu":
        return Choice("xla", "no rule for this platform yet")
    for able, choice in _cpu(problem):
        if able and load(choice.method).supports(problem, platform) is None:
            return choice
    return Choice("xla", "no other method is known to be faster")


def _cpu(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """What to try on a CPU, in this order. XLA hands few convolutions there to a fast kernel."""
    dilated = any(a > 1 for a in problem.input_dilation)
    window = math.prod(problem.kernel) > math.prod(problem.positions)
    volume = problem.rank > 2
    grouped = problem.groups > 1
    split = problem.batch_groups > 1
    point = math.prod(problem.positions) == 1
    yield split, Choice("correlate", "rule C1: kernel gradient of a grouped convolution")
    yield (
        window and dilated,
        Choice("correlate", "rule C2: kernel gradient of a transposed convolution"),
    )
    yield (
        window and (volume or point),
        Choice("correlate", "rule C3: kernel gradient in 3-D, or of one tap"),
    )
    yield grouped and dilated, Choice("phases", "rule C4: grouped, transposed")
    yield grouped, Choice("taps", "rule C5: grouped or depthwise")
    yield volume and dilated, Choice("phases", "rule C6: transposed in 3-D")
    yield volume and not window, Choice("taps", "rule C7: dense in 3-D")
    yield (
        dilated and math.prod(problem.input_dilation) >= 64,
        Choice("phases", "rule C8: far apart samples"),
    )


def convolve(
    x: jax.Array, w: jax.Array, problem: Problem, method: str, platform: str | None
) -> jax.Array:
    """The convolution in canonical layout by a method; parts of it are chosen for in turn."""

    def part(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
        chosen = choose(problem, platform=platform).method
        # The scope's name reaches the compiled program, for profilers and for tests of what ran.
        with jax.named_scope(f"jaxdil.{chosen}"):
            return convolve(x, w, problem, chosen, platform)

    return load(method).apply(x, w, problem, part)
