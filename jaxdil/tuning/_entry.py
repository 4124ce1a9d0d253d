"""What a table holds: a convolution on a device, and how long each method took for it there."""

from __future__ import annotations

from typing import NamedTuple

from jaxdil._problem import Problem

__all__ = ["Key", "Times"]

# A method is taken in the place of lax if it needs at most this part of lax's time. What is nearer
# is noise, and lax is what everybody else runs.
MARGIN = 0.95


class Key(NamedTuple):
    """One convolution on one kind of device."""

    platform: str
    """"cpu", "cuda", "rocm" or "tpu"."""
    device: str
    """The kind of device as JAX names it; for a CPU its model and the cores in use."""
    problem: Problem


class Times(NamedTuple):
    """How long each method took for a convolution."""

    ms: tuple[tuple[str, float], ...]
    """(method, median milliseconds of a call), the fastest first; "xla" is lax."""
    jax: str
    """The release of JAX they were measured with."""
    jaxlib: str

    @property
    def method(self) -> str:
        """The best method: the fastest, but lax where nothing gains 5 % on it."""
        return self.ranking[0]

    @property
    def ranking(self) -> tuple[str, ...]:
        """Every method that was measured, the best first."""
        # Where two are level, lax.
        order = [
            (ms * (MARGIN if name == "xla" else 1), name != "xla", name) for name, ms in self.ms
        ]
        return tuple(name for _, _, name in sorted(order))

    def because(self, method: str, device: str) -> str:
        """The reason that `jaxdil.explain` gives for a method."""
        took = dict(self.ms)
        # Beside it lax; beside lax the next best.
        other = "xla" if method != "xla" else next((n for n in self.ranking if n != "xla"), "xla")
        shown = [name for name in dict.fromkeys((method, other)) if name in took]
        words = {name: "lax" if name == "xla" else name for name in shown}
        times = ", ".join(f"{words[name]} {digits(took[name])} ms" for name in shown)
        return f"measured: {times} (jaxdil table, {device})"


def digits(ms: float) -> str:
    """A number of milliseconds, to three digits."""
    return f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"
