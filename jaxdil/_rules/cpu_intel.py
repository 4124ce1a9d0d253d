"""A rule for Intel's processors, on which XLA's library is slow by the kernel: C19.

Once the cotangent is larger than the second cache (2 MB) it computes kernel gradients several times
more slowly, and few channels or few positions too. AMD's processors know neither, nor does the
library of JAX before 0.10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_model
from jaxdil._problem import Problem
from jaxdil._rules.cpu_products import EXCHANGED, LIBRARY, Rule

__all__ = ["kernel_gradients"]

# Bytes of the cotangent from which on the library is slow, and positions of an image: it is not
# where many small images make up the bytes.
CACHE, LARGE = 2_000_000, 400


def kernel_gradients(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Kernel gradients of one group in two axes, of floats of single precision and less."""
    taps, positions = math.prod(problem.positions), math.prod(problem.kernel)
    if not LIBRARY or problem.rank != 2 or not problem.is_window or taps == 1:
        return
    if "Intel" not in cpu_model() or any(a > 1 for a in problem.input_dilation):
        return
    # As a layer has them: its channels, its outputs, and how many of these positions there are.
    inner, outer, rows = problem.batch, problem.out_channels, positions * problem.channels
    least = min(inner, outer)
    what = "kernel gradient on an Intel processor, of a large cotangent"
    large = 4 * rows * outer >= CACHE and positions >= LARGE and least >= 24
    half = problem.x_dtype == jnp.bfloat16
    patches = half or (least <= 128 and taps <= 9)
    yield large, rule(19, "im2col" if patches else "planes", what)
    if problem.x_dtype != jnp.float32:
        return
    what = "kernel gradient on an Intel processor, of few channels"
    few = inner >= 3 and least < 48
    # Up to 16 outputs image and cotangent are better exchanged, but for what is copied for it.
    spread = outer > 16 or problem.bytes >= EXCHANGED
    lone = few and problem.channels == 1 and rows * taps >= 18000
    lone = lone and ((least >= 8 and (outer >= 16 or inner < 32)) or (taps >= 25 and spread))
    yield lone, rule(19, "slabs", what)
    many = rows >= 10000 and (rows >= 30000 or taps >= 25 or inner >= 12)
    yield few and many and spread, rule(19, "planes", what)
    what = "kernel gradient on an Intel processor, of few positions"
    short = LARGE <= rows <= 8 * least and least >= 128 and taps <= 9
    yield short and set(problem.dilation) == {1}, rule(19, "planes", what)
