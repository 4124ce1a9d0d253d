"""Smoothed dilated convolution: neighbouring units of a dilated convolution made to share inputs.

    smoothed_conv        y = conv(s * x, w, dilation=r)            s one kernel for all channels
    group_interaction    y[r b + i] = sum_j  w[i, j] x[r b + j]    i, j in [0, r)^rank

Outputs of a dilated convolution that are not r apart read different inputs altogether. The first
mixes the inputs beforehand, the second the outputs afterwards; both begin as the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints, Padding
from jaxdil._depthwise import depthwise_conv
from jaxdil._errors import error
from jaxdil._resample import batch_to_space, space_to_batch
from jaxdil.modules._layer import InitNorm, Norm, new_layer, unit
from jaxdil.modules._norm import batch_norm

__all__ = ["group_interaction", "init_group_interaction", "init_smoothed_conv", "smoothed_conv"]


def init_smoothed_conv(
    key: Array,
    in_channels: int,
    out_channels: int,
    *,
    dilation: int,
    kernel: Ints = 3,
    rank: int = 2,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> dict[str, Any]:
    """Parameters of `smoothed_conv`, which begins as a plain dilated convolution.

    Args:
      key: of ``jax.random``.
      in_channels: C.
      out_channels: O.
      dilation: r, of the convolution that is smoothed.
      kernel: taps of it.
      rank: number of spatial axes.
      norm: as in `init_conv_layer`.
      dtype: of the parameters.

    Returns:
      {"smooth": (2 r - 1, ..., 2 r - 1), 1 in the middle and 0 around it, "conv": a layer
      (*K, C, O) as of `init_conv_layer`}.

    Raises:
      ValueError: for sizes below 1.
      TypeError: for integers that are not.

    Source: Wang and Ji, arXiv:1808.08931.

    >>> import jax
    >>> init_smoothed_conv(jax.random.key(0), 8, 8, dilation=3)["smooth"].shape
    (5, 5)
    """
    where = "init_smoothed_conv"
    rate = _arguments.integer(where, "dilation", dilation, least=1)
    layer = new_layer(where, key, in_channels, out_channels, kernel, rank, norm=norm, dtype=dtype)
    delta = jnp.zeros((2 * rate - 1,) * rank, dtype).at[(rate - 1,) * rank].set(1)
    return {"smooth": delta, "conv": layer}


def smoothed_conv(
    params: Mapping[str, Any],
    x: Num[Array, "..."],
    *,
    dilation: int,
    stride: Ints = 1,
    padding: Padding = "SAME",
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """A separable and shared convolution, then a dilated one.

    ``y = conv(s * x, w, dilation=r)``, where ``(s * x)[n, p, c] = sum_t s[t] x[n, p + t - r + 1,
    c]``: one kernel for all channels, 2 r - 1 wide, so that every input between two taps of the
    dilated kernel reaches both.

    Args:
      params: of `init_smoothed_conv`.
      x: input (N, *S, C); without N too.
      dilation: r, that of params.
      stride: of the dilated convolution.
      padding: of the dilated convolution, as in `conv`; the smoothing keeps the size.
      norm: as in `conv_layer`, where params hold one.
      method: as in `conv`.

    Returns:
      y (N, *P, O).

    Raises:
      ValueError: as `conv`, and if the smoothing kernel is not 2 r - 1 wide.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: that of the convolution, and ``2 N prod(S) C (2 r - 1)^rank`` operations.

    Source: Wang and Ji, Smoothed Dilated Convolutions, arXiv:1808.08931.

    >>> import jax, jax.numpy as jnp
    >>> params = init_smoothed_conv(jax.random.key(0), 8, 8, dilation=3)
    >>> smoothed_conv(params, jnp.ones((1, 16, 16, 8)), dilation=3).shape
    (1, 16, 16, 8)
    """
    where = "smoothed_conv"
    rate = _arguments.integer(where, "dilation", dilation, least=1)
    smooth, layer = params["smooth"], params["conv"]
    if smooth.shape != (2 * rate - 1,) * smooth.ndim:
        what = f"params['smooth'] must be {2 * rate - 1} wide at dilation {rate}"
        raise ValueError(error(where, f"{what}, 2 * dilation - 1, got shape {smooth.shape}"))
    shared = jnp.broadcast_to(smooth[..., None, None], (*smooth.shape, x.shape[-1], 1))
    x = depthwise_conv(x, shared, method=method)
    geometry: dict[str, Any] = {"stride": stride, "dilation": rate, "padding": padding}
    return unit(where, layer, x, **geometry, norm=norm, method=method)


def init_group_interaction(
    *, dilation: int, rank: int = 2, dtype: DTypeLike = "float32"
) -> dict[str, Array]:
    """Parameters of `group_interaction`, which begins as the identity.

    Args:
      dilation: r, of the convolution before it.
      rank: number of spatial axes.
      dtype: of the parameters.

    Returns:
      {"w": identity (G, G)} with G = r**rank.

    Raises:
      ValueError: for sizes below 1.
      TypeError: for integers that are not.

    Source: Wang and Ji, arXiv:1808.08931.

    >>> init_group_interaction(dilation=3)["w"].shape
    (9, 9)
    """
    where = "init_group_interaction"
    rate = _arguments.integer(where, "dilation", dilation, least=1)
    rank = _arguments.integer(where, "rank", rank, least=1)
    return {"w": jnp.eye(rate**rank, dtype=dtype)}


def group_interaction(
    params: Mapping[str, Array], x: Num[Array, "N *S C"], *, dilation: int
) -> Num[Array, "N *S C"]:
    """The groups that a dilated convolution keeps apart, mixed by one matrix for all of them.

    ``y[n, r b + i, c] = sum_j w[i, j] x[n, r b + j, c]``, i and j numbering the ``r**rank`` places
    in a block of r samples an axis, row by row.

    Args:
      params: {"w": (G, G)} with G = r**rank, of `init_group_interaction`.
      x: what the dilated convolution returned, (N, *S, C).
      dilation: r.

    Returns:
      y (N, *S, C). Where r does not divide S, samples beyond the end count as zeros.

    Raises:
      ValueError: if w does not have r**rank rows and columns.
      TypeError: for integers that are not, and for two dtypes.

    Cost: ``2 N prod(S) C r**rank`` operations.

    Source: Wang and Ji, Smoothed Dilated Convolutions, arXiv:1808.08931.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(4.0).reshape(1, 4, 1)
    >>> group_interaction({"w": jnp.array([[1.0, 1.0], [0.0, 1.0]])}, x, dilation=2).ravel()
    Array([1., 1., 5., 3.], dtype=float32)
    """
    where = "group_interaction"
    rate = _arguments.integer(where, "dilation", dilation, least=1)
    w = params["w"]
    _arguments.check_arrays(where, x=x, w=w)
    rank, groups = x.ndim - 2, rate ** (x.ndim - 2)
    if w.shape != (groups, groups):
        what = f"params['w'] must be ({groups}, {groups}) at dilation {rate} and {rank} axes"
        raise ValueError(error(where, f"{what}, got shape {w.shape}"))
    blocks, ends = (rate,) * rank, [(0, -size % rate) for size in x.shape[1:-1]]
    apart = space_to_batch(x, block_shape=blocks, paddings=ends)
    mixed = jnp.tensordot(w, jnp.reshape(apart, (groups, -1)), 1)
    return batch_to_space(jnp.reshape(mixed, apart.shape), block_shape=blocks, crops=ends)
