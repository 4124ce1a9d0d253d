"""Draw docs/figures/degridding.png: the inputs of two neighbouring outputs, before and after.

python docs/figures/degridding.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from jaxdil import modules

SIZE, AT = 23, 11
ONES = {"w": jnp.ones((3, 3, 1, 1))}


def dilated(x: jax.Array) -> jax.Array:
    """Two convolutions at rate 3, which leave nine grids that know nothing of each other."""
    return modules.conv_layer(ONES, modules.conv_layer(ONES, x, dilation=3), dilation=3)


def degridded(x: jax.Array) -> jax.Array:
    """A convolution at rate 1 after them."""
    return modules.degridding([ONES], dilated(x), dilations=[1])


def smoothed(x: jax.Array) -> jax.Array:
    """A shared kernel, 5 wide, before each of them."""
    params = {"smooth": jnp.ones((5, 5)), "conv": ONES}
    for _ in range(2):
        x = modules.smoothed_conv(params, x, dilation=3)
    return x


def reached(fn: object, column: int) -> np.ndarray:
    """The inputs that reach the output in the middle row and this column."""
    x = jnp.ones((1, SIZE, SIZE, 1))
    grad = jax.grad(lambda x: fn(x)[0, AT, column, 0])(x)
    return np.asarray(grad[0, :, :, 0]) != 0


def main() -> None:
    """Write the picture beside this script."""
    # Neither, one, the other, both: told apart by lightness as well as by hue.
    colours = ListedColormap(["#FFFFFF", "#56B4E9", "#E69F00", "#333333"])
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    titles = ("two convolutions at rate 3", "then one at rate 1", "or each of them smoothed")
    for axes, fn, title in zip(panels, (dilated, degridded, smoothed), titles, strict=True):
        cells = reached(fn, AT) + 2 * reached(fn, AT + 1)
        axes.pcolormesh(cells, cmap=colours, vmin=0, vmax=3, edgecolors="#DDDDDD", linewidth=0.3)
        axes.set(title=title, aspect="equal", xticks=[], yticks=[])
        axes.invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in colours.colors[1:]]
    labels = ["reaches one output", "its right neighbour", "both"]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
