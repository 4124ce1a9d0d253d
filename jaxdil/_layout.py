"""Dimension numbers and the canonical layout: axes in any order <-> channels last.

lax describes an order of axes by three tuples: for x and y (batch, channels, *spatial), for w
(out channels, in channels, *spatial), each entry the position of that axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from jaxdil import _geometry
from jaxdil._problem import Problem

__all__ = ["crop_negative", "is_turned", "moves", "orders", "problem_of", "transpose"]


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
    if moves(x.shape, order):
        return lax.transpose(x, order)
    return x.reshape([x.shape[axis] for axis in order])


def moves(shape: Sequence[int], order: Sequence[int]) -> bool:
    """Whether a transpose moves anything in memory, and not only axes of one element."""
    long = [axis for axis in order if shape[axis] != 1]
    return long != sorted(long)


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
