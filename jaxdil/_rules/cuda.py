"""The rules for CUDA in their order, from times on an H100 and from what users report: G1 to G10.

XLA gives every convolution there to cuDNN, whose kernels for depthwise ones are slow; and what
cuDNN has no call for XLA makes up around one, in passes over memory of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._problem import Problem

__all__ = ["rules"]

# Outputs from which on the kernels fill a GPU, although of several outputs a channel they load x in
# pieces.
FULL = 2**18

_Rule: TypeAlias = Callable[[int, str, str], Choice]


def rules(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """What each rule asks, and what it chooses, in their order."""
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    gradient = problem.batch_groups > 1
    window = problem.is_window
    dilated = any(a > 1 for a in problem.input_dilation)

    def rule(number: int, method: str, what: str) -> Choice:
        return Choice(method, f"rule G{number}: {what}")

    if jnp.issubdtype(problem.x_dtype, jnp.integer):
        what = "integers, which cuDNN refuses or sums wrongly"
        yield gradient or window, rule(1, "correlate", what)
        yield dilated, rule(1, "phases", what)
        yield True, rule(1, "taps", what)
        return
    # Doubles and complex numbers were not looked at.
    if not jnp.issubdtype(problem.x_dtype, jnp.floating) or problem.x_dtype.itemsize > 4:
        return
    if gradient:
        yield from _gradients(problem, rule)
    elif problem.groups > 1 and min(inner, outer) == 1 and inner <= 8:
        yield from _depthwise(problem, rule, dilated=dilated)
    if problem.x_dtype == jnp.bfloat16 and problem.rank == 1:
        what = "bfloat16 in 1-D, at which cuDNN fails"
        yield gradient or window, rule(2, "correlate", what)
        yield dilated, rule(2, "phases", what)
        yield True, rule(2, "taps", what)
        return
    if gradient:
        return
    products = problem.groups > 1 and problem.taps == 1 and min(inner, outer) >= 16
    yield products and not dilated, rule(6, "taps", "1x1 of groups: matrix products, one a group")
    strided = any(s > 1 for s in problem.stride)
    atrous = any(d > 1 for d in problem.dilation)
    uneven = any(lo != hi for lo, hi in problem.padding) and not dilated and not window
    spread = atrous and uneven
    yield spread, rule(7, "cudnn", "dilated, uneven padding: the kernel is not filled with zeros")
    steps = strided and uneven
    yield steps, rule(10, "cudnn", "strided, uneven padding: x is not copied for it")
    if problem.groups > 1:
        return
    close = all(k <= a for k, a in zip(problem.kernel, problem.input_dilation, strict=True))
    far = math.prod(problem.input_dilation) >= 64 and close and not window
    yield far, rule(8, "phases", "samples far apart, one to an output: a matrix product")
    yield dilated and window, rule(9, "exchange", "kernel gradient of a transposed convolution")
    yield dilated and not strided, rule(9, "cudnn", "transposed: no zeros are inserted")


def _depthwise(problem: Problem, rule: _Rule, *, dilated: bool) -> Iterator[tuple[bool, Choice]]:
    """Groups of one channel, or to one."""
    few = math.prod(problem.y_shape) < FULL and problem.out_channels > problem.groups
    yield few and not dilated, rule(4, "taps", "several outputs a channel, few in all")
    # XLA makes one loop of the sum; for a kernel channels would be moved, and moved back.
    first = problem.channels_first and problem.taps <= 9 and not dilated
    yield first, rule(4, "taps", "depthwise, channels first: one loop")
    # Rows of x that are pieces of 16 bytes, which is what a thread loads at a time.
    even = problem.channels * problem.x_dtype.itemsize % 16 == 0
    yield even, rule(5, "pallas_gpu", "depthwise: one pass over memory")


def _gradients(problem: Problem, rule: _Rule) -> Iterator[tuple[bool, Choice]]:
    """Kernel gradients of groups: here their channels are the batch, and the taps the positions."""
    inner = problem.batch // problem.batch_groups
    outer = problem.out_channels // problem.batch_groups
    # cuDNN has kernels of its own for these; smaller images leave most of them idle.
    plain = {*problem.stride, *problem.dilation, *problem.input_dilation} <= {1}
    large = problem.rank == 2 and inner == outer == 1 and plain and min(problem.kernel) >= 28
    best = large and (problem.positions == (3, 3) or problem.x_dtype.itemsize == 2)
    even = problem.batch * problem.x_dtype.itemsize % 16 == 0
    alone = inner == 1 and even and not best
    yield alone, rule(3, "pallas_gpu", "kernel gradient of a depthwise convolution")
    narrow = 1 < inner <= 4 and even and problem.x_dtype.itemsize == 4
    yield narrow, rule(3, "pallas_gpu", "kernel gradient of groups of 2 to 4 channels")
    products = math.prod(problem.positions) == 1 and min(inner, outer) >= 16
    yield products, rule(6, "correlate", "1x1 of groups: matrix products, one a group")
