"""What the models share: first parameters, random examples, losses and the pass back."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.zoo import Result

__all__ = [
    "CLASSES",
    "classified",
    "cross_entropy",
    "examples",
    "filled",
    "initial",
    "squared",
    "trained",
]

CLASSES = 10


def filled(name: str, shape: Sequence[int], dtype: Any, *, fan: int, gain: float = 2) -> np.ndarray:
    """The first value of a parameter or statistic, the same in every run.

    A library's own initialisers compile a program for each shape, which takes longer than the
    model. Kernels are normal, their variance ``gain`` over the ``fan`` of inputs, by default as of
    He et al.; scales, variances and offsets are near what libraries take, 1 or 0, but all
    different, so that no gradient vanishes by symmetry.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    dtype = np.dtype(dtype)
    if not np.issubdtype(dtype, np.floating):
        return np.zeros(shape, dtype)
    spread = rng.standard_normal(tuple(shape), np.float32)
    if math.prod(shape) > max(shape, default=1):
        return (spread * math.sqrt(gain / fan)).astype(dtype)
    centred = any(word in name for word in ("bias", "beta", "offset", "mean"))
    last = name.rpartition("/")[2]
    base = 0 if centred or last == "b" else 1
    if "var" in name:
        spread = np.abs(spread)
    return (base + 0.1 * spread).astype(dtype)


def initial(shapes: Any, *, channels_first: bool = False, gain: float = 2) -> Any:
    """A tree of first values for a tree of ``jax.ShapeDtypeStruct``; see ``filled``."""

    def value(path: Any, leaf: Any) -> Any:
        kernel = leaf.shape[1:] if channels_first else leaf.shape[:-1]
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.asarray(filled(name, leaf.shape, leaf.dtype, fan=math.prod(kernel), gain=gain))

    return jax.tree.map_with_path(value, shapes)


def examples(shape: Sequence[int]) -> np.ndarray:
    """Normal numbers, the same in every run."""
    return np.random.default_rng(0).standard_normal(tuple(shape), np.float32)


def classified(shape: Sequence[int], labels: Sequence[int] | None = None) -> tuple[Any, Any]:
    """Examples, and a class for each or for each position of ``labels``."""
    wanted = np.random.default_rng(1).integers(CLASSES, size=tuple(labels or shape[:1]))
    return examples(shape), wanted.astype(np.int32)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean over all labels."""
    likelihood = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(likelihood, labels[..., None], axis=-1).mean()


def squared(outputs: Any, wanted: Any) -> Any:
    """The mean squared error."""
    return ((outputs - wanted) ** 2).mean()


def trained(
    apply: Callable[[Any, Any, Any], tuple[Any, Any]], loss: Callable[[Any, Any], Any]
) -> Callable[[Any, Any, Any], Result]:
    """`Model.train` of a network: ``apply`` gives its outputs in training, and its next state."""

    def losing(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        x, wanted = batch
        outputs, after = apply(params, state, x)
        return loss(outputs, wanted), (outputs, after)

    def train(params: Any, state: Any, batch: Any) -> Result:
        (value, (outputs, after)), gradients = jax.value_and_grad(losing, has_aux=True)(
            params, state, batch
        )
        return Result(value, outputs, gradients, after)

    return train
