"""The transposed convolutions of tf.nn: adjoints of its convolutions, their output size named.

    y[s p + r t - lo, o] += x[p, i] filters[t, o, i]

With a stride s several sizes have a convolution of the same size, so TensorFlow asks for the one
meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Num

from jaxdil import _arguments as _own
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil._transpose import conv_transpose as _conv_transpose
from jaxdil.tf import _arguments
from jaxdil.tf._arguments import TfPadding, Window

__all__ = [
    "atrous_conv2d_transpose",
    "conv1d_transpose",
    "conv2d_transpose",
    "conv3d_transpose",
    "conv_transpose",
]


def atrous_conv2d_transpose(
    value: Num[Array, "N H W I"],
    filters: Num[Array, "KH KW J I"],
    output_shape: Sequence[int] | np.ndarray,
    rate: Ints,
    padding: TfPadding,
    name: str | None = None,
) -> Num[Array, "N _ _ _"]:
    """The adjoint of `atrous_conv2d`: ``y[p + rate t - lo, o] += x[p, i] filters[t, o, i]``.

    Args:
      value: input (N, H, W, I).
      filters: kernel (KH, KW, O, I), that of the convolution which this transposes.
      output_shape: (N, H', W', O), or (H', W'): H' = H for "SAME", H + rate (KH - 1) for "VALID".
      rate: samples of the output between neighbouring taps, >= 1.
      padding: that of the convolution: "SAME", "VALID", or a pair for each axis.
      name: not used.

    Returns:
      y (N, H', W', O).

    Raises:
      ValueError: for an output_shape that cannot be, a rate below 1, channels that do not match.
      TypeError: for integers that are not, two dtypes at once.

    Twin of tf.nn.atrous_conv2d_transpose, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 2, 3))
    >>> atrous_conv2d_transpose(x, w, output_shape=(1, 9, 9, 2), rate=2, padding="VALID").shape
    (1, 9, 9, 2)
    """
    where = "tf.atrous_conv2d_transpose"
    _arguments.ranks(where, 2, batches=False, value=value, filters=filters)
    window = _arguments.window(where, 2, dilations=rate, padding=padding, dilation_name="rate")
    return _transpose(where, window, value, filters, output_shape, "value")


def conv1d_transpose(
    input: Num[Array, "N _ _"],
    filters: Num[Array, "K J I"],
    output_shape: Sequence[int] | np.ndarray,
    strides: Ints,
    padding: TfPadding = "SAME",
    data_format: str | None = "NWC",
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "N _ _"]:
    """The adjoint of `conv1d`: ``y[stride p + dilation t - lo, o] += x[p, i] filters[t, o, i]``.

    Args:
      input: input (N, W, I), or (N, I, W).
      filters: kernel (K, O / groups, I), that of the convolution which this transposes.
      output_shape: shape of the result in the order of data_format, or its one spatial size: any
        from which the convolution makes W samples.
      strides: an int, or a list of 1 or 3.
      padding: that of the convolution: "SAME", "VALID", or a pair for each axis.
      data_format: "NWC" (also None) or "NCW".
      dilations: as strides; None means 1. (TensorFlow 2.21 has no dilated ones on a CPU.)
      name: not used.

    Returns:
      y (N, W', O), or (N, O, W').

    Raises:
      ValueError: as `atrous_conv2d_transpose`.
      TypeError: as `atrous_conv2d_transpose`.

    Twin of tf.nn.conv1d_transpose, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 3, 1)), jnp.ones((3, 1, 1))
    >>> conv1d_transpose(x, w, output_shape=(1, 5, 1), strides=2).ravel()
    Array([1., 2., 1., 2., 1.], dtype=float32)
    >>> conv1d_transpose(x, w, output_shape=(1, 6, 1), strides=2).ravel()
    Array([1., 1., 2., 1., 2., 1.], dtype=float32)
    """
    where = "tf.conv1d_transpose"
    return _conv_nd(
        where, 1, input, filters, output_shape, strides, padding, data_format, dilations
    )


def conv2d_transpose(
    input: Num[Array, "N _ _ _"],
    filters: Num[Array, "KH KW J I"],
    output_shape: Sequence[int] | np.ndarray,
    strides: Ints,
    padding: TfPadding = "SAME",
    data_format: str | None = "NHWC",
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "N _ _ _"]:
    """The adjoint of `conv2d`: `conv1d_transpose`'s formula on both axes.

    Args:
      input: input (N, H, W, I), or (N, I, H, W).
      filters: kernel (KH, KW, O / groups, I), that of the convolution which this transposes.
      output_shape: shape of the result in the order of data_format, or its two spatial sizes.
      strides: an int, or a list of 1, 2 or 4.
      padding: that of the convolution: "SAME", "VALID", or a pair for each axis.
      data_format: "NHWC" (also None) or "NCHW".
      dilations: as strides; None means 1. (TensorFlow 2.21 has no dilated ones on a CPU.)
      name: not used.

    Returns:
      y (N, H', W', O), or (N, O, H', W').

    Raises:
      ValueError: as `atrous_conv2d_transpose`.
      TypeError: as `atrous_conv2d_transpose`.

    Twin of tf.nn.conv2d_transpose, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 2, 3))
    >>> conv2d_transpose(x, w, output_shape=(1, 10, 9, 2), strides=2).shape
    (1, 10, 9, 2)
    """
    where = "tf.conv2d_transpose"
    return _conv_nd(
        where, 2, input, filters, output_shape, strides, padding, data_format, dilations
    )


def conv3d_transpose(
    input: Num[Array, "N _ _ _ _"],
    filters: Num[Array, "KD KH KW J I"],
    output_shape: Sequence[int] | np.ndarray,
    strides: Ints,
    padding: TfPadding = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "N _ _ _ _"]:
    """The adjoint of `conv3d`: `conv1d_transpose`'s formula on each axis.

    Args:
      input: input (N, D, H, W, I), or (N, I, D, H, W).
      filters: kernel (KD, KH, KW, O / groups, I), that of the convolution which this transposes.
      output_shape: shape of the result in the order of data_format, or its three spatial sizes.
      strides: an int, or a list of 1, 3 or 5.
      padding: that of the convolution: "SAME", "VALID", or a pair for each axis.
      data_format: "NDHWC" (also None) or "NCDHW".
      dilations: as strides; None means 1. (TensorFlow 2.21 has no dilated ones on a CPU.)
      name: not used.

    Returns:
      y (N, D', H', W', O), or (N, O, D', H', W').

    Raises:
      ValueError: as `atrous_conv2d_transpose`.
      TypeError: as `atrous_conv2d_transpose`.

    Twin of tf.nn.conv3d_transpose, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 2, 3, 4, 3)), jnp.ones((3, 3, 3, 2, 3))
    >>> conv3d_transpose(x, w, output_shape=(1, 4, 6, 8, 2), strides=2).shape
    (1, 4, 6, 8, 2)
    """
    where = "tf.conv3d_transpose"
    return _conv_nd(
        where, 3, input, filters, output_shape, strides, padding, data_format, dilations
    )


def conv_transpose(
    input: Num[Array, "N ..."],
    filters: Num[Array, "... J I"],
    output_shape: Sequence[int] | np.ndarray,
    strides: Ints,
    padding: TfPadding = "SAME",
    data_format: str | None = None,
    dilations: Ints | None = None,
    name: str | None = None,
) -> Num[Array, "N ..."]:
    """`conv1d_transpose`, `conv2d_transpose` or `conv3d_transpose`, by the length of output_shape.

    Args:
      input: input (N, *S, I), or (N, I, *S), with 1 to 3 spatial axes.
      filters: kernel (*K, O / groups, I), that of the convolution which this transposes.
      output_shape: shape of the result in the order of data_format.
      strides: an int, or a list with an entry for each spatial axis, or for each axis.
      padding: that of the convolution: "SAME", "VALID", or a pair for each axis.
      data_format: "NWC", "NHWC" or "NDHWC" (None), or "NCW", "NCHW" or "NCDHW".
      dilations: as strides; None means 1.
      name: not used.

    Returns:
      y (N, *S', O), or (N, O, *S').

    Raises:
      ValueError: as `atrous_conv2d_transpose`.
      TypeError: as `atrous_conv2d_transpose`.

    Twin of tf.nn.conv_transpose, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 2, 3))
    >>> conv_transpose(x, w, output_shape=(1, 10, 9, 2), strides=2).shape
    (1, 10, 9, 2)
    """
    where = "tf.conv_transpose"
    if not _arguments.listed(output_shape) or len(output_shape) not in (3, 4, 5):
        what = "output_shape must be a shape of 3, 4 or 5 sizes, batch and channels included"
        raise ValueError(error(where, f"{what}, got {output_shape!r}"))
    rank = len(output_shape) - 2
    return _conv_nd(
        where, rank, input, filters, output_shape, strides, padding, data_format, dilations
    )


def _conv_nd(
    where: str,
    rank: int,
    x: jax.Array,
    w: jax.Array,
    output_shape: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
) -> jax.Array:
    _arguments.ranks(where, rank, batches=False, input=x, filters=w)
    window = _arguments.window(
        where, rank, strides=strides, dilations=dilations, padding=padding, data_format=data_format
    )
    return _transpose(where, window, x, w, output_shape, "input")


def _transpose(
    where: str, window: Window, x: jax.Array, w: jax.Array, output_shape: Any, x_name: str
) -> jax.Array:
    *kernel, each, inner = w.shape
    channels = window.channels(x.shape)
    if inner != channels:
        what = f"filters must be (*K, O, I) with I = {channels}, the channels of {x_name}"
        more = "Output channels come before input channels in a transposed convolution."
        raise ValueError(error(where, f"{what}, got shape {w.shape}", more))
    size, outer = _output(where, window, x.shape, output_shape, each)
    named = window.padding if not isinstance(window.padding, str) else [window.padding] * len(size)
    per_axis = zip(
        size, window.spatial(x.shape), kernel, window.stride, window.dilation, named, strict=True
    )
    for axis, (o, n, k, s, d, pad) in enumerate(per_axis):
        valid = _arguments.transposed_sizes(n, k, s, d, pad)
        if o not in valid:
            *_, last = valid or (0,)
            span = f"{valid.start}" if valid.start == last else f"{valid.start} to {last}"
            what = f"output_shape must be {span} on spatial axis {axis}, got {o}"
            rule = f"convolution of {k} taps, stride {s}, dilation {d} and padding {pad!r}"
            more = f"Those are the sizes from which a {rule} makes the {n} of {x_name}."
            raise ValueError(error(where, what, more))
    return _conv_transpose(
        x,
        w,
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        output_shape=size,
        groups=_arguments.groups(where, outer, each, x="output_shape", w="filters"),
        data_format=window.data_format,
    )


def _output(
    where: str, window: Window, x_shape: tuple[int, ...], output_shape: Any, each: int
) -> tuple[tuple[int, ...], int]:
    """Spatial sizes and channels of the result; from the spatial sizes alone there is one group."""
    rank = len(window.stride)
    if not _arguments.listed(output_shape) or len(output_shape) not in (rank, rank + 2):
        what = f"output_shape must have {rank + 2} entries, or the {rank} spatial ones"
        raise ValueError(error(where, f"{what}, got {output_shape!r}"))
    sizes = tuple(
        _own.integer(where, f"output_shape[{i}]", n, least=0) for i, n in enumerate(output_shape)
    )
    if len(sizes) == rank:
        return sizes, each
    if sizes[0] != x_shape[0]:
        what = f"output_shape must keep the batch of {x_shape[0]}, got {sizes[0]} in {sizes}"
        raise ValueError(error(where, what))
    return window.spatial(sizes), window.channels(sizes)
