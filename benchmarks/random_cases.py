"""Layers drawn at random, as networks have them: what the choice is worth where nobody tuned it.

The published layers of ``cases`` are also those that the rules were made on. These are drawn from
a seed, so that each run can look where none has looked before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from benchmarks.case import FAMILIES, Case, make, shapes

__all__ = ["DRAWN", "draw"]

# What stands in the place of a source.
DRAWN = "drawn at random"

# Multiply-adds up to which a layer is taken: where XLA has a library for it, and where it may go
# through loops that take seconds for so many, in half precision minutes.
MOST_WORK, MOST_LOOPED, MOST_LOOPED_HALF = 2e9, 1e8, 1e7
# Samples of input and output together, at most.
MOST_SAMPLES = 2**23

CHANNELS = (1, 2, 3, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 72, 80, 96, 100, 128, 144, 160, 192, 256)
CHANNELS += (320, 384, 480, 512, 640, 728, 768, 960, 1024)
SIZES = {
    1: (16, 50, 64, 100, 128, 200, 256, 500, 512, 1000, 1024, 2048, 4096, 8000, 16000),
    2: (1, 2, 4, 7, 8, 10, 14, 16, 20, 28, 32, 33, 40, 48, 56, 64, 80, 96, 112, 128, 192, 224, 256),
    3: (2, 4, 7, 8, 10, 14, 16, 20, 24, 28, 32, 40, 48, 64),
}
KERNELS = {
    1: (2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 25, 31),
    2: (2, 3, 3, 3, 4, 5, 5, 7, 9, 11),
    3: (2, 3, 3, 3, 4, 5),
}
RATES = (2, 2, 3, 4, 6, 8, 12, 18, 24, 36)
BATCHES = (1, 1, 2, 4, 8, 16, 32)


def draw(count: int, seed: int) -> tuple[Case, ...]:
    """``count`` layers, the same for the same seed; the first of more are those of fewer."""
    layers = _layers(random.Random(seed), f"random-{seed}")
    return tuple(next(layers) for _ in range(count))


def _layers(rng: random.Random, name: str) -> Iterator[Case]:
    number = 0
    while True:
        case = _layer(rng, f"{name}-{number}")
        if case is not None:
            yield case
            number += 1


def _layer(rng: random.Random, name: str) -> Case | None:
    """A layer, or None where what was drawn is none, or would take too long."""
    family, rank = rng.choice(FAMILIES), rng.choices((1, 2, 3), (3, 6, 2))[0]
    size = [rng.choice(SIZES[rank])] * rank
    if rank > 1 and rng.random() < 0.2:
        size[0] = rng.choice(SIZES[rank])
    kernel = [rng.choice(KERNELS[rank])] * rank
    match rng.random():
        case other if rank > 1 and other < 0.1:
            kernel[rng.randrange(rank)] = 1
        case other if other < 0.15 and family in ("dense", "grouped"):
            kernel = [1] * rank
    stride, dilation, groups, transposed = 1, 1, 1, family == "transposed"
    channels, outputs = rng.choice(CHANNELS), rng.choice(CHANNELS)
    if rng.random() < 0.4:
        outputs = channels
    if family == "depthwise":
        groups, outputs = channels, channels * rng.choice((1, 1, 1, 1, 1, 1, 2, 4))
    if family == "grouped":
        groups = rng.choice((2, 4, 8, 16, 32))
        channels, outputs = (max(n // groups, 1) * groups for n in (channels, outputs))
    if family == "dilated" or (family == "depthwise" and rng.random() < 0.2):
        dilation = rng.choice(RATES)
    if transposed or (family != "dilated" and rng.random() < 0.35):
        stride = rng.choice((2, 2, 2, 2, 3, 4, kernel[-1]))
    if transposed and rng.random() < 0.2:
        groups = math.gcd(channels, outputs)
    # Seldom in networks, and so what a rule forgets: a stride and a dilation both.
    if transposed and rng.random() < 0.15:
        dilation = rng.choice((2, 3, 4))
    if family == "dilated" and rng.random() < 0.15:
        stride = rng.choice((2, 2, 3))
    extent = [dilation * (k - 1) + 1 for k in kernel]
    if any(k > 3 * n for k, n in zip(extent, size, strict=True)):
        return None
    if transposed:
        # What frameworks call "same" and "valid".
        crop = tuple((n // 2, n - n // 2) for n in (max(k - stride, 0) for k in extent))
        padding = rng.choice((crop, crop, "VALID"))
    else:
        padding = rng.choice(("SAME", "SAME", "SAME", "VALID"))
        padding = "CAUSAL" if rank == 1 and stride == 1 and rng.random() < 0.3 else padding
        if padding == "VALID" and any(n < k for n, k in zip(size, extent, strict=True)):
            return None
    case = make(
        name,
        DRAWN,
        family,
        (rng.choice(BATCHES), *size, channels),
        (*kernel, channels // groups, outputs),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        transposed=transposed,
        dtype="bfloat16" if rng.random() < 0.2 else "float32",
        data_format="channels_first" if rng.random() < 0.25 else "channels_last",
    )
    arrays = shapes(case)
    image = arrays["x"] if transposed else arrays["g"]
    work = math.prod(image.shape) * math.prod(case.w[:-1])
    if transposed:
        work = math.prod(image.shape) * math.prod(kernel) * outputs // groups
    looped = MOST_LOOPED if case.dtype == "float32" else MOST_LOOPED_HALF
    most = looped if groups > 1 or rank > 2 else MOST_WORK
    large = math.prod(arrays["x"].shape) + math.prod(arrays["g"].shape) > MOST_SAMPLES
    return None if large or work > most else case
