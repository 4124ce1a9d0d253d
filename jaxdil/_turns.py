"""Turns: a few images after the other, or rows of one, where all at once would need much memory.

What a method keeps beside input and output (a padded image, a product for each tap) is an array of
its own for each call. Once it is larger than the allocator keeps for reuse, the operating system
hands out its pages anew every time, and that takes a CPU several times as long as the convolution.
The kernel gradient adds up over batch and rows, in the dtype of sums.

Rows are those of the first axis: of the output, or for a kernel gradient of the cotangent, whose
rows are those of the window. A block of b of them, from p on, reads ``step (b - 1) + reach + 1``
rows of x from ``step p - lo`` on. The first and the last block read padding too; those between
differ only in where they are, and are one loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._loop import repeat
from jaxdil._problem import Problem

__all__ = ["Orders", "bits", "in_turns", "needed", "unbits"]

# Channels of which turns have a multiple: several registers, and whole lines of memory.
LANES = 64

_Served = Callable[[jax.Array, jax.Array, Problem], jax.Array]

# Bytes kept by a method that are too many, and those that a turn may have: glibc reuses 32 MiB.
MUCH, TURN = 30 << 20, 6 << 20
# The same of patches, which a matrix product then reads: they should stay in the cache, and it
# wants many rows.
PATCHES = 16 << 20, 8 << 20


class Orders(NamedTuple):
    """The transposes of x and w to canonical layout, and of y from there."""

    x: Sequence[int]
    w: Sequence[int]
    y: Sequence[int]


def needed(problem: Problem, method: str) -> bool:
    """Whether the method would keep so much that turns are worth it."""
    sizes = (of(problem, method) for of in (_images, _rows, _channels))
    return any(size is not None for size in sizes)


def in_turns(
    served: _Served, x: jax.Array, w: jax.Array, problem: Problem, method: str, orders: Orders
) -> jax.Array:
    """``served(x, w, problem)``, in turns if the method would keep much."""

    def image(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
        rows, channels = _rows(problem, method), _channels(problem, method)
        if rows is not None:
            return _by_rows(served, x, w, problem, rows, orders)
        if channels is not None:
            return _by_channels(served, x, w, problem, channels, orders)
        return served(x, w, problem)

    size = _images(problem, method)
    return image(x, w, problem) if size is None else _by_images(image, x, w, problem, size, orders)


def _images(problem: Problem, method: str) -> int | None:
    """How many images a turn has, or None if all go at once."""
    batch = problem.channels if _adds_up(problem) else problem.batch
    kept, (much, turn) = _kept(problem, method), _limits(method)
    if problem.is_empty or batch < 2 or kept <= much:
        return None
    most = max(turn * batch // kept, 1)
    if _adds_up(problem):
        return max(n for n in range(1, most + 1) if batch % n == 0)
    return -(-batch // -(-batch // most))


def _rows(problem: Problem, method: str) -> int | None:
    """How many rows a turn has, or None if all go at once."""
    kept, (much, turn) = _kept(problem, method), _limits(method)
    if problem.is_empty or not problem.rank or kept <= much or problem.input_dilation[0] != 1:
        return None
    all_of_them = problem.kernel[0] if _adds_up(problem) else problem.positions[0]
    # Fewer are not worth what their neighbours read again; a loop is of two turns and more.
    size = max(min(turn * all_of_them // kept, all_of_them // 4), 8)
    last = (-(-all_of_them // size) - 2) * size
    inside = [_cut(problem, p, size) for p in (size, last)]
    even = all(before == after == 0 for _, _, before, after in inside)
    return size if all_of_them >= 4 * size and even else None


def _channels(problem: Problem, method: str) -> int | None:
    """How many channels of a depthwise kernel gradient a turn has, or None if all go at once."""
    kept, channels = _kept(problem, method), problem.batch_groups
    much, turn = _limits(method)
    alone = channels == problem.batch == problem.out_channels
    if problem.is_empty or not alone or channels <= LANES or kept <= much:
        return None
    most = max(turn * channels // kept // LANES, 1) * LANES
    return min(most, channels)


def _cut(problem: Problem, first: int, size: int) -> tuple[int, int, int, int]:
    """The rows of x that a block reads: where they begin and end, and padding before and after."""
    step, reach = problem.stride[0], problem.dilation[0] * (problem.kernel[0] - 1)
    if _adds_up(problem):
        step, reach = problem.dilation[0], problem.stride[0] * (problem.positions[0] - 1)
    start = step * first - problem.padding[0][0]
    end = start + step * (size - 1) + reach + 1
    begin, stop = max(start, 0), min(end, problem.size[0])
    return begin, stop, begin - start, end - stop


def _adds_up(problem: Problem) -> bool:
    """Whether the batch is what is summed: in kernel gradients, whose window is an image."""
    return problem.batch_groups > 1 or (problem.groups == 1 and problem.sums_images)


def _limits(method: str) -> tuple[int, int]:
    """Bytes kept by a method that are too many, and those that a turn may have."""
    return PATCHES if method == "im2col" else (MUCH, TURN)


def _kept(problem: Problem, method: str) -> int:
    """Bytes that a method keeps beside input and output, about."""
    item = np.dtype(problem.sum_dtype).itemsize
    sizes = zip(problem.size, problem.padding, strict=True)
    x = problem.batch * math.prod(n + lo + hi for n, (lo, hi) in sizes) * problem.channels * item
    y = math.prod(problem.y_shape) * item
    first, taps = problem.kernel[:1], math.prod(problem.positions)
    match method:
        case "taps":
            # Matrix products of groups want them first, in what they read and in what they give.
            return 2 * x + y if problem.groups > 1 and problem.group_channels > 8 else x
        case "slabs":
            return x + math.prod(first) * y
        case "planes":
            return math.prod(first) * x
        case "phases":
            return x + 2 * y
        case "patches":
            return max(math.prod(problem.x_shape) * item, y)  # it pads nothing
        case "im2col":
            x = x // item * problem.x_dtype.itemsize
            if _adds_up(problem):
                # The padded image, its patches, and those that the taps of the first axis meet.
                return (1 + math.prod(problem.positions[1:]) + taps) * x
            return (1 + math.prod(problem.kernel[1:])) * x + math.prod(first) * y
        case "correlate":
            return min(taps, 64) * x if problem.batch // problem.batch_groups > 8 else 3 * x
    return 0


def _by_images(
    served: _Served, x: jax.Array, w: jax.Array, problem: Problem, size: int, orders: Orders
) -> jax.Array:
    if _adds_up(problem):
        part = problem.replace(channels=size, out_dtype=np.dtype(problem.sum_dtype))

        def add(i: jax.Array, y: jax.Array) -> jax.Array:
            n = i * np.uint32(size)
            some = take(x, n, size, orders.x[-1])
            return y + served(some, take(w, n, size, orders.w[-2]), part)

        y = jnp.zeros(_shape(problem, orders), part.out_dtype)
        return repeat(problem.channels // size, add, y).astype(problem.out_dtype)
    part, axis = problem.replace(batch=size), list(orders.y).index(0)

    def put(i: jax.Array, y: jax.Array) -> jax.Array:
        # The last turn begins early, and computes some images again.
        n = jnp.minimum(i * np.uint32(size), np.uint32(problem.batch - size))
        some = served(take(x, n, size, orders.x[0]), w, part)
        return lax.dynamic_update_slice_in_dim(y, bits(some), n, axis)

    y = bits(jnp.zeros(_shape(problem, orders), problem.out_dtype))
    return unbits(repeat(-(-problem.batch // size), put, y), problem.out_dtype)


def _by_rows(
    served: _Served, x: jax.Array, w: jax.Array, problem: Problem, size: int, orders: Orders
) -> jax.Array:
    adds, x_axis, w_axis = _adds_up(problem), orders.x[1], orders.w[0]
    y_axis = list(orders.y).index(1)
    count = problem.kernel[0] if adds else problem.positions[0]
    dtype = np.dtype(problem.sum_dtype) if adds else problem.out_dtype

    def block(first: Any, rows: int, cut: tuple[int, int, int, int], begin: Any) -> jax.Array:
        size = cut[1] - cut[0]
        part = problem.replace(
            size=(size, *problem.size[1:]), padding=(cut[2:], *problem.padding[1:]), out_dtype=dtype
        )
        some = take(x, begin, size, x_axis)
        if not adds:
            return served(some, w, part)
        part = part.replace(kernel=(rows, *problem.kernel[1:]))
        return served(some, take(w, first, rows, w_axis), part)

    def join(y: jax.Array, first: Any, part: jax.Array) -> jax.Array:
        return y + part if adds else lax.dynamic_update_slice_in_dim(y, bits(part), first, y_axis)

    y = jnp.zeros(_shape(problem, orders), dtype)
    y = y if adds else bits(y)
    turns = -(-count // size)
    # The last block has what is left; or begins early, and computes some outputs again.
    last = (turns - 1) * size if adds else count - size
    for first in (0, last):
        rows = min(size, count - first)
        cut = _cut(problem, first, rows)
        y = join(y, first, block(first, rows, cut, cut[0]))
    cut = _cut(problem, size, size)
    step = problem.dilation[0] if adds else problem.stride[0]

    def turn(i: jax.Array, y: jax.Array) -> jax.Array:
        begin = i * np.uint32(step * size) + np.uint32(cut[0])
        first = (i + np.uint32(1)) * np.uint32(size)
        return join(y, first, block(first, size, cut, begin))

    y = repeat(turns - 2, turn, y)
    return y.astype(problem.out_dtype) if adds else unbits(y, problem.out_dtype)


def _by_channels(
    served: _Served, x: jax.Array, w: jax.Array, problem: Problem, size: int, orders: Orders
) -> jax.Array:
    part = problem.replace(batch=size, batch_groups=size, out_channels=size)
    axis = list(orders.y).index(problem.rank + 1)

    def put(i: jax.Array, y: jax.Array) -> jax.Array:
        # The last turn begins early, and computes some channels again.
        c = jnp.minimum(i * np.uint32(size), np.uint32(problem.out_channels - size))
        some = served(take(x, c, size, orders.x[0]), take(w, c, size, orders.w[-1]), part)
        return lax.dynamic_update_slice_in_dim(y, bits(some), c, axis)

    y = bits(jnp.zeros(_shape(problem, orders), problem.out_dtype))
    y = repeat(-(-problem.out_channels // size), put, y)
    return unbits(y, problem.out_dtype)


def take(x: jax.Array, start: Any, size: int, axis: int) -> jax.Array:
    """``size`` slices of x from ``start`` on, a place known when it runs."""
    return unbits(lax.dynamic_slice_in_dim(bits(x), start, size, axis), x.dtype)


def bits(x: jax.Array) -> jax.Array:
    """Half precision as integers, to be cut and joined in a loop; anything else as it is.

    XLA on a CPU computes nothing in bfloat16: it would make single precision of the whole array.
    """
    half = x.dtype.itemsize == 2 and jnp.issubdtype(x.dtype, jnp.floating)
    return lax.bitcast_convert_type(x, np.uint16) if half else x


def unbits(x: jax.Array, dtype: Any) -> jax.Array:
    """What `bits` was given, of that dtype."""
    return x if x.dtype == dtype else lax.bitcast_convert_type(x, dtype)


def _shape(problem: Problem, orders: Orders) -> tuple[int, ...]:
    return tuple(problem.y_shape[axis] for axis in orders.y)
