"""The two pictures of a result: a roofline, and a dot for each case. Colours of Okabe and Ito."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks.case import MODES
from benchmarks.results import Result, Row, rows

__all__ = ["TITLES", "pyplot", "roofline", "save", "speedups"]

TITLES = {"fwd": "forward", "dx": "gradient by the input", "dw": "gradient by the kernel"}
# Colour and shape both tell contenders apart.
_STYLE = {
    "lax": ("#999999", "x", "lax"),
    "torch": ("#D55E00", "^", "PyTorch"),
    "auto": ("#0072B2", "o", "jaxdil"),
}


def roofline(result: Result, path: pathlib.Path) -> None:
    """Achieved GFLOP/s of each measurement over its FLOPs per byte, under the ceilings."""
    plt = pyplot()
    found = rows(result)
    ceilings = result.header["ceilings"]
    bandwidth = ceilings["copy_bytes"] / 1e9
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True, layout="constrained")
    for axis, mode in zip(axes, MODES, strict=True):
        here = [row for row in found if row.mode == mode]
        reach = [1e-1, 1e3]
        for name, (colour, marker, label) in _STYLE.items():
            points = [
                (r["flops"] / r["bytes"], r["gflops"])
                for row in here
                if (r := row.contenders.get(name)) and r["status"] == "ok"
            ]
            if points:
                axis.scatter(
                    *zip(*points, strict=True),
                    s=16,
                    c=colour,
                    marker=marker,
                    label=label,
                    linewidths=1,
                )
                reach = [
                    min(reach[0], *(x for x, _ in points)),
                    max(reach[1], *(x for x, _ in points)),
                ]
        for dtype, flops in ceilings["matmul_flops"].items():
            peak = flops / 1e9
            knee = peak / bandwidth
            xs = [reach[0] / 2, knee, max(reach[1], knee) * 2]
            ys = [xs[0] * bandwidth, peak, peak]
            axis.plot(
                xs,
                ys,
                "k",
                linestyle="-" if dtype == "float32" else "--",
                linewidth=1,
                label=f"copy, then matrix product ({dtype})",
            )
        axis.set(
            xscale="log", yscale="log", title=TITLES[mode], xlabel="FLOP per byte (each array once)"
        )
        axis.grid(which="major", alpha=0.3)
    axes[0].set_ylabel("GFLOP/s")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save(plt, figure, path)


def speedups(
    result: Result, path: pathlib.Path, *, label: str = "times faster (left of 1: slower)"
) -> None:
    """For each case how many times faster jaxdil is; left of the line it loses."""
    plt = pyplot()
    found = rows(result)
    cases = list(dict.fromkeys(row.case for row in found))
    at = {case: len(cases) - i for i, case in enumerate(cases)}
    height = 1.6 + 0.17 * len(cases)
    figure, axes = plt.subplots(
        1, 3, figsize=(12, height), sharex=True, sharey=True, layout="constrained"
    )
    labelled: dict[str, Any] = {}
    for axis, mode in zip(axes, MODES, strict=True):
        here = [row for row in found if row.mode == mode]
        for over in ("lax", "torch"):
            colour, _, name = _STYLE[over]
            points = [(s, at[row.case]) for row in here if (s := row.speedup(over)) is not None]
            if points:
                marker, fill = ("o", "#0072B2") if over == "lax" else ("^", colour)
                drawn = axis.scatter(*zip(*points, strict=True), s=18, c=fill, marker=marker)
                labelled[f"over {name}"] = drawn
        axis.axvline(1, color="k", linewidth=1)
        axis.set(xscale="log", title=TITLES[mode], xlabel=label)
        axis.grid(axis="both", alpha=0.25)
    axes[0].set_yticks(list(at.values()), list(at), fontsize=7)
    _bands(axes, found, at)
    if labelled:
        figure.legend(
            labelled.values(),
            [f"jaxdil {text}" for text in labelled],
            loc="outside upper center",
            ncols=2,
            frameon=False,
        )
    save(plt, figure, path)


def _bands(axes: Sequence[Any], found: Sequence[Row], at: dict[str, int]) -> None:
    """A grey ground behind every other family, and its name."""
    families = list(dict.fromkeys(row.family for row in found))
    for i, family in enumerate(families):
        ys = [at[row.case] for row in found if row.family == family]
        for axis in axes:
            if i % 2 == 0:
                axis.axhspan(min(ys) - 0.5, max(ys) + 0.5, color="k", alpha=0.05, linewidth=0)
        axes[-1].annotate(
            family, (1.01, sum((min(ys), max(ys))) / 2), xycoords=("axes fraction", "data"),
            rotation=90, va="center", fontsize=8,
        )  # fmt: skip
    axes[0].set_ylim(0.5, len(at) + 0.5)


def pyplot() -> Any:
    """matplotlib, drawing into files."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        msg = "the figures need matplotlib: pip install 'jaxdil[bench]'"
        raise ValueError(msg) from error
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(plt: Any, figure: Any, path: pathlib.Path) -> None:
    """Write a figure, the same bytes for the same figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Neither a date nor a random identifier, so that the same result gives the same file.
    with plt.rc_context({"svg.hashsalt": "jaxdil"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
