"""Which convolutions of a program only a pooling reads, sample by sample on the way to it.

XLA makes one program for its library of a convolution, of what is done to each of its outputs and
of a pooling, or a sum over space, behind it. The output is never written, and the program is
divided among all cores. So what is read by nothing else is another choice than what is kept.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend.core import Jaxpr, Literal, Primitive, Var

__all__ = ["pooled"]

# Of an array and whatever is broadcast to it, an array of the same shape.
_POINTWISE = frozenset({"abs", "add", "and", "clamp", "convert_element_type", "copy", "cos", "div"})
_POINTWISE |= {"eq", "erf", "erfc", "exp", "exp2", "expm1", "ge", "gt", "integer_pow", "is_finite"}
_POINTWISE |= {"le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not"}
_POINTWISE |= {"or", "pow", "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "sub"}
_POINTWISE |= {"tanh"}
# The same of the operands of such, inside of an activation.
_WITHIN = _POINTWISE | {"broadcast_in_dim"}
_WINDOWS = frozenset({"reduce_window", "reduce_window_max", "reduce_window_min"})
_WINDOWS |= {"reduce_window_sum"}
_SUMS = frozenset({"reduce_sum", "reduce_max", "reduce_min"})

# Positions of several images up to which XLA divides the program of a sum over them among cores.
SUMMED = 400


def pooled(jaxpr: Jaxpr, *convolutions: Primitive) -> frozenset[int]:
    """The ids of the equations of ``convolutions``, of this program's own, that a pooling reads.

    Through others of them as well, without a stride: XLA makes one program of such a row.
    """
    found = [eqn for eqn in jaxpr.eqns if eqn.primitive in convolutions]
    if not found:
        return frozenset()
    readers: defaultdict[Var, list[Any]] = defaultdict(list)
    for eqn in jaxpr.eqns:
        for var in eqn.invars:
            if not isinstance(var, Literal):
                readers[var].append(eqn)
    kept = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    known: set[int] = set()
    for eqn in reversed(found):
        if _is_pooled(eqn, readers, kept, known):
            known.add(id(eqn))
    return frozenset(known)


def _is_pooled(conv: Any, readers: dict[Var, list[Any]], kept: set[Var], known: set[int]) -> bool:
    (y,) = conv.outvars
    if not all(isinstance(size, int) for size in y.aval.shape):
        return False  # sizes are symbols, and lax serves it
    images, _, *space = conv.params["dimension_numbers"].out_spec
    most = SUMMED if y.aval.shape[images] > 1 else math.inf
    # Each array on the way, and which of its axes are spatial.
    met, seen, rest = False, {y: tuple(space)}, [y]
    while rest:
        var = rest.pop()
        if var in kept:
            return False
        for eqn in readers.get(var, ()):
            if _pools(eqn, var.aval.shape, seen[var], most):
                met = True
            elif id(eqn) in known:
                met = True
                if not _goes_on(eqn, var):
                    return False
            else:
                axes = _carried(eqn, var.aval.shape, seen[var])
                if axes is None:
                    return False
                fresh = [out for out in eqn.outvars if out not in seen]
                seen.update(dict.fromkeys(fresh, axes))
                rest += fresh
    return met


def _carried(eqn: Any, shape: tuple[int, ...], space: tuple[int, ...]) -> tuple[int, ...] | None:
    """Where the spatial axes of an operand are in the results, if each element stays by itself."""
    shapes = {out.aval.shape for out in eqn.outvars}
    if shapes == {shape} and _is_pointwise(eqn, _POINTWISE):
        return space
    if eqn.primitive.name not in ("reshape", "squeeze", "broadcast_in_dim", "expand_dims"):
        return None
    # An axis of one element more or less, as `vmap` over single images has it.
    (after,) = shapes
    before = [i for i, size in enumerate(shape) if size > 1]
    behind = [i for i, size in enumerate(after) if size > 1]
    if [shape[i] for i in before] != [after[i] for i in behind] or not set(space) <= set(before):
        return None
    return tuple(behind[before.index(i)] for i in space)


def _goes_on(conv: Any, var: Var) -> bool:
    """Whether a convolution reads an array as its image, in one group and without a stride."""
    params = conv.params
    groups = params["feature_group_count"], params["batch_group_count"]
    steps = {*groups, *params["window_strides"], *params["lhs_dilation"]}
    return steps == {1} and conv.invars[0] is var and conv.invars[1] is not var


def _pools(eqn: Any, shape: tuple[int, ...], space: Sequence[int], most: float) -> bool:
    """Whether it takes windows side by side, or all of ``most``, along the spatial axes alone."""
    name, params = eqn.primitive.name, eqn.params
    if name in _SUMS:
        whole = sorted(params["axes"]) == sorted(space)
        return whole and math.prod(shape[i] for i in space) <= most
    # Channels first the two stay apart, with a transpose between them.
    if name not in _WINDOWS or max(space, default=0) == len(shape) - 1:
        return False
    window = params["window_dimensions"]
    beside = tuple(window) == tuple(params["window_strides"])
    beside = beside and all(tuple(pads) == (0, 0) for pads in params["padding"])
    beside = beside and {*params["base_dilation"], *params["window_dilation"]} == {1}
    return beside and all(size == 1 for i, size in enumerate(window) if i not in space)


def _is_pointwise(eqn: Any, names: frozenset[str]) -> bool:
    """Whether each element of the result is made of the operands' elements at its place."""
    if eqn.primitive.name in names:
        return True
    programs = list(_programs(eqn))
    return bool(programs) and all(
        _is_pointwise(inner, _WITHIN) for program in programs for inner in program.eqns
    )


def _programs(eqn: Any) -> Iterator[Jaxpr]:
    """What an equation calls: an activation is a function of its own."""
    if eqn.primitive.name not in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call"):
        return
    for name in ("jaxpr", "call_jaxpr"):
        if name in eqn.params:
            program = eqn.params[name]
            yield getattr(program, "jaxpr", program)
