"""One primitive for another throughout a jaxpr, whatever encloses it.

Both take the same operands and give the same result, so every enclosing equation (jit, scan, while,
cond, remat, shard_map, custom rules, ...) keeps its own parameters and only its bodies change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive

__all__ = ["swap"]


def swap(jaxpr: ClosedJaxpr, old: Primitive, new: Primitive, **extra: Any) -> ClosedJaxpr:
    """The program with each equation of ``old`` bound to ``new`` with ``extra`` parameters more."""
    return _Swap(old, new, extra).closed(jaxpr)


class _Swap:
    """One walk. Bodies met twice are rewritten once, so that JAX still sees them as one."""

    def __init__(self, old: Primitive, new: Primitive, extra: dict[str, Any]) -> None:
        self.old, self.new, self.extra = old, new, extra
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
        equations = [self.equation(eqn) for eqn in jaxpr.eqns]
        if all(a is b for a, b in zip(equations, jaxpr.eqns, strict=True)):
            return jaxpr
        return jaxpr.replace(eqns=equations)

    def equation(self, eqn: Any) -> Any:
        if eqn.primitive is self.old:
            return eqn.replace(primitive=self.new, params={**eqn.params, **self.extra})
        params = {name: self.value(value) for name, value in eqn.params.items()}
        if all(params[name] is eqn.params[name] for name in params):
            return eqn
        return eqn.replace(params=params)

    def value(self, value: Any) -> Any:
        """A parameter of an equation, the programs in it rewritten."""
        if isinstance(value, ClosedJaxpr):
            return self.closed(value)
        if isinstance(value, Jaxpr):
            return self.jaxpr(value)
        # Plain containers only: a ConvDimensionNumbers is a tuple too.
        if type(value) in (tuple, list):
            items = [self.value(item) for item in value]
            if all(a is b for a, b in zip(items, value, strict=True)):
                return value
            return type(value)(items)
        return value
