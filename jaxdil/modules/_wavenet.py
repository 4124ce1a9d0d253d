"""The gated stack of WaveNet: causal dilated convolutions with a residual and a skip output each.

    z = tanh(wf * x + vf h) sigmoid(wg * x + vg h)
    x = x + residual(z)            skip = skip + skip(z)

With two taps at 1, 2, 4, ..., 512 a sample is made from the 1024 up to it, and none after it.
`streaming.wavenet_stack` says it once, for whole sequences and for streams; the parameters made
here serve both.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._errors import error
from jaxdil.modules._layer import check_layers, new_layer
from jaxdil.streaming._causal import causal_conv
from jaxdil.streaming._stacks import wavenet_stack as streamed_stack

__all__ = ["init_wavenet_stack", "wavenet_stack"]


def init_wavenet_stack(
    key: Array,
    channels: int,
    *,
    layers: int = 10,
    gate_channels: int | None = None,
    skip_channels: int | None = None,
    condition_channels: int = 0,
    kernel: int = 2,
    dtype: DTypeLike = "float32",
) -> list[dict[str, Any]]:
    """Parameters of `wavenet_stack`.

    Args:
      key: of ``jax.random``.
      channels: C, of the residual stream.
      layers: number of layers; 10 for dilations up to 512.
      gate_channels: D, between the gate and the 1x1 convolutions. None: C.
      skip_channels: Q, of the skip output. None: C.
      condition_channels: H, of what the stack is conditioned on; 0: nothing.
      kernel: taps.
      dtype: of the parameters.

    Returns:
      For each layer {"gated": layer (K, C, 2 D), filter first and gate second, "residual": layer
      (1, D, C), "skip": layer (1, D, Q)}, and "condition": {"w": (1, H, 2 D)} if H > 0; a layer is
      {"w", "b"}.

    Raises:
      ValueError: for sizes below 1.
      TypeError: for integers that are not.

    Source: van den Oord et al., WaveNet, arXiv:1609.03499.

    >>> import jax
    >>> params = init_wavenet_stack(jax.random.key(0), 8, skip_channels=16)
    >>> len(params), params[0]["gated"]["w"].shape, params[0]["skip"]["w"].shape
    (10, (2, 8, 16), (1, 8, 16))
    """
    where = "init_wavenet_stack"
    layers = _arguments.integer(where, "layers", layers, least=1)
    wide = channels if gate_channels is None else gate_channels
    aside = channels if skip_channels is None else skip_channels
    options: dict[str, Any] = {"rank": 1, "dtype": dtype}

    def layer(key: Array) -> dict[str, Any]:
        first, second, third, fourth = jax.random.split(key, 4)
        made = {
            "gated": new_layer(where, first, channels, 2 * wide, kernel, **options),
            "residual": new_layer(where, second, wide, channels, 1, **options),
            "skip": new_layer(where, third, wide, aside, 1, **options),
        }
        if condition_channels:
            sizes = condition_channels, 2 * wide
            made["condition"] = new_layer(where, fourth, *sizes, 1, bias=False, **options)
        return made

    return [layer(k) for k in jax.random.split(key, layers)]


def wavenet_stack(
    params: Sequence[Mapping[str, Any]],
    x: Num[Array, "N T C"],
    *,
    dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    condition: Num[Array, "N #T H"] | None = None,
    method: str = "auto",
) -> tuple[Num[Array, "N T C"], Num[Array, "N T Q"]]:
    """Causal gated convolutions; what they pass on, and what they put aside.

    ``z = tanh(wf * x + vf h) sigmoid(wg * x + vg h)``, ``x = x + residual(z)``, ``skip = skip +
    skip(z)``, * being causal at the dilation of the layer.

    Args:
      params: of `init_wavenet_stack`.
      x: input (N, T, C).
      dilations: of each layer.
      condition: h, (N, 1, H) for one that holds throughout (a speaker), (N, T, H) for one of each
        sample.
      method: as in `conv`, for the dilated convolutions; the 1x1 ones are always chosen.

    Returns:
      (x (N, T, C), skip (N, T, Q)): the first goes into the next stack; the sum of the second over
      all stacks goes through relu, 1x1, relu, 1x1 to the logits.

    Raises:
      ValueError: as `conv`, if dilations do not fit params, and if there is a condition and no
        parameters for it, or the reverse.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N T D (2 K C + C + Q)`` operations a layer.

    Source: van den Oord et al., WaveNet, arXiv:1609.03499, equations 2 and 3 and figure 4.

    >>> import jax, jax.numpy as jnp
    >>> params = init_wavenet_stack(jax.random.key(0), 8, layers=3, skip_channels=16)
    >>> x, skip = wavenet_stack(params, jnp.ones((1, 20, 8)), dilations=(1, 2, 4))
    >>> x.shape, skip.shape
    ((1, 20, 8), (1, 20, 16))
    """
    where = "wavenet_stack"
    rates = check_layers(where, params, dilations, "dilations")
    for layer in params:
        if ("condition" in layer) != (condition is not None):
            lacks = "params hold no layer for it" if condition is not None else "got None"
            what = f"condition and its parameters must come together, but {lacks}"
            hint = "init_wavenet_stack makes them with condition_channels=H."
            raise ValueError(error(where, what, hint))
    conv = functools.partial(causal_conv, method=method)
    return streamed_stack(conv, params, x, dilations=rates, condition=condition)
