"""What each primitive reads: one rule for a family of primitives, one table of rules.

A rule takes an equation and answers one row a result, one link an operand; None reads nothing.
Where the values of operands say what is read, it also takes those, as far as they are known without
the input. A primitive that is in no table reads all of its operands.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxdil._reads import Link, Reads, Reshaped, Taken, Window, whole

__all__ = ["CALLS", "PLACED", "RULES", "Known", "Links"]

# The constants among the operands: a function of the position, None for what is not known.
Known: TypeAlias = Callable[[int], np.ndarray | None]
Links: TypeAlias = list[list[Link | None]]

# Each is the program in one of its parameters, called with the equation's operands.
CALLS = {
    "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "jaxdil_resumed_conv", "jit", "pjit", "remat", "remat2",
}  # fmt: skip

ELEMENTWISE = (
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil "
    "clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq eq_to erf "
    "erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow "
    "is_finite le le_to lgamma log log1p logistic lt lt_to max min mul name ne neg nextafter not "
    "or polygamma population_count pow real reduce_precision regularized_incomplete_beta rem round "
    "rsqrt select_n sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign "
    "sin sinh sqrt square stop_gradient sub tan tanh xor zeta"
)
# One result an operand, each elementwise.
PAIRWISE = ["device_put", "optimization_barrier"]
REDUCTIONS = (
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor"
)
CUMULATIVE = ["cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"]
WINDOWS = ["reduce_window_max", "reduce_window_min", "reduce_window_sum"]
CONVOLUTIONS = ["conv_general_dilated", "jaxdil_conv"]


def _shapes(variables: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(v.aval.shape) for v in variables]


def _same(shape: Sequence[int], results: Sequence[int]) -> Link:
    """Sample by sample; a scalar goes to all, and so does what is alone on an axis."""
    pairs = enumerate(zip(shape, results[: len(shape)], strict=True))
    return Window(Reads(axis if n == size else None) for axis, (n, size) in pairs)


def _elementwise(eqn: Any) -> Links:
    (results,) = _shapes(eqn.outvars)
    return [[_same(shape, results) for shape in _shapes(eqn.invars)]]


def _pairwise(eqn: Any) -> Links:
    shapes = _shapes(eqn.invars)
    return [
        [_same(shape, shape) if i == k else None for i, shape in enumerate(shapes)]
        for k in range(len(shapes))
    ]


def _squeezed(shape: Sequence[int], axes: Sequence[int]) -> Window:
    """The axes read whole and gone from the result."""
    numbers = itertools.count()
    return Window(
        Reads(None, taps=n) if axis in axes else Reads(next(numbers))
        for axis, n in enumerate(shape)
    )


def _reduction(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    return [[_squeezed(shape, eqn.params["axes"])]]


def _squeeze(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    return [[_squeezed(shape, eqn.params["dimensions"])]]


def _cumulative(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    over = eqn.params["axis"]
    back = Reads(over, taps=shape[over], step=1 if eqn.params["reverse"] else -1)
    return [[Window(back if axis == over else Reads(axis) for axis in range(len(shape)))]]


def _mixed_along(shape: Sequence[int], axes: Sequence[int]) -> Window:
    """The axes read whole, and still there in the result."""
    return Window(
        Reads(None, taps=n) if axis in axes else Reads(axis) for axis, n in enumerate(shape)
    )


def _sort(eqn: Any) -> Links:
    axes = [eqn.params["dimension"]]
    return [[_mixed_along(shape, axes) for shape in _shapes(eqn.invars)] for _ in eqn.outvars]


def _top_k(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    return [[_mixed_along(shape, [eqn.params.get("axis", len(shape) - 1)])] for _ in eqn.outvars]


def _fft(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    rank = len(shape)
    return [[_mixed_along(shape, range(rank - len(eqn.params["fft_lengths"]), rank))]]


def _reverse(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    turned = eqn.params["dimensions"]
    axes = (
        Reads(axis, stride=-1, offset=n - 1) if axis in turned else Reads(axis)
        for axis, n in enumerate(shape)
    )
    return [[Window(axes)]]


def _transpose(eqn: Any) -> Links:
    return [[Window(Reads(int(axis)) for axis in np.argsort(eqn.params["permutation"]))]]


def _reshape(eqn: Any) -> Links:
    return [[Reshaped() if eqn.params["dimensions"] is None else whole(*_shapes(eqn.invars))]]


def _broadcast(eqn: Any) -> Links:
    shape, *others = _shapes(eqn.invars)
    results = eqn.params["shape"]
    axes = eqn.params["broadcast_dimensions"]
    link = Window(
        Reads(axis) if n == results[axis] else Reads(None)
        for n, axis in zip(shape, axes, strict=True)
    )
    return [[link, *[None for _ in others]]]


def _slice(eqn: Any) -> Links:
    starts = eqn.params["start_indices"]
    strides = eqn.params["strides"] or [1] * len(starts)
    pairs = enumerate(zip(starts, strides, strict=True))
    return [[Window(Reads(axis, stride=stride, offset=at) for axis, (at, stride) in pairs)]]


def _shifted(rank: int, along: int, starts: Sequence[int]) -> list[Window]:
    """For each start, the samples from there on, on one axis."""
    return [
        Window(Reads(axis, offset=int(start) if axis == along else 0) for axis in range(rank))
        for start in starts
    ]


def _split(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    starts = np.cumsum([0, *eqn.params["sizes"]])[:-1]
    return [[link] for link in _shifted(len(shape), eqn.params["axis"], starts.tolist())]


def _concatenate(eqn: Any) -> Links:
    shapes, along = _shapes(eqn.invars), eqn.params["dimension"]
    starts = -np.cumsum([0] + [shape[along] for shape in shapes])[:-1]
    return [[*_shifted(len(shapes[0]), along, starts.tolist())]]


def _pad(eqn: Any) -> Links:
    edges = enumerate(eqn.params["padding_config"])
    axes = (
        Reads(axis, offset=-lo, spread=inner + 1, padded=True) for axis, (lo, _, inner) in edges
    )
    return [[Window(axes), Window()]]


def _starts(known: Known, first: int, count: int) -> list[int] | None:
    values = [known(first + i) for i in range(count)]
    return None if any(v is None for v in values) else [int(v) for v in values if v is not None]


def _dynamic(sizes: Sequence[int], within: Sequence[int], starts: list[int] | None) -> Window:
    """A slice that starts somewhere: in the slice, p stands for p + start."""
    room = [n - size for n, size in zip(within, sizes, strict=True)]
    if starts is None:
        return Window(Reads(axis, taps=1 + most) for axis, most in enumerate(room))
    at = [min(max(start, 0), most) for start, most in zip(starts, room, strict=True)]
    return Window(Reads(axis, offset=start) for axis, start in enumerate(at))


def _dynamic_slice(eqn: Any, known: Known) -> Links:
    shape, *scalars = _shapes(eqn.invars)
    starts = _starts(known, 1, len(shape))
    return [[_dynamic(eqn.params["slice_sizes"], shape, starts), *map(whole, scalars)]]


def _dynamic_update_slice(eqn: Any, known: Known) -> Links:
    shape, update, *scalars = _shapes(eqn.invars)
    starts = _starts(known, 2, len(shape))
    placed = Window(r._replace(step=-1, offset=-r.offset) for r in _dynamic(update, shape, starts))
    kept: Link = _same(shape, shape)
    if starts is not None:
        numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        at = tuple(slice(-r.offset, -r.offset + n) for r, n in zip(placed, update, strict=True))
        numbers[at] = -1
        kept = Taken(numbers)
    return [[kept, placed, *map(whole, scalars)]]


def _gather(eqn: Any, known: Known) -> Links:
    """By number, where the positions are known: the gather itself says which."""
    shape, positions = _shapes(eqn.invars)
    at = known(1)
    if at is None:
        return [[whole(shape), whole(positions)]]
    with jax.ensure_compile_time_eval():
        numbers = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
        options = {**eqn.params, "fill_value": -1}
        taken = eqn.primitive.bind(jax.numpy.asarray(numbers), jax.numpy.asarray(at), **options)
    return [[Taken(np.asarray(taken)), None]]


def _tile(eqn: Any) -> Links:
    (shape,) = _shapes(eqn.invars)
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return [[Taken(np.tile(numbers, eqn.params["reps"]))]]


def _dot_general(eqn: Any) -> Links:
    (contracted, batch) = eqn.params["dimension_numbers"]
    shapes = _shapes(eqn.invars)
    free = [
        [axis for axis in range(len(shape)) if axis not in (*gone, *both)]
        for shape, gone, both in zip(shapes, contracted, batch, strict=True)
    ]
    links: list[Link | None] = []
    before = len(batch[0])
    for shape, both, own in zip(shapes, batch, free, strict=True):
        place = {axis: k for k, axis in enumerate(both)}
        place |= {axis: before + k for k, axis in enumerate(own)}
        before += len(own)
        links.append(
            Window(
                Reads(place[axis]) if axis in place else Reads(None, taps=n)
                for axis, n in enumerate(shape)
            )
        )
    return [links]


def _window(eqn: Any) -> Links:
    shape = eqn.invars[0].aval.shape
    p = eqn.params
    axes = zip(
        p["window_dimensions"], p["window_strides"], p["padding"], p["base_dilation"],
        p["window_dilation"], strict=True,
    )  # fmt: skip
    window = Window(
        Reads(axis, taps=k, stride=s, step=d, offset=-lo, spread=a, padded=True)
        for axis, (k, s, (lo, _), a, d) in enumerate(axes)
    )
    return [[window if len(v.aval.shape) == len(shape) else Window() for v in eqn.invars]]


def _convolution(eqn: Any) -> Links:
    p = eqn.params
    x, w = _shapes(eqn.invars)
    image, kernel, result = p["dimension_numbers"]
    groups = p["feature_group_count"]
    if p["batch_group_count"] > 1:
        return [[whole(x), whole(w)]]
    per_group = x[image[1]] // groups
    reads = {
        image[0]: Reads(result[0]),
        image[1]: Reads(None, taps=per_group)
        if groups == 1
        else Reads(result[1], per_group, stride=per_group, repeat=w[kernel[0]] // groups),
    }
    weights = {kernel[0]: Reads(result[1]), kernel[1]: Reads(None, taps=w[kernel[1]])}
    for i, (axis, tap_axis, at) in enumerate(zip(image[2:], kernel[2:], result[2:], strict=True)):
        reads[axis] = Reads(
            at,
            taps=w[tap_axis],
            stride=p["window_strides"][i],
            step=p["rhs_dilation"][i],
            offset=-p["padding"][i][0],
            spread=p["lhs_dilation"][i],
            padded=True,
        )
        weights[tap_axis] = Reads(None, taps=w[tap_axis])
    return [[Window(each[j] for j in range(len(x))) for each in (reads, weights)]]


def _segmented(eqn: Any) -> Links:
    """As if every tap counted: which do is known only when it runs."""
    _, w, _ = _shapes(eqn.invars)
    step, offset = eqn.params["dilation"], -eqn.params["lo"]
    time = Reads(1, taps=w[0], step=step, offset=offset, padded=True)
    weights = Window([Reads(None, taps=w[0]), Reads(2)])
    return [[Window([Reads(0), time, Reads(2)]), weights, Window([Reads(0), Reads(1)])]]


RULES: dict[str, Callable[[Any], Links]] = {
    **dict.fromkeys(ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(PAIRWISE, _pairwise),
    **dict.fromkeys(REDUCTIONS.split(), _reduction),
    **dict.fromkeys(CUMULATIVE, _cumulative),
    **dict.fromkeys(WINDOWS, _window),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dot_general": _dot_general,
    "fft": _fft,
    "jaxdil_segmented_conv": _segmented,
    "pad": _pad,
    "reduce_window": _window,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "squeeze": _squeeze,
    "tile": _tile,
    "top_k": _top_k,
    "transpose": _transpose,
}

PLACED: dict[str, Callable[[Any, Known], Links]] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
}
