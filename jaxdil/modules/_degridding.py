"""Degridding: convolutions of falling dilation that fill the holes which rising dilation left.

    x = f(conv(x, w, dilation=d))        d = 2 2 1 1

A stack that ends at rate r leaves r**rank interleaved grids that know nothing of each other. Lower
rates after it connect them; a residual connection would carry the grid past them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints, Padding
from jaxdil.modules._layer import Activation, InitNorm, Layer, Norm, check_layers, new_layer, unit
from jaxdil.modules._norm import batch_norm

__all__ = ["degridding", "init_degridding"]


def init_degridding(
    key: Array,
    channels: int,
    *,
    layers: int = 4,
    kernel: Ints = 3,
    rank: int = 2,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> list[dict[str, Any]]:
    """Parameters of `degridding`.

    Args:
      key: of ``jax.random``.
      channels: C, of every layer; 512 in the paper.
      layers: number of convolutions; 4 in DRN-C, two at each rate, and 2 in DRN-D.
      kernel: taps.
      rank: number of spatial axes.
      norm: as in `init_conv_layer`; the paper has batch normalisation.
      dtype: of the parameters.

    Returns:
      A list of layers {"w": (*K, C, C), ...}, each that of `init_conv_layer`.

    Raises:
      ValueError: for sizes below 1.
      TypeError: for integers that are not.

    Source: Yu, Koltun and Funkhouser, arXiv:1705.09914.

    >>> import jax
    >>> len(init_degridding(jax.random.key(0), 8))
    4
    """
    where = "init_degridding"
    layers = _arguments.integer(where, "layers", layers, least=1)
    keys = jax.random.split(key, layers)
    return [
        new_layer(where, k, channels, channels, kernel, rank, norm=norm, dtype=dtype) for k in keys
    ]


def degridding(
    params: Sequence[Layer],
    x: Num[Array, "..."],
    *,
    dilations: Sequence[int] = (2, 2, 1, 1),
    activation: Activation = jax.nn.relu,
    padding: Padding = "SAME",
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """The last levels of a dilated residual network, without residuals.

    ``x = activation(conv_layer(x, dilation=d))`` for each d.

    Args:
      params: of `init_degridding`.
      x: feature maps (N, *S, C) of a network that ends at rate 4; without N too.
      dilations: of each layer, falling to 1. The paper's DRN-C has (2, 2, 1, 1), levels 7 and 8,
        DRN-D (2, 1).
      activation: after each layer.
      padding: as in `conv`.
      norm: as in `conv_layer`, where params hold one.
      method: as in `conv`.

    Returns:
      y (N, *S, C).

    Raises:
      ValueError: as `conv`, and if dilations do not fit params.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: that of the convolutions, ``2 N prod(S) prod(K) C^2`` operations each.

    Source: Yu, Koltun and Funkhouser, Dilated Residual Networks, arXiv:1705.09914, section 4.

    >>> import jax, jax.numpy as jnp
    >>> params = init_degridding(jax.random.key(0), 8)
    >>> degridding(params, jnp.ones((1, 28, 28, 8))).shape
    (1, 28, 28, 8)
    """
    where = "degridding"
    rates = check_layers(where, params, dilations, "dilations")
    for layer, rate in zip(params, rates, strict=True):
        y = unit(where, layer, x, dilation=rate, padding=padding, norm=norm, method=method)
        x = activation(y)
    return x
