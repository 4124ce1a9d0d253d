"""The convolution: arguments checked, made lax's, and bound to conv_p.

    y[n, p, o] = sum_{t, i}  x[n, s p + d t - lo, g I + i]  w[t, i, o]        g = o // (O / G)

Nothing is computed here. How it is computed is the method's business (``jaxdil._methods``).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments, _window
from jaxdil._arguments import DataFormat, Ints, Padding
from jaxdil._dispatch import check_pin
from jaxdil._primitive import convolution

__all__ = ["bind", "conv", "conv_general_dilated"]


def conv(
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Dilated, strided, grouped convolution over any number of spatial axes.

    ``y[n, p, o] = sum_{t, i} x[n, s p + d t - lo, g I + i] w[t, i, o]``, with ``g = o // (O /
    groups)``: cross-correlation, as everywhere in the field. Stride and dilation may both exceed 1,
    each axis for itself, and mean what ``lax``, PyTorch and ``tf.nn.conv2d`` mean.

    Args:
      x: input (N, *S, C); without N too. With the layout in letters (``data_format="NHWC"``) any
        number of batch axes may stand in place of N.
      w: kernel (*K, I, O) with I = C / groups.
      stride: samples between neighbouring outputs, >= 1.
      dilation: samples between neighbouring taps of the kernel (the rate), >= 1.
      input_dilation: spacing of the samples of x; values > 1 insert zeros between them, as a
        transposed convolution does.
      padding: samples added before and after: "VALID" (none), "SAME" (ceil(n / stride) outputs, an
        odd sample at the end), "SAME_LOWER" (at the start), "CAUSAL" (all at the start, so that no
        output reads ahead), "FULL" (every overlap), an int, or one entry an axis, each a name, an
        int or a pair (before, after). Negative entries crop. Strings in any case.
      groups: number of blocks of channels convolved separately; divides C and O.
      data_format: order of the axes of x and y: "channels_last" (the default), "channels_first",
        letters ("NHWC", "NCHW", "NWC", ...), or three strings as for ``lax`` (then w is in the
        given order too).
      precision: as in ``lax.conv_general_dilated``.
      preferred_element_type: dtype to accumulate in and return, as in ``lax``.
      method: "auto" (the fastest known), or the name of a formulation: "xla", "taps", "phases",
        "correlate", "space_to_batch". A pinned method serves or raises; with " or auto" after its
        name it serves or leaves the choice open. Its derivatives take the same method where it can
        serve them.

    Returns:
      y (N, *P, O), P = floor((n_eff + lo + hi - k_eff) / stride) + 1 on each axis, with
      k_eff = dilation (k - 1) + 1 and n_eff = input_dilation (n - 1) + 1.

    Raises:
      ValueError: if sizes do not fit: a kernel larger than the padded input (never an empty
        result), channels that do not match, a wrong number of axes, a stride or dilation below 1.
      TypeError: for integers that are not, arrays that are not, and two dtypes at once.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(P) prod(K) I O`` floating-point operations.

    Source: Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions,
      arXiv:1511.07122.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(7.0).reshape(1, 7, 1)
    >>> w = jnp.ones((3, 1, 1))
    >>> jaxdil.conv(x, w, dilation=2, padding="VALID").ravel()
    Array([ 6.,  9., 12.], dtype=float32)
    """
    where = "conv"
    _arguments.check_arrays(where, x=x, w=w)
    return bind(
        where,
        x,
        w,
        stride=stride,
        dilation=dilation,
        input_dilation=input_dilation,
        padding=padding,
        groups=groups,
        data_format=data_format,
        precision=precision,
        preferred_element_type=preferred_element_type,
        method=method,
    )


def conv_general_dilated(
    lhs: Num[Array, "..."],
    rhs: Num[Array, "..."],
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
    *,
    method: str = "auto",
) -> Num[Array, "..."]:
    """``lax.conv_general_dilated``, argument for argument, by the fastest known method.

    It can be put wherever lax's function stands, such as the ``conv_general_dilated=`` field of
    Flax's layers. It accepts, returns and refuses what lax does, an empty result included; the
    stricter checks belong to `conv`.

    Args:
      lhs: input, axes in the order of dimension_numbers (NCHW if None).
      rhs: kernel (OIHW if None).
      window_strides: stride of each spatial axis.
      padding: "SAME", "SAME_LOWER", "VALID" or a pair for each axis.
      lhs_dilation: dilation of the input.
      rhs_dilation: dilation of the kernel.
      dimension_numbers: order of the axes of lhs, rhs and the result.
      feature_group_count: groups of channels.
      batch_group_count: groups of the batch.
      precision: as in lax.
      preferred_element_type: as in lax.
      out_sharding: as in lax.
      method: as in `conv`.

    Returns:
      What lax returns.

    Raises:
      ValueError: what lax raises, and for an unknown method.
      TypeError: what lax raises.
      MethodError: if a pinned method cannot serve.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 2, 8, 8)), jnp.ones((4, 2, 3, 3))
    >>> jaxdil.conv_general_dilated(x, w, (1, 1), "SAME", rhs_dilation=(2, 2)).shape
    (1, 4, 8, 8)
    """
    check_pin("conv_general_dilated", method)
    return convolution(
        lhs,
        rhs,
        method=method,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )


def bind(
    where: str,
    x: jax.Array,
    w: jax.Array,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    input_dilation: Any = 1,
    padding: Any,
    groups: int = 1,
    data_format: Any = None,
    precision: Any = None,
    preferred_element_type: Any = None,
    method: str = "auto",
) -> jax.Array:
    """What every convolution of this package does: check its arguments and bind conv_p."""
    check_pin(where, method)
    layout = _arguments.layout(where, x.shape, w.shape, data_format)
    x = layout.merge(x)
    window = _window.forward(
        where,
        layout,
        x.shape,
        w.shape,
        stride=stride,
        dilation=dilation,
        input_dilation=input_dilation,
        padding=padding,
        groups=groups,
    )
    y = convolution(
        x,
        jnp.asarray(w),
        method=method,
        window_strides=window.stride,
        padding=window.padding,
        lhs_dilation=window.input_dilation,
        rhs_dilation=window.dilation,
        dimension_numbers=layout.numbers,
        feature_group_count=window.groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return layout.restore(y)
