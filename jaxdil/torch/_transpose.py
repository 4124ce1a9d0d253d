"""The transposed convolutions of torch.nn.functional: jaxdil.conv_transpose, called PyTorch's way.

    y[n, o, s p + d t - padding] += x[n, c, p] weight[c, o - g J, t]       bias[o] added once

over positions p, taps t and the channels c of group g, J = O / groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from jaxdil import _arguments as _own
from jaxdil import _geometry
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil._transpose import conv_transpose
from jaxdil.torch import _arguments

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Sizes: TypeAlias = tuple[int, ...]


def conv_transpose1d(
    input: Num[Array, "..."],
    weight: Num[Array, "C J K"],
    bias: Num[Array, " O"] | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Sequence[int] | None = None,
) -> Num[Array, "..."]:
    """The adjoint of `conv1d`: ``y[o, s p + d t - padding] += x[c, p] weight[c, o, t]``, + bias.

    Args:
      input: (N, C, W), or (C, W) without a batch.
      weight: kernel (C, O / groups, K), that of the convolution which this transposes, from O to C
        channels.
      bias: (O,), or None.
      stride: samples of the output between neighbouring samples of input, >= 1.
      padding: that of the convolution, so samples cut off the output at either end, >= 0.
      output_padding: further samples at the end, >= 0, < max(stride, dilation).
      groups: number of blocks of channels; divides C.
      dilation: samples of the output between neighbouring taps, >= 1.
      output_size: spatial sizes of y, or its whole shape, in place of output_padding; the argument
        that the module ``nn.ConvTranspose1d`` takes when it is called.

    Returns:
      y (N, O, P), or (O, P), with P = (W - 1) stride - 2 padding + dilation (K - 1) + 1 +
      output_padding.

    Raises:
      ValueError: where PyTorch raises: an output_padding that is too large, an output_size that
        cannot be, channels, groups or a bias that do not fit, negative padding, an empty image; and
        for an output that would be empty.
      TypeError: for integers that are not, and two dtypes at once.

    Cost: ``2 N W K C O / groups`` floating-point operations.

    Twin of torch.nn.functional.conv_transpose1d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 1, 3)), jnp.ones((1, 1, 3))
    >>> jaxdil.torch.conv_transpose1d(x, w, stride=2).ravel()
    Array([1., 1., 2., 1., 2., 1., 1.], dtype=float32)
    >>> jaxdil.torch.conv_transpose1d(x, w, stride=2, padding=1, output_size=(6,)).ravel()
    Array([1., 2., 1., 2., 1., 1.], dtype=float32)
    """
    window = stride, padding, output_padding, groups, dilation, output_size
    return _transpose_nd("torch.conv_transpose1d", 1, input, weight, bias, *window)


def conv_transpose2d(
    input: Num[Array, "..."],
    weight: Num[Array, "C J KH KW"],
    bias: Num[Array, " O"] | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Sequence[int] | None = None,
) -> Num[Array, "..."]:
    """The adjoint of `conv2d`: `conv_transpose1d`'s formula on both axes.

    Args:
      input: (N, C, H, W), or (C, H, W) without a batch.
      weight: kernel (C, O / groups, KH, KW).
      bias: (O,), or None.
      stride: an int, or a list of 1 or 2.
      padding: an int, or a list of 1 or 2.
      output_padding: an int, or a list of 1 or 2.
      groups: number of blocks of channels.
      dilation: an int, or a list of 1 or 2.
      output_size: spatial sizes of y, or its whole shape, in place of output_padding.

    Returns:
      y (N, O, P, Q), or (O, P, Q).

    Raises:
      ValueError: as `conv_transpose1d`.
      TypeError: as `conv_transpose1d`.

    Cost: ``2 N H W KH KW C O / groups`` floating-point operations.

    Twin of torch.nn.functional.conv_transpose2d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((2, 4, 5, 6)), jnp.ones((4, 3, 3, 3))
    >>> jaxdil.torch.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, groups=2).shape
    (2, 6, 10, 12)
    """
    window = stride, padding, output_padding, groups, dilation, output_size
    return _transpose_nd("torch.conv_transpose2d", 2, input, weight, bias, *window)


def conv_transpose3d(
    input: Num[Array, "..."],
    weight: Num[Array, "C J KD KH KW"],
    bias: Num[Array, " O"] | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Sequence[int] | None = None,
) -> Num[Array, "..."]:
    """The adjoint of `conv3d`: `conv_transpose1d`'s formula on each axis.

    Args:
      input: (N, C, D, H, W), or (C, D, H, W) without a batch.
      weight: kernel (C, O / groups, KD, KH, KW).
      bias: (O,), or None.
      stride: an int, or a list of 1 or 3.
      padding: an int, or a list of 1 or 3.
      output_padding: an int, or a list of 1 or 3.
      groups: number of blocks of channels.
      dilation: an int, or a list of 1 or 3.
      output_size: spatial sizes of y, or its whole shape, in place of output_padding.

    Returns:
      y (N, O, P, Q, R), or (O, P, Q, R).

    Raises:
      ValueError: as `conv_transpose1d`.
      TypeError: as `conv_transpose1d`.

    Cost: ``2 N D H W KD KH KW C O / groups`` floating-point operations.

    Twin of torch.nn.functional.conv_transpose3d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((4, 2, 3, 4)), jnp.ones((4, 3, 2, 2, 2))
    >>> jaxdil.torch.conv_transpose3d(x, w, stride=2, dilation=2, output_padding=1).shape
    (3, 6, 8, 10)
    """
    window = stride, padding, output_padding, groups, dilation, output_size
    return _transpose_nd("torch.conv_transpose3d", 3, input, weight, bias, *window)


def _transpose_nd(
    where: str,
    rank: int,
    x: jax.Array,
    w: jax.Array,
    bias: jax.Array | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    output_size: Any,
) -> jax.Array:
    given = {} if bias is None else {"bias": bias}
    _own.check_arrays(where, input=x, weight=w, **given)
    batched = _arguments.images(where, x, rank)
    count = _groups(where, rank, x.shape[-rank - 1], w.shape, groups)
    _arguments.check_bias(where, bias, w.shape[1] * count)
    stride = _arguments.integers(where, "stride", stride, rank)
    dilation = _arguments.integers(where, "dilation", dilation, rank)
    padding = _arguments.integers(where, "padding", padding, rank, least=0)
    extra = _arguments.integers(where, "output_padding", output_padding, rank, least=0)
    window = {"stride": stride, "dilation": dilation, "padding": padding}
    least = _least(x.shape[-rank:], w.shape[2:], **window)
    sizes = None
    if output_size is None:
        _check_extra(where, extra, least, **window)
    else:
        sizes = _sizes(where, output_size, extra, least, stride, len(x.shape))
    y = conv_transpose(
        x if batched else x[None],
        jnp.moveaxis(jnp.asarray(w), (0, 1), (-1, -2)),
        stride=stride,
        dilation=dilation,
        padding=padding,
        output_padding=extra,
        output_shape=sizes,
        groups=count,
        bias=bias,
        data_format="channels_first",
    )
    return y if batched else y[0]


def _groups(where: str, rank: int, channels: int, shape: tuple[int, ...], groups: Any) -> int:
    """Number of groups of a weight (C, O / groups, *K), which fits input."""
    form = "(C, O / groups, *K)"
    if len(shape) != rank + 2 or 0 in shape[1:]:
        what = f"weight must be {form} with {rank} spatial axes, no axis empty, got shape {shape}"
        raise ValueError(error(where, what))
    count = _own.integer(where, "groups", groups, least=1)
    _arguments.channels(where, channels, shape[0], shape, form)
    if channels % count:
        what = f"groups must divide the {channels} channels of input, got {count}"
        raise ValueError(error(where, what))
    return count


def _least(
    size: Sizes,
    kernel: Sizes,
    *,
    stride: Sizes,
    dilation: Sizes,
    padding: Sizes,
) -> Sizes:
    """Smallest size of the output on each axis, that of an output_padding of 0."""
    axes = zip(size, kernel, stride, dilation, padding, strict=True)
    return tuple((n - 1) * s + _geometry.dilated_size(k, d) - 2 * p for n, k, s, d, p in axes)


def _check_extra(
    where: str,
    extra: Sizes,
    least: Sizes,
    *,
    stride: Sizes,
    dilation: Sizes,
    padding: Sizes,
) -> None:
    """Raise unless there may be so much output_padding, and is an output."""
    for axis, (e, n, s, d, p) in enumerate(
        zip(extra, least, stride, dilation, padding, strict=True)
    ):
        if e >= max(s, d):
            what = f"output_padding must be below max(stride, dilation) = {max(s, d)}"
            hint = "output_size=... names the size itself."
            raise ValueError(error(where, f"{what} on spatial axis {axis}, got {e}", hint))
        if n + e < 1:
            what = f"padding {p} cuts off all {n + 2 * p + e} samples of spatial axis {axis}"
            raise ValueError(error(where, what, "Pad less: padding crops the output here."))


def _sizes(
    where: str, output_size: Any, extra: Sizes, least: Sizes, stride: Sizes, ndim: int
) -> Sizes:
    """The spatial sizes in ``output_size``, each one that the convolution makes input of."""
    rank = len(stride)
    if any(extra):
        what = f"output_padding and output_size exclude each other, got {extra} and {output_size!r}"
        raise ValueError(error(where, what))
    if not _arguments.listed(output_size) or len(output_size) not in (rank, ndim):
        what = f"output_size must have the {rank} spatial sizes, or all {ndim} of the result"
        raise ValueError(error(where, f"{what}, got {output_size!r}"))
    sizes = tuple(
        _own.integer(where, f"output_size[{i}]", n, least=0) for i, n in enumerate(output_size)
    )[-rank:]
    for axis, (size, n, s) in enumerate(zip(sizes, least, stride, strict=True)):
        if not max(n, 1) <= size < n + s:
            what = f"output_size must be {max(n, 1)} to {n + s - 1} on spatial axis {axis}"
            hint = "Those are the sizes from which the convolution makes input."
            raise ValueError(error(where, f"{what}, got {size}", hint))
    return sizes
