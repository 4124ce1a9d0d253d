"""Patches of torch.nn.functional: unfold (im2col) and fold (col2im), over any number of axes.

    unfold   y[n, (c, t), p] = x[n, c, s p + d t - padding]
    fold     x[n, c, i]      = sum of y[n, (c, t), p] over all p, t with s p + d t - padding = i

One axis holds all windows p, row-major, another all taps t of all channels c, the channels outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Array, Num

from jaxdil import _arguments as _own
from jaxdil import _geometry, _unfold
from jaxdil._arguments import Ints
from jaxdil._errors import error
from jaxdil.torch import _arguments
from jaxdil.torch._arguments import Pairs

__all__ = ["fold", "unfold"]


def unfold(
    input: Num[Array, "..."],
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> Num[Array, "..."]:
    """The samples under each window: ``y[n, (c, t), p] = x[n, c, s p + d t - padding]``.

    Args:
      input: (N, C, *S), or (C, *S) without a batch. Two spatial axes, as in PyTorch, where all the
        arguments below are integers; as many as their lists have entries otherwise.
      kernel_size: taps, >= 1; an int, or one for each spatial axis.
      dilation: samples between neighbouring taps, >= 1.
      padding: zeros at either end, >= 0.
      stride: samples between neighbouring windows, >= 1.

    Returns:
      y (N, C prod(kernel_size), L), or without N, with L the number of windows.

    Raises:
      ValueError: where PyTorch raises: a window larger than the padded input, an empty image, and
        numbers that cannot be.
      TypeError: for integers that are not, and if input is no array of numbers.

    Cost: prod(kernel_size) / prod(stride) copies of input.

    Twin of torch.nn.functional.unfold, PyTorch 2.13, which takes two spatial axes.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(6.0).reshape(1, 1, 2, 3)
    >>> jaxdil.torch.unfold(x, 2)[0]
    Array([[0., 1.],
           [1., 2.],
           [3., 4.],
           [4., 5.]], dtype=float32)
    >>> jaxdil.torch.unfold(x[:, :, 0], kernel_size=(2,)).shape
    (1, 2, 2)
    """
    where = "torch.unfold"
    _own.check_arrays(where, input=input)
    rank = _rank(kernel_size, dilation, padding, stride)
    _arguments.images(where, input, rank)
    window = _window(where, rank, kernel_size, dilation, padding, stride)
    window.check(where, input.shape[-rank:])
    y = _unfold.unfold(input, **window._asdict(), order="CK", data_format="channels_first")
    return y.reshape(*y.shape[:-rank], math.prod(y.shape[-rank:]))


def fold(
    input: Num[Array, "..."],
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> Num[Array, "..."]:
    """The sum of patches, each sample where `unfold` reads it; also where windows do not tile.

    Args:
      input: patches (N, C prod(kernel_size), L), or (C prod(kernel_size), L) without a batch.
      output_size: the spatial sizes S of the result, >= 1; an int means two equal ones, as in
        PyTorch, unless an argument below is a list.
      kernel_size: as in `unfold`, like the arguments below.
      dilation: samples between neighbouring taps.
      padding: what falls into it is dropped.
      stride: samples between neighbouring windows.

    Returns:
      x (N, C, *S), or (C, *S). What no window reads is zero.

    Raises:
      ValueError: where PyTorch raises: if input is not what `unfold` makes of that size.
      TypeError: for integers that are not, and if input is no array of numbers.

    Cost: one addition for each element of input.

    Twin of torch.nn.functional.fold, PyTorch 2.13, which makes two spatial axes.

    >>> import jax.numpy as jnp
    >>> jaxdil.torch.fold(jnp.ones((1, 4, 2)), output_size=(2, 3), kernel_size=2)[0, 0]
    Array([[1., 2., 1.],
           [1., 2., 1.]], dtype=float32)
    >>> jaxdil.torch.fold(jnp.ones((1, 2, 3)), output_size=(7,), kernel_size=2, stride=2)[0, 0]
    Array([1., 1., 1., 1., 1., 1., 0.], dtype=float32)
    """
    where = "torch.fold"
    _own.check_arrays(where, input=input)
    rank = _rank(output_size, kernel_size, dilation, padding, stride)
    size = _own.integers(where, "output_size", output_size, rank)
    window = _window(where, rank, kernel_size, dilation, padding, stride)
    positions = window.check(where, size)
    taps, windows = math.prod(window.window), math.prod(positions)
    if input.ndim not in (2, 3) or input.shape[-2] % taps or input.shape[-2] == 0:
        what = "input must be (N, C prod(kernel_size), L), or without N"
        came = f"prod(kernel_size) = {taps}, got shape {input.shape}"
        raise ValueError(error(where, f"{what}, with {came}"))
    if input.shape[-1] != windows:
        what = f"input must have {windows} windows, {' x '.join(map(str, positions))}, for"
        came = f"output_size {size}, got {input.shape[-1]} in shape {input.shape}"
        raise ValueError(error(where, f"{what} {came}"))
    patches = input.reshape(*input.shape[:-1], *positions)
    options = {**window._asdict(), "order": "CK", "data_format": "channels_first"}
    return _unfold.fold(patches, size=size, **options)


class Window(NamedTuple):
    """The window of one call in jaxdil's words."""

    window: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    stride: tuple[int, ...]

    def check(self, where: str, size: Sequence[int]) -> tuple[int, ...]:
        """Number of windows on each axis; raise where none fits."""
        _arguments.check_fit(where, size, self.window, self.dilation, self.padding)
        return tuple(
            _geometry.output_size(n, k, stride=s, dilation=d, padding=pads)
            for n, k, d, pads, s in zip(size, *self, strict=True)
        )


def _rank(*values: Any) -> int:
    """Number of spatial axes: the length of the first list, else PyTorch's two."""
    return next((len(value) for value in values if _arguments.listed(value)), 2)


def _window(
    where: str, rank: int, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Window:
    both = _own.integers(where, "padding", padding, rank, least=0)
    return Window(
        _own.integers(where, "kernel_size", kernel_size, rank),
        _own.integers(where, "dilation", dilation, rank),
        tuple((p, p) for p in both),
        _own.integers(where, "stride", stride, rank),
    )
