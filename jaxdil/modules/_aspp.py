"""Atrous spatial pyramid pooling: one map seen at several rates, and as a whole.

    y = f(project([f(w1 x), f(conv(x, w, rate)) for each rate, f(wp mean(x))]))

The mean over the image is resized to the map by bilinear interpolation, which for a single sample
is to repeat it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil.modules._layer import Activation, InitNorm, Norm, check_layers, new_layer, unit
from jaxdil.modules._norm import batch_norm

__all__ = ["aspp", "init_aspp"]


def init_aspp(
    key: Array,
    in_channels: int,
    out_channels: int,
    *,
    rates: int = 3,
    kernel: Ints = 3,
    rank: int = 2,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> dict[str, Any]:
    """Parameters of `aspp`.

    Args:
      key: of ``jax.random``.
      in_channels: C.
      out_channels: O, of each branch and of the result; 256 in the paper.
      rates: number of dilated branches.
      kernel: taps of the dilated branches.
      rank: number of spatial axes.
      norm: as in `init_conv_layer`, for every layer; the paper has batch normalisation.
      dtype: of the parameters.

    Returns:
      {"pointwise": layer (1, C, O), "atrous": a layer (*K, C, O) for each rate, "image": layer
      (1, C, O), "project": layer (1, (rates + 2) O, O)}; a layer is that of `init_conv_layer`.

    Raises:
      ValueError: for sizes below 1.
      TypeError: for integers that are not.

    Source: Chen et al., DeepLabv3, arXiv:1706.05587.

    >>> import jax
    >>> params = init_aspp(jax.random.key(0), 8, 8)
    >>> params["atrous"][2]["w"].shape, params["project"]["w"].shape
    ((3, 3, 8, 8), (1, 1, 40, 8))
    """
    where = "init_aspp"
    rates = _arguments.integer(where, "rates", rates, least=1)
    keys = jax.random.split(key, rates + 3)

    def layer(key: Array, inputs: int, kernel: Ints) -> dict[str, Any]:
        return new_layer(where, key, inputs, out_channels, kernel, rank, norm=norm, dtype=dtype)

    return {
        "pointwise": layer(keys[0], in_channels, 1),
        "image": layer(keys[1], in_channels, 1),
        "project": layer(keys[2], (rates + 2) * out_channels, 1),
        "atrous": [layer(k, in_channels, kernel) for k in keys[3:]],
    }


def aspp(
    params: Mapping[str, Any],
    x: Num[Array, "..."],
    *,
    rates: Sequence[int] = (6, 12, 18),
    output_stride: int = 16,
    activation: Activation = jax.nn.relu,
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """A map seen at several rates, and as a whole, at once.

    ``y = f(project(concat(f(pointwise(x)), *(f(conv(x, w, rate)) for each rate),
    f(image(mean(x))))))`` with f the activation.

    Args:
      params: of `init_aspp`.
      x: feature maps (N, *S, C); without N too.
      rates: of the dilated branches at an output stride of 16.
      output_stride: samples of the image between neighbouring samples of x: 16, or 8, at which
        the rates are doubled, so that they span the same part of the image.
      activation: after every layer.
      norm: as in `conv_layer`, where params hold one.
      method: as in `conv`, for the dilated convolutions; the 1x1 ones are always chosen.

    Returns:
      y (N, *S, O).

    Raises:
      ValueError: as `conv`, if rates do not fit params, and for another output stride.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(S) O (C (1 + R prod(K)) + (R + 2) O)`` operations, R the number of rates.

    Source: Chen et al., DeepLabv3, arXiv:1706.05587, figure 5.

    >>> import jax, jax.numpy as jnp
    >>> params = init_aspp(jax.random.key(0), 8, 8)
    >>> aspp(params, jnp.ones((1, 33, 33, 8)), output_stride=8).shape
    (1, 33, 33, 8)
    """
    where = "aspp"
    if output_stride not in (8, 16):
        hint = "For another, pass the rates themselves and leave output_stride at 16."
        raise ValueError(
            error(where, f"output_stride must be 16 or 8, got {output_stride!r}", hint)
        )
    spans = check_layers(where, params["atrous"], rates, "rates")
    mix = functools.partial(unit, where, norm=norm)
    branches = [mix(params["pointwise"], x)]
    for layer, rate in zip(params["atrous"], spans, strict=True):
        dilation = rate * 16 // output_stride
        branches.append(mix(layer, x, dilation=dilation, method=method))
    spatial = tuple(range(x.ndim - params["pointwise"]["w"].ndim + 1, x.ndim - 1))
    image = mix(params["image"], jnp.mean(x, axis=spatial, keepdims=True))
    branches.append(jnp.broadcast_to(image, branches[0].shape))
    # The activation is pointwise, so it may as well come after the concatenation.
    y = activation(jnp.concatenate(branches, axis=-1))
    return activation(mix(params["project"], y))
