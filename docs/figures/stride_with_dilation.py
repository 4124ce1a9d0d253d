"""Draw docs/figures/stride_with_dilation.png: the rows that each tap reads, under both meanings.

python docs/figures/stride_with_dilation.py
"""

from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

ROWS, TAPS, RATE, STRIDE = 24, 4, 3, 4
REACH = (TAPS - 1) * RATE + 1
UNIFORM = [STRIDE * q for q in range((ROWS - REACH) // STRIDE + 1)]
PHASES = ROWS // RATE  # rows in each phase
BY_PHASE = [
    q % RATE + RATE * STRIDE * (q // RATE) for q in range(RATE * ((PHASES - TAPS) // STRIDE + 1))
]

# Okabe and Ito's colours, told apart by every kind of eye; the marker says the same again.
COLOURS = ("#0072B2", "#D55E00", "#009E73")
MARKERS = ("o", "s", "^")
INK = "#333333"


def draw(axes: Axes, first_taps: list[int], title: str) -> None:
    """One output row a line: its taps on the input rows they read."""
    for row in range(ROWS):
        cell = Rectangle((row - 0.5, -1.5), 1, 0.7, facecolor=COLOURS[row % RATE], alpha=0.25)
        axes.add_patch(cell)
        axes.text(row, -1.16, str(row), ha="center", va="center", fontsize=9, color=INK)
        axes.plot(
            [row] * 2, [-0.7, len(first_taps) - 0.5], color="#dddddd", linewidth=0.7, zorder=0
        )
    for output, start in enumerate(first_taps):
        reads = [start + RATE * tap for tap in range(TAPS)]
        look = {"color": COLOURS[start % RATE], "marker": MARKERS[start % RATE], "markersize": 9}
        axes.plot(reads, [output] * TAPS, linewidth=2, **look)
        # The first tap stands out: its row is what the stride moves.
        ring = {"markerfacecolor": "white", "markeredgewidth": 2.5}
        axes.plot(start, output, **(look | ring))
    axes.set_title(title, loc="left", fontsize=12, color=INK, fontweight="bold")
    axes.set_yticks(range(len(first_taps)), [f"output {q}" for q in range(len(first_taps))])
    axes.set_xticks([])
    axes.set_xlim(-1, ROWS)
    axes.set_ylim(len(first_taps) - 0.4, -1.6)
    axes.text(-1.15, -1.16, "input row", ha="right", va="center", fontsize=10, color=INK)
    axes.tick_params(length=0, labelsize=10, colors=INK)
    axes.spines[:].set_visible(False)


def arrow(axes: Axes, start: float, end: float, height: float, text: str) -> None:
    """A step from one first tap to another, with its length."""
    style = {"arrowstyle": "->", "color": INK, "linewidth": 1.2}
    axes.annotate("", (end, height), (start, height), arrowprops=style)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    centre = (start + end) / 2
    axes.text(centre, height, text, ha="center", va="center", fontsize=9.5, color=INK, bbox=box)


def main() -> None:
    """Draw both meanings under each other and write the picture."""
    heights = [len(UNIFORM) + 1.2, len(BY_PHASE) + 1.2]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9.6, 6.6), height_ratios=heights, layout="constrained"
    )
    draw(
        above, UNIFORM, f"Uniform: {len(UNIFORM)} outputs, each {STRIDE} rows after the one before"
    )
    for q, (start, end) in enumerate(pairwise(UNIFORM)):
        arrow(above, start, end, q + 0.5, f"{STRIDE}")
    title = f"tf.nn.depthwise_conv2d: {len(BY_PHASE)} outputs, the stride taken inside each phase"
    draw(below, BY_PHASE, title)
    step = f"next of phase 0: stride {STRIDE} x rate {RATE} = {STRIDE * RATE}"
    arrow(below, BY_PHASE[0], BY_PHASE[RATE], RATE - 0.5, step)
    legend = [
        Line2D([], [], color=colour, marker=marker, markersize=8, linewidth=2)
        for colour, marker in zip(COLOURS, MARKERS, strict=True)
    ]
    legend.append(
        Line2D([], [], color=INK, marker="o", markersize=8, markerfacecolor="white", linestyle="")
    )
    labels = [f"phase {phase}: rows {phase}, {phase + RATE}, ..." for phase in range(RATE)]
    figure.legend(
        legend,
        [*labels, "first tap"],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
    )
    figure.suptitle(
        f"Which rows the {TAPS} taps read: {ROWS} rows, rate {RATE}, stride {STRIDE}, VALID",
        fontsize=13,
        color=INK,
    )
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
