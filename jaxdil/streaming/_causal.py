"""Causal convolution of whole sequences, packed ones included.

    y[n, p, o] = sum_{j, i}  [id[at] = id[s p]]  x[n, at, g I + i]  w[j, i, o]
    at = s p - (K - 1 - j) d

The bracket is 1 where both frames belong to one sequence, else 0. It depends on output and tap
together, which no convolution does, so packed sequences are masked tap by tap. A depthwise kernel
then is a sum of products that XLA makes one loop of; any other takes the K masked frames of an
output as an image of its own. Without ids it is one convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints, Padding
from jaxdil._conv import bind
from jaxdil._errors import error
from jaxdil._geometry import dilated_size
from jaxdil._primitive import is_explicitly_sharded
from jaxdil.streaming._registers import Geometry
from jaxdil.streaming._segments import MOST_TAPS, segmented

__all__ = [
    "Options",
    "causal_conv",
    "geometry_of",
    "same_segment",
    "segments_of",
    "valid",
    "whole",
    "windows",
]


class Options(NamedTuple):
    """What is handed on to every convolution of a call."""

    precision: Any = None
    preferred_element_type: Any = None
    method: str = "auto"


# Taps written out one by one under segment ids. More are summed in a loop.
UNROLL = 64


def causal_conv(
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    groups: int = 1,
    depthwise: bool = False,
    padding: Padding = "SAME",
    segment_ids: Int[Array, "..."] | None = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    method: str = "auto",
) -> Num[Array, "..."]:
    """Convolution of whole sequences in which no output reads ahead, nor another sequence.

    ``y[n, p, o] = sum_{j, i} x[n, s p - (K - 1 - j) d, g I + i] w[j, i, o]``, what lies before the
    first frame being zero: `conv` with ``padding="CAUSAL"`` on the first spatial axis, which is
    time. Other spatial axes (of video frames) are convolved as `conv` does. With segment_ids, taps
    that fall on a frame of another id count as zero, so that sequences packed into one row do not
    leak into each other.

    Args:
      x: input (N, T, *S, C), time first; without N too.
      w: kernel (K, *KS, I, O), or (K, *KS, C, M) if depthwise. The last tap meets the present.
      stride: frames between neighbouring outputs, >= 1; for all spatial axes or one for each.
      dilation: frames between neighbouring taps, >= 1; for all spatial axes or one for each.
      groups: number of blocks of channels convolved separately.
      depthwise: whether w is a kernel for each channel, as in `depthwise_conv`.
      padding: of the spatial axes beside time, as in `conv`: one entry for all, or one for each.
      segment_ids: which sequence each frame belongs to, integers (N, T). Equal ids (as
        int32) are one sequence. Frames that are only padding need an id that no sequence has, such
        as 0 or -1; their outputs mean nothing and are yours to drop. With a stride, an output has
        the id of the frame it stands at, ``segment_ids[:, ::stride]``.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.
      method: as in `conv`.

    Returns:
      y (N, ceil(T / stride), *P, O).

    Raises:
      ValueError: as `conv`, and for segment_ids of another shape than (N, T).
      TypeError: as `conv`, and for segment_ids that are no integers.
      MethodError: if a pinned method cannot serve.

    Cost: as `conv`. With segment_ids a kernel that is not depthwise holds K copies of x, up to 64;
      from there on it takes one tap after the other.

    Source: van den Oord et al., WaveNet, arXiv:1609.03499; the boundaries of packed sequences:
      Dao-AILab/causal-conv1d, ``seq_idx``.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 6, 1))
    >>> ids = jnp.array([[7, 7, 7, 8, 8, 8]])
    >>> jaxdil.streaming.causal_conv(x, jnp.ones((3, 1, 1)), segment_ids=ids).ravel()
    Array([1., 2., 3., 1., 2., 3.], dtype=float32)
    """
    where = "streaming.causal_conv"
    _arguments.check_arrays(where, x=x, w=w)
    geometry = geometry_of(
        where,
        w.shape,
        stride=stride,
        dilation=dilation,
        groups=groups,
        depthwise=depthwise,
        padding=padding,
    )
    options = Options(precision, preferred_element_type, method)
    return _lifted(where, x, w, geometry, segment_ids, options)


# One call of a compiled function where nothing else is traced around it; no trace of it where
# something is.
@functools.partial(jax.jit, static_argnums=(0, 3, 5), inline=True)
def _lifted(
    where: str, x: jax.Array, w: jax.Array, geometry: Geometry, ids: Any, options: Options
) -> jax.Array:
    x, ids, alone = lift(x, w, ids)
    y = whole(where, x, w, geometry, segments_of(where, ids, x), options)
    return y[0] if alone else y


# --- arguments ------------------------------------------------------------------------------------


def geometry_of(
    where: str,
    w_shape: Sequence[int],
    *,
    stride: Any,
    dilation: Any,
    groups: Any,
    depthwise: bool,
    padding: Any,
) -> Geometry:
    """What is static about a causal convolution with a kernel of that shape, checked."""
    rank = len(w_shape) - 2
    if rank < 1:
        what = f"w must be (K, *KS, I, O), with at least 3 axes, got shape {tuple(w_shape)}"
        hint = "A depthwise kernel (K, C) is w[:, :, None] with depthwise=True."
        raise ValueError(error(where, what, hint))
    if depthwise and groups != 1:
        what = f"groups must be left at 1 with depthwise=True, got groups={groups!r}"
        raise ValueError(error(where, what, "Every channel is a group of its own there."))
    if rank == 1 and not (isinstance(padding, str) and padding == "SAME"):
        what = f"padding is for spatial axes beside time, and x has none, got {padding!r}"
        raise ValueError(error(where, what, "Time is always padded so that nothing reads ahead."))
    rates = _arguments.integers(where, "dilation", dilation, rank)
    return Geometry(
        taps=w_shape[0],
        stride=_arguments.integers(where, "stride", stride, rank),
        dilation=rates,
        groups=_arguments.integer(where, "groups", groups, least=1),
        depthwise=bool(depthwise),
        padding=_beside_time(where, padding, tuple(map(dilated_size, w_shape, rates))[1:]),
    )


def _beside_time(where: str, padding: Any, extents: Sequence[int]) -> tuple[Any, ...]:
    """An entry of padding, hashable, for each axis beside time, on which a kernel so extends."""

    def is_listed(value: Any) -> bool:
        return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)

    entries = padding if is_listed(padding) else [padding] * len(extents)
    if len(entries) != len(extents):
        what = f"padding must have an entry for each axis beside time, {len(extents)} in all"
        raise ValueError(error(where, f"{what}, got {padding!r}", "Time is always padded itself."))
    made = [e(n) if callable(e) else e for e, n in zip(entries, extents, strict=True)]
    return tuple(tuple(e) if is_listed(e) else e for e in made)


def lift(x: Any, w: Any, ids: Any) -> tuple[Any, Any, bool]:
    """X and ids with a batch axis, and whether they came without."""
    alone = x.ndim == w.ndim - 1
    if alone:
        x, ids = jnp.asarray(x)[None], None if ids is None else jnp.asarray(ids)[None]
    return x, ids, alone


def segments_of(where: str, ids: Any, x: Any) -> jax.Array | None:
    """Segment ids as int32; raise unless they are an integer for each frame of x (N, T, *S, C)."""
    if ids is None:
        return None
    if not isinstance(ids, jax.Array | np.ndarray) or not jnp.issubdtype(ids.dtype, jnp.integer):
        got = getattr(ids, "dtype", type(ids).__name__)
        raise TypeError(error(where, f"segment_ids must be an array of integers, got {got}"))
    if ids.shape != x.shape[:2]:
        what = f"segment_ids must be (N, T) = {tuple(x.shape[:2])}, got {ids.shape}"
        raise ValueError(error(where, what, f"x has shape {tuple(x.shape)}: one id a frame."))
    return jnp.asarray(ids, np.int32)


# --- the convolution ------------------------------------------------------------------------------


def whole(
    where: str, x: jax.Array, w: jax.Array, geometry: Geometry, ids: Any, options: Options
) -> jax.Array:
    """The outputs at frames 0, stride, ... of x (N, T, *S, C), with nothing before it."""
    if ids is None:
        return _bind(where, x, w, geometry, "CAUSAL", options)
    if _segmented(x, w, geometry):
        return segmented(where, x, w, ids, geometry.dilation[0], geometry.span, *options)
    before = [(0, 0), (geometry.span, 0)]
    z = jnp.pad(x, before + [(0, 0)] * (x.ndim - 2))
    return valid(where, z, w, geometry, jnp.pad(ids, before), options)


def valid(
    where: str, z: jax.Array, w: jax.Array, geometry: Geometry, ids: Any, options: Options
) -> jax.Array:
    """The outputs at frames span, span + stride, ... of z, whose first frames are the past."""
    if ids is None:
        return _bind(where, z, w, geometry, 0, options)
    if _segmented(z, w, geometry):
        return segmented(where, z, w, ids, geometry.dilation[0], 0, *options)
    if geometry.taps > UNROLL or _is_plain(geometry):
        return _sum_of_taps(where, z, w, geometry, ids, options)
    frames = jnp.stack([_tap(z, j, ids, geometry) for j in range(geometry.taps)], axis=2)
    return windows(where, frames, w, geometry, options)


def windows(
    where: str, frames: jax.Array, w: jax.Array, geometry: Geometry, options: Options
) -> jax.Array:
    """One output from each K frames (N, P, K, *S, C).

    Each is an image of its own: a convolution with one position in time, which is a matrix product
    a tap, so ``taps`` is taken where it can be.
    """
    n, count, *rest = frames.shape
    if options.method == "auto":
        options = options._replace(method="taps or auto")
    one = geometry._replace(stride=(1, *geometry.stride[1:]), dilation=(1, *geometry.dilation[1:]))
    y = _bind(where, frames.reshape(n * count, *rest), w, one, 0, options)
    return y.reshape(n, count, *y.shape[2:])


def same_segment(frames: jax.Array, ids: jax.Array, own: jax.Array) -> jax.Array:
    """Frames, zero where their id is not ``own``; ids have the leading axes of frames."""
    same = jnp.expand_dims(ids == own, tuple(range(ids.ndim, frames.ndim)))
    return jnp.where(same, frames, jnp.zeros((), frames.dtype))


def _sum_of_taps(
    where: str, z: jax.Array, w: jax.Array, geometry: Geometry, ids: Any, options: Options
) -> jax.Array:
    """The sum over taps of masked frames times the row of the kernel, in the dtype of sums."""
    out = jnp.dtype(options.preferred_element_type or z.dtype)
    half = jnp.issubdtype(out, jnp.floating) and out.itemsize < 4
    dtype = jnp.dtype(jnp.float32) if half else out
    options = options._replace(preferred_element_type=None)
    one = geometry._replace(taps=1, stride=(1, *geometry.stride[1:]))
    # What a tap meets is a view of z: recomputed in the backward pass, not kept K times.
    remat = functools.partial(jax.checkpoint, prevent_cse=False)

    def term(z: jax.Array, j: Any, row: jax.Array) -> jax.Array:
        frame, row = _tap(z, j, ids, geometry).astype(dtype), row.astype(dtype)
        if not _is_plain(geometry):
            return _bind(where, frame, row[None], one, 0, options)
        product = frame[..., None] * row[None, None]
        return product.reshape(*frame.shape[:2], row.size)

    def total(z: jax.Array, w: jax.Array) -> jax.Array:
        if geometry.taps <= UNROLL:
            return functools.reduce(jnp.add, [term(z, j, w[j]) for j in range(geometry.taps)])
        rest = (jnp.arange(1, geometry.taps, dtype=np.int32), w[1:])
        return lax.scan(lambda y, each: (y + remat(term)(z, *each), None), term(z, 0, w[0]), rest)[
            0
        ]

    return remat(total)(z, w).astype(out)


def _segmented(x: jax.Array, w: jax.Array, geometry: Geometry) -> bool:
    """Whether each channel goes to one other, by few taps and no stride: a primitive's part."""
    few = geometry.taps <= MOST_TAPS and geometry.stride[0] == 1
    typed = is_explicitly_sharded(x) or is_explicitly_sharded(w)
    return few and not typed and _is_plain(geometry) and w.shape[1:] == (x.shape[-1], 1)


