"""Depthwise convolution of packed sequences: two primitives, closed under differentiation.

    y[n, p, c] = sum_j     [bit j of m[n, p]]  x~[n, p + d j - lo, c]  w[j, c]
    dw[j, c]   = sum_{n,p} [bit j of m[n, p]]  x~[n, p + d j - lo, c]  g[n, p, c]

The bits say which taps meet a frame of the output's own sequence. For two frames that is the same
seen from either, so the gradient by x is the first again with time reversed, its bits moved to the
frames that the taps met:

    dx[n, q, c] = sum_j [bit j of m[n, q + lo - d j]]  g~[n, q + lo - d j, c]  w[j, c]

Each is linear in both arrays, and a derivative keeps nothing but them and the bits: not K masked
copies of x. On a TPU a kernel serves them in one pass over memory; elsewhere they are sums of taps,
which XLA makes one loop of.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxdil._dispatch import may_stand
from jaxdil._errors import MethodError, error
from jaxdil._pallas import plan_1d
from jaxdil._primitive import lowered_by

__all__ = ["MOST_TAPS", "segmented"]

# Bits in a word, less its sign.
MOST_TAPS = 31

_conv_p = Primitive("jaxdil_segmented_conv")
_grad_p = Primitive("jaxdil_segmented_kernel_grad")


def segmented(
    where: str,
    x: jax.Array,
    w: jax.Array,
    ids: jax.Array,
    dilation: int,
    lo: int,
    precision: Any,
    preferred: Any,
    method: str,
) -> jax.Array:
    """(N, P, C) of x (N, T, C), w (K, C, 1) and ids (N, T), behind ``lo`` frames of zeros.

    Raises:
      MethodError: if method is "pallas_tpu" and the kernel cannot serve.
    """
    del precision  # products are exact to the dtype of their sums
    w, taps = w[..., 0], w.shape[0]
    positions = max(x.shape[1] + lo - (taps - 1) * dilation, 0)
    bits = _matches(ids, taps=taps, dilation=dilation, lo=lo, positions=positions)
    dtype = np.dtype(preferred or x.dtype)
    params: dict[str, Any] = {"dilation": dilation, "lo": lo, "dtype": dtype}
    why = _refusal(x, w, bits, taps, **params)
    if method == "pallas_tpu" and why:
        raise MethodError(error(where, f"method='pallas_tpu' cannot serve: {why}"))
    # None leaves it to the platform; whoever pins another method has none.
    kernel = None if method == "auto" else method.removesuffix(" or auto") == "pallas_tpu"
    return _conv_p.bind(*_alike(x, w, bits), kernel=kernel, **params)


def _matches(ids: jax.Array, *, taps: int, dilation: int, lo: int, positions: Any) -> jax.Array:
    """The bits of ids (N, T): which taps meet a frame of the same id as the last one does."""
    ids = jnp.pad(ids, [(0, 0), (lo, 0)])

    def met(tap: int) -> jax.Array:
        return lax.slice_in_dim(ids, tap * dilation, tap * dilation + positions, axis=1)

    return _sum(_bit(met(j) == met(taps - 1)) << j for j in range(taps))


def _bit(flags: jax.Array) -> jax.Array:
    return flags.astype(np.int32)


def _sum(terms: Any) -> jax.Array:
    return functools.reduce(jnp.add, terms)


def _reversed(bits: jax.Array, *, taps: int, dilation: int, lo: int, size: Any) -> jax.Array:
    """The bits for the gradient by x: those of each frame that a tap met, in the other order."""
    reach = (taps - 1) * dilation
    missing = max(lo + size - bits.shape[1], 0)
    bits = jnp.pad(bits, [(0, 0), (reach, reach + missing)])

    def of(tap: int) -> jax.Array:
        start = reach + lo - tap * dilation
        return (lax.slice_in_dim(bits, start, start + size, axis=1) >> tap) & 1

    return _sum(of(j) << (taps - 1 - j) for j in range(taps))


# --- by taps --------------------------------------------------------------------------------------


def _sum_dtype(dtype: Any) -> Any:
    half = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if half else dtype


def _products(
    x: jax.Array, bits: jax.Array, taps: int, dilation: int, lo: int, dtype: Any
) -> Callable[[int, jax.Array], jax.Array]:
    """What a tap contributes: its frames times another array, zero where its bit is not set."""
    positions = bits.shape[1]
    behind = max(positions + (taps - 1) * dilation - lo - x.shape[1], 0)
    x = jnp.pad(x, [(0, 0), (lo, behind), (0, 0)])

    def product(tap: int, other: jax.Array) -> jax.Array:
        frames = lax.slice_in_dim(x, tap * dilation, tap * dilation + positions, axis=1)
        other = lax.broadcast_to_rank(other, 3)
        each = frames.astype(dtype) * other.astype(dtype)
        return jnp.where(((bits >> tap) & 1 == 1)[..., None], each, jnp.zeros((), dtype))

    return product


def _conv_by_taps(
    x: jax.Array,
    w: jax.Array,
    bits: jax.Array,
    *,
    dilation: int,
    lo: int,
    dtype: Any,
    kernel: bool | None,
) -> jax.Array:
    del kernel
    taps = w.shape[0]
    product = _products(x, bits, taps, dilation, lo, _sum_dtype(dtype))
    return _sum(product(j, w[j]) for j in range(taps)).astype(dtype)


def _grad_by_taps(
    x: jax.Array,
    g: jax.Array,
    bits: jax.Array,
    *,
    taps: int,
    dilation: int,
    lo: int,
    dtype: Any,
    kernel: bool | None,
) -> jax.Array:
    del kernel
    product = _products(x, bits, taps, dilation, lo, _sum_dtype(dtype))
    return jnp.stack([product(j, g).sum((0, 1)) for j in range(taps)]).astype(dtype)


# --- by a kernel ----------------------------------------------------------------------------------


def _plan(x: Any, bits: Any, taps: int, dilation: int, lo: int) -> plan_1d.Plan:
    (batch, size, channels), positions = x.shape, bits.shape[1]
    hi = positions + (taps - 1) * dilation - lo - size
    return plan_1d.Plan(batch, size, channels, taps, dilation, lo, hi, masked=True)


def _refusal(
    x: Any, other: Any, bits: Any, taps: int, *, dilation: int, lo: int, dtype: Any
) -> str | None:
    """Why the kernel cannot serve, or None."""
    if not all(isinstance(n, int) for n in (*x.shape, *bits.shape)):
        return "sizes are symbols, known only when it runs"
    if 0 in (*x.shape, *other.shape, *bits.shape):
        return "nothing to compute"
    plan = _plan(x, bits, taps, dilation, lo)
    return plan_1d.refusal(plan, x.dtype, other.dtype, np.dtype(dtype))


def _lowering(platform: str | None, by_taps: Callable[..., jax.Array], name: str) -> Any:
    """Sums of taps, or the kernel where it is pinned or the platform is its own."""

    def lowered(
        x: jax.Array, other: jax.Array, bits: jax.Array, *, kernel: bool | None, **params: Any
    ) -> jax.Array:
        static = {key: params[key] for key in ("dilation", "lo", "dtype")}
        taps = params.get("taps", other.shape[0])
        if kernel is None:
            # The sizes of rule T10: where it is smaller, there is little to win.
            large = bits.shape[1] >= 64 and x.shape[2] >= 128
            kernel = platform == "tpu" and large and may_stand("pallas_tpu", platform)
        if not kernel or _refusal(x, other, bits, taps, **static):
            return by_taps(x, other, bits, kernel=kernel, **params)
        from jaxdil._pallas import tpu_1d

        plan = _plan(x, bits, taps, params["dilation"], params["lo"])
        options = {"dtype": params["dtype"], "bits": bits, "interpret": platform != "tpu"}
        with jax.named_scope("jaxdil.pallas_tpu"):
            return getattr(tpu_1d, name)(x, other, plan, **options)

    return lowered_by(lowered)


# --- rules ----------------------------------------------------------------------------------------


def _alike(*arrays: jax.Array) -> list[jax.Array]:
    """Arrays that vary over the same axes of a mesh, as factors inside shard_map have to."""
    varying = [_varying(jax.typeof(a)) for a in arrays]
    axes = frozenset().union(*varying)

    def vary(a: jax.Array, missing: frozenset[Any]) -> jax.Array:
        if not missing:
            return a
        if hasattr(lax, "pcast"):
            return lax.pcast(a, tuple(missing), to="varying")
        older = getattr(lax, "pvary")  # noqa: B009 - newer JAX has none
        return older(a, tuple(missing))

    return [vary(a, axes - own) for a, own in zip(arrays, varying, strict=True)]


def _varying(kind: Any) -> frozenset[Any]:
    manual = getattr(kind, "manual_axis_type", None)
    return manual.varying if manual else getattr(kind, "vma", frozenset())  # of older JAX


def _conv_abstract(x: Any, w: Any, bits: Any, *, dtype: Any, **_: Any) -> Any:
    del w
    return x.update(shape=(x.shape[0], bits.shape[1], x.shape[2]), dtype=dtype, weak_type=False)


def _grad_abstract(x: Any, g: Any, bits: Any, *, taps: int, dtype: Any, **_: Any) -> Any:
    del g
    return bits.update(shape=(taps, x.shape[2]), dtype=dtype, weak_type=False)


def _by_x(g: jax.Array, w: jax.Array, bits: jax.Array, x: Any, params: dict[str, Any]) -> jax.Array:
    """The gradient by x of either, for cotangent and kernel."""
    taps, dilation, lo = w.shape[0], params["dilation"], params["lo"]
    bits = _reversed(bits, taps=taps, dilation=dilation, lo=lo, size=x.aval.shape[1])
    changed = {"lo": (taps - 1) * dilation - lo, "dtype": x.aval.dtype}
    return _conv_p.bind(g, w[::-1], bits, **(params | changed))


def _conv_transpose(g: Any, x: Any, w: Any, bits: jax.Array, **params: Any) -> list[Any]:
    if type(g) is ad.Zero:
        return [None, None, None]
    if ad.is_undefined_primal(x):
        return [_by_x(g, w, bits, x, params), None, None]
    changed = {"taps": w.aval.shape[0], "dtype": w.aval.dtype}
    return [None, _grad_p.bind(x, g, bits, **(params | changed)), None]


def _grad_transpose(dw: Any, x: Any, g: Any, bits: jax.Array, **params: Any) -> list[Any]:
    if type(dw) is ad.Zero:
        return [None, None, None]
    params = {key: value for key, value in params.items() if key != "taps"}
    if ad.is_undefined_primal(x):
        return [_by_x(g, dw, bits, x, params), None, None]
    return [None, _conv_p.bind(x, dw, bits, **(params | {"dtype": g.aval.dtype})), None]


def _batch(
    arrays: tuple[Any, ...],
    axes: tuple[Any, ...],
    *,
    primitive: Primitive,
    by_taps: Callable[..., jax.Array],
    **params: Any,
) -> tuple[jax.Array, int]:
    x, other, bits = arrays
    x_axis, other_axis, bits_axis = axes
    count = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)

    def front(a: jax.Array, axis: int | None) -> jax.Array:
        if axis is None:
            return jnp.broadcast_to(a, (count, *a.shape))
        return jnp.moveaxis(a, axis, 0)

    if primitive is _conv_p and other_axis is None:
        # Examples among examples.
        x, bits = front(x, x_axis), front(bits, bits_axis)
        y = primitive.bind(
            x.reshape(-1, *x.shape[2:]), other, bits.reshape(-1, bits.shape[-1]), **params
        )
        return y.reshape(count, -1, *y.shape[1:]), 0
    if bits_axis is None:
        # Channels beside channels.
        x, other = (
            jnp.moveaxis(front(*each), 0, -2) for each in ((x, x_axis), (other, other_axis))
        )
        x, other = x.reshape(*x.shape[:-2], -1), other.reshape(*other.shape[:-2], -1)
        y = primitive.bind(x, other, bits, **params)
        return y.reshape(*y.shape[:-1], count, -1), y.ndim - 1
    return jax.vmap(jax.checkpoint(functools.partial(by_taps, **params)), axes)(*arrays), 0


# --- registration ---------------------------------------------------------------------------------


def _register(
    primitive: Primitive,
    abstract: Callable[..., Any],
    transpose: Callable[..., list[Any]],
    by_taps: Callable[..., jax.Array],
    name: str,
) -> None:
    @functools.cache
    def compiled(**params: Any) -> Callable[..., jax.Array]:
        return jax.jit(functools.partial(primitive.bind, **params))

    primitive.def_impl(lambda *arrays, **params: compiled(**params)(*arrays))
    primitive.def_abstract_eval(abstract)
    ad.defjvp(
        primitive,
        lambda t, _x, other, bits, **params: primitive.bind(t, other, bits, **params),
        lambda t, x, _other, bits, **params: primitive.bind(x, t, bits, **params),
        None,
    )
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = functools.partial(
        _batch, primitive=primitive, by_taps=by_taps
    )
    mlir.register_lowering(primitive, _lowering(None, by_taps, name))
    mlir.register_lowering(primitive, _lowering("tpu", by_taps, name), platform="tpu")


_register(_conv_p, _conv_abstract, _conv_transpose, _conv_by_taps, "convolution")
_register(_grad_p, _grad_abstract, _grad_transpose, _grad_by_taps, "kernel_gradient")
