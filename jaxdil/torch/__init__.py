"""Twins of ``torch.nn.functional``: PyTorch's names, argument order, defaults and numbers, in JAX.

    import jaxdil.torch as F        # instead of torch.nn.functional, and nothing else changes

A twin gives PyTorch 2.13's numbers and refuses what PyTorch refuses. Channels come first, and the
batch may be missing. Options that PyTorch has in its modules only are taken by keyword:
``padding_mode`` of a convolution, ``output_size`` of a transposed one.
"""

from jaxdil.torch._conv import conv1d, conv2d, conv3d
from jaxdil.torch._fold import fold, unfold
from jaxdil.torch._pad import pad
from jaxdil.torch._pixel import pixel_shuffle, pixel_unshuffle
from jaxdil.torch._pool import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from jaxdil.torch._transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
]
