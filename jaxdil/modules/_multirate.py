"""One kernel at several rates: the same weights, shown the same map at several scales.

    y[r, n, p, o] = sum_{t, i}  x[n, s p + rates[r] t - lo, i]  w[t, i, o]

A sum over r is a pyramid with shared weights, a choice of r the branch that fits an object's size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints, Padding
from jaxdil._errors import error
from jaxdil.modules._layer import Layer, Norm, unit
from jaxdil.modules._norm import batch_norm

__all__ = ["multi_rate_conv"]


def multi_rate_conv(
    params: Layer,
    x: Num[Array, "..."],
    *,
    rates: Sequence[int] = (1, 2, 3),
    stride: Ints = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    norm: Norm = batch_norm,
    method: str = "auto",
) -> Num[Array, "..."]:
    """One convolution, run at each of several dilations.

    ``y[r] = conv(x, w, dilation=rates[r]) + b``. The gradient of w is the sum of what the branches
    say, so each kernel learns from objects of every size; a single rate can serve afterwards, as
    TridentNet's middle branch does.

    Args:
      params: of `init_conv_layer`: {"w": (*K, C / groups, O), ...}.
      x: input (N, *S, C); without N too.
      rates: dilations, one or more.
      stride: as in `conv`.
      padding: as in `conv`; one that gives every rate the same size, such as "SAME" or "CAUSAL".
      groups: as in `conv`.
      norm: as in `conv_layer`, where params hold one.
      method: as in `conv`.

    Returns:
      y (R, N, *P, O), R the number of rates.

    Raises:
      ValueError: as `conv`, without rates, and if the rates give different sizes.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: R times that of `conv`.

    Source: Li et al., TridentNet, arXiv:1901.01892.

    >>> import jax, jax.numpy as jnp
    >>> params = jaxdil.modules.init_conv_layer(jax.random.key(0), 8, 8)
    >>> multi_rate_conv(params, jnp.ones((1, 9, 9, 8))).shape
    (3, 1, 9, 9, 8)
    """
    where = "multi_rate_conv"
    if not rates:
        raise ValueError(error(where, f"rates must be one or more dilations, got {rates!r}"))
    dilations = _arguments.integers(where, "rates", rates, len(rates))
    branch = functools.partial(
        unit, where, params, x, stride=stride, padding=padding, groups=groups, norm=norm
    )
    branches = [branch(dilation=d, method=method) for d in dilations]
    shapes = [y.shape for y in branches]
    if len(set(shapes)) > 1:
        what = f"every rate must give the same size, got {shapes} at rates {dilations}"
        hint = "padding='SAME' does; for different sizes call conv_layer once a rate."
        raise ValueError(error(where, what, hint))
    return jnp.stack(branches)
