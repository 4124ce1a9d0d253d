"""PyTorch's ways to write windows, padding and ranks, checked; refusals are worded here.

    stride=2 | [2] | [2, 2]                  ->  (2, 2)
    padding=1 | [1] | "same" | "valid"       ->  ((1, 1), (1, 1))

What PyTorch refuses is refused, in its words for the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxdil import _arguments, _geometry
from jaxdil._errors import error

__all__ = [
    "MODES",
    "Pairs",
    "channels",
    "check_bias",
    "check_fit",
    "images",
    "integers",
    "padding",
    "padding_mode",
    "tensor",
]

Pairs: TypeAlias = tuple[tuple[int, int], ...]

MODES = ("zeros", "reflect", "replicate", "circular")


# --- integers and padding -------------------------------------------------------------------------


def integers(where: str, name: str, value: Any, rank: int, *, least: int = 1) -> tuple[int, ...]:
    """One integer for each spatial axis, from an int or a list of 1 or ``rank`` of them."""
    if listed(value) and len(value) == 1:
        value = value[0]
    return _arguments.integers(where, name, value, rank, least=least)


def listed(value: Any) -> bool:
    """Whether ``value`` is a list of numbers."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def padding(
    where: str,
    value: Any,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pairs:
    """(before, after) on each axis, from an int, a list of them, "same" or "valid"."""
    rank = len(kernel)
    if not isinstance(value, str):
        if listed(value) and any(map(listed, value)):
            what = f"padding must be an integer for each axis, on both sides alike, got {value!r}"
            hint = "For (before, after) pad first, with torch.pad, or call jaxdil.conv."
            raise ValueError(error(where, what, hint))
        return tuple((p, p) for p in integers(where, "padding", value, rank, least=0))
    if value not in ("same", "valid"):
        what = f"padding must be 'same', 'valid' or integers, got {value!r}"
        raise ValueError(error(where, what, "'SAME', 'CAUSAL' and more: jaxdil.conv."))
    if value == "valid":
        return ((0, 0),) * rank
    if max(stride) > 1:
        what = f"padding='same' is not for a stride above 1, got stride {tuple(stride)}"
        hints = (
            "TensorFlow's rule: jaxdil.conv(..., stride=..., padding='SAME').",
            "PyTorch's models mostly mean padding=dilation * (kernel_size - 1) // 2.",
        )
        raise ValueError(error(where, what, *hints))
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((span // 2, span - span // 2) for span in spans)


def padding_mode(where: str, mode: Any) -> str:
    """What stands in the padding of a convolution, in the words of PyTorch's modules."""
    if mode not in MODES:
        what = f"padding_mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}"
        raise ValueError(error(where, what))
    return str(mode)


# --- arrays ---------------------------------------------------------------------------------------


def tensor(where: str, input: Any) -> jax.Array:
    """``input``, if it is an array, of any dtype."""
    if not isinstance(input, jax.Array | np.ndarray):
        what = f"input must be an array, got {type(input).__name__}"
        raise TypeError(error(where, what, "Pass jnp.asarray(input)."))
    return jnp.asarray(input)


def images(where: str, input: jax.Array, rank: int) -> bool:
    """Whether ``input`` has a batch; raise unless it is (N, C, *S) or (C, *S), none of S empty."""
    if input.ndim not in (rank + 1, rank + 2):
        order = ", ".join("DHW"[-rank:]) if rank <= 3 else "*S"
        what = f"input must be (N, C, {order}), or (C, {order}) without a batch"
        raise ValueError(error(where, f"{what}, got shape {input.shape}"))
    if 0 in input.shape[-rank:]:
        what = f"input must have samples on every spatial axis, got shape {input.shape}"
        raise ValueError(error(where, what, "Only the batch may be empty."))
    return input.ndim == rank + 2


def channels(where: str, have: int, takes: int, weight: Sequence[int], form: str) -> None:
    """Raise unless ``input`` has the channels that ``weight`` takes."""
    if have != takes:
        what = f"input has {have} channels, and weight of shape {tuple(weight)} takes {takes}"
        raise ValueError(error(where, what, f"weight is {form}."))


def check_bias(where: str, bias: Any, outputs: int) -> None:
    """Raise unless ``bias`` is None or holds one number for each output channel."""
    if bias is not None and bias.shape != (outputs,):
        what = f"bias must have shape ({outputs},), a number for each output channel"
        raise ValueError(error(where, f"{what}, got {bias.shape}"))


def check_fit(
    where: str,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    pads: Pairs,
) -> None:
    """Raise where a kernel is larger than the padded input."""
    for axis, (n, k, d, (lo, hi)) in enumerate(zip(size, kernel, dilation, pads, strict=True)):
        k_eff = _geometry.dilated_size(k, d)
        if k_eff > n + lo + hi:
            what = f"the kernel must not be larger than the padded input, on spatial axis {axis}"
            span = f"it spans {k_eff} samples ({k} taps at dilation {d})"
            came = f"{span}, the input has {n} and with padding {n + lo + hi}"
            raise ValueError(error(where, f"{what}: {came}", "Pad more, or dilate less."))
