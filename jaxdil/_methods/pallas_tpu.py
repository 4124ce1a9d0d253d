"""Kernels for a TPU, written in Pallas: one pass over the memory of the chip.

    y[n, p, c] = sum_t  x~[n, s p + d t - lo, c] w[t, c]

Depthwise convolutions along one axis, of images and of volumes, dense ones along one axis and of
images, and their gradients; of dense volumes the gradient by the kernel. What a kernel does and
which problems it can serve stands with it in ``_pallas``. Where the platform is no TPU it is
interpreted, which is right, and slow.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._layout import transpose
from jaxdil._methods import Convolve
from jaxdil._pallas import (
    plan_1d,
    plan_2d,
    plan_3d,
    plan_dense,
    plan_dense_gradient,
    plan_volumes_gradient,
)
from jaxdil._problem import Problem

__all__ = ["apply", "dense", "dense_gradient", "supports"]

_PLANS = {1: plan_1d, 2: plan_2d, 3: plan_3d}


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - interpreted elsewhere
    """Needs up to three axes, and no groups of several; of dense volumes only kernel gradients."""
    if problem.is_empty:
        return "pallas_tpu: nothing to compute"
    if problem.rank not in _PLANS:
        return f"pallas_tpu: {problem.rank} spatial axes, and it serves one to three"
    plan = _PLANS[problem.rank]
    if _is_dense(problem):
        plan = plan_dense_gradient if _is_gradient(problem) else plan_dense
        if problem.rank == 3:
            plan = plan_volumes_gradient
    why = plan.reason(problem)
    return why and f"pallas_tpu: {why}"


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """By the kernel of a convolution, or by that of a kernel gradient."""
    kernels = {1: _rows, 2: _images, 3: _volumes}
    kernel = kernels[problem.rank]
    if _is_dense(problem):
        kernel = dense_gradient if _is_gradient(problem) else dense
    return kernel(x, w, problem, interpret=conv.platform != "tpu")


def _is_dense(problem: Problem) -> bool:
    """Whether the dense kernels are asked: of volumes there is that of kernel gradients."""
    return problem.groups == problem.batch_groups == 1


def _is_gradient(problem: Problem) -> bool:
    """Whether a dense convolution is a kernel gradient: its window is larger than its output."""
    return problem.is_window


def dense_gradient(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    """The kernel gradient of a dense convolution."""
    from jaxdil._pallas import tpu_dense_gradient

    if problem.rank == 3:
        return _volumes_gradient(x, w, problem, interpret=interpret)
    plan = plan_dense_gradient.plan_of(problem)
    assert plan is not None
    rank = problem.rank
    # (C, *S, N) and (*P, N, O) as image and cotangent lie in memory.
    x = transpose(x, (rank + 1, *range(1, rank + 1), 0))
    g = transpose(w, (rank, *range(rank), rank + 1))
    if rank == 1:
        x, g = x[:, None], g[:, None]
    gradient = tpu_dense_gradient.kernel_gradient
    how = {"dtype": problem.out_dtype, "precision": problem.precision, "interpret": interpret}
    dw = gradient(x, g, plan, **how)
    order = (3, 0, 1, 2) if plan.outer_first else (2, 0, 1, 3)
    return transpose(dw, order).reshape(problem.y_shape)


def _volumes_gradient(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    from jaxdil._pallas import tpu_volumes_gradient

    plan = plan_volumes_gradient.plan_of(problem)
    assert plan is not None
    first, second, third = plan.order
    # (C, *S, N) and (*P, N, O) as image and cotangent lie in memory.
    x = transpose(x, (4, 1 + first, 1 + second, 1 + third, 0))
    g = transpose(w, (3, first, second, third, 4))
    gradient = tpu_volumes_gradient.kernel_gradient
    how = {"dtype": problem.out_dtype, "precision": problem.precision, "interpret": interpret}
    dw = gradient(x, g, plan, **how)
    back = [plan.order.index(axis) for axis in range(3)]
    return transpose(dw, (4, *back, 3) if plan.plane.outer_first else (3, *back, 4))


def dense(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    """A dense convolution."""
    from jaxdil._pallas import tpu_dense

    plan = plan_dense.plan_of(problem)
    assert plan is not None
    rank = problem.rank
    exchanged = (*range(rank), rank + 1, rank)
    if plan.turned:
        # First as the caller turned it round: XLA cancels one such pair with the other.
        w = transpose(lax.rev(transpose(w, exchanged), range(rank)), exchanged)
    if plan.outer_first:
        w = transpose(w, exchanged)
    if rank == 1:
        x, w = x[:, None], w[None]
    y = tpu_dense.convolution(
        x, w, plan, dtype=problem.out_dtype, precision=problem.precision, interpret=interpret
    )
    return y.reshape(problem.y_shape)


def _rows(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    from jaxdil._pallas import tpu_1d

    plan = plan_1d.plan_of(problem)
    if problem.batch_groups > 1:
        # (C, T, N) and (P, N, C) as image and cotangent lie in memory.
        x, g = transpose(x, (2, 1, 0)), transpose(w, (1, 0, 2))
        if not plan.turned:
            dw = tpu_1d.kernel_gradient(x, g, plan, dtype=problem.out_dtype, interpret=interpret)
            return dw.reshape(problem.y_shape)
        x, g = _turned(x), _turned(g)
        dw = tpu_1d.kernel_gradient(x, g, plan, dtype=np.float32, interpret=interpret)
        dw = dw.reshape(plan.taps, problem.channels, problem.batch).sum(1)
        return dw.astype(problem.out_dtype).reshape(problem.y_shape)
    w = w.reshape(problem.kernel[0], problem.channels)
    if not plan.turned:
        return tpu_1d.convolution(x, w, plan, dtype=problem.out_dtype, interpret=interpret)
    w = jnp.tile(w, (1, problem.batch))
    y = tpu_1d.convolution(_turned(x), w, plan, dtype=problem.out_dtype, interpret=interpret)
    return transpose(y.reshape(problem.batch, problem.channels, -1), (0, 2, 1))


def _turned(x: jax.Array) -> jax.Array:
    """(N, T, C) as (1, N C, T): as it lies in memory, where lanes are better filled so."""
    return transpose(x, (0, 2, 1)).reshape(1, -1, x.shape[1])


def _images(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    from jaxdil._pallas import tpu_2d, tpu_2d_gradient

    plan = plan_2d.plan_of(problem)
    assert plan is not None
    if problem.batch_groups > 1:
        # (C, H, W, N) and (P, Q, N, C) as image and cotangent lie in memory.
        x, g = transpose(x, (3, 1, 2, 0)), transpose(w, (2, 0, 1, 3))
        gradient = tpu_2d_gradient.kernel_gradient
        dw = gradient(x, g, plan, dtype=problem.out_dtype, interpret=interpret)
        return dw.reshape(problem.y_shape)
    w = w.reshape(*problem.kernel, problem.channels)
    return tpu_2d.convolution(x, w, plan, dtype=problem.out_dtype, interpret=interpret)


def _volumes(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    from jaxdil._pallas import tpu_3d, tpu_3d_gradient

    plan = plan_3d.plan_of(problem)
    first, second, third = plan.order
    back = [plan.order.index(axis) for axis in range(3)]
    if problem.batch_groups > 1:
        # (C, *S, N) and (*P, N, C) as image and cotangent lie in memory.
        x, g = (
            transpose(x, (4, 1 + first, 1 + second, 1 + third, 0)),
            transpose(w, (3, first, second, third, 4)),
        )
        gradient = tpu_3d_gradient.kernel_gradient
        dw = gradient(x, g, plan, dtype=problem.out_dtype, interpret=interpret)
        return transpose(dw, (*back, 3)).reshape(problem.y_shape)
    x = transpose(x, (0, 1 + first, 1 + second, 1 + third, 4))
    w = transpose(w.reshape(*problem.kernel, problem.channels), (first, second, third, 3))
    y = tpu_3d.convolution(x, w, plan, dtype=problem.out_dtype, interpret=interpret)
    return transpose(y, (0, *(1 + axis for axis in back), 4))
