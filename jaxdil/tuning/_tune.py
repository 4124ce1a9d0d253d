"""Measuring: every method for every convolution of a function, on the device that computes here."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil import _active, _layout
from jaxdil._device import default_device
from jaxdil._dispatch import choose
from jaxdil._errors import error
from jaxdil._explain import convolutions, random_like
from jaxdil._measure import progress, race
from jaxdil._methods import METHODS, load, races
from jaxdil._primitive import conv_p
from jaxdil._problem import Problem
from jaxdil._transform import traced
from jaxdil.tuning._entry import Key, Times
from jaxdil.tuning._table import Table

__all__ = ["tune"]

# A method that takes HOPELESS times as long as the fastest is timed no further. MOST calls of a
# small convolution outlast a disturbance of the machine.
HOPELESS, MOST = 4.0, 1000
# Temporaries below this are nobody's concern.
SMALL = 2**20


def tune(fn: Callable[..., Any], *args: Any, seconds: float = 1.0, **kwargs: Any) -> Table:
    """Measure the methods for every convolution of a function, on the device that computes here.

    Nothing of fn is run: it is traced, as `jaxdil.explain` does, and each convolution in it, those
    of jit, scan, while, cond, remat and custom rules included, is run on random numbers by every
    method that supports it, lax among them. To measure gradients, pass the function that computes
    them: ``jax.grad(loss)``, a whole training step. What occurs several times is measured once.

    A method is left out if its result is not that of lax, or if its temporaries exceed both twice
    input plus output and those of lax, unless the rules take it all the same. What it takes to
    bring x, w and y into the order of axes that the methods work in, and back, is measured with it,
    from the order that fn first has them in.

    Shows a progress bar in a terminal. Nothing is put in force: ``with table:`` or `use` does that.

    Args:
      fn: any function that ``jax.jit`` could trace.
      args: of fn: arrays, or ``jax.ShapeDtypeStruct`` in their place.
      seconds: for how long the methods for one convolution are timed, all together, after they are
        compiled and called once. Those near the fastest are called three times even where that
        takes longer, and none more than a thousand times.
      kwargs: of fn.

    Returns:
      The table of what was measured.

    Raises:
      ValueError: if seconds is not positive.
      TypeError: if fn is no function.

    Cost: compiling each method for each convolution, and ``seconds``.

    >>> import jax, jax.numpy as jnp
    >>> def loss(w, x):
    ...     return jnp.sum(jaxdil.depthwise_conv(x, w) ** 2)
    >>> x, w = jnp.ones((1, 9, 4)), jnp.ones((3, 4, 1))
    >>> table = jaxdil.tuning.tune(jax.grad(loss), w, x, seconds=0.01)
    >>> len(table)  # forward, and by the kernel
    2
    """
    _check(fn, seconds)
    closed, _, _ = traced(fn, args, kwargs, method="auto")
    equations: dict[Problem, Any] = {}
    for found in convolutions(closed.jaxpr):
        problem = _problem(found.eqn)
        if problem is not None:
            equations.setdefault(problem, found.eqn)
    platform, device = default_device()
    releases = jax.__version__, importlib.metadata.version("jaxlib")
    entries = {}
    with _no_table():  # of what a method leaves to others, the rules choose
        todo = progress(equations.items(), total=len(equations), what="tune: measuring")
        for problem, eqn in todo:
            times = _times(eqn, problem, platform, seconds)
            ms = tuple((name, float(f"{1e3 * took:.4g}")) for name, took in times.items())
            entries[Key(platform, device, problem)] = Times(ms, *releases)
    return Table(entries)


def _check(fn: Any, seconds: Any) -> None:
    if not callable(fn):
        what = f"fn must be a function, got {fn!r}"
        raise TypeError(error("tuning.tune", what, "Pass the function and then its arguments."))
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        what = f"seconds must be a positive number, got {seconds!r}"
        hint = "An argument of fn that has this name can be bound with functools.partial."
        raise ValueError(error("tuning.tune", what, hint))


def _no_table() -> contextlib.AbstractContextManager[Any]:
    if _active.active() is None:
        return contextlib.nullcontext()
    return _active.within(Table())


def _problem(eqn: Any) -> Problem | None:
    """What to measure, if there is something to."""
    x, w, y = (v.aval for v in (*eqn.invars, *eqn.outvars))
    if not all(isinstance(size, int) for size in (*x.shape, *w.shape)):
        return None  # its sizes are known only when it runs, and it stays with lax
    problem = _layout.problem_of(x, w, y, eqn.params)
    named = not isinstance(problem.precision, lax.DotAlgorithm)  # else a file cannot hold it
    return problem if named and not problem.is_empty else None


def _times(eqn: Any, problem: Problem, platform: str, seconds: float) -> dict[str, float]:
    """Median seconds of each method that serves the problem as well as lax does."""
    arrays = [random_like(seed, v.aval) for seed, v in enumerate(eqn.invars)]
    plain = _program(eqn, arrays, "xla")
    allowed = max(2 * problem.bytes, _temporaries(plain), SMALL)
    ruled = choose(problem, platform=platform).method
    expected = _exact(eqn, arrays, problem, plain)
    programs = {"xla": plain}
    for name in METHODS:
        if name == "xla" or not races(name, platform):
            continue
        if load(name).supports(problem, platform) is not None:
            continue
        try:
            program = _program(eqn, arrays, name)
            if _temporaries(program) > allowed and name != ruled:
                continue
            wrong = _wrong(program(*arrays), expected, problem, platform)
            if wrong is None:
                programs[name] = program
        except jax.errors.JaxRuntimeError as failure:  # out of memory, say
            wrong = str(failure).partition("\n")[0]
        if wrong is not None:
            shapes = f"x {problem.x_shape} with w {problem.w_shape} (channels last)"
            text = f"{name!r} is left out for the convolution of {shapes}: {wrong}"
            warnings.warn(error("tuning.tune", text), RuntimeWarning, stacklevel=3)
    calls = [functools.partial(program, *arrays) for program in programs.values()]
    took = race(calls, seconds=seconds / len(calls), most=MOST, hopeless=HOPELESS)
    return dict(zip(programs, took, strict=True))


def _program(eqn: Any, arrays: list[Any], method: str, **changes: Any) -> Any:
    params = {**eqn.params, "method": method, **changes}
    return jax.jit(functools.partial(conv_p.bind, **params)).lower(*arrays).compile()


def _temporaries(program: Any) -> int:
    """Bytes, as far as the compiler tells."""
    analysis = program.memory_analysis()
    return getattr(analysis, "temp_size_in_bytes", 0)


def _is_half(problem: Problem) -> bool:
    return jnp.issubdtype(problem.out_dtype, jnp.floating) and problem.out_dtype.itemsize < 4


def _exact(eqn: Any, arrays: list[Any], problem: Problem, plain: Any) -> Any:
    """The result by lax; of half precision in single, which lax itself does not always sum in."""
    if not _is_half(problem):
        return plain(*arrays)
    wide = [array.astype(problem.sum_dtype) for array in arrays]
    return _program(eqn, wide, "xla", preferred_element_type=problem.sum_dtype)(*wide)


def _wrong(actual: Any, expected: Any, problem: Problem, platform: str) -> str | None:
    """What is wrong with a result, if its distance from lax's is more than rounding makes.

    Relative to the whole: rounding of operands is not larger than a unit, that of a sum of n random
    terms grows with sqrt(n).
    """
    if not jnp.issubdtype(problem.out_dtype, jnp.inexact):
        same = np.array_equal(np.asarray(actual), np.asarray(expected))
        return None if same else "its result is not that of lax"
    is_complex = jnp.issubdtype(problem.out_dtype, jnp.complexfloating)
    wide = np.complex128 if is_complex else np.float64
    a, b = (np.asarray(array).astype(wide) for array in (actual, expected))
    sums = float(jnp.finfo(problem.sum_dtype).eps)
    # Accelerators multiply in bfloat16 or TF32 unless they are told otherwise.
    products = sums if platform == "cpu" else float(jnp.finfo(jnp.bfloat16).eps)
    terms = problem.taps * problem.group_channels
    rounding = products + sums * math.sqrt(terms) + float(jnp.finfo(problem.out_dtype).eps)
    size, distance = np.linalg.norm(b), np.linalg.norm(a - b)
    if distance <= 4 * rounding * size:  # false for a NaN
        return None
    return f"its result differs from lax's by {distance / size:.1e} of it"
