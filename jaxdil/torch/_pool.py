"""The pooling of torch.nn.functional: jaxdil's, with PyTorch's sizes and divisors.

    max_pool   y[n, c, p] = max_t x[n, c, s p + d t - padding]
    avg_pool   y[n, c, p] = sum_t x[n, c, s p + t - padding] / count[p]

A stride that is not given is the window. With ``ceil_mode`` a last window may reach beyond the
padding, as long as it starts before the end of it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Inexact, Real

from jaxdil._arguments import Ints
from jaxdil.torch._pooling import averages, maxima

__all__ = ["avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"]


def max_pool1d(
    input: Real[Array, "..."],
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Real[Array, "..."] | tuple[Real[Array, "..."], Real[Array, "..."]]:
    """Largest sample of each window: ``y[c, p] = max_t x[c, stride p + dilation t - padding]``.

    Where several samples are largest, the gradient goes to the first of them.

    Args:
      input: (N, C, W), or (C, W) without a batch; integers too.
      kernel_size: taps, >= 1; an int or a list of 1.
      stride: samples between neighbouring windows, >= 1; None means kernel_size.
      padding: samples that are never largest at either end; 0 to kernel_size / 2.
      dilation: samples between neighbouring taps, >= 1.
      ceil_mode: whether the number of windows is rounded up.
      return_indices: whether to return the places of the samples, too.

    Returns:
      y (N, C, P), or (C, P); and if asked for, the index of each sample in the flattened image.

    Raises:
      ValueError: where PyTorch raises: no window that fits, padding above half a window, an empty
        image, and numbers that cannot be.
      TypeError: for integers that are not, and arrays without an order.

    Cost: about ``2 N C P log2(kernel_size)`` comparisons.

    Twin of torch.nn.functional.max_pool1d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[3.0, 1, 4, 1, 5, 9, 2]])
    >>> jaxdil.torch.max_pool1d(x, 2)
    Array([[3., 4., 9.]], dtype=float32)
    >>> jaxdil.torch.max_pool1d(x, 2, ceil_mode=True, return_indices=True)[1]
    Array([[0, 2, 5, 6]], dtype=int32)
    """
    geometry = kernel_size, stride, padding, dilation
    options = {"ceil": ceil_mode, "indices": return_indices}
    return maxima("torch.max_pool1d", 1, input, geometry, **options)


def max_pool2d(
    input: Real[Array, "..."],
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Real[Array, "..."] | tuple[Real[Array, "..."], Real[Array, "..."]]:
    """Largest sample of each window over two axes: `max_pool1d`'s formula on both.

    Args:
      input: (N, C, H, W), or (C, H, W) without a batch; integers too.
      kernel_size: an int, or a list of 1 or 2, like the arguments below.
      stride: None means kernel_size.
      padding: 0 to kernel_size / 2.
      dilation: samples between neighbouring taps.
      ceil_mode: whether the number of windows is rounded up.
      return_indices: whether to return the places of the samples, too.

    Returns:
      y (N, C, P, Q), or (C, P, Q); and if asked for, the indices h W + w of the samples.

    Raises:
      ValueError: as `max_pool1d`.
      TypeError: as `max_pool1d`.

    Twin of torch.nn.functional.max_pool2d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> jaxdil.torch.max_pool2d(jnp.ones((2, 3, 9, 8)), 3, 2, 1, dilation=2).shape
    (2, 3, 4, 3)
    """
    geometry = kernel_size, stride, padding, dilation
    options = {"ceil": ceil_mode, "indices": return_indices}
    return maxima("torch.max_pool2d", 2, input, geometry, **options)


def max_pool3d(
    input: Real[Array, "..."],
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Real[Array, "..."] | tuple[Real[Array, "..."], Real[Array, "..."]]:
    """Largest sample of each window over three axes: `max_pool1d`'s formula on each.

    Args:
      input: (N, C, D, H, W), or (C, D, H, W) without a batch; integers too.
      kernel_size: an int, or a list of 1 or 3, like the arguments below.
      stride: None means kernel_size.
      padding: 0 to kernel_size / 2.
      dilation: samples between neighbouring taps.
      ceil_mode: whether the number of windows is rounded up.
      return_indices: whether to return the places of the samples, too.

    Returns:
      y (N, C, P, Q, R), or (C, P, Q, R); and if asked for, the indices (d H + h) W + w.

    Raises:
      ValueError: as `max_pool1d`.
      TypeError: as `max_pool1d`.

    Twin of torch.nn.functional.max_pool3d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> jaxdil.torch.max_pool3d(jnp.ones((3, 4, 9, 8)), (2, 3, 3), ceil_mode=True).shape
    (3, 2, 3, 3)
    """
    geometry = kernel_size, stride, padding, dilation
    options = {"ceil": ceil_mode, "indices": return_indices}
    return maxima("torch.max_pool3d", 3, input, geometry, **options)


def avg_pool1d(
    input: Inexact[Array, "..."],
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Inexact[Array, "..."]:
    """Mean of each window: ``y[c, p] = sum_t x[c, stride p + t - padding] / count[p]``.

    Args:
      input: (N, C, W), or (C, W) without a batch; floating-point.
      kernel_size: taps, >= 1; an int or a list of 1.
      stride: samples between neighbouring windows, >= 1; None means kernel_size.
      padding: zeros at either end; 0 to kernel_size / 2.
      ceil_mode: whether the number of windows is rounded up. What then lies beyond the padding
        never counts.
      count_include_pad: whether zeros of the padding count as samples.

    Returns:
      y (N, C, P), or (C, P). Half precision is summed in float32.

    Raises:
      ValueError: where PyTorch raises: no window that fits, padding above half a window, an empty
        image, and numbers that cannot be.
      TypeError: for integers that are not, and arrays of integers.

    Cost: about ``2 N C P log2(kernel_size)`` additions.

    Twin of torch.nn.functional.avg_pool1d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(1.0, 6.0).reshape(1, 5)
    >>> jaxdil.torch.avg_pool1d(x, 2, ceil_mode=True)
    Array([[1.5, 3.5, 5. ]], dtype=float32)
    """
    geometry = kernel_size, stride, padding, 1
    options = {"ceil": ceil_mode, "include_pad": count_include_pad, "divisor": None}
    return averages("torch.avg_pool1d", 1, input, geometry, **options)


def avg_pool2d(
    input: Inexact[Array, "..."],
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | np.integer | None = None,
) -> Inexact[Array, "..."]:
    """Mean of each window over two axes: `avg_pool1d`'s formula on both.

    Args:
      input: (N, C, H, W), or (C, H, W) without a batch; floating-point.
      kernel_size: an int, or a list of 1 or 2, like the arguments below.
      stride: None means kernel_size.
      padding: 0 to kernel_size / 2.
      ceil_mode: whether the number of windows is rounded up.
      count_include_pad: whether zeros of the padding count as samples.
      divisor_override: what to divide each sum by, in place of the count; not 0.

    Returns:
      y (N, C, P, Q), or (C, P, Q).

    Raises:
      ValueError: as `avg_pool1d`, and for a divisor of 0.
      TypeError: as `avg_pool1d`.

    Twin of torch.nn.functional.avg_pool2d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> jaxdil.torch.avg_pool2d(jnp.ones((1, 3, 3)), 3, padding=1, divisor_override=2)
    Array([[[2.]]], dtype=float32)
    """
    geometry = kernel_size, stride, padding, 1
    options = {"ceil": ceil_mode, "include_pad": count_include_pad, "divisor": divisor_override}
    return averages("torch.avg_pool2d", 2, input, geometry, **options)


def avg_pool3d(
    input: Inexact[Array, "..."],
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | np.integer | None = None,
) -> Inexact[Array, "..."]:
    """Mean of each window over three axes: `avg_pool1d`'s formula on each.

    Args:
      input: (N, C, D, H, W), or (C, D, H, W) without a batch; floating-point.
      kernel_size: an int, or a list of 1 or 3, like the arguments below.
      stride: None means kernel_size.
      padding: 0 to kernel_size / 2.
      ceil_mode: whether the number of windows is rounded up.
      count_include_pad: whether zeros of the padding count as samples.
      divisor_override: what to divide each sum by, in place of the count; not 0.

    Returns:
      y (N, C, P, Q, R), or (C, P, Q, R).

    Raises:
      ValueError: as `avg_pool2d`.
      TypeError: as `avg_pool1d`.

    Twin of torch.nn.functional.avg_pool3d, PyTorch 2.13.

    >>> import jax.numpy as jnp
    >>> jaxdil.torch.avg_pool3d(jnp.ones((1, 3, 4, 6, 8)), 2).shape
    (1, 3, 2, 3, 4)
    """
    geometry = kernel_size, stride, padding, 1
    options = {"ceil": ceil_mode, "include_pad": count_include_pad, "divisor": divisor_override}
    return averages("torch.avg_pool3d", 3, input, geometry, **options)
