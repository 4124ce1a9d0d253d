"""The demo: dilated convolution at work on a photograph, and a network under lax and under jaxdil.

    python -m benchmarks.demo [--out demo.png] [--quick]

The network is written against lax alone and knows nothing of jaxdil: `accelerate` is all it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import operator
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxdil

Params = Any
Stages = list[tuple[int, int, int, int, int]]

RATES = (1, 2, 4, 8)
# The kernel of the pictures: how much a sample differs from the mean of its eight neighbours.
KERNEL = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32) / 8
# The context module of arXiv 1511.07122, table 1: kernel, stride, dilation of each layer.
CONTEXT = [(3, 1, 1), (3, 1, 1), (3, 1, 2), (3, 1, 4), (3, 1, 8), (3, 1, 16), (3, 1, 1), (1, 1, 1)]
LEARNING_RATE = 0.05


# --- a photograph ---------------------------------------------------------------------------------


def photograph() -> np.ndarray:
    """Grace Hopper, as matplotlib ships her: (600, 512, 3), from 0 to 1."""
    from matplotlib import cbook
    from matplotlib import pyplot as plt

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return plt.imread(file, format="jpg").astype(np.float32) / 255


def details(photo: np.ndarray) -> list[np.ndarray]:
    """The same 3x3 kernel at each rate, on the grey photograph."""
    x = jnp.asarray(photo.mean(-1)[None, :, :, None])
    w = jnp.asarray(KERNEL[:, :, None, None])
    maps = [jaxdil.conv(x, w, dilation=rate, padding="VALID") for rate in RATES]
    return [np.asarray(y[0, :, :, 0]) for y in maps]


# --- the context module ---------------------------------------------------------------------------


def context_kernels(channels: int) -> list[jax.Array]:
    """The identity initialiser: ``w[t, a, b] = 1 if t is the centre and a = b else 0``."""
    kernels = []
    for k, _, _ in CONTEXT:
        w = np.zeros((k, k, channels, channels), np.float32)
        w[k // 2, k // 2] = np.eye(channels)
        kernels.append(jnp.asarray(w))
    return kernels


def context_module(kernels: list[jax.Array], x: jax.Array) -> jax.Array:
    """3x3 convolutions at rates 1 1 2 4 8 16 1, then 1x1; a ReLU after each but the last."""
    for index, (w, (_, _, dilation)) in enumerate(zip(kernels, CONTEXT, strict=False)):
        x = jaxdil.conv(x, w, dilation=dilation)
        x = x if index == len(CONTEXT) - 1 else jax.nn.relu(x)
    return x


def seen(depth: int, n: int) -> np.ndarray:
    """How much each sample moves the middle unit after ``depth`` layers of equal taps."""
    kernels = [jnp.full((k, k, 1, 1), 1 / k**2) for k, _, _ in CONTEXT[:depth]]

    def middle(x: jax.Array) -> jax.Array:
        return context_module(kernels, x)[0, n // 2, n // 2, 0]

    return np.asarray(jax.grad(middle)(jnp.ones((1, n, n, 1))))[0, :, :, 0]


# --- the picture ----------------------------------------------------------------------------------


def draw(
    photo: np.ndarray, maps: list[np.ndarray], passed: np.ndarray, heat: np.ndarray, path: Path
) -> None:
    """Everything above on one page."""
    import matplotlib as mpl
    from matplotlib import patches
    from matplotlib import pyplot as plt

    from jaxdil import plot

    figure = plt.figure(figsize=(14, 13.2), layout="constrained")
    rows = figure.subfigures(3, 1, height_ratios=[1, 1.25, 1.2], hspace=0.03)
    rows[0].suptitle("3x3 kernels, dilated: nine multiplications, whatever they span", fontsize=16)
    rows[1].suptitle("One of them on a photograph: finer or coarser detail, no blur", fontsize=16)
    rows[2].suptitle("Seven in a row, at rates 1 1 2 4 8 16 1: a context module", fontsize=16)

    plot.taps(3, dilations=RATES, axes=rows[0].subplots(1, 4))

    for ax, rate, y in zip(rows[1].subplots(1, 4), RATES, maps, strict=True):
        limit = np.quantile(np.abs(y), 0.985)
        ax.imshow(y, cmap="RdGy", vmin=-limit, vmax=limit)
        ax.set_title(f"dilation {rate}: {y.shape[0]} x {y.shape[1]} samples")
        ax.set_axis_off()

    whole, near, felt, bars = rows[2].subplots(1, 4)
    whole.imshow(passed.clip(0, 1))
    whole.set_title(
        f"identity kernels: it passes,\noff by {np.abs(passed - photo).max():.1g} at most"
    )
    half, fields = len(heat) // 2, jaxdil.receptive_field(CONTEXT)
    row, column = 191, 228  # an eye
    around = (column - half - 0.5, column + half + 0.5, row + half + 0.5, row - half - 0.5)
    window = photo[row - half : row + half + 1, column - half : column + half + 1]
    near.imshow(window, extent=around)
    shades = mpl.colormaps["autumn"](np.linspace(0, 1, len(fields)))
    for (size, _, _), shade in zip(fields, shades, strict=True):
        corner = (column - size / 2, row - size / 2)
        near.add_patch(patches.Rectangle(corner, size, size, fill=False, color=shade, lw=1.6))
    near.set_title("what one unit sees\nafter each layer")
    felt.imshow(np.sqrt(heat), cmap="inferno", extent=around)
    felt.set_title("and how strongly, in the end\n(gradient, equal taps)")
    for ax in (whole, near, felt):
        ax.set_axis_off()
    plot.receptive_fields(CONTEXT, ax=bars)
    bars.set_title("receptive field\nof each layer")

    figure.savefig(path, dpi=80)
    plt.close(figure)


# --- a network, written against lax ---------------------------------------------------------------

# MobileNetV2 (arXiv 1801.04381, table 2): expansion, channels, repeats, stride, dilation. The stage
# that would reduce the image to a 32nd dilates instead, as in DeepLabv3. SiLU stands for ReLU6: at
# the corners of a ReLU a rounding error flips a whole derivative, and the gradients of two right
# programs are then a percent apart, each as far from float64 as from the other.
STAGES: Stages = [
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 1),
    (6, 64, 4, 2, 1),
    (6, 96, 3, 1, 1),
    (6, 160, 3, 1, 2),
    (6, 320, 1, 1, 2),
]


def convolve(
    x: jax.Array, w: jax.Array, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> jax.Array:
    """SAME convolution of (N, H, W, C)."""
    return lax.conv_general_dilated(
        x,
        w,
        window_strides=(stride, stride),
        padding="SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def normalise(x: jax.Array, p: Params) -> jax.Array:
    """Mean 0 and variance 1 over the batch, then a scale and a bias."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * lax.rsqrt(var + 1e-3) * p["scale"] + p["bias"]


