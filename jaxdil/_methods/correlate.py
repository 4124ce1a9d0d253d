"""A convolution whose window is as large as the image and whose output is as small as a kernel.

    y[b, t, o] = sum_{n, p}  x[b, s t + d p - lo, n] w[p, n, o]

That is what the gradient by the kernel is: ``x`` the input with batch and channels exchanged, ``w``
the cotangent, the forward's stride and dilation exchanged too, and groups become batch groups. Read
the other way round it is a reduction over images, one for each of the few taps t, of two slices:

    dense, wide groups       one matrix product over (n, p) a tap, for all groups at once
    depthwise, narrow groups products of slices, several taps in one pass, summed in two stages

The input dilation of a transposed forward inserts nothing here: only every a-th p meets a sample,
so ``w`` is sliced in steps of a instead.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._geometry import Progression, progressions
from jaxdil._layout import pad, transpose
from jaxdil._loop import repeat
from jaxdil._methods import Convolve
from jaxdil._problem import Problem
from jaxdil._terms import Axis, axes_of, cut_out

__all__ = ["apply", "supports"]

# Taps written out for one call at the most; each is two slices and a product. Narrow groups loop
# over the first axis of the kernel where there are more, and wherever that leaves enough taps to a
# pass: 7x7 taps written out take several times as long to compile as a loop over seven.
MOST_TAPS = 64

# Input channels a group up to which products of slices beat small matrix products, and channels of
# both from which a matrix product is worth turning one of them round.
NARROW, WIDE = 8, 128

# Stage one sums ROWS image rows of up to TOGETHER taps in one pass. XLA vectorises that only while
# the sum of the rows is short enough to be written out, and shares its loads between the taps;
# stage two is one sum over what is left. Rows x taps beyond about 72 spill registers: 8 x 9 ran
# faster than 28 x 9, and far faster than one reduction over the image.
ROWS, TOGETHER = 8, 9


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs an output small enough to be written tap by tap."""
    if problem.is_empty:
        return "correlate: nothing to compute"
    if problem.groups != 1 and problem.batch_groups != 1:
        return "correlate: channels and batch are both split into groups"
    looped = _is_looped(problem) if _is_narrow(problem) else _has_many_products(problem)
    written = math.prod(problem.positions[1:] if looped else problem.positions)
    if written > MOST_TAPS:
        return f"correlate: {written} output positions to write out, more than {MOST_TAPS}"
    return None


def _is_narrow(problem: Problem) -> bool:
    """Whether groups are so narrow that products of slices serve better than matrix products."""
    groups = problem.groups * problem.batch_groups
    return problem.rank > 0 and groups > 1 and problem.batch // problem.batch_groups <= NARROW


def _has_groups_alone(problem: Problem) -> bool:
    """Whether there are groups, and no dilated input."""
    return problem.groups * problem.batch_groups > 1 and set(problem.input_dilation) <= {1}


def _has_many_products(problem: Problem) -> bool:
    """Whether the taps of the first axis run in a loop, each a matrix product a group."""
    many = math.prod(problem.positions) > MOST_TAPS
    return problem.rank > 0 and many and _has_groups_alone(problem)


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """One contraction a tap, over the samples that it meets."""
    groups = problem.groups * problem.batch_groups
    inner, outer = problem.group_channels, problem.out_channels // groups
    rows = problem.batch // problem.batch_groups
    # x as (I, *S, G, b) and w as (I, *P, G, o): as image and cotangent lie in memory, so that the
    # transposes here cancel the exchange of batch and channels that made this convolution.
    if problem.groups == 1:
        x = transpose(x, (x.ndim - 1, *range(1, x.ndim - 1), 0))
        x = x.reshape(*x.shape[:-1], groups, rows)
    else:
        x = x.reshape(*x.shape[:-1], groups, inner)
        x = transpose(x, (x.ndim - 1, *range(1, x.ndim - 1), 0))
    w = transpose(w, (w.ndim - 2, *range(w.ndim - 2), w.ndim - 1))
    w = w.reshape(*w.shape[:-1], groups, outer)

    # (T, G, b, o) -> (b, *positions, G o)
    if _is_narrow(problem):
        y = _sums(x, w, problem, lines=conv.in_lines)
    elif _has_many_products(problem) or (conv.platform == "cpu" and _has_groups_alone(problem)):
        y = _group_products(x, w, problem, lines=conv.in_lines)
    else:
        y = _products(x, w, problem, conv)
    return transpose(y, (2, 0, 1, 3)).reshape(problem.y_shape).astype(problem.out_dtype)


