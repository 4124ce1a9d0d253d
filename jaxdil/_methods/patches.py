"""A convolution whose windows tile the image: one matrix product, and no patch is copied.

    y[n, p, o] = sum_{t, i} x[n, k p + t, i] w[t, i, o]          stride = kernel
    y[n, a p + t, o] = sum_i x[n, p, i] w[k - 1 - t, i, o]       input dilation a, kernel k = a

The first embeds patches (ViT, the stem of ConvNeXt); the second is its input gradient, and 2x2
up-convolutions. Splitting each axis into (P, k) is a reshape, the product contracts or makes k in
place. lax slides a window over the image instead, and over inserted zeros. Where the kernel is
m times the dilation of the input (vocoders), every output is met by m patches: those of each a-th
part of the kernel tile the image, and m such tilings, each one sample further, are added.
"""

from __future__ import annotations

import functools
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

# Patches that may overlap: slices and sums written out for one call.
MOST_BLOCKS = 16


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs a kernel as large as its stride, or a multiple of the input's dilation; no groups."""
    if problem.is_empty:
        return "patches: nothing to compute"
    if problem.rank == 0:
        return "patches: there is no spatial axis"
    if problem.groups != 1 or problem.batch_groups != 1:
        return "patches: channels or batch are split into groups"
    if any(d != 1 and k != 1 for k, d in zip(problem.kernel, problem.dilation, strict=True)):
        return "patches: the kernel is dilated"
    problem, ones = _tiled(problem), (1,) * problem.rank
    if (problem.stride, problem.input_dilation) == (problem.kernel, ones):
        return None
    if problem.stride == ones != problem.input_dilation:
        blocks = _blocks(problem)
        if math.prod(blocks) > MOST_BLOCKS:
            return f"patches: more than {MOST_BLOCKS} patches overlap"
        covered = zip(blocks, problem.input_dilation, strict=True)
        if tuple(m * a for m, a in covered) == problem.kernel:
            return None
    return "patches: the kernel is neither its stride nor a multiple of the input's dilation"


def _tiled(problem: Problem) -> Problem:
    """The same convolution, a lone window or sample being as far from the next as it is long."""
    ones = (1,) * problem.rank
    windows = zip(problem.positions, problem.kernel, problem.stride, strict=True)
    apart = tuple(k if p == 1 else s for p, k, s in windows)
    if apart == problem.kernel and problem.input_dilation == ones:
        return problem.replace(stride=apart)
    samples = zip(problem.size, problem.kernel, problem.input_dilation, strict=True)
    return problem.replace(input_dilation=tuple(k if n == 1 else a for n, k, a in samples))