def unit(x: jax.Array, p: Params, **options: int) -> jax.Array:
    """Convolution, normalisation over the batch."""
    return normalise(convolve(x, p["w"], **options), p)


def bottleneck(x: jax.Array, p: Params, *, stride: int, dilation: int) -> jax.Array:
    """The inverted residual: 1x1 up, 3x3 depthwise, 1x1 down."""
    y = jax.nn.silu(unit(x, p["expand"])) if "expand" in p else x
    y = unit(y, p["depthwise"], stride=stride, dilation=dilation, groups=y.shape[-1])
    y = unit(jax.nn.silu(y), p["project"])
    return x + y if x.shape == y.shape else y


def blocks(stages: Stages) -> Iterator[tuple[int, int, int, int]]:
    """Expansion, channels, stride and dilation of each bottleneck."""
    for expansion, channels, repeats, stride, dilation in stages:
        for index in range(repeats):
            yield expansion, channels, stride if index == 0 else 1, dilation


def network(params: Params, x: jax.Array, stages: Stages) -> jax.Array:
    """Logits (N, classes) of images (N, H, W, 3)."""
    x = jax.nn.silu(unit(x, params["stem"], stride=2))
    for p, (_, _, stride, dilation) in zip(params["blocks"], blocks(stages), strict=True):
        x = bottleneck(x, p, stride=stride, dilation=dilation)
    x = jax.nn.silu(unit(x, params["head"]))
    return x.mean((1, 2)) @ params["classify"]


