"""Kernels are traced without 64-bit numbers, indices among them: a TPU has none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

__all__ = ["narrow"]

T = TypeVar("T")


def narrow(kernel: Callable[..., T]) -> Callable[..., T]:
    """Trace a kernel without 64-bit numbers, whatever JAX is told."""

    @functools.wraps(kernel)
    def traced(*arrays: Any, **options: Any) -> T:
        with jax.enable_x64(False):  # noqa: FBT003 - JAX has no keyword for it
            return kernel(*arrays, **options)

    return traced
