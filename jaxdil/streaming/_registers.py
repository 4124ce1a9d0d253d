"""The past that a causal convolution carries: a shift register for each phase of its dilation.

    y[t] = sum_j  x[t - (K - 1 - j) d]  w[j]

Output t reads frames of its own residue modulo d alone: a convolution of dilation d is d undilated
ones, interleaved. So its past is d registers of K - 1 frames each. The frame that comes in at time
t is pushed into register t mod d, which moves K - 1 frames whatever the dilation; a buffer in the
order of time would move all (K - 1) d. With d = 1 that is one register, and nothing to index.

Arrays here are (N, d, K - 1, ...): registers, each from its oldest frame to its newest.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["Geometry", "State", "keep", "past", "push"]


class Geometry(NamedTuple):
    """What is static about a causal convolution; the first spatial axis is time."""

    taps: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    depthwise: bool
    padding: tuple[Any, ...]
    """An entry for each axis beside time."""

    @property
    def span(self) -> int:
        """Frames before the present one that an output reads."""
        return (self.taps - 1) * self.dilation[0]

    @property
    def registers(self) -> int:
        """How many there are; one if there is nothing to remember."""
        return self.dilation[0] if self.taps > 1 else 1


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["frames", "segments", "index"],
    meta_fields=["geometry", "wait"],
)
@dataclasses.dataclass(frozen=True)
class State:
    """What a causal convolution remembers between calls: a pytree of fixed size.

    It goes through ``jit``, ``vmap`` and ``grad``, is the carry of a ``scan``, and may be donated.
    A state is never changed: a call returns the next one.

    Attributes:
      frames: the last (K - 1) d frames, (N, d, K - 1, *S, C): a shift register of K - 1 frames for
        each residue of time modulo the dilation d.
      segments: their segment ids, (N, d, K - 1), or None if sequences are not packed.
      index: the register that the next frame goes to, or None if there is only one.
      geometry: taps, stride, dilation, groups and padding. Static.
      wait: frames that come before the one that gives the next output, 0 to stride - 1. Static, for
        it says how many outputs a chunk has.

    >>> import jax, jax.numpy as jnp
    >>> state = jaxdil.streaming.init((1, 64), jnp.ones((2, 64, 64)), dilation=512)
    >>> jax.tree.map(jnp.shape, state).frames
    (1, 512, 1, 64)
    """

    frames: Any
    segments: Any
    index: Any
    geometry: Geometry
    wait: int = 0


def past(a: jax.Array, index: jax.Array | None) -> jax.Array:
    """The frames in the order of time: (N, (K - 1) d, ...)."""
    n, d, depth, *rest = a.shape
    if index is not None:
        # The register that is next holds the oldest frame, the one after it the second oldest.
        a = lax.dynamic_slice_in_dim(jnp.concatenate([a, a], axis=1), index, d, axis=1)
    return jnp.swapaxes(a, 1, 2).reshape(n, depth * d, *rest)


def keep(z: jax.Array, geometry: Geometry) -> jax.Array:
    """Registers of the last frames of z (N, >= span, ...); the next frame goes to the first."""
    n, length, *rest = z.shape
    tail = z[:, length - geometry.span :]
    return jnp.swapaxes(tail.reshape(n, geometry.taps - 1, geometry.registers, *rest), 1, 2)


def push(a: jax.Array, new: jax.Array, index: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Push T frames (N, T, ...), each into its register, for 2 T <= d.

    Returns the K frames that each of the T outputs reads, (N, T, K, ...), and the registers. Only
    the T registers from ``index`` on are read and written, which wrap from the last to the first.
    """
    d, count = a.shape[1], new.shape[1]
    at = np.int32(0) if index is None else index
    # Slices of a static size do it: T registers that would reach beyond the last are clamped, by
    # as many as then are taken from the first ones. Of the two slices one is written back as it
    # was read where nothing wraps, so it is written first: they may overlap.
    low = lax.dynamic_slice_in_dim(a, at, count, axis=1)
    if count == 1:
        read = _ahead_of_writing(low, new)
        return read, lax.dynamic_update_slice_in_dim(a, read[:, :, 1:], at, axis=1)
    both = jnp.concatenate([low, a[:, :count]], axis=1)
    over = jnp.maximum(at - np.int32(d - count), np.int32(0))
    registers = lax.dynamic_slice_in_dim(both, over, count, axis=1)
    read = _ahead_of_writing(registers, new)
    both = lax.dynamic_update_slice_in_dim(both, read[:, :, 1:], over, axis=1)
    a = lax.dynamic_update_slice_in_dim(a, both[:, count:], 0, axis=1)
    return read, lax.dynamic_update_slice_in_dim(a, both[:, :count], at, axis=1)


def _ahead_of_writing(registers: jax.Array, new: jax.Array) -> jax.Array:
    """Registers with their new frame; whatever is written back to them waits for the barrier.

    Without it nothing says that frames are read before they are overwritten, if K = 2, and XLA
    (CPU, jaxlib 0.10.2) then copies all registers in every turn of a loop.
    """
    return lax.optimization_barrier(jnp.concatenate([registers, new[:, :, None]], axis=2))
