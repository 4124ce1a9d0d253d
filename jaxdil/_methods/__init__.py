"""The formulations of a convolution, one a file, and the table from name to module.

A method is a module with two functions:

    supports(problem, platform) -> str | None      why it cannot serve this problem there, or None
    apply(x, w, problem, conv) -> y                in canonical layout (see Problem)

``conv(x, w, problem)`` gives a smaller convolution back to the dispatcher, which chooses a method
for it in turn; ``phases`` and ``space_to_batch`` are made of such. ``conv.platform`` is where it
will run. A platform of None stands for any.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax

from jaxdil._problem import Problem

__all__ = ["METHODS", "Convolve", "Method", "goes", "load", "races"]


@dataclasses.dataclass(frozen=True)
class Convolve:
    """The dispatcher, for the parts of a convolution, and the platform that it chooses for."""

    part: Callable[[jax.Array, jax.Array, Problem], jax.Array]
    platform: str | None
    partitioned: bool = False
    """Whether XLA will divide the program; for a loop over the batch it would gather all of it."""
    in_lines: bool = False
    """Whether what lies side by side in x may be one axis, on a CPU: see `_layout.pad`."""

    def __call__(self, x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
        """The convolution, by a method that is chosen for it."""
        return self.part(x, w, problem)


@runtime_checkable
class Method(Protocol):
    """What a module in this folder provides."""

    def supports(self, problem: Problem, platform: str | None) -> str | None:
        """None if this method can serve the problem on this platform, else why it cannot."""

    def apply(self, x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
        """The convolution, in canonical layout."""


METHODS = (
    *("xla", "taps", "phases", "correlate", "planes", "slabs", "columns", "patches", "expand"),
    *("split", "exchange", "even", "margin", "im2col", "trim"),
    "space_to_batch",
    "cudnn",
    "pallas_tpu",
    "pallas_gpu",
)

# Kernels, which every other platform interprets: right, and so slow that it serves tests alone.
_KERNELS = {"pallas_tpu": ("tpu",), "pallas_gpu": ("cuda", "rocm")}


# Kernels that JAX does not promise to read again after an update, for which `jax.export` refuses
# them.
_FLEETING = ("pallas_gpu",)


def load(name: str) -> Method:
    """The module of a method, imported when first asked for."""
    return importlib.import_module(f"{__name__}.{name}")


def races(name: str, platform: str | None) -> bool:
    """Whether it is worth measuring a method on a platform: a kernel only on its own."""
    return name not in _KERNELS or platform in _KERNELS[name]


def goes(name: str, platform: str | None, *, exported: bool, partitioned: bool) -> bool:
    """Whether a method may stand in a program that is exported, or partitioned by XLA.

    A kernel that is compiled is whole to XLA: it would gather all of x on every device for it.
    """
    if platform not in _KERNELS.get(name, ()):
        return True
    return not partitioned and not (exported and name in _FLEETING)
