"""Inside ``shard_map`` a type says over which axes of the mesh an array varies, a kernel's too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

__all__ = ["like"]


def like(x: jax.Array, shape: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
    """The type of an array of a shape and dtype that varies as ``x`` does."""
    kind: Any = jax.typeof(x)
    if hasattr(kind, "manual_axis_type"):
        return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=kind.manual_axis_type)
    older: dict[str, Any] = {"vma": kind.vma}
    return jax.ShapeDtypeStruct(shape, dtype, **older)