def initial(stages: Stages, *, stem: int, head: int, classes: int) -> Params:
    """Parameters of the network: He's initialiser."""
    rng = np.random.default_rng(0)

    def weights(k: int, inner: int, outer: int) -> Params:
        w = rng.normal(0, np.sqrt(2 / (k * k * inner)), (k, k, inner, outer))
        return {"w": np.float32(w), "scale": np.ones(outer, "f"), "bias": np.zeros(outer, "f")}

    def bottleneck(inner: int, expansion: int, outer: int) -> Params:
        wide = inner * expansion
        expand = {"expand": weights(1, inner, wide)} if expansion > 1 else {}
        return expand | {"depthwise": weights(3, 1, wide), "project": weights(1, wide, outer)}

    made, width = [], stem
    for expansion, channels, _, _ in blocks(stages):
        made.append(bottleneck(width, expansion, channels))
        width = channels
    params = {"stem": weights(3, 3, stem), "blocks": made, "head": weights(1, width, head)}
    params["classify"] = np.float32(rng.normal(0, head**-0.5, (head, classes)))
    return jax.tree.map(jnp.asarray, params)


def loss(params: Params, x: jax.Array, labels: jax.Array, stages: Stages) -> jax.Array:
    """Cross-entropy."""
    scores = jax.nn.log_softmax(network(params, x, stages))
    return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()


def crops(photo: np.ndarray, size: int) -> tuple[jax.Array, jax.Array]:
    """The four corners of the photograph; the label is which."""
    far, right = photo.shape[0] - size, photo.shape[1] - size
    corners = [(0, 0), (0, right), (far, 0), (far, right)]
    x = np.stack([photo[i : i + size, j : j + size] for i, j in corners])
    return jnp.asarray(2 * x - 1), jnp.arange(4)


# --- lax and jaxdil, side by side -----------------------------------------------------------------


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """A line for whatever may take more than two seconds."""
    print(f"{what} ... ", end="", flush=True)
    start = time.perf_counter()
    yield
    print(f"{time.perf_counter() - start:.1f} s", flush=True)


def compiled(name: str, fn: Callable[..., Any], *args: Any) -> Any:
    """``fn`` compiled for these arguments."""
    with progress(f"compiling the {name}"):
        return jax.jit(fn).lower(*args).compile()


