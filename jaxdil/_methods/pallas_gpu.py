"""Kernels for a GPU, written in Pallas and lowered to Triton: narrow groups in one pass.

    y[n, p, o] = sum_{t, i}  x~[n, (s p + d t - lo) / a, g I + i]  w[t, i, o]       g = o // (O / G)

Depthwise convolutions and groups of a few channels along any number of axes, their gradients by
input and kernel, strides and dilations of both. Sums are kept in float32. Where the platform is no
GPU the kernels are interpreted, which is right, and slow.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxdil._layout import transpose
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Input channels a group up to which products one by one are worth it; matrix units take more.
NARROW = 8

# Indices are 32 bits wide; the tiles at the end reach beyond an array by less than this.
MOST_ELEMENTS = 2**31 - 2**16

_DTYPES = tuple(jnp.dtype(name) for name in ("float32", "bfloat16", "float16"))


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - interpreted elsewhere
    """Needs narrow groups, floats of up to 32 bits, and fewer elements than 32 bits count."""
    if problem.is_empty:
        return "pallas_gpu: nothing to compute"
    if not problem.rank:
        return "pallas_gpu: no spatial axis"
    if problem.groups * problem.batch_groups == 1:
        return "pallas_gpu: one group of all channels; matrix products serve it"
    if problem.groups != 1 and problem.batch_groups != 1:
        return "pallas_gpu: channels and batch are both split into groups"
    inner = problem.group_channels
    if problem.batch_groups > 1:
        inner = problem.batch // problem.batch_groups
    if inner > NARROW:
        return f"pallas_gpu: {inner} channels a group, more than {NARROW}"
    for dtype in (problem.x_dtype, problem.w_dtype, problem.out_dtype):
        if dtype not in _DTYPES:
            return f"pallas_gpu: {dtype}, and it sums floats of up to 32 bits"
    largest = max(map(math.prod, (problem.x_shape, problem.w_shape, problem.y_shape)))
    if largest > MOST_ELEMENTS:
        return f"pallas_gpu: {largest} elements, more than the {MOST_ELEMENTS} it can index"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """By the kernel of a convolution, or by that of a kernel gradient."""
    interpret = conv.platform not in ("cuda", "rocm")
    if problem.batch_groups == 1:
        from jaxdil._pallas import gpu_forward

        return gpu_forward.convolution(x, w, problem, interpret=interpret)
    from jaxdil._pallas import gpu_kernel_grad

    # (G I, *S, N) and (*P, N, O) as image and cotangent lie in memory.
    last, spatial = problem.rank + 1, range(problem.rank)
    x = transpose(x, (last, *range(1, last), 0))
    c = transpose(w, (problem.rank, *spatial, last))
    return gpu_kernel_grad.kernel_gradient(x, c, problem, interpret=interpret)
