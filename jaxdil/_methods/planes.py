"""A convolution over n spatial axes as one over n - 1: taps of the first axis become channels.

    y[n, p, q] = conv(concat_t x[n, s p + d t - lo], concat_t w[t])[q]

The planes that a position of the first axis reads stand side by side as channels, positions of that
axis join the batch, and what is left has an axis less. XLA's kernel for dense convolutions in 2-D
is good on a CPU and its loop for 3-D is not. Side by side the planes take K0 / s times the input in
memory; where that is much, or channels are many anyway, a loop takes them one by one.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    """Convolve over the other axes: all planes side by side, or one by one."""
    taps, positions = problem.kernel[0], problem.positions[0]
    stride, dilation = problem.stride[0], problem.dilation[0]
    pads = [(0, 0, 0)] * x.ndim
    pads[1] = (*problem.padding[0], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    by_taps = taps <= positions
    slices, step, terms, between = (
        (taps, dilation, positions, stride) if by_taps else (positions, stride, taps, dilation)
    )

    def planes(i: Any) -> jax.Array:
        """The planes that tap i meets, or that position i reads."""
        plane = _slice(x, i * step, between * (terms - 1) + 1)
        return lax.slice_in_dim(plane, 0, plane.shape[1], between, axis=1)

    def over_the_others(x: jax.Array, w: jax.Array) -> jax.Array:
        y = conv(x, w, _without_first(problem, x, w))
        return y.reshape(problem.batch, -1, *y.shape[1:])

    if not _by_itself(problem):
        # (N, P0, ..., K0, C), by whichever of the two axes has fewer slices.
        x = jnp.stack([planes(i) for i in range(slices)], axis=-2 if by_taps else 1)
        x = x if by_taps else jnp.moveaxis(x, 2, -2)
        return over_the_others(_merged(x), _kernels(w)).reshape(problem.y_shape)

    y = jnp.zeros(problem.y_shape, problem.out_dtype)
    if by_taps:

        def add_tap(i: jax.Array, y: jax.Array) -> jax.Array:
            i = i.astype(np.uint32)
            x = planes(i)[..., None, :]
            return y + over_the_others(_merged(x), _kernels(_slice(w, i, 1, axis=0)))

        return lax.fori_loop(0, taps, add_tap, y)

    def write_position(i: jax.Array, y: jax.Array) -> jax.Array:
        i = i.astype(np.uint32)
        x = jnp.moveaxis(planes(i), 1, -2)[:, None]
        zero = np.uint32(0)
        return lax.dynamic_update_slice(
            y, over_the_others(_merged(x), _kernels(w)), (zero, i, *(zero,) * problem.rank)
        )

    return lax.fori_loop(0, positions, write_position, y)


def _by_itself(problem: Problem) -> bool:
    """Whether planes are taken one by one, in a loop.

    Side by side they take several times the memory of the input; that pays only where channels are
    so few that a plane by itself would not occupy a matrix product.
    """
    planes = math.prod((problem.batch, problem.positions[0], *problem.size[1:], problem.channels))
    side_by_side = planes * problem.kernel[0] * problem.x_dtype.itemsize
    return problem.channels >= 64 or side_by_side > 2 * problem.bytes


def _slice(x: jax.Array, start: Any, size: int, axis: int = 1) -> jax.Array:
    if isinstance(start, int):
        return lax.slice_in_dim(x, start, start + size, axis=axis)
    return lax.dynamic_slice_in_dim(x, start, size, axis)


def _merged(x: jax.Array) -> jax.Array:
    """(N, P0, ..., K0, C) with positions in the batch and planes in the channels."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:-2], x.shape[-2] * x.shape[-1])


def _kernels(w: jax.Array) -> jax.Array:
    """(K0, ..., I, O) -> (..., K0 I, O)."""
    w = jnp.moveaxis(w, 0, -3)
    return w.reshape(*w.shape[:-3], -1, w.shape[-1])


def _without_first(problem: Problem, x: jax.Array, w: jax.Array) -> Problem:
    return problem.replace(
        batch=x.shape[0],
        size=problem.size[1:],
        channels=x.shape[-1],
        kernel=w.shape[:-2],
        stride=problem.stride[1:],
        padding=problem.padding[1:],
        input_dilation=problem.input_dilation[1:],
        dilation=problem.dilation[1:],
    )
