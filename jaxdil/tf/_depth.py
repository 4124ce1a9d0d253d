"""Space into channels and back, in TensorFlow's order: places outside, channels inside.

space_to_depth    y[i, (r, c)] = x[b i + r, c]
extract_patches   y[p, (t, c)] = x[s p + r t - lo, c]
"""

from __future__ import annotations

from jaxtyping import Array, Num, Shaped

from jaxdil import _resample
from jaxdil import _unfold as _patches
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil.tf import _arguments

__all__ = ["depth_to_space", "extract_patches", "space_to_depth"]


def depth_to_space(
    input: Shaped[Array, "N _ _ _"],
    block_size: int,
    data_format: str = "NHWC",
    name: str | None = None,
) -> Shaped[Array, "N _ _ _"]:
    """Channels, spread over blocks of samples: ``y[b i + r, c] = input[i, (r, c)]`` on both axes.

    Args:
      input: input (N, H, W, block_size**2 C), or (N, block_size**2 C, H, W).
      block_size: size of a block, >= 1. (TensorFlow refuses 1.)
      data_format: "NHWC" or "NCHW".
      name: not used.

    Returns:
      y (N, H block_size, W block_size, C), or (N, C, H block_size, W block_size).

    Raises:
      ValueError: if block_size**2 does not divide the channels, and for input without four axes.
      TypeError: if block_size is not an integer.

    Twin of tf.nn.depth_to_space, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> depth_to_space(jnp.ones((1, 2, 3, 8)), 2).shape
    (1, 4, 6, 2)
    """
    where = "tf.depth_to_space"
    _arguments.ranks(where, 2, batches=False, input=input)
    chosen = _arguments.window(where, 2, padding="VALID", data_format=data_format).data_format
    return _resample.depth_to_space(input, block_size=block_size, data_format=chosen)


def space_to_depth(
    input: Shaped[Array, "N _ _ _"],
    block_size: int,
    data_format: str = "NHWC",
    name: str | None = None,
) -> Shaped[Array, "N _ _ _"]:
    """Blocks of samples, moved into the channels: ``y[i, (r, c)] = input[b i + r, c]``.

    Args:
      input: input (N, H, W, C), or (N, C, H, W).
      block_size: size of a block, >= 1. (TensorFlow refuses 1.)
      data_format: "NHWC" or "NCHW".
      name: not used.

    Returns:
      y (N, H / block_size, W / block_size, block_size**2 C), or with the channels first.

    Raises:
      ValueError: if block_size does not divide H and W, and for input without four axes.
      TypeError: if block_size is not an integer.

    Twin of tf.nn.space_to_depth, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> space_to_depth(jnp.ones((1, 4, 6, 2)), 2).shape
    (1, 2, 3, 8)
    """
    where = "tf.space_to_depth"
    _arguments.ranks(where, 2, batches=False, input=input)
    chosen = _arguments.window(where, 2, padding="VALID", data_format=data_format).data_format
    return _resample.space_to_depth(input, block_size=block_size, data_format=chosen)


def extract_patches(
    images: Num[Array, "N H W C"],
    sizes: Ints,
    strides: Ints,
    rates: Ints,
    padding: str,
    name: str | None = None,
) -> Num[Array, "N P Q _"]:
    """The patches of images, in their channels: ``y[p, (t, c)] = images[s p + r t - lo, c]``.

    Args:
      images: input (N, H, W, C).
      sizes: taps of a patch, as [1, KH, KW, 1].
      strides: samples between neighbouring patches, as [1, SH, SW, 1].
      rates: samples between neighbouring taps, as [1, RH, RW, 1].
      padding: "SAME" or "VALID".
      name: not used.

    Returns:
      y (N, P, Q, KH KW C).

    Raises:
      ValueError: for a patch that is larger than the image, and for numbers that cannot be.
      TypeError: for integers that are not.

    Twin of tf.image.extract_patches, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(9).reshape(1, 3, 3, 1)
    >>> extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID")[0, 0]
    Array([[0, 1, 3, 4],
           [1, 2, 4, 5]], dtype=int32)
    """
    where = "tf.extract_patches"
    _arguments.ranks(where, 2, batches=False, images=images)
    if not isinstance(padding, str):
        raise ValueError(
            error(
                where,
                f"padding must be 'SAME' or 'VALID', got {padding!r}",
                "Pairs are taken by jaxdil.unfold.",
            )
        )
    window = _arguments.window(
        where, 2, strides=strides, dilations=rates, padding=padding, dilation_name="rates"
    )
    return _patches.unfold(
        images,
        window=_arguments.integers(where, "sizes", sizes, 2),
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        data_format="NHWC",
    )
