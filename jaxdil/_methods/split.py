"""A convolution for each group, in a loop over them.

    y[..., g] = conv(x[..., g], w[..., g])

Where XLA has a good kernel for one group and none for several, as on a CPU. A pass of the loop cuts
out the channels of a group (or its part of the batch), so that nothing is kept but them, and there
is one convolution to compile, however many groups there are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._loop import repeat
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs groups."""
    if problem.is_empty:
        return "split: nothing to compute"
    if problem.groups * problem.batch_groups == 1:
        return "split: one group"
    if problem.groups != 1 and problem.batch_groups != 1:
        return "split: channels and batch are both split into groups"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """One group after the other."""
    groups = problem.groups * problem.batch_groups
    last = x.ndim - 1
    axis, name = (0, "batch") if problem.batch_groups > 1 else (last, "channels")
    inner, outer = x.shape[axis] // groups, problem.out_channels // groups
    one = problem.replace(groups=1, batch_groups=1, out_channels=outer, **{name: inner})
    if conv.platform == "cpu":
        # Half precision once, and not once for every group.
        x, w = x.astype(problem.sum_dtype), w.astype(problem.sum_dtype)
        one = one.replace(x_dtype=x.dtype, w_dtype=w.dtype, out_dtype=x.dtype)

    def add_group(g: jax.Array, y: jax.Array) -> jax.Array:
        to = g * np.uint32(outer)
        part = lax.dynamic_slice_in_dim(x, g * np.uint32(inner), inner, axis)
        row = lax.dynamic_slice_in_dim(w, to, outer, last)
        return lax.dynamic_update_slice_in_dim(y, conv(part, row, one), to, last)

    y = repeat(groups, add_group, jnp.zeros(problem.y_shape, one.out_dtype))
    return y.astype(problem.out_dtype)
