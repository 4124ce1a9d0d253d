"""Pictures of what a unit sees: taps, paths through a stack, holes, the strength of an effect.

Needs matplotlib (``pip install jaxdil[plot]``), imported when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdil._arguments import Ints, integers
from jaxdil._coverage import coverage as coverage_of
from jaxdil._errors import error
from jaxdil._geometry import dilated_size
from jaxdil._receptive_field import Layers, read_layers, receptive_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["coverage", "effect", "paths", "receptive_fields", "taps"]

TAP, SPANNED, REST = "#d1495b", "#f6d8dc", "#f2f2f2"
DEEP, HOLE = "#4a1020", "#9a9da3"
INK, LINE, DOT, FAINT = "#30343b", "#ffffff", "#c9ccd1", "#dfe1e5"


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


def paths(layers: Layers, *, units: int = 1, ax: Axes | None = None) -> Axes:
    """A stack in one dimension: every sample a dot, and a line from each to what it reads.

    The bottom row is the input; a row above it is the result of a layer, each unit over the middle
    of what it sees. Coloured is what reaches the units in the middle of the top row; light lines
    are the reads of the others. Of layers with several axes, the first is shown.

    Args:
      layers: as in ``jaxdil.receptive_field``.
      units: how many neighbours of the top row to follow, >= 1.
      ax: of matplotlib, to draw in; a new figure if None.

    Returns:
      The axes. The collection labelled "reached" has the dots that reach the units, as (position,
      layer), layer 0 being the input.

    Raises:
      ValueError: as ``jaxdil.receptive_field``; for no unit.
      TypeError: as ``jaxdil.receptive_field``.
      ImportError: without matplotlib.

    >>> ax = paths([(3, 1, 1), (3, 1, 2), (3, 1, 4)])
    >>> dots = next(c for c in ax.collections if c.get_label() == "reached").get_offsets()
    >>> [int((dots[:, 1] == layer).sum()) for layer in range(4)]
    [15, 7, 3, 1]
    """
    where = "plot.paths"
    read, _ = read_layers(where, layers)
    (count,) = integers(where, "units", units, 1)
    (ax,) = _axes(where, None if ax is None else [ax], 1, width=8.0)
    rows, reads = _rows([(k[0], s[0], d[0]) for k, s, d, _ in read], count)
    from matplotlib.collections import LineCollection

    for colour, width, over, wanted in ((FAINT, 0.6, 1, False), (TAP, 1.5, 2, True)):
        kept = [line for line, reached in reads if reached is wanted]
        ax.add_collection(LineCollection(kept, colors=colour, linewidths=width, zorder=over))
    for reached, colour, label in ((False, DOT, "others"), (True, TAP, "reached")):
        dots = [dot for row in rows for dot, inside in row if inside is reached]
        x, y = np.reshape(dots, (-1, 2)).T
        ax.scatter(x, y, s=42, zorder=3, color=colour, label=label)
    names = [f"layer {i}" for i in range(1, len(rows))]
    ax.set_yticks(range(len(rows)), ["input", *names])
    for layer, field in enumerate(receptive_field(layers), start=1):
        size = np.ravel(field.size)[0]
        beside: Any = ("axes fraction", "data")
        ax.annotate(f"sees {size}", (1.01, layer), xycoords=beside, va="center", color=INK)
    ax.set_xticks([])
    ax.tick_params(length=0, labelcolor=INK)
    ax.spines[:].set_visible(False)
    return ax


def coverage(layers: Layers, *, ax: Axes | None = None) -> Axes:
    """In how many ways each sample of a plane reaches one unit: holes show as crossed cells.

    Args:
      layers: as in ``jaxdil.receptive_field``, with one axis, which then stands for both, or two.
      ax: of matplotlib, to draw in; a new figure if None.

    Returns:
      The axes, whose image has the counts of ``jaxdil.coverage``, holes masked.

    Raises:
      ValueError: as ``jaxdil.receptive_field``; for layers of more than two axes.
      TypeError: as ``jaxdil.receptive_field``.
      ImportError: without matplotlib.

    >>> ways = coverage([(3, 1, 2)] * 3).images[0].get_array()
    >>> ways.shape, int(ways.mask.sum())
    ((13, 13), 120)
    """
    where = "plot.coverage"
    ways = coverage_of(layers)
    if ways.ndim > 2:
        what = f"layers must have one or two axes, got {ways.ndim}"
        raise ValueError(error(where, what))
    ways = np.multiply.outer(ways, ways) if ways.ndim == 1 else ways
    (ax,) = _axes(where, None if ax is None else [ax], 1, width=4.0)
    _heat(ax, np.ma.masked_equal(ways, 0), "paths to the unit")
    _between(ax, ways.shape)
    holes = np.argwhere(ways == 0)
    ax.scatter(holes[:, 1], holes[:, 0], marker="x", s=14, color=HOLE, linewidths=0.8)
    seen = f"{np.count_nonzero(ways)} of {ways.size} samples"
    ax.set_title(f"{seen}, {len(holes) or 'no'} holes", color=INK)
    return ax


def effect(values: np.ndarray, *, size: Ints | None = None, ax: Axes | None = None) -> Axes:
    """How strongly each sample of a plane moves a unit, as ``jaxdil.effective_receptive_field``.

    Args:
      values: the effect, (H, W).
      size: of the receptive field, an int or one for each axis: drawn as a frame around the middle.
      ax: of matplotlib, to draw in; a new figure if None.

    Returns:
      The axes, whose image has the values, zeros masked.

    Raises:
      ValueError: for values of other than two axes.
      ImportError: without matplotlib.

    >>> effect(np.ones((5, 5)), size=3).images[0].get_array().shape
    (5, 5)
    """
    where = "plot.effect"
    values = np.asarray(values)
    if values.ndim != 2:
        what = f"values must be a plane (H, W), got shape {values.shape}"
        raise ValueError(error(where, what, "Sum over batch and channels first."))
    frame = () if size is None else integers(where, "size", size, 2)
    (ax,) = _axes(where, None if ax is None else [ax], 1, width=4.0)
    _heat(ax, np.ma.masked_equal(values, 0), "effect on the unit")
    if frame:
        from matplotlib.patches import Rectangle

        corner = [n // 2 - k / 2 for n, k in zip(values.shape, frame, strict=True)][::-1]
        look: dict[str, Any] = {
            "fill": False,
            "edgecolor": INK,
            "linestyle": "--",
            "linewidth": 1.2,
        }
        ax.add_patch(Rectangle((corner[0], corner[1]), frame[1], frame[0], **look))
        ax.set_title(f"frame: receptive field, {' x '.join(map(str, frame))}", color=INK)
    return ax


def _rows(layers: list[tuple[int, int, int]], units: int) -> tuple[list[Any], list[Any]]:
    """Dots ((position, layer), reached) of each row, input first, and lines (ends, reached)."""
    reached = [list(range(units))]
    for k, s, d in reversed(layers):
        reached.insert(0, sorted({s * p + d * t for p in reached[0] for t in range(k)}))
    last = reached[0][-1]
    place = [(0.0, 1)]  # of unit 0, and the distance to the next
    for k, s, d in layers:
        start, jump = place[-1]
        place.append((start + d * (k - 1) / 2 * jump, jump * s))
    rows, reads = [], []
    for layer, ((start, jump), inside) in enumerate(zip(place, reached, strict=True)):
        # Every unit whose place is over the samples that are shown.
        over = range(-int(start // jump), int((last - start) // jump) + 1)
        shown = sorted({*over, *inside})
        rows.append([((start + p * jump, layer), p in inside) for p in shown])
        if layer:
            (k, s, d), (first, step) = layers[layer - 1], place[layer - 1]
            reads += [
                (((start + p * jump, layer), (x, layer - 1)), p in inside)
                for p in shown
                for x in (first + (s * p + d * t) * step for t in range(k))
                if 0 <= x <= last
            ]
    return rows, reads


def _heat(ax: Axes, values: np.ndarray, label: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import MaxNLocator

    ramp = LinearSegmentedColormap.from_list("paths", [SPANNED, TAP, DEEP])
    image = ax.imshow(values, cmap=ramp.with_extremes(bad=REST), vmin=0)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.04)
    bar.set_label(label, color=INK)
    bar.locator = MaxNLocator(nbins=5, integer=bool(np.all(values == np.round(values))))
    bar.update_ticks()
    bar.ax.tick_params(labelcolor=INK, color=INK)
    bar.outline.set_visible(False)
    ax.set_axis_off()


def _grid(ax: Axes, cells: np.ndarray) -> None:
    from matplotlib.colors import ListedColormap

    ax.imshow(cells, cmap=ListedColormap([REST, SPANNED, TAP]), vmin=0, vmax=2)
    _between(ax, cells.shape)
    ax.set_axis_off()


def _between(ax: Axes, shape: Sequence[int]) -> None:
    """Lines between the cells."""
    for draw, n in ((ax.axhline, shape[0]), (ax.axvline, shape[1])):
        for at in range(n + 1):
            draw(at - 0.5, color=LINE, linewidth=1)


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
