"""One primitive for another throughout a jaxpr, whatever encloses it.

Both take the same operands and give the same result, so every enclosing equation (jit, scan, while,
cond, remat, shard_map, custom rules, ...) keeps its own parameters and only its bodies change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.extend import linear_util
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive, jaxpr_as_fun

__all__ = ["is_array", "swap", "trace"]

T = TypeVar("T")


def is_array(leaf: Any) -> bool:
    """Whether a leaf of arguments or results is traced; anything else is passed on as it is."""
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def trace(
    fn: Callable[..., T], args: Any, kwargs: Any
) -> tuple[ClosedJaxpr, list[Any], Callable[[list[Any]], T]]:
    """The program of a call of ``fn``; its operands; its results from the program's."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    at = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
    results: list[Any] = []

    def flat(*arrays: Any) -> list[Any]:
        filled = list(leaves)
        for i, array in zip(at, arrays, strict=True):
            filled[i] = array
        args, kwargs = jax.tree.unflatten(tree, filled)
        results[:] = jax.tree.flatten(fn(*args, **kwargs))
        return [leaf for leaf in results[0] if is_array(leaf)]

    arrays = [leaves[i] for i in at]
    closed = jax.make_jaxpr(flat)(*arrays)
    # Tracers must not outlive the trace; what is not an array is a result as it stands.
    out_tree = results[1]
    kept = [None if is_array(leaf) else (leaf,) for leaf in results[0]]
    results.clear()

    def rebuild(values: list[Any]) -> T:
        rest = iter(values)
        return jax.tree.unflatten(out_tree, [leaf[0] if leaf else next(rest) for leaf in kept])

    return closed, arrays, rebuild


# Of a program, by the ids of its own equations, what their parameters shall be.
Told = Callable[[Jaxpr], Mapping[int, dict[str, Any]]]


def swap(
    jaxpr: ClosedJaxpr,
    old: Primitive,
    new: Primitive,
    *,
    told: Told | None = None,
    **extra: Any,
) -> ClosedJaxpr:
    """The program with each equation of ``old`` bound to ``new`` with ``extra`` parameters more.

    What ``told`` has for an equation of either goes before ``extra``.
    """
    return _Swap(old, new, told, extra).closed(jaxpr)


class _Swap:
    """One walk. Bodies met twice are rewritten once, so that JAX still sees them as one."""

    def __init__(
        self, old: Primitive, new: Primitive, told: Told | None, extra: dict[str, Any]
    ) -> None:
        self.old, self.new, self.told, self.extra = old, new, told, extra
        self.seen: dict[int, tuple[Any, Any]] = {}

    def closed(self, closed: ClosedJaxpr) -> ClosedJaxpr:
        jaxpr = self.jaxpr(closed.jaxpr)
        if jaxpr is closed.jaxpr:
            return closed
        return self._once(closed, lambda: closed.replace(jaxpr=jaxpr))

    def jaxpr(self, jaxpr: Jaxpr) -> Jaxpr:
        return self._once(jaxpr, lambda: self._rewrite(jaxpr))

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        # The key is kept beside the value: an id is only unique while its object lives.
        if id(key) not in self.seen:
            self.seen[id(key)] = (key, make())
        return self.seen[id(key)][1]

    def _rewrite(self, jaxpr: Jaxpr) -> Jaxpr:
        told = self.told(jaxpr) if self.told else {}
        equations = [self.equation(eqn, told.get(id(eqn), {})) for eqn in jaxpr.eqns]
        if all(a is b for a, b in zip(equations, jaxpr.eqns, strict=True)):
            return jaxpr
        return jaxpr.replace(eqns=equations)

    def equation(self, eqn: Any, told: dict[str, Any]) -> Any:
        if eqn.primitive is self.old:
            return eqn.replace(primitive=self.new, params={**eqn.params, **self.extra, **told})
        if eqn.primitive is self.new and told:
            return eqn.replace(params={**eqn.params, **told})
        params = {name: self.value(value) for name, value in eqn.params.items()}
        if callable(params.get("policy")):  # of a checkpoint: what to keep for the way back
            params["policy"] = self._once(params["policy"], lambda: self.policy(params["policy"]))
        if all(params[name] is eqn.params[name] for name in params):
            return eqn
        return eqn.replace(params=params)

    def policy(self, keep: Callable[..., Any]) -> Callable[..., Any]:
        """``keep`` asked of ``old`` where it meets ``new``, which ``dots_saveable`` cannot know."""

        @functools.wraps(keep)
        def asked(primitive: Primitive, *avals: Any, **params: Any) -> Any:
            if primitive is self.new:
                params = {name: v for name, v in params.items() if name not in self.extra}
                primitive = self.old
            return keep(primitive, *avals, **params)

        return asked

    def rule(self, fun: linear_util.WrappedFun) -> linear_util.WrappedFun:
        """A rule of custom_jvp or custom_vjp, which JAX keeps as a function until it needs it."""

        def swapped(*args: Any) -> Any:
            # A JVP and a forward rule answer flags with a program; a backward rule answers arrays.
            if not any(map(is_array, args)):
                jaxpr, *others = fun.call_wrapped(*args)
                return self.value(jaxpr), *others
            closed, arrays, rebuild = trace(fun.call_wrapped, args, {})
            return rebuild(jaxpr_as_fun(self.closed(closed))(*arrays))

        return linear_util.wrap_init(swapped, debug_info=fun.debug_info)

    def value(self, value: Any) -> Any:
        """A parameter of an equation, the programs in it rewritten."""
        if isinstance(value, ClosedJaxpr):
            return self.closed(value)
        if isinstance(value, Jaxpr):
            return self.jaxpr(value)
        if isinstance(value, linear_util.WrappedFun):
            return self.rule(value)
        # Plain containers only: a ConvDimensionNumbers is a tuple too.
        if type(value) in (tuple, list):
            items = [self.value(item) for item in value]
            if all(a is b for a, b in zip(items, value, strict=True)):
                return value
            return type(value)(items)
        return value
