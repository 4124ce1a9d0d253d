"""Convolution as mathematics and signal processing mean it: with the kernel turned around.

    y[n, p, o] = sum_{t, i}  x[n, s p + d (K - 1 - t) - lo, g I + i]  w[t, i, o]

What this field calls convolution is correlation; where w was made for the other, this is it.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments
from jaxdil._arguments import DataFormat, Ints, Padding
from jaxdil._conv import bind

__all__ = ["convolve"]


def convolve(
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    groups: int | None = 1,
    bias: Num[Array, " O"] | None = None,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """`conv` with the kernel turned around: the convolution of mathematics and of filters.

    ``y[n, p, o] = sum_{t, i} x[n, s p + d (K - 1 - t) - lo, g I + i] w[t, i, o]`` on each axis.
    Padding "FULL" gives what ``numpy.convolve`` and ``scipy.signal.convolve`` give; "SAME_LOWER" is
    what the latter calls ``mode="same"``, "VALID" its ``mode="valid"`` for a kernel no larger than
    x. "CAUSAL" is a filter with the impulse response w, ``y[p] = sum_t x[p - d t] w[t]``:
    ``scipy.signal.lfilter(w, 1, x)``.

    Args:
      x: input (N, *S, C), as in `conv`.
      w: kernel (*K, I, O) with I = C / groups.
      stride: samples between neighbouring outputs, >= 1.
      dilation: samples between neighbouring taps, >= 1.
      padding: as in `conv`.
      padding_mode: as in `conv`.
      groups: as in `conv`.
      bias: as in `conv`.
      data_format: as in `conv`.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.
      method: as in `conv`.

    Returns:
      y (N, *P, O), of the shape of `conv`'s.

    Raises:
      ValueError: as `conv`.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: that of `conv`.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.asarray([1, 2, 3]).reshape(1, 3, 1), jnp.asarray([1, 10, 100]).reshape(3, 1, 1)
    >>> jaxdil.convolve(x, w, padding="FULL").ravel()
    Array([  1,  12, 123, 230, 300], dtype=int32)
    >>> jaxdil.convolve(x, w, padding="CAUSAL").ravel()
    Array([  1,  12, 123], dtype=int32)
    """
    where = "convolve"
    _arguments.check_arrays(where, x=x, w=w)
    layout = _arguments.layout(where, x.shape, w.shape, data_format)
    return bind(
        where,
        x,
        jnp.flip(w, layout.numbers.rhs_spec[2:]),
        stride=stride,
        dilation=dilation,
        padding=padding,
        padding_mode=padding_mode,
        groups=groups,
        bias=bias,
        data_format=data_format,
        precision=precision,
        preferred_element_type=preferred_element_type,
        method=method,
    )
