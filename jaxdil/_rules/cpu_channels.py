"""A rule for numbers of channels that the kernels of XLA's library do not come in: C11.

Those of JAX 0.10 take channels in fours, for 17 to 32 outputs in pairs, and the rest of them one by
one; those of later ones have no such rest but for an odd number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp

from jaxdil._choice import Choice
from jaxdil._device import cpu_vectors
from jaxdil._methods import even
from jaxdil._problem import Problem
from jaxdil._rules.cpu_intel import is_xeon
from jaxdil._rules.cpu_products import LIBRARY, LIBRARY_11, LIBRARY_12, Rule

__all__ = ["is_uneven", "uneven_channels"]

# Multiply-adds from which on it is worth it, and channels of which what is left is a small part.
WORK, MANY = 1e6, 80
# Outputs up to which it pays on AMD's, and products from which on that each sample is read for.
FEW, PRODUCTS = 48, 128


def uneven_channels(problem: Problem, rule: Rule) -> Iterator[tuple[bool, Choice]]:
    """Convolutions of one group in two axes, which are no gradients by the kernel."""
    if is_uneven(problem):
        yield True, rule(11, "even", "a number of channels that is not round")
    if not LIBRARY or problem.rank != 2 or problem.is_window:
        return
    if any(a > 1 for a in problem.input_dilation):
        return
    inner, outer = problem.channels, problem.out_channels
    odd = inner % 2 == 1 and 3 <= inner <= 31 and 17 <= outer <= 32 and problem.taps > 1
    # From JAX 0.12 on only their number is too much for it, and not that it is odd.
    odd = odd and (inner >= 17 or not LIBRARY_12)
    # Outputs that fill AVX2's vectors it computes as well.
    odd = odd and not (outer == 32 and cpu_vectors() == "AVX2")
    rows = math.prod(problem.y_shape[:-1])
    yield odd and rows >= 256, rule(11, "even", "an odd number of channels")


def is_uneven(problem: Problem) -> bool:
    """Whether they are to be more, where it was measured: with AVX-512 under JAX 0.10."""
    if cpu_vectors() != "AVX-512" or not LIBRARY or LIBRARY_11 or problem.rank != 2:
        return False
    # AMD's gain nothing to more outputs, and by few taps less than the copies cost.
    little = problem.out_channels > FEW or problem.taps * problem.out_channels < PRODUCTS
    if little and not is_xeon():
        return False
    if problem.is_window or problem.exchanged:
        return False
    if any(a > 1 for a in problem.input_dilation) or problem.x_dtype != jnp.float32:
        return False
    # An output larger than the image is another library's.
    sizes = zip(problem.size, problem.positions, strict=True)
    if problem.taps == 1 or any(p > n for n, p in sizes):
        return False
    if math.prod(problem.y_shape) * problem.taps * problem.channels < WORK:
        return False
    inner, outer = even.rounded(problem)
    if inner > problem.channels:
        least = 13 if outer <= 16 else 3 if outer <= 32 else 7
        if least <= problem.channels <= MANY:
            return True
    if outer > problem.out_channels:
        # Outputs that are few take few channels no longer than those that fill a block.
        return problem.channels >= (32 if outer <= 16 or outer > 64 else 13)
    return False
