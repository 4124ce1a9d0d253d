"""The adjoints of a convolution, its gradients by input and by kernel.

    <g, conv(x, w)> = <conv_input_grad(g, w), x> = <conv_kernel_grad(x, g), w>

Both are convolutions again. By the input, stride and input dilation change places and the kernel is
flipped; by the kernel, stride and dilation change places and the batch is what is summed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments, _geometry, _window
from jaxdil._arguments import DataFormat, Ints, Layout, Padding
from jaxdil._dispatch import check_pin
from jaxdil._errors import error
from jaxdil._primitive import convolution
from jaxdil._window import Window

__all__ = ["by_input", "conv_input_grad", "conv_kernel_grad", "named_layout"]


def conv_input_grad(
    g: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    input_shape: Sequence[int],
    stride: Ints = 1,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    padding: Padding = "SAME",
    groups: int | None = 1,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Gradient of `conv` by its input: the cotangent of x from the cotangent of y.

    ``dx[n, s p + d t - lo, g I + i] += g[n, p, o] w[t, i, o]``. `conv_transpose` with the input's
    size known; ``torch.nn.grad.conv2d_input`` and ``tf.compat.v1.nn.conv2d_backprop_input``.

    Args:
      g: cotangent of the result (N, *P, O).
      w: kernel (*K, I, O).
      input_shape: shape of x, batch and channels included.
      stride: that of the convolution, as the arguments below.
      dilation: as in `conv`.
      input_dilation: as in `conv`.
      padding: as in `conv`.
      groups: as in `conv`.
      data_format: as in `conv`; three strings are not taken.
      precision: as in `conv`.
      preferred_element_type: dtype to accumulate in and return.
      method: as in `conv`, for the gradient itself.

    Returns:
      dx, of shape ``input_shape``.

    Raises:
      ValueError: as `conv`, and if g does not have the shape of the convolution's result.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: that of the convolution.

    >>> import jax.numpy as jnp
    >>> g, w = jnp.ones((1, 2, 1)), jnp.ones((3, 1, 1))
    >>> jaxdil.conv_input_grad(g, w, input_shape=(1, 5, 1), stride=2, padding="VALID").ravel()
    Array([1., 1., 2., 1., 1.], dtype=float32)
    """
    where = "conv_input_grad"
    _arguments.check_arrays(where, g=g, w=w)
    check_pin(where, method)
    layout = named_layout(where, input_shape, w.shape, data_format, x_name="input_shape")
    window = _window.forward(
        where,
        layout,
        layout.merged(input_shape),
        w.shape,
        stride=stride,
        dilation=dilation,
        input_dilation=input_dilation,
        padding=padding,
        groups=groups,
    )
    _check_cotangent(where, g, layout, input_shape, window, w.shape[-1])
    dx = by_input(
        layout.merge(g),
        w,
        layout,
        window,
        precision=precision,
        preferred_element_type=preferred_element_type,
        method=method,
    )
    return layout.restore(dx)


