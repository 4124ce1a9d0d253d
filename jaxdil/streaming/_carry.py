"""A causal convolution frame by frame and chunk by chunk: init, step, chunk, prefill."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Num

from jaxdil import _arguments
from jaxdil._arguments import Ints, Padding
from jaxdil._errors import error
from jaxdil.streaming._advance import advance, at_least, check, kept
from jaxdil.streaming._causal import Options, geometry_of, lift, segments_of, whole
from jaxdil.streaming._registers import Geometry, State

__all__ = ["chunk", "init", "prefill", "step"]


def init(
    frame_shape: Sequence[int],
    w: Num[Array, "..."] | jax.ShapeDtypeStruct,
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    groups: int = 1,
    depthwise: bool = False,
    padding: Padding = "SAME",
    segmented: bool = False,
) -> State:
    """The state of a causal convolution before its first frame.

    ``state = 0``: what comes before the first frame counts as zero, as in `causal_conv`.

    Args:
      frame_shape: shape of one frame, (N, *S, C), or (*S, C) without a batch.
      w: the kernel, as in `causal_conv`; only its shape and dtype are read.
      stride: as in `causal_conv`.
      dilation: as in `causal_conv`.
      groups: as in `causal_conv`.
      depthwise: as in `causal_conv`.
      padding: as in `causal_conv`.
      segmented: whether the frames will come with segment ids.

    Returns:
      A `State`. It holds N prod(S) C (K - 1) d numbers of the dtype of w, d being the dilation of
      time, and never grows.

    Raises:
      ValueError: as `causal_conv`, and for a frame_shape that is no frame's.
      TypeError: as `causal_conv`.

    >>> import jax.numpy as jnp
    >>> w = jnp.ones((4, 16, 1))
    >>> jaxdil.streaming.init((2, 16), w, depthwise=True).frames.shape
    (2, 1, 3, 16)
    """
    where = "streaming.init"
    geometry = geometry_of(
        where,
        w.shape,
        stride=stride,
        dilation=dilation,
        groups=groups,
        depthwise=depthwise,
        padding=padding,
    )
    shape = tuple(_arguments.integer(where, "frame_shape", n, least=0) for n in frame_shape)
    rank = len(w.shape) - 2
    if len(shape) not in (rank, rank + 1):
        what = f"frame_shape must be (N, *S, C) with {rank + 1} entries, or (*S, C), got {shape}"
        hint = f"w {tuple(w.shape)} has {rank} spatial axes; the first is time, which no frame has."
        raise ValueError(error(where, what, hint))
    n, *rest = shape if len(shape) > rank else (1, *shape)
    # Whatever else does not fit is found by the convolution of one frame.
    dtype = jax.dtypes.canonicalize_dtype(w.dtype)
    one = (jax.ShapeDtypeStruct((n, 1, *rest), dtype), jax.ShapeDtypeStruct(w.shape, dtype))
    jax.eval_shape(lambda x, w: whole(where, x, w, geometry, None, Options()), *one)
    nothing = jnp.zeros((n, geometry.span, *rest), dtype)
    ids = jnp.zeros((n, geometry.span), np.int32) if segmented else None
    return kept(nothing, ids, geometry, 0, alone=len(shape) == rank)


def step(
    state: State,
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    segment_ids: Int[Array, "..."] | None = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    method: str = "auto",
) -> tuple[Any, State]:
    """One frame of a causal convolution.

    ``y[n, o] = sum_{j, i} x_t-(K-1-j)d[n, g I + i] w[j, i, o]``, the frames before this one being
    in the state.

    Args:
      state: from `init`, `prefill` or the call before.
      x: the frame, (N, *S, C); without N if the state is.
      w: the kernel, as in `causal_conv`.
      segment_ids: the id of the frame, (N,), if the state is segmented.
      precision: as in `causal_conv`.
      preferred_element_type: as in `causal_conv`.
      method: as in `causal_conv`; "auto" takes "taps" where it can.

    Returns:
      y (N, *P, O), and the next state. With a stride above 1 y is None for the frames that give no
      output, which ``state.wait`` tells: an output comes where it is 0.

    Raises:
      ValueError: for a frame or a kernel that does not fit the state.
      TypeError: as `causal_conv`, and for a state that is none.
      MethodError: if a pinned method cannot serve.

    Cost: ``2 N prod(P) prod(K) I O`` floating-point operations. K - 1 frames of the state move,
      whatever the dilation.

    Source: Le Paine et al., Fast WaveNet Generation Algorithm, arXiv:1611.09482.

    >>> import jax.numpy as jnp
    >>> w = jnp.array([1.0, 10.0]).reshape(2, 1, 1)
    >>> state = jaxdil.streaming.init((1, 1), w, dilation=2)
    >>> for frame in (1.0, 2.0, 3.0):
    ...     y, state = jaxdil.streaming.step(state, jnp.full((1, 1), frame), w)
    >>> float(y[0, 0])
    31.0
    """
    where = "streaming.step"
    check(where, state, x, w, time=0)
    if segment_ids is not None and jnp.shape(segment_ids) != x.shape[: x.ndim - w.ndim + 2]:
        what = f"segment_ids must be (N,) = {x.shape[: x.ndim - w.ndim + 2]}, an id for the frame"
        raise ValueError(error(where, f"{what}, got {jnp.shape(segment_ids)}"))
    options = Options(precision, preferred_element_type, method)
    return advance(where, state, x, w, segment_ids, options, time=0)


def chunk(
    state: State,
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    segment_ids: Int[Array, "..."] | None = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    method: str = "auto",
) -> tuple[Num[Array, "..."], State]:
    """Some frames of a causal convolution, as many as there are.

    ``y[n, p, o] = sum_{j, i} x[n, s p + wait - (K - 1 - j) d, g I + i] w[j, i, o]``, where frames
    before the chunk are in the state.

    The number of outputs depends on where the chunk stands between two outputs. That is static,
    in ``state.wait``, so that it is known under ``jit``, which compiles anew for each value. Chunks
    of a multiple of the stride leave it as it is; the carry of a scan needs them.

    Args:
      state: from `init`, `prefill` or the call before.
      x: the frames, (N, T, *S, C) with any T, 0 included; without N if the state is.
      w: the kernel, as in `causal_conv`.
      segment_ids: the ids of the frames, (N, T), if the state is segmented.
      precision: as in `causal_conv`.
      preferred_element_type: as in `causal_conv`.
      method: as in `causal_conv`; for a chunk that is short beside the dilation, "auto" takes
        "taps" where it can.

    Returns:
      y (N, ceil((T - wait) / stride), *P, O), and the next state.

    Raises:
      ValueError: for frames or a kernel that do not fit the state.
      TypeError: as `causal_conv`, and for a state that is none.
      MethodError: if a pinned method cannot serve.

    Cost: as `causal_conv` of T frames; the frames of the state that move are no more than those
      that are read.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.arange(6.0).reshape(1, 6, 1), jnp.ones((3, 1, 1))
    >>> state = jaxdil.streaming.init((1, 1), w)
    >>> for start, stop in ((0, 2), (2, 6)):
    ...     y, state = jaxdil.streaming.chunk(state, x[:, start:stop], w)
    >>> y.ravel()
    Array([ 3.,  6.,  9., 12.], dtype=float32)
    """
    where = "streaming.chunk"
    check(where, state, x, w, time=1)
    options = Options(precision, preferred_element_type, method)
    return advance(where, state, x, w, segment_ids, options, time=1)


def prefill(
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
) -> tuple[Num[Array, "..."], State]:
    """`causal_conv` of the frames so far, and the state to go on from.

    ``y, state = prefill(x, w)`` is `chunk` from the state of `init`, without its zeros.

    Args:
      x: the frames so far, (N, T, *S, C) with any T; without N too.
      w: the kernel, as in `causal_conv`.
      stride: as in `causal_conv`.
      dilation: as in `causal_conv`.
      groups: as in `causal_conv`.
      depthwise: as in `causal_conv`.
      padding: as in `causal_conv`.
      segment_ids: as in `causal_conv`. If given, the state is segmented.
      precision: as in `causal_conv`.
      preferred_element_type: as in `causal_conv`.
      method: as in `causal_conv`.

    Returns:
      y (N, ceil(T / stride), *P, O), and the `State` after T frames.

    Raises:
      ValueError: as `causal_conv`.
      TypeError: as `causal_conv`.
      MethodError: if a pinned method cannot serve.

    Cost: as `causal_conv`. Under ``jit`` a result that is not used is not computed, so that the
      state alone costs a copy of the last (K - 1) d frames.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.arange(6.0).reshape(1, 6, 1), jnp.ones((3, 1, 1))
    >>> y, state = jaxdil.streaming.prefill(x, w)
    >>> y, state = jaxdil.streaming.step(state, jnp.full((1, 1), 6.0), w)
    >>> float(y[0, 0])
    15.0
    """
    where = "streaming.prefill"
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
    return _prefilled(where, x, w, geometry, segment_ids, options)


@functools.partial(jax.jit, static_argnums=(0, 3, 5), inline=True)
def _prefilled(
    where: str, x: jax.Array, w: jax.Array, geometry: Geometry, ids: Any, options: Options
) -> tuple[jax.Array, State]:
    x, ids, alone = lift(x, w, ids)
    ids = segments_of(where, ids, x)
    y = whole(where, x, w, geometry, ids, options)
    state = kept(
        at_least(x, geometry.span),
        None if ids is None else at_least(ids, geometry.span),
        geometry,
        -x.shape[1] % geometry.stride[0],
        alone=alone,
    )
    return (y[0] if alone else y), state