def _is_plain(geometry: Geometry) -> bool:
    """Whether a tap is nothing but a product of each channel with a number."""
    return geometry.depthwise and len(geometry.stride) == 1


def _tap(z: jax.Array, j: Any, ids: Any, geometry: Geometry) -> jax.Array:
    """The frames that tap j meets, an output each, those of other sequences masked."""
    last = geometry.taps - 1
    count = max((z.shape[1] - geometry.span - 1) // geometry.stride[0] + 1, 0)
    own = _every(ids, last, count, geometry)
    return same_segment(_every(z, j, count, geometry), _every(ids, j, count, geometry), own)


def _every(a: jax.Array, j: Any, count: int, geometry: Geometry) -> jax.Array:
    """What tap j meets of a (N, frames, ...), for each of so many outputs."""
    stride, dilation = geometry.stride[0], geometry.dilation[0]
    extent = max(stride * (count - 1) + 1, 0)
    if isinstance(j, int):
        return a[:, j * dilation : j * dilation + extent : stride]
    return lax.dynamic_slice_in_dim(a, j * np.int32(dilation), extent, axis=1)[:, ::stride]


def _bind(
    where: str, x: jax.Array, w: jax.Array, geometry: Geometry, time: Any, options: Options
) -> jax.Array:
    """conv_p, with this padding of time."""
    groups = geometry.groups
    if geometry.depthwise:
        groups = w.shape[-2]
        if x.shape[-1] != groups:
            what = f"w must be (K, *KS, C, M) with C = {x.shape[-1]}, the channels of x"
            raise ValueError(
                error(where, f"{what}, as depthwise=True says, got {w.shape}", f"x is {x.shape}.")
            )
        w = jnp.reshape(w, (*w.shape[:-2], 1, w.shape[-2] * w.shape[-1]))
    return bind(
        where,
        x,
        w,
        stride=geometry.stride,
        dilation=geometry.dilation,
        padding=[time, *geometry.padding],
        groups=groups,
        **options._asdict(),
    )
