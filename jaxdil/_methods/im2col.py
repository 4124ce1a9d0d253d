"""A dense convolution as matrix products with what the taps read, laid side by side as channels.

    y[n, p, :] = sum_t  [x[n, s p + d t + d' 0 - lo, :], x[n, s p + d t + d' 1 - lo, :], ...] @ w[t]

The taps of the last axes are laid side by side, those of the first are a product each: in 2-D the
image grows by the width of the kernel and not by its area. All taps are one product where there are
fewer positions than outputs, and none is laid beside another where a wide dilation puts most of
them in the padding: there each is multiplied by the samples that it meets alone.

A kernel gradient is the same patches times the cotangent, summed over images and positions.

Groups come first, all taps of a group are laid side by side, and the products of as many groups as
a cache holds are one batched product.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._geometry import Progression, progressions
from jaxdil._layout import cut, pad, transpose
from jaxdil._loop import repeat
from jaxdil._methods import Convolve
from jaxdil._problem import Problem
from jaxdil._turns import bits, unbits

__all__ = ["apply", "supports"]

# Products written out for one call.
MOST_TAPS = 64

# How many times an image its padded one is, from which on taps are multiplied one by one: in single
# precision, and in half, whose products cost less.
FAR, FAR_HALF = 1.6, 2.3

# Bytes of patches up to which a kernel gradient has all taps side by side.
PATCHES = 8 << 20

# Taps that are laid side by side in one pass: XLA reads the slices of more of them one by one.
TOGETHER = 8

# Bytes of patches of groups that are multiplied at a time.
CACHE = 8 << 20

# The share of samples that a tap meets from which on a product takes them all: the others cost less
# than to cut these out.
MOSTLY = 0.8


class _Axis(NamedTuple):
    """One axis: a tap t reads x at ``move t + step j - lo``, for every term j."""

    size: int
    taps: int
    terms: int
    move: int
    step: int
    pads: tuple[int, int]

    def met(self) -> list[Progression]:
        """For each tap the samples that it meets, and the first of their terms."""
        lo, _ = self.pads
        return progressions(
            self.size,
            self.terms,
            self.taps,
            stride=self.move,
            dilation=self.step,
            lo=lo,
            input_dilation=1,
        )


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs one group, no zeros between the samples of x, and few enough products."""
    if problem.is_empty:
        return "im2col: nothing to compute"
    if problem.groups != 1 and problem.batch_groups != 1:
        return "im2col: channels and batch are both split into groups"
    if any(a != 1 for a in problem.input_dilation):
        return "im2col: the input is dilated, most taps would meet inserted zeros"
    axes = _axes(problem)
    if problem.groups * problem.batch_groups > 1:
        taps = math.prod(axis.taps for axis in axes)
        most = f"im2col: {taps} taps of groups side by side, more than {MOST_TAPS}"
        return most if taps > MOST_TAPS else None
    products = math.prod(axis.taps for axis in axes[: len(axes) - _joined(problem)])
    if products > MOST_TAPS:
        return f"im2col: {products} products to write out, more than {MOST_TAPS}"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Patches times the kernel, or times the cotangent."""
    if problem.groups * problem.batch_groups > 1:
        return _of_groups(x, w, problem, conv)
    if problem.sums_images:
        return _kernel_gradient(x, w, problem, conv)
    return _forward(x, w, problem, conv)


def _joined(problem: Problem) -> int:
    """How many of the last axes have their taps side by side."""
    rest, item = max(problem.rank - 1, 0), problem.x_dtype.itemsize
    if problem.sums_images:
        terms, taps = math.prod(problem.kernel), math.prod(problem.positions)
        patches = problem.channels * problem.batch * terms * taps * item
        return problem.rank if patches <= PATCHES else rest
    rows = math.prod(problem.y_shape[:-1])
    if problem.is_small and rows * problem.taps * problem.channels * item <= PATCHES:
        return problem.rank
    # Half precision multiplies so fast that more is written at no price.
    half, dilated = item < 4, any(d > 1 for d in problem.dilation)
    far = problem.padded >= (FAR_HALF if half else FAR)
    if rows <= problem.out_channels and not half and not (far and dilated):
        return problem.rank
    # What is padded most without a dilation is a small image, of which nearly all taps meet some.
    far = far and (dilated or not half)
    return 0 if far else rest


def _axes(problem: Problem) -> list[_Axis]:
    fields = zip(
        problem.size,
        problem.kernel,
        problem.positions,
        problem.stride,
        problem.dilation,
        problem.padding,
        strict=True,
    )
    if problem.batch_groups > 1 or (problem.sums_images and problem.groups == 1):
        return [_Axis(n, p, k, s, d, pads) for n, k, p, s, d, pads in fields]
    return [_Axis(n, k, p, d, s, pads) for n, k, p, s, d, pads in fields]


def _forward(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    axes, many = _axes(problem), _joined(problem)
    apart, beside = axes[: len(axes) - many], axes[len(axes) - many :]
    patches = _patches(x, beside, len(apart), conv)
    kernel = w.reshape(*(axis.taps for axis in apart), -1, w.shape[-1])
    products, pads = [], []
    for tap in itertools.product(*(enumerate(axis.met()) for axis in apart)):
        at, met = [t for t, _ in tap], [p for _, p in tap]
        if not all(p.terms for p in met):
            continue
        row = cut(
            kernel,
            (*at, 0, 0),
            (*(t + 1 for t in at), *kernel.shape[-2:]),
            (1,) * kernel.ndim,
        ).reshape(kernel.shape[-2:])
        share = math.prod(p.terms for p in met) / math.prod(axis.size for axis in apart)
        if share >= MOSTLY:
            product = _cut(_product(patches, row, problem), met)
        else:
            product = _product(_cut(patches, met), row, problem)
        products.append(product)
        outside = [
            (p.tap, axis.terms - p.tap - p.terms, 0) for p, axis in zip(met, apart, strict=True)
        ]
        pads.append([(0, 0, 0), *outside, *[(0, 0, 0)] * (many + 1)])
    if not products:
        return jnp.zeros(problem.y_shape, problem.out_dtype)
    if len(products) > 1:
        # Left alone, XLA would write the zeros around each product on its own.
        products = lax.optimization_barrier(products)
    zero = jnp.zeros((), problem.sum_dtype)
    terms = (lax.pad(part, zero, pads) for part, pads in zip(products, pads, strict=True))
    return functools.reduce(lax.add, terms).astype(problem.out_dtype)


def _kernel_gradient(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """(b, *T, o) of x (b, *S, n) and w (*P, n, o): images and channels lie the other way round."""
    rank, axes, many = problem.rank, _axes(problem), _joined(problem)
    apart, beside = axes[: rank - many], axes[rank - many :]
    x = lax.transpose(x, (rank + 1, *range(1, rank + 1), 0))
    w = lax.transpose(w, (rank, *range(rank), rank + 1))
    patches = _patches(x, beside, len(apart), conv)
    # Where the terms are many, the cotangent is turned by a copy: they lie along the rows of both
    # operands, which are slow to multiply so.
    turned = problem.channels * math.prod(problem.kernel) >= 3 * problem.out_channels
    if turned:
        w = lax.optimization_barrier(bits(lax.transpose(w, (rank + 1, *range(rank + 1)))))
        w = unbits(w, x.dtype)
    terms = tuple(range(rank + 1))

    def product(met: Sequence[Progression]) -> jax.Array:
        some, other = _cut(patches, met), _cut(w, [_turned(p) for p in met], turned + 1)
        dot = functools.partial(
            lax.dot_general,
            precision=problem.precision,
            preferred_element_type=problem.sum_dtype,
        )
        if turned:
            return dot(other, some, ((tuple(t + 1 for t in terms), terms), ((), ())))
        return dot(some, other, ((terms, terms), ((), ())))

    parts = [product(met) for met in itertools.product(*(axis.met() for axis in apart))]
    y = (parts[0] if len(parts) == 1 else jnp.stack(parts, turned)).astype(problem.out_dtype)
    if turned:
        y = y.reshape(problem.out_channels, *problem.positions, problem.batch)
        return lax.transpose(y, (rank + 1, *range(1, rank + 1), 0))
    y = y.reshape(*problem.positions, problem.batch, problem.out_channels)
    return lax.transpose(y, (rank, *range(rank), rank + 1))


def _of_groups(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """A batched product, of as many groups at a time as their patches fill a cache."""
    rank, axes, gradient = problem.rank, _axes(problem), problem.batch_groups > 1
    groups, taps = problem.groups * problem.batch_groups, math.prod(axis.taps for axis in axes)
    if gradient:  # (C, *S, N), as image and cotangent lie in memory, and (*P, N, O)
        x = transpose(x, (rank + 1, *range(1, rank + 1), 0))
        w = transpose(w, (rank, *range(rank), rank + 1))
    images, inner, outer = x.shape[0], x.shape[-1] // groups, w.shape[-1] // groups
    x = bits(x).reshape(*x.shape[:-1], groups, inner)
    x = lax.transpose(x, (rank + 1, *range(rank + 1), rank + 2))
    # (T I, G, o) -> (G, T I, o), or (N P, G, o) -> (G, o, N P).
    w = bits(w).reshape(-1, groups, outer)
    w = lax.transpose(w, (1, 2, 0) if gradient else (1, 0, 2))
    x, w = lax.optimization_barrier((x, w))
    rows = images * math.prod(axis.terms for axis in axes)
    one = rows * taps * inner * problem.x_dtype.itemsize
    count = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * one <= CACHE))

    def some(x: jax.Array, w: jax.Array) -> jax.Array:
        x = unbits(x.reshape(-1, *x.shape[2:]), problem.x_dtype)
        patches = _patches(x, axes, 0, conv).reshape(count, rows, taps * inner)
        w = unbits(w, problem.w_dtype)
        first, second = (w, patches) if gradient else (patches, w)
        return lax.dot_general(
            first,
            second,
            (((2,), (1,)), ((0,), (0,))),
            precision=problem.precision,
            preferred_element_type=problem.sum_dtype,
        )

    def put(at: jax.Array, y: jax.Array) -> jax.Array:
        first = at * np.uint32(count)
        parts = (lax.dynamic_slice_in_dim(a, first, count, 0) for a in (x, w))
        return lax.dynamic_update_slice_in_dim(y, some(*parts), first, 0)

    if count == groups:
        y = some(x, w)
    else:
        last = (outer, taps * inner) if gradient else (rows, outer)
        y = repeat(groups // count, put, jnp.zeros((groups, *last), problem.sum_dtype))
    y = y.astype(problem.out_dtype)
    if gradient:  # (G, o, T I) -> (I, T, G o)
        y = lax.transpose(y.reshape(groups, outer, taps, inner), (3, 2, 0, 1))
    else:
        y = lax.transpose(y, (1, 0, 2))
    return y.reshape(problem.y_shape)


def _turned(p: Progression) -> Progression:
    """Where the terms lie in the cotangent, as `_cut` reads it."""
    return p._replace(sample=p.tap, sample_step=p.tap_step)


def _cut(x: jax.Array, met: Sequence[Progression], first: int = 1) -> jax.Array:
    """The samples met, of the axes from the first one given on."""
    start, stop, step = [0] * x.ndim, list(x.shape), [1] * x.ndim
    for axis, p in enumerate(met, start=first):
        start[axis], step[axis] = p.sample, p.sample_step
        stop[axis] = p.sample + p.sample_step * max(p.terms - 1, 0) + min(p.terms, 1)
    return unbits(cut(bits(x), start, stop, step), x.dtype)


def _patches(x: jax.Array, axes: Sequence[_Axis], first: int, conv: Convolve) -> jax.Array:
    """What each tap of some axes reads of x (N, ..., *S, C), side by side: (N, ..., *P, T C)."""
    dtype, pads = x.dtype, [(0, 0, 0)] * (first + 1)
    x = pad(bits(x), [*pads, *((*axis.pads, 0) for axis in axes), (0, 0, 0)], lines=conv.in_lines)
    if math.prod(axis.taps for axis in axes) > 1:
        # Left alone, XLA pads for each tap anew.
        x = lax.optimization_barrier(x)
    together = 1
    for place, axis in reversed(list(enumerate(axes, start=first + 1))):
        together *= axis.taps
        if together > 25:
            x = lax.optimization_barrier(x)
            together = axis.taps
        x = _beside(x, axis, place)
    return lax.optimization_barrier(unbits(x, dtype))


def _beside(x: jax.Array, axis: _Axis, place: int) -> jax.Array:
    """What each tap of one axis of x (..., S, ..., C) reads, side by side: (..., P, ..., T C)."""
    last = x.ndim - 1
    if axis.taps <= TOGETHER:
        parts = [_read(x, axis, place, tap * axis.move) for tap in range(axis.taps)]
        if len(parts) == 1:
            return parts[0]
        # An axis of their own: XLA writes so many slices at once, by all cores, where it would
        # cut each out first to put them one behind the other on the axis of the channels.
        y = jnp.stack(parts, last)
        return y.reshape(*y.shape[:last], -1)

    def put(tap: jax.Array, patches: jax.Array) -> jax.Array:
        start = tap if axis.move == 1 else tap * np.uint32(axis.move)
        at = [np.uint32(0)] * last + [tap * np.uint32(x.shape[-1])]
        return lax.dynamic_update_slice(patches, _read(x, axis, place, start), at)

    shape = (*x.shape[:place], axis.terms, *x.shape[place + 1 : last], axis.taps * x.shape[-1])
    return repeat(axis.taps, put, jnp.zeros(shape, x.dtype))


def _read(x: jax.Array, axis: _Axis, place: int, start: Any) -> jax.Array:
    """Every ``step``-th sample of an axis, as many as there are terms."""
    extent = axis.step * (axis.terms - 1) + 1
    if isinstance(start, int):
        return lax.slice_in_dim(x, start, start + extent, axis.step, place)
    part = lax.dynamic_slice_in_dim(x, start, extent, place)
    return lax.slice_in_dim(part, 0, extent, axis.step, place)


def _product(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    return lax.dot_general(
        x,
        w,
        (((x.ndim - 1,), (0,)), ((), ())),
        precision=problem.precision,
        preferred_element_type=problem.sum_dtype,
    )
