"""A dilated convolution as undilated ones on every d-th sample, the phases stacked into the batch.

    y[d' q + r] = sum_t x[s r + d (s' q + t) - lo] w[t]      d' = d / g, s' = s / g, g = gcd(s, d)

Outputs of one residue r modulo d / g read one residue of the padded input modulo d, on which the
kernel is dense. This is how TensorFlow dilates (``tf.space_to_batch``), here right for any stride
and size. Costs two transposes of the image; earns them where a dilated window is slow and a dense
one is not.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# With a stride the phases overlap and are cut out one by one; this bounds the slices of an axis.
MOST_SLICES = 128


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs something to split, an input without inserted zeros and a batch that is not split."""
    if problem.is_empty:
        return "space_to_batch: nothing to compute"
    if any(a != 1 for a in problem.input_dilation):
        return "space_to_batch: the input is dilated; 'phases' serves it"
    if problem.batch_groups != 1:
        return "space_to_batch: the batch is split into groups; 'correlate' serves it"
    for s, d in zip(problem.stride, problem.dilation, strict=True):
        if s > 1 and d // math.gcd(s, d) > MOST_SLICES:
            return (
                f"space_to_batch: stride {s} and dilation {d} make more than {MOST_SLICES} phases"
            )
    return None


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Split each dilated axis into phases, convolve them all at once, interleave the outputs."""
    # Pad before splitting. A phase of the padded row equals a padded phase only when the dilation
    # divides the left padding; with dilation 2 and padding 1 the two phases swap places.
    x = lax.pad(
        x,
        jnp.zeros((), x.dtype),
        [(0, 0, 0), *((lo, hi, 0) for lo, hi in problem.padding), (0, 0, 0)],
    )
    counts, steps = [], []
    for i, (k, p, s, d) in enumerate(
        zip(problem.kernel, problem.positions, problem.stride, problem.dilation, strict=True)
    ):
        common = math.gcd(s, d)
        counts.append(d // common)
        steps.append(s // common)
        length = steps[-1] * (-(-p // counts[-1]) - 1) + k
        x = _split(x, 1 + 2 * i, counts[-1], length, stride=s, dilation=d)

    # (N, r1, i1, r2, i2, ..., C) -> (r1, r2, ..., N, i1, i2, ..., C): TensorFlow's order of the
    # batch.
    rank = problem.rank
    residues, samples = range(1, 2 * rank + 1, 2), range(2, 2 * rank + 2, 2)
    x = lax.transpose(x, (*residues, 0, *samples, 2 * rank + 1))
    x = x.reshape(-1, *x.shape[rank + 1 :])
    y = conv(
        x,
        w,
        problem.replace(
            batch=x.shape[0],
            size=x.shape[1:-1],
            stride=tuple(steps),
            padding=((0, 0),) * rank,
            dilation=(1,) * rank,
        ),
    )
    y = y.reshape(*counts, problem.batch, *y.shape[1:])
    pairs = [axis for i in range(rank) for axis in (rank + 1 + i, i)]
    y = lax.transpose(y, (rank, *pairs, 2 * rank + 1))
    y = y.reshape(
        problem.batch,
        *(y.shape[1 + 2 * i] * y.shape[2 + 2 * i] for i in range(rank)),
        problem.out_channels,
    )
    return lax.slice(y, (0,) * y.ndim, problem.y_shape)


def _split(
    x: jax.Array, axis: int, count: int, length: int, *, stride: int, dilation: int
) -> jax.Array:
    """Axis -> (count, length): row r holds the samples ``stride * r + dilation * i``."""
    if count == 1:
        return jnp.expand_dims(
            lax.slice_in_dim(x, 0, dilation * (length - 1) + 1, dilation, axis), axis
        )
    if stride == 1:
        x = _fit(x, axis, length * dilation)
        x = x.reshape(*x.shape[:axis], length, dilation, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis + 1, axis)
    x = _fit(x, axis, stride * (count - 1) + dilation * (length - 1) + 1)
    rows = [
        lax.slice_in_dim(x, stride * r, stride * r + dilation * (length - 1) + 1, dilation, axis)
        for r in range(count)
    ]
    return jnp.stack(rows, axis)


def _fit(x: jax.Array, axis: int, size: int) -> jax.Array:
    """The axis cut or zero-filled at its end to ``size``; samples there reach no kept output."""
    x = lax.slice_in_dim(x, 0, min(size, x.shape[axis]), axis=axis)
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), widths)
