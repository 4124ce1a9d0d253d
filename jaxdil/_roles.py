"""Which of the convolutions on the way back are gradients by the input: they turn a kernel around.

    <g, conv(dx, w)> = <conv(g, w turned around), dx>
    <g, conv(x, dw)> = <conv(x, g), dw>

Sizes would not tell the two apart: an image may be smaller than the kernel, or as large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxdil._primitive import conv_p

__all__ = ["by_input", "is_back", "programs"]

# What leaves a kernel a kernel: its elements elsewhere, more often, or in another dtype.
_MOVES = {
    *("reshape", "transpose", "rev", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "pad"),
    *("convert_element_type", "copy", "reduce_precision", "optimization_barrier"),
}

# What an array is: of the forward pass or an argument; or that, turned around on the way back.
# Any other was computed on the way back.
_GIVEN, _TURNED = "given", "turned"


def is_back(path: str) -> bool:
    """Whether scopes, outermost first, are those of the way back."""
    # What a checkpoint computes again on the way back is the forward pass once more.
    return "transpose(" in path.rpartition("rematted_computation")[2]


def programs(eqn: Any) -> Iterator[Jaxpr]:
    """The programs inside an equation."""
    for value in eqn.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            program = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
            if isinstance(program, Jaxpr):
                yield program


def by_input(jaxpr: Jaxpr) -> frozenset[int]:
    """The ids of the equations, at any depth, that are gradients by the input."""
    found: set[int] = set()
    _follow(jaxpr, [_GIVEN] * len(jaxpr.invars), "", found)
    return frozenset(found)


def _follow(
    jaxpr: Jaxpr, operands: list[str | None], path: str, found: set[int]
) -> list[str | None]:
    """What the results of a program are, from what its operands are."""
    kinds: dict[Any, str | None] = dict.fromkeys(jaxpr.constvars, _GIVEN)
    kinds |= dict(zip(jaxpr.invars, operands, strict=True))

    def kind(v: Any) -> str | None:
        return None if isinstance(v, Literal) else kinds[v]

    for eqn in jaxpr.eqns:
        here = f"{path}/{eqn.source_info.name_stack}"
        inputs = [kind(v) for v in eqn.invars]
        if eqn.primitive is conv_p and inputs[1] == _TURNED:
            found.add(id(eqn))
        results = _results(eqn, inputs, here)
        for program in programs(eqn):
            # The first operands of cond and while are not for each of their programs.
            missing = max(len(program.invars) - len(inputs), 0)
            own = [None] * missing + inputs[len(inputs) + missing - len(program.invars) :]
            inner = _follow(program, own, here, found)
            results = inner if len(inner) == len(results) else results
        kinds |= dict(zip(eqn.outvars, results, strict=True))
    return [kind(v) for v in jaxpr.outvars]


def _results(eqn: Any, inputs: list[str | None], path: str) -> list[str | None]:
    count = len(eqn.outvars)
    if not is_back(path):
        return [_GIVEN] * count
    name = eqn.primitive.name
    if name not in _MOVES:
        return [None] * count
    moved = inputs[:count]
    return [_TURNED if name == "rev" and each == _GIVEN else each for each in moved]
