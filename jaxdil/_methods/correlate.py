"""A convolution whose window is as large as the image and whose output is as small as a kernel.

    y[b, t, o] = sum_{n, p}  x[b, s t + d p - lo, n] w[p, n, o]

That is what the gradient by the kernel is: ``x`` the input with batch and channels exchanged, ``w``
the cotangent, the forward's stride and dilation exchanged too, and groups become batch groups. Read
the other way round it is a reduction over images, one for each of the few taps t, of two slices:

    dense, grouped   one matrix product over (n, p) a tap, for all groups at once
    depthwise        all taps in one pass: products of slices, summed together

Where the input is dilated (the forward was transposed), only every a-th position p meets a sample,
and slices of both operands replace the zeros.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._geometry import Progression, progressions
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Taps written out for one call; each is two slices and a product.
MOST_TAPS = 128


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs an output small enough to be written tap by tap."""
    if problem.is_empty:
        return "correlate: nothing to compute"
    if math.prod(problem.positions) > MOST_TAPS:
        return f"correlate: {math.prod(problem.positions)} output positions, more than {MOST_TAPS}"
    if problem.groups != 1 and problem.batch_groups != 1:
        return "correlate: channels and batch are both split into groups"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:  # noqa: ARG001 - a leaf
    """One contraction a tap, over the samples that it meets."""
    groups = problem.groups * problem.batch_groups
    inner, outer = problem.group_channels, problem.out_channels // groups
    rows = problem.batch // problem.batch_groups
    # x as (I, *S, G, b) and w as (I, *P, G, o): as image and cotangent lie in memory, so that the
    # transposes here cancel the exchange of batch and channels that made this convolution.
    if problem.batch_groups > 1:
        x = jnp.moveaxis(x, -1, 0)
        x = jnp.moveaxis(x, 1, -1)
        x = x.reshape(*x.shape[:-1], groups, rows)
    else:
        x = x.reshape(*x.shape[:-1], groups, inner)
        x = jnp.moveaxis(x, (-1, 0), (0, -1))
    w = jnp.moveaxis(w, -2, 0)
    w = w.reshape(*w.shape[:-1], groups, outer)

    axes = [
        progressions(n, k, p, stride=s, dilation=d, lo=lo, input_dilation=a)
        for n, k, p, s, d, (lo, _), a in zip(
            problem.size,
            problem.kernel,
            problem.positions,
            problem.stride,
            problem.dilation,
            problem.padding,
            problem.input_dilation,
            strict=True,
        )
    ]
    # (T, G, b, o) -> (b, *positions, G o)
    y = _sums(x, w, problem) if rows == outer == 1 else _products(x, w, axes, problem)
    return jnp.moveaxis(y, 2, 0).reshape(problem.y_shape).astype(problem.out_dtype)


def _meeting(
    x: jax.Array, w: jax.Array, tap: tuple[Progression, ...]
) -> tuple[jax.Array, jax.Array]:
    """The samples and the kernel positions that meet at one tap, paired."""
    for axis, p in enumerate(tap, start=1):
        last = max(p.terms - 1, 0)
        stop = p.sample + p.sample_step * last + min(p.terms, 1)
        x = lax.slice_in_dim(x, p.sample, stop, p.sample_step, axis)
        stop = p.tap + p.tap_step * last + min(p.terms, 1)
        w = lax.slice_in_dim(w, p.tap, stop, p.tap_step, axis)
    return x, w


def _products(
    x: jax.Array, w: jax.Array, axes: list[list[Progression]], problem: Problem
) -> jax.Array:
    """(T, G, b, o) by one matrix product over (I, *S) a tap, for all groups at once."""
    contract, group = tuple(range(problem.rank + 1)), (problem.rank + 1,)
    parts = []
    for tap in itertools.product(*axes):
        xs, ws = _meeting(x, w, tap)
        parts.append(
            lax.dot_general(
                xs,
                ws,
                ((contract, contract), (group, group)),
                precision=problem.precision,
                preferred_element_type=problem.sum_dtype,
            )
        )
    return jnp.stack(parts)


def _sums(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """(T, G, 1, 1) by one reduction of all taps together, each term a slice times the cotangent."""
    dtype = problem.sum_dtype
    zero = jnp.zeros((), dtype)
    x, w = x[..., 0], w[..., 0]
    x = lax.pad(
        x,
        zero.astype(x.dtype),
        [
            (0, 0, 0),
            *(
                (lo, hi, a - 1)
                for (lo, hi), a in zip(problem.padding, problem.input_dilation, strict=True)
            ),
            (0, 0, 0),
        ],
    )
    x = lax.optimization_barrier(x)
    w = w.astype(dtype)
    terms = []
    for tap in itertools.product(*map(range, problem.positions)):
        start = [s * t for s, t in zip(problem.stride, tap, strict=True)]
        stop = [
            b + d * (k - 1) + 1
            for b, d, k in zip(start, problem.dilation, problem.kernel, strict=True)
        ]
        window = lax.slice(
            x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *problem.dilation, 1)
        )
        terms.append(window.astype(dtype) * w)
    sums = lax.reduce(
        terms,
        [zero] * len(terms),
        lambda a, b: [p + q for p, q in zip(a, b, strict=True)],
        tuple(range(problem.rank + 1)),
    )
    return jnp.stack(sums)[:, :, None, None]
