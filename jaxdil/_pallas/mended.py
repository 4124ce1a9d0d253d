"""A kernel gradient once more, tap by tap, where it is not finite.

    dw[i, t, o] = sum_{n, p}  x~[n, s t + d p - lo, i] g[n, p, o]

Zero times NaN is NaN. A kernel may multiply other zeros than those around x, or leave those out, so
that a sample which is not finite reaches taps that do not read it, or fewer than it should. What
comes of it is not finite either, which the kernel tells beside dw. Then all is computed again: a
matrix product for each tap, in a loop, which is slow, and compiles in no time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._layout import pad, transpose
from jaxdil._pallas.axes import SUBLANES, up
from jaxdil._pallas.lying import Lies, arranged
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.varying import like
from jaxdil._problem import Problem

__all__ = ["begin", "mended", "note", "tell", "told"]

# --- in a kernel ----------------------------------------------------------------------------------


def told(x: Any, columns: int | None) -> tuple[list[Any], list[Any], list[Any]]:
    """Specs and types of what a kernel gives beside dw, and the memory it needs for it.

    It is whether some sum is not finite, one number for all blocks, which therefore come in turn;
    and zero times all sums, of so many columns. Of None there is none.
    """
    if columns is None:
        return [], [], []
    scratch = pltpu.VMEM((SUBLANES, columns), jnp.float32)
    return [pl.BlockSpec(memory_space=pltpu.SMEM)], [like(x, (1, 1), jnp.int32)], [scratch]


def begin(nothing: Any, first: Any) -> None:
    """Zeros in the first step, where there is any doubt."""
    if nothing is not None:

        @pl.when(first)
        def _() -> None:
            nothing[...] = jnp.zeros(nothing.shape, nothing.dtype)


def note(nothing: Any, total: Any, used: Any = None) -> None:
    """Add zero times some sums: zeros, if they are finite. Only columns before ``used`` count."""
    if nothing is None:
        return
    if used is not None:
        column = lax.broadcasted_iota(jnp.int32, total.shape, 1)
        total = jnp.where(column < used, total, 0)
    rows = up(total.shape[0], SUBLANES)
    none = jnp.pad(total * 0, [(0, rows - total.shape[0]), (0, 0)])
    nothing[...] += none.reshape(-1, SUBLANES, total.shape[1]).sum(0)


def tell(doubt: Any, nothing: Any) -> None:
    """Whether one of them was not."""
    if nothing is not None:
        doubt[0, 0] = jnp.where(nothing[...] == 0, 0, 1).max()


# --- beside it ------------------------------------------------------------------------------------


def mended(
    dw: jax.Array,
    doubt: jax.Array | None,
    x: jax.Array,
    g: jax.Array,
    problem: Problem,
    *,
    order: Sequence[int],
    lies: tuple[Lies, Lies],
    axes: Sequence[int] | None = None,
    interpret: Any,
) -> jax.Array:
    """``dw`` with its axes in this ``order``, computed again where there is ``doubt``.

    ``lies`` is how x (C, *S, N) and g (*P, N, O) lie in memory, spatial axes in the order ``axes``.
    """
    last = problem.rank + 1
    axes = range(problem.rank) if axes is None else axes
    # As the kernel reads them, and from there with channels last, which fill the lanes.
    orders = [
        _in_memory(last, [1 + axis for axis in axes], 0, lies[0]),
        _in_memory(last - 1, axes, last, lies[1]),
    ]
    backs = [
        [orders[0].index(axis) for axis in (last, *range(1, last), 0)],
        [orders[1].index(axis) for axis in (last - 1, *range(last - 1), last)],
    ]

    def again(_: jax.Array, *arrays: jax.Array) -> jax.Array:
        arrays = arrays if interpret else _copied(*arrays)
        x, g = map(transpose, arrays, backs)
        return _tap_by_tap(x, g, problem)

    dw = transpose(dw, order).reshape(problem.y_shape)
    if doubt is None:
        return dw
    arrays = map(transpose, (x, g), orders)
    return lax.cond(doubt.reshape(()) == 0, lambda dw, *_: dw, again, dw, *arrays)


def _in_memory(n: int, spatial: Sequence[int], c: int, lies: Lies) -> list[int]:
    """The axes in the order in memory; a row is an image of one."""
    *planes, rows, columns = spatial if len(spatial) > 1 else (-1, *spatial)
    first, *rest = arranged(n, rows, columns, c, lies)
    order = (*planes, first, *rest) if lies[1] > 1 else (first, *planes, *rest)
    return [axis for axis in order if axis >= 0]


@narrow
def _copied(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """By a kernel: what XLA reads itself in a branch it would lay out, and fetch, before that."""

    def copy(*refs: Any) -> None:
        done = refs[-1]
        copies = [
            pltpu.make_async_copy(refs[i], refs[len(arrays) + i], done.at[i])
            for i in range(len(arrays))
        ]
        for each in copies:
            each.start()
        for each in copies:
            each.wait()

    spec = pl.BlockSpec(memory_space=pltpu.HBM)
    held = [pltpu.with_memory_space_constraint(x, pltpu.HBM) for x in arrays]
    return pl.pallas_call(
        copy,
        in_specs=[spec] * len(arrays),
        out_specs=[spec] * len(arrays),
        out_shape=[like(x, x.shape, x.dtype) for x in arrays],
        scratch_shapes=[pltpu.SemaphoreType.DMA((len(arrays),))],
        name="jaxdil_copy",
    )(*held)


def _tap_by_tap(x: jax.Array, g: jax.Array, problem: Problem) -> jax.Array:
    """Of x (N, *S, C) and g (N, *P, O)."""
    rank, groups = problem.rank, problem.batch_groups
    pads = [
        (lo, hi, a - 1) for (lo, hi), a in zip(problem.padding, problem.input_dilation, strict=True)
    ]
    widen = functools.partial(pad, pads=[(0, 0, 0), *pads, (0, 0, 0)], lines=False)
    dilated = max(problem.input_dilation) > 1
    samples = widen(jnp.ones((1, *problem.size, 1), bool)) if dilated else None
    x = widen(x)

    def read(x: jax.Array, start: jax.Array) -> jax.Array:
        """What a tap reads."""
        spans = [d * (k - 1) + 1 for k, d in zip(problem.kernel, problem.dilation, strict=True)]
        sizes = x.shape[0], *spans, x.shape[-1]
        part = lax.dynamic_slice(x, [np.int32(0), *start, np.int32(0)], sizes)
        return lax.slice(part, [0] * part.ndim, part.shape, [1, *problem.dilation, 1])

    def product(start: jax.Array) -> jax.Array:
        """(G, I, O / G) of a tap."""
        part, other = read(x, start), g
        if samples is not None:
            # The zeros between samples nobody multiplies, nor those around them then.
            other = jnp.where(read(samples, start), g, jnp.zeros((), g.dtype))
        summed = tuple(range(rank + 1))
        if part.shape[-1] == groups == g.shape[-1]:
            terms = part.astype(problem.sum_dtype) * other.astype(problem.sum_dtype)
            return terms.sum(summed)[:, None, None]
        batch: tuple[int, ...] = ()
        if groups > 1:
            batch = (rank + 1,)
            part, other = (a.reshape(*a.shape[:-1], groups, -1) for a in (part, other))
        found = lax.dot_general(
            part,
            other,
            ((summed, summed), (batch, batch)),
            precision=problem.precision,
            preferred_element_type=problem.sum_dtype,
        )
        return found if groups > 1 else found[None]

    taps = np.stack(np.unravel_index(np.arange(math.prod(problem.positions)), problem.positions), 1)
    terms = lax.map(product, jnp.asarray(taps * np.array(problem.stride), np.int32))
    # (T, G, I, O / G) as (I, T, (G, O / G)).
    return lax.transpose(terms, (2, 0, 1, 3)).reshape(problem.y_shape).astype(problem.out_dtype)
