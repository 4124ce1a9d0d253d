"""Draw the pictures of docs/receptive-fields.md: taps, growth, gridding, the effective field.

python docs/figures/receptive_fields.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import jaxdil
from jaxdil import plot

FOLDER = Path(__file__).parent
INK = "#30343b"


def save(figure: Figure, name: str) -> None:
    """Write a picture on white, which reads on a light page and on a dark one."""
    figure.savefig(FOLDER / f"{name}.png", dpi=130, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def draw_taps() -> None:
    """Nine taps at rates 1, 2 and 4."""
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.5), layout="constrained")
    plot.taps(3, dilations=(1, 2, 4), axes=axes)
    save(figure, "receptive_field_taps")


def draw_growth() -> None:
    """The same nine dots a layer, fields of 3, 7 and 15."""
    figure, ax = plt.subplots(figsize=(9.6, 3.6), layout="constrained")
    plot.paths([(3, 1, 1), (3, 1, 2), (3, 1, 4)], ax=ax)
    ax.set_title("Rates 1, 2, 4: one unit sees 15 samples through 9 taps", color=INK)
    save(figure, "receptive_field_growth")


def draw_gridding() -> None:
    """Two stacks of one size of field: one sees a quarter of it."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
    for ax, rates in zip(axes, [(2, 2, 2), (1, 2, 3)], strict=True):
        plot.coverage([(3, 1, rate) for rate in rates], ax=ax)
        ax.set_title(f"rates {', '.join(map(str, rates))}: {ax.get_title()}", color=INK)
    save(figure, "receptive_field_gridding")


def measured(rates: tuple[int, ...], size: int) -> np.ndarray:
    """The effective field of a stack, the mean of 64 random ones; its greatest value is 1."""

    def one(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(rates) + 1)

        def stack(x: jax.Array) -> jax.Array:
            for rate, seed in zip(rates, keys[1:], strict=True):
                w = jax.random.normal(seed, (3, 3, 8, 8)) / 72**0.5
                x = jax.nn.relu(jaxdil.conv(x, w, dilation=rate))
            return x

        x = jax.random.normal(keys[0], (1, size, size, 8))
        return jaxdil.effective_receptive_field(stack)(x).sum((0, 3))

    keys = jax.random.split(jax.random.key(0), 64)
    mean = np.asarray(jnp.mean(jax.lax.map(one, keys), 0))
    return mean / mean.max()


def draw_effect() -> None:
    """Ten plain layers against four dilated ones of nearly the same field."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
    for ax, rates in zip(axes, [(1,) * 10, (1, 2, 3, 4)], strict=True):
        (*_, field) = jaxdil.receptive_field([(3, 1, rate) for rate in rates])
        plot.effect(measured(rates, 25), size=field.size, ax=ax)
        name = "10 layers of rate 1" if len(rates) == 10 else "rates 1, 2, 3, 4"
        ax.set_title(f"{name}\n{ax.get_title()}", color=INK)
    save(figure, "receptive_field_effect")


if __name__ == "__main__":
    draw_taps()
    draw_growth()
    draw_gridding()
    draw_effect()
