"""Rows on a TPU as they lie in memory, and their blocks.

Channels lie in the lanes and time in the sublanes; or time in the lanes and channels in the
sublanes (`turned`); or 2, 4 or 8 examples in the sublanes (`abreast`), where time fills those less
well:

    (N, T, C)  lies as  (T, N / a, C / 128, a, 128)

A tile has one frame then, and a kernel takes the frames of one example out of many tiles by loads
with a stride. In half precision a word of 32 bits has the samples of two examples, the first in its
lower half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from jaxdil._layout import transpose
from jaxdil._pallas.axes import LANES
from jaxdil._pallas.plan_1d import Plan

__all__ = ["back", "block", "frames", "lie", "load", "place", "shape", "store"]


def lie(x: jax.Array, plan: Plan) -> jax.Array:
    """(N, T, C) as it lies in memory, which costs nothing."""
    n, t, c = x.shape
    if plan.turned:
        # Channels of all examples beside each other.
        return transpose(x, (0, 2, 1)).reshape(1, n * c, t)
    if plan.abreast == 1:
        return x
    _, beside, tiles, abreast, lanes = shape(plan, t)
    return transpose(x.reshape(beside, abreast, t, tiles, lanes), (2, 0, 3, 1, 4))


def back(y: jax.Array, plan: Plan, batch: int) -> jax.Array:
    """(N, P, C) of what lies in memory."""
    if plan.turned:
        return transpose(y.reshape(batch, -1, y.shape[2]), (0, 2, 1))
    return y if plan.abreast == 1 else transpose(y, (1, 3, 0, 2, 4)).reshape(batch, y.shape[0], -1)


def shape(plan: Plan, size: int) -> tuple[int, ...]:
    """The shape of an array as it lies. Channels that fill no tile stay together."""
    if plan.abreast == 1:
        return _order(plan, plan.batch, size, plan.channels)
    lanes = LANES if plan.channels % LANES == 0 else plan.channels
    return size, plan.batch // plan.abreast, plan.channels // lanes, plan.abreast, lanes


def block(plan: Plan, rows: int) -> tuple[int, ...]:
    """The shape of a block of so many frames."""
    if plan.abreast == 1:
        return _order(plan, 1, rows, plan.lanes)
    return rows, 1, plan.lanes // LANES, plan.abreast, LANES


def place(plan: Plan, n: Any, t: Any, c: Any) -> tuple[Any, ...]:
    """Where a block is."""
    if plan.abreast == 1:
        return _order(plan, n, t, c)
    return (t, n, c, 0, 0) if plan.channels % LANES == 0 else (t, n, 0, 0, c)


def frames(plan: Plan, ref: Any) -> int:
    """Frames of a block."""
    return int(ref.shape[0 if plan.abreast > 1 else 2 if plan.turned else 1])


def load(
    ref: Any, plan: Plan, row: Any, rows: int, lane: int, *, views: bool
) -> Iterator[jax.Array]:
    """Some frames of 128 channels of each example, in single precision, time in the sublanes.

    Args:
      ref: a block.
      plan: its plan.
      row: the first frame.
      rows: how many.
      lane: the first channel.
      views: whether a block can be seen as words.
    """
    if plan.abreast == 1:
        part = ref[_part(plan, row, rows, lane)].astype(jnp.float32)
        yield part.T if plan.turned else part
    elif not views:
        parts = ref[pl.ds(row, rows), 0, lane // LANES].astype(jnp.float32)
        yield from (parts[:, example] for example in range(plan.abreast))
    else:
        words, slots = _words(ref, row, rows, lane)
        for slot in slots:
            yield from _numbers(words[slot, :], ref.dtype)


def store(
    ref: Any,
    plan: Plan,
    row: Any,
    rows: int,
    lane: int,
    parts: Iterable[jax.Array],
    *,
    views: bool,
) -> None:
    """Write some frames of 128 channels of each example, as `load` gives them."""
    if plan.abreast == 1:
        (part,) = parts
        ref[_part(plan, row, rows, lane)] = (part.T if plan.turned else part).astype(ref.dtype)
    elif not views:
        ref[pl.ds(row, rows), 0, lane // LANES] = jnp.stack(list(parts), 1).astype(ref.dtype)
    else:
        each = iter(parts)
        words, slots = _words(ref, row, rows, lane)
        for slot in slots:
            words[slot, :] = _word(each, ref.dtype)


def _order(plan: Plan, n: Any, t: Any, c: Any) -> tuple[Any, ...]:
    """Something of each axis in the order in memory."""
    return (n, c, t) if plan.turned else (n, t, c)


def _part(plan: Plan, row: Any, rows: int, lane: int) -> tuple[Any, ...]:
    return _order(plan, 0, pl.ds(row, rows), slice(lane, lane + LANES))


# --- words of 32 bits -----------------------------------------------------------------------------


def _words(ref: Any, row: Any, rows: int, lane: int) -> tuple[Any, list[Any]]:
    """Some frames as words of 128 lanes below each other, and where each tile has one."""
    _, _, tiles, words, _ = ref.shape
    # Cut first: then each load begins where it is known to.
    ref = ref.at[pl.ds(row, rows)]
    words //= 4 // ref.dtype.itemsize
    step = tiles * words
    first = lane // LANES * words
    slots = [pl.ds(first + word, rows, step) for word in range(words)]
    return ref.bitcast(jnp.uint32).reshape(rows * step, LANES), slots


def _numbers(word: jax.Array, dtype: Any) -> Iterator[jax.Array]:
    """The numbers that words have."""
    if dtype != jnp.float32:
        yield lax.bitcast_convert_type(word << np.uint32(16), jnp.float32)
        word &= np.uint32(0xFFFF0000)
    yield lax.bitcast_convert_type(word, jnp.float32)


def _word(numbers: Iterator[jax.Array], dtype: Any) -> jax.Array:
    """Words of the next numbers, which are rounded to half precision."""
    if dtype == jnp.float32:
        return lax.bitcast_convert_type(next(numbers), jnp.uint32)
    pair = [lax.bitcast_convert_type(next(numbers).astype(dtype), jnp.uint16) for _ in range(2)]
    lower, upper = (half.astype(jnp.uint32) for half in pair)
    return lower | (upper << np.uint32(16))
