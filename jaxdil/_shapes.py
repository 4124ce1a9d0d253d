"""Sizes without arrays: of outputs, of paddings, of dilated kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Num

from jaxdil import _arguments, _geometry, _padding, _window
from jaxdil._adjoint import named_layout
from jaxdil._arguments import DataFormat, Ints, Padding
from jaxdil._transpose import transposed_window

__all__ = [
    "conv_output_shape",
    "conv_transpose_output_shape",
    "dilate_kernel",
    "effective_kernel_size",
    "resolve_padding",
]


def effective_kernel_size(kernel: Ints, *, dilation: Ints = 1) -> int | tuple[int, ...]:
    """Extent of a dilated kernel, in input samples: ``k_eff = dilation * (kernel - 1) + 1``.

    Args:
      kernel: number of taps, >= 1, or one for each axis.
      dilation: samples between neighbouring taps, >= 1, or one for each axis.

    Returns:
      An int, or a tuple if either argument is one for each axis.

    Raises:
      ValueError: if either is below 1, or their lengths differ.
      TypeError: if either is not an integer.

    >>> jaxdil.effective_kernel_size(3, dilation=4)
    9
    >>> jaxdil.effective_kernel_size((3, 5), dilation=2)
    (5, 9)
    """
    where = "effective_kernel_size"
    lengths = [len(v) for v in (kernel, dilation) if isinstance(v, (Sequence, np.ndarray))]
    rank = lengths[0] if lengths else 1
    kernels = _arguments.integers(where, "kernel", kernel, rank)
    dilations = _arguments.integers(where, "dilation", dilation, rank)
    sizes = tuple(map(_geometry.dilated_size, kernels, dilations))
    return sizes if lengths else sizes[0]


def dilate_kernel(w: Num[Array, "..."], *, dilation: Ints) -> Num[Array, "..."]:
    """The kernel with ``dilation - 1`` zeros between neighbouring taps, which dilation stands for.

    ``conv(x, w, dilation=d) == conv(x, dilate_kernel(w, dilation=d))``; the latter multiplies by
    zeros.

    Args:
      w: kernel (*K, I, O). A plain matrix or row of taps may be passed as ``w[..., None, None]``.
      dilation: samples between neighbouring taps, >= 1, or one for each axis.

    Returns:
      The kernel (*K_eff, I, O), ``K_eff = dilation * (K - 1) + 1``.

    Raises:
      ValueError: if dilation is below 1 or does not match the spatial axes of w.
      TypeError: if dilation is not an integer.

    >>> import jax.numpy as jnp
    >>> jaxdil.dilate_kernel(jnp.arange(1, 4)[:, None, None], dilation=2).ravel()
    Array([1, 0, 2, 0, 3], dtype=int32)
    """
    where = "dilate_kernel"
    _arguments.check_arrays(where, w=w)
    rank = _arguments.layout(where, (1,) * w.ndim, w.shape, None).rank
    dilations = _arguments.integers(where, "dilation", dilation, rank)
    widths = [(0, 0, d - 1) for d in dilations] + [(0, 0, 0)] * 2
    return lax.pad(jnp.asarray(w), jnp.zeros((), w.dtype), widths)


def resolve_padding(
    padding: Padding,
    *,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Ints = 1,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    data_format: DataFormat = None,
) -> tuple[tuple[int, int], ...]:
    """The samples (before, after) that `conv` adds on each axis for a padding.

    SAME: ``total = max((ceil(n / s) - 1) s + k_eff - n, 0)``, of which ``total // 2`` before.

    Args:
      padding: in any form that `conv` takes.
      size: spatial sizes of the input.
      kernel: taps of the kernel on each axis.
      stride: as in `conv`.
      dilation: as in `conv`.
      input_dilation: as in `conv`; names then count the inserted zeros as samples.
      data_format: as in `conv`, for a padding that tells axes by letter or pads every axis.

    Returns:
      A pair for each axis.

    Raises:
      ValueError: for a name that is none, or lengths that do not match.
      TypeError: for integers that are not.

    >>> jaxdil.resolve_padding("SAME", size=(224, 224), kernel=(3, 3), stride=2)
    ((0, 1), (0, 1))
    >>> jaxdil.resolve_padding(("CAUSAL", 1), size=(9, 9), kernel=(3, 3), dilation=4)
    ((8, 0), (1, 1))
    >>> jaxdil.resolve_padding({"W": lambda k: (k, 0), "H": "SAME"}, size=(9, 9), kernel=(3, 3))
    ((1, 1), (3, 0))
    """
    where = "resolve_padding"
    rank = len(size)
    sizes = _arguments.integers(where, "size", size, rank, least=0)
    taps = _arguments.integers(where, "kernel", kernel, rank)
    layout = _arguments.layout(where, (1, *sizes, 1), (*taps, 1, 1), data_format)
    return _padding.paddings(
        where,
        _padding.entries(where, padding, layout),
        size=sizes,
        kernel=taps,
        stride=_arguments.integers(where, "stride", stride, rank),
        dilation=_arguments.integers(where, "dilation", dilation, rank),
        input_dilation=_arguments.integers(where, "input_dilation", input_dilation, rank),
    )


def conv_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    padding: Padding = "SAME",
    groups: int | None = 1,
    data_format: DataFormat = None,
) -> tuple[int, ...]:
    """Shape of what `conv` returns: ``P = floor((n_eff + lo + hi - k_eff) / s) + 1`` on each axis.

    Args:
      x_shape: shape of the input.
      w_shape: shape of the kernel.
      stride: as in `conv`.
      dilation: as in `conv`.
      input_dilation: as in `conv`.
      padding: as in `conv`.
      groups: as in `conv`.
      data_format: as in `conv`.

    Returns:
      The shape, batch and channels included.

    Raises:
      ValueError: what `conv` raises for these shapes.
      TypeError: for integers that are not.

    >>> jaxdil.conv_output_shape(
    ...     (1, 24, 24, 3), (4, 4, 3, 8), stride=4, dilation=3, padding="VALID"
    ... )
    (1, 4, 4, 8)
    """
    where = "conv_output_shape"
    layout = _arguments.layout(where, x_shape, w_shape, data_format)
    merged = layout.merged(x_shape)
    window = _window.forward(
        where,
        layout,
        merged,
        w_shape,
        stride=stride,
        dilation=dilation,
        input_dilation=input_dilation,
        padding=padding,
        groups=groups,
    )
    return layout.result(layout.image(merged)[0], window.positions, layout.window(w_shape)[2])


def conv_transpose_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    output_padding: Ints = 0,
    output_shape: Sequence[int] | None = None,
    convention: Literal["minimal", "lax"] = "minimal",
    groups: int = 1,
    data_format: DataFormat = None,
) -> tuple[int, ...]:
    """Shape of what `conv_transpose` returns: ``P = (n - 1) s + k_eff - lo - hi + output_padding``.

    Args:
      x_shape: shape of the input.
      w_shape: shape of the kernel (*K, O / groups, C).
      stride: as in `conv_transpose`.
      dilation: as in `conv_transpose`.
      padding: as in `conv_transpose`.
      output_padding: as in `conv_transpose`.
      output_shape: as in `conv_transpose`.
      convention: as in `conv_transpose`.
      groups: as in `conv_transpose`.
      data_format: as in `conv_transpose`.

    Returns:
      The shape, batch and channels included.

    Raises:
      ValueError: what `conv_transpose` raises for these shapes.
      TypeError: for integers that are not.

    >>> jaxdil.conv_transpose_output_shape((1, 5, 5, 8), (3, 3, 4, 8), stride=2, padding="VALID")
    (1, 11, 11, 4)
    """
    where = "conv_transpose_output_shape"
    layout = named_layout(where, x_shape, w_shape, data_format)
    merged = layout.merged(x_shape)
    window = transposed_window(
        where,
        layout,
        merged,
        w_shape,
        stride=stride,
        dilation=dilation,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        convention=convention,
        groups=groups,
    )
    return layout.result(merged[0], window.size, layout.window(w_shape)[1] * window.groups)
