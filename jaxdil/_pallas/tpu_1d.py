"""Depthwise convolution along one axis on a TPU: the convolution, and the gradient by its kernel.

    y[n, p, c] = sum_j  x~[n, p + d j - lo, c] w[j, c]
    dw[j, c]   = sum_{n, p}  x~[n, p + d j - lo, c] g[n, p, c]

A step of the grid has one block and goes through it 128 channels at a time. It writes block and
halos to a window in float32, one row below the other, for each example of the block one, and what
is outside of x as zeros; from there a tap is a load at its own row. So x is read once, but for the
halos, nothing is padded or copied in the memory of the chip, and the input gradient is the
convolution with the kernel flipped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdil._pallas import lying_1d
from jaxdil._pallas.axes import LANES, SUBLANES
from jaxdil._pallas.narrow import narrow
from jaxdil._pallas.plan_1d import Plan
from jaxdil._pallas.varying import like

__all__ = ["convolution", "kernel_gradient"]

# Rows that are loaded, summed and stored together, at the most.
CHUNK = 128

# Where a step of the grid is: example, time, channels.
At = Callable[..., tuple[Any, Any, Any]]


@narrow
def convolution(
    x: jax.Array,
    w: jax.Array,
    plan: Plan,
    *,
    dtype: Any,
    bits: jax.Array | None = None,
    past: jax.Array | None = None,
    interpret: Any = False,
) -> jax.Array:
    """(N, P, C) in ``dtype`` of x (N, T, C) and w (K, C), each as it lies in memory.

    Where ``bits`` (N, P) are given, tap j counts for a frame whose bit j is set. Where the plan is
    resumed, ``past`` (N, lo, C) are the frames before the first.
    """

    def at(n: Any, c: Any, t: Any) -> tuple[Any, Any, Any]:
        return n, t, c

    windows = _windows(plan, at)
    return pl.pallas_call(
        functools.partial(_convolve, plan=plan, views=_views(interpret)),
        grid=plan.blocks,
        in_specs=[
            *windows,
            pl.BlockSpec((plan.taps, plan.lanes), lambda n, c, t: (0, c)),  # noqa: ARG005
            *_mask_spec(plan, at),
            *_past_spec(plan),
        ],
        out_specs=_spec(plan, at),
        out_shape=like(x, lying_1d.shape(plan, plan.positions), dtype),
        scratch_shapes=_scratch(plan),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
        cost_estimate=_cost(plan, x.dtype, dtype),
        name="jaxdil_depthwise_1d",
        interpret=interpret,
    )(*[x] * len(windows), w, *_in_blocks(bits, plan), *([] if past is None else [past]))


@narrow
def kernel_gradient(
    x: jax.Array,
    g: jax.Array,
    plan: Plan,
    *,
    dtype: Any,
    bits: jax.Array | None = None,
    interpret: Any = False,
) -> jax.Array:
    """(K, C) in ``dtype`` of x (N, T, C) and g (N, P, C) as they lie; ``bits`` as above."""
    batch, channels, time = plan.blocks

    def at(c: Any, n: Any, t: Any) -> tuple[Any, Any, Any]:
        return n, t, c

    windows = _windows(plan, at)
    return pl.pallas_call(
        functools.partial(_correlate, plan=plan, views=_views(interpret)),
        grid=(channels, batch, time),
        in_specs=[
            *windows,
            _spec(plan, at),
            *_mask_spec(plan, at),
        ],
        out_specs=pl.BlockSpec((plan.taps, plan.lanes), lambda c, n, t: (0, c)),  # noqa: ARG005
        out_shape=like(x, (plan.taps, plan.channels), dtype),
        scratch_shapes=[*_scratch(plan), pltpu.VMEM((plan.taps, 8, plan.lanes), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=_cost(plan, x.dtype, g.dtype),
        name="jaxdil_depthwise_1d_kernel_gradient",
        interpret=interpret,
    )(*[x] * len(windows), g, *_in_blocks(bits, plan))


def _views(interpret: Any) -> bool:
    """Whether a block can be seen as words: by the compiler, not by interpreters of older JAX."""
    return not interpret


def _cost(plan: Plan, x_dtype: Any, y_dtype: Any) -> pl.CostEstimate:
    return pl.CostEstimate(
        flops=2 * plan.batch * plan.channels * plan.positions * plan.taps,
        bytes_accessed=plan.bytes(jnp.dtype(x_dtype).itemsize, jnp.dtype(y_dtype).itemsize),
        transcendentals=0,
    )


# --- the window -----------------------------------------------------------------------------------


def _spec(plan: Plan, at: At) -> pl.BlockSpec:
    """The block of a step."""
    return pl.BlockSpec(
        lying_1d.block(plan, plan.rows), lambda *step: lying_1d.place(plan, *at(*step))
    )


def _windows(plan: Plan, at: At) -> list[pl.BlockSpec]:
    """The blocks of x for a step: the halo before, the block itself, the halo after.

    Beyond the ends of x it is some other block, of which nothing is used.
    """

    def spec(rows: int, shift: int) -> pl.BlockSpec:
        last, times = (plan.size - 1) // rows, plan.rows // rows

        def index(*step: Any) -> tuple[Any, ...]:
            n, t, c = at(*step)
            return lying_1d.place(plan, n, jnp.clip(t * times + shift, 0, last), c)

        return pl.BlockSpec(lying_1d.block(plan, rows), index)

    if plan.alone:
        return [spec(plan.rows, 0)]
    specs = [spec(plan.before, -1)] if plan.before else []
    specs.append(spec(plan.rows, 0))
    if plan.after:
        specs.append(spec(plan.after, plan.rows // plan.after))
    return specs


def _past_spec(plan: Plan) -> list[pl.BlockSpec]:
    """The frames before the first, for whichever block."""
    block = (1, plan.lo, plan.lanes)
    return [pl.BlockSpec(block, lambda n, c, t: (n, 0, c))] if plan.resumed else []  # noqa: ARG005


def _fill(
    z: Any, refs: list[Any], lane: int, t: Any, plan: Plan, *, views: bool, past: Any = None
) -> None:
    """Write the windows of 128 channels of the t-th block of the examples of a step."""
    start = plan.before if plan.alone else 0
    for ref in refs:
        rows = lying_1d.frames(plan, ref)
        for at in range(0, rows, CHUNK):
            count = min(CHUNK, rows - at)
            parts = lying_1d.load(ref, plan, at, count, lane, views=views)
            for example, part in enumerate(parts):
                z[example, start + at : start + at + count, :] = part
        start += rows
    if past is not None:

        @pl.when(t == 0)
        def _() -> None:
            part = past[0, :, lane : lane + LANES].astype(jnp.float32)
            z[0, plan.before - plan.lo : plan.before, :] = part

    # Zeros where an output reads padding. What no output reads may be anything.
    for block, first, stop in plan.padded:

        @pl.when(t == block)
        def _(first: int = first, stop: int = stop) -> None:
            z[:, first:stop, :] = jnp.zeros((plan.abreast, stop - first, LANES), jnp.float32)


# --- masks ----------------------------------------------------------------------------------------


def _mask_spec(plan: Plan, at: At) -> list[pl.BlockSpec]:
    def index(*step: Any) -> tuple[Any, ...]:
        n, t, _ = at(*step)
        return n, 0, t

    return [pl.BlockSpec((1, 1, plan.rows), index)] if plan.masked else []


def _in_blocks(bits: jax.Array | None, plan: Plan) -> list[jax.Array]:
    """The bits (N, 1, P) in whole blocks: time lies in the lanes, so a frame takes four bytes."""
    if bits is None:
        return []
    missing = plan.blocks[2] * plan.rows - plan.positions
    return [jnp.pad(bits, [(0, 0), (0, missing)])[:, None]]


def _scratch(plan: Plan) -> list[Any]:
    """The windows of the examples of a step, and for each tap a mask of the block."""
    window = pltpu.VMEM((plan.abreast, plan.window, LANES), jnp.float32)
    mask = pltpu.VMEM((plan.taps, plan.rows, LANES), jnp.int32)
    return [window, mask] if plan.masked else [window]


def _spread(mask: Any, bits: Any, plan: Plan) -> None:
    """Turn the bits of a block into words of ones or zeros, the same in all lanes of a row."""
    for at in range(0, plan.rows, LANES):
        row = bits[0, :, at : at + LANES]
        square = jnp.broadcast_to(row, (LANES, row.shape[1])).T
        for j in range(plan.taps):
            word = lax.shift_right_arithmetic(square << (31 - j), jnp.full_like(square, 31))
            mask[j, at : at + row.shape[1], :] = word


def _masked(term: jax.Array, mask: Any, tap: int, row: Any) -> jax.Array:
    """A term where its bit is set, else zero, whatever it is."""
    words = lax.bitcast_convert_type(term, jnp.int32) & mask[tap, pl.ds(row, term.shape[0]), :]
    return lax.bitcast_convert_type(words, jnp.float32)


def _chunk(plan: Plan) -> int:
    """Rows of a chunk: 16 registers of one example, 32 of several."""
    return min(CHUNK, max(2 * CHUNK // plan.abreast, SUBLANES), plan.rows)


def _chunks(stop: int, rows: int, body: Callable[[Any, int, Any], Any], init: Any = None) -> Any:
    """Go through the rows below ``stop``, a chunk at a time: ``body(first row, rows, carry)``."""

    def step(i: Any, carry: Any) -> Any:
        return body(pl.multiple_of(i * rows, rows), rows, carry)

    return lax.fori_loop(np.int32(0), np.int32(stop // rows), step, init)


# --- kernels --------------------------------------------------------------------------------------


def _convolve(*refs: Any, plan: Plan, views: bool) -> None:
    each = iter(refs)
    x, w = [next(each) for _ in range(plan.windows)], next(each)
    bits = [next(each)] if plan.masked else []
    past = next(each) if plan.resumed else None
    y, z, *mask = each
    t = pl.program_id(2)
    chunk = _chunk(plan)
    # A block that is the only one in time may end early.
    used = min(plan.rows, -(-plan.positions // chunk) * chunk)
    if mask:
        _spread(mask[0], bits[0], plan)
    for lane in range(0, plan.lanes, LANES):
        _fill(z, x, lane, t, plan, views=views, past=past)
        kernel = [w[j : j + 1, lane : lane + LANES].astype(jnp.float32) for j in range(plan.taps)]

        def convolve(row: Any, rows: int, _: None, lane: int = lane, kernel: Any = kernel) -> None:
            def totals() -> Iterator[jax.Array]:
                for example in range(plan.abreast):
                    total: Any = None
                    for j, tap in enumerate(kernel):
                        term = z[example, pl.ds(row + plan.row(j), rows), :] * tap
                        term = _masked(term, mask[0], j, row) if mask else term
                        total = term if total is None else total + term
                    yield total

            lying_1d.store(y, plan, row, rows, lane, totals(), views=views)

        _chunks(used, chunk, convolve)


def _correlate(*refs: Any, plan: Plan, views: bool) -> None:
    each = iter(refs)
    x, g = [next(each) for _ in range(plan.windows)], next(each)
    bits = [next(each)] if plan.masked else []
    dw, z, *mask, sums = each
    n, t = pl.program_id(1), pl.program_id(2)
    last = plan.blocks[2] - 1
    frames = plan.positions - last * plan.rows

    @pl.when((n == 0) & (t == 0))
    def _() -> None:
        sums[...] = jnp.zeros_like(sums)

    if mask:
        _spread(mask[0], bits[0], plan)
    for lane in range(0, plan.lanes, LANES):
        _fill(z, x, lane, t, plan, views=views)

        def add(frames: int, lane: int = lane) -> None:
            """Add the terms of the first frames of this block."""

            def terms(row: Any, rows: int, carry: tuple[Any, ...], frames: int) -> tuple[Any, ...]:
                added = list(carry)
                parts = lying_1d.load(g, plan, row, rows, lane, views=views)
                for example, part in enumerate(parts):
                    for j in range(plan.taps):
                        term = z[example, pl.ds(row + plan.row(j), rows), :] * part
                        term = _masked(term, mask[0], j, row) if mask else term
                        if frames < rows:
                            # Both factors may be anything there, and a NaN times zero is one.
                            inside = lax.broadcasted_iota(jnp.int32, term.shape, 0) < frames
                            term = jnp.where(inside, term, 0.0)
                        added[j] += term.reshape(-1, 8, LANES).sum(0)
                return tuple(added)

            chunk = _chunk(plan)
            whole = frames // chunk * chunk
            carry = (jnp.zeros((8, LANES), jnp.float32),) * plan.taps
            if whole:
                carry = _chunks(whole, chunk, functools.partial(terms, frames=chunk), carry)
            if frames > whole:
                carry = terms(whole, chunk, carry, frames - whole)
            for j, total in enumerate(carry):
                sums[j, :, lane : lane + LANES] += total

        if frames == plan.rows or last == 0:
            add(frames)
        else:
            pl.when(t < last)(functools.partial(add, plan.rows))
            pl.when(t == last)(functools.partial(add, frames))

    @pl.when((n == pl.num_programs(1) - 1) & (t == last))
    def _() -> None:
        dw[...] = sums[...].sum(1).astype(dw.dtype)
