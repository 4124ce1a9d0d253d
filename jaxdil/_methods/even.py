"""A dense convolution with channels of zeros more, so that their numbers are round.

    y = conv([x, 0], [[w, 0], [0, 0]])  without its last channels

XLA hands dense convolutions of images to a library on a CPU. Its kernels take input channels in
fours, for 17 to 32 outputs in pairs, and what is left of them one by one, more slowly: the first
layer of most networks reads three, red, green and blue. Outputs are in blocks of 8, 16, 32 and 64,
and what is left of a block in smaller ones, which take longer than all of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._device import cpu_vectors
from jaxdil._methods import Convolve
from jaxdil._plain import canonical
from jaxdil._problem import Problem

__all__ = ["apply", "rounded", "supports"]

# Outputs of a block, and those of all blocks but the last.
BLOCKS, BLOCK = (8, 16, 32, 64), 64


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs one group, and channels or outputs whose number is not round."""
    if problem.is_empty:
        return "even: nothing to compute"
    if problem.groups != 1 or problem.batch_groups != 1:
        return "even: channels or batch are split into groups"
    if rounded(problem) == (problem.channels, problem.out_channels):
        return f"even: {problem.channels} channels to {problem.out_channels} are round numbers"
    return None


def rounded(problem: Problem) -> tuple[int, int]:
    """Channels and outputs with those of zeros."""
    inner, outer = problem.channels, problem.out_channels
    if cpu_vectors() == "AVX2":
        # Its kernels have other blocks, and only an odd number was found to be slow.
        return inner + inner % 2, outer
    # Where more than three quarters of a block are there; beside others only all of one.
    blocks = BLOCKS if outer < BLOCK else (BLOCK,)
    last = (outer - 1) % BLOCK + 1
    outer += next((b - last for b in blocks if 3 * b < 4 * last < 4 * b), 0)
    last = (outer - 1) % BLOCK + 1
    if last <= 16 or 32 < last <= 48:
        step = 4
    elif last <= 32 and inner % 2:
        step = 4 if last <= 24 else 2
    else:
        step = 1
    return inner + -inner % step, outer


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """Convolve with channels more, by lax."""
    inner, outer = rounded(problem)
    zero, pads = jnp.zeros((), x.dtype), [(0, 0, 0)] * x.ndim
    more = (0, inner - problem.channels, 0)
    if more[1]:
        # Left alone, XLA makes these channels ones of padding, for which the library has no kernel.
        x = lax.optimization_barrier(lax.pad(x, zero, [*pads[1:], more]))
    last = (0, outer - problem.out_channels, 0)
    w = lax.pad(w, zero.astype(w.dtype), [*pads[2:], more, last])
    y = canonical(x, w, problem.replace(channels=inner, out_channels=outer))
    return lax.slice(y, (0,) * y.ndim, problem.y_shape)
