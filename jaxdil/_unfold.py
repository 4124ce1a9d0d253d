"""The patches that a window reads, side by side, and their sum back into place.

    unfold   y[n, p, (t, c)] = x[n, s p + d t - lo, c]
    fold     x[n, i, c]      = sum of y[n, p, (t, c)] over all p, t with s p + d t - lo = i

Also known as im2col and col2im. Each is the other's adjoint, whether or not windows tile.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from jaxdil import _arguments, _slide
from jaxdil._arguments import Ints, Layout, Padding
from jaxdil._errors import error
from jaxdil._slide import Side
from jaxdil._window import Window

__all__ = ["fold", "patches_of", "sum_of", "unfold"]

ORDERS = ("KC", "CK")


def unfold(
    x: Num[Array, "..."],
    *,
    window: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "VALID",
    order: str = "KC",
    data_format: str | None = None,
) -> Num[Array, "..."]:
    """The patches of an array (im2col): all samples that each window reads, in its channels.

    ``y[n, p, (t, c)] = x[n, s p + d t - lo, c]``, zero in the padding. A convolution is the product
    of its patches and its kernel: ``unfold(x, window=K) @ w.reshape(-1, O)``.

    Args:
      x: input (N, *S, C). Without N where window is a list. With the layout in letters
        (``data_format="NHWC"``) any number of batch axes may stand in place of N.
      window: taps, >= 1; an int or one for each spatial axis.
      stride: samples between neighbouring windows, >= 1.
      dilation: samples between neighbouring taps, >= 1.
      padding: as in `conv`.
      order: "KC", taps outside and channels inside, as kernels (*K, I, O) and
        ``tf.image.extract_patches`` have it; or "CK", channels outside, as PyTorch's ``unfold`` and
        ``lax.conv_general_dilated_patches`` have it.
      data_format: "channels_last" (the default), "channels_first", or letters.

    Returns:
      y (N, *P, prod(window) C), or (N, prod(window) C, *P); P as in `conv`.

    Raises:
      ValueError: if the window is larger than the padded input, and for numbers that cannot be.
      TypeError: if x is no array, and for integers that are not.

    Cost: prod(window) / prod(stride) copies of x.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(6.0).reshape(1, 6, 1)
    >>> jaxdil.unfold(x, window=3, stride=2, padding=(1,))[0]
    Array([[0., 0., 1.],
           [1., 2., 3.],
           [3., 4., 5.]], dtype=float32)
    """
    where = "unfold"
    _arguments.check_arrays(where, x=x)
    _check_order(where, order)
    layout, slid = _slide.slide(
        where,
        x.shape,
        window=window,
        stride=stride,
        dilation=dilation,
        padding=padding,
        data_format=data_format,
    )
    return layout.restore(patches_of(layout.merge(x), layout, slid, order))


def fold(
    patches: Num[Array, "..."],
    *,
    size: Ints,
    window: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "VALID",
    order: str = "KC",
    data_format: str | None = None,
) -> Num[Array, "..."]:
    """The sum of patches, each sample where `unfold` read it (col2im).

    ``x[n, i, c] = sum of y[n, p, (t, c)] over all p, t with s p + d t - lo = i``: the adjoint of
    `unfold`. What no window reads is zero, and what several read is their sum, so that
    ``fold(unfold(x))`` is x times the number of windows that read each sample.

    Args:
      patches: (N, *P, prod(window) C), or (N, prod(window) C, *P), as `unfold` makes them.
      size: spatial size S of the result, >= 0; an int or one for each spatial axis.
      window: as in `unfold`.
      stride: as in `unfold`.
      dilation: as in `unfold`.
      padding: as in `unfold`; what falls into it is dropped.
      order: as in `unfold`.
      data_format: as in `unfold`.

    Returns:
      x (N, *S, C), or (N, C, *S). Half precision is summed in float32.

    Raises:
      ValueError: if patches is not what `unfold` makes of an input of that size.
      TypeError: if patches is no array, and for integers that are not.

    Cost: as `unfold`, and as many additions.

    >>> import jax.numpy as jnp
    >>> patches = jnp.ones((1, 2, 3))
    >>> jaxdil.fold(patches, size=6, window=3, stride=2).ravel()
    Array([1., 1., 2., 1., 1., 0.], dtype=float32)
    """
    where = "fold"
    _arguments.check_arrays(where, patches=patches)
    _check_order(where, order)
    kernel, layout = _slide.taps(where, patches.shape, window, data_format, x_name="patches")
    batch, positions, mixed = layout.image(layout.merged(patches.shape))
    sizes = _arguments.integers(where, "size", size, layout.rank, least=0)
    if mixed % math.prod(kernel):
        what = f"the channels of patches must be a multiple of {math.prod(kernel)}, the taps of "
        raise ValueError(error(where, f"{what}window={kernel}, got {mixed}"))
    shape = layout.result(batch, sizes, mixed // math.prod(kernel))
    slid = _slide.forward(
        where,
        layout,
        layout.merged(shape),
        kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
    )
    if slid.positions != positions:
        what = (
            f"patches must have {slid.positions} windows, as many as an input of size {sizes} has"
        )
        hint = f"patches has shape {patches.shape}."
        raise ValueError(error(where, f"{what}, got {positions}", hint))
    return layout.restore(sum_of(layout.merge(patches), layout, slid, order))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def patches_of(x: jax.Array, layout: Layout, window: Window, order: str) -> jax.Array:
    """What `unfold` does to x with one batch axis."""
    sides = _slide.sides(layout, window)
    batch, _, channels = layout.image(x.shape)
    y = _slide.widened(x)
    for side in reversed(sides):
        y = _slide.unfold_axis(_slide.frame(y, side), side)
    y = jnp.transpose(y, _patch_axes(layout, sides, order)).astype(x.dtype)
    shape = layout.result(batch, window.positions, math.prod(window.kernel) * channels)
    return y.reshape(layout.merged(shape))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def sum_of(patches: jax.Array, layout: Layout, window: Window, order: str) -> jax.Array:
    """What `fold` does to patches with one batch axis: each step of `patches_of`, undone."""
    sides = _slide.sides(layout, window)
    batch, _, mixed = layout.image(patches.shape)
    apart = [batch, *(n for side in sides for n in (side.taps, side.positions))]
    apart.insert(_channel_axis(layout, sides), mixed // math.prod(window.kernel))
    axes = _patch_axes(layout, sides, order)
    x = _slide.widened(patches).reshape([apart[axis] for axis in axes])
    x = jnp.transpose(x, sorted(range(len(axes)), key=axes.__getitem__))
    for side in sides:
        x = _slide.unframe(_slide.fold_axis(x, side), side)
    return x.astype(patches.dtype)


def _check_order(where: str, order: str) -> None:
    if order not in ORDERS:
        what = f"order must be 'KC' (taps outside, channels inside) or 'CK', got {order!r}"
        raise ValueError(error(where, what))


def _channel_axis(layout: Layout, sides: list[Side]) -> int:
    """Where the channels are while every spatial axis is two, (K, P)."""
    channel = layout.numbers.lhs_spec[1]
    return channel if channel < sides[0].axis else channel + len(sides)


def _patch_axes(layout: Layout, sides: list[Side], order: str) -> tuple[int, ...]:
    """The axes of (N, K, P, K, P, ..., C) in the order of the result."""
    first, channel = sides[0].axis, _channel_axis(layout, sides)
    taps = range(first, first + 2 * len(sides), 2)
    windows = (axis + 1 for axis in taps)
    patch = (*taps, channel) if order == "KC" else (channel, *taps)
    return (0, *patch, *windows) if channel < first else (0, *windows, *patch)
