"""TensorFlow's ways to write strides, padding and layout, made jaxdil's; refusals are worded here.

    strides=2 | [2] | [2, 2] | [1, 2, 2, 1]              ->  (2, 2)
    padding="SAME" | [[0, 0], [1, 2], [3, 4], [0, 0]]    ->  "SAME" | ((1, 2), (3, 4))
    data_format=None | "NHWC" | "NCHW"                   ->  "NHWC" | "NCHW"

What stands for the batch and the channels is checked and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxdil import _arguments, _geometry, _window
from jaxdil._errors import error

__all__ = [
    "Pad",
    "TfPadding",
    "Window",
    "groups",
    "integers",
    "listed",
    "pairs",
    "ranks",
    "transposed_sizes",
    "window",
]

TfPadding: TypeAlias = str | Sequence[Sequence[int]]
Pad: TypeAlias = tuple[int, int]

# Number of spatial axes -> channels last, channels first.
FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


class Window(NamedTuple):
    """One call in jaxdil's words, without the axes that are not spatial."""

    data_format: str
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str | tuple[Pad, ...]

    @property
    def first(self) -> bool:
        """Whether the channels come right after the batch."""
        return self.data_format.startswith("NC")

    @property
    def options(self) -> dict[str, Any]:
        """The call in the words of jaxdil's own functions."""
        return {
            "stride": self.stride,
            "dilation": self.dilation,
            "padding": self.padding,
            "data_format": self.data_format,
        }

    def spatial(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The spatial sizes in the shape of an input or an output."""
        end = len(shape) if self.first else len(shape) - 1
        return tuple(shape[end - len(self.stride) : end])

    def channels(self, shape: Sequence[int]) -> int:
        """The channels in the shape of an input or an output."""
        return shape[-1 - len(self.stride) if self.first else -1]

    def check(self, where: str, x: jax.Array, kernel: Sequence[int], count: int) -> None:
        """Raise unless a kernel (*K, I, O) in ``count`` groups fits x."""
        layout = _arguments.layout(where, x.shape, kernel, self.data_format)
        _window.forward(
            where,
            layout,
            layout.merged(x.shape),
            kernel,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
            groups=count,
        )


def window(
    where: str,
    rank: int,
    *,
    strides: Any = None,
    dilations: Any = None,
    padding: Any,
    data_format: Any = None,
    stride_name: str = "strides",
    dilation_name: str = "dilations",
    short: bool = True,
) -> Window:
    """A call with ``rank`` spatial axes; if ``short``, lists of one entry stand for all of them."""
    last, first = FORMATS[rank]
    chosen = data_format.upper() if isinstance(data_format, str) else data_format or last
    if chosen not in (last, first):
        raise ValueError(error(where, f"data_format must be {last!r} or {first!r}, got {chosen!r}"))
    ahead = chosen == first
    return Window(
        chosen,
        integers(where, stride_name, strides, rank, first=ahead, short=short),
        integers(where, dilation_name, dilations, rank, first=ahead, short=short),
        _padding(where, padding, rank, first=ahead),
    )


def integers(
    where: str, name: str, value: Any, rank: int, *, first: bool = False, short: bool = True
) -> tuple[int, ...]:
    """One integer >= 1 for each spatial axis, from an int or a list of 1, N or N + 2 of them."""
    if value is None:
        return (1,) * rank
    if not listed(value):
        return (_arguments.integer(where, name, value, least=1),) * rank
    items = [_arguments.integer(where, f"{name}[{i}]", v, least=1) for i, v in enumerate(value)]
    if len(items) == rank + 2:
        outer = (items[0], items[1 if first else -1])
        if outer != (1, 1):
            what = f"{name} must be 1 on the batch and the channel axis, got {value!r}"
            raise ValueError(error(where, what, "Only spatial axes can be strided or dilated."))
        items = items[2:] if first else items[1:-1]
    elif len(items) == 1 and short:
        items *= rank
    if len(items) != rank:
        lengths = f"{'1, ' if short and rank > 1 else ''}{rank} or {rank + 2}"
        what = f"{name} must be an integer or a list of {lengths}, got {len(items)}: {value!r}"
        raise ValueError(error(where, what))
    return tuple(items)


def listed(value: Any) -> bool:
    """Whether ``value`` is a list, a tuple or an array, and not one thing."""
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)


def pairs(where: str, name: str, value: Any, rank: int) -> tuple[Pad, ...]:
    """A pair (before, after) of integers >= 0 for each of ``rank`` axes."""
    if not _paired(value, rank):
        what = f"{name} must be {rank} pairs (before, after), got {value!r}"
        raise ValueError(error(where, what))
    every = [[_arguments.integer(where, name, item, least=0) for item in pair] for pair in value]
    return tuple((lo, hi) for lo, hi in every)


def _paired(value: Any, rank: int) -> bool:
    """Whether ``value`` is a list of ``rank`` pairs."""
    lists = (list, tuple, np.ndarray)
    return (
        isinstance(value, lists)
        and len(value) == rank
        and all(isinstance(pair, lists) and len(pair) == 2 for pair in value)
    )


def _padding(where: str, padding: Any, rank: int, *, first: bool) -> str | tuple[Pad, ...]:
    if isinstance(padding, str):
        if padding.upper() in ("SAME", "VALID"):
            return padding.upper()
        what = f"padding must be 'SAME', 'VALID' or a list of pairs, got {padding!r}"
        more = "'SAME_LOWER', 'CAUSAL' and 'FULL' are names of jaxdil.conv."
        raise ValueError(error(where, what, more))
    order = FORMATS[rank][first]
    if not _paired(padding, rank + 2):
        what = (
            f"padding must have one pair (before, after) for each axis of {order}, got {padding!r}"
        )
        more = f"For {rank} spatial axes alone, as in [(1, 1), ...], call jaxdil.conv."
        raise ValueError(error(where, what, more))
    every = pairs(where, "padding", padding, rank + 2)
    if (every[0], every[1 if first else -1]) != ((0, 0), (0, 0)):
        what = (
            f"padding must be [0, 0] on the batch and the channel axis of {order}, got {padding!r}"
        )
        raise ValueError(error(where, what))
    return every[2:] if first else every[1:-1]


def ranks(where: str, rank: int, *, batches: bool = True, **arrays: jax.Array) -> None:
    """Raise unless the first array is an input with ``rank`` spatial axes and the rest are kernels.

    ``batches`` allows several axes in place of the batch.
    """
    _arguments.check_arrays(where, **arrays)
    name, x = next(iter(arrays.items()))
    wanted = rank + 2
    if x.ndim < wanted or (x.ndim > wanted and not batches):
        count = f"{'at least ' if batches else ''}{wanted} axes"
        shape = "(batch, *spatial, channels)"
        what = f"{name} must have {count}, {shape} in the order of data_format, got shape {x.shape}"
        raise ValueError(error(where, what, f"A single image needs a batch axis: {name}[None]."))
    for kernel, w in list(arrays.items())[1:]:
        if w.ndim != wanted:
            what = f"{kernel} must have {wanted} axes, {rank} of them spatial, got shape {w.shape}"
            raise ValueError(error(where, what))


def groups(where: str, channels: int, per_group: int, *, x: str, w: str) -> int:
    """Number of groups: the channels of ``x`` over those that one group of ``w`` has."""
    if per_group and channels % per_group == 0:
        return max(channels // per_group, 1)
    what = f"{x} has {channels} channels, which is no multiple of the {per_group} of {w}"
    raise ValueError(error(where, what, "Equal numbers make one group, a multiple makes several."))


def transposed_sizes(n: int, k: int, s: int, d: int, padding: str | Pad) -> range:
    """The sizes of an input from which a convolution makes ``n`` outputs."""
    if padding == "SAME":
        smallest = (n - 1) * s + 1
    else:
        lo, hi = (0, 0) if isinstance(padding, str) else padding
        smallest = (n - 1) * s + _geometry.dilated_size(k, d) - lo - hi
    return range(max(smallest, 0), smallest + s)
