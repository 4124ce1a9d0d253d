"""Kernels for a TPU, written in Pallas: one pass over the memory of the chip.

    y[n, p, c] = sum_t  x~[n, s p + d t - lo, c] w[t, c]

Depthwise convolutions along one axis, of images and of volumes, dense ones of the same, groups
along one axis and of images, and their gradients. What a kernel does and which problems it can
serve stands with it in ``_pallas``. Where the platform is no TPU it is interpreted, which is
right, and slow.
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
    plan_groups,
    plan_groups_gradient,
    plan_volumes,
    plan_volumes_gradient,
)
from jaxdil._problem import Problem

__all__ = [
    "apply",
    "dense",
    "dense_gradient",
    "dense_volumes",
    "grouped",
    "grouped_gradient",
    "supports",
]

_PLANS = {1: plan_1d, 2: plan_2d, 3: plan_3d}


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - interpreted elsewhere
    """Needs up to three axes, two for groups of several."""
    if problem.is_empty:
        return "pallas_tpu: nothing to compute"
    if problem.rank not in _PLANS:
        return f"pallas_tpu: {problem.rank} spatial axes, and it serves one to three"
    plan = _PLANS[problem.rank]
    if _is_dense(problem):
        plan = plan_dense_gradient if _is_gradient(problem) else plan_dense
        if problem.rank == 3:
            plan = plan_volumes_gradient if _is_gradient(problem) else plan_volumes
    elif _is_grouped(problem):
        plan = plan_groups_gradient if problem.batch_groups > 1 else plan_groups
    why = plan.reason(problem)
    return why and f"pallas_tpu: {why}"


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """By the kernel of a convolution, or by that of a kernel gradient."""
    kernels = {1: _rows, 2: _images, 3: _volumes}
    kernel = kernels[problem.rank]
    if _is_dense(problem):
        forward = dense_volumes if problem.rank == 3 else dense
        kernel = dense_gradient if _is_gradient(problem) else forward
    elif _is_grouped(problem):
        kernel = grouped_gradient if problem.batch_groups > 1 else grouped
    return kernel(x, w, problem, interpret=conv.platform != "tpu")


def _is_dense(problem: Problem) -> bool:
    """Whether the dense kernels are asked."""
    return problem.groups == problem.batch_groups == 1


def _is_grouped(problem: Problem) -> bool:
    """Whether it is groups of several channels, or their kernel gradient, of rows or images."""
    groups = max(problem.groups, problem.batch_groups)
    split = problem.batch // groups if problem.batch_groups > 1 else problem.group_channels
    widest = max(split, problem.out_channels // groups)
    split_once = min(problem.groups, problem.batch_groups) == 1 < groups
    return problem.rank in (1, 2) and split_once and widest > 1


def _is_gradient(problem: Problem) -> bool:
    """Whether a dense convolution is a kernel gradient: its window is larger than its output."""
    return problem.is_window


def dense_gradient(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    """The kernel gradient of a dense convolution."""
    from jaxdil._pallas import tpu_dense_gradient
    from jaxdil._pallas.mended import mended

    if problem.rank == 3:
        return _volumes_gradient(x, w, problem, interpret=interpret)
    plan = plan_dense_gradient.plan_of(problem)
    assert plan is not None
    gradient = tpu_dense_gradient.kernel_gradient
    how = {"dtype": problem.out_dtype, "precision": problem.precision, "interpret": interpret}
    dw, doubt = gradient(*_images_of(x, w), plan, **how)
    order = (3, 0, 1, 2) if plan.outer_first else (2, 0, 1, 3)
    lies = plan.lies
    return mended(dw, doubt, x, w, problem, order=order, lies=lies, interpret=interpret)


def _images_of(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(C, *S, N) and (*P, N, O) as image and cotangent lie in memory; a row is an image of one."""
    rank = x.ndim - 2
    x = transpose(x, (rank + 1, *range(1, rank + 1), 0))
    g = transpose(w, (rank, *range(rank), rank + 1))
    return (x[:, None], g[:, None]) if rank == 1 else (x, g)


