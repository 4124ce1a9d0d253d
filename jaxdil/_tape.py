"""What a traced function reads of one of its arguments, as a tape of edges.

One walk over the jaxpr. Calls are walked into, the trips of a scan one after the other, the
branches of a cond side by side; what does not depend on the argument leaves no edge.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxdil import _read_rules
from jaxdil._errors import error
from jaxdil._reads import Bounds, Edge, Link, Reads, Window, union, whole
from jaxdil._swap import is_array, trace

__all__ = ["Tape", "tape_of"]

_SMALL = 1 << 16  # elements of a constant that is worth computing: positions, not weights


class Tape(NamedTuple):
    """Values are numbers, the argument is 0; each edge comes after those it continues."""

    shapes: list[tuple[int, ...]]
    edges: list[Edge]
    results: list[int | None]
    """The value of each array that the function returns; None if it depends on nothing."""
    result_shapes: list[tuple[int, ...]]
    unknown: dict[int, str]
    """The values made by primitives that no rule knows, which are taken to read everything."""

    def bounds(self, axis: int) -> list[Bounds | None]:
        """Bounds of every value on one axis of the argument; None where nothing leads to it."""
        shape = self.shapes[0]
        line = [n if k == axis else 1 for k, n in enumerate(shape)]
        start = np.arange(float(shape[axis])).reshape(line)
        jump = tuple(Fraction(k == axis) for k in range(len(shape)))
        values: list[Bounds | None] = [None] * len(self.shapes)
        values[0] = Bounds(start, start, jump, (1,) * len(shape))
        for operand, result, link in self.edges:
            given, sofar = values[operand], values[result]
            if given is not None:
                new = link.bounds(given, self.shapes[operand], self.shapes[result])
                values[result] = new if sofar is None else union(sofar, new)
        return values

    def ways(self, result: int, ways: np.ndarray, *, most: float) -> np.ndarray:
        """Ways from each sample of the argument to a value, from those that start at the value."""
        values: dict[int, np.ndarray] = {result: ways}
        for value, edges in itertools.groupby(reversed(self.edges), lambda edge: edge.result):
            if value not in values:
                continue
            given = values.pop(value)
            for operand, _, link in edges:
                new = link.back(given, self.shapes[operand])
                with np.errstate(over="ignore"):
                    values[operand] = np.minimum(values.get(operand, 0) + new, most)
        return values.get(0, np.zeros(self.shapes[0]))

    def mixing(self, result: int) -> tuple[str, ...]:
        """The unknown primitives on the way to a value."""
        reached = {result}
        for edge in reversed(self.edges):
            if edge.result in reached:
                reached.add(edge.operand)
        return tuple(dict.fromkeys(n for value, n in self.unknown.items() if value in reached))


def tape_of(
    where: str, fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], argnum: int
) -> tuple[Tape, Callable[[list[Any]], Any]]:
    """The tape of a call for one argument, and its results' tree from one value an array."""
    if not 0 <= argnum < len(args) or not is_array(args[argnum]):
        got = type(args[argnum]).__name__ if 0 <= argnum < len(args) else f"{len(args)} arguments"
        what = f"argument {argnum} of the function must be an array, got {got}"
        raise TypeError(
            error(where, what, "Pass argnum= for another; a jax.ShapeDtypeStruct will do.")
        )
    shape = tuple(args[argnum].shape)
    if 0 in shape:
        raise ValueError(error(where, f"the input must have samples, got shape {shape}"))
    closed, arrays, rebuild = trace(fn, tuple(args), kwargs)
    chosen = sum(is_array(leaf) for leaf in jax.tree.leaves(tuple(args[:argnum])))
    walk = _Walk(shape)
    operands = [0 if i == chosen else _constant(array) for i, array in enumerate(arrays)]
    results = walk.closed(closed, operands)
    numbers = [value if isinstance(value, int) else None for value in results]
    shapes = [tuple(aval.shape) for aval in closed.out_avals]
    return Tape(walk.shapes, walk.edges, numbers, shapes, walk.unknown), rebuild


