"""A convolution as a sum of shifted slices, one for each tap of the kernel.

    y[n, p, o] = sum_t  x[n, s p + d t - lo, :] @ w[t, :, o]

One multiply-add a tap where the kernel is depthwise or its groups are narrow, one matrix product a
tap otherwise. No patch is ever written: the compiler makes one vectorised loop of a depthwise sum.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Slices written out in one sum. A kernel of more taps runs in a loop over chunks of that many: a
# sum of hundreds of slices takes seconds to compile and spills every register.
UNROLL = 64

# Input channels a group up to which they are multiplied one by one. Beyond, matrix products pay.
NARROW = 8


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs something to sum, an input without inserted zeros and a batch that is not split."""
    if problem.is_empty:
        return "taps: nothing to compute"
    if any(a != 1 for a in problem.input_dilation):
        return "taps: the input is dilated, most taps would meet inserted zeros; 'phases' serves it"
    if problem.batch_groups != 1:
        return "taps: the batch is split into groups; 'correlate' serves it"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """The sum over taps, chunk by chunk where there are many."""
    if _by_multiplication(problem):
        # Half precision once, and not once for every tap: half the time, and less to compile.
        x, w = x.astype(problem.sum_dtype), w.astype(problem.sum_dtype)
    pads = [(0, 0, 0), *((lo, hi, 0) for lo, hi in problem.padding), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    # Left alone, XLA fuses the padding into the loop as a comparison and a select per load.
    x = lax.optimization_barrier(x)
    w = w.reshape(problem.taps, *w.shape[-2:])
    taps = np.indices(problem.kernel).reshape(problem.rank, problem.taps).T
    starts = taps * np.asarray(problem.dilation, np.int32)

    chunks = 0 if problem.taps <= 2 * UNROLL else problem.taps // UNROLL
    looped = chunks * UNROLL
    terms = [_term(x, starts[t].tolist(), w[t], problem) for t in range(looped, problem.taps)]
    if looped:
        kernels = w[:looped].reshape(chunks, UNROLL, *w.shape[1:])
        table = jnp.asarray(starts[:looped].reshape(chunks, UNROLL, problem.rank), np.int32)

        def add_chunk(y: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            table, kernels = chunk
            chunk_terms = [_term(x, list(table[t]), kernels[t], problem) for t in range(UNROLL)]
            return functools.reduce(jnp.add, chunk_terms, y), None

        zero = jnp.zeros(problem.y_shape, problem.sum_dtype)
        terms.append(lax.scan(add_chunk, zero, (table, kernels))[0])
    return functools.reduce(jnp.add, terms).astype(problem.out_dtype)


def _by_multiplication(problem: Problem) -> bool:
    """Whether channels are multiplied one by one, and not by matrix products."""
    if problem.groups == 1:
        return problem.channels == problem.out_channels == 1
    return problem.group_channels <= NARROW


def _term(x: jax.Array, start: Sequence[Any], row: jax.Array, problem: Problem) -> jax.Array:
    """One tap's part of y (N, *P, O): the slice that begins at ``start``, times its row (I, O)."""
    extent = [s * (p - 1) + 1 for s, p in zip(problem.stride, problem.positions, strict=True)]
    if all(isinstance(at, int) for at in start):
        stop = [at + e for at, e in zip(start, extent, strict=True)]
        window = lax.slice(
            x,
            (0, *start, 0),
            (problem.batch, *stop, problem.channels),
            (1, *problem.stride, 1),
        )
    else:
        zero = np.int32(0)
        shape = (problem.batch, *extent, problem.channels)
        window = lax.dynamic_slice(x, (zero, *start, zero), shape)
        window = lax.slice(window, (0,) * window.ndim, window.shape, (1, *problem.stride, 1))
    groups, inner = problem.groups, problem.group_channels
    if problem.channels == groups == problem.out_channels:
        # One multiply-add a sample; written without a reshape, which 49 times over would cost more
        # to compile than the loop they disappear in.
        return window * lax.broadcast_in_dim(row.reshape(-1), window.shape, (window.ndim - 1,))
    if groups == 1:
        return _product(window, row, ((window.ndim - 1,), (0,)), ((), ()), problem)
    window = window.reshape(*window.shape[:-1], groups, inner)
    row = row.reshape(inner, groups, -1)
    if _by_multiplication(problem):
        y = functools.reduce(jnp.add, [_outer(window[..., i], row[i]) for i in range(inner)])
    else:
        last = window.ndim - 1
        y = _product(window, row, ((last,), (0,)), ((last - 1,), (1,)), problem)
        y = jnp.moveaxis(y, 0, -2)
    return y.reshape(problem.y_shape)


def _outer(window: jax.Array, row: jax.Array) -> jax.Array:
    """(..., G) and (G, o) -> (..., G, o)."""
    shape = (*window.shape, row.shape[-1])
    spread = lax.broadcast_in_dim(window, shape, tuple(range(window.ndim)))
    return spread * lax.broadcast_in_dim(row, shape, (window.ndim - 1, window.ndim))


def _product(a: jax.Array, b: jax.Array, contract: Any, batch: Any, problem: Problem) -> jax.Array:
    return lax.dot_general(
        a,
        b,
        (contract, batch),
        precision=problem.precision,
        preferred_element_type=problem.sum_dtype,
    )
