"""A convolution as a sum of shifted slices, one for each tap of the kernel.

    y[n, p, o] = sum_t  x[n, s p + d t - lo, :] @ w[t, :, o]

One multiply-add a tap where the kernel is depthwise or its groups are narrow, one matrix product a
tap otherwise. No patch is ever written; the compiler makes one vectorised loop of the sum.
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

# Slices written out in one sum; more taps than this run in a loop over chunks of that many. A sum of
# hundreds of slices takes seconds to compile and spills every register.
UNROLL = 64


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs an input without inserted zeros and a batch that is not split."""
    if any(a != 1 for a in problem.input_dilation):
        return "taps: the input is dilated, most taps would meet inserted zeros; 'phases' serves it"
    if problem.batch_groups != 1:
        return "taps: the batch is split into groups; 'correlate' serves it"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """The sum over taps."""
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), *((lo, hi, 0) for lo, hi in problem.padding), (0, 0, 0)])
    # Left alone, XLA fuses the padding into the loop as a comparison and a select per load.
    x = lax.optimization_barrier(x)
    w = w.reshape(problem.taps, *w.shape[-2:])
    offsets = np.stack(
        [i.ravel() for i in np.indices(problem.kernel)], axis=-1
    ).reshape(problem.taps, problem.rank) * np.asarray(problem.dilation, int)

    product = _product(problem)
    extent = [s * (p - 1) + 1 for s, p in zip(problem.stride, problem.positions, strict=True)]

    def term(offset, kernel):
        window = lax.dynamic_slice(
            x, (0, *offset, 0), (problem.batch, *extent, problem.channels)
        )
        window = lax.slice(
            window, (0,) * window.ndim, window.shape, (1, *problem.stride, 1)
        )
        return product(window, kernel)

    def static_term(offset, kernel):
        window = lax.slice(
            x,
            (0, *map(int, offset), 0),
            (problem.batch, *(int(o) + e for o, e in zip(offset, extent, strict=True)), problem.channels),
            (1, *problem.stride, 1),
        )
        return product(window, kernel)

    looped = 0 if problem.taps <= 2 * UNROLL else problem.taps // UNROLL
    y = None
    for t in range(looped * UNROLL, problem.taps):
        part = static_term(offsets[t], w[t])
        y = part if y is None else y + part
    if looped:
        tables = jnp.asarray(offsets[: looped * UNROLL].reshape(looped, UNROLL, problem.rank), np.int32)
        kernels = w[: looped * UNROLL].reshape(looped, UNROLL, *w.shape[1:])

        def step(y, chunk):
            table, kernel = chunk
            return functools.reduce(jnp.add, [term(tuple(table[t]), kernel[t]) for t in range(UNROLL)], y), None
        if y is None:
            y = jnp.zeros(problem.y_shape, problem.sum_dtype)
        y, _ = lax.scan(step, y, (tables, kernels))
    return y.reshape(problem.y_shape).astype(problem.out_dtype)


def _product(problem: Problem):
    """One tap's contribution (N, *P, O) from its slice (N, *P, C) and its kernel row (I, O)."""
    dtype = problem.sum_dtype
    groups, inner, outer = problem.groups, problem.group_channels, problem.out_channels
    if problem.group_channels <= 8 and groups > 1:
        def narrow(window, kernel):
            window = window.astype(dtype).reshape(*window.shape[:-1], groups, inner, 1)
            kernel = kernel.astype(dtype).reshape(inner, groups, outer // groups)
            y = functools.reduce(jnp.add, [window[..., i, :] * kernel[i] for i in range(inner)])
            return y.reshape(*y.shape[:-2], outer)
        return narrow

    def product(window, kernel):
        if groups == 1:
            return lax.dot_general(window, kernel, (((window.ndim - 1,), (0,)), ((), ())),
                                   precision=problem.precision, preferred_element_type=dtype)
        window = window.reshape(*window.shape[:-1], groups, inner)
        kernel = kernel.reshape(inner, groups, outer // groups)
        n = window.ndim
        y = lax.dot_general(window, kernel, (((n - 1,), (0,)), ((n - 2,), (1,))),
                            precision=problem.precision, preferred_element_type=dtype)
        y = jnp.moveaxis(y, 0, -2)
        return y.reshape(*y.shape[:-2], outer)
    return product
