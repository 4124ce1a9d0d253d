"""Functions that already exist, their convolutions served by our methods: trace, swap, run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from jaxdil._dispatch import check_pin
from jaxdil._pooled import pooled
from jaxdil._primitive import conv_p
from jaxdil._swap import swap, trace

__all__ = ["accelerate", "traced"]

P = ParamSpec("P")
T = TypeVar("T")


def accelerate(fn: Callable[P, T], *, method: str = "auto") -> Callable[P, T]:
    """``fn`` with every convolution in it served by the fastest known method.

    The result takes the arguments of ``fn`` and returns what it returns, to rounding. Convolutions
    are found wherever they stand: in jit, scan, while, cond, remat and the bodies of custom rules,
    and in whatever JAX itself builds of ``lax.conv_general_dilated``. Derivatives and batches of
    the result are served likewise, and so are derivatives taken inside ``fn``; wrap the whole
    training step.

    Args:
      fn: any function that ``jax.jit`` could trace. Array arguments are traced; anything else (a
        bool, a string, a function, None) is passed on as it is, and may decide what fn does.
      method: for the convolutions of fn, as in `conv`: "auto", or a name, or a name with " or
        auto". Those that jaxdil's own functions make keep the method they were given.

    Returns:
      A function of the same signature. Outside of ``jax.jit`` it traces fn at each call; wrap it in
      ``jax.jit`` to trace once.

    Raises:
      ValueError: for an unknown method.
      MethodError: when called, if a pinned method cannot serve one of the convolutions.

    Cost: one trace of fn. Nothing at run time.

    >>> import jax, jax.numpy as jnp
    >>> def model(x, w):
    ...     return jax.lax.conv(x, w, (1, 1), "SAME").sum()
    >>> x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((4, 2, 3, 3))
    >>> jax.jit(jaxdil.accelerate(jax.value_and_grad(model)))(x, w)[0]
    Array(1352., dtype=float32)
    """
    check_pin("accelerate", method)

    @functools.wraps(fn)
    def accelerated(*args: P.args, **kwargs: P.kwargs) -> T:
        closed, arrays, rebuild = traced(fn, args, kwargs, method=method)
        return rebuild(jaxpr_as_fun(closed)(*arrays))

    return accelerated


def traced(
    fn: Callable[..., T], args: Any, kwargs: Any, *, method: str
) -> tuple[ClosedJaxpr, list[Any], Callable[[list[Any]], T]]:
    """The program of a call of ``fn``, swapped; its operands; its results from the program's."""
    closed, arrays, rebuild = trace(fn, args, kwargs)
    plain_p = lax.conv_general_dilated_p

    def told(jaxpr: Jaxpr) -> dict[int, dict[str, Any]]:
        return {key: {"pooled": True} for key in pooled(jaxpr, plain_p, conv_p)}

    swapped = swap(closed, plain_p, conv_p, told=told, method=method, pooled=False)
    return swapped, arrays, rebuild
