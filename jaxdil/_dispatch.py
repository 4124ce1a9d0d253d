"""Which method serves a convolution, and why: pinned by the caller, then measured, then a rule.

``choose`` is the one place where that is decided. It runs when a convolution is lowered, once for
each platform. Each rule carries the number of its paragraph in docs/choosing-a-method.md.
"""

from __future__ import annotations

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
      MethodError: if the pinned method cannot serve; the message has the reason of each that cannot.
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
        f"method={pinned!r} cannot serve the convolution of x {problem.x_shape} with w {problem.w_shape}",
        *(reason for reason in reasons.values() if reason is not None),
        f"Able: {', '.join(able)}. Pass one of these, method='auto', or '{pinned}{_OR_AUTO}'.",
    )


def _rule(problem: Problem, platform: str | None) -> Choice:
    return Choice("xla", "no rule")


def convolve(
    x: jax.Array, w: jax.Array, problem: Problem, method: str, platform: str | None
) -> jax.Array:
    """The convolution in canonical layout by a method; the parts it makes are chosen for in turn."""

    def part(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
        chosen = choose(problem, platform=platform).method
        # The scope's name reaches the compiled program, for profilers and for tests of what ran.
        with jax.named_scope(f"jaxdil.{chosen}"):
            return convolve(x, w, problem, chosen, platform)

    return load(method).apply(x, w, problem, part)
