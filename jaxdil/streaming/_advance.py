"""How a state and a chunk become outputs and the next state.

A chunk of T frames takes one of two ways. Up to half as long as the dilation, it meets T registers
of the state and touches nothing else. Longer, the past is laid out in the order of time in front of
it and all is one convolution; that copies (K - 1) d frames, fewer than twice the K T that are read.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil import _arguments
from jaxdil._errors import error
from jaxdil.streaming._causal import (
    Options,
    lift,
    same_segment,
    segments_of,
    valid,
    whole,
    windows,
)
from jaxdil.streaming._registers import Geometry, State, keep, past, push
from jaxdil.streaming._resumed import resumed

__all__ = ["advance", "at_least", "check", "kept"]


# One call of a compiled function where nothing else is traced around it; no trace of it where
# something is.
@functools.partial(jax.jit, static_argnums=(0, 5), static_argnames="time", inline=True)
def advance(
    where: str,
    state: State,
    x: jax.Array,
    w: jax.Array,
    ids: Any,
    options: Options,
    *,
    time: int,
) -> tuple[Any, State]:
    """The outputs of a chunk, or of one frame if x has no axis of time, and the next state."""
    if not time:
        axis = x.ndim - w.ndim + 2
        x, ids = jnp.expand_dims(x, axis), None if ids is None else jnp.expand_dims(ids, axis)
        y, state = _chunk(where, state, x, w, ids, options)
        return (jnp.squeeze(y, axis) if y.shape[axis] else None), state
    return _chunk(where, state, x, w, ids, options)


def _chunk(
    where: str, state: State, x: jax.Array, w: jax.Array, ids: Any, options: Options
) -> tuple[jax.Array, State]:
    geometry = state.geometry
    x, ids, alone = lift(x, w, ids)
    ids = _ids(where, state, ids, x)
    if alone:
        state = _map(state, lambda a: a[None])
    count = x.shape[1]
    if count == 1 or 2 * count <= geometry.registers:
        frames, state = _pushed(state, x, ids)
        due = frames[:, state.wait :: geometry.stride[0]]
        y = windows(where, due, w, geometry, options) if due.shape[1] else None
    elif ids is None and geometry.depthwise and geometry.stride == (1,):
        before = past(state.frames, state.index)
        y = _behind(where, before, x, w, geometry, options)
        after = x if count >= geometry.span else jnp.concatenate([before, x], axis=1)
        state = kept(after, None, geometry, 0)
    else:
        z = _after(state.frames, x, state.index)
        own = None if ids is None else _after(state.segments, ids, state.index)
        y = _due(where, z, w, own, state, options) if count > state.wait else None
        state = kept(z, own, geometry, state.wait)
    if y is None:
        y = whole(where, x[:, :0], w, geometry, None, options._replace(method="auto"))
    state = dataclasses.replace(state, wait=(state.wait - count) % geometry.stride[0])
    return (y[0], _map(state, lambda a: a[0])) if alone else (y, state)


def _behind(
    where: str, before: jax.Array, x: jax.Array, w: jax.Array, geometry: Geometry, options: Options
) -> jax.Array:
    """The outputs of all frames of x, those before it being the past."""

    def laid_out(before: jax.Array, x: jax.Array, w: jax.Array) -> jax.Array:
        z = jnp.concatenate([before, x], axis=1)
        return valid(where, z, w, geometry, None, options)

    dtype = np.dtype(options.preferred_element_type or x.dtype)
    return resumed(laid_out, before, x, w, geometry.dilation[0], dtype, options.method)


def _due(
    where: str, z: jax.Array, w: jax.Array, ids: Any, state: State, options: Options
) -> jax.Array:
    """The outputs of the frames z, the past first, from the first one on that gives any."""
    own = None if ids is None else ids[:, state.wait :]
    return valid(where, z[:, state.wait :], w, state.geometry, own, options)


def _pushed(state: State, x: jax.Array, ids: Any) -> tuple[jax.Array, State]:
    """The frames that each output reads, (N, T, K, *S, C), masked; and the registers after."""
    count, registers = x.shape[1], state.geometry.registers
    read, frames = push(state.frames, x, state.index)
    segments = state.segments
    if ids is not None:
        own, segments = push(segments, ids, state.index)
        read = same_segment(read, own, own[:, :, -1:])
    index = state.index
    if index is not None:
        index = lax.rem(index + np.int32(count), np.int32(registers))
    return read, dataclasses.replace(state, frames=frames, segments=segments, index=index)


def _after(a: jax.Array, new: jax.Array, index: Any) -> jax.Array:
    """New frames behind those of the registers, in the order of time."""
    return jnp.concatenate([past(a, index), new], axis=1)


def kept(z: jax.Array, ids: Any, geometry: Geometry, wait: int, *, alone: bool = False) -> State:
    """The state after the frames of z."""
    state = State(
        frames=keep(z, geometry),
        segments=None if ids is None else keep(ids, geometry),
        index=jnp.zeros((), np.int32) if geometry.registers > 1 else None,
        geometry=geometry,
        wait=wait,
    )
    return _map(state, lambda a: a[0]) if alone else state


def _map(state: State, fn: Any) -> State:
    """A state, its registers changed."""
    segments = None if state.segments is None else fn(state.segments)
    return dataclasses.replace(state, frames=fn(state.frames), segments=segments)


def at_least(a: jax.Array, length: int) -> jax.Array:
    """A (N, T, ...) behind as many zeros as make it that long."""
    missing = max(length - a.shape[1], 0)
    zeros = jnp.zeros((a.shape[0], missing, *a.shape[2:]), a.dtype)
    return jnp.concatenate([zeros, a], axis=1)


# --- checks ---------------------------------------------------------------------------------------


def check(where: str, state: Any, x: Any, w: Any, *, time: int) -> None:
    """Raise unless frames (``time`` axes of time) and kernel are such as the state was made for."""
    if not isinstance(state, State):
        what = f"state must be a State, got {type(state).__name__}"
        raise TypeError(error(where, what, "It comes first; streaming.init makes the first one."))
    _arguments.check_arrays(where, x=x, w=w)
    frames = state.frames
    rank = len(state.geometry.stride)
    lead, rest = frames.shape[: frames.ndim - rank - 2], frames.shape[frames.ndim - rank :]
    if w.ndim != rank + 2 or w.shape[0] != state.geometry.taps:
        what = f"w must have {rank + 2} axes and {state.geometry.taps} taps in time, as the state"
        raise ValueError(error(where, f"{what}, got shape {w.shape}"))
    at = len(lead)
    fits = x.ndim == at + time + rank and (*x.shape[:at], *x.shape[at + time :]) == (*lead, *rest)
    if not fits:
        wanted = ", ".join(map(str, (*lead, *["T"] * time, *rest)))
        other = "streaming.chunk takes frames (N, T, *S, C), streaming.step one of them (N, *S, C)."
        what = f"x must be ({wanted}) for this state, got shape {x.shape}"
        raise ValueError(error(where, what, other))
    if jax.dtypes.canonicalize_dtype(x.dtype) != frames.dtype:
        what = f"x must have the dtype of the state, {frames.dtype}, got {x.dtype}"
        raise TypeError(error(where, what, "Nothing is promoted silently; cast with .astype(...)."))


def _ids(where: str, state: State, ids: Any, x: jax.Array) -> jax.Array | None:
    """Segment ids, checked; raise unless they are there where the state has some."""
    if (ids is None) != (state.segments is None):
        given = "is missing" if ids is None else "was given"
        kind = "not segmented" if state.segments is None else "segmented"
        hint = "init(..., segmented=True) and prefill(..., segment_ids=...) make a segmented state."
        raise ValueError(error(where, f"segment_ids {given}, but the state is {kind}", hint))
    return segments_of(where, ids, x)
