"""Dilated functions as one split of x into phases, the functions undilated, and one merge.

    dilated(f_k)( ... dilated(f_1)(x))  =  merge(blank(f_k( ... blank(f_1(split(x))))))

What is dilated by d on every axis never lets two of the d**rank phases meet, so a chain of such
functions needs to be split and merged only once. ``blank`` makes it true on every size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from jaxdil._arguments import Ints, integers
from jaxdil._errors import error
from jaxdil._resample import array, crop, interleave, pad, phases, spatial_axes, split, stack

__all__ = ["with_space_to_batch"]

Op: TypeAlias = Callable[[jax.Array], jax.Array]


def with_space_to_batch(
    x: Shaped[Array, "N ..."],
    ops: Op | Sequence[Op],
    *,
    dilation: Ints,
    data_format: str | None = None,
) -> Shaped[Array, "..."]:
    """A chain of functions, each dilated: x is split once, the ops see phases, y is merged once.

    ``y = dilated(f_k)(... dilated(f_1)(x))``. A convolution with padding (lo, hi) on every phase
    is the convolution of x with its taps ``d`` apart and padding (d lo, d hi): VALID, SAME with an
    odd kernel, or any other.

    Where d does not divide a size, some phases are a sample shorter and get a cell more instead.
    It must be zero for the next op, yet a SAME convolution or a bias fills it. TensorFlow leaves
    it so: of 9x9 ones, convolved twice with 3x3 ones at rate 2, it gets 17 of the 81 sums wrong,
    one 36 instead of 25. Here these cells are set to zero after every op.
    Which they are follows from the sizes: ``n' = n - d (m - m')`` samples are left of n, if an op
    makes m' samples of the m of a phase.

    SAME with an even kernel is the exception: at rate d it pads ``(k - 1) d // 2`` in front, a
    phase ``(k - 1) // 2``, so that the two results lie ``d // 2`` samples apart. Pad by numbers.

    Args:
      x: input (N, *S, C), or (N, C, *S) with channels first.
      ops: one function or a sequence, each of an array like x with any batch and any size, moving
        in steps of 1 and treating all positions alike: a convolution, a bias, an activation. (What
        averages over the batch or the space would average over phases, and the cells above.)
      dilation: samples d between neighbouring taps, >= 1; an int or one for each spatial axis.
      data_format: "channels_last" (the default), "channels_first", or letters ("NHWC", "NCHW").

    Returns:
      y (N, *P, ...), of the sizes P that the dilated functions leave.

    Raises:
      ValueError: if an op strides, changes the batch or the number of axes, or leaves nothing; for
        numbers that cannot be.
      TypeError: if x is no array, an op no function, and for integers that are not.

    Cost: two copies of x, and the ops on x rounded up to multiples of d. Every op is traced twice,
    the second time on a larger array to see that it does not stride.

    Source: ``tf.nn.with_space_to_batch``, mended.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 9, 9, 1)), jnp.ones((3, 3, 1, 1))
    >>> y = jaxdil.with_space_to_batch(x, [lambda x: jaxdil.conv(x, w)] * 2, dilation=2)
    >>> z = jaxdil.conv(jaxdil.conv(x, w, dilation=2), w, dilation=2)
    >>> y.shape, bool((y == z).all()), y.max().item()
    ((1, 9, 9, 1), True, 81.0)
    """
    where = "with_space_to_batch"
    x = array(where, x)
    first, _ = spatial_axes(where, x, data_format)
    rates = integers(where, "dilation", dilation, x.ndim - 2)
    size = x.shape[first : first + len(rates)]
    whole = pad(x, [(0, -n % d) for n, d in zip(size, rates, strict=True)], first)
    y = phases(whole, rates, first)
    for index, op in enumerate([ops] if callable(ops) else ops):
        y, size = _apply(where, f"ops[{index}]", op, y, size, rates=rates, first=first)
    return crop(interleave(y, rates, first), [(0, n) for n in size], first)


def _apply(
    where: str,
    name: str,
    op: Any,
    y: jax.Array,
    size: Sequence[int],
    *,
    rates: Sequence[int],
    first: int,
) -> tuple[jax.Array, tuple[int, ...]]:
    """One op on the phases (*d, N, ...) of a space: the phases it makes, and of which sizes."""
    if not callable(op):
        raise TypeError(error(where, f"{name} must be a function of an array, got {op!r}"))
    rank, spatial = len(rates), slice(first, first + len(rates))
    x = stack(y, rank)
    y = op(x)
    if y.ndim != x.ndim or y.shape[0] != x.shape[0]:
        what = f"{name} must keep the batch and the number of axes, got {x.shape} -> {y.shape}"
        raise ValueError(error(where, what))
    change = zip(size, rates, x.shape[spatial], y.shape[spatial], strict=True)
    left = tuple(n - d * (m - kept) for n, d, m, kept in change)
    if any(after <= 0 < before for before, after in zip(size, left, strict=True)):
        what = f"{name} leaves nothing of the spatial sizes {tuple(size)} at dilation {rates}"
        hint = "Pad more, or lower the dilation or the kernel size."
        raise ValueError(error(where, what, hint))
    if 0 not in size:
        _check_steps(where, name, op, x, y.shape[spatial], spatial)
    return _blank(split(y, rates, 0), left, rates=rates, first=first), left


def _check_steps(
    where: str, name: str, op: Op, x: jax.Array, made: tuple[int, ...], spatial: slice
) -> None:
    # Two samples more make two outputs more at stride 1, and one at most at any other.
    axes = range(*spatial.indices(x.ndim))
    larger = [n + 2 if axis in axes else n for axis, n in enumerate(x.shape)]
    grown = jax.eval_shape(op, jax.ShapeDtypeStruct(larger, x.dtype)).shape[spatial]
    if grown != tuple(n + 2 for n in made):
        what = f"{name} must move in steps of 1, yet 2 samples more change its output from {made}"
        hint = "A stride does not commute with the split: take it after with_space_to_batch."
        raise ValueError(error(where, f"{what} to {grown}", hint))


def _blank(y: jax.Array, size: Sequence[int], *, rates: Sequence[int], first: int) -> jax.Array:
    """Phases (*d, N, ...), zero where the sample ``d i + r`` lies outside its space."""
    for axis, (d, n) in enumerate(zip(rates, size, strict=True)):
        along = len(rates) + first + axis
        samples = d * np.arange(y.shape[along]) + np.arange(d)[:, None]
        if (samples >= n).any():
            inside = lax.broadcast_in_dim(samples < n, y.shape, (axis, along))
            y = lax.select(inside, y, jnp.zeros_like(y))
    return y