def timed(fn: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Seconds of one call, and its result."""
    start = time.perf_counter()
    y = jax.block_until_ready(fn(*args))
    return time.perf_counter() - start, y


def apart(a: Any, b: Any) -> float:
    """Largest difference of two pytrees, as a part of the largest value."""
    differences = jax.tree.map(lambda p, q: jnp.abs(p - q).max(), a, b)
    largest = jax.tree.map(lambda p: jnp.abs(p).max(), a)
    return float(jax.tree.reduce(max, differences) / jax.tree.reduce(max, largest))


def train(
    photo: np.ndarray, *, stages: Stages, size: int, stem: int, head: int, steps: int
) -> dict:
    """The network under lax and under jaxdil, step for step; what both came to, and how fast."""
    x, labels = crops(photo, size)
    params = initial(stages, stem=stem, head=head, classes=4)

    def forward(params: Params) -> jax.Array:
        return network(params, x, stages)

    def step(params: Params) -> tuple[jax.Array, Params, Params]:
        value, grads = jax.value_and_grad(loss)(params, x, labels, stages)
        return value, grads, jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads)

    run = {
        "lax": (
            compiled("forward pass under lax", forward, params),
            compiled("training step under lax", step, params),
        ),
        "jaxdil": (
            compiled("forward pass under jaxdil", jaxdil.accelerate(forward), params),
            compiled("training step under jaxdil", jaxdil.accelerate(step), params),
        ),
    }
    at = dict.fromkeys(run, params)
    seconds: dict = {name: ([], []) for name in run}
    losses: dict = {name: [] for name in run}
    logits_apart, grads_apart = 0.0, 0.0
    for each in run.values():
        timed(each[0], params), timed(each[1], params)  # warm
    with progress(f"{steps} steps under each, turn and turn about"):
        for index in range(steps):
            outputs = {}
            for name, (predict, update) in run.items():
                took, logits = timed(predict, at[name])
                seconds[name][0].append(took)
                took, (value, grads, at[name]) = timed(update, at[name])
                seconds[name][1].append(took)
                losses[name].append(float(value))
                outputs[name] = logits, grads
            if index == 0:  # of the same parameters
                logits_apart, grads_apart = map(apart, outputs["lax"], outputs["jaxdil"])
    return {
        "losses": losses,
        "ms": {n: [1e3 * statistics.median(part) for part in s] for n, s in seconds.items()},
        "apart": (logits_apart, grads_apart),
        "served": str(jaxdil.explain(step)(params)).splitlines()[-1],
        "parameters": sum(map(operator.attrgetter("size"), jax.tree.leaves(params))),
    }


def report(found: dict) -> None:
    """The table, and what `explain` says of one bottleneck."""
    ms, losses = found["ms"], found["losses"]
    print(f"\n{'':14}{'lax':>10}{'jaxdil':>12}{'faster':>10}   largest difference")
    whats = ("forward pass", "logit"), ("training step", "gradient")
    for index, (part, of) in enumerate(whats):
        slow, fast = ms["lax"][index], ms["jaxdil"][index]
        print(
            f"{part:14}{slow:7.1f} ms{fast:9.1f} ms{slow / fast:9.1f}x"
            f"   {found['apart'][index]:.1g} of the largest {of}"
        )
    furthest = max(abs(a - b) for a, b in zip(losses["lax"], losses["jaxdil"], strict=True))
    first, *_, last = losses["lax"]
    steps = len(losses["lax"])
    print(f"loss {first:.4f} to {last:.4f} in {steps} steps, {furthest:.1g} apart at most")

    print("\nWhat serves one bottleneck and its gradients, by jaxdil.explain:\n")
    p = initial([(6, 160, 2, 1, 2)], stem=160, head=8, classes=4)["blocks"][1]
    x = jax.ShapeDtypeStruct((4, 8, 8, 160), jnp.float32)
    print(jaxdil.explain(partial(bottleneck, stride=1, dilation=2))(x, p))
    print(f"\nAnd the whole training step: {found['served']}")


# --- all of it ------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> dict:
    """Everything, in order; returns what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="where the picture goes")
    parser.add_argument(
        "--quick", action="store_true", help="everything small, to see that it runs"
    )
    options = parser.parse_args(arguments)

    with progress("reading a photograph, and dilating a kernel over it"):
        photo = photograph()
        maps = details(photo)
    with progress("passing it through a context module"):
        passed = np.asarray(context_module(context_kernels(3), jnp.asarray(photo[None]))[0])
        heats = [seen(depth, 83) for depth in range(1, len(CONTEXT) + 1)]
    fields = [field.size for field in jaxdil.receptive_field(CONTEXT)]
    measured = [int((heat[len(heat) // 2] > 0).sum()) for heat in heats]
    identity = float(np.abs(passed - photo).max())
    print(f"  receptive field, by arithmetic: {' '.join(map(str, fields))}")
    print(f"  receptive field, by gradients:  {' '.join(map(str, measured))}")
    print(f"  with identity kernels the photograph passes, off by {identity:.1g} at most")
    with progress("drawing"):
        draw(photo, maps, passed, heats[-1], options.out)
    print(f"picture: {options.out.resolve()}\n")

    shape = {"stages": STAGES, "size": 128, "stem": 32, "head": 1280, "steps": 10}
    if options.quick:
        small: Stages = [(1, 8, 1, 1, 1), (6, 8, 2, 2, 1), (6, 8, 1, 1, 2)]
        shape = {"stages": small, "size": 32, "stem": 8, "head": 16, "steps": 3}
    print(
        f"MobileNetV2 in plain lax, on 4 crops of {shape['size']} x {shape['size']}, {platform()}:"
    )
    found = train(photo, **shape)
    report(found)
    return found | {"fields": fields, "measured": measured, "identity": identity}


def platform() -> str:
    """What this runs on."""
    return f"{jax.devices()[0].device_kind} ({os.cpu_count()} cores), jax {jax.__version__}"


if __name__ == "__main__":
    main()
