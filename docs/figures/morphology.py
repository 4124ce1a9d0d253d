"""Draw docs/figures/morphology.png: a photograph dilated, eroded, opened, closed, and its edges.

python docs/figures/morphology.py      # needs matplotlib and pillow
"""

from pathlib import Path

import jax.numpy as jnp
import matplotlib.image
import matplotlib.pyplot as plt
from matplotlib import cbook

import jaxdil

BOX = jnp.zeros((5, 5, 1))
WEIGHTS = jnp.array([0.299, 0.587, 0.114])  # of red, green and blue in grey, ITU-R BT.601


def photograph() -> jnp.ndarray:
    """Grace Hopper, as matplotlib ships her, in grey: (1, H, W, 1) from 0 to 1."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        colours = matplotlib.image.imread(file, format="jpg")
    face = jnp.asarray(colours[20:320, 110:410], jnp.float32) / 255
    return (face @ WEIGHTS)[None, ..., None]


def gradient(x: jnp.ndarray, rate: int) -> jnp.ndarray:
    """The difference of dilation and erosion by a box of three, its taps ``rate`` apart."""
    box = jnp.zeros((3, 3, 1))
    return jaxdil.dilation2d(x, box, dilation=rate) - jaxdil.erosion2d(x, box, dilation=rate)


def main() -> None:
    """Draw the eight pictures and write them as one."""
    x = photograph()
    grown, shrunk = jaxdil.dilation2d(x, BOX), jaxdil.erosion2d(x, BOX)
    pictures = {
        "photograph": x,
        "dilation": grown,
        "erosion": shrunk,
        "opening": jaxdil.dilation2d(shrunk, BOX),
        "closing": jaxdil.erosion2d(grown, BOX),
    } | {f"gradient at rate {rate}": gradient(x, rate) for rate in (1, 2, 4)}
    figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
    for place, (name, picture) in zip(axes.flat, pictures.items(), strict=True):
        inverted = "gray_r" if "gradient" in name else "gray"
        place.imshow(picture[0, ..., 0], cmap=inverted, vmin=0, vmax=1)
        place.set_title(name, fontsize=11)
        place.set_axis_off()
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=90, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
