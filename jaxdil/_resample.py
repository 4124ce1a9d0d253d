"""Every b-th sample of a space set aside, in the batch or in the channels, and put back.

space_to_batch   y[phase N + n, i, c] = x[n, b i + r - lo, c]      phase: r, row-major
space_to_depth   y[n, i, phase C + c] = x[n, b i + r, c]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from jaxdil._arguments import Ints, integers
from jaxdil._errors import error

__all__ = [
    "array",
    "batch_to_space",
    "crop",
    "depth_to_space",
    "interleave",
    "pad",
    "phases",
    "space_to_batch",
    "space_to_batch_paddings",
    "space_to_depth",
    "spatial_axes",
    "split",
    "stack",
]

Pairs: TypeAlias = tuple[tuple[int, int], ...]
AxisPairs: TypeAlias = int | np.integer | Sequence[Ints] | np.ndarray


# --- space and batch ------------------------------------------------------------------------------


def space_to_batch(
    x: Shaped[Array, "N ..."], *, block_shape: Sequence[int] | np.ndarray, paddings: AxisPairs = 0
) -> Shaped[Array, "..."]:
    """The phases of the axes after the batch, moved into the batch in TensorFlow's order.

    ``y[phase N + n, i, ...] = x[n, b i + r - lo, ...]``: sample r of each block goes to phase r,
    phases being numbered row-major over the block axes. What lies outside x is zero.

    Args:
      x: array (N, *S, ...); the block axes are those right after the batch.
      block_shape: size b of a block on each block axis, >= 1; as many as there are block axes.
      paddings: zeros put around x first: an int, or for each block axis an int or a pair
        (before, after), >= 0. `space_to_batch_paddings` finds what makes any size fit.

    Returns:
      y (prod(block_shape) N, *S', ...) with S' = (before + S + after) / block_shape.

    Raises:
      ValueError: if a block does not divide its padded axis, and for numbers that cannot be.
      TypeError: if x is no array, and for integers that are not.

    Cost: one copy of x.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(5).reshape(1, 5)
    >>> jaxdil.space_to_batch(x, block_shape=[2], paddings=[(0, 1)])
    Array([[0, 2, 4],
           [1, 3, 0]], dtype=int32)
    """
    where = "space_to_batch"
    x = array(where, x)
    blocks = _blocks(where, block_shape, x)
    pads = _pairs(where, "paddings", paddings, len(blocks))
    padded = tuple(n + lo + hi for n, (lo, hi) in zip(x.shape[1:], pads, strict=False))
    if any(n % b for n, b in zip(padded, blocks, strict=True)):
        what = f"block_shape {blocks} must divide the padded sizes, got {padded}"
        hint = "space_to_batch_paddings(sizes, block_shape=...) finds paddings that fit."
        raise ValueError(error(where, what, f"x has shape {x.shape}, paddings are {pads}.", hint))
    return stack(phases(pad(x, pads, 1), blocks, 1), len(blocks))


def batch_to_space(
    x: Shaped[Array, "N ..."], *, block_shape: Sequence[int] | np.ndarray, crops: AxisPairs = 0
) -> Shaped[Array, "..."]:
    """The phases in the batch, interleaved into space again: the inverse of `space_to_batch`.

    ``y[n, b i + r - lo, ...] = x[phase N + n, i, ...]``.

    Args:
      x: array (prod(block_shape) N, *S, ...).
      block_shape: size b of a block on each of the axes after the batch, >= 1.
      crops: samples cut off the result: an int, or for each block axis an int or a pair
        (before, after), >= 0. The paddings of `space_to_batch` give back what it was given.

    Returns:
      y (N, *S', ...) with S' = S block_shape - before - after.

    Raises:
      ValueError: if the phases do not divide the batch, and for numbers that cannot be.
      TypeError: if x is no array, and for integers that are not.

    Cost: one copy of x.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0, 2, 4], [1, 3, 0]])
    >>> jaxdil.batch_to_space(x, block_shape=[2], crops=[(0, 1)])
    Array([[0, 1, 2, 3, 4]], dtype=int32)
    """
    where = "batch_to_space"
    x = array(where, x)
    blocks = _blocks(where, block_shape, x)
    cuts = _pairs(where, "crops", crops, len(blocks))
    if x.shape[0] % math.prod(blocks):
        what = f"the batch of x must be a multiple of the {math.prod(blocks)} phases"
        raise ValueError(error(where, f"{what} of block_shape {blocks}, got shape {x.shape}"))
    for axis, (m, b, (lo, hi)) in enumerate(zip(x.shape[1:], blocks, cuts, strict=False)):
        if lo + hi > m * b:
            what = f"crops[{axis}] must cut off at most the {m * b} samples there are"
            raise ValueError(error(where, f"{what}, got {(lo, hi)}"))
    y = interleave(split(x, blocks, 0), blocks, 1)
    return crop(y, [(lo, n - hi) for n, (lo, hi) in zip(y.shape[1:], cuts, strict=False)], 1)


def space_to_batch_paddings(
    input_shape: Sequence[int] | np.ndarray,
    *,
    block_shape: Ints | np.ndarray,
    base_paddings: AxisPairs | None = None,
) -> tuple[Pairs, Pairs]:
    """Paddings with which `space_to_batch` takes any size, and the crops that undo them.

    ``paddings = (lo, hi + extra)``, ``crops = (0, extra)``, ``extra = -(n + lo + hi) mod b``: the
    base paddings stay, and what was added to reach a multiple is cut off again.

    Args:
      input_shape: sizes n of the block axes (no batch, no channels), >= 0.
      block_shape: size b of a block, >= 1; an int or one for each of them.
      base_paddings: padding (lo, hi) that is wanted anyway, such as that of a SAME convolution:
        an int, or for each axis an int or a pair, >= 0; None for none.

    Returns:
      (paddings, crops), both one pair (before, after) an axis.

    Raises:
      ValueError: for lengths that differ, and numbers that cannot be.
      TypeError: for integers that are not.

    Source: ``tf.required_space_to_batch_paddings``.

    >>> jaxdil.space_to_batch_paddings([9, 8], block_shape=[2, 2])
    (((0, 1), (0, 0)), ((0, 1), (0, 0)))
    >>> jaxdil.space_to_batch_paddings([9], block_shape=[4], base_paddings=[(2, 2)])
    (((2, 5),), ((0, 3),))
    """
    where = "space_to_batch_paddings"
    sizes = _list(where, "input_shape", input_shape, least=0)
    blocks = integers(where, "block_shape", block_shape, len(sizes))
    base = _pairs(where, "base_paddings", 0 if base_paddings is None else base_paddings, len(sizes))
    extra = [-(n + lo + hi) % b for n, b, (lo, hi) in zip(sizes, blocks, base, strict=True)]
    paddings = tuple((lo, hi + more) for (lo, hi), more in zip(base, extra, strict=True))
    return paddings, tuple((0, more) for more in extra)


# --- space and depth ------------------------------------------------------------------------------


def space_to_depth(
    x: Shaped[Array, "N ..."], *, block_size: Ints, data_format: str | None = None
) -> Shaped[Array, "..."]:
    """Blocks of samples, moved into the channels in TensorFlow's order.

    ``y[n, i, phase C + c] = x[n, b i + r, c]``: of a channel of y, the place in the block is the
    outer index and the channel of x the inner one. PyTorch's ``pixel_unshuffle`` swaps the two.

    Args:
      x: input (N, *S, C), or (N, C, *S) with channels first; any number of spatial axes.
      block_size: size b of a block, >= 1; an int or one for each spatial axis.
      data_format: "channels_last" (the default), "channels_first", or letters ("NHWC", "NCHW").

    Returns:
      y (N, *S / block_size, prod(block_size) C), or channels first.

    Raises:
      ValueError: if a block does not divide its axis, and for numbers that cannot be.
      TypeError: if x is no array, and for integers that are not.

    Cost: one copy of x.

    >>> import jax.numpy as jnp
    >>> jaxdil.space_to_depth(jnp.arange(8).reshape(1, 2, 4, 1), block_size=2)
    Array([[[[0, 1, 4, 5],
             [2, 3, 6, 7]]]], dtype=int32)
    """
    where = "space_to_depth"
    x = array(where, x)
    first, channel = spatial_axes(where, x, data_format)
    rank = x.ndim - 2
    blocks = integers(where, "block_size", block_size, rank)
    size = x.shape[first : first + rank]
    if any(n % b for n, b in zip(size, blocks, strict=True)):
        what = f"block_size {blocks} must divide the spatial sizes of x, got {size}"
        raise ValueError(error(where, what))
    y = jnp.moveaxis(phases(x, blocks, first), range(rank), range(channel, channel + rank))
    return stack(y, rank, channel)


def depth_to_space(
    x: Shaped[Array, "N ..."], *, block_size: Ints, data_format: str | None = None
) -> Shaped[Array, "..."]:
    """Channels, spread over blocks of samples: the inverse of `space_to_depth`.

    ``y[n, b i + r, c] = x[n, i, phase C + c]``. PyTorch's ``pixel_shuffle`` swaps phase and c.

    Args:
      x: input (N, *S, prod(block_size) C), or channels first; any number of spatial axes.
      block_size: size b of a block, >= 1; an int or one for each spatial axis.
      data_format: as in `space_to_depth`.

    Returns:
      y (N, *S block_size, C), or channels first.

    Raises:
      ValueError: if prod(block_size) does not divide C, and for numbers that cannot be.
      TypeError: if x is no array, and for integers that are not.

    Cost: one copy of x.

    >>> import jax.numpy as jnp
    >>> jaxdil.depth_to_space(jnp.arange(8).reshape(1, 1, 2, 4), block_size=2).reshape(2, 4)
    Array([[0, 1, 4, 5],
           [2, 3, 6, 7]], dtype=int32)
    """
    where = "depth_to_space"
    x = array(where, x)
    first, channel = spatial_axes(where, x, data_format)
    rank = x.ndim - 2
    blocks = integers(where, "block_size", block_size, rank)
    if x.shape[channel] % math.prod(blocks):
        what = (
            f"the channels of x must be a multiple of {math.prod(blocks)}, the samples of a block"
        )
        raise ValueError(error(where, f"{what} {blocks}, got {x.shape[channel]}"))
    y = jnp.moveaxis(split(x, blocks, channel), range(channel, channel + rank), range(rank))
    return interleave(y, blocks, first)


# --- the steps ------------------------------------------------------------------------------------


def phases(x: jax.Array, blocks: Sequence[int], first: int) -> jax.Array:
    """Axes of size m b from ``first`` on as m, their phases in front: (*b, ..., *m, ...)."""
    rank = len(blocks)
    parts = [part for n, b in zip(x.shape[first:], blocks, strict=False) for part in (n // b, b)]
    y = x.reshape(*x.shape[:first], *parts, *x.shape[first + rank :])
    return jnp.moveaxis(y, range(first + 1, first + 2 * rank, 2), range(rank))


def interleave(y: jax.Array, blocks: Sequence[int], first: int) -> jax.Array:
    """The inverse of `phases`."""
    rank = len(blocks)
    spread = [m * b for m, b in zip(y.shape[rank + first :], blocks, strict=False)]
    shape = (*y.shape[rank : rank + first], *spread, *y.shape[2 * rank + first :])
    return jnp.moveaxis(y, range(rank), range(first + 1, first + 2 * rank, 2)).reshape(shape)


def stack(y: jax.Array, rank: int, axis: int = 0) -> jax.Array:
    """The axes (*b, n) from ``axis`` on as one."""
    end = axis + rank + 1
    return y.reshape(*y.shape[:axis], math.prod(y.shape[axis:end]), *y.shape[end:])


def split(x: jax.Array, blocks: Sequence[int], axis: int) -> jax.Array:
    """The inverse of `stack`."""
    n = x.shape[axis] // math.prod(blocks)
    return x.reshape(*x.shape[:axis], *blocks, n, *x.shape[axis + 1 :])


def pad(x: jax.Array, pads: Sequence[tuple[int, int]], first: int) -> jax.Array:
    """Zeros before and after the samples of the axes from ``first`` on."""
    widths = [(0, 0, 0)] * x.ndim
    widths[first : first + len(pads)] = [(lo, hi, 0) for lo, hi in pads]
    return lax.pad(x, jnp.zeros((), x.dtype), widths)


def crop(x: jax.Array, bounds: Sequence[tuple[int, int]], first: int) -> jax.Array:
    """Samples [start, stop) of the axes from ``first`` on."""
    keep = [(0, n) for n in x.shape]
    keep[first : first + len(bounds)] = bounds
    return lax.slice(x, [start for start, _ in keep], [stop for _, stop in keep])


# --- the checks -----------------------------------------------------------------------------------


def array(where: str, x: Any) -> jax.Array:
    """``x``, if it is an array with a batch."""
    if not isinstance(x, jax.Array | np.ndarray):
        what = f"x must be an array, got {type(x).__name__}"
        raise TypeError(error(where, what, "Pass jnp.asarray(x)."))
    if x.ndim == 0:
        raise ValueError(error(where, "x must have a batch axis, got a scalar"))
    return jnp.asarray(x)


def spatial_axes(where: str, x: jax.Array, data_format: Any) -> tuple[int, int]:
    """The first spatial axis, and the axis of the channels."""
    if x.ndim < 3:
        what = f"x must have a batch, spatial axes and channels, got shape {x.shape}"
        raise ValueError(error(where, what))
    letters = data_format.upper() if isinstance(data_format, str) else ""
    if not (len(letters) == x.ndim and letters[0] == "N" and letters[1:].count("C") == 1):
        letters = ""
    if data_format == "channels_first" or letters[1:2] == "C":
        return 2, 1
    if data_format in (None, "channels_last") or letters[-1:] == "C":
        return 1, x.ndim - 1
    what = "data_format must be 'channels_last', 'channels_first' or letters such as 'NHWC', 'NCHW'"
    hint = f"x has shape {x.shape}: {x.ndim} letters, N the first, C the second or the last."
    raise ValueError(error(where, f"{what}, got {data_format!r}", hint))


def _list(where: str, name: str, value: Any, *, least: int) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        what = f"{name} must be a sequence of integers, one an axis, got {value!r}"
        raise TypeError(error(where, what))
    return integers(where, name, value, len(value), least=least)


def _blocks(where: str, block_shape: Any, x: jax.Array) -> tuple[int, ...]:
    blocks = _list(where, "block_shape", block_shape, least=1)
    if len(blocks) >= x.ndim:
        what = f"block_shape must have at most {x.ndim - 1} entries, one for each axis of x after"
        raise ValueError(error(where, f"{what} the batch, got {blocks} for shape {x.shape}"))
    return blocks


def _pairs(where: str, name: str, value: Any, rank: int) -> Pairs:
    """(before, after) of each axis, >= 0."""
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        value = [value] * rank
    if len(value) != rank:
        what = f"{name} must have one entry a block axis, {rank} in all, got {value!r}"
        raise ValueError(error(where, what))
    pairs = [integers(where, f"{name}[{a}]", entry, 2, least=0) for a, entry in enumerate(value)]
    return tuple((lo, hi) for lo, hi in pairs)