def _meeting(
    x: jax.Array, w: jax.Array, tap: tuple[Progression, ...]
) -> tuple[jax.Array, jax.Array]:
    """The samples and the kernel positions that meet at one tap, paired."""
    for axis, p in enumerate(tap, start=1):
        last = max(p.terms - 1, 0)
        stop = p.sample + p.sample_step * last + min(p.terms, 1)
        x = lax.slice_in_dim(x, p.sample, stop, p.sample_step, axis)
        stop = p.tap + p.tap_step * last + min(p.terms, 1)
        w = lax.slice_in_dim(w, p.tap, stop, p.tap_step, axis)
    return x, w


def _products(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """(T, G, b, o) by one matrix product over (I, *S) a tap, for all groups at once."""
    axes = [
        progressions(n, k, p, stride=s, dilation=d, lo=lo, input_dilation=a)
        for n, k, p, s, d, (lo, _), a in zip(
            problem.size,
            problem.kernel,
            problem.positions,
            problem.stride,
            problem.dilation,
            problem.padding,
            problem.input_dilation,
            strict=True,
        )
    ]
    contract, group = tuple(range(problem.rank + 1)), (problem.rank + 1,)
    dimensions: Any = ((contract, contract), (group, group))
    single = x.shape[-2] == 1 and conv.platform == "cpu"
    # Read as they lie, as two axes each. XLA turns x round for more, which pays for wide ones.
    single = single and min(x.shape[-1], w.shape[-1]) < WIDE
    if single:
        dimensions = (((0,), (0,)), ((), ()))
    parts = []
    for tap in itertools.product(*axes):
        xs, ws = _meeting(x, w, tap)
        if single:
            xs, ws = xs.reshape(-1, xs.shape[-1]), ws.reshape(-1, ws.shape[-1])
        part = lax.dot_general(
            xs,
            ws,
            dimensions,
            precision=problem.precision,
            preferred_element_type=problem.sum_dtype,
        )
        parts.append(part[None] if single else part)
    return jnp.stack(parts)


def _group_products(x: jax.Array, w: jax.Array, problem: Problem, *, lines: bool) -> jax.Array:
    """(T, G, b, o) by one matrix product a tap and group, of which each is a small one.

    So groups are brought first once, x is padded, and w is the same for all taps.
    """
    axes = axes_of(problem)
    groups = x.shape[-2]
    x = _pad(x, [axis.x_pad for axis in axes], lines=lines)
    x, w = (transpose(a, (a.ndim - 2, *range(a.ndim - 2), a.ndim - 1)) for a in (x, w))
    w = w.reshape(groups, -1, w.shape[-1])
    # Left alone, XLA does both again for what every tap reads.
    x, w = lax.optimization_barrier((x.reshape(-1, *x.shape[2:]), w))

    def products(axes: Sequence[Axis], move: Any = None) -> jax.Array:
        parts = []
        for tap in itertools.product(*(range(axis.taps) for axis in axes)):
            cuts = [axis.cut(t, 0, axis.terms)[0] for axis, t in zip(axes, tap, strict=True)]
            parts.append(
                lax.dot_general(
                    cut_out(x, cuts, move).reshape(groups, -1, x.shape[-1]),
                    w,
                    (((1,), (1,)), ((0,), (0,))),
                    precision=problem.precision,
                    preferred_element_type=problem.sum_dtype,
                )
            )
        return jnp.stack(parts)

    if not _has_many_products(problem):
        return products(axes)
    first, *others = axes

    def add_row(tap: jax.Array, y: jax.Array) -> jax.Array:
        row = products([first._replace(taps=1), *others], tap * np.uint32(first.x_move))
        return lax.dynamic_update_slice(y, row[None], (tap, *(np.uint32(0),) * row.ndim))

    row = (math.prod(axis.taps for axis in others), groups, x.shape[-1], w.shape[-1])
    y = repeat(first.taps, add_row, jnp.zeros((first.taps, *row), problem.sum_dtype))
    return y.reshape(-1, *row[1:])


def _sums(x: jax.Array, w: jax.Array, problem: Problem, *, lines: bool) -> jax.Array:
    """(T, G, b, o) for narrow groups: each input channel of a group beside all outputs of it."""
    axes = axes_of(problem)
    groups, rows, outer = *x.shape[-2:], w.shape[-1]
    # Every tap reads x: half precision is made single once, and not once for each of them.
    x = _pad(x.astype(problem.sum_dtype), [axis.x_pad for axis in axes], lines=lines)
    w = _pad(w, [axis.w_pad for axis in axes], lines=lines)
    w = w.reshape(*w.shape[:-2], -1)
    parts = []
    for i in range(rows):
        beside = x[..., i]
        if outer > 1:
            shape, kept = (*x.shape[:-1], outer), tuple(range(x.ndim - 1))
            beside = lax.broadcast_in_dim(beside, shape, kept)
            beside = beside.reshape(w.shape[:1] + x.shape[1:-2] + w.shape[-1:])
        # Left alone, XLA repeats padding and spreading for every tap that reads them.
        beside, w = lax.optimization_barrier((beside, w))
        parts.append(_all_taps(beside, w, axes, problem).reshape(-1, groups, 1, outer))
    return jnp.concatenate(parts, axis=-2)


def _pad(x: jax.Array, pads: list[tuple[int, int, int]], *, lines: bool) -> jax.Array:
    whole = x.reshape(*x.shape[:-2], -1)
    whole = pad(whole, [(0, 0, 0), *pads, (0, 0, 0)], lines=lines)
    return whole.reshape(*whole.shape[:-1], *x.shape[-2:])


def _all_taps(x: jax.Array, w: jax.Array, axes: list[Axis], problem: Problem) -> jax.Array:
    """(T, F), in some shape, for x (I, *S, F) and w (I, *P, F); a loop if taps are many."""
    w = w.astype(problem.sum_dtype)
    if not _is_looped(problem):
        return _taps(x, w, axes)
    first, *others = axes
    one = [first._replace(taps=1), *others]

    # In the shape of a depthwise kernel: XLA may copy for a reshape at the end of a function.
    y = jnp.zeros((first.taps, *(axis.taps for axis in others), 1, w.shape[-1]), w.dtype)

    def add_row(tap: jax.Array, y: jax.Array) -> jax.Array:
        move = tap if first.x_move == 1 else tap * first.x_move
        row = _taps(x, w, one, move).reshape(1, *y.shape[1:])
        return lax.dynamic_update_slice(y, row, (tap, *(np.uint32(0),) * (y.ndim - 1)))

    return repeat(first.taps, add_row, y)


def _is_looped(problem: Problem) -> bool:
    """Whether the taps of the first axis run in a loop, and only the others are written out."""
    if problem.input_dilation[0] != 1:
        return False
    taps, row = math.prod(problem.positions), math.prod(problem.positions[1:])
    return taps > MOST_TAPS or (taps > 2 * TOGETHER and row > 2)


def _taps(x: jax.Array, w: jax.Array, axes: list[Axis], move: Any = None) -> jax.Array:
    """(T, F), all taps written out, in blocks of image rows and a few taps at a time."""
    terms = axes[0].terms
    height = next((j for j in range(ROWS, ROWS // 2, -1) if terms % j == 0), min(ROWS, terms))
    taps = list(itertools.product(*(range(axis.taps) for axis in axes)))
    whole = terms - terms % height
    blocks = [(0, whole, height), (whole, terms - whole, terms - whole)]
    sums = []
    for at in range(0, len(taps), TOGETHER):
        some = taps[at : at + TOGETHER]
        stages = [_stage(x, w, axes, some, *block, move) for block in blocks if block[1]]
        # A sum for each tap, all of one shape, which XLA compiles once. Side by side they would be
        # one sum of a copy, which it compiles for every layer anew.
        for parts in zip(*stages, strict=True):
            totals = [_sum(part, range(part.ndim - 1)) for part in parts]
            sums.append(lax.reshape(functools.reduce(lax.add, totals), (1, w.shape[-1])))
    return lax.concatenate(sums, 0)


def _sum(x: jax.Array, axes: Iterable[int]) -> jax.Array:
    return lax.reduce(x, jnp.zeros((), x.dtype), lax.add, tuple(axes))


def _stage(
    x: jax.Array,
    w: jax.Array,
    axes: list[Axis],
    taps: Sequence[tuple[int, ...]],
    first: int,
    terms: int,
    height: int,
    move: Any,
) -> list[jax.Array]:
    """(..., F) of each of some taps: products, ``height`` rows of ``terms`` summed at a time."""
    products = []
    for tap in taps:
        pieces = [(first, terms), *((0, axis.terms) for axis in axes[1:])]
        cuts = [a.cut(t, *piece) for a, t, piece in zip(axes, tap, pieces, strict=True)]
        for_x, for_w, inside = zip(*cuts, strict=True)
        product = lax.mul(cut_out(x, for_x, move), cut_out(w, for_w))
        if not all(terms.all() for terms in inside):
            # A sample beside w's padding is not read; times zero, a NaN or an Inf would be.
            read = functools.reduce(
                jnp.logical_and,
                [
                    lax.broadcast_in_dim(jnp.asarray(terms), product.shape, (axis,))
                    for axis, terms in enumerate(inside, start=1)
                ],
            )
            product = lax.select(read, product, jnp.zeros_like(product))
        blocks = (x.shape[0], terms // height, height, *product.shape[2:])
        products.append(lax.reshape(product, blocks))
    return lax.reduce(
        products,
        [jnp.zeros((), x.dtype)] * len(products),
        lambda a, b: list(map(lax.add, a, b)),
        (2,),
    )
