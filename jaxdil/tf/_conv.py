"""The convolutions of tf.nn: jaxdil.conv, called TensorFlow's way.

    y[p, o] = sum_{t, c} x[s p + r t - lo, c] filters[t, c, o]

Stride s and rate r together mean what they mean everywhere. The kernel's channels tell the groups.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Num

from jaxdil import _arguments as _own
from jaxdil._arguments import Ints
from jaxdil._conv import conv
from jaxdil._errors import error
from jaxdil.tf import _arguments
from jaxdil.tf._arguments import TfPadding, Window

__all__ = [
    "atrous_conv2d",
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
]


def atrous_conv2d(
    value: Num[Array, "..."],
    filters: Num[Array, "KH KW I O"],
    rate: Ints,
    padding: TfPadding,
    name: str | None = None,
) -> Num[Array, "..."]:
    """Dilated convolution: ``y[p, o] = sum_{t, c} x[p + rate t - lo, c] filters[t, c, o]``, in 2-D.

    Args:
      value: input (N, H, W, C); any number of batch axes, at least one.
      filters: kernel (KH, KW, C, O).
      rate: samples between neighbouring taps, >= 1; a pair gives each axis its own.
      padding: "SAME", "VALID", or [[0, 0], [top, bottom], [left, right], [0, 0]], at any rate
        (TensorFlow refuses the list at rate 1).
      name: not used.

    Returns:
      y (N, H, W, O) for "SAME", (N, H - rate (KH - 1), W - rate (KW - 1), O) for "VALID".

    Raises:
      ValueError: if the dilated kernel is larger than the input (TensorFlow 2.21 returns memory
        that nobody wrote), for a rate below 1, wrong ranks, channels that do not match.
      TypeError: for a rate that is no integer (TensorFlow truncates it), two dtypes at once.

    Twin of tf.nn.atrous_conv2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 12, 12, 1)), jnp.ones((2, 4, 1, 1))
    >>> atrous_conv2d(x, w, rate=3, padding="VALID").shape
    (1, 9, 3, 1)
    """
    where = "tf.atrous_conv2d"
    _arguments.ranks(where, 2, value=value, filters=filters)
    window = _arguments.window(where, 2, dilations=rate, padding=padding, dilation_name="rate")
    return _dense(where, window, value, filters, x_name="value")


def conv1d(
    input: Num[Array, "..."],
    filters: Num[Array, "K I O"],
    stride: Ints,
    padding: TfPadding,
    data_format: str | None = "NWC",
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "..."]:
    """Convolution: ``y[p, o] = sum_{t, c} x[stride p + dilation t - lo, c] filters[t, c, o]``.

    Args:
      input: input (N, W, C), or (N, C, W); any number of batch axes, at least one.
      filters: kernel (K, C / groups, O); its channels tell the number of groups.
      stride: an int, or a list of 1 or 3.
      padding: "SAME", "VALID", or a pair for each axis.
      data_format: "NWC" (also None) or "NCW".
      dilations: an int, or a list of 1 or 3; None means 1. Together with stride: the uniform
        answer.
      name: not used.

    Returns:
      y (N, P, O), or (N, O, P).

    Raises:
      ValueError: as `atrous_conv2d`.
      TypeError: as `atrous_conv2d`.

    Twin of tf.nn.conv1d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.arange(1.0, 6.0).reshape(1, 5, 1), jnp.ones((3, 1, 1))
    >>> conv1d(x, w, stride=2, padding="SAME").ravel()
    Array([3., 9., 9.], dtype=float32)
    """
    return _conv_nd(
        "tf.conv1d", 1, input, filters, stride, padding, data_format, dilations, "stride"
    )


def conv2d(
    input: Num[Array, "..."],
    filters: Num[Array, "KH KW I O"],
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NHWC",
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "..."]:
    """Convolution over two axes: `conv1d`'s formula on both.

    Args:
      input: input (N, H, W, C), or (N, C, H, W); any number of batch axes, at least one.
      filters: kernel (KH, KW, C / groups, O); its channels tell the number of groups.
      strides: an int, or a list of 1, 2 or 4 in the order of data_format.
      padding: "SAME", "VALID", or a pair for each axis in the order of data_format, such as
        [[0, 0], [top, bottom], [left, right], [0, 0]].
      data_format: "NHWC" (also None) or "NCHW".
      dilations: as strides; None means 1. Both above 1: the uniform answer, as in TensorFlow.
      name: not used.

    Returns:
      y (N, P, Q, O), or (N, O, P, Q).

    Raises:
      ValueError: as `atrous_conv2d`, and for a single image without a batch axis (on which
        TensorFlow 2.21 ends the process).
      TypeError: as `atrous_conv2d`.

    Twin of tf.nn.conv2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 24, 24, 3)), jnp.ones((4, 4, 3, 4))
    >>> conv2d(x, w, strides=[1, 4, 4, 1], padding="VALID", dilations=[3, 3]).shape
    (1, 4, 4, 4)
    """
    return _conv_nd("tf.conv2d", 2, input, filters, strides, padding, data_format, dilations)


def conv3d(
    input: Num[Array, "..."],
    filters: Num[Array, "KD KH KW I O"],
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NDHWC",
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "..."]:
    """Convolution over three axes: `conv1d`'s formula on each.

    Args:
      input: input (N, D, H, W, C), or (N, C, D, H, W); any number of batch axes, at least one.
      filters: kernel (KD, KH, KW, C / groups, O); its channels tell the number of groups.
      strides: an int, or a list of 1, 3 or 5 in the order of data_format.
      padding: "SAME", "VALID", or a pair for each axis.
      data_format: "NDHWC" (also None) or "NCDHW".
      dilations: as strides; None means 1. (TensorFlow 2.21 has no dilated conv3d on a CPU.)
      name: not used.

    Returns:
      y (N, P, Q, R, O), or (N, O, P, Q, R).

    Raises:
      ValueError: as `atrous_conv2d`.
      TypeError: as `atrous_conv2d`.

    Twin of tf.nn.conv3d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 5, 6, 7, 2)), jnp.ones((3, 3, 3, 2, 4))
    >>> conv3d(x, w, strides=[1, 1, 2, 2, 1], padding="SAME").shape
    (1, 5, 3, 4, 4)
    """
    return _conv_nd("tf.conv3d", 3, input, filters, strides, padding, data_format, dilations)


def convolution(
    input: Num[Array, "..."],
    filters: Num[Array, "..."],
    strides: Ints | None = None,
    padding: TfPadding = "VALID",
    data_format: str | None = None,
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "..."]:
    """Convolution over one, two or three axes, as many as filters has: `conv1d`'s formula on each.

    Args:
      input: input (N, *S, C), or (N, C, *S); several batch axes if data_format is given.
      filters: kernel (*K, C / groups, O); its channels tell the number of groups.
      strides: an int, or a list of 1, N or N + 2; None means 1.
      padding: "VALID", "SAME", or a pair for each axis.
      data_format: "NWC", "NHWC" or "NDHWC" (None), or "NCW", "NCHW" or "NCDHW".
      dilations: as strides; None means 1.
      name: not used.

    Returns:
      y (N, *P, O), or (N, O, *P).

    Raises:
      ValueError: as `atrous_conv2d`; for strides and dilations above 1 together, as TensorFlow
        does; and where it is left open which axes of input are spatial.
      TypeError: as `atrous_conv2d`.

    Twin of tf.nn.convolution, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 9, 2)), jnp.ones((3, 2, 4))
    >>> convolution(x, w, dilations=2).shape
    (1, 5, 4)
    """
    where = "tf.convolution"
    _own.check_arrays(where, input=input, filters=filters)
    rank = filters.ndim - 2
    if rank not in (1, 2, 3):
        what = f"filters must have 1, 2 or 3 spatial axes, got shape {filters.shape}"
        raise ValueError(error(where, what, "jaxdil.conv takes any number."))
    _arguments.ranks(where, rank, batches=data_format is not None, input=input, filters=filters)
    window = _arguments.window(
        where, rank, strides=strides, dilations=dilations, padding=padding, data_format=data_format
    )
    if max(window.stride) > 1 and max(window.dilation) > 1:
        what = (
            f"strides > 1 and dilations > 1 exclude each other, got {strides!r} and {dilations!r}"
        )
        more = (
            "TensorFlow refuses both together here; jaxdil.conv takes them, and so does tf.conv2d."
        )
        raise ValueError(error(where, what, more))
    return _dense(where, window, input, filters)


def _conv_nd(
    where: str,
    rank: int,
    x: jax.Array,
    w: jax.Array,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    stride_name: str = "strides",
) -> jax.Array:
    _arguments.ranks(where, rank, input=x, filters=w)
    window = _arguments.window(
        where,
        rank,
        strides=strides,
        dilations=dilations,
        padding=padding,
        data_format=data_format,
        stride_name=stride_name,
    )
    return _dense(where, window, x, w)


def _dense(
    where: str,
    window: Window,
    x: jax.Array,
    w: jax.Array,
    x_name: str = "input",
) -> jax.Array:
    channels = window.channels(x.shape)
    count = _arguments.groups(where, channels, w.shape[-2], x=x_name, w="filters")
    window.check(where, x, w.shape, count)
    return conv(
        x,
        w,
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        groups=count,
        data_format=window.data_format,
    )
