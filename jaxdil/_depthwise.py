"""Depthwise convolution, a kernel for each channel, and separable convolution, which mixes them.

    y[n, p, c M + m] = sum_t  x[n, s p + d t - lo, c]  w[t, c, m]

A grouped convolution with as many groups as channels; kernels are (*K, C, M) as in TensorFlow.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num, Shaped

from jaxdil import _arguments, _bias, _window
from jaxdil._arguments import DataFormat, Ints, Padding
from jaxdil._conv import bind, check_sharding
from jaxdil._errors import error

__all__ = ["depthwise_conv", "separable_conv"]


def depthwise_conv(
    x: Num[Array, "..."],
    w: Num[Array, "*K C M"],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    bias: Num[Array, " O"] | None = None,
    mask: Shaped[Array, "*K C M"] | None = None,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Convolution of each channel with kernels of its own.

    ``y[n, p, c M + m] = sum_t x[n, s p + d t - lo, c] w[t, c, m]``. Stride and dilation together
    give the uniform answer of ``lax``, PyTorch and Keras; ``tf.nn.depthwise_conv2d`` means
    something else there (``jaxdil.tf.depthwise_conv2d`` has it).

    Args:
      x: input (N, *S, C), as in `conv`.
      w: kernel (*K, C, M), M the channel multiplier.
      stride: samples between neighbouring outputs, >= 1.
      dilation: samples between neighbouring taps, >= 1.
      padding: as in `conv`.
      padding_mode: as in `conv`.
      bias: added to every output channel, (C M,).
      mask: multiplied onto w, in its shape.
      data_format: a name or letters, as in `conv`.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.
      out_sharding: as in `conv`.
      method: as in `conv`.

    Returns:
      y (N, *P, C M).

    Raises:
      ValueError: as `conv`, and if w does not have one entry a channel of x.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(P) prod(K) C M`` floating-point operations, a C-th of a dense kernel's.

    Source: Chollet, Xception, arXiv:1610.02357; Howard et al., MobileNets, arXiv:1704.04861.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 5, 5, 2))
    >>> w = jnp.ones((3, 3, 2, 4))
    >>> jaxdil.depthwise_conv(x, w, stride=2, dilation=2).shape
    (1, 3, 3, 8)
    """
    where = "depthwise_conv"
    _arguments.check_arrays(where, x=x, w=w)
    w, groups = _grouped(where, x, _bias.masked(where, w, mask), data_format)
    return bind(
        where,
        x,
        w,
        stride=stride,
        dilation=dilation,
        padding=padding,
        padding_mode=padding_mode,
        groups=groups,
        bias=bias,
        data_format=data_format,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
        method=method,
    )


def separable_conv(
    x: Num[Array, "..."],
    depthwise_w: Num[Array, "*K C M"],
    pointwise_w: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    bias: Num[Array, " O"] | None = None,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """A depthwise convolution followed by a 1x1 convolution that mixes its channels.

    ``y = sum_q (depthwise_conv(x, depthwise_w))[..., q] pointwise_w[q, o]``.

    Args:
      x: input (N, *S, C), as in `conv`.
      depthwise_w: kernel (*K, C, M).
      pointwise_w: kernel (1, ..., 1, C M, O), or (C M, O).
      stride: of the depthwise part.
      dilation: of the depthwise part.
      padding: of the depthwise part, as in `conv`.
      padding_mode: of the depthwise part, as in `conv`.
      bias: added to every output channel, (O,).
      data_format: a name or letters, as in `conv`.
      precision: as in `conv`.
      preferred_element_type: as in `conv`, for both parts.
      out_sharding: as in `conv`, of the result.
      method: as in `conv`, for the depthwise part; the pointwise one is always chosen.

    Returns:
      y (N, *P, O).

    Raises:
      ValueError: as `depthwise_conv`, and if pointwise_w is not 1x1 or does not take C M channels.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(P) C M (prod(K) + O)`` floating-point operations.

    Source: Chollet, Xception, arXiv:1610.02357.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 5, 5, 2))
    >>> jaxdil.separable_conv(x, jnp.ones((3, 3, 2, 1)), jnp.ones((2, 6))).shape
    (1, 5, 5, 6)
    """
    where = "separable_conv"
    _arguments.check_arrays(where, x=x, depthwise_w=depthwise_w, pointwise_w=pointwise_w)
    w, groups = _grouped(where, x, depthwise_w, data_format)
    rank, mixed = w.ndim - 2, w.shape[-1]
    if pointwise_w.shape not in (
        (mixed, pointwise_w.shape[-1]),
        (*(1,) * rank, mixed, pointwise_w.shape[-1]),
    ):
        raise ValueError(
            error(
                where,
                f"pointwise_w must be ({'1, ' * rank}{mixed}, O) or ({mixed}, O), "
                f"got {pointwise_w.shape}",
                f"depthwise_w {depthwise_w.shape} makes {mixed} channels (C * M) for it to mix.",
            )
        )
    _bias.check_bias(where, bias, pointwise_w.shape[-1], x.dtype, preferred_element_type)
    check_sharding(where, _arguments.layout(where, x.shape, w.shape, data_format), out_sharding)
    y = bind(
        where,
        x,
        w,
        stride=stride,
        dilation=dilation,
        padding=padding,
        padding_mode=padding_mode,
        groups=groups,
        data_format=data_format,
        precision=precision,
        preferred_element_type=preferred_element_type,
        method=method,
    )
    pointwise_w = jnp.reshape(pointwise_w, (*(1,) * rank, mixed, -1)).astype(y.dtype)
    return bind(
        where,
        y,
        pointwise_w,
        data_format=data_format,
        precision=precision,
        padding="VALID",
        bias=bias,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )


def _grouped(where: str, x: jax.Array, w: jax.Array, data_format: Any) -> tuple[jax.Array, int]:
    """A depthwise kernel (*K, C, M) as a grouped one (*K, 1, C M), and the number of groups."""
    if isinstance(data_format, tuple):
        raise ValueError(
            error(
                where,
                f"data_format must be a name or letters, got {data_format!r}",
                "Explicit numbers order a kernel (*K, I, O): call jaxdil.conv with groups=C.",
            )
        )
    layout = _arguments.layout(where, x.shape, w.shape, data_format)
    _window.check_taps(where, layout.window(w.shape)[0])
    axis = layout.numbers.lhs_spec[1] - (layout.rank + 2 - x.ndim)
    if w.shape[-2] != x.shape[axis]:
        lax_order = w.shape[-2] == 1 and w.shape[-1] % max(x.shape[axis], 1) == 0
        raise ValueError(
            error(
                where,
                f"w must be (*K, C, M) with C = {x.shape[axis]}, the channels of x, got {w.shape}",
                f"x has shape {x.shape}; M is the channel multiplier.",
                "w is in lax's order (*K, 1, C * M): reshape it to (*K, C, M)."
                if lax_order
                else "For a dense kernel (*K, I, O) call jaxdil.conv.",
            )
        )
    return jnp.reshape(w, (*w.shape[:-2], 1, -1)), x.shape[axis]
