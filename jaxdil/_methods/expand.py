"""A grouped convolution as dense ones, of blocks of groups, whose kernel is zero between groups.

    w'[t, (g, i), (h, o)] = w[t, i, g, o]  if g = h, else 0          g, h in one block of groups

A matrix unit multiplies 128 channels by 128 in the time in which it multiplies 4 by 4, and narrow
groups leave it idle; multiplying the zeros as well costs nothing there. Kernel gradients, whose
batch is split into groups, take the products of all groups of a block and keep those of one and the
same group.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Channels of a block, of input or output, whichever has more: the side of a matrix unit. Up to
# TOGETHER of them are left in one block, as several blocks have to be cut out and put together.
WIDTH, TOGETHER = 128, 256

# Blocks written out for one call.
MOST_BLOCKS = 32


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs groups, of channels or of the batch, and few enough blocks of them."""
    if problem.is_empty:
        return "expand: nothing to compute"
    if problem.groups == 1 and problem.batch_groups == 1:
        return "expand: channels and batch are not split into groups"
    if problem.groups != 1 and problem.batch_groups != 1:
        return "expand: channels and batch are both split into groups"
    if (count := len(_blocks(problem))) > MOST_BLOCKS:
        return f"expand: {count} blocks of groups, more than {MOST_BLOCKS}"
    return None


def _blocks(problem: Problem) -> list[tuple[int, int]]:
    """The first group of each block, and the one after its last."""
    groups = problem.groups * problem.batch_groups
    inner = problem.group_channels if problem.groups > 1 else problem.batch // groups
    widest = max(inner, problem.out_channels // groups)
    many = groups if groups * widest <= TOGETHER else max(WIDTH // widest, 1)
    return [(at, min(at + many, groups)) for at in range(0, groups, many)]


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """One dense convolution a block."""
    if problem.batch_groups > 1:
        return _joined(_gradient, x, w, problem, conv)
    alone = all(stop - start == 1 for start, stop in _blocks(problem))
    if alone or not jnp.issubdtype(problem.x_dtype, jnp.inexact):
        return _joined(_forward, x, w, problem, conv)
    # Zero times NaN or infinity is NaN, so such a sample would reach all groups of its block.
    return lax.cond(
        jnp.isfinite(x).all(),
        lambda x, w: _joined(_forward, x, w, problem, conv),
        lambda x, w: _apart(x, w, problem, conv),
        x,
        w,
    )


def _joined(part: Any, x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    parts = [part(x, w, problem, conv, *block) for block in _blocks(problem)]
    return lax.concatenate(parts, problem.rank + 1)


def _apart(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Group by group, in a loop: small to compile, and seldom run."""
    groups, outer = problem.groups, problem.out_channels // problem.groups
    one = problem.replace(channels=problem.group_channels, out_channels=outer, groups=1)

    def group(at: jax.Array) -> jax.Array:
        mine = lax.dynamic_slice_in_dim(x, at * one.channels, one.channels, x.ndim - 1)
        return conv(mine, lax.dynamic_slice_in_dim(w, at * outer, outer, w.ndim - 1), one)

    y = lax.map(group, jnp.arange(groups, dtype=np.int32))
    return jnp.moveaxis(y, 0, -2).reshape(problem.y_shape)


def _forward(
    x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve, start: int, stop: int
) -> jax.Array:
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    count, last = stop - start, problem.rank + 1
    x = lax.slice_in_dim(x, start * inner, stop * inner, axis=last)
    w = lax.slice_in_dim(w, start * outer, stop * outer, axis=last)
    # (*K, I, h o) -> (*K, g I, h o): rows repeated, and kept where g = h. The last axis stays
    # whole, as one of few channels would be padded to 128. A selection: zero times NaN is NaN.
    w = lax.broadcast_in_dim(
        w, (*problem.kernel, count, inner, w.shape[-1]), (*range(problem.rank), last, last + 1)
    ).reshape(*problem.kernel, count * inner, w.shape[-1])
    w = lax.select(_same(w.shape, problem.rank, inner, outer), w, jnp.zeros_like(w))
    return conv(
        x,
        w,
        problem.replace(channels=count * inner, out_channels=count * outer, groups=1),
    )


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
    y = lax.select(_same(y.shape, 0, 1, outer), y, jnp.zeros_like(y))
    return lax.reduce(y, jnp.zeros((), y.dtype), lax.add, (0,))


def _same(shape: tuple[int, ...], axis: int, inner: int, outer: int) -> jax.Array:
    """Where an axis of ``inner`` channels a group and the last, of ``outer``, are of one group."""
    position = functools.partial(lax.broadcasted_iota, np.int32, shape)
    return lax.eq(
        lax.div(position(axis), np.int32(inner)),
        lax.div(position(len(shape) - 1), np.int32(outer)),
    )
