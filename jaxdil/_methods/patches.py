"""A convolution whose windows tile the image: one matrix product, and no patch is copied.

    y[n, p, o] = sum_{t, i} x[n, k p + t, i] w[t, i, o]          stride = kernel
    y[n, k p + t, o] = sum_i x[n, p, i] w[k - 1 - t, i, o]       input dilation = kernel

The first embeds patches (ViT, the stem of ConvNeXt); the second is its input gradient, and 2x2
up-convolutions. Splitting each axis into (P, k) is a reshape, the product contracts or makes k in
place. lax slides a window over the image instead, and over inserted zeros.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs a kernel as large as its stride, or as the dilation of the input, and no groups."""
    if problem.is_empty:
        return "patches: nothing to compute"
    if problem.groups != 1 or problem.batch_groups != 1:
        return "patches: channels or batch are split into groups"
    if any(d != 1 and k != 1 for k, d in zip(problem.kernel, problem.dilation, strict=True)):
        return "patches: the kernel is dilated"
    ones = (1,) * problem.rank
    if (problem.stride, problem.input_dilation) == (problem.kernel, ones):
        return None
    if (problem.stride, problem.input_dilation) == (ones, problem.kernel):
        return None
    return "patches: the kernel is neither its stride nor the dilation of the input"


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """Split the axes into patches and multiply, or multiply and join the patches."""
    rank, kernel = problem.rank, problem.kernel
    if problem.stride == kernel:
        sizes = [p * k for p, k in zip(problem.positions, kernel, strict=True)]
        x = _window(x, [-lo for lo, _ in problem.padding], sizes)
        pairs = itertools.chain(*zip(problem.positions, kernel, strict=True))
        x = x.reshape(problem.batch, *pairs, problem.channels)
        inside = (*range(2, 2 * rank + 1, 2), 2 * rank + 1)
        return _product(x, w, (inside, tuple(range(rank + 1))), problem)
    # Sample i meets tap k - 1 - t at position k i + t - (k - 1 - lo). What is turned round is the
    # kernel or the products, whichever are fewer.
    fewer = math.prod(problem.x_shape[:-1]) < problem.channels
    w = w if fewer else lax.rev(w, range(rank))
    y = _product(x, w, ((rank + 1,), (rank,)), problem)
    y = lax.rev(y, range(rank + 1, 2 * rank + 1)) if fewer else y
    order = itertools.chain(*((1 + i, 1 + rank + i) for i in range(rank)))
    y = lax.transpose(y, (0, *order, 2 * rank + 1))
    sizes = [n * k for n, k in zip(problem.size, kernel, strict=True)]
    y = y.reshape(problem.batch, *sizes, problem.out_channels)
    starts = [k - 1 - lo for k, (lo, _) in zip(kernel, problem.padding, strict=True)]
    return _window(y, starts, problem.positions)


def _window(x: jax.Array, starts: Sequence[int], sizes: Sequence[int]) -> jax.Array:
    """``sizes`` samples of each spatial axis from ``starts`` on, zeros where there are none."""
    pads = [
        (max(-at, 0), max(at + size - n, 0), 0)
        for at, size, n in zip(starts, sizes, x.shape[1:-1], strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    first = [max(at, 0) for at in starts]
    stop = [at + size for at, size in zip(first, sizes, strict=True)]
    return lax.slice(x, (0, *first, 0), (x.shape[0], *stop, x.shape[-1]))


def _product(x: jax.Array, w: jax.Array, contract: Any, problem: Problem) -> jax.Array:
    y = lax.dot_general(
        x,
        w,
        (contract, ((), ())),
        precision=problem.precision,
        preferred_element_type=problem.sum_dtype,
    )
    return y.astype(problem.out_dtype)
