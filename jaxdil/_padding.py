"""How much padding: every way a user may write it, made (lo, hi) for each spatial axis.

    one entry for every axis        "SAME"   3   lambda k_eff: (k_eff - 1, 0)
    one for each                    ["CAUSAL", 3, (1, 2)]
    by letter or number of an axis  {"D": "CAUSAL", "H": "SAME", "W": (1, 2)}
    a pair for every axis of x      [[0, 0], [1, 2], [3, 4], [0, 0]]      TensorFlow's form

An entry is a name, an int, a pair (before, after), or a function that makes one of the size of the
dilated kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdil import _geometry
from jaxdil._arguments import Layout, integer
from jaxdil._errors import error

__all__ = ["NAMES", "axis_padding", "entries", "name_of", "paddings"]

NAMES = ("VALID", "SAME", "SAME_LOWER", "CAUSAL", "REVERSE_CAUSAL", "FULL")


def entries(where: str, padding: Any, layout: Layout) -> list[Any]:
    """One entry of padding for each spatial axis."""
    rank = layout.rank
    if isinstance(padding, Mapping):
        return _by_axis(where, padding, layout)
    if not _is_listed(padding):
        return [padding] * rank
    if len(padding) == rank + 2 and all(_is_listed(entry) for entry in padding):
        return _of_every_axis(where, padding, layout)
    if len(padding) != rank:
        raise ValueError(
            error(
                where,
                f"padding must have one entry a spatial axis, {rank} in all, got {padding!r}",
                "An entry is an int, a pair (before, after) or a name."
                + (f" For one axis write [{tuple(padding)!r}]." if rank == 1 else ""),
            )
        )
    return list(padding)


def paddings(
    where: str,
    entries: Sequence[Any],
    *,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    input_dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """(lo, hi) of each axis, from its entry."""
    resolved = []
    for entry, n, k, s, d, a in zip(
        entries, size, kernel, stride, dilation, input_dilation, strict=True
    ):
        extent, k_eff = _geometry.dilated_size(n, a), _geometry.dilated_size(k, d)
        resolved.append(axis_padding(where, entry, extent, k_eff, s))
    return tuple(resolved)


def axis_padding(where: str, entry: Any, extent: int, k_eff: int, stride: int) -> tuple[int, int]:
    """(lo, hi) of one axis, from a name, an int, a pair or a function of k_eff."""
    if callable(entry):
        entry = entry(k_eff)
    if isinstance(entry, str):
        name = name_of(entry)
        if name not in NAMES:
            raise ValueError(
                error(
                    where,
                    f"padding must be one of {', '.join(map(repr, NAMES))}, got {entry!r}",
                    "Or pass an int, or for each axis an int or a pair (before, after).",
                    *_hint(name),
                )
            )
        return _geometry.string_padding(name, extent, k_eff, stride)
    if _is_listed(entry):
        if len(entry) != 2:
            raise ValueError(
                error(where, f"padding of an axis must be a pair (before, after), got {entry!r}")
            )
        lo, hi = (integer(where, "padding", item) for item in entry)
        return lo, hi
    both = integer(where, "padding", entry)
    return both, both


def name_of(entry: Any) -> str | None:
    """The name that an entry is, in capitals, or None."""
    return entry.upper() if isinstance(entry, str) else None


def _hint(name: str | None) -> list[str]:
    """What somebody means who writes Flax's or PyTorch's name of a mode here."""
    modes = {"CIRCULAR": "circular", "WRAP": "circular", "REFLECT": "reflect"}
    modes |= {"REPLICATE": "replicate", "EDGE": "replicate"}
    if name is None or name not in modes:
        return []
    return [f"What the padding holds is another argument: padding_mode={modes[name]!r}."]


def _is_listed(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)


def _by_axis(where: str, padding: Mapping[Any, Any], layout: Layout) -> list[Any]:
    """Entries that are told by letter or by number of their axis."""
    rank, letters = layout.rank, layout.letters
    found: dict[int, Any] = {}
    for key, entry in padding.items():
        if isinstance(key, str):
            axis = letters.find(key.upper()) if len(key) == 1 else -1
        else:
            axis = integer(where, "an axis of padding", key)
        if not 0 <= axis < rank or axis in found:
            named = f"one of the letters {letters!r} or " if letters else ""
            raise ValueError(
                error(
                    where,
                    f"padding names each spatial axis once, by {named}a number from 0 to "
                    f"{rank - 1}, got {key!r} in {dict(padding)!r}",
                    "Letters are those of data_format, or W, HW and DHW if it has none.",
                )
            )
        found[axis] = entry
    missing = [letters[axis] if letters else axis for axis in range(rank) if axis not in found]
    if missing:
        raise ValueError(
            error(
                where,
                f"padding has no entry for the axis {missing[0]!r}, got {dict(padding)!r}",
                "Write 'VALID' for an axis without padding.",
            )
        )
    return [found[axis] for axis in range(rank)]


def _of_every_axis(where: str, padding: Any, layout: Layout) -> list[Any]:
    """The spatial pairs of TensorFlow's form, in which batch and channels have one too."""
    batch, channels, *spatial = layout.numbers.lhs_spec
    for axis, name in ((batch, "batch"), (channels, "channels")):
        if tuple(padding[axis]) != (0, 0):
            raise ValueError(
                error(
                    where,
                    f"padding with a pair for every axis of x has (0, 0) for the {name}, "
                    f"which is axis {axis}, got {padding!r}",
                    f"For the {layout.rank} spatial axes alone, write {layout.rank} pairs.",
                )
            )
    return [padding[axis] for axis in spatial]
