"""Small convolutions with a name each: every corner that a method, a gradient or a layout may meet.

Channels last, everything per axis, padding as pairs. Tests take them from `GEOMETRIES`; their sizes
are such that the reference, a loop over every product, takes milliseconds.
"""

import functools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from checker import assert_matches

from jaxdil import reference
from jaxdil._primitive import conv_p


class Geometry(NamedTuple):
    """One convolution: x (N, *S, C) with w (*K, I, O)."""

    name: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int

    @property
    def rank(self):
        """Number of spatial axes."""
        return len(self.stride)

    @property
    def window(self):
        """Stride, dilation, padding and groups, as options."""
        return {
            "stride": self.stride,
            "dilation": self.dilation,
            "padding": self.padding,
            "groups": self.groups,
        }

    @property
    def options(self):
        """All that `jaxdil.conv` and `reference.conv` call by the same name."""
        return {**self.window, "input_dilation": self.input_dilation}

    @property
    def y_shape(self):
        """(N, *P, O), worked out apart from the library."""
        positions = (
            (a * (n - 1) + 1 + lo + hi - d * (k - 1) - 1) // s + 1
            for n, k, s, d, a, (lo, hi) in zip(
                self.x_shape[1:-1],
                self.w_shape[:-2],
                self.stride,
                self.dilation,
                self.input_dilation,
                self.padding,
                strict=True,
            )
        )
        return (self.x_shape[0], *positions, self.w_shape[-1])


