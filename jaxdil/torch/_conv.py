"""The convolutions of torch.nn.functional: jaxdil.conv, called PyTorch's way.

    y[n, o, p] = bias[o] + sum_{c, t} x[n, g I + c, s p + d t - padding] weight[o, c, t]

with g = o // (O / groups). Padding holds zeros, or what ``padding_mode`` says.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
from jaxtyping import Array, Num

from jaxdil import _arguments as _own
from jaxdil._arguments import Ints
from jaxdil._conv import bind
from jaxdil._errors import error
from jaxdil.torch import _arguments
from jaxdil.torch._pad import check_mode

__all__ = ["FORMATS", "conv1d", "conv2d", "conv3d"]

# Number of spatial axes -> order of the axes of input, weight and result.
FORMATS = {
    1: ("NCW", "OIW", "NCW"),
    2: ("NCHW", "OIHW", "NCHW"),
    3: ("NCDHW", "OIDHW", "NCDHW"),
}


def conv1d(
    input: Num[Array, "..."],
    weight: Num[Array, "O I K"],
    bias: Num[Array, " O"] | None = None,
    stride: Ints = 1,
    padding: Ints | Literal["same", "valid"] = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
) -> Num[Array, "..."]:
    """Convolution: ``y[o, p] = bias[o] + sum_{c, t} x[c, s p + d t - padding] weight[o, c, t]``.

    Args:
      input: (N, C, W), or (C, W) without a batch.
      weight: kernel (O, C / groups, K).
      bias: (O,), or None.
      stride: samples between neighbouring outputs, >= 1; an int or a list of 1.
      padding: samples added at either end, >= 0; or "valid" (none), or "same": as many outputs as
        samples, for a stride of 1, an odd sample at the end.
      dilation: samples between neighbouring taps, >= 1.
      groups: number of blocks of channels convolved separately.
      padding_mode: what the padding holds, as in the module ``nn.Conv1d``: "zeros", "reflect"
        (mirrored about the outermost sample), "replicate" (the outermost sample) or "circular".

    Returns:
      y (N, O, P), or (O, P), with P = floor((W + 2 padding - dilation (K - 1) - 1) / stride) + 1.

    Raises:
      ValueError: where PyTorch raises: a kernel larger than the padded input, "same" with a stride
        above 1, channels, groups or a bias that do not fit, an empty image, padding that is
        negative or too large for its mode.
      TypeError: for integers that are not, and two dtypes at once.

    Cost: ``2 N P K I O`` floating-point operations.

    Twin of torch.nn.functional.conv1d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.arange(1.0, 6.0).reshape(1, 1, 5), jnp.ones((1, 1, 3))
    >>> jaxdil.torch.conv1d(x, w, stride=2, padding=1).ravel()
    Array([3., 9., 9.], dtype=float32)
    >>> jaxdil.torch.conv1d(x, w, stride=2, padding=1, padding_mode="circular").ravel()
    Array([ 8.,  9., 10.], dtype=float32)
    """
    window = stride, padding, dilation, groups, padding_mode
    return _conv_nd("torch.conv1d", 1, input, weight, bias, *window)


def conv2d(
    input: Num[Array, "..."],
    weight: Num[Array, "O I KH KW"],
    bias: Num[Array, " O"] | None = None,
    stride: Ints = 1,
    padding: Ints | Literal["same", "valid"] = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
) -> Num[Array, "..."]:
    """Convolution over two axes: `conv1d`'s formula on both.

    Args:
      input: (N, C, H, W), or (C, H, W) without a batch.
      weight: kernel (O, C / groups, KH, KW).
      bias: (O,), or None.
      stride: an int, or a list of 1 or 2.
      padding: an int, or a list of 1 or 2, the same at either end; or "same" or "valid".
      dilation: an int, or a list of 1 or 2.
      groups: number of blocks of channels convolved separately.
      padding_mode: as in `conv1d`.

    Returns:
      y (N, O, P, Q), or (O, P, Q).

    Raises:
      ValueError: as `conv1d`.
      TypeError: as `conv1d`.

    Cost: ``2 N P Q KH KW I O`` floating-point operations.

    Twin of torch.nn.functional.conv2d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((2, 4, 9, 8)), jnp.ones((6, 2, 3, 3))
    >>> jaxdil.torch.conv2d(x, w, stride=2, padding=(2, 1), dilation=(2, 1), groups=2).shape
    (2, 6, 5, 4)
    """
    window = stride, padding, dilation, groups, padding_mode
    return _conv_nd("torch.conv2d", 2, input, weight, bias, *window)


def conv3d(
    input: Num[Array, "..."],
    weight: Num[Array, "O I KD KH KW"],
    bias: Num[Array, " O"] | None = None,
    stride: Ints = 1,
    padding: Ints | Literal["same", "valid"] = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
) -> Num[Array, "..."]:
    """Convolution over three axes: `conv1d`'s formula on each.

    Args:
      input: (N, C, D, H, W), or (C, D, H, W) without a batch.
      weight: kernel (O, C / groups, KD, KH, KW).
      bias: (O,), or None.
      stride: an int, or a list of 1 or 3.
      padding: an int, or a list of 1 or 3, the same at either end; or "same" or "valid".
      dilation: an int, or a list of 1 or 3.
      groups: number of blocks of channels convolved separately.
      padding_mode: as in `conv1d`.

    Returns:
      y (N, O, P, Q, R), or (O, P, Q, R).

    Raises:
      ValueError: as `conv1d`.
      TypeError: as `conv1d`.

    Cost: ``2 N P Q R KD KH KW I O`` floating-point operations.

    Twin of torch.nn.functional.conv3d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((2, 5, 6, 7)), jnp.ones((4, 2, 3, 3, 3))
    >>> jaxdil.torch.conv3d(x, w, padding="same", padding_mode="reflect").shape
    (4, 5, 6, 7)
    """
    window = stride, padding, dilation, groups, padding_mode
    return _conv_nd("torch.conv3d", 3, input, weight, bias, *window)


def _conv_nd(
    where: str,
    rank: int,
    x: jax.Array,
    w: jax.Array,
    bias: jax.Array | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
) -> jax.Array:
    given = {} if bias is None else {"bias": bias}
    _own.check_arrays(where, input=x, weight=w, **given)
    batched = _arguments.images(where, x, rank)
    kernel, count = _kernel(where, rank, x.shape[-rank - 1], w.shape, groups)
    _arguments.check_bias(where, bias, w.shape[0])
    stride = _arguments.integers(where, "stride", stride, rank)
    dilation = _arguments.integers(where, "dilation", dilation, rank)
    pads = _arguments.padding(where, padding, kernel=kernel, stride=stride, dilation=dilation)
    mode = _arguments.padding_mode(where, padding_mode)
    _arguments.check_fit(where, x.shape[-rank:], kernel, dilation, pads)
    check_mode(where, x.shape[-rank:], pads, mode)
    y = bind(
        where,
        x if batched else x[None],
        w,
        stride=stride,
        dilation=dilation,
        padding=pads,
        padding_mode=mode,
        groups=count,
        bias=bias,
        data_format=FORMATS[rank],
    )
    return y if batched else y[0]


def _kernel(
    where: str, rank: int, channels: int, shape: tuple[int, ...], groups: Any
) -> tuple[tuple[int, ...], int]:
    """Taps on each axis and number of groups of a weight (O, C / groups, *K)."""
    form = "(O, C / groups, *K)"
    if len(shape) != rank + 2 or 0 in (shape[0], *shape[2:]):
        what = f"weight must be {form} with {rank} spatial axes, no axis empty, got shape {shape}"
        raise ValueError(error(where, what))
    count = _own.integer(where, "groups", groups, least=1)
    _arguments.channels(where, channels, shape[1] * count, shape, f"{form}, with groups={count}")
    if shape[0] % count:
        what = f"groups must divide the {shape[0]} output channels of weight, got {count}"
        raise ValueError(error(where, what))
    return shape[2:], count
