"""What users pass, checked and made canonical: integers, layout, arrays.

An error names the function and the argument, what came, what is needed and what to do instead.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._errors import error

__all__ = [
    "AxisPadding",
    "DataFormat",
    "Ints",
    "Layout",
    "Padding",
    "check_arrays",
    "check_is_array",
    "integer",
    "integers",
    "layout",
]

Ints: TypeAlias = int | np.integer | Sequence[int | np.integer]
AxisPadding: TypeAlias = str | int | np.integer | Sequence[int | np.integer] | Callable[[int], Any]
Padding: TypeAlias = AxisPadding | Sequence[AxisPadding] | Mapping[Any, AxisPadding]
DataFormat: TypeAlias = str | tuple[str, str, str] | lax.ConvDimensionNumbers | None


# --- integers
# ----------------------------------------------------------------------------------------


def integer(where: str, name: str, value: Any, *, least: int | None = None) -> int:
    """A Python int from an int or a NumPy integer; bools and floats are mistakes."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(
            error(
                where,
                f"{name} must be an integer, got {value!r} of type {type(value).__name__}",
                "A fraction is never rounded; pass int(...) if that is meant.",
            )
        )
    number = operator.index(value)
    if least is not None and number < least:
        raise ValueError(error(where, f"{name} must be >= {least}, got {number}"))
    return number


def integers(where: str, name: str, value: Any, rank: int, *, least: int = 1) -> tuple[int, ...]:
    """One integer for all spatial axes, or one for each."""
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str):
        if len(value) != rank:
            raise ValueError(
                error(
                    where,
                    f"{name} must be an integer or {rank} of them (one a spatial axis), "
                    f"got {len(value)}: {value!r}",
                )
            )
        return tuple(
            integer(where, f"{name}[{axis}]", item, least=least) for axis, item in enumerate(value)
        )
    return (integer(where, name, value, least=least),) * rank


# --- layout
# ------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """The order of axes of one call, and the leading axes of x that stand for its batch."""

    numbers: lax.ConvDimensionNumbers
    lead: tuple[int, ...] | None
    letters: str  # of the spatial axes, "" where they have none

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.numbers.lhs_spec) - 2

    def merged(self, shape: Sequence[int]) -> tuple[int, ...]:
        """``shape`` with exactly one batch axis."""
        if self.lead is None:
            return tuple(shape)
        return (math.prod(self.lead), *shape[len(self.lead) :])

    def merge(self, x: jax.Array) -> jax.Array:
        """``x`` with exactly one batch axis."""
        if self.lead is None or len(self.lead) == 1:
            return jnp.asarray(x)
        return jnp.reshape(x, self.merged(x.shape))

    def restore(self, y: jax.Array) -> jax.Array:
        """``y`` with the batch axes that x came with."""
        if self.lead is None or len(self.lead) == 1:
            return y
        return jnp.reshape(y, (*self.lead, *y.shape[1:]))

    def result(self, batch: int, spatial: Sequence[int], channels: int) -> tuple[int, ...]:
        """Shape of the result, with the batch axes that x came with."""
        sizes = dict(zip(self.numbers.out_spec, (batch, channels, *spatial), strict=True))
        shape = tuple(sizes[axis] for axis in range(self.rank + 2))
        return shape if self.lead is None else (*self.lead, *shape[1:])

    def image(self, shape: Sequence[int]) -> tuple[int, tuple[int, ...], int]:
        """Batch, spatial sizes and channels of a merged x."""
        batch, channels, *spatial = self.numbers.lhs_spec
        return shape[batch], tuple(shape[axis] for axis in spatial), shape[channels]

    def window(self, shape: Sequence[int]) -> tuple[tuple[int, ...], int, int]:
        """Taps, input channels per group and output channels of w."""
        out, inner, *spatial = self.numbers.rhs_spec
        return tuple(shape[axis] for axis in spatial), shape[inner], shape[out]


