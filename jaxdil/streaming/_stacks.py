"""Stacks of causal convolutions, for `network`: WaveNet, temporal convolution, short convolution.

Each is a function of ``conv``, its parameters and its input, and is written once: with
`causal_conv` in the place of ``conv`` it treats whole sequences, and `network` makes a stream of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from jaxdil._conv import bind
from jaxdil._errors import error

__all__ = ["short_conv", "tcn_stack", "wavenet_stack"]


def wavenet_stack(
    conv: Callable[..., Any],
    params: Sequence[Mapping[str, Any]],
    x: Num[Array, "N T C"],
    *,
    dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    condition: Num[Array, "N T H"] | None = None,
) -> tuple[Num[Array, "N T C"], Num[Array, "N T Q"]]:
    """WaveNet's gated residual stack.

    ``z = tanh(a) sigmoid(b)`` with ``a, b = split(conv(x, gated) + condition h)``; then
    ``x = x + residual(z)`` and ``skip = skip + skip(z)``.

    Args:
      conv: `causal_conv`, or what `network` puts in its place.
      params: for each layer {"gated": {"w": (K, C, 2 D), "b": (2 D,)}, "residual": {"w": (1, D,
        C), "b": (C,)}, "skip": {"w": (1, D, Q), "b": (Q,)}}, and {"condition": {"w": (1, H, 2 D)}}
        if there is a condition. Every "b" may be missing.
      x: input (N, T, C).
      dilations: of each layer, one at least.
      condition: h (N, T, H), of each frame.

    Returns:
      x (N, T, C) for a stack that follows, and the sum of skips (N, T, Q) for the output.

    Raises:
      ValueError: as `causal_conv`, if dilations are not one a layer, and for a condition without
        parameters or the reverse.

    Cost: ``2 N T D (2 K C + C + Q)`` operations a layer.

    Source: van den Oord et al., WaveNet, arXiv:1609.03499.

    >>> import functools, jax.numpy as jnp
    >>> layer = {
    ...     "gated": {"w": jnp.ones((2, 4, 6))},
    ...     "residual": {"w": jnp.ones((1, 3, 4))},
    ...     "skip": {"w": jnp.ones((1, 3, 5))},
    ... }
    >>> stack = functools.partial(jaxdil.streaming.wavenet_stack, dilations=(1, 2))
    >>> net = jaxdil.streaming.network(stack)
    >>> states = net.init([layer] * 2, jnp.ones((1, 1, 4)))
    >>> (x, skip), states = net.step(states, [layer] * 2, jnp.ones((1, 4)))
    >>> x.shape, skip.shape
    ((1, 4), (1, 5))
    """
    where = "streaming.wavenet_stack"
    _check_layers(where, params, dilations)
    aside: Any = None
    for layer, dilation in zip(params, dilations, strict=True):
        z = _biased(layer["gated"], conv(x, layer["gated"]["w"], dilation=dilation))
        if (condition is None) == ("condition" in layer):
            what = "condition and its parameters must come together"
            raise ValueError(error(where, f"{what}; a layer has {sorted(layer)}"))
        if condition is not None:
            z = z + _pointwise(layer["condition"], condition)
        a, b = jnp.split(z, 2, axis=-1)
        z = jnp.tanh(a) * jax.nn.sigmoid(b)
        x = x + _pointwise(layer["residual"], z)
        put = _pointwise(layer["skip"], z)
        aside = put if aside is None else aside + put
    return x, aside


def tcn_stack(
    conv: Callable[..., Any],
    params: Sequence[Mapping[str, Any]],
    x: Num[Array, "N T C"],
    *,
    dilations: Sequence[int] = (1, 2, 4, 8),
) -> Num[Array, "N T O"]:
    """The temporal convolutional network: blocks of two dilated convolutions and a residual.

    ``h = relu(conv(relu(conv(x, first)), second))``, then ``x = relu(h + project(x))``. Its weight
    normalisation belongs to the parameters, its dropout to training.

    Args:
      conv: `causal_conv`, or what `network` puts in its place.
      params: for each block {"first": {"w": (K, C, O), "b": (O,)}, "second": {"w": (K, O, O), "b":
        (O,)}}, and {"project": {"w": (1, C, O), "b": (O,)}} where C and O differ. Every "b" may be
        missing.
      x: input (N, T, C).
      dilations: of each block.

    Returns:
      y (N, T, O).

    Raises:
      ValueError: as `causal_conv`, and if dilations are not one a block.

    Cost: ``2 N T K O (C + O)`` operations a block.

    Source: Bai et al., An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
      Sequence Modeling, arXiv:1803.01271.

    >>> import jax.numpy as jnp
    >>> block = {"first": {"w": jnp.ones((3, 2, 2))}, "second": {"w": jnp.ones((3, 2, 2))}}
    >>> conv = jaxdil.streaming.causal_conv
    >>> jaxdil.streaming.tcn_stack(conv, [block], jnp.ones((1, 9, 2)), dilations=[4]).shape
    (1, 9, 2)
    """
    _check_layers("streaming.tcn_stack", params, dilations)
    for block, dilation in zip(params, dilations, strict=True):
        h = x
        for layer in (block["first"], block["second"]):
            h = jax.nn.relu(_biased(layer, conv(h, layer["w"], dilation=dilation)))
        x = jax.nn.relu(h + (_pointwise(block["project"], x) if "project" in block else x))
    return x


def short_conv(
    conv: Callable[..., Any],
    params: Mapping[str, Any],
    x: Num[Array, "N T C"],
    *,
    segment_ids: Int[Array, "N T"] | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.silu,
) -> Num[Array, "N T C"]:
    """The short depthwise convolution in front of a state-space or linear-attention layer.

    ``y = silu(conv(x, w) + b)``, depthwise, with about four taps.

    Args:
      conv: `causal_conv`, or what `network` puts in its place.
      params: {"w": (K, C), "b": (C,)}; "b" may be missing.
      x: input (N, T, C).
      segment_ids: (N, T), where sequences are packed; as in `causal_conv`.
      activation: as it says.

    Returns:
      y (N, T, C).

    Raises:
      ValueError: as `causal_conv`.

    Cost: ``2 N T K C`` operations. The whole is bound by memory: x is read and y written once.

    Source: Gu and Dao, Mamba, arXiv:2312.00752.

    >>> import jax.numpy as jnp
    >>> net = jaxdil.streaming.network(jaxdil.streaming.short_conv)
    >>> ids = jnp.array([[1, 1, 2]])
    >>> y, states = net.prefill({"w": jnp.ones((4, 8))}, jnp.ones((1, 3, 8)), segment_ids=ids)
    >>> y.shape
    (1, 3, 8)
    """
    w = params["w"][:, :, None]
    y = conv(x, w, depthwise=True, segment_ids=segment_ids)
    return activation(_biased(params, y))


def _check_layers(where: str, params: Any, dilations: Any) -> None:
    if len(params) != len(dilations):
        what = f"dilations must have an entry for each of the {len(params)} entries of params"
        raise ValueError(error(where, f"{what}, got {dilations!r}"))


def _biased(layer: Mapping[str, Any], y: jax.Array) -> jax.Array:
    return y + layer["b"].reshape((1,) * (y.ndim - 1) + (-1,)) if "b" in layer else y


def _pointwise(layer: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """A convolution with one tap, which needs no state: a product of matrices."""
    y = bind("streaming", x, layer["w"], padding="CAUSAL", method="taps or auto")
    return _biased(layer, y)
