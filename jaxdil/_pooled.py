"""Which convolutions of a program only a pooling reads, sample by sample on the way to it.

XLA makes one program for its library of a convolution, of what is done to each of its outputs and
of a pooling, or a sum over space, behind it. The output is never written, and the program is
divided among all cores. So what is read by nothing else is another choice than what is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from jax.extend.core import Jaxpr, Literal, Primitive, Var

__all__ = ["pooled"]

# Of an array and whatever is broadcast to it, an array of the same shape.
_POINTWISE = frozenset({"abs", "add", "clamp", "convert_element_type", "copy", "cos", "div", "eq"})
_POINTWISE |= {"erf", "erfc", "exp", "exp2", "expm1", "ge", "gt", "integer_pow", "is_finite", "le"}
_POINTWISE |= {
    "log",
    "log1p",
    "logistic",
    "lt",
    "max",
    "min",
    "mul",
    "ne",
    "neg",
    "not",
    "or",
    "and",
}
_POINTWISE |= {"pow", "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "sub", "tanh"}
# The same of the operands of such, inside of an activation.
_WITHIN = _POINTWISE | {"broadcast_in_dim"}
_WINDOWS = frozenset({"reduce_window", "reduce_window_max", "reduce_window_min"})
_WINDOWS |= {"reduce_window_sum"}
_SUMS = frozenset({"reduce_sum", "reduce_max", "reduce_min"})


def pooled(jaxpr: Jaxpr, *convolutions: Primitive) -> frozenset[int]:
    """The ids of the equations of ``convolutions``, of this program's own, that a pooling reads."""
    found = [eqn for eqn in jaxpr.eqns if eqn.primitive in convolutions]
    if not found:
        return frozenset()
    readers: defaultdict[Var, list[Any]] = defaultdict(list)
    for eqn in jaxpr.eqns:
        for var in eqn.invars:
            if not isinstance(var, Literal):
                readers[var].append(eqn)
    kept = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    return frozenset(id(eqn) for eqn in found if _is_pooled(eqn, readers, kept))


def _is_pooled(conv: Any, readers: dict[Var, list[Any]], kept: set[Var]) -> bool:
    (y,) = conv.outvars
    batch, channels, *space = conv.params["dimension_numbers"].out_spec
    if (batch, channels) != (0, y.aval.ndim - 1):
        # Channels first the two stay apart, with a transpose between them.
        return False
    met, seen, rest = False, {y}, [y]
    while rest:
        var = rest.pop()
        if var in kept:
            return False
        for eqn in readers.get(var, ()):
            if _pools(eqn, space):
                met = True
                continue
            same = all(out.aval.shape == y.aval.shape for out in eqn.outvars)
            if not same or not _is_pointwise(eqn, _POINTWISE):
                return False
            fresh = [out for out in eqn.outvars if out not in seen]
            seen.update(fresh)
            rest += fresh
    return met


def _pools(eqn: Any, space: list[int]) -> bool:
    """Whether it takes windows side by side, or all there is, along the spatial axes alone."""
    name, params = eqn.primitive.name, eqn.params
    if name in _SUMS:
        return sorted(params["axes"]) == sorted(space)
    if name not in _WINDOWS:
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
