"""The convolution as XLA lowers it: the floor, and what everything else is compared with."""

from __future__ import annotations

import jax
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._plain import plain
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - lax serves everything, everywhere
    """None: whatever is a convolution, lax serves."""
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """The convolution of lax, channels last."""
    last = problem.rank + 1
    spatial = tuple(range(1, last))
    return plain(
        x,
        w,
        window_strides=problem.stride,
        padding=problem.padding,
        lhs_dilation=problem.input_dilation,
        rhs_dilation=problem.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(
            (0, last, *spatial), (last, last - 1, *range(problem.rank)), (0, last, *spatial)
        ),
        feature_group_count=problem.groups,
        batch_group_count=problem.batch_groups,
        precision=problem.precision,
        preferred_element_type=problem.out_dtype,
    )
