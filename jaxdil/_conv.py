"""The convolution: arguments checked, made lax's, and bound to conv_p.

    y[n, p, o] = sum_{t, i}  x[n, s p + d t - lo, g I + i]  w[t, i, o]        g = o // (O / G)

Nothing is computed here. How it is computed is the method's business (``jaxdil._methods``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num, Shaped

from jaxdil import _arguments, _bias, _pad, _window
from jaxdil._arguments import DataFormat, Ints, Layout, Padding
from jaxdil._dispatch import check_pin
from jaxdil._errors import error
from jaxdil._primitive import convolution
from jaxdil._window import Window

__all__ = ["bind", "check_sharding", "conv", "conv_general_dilated", "padded"]


def conv(
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    groups: int | None = 1,
    bias: Num[Array, " O"] | None = None,
    mask: Shaped[Array, "..."] | None = None,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
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
        output reads ahead), "REVERSE_CAUSAL" (all at the end), "FULL" (every overlap), an int, or a
        function of k_eff that returns (before, after). Or one entry an axis, each of these or a
        pair (before, after): in a sequence, or by letter or number of the axis, as in
        ``{"D": "CAUSAL", "H": "SAME", "W": (0, 1)}``; or TensorFlow's pairs for every axis of x.
        Negative entries crop. Strings in any case.
      padding_mode: what the padding holds: "zeros", "reflect" (x mirrored about its edge samples),
        "replicate" (the edge samples) or "circular" (x again and again).
      groups: number of blocks of channels convolved separately; divides C and O. None: C / I.
      bias: added to every output channel, (O,).
      mask: multiplied onto w; of w's shape, boolean or of w's dtype.
      data_format: order of the axes of x and y: "channels_last" (the default), "channels_first",
        letters ("NHWC", "NCHW", "NWC", ...), or three strings as for ``lax`` (then w is in the
        given order too).
      precision: as in ``lax.conv_general_dilated``.
      preferred_element_type: dtype to accumulate in and return, as in ``lax``.
      out_sharding: as in ``lax.conv_general_dilated``, for explicitly sharded arrays.
      method: "auto" (the fastest known), or the name of a formulation: "xla", "taps", "phases",
        "correlate", "space_to_batch". A pinned method serves or raises; with " or auto" after its
        name it serves or leaves the choice open. Its derivatives take the same method where it can
        serve them.

    Returns:
      y (N, *P, O), P = floor((n_eff + lo + hi - k_eff) / stride) + 1 on each axis, with
      k_eff = dilation (k - 1) + 1 and n_eff = input_dilation (n - 1) + 1.

    Raises:
      ValueError: if sizes do not fit: a kernel larger than the padded input (never an empty
        result), channels that do not match, a wrong number of axes, a stride or dilation below 1,
        a reflection of more samples than there are.
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
        padding_mode=padding_mode,
        groups=groups,
        bias=bias,
        mask=mask,
        data_format=data_format,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
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
    padding_mode: Any = "zeros",
    groups: Any = 1,
    bias: Any = None,
    mask: Any = None,
    data_format: Any = None,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
    method: str = "auto",
) -> jax.Array:
    """What every convolution of this package does: check its arguments and bind conv_p."""
    check_pin(where, method)
    layout = _arguments.layout(where, x.shape, w.shape, data_format)
    check_sharding(where, layout, out_sharding)
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
    channels = layout.window(w.shape)[2]
    _bias.check_bias(where, bias, channels, x.dtype, preferred_element_type)
    w = _bias.masked(where, jnp.asarray(w), mask)
    x, pads = padded(where, x, layout, window, padding_mode)

    def call(x: jax.Array, w: jax.Array, dtype: Any) -> jax.Array:
        return convolution(
            x,
            w,
            method=method,
            window_strides=window.stride,
            padding=pads,
            lhs_dilation=window.input_dilation,
            rhs_dilation=window.dilation,
            dimension_numbers=layout.numbers,
            feature_group_count=window.groups,
            precision=precision,
            preferred_element_type=dtype,
            out_sharding=out_sharding,
        )

    axis, preferred = layout.numbers.out_spec[1], preferred_element_type
    y = _bias.add_bias(call, x, w, bias, axis=axis, preferred=preferred, sums=False)
    return layout.restore(y)


def padded(
    where: str, x: jax.Array, layout: Layout, window: Window, mode: Any
) -> tuple[jax.Array, Sequence[tuple[int, int]]]:
    """The image continued as the mode says, and the zeros that are still to be put around it."""
    mode = _pad.check(where, mode, window.size, window.padding)
    if mode == "zeros":
        return x, window.padding
    if max(window.input_dilation, default=1) > 1:
        raise ValueError(
            error(
                where,
                f"padding_mode={mode!r} continues the samples of x, and input_dilation="
                f"{window.input_dilation} puts zeros between them: it could mean two things",
                "Pad x first, or call jaxdil.conv_transpose.",
            )
        )
    pads = [(0, 0)] * x.ndim
    for axis, pair in zip(layout.numbers.lhs_spec[2:], window.padding, strict=True):
        pads[axis] = pair
    return _pad.pad(x, pads, 0, mode), [(0, 0)] * layout.rank


def check_sharding(where: str, layout: Layout, out_sharding: Any) -> None:
    """Raise if a sharding is given of a result that is yet to be reshaped."""
    if out_sharding is not None and layout.lead is not None and len(layout.lead) != 1:
        raise ValueError(
            error(
                where,
                f"out_sharding is for x with one batch axis, got {len(layout.lead)} of them",
                "Reshape x to one batch axis first.",
            )
        )
