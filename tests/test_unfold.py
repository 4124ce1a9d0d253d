"""unfold and fold: against loops and PyTorch, as each other's adjoint, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import windows

import jaxdil

pytestmark = pytest.mark.core


def ints(seed, *shape, dtype=np.float32):
    """Small integers, so that every order of summation gives the same result."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


# size, taps, stride, dilation, padding; windows tile, overlap, leave gaps, leave a rest.
GEOMETRIES = [
    ((9,), (3,), (1,), (1,), "SAME"),
    ((10,), (3,), (4,), (1,), "VALID"),
    ((7, 8), (3, 2), (2, 2), (1, 1), "VALID"),
    ((7, 8), (2, 2), (3, 3), (1, 1), "VALID"),
    ((8, 7), (3, 2), (1, 3), (2, 3), "SAME"),
    ((6, 5), (2, 3), (2, 1), (3, 1), ((2, 0), (-1, 3))),
    ((5, 4, 6), (2, 1, 3), (2, 1, 1), (1, 2, 2), ((1, 0), (0, 1), (2, 1))),
]
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def options(geometry):
    return dict(zip(("stride", "dilation", "padding"), geometry[2:], strict=True))


@every_geometry
def test_unfold_and_fold_are_the_loops(geometry):
    size, taps, *_ = geometry
    rank, kw = len(size), options(geometry)
    x = ints(0, 2, *size, 3)
    y, _ = windows.patches(x, taps, **kw)
    y = windows.flat(y, rank)
    g = ints(1, *y.shape)
    back = windows.folded(g.reshape(*y.shape[: rank + 1], *taps, 3), size, taps, **kw)
    rows = (*y.shape[: rank + 1], -1)
    for order, data_format in (("KC", "channels_last"), ("CK", "channels_first")):
        how = dict(kw, window=taps, order=order, data_format=data_format)
        parts = [x, y, g, back]
        if order == "CK":
            parts[1:3] = [part.swapaxes(-1, -2) for part in parts[1:3]]
        parts[1:3] = [part.reshape(rows) for part in parts[1:3]]
        if data_format == "channels_first":
            parts = [np.moveaxis(part, -1, 1) for part in parts]
        np.testing.assert_array_equal(jaxdil.unfold(parts[0], **how), parts[1])
        np.testing.assert_array_equal(jaxdil.fold(parts[2], size=size, **how), parts[3])


@pytest.mark.parametrize("geometry", GEOMETRIES[4:6], ids=str)
def test_each_is_the_adjoint_of_the_other(geometry):
    size, taps, *_ = geometry
    how = dict(options(geometry), window=taps)
    x = jnp.asarray(ints(0, 1, *size, 2))
    y, pull = jax.vjp(lambda x: jaxdil.unfold(x, **how), x)
    g = jnp.asarray(ints(1, *y.shape))
    np.testing.assert_array_equal(pull(g)[0], jaxdil.fold(g, size=size, **how))
    _, pull = jax.vjp(lambda g: jaxdil.fold(g, size=size, **how), g)
    np.testing.assert_array_equal(pull(x)[0], y)


def test_a_window_of_many_taps_is_one_gather():
    x = ints(0, 2, 300, 2)
    how = {"window": (150,), "dilation": 1, "stride": 3, "padding": ((1, 0),)}
    kw = {"stride": (3,), "dilation": (1,), "padding": ((1, 0),)}
    y, _ = windows.patches(x, (150,), **kw)
    np.testing.assert_array_equal(jaxdil.unfold(x, **how), y.reshape(2, 51, 300))
    g = ints(1, *y.shape)
    expected = windows.folded(g, (300,), (150,), **kw)
    np.testing.assert_array_equal(jaxdil.fold(g.reshape(2, 51, 300), size=300, **how), expected)
    text = str(jax.make_jaxpr(lambda x: jaxdil.unfold(x, **how))(x))
    assert "gather[" in text
    assert text.count("slice[") < 5


def test_patches_times_kernel_is_convolution():
    x, w = ints(0, 2, 7, 6, 3), ints(1, 3, 2, 3, 5)
    y = jaxdil.unfold(x, window=(3, 2), dilation=(1, 2), stride=2, padding="SAME")
    expected = jaxdil.conv(x, w, dilation=(1, 2), stride=2)
    np.testing.assert_array_equal(y @ w.reshape(-1, 5), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "int32", "complex64"])
def test_dtype_is_kept_and_half_precision_sums_in_float32(dtype):
    # 256 + 1 + ... + 1 in bfloat16 would stay 256.
    patches = jnp.ones((1, 9, 9), jnp.dtype(dtype)).at[0, 0, 8].set(256)
    y = jaxdil.fold(patches, size=17, window=9)
    assert y.dtype == jnp.dtype(dtype)
    assert y[0, 8, 0] == 264
    grad = jax.linear_transpose(lambda x: jaxdil.unfold(x, window=9), y)(patches)[0]
    assert grad[0, 8, 0] == 264


