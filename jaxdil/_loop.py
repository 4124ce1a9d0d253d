"""A loop of a known number of turns, as small a program as it can be.

``lax.fori_loop`` makes a scan of it, which counts twice and calls a function for each turn. A model
has a loop for every convolution of many taps, and XLA's passes take as long as there are operations
in it, before any of them is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["repeat"]


def repeat(count: int, turn: Callable[[jax.Array, Any], Any], y: Any) -> Any:
    """``turn(i, y)`` for i from 0 to count - 1, an unsigned number: JAX need not ask its sign."""

    def more(state: tuple[jax.Array, Any]) -> jax.Array:
        return lax.lt(state[0], np.uint32(count))

    def step(state: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        i, y = state
        return lax.add(i, np.uint32(1)), turn(i, y)

    return lax.while_loop(more, step, (jnp.zeros((), np.uint32), y))[1]
