"""The layers that are measured: published networks, and workloads of public issue threads.

Data, and nothing else. Where a layer's batch or image is smaller than in its source, that is so
that the slowest contender needs seconds, not minutes; channels, kernels, strides and dilations are
the network's own.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from benchmarks.case import Case, make

__all__ = ["CASES", "select"]

Size = int | tuple[int, ...]


def _kernel(x: Sequence[int], size: Size) -> tuple[int, ...]:
    return (size,) * (len(x) - 2) if isinstance(size, int) else size


def _depthwise(
    name: str, source: str, x: Sequence[int], k: Size, *, multiplier: int = 1, **options: Any
) -> Case:
    w = (*_kernel(x, k), 1, x[-1] * multiplier)
    return make(name, source, "depthwise", x, w, groups=x[-1], **options)


def _grouped(
    name: str, source: str, x: Sequence[int], k: Size, out: int, groups: int, **options: Any
) -> Case:
    w = (*_kernel(x, k), x[-1] // groups, out)
    return make(name, source, "grouped", x, w, groups=groups, **options)


def _dense(
    name: str,
    source: str,
    x: Sequence[int],
    k: Size,
    out: int,
    family: str = "dense",
    **options: Any,
) -> Case:
    return make(name, source, family, x, (*_kernel(x, k), x[-1], out), **options)


def _dilated(
    name: str, source: str, x: Sequence[int], k: Size, out: int, dilation: Size, **options: Any
) -> Case:
    return _dense(name, source, x, k, out, "dilated", dilation=dilation, **options)


def _transposed(
    name: str, source: str, x: Sequence[int], k: Size, out: int, stride: Size, **options: Any
) -> Case:
    return _dense(name, source, x, k, out, "transposed", stride=stride, transposed=True, **options)


_BF16 = {"dtype": "bfloat16"}
_FIRST = {"data_format": "channels_first"}

_MOBILENET = "MobileNetV2, arXiv:1801.04381"
_EFFICIENT = "EfficientNet-B0, arXiv:1905.11946"
_CONVNEXT = "ConvNeXt-T, arXiv:2201.03545"
_REPLK = "RepLKNet-31B, arXiv:2203.06717"
_XCEPTION = "Xception, arXiv:1610.02357"
_DEEPLAB = "DeepLabv3+, arXiv:1802.02611"
_X3D = "X3D-S, arXiv:2004.04730"
_MAMBA = "Mamba-130m, arXiv:2312.00752"
_TASNET = "Conv-TasNet, arXiv:1809.07454"
_RESNEXT = "ResNeXt-50 32x4d, arXiv:1611.05431"
_SHUFFLE = "ShuffleNet g=3, arXiv:1707.01083"
_REGNET = "RegNetX-400MF, arXiv:2003.13678"
_CONTEXT = "Context module, arXiv:1511.07122"
_DRN = "DRN-C-26, arXiv:1705.09914"
_ASPP = "DeepLabv3 ASPP, arXiv:1706.05587"
_ESPNET = "ESPNet, arXiv:1803.06815"
_WAVENET = "WaveNet, arXiv:1609.03499"
_UNET3D = "3D U-Net, arXiv:1606.06650"
_RESNET = "ResNet-50, arXiv:1512.03385"
_HIFIGAN = "HiFi-GAN V1, arXiv:2010.05646"

_DEPTHWISE = (
    _depthwise("mobilenetv2-112", f"{_MOBILENET}, block 1", (1, 112, 112, 32), 3),
    _depthwise("mobilenetv2-112-s2", f"{_MOBILENET}, block 2", (1, 112, 112, 96), 3, stride=2),
    _depthwise("mobilenetv2-56", f"{_MOBILENET}, block 3", (8, 56, 56, 144), 3),
    _depthwise("mobilenetv2-28-s2", f"{_MOBILENET}, block 7", (8, 28, 28, 192), 3, stride=2),
    _depthwise("mobilenetv2-14", f"{_MOBILENET}, block 12", (8, 14, 14, 576), 3),
    _depthwise("mobilenetv2-7", f"{_MOBILENET}, block 16", (8, 7, 7, 960), 3),
    _depthwise("mobilenetv2-14-bf16", f"{_MOBILENET}, block 12", (8, 14, 14, 576), 3, **_BF16),
    _depthwise("mobilenetv1-56", "MobileNet, arXiv:1704.04861, conv3 dw", (1, 56, 56, 128), 3),
    _depthwise("mobilenetv1-56-bf16", "MobileNet, arXiv:1704.04861, conv3 dw", (1, 56, 56, 128), 3,
        **_BF16),
    _depthwise("mobilenetv1-mult2", "MobileNet, arXiv:1704.04861, conv5 dw, depth multiplier 2",
        (2, 28, 28, 256), 3, multiplier=2),
    _depthwise("efficientnet-112", f"{_EFFICIENT}, stage 2", (1, 112, 112, 32), 3),
    _depthwise("efficientnet-56-k5s2", f"{_EFFICIENT}, stage 4, block 1", (2, 56, 56, 144), 5,
        stride=2),
    _depthwise("efficientnet-14-k5", f"{_EFFICIENT}, stage 6", (2, 14, 14, 672), 5),
    _depthwise("efficientnet-14-k5s2", f"{_EFFICIENT}, stage 7, block 1", (2, 14, 14, 672), 5,
        stride=2),
    _depthwise("convnext-56", f"{_CONVNEXT}, stage 1", (2, 56, 56, 96), 7),
    _depthwise("convnext-14", f"{_CONVNEXT}, stage 3", (8, 14, 14, 384), 7),
    _depthwise("convnext-56-bf16", f"{_CONVNEXT}, stage 1", (2, 56, 56, 96), 7, **_BF16),
    _depthwise("replknet-31", f"{_REPLK}, stage 1, 112-pixel image", (1, 28, 28, 128), 31),
    _depthwise("replknet-13", f"{_REPLK}, stage 4", (1, 7, 7, 1024), 13),
    _depthwise("slak-51x5", "SLaK-T, arXiv:2207.03620, stage 1", (1, 56, 56, 124), (51, 5)),
    _depthwise("xception-147", f"{_XCEPTION}, entry flow", (1, 147, 147, 128), 3),
    _depthwise("xception-19", f"{_XCEPTION}, middle flow", (2, 19, 19, 728), 3),
    *(
        _depthwise(f"deeplab-sep-r{rate}", f"{_DEEPLAB}, {layer}", x, 3, dilation=rate)
        for rate, layer, x in (
            (2, "exit flow", (1, 33, 33, 1536)),
            (6, "separable ASPP", (1, 33, 33, 2048)),
            (12, "separable ASPP", (1, 33, 33, 2048)),
            (18, "separable ASPP", (1, 33, 33, 2048)),
            (36, "separable ASPP at output stride 8", (1, 41, 41, 2048)),
        )
    ),
    _depthwise("x3d-res3", f"{_X3D}, res3", (1, 13, 20, 20, 108), 3),
    _depthwise("x3d-res4-s2", f"{_X3D}, res4, block 1", (1, 13, 20, 20, 216), 3, stride=(1, 2, 2)),
    _depthwise("conformer-k31", "Conformer-M, arXiv:2005.08100, convolution module", (4, 400, 256),
        31),
    _depthwise("mamba-k4", f"{_MAMBA}, causal convolution", (1, 2048, 1536), 4, padding="CAUSAL"),
    _depthwise("mamba-k4-bf16", f"{_MAMBA}, causal convolution", (4, 1024, 1536), 4,
        padding="CAUSAL", **_BF16),
    _depthwise("convtasnet-d1", f"{_TASNET}, block 1", (2, 3199, 512), 3),
    _depthwise("convtasnet-d128", f"{_TASNET}, block 8", (2, 3199, 512), 3, dilation=128),
    _depthwise("eegnet-mult2", "EEGNet-8,2, arXiv:1611.08024, depthwise over electrodes",
        (16, 22, 256, 8), (22, 1), multiplier=2, padding="VALID"),
    _depthwise("flax-4207", "github.com/google/flax/issues/4207", (1, 124, 124, 256), 3, padding=1),
    _depthwise("flax-4207-nchw", "github.com/google/flax/issues/4207, in the order of PyTorch",
        (1, 124, 124, 256), 3, padding=1, **_FIRST),
    _depthwise("jax-13800", "github.com/jax-ml/jax/issues/13800, batch 4 of 32", (4, 1024, 512), 5,
        **_FIRST),
    _depthwise("jax-26266", "github.com/jax-ml/jax/issues/26266, 64 channels, dilation 16",
        (32, 1024, 64), 5, dilation=16),
    _depthwise("pytorch-18631", "github.com/pytorch/pytorch/issues/18631, batch 1 of 2", (1, 512,
        512, 32), 3),
)  # fmt: skip

_GROUPED = (
    _grouped("resnext-56", f"{_RESNEXT}, stage 1", (1, 56, 56, 128), 3, 128, 32),
    _grouped("resnext-56-s2", f"{_RESNEXT}, stage 2, block 1", (1, 56, 56, 256), 3, 256, 32,
        stride=2),
    _grouped("resnext-14", f"{_RESNEXT}, stage 3", (1, 14, 14, 512), 3, 512, 32),
    _grouped("resnext-7", f"{_RESNEXT}, stage 4", (1, 7, 7, 1024), 3, 1024, 32),
    _grouped("resnext-14-bf16", f"{_RESNEXT}, stage 3", (1, 14, 14, 512), 3, 512, 32, **_BF16),
    _grouped("shufflenet-28", f"{_SHUFFLE}, stage 2, 1x1", (8, 28, 28, 240), 1, 60, 3),
    _grouped("shufflenet-14", f"{_SHUFFLE}, stage 3, 1x1", (8, 14, 14, 120), 1, 480, 3),
    _grouped("regnet-28", f"{_REGNET}, stage 2", (4, 28, 28, 64), 3, 64, 4),
    _grouped("regnet-14", f"{_REGNET}, stage 3", (4, 14, 14, 160), 3, 160, 10),
    _grouped("wav2vec2-pos", "wav2vec 2.0 Base, arXiv:2006.11477, positions, 2 s of speech",
        (1, 99, 768), 128, 768, 16, padding=64),
    _grouped("keras-20471", "github.com/keras-team/keras/issues/20471, batch 2 of 32",
        (2, 64, 64, 512), 1, 128, 2),
)  # fmt: skip

_DILATED = (
    _dilated("context-d2", f"{_CONTEXT}, layer 3", (1, 64, 64, 21), 3, 21, 2),
    _dilated("context-d16", f"{_CONTEXT}, layer 6", (1, 66, 66, 21), 3, 21, 16),
    _dilated("context-large-d4", f"{_CONTEXT}, layer 4, large", (1, 65, 65, 84), 3, 168, 4),
    _dilated("drn-d2", f"{_DRN}, group 5", (1, 28, 28, 256), 3, 256, 2),
    _dilated("drn-d4", f"{_DRN}, group 6", (1, 28, 28, 512), 3, 512, 4),
    _dilated("aspp-r6", f"{_ASPP}", (1, 33, 33, 512), 3, 256, 6),
    _dilated("aspp-r18", f"{_ASPP}", (1, 33, 33, 2048), 3, 256, 18),
    _dilated("aspp-r12-os8", f"{_ASPP}, output stride 8", (1, 65, 65, 256), 3, 256, 12),
    _dilated("espnet-d8", f"{_ESPNET}, spatial pyramid", (1, 64, 128, 25), 3, 25, 8),
    _dilated("dilated-56-d2", f"{_RESNET}, conv2 with its rate doubled", (1, 56, 56, 64), 3, 64, 2),
    _dilated("dilated-56-d2-bf16", f"{_RESNET}, conv2 with its rate doubled", (1, 56, 56, 64), 3,
        64, 2, **_BF16),
    _dilated("wavenet-d1", f"{_WAVENET}, layer 1", (1, 16000, 64), 2, 128, 1, padding="CAUSAL"),
    _dilated("wavenet-d32", f"{_WAVENET}, layer 6", (2, 8000, 64), 2, 128, 32, padding="CAUSAL"),
    _dilated("wavenet-d512", f"{_WAVENET}, layer 10", (1, 16000, 64), 2, 128, 512,
        padding="CAUSAL"),
    _dilated("tcn-d8", "TCN, arXiv:1803.01271, sequential MNIST", (8, 784, 25), 7, 25, 8,
        padding="CAUSAL"),
    _dilated("hifigan-mrf-d5", f"{_HIFIGAN}, residual block", (1, 1024, 128), 11, 128, 5),
    _dilated("highres3dnet-d2", "HighRes3DNet, arXiv:1707.01992, 32 of 96 voxels an axis",
        (1, 32, 32, 32, 32), 3, 32, 2),
    _dilated("strided-dilated", "github.com/keras-team/keras/pull/23181, of this kind",
        (2, 65, 65, 32), 3, 64, 3, stride=2),
)  # fmt: skip

_TRANSPOSED = (
    _transposed("unet-up-14", "U-Net, arXiv:1505.04597, up-convolution 1", (1, 14, 14, 1024), 2,
        512, 2, padding=0),
    _transposed("unet-up-28-nchw", "U-Net, arXiv:1505.04597, up-convolution 2", (1, 28, 28, 512),
        2, 256, 2,
        padding=0, **_FIRST),
    _transposed("dcgan-1", "DCGAN, arXiv:1511.06434, in PyTorch's examples, layer 1", (8, 1, 1,
        100), 4, 512, 1, padding=0),
    _transposed("dcgan-8", "DCGAN, arXiv:1511.06434, in PyTorch's examples, layer 3", (8, 8, 8,
        256), 4, 128, 2,
        padding=1),
    _transposed("dcgan-32", "DCGAN, arXiv:1511.06434, in PyTorch's examples, layer 5", (8, 32, 32,
        64), 4, 3, 2,
        padding=1),
    _transposed("fcn-k16s8", "FCN-8s, arXiv:1411.4038, last upsampling", (1, 20, 20, 21), 16, 21,
        8, padding=4),
    _transposed("cyclegan-k3s2", "CycleGAN generator, arXiv:1703.10593, upsampling", (1, 32, 32,
        128), 3, 64, 2,
        padding=((1, 0), (1, 0))),
    _transposed("hifigan-up1", f"{_HIFIGAN}, upsampling 1", (1, 32, 512), 16, 256, 8, padding=4),
    _transposed("hifigan-up3", f"{_HIFIGAN}, upsampling 3", (1, 1024, 128), 4, 64, 2, padding=1),
    _transposed("monai-unet-up", "MONAI UNet, up_kernel_size=3, second level", (1, 16, 16, 16, 64),
        3, 16, 2,
        padding=((1, 0),) * 3),
    _transposed("jax-31662", "github.com/jax-ml/jax/issues/31662, half the image",
        (1, 32, 32, 16, 64), 3, 1, 2, padding=((1, 0),) * 3, **_BF16, **_FIRST),
)  # fmt: skip

_DENSE = (
    _dense("resnet-stem", f"{_RESNET}, conv1", (1, 224, 224, 3), 7, 64, stride=2, padding=3),
    _dense("resnet-56", f"{_RESNET}, conv2, 3x3", (1, 56, 56, 64), 3, 64),
    _dense("resnet-56-b8", f"{_RESNET}, conv2, 3x3", (8, 56, 56, 64), 3, 64),
    _dense("resnet-56-nchw", f"{_RESNET}, conv2, 3x3", (1, 56, 56, 64), 3, 64, **_FIRST),
    _dense("resnet-56-bf16", f"{_RESNET}, conv2, 3x3", (1, 56, 56, 64), 3, 64, **_BF16),
    _dense("resnet-28-s2", f"{_RESNET}, conv3, block 1, 3x3", (1, 56, 56, 128), 3, 128, stride=2),
    _dense("resnet-14", f"{_RESNET}, conv4, 3x3", (4, 14, 14, 256), 3, 256),
    _dense("resnet-7", f"{_RESNET}, conv5, 3x3", (4, 7, 7, 512), 3, 512),
    _dense("resnet-2", f"{_RESNET}, conv5, 3x3, 64-pixel image", (4, 2, 2, 512), 3, 512),
    _dense("lenet-c5", "LeNet-5, LeCun et al. 1998, layer C5", (32, 5, 5, 16), 5, 120,
        padding="VALID"),
    _dense("dcgan-last", "DCGAN, arXiv:1511.06434, in PyTorch's examples, last of discriminator",
        (8, 4, 4, 512), 4, 1, padding="VALID"),
    _dense("resnet-1x1", f"{_RESNET}, conv2, expansion", (4, 56, 56, 64), 1, 256),
    _dense("resnet-1x1-s2", f"{_RESNET}, conv3, shortcut", (1, 56, 56, 256), 1, 512, stride=2),
    _dense("inception-stem", "Inception-v3, arXiv:1512.00567, first layer", (1, 299, 299, 3), 3, 32,
        stride=2, padding="VALID"),
    _dense("inception-1x7", "Inception-v3, arXiv:1512.00567, 17x17 module", (2, 17, 17, 192), (1,
        7), 192),
    _dense("vit-patch16", "ViT-Ti/16, arXiv:2010.11929, patch embedding", (1, 224, 224, 3), 16, 192,
        stride=16, padding="VALID"),
    _dense("convnext-patch4", f"{_CONVNEXT}, stem", (2, 224, 224, 3), 4, 96, stride=4,
        padding="VALID"),
    _dense("edsr-last", "EDSR, arXiv:1707.02921, last layer, to red, green and blue",
        (1, 96, 96, 64), 3, 3),
    _dense("pspnet-head", "PSPNet, arXiv:1612.01105, last 3x3, bfloat16", (1, 60, 60, 512), 3, 512,
        **_BF16),
    _dense("unet3d-32", f"{_UNET3D}, first level, 32 of 132 voxels an axis", (1, 32, 32, 32, 32),
        3, 64),
    _dense("r2plus1d-temporal", "R(2+1)D, arXiv:1711.11248, temporal part", (1, 8, 28, 28, 144),
        (3, 1, 1), 64),
    _dense("wav2vec2-feature", "wav2vec 2.0, arXiv:2006.11477, feature encoder, layer 2",
           (1, 3199, 512), 3, 512, stride=2, padding="VALID"),
    _dense("jax-12868", "github.com/jax-ml/jax/issues/12868, one turn of its loop",
           (1, 1024, 1000), 1, 1000, padding="VALID", **_FIRST),
    _dense("jax-5227", "github.com/jax-ml/jax/issues/5227, 128 of 300 samples an axis",
           (1, 128, 128, 1), 128, 1),
)  # fmt: skip

CASES: tuple[Case, ...] = (*_DEPTHWISE, *_GROUPED, *_DILATED, *_TRANSPOSED, *_DENSE)


def select(globs: str | None) -> tuple[Case, ...]:
    """The cases whose name or family one of the comma-separated globs matches; all if None.

    Raises:
      ValueError: for a glob that matches none.
    """
    if globs is None:
        return CASES
    chosen = set()
    for glob in globs.split(","):
        found = {
            c.name
            for c in CASES
            if fnmatch.fnmatch(c.name, glob) or fnmatch.fnmatch(c.family, glob)
        }
        if not found:
            msg = f"--cases: {glob!r} matches no case and no family; `run --list` shows them"
            raise ValueError(msg)
        chosen |= found
    return tuple(c for c in CASES if c.name in chosen)
