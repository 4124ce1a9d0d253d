"""Batch normalisation with statistics that are given, and its folding into the kernels before it.

    y = scale (x - mean) / sqrt(variance + eps) + offset

At inference it is one affine map a channel, so a convolution before it can take it over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil._errors import error

__all__ = ["batch_norm", "fold_batch_norm", "init_batch_norm"]


def init_batch_norm(channels: int, *, dtype: DTypeLike = "float32") -> dict[str, Array]:
    """Parameters of `batch_norm` that change nothing: scale 1, offset 0, mean 0, variance 1.

    Pass it as ``norm=`` to an initialiser of this package and each convolution that the paper
    normalises gets them, in place of a bias.

    Args:
      channels: channels C to normalise.
      dtype: of the parameters; float32 serves half precision too.

    Returns:
      {"scale", "offset", "mean", "variance"}, each (C,).

    Source: Ioffe and Szegedy, arXiv:1502.03167.

    >>> {name: value.shape for name, value in init_batch_norm(8).items()}
    {'scale': (8,), 'offset': (8,), 'mean': (8,), 'variance': (8,)}
    """
    one, zero = jnp.ones(channels, dtype), jnp.zeros(channels, dtype)
    return {"scale": one, "offset": zero, "mean": zero, "variance": one}


def batch_norm(
    params: Mapping[str, Array], x: Num[Array, "..."], *, eps: float = 1e-5
) -> Num[Array, "..."]:
    """Batch normalisation of the last axis, with the mean and variance in ``params``.

    ``y = scale (x - mean) / sqrt(variance + eps) + offset``.

    Args:
      params: {"scale", "offset", "mean", "variance"}, each (C,), as from `init_batch_norm`.
      x: (..., C).
      eps: added to the variance; 1e-5 in PyTorch, 1e-3 in Keras.

    Returns:
      y like x, computed in at least float32.

    Cost: one multiply-add a sample.

    Source: Ioffe and Szegedy, arXiv:1502.03167.

    >>> import jax.numpy as jnp
    >>> params = init_batch_norm(1) | {"mean": jnp.array([3.0]), "variance": jnp.array([4.0])}
    >>> batch_norm(params, jnp.array([[1.0], [5.0]]), eps=0.0).ravel()
    Array([-1.,  1.], dtype=float32)
    """
    factor, shift = _affine(params, eps)
    wide = _wide(x, factor)
    y = x.astype(wide) * _per_channel(factor.astype(wide), x)
    return (y + _per_channel(shift.astype(wide), x)).astype(x.dtype)


def fold_batch_norm(params: Any, *, eps: float = 1e-5) -> Any:
    """The same network with every `batch_norm` folded into the convolution before it.

    ``w' = f w``, ``b' = f (b - mean) + offset``, with ``f = scale / sqrt(variance + eps)``.

    Args:
      params: parameters of a module of this package, or any tree of them.
      eps: that of the `batch_norm` it replaces.

    Returns:
      The tree with {"w", "b"} wherever {"w", "norm"} was: the same outputs to rounding, and no
      normalisation left to compute.

    Raises:
      ValueError: if a "norm" holds something else than the parameters of `batch_norm`.

    Cost: one pass over the parameters.

    >>> import jax
    >>> init = jaxdil.modules.init_conv_layer
    >>> layer = init(jax.random.key(0), 8, 8, norm=init_batch_norm)
    >>> sorted(layer), sorted(fold_batch_norm(layer))
    (['norm', 'w'], ['b', 'w'])
    """
    return jax.tree.map(lambda node: _folded(node, eps), params, is_leaf=_normalised)


def _normalised(node: Any) -> bool:
    return isinstance(node, Mapping) and "w" in node and "norm" in node


def _folded(node: Any, eps: float) -> Any:
    if not _normalised(node):
        return node
    w, norm = node["w"], node["norm"]
    wanted = {"scale", "offset", "mean", "variance"}
    if not isinstance(norm, Mapping) or set(norm) != wanted:
        what = f"'norm' must hold the parameters of batch_norm, {sorted(wanted)}"
        came = sorted(norm) if isinstance(norm, Mapping) else type(norm).__name__
        hint = "Another norm depends on its input, and no kernel can take it over."
        raise ValueError(error("fold_batch_norm", f"{what}, got {came}", hint))
    factor, shift = _affine(norm, eps)
    # Dense kernels are (*K, I, O), depthwise ones (*K, C, M) for C M channels.
    scaling = factor if w.shape[-1] == factor.size else jnp.reshape(factor, w.shape[-2:])
    scaling = jnp.reshape(scaling, (1,) * (w.ndim - scaling.ndim) + scaling.shape)
    wide = factor.dtype
    b = shift + factor * node["b"].astype(wide) if "b" in node else shift
    return {"w": (w.astype(wide) * scaling).astype(w.dtype), "b": b.astype(w.dtype)}


def _wide(*arrays: jax.Array) -> Any:
    """The widest of their dtypes, and float32 at least: said, because strict JAX promotes none."""
    return max((np.dtype(np.float32), *(v.dtype for v in arrays)), key=lambda dtype: dtype.itemsize)


def _affine(params: Mapping[str, Array], eps: float) -> tuple[jax.Array, jax.Array]:
    """Factor and shift of each channel, in at least float32."""
    wide = _wide(params["scale"])
    scale, offset, mean, variance = (
        params[name].astype(wide) for name in ("scale", "offset", "mean", "variance")
    )
    factor = scale / jnp.sqrt(variance + eps)
    return factor, offset - factor * mean


def _per_channel(v: jax.Array, like: jax.Array) -> jax.Array:
    """A vector (C,) with as many axes as ``like``, to be broadcast along its last."""
    return jnp.reshape(v, (1,) * (like.ndim - 1) + (-1,))
