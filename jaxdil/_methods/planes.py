"""A convolution over n spatial axes as one over n - 1: taps of the first axis become channels.

    y[n, p, q] = conv(concat_t x[n, s p + d t - lo], concat_t w[t])[q]

The planes that a position of the first axis reads stand side by side as channels, positions of that
axis join the batch, and what is left has an axis less. XLA's kernel for dense convolutions in 2-D
is good on a CPU and its loop for 3-D is not. The planes take K0 / s times the input in memory;
`slabs` takes them one by one. Of a 1-D convolution they make one matrix product.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Slices of the first axis written out for one call.
MOST_SLICES = 128


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs a spatial axis, the first not dilated in the input, and no groups."""
    if problem.is_empty:
        return "planes: nothing to compute"
    if problem.rank < 1:
        return "planes: no spatial axis"
    if problem.groups != 1 or problem.batch_groups != 1:
        return "planes: channels or batch are split into groups"
    if problem.input_dilation[0] != 1:
        return "planes: the input is dilated along the first axis; 'phases' serves it"
    if min(problem.kernel[0], problem.positions[0]) > MOST_SLICES:
        return f"planes: more than {MOST_SLICES} slices of the first axis"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Put the planes side by side and convolve over the other axes."""
    taps, positions = problem.kernel[0], problem.positions[0]
    stride, dilation = problem.stride[0], problem.dilation[0]
    pads = [(0, 0, 0)] * x.ndim
    pads[1] = (*problem.padding[0], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    # (N, P0, ..., K0, C), by whichever of the two axes has fewer slices.
    if taps <= positions:
        reach = stride * (positions - 1) + 1
        x = jnp.stack(
            [
                lax.slice_in_dim(x, d, d + reach, stride, 1)
                for d in range(0, dilation * taps, dilation)
            ],
            axis=-2,
        )
    else:
        reach = dilation * (taps - 1) + 1
        x = jnp.stack(
            [
                lax.slice_in_dim(x, s, s + reach, dilation, 1)
                for s in range(0, stride * positions, stride)
            ],
            axis=1,
        )
        x = jnp.moveaxis(x, 2, -2)
    x = x.reshape(problem.batch * positions, *problem.size[1:], taps * problem.channels)
    w = jnp.moveaxis(w, 0, -3).reshape(*problem.kernel[1:], -1, problem.out_channels)
    y = conv(
        x,
        w,
        problem.replace(
            batch=x.shape[0],
            size=problem.size[1:],
            channels=x.shape[-1],
            kernel=problem.kernel[1:],
            stride=problem.stride[1:],
            padding=problem.padding[1:],
            input_dilation=problem.input_dilation[1:],
            dilation=problem.dilation[1:],
        ),
    )
    return y.reshape(problem.y_shape)
