"""A convolution over n spatial axes as one over n - 1: taps of the first axis become channels.

    y[n, p, q] = conv(concat_t x[n, s p + d t - lo], concat_t w[t])[q]

The planes that a position of the first axis reads stand side by side as channels, positions of that
axis join the batch, and what is left has an axis less. XLA's kernel for dense convolutions in 2-D
is good on a CPU and its loop for 3-D is not. The planes take K0 / s times the input in memory;
`slabs` takes them one by one. Of a 1-D convolution they make one matrix product. On a TPU the taps
of all axes but the last become channels at once: a copy for each axis would be dear there. Where
the input is dilated along these, so do the phases of the output.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._layout import pad
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Slices of the first axis written out for one call.
MOST_SLICES = 128


def supports(problem: Problem, platform: str | None) -> str | None:
    """Needs a spatial axis, the first not dilated in the input (but on a TPU), and no groups."""
    if problem.is_empty:
        return "planes: nothing to compute"
    if problem.rank < 1:
        return "planes: no spatial axis"
    if problem.groups != 1 or problem.batch_groups != 1:
        return "planes: channels or batch are split into groups"
    if problem.input_dilation[0] != 1 and not (platform == "tpu" and _has_rows(problem)):
        return "planes: the input is dilated along the first axis; 'phases' serves it"
    if min(problem.kernel[0], problem.positions[0]) > MOST_SLICES:
        return f"planes: more than {MOST_SLICES} slices of the first axis"
    return None


def _has_rows(problem: Problem) -> bool:
    """Whether `_rows` serves it: several axes, few slices, dilated samples one after the other."""
    lead = problem.rank - 1
    every = zip(problem.stride, problem.dilation, problem.input_dilation, strict=True)
    plain = all(a == 1 or s == d == 1 for s, d, a in list(every)[:lead])
    return lead > 0 and plain and math.prod(problem.kernel[:lead]) <= MOST_SLICES


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Put the planes side by side and convolve over the other axes."""
    flat = problem.rank == 2 and problem.input_dilation[0] == 1
    if conv.platform == "tpu" and _has_rows(problem) and not flat:
        return _rows(x, w, problem, conv)
    taps, positions = problem.kernel[0], problem.positions[0]
    stride, dilation = problem.stride[0], problem.dilation[0]
    pads = [(0, 0, 0)] * x.ndim
    pads[1] = (*problem.padding[0], 0)
    x = pad(x, pads, lines=conv.in_lines)
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


class _Read(NamedTuple):
    """A slice of an axis that every output reads, and the tap that each phase reads it by."""

    start: int
    step: int
    taps: list[int]


def _reads(problem: Problem, axis: int) -> tuple[list[_Read], int, tuple[int, int]]:
    """What outputs read along an axis, how many slices long they are, and the padding for it."""
    n, k, a = problem.size[axis], problem.kernel[axis], problem.input_dilation[axis]
    positions, (lo, hi) = problem.positions[axis], problem.padding[axis]
    if a == 1:
        step, between = problem.stride[axis], problem.dilation[axis]
        return [_Read(between * t, step, [t]) for t in range(k)], positions, (lo, hi)
    # Output a q + r meets sample q + j by tap a j + lo - r.
    first, last, count = -(lo // a), (k + a - 2 - lo) // a, -(-positions // a)
    taps = [[a * j + lo - r for r in range(a)] for j in range(first, last + 1)]
    reads = [_Read(max(first, 0) + j, 1, each) for j, each in enumerate(taps)]
    return reads, count, (max(-first, 0), max(count + last - n, 0))


def _rows(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Rows of the last axis: the taps of all others are channels, their positions a batch."""
    lead, length, outer = problem.rank - 1, problem.size[-1], problem.out_channels
    axes = [_reads(problem, i) for i in range(lead)]
    counts, phases = [count for _, count, _ in axes], list(problem.input_dilation[:lead])
    pads = [(0, 0, 0), *((lo, hi, 0) for _, _, (lo, hi) in axes), (0, 0, 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    batch = problem.batch * math.prod(counts)
    images, kernels = [], []
    for reads in itertools.product(*(each for each, _, _ in axes)):
        start = [0, *(read.start for read in reads), 0, 0]
        extent = (read.step * (n - 1) + 1 for read, n in zip(reads, counts, strict=True))
        shape = (problem.batch, *extent, length, problem.channels)
        stop = [at + size for at, size in zip(start, shape, strict=True)]
        part = lax.slice(x, start, stop, (1, *(read.step for read in reads), 1, 1))
        # Before they are put together: so the compiler may lay the batch into lanes.
        images.append(part.reshape(batch, length, problem.channels))
        kernels.append(_kernel(w, [read.taps for read in reads]))
    x = lax.concatenate(images, 2)
    if math.prod(phases) == 1:
        w = jnp.moveaxis(w, lead, 0).reshape(w.shape[lead], x.shape[-1], outer)
    else:
        w = lax.concatenate(kernels, 1)
    rows = problem.replace(
        batch=batch,
        size=(length,),
        channels=x.shape[-1],
        kernel=problem.kernel[-1:],
        out_channels=w.shape[-1],
        stride=problem.stride[-1:],
        padding=problem.padding[-1:],
        input_dilation=problem.input_dilation[-1:],
        dilation=problem.dilation[-1:],
    )
    y = conv(x, w, rows)
    if math.prod(phases) == 1:
        return y.reshape(problem.y_shape)
    y = y.reshape(problem.batch, *counts, y.shape[1], *phases, outer)
    pairs = itertools.chain(*((1 + i, lead + 2 + i) for i in range(lead)))
    y = lax.transpose(y, (0, *pairs, lead + 1, 2 * lead + 2))
    merged = (n * a for n, a in zip(counts, phases, strict=True))
    y = y.reshape(problem.batch, *merged, *y.shape[-2:])
    return lax.slice(y, (0,) * y.ndim, problem.y_shape)


def _kernel(w: jax.Array, taps: list[list[int]]) -> jax.Array:
    """The taps of all phases of the leading axes, as output channels; none where w has none."""
    lead = len(taps)
    nothing = jnp.zeros(w.shape[lead:], w.dtype)
    every = [
        w[tap] if all(0 <= t < k for t, k in zip(tap, w.shape[:lead], strict=True)) else nothing
        for tap in itertools.product(*taps)
    ]
    return lax.concatenate(every, 2)
