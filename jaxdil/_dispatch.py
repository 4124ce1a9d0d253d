"""Which method serves a convolution, and why: pinned, else measured, else by a rule, else lax.

``choose`` is the one place where that is decided. It runs when a convolution is lowered, once for
each platform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import jax

from jaxdil._active import active
from jaxdil._choice import Choice
from jaxdil._errors import MethodError, error
from jaxdil._methods import METHODS, Convolve, goes, load
from jaxdil._problem import Problem
from jaxdil._rules import RULES

__all__ = [
    "check_pin",
    "choose",
    "convolve",
    "derived",
    "is_partitioned",
    "lowered",
    "may_stand",
]

_OR_AUTO = " or auto"

# What the program is for that choices are made for: see `lowered`.
_purpose: ContextVar[dict[str, bool]] = ContextVar("purpose")
_ORDINARY = {"exported": False, "partitioned": False}


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


@contextmanager
def lowered(*, exported: bool, partitioned: bool) -> Iterator[None]:
    """What is chosen in a stretch of code is for ``jax.export``, or for XLA to partition."""
    token = _purpose.set({"exported": exported, "partitioned": partitioned})
    try:
        yield
    finally:
        _purpose.reset(token)


def choose(
    problem: Problem, *, pinned: str = "auto", platform: str | None, within: Sequence[Problem] = ()
) -> Choice:
    """The method for a convolution on a platform, and the reason.

    ``within`` are the problems that this one is a part of. A table that held one of them for its
    own part would have it computed by itself without end.

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
    table = active()
    if table is not None and problem not in within:
        for method, because in table.ranking(problem, platform):
            if _serves(method, problem, platform):
                return Choice(method, because)
    return _rule(problem, platform)


def is_partitioned() -> bool:
    """Whether XLA will divide the program that is being lowered among devices."""
    return _purpose.get(_ORDINARY)["partitioned"]


def may_stand(method: str, platform: str | None) -> bool:
    """Whether a method may stand in the program that is being lowered."""
    return goes(method, platform, **_purpose.get(_ORDINARY))


def _serves(method: str, problem: Problem, platform: str | None) -> bool:
    """Whether a method that nobody pinned may be taken."""
    return may_stand(method, platform) and load(method).supports(problem, platform) is None


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
    if problem.x_dtype != problem.w_dtype:
        return Choice("xla", "two dtypes at once")
    rules = RULES.get(platform or "")
    if rules is None:
        return Choice("xla", "no rule for this platform")
    for holds, choice in rules(problem):
        if holds and _serves(choice.method, problem, platform):
            return choice
    return Choice("xla", "no rule: nothing is known to be faster")


def convolve(
    x: jax.Array,
    w: jax.Array,
    problem: Problem,
    method: str,
    platform: str | None,
    *,
    in_lines: bool = False,
    within: Sequence[Problem] = (),
) -> jax.Array:
    """The convolution in canonical layout by a method; parts of it are chosen for in turn.

    ``in_lines`` says that x lies in memory as it is given: nothing is cut out or moved on the way.
    """
    around = (*within, problem)

    def part(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
        # Neither array is as the caller has it any longer.
        problem = problem.replace(
            channels_first=False, turned=False, kernel_first=False, pooled=False
        )
        chosen = choose(problem, platform=platform, within=around).method
        # The scope's name reaches the compiled program, for profilers and for tests of what ran.
        with jax.named_scope(f"jaxdil.{chosen}"):
            return convolve(x, w, problem, chosen, platform, within=around)

    conv = Convolve(part, platform, is_partitioned(), in_lines and platform == "cpu")
    return load(method).apply(x, w, problem, conv)
