"""Transposed convolution: the adjoint of a convolution by its input, sized as each peer sizes it.

    <conv_transpose(y, w), x> = <y, conv(x, w)>

The size of x is lost where the stride is above 1, so it is asked for: by padding, output_padding or
output_shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num, Shaped

from jaxdil import _arguments, _bias, _geometry, _pad, _padding, _window
from jaxdil._adjoint import by_input, named_layout
from jaxdil._arguments import DataFormat, Ints, Layout, Padding
from jaxdil._conv import check_sharding
from jaxdil._dispatch import check_pin
from jaxdil._errors import error
from jaxdil._window import Window

__all__ = ["conv_transpose", "transposed_window"]


def conv_transpose(
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    output_padding: Ints = 0,
    output_shape: Sequence[int] | None = None,
    convention: Literal["minimal", "lax"] = "minimal",
    padding_mode: str = "zeros",
    groups: int = 1,
    bias: Num[Array, " O"] | None = None,
    mask: Shaped[Array, "..."] | None = None,
    data_format: DataFormat = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Transposed convolution: the adjoint of `conv` with the same kernel and the same options.

    ``y[n, s p + d t - lo, g J + j] += x[n, p, c] w[t, j, c]`` over all positions p, taps t and
    channels c of group g, J = O / groups: each sample of x adds the kernel, times itself, to the
    output.

    Args:
      x: input (N, *S, C), as in `conv`.
      w: kernel (*K, O / groups, C), that of the convolution which this transposes (TensorFlow's and
        Keras' order; PyTorch's is ``w.transpose(2, 3, 0, 1)`` of its (C, O / groups, KH, KW) in
        this one, the groups along C).
      stride: samples of the output between neighbouring samples of x, >= 1.
      dilation: samples of the output between neighbouring taps, >= 1.
      padding: that of the transposed convolution, so it crops the output: "SAME" gives n s samples,
        "VALID" crops nothing, pairs (lo, hi) crop that many at either end; in any form that `conv`
        takes. "CAUSAL" and "REVERSE_CAUSAL" are refused, as they could mean two things.
      output_padding: further samples at the end, < max(stride, dilation), for paddings other than
        "SAME" (PyTorch's argument).
      output_shape: spatial sizes of y, where stride > 1 leaves a choice (TensorFlow's argument).
      convention: size under "VALID": "minimal" is (n - 1) s + k_eff, the smallest whose convolution
        gives n (TensorFlow, PyTorch); "lax" is n s + max(k_eff - s, 0) (lax, Flax, Haiku, Keras).
        They differ where s > k_eff, by zeros at the end.
      padding_mode: that of the transposed convolution. With "zeros" what is cropped is lost. In
        every other mode it was read from inside, so it is added back there: "circular" wraps it
        round, "reflect" mirrors it in, "replicate" adds it to the edge.
      groups: number of blocks of channels; divides C and O.
      bias: added to every output channel, (O,).
      mask: multiplied onto w; of w's shape, boolean or of w's dtype.
      data_format: as in `conv`; three strings are not taken.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.
      out_sharding: as in `conv`.
      method: as in `conv`.

    Returns:
      y (N, *P, O). P = (n - 1) s + k_eff - lo - hi + output_padding on each axis for explicit
      padding.

    Raises:
      ValueError: for sizes and channels that do not fit, and output sizes whose convolution is not
        x's.
      TypeError: as `conv`.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(S) prod(K) C O / groups`` floating-point operations.

    Source: Zeiler et al., Deconvolutional Networks, CVPR 2010; Dumoulin and Visin,
      arXiv:1603.07285.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 3, 1)), jnp.ones((3, 1, 1))
    >>> jaxdil.conv_transpose(x, w, stride=2, padding="VALID").ravel()
    Array([1., 1., 2., 1., 2., 1., 1.], dtype=float32)
    >>> jaxdil.conv_transpose(x, w, stride=2).shape
    (1, 6, 1)
    """
    where = "conv_transpose"
    _arguments.check_arrays(where, x=x, w=w)
    check_pin(where, method)
    layout = named_layout(where, x.shape, w.shape, data_format)
    check_sharding(where, layout, out_sharding)
    x = layout.merge(x)
    window = transposed_window(
        where,
        layout,
        x.shape,
        w.shape,
        stride=stride,
        dilation=dilation,
        padding=padding,
        output_padding=output_padding,
        output_shape=output_shape,
        convention=convention,
        groups=groups,
    )
    channels = layout.window(w.shape)[1] * window.groups
    _bias.check_bias(where, bias, channels, x.dtype, preferred_element_type)
    w = _bias.masked(where, jnp.asarray(w), mask)
    mode = _pad.check(where, padding_mode, window.size, window.padding)
    inner = window if mode == "zeros" else _unpadded(window)
    _, channel_axis, *spatial = layout.numbers.lhs_spec

    def call(x: jax.Array, w: jax.Array, dtype: Any) -> jax.Array:
        y = by_input(
            x,
            w,
            layout,
            inner,
            precision=precision,
            preferred_element_type=dtype,
            out_sharding=out_sharding,
            method=method,
        )
        if mode == "zeros":
            return y
        return _pad.fold(y, window.padding, min(spatial, default=0), mode)

    y = _bias.add_bias(
        call,
        x,
        w,
        bias,
        axis=channel_axis,
        preferred=preferred_element_type,
        sums=mode != "zeros",
    )
    return layout.restore(y)