def geometry(name, size, kernel, *, channels=(2, 3), batch=2, s=1, d=1, a=1, pad=(0, 0), groups=1):
    """A geometry from its sizes; one value of an option stands for every axis."""
    rank = len(size)

    def each(value):
        return tuple(value) if isinstance(value, tuple) else (value,) * rank

    inner, outer = channels
    return Geometry(
        name,
        x_shape=(batch, *size, inner),
        w_shape=(*kernel, inner // groups, outer),
        stride=each(s),
        dilation=each(d),
        input_dilation=each(a),
        padding=pad if isinstance(pad[0], tuple) else (pad,) * rank,
        groups=groups,
    )


GEOMETRIES = (
    # One axis: kernels, strides, dilations, paddings.
    geometry("odd kernel", (9,), (3,), pad=(1, 1)),
    geometry("even kernel", (9,), (4,), pad=(1, 2)),
    geometry("no padding", (8,), (3,)),
    geometry("one tap", (6,), (1,)),
    geometry("one tap with stride", (8,), (1,), s=3),
    geometry("stride", (10,), (3,), s=2, pad=(0, 1)),
    geometry("stride larger than kernel", (11,), (2,), s=4, pad=(1, 0)),
    geometry("dilation", (11,), (3,), d=2, pad=(2, 2)),
    geometry("dilation of an even kernel", (11,), (4,), d=3, pad=(4, 5)),
    geometry("dilation larger than the image", (5,), (3,), d=6, pad=(6, 6)),
    geometry("stride and dilation, coprime", (13,), (3,), s=2, d=3, pad=(3, 3)),
    geometry("stride and dilation, equal", (13,), (3,), s=2, d=2, pad=(1, 2)),
    geometry("stride and dilation, common factor", (17,), (3,), s=4, d=6, pad=(5, 6)),
    geometry("stride over dilation, a multiple", (15,), (3,), s=4, d=2, pad=(2, 0)),
    geometry("dilation over stride, a multiple", (15,), (3,), s=2, d=4, pad=(3, 4)),
    geometry("uneven padding", (7,), (3,), d=2, pad=(5, 1)),
    geometry("more padding than kernel", (4,), (2,), pad=(4, 5), s=2),
    geometry("negative padding", (9,), (3,), pad=(-2, -1)),
    geometry("negative padding before, dilation", (9,), (2,), d=3, s=2, pad=(-1, 3)),
    geometry("kernel as large as the image", (5,), (5,)),
    geometry("kernel larger than the image", (3,), (5,), pad=(2, 2)),
    geometry("causal", (8,), (3,), d=2, pad=(4, 0)),
    geometry("a single sample", (1,), (3,), pad=(1, 1)),
    # Channels.
    geometry("groups", (8,), (3,), channels=(4, 6), groups=2, pad=(1, 1), d=2),
    geometry("wide groups", (5,), (2,), channels=(18, 4), groups=2, s=2),
    geometry("depthwise", (9,), (3,), channels=(3, 3), groups=3, pad=(1, 1)),
    geometry("depthwise with multiplier", (7,), (3,), channels=(2, 6), groups=2, d=2, pad=(2, 2)),
    geometry("depthwise, stride and dilation", (12,), (3,), channels=(3, 3), groups=3, s=2, d=3),
    geometry("one channel", (7,), (3,), channels=(1, 1), batch=1, pad=(1, 1)),
    # Kernels of more taps than are written out.
    geometry("130 taps", (133,), (130,), channels=(2, 2), groups=2, batch=1, pad=(2, 1), s=2),
    geometry("12 x 11 taps", (13, 12), (12, 11), channels=(1, 2), batch=1, pad=((0, 0), (0, 1))),
    geometry(
        "5 x 5 taps", (7, 9), (5, 5), channels=(2, 2), groups=2, s=(1, 2), d=(2, 1), pad=(3, 2)
    ),
    # More axes.
    geometry("unequal axes", (5, 7), (3, 2), s=(1, 2), d=(2, 1), pad=((2, 2), (0, 1))),
    geometry("2-D stride and dilation", (8, 7), (2, 3), s=(2, 3), d=(3, 2), pad=((1, 2), (2, 2))),
    geometry("2-D depthwise", (6, 5), (3, 3), channels=(2, 2), groups=2, d=(1, 2), pad=(1, 2)),
    geometry("2-D one tap, stride", (5, 6), (1, 1), s=2, channels=(3, 2)),
    geometry("2-D as large as the image", (4, 3), (4, 3)),
    geometry("2-D, negative padding", (6, 7), (3, 2), pad=((-1, 1), (1, -2)), s=(1, 2)),
    geometry("an axis of size 1", (1, 6), (3, 3), pad=(1, 1), d=(1, 2)),
    geometry("3-D", (3, 4, 3), (2, 2, 2), channels=(1, 2), batch=1, pad=((1, 0), (0, 1), (1, 1))),
    geometry(
        "3-D, everything unequal",
        (4, 5, 3),
        (2, 3, 1),
        channels=(2, 2),
        groups=2,
        batch=1,
        s=(2, 1, 2),
        d=(1, 2, 1),
        pad=((1, 0), (2, 1), (0, 0)),
    ),
    geometry("3-D, to fewer channels", (8, 3, 3), (3, 2, 1), channels=(6, 1), d=(2, 1, 1)),
    geometry("3-D, more taps than positions", (9, 2, 2), (4, 2, 1), channels=(6, 1), s=(2, 1, 1)),
    # Dilated input: transposed convolutions.
    geometry("transposed, kernel = stride", (4,), (2,), a=2, pad=(1, 1)),
    geometry("transposed, kernel < stride", (4,), (2,), a=3, pad=(1, 1)),
    geometry("transposed, kernel > stride", (4,), (3,), a=2, pad=(2, 1)),
    geometry("transposed, 4 taps, stride 2", (4,), (4,), a=2, pad=(2, 2)),
    geometry("transposed with dilation", (4,), (3,), a=2, d=3, pad=(4, 5)),
    geometry("transposed, common factor", (4,), (3,), a=4, d=6, s=2, pad=(6, 9)),
    geometry("transposed, cropped", (5,), (3,), a=3, pad=(-2, -4)),
    geometry("transposed, 8 taps, stride 4", (3,), (8,), a=4, pad=(5, 5)),
    geometry("transposed depthwise", (4,), (4,), channels=(2, 2), groups=2, a=2, pad=(2, 2)),
    geometry("transposed groups", (3,), (3,), channels=(4, 2), groups=2, a=2, pad=(1, 2)),
    geometry("2-D transposed", (3, 3), (2, 2), a=2, pad=(1, 1)),
    geometry("patches", (5, 8), (2, 3), s=(2, 3), pad=((1, 0), (0, 2))),
    geometry("patches joined", (3, 2), (2, 3), a=(2, 3), pad=((1, 0), (3, 4))),
    geometry("patches that overlap", (2, 3), (4, 6), a=(2, 3), pad=((1, 4), (3, 2))),
    geometry("patches that overlap, few", (2,), (6,), channels=(12, 2), a=2, pad=(7, 3)),
    geometry("2-D transposed, no zeros", (3, 4), (4, 3), a=2, s=(2, 1), pad=((3, 2), (1, 2))),
    geometry("2-D transposed, unequal", (3, 2), (3, 2), a=(2, 3), d=(1, 2), pad=((2, 1), (2, 3))),
)

BY_NAME = {g.name: g for g in GEOMETRIES}
assert len(BY_NAME) == len(GEOMETRIES), "a name stands twice"


# --- what they are judged by ----------------------------------------------------------------------


def draw(seed, shape, dtype):
    """Random numbers of any dtype: small integers, or normal ones that the dtype holds exactly."""
    random = np.random.default_rng(seed)
    if jnp.issubdtype(dtype, jnp.integer):
        return random.integers(-4, 5, shape).astype(dtype)
    values = random.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        values = values + 1j * random.normal(size=shape)
    return values.astype(dtype)


def integers(seed, shape, dtype=np.float32):
    """Small integers in any dtype, so that every order of summation gives the same result."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


@functools.cache
def operands(g, dtype):
    """x, w and a cotangent of y."""
    shapes = (g.x_shape, g.w_shape, g.y_shape)
    return tuple(draw(seed, shape, dtype) for seed, shape in enumerate(shapes))


def spread(x, input_dilation):
    """x with the zeros of its dilation written out."""
    for axis, a in enumerate(input_dilation, start=1):
        wide = np.zeros(
            (*x.shape[:axis], a * (x.shape[axis] - 1) + 1, *x.shape[axis + 1 :]), x.dtype
        )
        wide[(slice(None),) * axis + (slice(None, None, a),)] = x
        x = wide
    return x


def definition(role, g, x, w, cotangent):
    """Forward, input gradient or kernel gradient, by the reference."""
    if role == "forward":
        return reference.conv(x, w, **g.options)
    wide = spread(x, g.input_dilation)
    if role == "input gradient":
        dx = reference.conv_transpose(cotangent, w, input_shape=wide.shape[1:-1], **g.window)
        return dx[(slice(None), *(slice(None, None, a) for a in g.input_dilation))]
    return reference.conv_kernel_grad(wide, cotangent, kernel_shape=g.w_shape[:-2], **g.window)


@functools.cache
def _expected(role, g, dtype):
    arrays = operands(g, dtype)
    magnitude = None
    if not jnp.issubdtype(dtype, jnp.integer):
        wide = np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64
        magnitude = definition(role, g, *(np.abs(a.astype(wide)) for a in arrays))
    return definition(role, g, *arrays), magnitude


def judge(actual, role, g, dtype, out_dtype=None):
    """Fail unless ``actual`` is what a role of a geometry gives for `operands`, to rounding."""
    out_dtype = jnp.dtype(dtype if out_dtype is None else out_dtype)
    terms = {
        "forward": math.prod(g.w_shape[:-1]),
        "input gradient": math.prod(g.w_shape[:-2]) * g.w_shape[-1] // g.groups,
        "kernel gradient": math.prod(g.y_shape[:-1]),
    }[role]
    if jnp.issubdtype(dtype, jnp.complexfloating):
        terms *= 2  # each part of a complex product is a sum of two real ones
    # Half precision accumulates in float32.
    half = jnp.issubdtype(out_dtype, jnp.floating) and out_dtype.itemsize < 4
    arithmetic = np.float32 if half else out_dtype
    expected, magnitude = _expected(role, g, jnp.dtype(dtype))
    assert_matches(actual, expected, magnitude, terms=terms, dtype=arithmetic, out_dtype=out_dtype)


# --- what ran -------------------------------------------------------------------------------------


def equations(jaxpr):
    """Every equation, those of inner programs included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in inner_jaxprs(eqn):
            yield from equations(inner)


def inner_jaxprs(eqn):
    """The programs among the parameters of an equation."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(item, "jaxpr"):
                yield item.jaxpr


def methods_asked(fn, *arrays):
    """The `method` of each convolution of a function."""
    jaxpr = jax.make_jaxpr(fn)(*arrays).jaxpr
    return [eqn.params["method"] for eqn in equations(jaxpr) if eqn.primitive is conv_p]


def methods_run(text, role):
    """The methods whose scope stands in the lowered program under the scope of a role."""
    role = role.replace(" ", "_")
    return set(re.findall(rf'"[^"]*\b{role}\b(?:(?!jaxdil\.)[^"])*jaxdil\.(\w+)', text))
