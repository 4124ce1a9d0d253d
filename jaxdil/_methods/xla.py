"""The convolution as XLA lowers it: the floor, and what everything else is compared with."""

from __future__ import annotations

import jax

from jaxdil._methods import Convolve
from jaxdil._plain import canonical
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - lax serves everything, everywhere
    """None: whatever is a convolution, lax serves."""
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """The convolution of lax, channels last."""
    return canonical(x, w, problem)
