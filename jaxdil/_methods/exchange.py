"""A convolution with x and w exchanged: where the input was dilated, it is the kernel then.

    y[b, t, o] = sum_{n, p} x~[b, (s t + p - lo) / a, n] w[p, n, o]
               = sum_{n, j} w[a j - s t + lo, n, o] x[b, j, n]

The kernel gradient of a transposed convolution has a dilated input and a window as large as an
image. That of an ordinary convolution of stride a is the same with the roles of input and cotangent
exchanged, along a reversed t; and for those libraries have kernels. Where the input is not dilated
it is the gradient of the same convolution, to outputs that were its input channels: better on a CPU
where those are the many.
"""

from __future__ import annotations

import jax
from jax import lax

from jaxdil import _geometry
from jaxdil._layout import transpose
from jaxdil._methods import Convolve
from jaxdil._plain import canonical
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs a window larger than the output, no dilation of the kernel, and whole channels."""
    if problem.is_empty:
        return "exchange: nothing to compute"
    if not problem.is_window:
        return "exchange: a window no larger than the output; 'phases' serves it"
    if problem.groups != 1:
        return "exchange: channels are split into groups"
    if any(d != 1 for d in problem.dilation):
        return "exchange: the kernel is dilated"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """With w as the image, and x as its dilated kernel."""
    rank, last = problem.rank, problem.rank + 1
    padding = []
    for axis, (n, k, p, s, a, (lo, _)) in enumerate(
        zip(
            problem.size,
            problem.kernel,
            problem.positions,
            problem.stride,
            problem.input_dilation,
            problem.padding,
            strict=True,
        )
    ):
        low = s * (p - 1) - lo
        high = s * (p - 1) + _geometry.dilated_size(n, a) - k - low
        start, stop, *pads = _geometry.crop_negative(k, 1, low, high)
        w = lax.slice_in_dim(w, start, stop, axis=axis)
        padding.append(tuple(pads))
    # (*P, N, O) as an image (O, *P, N), and (B, *S, N) as a kernel (*S, N, B). Where the batch is
    # split into groups, of a kernel gradient of groups, so are the outputs, in the same order.
    image = transpose(w, (last, *range(rank), rank))
    kernel = transpose(x, (*range(1, last + 1), 0))
    swapped = problem.replace(
        batch=problem.out_channels,
        size=image.shape[1:last],
        kernel=problem.size,
        out_channels=problem.batch,
        padding=tuple(padding),
        input_dilation=(1,) * rank,
        dilation=problem.input_dilation,
        x_dtype=problem.w_dtype,
        w_dtype=problem.x_dtype,
    )
    # A layer's NaN would be in the kernel, where it must not meet padding: XLA reads none of it.
    y = conv(image, kernel, swapped) if problem.exchanged else canonical(image, kernel, swapped)
    y = lax.rev(y, tuple(range(1, last)))
    groups = problem.batch_groups
    if groups == 1:
        return transpose(y, (last, *range(1, last), 0))
    # (o, *T, G i) -> (i, *T, G o)
    y = y.reshape(*y.shape[:-1], groups, -1)
    return transpose(y, (last + 1, *range(1, last + 1), 0)).reshape(problem.y_shape)
