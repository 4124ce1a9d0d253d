"""The residual block of separable convolutions of Xception, and its atrous variant.

    xception_block           x = norm(pointwise(depthwise(f(x)))) ...        y = pool(x) + skip(x0)
    atrous_xception_block    x = norm(pointwise(f(depthwise(f(x))))) ...     y = x + skip(x0)

The variant has no pooling: the last of its convolutions strides. Where a stride is taken out, the
blocks after it dilate.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil._arguments import Ints, Padding
from jaxdil._errors import error
from jaxdil._pool import max_pool
from jaxdil.modules._layer import Activation, InitNorm, Norm, new_layer, unit
from jaxdil.modules._norm import batch_norm

__all__ = [
    "atrous_xception_block",
    "init_atrous_xception_block",
    "init_xception_block",
    "xception_block",
]


def init_xception_block(
    key: Array,
    in_channels: int,
    channels: Sequence[int],
    *,
    skip: bool = False,
    kernel: Ints = 3,
    rank: int = 2,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> dict[str, Any]:
    """Parameters of `xception_block`.

    Args:
      key: of ``jax.random``.
      in_channels: C.
      channels: of each separable convolution; the last is O. In the paper (128, 128), (256, 256),
        (728, 728), then (728, 728, 728) eight times without a skip layer, then (728, 1024).
      skip: whether the block pools, with a 1x1 convolution beside it; if not, x is added as it is.
      kernel: taps of the depthwise convolutions.
      rank: number of spatial axes.
      norm: as in `init_conv_layer`, after each pointwise convolution; the paper has batch
        normalisation.
      dtype: of the parameters.

    Returns:
      {"separable": [{"depthwise": {"w": (*K, C, 1)}, "pointwise": layer (1, C, O)}, ...]}, and
      "skip": layer (1, C, O) if there is one; a layer is that of `init_conv_layer`.

    Raises:
      ValueError: for sizes below 1, and without a skip layer if the channels change.
      TypeError: for integers that are not.

    Source: Chollet, Xception, arXiv:1610.02357, figure 5.

    >>> import jax
    >>> params = init_xception_block(jax.random.key(0), 8, (8, 16), skip=True)
    >>> [layer["pointwise"]["w"].shape for layer in params["separable"]]
    [(1, 1, 8, 8), (1, 1, 8, 16)]
    """
    bare = {"kernel": kernel, "rank": rank, "dtype": dtype}
    return _init("init_xception_block", key, in_channels, channels, skip, norm, None, bare)


def xception_block(
    params: Mapping[str, Any],
    x: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    activation: Activation = jax.nn.relu,
    padding: Padding = "SAME",
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Separable convolutions, and x added to what comes out.

    ``x[i + 1] = norm(pointwise(depthwise(activation(x[i]))))`` and ``y = max_pool(x[m]) +
    skip(x)``; without a skip layer ``y = x[m] + x``.

    Args:
      params: of `init_xception_block`.
      x: input (N, *S, C).
      stride: of the pooling, 3 wide, and of the skip layer; 2 in the paper. 1 without a skip layer.
      dilation: of the depthwise convolutions and of the pooling.
      activation: before each separable convolution, and nowhere else.
      padding: of the depthwise convolutions and of the pooling; it must keep the size.
      norm: as in `conv_layer`, where params hold one.
      method: as in `conv`, for the depthwise convolutions; the 1x1 ones are always chosen.

    Returns:
      y (N, *P, O), P = ceil(S / stride).

    Raises:
      ValueError: as `conv`, for a stride without a skip layer, and for a padding that does not
        keep the size.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(S) C (prod(K) + O)`` operations for each separable convolution.

    Source: Chollet, Xception, arXiv:1610.02357.

    >>> import jax, jax.numpy as jnp
    >>> params = init_xception_block(jax.random.key(0), 8, (8, 16), skip=True)
    >>> xception_block(params, jnp.ones((1, 17, 17, 8)), stride=2).shape
    (1, 9, 9, 16)
    """
    where = "xception_block"
    mix = functools.partial(unit, where, norm=norm)
    convolve = functools.partial(mix, depthwise=True, padding=padding, method=method)
    y = x
    for layer in params["separable"]:
        y = convolve(layer["depthwise"], activation(y), dilation=dilation)
        y = mix(layer["pointwise"], y)
    if "skip" in params:
        window = (3,) * (params["skip"]["w"].ndim - 2)
        y = max_pool(y, window=window, stride=stride, dilation=dilation, padding=padding)
    return _add(where, params, x, y, stride, norm)


