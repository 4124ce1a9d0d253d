"""Draw docs/figures/padding_modes.png: a photograph, and what each padding mode puts around it.

python docs/figures/padding_modes.py
"""

from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import cbook
from matplotlib.patches import Rectangle

import jaxdil

MODES = ("zeros", "reflect", "replicate", "circular")
SIZE, PAD, BLUR = 120, 45, 15
INK, EDGE = "#333333", "#D55E00"


def photograph() -> np.ndarray:
    """Grace Hopper's face, as matplotlib ships her: (SIZE, SIZE, 3), from 0 to 1."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = plt.imread(file, format="jpg").astype(np.float32) / 255
    return photo[30:390:3, 90:450:3]


def main() -> None:
    """Above, the padded image; below, what a blur of it makes of the borders."""
    photo = jnp.asarray(photograph())
    dirac = jnp.ones((1, 1, 3, 1))  # a 1x1 kernel shows what the convolution reads
    blur = jnp.full((BLUR, BLUR, 3, 1), 1 / BLUR**2)
    figure, rows = plt.subplots(2, 4, figsize=(11, 5.8), layout="constrained")
    for above, below, mode in zip(*rows, MODES, strict=True):
        padded = jaxdil.depthwise_conv(photo, dirac, padding=PAD, padding_mode=mode)
        above.imshow(np.clip(padded, 0, 1))
        above.add_patch(
            Rectangle((PAD - 0.5, PAD - 0.5), SIZE, SIZE, fill=False, edgecolor=EDGE, linewidth=1.5)
        )
        above.set_title(mode, fontsize=13, color=INK)
        blurred = jaxdil.depthwise_conv(photo, blur, padding_mode=mode)
        below.imshow(np.clip(blurred, 0, 1))
    for axes, words in zip(rows[:, 0], ("what is read", f"a {BLUR}x{BLUR} blur"), strict=True):
        axes.set_ylabel(words, fontsize=12, color=INK)
    for axes in rows.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=100, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
