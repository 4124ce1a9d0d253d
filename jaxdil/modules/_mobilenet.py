"""The inverted residual: few channels outside, many inside, where the convolution is depthwise.

y = project(f(depthwise(f(expand(x)))))        C -> t C -> t C -> O channels, no f at the end
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints, Padding
from jaxdil._errors import error
from jaxdil.modules._layer import Activation, InitNorm, Norm, new_layer, unit
from jaxdil.modules._norm import batch_norm

__all__ = ["init_inverted_residual", "inverted_residual"]


def init_inverted_residual(
    key: Array,
    in_channels: int,
    out_channels: int,
    *,
    expansion: int = 6,
    kernel: Ints = 3,
    rank: int = 2,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> dict[str, Any]:
    """Parameters of `inverted_residual`.

    Args:
      key: of ``jax.random``.
      in_channels: C.
      out_channels: O.
      expansion: t; at 1 there is no layer that expands.
      kernel: taps of the depthwise convolution.
      rank: number of spatial axes.
      norm: as in `init_conv_layer`, for every layer; the paper has batch normalisation.
      dtype: of the parameters.

    Returns:
      {"expand": layer (1, C, t C), "depthwise": layer (*K, t C, 1), "project": layer (1, t C, O)},
      each that of `init_conv_layer`: ``t C (C + prod(K) + O)`` weights.

    Raises:
      ValueError: for sizes below 1.
      TypeError: for integers that are not.

    Source: Sandler et al., MobileNetV2, arXiv:1801.04381, table 1.

    >>> import jax
    >>> params = init_inverted_residual(jax.random.key(0), 8, 8)
    >>> {name: layer["w"].shape for name, layer in sorted(params.items())}
    {'depthwise': (3, 3, 48, 1), 'expand': (1, 1, 8, 48), 'project': (1, 1, 48, 8)}
    """
    where = "init_inverted_residual"
    expansion = _arguments.integer(where, "expansion", expansion, least=1)
    wide = _arguments.integer(where, "in_channels", in_channels, least=1) * expansion
    first, second, third = jax.random.split(key, 3)
    options: dict[str, Any] = {"norm": norm, "dtype": dtype}
    params = {
        "depthwise": new_layer(where, second, wide, wide, kernel, rank, depthwise=True, **options),
        "project": new_layer(where, third, wide, out_channels, 1, rank, **options),
    }
    if expansion > 1:
        params["expand"] = new_layer(where, first, in_channels, wide, 1, rank, **options)
    return params


def inverted_residual(
    params: Mapping[str, Any],
    x: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    residual: bool = False,
    activation: Activation = jax.nn.relu6,
    padding: Padding = "SAME",
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Expand, convolve each channel, project; and x added where that is asked for.

    ``y = project(f(depthwise(f(expand(x)))))``, with f the activation; plus x if residual.

    Args:
      params: of `init_inverted_residual`.
      x: input (N, *S, C); without N too.
      stride: of the depthwise convolution.
      dilation: of the depthwise convolution.
      residual: whether x is added, as in the paper wherever the stride is 1 and O = C. Said, not
        guessed: a block whose stride is taken out (`remove_strides`) does not get a residual by it.
      activation: after the first two layers; the last is linear.
      padding: of the depthwise convolution.
      norm: as in `conv_layer`, where params hold one.
      method: as in `conv`, for the depthwise convolution; the 1x1 ones are always chosen.

    Returns:
      y (N, *P, O).

    Raises:
      ValueError: as `conv`, and if x cannot be added because the shapes differ.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N t C (prod(S) C + prod(P) (prod(K) + O))`` operations.

    Source: Sandler et al., MobileNetV2, arXiv:1801.04381.

    >>> import jax, jax.numpy as jnp
    >>> params = init_inverted_residual(jax.random.key(0), 8, 8)
    >>> inverted_residual(params, jnp.ones((1, 9, 9, 8)), stride=2).shape
    (1, 5, 5, 8)
    """
    where = "inverted_residual"
    mix = functools.partial(unit, where, norm=norm)
    convolve = functools.partial(mix, depthwise=True, padding=padding, method=method)
    y = activation(mix(params["expand"], x)) if "expand" in params else x
    y = activation(convolve(params["depthwise"], y, stride=stride, dilation=dilation))
    y = mix(params["project"], y)
    if not residual:
        return y
    if y.shape != x.shape:
        what = f"residual=True adds x {x.shape} to {y.shape}, which must be as large"
        raise ValueError(error(where, what, "Pass residual=False, or stride=1 and O = C."))
    return y + x