def _unpadded(window: Window) -> Window:
    """The same convolution, of an image that has its padding already."""
    size = [n + lo + hi for n, (lo, hi) in zip(window.size, window.padding, strict=True)]
    return window._replace(size=tuple(size), padding=((0, 0),) * len(size))


def transposed_window(
    where: str,
    layout: Layout,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Any,
    dilation: Any,
    padding: Any,
    output_padding: Any,
    output_shape: Any,
    convention: str,
    groups: Any,
) -> Window:
    """The window of the convolution that is transposed; its ``size`` is our output."""
    if convention not in ("minimal", "lax"):
        raise ValueError(error(where, f"convention must be 'minimal' or 'lax', got {convention!r}"))
    rank = layout.rank
    _, size, channels = layout.image(x_shape)
    kernel, each, inner = layout.window(w_shape)
    _window.check_taps(where, kernel)
    groups = _arguments.integer(where, "groups", groups, least=1)
    if inner != channels:
        raise ValueError(
            error(
                where,
                f"w must be (*K, O / groups, C), C = {channels} the channels of x, got {w_shape}",
                "It is the kernel of the convolution which this transposes, from O to C channels.",
            )
        )
    _window.check_channels(where, each * groups, each, channels, groups)
    stride = _arguments.integers(where, "stride", stride, rank)
    dilation = _arguments.integers(where, "dilation", dilation, rank)
    extra = _arguments.integers(where, "output_padding", output_padding, rank, least=0)
    wanted: Sequence[int | None] = (None,) * rank
    if output_shape is not None:
        wanted = _arguments.integers(where, "output_shape", output_shape, rank, least=0)
    entries = _padding.entries(where, padding, layout)
    axes = [
        _transposed_axis(where, *axis, convention=convention)
        for axis in zip(
            range(rank), entries, size, kernel, stride, dilation, extra, wanted, strict=True
        )
    ]
    return Window(
        size=tuple(out for out, _ in axes),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        input_dilation=(1,) * rank,
        padding=tuple(pads for _, pads in axes),
        positions=size,
        groups=groups,
    )


def _transposed_axis(
    where: str,
    axis: int,
    entry: Any,
    n: int,
    k: int,
    stride: int,
    dilation: int,
    extra: int,
    wanted: int | None,
    *,
    convention: str,
) -> tuple[int, tuple[int, int]]:
    """Output size and padding (lo, hi) of the transposed convolution's own forward, on one axis."""
    k_eff = _geometry.dilated_size(k, dilation)
    name = _padding.name_of(entry)
    if name in ("CAUSAL", "REVERSE_CAUSAL"):
        order, side = (1, "ahead of") if name == "CAUSAL" else (-1, "behind")
        raise ValueError(
            error(
                where,
                f"padding={name!r} could mean two things for a transposed convolution",
                f"No output {side} its input: padding={(0, max(k_eff - stride, 0))[::order]} "
                "there.",
                f"The adjoint of such a convolution: padding={(k_eff - 1, 0)[::order]}.",
            )
        )
    if extra and wanted is not None:
        raise ValueError(error(where, "output_padding and output_shape exclude each other"))
    if extra >= max(stride, dilation) or (extra and name in ("SAME", "SAME_LOWER")):
        raise ValueError(
            error(
                where,
                f"output_padding must be below max(stride, dilation) = {max(stride, dilation)}, "
                f"and 0 under 'SAME', got {extra} with padding {entry!r}",
                "Name the size itself: output_shape=...",
            )
        )
    if name in ("SAME", "SAME_LOWER"):
        least, most = stride * (n - 1) + 1 if n else 0, stride * n
        out = most if wanted is None else wanted
        pads = _geometry.string_padding(name, out, k_eff, stride)
    else:
        pads = _padding.axis_padding(where, entry, n, k_eff, stride)
        least = stride * (n - 1) + k_eff - sum(pads)
        most = least + stride - 1
        out = least + extra if wanted is None else wanted
        if wanted is None and name == "VALID" and convention == "lax":
            out += max(stride - k_eff, 0)
        if n == 0:
            least = most = out = 0
    if wanted is not None and not least <= wanted <= most:
        raise ValueError(
            error(
                where,
                f"output_shape must be {least} to {most} on spatial axis {axis}, got {wanted}",
                f"Those are the sizes from which a convolution at stride {stride} with padding "
                f"{entry!r} makes the {n} samples of x.",
            )
        )
    if out < 0 or (out == 0 and n > 0):
        raise ValueError(
            error(
                where,
                f"nothing is left of the output on spatial axis {axis}: padding {pads} crops all "
                f"of {stride * (n - 1) + k_eff} samples",
                "Crop less.",
            )
        )
    return out, pads
