"""Images on a TPU as they lie in memory, and their rows.

Channels lie in the lanes and columns in the sublanes; or columns in the lanes and channels in the
sublanes (`across`); or 2, 4 or 8 images in the sublanes (`abreast`), where columns fill those less
well. Images abreast are one whose columns are theirs in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from jaxdil._layout import transpose
from jaxdil._pallas.plan_2d import LANES, SUBLANES

__all__ = [
    "Lies",
    "all_of",
    "arranged",
    "back",
    "block_at",
    "order",
    "parts_of",
    "swapped",
    "write",
]

# How an image lies: whether its columns are in the lanes, and images in the sublanes, else 1.
Lies = tuple[bool, int]


def order(n: Any, h: Any, w: Any, c: Any, across: bool) -> tuple[Any, ...]:  # noqa: FBT001
    """Something of each axis in the order in memory."""
    return (n, h, c, w) if across else (n, h, w, c)


def swapped(x: jax.Array, across: bool) -> jax.Array:  # noqa: FBT001
    """(N, H, W, C) in the order in memory, or back."""
    return transpose(x, (0, 1, 3, 2)) if across else x


def arranged(n: Any, h: Any, w: Any, c: Any, lies: Lies) -> tuple[Any, ...]:
    """Something of each axis in the order in memory, also of images abreast."""
    return (h, w, n, c) if lies[1] > 1 else order(n, h, w, c, lies[0])


def block_at(n: Any, u: Any, slices: int, lies: Lies) -> tuple[Any, ...]:
    """Where a block of images, or of slices of one, and of channels is."""
    if slices == 1:
        return arranged(n, 0, 0, u, lies)
    return arranged(lax.div(n, jnp.int32(slices)), lax.rem(n, jnp.int32(slices)), 0, u, lies)


def back(x: jax.Array, lies: Lies, *, away: bool = False) -> jax.Array:
    """(N, H, W, C) of the order in memory, or ``away`` from it."""
    if lies[1] > 1:
        return transpose(x, (1, 2, 0, 3) if away else (2, 0, 1, 3))
    return swapped(x, lies[0])


def all_of(x: Any, n: Any, r: Any, count: int, lies: Lies) -> Any:
    """A row of all channels in single precision, its last two axes as they lie in memory."""
    across, abreast = lies
    if abreast > 1:
        row = x[pl.ds(r, 1), slice(0, count // abreast), pl.ds(n * abreast, abreast)]
        return row.astype(jnp.float32)[0]
    columns = (slice(None), slice(0, count)) if across else (slice(0, count), slice(None))
    return x[(pl.ds(n, 1), pl.ds(r, 1), *columns)].astype(jnp.float32)[0, 0]


def parts_of(
    x: Any, n: Any, r: Any, count: int, lanes: slice, lies: Lies
) -> Iterator[tuple[int, Any]]:
    """The columns of some channels of a row in parts, each with its first, in single precision."""
    across, abreast = lies
    if abreast > 1:
        images = pl.ds(n * abreast, abreast)
        row = x[pl.ds(r, 1), slice(0, count // abreast), images, lanes].astype(jnp.float32)[0]
        if abreast == SUBLANES:
            yield 0, row.reshape(count, -1)
            return
        for at in range(count // abreast):
            yield at * abreast, row[at]
        return
    one = pl.ds(n, 1), pl.ds(r, 1)
    if not across:
        yield 0, x[(*one, slice(0, count), lanes)].astype(jnp.float32)[0, 0]
        return
    for at in range(0, count, LANES):
        square = x[(*one, lanes, slice(at, at + LANES))].astype(jnp.float32)
        yield at, square[0, 0].T[: min(count - at, LANES)]


def write(
    y: Any, row: Any, at: tuple[Any, Any, Any], lies: Lies, kept: Callable[..., Any] | None
) -> None:
    """Write some columns of a row of some images, (images, columns, channels), to ``at``.

    ``kept`` tells by a shape and its axis of channels what is written; all if None.
    """
    (n, r, q), (images, width, channels) = at, row.shape

    def put(to: tuple[Any, ...], part: Any, axis: int) -> None:
        if kept is not None:
            part = jnp.where(kept(part.shape, axis), part, y[to].astype(jnp.float32))
        y[to] = part.astype(y.dtype)

    across, abreast = lies
    if abreast == 1:
        if across:
            row = lax.transpose(row, (0, 2, 1))
        columns = pl.ds(q, width)
        to = order(pl.ds(n, images), pl.ds(r, 1), columns, slice(None), across)
        put(to, row[:, None], 2 if across else 3)
        return
    first = q if isinstance(q, int) and q == 0 else lax.div(q, jnp.int32(abreast))
    for image in range(images):
        beside = pl.ds((n + image) * abreast, abreast)
        if abreast == SUBLANES:
            part = row[image].reshape(1, width // abreast, abreast, channels)
            put((pl.ds(r, 1), pl.ds(first, width // abreast), beside, slice(None)), part, 3)
            continue
        for i in range(width // abreast):
            part = row[image, i * abreast : (i + 1) * abreast][None, None]
            put((pl.ds(r, 1), pl.ds(first + i, 1), beside, slice(None)), part, 3)
