"""A function with any number of causal convolutions, as a stream: each call gets its own state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxdil._errors import error
from jaxdil.streaming import _carry
from jaxdil.streaming._causal import causal_conv, geometry_of
from jaxdil.streaming._registers import State

__all__ = ["Network", "network"]

States: TypeAlias = tuple[State, ...]

# What is static about a convolution; all else is a matter of the call.
_GEOMETRY = {"stride": 1, "dilation": 1, "groups": 1, "depthwise": False, "padding": "SAME"}


class Network(NamedTuple):
    """The functions that `network` makes; states are a tuple of `State`, one a convolution.

    ``inputs``, by position or by name, are arrays or trees of arrays, with axes (N, T, ...).
    """

    whole: Callable[..., Any]
    """``y = whole(params, *inputs)``: whole sequences, by `causal_conv`."""
    init: Callable[..., States]
    """``states = init(params, *inputs)`` before the first frame; only shapes are read."""
    prefill: Callable[..., tuple[Any, States]]
    """``y, states = prefill(params, *inputs)``: the frames so far."""
    chunk: Callable[..., tuple[Any, States]]
    """``y, states = chunk(states, params, *inputs)``: the next frames, any number."""
    step: Callable[..., tuple[Any, States]]
    """``y, states = step(states, params, *frames)``: the next frame, (N, ...); y too, or None where
    strides give no output for it."""


def network(fn: Callable[..., Any]) -> Network:
    """A network of causal convolutions, written once, as a whole, by chunks and by steps.

    ``y = fn(conv, params, *inputs)`` calls ``conv`` as it would `causal_conv`, and beside it
    whatever treats each frame for itself: activations, norms over channels, products, sums of
    branches. What mixes frames in another way (a mean over time, attention) has no state here and
    gives other results by chunks than on the whole.

    Args:
      fn: called with ``conv``, the parameters, and inputs with axes (N, T, ...), also by name. It
        must call ``conv`` in the same order each time, and not inside of ``lax.scan``, ``lax.cond``
        or ``jit`` of its own, from which no state comes out: apply those to what `network` makes.

    Returns:
      A `Network` of functions: whole, init, prefill, chunk, step.

    Raises:
      ValueError: when its functions are called: if fn calls other convolutions than those that the
        states were made for, and as `chunk`.

    >>> import jax, jax.numpy as jnp
    >>> def two(conv, params, x):
    ...     h = x + jax.nn.relu(conv(x, params[0], dilation=2))
    ...     return conv(h, params[1], stride=2)
    >>> net = jaxdil.streaming.network(two)
    >>> params = [jnp.ones((3, 4, 4)), jnp.ones((2, 4, 1))]
    >>> y, states = net.prefill(params, jnp.ones((1, 6, 4)))
    >>> z, states = net.chunk(states, params, jnp.ones((1, 2, 4)))
    >>> bool((net.whole(params, jnp.ones((1, 8, 4))) == jnp.concatenate([y, z], 1)).all())
    True
    """

    def whole(params: Any, *inputs: Any, **named: Any) -> Any:
        return fn(causal_conv, params, *inputs, **named)

    def prefill(params: Any, *inputs: Any, **named: Any) -> tuple[Any, States]:
        conv = _Prefilled()
        y = fn(conv, params, *inputs, **named)
        return y, tuple(conv.after)

    def init(params: Any, *inputs: Any, **named: Any) -> States:
        inputs, named = jax.tree.map(_no_frames, (inputs, named))
        _, states = jax.eval_shape(prefill, params, *inputs, **named)
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), states)

    def chunk(states: States, params: Any, *inputs: Any, **named: Any) -> tuple[Any, States]:
        conv = _Carried(states)
        y = fn(conv, params, *inputs, **named)
        return y, conv.finished()

    def step(states: States, params: Any, *frames: Any, **named: Any) -> tuple[Any, States]:
        frames, named = jax.tree.map(lambda a: jnp.expand_dims(a, 1), (frames, named))
        y, states = chunk(states, params, *frames, **named)
        return jax.tree.map(lambda a: jnp.squeeze(a, 1) if a.shape[1] else None, y), states

    return Network(whole, init, prefill, chunk, step)


def _no_frames(a: Any) -> jax.ShapeDtypeStruct:
    if len(a.shape) < 2:
        what = f"inputs must have axes (N, T, ...), got shape {tuple(a.shape)}"
        raise ValueError(error("streaming.network", what, "What has no time belongs to params."))
    return jax.ShapeDtypeStruct((a.shape[0], 0, *a.shape[2:]), a.dtype)


class _Prefilled:
    """`causal_conv`, remembering the state after each call."""

    def __init__(self) -> None:
        self.after: list[State] = []

    def __call__(self, x: Any, w: Any, **options: Any) -> jax.Array:
        y, state = _carry.prefill(x, w, **options)
        self.after.append(state)
        return y


class _Carried:
    """`causal_conv` of the next frames: each call, in their order, goes on from its state."""

    def __init__(self, states: Any) -> None:
        self.before: list[Any] = list(states)
        self.after: list[State] = []

    def __call__(self, x: Any, w: Any, **options: Any) -> jax.Array:
        number = len(self.after)
        if number >= len(self.before):
            raise ValueError(self._other(f"calls more than {number} convolutions"))
        state = self.before[number]
        given = {name: options.pop(name, default) for name, default in _GEOMETRY.items()}
        geometry = geometry_of("streaming.network", w.shape, **given)
        if isinstance(state, State) and geometry != state.geometry:
            what = f"calls convolution {number} with {geometry}, its state is for {state.geometry}"
            raise ValueError(self._other(what))
        y, state = _carry.chunk(state, x, w, **options)
        self.after.append(state)
        return y

    def finished(self) -> States:
        """The states after all calls."""
        if len(self.after) < len(self.before):
            raise ValueError(self._other(f"calls only {len(self.after)} convolutions"))
        return tuple(self.after)

    def _other(self, what: str) -> str:
        hint = "It must call the same ones, in the same order, as when the states were made."
        return error("streaming.network", f"fn {what}; there are {len(self.before)} states", hint)
