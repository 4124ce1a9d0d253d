"""What a function costs: operations, bytes and parameters of its convolutions and matrix products.

    convolution   2 I O N (pairs of an output position and a tap that meet a sample)
    matmul        2 batch rows columns (length of the sums)

One multiplication with its addition is two FLOPs, or one MAC. Products with padding and inserted
zeros are none, as in XLA's own analysis; the runs of a scan are counted, as they are not there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxdil import _arguments, _layout
from jaxdil._errors import error
from jaxdil._explain import Found, found_of, program_of, role_of, scope_of
from jaxdil._explanation import table
from jaxdil._primitive import conv_p
from jaxdil._swap import is_array
from jaxdil._transform import traced

__all__ = ["Cost", "Costs", "costs"]

# What moves the elements of an array and makes no other ones: a kernel stays the same kernel.
_MOVES = {"reshape", "transpose", "rev", "squeeze", "expand_dims", "convert_element_type", "copy"}


class Cost(NamedTuple):
    """One convolution or matrix product of a function."""

    kind: str
    """"convolution" or "matmul"."""
    source: str
    """Where it stands in the user's source: ``file:line (function)``."""
    name: str
    """The scope it stands in (``jax.named_scope``, and the names that layers give)."""
    role: str
    """"forward", "input gradient" or "kernel gradient"; of a matmul "forward" or "gradient"."""
    times: int
    """How often it runs: the trips of the scans around it (1 for a while loop)."""
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    flops: int
    """Multiplications and additions of one run, those with padding and inserted zeros left out."""
    bytes: int
    """Size of both operands and the result together, each once."""
    parameters: int
    """Elements of the kernel, if it is an argument or a constant of the function; else 0."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run: half its FLOPs."""
        return self.flops // 2


