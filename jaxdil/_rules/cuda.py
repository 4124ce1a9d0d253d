"""The rules for CUDA in their order, from what XLA compiles to and what users report: G1 to G9.

XLA gives every convolution there to cuDNN, and what cuDNN has no call for it makes up around
one, in passes over memory of their own. Nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._problem import Problem

__all__ = ["rules"]


def rules(problem: Problem) -> Iterator[tuple[bool, Choice]]:
    """What each rule asks, and what it chooses, in their order."""
    inner, outer = problem.group_channels, problem.out_channels // problem.groups
    gradient = problem.batch_groups > 1
    window = problem.taps > math.prod(problem.positions)
    dilated = any(a > 1 for a in problem.input_dilation)

    def rule(number: int, method: str, what: str) -> Choice:
        return Choice(method, f"rule G{number}: {what}")

    avoided, what = 0, ""
    if jnp.issubdtype(problem.x_dtype, jnp.integer):
        avoided, what = 1, "integers, which cuDNN refuses or sums wrongly"
    elif problem.x_dtype == jnp.bfloat16 and problem.rank == 1:
        avoided, what = 2, "bfloat16 in 1-D, at which cuDNN fails"
    if avoided:
        apart = gradient or (problem.groups > 1 and inner == 1)
        yield avoided == 2 and apart, rule(avoided, "pallas_gpu", what)
        yield gradient or window, rule(avoided, "correlate", what)
        yield dilated, rule(avoided, "phases", what)
        yield True, rule(avoided, "taps", what)
        return
    # Doubles and complex numbers were not looked at.
    if not jnp.issubdtype(problem.x_dtype, jnp.floating) or problem.x_dtype.itemsize > 4:
        return
    # Rows of x that are pieces of 16 bytes, which is what a thread loads at a time.
    if gradient:
        alone = problem.batch == problem.batch_groups == problem.out_channels
        even = problem.batch_groups * problem.x_dtype.itemsize % 16 == 0
        yield alone and even, rule(3, "pallas_gpu", "kernel gradient of a depthwise convolution")
        return
    even = problem.channels * problem.x_dtype.itemsize % 16 == 0
    atrous = any(d > 1 for d in problem.dilation)
    uneven = any(lo != hi for lo, hi in problem.padding)
    if problem.groups > 1 and inner == outer == 1 and even:
        yield dilated, rule(4, "pallas_gpu", "depthwise, input dilated: no zeros are inserted")
        yield atrous, rule(5, "pallas_gpu", "depthwise and dilated")
        yield problem.rank > 2, rule(6, "pallas_gpu", "depthwise in 3-D")
        yield uneven, rule(6, "pallas_gpu", "depthwise, uneven padding: x is not copied for it")
    spread = atrous and uneven and not dilated and not window
    yield spread, rule(7, "cudnn", "dilated, uneven padding: the kernel is not filled with zeros")
    if problem.groups > 1:
        return
    close = all(k <= a for k, a in zip(problem.kernel, problem.input_dilation, strict=True))
    far = math.prod(problem.input_dilation) >= 64 and close and not window
    yield far, rule(8, "phases", "samples far apart, one to an output: a matrix product")
    yield dilated and window, rule(9, "cudnn", "kernel gradient of a transposed convolution")
    forward = dilated and max(problem.stride) == 1
    yield forward, rule(9, "cudnn", "transposed: no zeros are inserted")
