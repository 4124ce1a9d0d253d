"""A kernel gradient tap by tap of its last axis, whose samples are summed over as channels are.

    y[b, u, t, o] = sum_{p, n, q}  x[b, s u + d p - lo, s' t + d' q - lo', n] w[p, q, n, o]

A kernel gradient sums over images n and over samples (p, q). lax sums over images as over channels,
of which a matrix unit wants 128; a small batch has few. Here the samples q of the last axis are the
channels, and the images a window of one position. For that the two axes only change names, which
moves nothing; each tap t is a slice and a convolution.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._plain import plain
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Convolutions written out for one call.
MOST_TAPS = 32


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs a last axis of few positions, no zeros inserted there, and channels in one group."""
    if problem.is_empty:
        return "columns: nothing to compute"
    if problem.rank < 1:
        return "columns: no spatial axis"
    if problem.groups != 1:
        return "columns: channels are split into groups"
    if problem.input_dilation[-1] != 1:
        return "columns: the input is dilated along the last axis; 'correlate' serves it"
    if problem.positions[-1] > MOST_TAPS:
        return f"columns: more than {MOST_TAPS} positions of the last axis"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """One convolution of lax for each position of the last axis."""
    last = problem.rank
    pads = [(0, 0, 0)] * x.ndim
    pads[last] = (*problem.padding[-1], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    # x (b, *S, q, n), w (*P, q, n, o): n is the first of the window's axes, q the channels.
    others = range(1, last)
    image = (0, last, last + 1, *others)
    kernel = (last + 1, last - 1, last, *range(last - 1))
    result = (0, last + 1, last, *others)
    step, between = problem.stride[-1], problem.dilation[-1]
    reach = between * (problem.kernel[-1] - 1) + 1
    parts = [
        plain(
            lax.slice_in_dim(x, at, at + reach, between, last),
            w,
            window_strides=(1, *problem.stride[:-1]),
            padding=((0, 0), *problem.padding[:-1]),
            lhs_dilation=(1, *problem.input_dilation[:-1]),
            rhs_dilation=(1, *problem.dilation[:-1]),
            dimension_numbers=lax.ConvDimensionNumbers(image, kernel, result),
            feature_group_count=1,
            batch_group_count=problem.batch_groups,
            precision=problem.precision,
            preferred_element_type=problem.out_dtype,
        )
        for at in range(0, step * problem.positions[-1], step)
    ]
    return lax.concatenate(parts, last)
