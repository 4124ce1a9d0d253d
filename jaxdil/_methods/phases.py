"""A convolution of a dilated input without its zeros, one phase of the output at a time.

    y[A q + r] = sum_u x[s' q + d' u - lo_r] w[t_r + a' u]        (see _geometry.phases)

Transposed convolutions and the input gradients of strided ones arrive with samples spread a apart.
An output meets only the taps that fall on a sample, 1 in a; outputs of one residue r meet the same
ones, and together they are an ordinary convolution of the undilated input with every a'-th tap.
Phases that read the same samples become further output channels of a single convolution: all of
them where stride = kernel (patch embeddings, 2x2 up-convolutions), two halves of them where a
kernel of 16 goes in steps of 8.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxdil._geometry import Phase, crop_negative
from jaxdil._geometry import phases as phases_of
from jaxdil._layout import pad
from jaxdil._methods import Convolve
from jaxdil._problem import Problem

__all__ = ["apply", "supports"]

# Convolutions written out for one call. More phases than this compile slowly.
MOST_PHASES = 64


def supports(problem: Problem, platform: str | None) -> str | None:  # noqa: ARG001 - plain XLA
    """Needs a dilated input, a batch that is not split, and few enough phases."""
    if all(a == 1 for a in problem.input_dilation):
        return "phases: the input is not dilated, there is one phase only"
    if problem.batch_groups != 1:
        return "phases: the batch is split into groups; 'correlate' serves it"
    if problem.is_empty:
        return "phases: nothing to compute"
    separate = math.prod(len(_joined(axis)) for axis in _axes(problem))
    if separate > MOST_PHASES:
        return f"phases: {separate} separate phases, more than {MOST_PHASES}"
    return None


def _axes(problem: Problem) -> list[list[Phase]]:
    return [
        phases_of(k, p, stride=s, dilation=d, input_dilation=a, lo=lo)
        for k, p, s, d, a, (lo, _) in zip(
            problem.kernel,
            problem.positions,
            problem.stride,
            problem.dilation,
            problem.input_dilation,
            problem.padding,
            strict=True,
        )
    ]


def _joined(axis: list[Phase]) -> list[list[Phase]]:
    """The phases of an axis in order, those together that read the same samples, tap for tap."""
    return [list(same) for _, same in itertools.groupby(axis, lambda p: (p.taps, p.lo))]


def apply(x: jax.Array, w: jax.Array, problem: Problem, conv: Convolve) -> jax.Array:
    """Convolve phase by phase and interleave."""
    axes = _axes(problem)
    if problem.groups > 1:
        x, problem = _padded(x, axes, problem, conv)
        axes = _axes(problem)
    entries = [_joined(axis) for axis in axes]
    parts = [_part(x, w, problem, chosen, conv) for chosen in itertools.product(*entries)]
    # Each part is (N, q1, r1, q2, r2, ..., O), so whole rows of channels are interleaved. The last
    # axis # of entries varies fastest.
    for i in reversed(range(problem.rank)):
        n = len(entries[i])
        parts = [lax.concatenate(parts[j : j + n], 2 + 2 * i) for j in range(0, len(parts), n)]
    (y,) = parts
    merged = (y.shape[1 + 2 * i] * y.shape[2 + 2 * i] for i in range(problem.rank))
    y = y.reshape(problem.batch, *merged, problem.out_channels)
    return lax.slice(y, (0,) * y.ndim, problem.y_shape)


def _padded(
    x: jax.Array, axes: list[list[Phase]], problem: Problem, conv: Convolve
) -> tuple[jax.Array, Problem]:
    """The image padded once for all phases, where each would pad it, and what is left to do."""
    pads = []
    for axis, n, positions in zip(axes, problem.size, problem.positions, strict=True):
        reaching = [phase for phase in axis if phase.taps]
        lo = max((phase.lo for phase in reaching), default=0)
        hi = max((_reach(phase, positions) - n - phase.lo for phase in reaching), default=0)
        pads.append((max(lo, 0), max(hi, 0)))
    if not any(lo or hi for lo, hi in pads):
        return x, problem
    widths = [(0, 0, 0), *((lo, hi, 0) for lo, hi in pads), (0, 0, 0)]
    x = pad(x, widths, lines=conv.in_lines)
    padding = tuple(
        (lo - a * before, hi - a * after)
        for (lo, hi), (before, after), a in zip(
            problem.padding, pads, problem.input_dilation, strict=True
        )
    )
    return lax.optimization_barrier(x), problem.replace(size=x.shape[1:-1], padding=padding)


def _reach(phase: Phase, positions: int) -> int:
    """How many samples the outputs of a phase read between the first and the last."""
    count = -(-positions // phase.step)
    return phase.stride * (count - 1) + phase.dilation * (phase.taps - 1) + 1


def _part(
    x: jax.Array,
    w: jax.Array,
    problem: Problem,
    chosen: tuple[list[Phase], ...],
    conv: Convolve,
) -> jax.Array:
    """The outputs of phases that read the same samples: (N, q1, r1, ..., O)."""
    rank, groups = problem.rank, problem.groups
    counts = [-(-p // axis[0].step) for p, axis in zip(problem.positions, chosen, strict=True)]
    together = [len(axis) for axis in chosen]
    if any(axis[0].taps == 0 for axis in chosen):
        pairs = itertools.chain(*zip(counts, together, strict=True))
        return jnp.zeros((problem.batch, *pairs, problem.out_channels), problem.out_dtype)

    # Phases become output channels: w (*K, I, G, o) -> (*U, I, G, r1, r2, ..., o).
    w = w.reshape(*w.shape[:-1], groups, -1)
    sizes, paddings = [], []
    for i, axis in enumerate(chosen):
        first = axis[0]
        n, reach = problem.size[i], _reach(first, problem.positions[i])
        start, stop, lo, hi = crop_negative(n, 1, first.lo, reach - n - first.lo)
        x = lax.slice_in_dim(x, start, stop, axis=1 + i)
        sizes.append(stop - start)
        paddings.append((lo, hi))
        taps = [
            lax.slice_in_dim(w, p.tap, p.tap + p.tap_step * (p.taps - 1) + 1, p.tap_step, axis=i)
            for p in axis
        ]
        w = jnp.stack(taps, axis=-2)
    w = w.reshape(*w.shape[: rank + 1], -1)
    y = conv(
        x,
        w,
        problem.replace(
            size=tuple(sizes),
            kernel=w.shape[:rank],
            out_channels=w.shape[-1],
            stride=tuple(axis[0].stride for axis in chosen),
            dilation=tuple(axis[0].dilation for axis in chosen),
            padding=tuple(paddings),
            input_dilation=(1,) * rank,
        ),
    )
    y = y.reshape(problem.batch, *counts, groups, *together, -1)
    pairs = itertools.chain(*((1 + i, rank + 2 + i) for i in range(rank)))
    y = lax.transpose(y, (0, *pairs, rank + 1, 2 * rank + 2))
    return y.reshape(*y.shape[: 2 * rank + 1], problem.out_channels)
