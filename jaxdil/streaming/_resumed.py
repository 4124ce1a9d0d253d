"""Depthwise convolution of a chunk behind carried frames, which on a TPU a kernel takes beside it.

    y[n, p, c] = sum_j  z[n, p + d j, c]  w[j, c]        z = (past, x), one behind the other

Elsewhere, and in every derivative and batch, it is the program that it carries: z laid out, and one
convolution. That is a pass over memory that the kernel does without. As programs within equations
are looked into, what reads programs sees that convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jaxdil._dispatch import choose
from jaxdil._pallas import plan_1d
from jaxdil._primitive import choice_of, conv_p, is_explicitly_sharded, lowered_by
from jaxdil._problem import Problem
from jaxdil._roles import programs

__all__ = ["resumed"]

_resumed_p = Primitive("jaxdil_resumed_conv")


def resumed(
    laid_out: Callable[..., jax.Array],
    past: jax.Array,
    x: jax.Array,
    w: jax.Array,
    dilation: int,
    dtype: Any,
    method: str,
) -> jax.Array:
    """``laid_out(past, x, w)`` for past (N, (K - 1) d, C), x (N, T, C) and w (K, C, 1).

    ``laid_out`` is the convolution by ``method`` of both, one behind the other, to ``dtype``.
    """
    pinned = method.removesuffix(" or auto") == "pallas_tpu"
    if not (pinned or method == "auto") or not _serves(past, x, w, dilation, dtype, pinned=pinned):
        return laid_out(past, x, w)
    program = jax.make_jaxpr(laid_out)(past, x, w)
    return _resumed_p.bind(past, x, w, program=program, dilation=dilation, pinned=pinned)


def _serves(past: Any, x: Any, w: Any, dilation: int, dtype: Any, *, pinned: bool) -> bool:
    """Whether the kernel can, and is pinned or would be chosen on a TPU for frames laid out."""
    if x.ndim != 3 or w.shape[1:] != (x.shape[-1], 1):
        return False
    if any(map(is_explicitly_sharded, (past, x, w))):
        return False
    # A size may be a symbol, and nothing may be left to do.
    if not all(isinstance(n, int) and n for n in (*past.shape, *x.shape)):
        return False
    batch, size, channels = x.shape
    if plan_1d.is_turned(size, channels):
        return False  # a few frames lie across the lanes there
    if plan_1d.refusal(_plan(past, x, w, dilation), x.dtype, w.dtype, dtype) is not None:
        return False
    laid_out = Problem(
        batch=batch, size=(past.shape[1] + size,), channels=channels, kernel=w.shape[:1],
        out_channels=channels, stride=(1,), padding=((0, 0),), input_dilation=(1,),
        dilation=(dilation,), groups=channels, batch_groups=1,
        x_dtype=np.dtype(x.dtype), w_dtype=np.dtype(w.dtype), out_dtype=np.dtype(dtype),
    )  # fmt: skip
    return pinned or choose(laid_out, platform="tpu").method == "pallas_tpu"


def _plan(past: Any, x: Any, w: Any, dilation: int) -> plan_1d.Plan:
    (batch, size, channels), taps, lo = x.shape, w.shape[0], past.shape[1]
    return plan_1d.Plan(batch, size, channels, taps, dilation, lo, 0, resumed=True)


def _laid_out(program: ClosedJaxpr) -> Callable[..., jax.Array]:
    def run(*arrays: jax.Array) -> jax.Array:
        (y,) = jaxpr_as_fun(program)(*arrays)
        return y

    return run


def _is_chosen(program: ClosedJaxpr, platform: str | None) -> bool:
    """Whether the convolution of the program is the kernel's, where and for what it is lowered."""

    def convolution(jaxpr: Jaxpr) -> Any:
        for eqn in jaxpr.eqns:
            if eqn.primitive is conv_p:
                return eqn
            for inner in programs(eqn):
                if (found := convolution(inner)) is not None:
                    return found
        return None

    eqn = convolution(program.jaxpr)
    x, w, y = (v.aval for v in (*eqn.invars, *eqn.outvars))
    return choice_of(x, w, y, eqn.params, platform).method == "pallas_tpu"


def _lowering(platform: str | None) -> Any:
    """The kernel where it is pinned or the platform is its own, else the program."""

    def lowered(*arrays: jax.Array, program: ClosedJaxpr, dilation: int, pinned: bool) -> jax.Array:
        if not pinned and (platform != "tpu" or not _is_chosen(program, platform)):
            return _laid_out(program)(*arrays)
        from jaxdil._pallas import tpu_1d

        past, x, w = arrays
        dtype = program.out_avals[0].dtype
        options = {"dtype": dtype, "past": past, "interpret": platform != "tpu"}
        with jax.named_scope("jaxdil.pallas_tpu"):
            return tpu_1d.convolution(x, w[..., 0], _plan(past, x, w, dilation), **options)

    return lowered_by(lowered)


# --- rules ----------------------------------------------------------------------------------------


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, program: Any, **_: Any) -> Any:
    tangents = [ad.instantiate_zeros(t) for t in tangents]
    return jax.jvp(_laid_out(program), tuple(primals), tuple(tangents))


def _transpose(g: Any, *arrays: Any, program: Any, **_: Any) -> list[Any]:
    """By the arrays that are not there, for the others."""
    sought = [i for i, a in enumerate(arrays) if ad.is_undefined_primal(a)]

    def linear(*parts: jax.Array) -> jax.Array:
        given = dict(zip(sought, parts, strict=True))
        return _laid_out(program)(*(given.get(i, a) for i, a in enumerate(arrays)))

    found = dict.fromkeys(range(len(arrays)))
    if type(g) is not ad.Zero:
        kinds = [jax.ShapeDtypeStruct(arrays[i].aval.shape, arrays[i].aval.dtype) for i in sought]
        found |= zip(sought, jax.linear_transpose(linear, *kinds)(g), strict=True)
    return [found[i] for i in range(len(arrays))]


def _batch(arrays: Sequence[Any], axes: Sequence[Any], *, program: Any, **_: Any) -> Any:
    return jax.vmap(_laid_out(program), tuple(axes))(*arrays), 0


def _abstract(*_: Any, program: ClosedJaxpr, **__: Any) -> Any:
    return program.out_avals[0]


_resumed_p.def_impl(lambda *arrays, program, **_: _laid_out(program)(*arrays))
_resumed_p.def_abstract_eval(_abstract)
ad.primitive_jvps[_resumed_p] = _jvp
ad.primitive_transposes[_resumed_p] = _transpose
batching.primitive_batchers[_resumed_p] = _batch
mlir.register_lowering(_resumed_p, _lowering(None))
mlir.register_lowering(_resumed_p, _lowering("tpu"), platform="tpu")
