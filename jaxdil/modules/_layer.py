"""A convolution with its bias, or with the norm that follows it: what the modules are made of.

    y = conv(x, w) + b        or        y = norm(conv(x, w))

A layer is {"w": kernel} with "b", or with "norm" (whatever the norm function takes), or with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints, Padding
from jaxdil._conv import bind
from jaxdil._depthwise import depthwise_conv
from jaxdil._errors import error
from jaxdil.modules._norm import batch_norm

__all__ = [
    "Activation",
    "InitNorm",
    "Layer",
    "Norm",
    "check_layers",
    "conv_layer",
    "init_conv_layer",
    "new_layer",
    "unit",
]

Layer: TypeAlias = Mapping[str, Any]
Activation: TypeAlias = Callable[[jax.Array], jax.Array]
Norm: TypeAlias = Callable[[Any, jax.Array], jax.Array]
InitNorm: TypeAlias = Callable[[int], Any] | None


def init_conv_layer(
    key: Array,
    in_channels: int,
    out_channels: int,
    *,
    kernel: Ints = 3,
    rank: int = 2,
    groups: int = 1,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> dict[str, Any]:
    """Parameters of a `conv_layer`: normal kernels of variance 2 / fan-in (He et al.), zero bias.

    Args:
      key: of ``jax.random``.
      in_channels: C.
      out_channels: O.
      kernel: taps, or one for each spatial axis.
      rank: number of spatial axes.
      groups: of channels.
      norm: makes the parameters of the norm for O channels, such as `init_batch_norm`; it takes
        the place of the bias. None: a bias.
      dtype: of the parameters.

    Returns:
      {"w": (*K, C / groups, O)} with "b": (O,), or with "norm".

    Raises:
      ValueError: for sizes below 1, and if groups does not divide the channels.
      TypeError: for integers that are not.

    Source: He et al., arXiv:1502.01852.

    >>> import jax
    >>> layer = init_conv_layer(jax.random.key(0), 8, 8)
    >>> layer["w"].shape, layer["b"].shape
    ((3, 3, 8, 8), (8,))
    """
    where = "init_conv_layer"
    return new_layer(
        where, key, in_channels, out_channels, kernel, rank, groups=groups, norm=norm, dtype=dtype
    )


def conv_layer(
    params: Layer,
    x: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """A convolution and its bias or norm.

    ``y = norm(conv(x, w) + b)``, of which params say what there is.

    Args:
      params: {"w": (*K, C / groups, O)}, with "b": (O,) if there is a bias, and with "norm" if
        there is a norm.
      x: input (N, *S, C); without N too.
      stride: as in `conv`.
      dilation: as in `conv`.
      padding: as in `conv`.
      groups: as in `conv`.
      norm: called as ``norm(params["norm"], y)`` where params hold one.
      method: as in `conv`.

    Returns:
      y (N, *P, O).

    Raises:
      ValueError: as `conv`, and if params hold no "w".
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: that of `conv`.

    >>> import jax, jax.numpy as jnp
    >>> layer = init_conv_layer(jax.random.key(0), 8, 8)
    >>> conv_layer(layer, jnp.ones((1, 9, 9, 8)), stride=2, dilation=2).shape
    (1, 5, 5, 8)
    """
    return unit(
        "conv_layer",
        params,
        x,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        norm=norm,
        method=method,
    )


def new_layer(
    where: str,
    key: jax.Array,
    inputs: int,
    outputs: int,
    kernel: Any,
    rank: int,
    *,
    groups: int = 1,
    depthwise: bool = False,
    bias: bool = True,
    norm: InitNorm = None,
    dtype: DTypeLike = "float32",
) -> dict[str, Any]:
    """A layer; depthwise, its kernel is (*K, C, 1)."""
    rank = _arguments.integer(where, "rank", rank, least=1)
    taps = _arguments.integers(where, "kernel", kernel, rank)
    inputs = _arguments.integer(where, "in_channels", inputs, least=1)
    outputs = _arguments.integer(where, "out_channels", outputs, least=1)
    groups = _arguments.integer(where, "groups", groups, least=1)
    if inputs % groups or outputs % groups:
        what = f"groups must divide the {inputs} input and {outputs} output channels"
        raise ValueError(error(where, f"{what}, got {groups}"))
    shape = (*taps, inputs, 1) if depthwise else (*taps, inputs // groups, outputs)
    fan_in = math.prod(taps) * (1 if depthwise else inputs // groups)
    w = jax.random.normal(key, shape, dtype) * math.sqrt(2 / fan_in)
    if norm is not None:
        return {"w": w, "norm": norm(outputs)}
    return {"w": w, "b": jnp.zeros(outputs, dtype)} if bias else {"w": w}


def unit(
    where: str,
    layer: Any,
    x: jax.Array,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    padding: Any = "SAME",
    groups: int = 1,
    depthwise: bool = False,
    norm: Norm = batch_norm,
    method: str = "auto",
) -> jax.Array:
    """What a layer computes."""
    if not isinstance(layer, Mapping) or "w" not in layer:
        came = sorted(layer) if isinstance(layer, Mapping) else type(layer).__name__
        what = f"a layer of params must be a dict with 'w', and 'b' or 'norm', got {came}"
        raise ValueError(error(where, what, f"The docstring of {where} says what params hold."))
    w = layer["w"]
    _arguments.check_arrays(where, x=x, w=w)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": padding}
    options |= {"bias": layer.get("b"), "method": method}
    if depthwise:
        y = depthwise_conv(x, w, **options)
    else:
        y = bind(where, x, w, groups=groups, **options)
    return norm(layer["norm"], y) if "norm" in layer else y


def check_layers(where: str, params: Any, numbers: Any, name: str) -> tuple[int, ...]:
    """The integers ``numbers``, of which there must be one for each entry of params."""
    if not isinstance(params, Sequence):
        what = f"params must be a sequence, an entry a layer, got {type(params).__name__}"
        raise TypeError(error(where, what, f"The docstring of {where} says what params hold."))
    if not isinstance(numbers, Sequence) or len(numbers) != len(params):
        what = f"{name} must have an entry for each of the {len(params)} layers of params"
        raise ValueError(error(where, f"{what}, got {numbers!r}"))
    return _arguments.integers(where, name, numbers, len(numbers))
