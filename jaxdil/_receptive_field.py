"""What a unit sees: the extent, spacing and place of its receptive field, from integers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxdil._arguments import Ints, integers
from jaxdil._errors import error
from jaxdil._geometry import dilated_size

__all__ = ["Layer", "ReceptiveField", "receptive_field"]


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


_NO_FLOOR = -(2**62)  # negative padding crops

Layers: TypeAlias = Sequence[Layer | Sequence[Ints] | np.ndarray] | np.ndarray


def receptive_field(layers: Layers) -> tuple[ReceptiveField, ...]:
    """The receptive field of a unit after each layer of a stack.

    ``r' = r + (k_eff - 1) j``, ``j' = j s``, ``start' = start + ((k_eff - 1) / 2 - lo) j``, from
    r = j = 1 and start = 0 at the input, with k_eff = dilation (kernel - 1) + 1. Unit p then sees
    the samples from start + p j - (r - 1) / 2 to start + p j + (r - 1) / 2, as far as there are
    any; of those, a stack with a large dilation may pass over some.

    Args:
      layers: from the input on, each a `Layer` or its entries (kernel, stride, dilation, padding),
        of which the last three may be left out. An entry is an int, or one for each axis.

    Returns:
      A `ReceptiveField` (size, jump, start) for each layer, the last one that of the stack.

    Raises:
      ValueError: if a layer has no entry or more than four, an axis too many or too few, or a
        kernel, stride or dilation below 1.
      TypeError: if a layer is no sequence, and for integers that are not.

    Cost: integers only.

    Source: Yu and Koltun, arXiv:1511.07122; Araujo et al., Computing Receptive Fields of
    Convolutional Neural Networks, doi:10.23915/distill.00021.

    >>> [field.size for field in jaxdil.receptive_field([[3, 1, 1], [3, 1, 2], [3, 1, 4]])]
    [3, 7, 15]
    >>> jaxdil.receptive_field([(7, 2, 1, 3), (3, 2, 1, 1)])[-1]
    ReceptiveField(size=11, jump=4, start=0.0)
    >>> jaxdil.receptive_field([((3, 5), 1, (1, 2))])
    (ReceptiveField(size=(3, 9), jump=(1, 1), start=(1.0, 4.0)),)
    """
    where = "receptive_field"
    _check_sequence(where, layers, "layers must be a sequence of layers")
    read = [_layer(where, f"layers[{i}]", layer) for i, layer in enumerate(layers)]
    lengths = [len(v) for layer in read for v in layer if isinstance(v, Sequence | np.ndarray)]
    rank = lengths[0] if lengths else 1
    size, jump, start = (1,) * rank, (1,) * rank, (0.0,) * rank
    fields = []
    for index, layer in enumerate(read):
        name = f"layers[{index}]"
        kernel = integers(where, f"{name}.kernel", layer.kernel, rank)
        stride = integers(where, f"{name}.stride", layer.stride, rank)
        dilation = integers(where, f"{name}.dilation", layer.dilation, rank)
        lo = integers(where, f"{name}.padding", layer.padding, rank, least=_NO_FLOOR)
        span = [dilated_size(k, d) - 1 for k, d in zip(kernel, dilation, strict=True)]
        middle = [e / 2 - p for e, p in zip(span, lo, strict=True)]
        size = tuple(r + e * j for r, e, j in zip(size, span, jump, strict=True))
        start = tuple(at + m * j for at, m, j in zip(start, middle, jump, strict=True))
        jump = tuple(j * s for j, s in zip(jump, stride, strict=True))
        field = ReceptiveField(size, jump, start)
        fields.append(field if lengths else ReceptiveField(size[0], jump[0], start[0]))
    return tuple(fields)


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
