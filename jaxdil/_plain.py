"""lax's convolution under a name of its own: what `install` leaves to lax is bound to this.

While jaxdil is installed, lax's primitive is lowered by our choice. Where that choice is lax itself
a primitive is needed that is not chosen for again; it is lowered as lax's was before.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import mlir

from jaxdil._problem import Problem

__all__ = ["canonical", "plain", "plain_p"]

plain_p = Primitive("jaxdil_plain_conv")
_lax_p = lax.conv_general_dilated_p


def plain(x: jax.Array, w: jax.Array, **arguments: Any) -> jax.Array:
    """``lax.conv_general_dilated(x, w, **arguments)``, lowered as lax lowers it."""
    closed = jax.make_jaxpr(functools.partial(lax.conv_general_dilated, **arguments))(x, w)
    eqns = [
        eqn.replace(primitive=plain_p) if eqn.primitive is _lax_p else eqn
        for eqn in closed.jaxpr.eqns
    ]
    (y,) = jaxpr_as_fun(closed.replace(jaxpr=closed.jaxpr.replace(eqns=eqns)))(x, w)
    return y


def canonical(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """The convolution of lax in canonical layout."""
    last = problem.rank + 1
    spatial = tuple(range(1, last))
    return plain(
        x,
        w,
        window_strides=problem.stride,
        padding=problem.padding,
        lhs_dilation=problem.input_dilation,
        rhs_dilation=problem.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(
            (0, last, *spatial), (last, last - 1, *range(problem.rank)), (0, last, *spatial)
        ),
        feature_group_count=problem.groups,
        batch_group_count=problem.batch_groups,
        precision=problem.precision,
        preferred_element_type=problem.out_dtype,
    )


def _abstract(x: Any, w: Any, **params: Any) -> Any:
    y, _ = _lax_p.abstract_eval(x, w, **params)
    return y


def _lax(x: jax.Array, w: jax.Array, **params: Any) -> jax.Array:
    return _lax_p.bind(x, w, **params)


plain_p.def_abstract_eval(_abstract)
mlir.register_lowering(plain_p, mlir.lower_fun(_lax, multiple_results=False))
