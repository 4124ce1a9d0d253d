"""The depthwise convolutions of tf.nn, whose stride steps inside each phase of the rate.

    y[q] = sum_t x[(q mod r) + r (s (q div r) + t) - lo] w[t]     if any rate r > 1

That is no formula of theirs but what comes of splitting by the rate before striding. Where the
stride or the rate is 1, it is the convolution of jaxdil.depthwise_conv, and of everybody else.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Num

from jaxdil import _resample
from jaxdil._arguments import Ints
from jaxdil._depthwise import depthwise_conv
from jaxdil._errors import error
from jaxdil.tf import _arguments
from jaxdil.tf._arguments import TfPadding, Window
from jaxdil.tf._conv import conv2d

__all__ = ["depthwise_conv2d", "separable_conv2d"]


def depthwise_conv2d(
    input: Num[Array, "N _ _ _"],
    filter: Num[Array, "KH KW C M"],
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = None,
    dilations: Ints | None = None,
    name: str | None = None,
    *,
    rate: Ints | None = None,
) -> Num[Array, "N _ _ _"]:
    """Each channel with M kernels of its own; a stride > 1 with a rate > 1 steps inside each phase.

    ``y[q, c M + m] = sum_t x[(q mod r) + r (s (q div r) + t) - lo, c] filter[t, c, m]`` on each
    axis with rate r and stride s. That is what TensorFlow computes on a CPU or GPU (and Keras,
    PyTorch, lax, ``tf.nn.conv2d`` and TensorFlow on a TPU do not); for r = 1 or s = 1 it is the
    convolution everybody means. If any rate exceeds 1, "SAME" pads every axis as for stride 1. The
    uniform answer, ``x[s q + r t - lo]``: `jaxdil.depthwise_conv`.

    Args:
      input: input (N, H, W, C), or (N, C, H, W).
      filter: kernel (KH, KW, C, M), M the channel multiplier.
      strides: an int, or a list of 2 or 4 in the order of data_format; they may differ (in
        TensorFlow they may not).
      padding: "SAME", "VALID", or a pair for each axis, such as
        [[0, 0], [top, bottom], [left, right], [0, 0]].
      data_format: "NHWC" (None) or "NCHW".
      dilations: the rate: an int, or a list of 2 or 4; None means 1. (TensorFlow reads a list of 1
        as the rate of the rows alone, so that is refused.)
      name: not used.
      rate: the name of dilations in TensorFlow 1; give one of the two.

    Returns:
      y (N, P, Q, C M), or (N, C M, P, Q). On an axis of n with rate r and stride s,
      P = r m - extra, m = ((n + lo + hi + extra) / r - k) // s + 1, extra = -(n + lo + hi) mod r.

    Raises:
      ValueError: as `atrous_conv2d`, for an input that has not four axes, and for dilations with
        rate.
      TypeError: as `atrous_conv2d`.

    Twin of tf.nn.depthwise_conv2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 24, 24, 3)), jnp.ones((4, 4, 3, 4))
    >>> depthwise_conv2d(x, w, strides=[1, 4, 4, 1], padding="VALID", dilations=[3, 3]).shape
    (1, 6, 6, 12)
    """
    where = "tf.depthwise_conv2d"
    _arguments.ranks(where, 2, batches=False, input=input, filter=filter)
    window = _depthwise_window(where, strides, padding, data_format, dilations, rate)
    return _depthwise(where, window, input, filter, "filter")


def separable_conv2d(
    input: Num[Array, "N _ _ _"],
    depthwise_filter: Num[Array, "KH KW C M"],
    pointwise_filter: Num[Array, "1 1 I O"],
    strides: Ints,
    padding: TfPadding,
    data_format: str | None = None,
    dilations: Ints | None = None,
    name: str | None = None,
    *,
    rate: Ints | None = None,
) -> Num[Array, "N _ _ _"]:
    """`depthwise_conv2d`, then 1x1: ``y[q, o] = sum_i depthwise[q, i] pointwise_filter[i, o]``.

    A stride > 1 with a rate > 1 steps inside each phase of the rate, as in `depthwise_conv2d`; the
    uniform answer: `jaxdil.separable_conv`.

    Args:
      input: input (N, H, W, C), or (N, C, H, W).
      depthwise_filter: kernel (KH, KW, C, M).
      pointwise_filter: kernel (1, 1, C M / groups, O).
      strides: of the depthwise part, as in `depthwise_conv2d`, like the arguments below.
      padding: "SAME", "VALID", or a pair for each axis.
      data_format: "NHWC" (None) or "NCHW".
      dilations: the rate.
      name: not used.
      rate: the name of dilations in TensorFlow 1; give one of the two.

    Returns:
      y (N, P, Q, O), or (N, O, P, Q).

    Raises:
      ValueError: as `depthwise_conv2d`, and if pointwise_filter is not 1x1 or does not take C M
        channels.
      TypeError: as `atrous_conv2d`.

    Twin of tf.nn.separable_conv2d, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 2))
    >>> separable_conv2d(x, w, jnp.ones((1, 1, 6, 5)), strides=[1, 2, 2, 1], padding="SAME").shape
    (1, 4, 4, 5)
    """
    where = "tf.separable_conv2d"
    kernels = {"depthwise_filter": depthwise_filter, "pointwise_filter": pointwise_filter}
    _arguments.ranks(where, 2, batches=False, input=input, **kernels)
    window = _depthwise_window(where, strides, padding, data_format, dilations, rate)
    if pointwise_filter.shape[:2] != (1, 1):
        what = f"pointwise_filter must be (1, 1, C M, O), got shape {pointwise_filter.shape}"
        raise ValueError(error(where, what, "A larger kernel is another convolution: tf.conv2d."))
    y = _depthwise(where, window, input, depthwise_filter, "depthwise_filter")
    mixed = window.channels(y.shape)
    _arguments.groups(
        where, mixed, pointwise_filter.shape[-2], x="the depthwise part", w="pointwise_filter"
    )
    return conv2d(y, pointwise_filter, 1, "VALID", window.data_format)


def _depthwise_window(
    where: str, strides: Any, padding: Any, data_format: Any, dilations: Any, rate: Any
) -> Window:
    if rate is not None and dilations is not None:
        what = f"dilations and rate are one argument, got {dilations!r} and {rate!r}"
        raise ValueError(error(where, what, "rate is its name in TensorFlow 1."))
    return _arguments.window(
        where,
        2,
        strides=strides,
        dilations=dilations if rate is None else rate,
        padding=padding,
        data_format=data_format,
        dilation_name="dilations" if rate is None else "rate",
        short=False,
    )


def _depthwise(where: str, window: Window, x: jax.Array, w: jax.Array, w_name: str) -> jax.Array:
    channels = window.channels(x.shape)
    if w.shape[-2] != channels:
        what = f"{w_name} must be (KH, KW, C, M) with C = {channels}, the channels of input"
        raise ValueError(
            error(where, f"{what}, got shape {w.shape}", "M is the channel multiplier.")
        )
    window.check(where, x, (*w.shape[:-2], 1, channels * w.shape[-1]), channels)
    if max(window.stride) == 1 or max(window.dilation) == 1:
        return depthwise_conv(
            x,
            w,
            stride=window.stride,
            dilation=window.dilation,
            padding=window.padding,
            data_format=window.data_format,
        )
    # The rate is taken apart into phases first, and the stride then steps inside each of them:
    # that, and no formula, is where TensorFlow's answer comes from.
    base = window.padding
    if isinstance(base, str):
        same = base == "SAME"
        spans = [(k - 1) * r * same for k, r in zip(w.shape[:2], window.dilation, strict=True)]
        base = tuple((span // 2, span - span // 2) for span in spans)
    pads, crops = _resample.space_to_batch_paddings(
        window.spatial(x.shape), block_shape=window.dilation, base_paddings=base
    )
    skip = 1 if window.first else 0  # the channels, which stand between the batch and the image
    blocks, none = (1,) * skip + window.dilation, ((0, 0),) * skip
    phases = _resample.space_to_batch(x, block_shape=blocks, paddings=none + pads)
    y = depthwise_conv(
        phases, w, stride=window.stride, padding="VALID", data_format=window.data_format
    )
    return _resample.batch_to_space(y, block_shape=blocks, crops=none + crops)
