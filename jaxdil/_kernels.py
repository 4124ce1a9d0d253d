"""How each library stores a kernel, as one table, and the way from any layout to any other.

Every layer that convolves is an ordinary convolution over some input, and that convolution has a
kernel (*K, I, O), lax's. A layout is one way to store it, so each needs only the way there and the
way back:

    KIO    the kernel itself, with I = C / groups
    KCM    depthwise: O = (C, M), I = 1
    KJC    transposed: the kernel of the convolution that is transposed, J = O / groups; taps
           reversed, and the groups along C instead of O
    IO     the matrix of a linear layer

or such axes in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdil import _arguments
from jaxdil._errors import error

__all__ = ["LAYOUTS", "check_array", "check_names", "convert", "fresh", "sizes"]

# K stands for all spatial axes, every other letter for one.
LAYOUTS: dict[str, dict[str, str]] = {
    "conv": {
        "jaxdil": "KIO",
        "lax": "KIO",
        "flax": "KIO",
        "haiku": "KIO",
        "tf": "KIO",
        "keras": "KIO",
        "torch": "OIK",
        "equinox": "OIK",
    },
    "depthwise_conv": {
        "jaxdil": "KCM",
        "tf": "KCM",
        "keras": "KCM",
        "lax": "KIO",
        "flax": "KIO",
        "haiku": "KIO",
        "torch": "OIK",
        "equinox": "OIK",
    },
    "conv_transpose": {
        "jaxdil": "KJC",
        "tf": "KJC",
        "keras": "KJC",
        "torch": "CJK",
        "lax": "KIO",
        "flax": "KIO",
        "haiku": "KOI",
        "equinox": "OIK",
    },
    "dense": {
        "jaxdil": "IO",
        "lax": "IO",
        "flax": "IO",
        "haiku": "IO",
        "tf": "IO",
        "keras": "IO",
        "torch": "OI",
        "equinox": "OI",
    },
}
LIBRARIES = tuple(LAYOUTS["conv"])
# Their transposed convolutions take no groups. (lax's takes none either, but its kernel is also the
# one of conv_general_dilated with lhs_dilation, which does.)
UNGROUPED_TRANSPOSE = ("tf", "keras", "flax", "haiku")


# --- layouts --------------------------------------------------------------------------------------


def convert(
    where: str, name: str, w: Any, source: str, target: str, kind: str, groups: int | None
) -> Any:
    """A new array: w in the layout of target. ``where`` and ``name`` are for the errors."""
    check_names(where, source, target, kind)
    check_array(where, name, w)
    here, there = LAYOUTS[kind][source], LAYOUTS[kind][target]
    if w.ndim < 2 or (kind == "dense" and w.ndim != 2):
        raise ValueError(
            error(where, f"{name} must be {_wanted(kind, source)}, got shape {w.shape}")
        )
    count = _count(where, name, w, source, target, kind, groups)
    if _form(here) != _form(there):
        kernel = _TO_LAX[_form(here)](_permuted(w, here, _form(here)), count)
        w, here = _FROM_LAX[_form(there)](kernel, count), _form(there)
    return fresh(_permuted(w, here, there))


def _form(layout: str) -> str:
    """The axes of a layout, in the order in which the forms are defined."""
    return next(form for form in ("KIO", "KCM", "KJC", "IO") if set(form) == set(layout))


def _permuted(w: Any, layout: str, wanted: str) -> Any:
    """The axes of w, which are those of layout, as wanted."""
    rank = w.ndim - len(layout) + 1
    axes: dict[str, list[int]] = {}
    for letter in layout:
        first = sum(map(len, axes.values()))
        axes[letter] = list(range(first, first + (rank if letter == "K" else 1)))
    return w.transpose([axis for letter in wanted for axis in axes[letter]])


def _merged(w: Any, _: int) -> Any:
    """(*K, C, M) as (*K, 1, C M)."""
    return w.reshape(*w.shape[:-2], 1, w.shape[-2] * w.shape[-1])


def _split(w: Any, groups: int) -> Any:
    """(*K, 1, C M) as (*K, C, M)."""
    return w.reshape(*w.shape[:-2], groups, w.shape[-1] // groups)


def _adjoint(w: Any, groups: int) -> Any:
    """(*K, J, G I) as (*K, I, G J), taps reversed; and so the other way round too."""
    *taps, each, both = w.shape
    w = w[(slice(None, None, -1),) * len(taps)]
    blocks = w.reshape(*taps, each, groups, both // groups).swapaxes(-3, -1)
    return blocks.reshape(*taps, both // groups, groups * each)


def _itself(w: Any, _: int) -> Any:
    return w


_TO_LAX: dict[str, Callable[[Any, int], Any]] = {
    "KIO": _itself,
    "KCM": _merged,
    "KJC": _adjoint,
}
_FROM_LAX: dict[str, Callable[[Any, int], Any]] = {
    "KIO": _itself,
    "KCM": _split,
    "KJC": _adjoint,
}


def fresh(w: Any) -> Any:
    """An array of its own, as PyTorch takes no reversed view and its optimisers write in place."""
    return np.array(w, order="C") if isinstance(w, np.ndarray) else w


# --- checks ---------------------------------------------------------------------------------------


def check_names(where: str, source: str, target: str, kind: str) -> None:
    """Raise unless the libraries and the kind of layer are known."""
    for name, value, known in [
        ("source", source, LIBRARIES),
        ("target", target, LIBRARIES),
        ("kind", kind, tuple(LAYOUTS)),
    ]:
        if value not in known:
            hint = ["Both kernels at once: weights.convert_separable."] * (
                "separable" in str(value)
            )
            names = ", ".join(map(repr, known))
            raise ValueError(error(where, f"{name} must be one of {names}, got {value!r}", *hint))


def check_array(where: str, name: str, w: Any) -> None:
    """Raise unless w is an array; of any dtype, so that a mask or a quantised kernel goes too."""
    if not isinstance(w, (jax.Array, np.ndarray)):
        raise TypeError(
            error(
                where,
                f"{name} must be an array of numpy or JAX, got {type(w).__name__}",
                f"Pass numpy.asarray({name}), or {name}.detach().numpy() of a PyTorch parameter.",
            )
        )


def _wanted(kind: str, library: str) -> str:
    """The layout in words: (*K, I, O)."""
    letters = ", ".join(LAYOUTS[kind][library]).replace("K", "*K")
    return f"({letters}) for the {kind!r} of {library!r}"


def _count(
    where: str, name: str, w: Any, source: str, target: str, kind: str, groups: int | None
) -> int:
    """The number of groups, checked against w; of a depthwise kernel, C if it can be known."""
    size = sizes(w, LAYOUTS[kind][source])
    if groups is not None:
        groups = _arguments.integer(where, "groups", groups, least=1)
    if kind == "dense" and groups not in (None, 1):
        raise ValueError(error(where, f"a dense layer has no groups, got groups={groups}"))
    if kind == "conv_transpose" and groups not in (None, 1):
        _check_grouped_transpose(where, source, target)
    if kind == "depthwise_conv":
        groups = _depthwise_groups(where, name, w, source, target, groups)
    letter = "C" if "C" in size else "O"
    if size[letter] % (groups or 1):
        raise ValueError(
            error(
                where,
                f"groups must divide {letter} = {size[letter]}, got {groups}",
                f"{name} {w.shape} is {_wanted(kind, source)}.",
            )
        )
    return groups or 1


def _check_grouped_transpose(where: str, source: str, target: str) -> None:
    for library in (source, target):
        if library in UNGROUPED_TRANSPOSE:
            raise ValueError(
                error(
                    where,
                    f"the transposed convolution of {library!r} has no groups",
                    "Those of 'jaxdil', 'torch' and 'equinox' have; 'lax' stands for "
                    "conv_general_dilated with lhs_dilation.",
                )
            )


def _depthwise_groups(
    where: str, name: str, w: Any, source: str, target: str, groups: int | None
) -> int | None:
    """C of a depthwise kernel, None where neither library tells it from M."""
    size = sizes(w, LAYOUTS["depthwise_conv"][source])
    if "C" in size:
        if groups not in (None, size["C"]):
            raise ValueError(
                error(
                    where,
                    f"groups of a depthwise kernel are its C = {size['C']}, got {groups}",
                    f"{name} {w.shape} is {_wanted('depthwise_conv', source)}.",
                )
            )
        return size["C"]
    if size["I"] != 1:
        raise ValueError(
            error(
                where,
                f"{name} must be {_wanted('depthwise_conv', source)} with I = 1, got {w.shape}",
                "For a dense or grouped kernel pass kind='conv'.",
            )
        )
    if groups is None and "C" in LAYOUTS["depthwise_conv"][target]:
        raise ValueError(
            error(
                where,
                f"{target!r} stores (C, M) of a depthwise kernel, and {source!r} only C * M",
                f"{name} {w.shape} has C * M = {size['O']}: pass groups=C, the input channels.",
            )
        )
    return groups


def sizes(w: Any, layout: str) -> dict[str, int]:
    """The size of each axis but K."""
    taps = layout.find("K")
    return {
        letter: w.shape[at if at < taps else at - len(layout)]
        for at, letter in enumerate(layout)
        if letter != "K"
    }
