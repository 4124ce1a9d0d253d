"""Draw docs/figures/streaming_registers.png: the past of a dilated convolution, as registers.

python docs/figures/streaming_registers.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

TAPS, DILATION, NOW = 3, 4, 13
PAST = range(NOW - (TAPS - 1) * DILATION, NOW)

# Okabe and Ito's colours; the number in a cell says the same again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK = "#333333"


def cell(axes: Axes, x: float, y: float, frame: int, *, bold: bool) -> None:
    """A frame, in the colour of its register."""
    colour = COLOURS[frame % DILATION]
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=0.3, edgecolor="white")
    )
    if bold:
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=2.5)
        )
    weight = "bold" if bold else "normal"
    axes.text(x, y, str(frame), ha="center", va="center", fontsize=11, color=INK, fontweight=weight)


def main() -> None:
    """Draw the frames in the order of time, and the same frames in their registers."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8.4, 4.6), height_ratios=[1, 2.3], layout="constrained"
    )
    reads = {NOW - j * DILATION for j in range(TAPS)}
    for frame in range(4, NOW + 1):
        cell(above, frame, 0, frame, bold=frame in reads)
    above.set_title(
        f"{TAPS} taps at dilation {DILATION}: output {NOW} reads frames "
        f"{', '.join(map(str, sorted(reads)))}",
        loc="left", fontsize=12, color=INK, fontweight="bold",
    )  # fmt: skip
    above.set_xlim(3.4, NOW + 0.6)
    above.set_ylim(-0.6, 0.6)
    for register in range(DILATION):
        frames = [frame for frame in PAST if frame % DILATION == register]
        for at, frame in enumerate(frames):
            cell(below, at, -register, frame, bold=frame in reads)
        below.text(-0.8, -register, f"register {register}", ha="right", va="center", color=INK)
    register = NOW % DILATION
    arrow = {"arrowstyle": "->", "color": INK, "linewidth": 1.4}
    below.annotate("", (TAPS - 1.45, -register), (TAPS - 0.55, -register), arrowprops=arrow)
    cell(below, TAPS, -register, NOW, bold=True)
    below.text(TAPS + 0.7, -register, "comes in; the oldest goes out", va="center", color=INK)
    below.set_title("The state before it", loc="left", fontsize=12, color=INK, fontweight="bold")
    below.set_xlim(-2.6, 7.0)
    below.set_ylim(0.4 - DILATION, 0.6)
    for axes in (above, below):
        axes.set_aspect("equal")
        axes.set_axis_off()
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
