"""A convolution without what meets padding alone: taps that read no sample, outputs without one.

A kernel of 3x3 over an image of one sample is a 1x1 kernel with a border of taps that only zeros
are multiplied by, and so is one dilated by the size of the image. Its gradient is that of 1x1
within a border of zeros. What is left is a smaller convolution: its method is chosen anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil import _geometry
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "left", "supports"]


class _Axis(NamedTuple):
    """What is left of one axis."""

    taps: range
    outputs: range
    samples: range
    padding: tuple[int, int]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - anywhere
    """Needs a tap or an output at the end of an axis that meets no sample; no input dilation."""
    if problem.is_empty:
        return "trim: nothing to compute"
    if left(problem) == 1:
        return "trim: at the ends of the kernel and of the output all meet a sample"
    return None


def left(problem: Problem) -> float:
    """The part of all pairs of a tap and an output that is left."""
    pairs = math.prod(len(axis.taps) * len(axis.outputs) for axis in _axes(problem))
    return pairs / (problem.taps * math.prod(problem.positions))


def _axes(problem: Problem) -> list[_Axis]:
    sizes = problem.size, problem.kernel, problem.positions
    steps = problem.stride, problem.dilation, problem.input_dilation, problem.padding
    return [_axis(*axis) for axis in zip(*sizes, *steps, strict=True)]


def _axis(n: int, k: int, p: int, s: int, d: int, a: int, padding: tuple[int, int]) -> _Axis:
    whole = _Axis(range(k), range(p), range(n), padding)
    if a > 1 and n > 1:
        return whole  # Which taps meet the zeros between samples is what `phases` knows.
    lo, _ = padding
    taps = _geometry.meeting(n, k, p, stride=s, dilation=d, lo=lo)
    outputs = _geometry.meeting(n, p, k, stride=d, dilation=s, lo=lo)
    if not taps or (len(taps), len(outputs)) == (k, p):
        return whole  # Where nothing meets anything, all is zero whoever computes it.
    lo -= d * taps.start + s * outputs.start
    hi = s * (len(outputs) - 1) + d * (len(taps) - 1) + 1 - n - lo
    start, stop, *kept = _geometry.crop_negative(n, 1, lo, hi)
    return _Axis(taps, outputs, range(start, stop), (kept[0], kept[1]))


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Cut off the ends of the kernel, convolve, and put zeros where outputs meet no sample."""
    axes = _axes(problem)
    x = _cut(x, 1, [axis.samples for axis in axes])
    w = _cut(w, 0, [axis.taps for axis in axes])
    inside = problem.replace(
        size=x.shape[1:-1],
        kernel=w.shape[:-2],
        padding=tuple(axis.padding for axis in axes),
    )
    y = conv(x, w, inside)
    pads = [
        (axis.outputs.start, p - axis.outputs.stop, 0)
        for axis, p in zip(axes, problem.positions, strict=True)
    ]
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *pads, (0, 0, 0)])


def _cut(x: jax.Array, first: int, kept: Sequence[range]) -> jax.Array:
    """What is kept of the axes from ``first`` on."""
    starts, stops = [0] * x.ndim, list(x.shape)
    for axis, part in enumerate(kept, first):
        starts[axis], stops[axis] = part.start, part.stop
    return lax.slice(x, starts, stops)
