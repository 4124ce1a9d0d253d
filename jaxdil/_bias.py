"""What is multiplied onto the kernel and added to the result: a mask and a bias.

    y = conv(x, mask * w) + bias

In half precision the sum is rounded once: the convolution and its bias are added in float32. The
derivatives are those of the convolution in half precision, whose products need no wider kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxdil import _arguments
from jaxdil._errors import error

__all__ = ["add_bias", "check_bias", "masked"]

# Of x, w and the dtype to return, None for that of x.
Call: TypeAlias = Callable[[jax.Array, jax.Array, Any], jax.Array]


def masked(where: str, w: jax.Array, mask: Any) -> jax.Array:
    """``w`` with the taps that the mask leaves."""
    if mask is None:
        return w
    _arguments.check_is_array(where, mask=mask)
    if mask.shape != w.shape:
        raise ValueError(
            error(where, f"mask must have the shape of w, {w.shape}, got {mask.shape}")
        )
    if mask.dtype not in (w.dtype, jnp.bool_):
        raise TypeError(
            error(
                where,
                f"mask must be boolean or have the dtype of w, {w.dtype}, got {mask.dtype}",
                "Nothing is promoted silently; cast it with .astype(...).",
            )
        )
    return w * mask.astype(w.dtype)


def check_bias(where: str, bias: Any, channels: int, dtype: Any, preferred: Any) -> None:
    """Raise unless ``bias`` is None or has an entry for each output channel."""
    if bias is None:
        return
    _arguments.check_is_array(where, bias=bias)
    if bias.shape != (channels,):
        raise ValueError(
            error(
                where,
                f"bias must have shape ({channels},), one entry an output channel, "
                f"got {bias.shape}",
            )
        )
    dtypes = [jnp.dtype(kind) for kind in (dtype, preferred) if kind is not None]
    if bias.dtype not in dtypes:
        named = " or the result's, ".join(map(str, dict.fromkeys(dtypes)))
        raise TypeError(
            error(
                where,
                f"bias must have the dtype of x, {named}, got {bias.dtype}",
                "Nothing is promoted silently; cast it with .astype(...).",
            )
        )


def add_bias(
    call: Call, x: jax.Array, w: jax.Array, bias: Any, *, axis: int, preferred: Any, sums: bool
) -> jax.Array:
    """``call(x, w) + bias`` along an axis of the result, rounded once.

    ``sums`` says that the call itself adds up results of a convolution.
    """
    if bias is None and not sums:
        return call(x, w, preferred)
    dtype = jnp.dtype(x.dtype if preferred is None else preferred)
    half = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    y = _wide(call)(x, w) if half else call(x, w, preferred)
    if bias is not None:
        y = y + lax.broadcast_in_dim(bias.astype(y.dtype), y.shape, (axis,))
    return y.astype(dtype)


def _wide(call: Call) -> Any:
    """A call that returns float32, and its derivatives, which lax would compute in float32 too."""

    @jax.custom_jvp
    def wide(x: jax.Array, w: jax.Array) -> jax.Array:
        return call(x, w, jnp.float32)

    def rule(arrays: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        (x, w), (dx, dw) = arrays, tangents
        terms = [] if isinstance(dx, SymbolicZero) else [call(dx, w, None)]
        terms += [] if isinstance(dw, SymbolicZero) else [call(x, dw, None)]
        y = wide(x, w)
        wider = [term.astype(jnp.float32) for term in terms]
        return y, sum(wider[1:], wider[0])

    wide.defjvp(rule, symbolic_zeros=True)
    return wide
