"""A convolution as a sum of shifted slices, one for each tap of the kernel.

    y[n, p, o] = sum_t  x[n, s p + d t - lo, :] @ w[t, :, o]

One multiply-add a tap where the kernel is depthwise or its groups are narrow, one matrix product a
tap otherwise. No patch is ever written: the compiler makes one vectorised loop of a depthwise sum.
A TPU is given zeros between the samples of a dilated input, which its matrix unit does not mind.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil._layout import cut, pad
from jaxdil._loop import repeat
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Slices written out in one sum: where each is a multiply-add, and where it is a matrix product or
# the sum a pass of a loop. Beyond, an axis of the kernel runs in a loop: a sum of a hundred slices
# takes long to compile and spills every register. On a CPU 5x5 is one sum too: as fast as a loop on
# some processors, faster on others. 7x7 is better in a loop.
LOOP, UNROLL = 16, 64
LOOP_ON_CPU = 25
# Products of one sum on a CPU where an output has several input channels. With more of them every
# register is spilled; in a loop the output is read and written again for each pass.
PRODUCTS = 100

# How many times an image its padded one is, from which on a CPU pads none.
PADDED = 2.5

# Input channels a group up to which they are multiplied one by one. Beyond, matrix products pay.
NARROW = 8


def supports(problem: Problem, platform: str | None) -> str | None:
    """Needs something to sum, no zeros inserted (but on a TPU), and a batch that is not split."""
    if problem.is_empty:
        return "taps: nothing to compute"
    zeros = platform == "tpu" and problem.groups == 1
    if any(a != 1 for a in problem.input_dilation) and not zeros:
        return "taps: the input is dilated, most taps would meet inserted zeros; 'phases' serves it"
    if problem.batch_groups != 1:
        return "taps: the batch is split into groups; 'correlate' serves it"
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """The sum over taps, chunk by chunk where there are many."""
    if conv.platform == "tpu" and _is_line(problem):
        return _line(x, w, problem, conv)
    multiplied = _by_multiplication(problem)
    if multiplied:
        # Half precision once, and not once for every tap: half the time, and less to compile.
        x, w = x.astype(problem.sum_dtype), w.astype(problem.sum_dtype)
    most = _most(problem, conv) if multiplied else UNROLL
    if multiplied and conv.platform == "cpu":
        # As it lies in memory; on a TPU this would move it. In input gradients of groups it lies in
        # another order than the sum reads it, and left alone XLA gathers it number by number.
        w = w.reshape(-1) if problem.taps <= most else w.reshape(*problem.kernel, -1)
        w = w if _is_apart(problem) else lax.optimization_barrier(w)
    # As the caller has it, channels first: images are what lies close in memory.
    first = problem.channels_first and _is_apart(problem) and conv.platform != "tpu"
    if first:
        x = jnp.moveaxis(x, -1, 1)
    if conv.platform == "cpu" and _is_apart(problem) and _is_mostly_padding(problem):
        return _without_padding(x, w, problem, axis=2 if first else 1)
    apart = max(problem.input_dilation, default=1) > 1
    if apart or any(lo or hi for lo, hi in problem.padding):
        pairs = zip(problem.padding, problem.input_dilation, strict=True)
        pads = [(0, 0, 0), *((lo, hi, a - 1) for (lo, hi), a in pairs)]
        pads.insert(1 if first else len(pads), (0, 0, 0))
        x = pad(x, pads, lines=conv.in_lines)
        # Left alone, XLA fuses the padding into the loop as a comparison and a select per load. On
        # a TPU a matrix product reads the padding for nothing, and the padded image need not be
        # written.
        if conv.platform != "tpu" or multiplied:
            x = lax.optimization_barrier(x)
    if conv.platform == "cpu" and problem.groups > 1 and not multiplied:
        return _products(x, w, problem)
    y_shape = problem.y_shape
    if not first:
        y = _add(None, (), w, problem, most, functools.partial(_term, x, problem=problem), y_shape)
        return y.astype(problem.out_dtype)

    def term(start: Sequence[Any], row: jax.Array) -> jax.Array:
        window = _window(x, start, problem, axis=2)
        return _times(window, row, 1)

    y_shape = (y_shape[0], y_shape[-1], *y_shape[1:-1])
    y = _add(None, (), w, problem, most, term, y_shape).astype(problem.out_dtype)
    return jnp.moveaxis(y, 1, -1)


def _most(problem: Problem, conv: Convolve) -> int:
    """Multiply-adds that are written out as one sum, in taps."""
    if conv.platform != "cpu":
        return LOOP
    if problem.group_channels == 1:
        return LOOP_ON_CPU
    return max(LOOP_ON_CPU, PRODUCTS // problem.group_channels)


def _is_line(problem: Problem) -> bool:
    """Whether there are taps of the first axis alone, which a TPU would lay out as the last."""
    if problem.rank < 3 or problem.groups != 1 or problem.size[0] % 8 or problem.size[-1] % 8 == 0:
        return False
    fields = (problem.kernel, problem.stride, problem.padding, problem.input_dilation)
    return all(each == (1, 1, (0, 0), 1) for each in list(zip(*fields, strict=True))[1:])


def _line(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """In 1-D, all other axes being the batch."""
    x = jnp.moveaxis(x, 1, -2)
    line = problem.replace(
        batch=math.prod(x.shape[:-2]),
        size=problem.size[:1],
        kernel=problem.kernel[:1],
        stride=problem.stride[:1],
        padding=problem.padding[:1],
        input_dilation=problem.input_dilation[:1],
        dilation=problem.dilation[:1],
    )
    y = apply(x.reshape(line.x_shape), w.reshape(line.w_shape), line, conv)
    return jnp.moveaxis(y.reshape(*x.shape[:-2], *y.shape[1:]), -2, 1)


def _is_apart(problem: Problem) -> bool:
    """Whether each output channel is of an input channel of its own."""
    return problem.channels == problem.groups == problem.out_channels


def _is_mostly_padding(problem: Problem) -> bool:
    """Whether a padded image would be several times the image, as wide dilations make it."""
    return problem.padded >= PADDED and problem.taps <= LOOP_ON_CPU


def _without_padding(x: jax.Array, w: jax.Array, problem: Problem, axis: int) -> jax.Array:
    """Each tap is added to those outputs alone for which it meets a sample, and not padding.

    The spatial axes of x begin at ``axis``; channels are last, or second.
    """
    channels = 1 if axis == 2 else x.ndim - 1
    shape = [*x.shape[:axis], *problem.positions, *x.shape[axis + problem.rank :]]
    y = jnp.zeros(shape, x.dtype)
    rows = lax.split(w.reshape(-1), (w.size // problem.taps,) * problem.taps)
    for row, tap in zip(rows, np.ndindex(problem.kernel), strict=True):
        start, first, stop, last = [0] * x.ndim, [0] * x.ndim, list(x.shape), list(shape)
        steps = [1] * x.ndim
        for i, (t, n, p, s, d, (lo, _)) in enumerate(
            zip(
                tap,
                problem.size,
                problem.positions,
                problem.stride,
                problem.dilation,
                problem.padding,
                strict=True,
            ),
            start=axis,
        ):
            # Output q meets sample s q + d t - lo.
            first[i] = max(-((d * t - lo) // s), 0)
            last[i] = min((n - 1 + lo - d * t) // s + 1, p)
            start[i] = s * first[i] + d * t - lo
            stop[i], steps[i] = start[i] + s * (last[i] - first[i] - 1) + 1, s
        if all(begin < end for begin, end in zip(first, last, strict=True)):
            part = lax.slice(x, start, stop, steps)
            spread = lax.broadcast_in_dim(row, part.shape, (channels,))
            sums = lax.slice(y, first, last) + part * spread
            y = lax.dynamic_update_slice(y, sums, first)
    y = y.astype(problem.out_dtype)
    return jnp.moveaxis(y, 1, -1) if axis == 2 else y


def _products(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """A matrix product a group and tap, of x (N, *S, C) that is padded; groups come first."""
    groups, inner = problem.groups, problem.group_channels
    x = x.reshape(*x.shape[:-1], groups, inner)
    x = lax.transpose(x, (x.ndim - 2, *range(x.ndim - 2), x.ndim - 1))
    # Left alone, XLA brings the groups first in every tap's slice anew.
    x = lax.optimization_barrier(x)

    def term(start: Sequence[Any], row: jax.Array) -> jax.Array:
        window = _window(x, start, problem, axis=2).reshape(groups, -1, inner)
        row = row.reshape(inner, groups, -1)
        return _product(window, row, ((2,), (0,)), ((0,), (1,)), problem)

    y_shape = (groups, math.prod(problem.y_shape[:-1]), problem.out_channels // groups)
    y = _add(None, (), w, problem, UNROLL, term, y_shape)
    y = jnp.moveaxis(y.astype(problem.out_dtype), 0, 1)
    return y.reshape(problem.y_shape)


def _add(
    y: jax.Array | None,
    at: tuple[Any, ...],
    w: jax.Array,
    p: Problem,
    most: int,
    term: Callable[[Sequence[Any], jax.Array], jax.Array],
    y_shape: tuple[int, ...],
) -> jax.Array:
    """Add the taps that begin with ``at`` to y, in a loop if they are more than ``most``."""
    rest = p.kernel[len(at) :]
    taps = math.prod(rest)
    if taps <= most:
        # Of a flat kernel all rows in one operation, which is traced and lowered once.
        rows = lax.split(w, (w.size // taps,) * taps) if w.ndim == 1 else None
        for i, others in enumerate(np.ndindex(rest)):
            tap = (*at, *others)
            start = [t if d == 1 else t * d for t, d in zip(tap, p.dilation, strict=True)]
            part = term(start, rows[i] if rows else _row(w, tap))
            y = part if y is None else lax.add(y, part)
        assert y is not None
        return y
    # A pass takes one position of the first axis that is left, or so many that they make a sum.
    row = taps // rest[0]
    block = 1 if row >= 5 else -(-rest[0] // -(-taps // UNROLL))
    looped = rest[0] - rest[0] % block

    def add_block(i: jax.Array, y: jax.Array) -> jax.Array:
        first = i if block == 1 else i * block
        for t in range(block):
            y = _add(y, (*at, first + t if t else first), w, p, UNROLL, term, y_shape)
        return y

    y = jnp.zeros(y_shape, p.sum_dtype) if y is None else y
    y = repeat(looped // block, add_block, y)
    for t in range(looped, rest[0]):
        y = _add(y, (*at, t), w, p, UNROLL, term, y_shape)
    return y


def _row(w: jax.Array, at: tuple[Any, ...]) -> jax.Array:
    """The kernel of one tap, (I, O) or (I O) after some axes of one."""
    ones, rest = (1,) * len(at), w.shape[len(at) :]
    start = (*at, *(0,) * len(rest))
    if all(isinstance(t, int) for t in at):
        return cut(w, start, (*(t + 1 for t in at), *rest), (1,) * w.ndim)
    # One slice for each tap: slices of one of several are no longer a single loop.
    return lax.dynamic_slice(w, _unsigned(start), ones + rest)


def _unsigned(at: Sequence[Any]) -> list[Any]:
    """Indices of one dtype, which a slice asks for."""
    return [np.uint32(n) if isinstance(n, int) else n for n in at]


def _by_multiplication(problem: Problem) -> bool:
    """Whether channels are multiplied one by one, and not by matrix products."""
    if problem.groups == 1:
        return problem.channels == problem.out_channels == 1
    return problem.group_channels <= NARROW


def _window(x: jax.Array, start: Sequence[Any], problem: Problem, *, axis: int) -> jax.Array:
    """What a tap reads of x, whose spatial axes begin at ``axis``, from ``start`` on."""
    extent = [s * (p - 1) + 1 for s, p in zip(problem.stride, problem.positions, strict=True)]
    before, after = x.shape[:axis], x.shape[axis + problem.rank :]
    steps = (*(1,) * axis, *problem.stride, *(1,) * len(after))
    first = (*(0,) * axis, *start, *(0,) * len(after))
    shape = (*before, *extent, *after)
    if all(isinstance(at, int) for at in start):
        stop = [at + e for at, e in zip(first, shape, strict=True)]
        return cut(x, first, stop, steps)
    window = lax.dynamic_slice(x, _unsigned(first), shape)
    return cut(window, (0,) * window.ndim, window.shape, steps)


def _term(x: jax.Array, start: Sequence[Any], row: jax.Array, problem: Problem) -> jax.Array:
    """One tap's part of y (N, *P, O): the slice that begins at ``start``, times its kernel."""
    window = _window(x, start, problem, axis=1)
    groups, inner = problem.groups, problem.group_channels
    if _is_apart(problem):
        return _times(window, row, window.ndim - 1)
    if groups == 1:
        row = row.reshape(row.shape[-2:])
        return _product(window, row, ((window.ndim - 1,), (0,)), ((), ()), problem)
    window = window.reshape(*window.shape[:-1], groups, inner)
    row = row.reshape(inner, groups, -1)
    if _by_multiplication(problem):
        y = functools.reduce(jnp.add, [_outer(window[..., i], row[i]) for i in range(inner)])
    else:
        last = window.ndim - 1
        y = _product(window, row, ((last,), (0,)), ((last - 1,), (1,)), problem)
        y = jnp.moveaxis(y, 0, -2)
    return y.reshape(problem.y_shape)


def _times(window: jax.Array, row: jax.Array, channels: int) -> jax.Array:
    """One multiply-add a sample. lax's own operations: 49 times over, jnp's take long to trace."""
    row = lax.reshape(row, row.shape[-1:])
    return lax.mul(window, lax.broadcast_in_dim(row, window.shape, (channels,)))


def _outer(window: jax.Array, row: jax.Array) -> jax.Array:
    """(..., G) and (G, o) -> (..., G, o)."""
    shape = (*window.shape, row.shape[-1])
    spread = lax.broadcast_in_dim(window, shape, tuple(range(window.ndim)))
    return spread * lax.broadcast_in_dim(row, shape, (window.ndim - 1, window.ndim))


def _product(a: jax.Array, b: jax.Array, contract: Any, batch: Any, problem: Problem) -> jax.Array:
    return lax.dot_general(
        a,
        b,
        (contract, batch),
        precision=problem.precision,
        preferred_element_type=problem.sum_dtype,
    )
