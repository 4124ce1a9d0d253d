"""Convolutions in the form in which XLA finds cuDNN's call for them, and writes no zeros.

On CUDA, XLA looks for a few patterns. Any other convolution it gives to cuDNN as well, but as an
undilated one, with the zeros of a dilation written out, in the image or in the kernel.

Uneven padding. cuDNN pads evenly, so XLA pads beforehand, in passes over memory of their own. With
a stride even padding often gives the same outputs, or some more at the ends, which are cut off.
Where the kernel is dilated XLA, once it has padded, forgets that; a kernel of 2 taps 512 apart
becomes one of 513. So the padding is written down as an array of its own.

A dilated input. A transposed convolution is the adjoint of one of stride a, and cuDNN has a kernel
for its input gradient. XLA calls it for what looks like that of lax, which reverses its kernel, so
this reverses it twice, once as data and once in the program. The kernel gradient is `exchange`'s.
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
    if problem.is_window:
        return "cudnn: a window larger than the output; 'exchange' serves it"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001
    """Padded evenly, or beforehand; else as an input gradient."""
    if all(a == 1 for a in problem.input_dilation):
        if all(d == 1 for d in problem.dilation):
            return _evenly(x, w, problem)
        pads = [(0, 0, 0), *((lo, hi, 0) for lo, hi in problem.padding), (0, 0, 0)]
        # Without the barrier XLA would make of it the padding that it was.
        x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), pads))
        padded = problem.replace(size=x.shape[1:-1], padding=((0, 0),) * problem.rank)
        return canonical(x, w, padded)
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
