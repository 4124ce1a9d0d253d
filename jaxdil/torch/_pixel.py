"""The pixel shuffle of torch.nn.functional: channels for resolution, and back.

    pixel_shuffle     y[c, r h + i, r w + j]     = x[c r^2 + i r + j, h, w]
    pixel_unshuffle   y[c r^2 + i r + j, h, w]   = x[c, r h + i, r w + j]

In a channel the colour c is the outer index and the place (i, j) in the block the inner one;
jaxdil.depth_to_space, TensorFlow's function, has them the other way round.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from jaxdil import _arguments as _own
from jaxdil._errors import error
from jaxdil.torch import _arguments

__all__ = ["pixel_shuffle", "pixel_unshuffle"]


def pixel_shuffle(
    input: Shaped[Array, "..."], upscale_factor: int | np.integer
) -> Shaped[Array, "..."]:
    """Channels, spread over blocks: ``y[c, r h + i, r w + j] = x[c r^2 + i r + j, h, w]``.

    Args:
      input: (*N, C r^2, H, W), with any number of batch axes.
      upscale_factor: r >= 1.

    Returns:
      y (*N, C, r H, r W).

    Raises:
      ValueError: if r^2 does not divide the channels, for r below 1, and for fewer than 3 axes.
      TypeError: for an r that is no integer, and if input is no array.

    Cost: one copy of input.

    Source: Shi et al., arXiv:1609.05158.

    Twin of torch.nn.functional.pixel_shuffle, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> jaxdil.torch.pixel_shuffle(jnp.arange(8).reshape(8, 1, 1), 2)
    Array([[[0, 1],
            [2, 3]],
    <BLANKLINE>
           [[4, 5],
            [6, 7]]], dtype=int32)
    """
    where = "torch.pixel_shuffle"
    x, r = _checked(where, input, "upscale_factor", upscale_factor)
    *lead, channels, height, width = x.shape
    if channels % r**2:
        what = f"upscale_factor squared must divide the channels of input, got {r} and {channels}"
        raise ValueError(error(where, f"{what} in shape {x.shape}"))
    c = channels // r**2
    x = x.reshape(*lead, c, r, r, height, width)
    x = jnp.moveaxis(x, (-4, -3), (-3, -1))
    return x.reshape(*lead, c, height * r, width * r)


def pixel_unshuffle(
    input: Shaped[Array, "..."], downscale_factor: int | np.integer
) -> Shaped[Array, "..."]:
    """The inverse: ``y[c r^2 + i r + j, h, w] = x[c, r h + i, r w + j]``.

    Args:
      input: (*N, C, r H, r W), with any number of batch axes.
      downscale_factor: r >= 1.

    Returns:
      y (*N, C r^2, H, W).

    Raises:
      ValueError: if r does not divide the sizes, for r below 1, and for fewer than 3 axes.
      TypeError: for an r that is no integer, and if input is no array.

    Cost: one copy of input.

    Twin of torch.nn.functional.pixel_unshuffle, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> jaxdil.torch.pixel_unshuffle(jnp.arange(4).reshape(1, 2, 2), 2).ravel()
    Array([0, 1, 2, 3], dtype=int32)
    """
    where = "torch.pixel_unshuffle"
    x, r = _checked(where, input, "downscale_factor", downscale_factor)
    *lead, channels, height, width = x.shape
    if height % r or width % r:
        what = f"downscale_factor must divide the sizes of input, got {r} and {(height, width)}"
        raise ValueError(error(where, what))
    x = x.reshape(*lead, channels, height // r, r, width // r, r)
    x = jnp.moveaxis(x, (-3, -1), (-4, -3))
    return x.reshape(*lead, channels * r**2, height // r, width // r)


def _checked(where: str, input: Any, name: str, factor: Any) -> tuple[jax.Array, int]:
    x, r = _arguments.tensor(where, input), _own.integer(where, name, factor, least=1)
    if x.ndim < 3:
        what = f"input must have channels, rows and columns, got shape {x.shape}"
        raise ValueError(error(where, what))
    return x, r
