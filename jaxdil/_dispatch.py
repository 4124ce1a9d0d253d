"""Which method serves a convolution, and why: pinned, else measured, else by a rule, else lax.

``choose`` is the one place where that is decided. It runs when a convolution is lowered, once for
each platform. Each rule carries the number of its paragraph in docs/choosing-a-method.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdil._active import active
from jaxdil._errors import MethodError, error
from jaxdil._methods import METHODS, Convolve, goes, load
from jaxdil._problem import Problem

__all__ = ["Choice", "check_pin", "choose", "convolve", "derived", "lowered", "may_stand"]

_OR_AUTO = " or auto"

# What the program is for that choices are made for: see `lowered`.
_purpose: ContextVar[dict[str, bool]] = ContextVar("purpose")


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


def may_stand(method: str, platform: str | None) -> bool:
    """Whether a method may stand in the program that is being lowered."""
    return goes(method, platform, **_purpose.get({"exported": False, "partitioned": False}))


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
    rules = {"cpu": _cpu, "cuda": _cuda, "tpu": _tpu}.get(platform or "")
    if rules is None:
        return Choice("xla", "no rule for this platform")
    for holds, choice in rules(problem):
        if holds and _serves(choice.method, problem, platform):
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
    wide = dense and (volume or min(problem.batch, outer) >= 16)
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
    # Side by side the planes take several times the memory of the input; that pays only where
    # channels are so few that a plane by itself would not occupy a matrix product.
    planes = math.prod((problem.batch, *problem.positions[:1], *problem.size[1:], problem.channels))
    light = planes * problem.kernel[0] * problem.x_dtype.itemsize <= 2 * problem.bytes
    beside = light and problem.channels < 64
    yield dense and not dilated and image and beside, rule(9, "planes", "3-D by 2-D")
    yield dense and not dilated and image, rule(9, "slabs", "3-D by 2-D, plane by plane")
    yield dense and dilated, rule(9, "phases", "3-D, input dilated")


def _cuda(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """The rules for CUDA in their order, from what XLA compiles to and what users report: G1 to G9.

    XLA gives every convolution there to cuDNN, and what cuDNN has no call for it makes up around
    one, in passes over memory of their own. Nothing was measured.
    """
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    gradient = problem.batch_groups > 1
    window = problem.taps > math.prod(problem.positions)
    dilated = any(a > 1 for a in problem.input_dilation)

    def rule(number: int, method: str, what: str) -> Choice:
        return Choice(method, f"rule G{number}: {what}")

    avoided, what = 0, ""
    if jnp.issubdtype(problem.x_dtype, jnp.integer):
        avoided, what = 1, "integers, which cuDNN refuses or sums wrongly"
    elif problem.x_dtype == jnp.bfloat16 and problem.rank == 1:
        avoided, what = 2, "bfloat16 in 1-D, at which cuDNN fails"
    if avoided:
        apart = gradient or (problem.groups > 1 and inner == 1)
        yield avoided == 2 and apart, rule(avoided, "pallas_gpu", what)
        yield gradient or window, rule(avoided, "correlate", what)
        yield dilated, rule(avoided, "phases", what)
        yield True, rule(avoided, "taps", what)
        return
    # Doubles and complex numbers were not looked at.
    if not jnp.issubdtype(problem.x_dtype, jnp.floating) or problem.x_dtype.itemsize > 4:
        return
    # Rows of x that are pieces of 16 bytes, which is what a thread loads at a time.
    if gradient:
        alone = problem.batch == problem.batch_groups == problem.out_channels
        even = problem.batch_groups * problem.x_dtype.itemsize % 16 == 0
        yield alone and even, rule(3, "pallas_gpu", "kernel gradient of a depthwise convolution")
        return
    even = problem.channels * problem.x_dtype.itemsize % 16 == 0
    atrous = any(d > 1 for d in problem.dilation)
    uneven = any(lo != hi for lo, hi in problem.padding)
    if problem.groups > 1 and inner == outer == 1 and even:
        yield dilated, rule(4, "pallas_gpu", "depthwise, input dilated: no zeros are inserted")
        yield atrous, rule(5, "pallas_gpu", "depthwise and dilated")
        yield problem.rank > 2, rule(6, "pallas_gpu", "depthwise in 3-D")
        yield uneven, rule(6, "pallas_gpu", "depthwise, uneven padding: x is not copied for it")
    spread = atrous and uneven and not dilated and not window
    yield spread, rule(7, "cudnn", "dilated, uneven padding: the kernel is not filled with zeros")
    if problem.groups > 1:
        return
    close = all(k <= a for k, a in zip(problem.kernel, problem.input_dilation, strict=True))
    far = math.prod(problem.input_dilation) >= 64 and close and not window
    yield far, rule(8, "phases", "samples far apart, one to an output: a matrix product")
    yield dilated and window, rule(9, "cudnn", "kernel gradient of a transposed convolution")
    forward = dilated and max(problem.stride) == 1
    yield forward, rule(9, "cudnn", "transposed: no zeros are inserted")


def _tpu(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """The rules for a TPU in their order, from what its compiler estimates: T1 to T11.

    Its matrix unit multiplies 128 channels by 128 at a time, zeros or not. lax leaves it idle where
    groups are narrow, goes through inserted zeros where samples are spread, and knows two spatial
    axes best. A batch below 8 it makes larger out of parts of the image, in five copies that the
    other methods do without.
    """
    groups, inner = problem.groups, problem.group_channels
    outer = problem.out_channels // max(groups, problem.batch_groups)
    samples, positions = math.prod(problem.kernel), math.prod(problem.positions)
    window = samples > positions
    dilated = any(a > 1 for a in problem.input_dilation)
    direct = not dilated and not window
    small = direct and problem.batch < 8
    first = math.prod(problem.kernel[:1])

    def rule(number: int, method: str, what: str) -> Choice:
        return Choice(method, f"rule T{number}: {what}")

    # Complex numbers, integers and doubles were not looked at.
    if not jnp.issubdtype(problem.x_dtype, jnp.floating) or problem.x_dtype.itemsize > 4:
        return
    if problem.batch_groups > 1:
        rows = problem.batch // problem.batch_groups
        width = problem.batch_groups * max(rows, outer)
        several = rows == 1 < outer
        yield several, rule(1, "expand", "kernel gradient, a channel to several")
        many = rows <= 8 or samples * problem.channels >= 2048
        narrow = rows > 1 and width <= 256 and many
        yield narrow, rule(1, "expand", "kernel gradient of narrow groups")
        alone = problem.rank == rows == outer == 1 and problem.channels < 4 and positions <= 8
        # Other lengths lie in memory in an order that has to be changed for a kernel.
        aligned = samples % 8 == problem.size[0] % 8 == 0
        large = samples >= 64 and problem.batch >= 128 and aligned
        what = "kernel gradient of a depthwise row, a batch below 4"
        yield alone and large, rule(10, "pallas_tpu", what)
        image = problem.rank == 2 and rows == outer == 1 and problem.batch > 64
        image = image and positions > 1 and samples >= 49 and max(problem.dilation) == 1
        # lax reads each array once as well, but for one image, and slowly for spread taps.
        usual = problem.channels % 8 == 0 or problem.channels in (1, 2, 4)
        image = image and usual and (problem.channels == 1 or max(problem.stride) > 1)
        yield image, rule(11, "pallas_tpu", "kernel gradient of a depthwise image")
        return
    volume = problem.rank > 2 and 1 < first <= 8 and not window
    # Taps of one axis alone, to fewer channels: `slabs` would loop, to save memory.
    volume = volume and (problem.taps > first or problem.out_channels >= problem.channels)
    if groups > 1:
        width = groups * max(inner, outer)
        yield 1 < inner <= 8 and width <= 256, rule(2, "expand", "narrow groups")
        among = 8 < inner <= 16 and width >= 512
        yield among, rule(2, "expand", "groups of up to 16 among 512 channels")
        several = inner > outer == 1 or (inner == 1 < outer and width >= 128)
        yield several, rule(2, "expand", "a channel to several")
        single = problem.taps == 1 and groups <= 4 and not dilated
        yield single, rule(2, "expand", "1x1 of up to 4 groups")
        yield volume, rule(3, "slabs", "3-D as sums of 2-D")
        large = problem.rank == 1 and positions >= 64 and problem.channels >= 128
        yield direct and large, rule(10, "pallas_tpu", "depthwise in 1-D")
        depthwise = inner == outer == 1
        image = problem.rank == 2 and problem.taps > 1 and positions >= 49
        usual = problem.batch % 8 == 0 or problem.batch in (1, 2, 4)
        image = image and depthwise and usual and problem.channels >= 64
        yield image, rule(11, "pallas_tpu", "depthwise images of 64 channels and more")
        image = problem.rank == 2 and 1 < first <= 8 and min(problem.positions) >= 16
        yield small and depthwise and image, rule(4, "slabs", "depthwise, a batch below 8")
        row = problem.rank == 1 and 1 < first <= 8
        yield small and depthwise and row, rule(4, "taps", "depthwise in 1-D, a batch below 8")
        return
    gap = math.prod(problem.input_dilation)
    even = problem.kernel == problem.input_dilation and (gap >= 16 or inner >= 1024)
    far = (gap >= 64 or (problem.batch < 8 and outer <= 4 and problem.rank == 2)) and not window
    yield dilated and (even or far), rule(5, "phases", "samples far apart, or few channels")
    yield volume, rule(3, "slabs", "3-D as sums of 2-D")
    light = max(inner, outer) < 256
    row = problem.rank == 1 and 1 < first <= 16 and light and problem.stride[0] == 1
    yield small and row, rule(6, "taps", "1-D, a batch below 8")
    image = problem.rank == 2 and 1 < first <= 8 and light
    yield small and image, rule(7, "slabs", "2-D, a batch below 8")
    long = problem.rank == 1 and 1 < positions <= 4 and samples >= 4096 and not dilated
    yield long, rule(8, "correlate", "kernel gradient of a few taps in 1-D")
    yield small and problem.taps == 1, rule(9, "taps", "1x1, a batch below 8")
    product = window and positions == 1 and not dilated and max(problem.dilation) == 1
    yield product, rule(9, "correlate", "kernel gradient of a 1x1 kernel")


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

    return load(method).apply(x, w, problem, Convolve(part, platform))
