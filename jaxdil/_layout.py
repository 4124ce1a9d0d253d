"""Dimension numbers and the canonical layout: axes in any order <-> channels last.

lax describes an order of axes by three tuples: for x and y (batch, channels, *spatial), for w
(out channels, in channels, *spatial), each entry the position of that axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil import _geometry
from jaxdil._problem import Problem

__all__ = [
    "crop_negative",
    "cut",
    "is_turned",
    "moves",
    "orders",
    "pad",
    "problem_of",
    "transpose",
]

# Elements of an innermost axis that LLVM writes out; lines that are enough for all cores.
SHORT, LINES = 128, 8


def _image(spec: Sequence[int]) -> tuple[int, ...]:
    batch, channels, *spatial = spec
    return (batch, *spatial, channels)


def _kernel(spec: Sequence[int]) -> tuple[int, ...]:
    out, inner, *spatial = spec
    return (*spatial, inner, out)


def orders(numbers: lax.ConvDimensionNumbers) -> tuple[tuple[int, ...], ...]:
    """The transposes of x to (N, *S, C), of w to (*K, I, O), and of (N, *P, O) to y."""
    y = _image(numbers.out_spec)
    back = tuple(y.index(axis) for axis in range(len(y)))
    return _image(numbers.lhs_spec), _kernel(numbers.rhs_spec), back


def transpose(x: jax.Array, order: Sequence[int]) -> jax.Array:
    """``lax.transpose``, as a reshape where it moves nothing: XLA may copy for it otherwise."""
    shape = [x.shape[axis] for axis in order]
    if not moves(x.shape, order):
        return x.reshape(shape)
    # Of a kernel of one tap only (I, O) are turned round, which a matrix product then reads as it
    # lies: XLA sees that of two axes, and copies for more.
    if set(x.shape[:-2]) == {1} and order[-2:] == (x.ndim - 1, x.ndim - 2):
        return lax.transpose(x.reshape(x.shape[-2:]), (1, 0)).reshape(shape)
    return lax.transpose(x, order)


def pad(x: jax.Array, pads: Sequence[tuple[int, int, int]], *, lines: bool) -> jax.Array:
    """``lax.pad`` with zeros; ``lines`` pads what lies side by side in memory as one axis.

    XLA makes a loop of every axis on a CPU, and LLVM writes the innermost out if it is short: with
    72 channels that takes four times as long as for a line of pixels with all their channels, and
    is no faster. So many lines must be left that there are some for every core.
    """
    zero = jnp.zeros((), x.dtype)
    if not any(map(any, pads)):
        return x
    if not lines or not 1 < x.shape[-1] <= SHORT:
        return lax.pad(x, zero, pads)
    sizes: list[int] = []
    joined: list[tuple[int, int, int]] = []
    for size, (lo, hi, between) in zip(x.shape, pads, strict=True):
        whole = lo == hi == between == 0
        if whole and math.prod(sizes[:-1]) >= LINES and joined[-1][2] == 0:
            before, after, _ = joined[-1]
            sizes[-1], joined[-1] = sizes[-1] * size, (before * size, after * size, 0)
        else:
            sizes.append(size)
            joined.append((lo, hi, between))
    shape = [n + lo + hi + max(n - 1, 0) * a for n, (lo, hi, a) in zip(x.shape, pads, strict=True)]
    return lax.pad(x.reshape(sizes), zero, joined).reshape(shape)


def moves(shape: Sequence[int], order: Sequence[int]) -> bool:
    """Whether a transpose moves anything in memory, and not only axes of one element."""
    long = [axis for axis in order if shape[axis] != 1]
    return long != sorted(long)


def cut(x: jax.Array, start: Sequence[int], stop: Sequence[int], step: Sequence[int]) -> jax.Array:
    """``lax.slice``, or x itself where that is all of it."""
    if not any(start) and tuple(stop) == x.shape and set(step) == {1}:
        return x
    return lax.slice(x, start, stop, step)


def crop_negative(x: jax.Array, params: dict[str, Any]) -> tuple[jax.Array, dict[str, Any]]:
    """The same convolution without negative padding: what it would cut off is sliced off.

    XLA on a CPU reads out of bounds for some negative paddings (openxla/xla#48713), and JAX's own
    gradients ask for them.
    """
    if all(lo >= 0 and hi >= 0 for lo, hi in params["padding"]):
        return x, params
    padding = []
    spatial = params["dimension_numbers"].lhs_spec[2:]
    for axis, dilation, pads in zip(
        spatial, params["lhs_dilation"], params["padding"], strict=True
    ):
        start, stop, *kept = _geometry.crop_negative(x.shape[axis], dilation, *map(int, pads))
        x = lax.slice_in_dim(x, start, stop, axis=axis)
        padding.append(tuple(kept))
    return x, {**params, "padding": tuple(padding)}


def problem_of(x: Any, w: Any, y: Any, params: dict[str, Any]) -> Problem:
    """The canonical problem of lax's parameters; x, w and y need a shape and a dtype only.

    Its size and padding are those after `crop_negative`.
    """
    numbers = params["dimension_numbers"]
    batch, *size, channels = (x.shape[axis] for axis in _image(numbers.lhs_spec))
    cropped = [
        _geometry.crop_negative(n, a, int(lo), int(hi))
        if min(lo, hi) < 0
        else (0, n, int(lo), int(hi))
        for n, a, (lo, hi) in zip(size, params["lhs_dilation"], params["padding"], strict=True)
    ]
    *kernel, _, out_channels = (w.shape[axis] for axis in _kernel(numbers.rhs_spec))
    return Problem(
        batch=batch,
        size=tuple(stop - start for start, stop, _, _ in cropped),
        channels=channels,
        kernel=tuple(kernel),
        out_channels=out_channels,
        stride=tuple(map(int, params["window_strides"])),
        padding=tuple((lo, hi) for _, _, lo, hi in cropped),
        input_dilation=tuple(map(int, params["lhs_dilation"])),
        dilation=tuple(map(int, params["rhs_dilation"])),
        groups=params["feature_group_count"],
        batch_groups=params["batch_group_count"],
        x_dtype=x.dtype,
        w_dtype=w.dtype,
        out_dtype=y.dtype,
        precision=params["precision"],
        channels_first=_channels_first(x.shape, numbers.lhs_spec, params["batch_group_count"]),
        turned=is_turned(numbers.rhs_spec),
        exchanged=numbers.lhs_spec[0] > numbers.lhs_spec[1],
        pooled=params.get("pooled", False),
        kernel_first=min(numbers.rhs_spec[2:], default=0) > max(numbers.rhs_spec[:2]),
    )


def _channels_first(shape: Sequence[int], spec: Sequence[int], batch_groups: int) -> bool:
    """Whether channels lie before an axis of the image that is longer than one sample."""
    # A kernel gradient takes the channels of a grouped image for its batch.
    channels = spec[0 if batch_groups > 1 else 1]
    return shape[channels] > 1 and any(axis > channels and shape[axis] > 1 for axis in spec[2:])


def is_turned(spec: Sequence[int]) -> bool:
    """Whether outputs and inputs lie the other way round than kernels have them in that order.

    Kernels have inputs before outputs after the spatial axes, and outputs first before them. A
    gradient by the input exchanges the two and turns the kernel round, and so does a transposed
    convolution of TensorFlow or PyTorch.
    """
    outer, inner, *spatial = spec
    last = all(axis > max(outer, inner) for axis in spatial)
    return inner < outer if last else outer < inner