def conv_kernel_grad(
    x: Num[Array, "..."],
    g: Num[Array, "..."],
    *,
    kernel_shape: Sequence[int],
    stride: Ints = 1,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    padding: Padding = "SAME",
    groups: int | None = 1,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Gradient of `conv` by its kernel: the cotangent of w from the input and the cotangent of y.

    ``dw[t, i, o] = sum_{n, p} x[n, s p + d t - lo, g I + i] g[n, p, o]``: a correlation of x with
    the cotangent, stride and dilation exchanged. ``torch.nn.grad.conv2d_weight``,
    ``tf.compat.v1.nn.conv2d_backprop_filter``.

    Args:
      x: input (N, *S, C).
      g: cotangent of the result (N, *P, O).
      kernel_shape: shape of w, (*K, I, O).
      stride: that of the convolution, as the arguments below.
      dilation: as in `conv`.
      input_dilation: as in `conv`.
      padding: as in `conv`.
      groups: as in `conv`.
      data_format: as in `conv`; three strings are not taken.
      precision: as in `conv`.
      preferred_element_type: dtype to accumulate in and return.
      method: as in `conv`, for the gradient itself.

    Returns:
      dw, of shape ``kernel_shape``.

    Raises:
      ValueError: as `conv`, and if g does not have the shape of the convolution's result.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: that of the convolution.

    >>> import jax.numpy as jnp
    >>> x, g = jnp.arange(5.0).reshape(1, 5, 1), jnp.ones((1, 3, 1))
    >>> jaxdil.conv_kernel_grad(x, g, kernel_shape=(3, 1, 1), padding="VALID").ravel()
    Array([3., 6., 9.], dtype=float32)
    """
    where = "conv_kernel_grad"
    _arguments.check_arrays(where, x=x, g=g)
    check_pin(where, method)
    layout = named_layout(where, x.shape, kernel_shape, data_format)
    x_shape, x = x.shape, layout.merge(x)
    window = _window.forward(
        where,
        layout,
        x.shape,
        kernel_shape,
        stride=stride,
        dilation=dilation,
        input_dilation=input_dilation,
        padding=padding,
        groups=groups,
    )
    _check_cotangent(where, g, layout, x_shape, window, kernel_shape[-1])
    batch, channels, *spatial = layout.numbers.lhs_spec
    # The batch is contracted: it stands where channels do. Stride and dilation change places.
    reach = [
        d * (k - 1) + s * (p - 1) + 1
        for d, k, s, p in zip(
            window.dilation, window.kernel, window.stride, window.positions, strict=True
        )
    ]
    rank = layout.rank
    return convolution(
        x,
        layout.merge(g),
        method=method,
        window_strides=window.dilation,
        padding=[
            (lo, r - n - lo)
            for (lo, _), r, n in zip(window.padding, reach, window.extent, strict=True)
        ],
        lhs_dilation=window.input_dilation,
        rhs_dilation=window.stride,
        dimension_numbers=lax.ConvDimensionNumbers(
            (channels, batch, *spatial), (channels, batch, *spatial), (rank, rank + 1, *range(rank))
        ),
        batch_group_count=window.groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def by_input(g: jax.Array, w: Any, layout: Layout, window: Window, **options: Any) -> jax.Array:
    """The adjoint by the input, of size ``window.size``: g, dilated, convolved with w flipped."""
    rank, groups = layout.rank, window.groups
    # (*K, I, G O) -> (*K, O, G I), every group for itself, and rotated by 180 degrees.
    w = jnp.reshape(w, (*w.shape[:-1], groups, w.shape[-1] // groups))
    w = jnp.swapaxes(w, -3, -1)
    w = jnp.reshape(w, (*w.shape[:-2], w.shape[-2] * w.shape[-1]))
    w = lax.rev(w, tuple(range(rank)))
    spread = map(_geometry.dilated_size, window.positions, window.stride)
    return convolution(
        g,
        w,
        window_strides=window.input_dilation,
        padding=[
            (k_eff - 1 - lo, n + lo - m)
            for k_eff, (lo, _), n, m in zip(
                window.kernel_extent, window.padding, window.extent, spread, strict=True
            )
        ],
        lhs_dilation=window.stride,
        rhs_dilation=window.dilation,
        dimension_numbers=layout.numbers,
        feature_group_count=groups,
        **options,
    )


def named_layout(
    where: str, x_shape: Sequence[int], w_shape: Sequence[int], data_format: Any, x_name: str = "x"
) -> Layout:
    if isinstance(data_format, tuple):
        raise ValueError(
            error(
                where,
                f"data_format must be a name or letters, got {data_format!r}",
                "Transpose the arrays, or take jax.linear_transpose of jaxdil.conv.",
            )
        )
    return _arguments.layout(where, x_shape, w_shape, data_format, x_name=x_name)


def _check_cotangent(
    where: str, g: Any, layout: Layout, x_shape: Sequence[int], window: Window, channels: int
) -> None:
    """Raise unless g has the shape of the convolution's result."""
    wanted = layout.result(0, window.positions, channels)
    if tuple(g.shape) != wanted:
        raise ValueError(
            error(
                where,
                f"g must have the shape of the result of conv, {wanted}, got {tuple(g.shape)}",
                f"That is for an input of shape {tuple(x_shape)} with these arguments.",
            )
        )
