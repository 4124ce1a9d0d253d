"""torch.nn.functional.pad: what stands around an array, the last axis first.

constant   0 0 | a b c d | 0 0        reflect    c b | a b c d | c b
replicate  a a | a b c d | d d        circular   c d | a b c d | a b
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from jaxdil import _arguments as _own
from jaxdil import _pad
from jaxdil._errors import error
from jaxdil.torch import _arguments
from jaxdil.torch._arguments import Pairs

__all__ = ["check_mode", "pad"]


def pad(
    input: Shaped[Array, "..."],
    pad: Sequence[int] | np.ndarray,
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant",
    value: int | float | complex | None = None,
) -> Shaped[Array, "..."]:
    """Padding around an array, in PyTorch's order: the last axis first.

    ``pad=(left, right)`` pads the last axis, ``(left, right, top, bottom)`` the last two, and so
    on. Negative numbers crop.

    Args:
      input: an array of any dtype. The modes other than "constant" pad one, two or three spatial
        axes of (N, C, *S) or (C, *S), all of them.
      pad: two integers for each padded axis.
      mode: "constant", "reflect" (mirrored about the outermost sample, which is not repeated),
        "replicate" (the outermost sample) or "circular" (the other end).
      value: what stands in the padding under "constant"; None means 0.

    Returns:
      The padded array, each padded axis of before + n + after samples.

    Raises:
      ValueError: where PyTorch raises: an odd number of entries, or more than there are axes;
        "reflect" with padding of n samples or more, "circular" with more than n; a crop of more
        than there is; a value with another mode than "constant".
      TypeError: for integers that are not, and a fraction as value for an array of integers.

    Cost: one copy of the result.

    Twin of torch.nn.functional.pad, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(1, 5).reshape(1, 4)
    >>> jaxdil.torch.pad(x, (2, 1), mode="reflect")
    Array([[3, 2, 1, 2, 3, 4, 3]], dtype=int32)
    >>> jaxdil.torch.pad(x, (2, -1, 0, 1), value=9)
    Array([[9, 9, 1, 2, 3],
           [9, 9, 9, 9, 9]], dtype=int32)
    """
    where = "torch.pad"
    x = _arguments.tensor(where, input)
    pads = _pairs(where, pad, x.shape)
    if mode == "constant":
        return _constant(where, x, pads, value)
    if mode not in _arguments.MODES[1:]:
        what = f"mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}"
        raise ValueError(error(where, what))
    if value is not None:
        raise ValueError(error(where, f"value is for mode='constant', got {value!r} with {mode!r}"))
    if len(pads) not in (1, 2, 3) or x.ndim - len(pads) not in (1, 2):
        what = f"pad must have two entries for each spatial axis of input, got {len(pad)} for shape"
        hint = f"mode={mode!r} pads all of S in (N, C, *S) or (C, *S)."
        raise ValueError(error(where, f"{what} {x.shape}", hint))
    return _continued(where, x, pads, mode)


def check_mode(where: str, size: Sequence[int], pads: Pairs, mode: str) -> None:
    """Raise where a mode has fewer samples to give than PyTorch asks of it."""
    for axis, (n, pair) in enumerate(zip(size, pads, strict=True)):
        most = {"reflect": n - 1, "circular": n}.get(mode, max(pair))
        if max(pair) > most:
            what = f"padding of mode {mode!r} must be at most {most} on spatial axis {axis}"
            hint = f"The axis has {n} samples, and none stands in the padding twice."
            raise ValueError(error(where, f"{what}, got {pair}", hint))


def _continued(where: str, x: jax.Array, pads: Pairs, mode: str) -> jax.Array:
    """The last axes of x, one for each of ``pads``, padded by a mode that is not constant."""
    first = x.ndim - len(pads)
    _check_crops(where, x.shape[first:], pads, least=1)
    if mode == "circular":  # what is cropped comes round no more; elsewhere it is mirrored yet
        x = _cropped(x, pads, first)
        pads = tuple((max(lo, 0), max(hi, 0)) for lo, hi in pads)
    check_mode(where, x.shape[first:], pads, mode)
    return _pad.pad(x, pads, first, mode, where=where)


def _constant(where: str, x: jax.Array, pads: Pairs, value: Any) -> jax.Array:
    fraction = isinstance(value, float) and not value.is_integer()
    if fraction and not jnp.issubdtype(x.dtype, jnp.inexact):
        what = f"value must fit the dtype of input, {x.dtype}, got {value!r}"
        raise TypeError(error(where, what, "A fraction is never rounded."))
    first = x.ndim - len(pads)
    _check_crops(where, x.shape[first:], pads, least=0)
    x = _cropped(x, pads, first)
    around = [(max(lo, 0), max(hi, 0), 0) for lo, hi in pads]
    fill = jnp.asarray(0 if value is None else value).astype(x.dtype)
    return lax.pad(x, fill, [(0, 0, 0)] * first + around)


def _cropped(x: jax.Array, pads: Pairs, first: int) -> jax.Array:
    """What negative padding leaves of the axes from ``first`` on: a slice, never a negative pad."""
    for axis, (lo, hi) in enumerate(pads, first):
        if min(lo, hi) < 0:
            x = lax.slice_in_dim(x, max(-lo, 0), x.shape[axis] - max(-hi, 0), axis=axis)
    return x


def _pairs(where: str, pad: Any, shape: tuple[int, ...]) -> Pairs:
    """(before, after) of each padded axis in the order of the axes, from PyTorch's reversed one."""
    if not _arguments.listed(pad):
        what = f"pad must be a list of integers, two an axis, the last axis first, got {pad!r}"
        raise TypeError(error(where, what))
    flat = [_own.integer(where, f"pad[{i}]", entry) for i, entry in enumerate(pad)]
    if len(flat) % 2 or len(flat) > 2 * len(shape):
        what = f"pad must have two entries an axis, of {len(shape)} axes at most, got {len(flat)}"
        hint = "The last axis comes first: (left, right, top, bottom)."
        raise ValueError(error(where, what, hint))
    return tuple(zip(flat[-2::-2], flat[::-2], strict=True))


def _check_crops(where: str, size: tuple[int, ...], pads: Pairs, *, least: int) -> None:
    """Raise where negative padding leaves fewer than ``least`` of the samples of an axis."""
    for axis, (n, (lo, hi)) in enumerate(zip(size, pads, strict=True)):
        if n - max(-lo, 0) - max(-hi, 0) < least:
            what = f"padding must leave at least {least} of the samples of an axis, got {(lo, hi)}"
            raise ValueError(error(where, f"{what} for {n} samples of padded axis {axis}"))
