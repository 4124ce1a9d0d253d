"""A convolution over n spatial axes as a sum of some over n - 1: one a tap of the first axis.

    y[n, p, q] = sum_t conv(x[n, s p + d t - lo], w[t])[q]

Positions of the first axis join the batch. A kernel gradient has an image for a window and few
positions; there it is one convolution for each position, and the taps of the first axis join the
channels, which are summed over. Compilers for accelerators know two spatial axes best. Nothing is
copied but slices; the sum is kept in float32 where input and output are narrower.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Convolutions written out for one call.
MOST_SLABS = 32


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs two spatial axes, few taps or positions of the first, no zeros inserted there."""
    if problem.is_empty:
        return "slabs: nothing to compute"
    if problem.rank < 2:
        return "slabs: fewer than two spatial axes"
    if problem.input_dilation[0] != 1:
        return "slabs: the input is dilated along the first axis; 'phases' serves it"
    if problem.batch_groups != 1:
        return "slabs: the batch is split into groups; 'correlate' serves it"
    if problem.groups != 1 and not _by_taps(problem):
        return "slabs: groups, and more taps than positions on the first axis"
    if min(problem.kernel[0], problem.positions[0]) > MOST_SLABS:
        return f"slabs: more than {MOST_SLABS} slabs of the first axis"
    return None


def _by_taps(problem: Problem) -> bool:
    return problem.kernel[0] <= problem.positions[0]


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Cut the first axis into slabs and convolve each over the others."""
    taps, positions = problem.kernel[0], problem.positions[0]
    stride, dilation = problem.stride[0], problem.dilation[0]
    pads = [(0, 0, 0)] * x.ndim
    pads[1] = (*problem.padding[0], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    rest = problem.replace(
        size=problem.size[1:],
        kernel=problem.kernel[1:],
        stride=problem.stride[1:],
        padding=problem.padding[1:],
        input_dilation=problem.input_dilation[1:],
        dilation=problem.dilation[1:],
    )
    if _by_taps(problem):
        rest = rest.replace(batch=problem.batch * positions, out_dtype=problem.sum_dtype)
        parts = []
        for t in range(taps):
            start = dilation * t
            slab = lax.slice_in_dim(x, start, start + stride * (positions - 1) + 1, stride, 1)
            parts.append(conv(slab.reshape(rest.x_shape), w[t], rest))
        y = functools.reduce(jnp.add, parts)
        return y.reshape(problem.y_shape).astype(problem.out_dtype)

    rest = rest.replace(channels=taps * problem.channels)
    # (K0, *K, I, O) -> (*K, K0 I, O), and x (N, K0, *S, C) -> (N, *S, K0 C) for each position.
    w = jnp.moveaxis(w, 0, -3).reshape(rest.w_shape)
    parts = []
    for p in range(positions):
        start = stride * p
        slab = lax.slice_in_dim(x, start, start + dilation * (taps - 1) + 1, dilation, 1)
        parts.append(conv(jnp.moveaxis(slab, 1, -2).reshape(rest.x_shape), w, rest))
    return jnp.stack(parts, 1)
