"""What would run: each convolution of a function, where it stands, its size, its method and why."""

from __future__ import annotations

import functools
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxdil import _dispatch, _layout
from jaxdil._primitive import choice_of, conv_p
from jaxdil._problem import Problem
from jaxdil._transform import traced

__all__ = ["Explanation", "Row", "explain"]

_OURS = tuple(str(pathlib.Path(str(m.__file__)).parent) for m in (jax, _dispatch))


class Row(NamedTuple):
    """One convolution of a function."""

    source: str
    """Where it stands in the user's source: ``file:line (function)``."""
    name: str
    """The scope it stands in (``jax.named_scope``, and the names that layers give)."""
    role: str
    """"forward", "input gradient" or "kernel gradient"."""
    times: int
    """How often it runs: the trips of the scans around it (1 for a while loop)."""
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    flops: int
    """Multiplications and additions of one run that touch a sample."""
    bytes: int
    """Size of input, kernel and output together."""
    method: str
    because: str
    problem: Problem


class Explanation(tuple[Row, ...]):
    """The rows of `explain`; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        """The table, with totals."""
        return _table(self)

    def __repr__(self) -> str:
        """The table too: this is what a notebook shows."""
        return _table(self)


def explain(
    fn: Callable[..., Any], *, platform: str | None = None, gradients: bool = True
) -> Callable[..., Explanation]:
    """A function, called like ``fn``, that lists its convolutions and the method each would get.

    Nothing is run: fn is traced, as `accelerate` does.

    Args:
      fn: any function that ``jax.jit`` could trace.
      platform: "cpu", "cuda", "rocm" or "tpu", whether or not there is one; the default backend if
        None.
      gradients: if fn contains no gradient itself, follow each convolution by the two that
        ``jax.grad`` would make of it, by input and by kernel. A function that is a gradient shows
        what it contains.

    Returns:
      A function from the arguments of fn (arrays, or ``jax.ShapeDtypeStruct`` in their place) to an
      ``Explanation``: a tuple of ``Row`` that prints as a table.

    Raises:
      MethodError: when called, if a pinned method cannot serve.

    >>> import jax, jax.numpy as jnp
    >>> x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((4, 2, 3, 3))
    >>> rows = jaxdil.explain(lambda x, w: jax.lax.conv(x, w, (1, 1), "SAME"))(x, w)
    >>> [(row.role, row.flops) for row in rows]
    [('forward', 2704), ('input gradient', 2704), ('kernel gradient', 2704)]
    """

    @functools.wraps(fn)
    def explained(*args: Any, **kwargs: Any) -> Explanation:
        closed, _, _ = traced(fn, args, kwargs, method="auto")
        on = platform or jax.default_backend()
        on = "cuda" if on == "gpu" else on
        found = list(_convolutions(closed.jaxpr))
        derive = gradients and not any(each.is_transposed for each in found)
        rows = []
        for each in found:
            row = _row(each, on)
            rows.append(row)
            if derive:
                rows += [
                    _row(part, on)._replace(
                        source=row.source, name=row.name, times=row.times, role=role
                    )
                    for role, part in _gradients(each.eqn)
                ]
        return Explanation(rows)

    return explained


class _Found(NamedTuple):
    """An equation of conv_p, the scopes around it, outermost first, and how often it runs."""

    eqn: Any
    path: str
    times: int

    @property
    def is_transposed(self) -> bool:
        # What a checkpoint computes again on the way back is the forward pass once more.
        return "transpose(" in self.path.rpartition("rematted_computation")[2]


def _convolutions(jaxpr: Jaxpr, path: str = "", times: int = 1) -> Iterator[_Found]:
    for eqn in jaxpr.eqns:
        here = f"{path}/{eqn.source_info.name_stack}"
        if eqn.primitive is conv_p:
            yield _Found(eqn, here, times)
        trips = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from _convolutions(inner.jaxpr, here, times * trips)
                elif isinstance(inner, Jaxpr):
                    yield from _convolutions(inner, here, times * trips)


def _gradients(eqn: Any) -> list[tuple[str, _Found]]:
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
        for part in _convolutions(jax.make_jaxpr(pullback)(x, w, g).jaxpr)
        if part.is_transposed
    ]


def _role(found: _Found) -> str:
    if not found.is_transposed:
        return "forward"
    # By the kernel: a window as large as an image, an output as small as a kernel.
    numbers = found.eqn.params["dimension_numbers"]
    window, output = (
        math.prod(v.aval.shape[axis] for axis in spec[2:])
        for v, spec in (
            (found.eqn.invars[1], numbers.rhs_spec),
            (found.eqn.outvars[0], numbers.out_spec),
        )
    )
    if window != output:
        return "kernel gradient" if window > output else "input gradient"
    # It sums over the batch, which so changes places with the channels, last as a rule.
    batch, channels = numbers.lhs_spec[:2]
    return "kernel gradient" if batch > channels else "input gradient"


def _row(found: _Found, platform: str) -> Row:
    eqn = found.eqn
    x, w, y = (v.aval for v in (*eqn.invars, *eqn.outvars))
    params = dict(eqn.params)
    choice = choice_of(x, w, y, params, platform)
    problem = _layout.problem_of(x, w, y, params)
    return Row(
        source=_source(eqn),
        name=_name(found.path),
        role=_role(found),
        times=found.times,
        x_shape=tuple(x.shape),
        w_shape=tuple(w.shape),
        y_shape=tuple(y.shape),
        flops=problem.flops,
        bytes=problem.bytes,
        method=choice.method,
        because=choice.because,
        problem=problem,
    )


def _name(path: str) -> str:
    """The user's scopes in a path, without the transforms that JAX writes around them."""
    plain = re.sub(
        r"\b(jvp|transpose|vmap|remat|checkpoint|rematted_computation|jit)\b|[()]", "", path
    )
    return "/".join(part for part in plain.split("/") if part)


def _source(eqn: Any) -> str:
    """The innermost frame that is neither JAX's nor ours."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_OURS):
            name = pathlib.Path(frame.file_name).name
            return f"{name}:{frame.line_num} ({frame.function_name})"
    return ""


def _table(rows: Explanation) -> str:
    total = max(sum(row.times * row.flops for row in rows), 1)
    head = (
        "source",
        "name",
        "role",
        "x",
        "w",
        "y",
        "times",
        "MFLOP",
        "MB",
        "share",
        "method",
        "because",
    )
    lines = [
        (
            row.source,
            row.name,
            row.role,
            *("x".join(map(str, shape)) for shape in (row.x_shape, row.w_shape, row.y_shape)),
            str(row.times),
            f"{row.flops / 1e6:.2f}",
            f"{row.bytes / 1e6:.2f}",
            f"{row.times * row.flops / total:.1%}",
            row.method,
            row.because,
        )
        for row in rows
    ]
    counts = {
        name: sum(row.method == name for row in rows) for name in sorted({r.method for r in rows})
    }
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    right = range(6, 10)
    text = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, tuple("-" * width for width in widths), *lines)
    ]
    served = ", ".join(f"{count} {name}" for name, count in counts.items())
    runs = sum(row.times for row in rows)
    text.append(
        f"{len(rows)} convolutions ({served or 'none'}), {runs} runs, "
        f"{math.fsum(row.times * row.flops for row in rows) / 1e9:.3f} GFLOP"
    )
    return "\n".join(text)
