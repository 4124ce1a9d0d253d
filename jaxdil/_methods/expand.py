"""A grouped convolution as one of wider groups, whose kernel is zero between the narrow ones.

    w'[t, (g, i), (h, o)] = w[t, i, g, o]  if g = h, else 0          g, h in one block of groups

A matrix unit multiplies 128 channels by 128 in the time in which it multiplies 4 by 4, and narrow
groups leave it idle; multiplying the zeros as well costs nothing there. Kernel gradients, whose
batch is split into groups, take the products of all groups of a block and keep those of one and the
same group.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Channels of a block, of input or output, whichever has more: the side of a matrix unit. Up to
# TOGETHER of them are left in one block, and up to FULL groups, however wide.
WIDTH, TOGETHER, FULL = 128, 256, 4

# Blocks that a kernel gradient writes out, each a convolution.
MOST_BLOCKS = 32

# Copies of a kernel that are put side by side one by one; more are faster all at once.
FEW = 4


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs groups, of channels or of the batch, and few enough blocks of them."""
    if problem.is_empty:
        return "expand: nothing to compute"
    if problem.groups == 1 and problem.batch_groups == 1:
        return "expand: channels and batch are not split into groups"
    if problem.groups != 1 and problem.batch_groups != 1:
        return "expand: channels and batch are both split into groups"
    groups = problem.groups * problem.batch_groups
    blocks = groups // _together(problem)
    if blocks == groups:
        return "expand: no two groups fit together into a block"
    if problem.batch_groups > 1 and blocks > MOST_BLOCKS:
        return f"expand: {blocks} blocks of groups, more than {MOST_BLOCKS}"
    return None


def _together(problem: Problem) -> int:
    """Groups of a block: as many as fit, of those that divide them all."""
    groups = problem.groups * problem.batch_groups
    inner = problem.group_channels if problem.groups > 1 else problem.batch // groups
    widest = max(inner, problem.out_channels // groups)
    if groups <= FULL or groups * widest <= TOGETHER:
        return groups
    most = max(WIDTH // widest, 1)
    return next(n for n in range(min(most, groups), 0, -1) if groups % n == 0)


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """One convolution of wide groups; of a kernel gradient, a dense one for each block."""
    if problem.batch_groups > 1:
        count = _together(problem)
        starts = range(0, problem.batch_groups, count)
        parts = [_gradient(x, w, problem, conv, at, at + count) for at in starts]
        return lax.concatenate(parts, problem.rank + 1)
    if not jnp.issubdtype(problem.x_dtype, jnp.inexact):
        return _wide(x, w, problem, conv)

    def wide(x: jax.Array, w: jax.Array) -> jax.Array:
        return _wide(x, w, problem, conv)

    def apart(x: jax.Array, w: jax.Array) -> jax.Array:
        return _apart(x, w, problem, conv)

    # Zero times NaN or infinity is NaN, so such a sample would reach all groups of its block.
    if conv.platform != "tpu" or not _tell(problem):
        return lax.cond(jnp.isfinite(x).all(), wide, apart, x, w)
    y = wide(x, w)
    largest = jnp.abs(y).max(tuple(range(y.ndim - 1)))
    return lax.cond(jnp.isfinite(largest).all(), lambda y, *_: y, lambda _, *a: apart(*a), y, x, w)


def _tell(problem: Problem) -> bool:
    """Whether outputs are looked at for samples that are not finite, as they are made, on a TPU.

    All that such a sample reaches is not finite either. Several blocks are laid out anew for it.
    """
    fewer = math.prod(problem.y_shape) <= math.prod(problem.x_shape)
    return _together(problem) == problem.groups and (problem.taps > 1 or fewer)


def _apart(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Group by group, in a loop: small to compile, and seldom run."""
    groups, outer = problem.groups, problem.out_channels // problem.groups
    one = problem.replace(channels=problem.group_channels, out_channels=outer, groups=1)

    def group(at: jax.Array) -> jax.Array:
        mine = lax.dynamic_slice_in_dim(x, at * one.channels, one.channels, x.ndim - 1)
        return conv(mine, lax.dynamic_slice_in_dim(w, at * outer, outer, w.ndim - 1), one)

    y = lax.map(group, jnp.arange(groups, dtype=np.int32))
    return jnp.moveaxis(y, 0, -2).reshape(problem.y_shape)


def _wide(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    count, rank = _together(problem), problem.rank
    blocks, width = problem.groups // count, count * outer
    # (*K, I, b h o) -> (*K, b, g I, h o): rows repeated, and kept where g = h. The last axis stays
    # whole, as one of few channels would be padded to 128. A selection: zero times NaN is NaN.
    w = w.reshape(*w.shape[:-1], blocks, width)
    w = jnp.moveaxis(w, -2, rank)
    if count <= FEW:
        w = lax.concatenate([w] * count, rank + 1)
    else:
        w = jnp.broadcast_to(w[..., None, :, :], (*w.shape[:-2], count, inner, width))
        w = w.reshape(*w.shape[: rank + 1], count * inner, width)
    rows, columns = np.arange(count * inner) // inner, np.arange(width) // outer
    same = rows[:, None] == columns
    w = lax.select(jnp.broadcast_to(same, w.shape), w, jnp.zeros_like(w))
    w = jnp.moveaxis(w, rank, -2)
    w = w.reshape(*w.shape[:-2], problem.out_channels)
    return conv(x, w, problem.replace(groups=blocks))


def _gradient(
    x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve, start: int, stop: int
) -> jax.Array:
    groups = problem.batch_groups
    inner, outer = problem.batch // groups, problem.out_channels // groups
    count, last = stop - start, problem.rank + 1
    x = lax.slice_in_dim(x, start * inner, stop * inner, axis=0)
    w = lax.slice_in_dim(w, start * outer, stop * outer, axis=last)
    y = conv(x, w, problem.replace(batch=count * inner, out_channels=count * outer, batch_groups=1))
    # (g n, *P, h o) -> (n, *P, h o), of g = h.
    y = y.reshape(count, inner, *y.shape[1:])
    if conv.platform == "tpu":
        # Known when it is compiled: there each of the integers would be a kernel of its own.
        own = np.arange(count)[:, None] == np.arange(count * outer) // outer
        same = lax.broadcast_in_dim(own, y.shape, (0, y.ndim - 1))
    else:
        same = _same(y.shape, 0, 1, outer, count)
    y = lax.select(same, y, jnp.zeros_like(y))
    add = lax.bitwise_or if y.dtype == bool else lax.add
    return lax.reduce(y, jnp.zeros((), y.dtype), add, (0,))


def _same(shape: tuple[int, ...], axis: int, inner: int, outer: int, count: int) -> jax.Array:
    """Where an axis of ``inner`` channels a group and the last, of ``outer``, are of one group."""
    position = functools.partial(lax.broadcasted_iota, np.int32, shape)
    group = lax.rem(lax.div(position(len(shape) - 1), np.int32(outer)), np.int32(count))
    return lax.eq(lax.div(position(axis), np.int32(inner)), group)