def init_atrous_xception_block(
    key: Array,
    in_channels: int,
    channels: Sequence[int],
    *,
    skip: bool = False,
    kernel: Ints = 3,
    rank: int = 2,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> dict[str, Any]:
    """Parameters of `atrous_xception_block`: those of `xception_block`, and more.

    Args:
      key: of ``jax.random``.
      in_channels: C.
      channels: of each separable convolution, three in DeepLabv3+; the last is O.
      skip: whether a 1x1 convolution stands beside them; if not, x is added as it is.
      kernel: taps of the depthwise convolutions.
      rank: number of spatial axes.
      norm: as in `init_conv_layer`, after each depthwise and each pointwise convolution.
      dtype: of the parameters.

    Returns:
      As `init_xception_block`, the depthwise layers with a bias or a norm.

    Raises:
      ValueError: for sizes below 1, and without a skip layer if the channels change.
      TypeError: for integers that are not.

    Source: Chen et al., DeepLabv3+, arXiv:1802.02611, figure 4.

    >>> import jax
    >>> params = init_atrous_xception_block(jax.random.key(0), 8, (8, 8, 8))
    >>> sorted(params), sorted(params["separable"][0]["depthwise"])
    (['separable'], ['b', 'w'])
    """
    where = "init_atrous_xception_block"
    bare = {"kernel": kernel, "rank": rank, "dtype": dtype}
    return _init(where, key, in_channels, channels, skip, norm, norm, bare | {"bias": True})


def atrous_xception_block(
    params: Mapping[str, Any],
    x: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    activation: Activation = jax.nn.relu,
    padding: Padding = "SAME",
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Separable convolutions with an activation inside, the last of them with the stride.

    ``x[i + 1] = norm(pointwise(activation(norm(depthwise(activation(x[i]))))))`` and ``y = x[m] +
    skip(x)``, or ``y = x[m] + x`` without a skip layer.

    Args:
      params: of `init_atrous_xception_block`.
      x: input (N, *S, C); without N too.
      stride: of the last depthwise convolution and of the skip layer. 1 without a skip layer.
      dilation: of every depthwise convolution: 2 where one stride of 2 was taken out before, to
        keep an output stride of 16, and so on.
      activation: before each depthwise and each pointwise convolution.
      padding: of the depthwise convolutions; it must keep the size.
      norm: as in `conv_layer`, where params hold one.
      method: as in `conv`, for the depthwise convolutions; the 1x1 ones are always chosen.

    Returns:
      y (N, *P, O), P = ceil(S / stride).

    Raises:
      ValueError: as `conv`, for a stride without a skip layer, and for a padding that does not
        keep the size.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(S) C (prod(K) + O)`` operations for each separable convolution.

    Source: Chen et al., DeepLabv3+, arXiv:1802.02611.

    >>> import jax, jax.numpy as jnp
    >>> params = init_atrous_xception_block(jax.random.key(0), 8, (8, 8, 8))
    >>> atrous_xception_block(params, jnp.ones((1, 17, 17, 8)), dilation=2).shape
    (1, 17, 17, 8)
    """
    where = "atrous_xception_block"
    mix = functools.partial(unit, where, norm=norm)
    convolve = functools.partial(mix, depthwise=True, padding=padding, method=method)
    y = x
    for i, layer in enumerate(params["separable"]):
        step = stride if i == len(params["separable"]) - 1 else 1
        y = convolve(layer["depthwise"], activation(y), stride=step, dilation=dilation)
        y = mix(layer["pointwise"], activation(y))
    return _add(where, params, x, y, stride, norm)


def _init(
    where: str,
    key: jax.Array,
    inputs: int,
    channels: Sequence[int],
    skip: bool,  # noqa: FBT001 - passed on
    norm: InitNorm,
    inner: InitNorm,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Parameters of a block, whose depthwise layers have the norm ``inner``, or none."""
    if not skip and (not channels or channels[-1] != inputs):
        what = f"channels must end with in_channels={inputs} where x is added as it is"
        raise ValueError(error(where, f"{what}, got {channels!r}", "Or pass skip=True."))
    bare: dict[str, Any] = {"bias": False} | options
    full = bare | {"bias": True, "norm": norm}
    one = full | {"kernel": 1}
    keys = iter(jax.random.split(key, 2 * len(channels) + 1))
    layers = [
        {
            "depthwise": new_layer(where, next(keys), a, a, depthwise=True, norm=inner, **bare),
            "pointwise": new_layer(where, next(keys), a, b, **one),
        }
        for a, b in zip((inputs, *channels), channels, strict=False)
    ]
    if not skip:
        return {"separable": layers}
    return {
        "separable": layers,
        "skip": new_layer(where, next(keys), inputs, channels[-1], **one),
    }


def _add(
    where: str,
    params: Mapping[str, Any],
    x: jax.Array,
    y: jax.Array,
    stride: Any,
    norm: Norm,
) -> jax.Array:
    """The end of a block: y, and x beside it."""
    beside = unit(where, params["skip"], x, stride=stride, norm=norm) if "skip" in params else x
    if beside.shape != y.shape:
        what = f"the block makes {y.shape}, and what is added to it is {beside.shape}"
        hint = "Its padding must keep the size, and without a skip layer stride must be 1."
        raise ValueError(error(where, what, hint))
    return y + beside
