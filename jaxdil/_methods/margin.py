"""A dense convolution with a margin: more padding than it asks for, whose outputs are cut off.

The XLA of JAX 0.10 hands convolutions of images to one of two libraries on a CPU. One takes those
whose output is no larger than the image, which nearly all are. It divides outputs and columns among
threads, so that 64 outputs of 56 columns are the work of one thread whatever the batch, and it is
slow where a large image is not padded. The other divides whatever there is. With as many rows of
padding more as make the output larger than the image, it is the other's.
"""

from __future__ import annotations

import math

import jax
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._plain import canonical
from jaxdil._problem import Problem

__all__ = ["apply", "supports", "with_margin"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs one group, no input dilation, and an axis without a stride that is not long already."""
    if problem.is_empty:
        return "margin: nothing to compute"
    if problem.groups != 1 or problem.batch_groups != 1:
        return "margin: channels or batch are split into groups"
    if any(a != 1 for a in problem.input_dilation):
        return "margin: the input is dilated; 'phases' serves it"
    sizes = zip(problem.size, problem.positions, strict=True)
    if any(p > n for n, p in sizes):
        return "margin: the output is larger than the image as it is"
    if 1 not in problem.stride:
        return "margin: there is no axis without a stride"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """The convolution of lax, with more padding."""
    y = canonical(x, w, with_margin(problem))
    return lax.slice(y, (0,) * y.ndim, problem.y_shape)


def with_margin(problem: Problem) -> Problem:
    """The problem with an output longer than its image, along the axis where that adds least."""
    sizes = zip(problem.size, problem.positions, problem.stride, strict=True)
    shares = [(n + 1 - p) / p if s == 1 else math.inf for n, p, s in sizes]
    axis = shares.index(min(shares))
    padding, more = list(problem.padding), problem.size[axis] + 1 - problem.positions[axis]
    padding[axis] = (padding[axis][0], padding[axis][1] + more)
    return problem.replace(padding=tuple(padding))
