"""Convolution by definition: the oracle that everything else is judged by.

    y[n, p, o] = sum_{t, i}  x[n, s*p + r*t - lo, group(o)*I + i] * w[t, i, o]

One Python iteration per output position and tap, which multiplies all that meets there, in float64
(complex128 for complex inputs; int64 for integers, which is exact modulo 2**64). Some microseconds
an iteration: for tests and for learning, not for work. Nothing is shared with the rest of the
library; numpy is all it needs.

Shapes, channels last: x (N, *S, C), w (*K, I, O), y (N, *P, O) with C = groups * I. Stride s,
dilation r and padding (lo, hi) are integers, alone or one per axis; negative padding crops.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "batch_to_space",
    "conv",
    "conv_kernel_grad",
    "conv_transpose",
    "depthwise_conv",
    "dilate_kernel",
    "separable_conv",
    "space_to_batch",
    "tf_depthwise_conv",
]

Ints: TypeAlias = int | Sequence[int]
Pads: TypeAlias = int | Sequence[tuple[int, int]]
Index: TypeAlias = tuple[int, ...]
_ALL: Any = slice(None)


# numpy warns when an integer scalar wraps, though never when an array does; wrapping is meant here.
@np.errstate(over="ignore")
def conv(
    x: np.ndarray,
    w: np.ndarray,
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    padding: Pads = 0,
    groups: int = 1,
    batch_groups: int = 1,
) -> np.ndarray:
    """Cross-correlation, (N, *S, C) with (*K, C/groups, O) to (N/batch_groups, *P, O).

    Per axis, P = max(0, (n + lo + hi - r*(k-1) - 1) // s + 1), where n is the input size once
    ``input_dilation - 1`` zeros stand between neighbours. Output channel o reads the input
    channels of group o // (O/groups), or the batch block o // (O/batch_groups); not both.

    Raises:
      ValueError: if both ``groups`` and ``batch_groups`` are more than 1.

    >>> conv(np.arange(5).reshape(1, 5, 1), np.ones((2, 1, 1)), dilation=3).ravel()
    array([3., 5.])
    """
    if groups > 1 and batch_groups > 1:
        msg = f"conv: groups and batch_groups cannot both be more than 1: {groups}, {batch_groups}"
        raise ValueError(msg)
    x, w = _wide(x, w)
    *taps, _, out = w.shape
    batch, *spatial, channels = x.shape
    axes = _axes(len(taps), stride, dilation, input_dilation, padding=padding)
    # Parts that have nothing to do with each other, on an axis before all others.
    parts = groups * batch_groups
    if batch_groups == 1:
        xs = _split(x, parts)
    else:
        xs = x.reshape(parts, batch // parts, *spatial, channels)
    ws = _split(w, parts)
    ys = np.zeros((parts, xs.shape[1], *_sizes(spatial, taps, axes), out // parts), x.dtype)
    for p, t, at in _visits(ys.shape[2:-1], taps, spatial, axes):
        ys[(_ALL, _ALL, *p)] += xs[(_ALL, _ALL, *at)] @ ws[(_ALL, *t)]
    return _joined(ys)


@np.errstate(over="ignore")
def conv_transpose(
    y: np.ndarray,
    w: np.ndarray,
    *,
    input_shape: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Pads = 0,
    groups: int = 1,
) -> np.ndarray:
    """Adjoint of ``conv`` in x: (N, *P, C) with (*K, O/groups, C) to (N, *input_shape, O).

    Every element of y is scattered through every tap of w, the kernel of the forward
    convolution; what falls into the padding is dropped. Nothing is conjugated.

    >>> conv_transpose(np.ones((1, 2, 1)), np.ones((3, 1, 1)), input_shape=5, stride=2).ravel()
    array([1., 1., 2., 1., 1.])
    """
    y, w = _wide(y, w)
    *taps, per_group, _ = w.shape
    axes = _axes(len(taps), stride, dilation, 1, padding=padding)
    spatial = _per_axis(input_shape, len(taps))
    ys, ws = _split(y, groups), _split(w, groups)
    xs = np.zeros((groups, len(y), *spatial, per_group), y.dtype)
    for p, t, at in _visits(y.shape[1:-1], taps, spatial, axes):
        xs[(_ALL, _ALL, *at)] += ys[(_ALL, _ALL, *p)] @ ws[(_ALL, *t)].swapaxes(1, 2)
    return _joined(xs)


@np.errstate(over="ignore")
def conv_kernel_grad(
    x: np.ndarray,
    g: np.ndarray,
    *,
    kernel_shape: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Pads = 0,
    groups: int = 1,
) -> np.ndarray:
    """Adjoint of ``conv`` in w: (N, *S, C) with (N, *P, O) to (*kernel_shape, C/groups, O).

    Every product of an input and a cotangent is added to the tap that joins them.

    >>> conv_kernel_grad(np.arange(4).reshape(1, 4, 1), np.ones((1, 2, 1)), kernel_shape=3).ravel()
    array([1., 3., 5.])
    """
    x, g = _wide(x, g)
    spatial = x.shape[1:-1]
    taps = _per_axis(kernel_shape, len(spatial))
    axes = _axes(len(taps), stride, dilation, 1, padding=padding)
    xs, gs = _split(x, groups), _split(g, groups)
    ws = np.zeros((groups, *taps, xs.shape[-1], gs.shape[-1]), x.dtype)
    for p, t, at in _visits(g.shape[1:-1], taps, spatial, axes):
        ws[(_ALL, *t)] += xs[(_ALL, _ALL, *at)].swapaxes(1, 2) @ gs[(_ALL, _ALL, *p)]
    return _joined(ws)


@np.errstate(over="ignore")
def depthwise_conv(
    x: np.ndarray, w: np.ndarray, *, stride: Ints = 1, dilation: Ints = 1, padding: Pads = 0
) -> np.ndarray:
    """Each channel on its own: (N, *S, C) with (*K, C, M) to (N, *P, C*M), channel c*M + m.

    >>> depthwise_conv(np.array([[[1, 10], [2, 20]]]), np.array([[[1, -1], [2, -2]]])).tolist()
    [[[1, -1, 20, -20], [2, -2, 40, -40]]]
    """
    x, w = _wide(x, w)
    *taps, channels, multiplier = w.shape
    spatial = x.shape[1:-1]
    axes = _axes(len(taps), stride, dilation, 1, padding=padding)
    y = np.zeros((len(x), *_sizes(spatial, taps, axes), channels * multiplier), x.dtype)
    for p, t, at in _visits(y.shape[1:-1], taps, spatial, axes):
        products = x[(_ALL, *at, _ALL, None)] * w[t]
        y[(_ALL, *p)] += products.reshape(len(x), channels * multiplier)
    return y


def separable_conv(
    x: np.ndarray,
    depthwise_w: np.ndarray,
    pointwise_w: np.ndarray,
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Pads = 0,
) -> np.ndarray:
    """``depthwise_conv`` by (*K, C, M), then ``conv`` by (*1, C*M, O).

    >>> separable_conv(np.ones((1, 3, 2)), np.ones((2, 2, 1)), np.ones((1, 2, 1))).ravel()
    array([4., 4.])
    """
    y = depthwise_conv(x, depthwise_w, stride=stride, dilation=dilation, padding=padding)
    return conv(y, pointwise_w)


@np.errstate(over="ignore")
def tf_depthwise_conv(
    x: np.ndarray, w: np.ndarray, *, stride: Ints = 1, rate: Ints = 1, padding: Pads = 0
) -> np.ndarray:
    """``tf.nn.depthwise_conv2d`` in any rank, whose stride steps inside each phase of the rate.

        y[q] = sum_a  x[(q mod r) + r*(s*(q div r) + a) - lo] * w[a]
        size = r*m - extra,  m = ((n + lo + hi + extra)/r - k) // s + 1,  extra = -(n+lo+hi) mod r

    The same as ``depthwise_conv`` where the stride or the rate is 1. Shapes as there.

    >>> one = np.ones((1, 1, 1), int)
    >>> tf_depthwise_conv(np.arange(9).reshape(1, 9, 1), one, stride=2, rate=3).ravel().tolist()
    [0, 1, 2, 6, 7, 8]
    """
    x, w = _wide(x, w)
    *taps, channels, multiplier = w.shape
    spatial = x.shape[1:-1]
    axes = _axes(len(taps), stride, rate, 1, padding=padding)
    sizes = []
    for n, k, (s, r, _, lo, hi) in zip(spatial, taps, axes, strict=True):
        extra = -(n + lo + hi) % r
        sizes.append(max(0, r * (((n + lo + hi + extra) // r - k) // s + 1) - extra))
    y = np.zeros((len(x), *sizes, channels * multiplier), x.dtype)
    for n, *q, c, m in np.ndindex(len(x), *sizes, channels, multiplier):
        for t in np.ndindex(*taps):
            at = [
                i % r + r * (s * (i // r) + a) - lo
                for i, a, (s, r, _, lo, _) in zip(q, t, axes, strict=True)
            ]
            if all(0 <= i < size for i, size in zip(at, spatial, strict=True)):
                y[(n, *q, c * multiplier + m)] += x[(n, *at, c)] * w[(*t, c, m)]
    return y


def space_to_batch(
    x: np.ndarray, *, block_shape: Sequence[int], paddings: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Phases of the leading spatial axes, moved to the batch: phase * N + n, phases row-major.

    Raises:
      ValueError: if a block does not divide its padded axis.

    >>> space_to_batch(np.arange(5).reshape(1, 5), block_shape=[2], paddings=[(0, 1)]).tolist()
    [[0, 2, 4], [1, 3, 0]]
    """
    x = np.asarray(x)
    batch, rank = len(x), len(block_shape)
    padded = [n + lo + hi for n, (lo, hi) in zip(x.shape[1 : rank + 1], paddings, strict=True)]
    if any(n % b for n, b in zip(padded, block_shape, strict=True)):
        msg = f"space_to_batch: {block_shape=} must divide the padded sizes {padded}"
        raise ValueError(msg)
    inner = [n // b for n, b in zip(padded, block_shape, strict=True)]
    y = np.zeros((int(np.prod(block_shape)) * batch, *inner, *x.shape[rank + 1 :]), x.dtype)
    for n, *at in np.ndindex(*x.shape[: rank + 1]):
        phase, inside = _phase(at, block_shape, paddings)
        y[(phase * batch + n, *inside)] = x[(n, *at)]
    return y


def batch_to_space(
    x: np.ndarray, *, block_shape: Sequence[int], crops: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Inverse of ``space_to_batch``: interleaves the phases, then crops.

    >>> batch_to_space(np.array([[0, 2, 4], [1, 3, 0]]), block_shape=[2], crops=[(0, 1)]).tolist()
    [[0, 1, 2, 3, 4]]
    """
    x = np.asarray(x)
    rank = len(block_shape)
    batch = len(x) // int(np.prod(block_shape))
    size = [
        n * b - lo - hi
        for n, b, (lo, hi) in zip(x.shape[1 : rank + 1], block_shape, crops, strict=True)
    ]
    y = np.zeros((batch, *size, *x.shape[rank + 1 :]), x.dtype)
    for n, *at in np.ndindex(*y.shape[: rank + 1]):
        phase, inside = _phase(at, block_shape, crops)
        y[(n, *at)] = x[(phase * batch + n, *inside)]
    return y


def dilate_kernel(w: np.ndarray, *, dilation: Ints) -> np.ndarray:
    """``dilation - 1`` zeros between the taps of w (*K, I, O), over all axes but the last two.

    >>> dilate_kernel(np.array([1, 2, 3]).reshape(3, 1, 1), dilation=2).ravel().tolist()
    [1, 0, 2, 0, 3]
    """
    w = np.asarray(w)
    *taps, _, _ = w.shape
    rates = _per_axis(dilation, len(taps))
    dilated = np.zeros((*map(_extent, taps, rates), *w.shape[-2:]), w.dtype)
    for t in np.ndindex(*taps):
        dilated[tuple(r * i for r, i in zip(rates, t, strict=True))] = w[t]
    return dilated


def _wide(*arrays: np.ndarray) -> list[np.ndarray]:
    kinds = {np.asarray(a).dtype.kind for a in arrays}
    wide = np.complex128 if "c" in kinds else np.int64 if kinds <= set("biu") else np.float64
    return [np.asarray(a).astype(wide) for a in arrays]


def _per_axis(value: Ints, rank: int) -> Index:
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank


def _axes(rank: int, *options: Ints, padding: Pads) -> list[Index]:
    """Per axis: stride, dilation, input dilation, lo, hi."""
    pads = padding if isinstance(padding, Sequence) else [(padding, padding)] * rank
    columns = [_per_axis(option, rank) for option in options]
    return [(*ints, lo, hi) for *ints, (lo, hi) in zip(*columns, pads, strict=True)]


def _split(x: np.ndarray, parts: int) -> np.ndarray:
    """(..., parts * C) as (parts, ..., C)."""
    *others, channels = x.shape
    return np.moveaxis(x.reshape(*others, parts, channels // parts), -2, 0)


def _joined(x: np.ndarray) -> np.ndarray:
    """(parts, ..., C) as (..., parts * C)."""
    parts, *others, channels = x.shape
    return np.moveaxis(x, 0, -2).reshape(*others, parts * channels)


def _phase(
    at: Sequence[int], blocks: Sequence[int], pads: Sequence[tuple[int, int]]
) -> tuple[int, list[int]]:
    """Row-major phase of a position, and where it stands inside that phase."""
    phase, inside = 0, []
    for i, b, (lo, _) in zip(at, blocks, pads, strict=True):
        phase = phase * b + (i + lo) % b
        inside.append((i + lo) // b)
    return phase, inside


def _extent(n: int, spacing: int) -> int:
    """Size of n samples with ``spacing - 1`` zeros between neighbours."""
    return spacing * (n - 1) + 1 if n else 0


def _sizes(spatial: Sequence[int], taps: Sequence[int], axes: Sequence[Index]) -> list[int]:
    return [
        max(0, (_extent(n, d) + lo + hi - _extent(k, r)) // s + 1)
        for n, k, (s, r, d, lo, hi) in zip(spatial, taps, axes, strict=True)
    ]


def _visits(
    sizes: Sequence[int], taps: Sequence[int], spatial: Sequence[int], axes: Sequence[Index]
) -> Iterator[tuple[Any, Any, Any]]:
    """Every (output position, tap, input position) that meet; padding and inserted zeros do not."""
    for p in np.ndindex(*sizes):
        for t in np.ndindex(*taps):
            at = []
            for i, j, n, (s, r, d, lo, _) in zip(p, t, spatial, axes, strict=True):
                index, between = divmod(s * i + r * j - lo, d)
                if between or not 0 <= index < n:
                    break
                at.append(index)
            else:
                yield p, t, tuple(at)