def layout(
    where: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    data_format: Any,
    *,
    x_name: str = "x",
) -> Layout:
    """The order of axes, from a name, from letters or from explicit dimension numbers.

    Names ("channels_last", "channels_first") and letters ("NHWC", "NCW", ...) describe x and y; the
    kernel is then (*K, I, O). A name takes x with one batch axis or none. Letters also say how many
    axes are spatial, so x may have any number of leading batch axes in place of N.
    """
    if isinstance(data_format, tuple):
        return _explicit(where, x_shape, w_shape, data_format)
    rank = len(w_shape) - 2
    if rank < 0:
        raise ValueError(
            error(where, f"w must be (*K, I, O), with at least 2 axes, got shape {tuple(w_shape)}")
        )
    first, letters = _channels_first(where, data_format, rank, w_shape)
    lead = len(x_shape) - rank - 1
    own = "DHW"[-rank:] if 0 < rank <= 3 else ""
    spatial = own or "S" * rank
    wanted = "NC" + spatial if first else "N" + spatial + "C"
    if lead < 0 or (lead > 1 and letters is None):
        raise ValueError(
            error(
                where,
                f"{x_name} must have {rank + 2} axes ({wanted}), or {rank + 1} without a batch, "
                f"got shape {tuple(x_shape)}",
                f"w {tuple(w_shape)} is (*K, I, O), so {rank} of the axes of {x_name} are spatial.",
                f"If {x_name} has several batch axes, name the layout: data_format='{wanted}'.",
            )
        )
    last = rank + 1
    image = (0, 1, *range(2, last + 1)) if first else (0, last, *range(1, last))
    numbers = lax.ConvDimensionNumbers(image, (last, rank, *range(rank)), image)
    return Layout(numbers, tuple(x_shape[:lead]), own if letters is None else letters)


def _channels_first(
    where: str, data_format: Any, rank: int, w_shape: Sequence[int]
) -> tuple[bool, str | None]:
    """Whether channels come first, and the letters of the spatial axes if it was spelled so."""
    if data_format is None or data_format == "channels_last":
        return False, None
    if data_format == "channels_first":
        return True, None
    if not isinstance(data_format, str):
        raise TypeError(
            error(where, f"data_format must be a string or dimension numbers, got {data_format!r}")
        )
    letters = data_format.upper()
    spatial = letters[2:] if letters[1:2] == "C" else letters[1:-1]
    well_formed = letters in ("NC" + spatial, "N" + spatial + "C") and not set("NC") & set(spatial)
    if not well_formed or not letters.isalpha():
        raise ValueError(
            error(
                where,
                "data_format must be 'channels_last', 'channels_first', or letters such as 'NHWC' "
                f"or 'NCHW' (N first, C second or last), got {data_format!r}",
                "For any other order pass three strings, such as ('HWNC', 'HWIO', 'HWNC').",
            )
        )
    if len(spatial) != rank:
        raise ValueError(
            error(
                where,
                f"w must be (*K, I, O) with {len(spatial)} spatial axes, as data_format="
                f"{data_format!r} says, so {len(spatial) + 2} axes, got shape {tuple(w_shape)}",
            )
        )
    return letters[1] == "C" and (rank > 0), spatial


def _explicit(
    where: str, x_shape: Sequence[int], w_shape: Sequence[int], numbers: tuple[Any, ...]
) -> Layout:
    if len(x_shape) != len(w_shape):
        raise ValueError(
            error(
                where,
                "x and w must have the same number of axes under explicit dimension numbers, "
                f"got shapes {tuple(x_shape)} and {tuple(w_shape)}",
            )
        )
    try:
        resolved = lax.conv_dimension_numbers(tuple(x_shape), tuple(w_shape), numbers)
    except (TypeError, ValueError) as reason:
        raise ValueError(
            error(where, f"data_format {numbers!r} is not usable: {reason}")
        ) from reason
    # lax orders the spatial axes as w's string has them.
    kernel = numbers[1] if isinstance(numbers[1], str) else ""
    return Layout(resolved, None, "".join(c for c in kernel.upper() if c not in "OI"))


# --- arrays
# ------------------------------------------------------------------------------------------


def check_arrays(where: str, **arrays: Any) -> None:
    """Raise unless all are numeric arrays of one dtype."""
    for name, value in arrays.items():
        check_is_array(where, **{name: value})
        if not jnp.issubdtype(value.dtype, jnp.number):
            raise TypeError(error(where, f"{name} must hold numbers, got dtype {value.dtype}"))
    dtypes = {name: value.dtype for name, value in arrays.items()}
    if len(set(dtypes.values())) > 1:
        named = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(
            error(
                where,
                f"{' and '.join(dtypes)} must have one dtype, got {named}",
                "Nothing is promoted silently; cast one with .astype(...).",
            )
        )


def check_is_array(where: str, **arrays: Any) -> None:
    """Raise unless all are arrays."""
    for name, value in arrays.items():
        if not isinstance(value, (jax.Array, np.ndarray)):
            raise TypeError(
                error(
                    where,
                    f"{name} must be an array, got {type(value).__name__}",
                    f"Pass jnp.asarray({name}).",
                )
            )
