"""A batch in turns: a few images after the other, where all at once would need much memory.

What a method keeps beside input and output (a padded image, a product for each tap) is an array of
its own for each call. Once it is larger than the allocator keeps for reuse, the operating system
hands out its pages anew every time, and that takes a CPU several times as long as the convolution.
The kernel gradient adds up over the batch, in the dtype of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._problem import Problem

__all__ = ["images", "in_turns"]

# Bytes kept by a method that are too many, and those that a turn may have: glibc reuses 32 MiB.
MUCH, TURN = 24 << 20, 6 << 20


def images(problem: Problem, method: str) -> int | None:
    """How many images a turn has, or None if all go at once."""
    batch = problem.channels if _adds_up(problem) else problem.batch
    kept = _kept(problem, method)
    if problem.is_empty or batch < 2 or kept <= MUCH:
        return None
    most = max(TURN * batch // kept, 1)
    if _adds_up(problem):
        return max(n for n in range(1, most + 1) if batch % n == 0)
    return -(-batch // -(-batch // most))


def _adds_up(problem: Problem) -> bool:
    """Whether the batch is what is summed: in kernel gradients, whose window is an image."""
    window = problem.groups == 1 and problem.taps > math.prod(problem.positions)
    return problem.batch_groups > 1 or window


def _kept(problem: Problem, method: str) -> int:
    """Bytes that a method keeps beside input and output, about."""
    item = np.dtype(problem.sum_dtype).itemsize
    sizes = zip(problem.size, problem.padding, strict=True)
    x = problem.batch * math.prod(n + lo + hi for n, (lo, hi) in sizes) * problem.channels * item
    y = math.prod(problem.y_shape) * item
    first, taps = problem.kernel[:1], math.prod(problem.positions)
    match method:
        case "taps":
            return x
        case "slabs":
            return x + math.prod(first) * y
        case "planes":
            return math.prod(first) * x
        case "phases":
            return x + 2 * y
        case "correlate":
            return min(taps, 64) * x if problem.batch // problem.batch_groups > 8 else 2 * x
    return 0


def in_turns(
    served: Callable[[jax.Array, jax.Array, Problem], jax.Array],
    x: jax.Array,
    w: jax.Array,
    problem: Problem,
    size: int,
    orders: tuple[Sequence[int], Sequence[int], Sequence[int]],
) -> jax.Array:
    """``served(x, w, problem)`` by ``size`` images in a turn.

    ``orders`` are the transposes of x and w to canonical layout, and of y from there.
    """
    x_order, w_order, y_order = orders
    shape = tuple(problem.y_shape[axis] for axis in y_order)
    if _adds_up(problem):
        part = problem.replace(channels=size, out_dtype=np.dtype(problem.sum_dtype))

        def add(i: jax.Array, y: jax.Array) -> jax.Array:
            n = i.astype(np.uint32) * np.uint32(size)
            some = lax.dynamic_slice_in_dim(x, n, size, x_order[-1])
            return y + served(some, lax.dynamic_slice_in_dim(w, n, size, w_order[-2]), part)

        y = jnp.zeros(shape, part.out_dtype)
        return lax.fori_loop(0, problem.channels // size, add, y).astype(problem.out_dtype)
    part, axis = problem.replace(batch=size), list(y_order).index(0)

    def put(i: jax.Array, y: jax.Array) -> jax.Array:
        # The last turn begins early, and computes some images again.
        n = jnp.minimum(i * size, problem.batch - size).astype(np.uint32)
        some = served(lax.dynamic_slice_in_dim(x, n, size, x_order[0]), w, part)
        return lax.dynamic_update_slice_in_dim(y, some, n, axis)

    y = jnp.zeros(shape, problem.out_dtype)
    return lax.fori_loop(0, -(-problem.batch // size), put, y)