def dense_volumes(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    """A dense convolution of volumes."""
    plan = plan_volumes.plan_of(problem)
    assert plan is not None
    y, doubt = _volumes_by(plan, x, w, problem, interpret=interpret)
    if doubt is None:
        return y

    def apart(_: jax.Array, x: jax.Array, w: jax.Array) -> jax.Array:
        plan = plan_volumes.plan_of(problem, join=False)
        assert plan is not None
        return _volumes_by(plan, x, w, problem, interpret=interpret)[0]

    # Zero times NaN or infinity is NaN, which joined columns would share.
    return lax.cond(jnp.all(doubt == 0), lambda y, *_: y, apart, y, x, w)


def _volumes_by(
    plan: plan_volumes.Plan, x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any
) -> tuple[jax.Array, jax.Array | None]:
    from jaxdil._pallas import tpu_volumes

    first, second, third = plan.order
    x = transpose(x, (0, 1 + first, 1 + second, 1 + third, 4))
    w = transpose(_kernel(w, problem, plan.plane), (*plan.order, 3, 4))
    how = {"dtype": problem.out_dtype, "precision": problem.precision, "interpret": interpret}
    y, doubt = tpu_volumes.convolution(x, w, plan, **how)
    return transpose(y, (0, *(1 + plan.order.index(axis) for axis in range(3)), 4)), doubt


def _kernel(w: jax.Array, problem: Problem, plan: plan_dense.Plan) -> jax.Array:
    """The kernel as it lies in memory."""
    rank = problem.rank
    exchanged = (*range(rank), rank + 1, rank)
    if plan.turned:
        # First as the caller turned it round: XLA cancels one such pair with the other.
        w = transpose(lax.rev(transpose(w, exchanged), range(rank)), exchanged)
    return transpose(w, exchanged) if plan.outer_first else w


def _volumes_gradient(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    from jaxdil._pallas import tpu_volumes_gradient
    from jaxdil._pallas.mended import mended

    plan = plan_volumes_gradient.plan_of(problem)
    assert plan is not None
    first, second, third = plan.order
    # (C, *S, N) and (*P, N, O) as image and cotangent lie in memory.
    arrays = (
        transpose(x, (4, 1 + first, 1 + second, 1 + third, 0)),
        transpose(w, (3, first, second, third, 4)),
    )
    gradient = tpu_volumes_gradient.kernel_gradient
    how = {"dtype": problem.out_dtype, "precision": problem.precision, "interpret": interpret}
    dw, doubt = gradient(*arrays, plan, **how)
    back = [plan.order.index(axis) for axis in range(3)]
    order = (4, *back, 3) if plan.plane.outer_first else (3, *back, 4)
    where: Any = {"lies": plan.plane.lies, "axes": plan.order}
    return mended(dw, doubt, x, w, problem, order=order, **where, interpret=interpret)


def dense(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    """A dense convolution."""
    from jaxdil._pallas import tpu_dense

    plan = plan_dense.plan_of(problem)
    assert plan is not None
    w = _kernel(w, problem, plan)
    if problem.rank == 1:
        x, w = x[:, None], w[None]
    y = tpu_dense.convolution(
        x, w, plan, dtype=problem.out_dtype, precision=problem.precision, interpret=interpret
    )
    return y.reshape(problem.y_shape)


def grouped(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    """A convolution of groups of several channels."""
    from jaxdil._pallas import tpu_groups

    plan = plan_groups.plan_of(problem)
    assert plan is not None
    rank = problem.rank
    if plan.dense.turned:
        # First as the caller turned it round: XLA cancels one such pair with the other.
        # (*K, O / G, (g, i)) of the one convolution is (*K, i, (g, O / G)) of the other.
        w = lax.rev(transpose(w, (*range(rank), rank + 1, rank)), range(rank))
        w = w.reshape(*problem.kernel, problem.groups, -1, problem.group_channels)
        w = transpose(w, (*range(rank), rank + 1, rank, rank + 2))
        w = w.reshape(*problem.kernel, -1, problem.channels)
    if rank == 1:
        x, w = x[:, None], w[None]
    y = tpu_groups.convolution(
        x, w, plan, dtype=problem.out_dtype, precision=problem.precision, interpret=interpret
    )
    return y.reshape(problem.y_shape)


def grouped_gradient(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: Any) -> jax.Array:
    """The kernel gradient of a convolution of groups of several channels."""
    from jaxdil._pallas import tpu_groups_gradient
    from jaxdil._pallas.mended import mended

    plan = plan_groups_gradient.plan_of(problem)
    assert plan is not None
    gradient = tpu_groups_gradient.kernel_gradient
    how = {"dtype": problem.out_dtype, "precision": problem.precision, "interpret": interpret}
    dw, doubt = gradient(*_images_of(x, w), plan, **how)
    order, lies = (2, 0, 1, 3), plan.dense.lies
    return mended(dw, doubt, x, w, problem, order=order, lies=lies, interpret=interpret)


def _rows(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    from jaxdil._pallas import lying_1d, tpu_1d

    plan = plan_1d.plan_of(problem)
    if problem.batch_groups > 1:
        # (C, T, N) and (P, N, C) as image and cotangent lie in memory.
        x, g = transpose(x, (2, 1, 0)), transpose(w, (1, 0, 2))
        x, g = lying_1d.lie(x, plan), lying_1d.lie(g, plan)
        dtype = np.float32 if plan.turned else problem.out_dtype
        dw = tpu_1d.kernel_gradient(x, g, plan, dtype=dtype, interpret=interpret)
        if plan.turned:
            dw = dw.reshape(plan.taps, problem.channels, problem.batch).sum(1)
        return dw.astype(problem.out_dtype).reshape(problem.y_shape)
    w = w.reshape(problem.kernel[0], problem.channels)
    w = jnp.tile(w, (1, problem.batch)) if plan.turned else w
    x = lying_1d.lie(x, plan)
    y = tpu_1d.convolution(x, w, plan, dtype=problem.out_dtype, interpret=interpret)
    return lying_1d.back(y, plan, problem.batch)


def _images(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    from jaxdil._pallas import tpu_2d, tpu_2d_gradient
    from jaxdil._pallas.mended import mended

    plan = plan_2d.plan_of(problem)
    assert plan is not None
    if problem.batch_groups > 1:
        # (C, H, W, N) and (P, Q, N, C) as image and cotangent lie in memory.
        arrays = transpose(x, (3, 1, 2, 0)), transpose(w, (2, 0, 1, 3))
        gradient = tpu_2d_gradient.kernel_gradient
        dw, doubt = gradient(*arrays, plan, dtype=problem.out_dtype, interpret=interpret)
        lies = ((False, plan.together),) * 2
        return mended(dw, doubt, x, w, problem, order=range(3), lies=lies, interpret=interpret)
    w = w.reshape(*problem.kernel, problem.channels)
    exchanged = (3, 1, 2, 0)
    x = transpose(x, exchanged) if plan.crossed else x
    y = tpu_2d.convolution(x, w, plan, dtype=problem.out_dtype, interpret=interpret)
    return transpose(y, exchanged) if plan.crossed else y


def _volumes(x: jax.Array, w: jax.Array, problem: Problem, *, interpret: bool) -> jax.Array:
    from jaxdil._pallas import tpu_3d, tpu_3d_gradient
    from jaxdil._pallas.mended import mended

    plan = plan_3d.plan_of(problem)
    first, second, third = plan.order
    back = [plan.order.index(axis) for axis in range(3)]
    if problem.batch_groups > 1:
        # (C, *S, N) and (*P, N, C) as image and cotangent lie in memory.
        arrays = (
            transpose(x, (4, 1 + first, 1 + second, 1 + third, 0)),
            transpose(w, (3, first, second, third, 4)),
        )
        gradient = tpu_3d_gradient.kernel_gradient
        dw, doubt = gradient(*arrays, plan, dtype=problem.out_dtype, interpret=interpret)
        where: Any = {"lies": ((False, plan.plane.together),) * 2, "axes": plan.order}
        order = (*back, 3)
        return mended(dw, doubt, x, w, problem, order=order, **where, interpret=interpret)
    x = transpose(x, (0, 1 + first, 1 + second, 1 + third, 4))
    w = transpose(w.reshape(*problem.kernel, problem.channels), (first, second, third, 3))
    y = tpu_3d.convolution(x, w, plan, dtype=problem.out_dtype, interpret=interpret)
    return transpose(y, (0, *(1 + axis for axis in back), 4))
