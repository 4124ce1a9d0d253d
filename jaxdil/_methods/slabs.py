"""A convolution over n spatial axes as a sum of some over n - 1: one a tap of the first axis.

    y[n, p, q] = sum_t conv(x[n, s p + d t - lo], w[t])[q]

Positions of the first axis join the batch. Where the input is dilated along it, each phase of
positions has its own taps (see _geometry.phases), and the zeros between the samples are left out.
A kernel gradient has an image for a window and few
positions; there it is one convolution for each position, and the taps of the first axis join the
channels, which are summed over. XLA knows two spatial axes best, on a CPU and on accelerators.
Nothing is copied but slices, one at a time in a loop where all of them would take much memory; the
sum is kept in float32 where input and output are narrower.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._geometry import Phase
from jaxdil._geometry import phases as phases_of
from jaxdil._layout import pad
from jaxdil._loop import repeat
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Convolutions written out for one call.
MOST_SLABS = 32


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs two spatial axes, and few taps or positions of the first."""
    if problem.is_empty:
        return "slabs: nothing to compute"
    if problem.rank < 2:
        return "slabs: fewer than two spatial axes"
    if problem.input_dilation[0] != 1 and not _by_taps(problem):
        return "slabs: the input is dilated, and more taps than positions on the first axis"
    if problem.batch_groups != 1:
        return "slabs: the batch is split into groups; 'correlate' serves it"
    if problem.groups != 1 and not _by_taps(problem):
        return "slabs: groups, and more taps than positions on the first axis"
    if min(problem.kernel[0], problem.positions[0]) > MOST_SLABS and not _is_heavy(problem):
        return f"slabs: more than {MOST_SLABS} slabs of the first axis"
    return None


