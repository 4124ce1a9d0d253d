"""Pictures of what a convolution reads: the taps of a kernel, the growth of a receptive field.

Needs matplotlib (``pip install jaxdil[plot]``), imported when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdil._arguments import Ints, integers
from jaxdil._errors import error
from jaxdil._geometry import dilated_size
from jaxdil._receptive_field import Layers, receptive_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["receptive_fields", "taps"]

TAP, SPANNED, REST = "#d1495b", "#f6d8dc", "#f2f2f2"
INK, LINE = "#30343b", "#ffffff"


def taps(
    kernel: Ints, *, dilations: Sequence[Ints] = (1, 2, 4), axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """Which samples a kernel reads, for each of several dilations, side by side at one scale.

    A cell is a sample; the dark ones are read by a tap, the light ones are spanned and passed over.

    Args:
      kernel: taps on the one or two axes of the picture, >= 1; an int means a square.
      dilations: one picture for each, >= 1; an int or one for each axis.
      axes: of matplotlib, one for each dilation, to draw in; a new figure if None.

    Returns:
      The axes. Each has one image, whose array is 2 at a tap, 1 within the kernel and 0 around it.

    Raises:
      ValueError: for a kernel of more than two axes, axes too many or too few, integers below 1.
      TypeError: for integers that are not.
      ImportError: without matplotlib.

    >>> [int((ax.images[0].get_array() == 2).sum()) for ax in taps(3, dilations=(1, 2, 4))]
    [9, 9, 9]
    """
    where = "plot.taps"
    rank = len(kernel) if isinstance(kernel, Sequence | np.ndarray) else 2
    if rank not in (1, 2):
        raise ValueError(error(where, f"kernel must have one or two axes, got {kernel!r}"))
    count = integers(where, "kernel", kernel, rank)
    rates = [integers(where, f"dilations[{i}]", d, rank) for i, d in enumerate(dilations)]
    spans = [tuple(map(dilated_size, count, d)) for d in rates]
    around = tuple(max(sizes) + 2 for sizes in zip(*spans, strict=True))
    drawn = _axes(where, axes, len(rates), width=3.2)
    for ax, d, span in zip(drawn, rates, spans, strict=True):
        cells = np.zeros(around, int)
        lo = [(n - k) // 2 for n, k in zip(around, span, strict=True)]
        inside = tuple(slice(at, at + k) for at, k in zip(lo, span, strict=True))
        cells[inside] = 1
        cells[inside][tuple(slice(None, None, step) for step in d)] = 2
        _grid(ax, np.atleast_2d(cells))
        rate = " x ".join(map(str, d if len(set(d)) > 1 else d[:1]))
        ax.set_title(f"dilation {rate}: spans {' x '.join(map(str, span))}", color=INK)
    return drawn


def receptive_fields(layers: Layers, *, ax: Axes | None = None) -> Axes:
    """How the receptive field grows over a stack of layers: a bar for each, in its place.

    The bar of a layer covers the samples that a unit in the middle of its output can depend on,
    the number beside it is its size. Of layers with several axes, the first is shown.

    Args:
      layers: as in ``jaxdil.receptive_field``.
      ax: of matplotlib, to draw in; a new figure if None.

    Returns:
      The axes; one bar (patch) for each layer, the first layer on top.

    Raises:
      ValueError: as ``jaxdil.receptive_field``.
      TypeError: as ``jaxdil.receptive_field``.
      ImportError: without matplotlib.

    >>> ax = receptive_fields([(3, 1, 1), (3, 1, 2), (3, 1, 4)])
    >>> [int(bar.get_width()) for bar in ax.patches]
    [3, 7, 15]
    """
    sizes = [np.atleast_1d(field.size)[0].item() for field in receptive_field(layers)]
    (ax,) = _axes("plot.receptive_fields", None if ax is None else [ax], 1, width=6.0)
    rows = range(1, len(sizes) + 1)
    ax.barh(rows, sizes, left=[-size / 2 for size in sizes], height=0.7, color=TAP)
    for row, size in zip(rows, sizes, strict=True):
        ax.annotate(f" {size}", (size / 2, row), va="center", color=INK)
    ax.set(yticks=list(rows), ylabel="layer", xlabel="samples around the unit")
    reach = 0.6 * max(sizes, default=1)
    ax.set_xlim(-reach, reach)
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _grid(ax: Axes, cells: np.ndarray) -> None:
    from matplotlib.colors import ListedColormap

    ax.imshow(cells, cmap=ListedColormap([REST, SPANNED, TAP]), vmin=0, vmax=2)
    for draw, n in ((ax.axhline, cells.shape[0]), (ax.axvline, cells.shape[1])):
        for at in range(n + 1):
            draw(at - 0.5, color=LINE, linewidth=1)
    ax.set_axis_off()


def _axes(where: str, axes: Any, count: int, *, width: float) -> list[Axes]:
    """The axes given, or those of a new figure."""
    if axes is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as reason:
            what = "matplotlib is needed for pictures, and is not installed"
            raise ImportError(error(where, what, "Run: pip install 'jaxdil[plot]'")) from reason
        _, made = plt.subplots(1, count, squeeze=False, figsize=(width * count, 3.4))
        return list(made[0])
    given = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(given) != count:
        what = f"axes must be {count}, one for each dilation, got {len(given)}"
        raise ValueError(error(where, what))
    return given
