"""Networks of Flax's layers, Linen and NNX.

Each takes ``conv_general_dilated``, the field of these layers in which a convolution other than
lax's can be named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from jax import lax

from benchmarks.zoo import Model, Result
from benchmarks.zoo.parts import CLASSES, classified, cross_entropy, initial, trained

__all__ = [
    "linen_deeplab",
    "linen_dp_sgd",
    "linen_separable",
    "linen_unet",
    "nnx_convnext",
    "nnx_replknet",
]

_lax = lax.conv_general_dilated


class _Separable(nn.Module):
    """A depthwise and a 1x1 convolution, then batch normalisation."""

    features: int
    strides: int = 1
    conv: Any = _lax

    @nn.compact
    def __call__(self, x: Any, training: bool) -> Any:
        inner = x.shape[-1]
        for features, size, groups, strides in (
            (inner, 3, inner, self.strides),
            (self.features, 1, 1, 1),
        ):
            x = nn.Conv(
                features,
                (size, size),
                strides,
                feature_group_count=groups,
                use_bias=False,
                conv_general_dilated=self.conv,
            )(x)
        return nn.BatchNorm(use_running_average=not training)(x)


class _EntryFlow(nn.Module):
    """Xception's: strided residual blocks of two separable convolutions."""

    widths: tuple[int, ...]
    conv: Any = _lax

    @nn.compact
    def __call__(self, x: Any, training: bool) -> Any:
        x = nn.Conv(self.widths[0] // 2, (3, 3), 2, conv_general_dilated=self.conv)(x)
        for width in self.widths:
            y = nn.relu(_Separable(width, conv=self.conv)(x, training))
            y = _Separable(width, 2, conv=self.conv)(y, training)
            x = y + nn.Conv(width, (1, 1), 2, conv_general_dilated=self.conv)(x)
        return nn.Dense(CLASSES)(nn.relu(x).mean((1, 2)))


def linen_separable(
    *, size: int, batch: int, narrow: bool, conv_general_dilated: Any = _lax
) -> Model:
    """The entry flow of Xception."""
    widths = (16, 32) if narrow else (128, 256, 728)
    net = _EntryFlow(widths, conv_general_dilated)
    return _linen(net, classified((batch, size, size, 3)))


class _DeepLab(nn.Module):
    """Atrous spatial pyramid pooling at three rates and over the image, then two convolutions."""

    width: int
    conv: Any = _lax

    @nn.compact
    def __call__(self, x: Any, training: bool) -> Any:
        def block(x: Any, size: int, rate: int = 1) -> Any:
            x = nn.Conv(
                self.width,
                (size, size),
                kernel_dilation=rate,
                use_bias=False,
                conv_general_dilated=self.conv,
            )(x)
            return nn.relu(nn.BatchNorm(use_running_average=not training)(x))

        image = nn.Conv(self.width, (1, 1), conv_general_dilated=self.conv)(
            x.mean((1, 2), keepdims=True)
        )
        parts = [block(x, 1), *(block(x, 3, rate) for rate in (6, 12, 18))]
        parts.append(jnp.broadcast_to(nn.relu(image), parts[0].shape))
        x = block(block(jnp.concatenate(parts, -1), 1), 3)
        x = nn.Conv(CLASSES, (1, 1), conv_general_dilated=self.conv)(x)
        fine = (x.shape[0], 4 * x.shape[1], 4 * x.shape[2], CLASSES)
        return jax.image.resize(x, fine, "bilinear")


def linen_deeplab(
    *, size: int, batch: int, narrow: bool, conv_general_dilated: Any = _lax
) -> Model:
    """The head of DeepLab at output stride 16, on features of ``size`` by ``size``."""
    width, channels = (8, 16) if narrow else (256, 512)
    labels = (batch, 4 * size, 4 * size)
    net = _DeepLab(width, conv_general_dilated)
    return _linen(net, classified((batch, size, size, channels), labels))


class _UNet(nn.Module):
    """The 3-D U-Net: pairs of 3x3x3 convolutions, pooled by 2 down and transposed by 2 up."""

    widths: tuple[int, ...]
    conv: Any = _lax

    @nn.compact
    def __call__(self, x: Any, training: bool) -> Any:
        def pair(x: Any, width: int) -> Any:
            for features in (width, 2 * width):
                x = nn.Conv(features, (3, 3, 3), use_bias=False, conv_general_dilated=self.conv)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=not training)(x))
            return x

        down = []
        for width in self.widths[:-1]:
            down.append(pair(x, width))
            x = nn.max_pool(down[-1], (2, 2, 2), (2, 2, 2))
        x = pair(x, self.widths[-1])
        for skip in reversed(down):
            x = nn.ConvTranspose(x.shape[-1], (2, 2, 2), (2, 2, 2))(x)
            x = pair(jnp.concatenate([skip, x], -1), skip.shape[-1] // 2)
        return nn.Conv(CLASSES, (1, 1, 1), conv_general_dilated=self.conv)(x)


def linen_unet(*, size: int, batch: int, narrow: bool, conv_general_dilated: Any = _lax) -> Model:
    """The 3-D U-Net, a class for each voxel."""
    widths = (4, 8) if narrow else (16, 32, 64)
    shape = (batch, size, size, size, 1)
    return _linen(_UNet(widths, conv_general_dilated), classified(shape, shape[:-1]))


class _Tutorial(nn.Module):
    """The convolutional network that the papers on private training use for MNIST."""

    widths: tuple[int, int]
    conv: Any = _lax

    @nn.compact
    def __call__(self, x: Any, training: bool) -> Any:
        for width, size in zip(self.widths, (8, 4), strict=True):
            x = nn.Conv(width, (size, size), 2, conv_general_dilated=self.conv)(x)
            x = nn.max_pool(nn.tanh(x), (2, 2), (1, 1))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(CLASSES)(nn.tanh(nn.Dense(32)(x)))


def linen_dp_sgd(*, size: int, batch: int, narrow: bool, conv_general_dilated: Any = _lax) -> Model:
    """Differentially private training: each example's gradient is clipped, then they are averaged.

    Without the noise, which no convolution takes part in.
    """
    net = _Tutorial((4, 8) if narrow else (16, 32), conv_general_dilated)
    model = _linen(net, classified((batch, size, size, 1)))

    def train(params: Any, state: Any, batch: Any) -> Result:
        def one(x: Any, wanted: Any) -> Any:
            result = model.train(params, state, (x[None], wanted[None]))
            squares = jax.tree.map(lambda g: (g**2).sum(), result.gradients)
            norm = jnp.sqrt(sum(jax.tree.leaves(squares)))
            clipped = jax.tree.map(lambda g: g / jnp.maximum(norm, 1.0), result.gradients)
            return result.loss, result.outputs[0], clipped

        losses, outputs, clipped = jax.vmap(one)(*batch)
        gradients = jax.tree.map(lambda g: g.mean(0), clipped)
        return Result(losses.mean(), outputs, gradients, state)

    return Model(model.params, model.state, model.batch, model.forward, train)


def _linen(net: nn.Module, batch: Any) -> Model:
    shapes = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, True), batch[0])
    variables = dict(initial(shapes))
    params = variables.pop("params")

    def run(params: Any, state: Any, x: Any) -> Any:
        return net.apply({"params": params, **state}, x, True, mutable=["batch_stats"])

    def forward(params: Any, state: Any, x: Any) -> Any:
        return net.apply({"params": params, **state}, x, False)

    return Model(params, variables, batch, forward, trained(run, cross_entropy))


