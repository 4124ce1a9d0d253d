"""Networks of Equinox's layers: channels first, one example at a time under vmap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.zoo import Model
from benchmarks.zoo.parts import (
    CLASSES,
    classified,
    cross_entropy,
    examples,
    initial,
    squared,
    trained,
)

__all__ = ["autoencoder", "mamba"]


def autoencoder(*, size: int, batch: int, narrow: bool) -> Model:
    """The networks of DCGAN head to tail: strided convolutions, then transposed ones."""
    widths = (8, 16) if narrow else (64, 128, 256)
    down = list(zip((3, *widths), widths, strict=False))

    def network(key: Any) -> Any:
        layers: list[Any] = []
        for inner, outer in down:
            layers += [eqx.nn.Conv2d(inner, outer, 4, stride=2, padding=1, key=key)]
            layers += [eqx.nn.GroupNorm(4, outer), eqx.nn.Lambda(jax.nn.leaky_relu)]
        for outer, inner in reversed(down):
            layers += [eqx.nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, key=key)]
            layers += [eqx.nn.GroupNorm(math.gcd(4, outer), outer), eqx.nn.Lambda(jax.nn.relu)]
        # The last layer paints the image, and has no norm.
        return eqx.nn.Sequential([*layers[:-2], eqx.nn.Lambda(jnp.tanh)])

    x = examples((batch, 3, size, size))
    return _model(network, (x, x), squared)


class _Mamba(eqx.Module):
    """The block of the paper: a causal depthwise convolution of 4 taps, then a selective scan."""

    into: eqx.nn.Linear
    conv: eqx.nn.Conv1d
    select: eqx.nn.Linear
    step: eqx.nn.Linear
    decay: Any
    skip: Any
    out: eqx.nn.Linear
    states: int = eqx.field(static=True)

    def __init__(self, width: int, states: int, key: Any) -> None:
        inner, rank = 2 * width, max(width // 16, 1)
        keys = jax.random.split(key, 5)
        self.into = eqx.nn.Linear(width, 2 * inner, use_bias=False, key=keys[0])
        self.conv = eqx.nn.Conv1d(inner, inner, 4, padding=[(3, 0)], groups=inner, key=keys[1])
        self.select = eqx.nn.Linear(inner, rank + 2 * states, use_bias=False, key=keys[2])
        self.step = eqx.nn.Linear(rank, inner, key=keys[3])
        rates = jnp.arange(1, states + 1, dtype=jnp.float32)
        self.decay = jnp.log(jnp.broadcast_to(rates, (inner, states)))
        self.skip = jnp.ones(inner, jnp.float32)
        self.out = eqx.nn.Linear(inner, width, use_bias=False, key=keys[4])
        self.states = states

    def __call__(self, x: Any) -> Any:
        """(T, width) to (T, width)."""
        x, gate = jnp.split(jax.vmap(self.into)(x), 2, axis=-1)
        x = jax.nn.silu(self.conv(x.T).T)
        rank = self.step.in_features
        low, write, read = jnp.split(jax.vmap(self.select)(x), (rank, rank + self.states), axis=-1)
        step = jax.nn.softplus(jax.vmap(self.step)(low))  # (T, inner)
        decay = jnp.exp(step[:, :, None] * -jnp.exp(self.decay)[None])
        drive = (step * x)[:, :, None] * write[:, None, :]

        def carry(a: Any, b: Any) -> Any:
            return a[0] * b[0], a[1] * b[0] + b[1]

        _, hidden = jax.lax.associative_scan(carry, (decay, drive))
        y = (hidden * read[:, None, :]).sum(-1) + self.skip[None] * x
        return jax.vmap(self.out)(y * jax.nn.silu(gate))


class _Language(eqx.Module):
    """Mamba blocks with RMSNorm and residual connections, between an embedding and logits."""

    embed: eqx.nn.Embedding
    norms: list[eqx.nn.RMSNorm]
    blocks: list[_Mamba]
    head: eqx.nn.Linear

    def __init__(self, width: int, states: int, depth: int, key: Any) -> None:
        keys = jax.random.split(key, depth + 2)
        self.embed = eqx.nn.Embedding(CLASSES, width, key=keys[0])
        self.norms = [eqx.nn.RMSNorm(width) for _ in range(depth)]
        self.blocks = [_Mamba(width, states, k) for k in keys[2:]]
        self.head = eqx.nn.Linear(width, CLASSES, key=keys[1])

    def __call__(self, tokens: Any) -> Any:
        x = jax.vmap(self.embed)(tokens)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(jax.vmap(norm)(x))
        return jax.vmap(self.head)(x)


def mamba(*, size: int, batch: int, narrow: bool) -> Model:
    """Two Mamba blocks that predict the next of ``size`` tokens."""
    width, states = (16, 4) if narrow else (256, 16)
    _, tokens = classified((1,), (batch, size + 1))
    return _model(
        lambda key: _Language(width, states, 2, key), (tokens[:, :-1], tokens[:, 1:]), cross_entropy
    )


def _model(make: Callable[[Any], Any], batch: Any, loss: Callable[[Any, Any], Any]) -> Model:
    network = eqx.filter_eval_shape(make, jax.random.key(0))
    params, rest = eqx.partition(network, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    # The gain of Equinox's own initialisers; with that of He et al. a selective scan, cubic in its
    # input, would explode.
    params = initial(params, channels_first=True, gain=1 / 3)

    def forward(params: Any, state: Any, x: Any) -> Any:
        return jax.vmap(eqx.combine(params, rest))(x)

    def run(params: Any, state: Any, x: Any) -> Any:
        return forward(params, state, x), state

    return Model(params, (), batch, forward, trained(run, loss))
