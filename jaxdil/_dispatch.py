"""Which method serves a convolution, and why: pinned, else measured, else by a rule, else lax.

``choose`` is the one place where that is decided. It runs when a convolution is lowered, once for
each platform. Each rule carries the number of its paragraph in docs/choosing-a-method.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdil._active import active
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
            if load(method).supports(problem, platform) is None:
                return Choice(method, because)
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
    if problem.x_dtype != problem.w_dtype:
        return Choice("xla", "two dtypes at once")
    if platform != "cpu":
        return Choice("xla", "no rule for this platform")
    for holds, choice in _cpu(problem):
        if holds and load(choice.method).supports(problem, platform) is None:
            return choice
    return Choice("xla", "no rule: nothing is known to be faster")


def _cpu(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """The rules for a CPU in their order, each with what it was measured on: C1 to C9.

    XLA hands a convolution to a fast kernel there if it has at most two spatial axes, one group and
    a window smaller than its output. The rest, and what is one matrix product, is ours.
    """
    inner, outer = problem.group_channels, problem.out_channels
    dense = problem.groups == 1
    dilated = any(a > 1 for a in problem.input_dilation)
    window = math.prod(problem.kernel) > math.prod(problem.positions)
    volume = problem.rank > 2
    # Doubles, integers and complex numbers take other paths of XLA, which some rules do not beat.
    single = jnp.issubdtype(problem.x_dtype, jnp.floating) and problem.x_dtype.itemsize <= 4

    def rule(number: int, method: str, what: str) -> Choice:
        return Choice(method, f"rule C{number}: {what}")

    few = problem.taps <= 128
    yield problem.batch_groups > 1, rule(1, "correlate", "kernel gradient of groups")
    wide = dense and min(problem.batch, outer) >= 16
    what = "kernel gradient of a transposed convolution"
    yield window and dilated and wide, rule(2, "phases", what)
    yield window and dilated, rule(2, "correlate", what)
    product = window and math.prod(problem.positions) == 1 and single and problem.rank > 1
    yield product, rule(3, "correlate", "kernel gradient of a 1x1 kernel: one matrix product")
    yield not dense and dilated, rule(4, "phases", "groups, input dilated")
    yield not dense and inner <= 8, rule(5, "taps", "depthwise or narrow groups")
    yield not dense and inner >= 64 and problem.rank > 1, rule(5, "taps", "wide groups")
    lone = inner == 1 and (outer == 1 or (few and not window)) and problem.x_dtype != np.float64
    yield dense and not dilated and lone, rule(6, "taps", "one input channel")
    alone = problem.taps == 1 and not dilated and min(inner, outer) >= 32
    yield dense and alone and single, rule(7, "taps", "1x1: one matrix product")
    close = all(k <= 2 * a for k, a in zip(problem.kernel, problem.input_dilation, strict=True))
    far = math.prod(problem.input_dilation) >= 64 and close
    yield dilated and far, rule(8, "phases", "samples far apart, few of them to an output")
    if not volume:
        return
    image = not window or math.prod(problem.kernel) >= 64
    yield dense and not dilated and image, rule(9, "planes", "3-D by 2-D")
    yield dense and dilated, rule(9, "phases", "3-D, input dilated")


def convolve(
    x: jax.Array,
    w: jax.Array,
    problem: Problem,
    method: str,
    platform: str | None,
    within: Sequence[Problem] = (),
) -> jax.Array:
    """The convolution in canonical layout by a method; parts of it are chosen for in turn."""
    around = (*within, problem)

    def part(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
        chosen = choose(problem, platform=platform, within=around).method
        # The scope's name reaches the compiled program, for profilers and for tests of what ran.
        with jax.named_scope(f"jaxdil.{chosen}"):
            return convolve(x, w, problem, chosen, platform, around)

    return load(method).apply(x, w, problem, part)
