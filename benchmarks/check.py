"""Is this result right? Each element against lax's, within what rounding allows both of them.

    |actual - lax| <= 2 (4 eps(arithmetic) sqrt(terms) lax(|a|, |b|) + eps(output) |lax|)

which is twice the budget of ``tests/checker.py``, since lax rounds too; ``terms`` products are
summed into one element, and lax on absolute values says how large they are. Arithmetic is float32
on a CPU, half precision included; on a GPU what lax takes by default for float32, TensorFloat-32;
on a TPU bfloat16. lax itself is checked in the tests, against the definition in float64.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

__all__ = ["worst"]

_EPS = {"cpu": 2.0**-23, "cuda": 2.0**-10, "rocm": 2.0**-10, "tpu": 2.0**-7}


def worst(
    actual: np.ndarray, expected: np.ndarray, magnitude: np.ndarray, *, terms: int, device: str
) -> float:
    """The largest error as a share of what is allowed; infinite for NaN or a wrong shape."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return math.inf
    output = float(jnp.finfo(expected.dtype).eps)
    got, want, size = (a.astype(np.float64) for a in (actual, expected, magnitude))
    allowed = 2 * (4 * _EPS[device] * math.sqrt(terms) * size + output * np.abs(want))
    # Subnormals are flushed by some and kept by others.
    allowed += 2 * terms * float(jnp.finfo(np.float32).tiny)
    with np.errstate(invalid="ignore"):
        share = np.abs(got - want) / allowed
    return math.inf if np.isnan(share).any() else float(share.max(initial=0.0))