def test_jit_and_vmap():
    x = jnp.asarray(ints(0, 3, 2, 6, 5, 2))
    how = {"window": (2, 3), "stride": 2, "dilation": (1, 2), "padding": "SAME"}
    y = jax.jit(jax.vmap(lambda x: jaxdil.unfold(x, **how)))(x)
    each = jnp.stack([jaxdil.unfold(part, **how) for part in x])
    np.testing.assert_array_equal(y, each)
    back = jax.jit(jax.vmap(lambda y: jaxdil.fold(y, size=(6, 5), **how)))(y)
    np.testing.assert_array_equal(
        back, jnp.stack([jaxdil.fold(part, size=(6, 5), **how) for part in each])
    )


def test_batch_axes():
    x = ints(0, 3, 2, 6, 5, 2)
    many = jaxdil.unfold(x, window=2, data_format="NHWC")
    assert many.shape == (3, 2, 5, 4, 8)
    np.testing.assert_array_equal(many[1], jaxdil.unfold(x[1], window=2))
    single = jaxdil.unfold(x[1, 0], window=(2, 2))
    np.testing.assert_array_equal(single, many[1, 0])
    folded = jaxdil.fold(many, size=(6, 5), window=2, data_format="NHWC")
    assert folded.shape == x.shape
    np.testing.assert_array_equal(folded[1, 0], jaxdil.fold(single, size=(6, 5), window=(2, 2)))
    assert jaxdil.unfold(x[:, :0].reshape(0, 6, 5, 2), window=2).shape == (0, 5, 4, 8)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES[3:5], ids=str)
def test_pytorchs_numbers(geometry):
    torch = pytest.importorskip("torch")
    size, taps, stride, dilation, padding = geometry
    padding = 0 if padding == "VALID" else (2, 3)
    kw = {"stride": stride, "dilation": dilation, "padding": padding}
    x = ints(0, 2, 3, *size)
    theirs = torch.nn.functional.unfold(torch.tensor(x), taps, **kw)
    ours = jaxdil.unfold(x, window=taps, order="CK", data_format="channels_first", **kw)
    np.testing.assert_array_equal(ours.reshape(theirs.shape), theirs)
    g = ints(1, *ours.shape)
    theirs = torch.nn.functional.fold(torch.tensor(g.reshape(*theirs.shape)), size, taps, **kw)
    ours = jaxdil.fold(g, size=size, window=taps, order="CK", data_format="NCHW", **kw)
    np.testing.assert_array_equal(ours, theirs)


def test_laxs_patches():
    x = ints(0, 2, 7, 6, 3)
    theirs = jax.lax.conv_general_dilated_patches(
        jnp.asarray(x),
        (3, 2),
        (2, 1),
        "SAME",
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    ours = jaxdil.unfold(
        x, window=(3, 2), stride=(2, 1), dilation=(1, 2), padding="SAME", order="CK"
    )
    np.testing.assert_array_equal(ours, theirs)


# --- refusals -------------------------------------------------------------------------------------

X = np.ones((2, 7, 6, 3), np.float32)
Y = np.ones((2, 6, 5, 12), np.float32)
unfold, fold = jaxdil.unfold, jaxdil.fold
REFUSED = [
    (lambda: unfold(X.tolist(), window=2), TypeError, "unfold: x must be an array, got list"),
    (lambda: unfold(X, window=2, order="ck"), ValueError, "unfold: order must be 'KC' (taps out"),
    (lambda: unfold(X, window=0), ValueError, "unfold: window must be >= 1, got 0"),
    (lambda: unfold(X, window=2.5), TypeError, "unfold: window must be an integer, got 2.5"),
    (lambda: unfold(X, window=8), ValueError, "the kernel does not fit into the input on spatial"),
    (lambda: unfold(X, window=2, stride=0), ValueError, "unfold: stride must be >= 1, got 0"),
    (lambda: unfold(X, window=2, dilation=(1, 1, 1)), ValueError, "unfold: dilation must be an in"),
    (
        lambda: unfold(X[None], window=(2, 2)),
        ValueError,
        "unfold: x must have a batch, spatial axes and channels, got shape (1, 2, 7, 6, 3)",
    ),
    (lambda: unfold(X[0, 0], window=2), ValueError, "got shape (6, 3)"),
    (
        lambda: unfold(X, window=(2,), data_format="NHWC"),
        ValueError,
        "unfold: window must have an entry for each spatial axis of 'NHWC', got (2,)",
    ),
    (
        lambda: unfold(X, window=2, data_format=("NHWC", "HWIO", "NHWC")),
        TypeError,
        "unfold: data_format must be a name or letters",
    ),
    (lambda: unfold(X, window=2, data_format="HWNC"), ValueError, "unfold: data_format must be"),
    (lambda: fold(Y.tolist(), size=7, window=2), TypeError, "fold: patches must be an array"),
    (lambda: fold(Y, size=(7,), window=2), ValueError, "fold: size must be an integer or 2 of"),
    (lambda: fold(Y, size=-1, window=2), ValueError, "fold: size must be >= 0, got -1"),
    (
        lambda: fold(Y, size=(7, 6), window=(3, 3)),
        ValueError,
        "fold: the channels of patches must be a multiple of 9, the taps of window=(3, 3), got 12",
    ),
    (
        lambda: fold(Y, size=(7, 7), window=2),
        ValueError,
        "must have (6, 6) windows, as many as an input of size (7, 7) has, got (6, 5)",
    ),
    (lambda: fold(Y, size=(7, 6), window=2, order="C"), ValueError, "fold: order must be 'KC'"),
]


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_refusals(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert words in str(caught.value)