class Costs(tuple[Cost, ...]):
    """The rows of `costs`, in the order of the program, and their totals; prints as a table."""

    parameters: int
    """Elements of all kernels, each array once; of all arrays of ``argnums``, if given."""

    def __new__(cls, rows: Iterable[Cost], parameters: int) -> Costs:
        """Rows and the number of parameters, which the rows may share."""
        made = super().__new__(cls, rows)
        made.parameters = parameters
        return made

    def __getnewargs__(self) -> tuple[tuple[Cost, ...], int]:
        """What copies and pickles are made of."""
        return tuple(self), self.parameters

    @property
    def flops(self) -> int:
        """Multiplications and additions of all runs."""
        return sum(row.times * row.flops for row in self)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all runs: half the FLOPs."""
        return self.flops // 2

    @property
    def bytes(self) -> int:
        """Operands and results of all runs, as if nothing stayed in a cache."""
        return sum(row.times * row.bytes for row in self)

    def __str__(self) -> str:
        """The table, with totals."""
        head = ["source", "name", "kind", "role", "x", "w", "y", "times", "MFLOP", "MB"]
        lines = [
            [row.source, row.name, row.kind, row.role]
            + ["x".join(map(str, shape)) for shape in (row.x_shape, row.w_shape, row.y_shape)]
            + [str(row.times), f"{row.flops / 1e6:.2f}", f"{row.bytes / 1e6:.2f}"]
            + [str(row.parameters)]
            for row in self
        ]
        total = f"{self.flops / 1e6:.2f} MFLOP ({self.macs / 1e6:.2f} MMAC)"
        size = f"{self.bytes / 1e6:.2f} MB, {self.parameters} parameters"
        return "\n".join([*table([*head, "parameters"], lines), f"{total}, {size}"])

    __repr__ = __str__


def costs(
    fn: Callable[..., Any], *, argnums: int | Sequence[int] | None = None
) -> Callable[..., Costs]:
    """A function, called like ``fn``, that counts what its convolutions and matrix products cost.

    Nothing is run: fn is traced. It may be one of our functions, a layer, a network, a loss, or a
    gradient, whose backward convolutions are then rows of their own. Convolutions of any library
    are counted, and every ``dot_general`` (``@``, ``einsum``, dense layers). Anything else
    (additions, activations, normalisation, pooling, FFTs, kernels in Pallas) is not: beside
    convolutions it is small in FLOPs, though not always in time.

    The FLOPs of a convolution are those that XLA's own ``cost_analysis()`` gives for it under
    ``lax``: products with padding and with inserted zeros are left out. XLA counts the body of a
    loop once, which this counts as often as a scan runs it; it counts what a formulation does,
    which may be more or less than the convolution asks for; and it sees what the compiler found to
    be needed, where this counts all that was traced, a forward pass whose value nobody reads too.

    Args:
      fn: any function that ``jax.jit`` could trace.
      argnums: the arguments that hold the parameters, as in ``jax.grad``: then ``parameters``
        counts all their arrays, biases and scales too. None: arguments and constants of fn that
        serve as a kernel, reshaped, transposed, flipped or cast perhaps.

    Returns:
      A function from the arguments of fn (arrays, or ``jax.ShapeDtypeStruct`` in their place) to
      ``Costs``: a tuple of ``Cost`` that prints as a table, with totals ``flops``, ``macs``,
      ``bytes`` and ``parameters``. Of a ``cond``, the branch with the most FLOPs; of a ``while``,
      one trip; of a ``shard_map``, what one device does.

    Raises:
      TypeError: for argnums that are no integers.
      ValueError: when called, for argnums beyond the arguments.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 4))
    >>> counted = jaxdil.costs(jaxdil.conv)(x, w)
    >>> counted.flops, counted.macs, counted.bytes, counted.parameters
    (2704, 1352, 888, 72)
    >>> loss = lambda w, x: jnp.sum(jaxdil.conv(x, w) ** 2)
    >>> [(row.role, row.flops) for row in jaxdil.costs(jax.grad(loss))(w, x)]
    [('forward', 2704), ('kernel gradient', 2704)]
    """
    where = "costs"
    many = argnums if isinstance(argnums, Sequence) else [] if argnums is None else [argnums]
    chosen = [_arguments.integer(where, "argnums", n, least=0) for n in many]

    @functools.wraps(fn)
    def counted(*args: Any, **kwargs: Any) -> Costs:
        if max(chosen, default=-1) >= len(args):
            what = f"argnums must be below {len(args)}, the number of positional arguments"
            raise ValueError(error(where, f"{what}, got {argnums!r}"))
        closed, _, _ = traced(fn, args, kwargs, method="auto")
        jaxpr = closed.jaxpr
        if argnums is None:
            held = [*jaxpr.invars, *jaxpr.constvars]
        else:
            owners = [n for n, arg in enumerate(args) for x in jax.tree.leaves(arg) if is_array(x)]
            pairs = zip(
                owners, jaxpr.invars, strict=False
            )  # what comes by keyword is in no argnums
            held = [v for n, v in pairs if n in chosen]
        origins = {v: Origin(i, v.aval.size, argnums is not None) for i, v in enumerate(held)}
        parameters = {*origins.values()}
        rows = list(_walk(jaxpr, origins, program_of(jaxpr)))
        if argnums is None:
            parameters = {origin for _, origin in rows if origin}
        return Costs([row for row, _ in rows], sum(origin.size for origin in parameters))

    return counted


class Origin(NamedTuple):
    """The argument or constant of the function that an array is."""

    number: int
    size: int
    is_parameter: bool
    """Whether the caller says so."""


Origins: TypeAlias = dict[Any, Origin]
Counted: TypeAlias = tuple[Cost, Origin | None]


def _walk(jaxpr: Jaxpr, origins: Origins, around: Found) -> Iterator[Counted]:
    """The costs of a program, with the kernel that each has; what moves a kernel is followed."""
    for eqn in jaxpr.eqns:
        found = found_of(eqn, around)
        operands = [None if isinstance(v, Literal) else origins.get(v) for v in eqn.invars]
        name = eqn.primitive.name
        if eqn.primitive is conv_p:
            yield _convolution(found, operands[1])
        elif name == "dot_general":
            yield _matmul(found, operands)
        elif name in _MOVES and operands[0]:
            origins[eqn.outvars[0]] = operands[0]
        elif name == "pallas_call":
            continue
        elif name == "cond":
            branches = [
                list(_walk(branch.jaxpr, _inner(branch.jaxpr, operands[1:]), found))
                for branch in eqn.params["branches"]
            ]
            yield from max(branches, key=lambda b: sum(r.times * r.flops for r, _ in b))
        else:
            yield from _bodies(found, operands, origins)


def _bodies(found: Found, operands: list[Origin | None], origins: Origins) -> Iterator[Counted]:
    """The costs of the programs inside an equation."""
    eqn = found.eqn
    if eqn.primitive.name == "scan":
        found = found._replace(times=found.times * eqn.params["length"])
    if eqn.primitive.name == "while":
        counts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        parts = {
            "cond_jaxpr": operands[: counts[0]] + operands[sum(counts) :],
            "body_jaxpr": operands[counts[0] :],
        }
    else:
        parts = dict.fromkeys(eqn.params, operands)
    for param, given in parts.items():
        value = eqn.params[param]
        for program in value if isinstance(value, tuple | list) else (value,):
            jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
            if isinstance(jaxpr, Jaxpr):
                inner = _inner(jaxpr, given)
                yield from _walk(jaxpr, inner, found)
                if len(jaxpr.outvars) == len(eqn.outvars) and eqn.primitive.name != "scan":
                    pairs = zip(eqn.outvars, jaxpr.outvars, strict=True)
                    kept = {v: w for v, w in pairs if not isinstance(w, Literal) and w in inner}
                    origins |= {v: inner[w] for v, w in kept.items()}


def _inner(jaxpr: Jaxpr, operands: list[Origin | None]) -> Origins:
    """What the arguments of an inner program are, where they are the operands one by one."""
    if len(jaxpr.invars) != len(operands):
        return {}
    return {v: origin for v, origin in zip(jaxpr.invars, operands, strict=True) if origin}


def _convolution(found: Found, kernel: Origin | None) -> Counted:
    eqn = found.eqn
    x, w, y = (v.aval for v in (*eqn.invars, *eqn.outvars))
    problem = _layout.problem_of(x, w, y, dict(eqn.params))
    return _cost(
        "convolution", found, role_of(found), (x, w, y), problem.flops, kernel, problem.bytes
    )


def _matmul(found: Found, operands: list[Origin | None]) -> Counted:
    eqn = found.eqn
    a, b, y = (v.aval for v in (*eqn.invars, *eqn.outvars))
    summed = math.prod(a.shape[axis] for axis in eqn.params["dimension_numbers"][0][0])
    size = sum(v.size * v.dtype.itemsize for v in (a, b, y))
    role = "gradient" if found.is_transposed else "forward"
    # x @ w. An einsum may have them the other way round, but an x that is an argument is no kernel.
    x, kernel = operands
    kernel = x if x and x.is_parameter and not kernel else kernel
    return _cost("matmul", found, role, (a, b, y), 2 * y.size * summed, kernel, size)


def _cost(
    kind: str,
    found: Found,
    role: str,
    avals: Sequence[Any],
    flops: int,
    kernel: Origin | None,
    size: int,
) -> Counted:
    kernel = kernel if role == "forward" else None
    return Cost(
        kind=kind,
        source=found.source,
        name=scope_of(found.path),
        role=role,
        times=found.times,
        x_shape=tuple(avals[0].shape),
        w_shape=tuple(avals[1].shape),
        y_shape=tuple(avals[2].shape),
        flops=flops,
        bytes=size,
        parameters=kernel.size if kernel else 0,
    ), kernel
