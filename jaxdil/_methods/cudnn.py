"""Convolutions in the form in which XLA finds cuDNN's call for them, and writes no zeros.

On CUDA, XLA looks for a few patterns. Any other convolution it gives to cuDNN as well, but as an
undilated one, with the zeros of a dilation written out, in the image or in the kernel.

Uneven padding. cuDNN pads evenly, so XLA pads beforehand, in passes over memory of their own. With
a stride even padding often gives the same outputs, or some more at the ends, which are cut off.
Where the kernel is dilated XLA, once it has padded, forgets that; a kernel of 2 taps 512 apart
becomes one of 513. So the padding is written down as an array of its own.

A dilated input. A transposed convolution is the adjoint of one of stride a, and cuDNN has a kernel
for each gradient of that one. XLA calls them for what looks like the gradients of lax: the input
gradient reverses its kernel, so this reverses it twice, once as data and once in the program. The
kernel gradient, a window as large as an image, has x and w exchanged,

    y[b, t, o] = sum_{n, p} x~[b, (s t + p - lo) / a, n] w[p, n, o]
               = sum_{n, j} w[a j - s t + lo, n, o] x[b, j, n]

a kernel gradient of stride a, along a reversed t, whose image is w.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil import _geometry
from jaxdil._layout import transpose
from jaxdil._methods import Convolve
from jaxdil._plain import canonical
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs uneven padding and a stride or dilation; or a dilated input alone, in one group."""
    if problem.is_empty:
        return "cudnn: nothing to compute"
    if problem.batch_groups != 1:
        return "cudnn: the batch is split into groups"
    if all(a == 1 for a in problem.input_dilation):
        if all(lo == hi for lo, hi in problem.padding):
            return "cudnn: the input is not dilated and padding is even; 'xla' is the same"
        if all(d == 1 for d in problem.dilation) and all(s == 1 for s in problem.stride):
            return "cudnn: neither stride nor dilation; 'xla' is the same"
        return None
    if problem.groups != 1:
        return "cudnn: the input is dilated and channels are split into groups"
    if any(d != 1 for d in problem.dilation):
        return "cudnn: the kernel is dilated as well as the input"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Padded evenly, or beforehand; else with x and w exchanged, or as an input gradient."""
    if all(a == 1 for a in problem.input_dilation):
        if all(d == 1 for d in problem.dilation):
            return _evenly(x, w, problem)
        pads = [(0, 0, 0), *((lo, hi, 0) for lo, hi in problem.padding), (0, 0, 0)]
        # Without the barrier XLA would make of it the padding that it was.
        x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), pads))
        padded = problem.replace(size=x.shape[1:-1], padding=((0, 0),) * problem.rank)
        return canonical(x, w, padded)
    if problem.taps > math.prod(problem.positions):
        return _exchanged(x, w, problem, conv)
    spatial = tuple(range(problem.rank))
    # Without the barrier the two would cancel.
    w = lax.rev(lax.optimization_barrier(lax.rev(w, spatial)), spatial)
    return canonical(x, w, problem)


def _evenly(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """With more padding where it is less, and without the outputs that it adds."""
    padding, starts = [], []
    for (lo, hi), stride in zip(problem.padding, problem.stride, strict=True):
        # So many outputs more before the first that there is as much padding as after the last.
        before = max(-(-(hi - lo) // stride), 0)
        even = lo + before * stride
        padding.append((lo, hi) if stride == 1 else (even, even))
        starts.append(0 if stride == 1 else before)
    y = canonical(x, w, problem.replace(padding=tuple(padding)))
    for axis, (start, p) in enumerate(zip(starts, problem.positions, strict=True), start=1):
        y = lax.slice_in_dim(y, start, start + p, axis=axis)
    return y


def _exchanged(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    rank, last = problem.rank, problem.rank + 1
    padding = []
    for axis, (n, k, p, s, a, (lo, _)) in enumerate(
        zip(
            problem.size,
            problem.kernel,
            problem.positions,
            problem.stride,
            problem.input_dilation,
            problem.padding,
            strict=True,
        )
    ):
        low = s * (p - 1) - lo
        high = s * (p - 1) + _geometry.dilated_size(n, a) - k - low
        start, stop, *pads = _geometry.crop_negative(k, 1, low, high)
        w = lax.slice_in_dim(w, start, stop, axis=axis)
        padding.append(tuple(pads))
    # (*P, N, O) as an image (O, *P, N), and (B, *S, N) as a kernel (*S, N, B).
    image = transpose(w, (last, *range(rank), rank))
    kernel = transpose(x, (*range(1, last + 1), 0))
    y = conv(
        image,
        kernel,
        problem.replace(
            batch=problem.out_channels,
            size=image.shape[1:last],
            kernel=problem.size,
            out_channels=problem.batch,
            padding=tuple(padding),
            input_dilation=(1,) * rank,
            dilation=problem.input_dilation,
            x_dtype=problem.w_dtype,
            w_dtype=problem.x_dtype,
        ),
    )
    return transpose(lax.rev(y, tuple(range(1, last))), (last, *range(1, last), 0))
