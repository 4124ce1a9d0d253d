"""Kernels for a GPU, written in Pallas and lowered to Triton: narrow groups in one pass.

    y[n, p, o] = sum_{t, i}  x~[n, (s p + d t - lo) / a, g I + i]  w[t, i, o]       g = o // (O / G)

Depthwise convolutions and groups of a few channels along any number of axes, their gradients by
input and kernel, strides and dilations of both. Sums are kept in float32. Where the platform is no
GPU the kernels are interpreted, which is right, and slow.
"""

from __future__ import annotations

import functools
import math
from importlib.machinery import PathFinder

import jax
import jax.experimental
import jax.numpy as jnp

from jaxdil._device import devices_here
from jaxdil._layout import transpose
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Input channels a group up to which products one by one are worth it; matrix units take more.
NARROW = 8

# XLA compiles Triton for NVIDIA's GPUs from this compute capability on: those since the A100.
LEAST_CAPABILITY = 8.0

# Indices are 32 bits wide; the tiles at the end reach beyond an array by less than this.
MOST_ELEMENTS = 2**31 - 2**16

_DTYPES = tuple(jnp.dtype(name) for name in ("float32", "bfloat16", "float16"))


def supports(problem: Problem, platform: str | None) -> str | None:
    """Needs narrow groups, floats of up to 32 bits, few enough elements, and a GPU not too old."""
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
    if not _has_triton():
        return "pallas_gpu: this JAX has no jax.experimental.pallas.triton"
    capability = _capability() if platform == "cuda" else None
    if capability is not None and capability < LEAST_CAPABILITY:
        return f"pallas_gpu: a GPU of compute capability {capability}, below {LEAST_CAPABILITY}"
    return None


def _capability() -> float | None:
    """The least compute capability of the GPUs here, or None if there are none."""
    known = [getattr(device, "compute_capability", None) for device in devices_here("cuda")]
    return min((float(each) for each in known if each is not None), default=None)


@functools.cache
def _has_triton() -> bool:
    """Whether JAX still has what the kernels are written in; it says that it will go.

    Looked up and not imported, for choosing a method must stay light.
    """
    where: list[str] | None = jax.experimental.__path__
    for name in ("jax.experimental.pallas", "jax.experimental.pallas.triton"):
        found = PathFinder.find_spec(name, where)
        if found is None:
            return False
        where = found.submodule_search_locations
    return True


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
