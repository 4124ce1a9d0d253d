"""What would run: each convolution of a function, where it stands, its size, its method and why."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from jaxdil import _dispatch, _layout, _roles
from jaxdil._errors import error
from jaxdil._explanation import Explanation, Row
from jaxdil._measure import progress, race
from jaxdil._plain import plain_p
from jaxdil._primitive import PLATFORMS, choice_of, conv_p, of_lax
from jaxdil._transform import traced

__all__ = [
    "Found",
    "convolutions",
    "explain",
    "found_of",
    "program_of",
    "random_like",
    "role_of",
    "scope_of",
]

_OURS = tuple(str(pathlib.Path(str(m.__file__)).parent) for m in (jax, _dispatch))
# Where the code of other libraries lies.
_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]")


def explain(
    fn: Callable[..., Any],
    *,
    platform: str | None = None,
    gradients: bool = True,
    measure: bool = False,
) -> Callable[..., Explanation]:
    """A function, called like ``fn``, that lists its convolutions and the method each would get.

    Nothing of fn is run: it is traced, as `accelerate` does.

    Args:
      fn: any function that ``jax.jit`` could trace: a layer, a loss, a whole training step.
      platform: "cpu", "cuda", "rocm" or "tpu", whether or not there is one; the default backend if
        None. Each row also tells the choice for all four.
      gradients: if fn contains no gradient itself, follow each convolution by the two that
        ``jax.grad`` would make of it, by input and by kernel. A function that is a gradient shows
        what it contains.
      measure: run each convolution on random numbers, under lax and by the method chosen, and tell
        the milliseconds. On the default backend only. Shows a progress bar in a terminal.

    Returns:
      A function from the arguments of fn (arrays, or ``jax.ShapeDtypeStruct`` in their place) to an
      ``Explanation``: a tuple of ``Row`` in the order of the program, that prints as a table with
      the costliest first and totals at the end.

    Raises:
      ValueError: for an unknown platform, and for ``measure`` on a platform that is not here.
      MethodError: when called, if a pinned method cannot serve.

    >>> import jax, jax.numpy as jnp
    >>> x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((4, 2, 3, 3))
    >>> rows = jaxdil.explain(lambda x, w: jax.lax.conv(x, w, (1, 1), "SAME"))(x, w)
    >>> [(row.role, row.flops) for row in rows]
    [('forward', 2704), ('input gradient', 2704), ('kernel gradient', 2704)]
    """
    on = _platform(platform)
    if measure and on != _platform(jax.default_backend()):
        what = f"measure=True needs the platform here, got platform={platform!r}"
        hint = (
            f"This process runs on {jax.default_backend()!r}; pass measure=False, or no platform."
        )
        raise ValueError(error("explain", what, hint))

    @functools.wraps(fn)
    def explained(*args: Any, **kwargs: Any) -> Explanation:
        closed, _, _ = traced(fn, args, kwargs, method="auto")
        found = list(convolutions(closed.jaxpr))
        derive = gradients and not any(each.is_transposed for each in found)
        pairs = []
        for each in found:
            row = _row(each, on)
            pairs.append((each, row))
            if derive:
                shared: dict[str, Any] = {
                    "source": row.source,
                    "name": row.name,
                    "times": row.times,
                }
                pairs += [
                    (part, _row(part, on)._replace(role=role, **shared))
                    for role, part in _gradients(each.eqn)
                ]
        return Explanation(_measured(pairs) if measure else [row for _, row in pairs])

    return explained


def _platform(name: str | None) -> str:
    name = jax.default_backend() if name is None else name
    name = "cuda" if name == "gpu" else name
    if name not in PLATFORMS:
        known = ", ".join(map(repr, PLATFORMS))
        raise ValueError(error("explain", f"platform must be one of {known}, got {name!r}"))
    return name


class Found(NamedTuple):
    """An equation, the scopes around it, outermost first, its runs and its source."""

    eqn: Any
    path: str
    times: int
    source: str
    by_input: frozenset[int]
    """The ids of all equations of the program that are gradients by the input."""

    @property
    def is_transposed(self) -> bool:
        """Whether it stands on the way back."""
        return _roles.is_back(self.path)


def program_of(jaxpr: Jaxpr) -> Found:
    """What is around the equations of a whole program."""
    return Found(None, "", 1, "", _roles.by_input(jaxpr))


def found_of(eqn: Any, around: Found) -> Found:
    """An equation of the program inside ``around``."""
    path = f"{around.path}/{eqn.source_info.name_stack}"
    # In a program inside another, JAX may know no frame outside of it.
    return around._replace(eqn=eqn, path=path, source=_source(eqn) or around.source)


def convolutions(jaxpr: Jaxpr, around: Found | None = None) -> Iterator[Found]:
    """Every equation of conv_p in a program and in the programs within it."""
    around = program_of(jaxpr) if around is None else around
    for eqn in jaxpr.eqns:
        inner = list(_roles.programs(eqn))
        if eqn.primitive is not conv_p and not inner:
            continue
        found = found_of(eqn, around)
        if eqn.primitive is conv_p:
            yield found
        trips = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for program in inner:
            yield from convolutions(program, found._replace(times=found.times * trips))


def _gradients(eqn: Any) -> list[tuple[str, Found]]:
    """The convolutions that the gradients of one make, by input and by kernel."""
    x, w = (jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return []
    conv = functools.partial(conv_p.bind, **eqn.params)

    def by_input(x: Any, w: Any, g: Any) -> Any:
        return jax.vjp(lambda x: conv(x, w), x)[1](g)

    def by_kernel(x: Any, w: Any, g: Any) -> Any:
        return jax.vjp(lambda w: conv(x, w), w)[1](g)

    g = jax.eval_shape(conv, x, w)
    return [
        (role, part)
        for role, pullback in (("input gradient", by_input), ("kernel gradient", by_kernel))
        for part in convolutions(jax.make_jaxpr(pullback)(x, w, g).jaxpr)
        if part.is_transposed
    ]


def role_of(found: Found) -> str:
    """Forward, or which of the gradients."""
    if not found.is_transposed:
        return "forward"
    return "input gradient" if id(found.eqn) in found.by_input else "kernel gradient"


def _row(found: Found, platform: str) -> Row:
    eqn = found.eqn
    x, w, y = (v.aval for v in (*eqn.invars, *eqn.outvars))
    params = dict(eqn.params)
    choices = {name: choice_of(x, w, y, params, name) for name in PLATFORMS if name != platform}
    choice = choice_of(x, w, y, params, platform)
    problem = _layout.problem_of(x, w, y, params)
    return Row(
        source=found.source,
        name=scope_of(found.path),
        role=role_of(found),
        times=found.times,
        x_shape=tuple(x.shape),
        w_shape=tuple(w.shape),
        y_shape=tuple(y.shape),
        flops=problem.flops,
        bytes=problem.bytes,
        method=choice.method,
        because=choice.because,
        problem=problem,
        choices={name: choices.get(name, choice) for name in PLATFORMS},
    )


def _measured(pairs: list[tuple[Found, Row]]) -> list[Row]:
    """The rows with the times of their convolutions; what is the same convolution is timed once."""
    times: dict[Any, tuple[float, float]] = {}
    rows = []
    for found, row in progress(pairs, total=len(pairs), what="explain: measuring"):
        eqn = found.eqn
        key = (str(eqn.params), *(v.aval.str_short() for v in eqn.invars))
        if key not in times:
            times[key] = _times(eqn, row.method)
        lax_ms, ms = times[key]
        rows.append(row._replace(lax_ms=lax_ms, ms=ms))
    return rows


def _times(eqn: Any, method: str) -> tuple[float, float]:
    """Milliseconds under lax and by the method."""
    arrays = [random_like(seed, v.aval) for seed, v in enumerate(eqn.invars)]
    plain = jax.jit(functools.partial(plain_p.bind, **of_lax(eqn.params)))
    if method == "xla":  # lax itself: two times of one program would show noise as a difference
        (took,) = race([lambda: plain(*arrays)])
        return 1e3 * took, 1e3 * took
    ours = jax.jit(functools.partial(conv_p.bind, **eqn.params))
    before, after = race([lambda: plain(*arrays), lambda: ours(*arrays)])
    return 1e3 * before, 1e3 * after


def random_like(seed: int, aval: Any) -> jax.Array:
    """Numbers of a shape and a dtype, by numpy: JAX would compile a generator for each shape."""
    random = np.random.default_rng(seed)
    if not jnp.issubdtype(aval.dtype, jnp.inexact):
        return jnp.asarray(random.integers(0, 5, aval.shape).astype(aval.dtype))
    values = random.standard_normal(aval.shape)
    if jnp.issubdtype(aval.dtype, jnp.complexfloating):
        values = values + 1j * random.standard_normal(aval.shape)
    return jnp.asarray(values.astype(aval.dtype))


def scope_of(path: str) -> str:
    """The user's scopes in a path, without the transforms that JAX writes around them."""
    plain = re.sub(
        r"\b(jvp|transpose|vmap|remat|checkpoint|rematted_computation|jit)\b|[()]", "", path
    )
    return "/".join(part for part in plain.split("/") if part)


def _source(eqn: Any) -> str:
    """The innermost frame of the user's own code, else of the library that called JAX."""
    traceback = eqn.source_info.traceback
    frames = [
        frame
        for frame in (traceback.frames if traceback is not None else ())
        if not frame.file_name.startswith(_OURS)
    ]
    own = [frame for frame in frames if not _INSTALLED.search(frame.file_name)]
    for frame in (own or frames)[:1]:
        name = pathlib.Path(frame.file_name).name
        return f"{name}:{frame.line_num} ({frame.function_name})"
    return ""
