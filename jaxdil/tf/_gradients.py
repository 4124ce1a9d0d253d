"""The gradients of tf.nn's convolutions, under the names they have there and in TensorFlow 1.

    dx[s p + r t - lo, i] += g[p, o] filter[t, i, o]        ..._backprop_input
    dw[t, i, o] += x[s p + r t - lo, i] g[p, o]             ..._backprop_filter

Strides and dilations together mean the uniform convolution here, for depthwise kernels too: these
belong to TensorFlow's kernels, not to ``tf.nn.depthwise_conv2d``, which steps inside each phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from jaxdil import _arguments as _own
from jaxdil._adjoint import conv_input_grad, conv_kernel_grad
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil.tf import _arguments
from jaxdil.tf._arguments import TfPadding, Window

__all__ = [
    "conv2d_backprop_filter",
    "conv2d_backprop_input",
    "depthwise_conv2d_backprop_filter",
    "depthwise_conv2d_backprop_input",
]


def conv2d_backprop_input(
    input_sizes: Sequence[int] | np.ndarray,
    filter: Num[Array, "KH KW I O"],
    out_backprop: Num[Array, "N _ _ _"],
    strides: Ints,
    padding: TfPadding,
    use_cudnn_on_gpu: bool = True,
    data_format: str | None = "NHWC",
    dilations: Ints | None = (1, 1, 1, 1),
    name: str | None = None,
) -> Num[Array, "N _ _ _"]:
    """Gradient of `conv2d` by its input: ``dx[s p + r t - lo, i] += g[p, o] filter[t, i, o]``.

    Args:
      input_sizes: shape of the input, (N, H, W, C) or (N, C, H, W).
      filter: kernel (KH, KW, C / groups, O).
      out_backprop: gradient of the result, (N, P, Q, O) or (N, O, P, Q).
      strides: those of the convolution, as in `conv2d`.
      padding: "SAME", "VALID", or a pair for each axis.
      use_cudnn_on_gpu: not used.
      data_format: "NHWC" (also None) or "NCHW".
      dilations: those of the convolution, as in `conv2d`.
      name: not used.

    Returns:
      The gradient, of shape ``input_sizes``.

    Raises:
      ValueError: as `conv2d`, and if out_backprop is not of the shape of the result.
      TypeError: as `conv2d`.

    Twin of tf.compat.v1.nn.conv2d_backprop_input, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> g, w = jnp.ones((1, 3, 3, 5)), jnp.ones((3, 3, 2, 5))
    >>> conv2d_backprop_input((1, 6, 6, 2), w, g, strides=2, padding="SAME").shape
    (1, 6, 6, 2)
    """
    where = "tf.conv2d_backprop_input"
    _arguments.ranks(where, 2, batches=False, out_backprop=out_backprop, filter=filter)
    window = _arguments.window(
        where, 2, strides=strides, dilations=dilations, padding=padding, data_format=data_format
    )
    shape = _four(where, "input_sizes", input_sizes)
    groups = _arguments.groups(
        where, window.channels(shape), filter.shape[-2], x="input_sizes", w="filter"
    )
    return _by_input(out_backprop, filter, shape, window, groups)


def conv2d_backprop_filter(
    input: Num[Array, "N _ _ _"],
    filter_sizes: Sequence[int] | np.ndarray,
    out_backprop: Num[Array, "N _ _ _"],
    strides: Ints,
    padding: TfPadding,
    use_cudnn_on_gpu: bool = True,
    data_format: str | None = "NHWC",
    dilations: Ints | None = (1, 1, 1, 1),
    name: str | None = None,
) -> Num[Array, "KH KW I O"]:
    """Gradient of `conv2d` by its kernel: ``dw[t, i, o] = sum_p x[s p + r t - lo, i] g[p, o]``.

    Args:
      input: input (N, H, W, C), or (N, C, H, W).
      filter_sizes: shape of the kernel, (KH, KW, C / groups, O).
      out_backprop: gradient of the result, (N, P, Q, O) or (N, O, P, Q).
      strides: those of the convolution, as in `conv2d`.
      padding: "SAME", "VALID", or a pair for each axis.
      use_cudnn_on_gpu: not used.
      data_format: "NHWC" (also None) or "NCHW".
      dilations: those of the convolution, as in `conv2d`.
      name: not used.

    Returns:
      The gradient, of shape ``filter_sizes``.

    Raises:
      ValueError: as `conv2d`, and if out_backprop is not of the shape of the result.
      TypeError: as `conv2d`.

    Twin of tf.compat.v1.nn.conv2d_backprop_filter, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, g = jnp.ones((1, 6, 6, 2)), jnp.ones((1, 3, 3, 5))
    >>> conv2d_backprop_filter(x, (3, 3, 2, 5), g, strides=2, padding="SAME").shape
    (3, 3, 2, 5)
    """
    where = "tf.conv2d_backprop_filter"
    _arguments.ranks(where, 2, batches=False, input=input, out_backprop=out_backprop)
    window = _arguments.window(
        where, 2, strides=strides, dilations=dilations, padding=padding, data_format=data_format
    )
    shape = _four(where, "filter_sizes", filter_sizes)
    groups = _arguments.groups(
        where, window.channels(input.shape), shape[-2], x="input", w="filter_sizes"
    )
    return _by_filter(input, out_backprop, shape, window, groups)


def depthwise_conv2d_backprop_input(
    input_sizes: Sequence[int] | np.ndarray,
    filter: Num[Array, "KH KW C M"],
    out_backprop: Num[Array, "N _ _ _"],
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NHWC",
    dilations: Ints | None = (1, 1, 1, 1),
    name: str | None = None,
) -> Num[Array, "N _ _ _"]:
    """Gradient of a depthwise convolution by its input: that of `conv2d`, channel by channel.

    ``dx[s p + r t - lo, c] += g[p, c M + m] filter[t, c, m]``.

    Args:
      input_sizes: shape of the input, (N, H, W, C) or (N, C, H, W).
      filter: kernel (KH, KW, C, M).
      out_backprop: gradient of the result, (N, P, Q, C M) or (N, C M, P, Q).
      strides: those of the convolution, as in `conv2d`.
      padding: "SAME", "VALID", or a pair for each axis.
      data_format: "NHWC" (also None) or "NCHW".
      dilations: those of the convolution, as in `conv2d`.
      name: not used.

    Returns:
      The gradient, of shape ``input_sizes``.

    Raises:
      ValueError: as `conv2d_backprop_input`, and if filter has not an entry for each channel.
      TypeError: as `conv2d`.

    Twin of tf.nn.depthwise_conv2d_backprop_input, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> g, w = jnp.ones((1, 3, 3, 4)), jnp.ones((3, 3, 2, 2))
    >>> depthwise_conv2d_backprop_input((1, 6, 6, 2), w, g, strides=2, padding="SAME").shape
    (1, 6, 6, 2)
    """
    where = "tf.depthwise_conv2d_backprop_input"
    _arguments.ranks(where, 2, batches=False, out_backprop=out_backprop, filter=filter)
    window = _arguments.window(
        where, 2, strides=strides, dilations=dilations, padding=padding, data_format=data_format
    )
    shape = _four(where, "input_sizes", input_sizes)
    _check_depthwise(where, window, "filter", filter.shape, "input_sizes", shape)
    *taps, channels, each = filter.shape
    w = jnp.reshape(filter, (*taps, 1, channels * each))
    return _by_input(out_backprop, w, shape, window, channels)


def depthwise_conv2d_backprop_filter(
    input: Num[Array, "N _ _ _"],
    filter_sizes: Sequence[int] | np.ndarray,
    out_backprop: Num[Array, "N _ _ _"],
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = "NHWC",
    dilations: Ints | None = (1, 1, 1, 1),
    name: str | None = None,
) -> Num[Array, "KH KW C M"]:
    """Gradient of a depthwise convolution by its kernel: that of `conv2d`, channel by channel.

    ``dw[t, c, m] = sum_p x[s p + r t - lo, c] g[p, c M + m]``.

    Args:
      input: input (N, H, W, C), or (N, C, H, W).
      filter_sizes: shape of the kernel, (KH, KW, C, M).
      out_backprop: gradient of the result, (N, P, Q, C M) or (N, C M, P, Q).
      strides: those of the convolution, as in `conv2d`.
      padding: "SAME", "VALID", or a pair for each axis.
      data_format: "NHWC" (also None) or "NCHW".
      dilations: those of the convolution, as in `conv2d`.
      name: not used.

    Returns:
      The gradient, of shape ``filter_sizes``.

    Raises:
      ValueError: as `conv2d_backprop_filter`, and if filter_sizes has not an entry for each
        channel.
      TypeError: as `conv2d`.

    Twin of tf.nn.depthwise_conv2d_backprop_filter, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, g = jnp.ones((1, 6, 6, 2)), jnp.ones((1, 3, 3, 4))
    >>> depthwise_conv2d_backprop_filter(x, (3, 3, 2, 2), g, strides=2, padding="SAME").shape
    (3, 3, 2, 2)
    """
    where = "tf.depthwise_conv2d_backprop_filter"
    _arguments.ranks(where, 2, batches=False, input=input, out_backprop=out_backprop)
    window = _arguments.window(
        where, 2, strides=strides, dilations=dilations, padding=padding, data_format=data_format
    )
    shape = _four(where, "filter_sizes", filter_sizes)
    _check_depthwise(where, window, "filter_sizes", shape, "input", input.shape)
    *taps, channels, each = shape
    dw = _by_filter(input, out_backprop, (*taps, 1, channels * each), window, channels)
    return jnp.reshape(dw, shape)


def _four(where: str, name: str, sizes: Any) -> tuple[int, ...]:
    if not _arguments.listed(sizes) or len(sizes) != 4:
        raise ValueError(error(where, f"{name} must be a shape of 4 sizes, got {sizes!r}"))
    return _own.integers(where, name, sizes, 4, least=0)


def _check_depthwise(
    where: str,
    window: Window,
    name: str,
    kernel: Sequence[int],
    input_name: str,
    shape: Sequence[int],
) -> None:
    channels = window.channels(shape)
    if kernel[-2] != channels:
        what = f"{name} must be (KH, KW, C, M) with C = {channels}, the channels of {input_name}"
        raise ValueError(
            error(where, f"{what}, got {tuple(kernel)}", "M is the channel multiplier.")
        )


def _by_input(
    g: jax.Array, w: jax.Array, shape: tuple[int, ...], window: Window, groups: int
) -> jax.Array:
    return conv_input_grad(
        g,
        w,
        input_shape=shape,
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        groups=groups,
        data_format=window.data_format,
    )


def _by_filter(
    x: jax.Array, g: jax.Array, shape: tuple[int, ...], window: Window, groups: int
) -> jax.Array:
    return conv_kernel_grad(
        x,
        g,
        kernel_shape=shape,
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        groups=groups,
        data_format=window.data_format,
    )
