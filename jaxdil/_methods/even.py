"""A dense convolution of an odd number of channels, with a channel of zeros more.

XLA hands dense convolutions of images to a library on a CPU, whose kernels for 17 to 32 outputs
take channels in pairs. Of an odd number they take one after the other, more slowly: the first layer
of most networks, from red, green and blue to 32 channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._plain import canonical
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs one group and an odd number of channels."""
    if problem.is_empty:
        return "even: nothing to compute"
    if problem.groups != 1 or problem.batch_groups != 1:
        return "even: channels or batch are split into groups"
    if problem.channels % 2 == 0:
        return f"even: {problem.channels} channels are an even number"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """Convolve with one channel more, by lax."""
    zero, pads = jnp.zeros((), x.dtype), [(0, 0, 0)] * x.ndim
    # Left alone, XLA makes this channel one of padding, for which the library has no kernel.
    x = lax.optimization_barrier(lax.pad(x, zero, [*pads[1:], (0, 1, 0)]))
    w = lax.pad(w, zero.astype(w.dtype), [*pads[2:], (0, 1, 0), (0, 0, 0)])
    return canonical(x, w, problem.replace(channels=problem.channels + 1))
