"""The context module: dilated convolutions that widen the view and keep the resolution.

    x[i + 1] = relu(conv(x[i], w[i], dilation=d[i]) + b[i])        d = 1 1 2 4 8 16 1, then a 1x1

Its fields grow as 3 5 9 17 33 65 67 67 (arXiv:1511.07122, table 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import Padding
from jaxdil._errors import error
from jaxdil.modules._layer import Activation, Layer, check_layers, unit

__all__ = ["context_module", "init_context_module"]

# Output channels of each layer, in units of C.
WIDTHS = {"basic": (1, 1, 1, 1, 1, 1, 1, 1), "large": (2, 2, 4, 8, 16, 32, 32, 1)}


def init_context_module(
    key: Array,
    channels: int,
    *,
    size: str = "basic",
    noise: float | None = None,
    rank: int = 2,
    dtype: DTypeLike = "float32",
) -> list[dict[str, Any]]:
    """Parameters of a `context_module` that passes its input through: the identity initialiser.

    ``w[t, a, b] = C / c'`` at the middle tap where ``a C // c == b C // c'`` for c channels in and
    c' out, and noise elsewhere. An input that is not negative comes out as it went in, so the
    module can be put behind a trained network without disturbing it.

    Args:
      key: of ``jax.random``; draws the noise.
      channels: C, at the input and at the output.
      size: "basic", C channels in every layer and 64 C^2 weights in 2-D, or "large", with 2 2 4 8
        16 32 32 1 times C.
      noise: standard deviation of the noise, in units of the C / c' beside it, >= 0. None: 0 for
        "basic"; 0.01 for "large", where it tells apart the channels that are copies of one.
      rank: number of spatial axes.
      dtype: of the parameters.

    Returns:
      Eight layers {"w": (*K, c, c'), "b": (c',)}, K = 3 but for the last, which is 1.

    Raises:
      ValueError: for another size, channels below 1, and noise below 0.
      TypeError: for integers that are not.

    Source: Yu and Koltun, arXiv:1511.07122, equation 5 and table 1.

    >>> import jax
    >>> params = init_context_module(jax.random.key(0), 2, size="large", noise=0.0)
    >>> [layer["w"].shape[-1] for layer in params]
    [4, 4, 8, 16, 32, 64, 64, 2]
    """
    where = "init_context_module"
    channels = _arguments.integer(where, "channels", channels, least=1)
    rank = _arguments.integer(where, "rank", rank, least=1)
    if size not in WIDTHS:
        raise ValueError(error(where, f"size must be 'basic' or 'large', got {size!r}"))
    spread = (0.0 if size == "basic" else 0.01) if noise is None else noise
    if not spread >= 0:
        raise ValueError(error(where, f"noise must be >= 0, got {noise}"))
    widths = [channels, *(channels * width for width in WIDTHS[size])]
    keys = jax.random.split(key, len(WIDTHS[size]))
    taps = (3,) * 7 + (1,)
    return [
        _identity(k, (t,) * rank, channels, widths[i], widths[i + 1], spread, dtype)
        for i, (k, t) in enumerate(zip(keys, taps, strict=True))
    ]


def context_module(
    params: Sequence[Layer],
    x: Num[Array, "..."],
    *,
    dilations: Sequence[int] = (1, 1, 2, 4, 8, 16, 1, 1),
    activation: Activation = jax.nn.relu,
    padding: Padding = "SAME",
    method: str = "auto",
) -> Num[Array, "..."]:
    """Context from a field of 67 samples an axis, at full resolution.

    ``x[i + 1] = activation(conv(x[i], w[i], dilation=d[i]) + b[i])``; the last layer has no
    activation.

    Args:
      params: of `init_context_module`, a layer an entry.
      x: feature maps (N, *S, C); without N too.
      dilations: of each layer.
      activation: after every layer but the last. In the paper a truncation, max(., 0).
      padding: of each layer, as in `conv`. "VALID" takes 33 samples off each side: pad x by the
        data around it, or by reflection as the paper does, and no zero enters.
      method: as in `conv`; the last layer, which is 1x1, is always chosen.

    Returns:
      y (N, *S, C), with "VALID" (N, *(S - 66), C).

    Raises:
      ValueError: as `conv`, and if dilations do not fit params.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``128 N prod(S) C^2`` floating-point operations in 2-D for the basic form.

    Source: Yu and Koltun, arXiv:1511.07122.

    >>> import jax, jax.numpy as jnp
    >>> params = init_context_module(jax.random.key(0), 2)
    >>> x = jnp.arange(18.0).reshape(1, 3, 3, 2)
    >>> bool((context_module(params, x) == x).all())
    True
    """
    where = "context_module"
    rates = check_layers(where, params, dilations, "dilations")
    for i, (layer, rate) in enumerate(zip(params, rates, strict=True)):
        if i == len(params) - 1:
            return unit(where, layer, x, dilation=rate, padding=padding)
        x = unit(where, layer, x, dilation=rate, padding=padding, method=method)
        x = activation(x)
    return x


def _identity(
    key: jax.Array,
    taps: tuple[int, ...],
    channels: int,
    inputs: int,
    outputs: int,
    noise: float,
    dtype: Any,
) -> dict[str, jax.Array]:
    """A layer whose outputs are copies of C channels, each C / outputs of the original."""
    value = channels / outputs
    same = np.equal.outer(
        np.arange(inputs) * channels // inputs, np.arange(outputs) * channels // outputs
    )
    passes = np.zeros((*taps, inputs, outputs), bool)
    passes[tuple(k // 2 for k in taps)] = same
    w = jnp.asarray(passes * value, dtype)
    if noise:
        drawn = jax.random.normal(key, passes.shape, dtype) * (noise * value)
        w = jnp.where(passes, w, drawn)
    return {"w": w, "b": jnp.zeros(outputs, dtype)}