class _ConvNeXtBlock(nnx.Module):
    """A 7x7 depthwise convolution, a norm, a wide perceptron, a scale, and the input once more."""

    def __init__(self, width: int, conv: Any, rngs: nnx.Rngs) -> None:
        self.depthwise = nnx.Conv(
            width, width, (7, 7), feature_group_count=width, conv_general_dilated=conv, rngs=rngs
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)
        self.scale = nnx.Param(jnp.full(width, 0.1, jnp.float32))

    def __call__(self, x: Any) -> Any:
        y = self.norm(self.depthwise(x))
        return x + self.scale[...] * self.down(nnx.gelu(self.up(y)))


class _RepLKBlock(nnx.Module):
    """A 31x31 depthwise convolution and a 5x5 beside it, between 1x1 ones, and the input once more.

    The small kernel is what the large one is re-parameterised with; in training it runs beside it.
    """

    def __init__(self, width: int, conv: Any, rngs: nnx.Rngs) -> None:
        def layer(size: int, groups: int) -> nnx.Conv:
            return nnx.Conv(
                width,
                width,
                (size, size),
                feature_group_count=groups,
                use_bias=False,
                conv_general_dilated=conv,
                rngs=rngs,
            )

        self.norms = nnx.List([nnx.BatchNorm(width, rngs=rngs) for _ in range(5)])
        self.into, self.out = layer(1, 1), layer(1, 1)
        self.large, self.small = layer(31, width), layer(5, width)

    def __call__(self, x: Any) -> Any:
        before, after, large, small, last = self.norms
        y = nnx.relu(after(self.into(before(x))))
        y = nnx.relu(large(self.large(y)) + small(self.small(y)))
        return x + last(self.out(y))


class _Staged(nnx.Module):
    """A strided convolution that cuts patches, blocks, and a classifier of the mean."""

    def __init__(self, width: int, blocks: list[Any], conv: Any, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, width, (4, 4), 4, conv_general_dilated=conv, rngs=rngs)
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def nnx_convnext(*, size: int, batch: int, narrow: bool, conv_general_dilated: Any = _lax) -> Model:
    """Three blocks of ConvNeXt."""
    return _nnx(_ConvNeXtBlock, 3, (16 if narrow else 96), size, batch, conv_general_dilated)


def nnx_replknet(*, size: int, batch: int, narrow: bool, conv_general_dilated: Any = _lax) -> Model:
    """A block of RepLKNet on patches of the image."""
    return _nnx(_RepLKBlock, 1, (8 if narrow else 128), size, batch, conv_general_dilated)


def _nnx(
    block: Callable[..., Any], depth: int, width: int, size: int, batch: int, conv: Any
) -> Model:
    def network() -> nnx.Module:
        rngs = nnx.Rngs(0)
        return _Staged(width, [block(width, conv, rngs) for _ in range(depth)], conv, rngs)

    graph, *shapes = nnx.split(nnx.eval_shape(network), nnx.Param, ...)
    params, state = initial(shapes)

    def apply(params: Any, state: Any, x: Any, training: bool) -> Any:
        # Variables of this trace: NNX lets no other's be written to.
        state = jax.tree.map(lambda leaf: leaf, state)
        net = nnx.merge(graph, params, state)
        net.train() if training else net.eval()
        outputs = net(x)
        return outputs, nnx.split(net, nnx.Param, ...)[2]

    def run(params: Any, state: Any, x: Any) -> Any:
        return apply(params, state, x, True)

    def forward(params: Any, state: Any, x: Any) -> Any:
        return apply(params, state, x, False)[0]

    examples = classified((batch, size, size, 3))
    return Model(params, state, examples, forward, trained(run, cross_entropy))
