"""The windows of an array by definition, in loops: what pooling, patches and morphology are of."""

import math
import operator

import numpy as np


def pads_of(padding, size, taps, stride, dilation):
    """(lo, hi) for each axis, worked out apart from the library."""
    if padding == "VALID":
        return [(0, 0)] * len(size)
    if padding != "SAME":
        return [tuple(pair) for pair in padding]
    pads = []
    for n, k, s, d in zip(size, taps, stride, dilation, strict=True):
        total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def reads(size, taps, stride, dilation, padding):
    """For each window p and tap t, in row-major order, the position that is read, in x or not."""
    pads = pads_of(padding, size, taps, stride, dilation)
    positions = tuple(
        (n + lo + hi - (k - 1) * d - 1) // s + 1
        for n, k, s, d, (lo, hi) in zip(size, taps, stride, dilation, pads, strict=True)
    )
    for p in np.ndindex(*positions):
        for t in np.ndindex(*taps):
            at = tuple(
                s * i + d * j - lo
                for s, i, d, j, (lo, _) in zip(stride, p, dilation, t, pads, strict=True)
            )
            yield (
                positions,
                p,
                t,
                at,
                all(map(operator.le, at, np.subtract(size, 1))) and min(at) >= 0,
            )


def patches(x, taps, *, stride, dilation, padding):
    """(N, *P, *K, C), what each tap reads of x (N, *S, C) or zero, and which (*P, *K) read x."""
    size = x.shape[1:-1]
    y = inside = None
    for positions, p, t, at, is_inside in reads(size, taps, stride, dilation, padding):
        if y is None:
            y = np.zeros((x.shape[0], *positions, *taps, x.shape[-1]), x.dtype)
            inside = np.zeros((*positions, *taps), bool)
        inside[(*p, *t)] = is_inside
        if is_inside:
            y[(slice(None), *p, *t)] = x[(slice(None), *at)]
    return y, inside


def folded(y, size, taps, *, stride, dilation, padding):
    """The sum (N, *S, C) of patches (N, *P, *K, C), each value where it was read."""
    x = np.zeros((y.shape[0], *size, y.shape[-1]), y.dtype)
    for _, p, t, at, is_inside in reads(size, taps, stride, dilation, padding):
        if is_inside:
            x[(slice(None), *at)] += y[(slice(None), *p, *t)]
    return x


def flat(y, rank):
    """(N, *P, *K, C) as (N, *P, T, C)."""
    return y.reshape(*y.shape[: rank + 1], -1, y.shape[-1])
