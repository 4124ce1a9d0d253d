"""One convolution, everything static about it, canonical and hashable: all that choosing looks at.

    y[n, p, o] = sum_{t, i}  x~[n, s p + d t - lo, g I + i]  w[t, i, o]        g = o // (O / G)

with x~ the input, its samples spread ``input_dilation`` apart. Axes are channels last: x (N, *S,
C), w (*K, I, O), y (N, *P, O), C = G I. With batch groups B the batch, not the channels, is what is
split: output channel o reads batch block ``o // (O / B)``, and y has N / B rows. Only kernel
  gradients have that.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdil import _geometry

__all__ = ["Problem"]


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Everything static about one convolution. Every field is already canonical."""

    batch: int
    size: tuple[int, ...]
    channels: int
    kernel: tuple[int, ...]
    out_channels: int
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    batch_groups: int
    x_dtype: np.dtype
    w_dtype: np.dtype
    out_dtype: np.dtype
    precision: Any = None
    channels_first: bool = False
    """Whether the caller's image has its channels before its spatial axes in memory."""
    turned: bool = dataclasses.field(default=False, compare=False, repr=False)
    """Whether the kernel is, by the order of its axes, most likely another turned round, as a
    gradient by the input has it. Where a method turns it back, XLA cancels the two. No part of
    what the convolution is: two that differ in nothing else are the same one."""
    exchanged: bool = dataclasses.field(default=False, compare=False, repr=False)
    """Whether batch and channels are, by the order of the axes, most likely exchanged, as a
    gradient by the kernel has them; no part of what the convolution is either."""
    kernel_first: bool = dataclasses.field(default=False, compare=False, repr=False)
    """Whether the kernel has its channels before its spatial axes; no part of it either."""
    pooled: bool = dataclasses.field(default=False, compare=False, repr=False)
    """Whether only a pooling reads the output; no part of it either."""

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def group_channels(self) -> int:
        """I, the input channels each output reads."""
        return self.channels // self.groups

    @property
    def positions(self) -> tuple[int, ...]:
        """P, the spatial size of the output."""
        return tuple(
            _geometry.output_size(n, k, stride=s, dilation=d, padding=p, input_dilation=a)
            for n, k, s, d, p, a in zip(
                self.size,
                self.kernel,
                self.stride,
                self.dilation,
                self.padding,
                self.input_dilation,
                strict=True,
            )
        )

    @property
    def taps(self) -> int:
        """Positions in the kernel, over all axes."""
        return math.prod(self.kernel)

    @property
    def is_window(self) -> bool:
        """Whether the kernel has more taps than the output has positions: kernel gradients do."""
        return self.taps > math.prod(self.positions)

    @property
    def is_small(self) -> bool:
        """Whether the kernel has more taps than the image has samples, which are few."""
        return math.prod(self.size) < min(self.taps, 64)

    @property
    def sums_images(self) -> bool:
        """Whether it has the shape of a kernel gradient, whose channels are images."""
        return self.is_window and not self.is_small

    @property
    def padded(self) -> float:
        """How many times an image its padded one is."""
        sizes = zip(self.size, self.padding, strict=True)
        return math.prod((n + lo + hi) / n for n, (lo, hi) in sizes)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(N, *S, C)."""
        return (self.batch, *self.size, self.channels)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """(*K, I, O)."""
        return (*self.kernel, self.group_channels, self.out_channels)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(N / B, *P, O)."""
        return (self.batch // self.batch_groups, *self.positions, self.out_channels)

    @property
    def is_depthwise(self) -> bool:
        """Whether every group has one input channel."""
        return self.groups > 1 and self.group_channels == 1

    @property
    def is_empty(self) -> bool:
        """Whether input, kernel or output has no element."""
        return 0 in (*self.x_shape, *self.w_shape, *self.y_shape)

    @property
    def sum_dtype(self) -> np.dtype:
        """The dtype sums are kept in: half precision in float32, narrow integers in 32 bits."""
        dtype = self.out_dtype
        if dtype.itemsize >= 4 or jnp.issubdtype(dtype, jnp.complexfloating):
            return dtype
        if jnp.issubdtype(dtype, jnp.floating):
            return np.dtype(np.float32)
        signed = jnp.issubdtype(dtype, jnp.signedinteger)
        return np.dtype(np.int32 if signed else np.uint32)

    @property
    def flops(self) -> int:
        """Multiplications and additions that touch a sample, not an inserted zero or padding."""
        pairs = 1
        for n, k, p, s, d, (lo, _), a in zip(
            self.size,
            self.kernel,
            self.positions,
            self.stride,
            self.dilation,
            self.padding,
            self.input_dilation,
            strict=True,
        ):
            pairs *= _geometry.meetings(n, k, p, stride=s, dilation=d, lo=lo, input_dilation=a)
        each = 2 * self.group_channels * self.out_channels * (self.batch // self.batch_groups)
        return pairs * each

    @property
    def bytes(self) -> int:
        """Bytes of input, kernel and output, each once."""
        return (
            math.prod(self.x_shape) * self.x_dtype.itemsize
            + math.prod(self.w_shape) * self.w_dtype.itemsize
            + math.prod(self.y_shape) * self.out_dtype.itemsize
        )

    def replace(self, **changes: Any) -> Problem:
        """This problem with some fields changed."""
        return dataclasses.replace(self, **changes)
