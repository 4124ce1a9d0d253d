"""Sums over taps in which each example, or each position, has a kernel of its own.

    y[n, p, o] = sum_{t, i}  x[n, s p + d t, g I + i]  w[n, t, i, o]      an example its own
    y[n, p, o] = sum_{t, i}  x[n, s p + d t, g I + i]  w[p, t, i, o]      a position its own

A few taps at a time are one matrix product, batched over the examples or the positions: no grouped
convolution, and never patches of all taps at once. What a derivative needs of the input is sliced
again on the way back, so it holds no patches either.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdil import _pad
from jaxdil._arguments import Layout
from jaxdil._window import Window

__all__ = ["EXAMPLES", "POSITIONS", "convolve"]

# Of x as patches and of w: p is all positions, t taps, g groups, i and o channels of a group.
EXAMPLES = "nptgi,ntigo->npgo"
POSITIONS = "nptgi,ptigo->npgo"

# A matrix product with fewer terms than this wastes the machine, so taps are taken together.
TERMS = 128

# Input channels of a group up to which they are multiplied one by one, as in the method "taps".
NARROW = 8


def convolve(
    where: str,
    x: jax.Array,
    w: jax.Array,
    layout: Layout,
    window: Window,
    *,
    equation: str,
    mode: Any,
    precision: Any,
    preferred: Any,
) -> jax.Array:
    """What remains of a call whose arguments are checked: x has one batch axis, w its own in front.

    The result has the order of axes of x.
    """
    mode = _pad.check(where, mode, window.size, window.padding)
    channels = layout.numbers.lhs_spec[1]
    x = _pad.pad(jnp.moveaxis(x, channels, -1), window.padding, 1, mode)
    dtype = jnp.dtype(x.dtype if preferred is None else preferred)
    y = _sums(x, jnp.asarray(w), plan=_Plan(window, equation, precision, dtype))
    return jnp.moveaxis(y, -1, channels)


class _Plan(NamedTuple):
    """What is static about a call; x is padded already."""

    window: Window
    equation: str
    precision: Any
    out_dtype: Any

    @property
    def dtype(self) -> Any:
        """Half precision accumulates in float32."""
        half = jnp.issubdtype(self.out_dtype, jnp.floating) and self.out_dtype.itemsize < 4
        return jnp.dtype(jnp.float32) if half else self.out_dtype


@functools.partial(jax.jit, static_argnames="plan")
def _sums(x: jax.Array, w: jax.Array, *, plan: _Plan) -> jax.Array:
    """(N, *P, O) of a padded x (N, *S, C) and w (N or prod P, *K, I, O)."""
    window = plan.window
    batch, positions, groups = x.shape[0], window.positions, window.groups
    shape = (batch, math.prod(positions), groups, w.shape[-1] // groups)
    if 0 in shape or 0 in x.shape:
        return jnp.zeros((batch, *positions, w.shape[-1]), plan.out_dtype)
    taps = math.prod(window.kernel)
    w = w.reshape(w.shape[0], taps, w.shape[-2], groups, shape[-1])
    starts = np.indices(window.kernel).reshape(len(window.kernel), taps).T
    starts = (starts * np.asarray(window.dilation, int)).astype(np.int32)
    # The patches stay below twice the input and the output.
    most = 2 * (x.size + math.prod(shape)) // (batch * shape[1] * x.shape[-1])
    together = max(1, min(taps, most, -(-TERMS // w.shape[2])))
    looped = taps - taps % together if taps >= 2 * together else 0
    y = jnp.zeros(shape, plan.dtype)
    if looped:
        # Written out, XLA on a CPU would make all patches first and multiply them after.
        kernels = jnp.moveaxis(w[:, :looped].reshape(len(w), -1, together, *w.shape[2:]), 1, 0)
        table = jnp.asarray(starts[:looped].reshape(-1, together, starts.shape[1]))
        part = jax.checkpoint(functools.partial(_part, plan=plan), prevent_cse=False)

        def step(y: jax.Array, some: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            return y + part(x, *some), None

        y = lax.scan(step, y, (kernels, table))[0]
    for t in range(looped, taps, together):
        rest = functools.partial(_part, starts=starts[t : t + together].tolist(), plan=plan)
        y += jax.checkpoint(rest)(x, w[:, t : t + together])
    return y.astype(plan.out_dtype).reshape(batch, *positions, -1)


def _part(x: jax.Array, w: jax.Array, starts: Any, *, plan: _Plan) -> jax.Array:
    """(N, P, G, O) of some taps w (.., T, I, G, O)."""
    _, taps, inner, groups, _ = w.shape
    slices = [_slice(x, starts[t], plan.window, groups) for t in range(taps)]
    if groups == 1 or inner > NARROW:
        patches = jnp.stack(slices, 2)
        options = {"precision": plan.precision, "preferred_element_type": plan.dtype}
        return jnp.einsum(plan.equation, patches, w, **options)
    w = jnp.expand_dims(w, 1 if plan.equation == EXAMPLES else 0).astype(plan.dtype)
    products = [
        jnp.expand_dims(part[..., i].astype(plan.dtype), -1) * w[:, :, t, i]
        for t, part in enumerate(slices)
        for i in range(inner)
    ]
    return functools.reduce(jnp.add, products)


def _slice(x: jax.Array, start: Any, window: Window, groups: int) -> jax.Array:
    """The samples (N, P, G, I) that the tap at ``start`` reads."""
    reach = [s * (p - 1) + 1 for s, p in zip(window.stride, window.positions, strict=True)]
    if isinstance(start, list):
        stop = [at + extent for at, extent in zip(start, reach, strict=True)]
        stops = (x.shape[0], *stop, x.shape[-1])
        part = lax.slice(x, (0, *start, 0), stops, (1, *window.stride, 1))
    else:
        zero = np.int32(0)
        part = lax.dynamic_slice(x, (zero, *start, zero), (x.shape[0], *reach, x.shape[-1]))
        part = lax.slice(part, (0,) * part.ndim, part.shape, (1, *window.stride, 1))
    return part.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