def _by_taps(problem: Problem) -> bool:
    return problem.kernel[0] <= problem.positions[0]


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Cut the first axis into slabs and convolve each over the others."""
    taps, positions = problem.kernel[0], problem.positions[0]
    stride, dilation = problem.stride[0], problem.dilation[0]
    rest = problem.replace(
        size=problem.size[1:],
        kernel=problem.kernel[1:],
        stride=problem.stride[1:],
        padding=problem.padding[1:],
        input_dilation=problem.input_dilation[1:],
        dilation=problem.dilation[1:],
    )
    if _by_taps(problem):
        return _sum(x, w, problem, rest, conv)

    x = _pad(x, *problem.padding[0], conv)
    rest = rest.replace(channels=taps * problem.channels)
    # (K0, *K, I, O) -> (*K, K0 I, O), and x (N, K0, *S, C) -> (N, *S, K0 C) for each position.
    w = jnp.moveaxis(w, 0, -3).reshape(rest.w_shape)

    def position(p: Any) -> jax.Array:
        slab = jnp.moveaxis(_cut(x, p, stride, dilation, taps), 1, -2)
        return conv(slab.reshape(rest.x_shape), w, rest)[:, None]

    if not _is_heavy(problem):
        return jnp.concatenate([position(p) for p in range(positions)], 1)

    def write(p: jax.Array, y: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(y, position(p), p, 1)

    return repeat(positions, write, jnp.zeros(problem.y_shape, problem.out_dtype))


def _sum(x: jax.Array, w: jax.Array, problem: Problem, rest: Problem, conv: Convolve) -> jax.Array:
    """Tap by tap, the positions of each phase of the first axis at once, and interleave them."""
    if conv.platform == "cpu" and _is_whole(problem):
        return _whole(x, w, problem, rest, conv)
    phases = _phases(problem)
    count = phases[0].outputs
    reaches = [p.stride * (count - 1) + p.dilation * (p.taps - 1) + 1 - p.lo for p in phases]
    before = max(0, *(p.lo for p in phases))
    if conv.in_lines:  # which are cut out with less code
        x, w = x.reshape(*x.shape[:2], -1), w.reshape(w.shape[0], -1)
    x = _pad(x, before, max(0, *reaches) - problem.size[0], conv)
    shape = (problem.batch, count, *problem.y_shape[2:])
    rest = rest.replace(batch=problem.batch * count, out_dtype=problem.sum_dtype)

    def part(phase: Phase, t: Any) -> jax.Array:
        slab = _cut(x, t, phase.dilation, phase.stride, count, before - phase.lo)
        tap = t if phase.tap_step == 1 else phase.tap + phase.tap_step * t
        kernel = _at(w, tap)
        if conv.in_lines:
            slab, kernel = lax.optimization_barrier((slab, kernel))
        return conv(slab.reshape(rest.x_shape), kernel.reshape(rest.w_shape), rest).reshape(shape)

    parts = []
    for phase in phases:
        if not phase.taps:
            y = jnp.zeros(shape, problem.sum_dtype)
        elif not _is_heavy(problem):
            terms = [part(phase, t) for t in range(phase.taps)]
            y = functools.reduce(jnp.add, terms)
        else:
            y = jnp.zeros(shape, problem.sum_dtype)
            add = functools.partial(_added, functools.partial(part, phase))
            y = repeat(phase.taps, add, y)
        parts.append(y.astype(problem.out_dtype))
    if len(parts) == 1:
        return parts[0]
    y = jnp.stack(parts, 2)
    y = y.reshape(problem.batch, -1, *problem.y_shape[2:])
    return lax.slice_in_dim(y, 0, problem.positions[0], axis=1)


def _is_whole(problem: Problem) -> bool:
    """Whether every tap reads nearly all slabs, and they may be read as they lie."""
    plain = problem.stride[0] == problem.input_dilation[0] == 1 and problem.kernel[0] <= MOST_SLABS
    few = 4 * problem.size[0] <= 5 * problem.positions[0]
    outputs = problem.kernel[0] * math.prod(problem.y_shape) * problem.sum_dtype.itemsize
    return plain and few and (not _is_heavy(problem) or outputs <= 2 * problem.bytes)


def _whole(
    x: jax.Array, w: jax.Array, problem: Problem, rest: Problem, conv: Convolve
) -> jax.Array:
    """Tap by tap, all slabs at once; what they give is moved, and not what they read."""
    depth, positions, lo = problem.size[0], problem.positions[0], problem.padding[0][0]
    rest = rest.replace(batch=problem.batch * depth, out_dtype=problem.sum_dtype)
    x, w = x.reshape(rest.x_shape), w.reshape(w.shape[0], -1)
    terms = []
    for t in range(problem.kernel[0]):
        kernel = lax.optimization_barrier(_at(w, t)).reshape(rest.w_shape)
        y = conv(x, kernel, rest).reshape(problem.batch, depth, *problem.y_shape[2:])
        at = problem.dilation[0] * t - lo
        pads = [(0, 0, 0)] * y.ndim
        pads[1] = (-at, positions + at - depth, 0)
        terms.append(lax.pad(y, jnp.zeros((), y.dtype), pads))
    return functools.reduce(lax.add, terms).astype(problem.out_dtype)


def _added(part: Any, t: jax.Array, y: jax.Array) -> jax.Array:
    return y + part(t)


def _phases(problem: Problem) -> list[Phase]:
    return phases_of(
        problem.kernel[0],
        problem.positions[0],
        stride=problem.stride[0],
        dilation=problem.dilation[0],
        input_dilation=problem.input_dilation[0],
        lo=problem.padding[0][0],
    )


def _pad(x: jax.Array, before: int, after: int, conv: Convolve) -> jax.Array:
    pads = [(0, 0, 0), (before, max(after, 0), 0), *[(0, 0, 0)] * (x.ndim - 2)]
    return pad(x, pads, lines=conv.in_lines)


def _is_heavy(problem: Problem) -> bool:
    """Whether the slabs of a volume, which XLA may cut all at once, would take much memory."""
    slabs = min(problem.kernel[0], problem.positions[0]) // problem.input_dilation[0]
    volume = problem.rank > 2 and problem.groups == 1
    return (
        volume and slabs * math.prod(problem.x_shape) * problem.x_dtype.itemsize > 2 * problem.bytes
    )


def _cut(x: jax.Array, i: Any, step: int, between: int, terms: int, start: int = 0) -> jax.Array:
    """``terms`` samples of the first spatial axis, ``between`` apart, from start + step i on."""
    reach = between * (terms - 1) + 1
    if isinstance(i, int):
        first = start + i * step
        return lax.slice_in_dim(x, first, first + reach, between, 1)
    slab = lax.dynamic_slice_in_dim(x, i * step + np.uint32(start), reach, 1)
    return lax.slice_in_dim(slab, 0, reach, between, 1)


def _at(w: jax.Array, i: Any) -> jax.Array:
    """The kernel of one tap of the first axis."""
    return w[i] if isinstance(i, int) else lax.dynamic_index_in_dim(w, i, keepdims=False)
