"""The functions users call: every way to write their arguments, against the reference and lax."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_bilinear, assert_conv, assert_input_grad, assert_kernel_grad
from geometries import GEOMETRIES, draw, integers
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxdil
from jaxdil import reference

pytestmark = pytest.mark.core

X2, W2 = integers(0, (2, 7, 6, 4)), integers(1, (3, 2, 2, 6))  # two groups
OPTIONS = {"stride": (2, 1), "dilation": (1, 2), "padding": [(1, 2), (0, 3)], "groups": 2}


def first(x, batch=1):
    """Channels first, from channels last."""
    return np.moveaxis(x, -1, batch)


def assert_equal(got, expected):
    """Same shape and numbers; the operands were small integers."""
    chex.assert_shape(got, np.shape(expected))
    np.testing.assert_array_equal(got, expected)


# --- layout ---------------------------------------------------------------------------------------


def test_channels_last_is_the_default():
    expected = reference.conv(X2, W2, **OPTIONS)
    for data_format in (None, "channels_last", "NHWC", "nhwc", "NXYC"):
        assert_equal(jaxdil.conv(X2, W2, data_format=data_format, **OPTIONS), expected)


def test_channels_first():
    expected = first(reference.conv(X2, W2, **OPTIONS))
    for data_format in ("channels_first", "NCHW", "nchw", "NCXY"):
        got = jaxdil.conv(first(X2), W2, data_format=data_format, **OPTIONS)
        assert_equal(got, expected)


@pytest.mark.parametrize(
    ("rank", "last", "first_"), [(1, "NWC", "NCW"), (2, "NHWC", "NCHW"), (3, "NDHWC", "NCDHW")]
)
def test_letters_of_each_rank(rank, last, first_):
    x, w = integers(0, (1, *range(4, 4 + rank), 2)), integers(1, (*(2,) * rank, 2, 3))
    expected = reference.conv(x, w, dilation=2)
    got = jaxdil.conv(x, w, dilation=2, padding="VALID", data_format=last)
    assert_equal(got, expected)
    got = jaxdil.conv(first(x), w, dilation=2, padding="VALID", data_format=first_)
    assert_equal(got, first(expected))


@pytest.mark.parametrize(
    "numbers",
    [
        ("HWNC", "HWIO", "HWNC"),
        ("CHWN", "IHWO", "CHWN"),
        ("NHWC", "OIHW", "NCHW"),
        ("NCHW", "OIHW", "NHWC"),
        lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
    ],
    ids=str,
)
def test_dimension_numbers(numbers):
    if isinstance(numbers, lax.ConvDimensionNumbers):
        assert_equal(
            jaxdil.conv(X2, W2, data_format=numbers, **OPTIONS), reference.conv(X2, W2, **OPTIONS)
        )
        return
    lhs, rhs, out = numbers
    x = X2.transpose(["NHWC".index(c) for c in lhs])
    w = W2.transpose(["HWIO".index(c) for c in rhs])
    expected = reference.conv(X2, W2, **OPTIONS).transpose(["NHWC".index(c) for c in out])
    assert_equal(jaxdil.conv(x, w, data_format=numbers, **OPTIONS), expected)
    shape = jaxdil.conv_output_shape(x.shape, w.shape, data_format=numbers, **OPTIONS)
    assert shape == expected.shape


def test_without_a_batch():
    expected = reference.conv(X2[:1], W2, **OPTIONS)[0]
    for data_format in (None, "channels_last", "NHWC"):
        assert_equal(jaxdil.conv(X2[0], W2, data_format=data_format, **OPTIONS), expected)
    for data_format in ("channels_first", "NCHW"):
        got = jaxdil.conv(first(X2[0], 0), W2, data_format=data_format, **OPTIONS)
        assert_equal(got, first(expected, 0))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (0, 2)], ids=str)
def test_several_batch_axes(lead):
    x = integers(0, (*lead, 6, 5, 2))
    w = integers(1, (3, 2, 2, 3))
    flat = x.reshape(-1, 6, 5, 2)
    expected = reference.conv(flat, w, padding=[(1, 1), (0, 1)])
    assert_equal(
        jaxdil.conv(x, w, data_format="NHWC"), expected.reshape(*lead, *expected.shape[1:])
    )
    channels = len(lead)
    got = jaxdil.conv(first(x, channels), w, data_format="NCHW")
    assert_equal(got, first(expected.reshape(*lead, *expected.shape[1:]), channels))
    depthwise = jaxdil.depthwise_conv(x, w[..., :2], data_format="NHWC")
    chex.assert_shape(depthwise, (*lead, 6, 5, 4))
    chex.assert_shape(
        jaxdil.conv_transpose(x, w.swapaxes(2, 3), data_format="NHWC"), (*lead, 6, 5, 3)
    )


def test_no_spatial_axis():
    """Rank 0: a matrix product."""
    x, w = integers(0, (4, 3)), integers(1, (3, 5))
    assert_equal(jaxdil.conv(x, w), x @ w)
    assert_equal(jaxdil.conv(x[0], w), x[0] @ w)
    assert_equal(jaxdil.conv_transpose(x, w.T), x @ w)
    assert jaxdil.conv_output_shape((4, 3), (3, 5)) == (4, 5)
    assert jaxdil.conv_transpose_output_shape((4, 3), (5, 3)) == (4, 5)
    grouped = jaxdil.conv(x, integers(2, (1, 6)), groups=3)
    assert_equal(grouped, reference.conv(x, integers(2, (1, 6)), groups=3))


def test_four_and_five_spatial_axes():
    for rank in (4, 5):
        x, w = integers(0, (1, *(3,) * rank, 1)), integers(1, (*(2,) * rank, 1, 2))
        got = jaxdil.conv(x, w, padding="VALID", stride=(1, 2) + (1,) * (rank - 2))
        assert_equal(got, reference.conv(x, w, stride=(1, 2) + (1,) * (rank - 2)))


# --- window ---------------------------------------------------------------------------------------


def same(n, k_eff, s):
    """SAME worked out apart from the library."""
    total = max((math.ceil(n / s) - 1) * s + k_eff - n, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize(("stride", "dilation"), [(s, d) for s in (1, 2, 3) for d in (1, 2)])
def test_padding_by_name(stride, dilation):
    n, k = 8, 4
    x, w = integers(0, (1, n, 2)), integers(1, (k, 2, 3))
    k_eff = dilation * (k - 1) + 1
    lo, hi = same(n, k_eff, stride)
    pads = {
        "VALID": (0, 0),
        "SAME": (lo, hi),
        "SAME_LOWER": (hi, lo),
        "CAUSAL": (k_eff - 1, 0),
        "FULL": (k_eff - 1, k_eff - 1),
    }
    window = {"stride": stride, "dilation": dilation}

    def every_name(x, w):
        return {name: jaxdil.conv(x, w, padding=name, **window) for name in pads}

    for name, y in jax.jit(every_name)(x, w).items():
        assert_equal(y, reference.conv(x, w, padding=[pads[name]], **window))
        for spelled in (name, name.lower(), name.title()):
            assert jaxdil.resolve_padding(spelled, size=[n], kernel=[k], **window) == (pads[name],)
    assert jaxdil.conv_output_shape(x.shape, w.shape, **window)[1] == math.ceil(n / stride)


PADDINGS = {
    "int": (2, [(2, 2), (2, 2)]),
    "numpy int": (np.int32(1), [(1, 1), (1, 1)]),
    "per axis": ((2, 0), [(2, 2), (0, 0)]),
    "array": (np.array([0, 1]), [(0, 0), (1, 1)]),
    "pairs": ([(1, 2), (3, 0)], [(1, 2), (3, 0)]),
    "lists": ([[1, 2], [0, 1]], [(1, 2), (0, 1)]),
    "array of pairs": (np.array([[1, 2], [0, 1]]), [(1, 2), (0, 1)]),
    "negative": ([(-1, 2), (1, -2)], [(-1, 2), (1, -2)]),
    "negative int": (-1, [(-1, -1), (-1, -1)]),
    "names": (("CAUSAL", "same"), [(2, 0), (1, 1)]),
    "mixed": (["valid", (1, 2)], [(0, 0), (1, 2)]),
    "int and name": ([3, "FULL"], [(3, 3), (2, 2)]),
}


@pytest.mark.parametrize("case", PADDINGS, ids=lambda case: case.replace(" ", "_"))
def test_padding_forms(case):
    padding, pairs = PADDINGS[case]
    x, w = integers(0, (1, 6, 7, 1)), integers(1, (3, 2, 1, 2))
    expected = reference.conv(x, w, dilation=(1, 2), padding=pairs)
    assert_equal(jaxdil.conv(x, w, dilation=(1, 2), padding=padding), expected)
    resolved = jaxdil.resolve_padding(padding, size=(6, 7), kernel=(3, 2), dilation=(1, 2))
    assert resolved == tuple(pairs)
    depthwise = jaxdil.depthwise_conv(x, w, dilation=(1, 2), padding=padding)
    assert_equal(depthwise, expected)


def test_integers_of_any_kind():
    expected = jaxdil.conv(X2, W2, stride=(2, 2), dilation=(2, 2), groups=2)
    for two in (2, np.int64(2), np.uint8(2), [2, 2], (np.int32(2), 2), np.array([2, 2])):
        got = jaxdil.conv(X2, W2, stride=two, dilation=two, groups=np.int64(2))
        assert_equal(got, expected)


def test_numpy_and_jax_arrays():
    expected = jaxdil.conv(jnp.asarray(X2), jnp.asarray(W2), **OPTIONS)
    assert isinstance(expected, jax.Array)
    for x, w in ((X2, W2), (jnp.asarray(X2), W2), (X2, jnp.asarray(W2))):
        got = jaxdil.conv(x, w, **OPTIONS)
        assert isinstance(got, jax.Array)
        assert_equal(got, expected)


def test_conv_against_the_reference_in_numbers_that_are_not_integers():
    x, w = draw(0, (2, 7, 6, 4), np.float32), draw(1, (3, 2, 2, 6), np.float32)
    assert_conv(jaxdil.conv(x, w, **OPTIONS), x, w, **OPTIONS)


@pytest.mark.parametrize("precision", [None, "highest", lax.Precision.HIGH, ("high", "high")])
def test_precision_reaches_the_convolution(precision):
    fn = functools.partial(jaxdil.conv, precision=precision, groups=2)
    (eqn,) = (e for e in jax.make_jaxpr(fn)(X2, W2).jaxpr.eqns if e.primitive.name == "jaxdil_conv")
    theirs = jax.make_jaxpr(lambda x, w: lax.conv(x, w, (1, 1), "SAME", precision=precision))(
        X2, np.ones((6, 7, 1, 1), np.float32)
    )
    assert eqn.params["precision"] == theirs.jaxpr.eqns[-1].params["precision"]
    assert_equal(fn(X2, W2), jaxdil.conv(X2, W2, groups=2))


@pytest.mark.parametrize(("narrow", "wide"), [("bfloat16", "float32"), ("int8", "int32")])
def test_preferred_element_type(narrow, wide):
    narrow, wide = jnp.dtype(narrow), jnp.dtype(wide)
    x, w = draw(0, (1, 9, 4), narrow), draw(1, (3, 4, 2), narrow)
    options = {"preferred_element_type": wide}
    y = jaxdil.conv(x, w, padding=1, **options)
    assert_conv(y, x, w, padding=[(1, 1)], out_dtype=wide)
    d = draw(2, (3, 4, 1), narrow)
    depthwise = jaxdil.depthwise_conv(x, d, padding=1, **options)
    assert_bilinear(
        depthwise, reference.depthwise_conv, x, d, padding=[(1, 1)], terms=3, out_dtype=wide
    )
    t = draw(3, (3, 2, 4), narrow)
    transposed = jaxdil.conv_transpose(x, t, padding="VALID", **options)
    assert_bilinear(
        transposed, reference.conv_transpose, x, t, input_shape=11, terms=12, out_dtype=wide
    )
    p = draw(4, (4, 2), narrow)
    assert jaxdil.separable_conv(x, d, p, **options).dtype == wide


# --- depthwise and separable ----------------------------------------------------------------------

DEPTHWISE = {
    1: ((2, 9, 3), (3, 3, 2)),
    2: ((1, 7, 6, 2), (2, 3, 2, 2)),
    3: ((1, 4, 5, 3, 2), (2, 2, 1, 2, 1)),
}


@pytest.mark.parametrize("first_", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("rank", DEPTHWISE)
def test_depthwise_and_separable(rank, first_):
    x_shape, w_shape = DEPTHWISE[rank]
    x, w = integers(0, x_shape), integers(1, w_shape)
    mixed = w_shape[-2] * w_shape[-1]
    p = integers(2, (*(1,) * rank, mixed, 5))
    pads = [(1, 2)] * rank
    data_format = "channels_first" if first_ else "channels_last"
    turn = first if first_ else np.asarray

    for stride, dilation in ((1, 1), (2, 1), (1, 2), (2, 2)):
        window = {"stride": stride, "dilation": dilation, "padding": pads}
        options = {**window, "data_format": data_format}
        y = jaxdil.depthwise_conv(turn(x), w, **options)
        assert_equal(y, turn(reference.depthwise_conv(x, w, **window)))
    expected = turn(reference.separable_conv(x, w, p, **window))
    assert_equal(jaxdil.separable_conv(turn(x), w, p, **options), expected)
    assert_equal(jaxdil.separable_conv(turn(x), w, p.reshape(mixed, 5), **options), expected)


def test_depthwise_of_one_channel_is_a_convolution():
    x, w = integers(0, (2, 9, 1)), integers(1, (3, 1, 4))
    assert_equal(jaxdil.depthwise_conv(x, w, dilation=2), jaxdil.conv(x, w, dilation=2))


def test_depthwise_is_the_grouped_convolution_of_other_libraries():
    x, w = integers(0, (1, 8, 8, 3)), integers(1, (3, 3, 3, 2))
    grouped = jaxdil.conv(x, w.reshape(3, 3, 1, 6), groups=3, stride=2, dilation=3)
    assert_equal(jaxdil.depthwise_conv(x, w, stride=2, dilation=3), grouped)


# --- transposed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3)])
def test_conv_transpose(stride, dilation, groups):
    n, k = 5, 3
    k_eff = dilation * (k - 1) + 1
    x, w = integers(0, (2, n, 4)), integers(1, (k, 3, 4))
    full = (n - 1) * stride + k_eff
    # The size, and what is cut off at the start, worked out apart from the library.
    cases = {
        "SAME": ({}, n * stride, same(n * stride, k_eff, stride)),
        "VALID": ({"padding": "VALID"}, full, (0, 0)),
        "lax": (
            {"padding": "valid", "convention": "lax"},
            n * stride + max(k_eff - stride, 0),
            (0, 0),
        ),
        "pairs": ({"padding": [(1, 2)]}, full - 3, (1, 2)),
        "more": ({"padding": [(0, -3)]}, full + 3, (0, -3)),
        "FULL": ({"padding": "FULL"}, full - 2 * (k_eff - 1), (k_eff - 1, k_eff - 1)),
        "smallest": (
            {"output_shape": [(n - 1) * stride + 1]},
            (n - 1) * stride + 1,
            same((n - 1) * stride + 1, k_eff, stride),
        ),
        "largest": (
            {"output_shape": (full + stride - 1,), "padding": "VALID"},
            full + stride - 1,
            (0, 0),
        ),
        "output_padding": (
            {"output_padding": max(stride, dilation) - 1, "padding": 1},
            full - 2 + max(stride, dilation) - 1,
            (1, 1),
        ),
    }
    if full <= 2 * (k_eff - 1):
        del cases["FULL"]
    window = {"stride": stride, "dilation": dilation, "groups": groups}

    def every(x, w):
        return {
            name: jaxdil.conv_transpose(x, w, **window, **more[0]) for name, more in cases.items()
        }

    for name, y in jax.jit(every)(x, w).items():
        more, size, pads = cases[name]
        expected = reference.conv_transpose(x, w, input_shape=size, padding=[pads], **window)
        assert_equal(y, expected)
        assert jaxdil.conv_transpose_output_shape(x.shape, w.shape, **window, **more) == y.shape


def test_conv_transpose_in_two_axes_and_layouts():
    x, w = integers(0, (2, 4, 3, 6)), integers(1, (3, 2, 4, 6))
    window = {"stride": (2, 3), "dilation": (1, 2), "groups": 2}
    expected = reference.conv_transpose(
        x, w, input_shape=(9, 9), padding=[(0, 0), (0, 0)], **window
    )
    assert_equal(jaxdil.conv_transpose(x, w, padding="VALID", **window), expected)
    got = jaxdil.conv_transpose(
        first(x), w, padding="VALID", data_format="channels_first", **window
    )
    assert_equal(got, first(expected))
    got = jaxdil.conv_transpose(x[0], w, padding="VALID", **window)
    assert_equal(got, expected[0])


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2), (4, 1)])
def test_conv_transpose_in_laxs_convention(padding, stride, dilation):
    x, w = integers(0, (2, 5, 4)), integers(1, (3, 2, 4))
    expected = lax.conv_transpose(
        x,
        w,
        (stride,),
        padding,
        rhs_dilation=(dilation,),
        dimension_numbers=("NHC", "HIO", "NHC"),
        transpose_kernel=True,
    )
    got = jaxdil.conv_transpose(
        x, w, stride=stride, dilation=dilation, padding=padding, convention="lax"
    )
    assert_equal(got, expected)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "SAME_LOWER", [(3, 1)]], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_is_the_adjoint(padding, groups):
    """<conv_transpose(y, w), x> = <y, conv(x, w)>, exactly, in integers."""
    w = integers(1, (3, 4 // groups, 6))
    window = {"stride": 2, "dilation": 2, "padding": padding, "groups": groups}
    y = integers(2, (2, 5, 6))
    z = jaxdil.conv_transpose(y, w, **window)
    x = integers(0, z.shape)
    assert (z * x).sum() == (y * jaxdil.conv(x, w, **window)).sum()


# --- gradients as functions -----------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW", "channels_first", None])
def test_gradients_are_those_of_jax(data_format):
    turn = first if data_format in ("NCHW", "channels_first") else np.asarray
    x = turn(X2)
    options = {**OPTIONS, "data_format": data_format}
    conv = functools.partial(jaxdil.conv, **options)
    y, pullback = jax.vjp(conv, x, W2)
    g = integers(3, y.shape)
    dx, dw = pullback(jnp.asarray(g))
    assert_equal(jaxdil.conv_input_grad(g, W2, input_shape=x.shape, **options), dx)
    assert_equal(jaxdil.conv_kernel_grad(x, g, kernel_shape=W2.shape, **options), dw)


def test_gradients_without_a_batch_and_with_many_axes():
    g = integers(2, jaxdil.conv_output_shape(X2.shape, W2.shape, **OPTIONS))
    dx = jaxdil.conv_input_grad(g, W2, input_shape=X2.shape, **OPTIONS)
    one = jaxdil.conv_input_grad(g[0], W2, input_shape=X2.shape[1:], **OPTIONS)
    assert_equal(one, dx[0])
    dw = jaxdil.conv_kernel_grad(X2, g, kernel_shape=W2.shape, **OPTIONS)
    parts = [
        jaxdil.conv_kernel_grad(a, b, kernel_shape=W2.shape, **OPTIONS)
        for a, b in zip(X2, g, strict=True)
    ]
    assert_equal(sum(parts), dw)
    more = {"data_format": "NHWC", **OPTIONS}
    shape = (1, 2, *X2.shape[1:])
    wide = jaxdil.conv_input_grad(g[None], W2, input_shape=shape, **more)
    assert_equal(wide, dx[None])
    assert_equal(jaxdil.conv_kernel_grad(X2[None], g[None], kernel_shape=W2.shape, **more), dw)


def test_gradients_against_the_reference():
    x, w = draw(0, X2.shape, np.float32), draw(1, W2.shape, np.float32)
    g = draw(2, jaxdil.conv_output_shape(x.shape, w.shape, **OPTIONS), np.float32)
    dx = jaxdil.conv_input_grad(g, w, input_shape=x.shape, **OPTIONS)
    assert_input_grad(dx, g, w, input_shape=x.shape[1:-1], **OPTIONS)
    dw = jaxdil.conv_kernel_grad(x, g, kernel_shape=w.shape, **OPTIONS)
    assert_kernel_grad(dw, x, g, kernel_shape=w.shape[:-2], **OPTIONS)


def test_gradients_take_named_padding():
    g = integers(2, (2, 4, 6, 6))
    dx = jaxdil.conv_input_grad(g, W2, input_shape=X2.shape, stride=(2, 1), groups=2)
    expected = reference.conv_transpose(
        g, W2, input_shape=X2.shape[1:-1], stride=(2, 1), padding=[(1, 1), (0, 1)], groups=2
    )
    assert_equal(dx, expected)


# --- conv_general_dilated -------------------------------------------------------------------------

NCHW, OIHW = integers(0, (4, 4, 7, 6)), integers(1, (6, 2, 3, 2))
GENERAL = {
    "by position": ((NCHW, OIHW, (1, 1), "SAME", None, None, None, 2), {}),
    "every position": (
        (NCHW, OIHW, (2, 1), [(1, 1), (0, 2)], (1, 2), (2, 1), None, 2, 1, None, np.float32),
        {},
    ),
    "names": (
        (NCHW, OIHW),
        {"window_strides": [1, 2], "padding": "VALID", "feature_group_count": 2},
    ),
    "SAME_LOWER": ((NCHW, OIHW, (2, 2), "SAME_LOWER"), {"feature_group_count": 2}),
    "batch groups": ((NCHW, OIHW[:, :1].repeat(4, 1), (1, 1), "SAME"), {"batch_group_count": 2}),
    "letters": (
        (NCHW.transpose(0, 2, 3, 1), OIHW.transpose(2, 3, 1, 0), (1, 1), "SAME"),
        {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 2},
    ),
    "dimension numbers": (
        (NCHW, OIHW, (1, 1), "SAME"),
        {
            "dimension_numbers": lax.ConvDimensionNumbers((0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3)),
            "feature_group_count": 2,
        },
    ),
    "negative padding": ((NCHW, OIHW, (1, 1), [(-1, 0), (2, -2)]), {"feature_group_count": 2}),
    "precision": ((NCHW, OIHW, (1, 1), "SAME"), {"feature_group_count": 2, "precision": "highest"}),
    "empty result": ((NCHW[:, :, :2], OIHW, (1, 1), "VALID"), {"feature_group_count": 2}),
    "empty result, stride": ((NCHW[:, :, :1], OIHW, (3, 2), "VALID"), {"feature_group_count": 2}),
    "empty batch": ((NCHW[:0], OIHW, (1, 1), "VALID"), {"feature_group_count": 2}),
    "no channels": ((NCHW[:, :0], OIHW[:, :0], (1, 1), "VALID"), {}),
    "wide": (
        (NCHW.astype(np.int8), OIHW.astype(np.int8), (1, 1), "SAME"),
        {"feature_group_count": 2, "preferred_element_type": np.int32},
    ),
}


@pytest.mark.parametrize("case", GENERAL, ids=lambda case: case.replace(" ", "_"))
def test_conv_general_dilated_is_laxs(case):
    args, kwargs = GENERAL[case]
    expected = lax.conv_general_dilated(*args, **kwargs)
    for method in ("auto", "taps or auto", "space_to_batch or auto"):
        got = jaxdil.conv_general_dilated(*args, **kwargs, method=method)
        assert got.dtype == expected.dtype
        assert_equal(got, expected)


REFUSED = {
    "channels": ((NCHW, OIHW, (1, 1), "SAME"), {}),
    "groups": ((NCHW, OIHW, (1, 1), "SAME"), {"feature_group_count": 4}),
    "rank": ((NCHW[0], OIHW, (1, 1), "SAME"), {}),
    "strides": ((NCHW, OIHW, (1,), "SAME"), {"feature_group_count": 2}),
    "padding": ((NCHW, OIHW, (1, 1), "SOME"), {"feature_group_count": 2}),
    "padding pairs": ((NCHW, OIHW, (1, 1), [(1, 1)]), {"feature_group_count": 2}),
    "dtype": ((NCHW, OIHW.astype(np.float64), (1, 1), "SAME"), {"feature_group_count": 2}),
    "both groups": (
        (NCHW, OIHW, (1, 1), "SAME"),
        {"feature_group_count": 2, "batch_group_count": 2},
    ),
    "dilation": ((NCHW, OIHW, (1, 1), "SAME", None, (0, 1)), {"feature_group_count": 2}),
    "arguments": ((NCHW, OIHW), {}),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.replace(" ", "_"))
def test_conv_general_dilated_refuses_what_lax_refuses(case):
    args, kwargs = REFUSED[case]
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever lax raises is what is wanted
        lax.conv_general_dilated(*args, **kwargs)
    with pytest.raises(theirs.type) as ours:
        jaxdil.conv_general_dilated(*args, **kwargs)
    if case != "arguments":
        assert str(ours.value) == str(theirs.value)


# --- shapes ---------------------------------------------------------------------------------------

sizes = st.integers(1, 9)
small = st.integers(1, 4)


@settings(max_examples=100)
@given(
    n=st.tuples(sizes, sizes),
    k=st.tuples(small, small),
    s=st.tuples(small, small),
    d=st.tuples(small, small),
    a=st.tuples(small, small),
    padding=st.sampled_from(["SAME", "SAME_LOWER", "CAUSAL", "FULL", "VALID", 3, ((4, -1), 2)]),
    lead=st.sampled_from([(), (2,), (0,)]),
    first_=st.booleans(),
)
def test_conv_output_shape_is_the_shape(n, k, s, d, a, padding, lead, first_):
    x_shape = (*lead, 2, *n) if first_ else (*lead, *n, 2)
    w_shape = (*k, 1, 4)
    options = {
        "stride": s,
        "dilation": d,
        "input_dilation": a,
        "padding": padding,
        "groups": 2,
        "data_format": "channels_first" if first_ else None,
    }
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (x_shape, w_shape)]
    try:
        shape = jaxdil.conv_output_shape(x_shape, w_shape, **options)
    except ValueError as refused:
        reason = str(refused).removeprefix("conv_output_shape")
        with pytest.raises(ValueError, match="the kernel does not fit") as caught:
            jax.eval_shape(functools.partial(jaxdil.conv, **options), *shapes)
        assert str(caught.value) == "conv" + reason
        return
    y = jax.eval_shape(functools.partial(jaxdil.conv, **options), *shapes)
    assert shape == y.shape
    # By the formula.
    pads = jaxdil.resolve_padding(padding, size=n, kernel=k, stride=s, dilation=d, input_dilation=a)
    spatial = [
        (e * (m - 1) + 1 + lo + hi - r * (t - 1) - 1) // q + 1
        for m, t, q, r, e, (lo, hi) in zip(n, k, s, d, a, pads, strict=True)
    ]
    assert shape == ((*lead, 4, *spatial) if first_ else (*lead, *spatial, 4))
    # Both gradients have the shapes of what they are gradients of.
    cotangent = jax.ShapeDtypeStruct(shape, np.float32)
    dx = jax.eval_shape(
        functools.partial(jaxdil.conv_input_grad, input_shape=x_shape, **options),
        cotangent,
        shapes[1],
    )
    dw = jax.eval_shape(
        functools.partial(jaxdil.conv_kernel_grad, kernel_shape=w_shape, **options),
        shapes[0],
        cotangent,
    )
    assert (dx.shape, dw.shape) == (x_shape, w_shape)


@settings(max_examples=100)
@given(
    n=sizes,
    k=small,
    s=small,
    d=small,
    padding=st.sampled_from(["SAME", "SAME_LOWER", "VALID", 1, ((0, -2),)]),
    convention=st.sampled_from(["minimal", "lax"]),
    extra=st.integers(0, 3),
)
def test_conv_transpose_output_shape_is_the_shape(n, k, s, d, padding, convention, extra):
    x_shape, w_shape = (2, n, 4), (k, 3, 4)
    named = padding in ("SAME", "SAME_LOWER")
    options = {
        "stride": s,
        "dilation": d,
        "padding": padding,
        "convention": convention,
        "groups": 2,
        "output_padding": 0 if named else extra % max(s, d),
    }
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (x_shape, w_shape)]
    transpose = functools.partial(jaxdil.conv_transpose, **options)
    try:
        shape = jaxdil.conv_transpose_output_shape(x_shape, w_shape, **options)
    except ValueError as refused:
        reason = str(refused).removeprefix("conv_transpose_output_shape")
        with pytest.raises(ValueError, match="nothing is left of the output") as caught:
            jax.eval_shape(transpose, *shapes)
        assert str(caught.value) == "conv_transpose" + reason
        return
    assert shape == jax.eval_shape(transpose, *shapes).shape
    # A convolution with the same arguments leads back.
    if convention == "minimal" and not options["output_padding"]:
        back = jaxdil.conv_output_shape(
            shape, (k, 3, 4), stride=s, dilation=d, padding=padding, groups=2
        )
        assert back == x_shape


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_shapes_of_every_function(rank):
    """N, S, P, K, C, O, M: each function keeps what its annotation says."""
    S, K = (7, 6, 5)[:rank], (3, 2, 2)[:rank]
    N, C, O, M = 2, 4, 6, 3  # noqa: E741 - the letter that output channels have everywhere
    x, w = jnp.ones((N, *S, C)), jnp.ones((*K, C, O))
    y = jaxdil.conv(x, w)
    depthwise = jaxdil.depthwise_conv(x, jnp.ones((*K, C, M)))
    separable = jaxdil.separable_conv(x, jnp.ones((*K, C, M)), jnp.ones((C * M, O)))
    transposed = jaxdil.conv_transpose(y, w, stride=2)
    chex.assert_shape(y, (N, *S, O))
    chex.assert_shape(depthwise, (N, *S, C * M))
    chex.assert_shape(separable, (N, *S, O))
    chex.assert_shape(transposed, (N, *(2 * n for n in S), C))
    chex.assert_equal_shape([jaxdil.conv_input_grad(y, w, input_shape=x.shape), x])
    chex.assert_equal_shape([jaxdil.conv_kernel_grad(x, y, kernel_shape=w.shape), w])
    chex.assert_shape(jaxdil.dilate_kernel(w, dilation=2), (*(2 * k - 1 for k in K), C, O))
    chex.assert_type([y, depthwise, separable, transposed], x.dtype)
    letters = "DHW"[3 - rank :]
    general = jaxdil.conv_general_dilated(
        x,
        w,
        (1,) * rank,
        "SAME",
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )
    chex.assert_equal_shape([general, y])


# --- kernels --------------------------------------------------------------------------------------


def test_effective_kernel_size():
    assert jaxdil.effective_kernel_size(3) == 3
    assert jaxdil.effective_kernel_size(3, dilation=4) == 9
    assert jaxdil.effective_kernel_size(1, dilation=7) == 1
    assert jaxdil.effective_kernel_size((3, 5), dilation=2) == (5, 9)
    assert jaxdil.effective_kernel_size(3, dilation=(1, 2, 3)) == (3, 5, 7)
    assert jaxdil.effective_kernel_size(np.array([2, 3]), dilation=[3, 2]) == (4, 5)


@pytest.mark.parametrize("dilation", [1, 2, (3, 1)], ids=str)
def test_dilate_kernel(dilation):
    got = jaxdil.dilate_kernel(W2, dilation=dilation)
    assert_equal(got, reference.dilate_kernel(W2, dilation=dilation))
    assert got.dtype == W2.dtype
    dense = jaxdil.conv(X2, got, groups=2)
    assert_equal(dense, jaxdil.conv(X2, W2, dilation=dilation, groups=2))


def test_resolve_padding_of_every_geometry():
    """Pairs stay as they are; SAME gives ceil(n / s) outputs."""
    for g in GEOMETRIES:
        sizes = {"size": g.x_shape[1:-1], "kernel": g.w_shape[:-2]}
        window = {"stride": g.stride, "dilation": g.dilation}
        assert jaxdil.resolve_padding(g.padding, **sizes, **window) == g.padding
        pads = jaxdil.resolve_padding("SAME", **sizes, **window)
        expected = [
            same(n, d * (k - 1) + 1, s)
            for n, k, d, s in zip(*sizes.values(), g.dilation, g.stride, strict=True)
        ]
        assert list(pads) == expected