def _blocks(problem: Problem) -> list[int]:
    """How many dilations of the input the kernel is long, along each axis."""
    return [k // a for k, a in zip(problem.kernel, problem.input_dilation, strict=True)]


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Split the axes into patches and multiply, or multiply and join the patches."""
    problem = _tiled(problem)
    if conv.platform != "cpu":
        # How the kernel lies matters little there: their compilers lay it out anew.
        problem = problem.replace(turned=False, kernel_first=False)
    rank, kernel = problem.rank, problem.kernel
    if problem.stride == kernel:
        sizes = [p * k for p, k in zip(problem.positions, kernel, strict=True)]
        x = _window(x, [-lo for lo, _ in problem.padding], sizes)
        if problem.kernel_first and math.prod(problem.positions) == 1:
            return _one_window(x, w, problem).astype(problem.out_dtype)
        # What lies together of a patch stays one axis: XLA moves it as a whole then.
        *pairs, line = itertools.chain(*zip(problem.positions, kernel, strict=True))
        x = x.reshape(problem.batch, *pairs, line * problem.channels)
        w = w.reshape(*kernel[:-1], line * problem.channels, -1)
        inside = tuple(range(2, 2 * rank + 1, 2))
        y = _product(x, w, (inside, tuple(range(rank))), problem)
        return y.astype(problem.out_dtype)
    # Sample i meets tap k - 1 - t at position a i + t - (k - 1 - lo).
    y = _spread(x, w, problem)
    shape = y.shape
    y = y.reshape(*shape[:-2], -1)
    order = itertools.chain(*((1 + i, 1 + rank + i) for i in range(rank)))
    y = lax.transpose(y, (0, *order))
    merged = (q * a for q, a in zip(shape[1 : 1 + rank], shape[1 + rank : -1], strict=True))
    y = y.reshape(problem.batch, *merged, problem.out_channels)
    starts = [k - 1 - lo for k, (lo, _) in zip(kernel, problem.padding, strict=True)]
    return _window(y, starts, problem.positions)


def _one_window(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """The product of a kernel and an image (N, *K, C) that have channels first in memory.

    What is multiplied from the right is best with its terms as rows, and it is the image that is
    moved for that, the lesser of the two.
    """
    turned = (problem.rank + 1, *range(1, problem.rank + 1), 0)
    x = lax.transpose(x, turned).reshape(-1, problem.batch)
    w = jnp.moveaxis(w, (-1, -2), (0, 1)).reshape(w.shape[-1], -1)
    y = _product(w, lax.optimization_barrier(x), ((1,), (0,)), problem)
    # Turned as an image: of two axes XLA would exchange what is multiplied instead.
    return lax.transpose(y.reshape(-1, *problem.positions, problem.batch), turned)


def _spread(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """Every sample times the kernel, those that fall on one output added: (N, *Q, *a, O)."""
    rank, inside = problem.rank, problem.input_dilation
    blocks = _blocks(problem)
    # What is turned round is the kernel or the products, whichever are fewer; a kernel that is
    # turned already is turned back.
    fewer = math.prod(problem.x_shape[:-1]) < problem.channels and not problem.turned
    if fewer:
        x = _product(x, w, ((rank + 1,), (rank,)), problem)
    else:
        w = lax.rev(w, range(rank))
    terms = []
    for block in itertools.product(*map(range, blocks)):
        later = [m - 1 - j for j, m in zip(block, blocks, strict=True)]
        pads = [(0, 0, 0), *((j, after, 0) for j, after in zip(block, later, strict=True))]
        if fewer:
            term = _block(x, later, inside, 1 + rank)
            term = _pad(term, [*pads, *[(0, 0, 0)] * (rank + 1)])
        else:
            part = _block(w, block, inside, 0)
            term = _by_sample(_pad(x, [*pads, (0, 0, 0)]), part, problem)
        terms.append(term)
    y = functools.reduce(jnp.add, terms).astype(problem.out_dtype)
    return lax.rev(y, range(rank + 1, 2 * rank + 1)) if fewer else y


def _by_sample(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """(N, *Q, *a, O): every sample times a block of the kernel (*a, I, O)."""
    rank = problem.rank
    if not problem.turned:
        return _product(x, w, ((rank + 1,), (rank,)), problem)
    # As it lies in memory, or XLA would move it to bring its inputs first.
    if problem.kernel_first:
        w = lax.transpose(w, (rank, rank + 1, *range(rank)))
        y = _product(x, w.reshape(len(w), -1), ((rank + 1,), (0,)), problem)
        return jnp.moveaxis(y.reshape(*x.shape[:-1], *w.shape[1:]), rank + 1, -1)
    w = jnp.swapaxes(w, -1, -2)
    y = _product(x, w.reshape(-1, w.shape[-1]), ((rank + 1,), (1,)), problem)
    return y.reshape(*x.shape[:-1], *w.shape[:-1])


def _block(x: jax.Array, at: Sequence[int], sizes: Sequence[int], axis: int) -> jax.Array:
    """The block of ``sizes`` numbered ``at``, of the axes from ``axis`` on."""
    for i, (j, size) in enumerate(zip(at, sizes, strict=True)):
        x = lax.slice_in_dim(x, j * size, (j + 1) * size, axis=axis + i)
    return x


def _pad(x: jax.Array, pads: Sequence[tuple[int, int, int]]) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _window(x: jax.Array, starts: Sequence[int], sizes: Sequence[int]) -> jax.Array:
    """``sizes`` samples of each spatial axis from ``starts`` on, zeros where there are none."""
    pads = [
        (max(-at, 0), max(at + size - n, 0), 0)
        for at, size, n in zip(starts, sizes, x.shape[1:-1], strict=True)
    ]
    x = _pad(x, [(0, 0, 0), *pads, (0, 0, 0)])
    first = [max(at, 0) for at in starts]
    stop = [at + size for at, size in zip(first, sizes, strict=True)]
    return lax.slice(x, (0, *first, 0), (x.shape[0], *stop, x.shape[-1]))


def _product(x: jax.Array, w: jax.Array, contract: Any, problem: Problem) -> jax.Array:
    return lax.dot_general(
        x,
        w,
        (contract, ((), ())),
        precision=problem.precision,
        preferred_element_type=problem.sum_dtype,
    )
