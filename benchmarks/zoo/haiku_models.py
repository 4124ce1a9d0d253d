"""Networks of hk.nets, and WaveNet of Haiku's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from benchmarks.zoo import Model
from benchmarks.zoo.parts import CLASSES, classified, cross_entropy, initial, trained

__all__ = ["mobilenet", "resnet", "wavenet"]


def mobilenet(*, size: int, batch: int, narrow: bool) -> Model:
    """MobileNetV1; narrow, five of its thirteen blocks."""
    shape = {"strides": (1, 2, 1, 2, 1), "channels": (8, 16, 16, 32, 32)} if narrow else {}

    def network(x: Any, is_training: bool) -> Any:
        return hk.nets.MobileNetV1(num_classes=CLASSES, **shape)(x, is_training)

    return _classifier(network, size, batch)


def resnet(*, size: int, batch: int, narrow: bool) -> Model:
    """ResNet-50; narrow, one bottleneck of each width."""

    def network(x: Any, is_training: bool) -> Any:
        if narrow:
            net = hk.nets.ResNet((1, 1, 1, 1), CLASSES, channels_per_group=(32, 32, 64, 64))
        else:
            net = hk.nets.ResNet50(CLASSES)
        return net(x, is_training)

    return _classifier(network, size, batch)


def _classifier(network: Callable[[Any, bool], Any], size: int, batch: int) -> Model:
    pure = hk.without_apply_rng(hk.transform_with_state(network))
    examples = classified((batch, size, size, 3))
    shapes = jax.eval_shape(lambda x: pure.init(jax.random.key(0), x, True), examples[0])
    params, state = initial(shapes)

    def run(params: Any, state: Any, x: Any) -> Any:
        return pure.apply(params, state, x, True)

    def forward(params: Any, state: Any, x: Any) -> Any:
        return pure.apply(params, state, x, False)[0]

    return Model(params, state, examples, forward, trained(run, cross_entropy))


def wavenet(*, size: int, batch: int, narrow: bool) -> Model:
    """WaveNet: two stacks of dilations 1, 2, 4, ..., 512 in a scan, predicting the next sample.

    Gated units, residual and skip connections as in the paper; Haiku's ``layer_stack`` scans.
    """
    residual, skip, levels = (8, 16, 16) if narrow else (64, 128, 256)

    def stack(x: Any, total: Any) -> tuple[Any, Any]:
        for dilation in (2**i for i in range(10)):
            both = hk.Conv1D(2 * residual, 2, rate=dilation, padding=hk.pad.causal)(x)
            tanh, gate = jnp.split(both, 2, axis=-1)
            unit = jnp.tanh(tanh) * jax.nn.sigmoid(gate)
            total = total + hk.Conv1D(skip, 1)(unit)
            x = x + hk.Conv1D(residual, 1)(unit)
        return x, total

    def network(x: Any) -> Any:
        x = hk.Conv1D(residual, 2, padding=hk.pad.causal)(x)
        total = jnp.zeros((*x.shape[:-1], skip), x.dtype)
        _, total = hk.layer_stack(2)(stack)(x, total)
        return hk.Conv1D(levels, 1)(jax.nn.relu(hk.Conv1D(skip, 1)(jax.nn.relu(total))))

    pure = hk.without_apply_rng(hk.transform(network))
    x, wanted = classified((batch, size, 1), (batch, size))
    params = initial(jax.eval_shape(lambda x: pure.init(jax.random.key(0), x), x))

    def run(params: Any, state: Any, x: Any) -> Any:
        return pure.apply(params, x), state

    def forward(params: Any, state: Any, x: Any) -> Any:
        return pure.apply(params, x)

    return Model(params, (), (x, wanted), forward, trained(run, cross_entropy))
