"""Kernels are traced without 64-bit numbers, indices among them: a TPU has none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["narrow"]


def narrow(kernel: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Trace a kernel without 64-bit numbers, whatever JAX is told."""

    @functools.wraps(kernel)
    def traced(*arrays: Any, **options: Any) -> jax.Array:
        with jax.enable_x64(False):  # noqa: FBT003 - JAX has no keyword for it
            return kernel(*arrays, **options)

    return traced
