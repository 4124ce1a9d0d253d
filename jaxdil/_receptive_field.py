"""What a unit sees: the extent, spacing and place of its receptive field.

Of a list of layers by arithmetic, of any function by reading its jaxpr. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np

from jaxdil._arguments import Ints, integer, integers
from jaxdil._errors import error
from jaxdil._geometry import dilated_size
from jaxdil._reads import Bounds, lines
from jaxdil._tape import Tape, tape_of

__all__ = ["Layer", "Layers", "ReceptiveField", "TracedField", "read_layers", "receptive_field"]


class Layer(NamedTuple):
    """A convolution or pooling, as far as receptive fields go; an int, or one an axis, in each."""

    kernel: Ints
    """Taps, >= 1."""
    stride: Ints = 1
    """Samples between neighbouring outputs, >= 1."""
    dilation: Ints = 1
    """Samples between neighbouring taps, >= 1."""
    padding: Ints = 0
    """Samples added in front; may be negative. Those added at the end move no field."""


class ReceptiveField(NamedTuple):
    """The samples of the input that a unit can depend on; tuples if a layer has one int an axis."""

    size: int | tuple[int, ...]
    """Samples from the first to the last, those between the taps included."""
    jump: int | tuple[int, ...]
    """Samples between the fields of neighbouring units."""
    start: float | tuple[float, ...]
    """Position of the middle of the field of unit 0. Sample i is at i; .5 is between two."""

    def padding_share(self, unit: int, input_size: Ints) -> float | tuple[float, ...]:
        """How much of the field of ``unit`` lies beyond an input of that many samples, 0 to 1.

        >>> jaxdil.receptive_field([(3, 1, 1, 1), (3, 1, 2, 2)])[-1].padding_share(0, 100)
        0.42857142857142855
        """
        where, axes = "padding_share", np.ravel(np.asarray(self.size))
        unit = integer(where, "unit", unit, least=0)
        sizes = integers(where, "input_size", input_size, len(axes))
        first = np.ravel(self.start) + unit * np.ravel(self.jump) - (axes - 1) / 2
        share = tuple(map(float, _outside(first, first + axes - 1, np.asarray(sizes)) / axes))
        return share if isinstance(self.size, tuple) else share[0]


class TracedField(NamedTuple):
    """The receptive field of the units of a traced function; one entry an axis of its input.

    Where units differ, as behind a transposed convolution, this is the unit in the middle.
    """

    size: int | tuple[int, ...]
    """Samples from the first to the last that a unit can depend on, padding included."""
    jump: float | tuple[float, ...]
    """Samples between the fields of neighbouring units; 0 if all see the same."""
    start: float | tuple[float, ...]
    """Position of the middle of the field of unit 0, counted back from the middle unit."""
    padding: float | tuple[float, ...]
    """How much of a field lies beyond the input, 0 to 1: the mean of all units."""
    unknown: tuple[str, ...] = ()
    """Primitives without a rule on the way, taken to read the whole of what they are given."""


_NO_FLOOR = -(2**62)  # negative padding crops

Layers: TypeAlias = Sequence[Layer | Sequence[Ints] | np.ndarray] | np.ndarray


@overload
def receptive_field(layers: Layers) -> tuple[ReceptiveField, ...]: ...


@overload
def receptive_field(
    layers: Callable[..., Any], *, axes: int | Sequence[int] | None = ..., argnum: int = ...
) -> Callable[..., Any]: ...


def receptive_field(
    layers: Layers | Callable[..., Any],
    *,
    axes: int | Sequence[int] | None = None,
    argnum: int = 0,
) -> tuple[ReceptiveField, ...] | Callable[..., Any]:
    """The receptive field of a unit after each layer of a stack, or of a function's results.

    ``r' = r + (k_eff - 1) j``, ``j' = j s``, ``start' = start + ((k_eff - 1) / 2 - lo) j``, from
    r = j = 1 and start = 0 at the input, with k_eff = dilation (kernel - 1) + 1. Unit p then sees
    the samples from start + p j - (r - 1) / 2 to start + p j + (r - 1) / 2, as far as there are
    any; of those, a stack with a large dilation may pass over some (`coverage`, `covers`).

    A function is traced, not run: its program says what every operation reads. Convolutions,
    pooling, slices, padding, concatenation, transposed convolutions, reshapes, reductions, scans
    and whatever is elementwise are followed exactly; where branches meet, the field reaches from
    the first sample of any to the last. What mixes an axis, a matrix product or a norm over it,
    say, sees all of it. Every tap counts, whatever its weight.

    Args:
      layers: from the input on, each a `Layer` or its entries (kernel, stride, dilation, padding),
        of which the last three may be left out. An entry is an int, or one for each axis. Or any
        function that ``jax.jit`` could trace.
      axes: of a function: the axes of its input to answer for; an int for one, None for all.
      argnum: of a function: which of its arguments is the input, an array.

    Returns:
      Of layers, a `ReceptiveField` (size, jump, start) for each, the last one that of the stack.
      Of a function, one that takes its arguments (arrays, or ``jax.ShapeDtypeStruct``) and returns
      a `TracedField` (size, jump, start, padding, unknown) in place of each array of its result.

    Raises:
      ValueError: if a layer has no entry or more than four, an axis too many or too few, or a
        kernel, stride or dilation below 1; for axes that the input has not, or an empty input.
      TypeError: if a layer is no sequence, and for integers that are not; if the input is no
        array.

    Cost: integers only; of a function, one trace, and a few passes over short lines of integers.

    Source: Yu and Koltun, arXiv:1511.07122; Araujo et al., Computing Receptive Fields of
    Convolutional Neural Networks, doi:10.23915/distill.00021.

    >>> [field.size for field in jaxdil.receptive_field([[3, 1, 1], [3, 1, 2], [3, 1, 4]])]
    [3, 7, 15]
    >>> jaxdil.receptive_field([(7, 2, 1, 3), (3, 2, 1, 1)])[-1]
    ReceptiveField(size=11, jump=4, start=0.0)
    >>> jaxdil.receptive_field([((3, 5), 1, (1, 2))])
    (ReceptiveField(size=(3, 9), jump=(1, 1), start=(1.0, 4.0)),)

    >>> import jax, jax.numpy as jnp
    >>> def block(x):
    ...     y = jaxdil.conv(x, jnp.ones((3, 3, 8, 8)), dilation=4)
    ...     return jax.nn.relu(x + y)
    >>> jaxdil.receptive_field(block, axes=(1, 2))(jnp.ones((1, 32, 32, 8)))
    TracedField(size=(9, 9), jump=(1.0, 1.0), start=(0.0, 0.0), padding=(...), unknown=())
    """
    where = "receptive_field"
    if callable(layers):
        argnum = integer(where, "argnum", argnum)

        def traced(*args: Any, **kwargs: Any) -> Any:
            tape, rebuild = tape_of(where, layers, args, kwargs, argnum)
            return rebuild(_fields(where, tape, axes))

        return traced
    if axes is not None:
        what = "axes and argnum are for functions; a layer has an entry an axis"
        raise ValueError(error(where, f"{what}, got axes={axes!r}"))
    return _of_layers(where, layers)


def _of_layers(where: str, layers: Layers) -> tuple[ReceptiveField, ...]:
    read, bare = read_layers(where, layers)
    rank = len(read[0].kernel) if read else 1
    size, jump, start = (1,) * rank, (1,) * rank, (0.0,) * rank
    fields = []
    for kernel, stride, dilation, lo in read:
        span = [dilated_size(k, d) - 1 for k, d in zip(kernel, dilation, strict=True)]
        middle = [e / 2 - p for e, p in zip(span, lo, strict=True)]
        size = tuple(r + e * j for r, e, j in zip(size, span, jump, strict=True))
        start = tuple(at + m * j for at, m, j in zip(start, middle, jump, strict=True))
        jump = tuple(j * s for j, s in zip(jump, stride, strict=True))
        field = ReceptiveField(size, jump, start)
        fields.append(ReceptiveField(size[0], jump[0], start[0]) if bare else field)
    return tuple(fields)


class _Checked(NamedTuple):
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]


def read_layers(where: str, layers: Layers) -> tuple[list[_Checked], bool]:
    """The layers with one entry an axis, and whether they came without axes."""
    _check_sequence(where, layers, "layers must be a sequence of layers")
    read = [_layer(where, f"layers[{i}]", layer) for i, layer in enumerate(layers)]
    lengths = [len(v) for layer in read for v in layer if isinstance(v, Sequence | np.ndarray)]
    rank = lengths[0] if lengths else 1
    checked = []
    for index, layer in enumerate(read):
        name = f"layers[{index}]"
        checked.append(
            _Checked(
                integers(where, f"{name}.kernel", layer.kernel, rank),
                integers(where, f"{name}.stride", layer.stride, rank),
                integers(where, f"{name}.dilation", layer.dilation, rank),
                integers(where, f"{name}.padding", layer.padding, rank, least=_NO_FLOOR),
            )
        )
    return checked, not lengths


def _layer(where: str, name: str, layer: Any) -> Layer:
    entries = "(kernel, stride, dilation, padding)"
    _check_sequence(where, layer, f"{name} must be {entries}, the kernel at least")
    if not 1 <= len(layer) <= 4:
        what = f"{name} must have 1 to 4 entries {entries}, got {layer!r}"
        raise ValueError(error(where, what))
    return Layer(*layer)


def _check_sequence(where: str, value: Any, what: str) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(error(where, f"{what}, got {value!r}"))


# --- of a traced function -------------------------------------------------------------------------


def _fields(where: str, tape: Tape, axes: int | Sequence[int] | None) -> list[TracedField]:
    """A field for each result of a tape."""
    rank = len(tape.shapes[0])
    chosen = range(rank) if axes is None else np.atleast_1d(np.asarray(axes, dtype=object))
    numbers = [integer(where, "axes", axis) for axis in chosen]
    if any(not -rank <= axis < rank for axis in numbers):
        raise ValueError(error(where, f"axes must be of the {rank} of the input, got {axes!r}"))
    values = {axis: tape.bounds(axis) for axis in dict.fromkeys(a % rank for a in numbers)}
    fields = []
    for value in tape.results:
        entries = [
            _entry(None if value is None else values[a % rank][value], tape.shapes[0][a])
            for a in numbers
        ]
        size, jump, start, share = (
            zip(*entries, strict=True) if axes is None or np.ndim(axes) else entries[0]
        )
        unknown = () if value is None else tape.mixing(value)
        fields.append(TracedField(size, jump, start, share, unknown))
    return fields


_NOTHING = (0, 0.0, float("nan"), 0.0)


def _entry(bounds: Bounds | None, n: int) -> tuple[int, float, float, float]:
    """Size, jump, start and share of padding on one axis of an input of ``n`` samples."""
    if bounds is None or not np.isfinite(bounds.first).any():
        return _NOTHING
    first, last, jump, turn = _moving(bounds)
    size = np.maximum(last - first + 1, 0)
    seeing = np.flatnonzero(size)
    share = float(np.mean(_outside(first[seeing], last[seeing], n) / size[seeing]))
    units = np.arange(len(size) // 2, len(size))[:turn]
    units = units[size[units] > 0] if size[units].any() else seeing[:1]
    step = _measured(first, last, int(units[0]), turn, float(jump))
    start = float(np.mean((first[units] + last[units]) / 2 - step * units))
    return int(size[units].max()), step, start, share


def _moving(bounds: Bounds) -> tuple[np.ndarray, np.ndarray, Fraction, int]:
    """The bounds along the axis of the result on which they move farthest, and their jump."""
    along = lines(bounds.first, bounds.last)
    if not along:
        return np.atleast_1d(bounds.first), np.atleast_1d(bounds.last), Fraction(0), 1
    moves = [float(np.ptp(first[np.isfinite(first)])) for first, _ in along]
    # One unit moves nowhere, but has a jump.
    axis = int(np.argmax(moves if any(moves) else np.abs([float(jump) for jump in bounds.jump])))
    return *along[axis], bounds.jump[axis], bounds.turn[axis]


def _measured(first: np.ndarray, last: np.ndarray, unit: int, turn: int, jump: float) -> float:
    """The jump from a unit to the next that takes the same turn, if there is one."""
    for other in (unit + turn, unit - turn):
        if 0 <= other < len(first) and np.isfinite(first[other]):
            moved = (first[other] + last[other] - first[unit] - last[unit]) / 2
            return float(moved / (other - unit))
    return jump


def _outside(first: np.ndarray, last: np.ndarray, n: Any) -> np.ndarray:
    """Samples of each field that are not among 0 to n - 1."""
    inside = np.minimum(last, n - 1) - np.maximum(first, 0) + 1
    return last - first + 1 - np.maximum(inside, 0)
