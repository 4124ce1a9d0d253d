"""How much padding, and what it holds: every form and mode, against numpy and the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import integers
from jax import lax

import jaxdil
from jaxdil import reference

pytestmark = pytest.mark.core

NUMPY = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
MODES = tuple(NUMPY)[1:]
every_mode = pytest.mark.parametrize("mode", MODES)

X, W = integers(0, (2, 7, 6, 2)), integers(1, (3, 2, 2, 3))
# Of X and W: even kernels, strides, dilations and uneven pairs, crops; then more than the image.
WINDOWS = (
    {"padding": "SAME"},
    {"padding": ["CAUSAL", "SAME_LOWER"], "dilation": (2, 3)},
    {"padding": [(4, 1), (0, 3)], "stride": (2, 3)},
    {"padding": [(-1, 3), (2, -2)], "stride": (1, 2)},
)
LARGE = {"padding": [(9, 15), (8, 0)], "stride": (3, 2), "dilation": (4, 5)}


def continued(x, pads, mode):
    """By numpy, which does not crop: crops are slices."""
    wider = [(max(lo, 0), max(hi, 0)) for lo, hi in pads]
    x = np.pad(x, [(0, 0), *wider, (0, 0)], mode=NUMPY[mode])
    cuts = [
        slice(max(-lo, 0), size - max(-hi, 0))
        for (lo, hi), size in zip(pads, x.shape[1:], strict=False)
    ]
    return x[:, *cuts]


def expected(x, w, mode, *, groups=1, padding, stride=1, dilation=1):
    """The definition on an image that numpy continued."""
    pads = jaxdil.resolve_padding(
        padding, size=x.shape[1:-1], kernel=w.shape[:-2], stride=stride, dilation=dilation
    )
    return reference.conv(
        continued(x, pads, mode), w, stride=stride, dilation=dilation, groups=groups
    )


def windows(mode):
    return WINDOWS if mode == "reflect" else (*WINDOWS, LARGE)


# --- what it holds --------------------------------------------------------------------------------


@every_mode
def test_conv(mode):
    for window in windows(mode):
        got = jaxdil.conv(X, W, padding_mode=mode, **window)
        np.testing.assert_array_equal(got, expected(X, W, mode, **window))


@pytest.mark.parametrize(
    ("mode", "dtype"), [*zip(MODES, (jnp.bfloat16, np.float64, np.int8), strict=True)]
)
def test_dtypes(mode, dtype):
    x, w = (np.asarray(jnp.asarray(a).astype(dtype)) for a in (X[:1, :, :, :1], W[..., :1, :1]))
    got = jaxdil.conv(x, w, padding_mode=mode)
    assert got.dtype == dtype
    wide = [a.astype(np.float64) for a in (x, w, np.asarray(got))]
    np.testing.assert_array_equal(wide[2], expected(*wide[:2], mode, padding="SAME"))


def test_depthwise_and_separable():
    for mode, window in zip(MODES, WINDOWS[1:], strict=True):
        grouped = W.reshape(3, 2, 1, 6)
        want = expected(X, grouped, mode, groups=2, **window)
        got = jaxdil.depthwise_conv(X, W, padding_mode=mode.upper(), **window)
        np.testing.assert_array_equal(got, want)
        mixing = integers(2, (6, 4))
        got = jaxdil.separable_conv(X, W, mixing, padding_mode=mode, **window)
        np.testing.assert_array_equal(got, want @ mixing)


def test_layouts():
    window = {"padding": [(4, 1), (0, 3)], "padding_mode": "circular"}
    want = expected(X, W, "circular", padding=window["padding"])
    first = jaxdil.conv(X.transpose(0, 3, 1, 2), W, data_format="channels_first", **window)
    np.testing.assert_array_equal(first, want.transpose(0, 3, 1, 2))
    # Spatial axes apart from each other, and in w's order, which is not x's.
    numbers = ("WNHC", "HWIO", "NHWC")
    apart = jaxdil.conv(X.transpose(2, 0, 1, 3), W, data_format=numbers, **window)
    np.testing.assert_array_equal(apart, want)
    np.testing.assert_array_equal(jaxdil.conv(X[0], W, **window), want[0])
    lead = jaxdil.conv(X[None], W, data_format="NHWC", **window)
    np.testing.assert_array_equal(lead, want[None])
    mixed = jaxdil.conv(X[:, 0, 0], W[0, 0], padding_mode="reflect")  # no axis at all
    np.testing.assert_array_equal(mixed, X[:, 0, 0] @ W[0, 0])


@every_mode
def test_derivatives_of_any_order(mode):
    """Gradients, and a derivative of one, are those of numpy's padding and lax's convolution."""
    stride, dilation, pads = (2, 1), (1, 2), ((2, 1), (0, 3))
    x, w = (jnp.asarray(a, np.float64) for a in (X, W))

    def ours(x, w):
        options = {"stride": stride, "dilation": dilation, "padding": pads}
        return jaxdil.conv(x, w, padding_mode=mode, **options)

    def plain(x, w):
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode=NUMPY[mode])
        options = {"rhs_dilation": dilation, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return lax.conv_general_dilated(x, w, stride, "VALID", **options)

    def derivatives(fn):
        def loss(x, w):
            return (fn(x, w) ** 2).sum() / 2

        return jax.jit(lambda x, w: jax.jvp(jax.grad(loss, (0, 1)), (x, w), (x, w)))(x, w)

    jax.tree.map(np.testing.assert_array_equal, derivatives(ours), derivatives(plain))


# --- what a transposed convolution adds back ------------------------------------------------------


def folded(y, w, mode, pads, size, **window):
    """By definition: all of the transposed convolution, each sample added to the one it copies."""
    taps = [n + lo + hi for n, (lo, hi) in zip(size, pads, strict=True)]
    whole = reference.conv_transpose(y, w, input_shape=taps, **window)
    reads = [
        np.pad(np.arange(n), pair, mode=NUMPY[mode]) for n, pair in zip(size, pads, strict=True)
    ]
    out = np.zeros((len(y), *size, whole.shape[-1]), whole.dtype)
    np.add.at(out, (slice(None), *np.ix_(*reads)), whole)
    return out


@every_mode
def test_conv_transpose(mode):
    y, w = integers(2, (2, 4, 3, 3)), W
    cases = [
        ({"stride": 2, "padding": [(2, 1), (0, 2)]}, (6, 4)),
        ({"stride": (2, 1), "dilation": (1, 2), "padding": "SAME"}, (8, 3)),
        (
            {"stride": 3, "padding": [(1, 0), (1, 1)], "output_padding": (2, 1)},
            (13, 7),
        ),
    ]
    if mode != "reflect":
        cases.append(({"stride": 1, "dilation": (2, 7), "padding": [(3, 4), (3, 5)]}, (1, 2)))
    for options, size in cases:
        window = {key: options.get(key, 1) for key in ("stride", "dilation")}
        pads = jaxdil.resolve_padding(options["padding"], size=size, kernel=(3, 2), **window)
        got = jaxdil.conv_transpose(y, w, padding_mode=mode, **options)
        np.testing.assert_array_equal(got, folded(y, w, mode, pads, size, **window))


def test_conv_transpose_of_integers_and_channels_first():
    y, w = integers(2, (2, 4, 3, 3)).astype(np.int32), W.astype(np.int32)
    last = jaxdil.conv_transpose(y, w, stride=2, padding_mode="circular")
    options = {"data_format": "NCHW", "padding_mode": "circular"}
    first = jaxdil.conv_transpose(y.transpose(0, 3, 1, 2), w, stride=2, **options)
    assert last.dtype == np.int32
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_conv_transpose_is_the_gradient_of_conv():
    y, w = (jnp.asarray(a, np.float64) for a in (integers(2, (2, 4, 3, 3)), W))
    options = {"stride": 2, "padding": [(2, 1), (1, 0)], "padding_mode": "reflect"}

    def twice(y):
        return jaxdil.conv(
            jaxdil.conv_transpose(y, w, output_shape=(7, 5), **options), w, **options
        )

    (adjoint,) = jax.vjp(lambda x: jaxdil.conv(x, w, **options), jnp.zeros((2, 7, 5, 2)))[1](y)
    np.testing.assert_array_equal(
        adjoint, jaxdil.conv_transpose(y, w, output_shape=(7, 5), **options)
    )
    # A A^T is symmetric, so its own adjoint.
    np.testing.assert_array_equal(jax.vjp(twice, y)[1](y)[0], twice(y))


# --- how much of it -------------------------------------------------------------------------------


VIDEO = {"size": (5, 8, 9), "kernel": (3, 3, 2), "dilation": (2, 1, 3), "stride": (1, 2, 1)}
PAIRS = ((4, 0), (0, 1), (1, 2))


@pytest.mark.parametrize(
    ("padding", "data_format"),
    [
        ({"D": "CAUSAL", "H": "SAME", "W": "SAME"}, None),
        ({"w": (1, 2), "d": "causal", "h": [0, 1]}, "channels_first"),
        ({2: (1, 2), 0: "CAUSAL", np.int64(1): "SAME"}, None),
        ({"T": "CAUSAL", "Y": (0, 1), 2: "SAME"}, "NTYXC"),
        ({"T": "CAUSAL", "Y": (0, 1), "X": "SAME"}, ("NCXYT", "OITYX", "NTYXC")),
        (("CAUSAL", "SAME", lambda k: (1, k - 2)), None),
        (["SAME_LOWER", np.array([0, 1]), np.int32(1)], "sizes"),
        (((0, 0), (4, 0), (0, 1), (1, 2), (0, 0)), None),
        (((0, 0), (0, 0), (4, 0), (0, 1), (1, 2)), "NCDHW"),
        (((0, 0), (0, 0), (1, 2), (0, 1), (4, 0)), ("NCXYT", "OITYX", "NTYXC")),
        (np.array([[0, 0], [4, 0], [0, 1], [1, 2], [0, 0]]), "NDHWC"),
    ],
    # Not str: the address of a function differs between the processes that collect the tests.
    ids=range(11),
)
def test_one_padding_in_many_forms(padding, data_format):
    if data_format == "sizes":
        assert jaxdil.resolve_padding(padding, **VIDEO) == ((2, 2), (0, 1), (1, 1))
        return
    assert jaxdil.resolve_padding(padding, data_format=data_format, **VIDEO) == PAIRS
    window = {key: VIDEO[key] for key in ("stride", "dilation")}
    x, w = (2, *VIDEO["size"], 1), (*VIDEO["kernel"], 1, 4)
    if isinstance(data_format, tuple):
        x, w = (2, 1, 9, 8, 5), (4, 1, *VIDEO["kernel"])
    elif data_format in ("channels_first", "NCDHW"):
        x = (2, 1, *VIDEO["size"])
    shape = functools.partial(jaxdil.conv_output_shape, x, w, data_format=data_format, **window)
    assert shape(padding=padding) == shape(padding=PAIRS)


def test_names_of_every_axis_and_both_directions_of_time():
    options = {"size": (5,), "kernel": (3,), "dilation": 2, "stride": 2}
    for name, pair in (("CAUSAL", (4, 0)), ("Reverse_Causal", (0, 4)), ("FULL", (4, 4))):
        assert jaxdil.resolve_padding(name, **options) == (pair,)
        assert jaxdil.resolve_padding({"W": name}, **options) == (pair,)
        assert jaxdil.resolve_padding(lambda k, pair=pair: pair, **options) == (pair,)
    assert jaxdil.resolve_padding(lambda k: k, **options) == ((5, 5),)
    assert jaxdil.resolve_padding(lambda k: "SAME", **options) == ((2, 2),)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_causal_along_one_axis_of_a_volume(axis):
    """No output reads ahead along that axis; under REVERSE_CAUSAL none reads back."""
    x, w = jnp.zeros((1, 5, 4, 4, 1)), jnp.ones((2, 3, 2, 1, 1))
    for name, seen in (("CAUSAL", slice(2, None)), ("REVERSE_CAUSAL", slice(None, 3))):
        padding = {i: name if i == axis else "SAME" for i in range(3)}
        impulse = jnp.moveaxis(x, axis + 1, 0).at[2].set(1)
        y = jaxdil.conv(jnp.moveaxis(impulse, 0, axis + 1), w, padding=padding)
        touched = np.flatnonzero(np.asarray(jnp.moveaxis(y, axis + 1, 0)).any((1, 2, 3, 4)))
        assert touched.size > 1
        assert set(touched) <= set(range(*seen.indices(5)))


def test_the_gradients_and_the_transpose_take_every_form():
    forms = ({"W": (2, 1)}, {0: (2, 1)}, lambda k: (k - 1, k - 2), [(0, 0), (2, 1), (0, 0)])
    x, w = integers(0, (2, 6, 2)), integers(1, (3, 2, 3))
    y, pairs = integers(2, (2, 7, 3)), [(2, 1)]
    for fn, shapes in (
        (functools.partial(jaxdil.conv_transpose, y, w), {}),
        (functools.partial(jaxdil.conv_input_grad, y, w), {"input_shape": x.shape}),
        (functools.partial(jaxdil.conv_kernel_grad, x, y), {"kernel_shape": w.shape}),
    ):
        for form in forms:
            np.testing.assert_array_equal(fn(padding=form, **shapes), fn(padding=pairs, **shapes))
    shape = functools.partial(jaxdil.conv_transpose_output_shape, y.shape, w.shape)
    assert {shape(padding=form) for form in (*forms, pairs)} == {(2, 6, 2)}


def test_groups_that_the_channels_tell():
    x, w = integers(0, (2, 5, 4)), integers(1, (3, 2, 6))
    for kernel, groups in ((w, 2), (w[:, :1, :4], 4), (integers(2, (3, 4, 2)), 1)):
        got = jaxdil.conv(x, kernel, groups=None)
        np.testing.assert_array_equal(got, jaxdil.conv(x, kernel, groups=groups))
        assert jaxdil.conv_output_shape(x.shape, kernel.shape, groups=None) == got.shape
    dw = jaxdil.conv_kernel_grad(x, jaxdil.conv(x, w, groups=2), kernel_shape=w.shape, groups=None)
    assert dw.shape == w.shape
