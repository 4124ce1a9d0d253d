"""TensorFlow's way to dilate: split a space into phases, run a function on them, put them together.

    with_space_to_batch(x, r, "VALID", op)
        = batch_to_space(op(space_to_batch(x, r, paddings)), r, crops)

with the paddings and crops that required_space_to_batch_paddings gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Int, Shaped

from jaxdil import _arguments as _own
from jaxdil import _resample
from jaxdil._errors import error
from jaxdil.tf import _arguments
from jaxdil.tf._arguments import TfPadding

__all__ = [
    "batch_to_space_nd",
    "required_space_to_batch_paddings",
    "space_to_batch_nd",
    "with_space_to_batch",
]


def space_to_batch_nd(
    input: Shaped[Array, "N ..."],
    block_shape: Sequence[int] | np.ndarray,
    paddings: Sequence[Sequence[int]] | np.ndarray,
    name: str | None = None,
) -> Shaped[Array, "..."]:
    """Phases, moved into the batch: ``y[phase N + n, i] = x[n, b i + phase - lo]``.

    Args:
      input: array (N, *S, ...); the block axes come right after the batch.
      block_shape: size of a block on each block axis, >= 1.
      paddings: a pair (before, after) >= 0 for each block axis.
      name: not used.

    Returns:
      y (prod(block_shape) N, *(S + before + after) / block_shape, ...).

    Raises:
      ValueError: if a block does not divide its padded axis, for a block below 1, a negative
        padding.
      TypeError: for integers that are not.

    Twin of tf.space_to_batch_nd (tf.space_to_batch in TensorFlow 2), TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> space_to_batch_nd(jnp.arange(5).reshape(1, 5), [2], [[0, 1]])
    Array([[0, 2, 4],
           [1, 3, 0]], dtype=int32)
    """
    where = "tf.space_to_batch_nd"
    blocks = _blocks(where, "block_shape", block_shape)
    pads = _arguments.pairs(where, "paddings", paddings, len(blocks))
    return _resample.space_to_batch(input, block_shape=blocks, paddings=pads)


def batch_to_space_nd(
    input: Shaped[Array, "N ..."],
    block_shape: Sequence[int] | np.ndarray,
    crops: Sequence[Sequence[int]] | np.ndarray,
    name: str | None = None,
) -> Shaped[Array, "..."]:
    """The inverse of `space_to_batch_nd`: ``y[n, b i + phase - lo] = x[phase N + n, i]``.

    Args:
      input: array (prod(block_shape) N, *S, ...).
      block_shape: size of a block on each of the axes after the batch, >= 1.
      crops: a pair (before, after) >= 0 for each of them, cut off the result.
      name: not used.

    Returns:
      y (N, *S block_shape - before - after, ...).

    Raises:
      ValueError: if prod(block_shape) does not divide the batch, if more is cropped than is there,
        for a block below 1, a negative crop.
      TypeError: for integers that are not.

    Twin of tf.batch_to_space_nd (tf.batch_to_space in TensorFlow 2), TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> batch_to_space_nd(jnp.array([[0, 2, 4], [1, 3, 0]]), [2], [[0, 1]])
    Array([[0, 1, 2, 3, 4]], dtype=int32)
    """
    where = "tf.batch_to_space_nd"
    blocks = _blocks(where, "block_shape", block_shape)
    cuts = _arguments.pairs(where, "crops", crops, len(blocks))
    return _resample.batch_to_space(input, block_shape=blocks, crops=cuts)


def required_space_to_batch_paddings(
    input_shape: Sequence[int] | np.ndarray,
    block_shape: Sequence[int] | np.ndarray,
    base_paddings: Sequence[Sequence[int]] | np.ndarray | None = None,
    name: str | None = None,
) -> tuple[Int[np.ndarray, "rank 2"], Int[np.ndarray, "rank 2"]]:
    """Paddings with which the blocks divide any size, and the crops that undo them.

    ``paddings = (lo, hi + extra)``, ``crops = (0, extra)`` with ``extra = -(n + lo + hi) mod b``.

    Args:
      input_shape: sizes of the block axes.
      block_shape: size of a block on each of them, >= 1.
      base_paddings: a pair (lo, hi) >= 0 wanted anyway on each of them; None means 0.
      name: not used.

    Returns:
      (paddings, crops), NumPy arrays of int32, one row (before, after) for each axis.

    Raises:
      ValueError: for lengths that differ, a block below 1, a negative size or padding.
      TypeError: for integers that are not.

    Twin of tf.required_space_to_batch_paddings, TensorFlow 2.21.

    >>> paddings, crops = required_space_to_batch_paddings([9, 8], [2, 2])
    >>> paddings.tolist(), crops.tolist()
    ([[0, 1], [0, 0]], [[0, 1], [0, 0]])
    """
    where = "tf.required_space_to_batch_paddings"
    blocks = _blocks(where, "block_shape", block_shape)
    if len(input_shape) != len(blocks):
        what = "input_shape and block_shape must be equally long"
        raise ValueError(error(where, f"{what}, got {len(input_shape)} and {len(blocks)}"))
    base = None
    if base_paddings is not None:
        base = _arguments.pairs(where, "base_paddings", base_paddings, len(blocks))
    paddings, crops = _resample.space_to_batch_paddings(
        input_shape, block_shape=blocks, base_paddings=base
    )
    rows = (len(blocks), 2)
    return np.reshape(paddings, rows).astype(np.int32), np.reshape(crops, rows).astype(np.int32)


def with_space_to_batch(
    input: Shaped[Array, "N ..."],
    dilation_rate: Sequence[int] | np.ndarray,
    padding: TfPadding,
    op: Callable[[Any, int, Any], Any],
    filter_shape: Sequence[int] | np.ndarray | None = None,
    spatial_dims: Sequence[int] | None = None,
    data_format: str | None = None,
) -> Shaped[Array, "..."]:
    """``op``, dilated: applied to the phases of input, which are then put together again.

    Without a rate above 1 it is ``op(input, number of rates, padding)``; otherwise op is given the
    phases and "VALID". The numbers are TensorFlow's, also where its advice to chain several SAME
    functions inside one op goes wrong (sizes that are no multiple of the rate):
    `jaxdil.with_space_to_batch` chains rightly.

    Args:
      input: array (N, *S, C), or (N, C, *S).
      dilation_rate: the rate of each spatial axis, >= 1.
      padding: "SAME", "VALID", or a pair for each axis, batch and channels included.
      op: function of an array, the number of spatial axes, and a padding.
      filter_shape: shape of the kernel, of which "SAME" reads the spatial sizes at the start.
      spatial_dims: the axes with a rate, increasing, >= 1; None means those after the batch, or
        after the channels if they come first.
      data_format: None, or letters; channels come first if they start with "NC".

    Returns:
      What op makes of the phases, as one array of the batch of input.

    Raises:
      ValueError: for spatial_dims that do not fit input or the rates, "SAME" without filter_shape,
        rates below 1, another padding.
      TypeError: for integers that are not.

    Twin of tf.nn.with_space_to_batch, TensorFlow 2.21.

    >>> import jax.numpy as jnp
    >>> from jaxdil import conv
    >>> x, w = jnp.arange(7.0).reshape(1, 7, 1), jnp.ones((3, 1, 1))
    >>> with_space_to_batch(
    ...     x, [2], "VALID", lambda x, _, padding: conv(x, w, padding=padding)
    ... ).ravel()
    Array([ 6.,  9., 12.], dtype=float32)
    """
    where = "tf.with_space_to_batch"
    rates = _blocks(where, "dilation_rate", dilation_rate)
    first = data_format is not None and data_format.startswith("NC")
    axes = _axes(where, spatial_dims, len(rates), input.ndim, first=first)
    if max(rates, default=1) == 1:
        return op(input, len(rates), padding)
    base = _base(where, padding, rates, filter_shape, first=first)
    sizes = [input.shape[axis] for axis in axes]
    pads, crops = _resample.space_to_batch_paddings(sizes, block_shape=rates, base_paddings=base)

    def spread(values: Sequence[Any], other: Any) -> list[Any]:
        """An entry for every axis from the one after the batch to the last spatial one."""
        given = dict(zip(axes, values, strict=True))
        return [given.get(axis, other) for axis in range(1, axes[-1] + 1)]

    blocks = spread(rates, 1)
    phases = _resample.space_to_batch(input, block_shape=blocks, paddings=spread(pads, (0, 0)))
    y = op(phases, len(rates), "VALID")
    return _resample.batch_to_space(y, block_shape=blocks, crops=spread(crops, (0, 0)))


def _blocks(where: str, name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or len(np.shape(value)) != 1:
        what = f"{name} must be a list of integers, one for each spatial axis, got {value!r}"
        raise ValueError(error(where, what))
    return tuple(_own.integer(where, f"{name}[{i}]", item, least=1) for i, item in enumerate(value))


def _axes(where: str, spatial_dims: Any, rank: int, ndim: int, *, first: bool) -> list[int]:
    start = 2 if first else 1
    given = range(start, start + rank) if spatial_dims is None else spatial_dims
    axes = [_own.integer(where, f"spatial_dims[{i}]", axis) for i, axis in enumerate(given)]
    if axes != sorted(set(axes)) or len(axes) != rank or (axes and axes[0] < 1):
        what = f"spatial_dims must be {rank} axes >= 1 in increasing order, got {spatial_dims!r}"
        more = "One for each entry of dilation_rate; axis 0 is the batch."
        raise ValueError(error(where, what, more))
    if axes and axes[-1] >= ndim:
        what = f"input must have more than {axes[-1]} axes for spatial_dims {axes}, got {ndim}"
        raise ValueError(error(where, what))
    return axes


def _base(
    where: str, padding: Any, rates: tuple[int, ...], filter_shape: Any, *, first: bool
) -> Sequence[tuple[int, int]]:
    rank = len(rates)
    if not isinstance(padding, str):
        every = _arguments.pairs(where, "padding", padding, rank + 2)
        return every[2:] if first else every[1:-1]
    if padding.upper() == "VALID":
        return ((0, 0),) * rank
    if padding.upper() != "SAME":
        what = f"padding must be 'SAME', 'VALID' or a list of pairs, got {padding!r}"
        raise ValueError(error(where, what))
    if filter_shape is None or len(filter_shape) < rank:
        what = f"filter_shape must have at least {rank} entries for 'SAME', got {filter_shape!r}"
        raise ValueError(error(where, what, "They say how far the kernel reaches."))
    taps = [_own.integer(where, "filter_shape", k, least=1) for k in filter_shape[:rank]]
    total = [(k - 1) * r for k, r in zip(taps, rates, strict=True)]
    return [(t // 2, t - t // 2) for t in total]