class _Constant:
    """A value that does not depend on the argument, computed if a rule asks for it."""

    def __init__(self, make: Callable[[], Any] | None = None) -> None:
        self._make = make

    @functools.cached_property
    def value(self) -> np.ndarray | None:
        if self._make is None:
            return None
        with jax.ensure_compile_time_eval():
            made = self._make()
        # A tracer of the caller's has no value yet.
        return None if made is None or isinstance(made, jax.core.Tracer) else np.asarray(made)


def _constant(array: Any) -> _Constant:
    if isinstance(array, jax.ShapeDtypeStruct) or np.size(array) > _SMALL:
        return _Constant()
    return _Constant(lambda: array)


Value: TypeAlias = int | _Constant  # a number on the tape, or a constant


class _Walk:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shapes = [shape]
        self.edges: list[Edge] = []
        self.unknown: dict[int, str] = {}

    def closed(self, closed: ClosedJaxpr, operands: Sequence[Value]) -> list[Value]:
        return self.jaxpr(closed.jaxpr, [_constant(c) for c in closed.consts], operands)

    def jaxpr(
        self, jaxpr: Jaxpr, consts: Sequence[Value], operands: Sequence[Value]
    ) -> list[Value]:
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        values |= zip(jaxpr.invars, operands, strict=True)

        def read(variable: Any) -> Value:
            return _constant(variable.val) if isinstance(variable, Literal) else values[variable]

        for eqn in jaxpr.eqns:
            results = self.equation(eqn, [read(v) for v in eqn.invars])
            values |= zip(eqn.outvars, results, strict=True)
        return [read(v) for v in jaxpr.outvars]

    def equation(self, eqn: Any, operands: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if name in _read_rules.CALLS:
            return self.call(eqn, operands)
        if all(isinstance(v, _Constant) for v in operands):
            return _computed(eqn, operands)
        if name == "scan":
            return self.scan(eqn, operands)
        if name == "cond":
            return self.cond(eqn, operands)
        if name == "stack":
            return [self.stacked(operands, eqn.outvars[0].aval.shape, eqn.params["axis"])]
        return self.ruled(eqn, operands)

    def ruled(self, eqn: Any, operands: list[Value]) -> list[Value]:
        name, rules = eqn.primitive.name, _read_rules

        def known(i: int) -> np.ndarray | None:
            value = operands[i]
            return value.value if isinstance(value, _Constant) else None

        if name in rules.RULES:
            links = rules.RULES[name](eqn)
        elif name in rules.PLACED:
            links = rules.PLACED[name](eqn, known)
        else:
            links = [[whole(v.aval.shape) for v in eqn.invars] for _ in eqn.outvars]
        results = [
            self.value(v.aval.shape, zip(operands, row, strict=True))
            for v, row in zip(eqn.outvars, links, strict=True)
        ]
        if name not in rules.RULES and name not in rules.PLACED:
            self.unknown |= {value: name for value in results if isinstance(value, int)}
        return results

    def value(self, shape: Sequence[int], links: Any) -> Value:
        """A new value that reads operands through links; a constant if all of them are."""
        read = [(v, link) for v, link in links if isinstance(v, int) and link is not None]
        if not read:
            return _Constant()
        self.shapes.append(tuple(shape))
        number = len(self.shapes) - 1
        self.edges += [Edge(operand, number, link) for operand, link in read]
        return number

    def call(self, eqn: Any, operands: list[Value]) -> list[Value]:
        for inner in eqn.params.values():
            if isinstance(inner, ClosedJaxpr):
                return self.closed(inner, operands)
            if isinstance(inner, Jaxpr):
                return self.jaxpr(inner, [], operands)
        return self.ruled(eqn, operands)

    def cond(self, eqn: Any, operands: list[Value]) -> list[Value]:
        """Any branch may be taken, and the index says which."""
        index, *rest = operands
        branches = [self.closed(branch, rest) for branch in eqn.params["branches"]]
        results = []
        for k, variable in enumerate(eqn.outvars):
            shape = variable.aval.shape
            same: Link = Window(Reads(axis) for axis in range(len(shape)))
            links = [(branch[k], same) for branch in branches]
            results.append(self.value(shape, [*links, (index, Window())]))
        return results

    def scan(self, eqn: Any, operands: list[Value]) -> list[Value]:
        params = eqn.params
        body: ClosedJaxpr = params["jaxpr"]
        # By their shapes, because the parameters that count them differ from JAX to JAX.
        carries = _unstacked(eqn.outvars, body.out_avals)
        consts = _unstacked(eqn.invars, body.in_avals) - carries
        fixed, carry = operands[:consts], operands[consts : consts + carries]
        rows = operands[consts + carries :]
        shapes = [tuple(aval.shape) for aval in body.in_avals[consts + carries :]]
        trips: list[list[Value]] = []
        order = range(params["length"])
        for i in reversed(order) if params["reverse"] else order:
            row = [self.row(v, i, shape) for v, shape in zip(rows, shapes, strict=True)]
            results = self.closed(body, [*fixed, *carry, *row])
            carry = results[:carries]
            trips.append(results[carries:])
        trips = trips[::-1] if params["reverse"] else trips
        out = [tuple(aval.shape) for aval in body.out_avals[carries:]]
        stacks = [
            self.stacked([trip[k] for trip in trips], (len(trips), *shape), 0)
            for k, shape in enumerate(out)
        ]
        return [*carry, *stacks]

    def row(self, value: Value, i: int, shape: tuple[int, ...]) -> Value:
        """``value[i]``."""
        if isinstance(value, _Constant):
            return _Constant(lambda: None if value.value is None else value.value[i])
        link = Window([Reads(None, offset=i), *(Reads(axis) for axis in range(len(shape)))])
        return self.value(shape, [(value, link)])

    def stacked(self, values: Sequence[Value], shape: Sequence[int], axis: int) -> Value:
        """Values one after the other along a new axis."""
        one = [1 if k == axis else n for k, n in enumerate(shape)]
        apart: Link = Window(Reads(k) for k in range(len(shape)) if k != axis)
        raised = [self.value(one, [(v, apart)]) for v in values]
        placed = [
            Window(Reads(k, offset=-i if k == axis else 0) for k in range(len(shape)))
            for i in range(len(values))
        ]
        return self.value(shape, zip(raised, placed, strict=True))


def _unstacked(variables: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many of a scan's operands or results the body has whole, not row by row."""
    pairs = zip(variables, inside, strict=True)
    return sum(len(v.aval.shape) == len(aval.shape) for v, aval in pairs)


def _computed(eqn: Any, operands: list[Value]) -> list[Value]:
    """The results of an equation that does not depend on the argument."""
    avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    if not all(map(_is_small, avals)) or any(
        isinstance(value, (Jaxpr, ClosedJaxpr)) for value in eqn.params.values()
    ):
        return [_Constant() for _ in eqn.outvars]

    @functools.cache
    def bind() -> list[Any]:
        values = [v.value for v in operands if isinstance(v, _Constant)]
        if any(value is None for value in values):
            return [None for _ in eqn.outvars]
        arrays = [
            jax.numpy.asarray(value, v.aval.dtype)
            for value, v in zip(values, eqn.invars, strict=True)
        ]
        made = eqn.primitive.bind(*arrays, **eqn.params)
        return list(made) if eqn.primitive.multiple_results else [made]

    return [_Constant(functools.partial(lambda k: bind()[k], k)) for k in range(len(eqn.outvars))]


def _is_small(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf" and aval.size <= _SMALL
