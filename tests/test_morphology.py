"""dilation2d and erosion2d: against loops, their derivatives and algebra, and what they refuse.

TensorFlow's numbers are in tests/test_tf_numbers.py, for its twins, which are these functions.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import windows

import jaxdil
from jaxdil import tf

pytestmark = pytest.mark.core


def ints(seed, *shape, dtype=np.float32):
    """Small integers: ties, and sums that are exact in any order."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


# size, taps, stride, dilation, padding
GEOMETRIES = [
    ((11,), (4,), (1,), (2,), "SAME"),
    ((8, 7), (2, 3), (1, 1), (1, 1), "SAME"),
    ((9, 8), (4, 2), (2, 1), (1, 3), "SAME"),
    ((7, 8), (2, 3), (1, 2), (3, 2), "VALID"),
    ((9, 8), (2, 3), (1, 3), (2, 1), ((-1, 1), (1, -2))),
    ((5, 6, 4), (3, 2, 2), (1, 2, 1), (2, 1, 3), ((2, 2), (0, 1), (1, 2))),
]
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def setting(geometry, dtype=np.float32):
    """x, w, the options of a call, and both results as (N, *P, T, C) before the best is taken."""
    size, taps, *rest = geometry
    rank = len(size)
    kw = dict(zip(("stride", "dilation", "padding"), rest, strict=True))
    x, w = ints(0, 2, *size, 3, dtype=dtype), ints(1, *taps, 3, dtype=dtype)
    y, inside = windows.patches(x, taps, **kw)
    y, inside = windows.flat(y, rank), windows.flat(inside[None, ..., None], rank)
    rows = w.reshape(-1, 3)
    grown = np.where(inside, y + rows, -np.inf)
    shrunk = np.where(inside, y - rows[::-1], np.inf)
    return x, w, kw, grown, shrunk


@every_geometry
def test_values(geometry):
    x, w, kw, grown, shrunk = setting(geometry)
    np.testing.assert_array_equal(jaxdil.dilation2d(x, w, **kw), grown.max(-2))
    first = jaxdil.erosion2d(np.moveaxis(x, -1, 1), w, **kw, data_format="channels_first")
    np.testing.assert_array_equal(first, np.moveaxis(shrunk.min(-2), -1, 1))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8])
def test_integers(dtype):
    x, w, kw, *_ = setting(GEOMETRIES[2])
    x, w = x + 10, w + (4 if dtype is np.uint8 else 0)
    grown = jaxdil.dilation2d(x.astype(dtype), w.astype(dtype), **kw)
    shrunk = jaxdil.erosion2d(x.astype(dtype), w.astype(dtype), **kw)
    assert grown.dtype == shrunk.dtype == dtype
    # The same in floating point, where nothing wraps around: what is outside is left out.
    np.testing.assert_array_equal(grown, jaxdil.dilation2d(x, w, **kw))
    if dtype is not np.uint8:
        np.testing.assert_array_equal(shrunk, jaxdil.erosion2d(x, w, **kw))
    flat = np.zeros_like(w, dtype)
    np.testing.assert_array_equal(
        jaxdil.erosion2d(x.astype(dtype), flat, **kw), jaxdil.erosion2d(x, 0 * w, **kw)
    )


@pytest.mark.parametrize("geometry", GEOMETRIES[1:5], ids=str)
def test_gradients_go_to_the_first_of_the_best(geometry):
    x, w, kw, grown, shrunk = setting(geometry)
    rank, taps = w.ndim - 1, w.shape[:-1]
    for fn, best, sign in (
        (jaxdil.dilation2d, grown.argmax(-2), 1),
        (jaxdil.erosion2d, shrunk.argmin(-2), -1),
    ):
        g = ints(2, *best.shape)

        @jax.jit
        def gradients(x, w, g, fn=fn):
            return jax.vjp(lambda x, w: fn(x, w, **kw), x, w)[1](g)

        spread = (np.arange(grown.shape[-2])[:, None] == best[..., None, :]) * g[..., None, :]
        back = windows.folded(
            spread.reshape(*spread.shape[: rank + 1], *taps, 3), x.shape[1:-1], taps, **kw
        )
        kernel = spread.sum(tuple(range(rank + 1)))
        kernel = (kernel if sign > 0 else -kernel[::-1]).reshape(w.shape)
        got_x, got_w = gradients(x, w, g)
        np.testing.assert_array_equal(got_x, back)
        np.testing.assert_array_equal(got_w, kernel)


def test_a_second_derivative():
    x, w, kw, *_ = setting(GEOMETRIES[0], np.float64)
    x = np.random.default_rng(3).permutation(x.size).reshape(x.shape) / 8.0  # no ties

    def smooth(w):
        return jnp.sum(jnp.exp(jaxdil.dilation2d(jnp.sin(x), w, **kw)))

    slope = jax.jit(jax.grad(smooth))
    v = np.random.default_rng(4).normal(size=w.shape)
    difference = (slope(w + 1e-5 * v) - slope(w - 1e-5 * v)) / 2e-5
    second = jax.jit(lambda w: jax.jvp(jax.grad(smooth), (w,), (v,))[1])(w)
    np.testing.assert_allclose(second, difference, rtol=1e-6, atol=1e-6 * np.abs(difference).max())


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_many_taps_run_in_a_loop(dtype):
    x, w = ints(0, 1, 20, 14, 2, dtype=dtype), ints(1, 7, 6, 2, dtype=dtype)
    kw = {"stride": (3, 2), "dilation": (1, 2), "padding": "SAME"}
    y, inside = windows.patches(x, (7, 6), **kw)
    inside = windows.flat(inside[None, ..., None], 2)
    expected = np.where(inside, windows.flat(y, 2) + w.reshape(-1, 2), -100)
    np.testing.assert_array_equal(jaxdil.dilation2d(x, w, **kw), expected.max(-2))
    program = jax.make_jaxpr(lambda x, w: jaxdil.dilation2d(x, w, **kw))(x, w)
    assert "scan[" in str(program)
    if dtype is np.float32:
        pull = jax.jit(lambda x, w: jax.grad(lambda w: jaxdil.dilation2d(x, w, **kw).sum())(w))
        first = expected.argmax(-2)[..., None, :] == np.arange(42)[:, None]
        np.testing.assert_array_equal(pull(x, w), first.sum((0, 1, 2)).reshape(w.shape))


def test_a_box_of_zeros_is_pooling():
    x = ints(0, 2, 9, 8, 3)
    kw = {"stride": (2, 1), "dilation": (1, 2), "padding": "SAME"}
    flat = np.zeros((3, 2, 3), np.float32)
    np.testing.assert_array_equal(
        jaxdil.dilation2d(x, flat, **kw), jaxdil.max_pool(x, window=(3, 2), **kw)
    )


def test_minus_infinity_leaves_a_tap_out():
    x = ints(0, 1, 9, 8, 1)
    cross = np.where([[0, 1, 0], [1, 1, 1], [0, 1, 0]], 0, -np.inf).astype(np.float32)[..., None]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-9)
    shifts = [(0, 1), (1, 0), (1, 1), (1, 2), (2, 1)]
    expected = np.max([padded[:, i : i + 9, j : j + 8] for i, j in shifts], 0)
    np.testing.assert_array_equal(jaxdil.dilation2d(x, cross), expected)
    padded[padded == -9] = 9
    expected = np.min([padded[:, i : i + 9, j : j + 8] for i, j in shifts], 0)
    np.testing.assert_array_equal(jaxdil.erosion2d(x, cross), expected)


@pytest.mark.parametrize("rate", [1, 2])
def test_opening_and_closing(rate):
    """The algebra of an adjoint pair, which needs an odd kernel to keep its centre."""
    x, w = ints(0, 1, 12, 11, 2), ints(1, 3, 5, 2)

    @jax.jit
    def opened(x):
        return jaxdil.dilation2d(jaxdil.erosion2d(x, w, dilation=rate), w, dilation=rate)

    @jax.jit
    def closed(x):
        return jaxdil.erosion2d(jaxdil.dilation2d(x, w, dilation=rate), w, dilation=rate)

    assert (opened(x) <= x).all()
    assert (closed(x) >= x).all()
    np.testing.assert_array_equal(opened(opened(x)), opened(x))
    np.testing.assert_array_equal(closed(closed(x)), closed(x))


def test_jit_vmap_and_batch_axes():
    x, w = jnp.asarray(ints(0, 3, 2, 6, 5, 2)), jnp.asarray(ints(1, 3, 2, 3, 2))

    def both(x, w):
        return jaxdil.dilation2d(x, w, dilation=(2, 1)) - jaxdil.erosion2d(x, w, stride=1)

    each = jnp.stack([both(*pair) for pair in zip(x, w, strict=True)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(both))(x, w), each)
    many = jaxdil.dilation2d(x, w[0], data_format="NHWC")
    np.testing.assert_array_equal(many[1, 0], jaxdil.dilation2d(x[1, 0], w[0]))


def test_half_precision():
    x, w = ints(0, 1, 6, 7, 2), ints(1, 2, 3, 2)
    y, pull = jax.vjp(jaxdil.dilation2d, *(jnp.asarray(a, jnp.bfloat16) for a in (x, w)))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(np.float32), jaxdil.dilation2d(x, w))
    assert {g.dtype for g in pull(y)} == {jnp.dtype(jnp.bfloat16)}


def test_nan_is_the_largest():
    x = np.array([1.0, np.nan, 3, 4, 5], np.float32).reshape(1, 5, 1)
    y = jaxdil.dilation2d(x, np.zeros((3, 1), np.float32)).ravel()
    np.testing.assert_array_equal(np.isnan(y), [True, True, True, False, False])


# --- refusals -------------------------------------------------------------------------------------

X, W = np.ones((2, 7, 6, 3), np.float32), np.ones((3, 3, 3), np.float32)
REFUSED = {
    "list": (lambda fn: fn(X.tolist(), W), TypeError, "x must be an array, got list"),
    "dtypes": (lambda fn: fn(X, W.astype(np.float64)), TypeError, "x and w must have one dtype"),
    "complex": (
        lambda fn: fn(X.astype(np.complex64), W.astype(np.complex64)),
        TypeError,
        "x must be real, got dtype complex64",
    ),
    "no taps": (lambda fn: fn(X, W[0, 0]), ValueError, "w must be (*K, C), with at least 2 axes"),
    "rank": (
        lambda fn: fn(X[0, 0], W),
        ValueError,
        "x must have a batch, spatial axes and channels, got shape (6, 3)\n  kernel=(3, 3) says",
    ),
    "dense kernel": (
        lambda fn: fn(X, W[..., None]),
        ValueError,
        "w must be (*K, C) with C = 3, the channels of x, got (3, 3, 3, 1)",
    ),
    "channels": (
        lambda fn: fn(X, W[..., :1]),
        ValueError,
        "w must be (*K, C) with C = 3, the channels of x, got (3, 3, 1)",
    ),
    "empty kernel": (lambda fn: fn(X, W[:0]), ValueError, "kernel[0] must be >= 1, got 0"),
    "too large": (
        lambda fn: fn(X, W, dilation=4, padding="VALID"),
        ValueError,
        "the kernel does not fit into the input on spatial axis 0",
    ),
    "padding alone": (
        lambda fn: fn(X, W, padding=3),
        ValueError,
        "window 0 on spatial axis 0 lies in the padding altogether",
    ),
    "rate": (lambda fn: fn(X, W, dilation=1.5), TypeError, "dilation must be an integer, got 1.5"),
    "stride": (lambda fn: fn(X, W, stride=0), ValueError, "stride must be >= 1, got 0"),
}
TWINS = [tf.dilation2d, tf.erosion2d]
REFUSED_BY_TWINS = {
    "one image": ((X[0], W), {}, "must have 4 axes, (batch, *spatial, channels)"),
    "dense kernel": ((X, W[..., None]), {}, "filters must be (KH, KW, C), got shape (3, 3, 3, 1)"),
    "format": ((X, W), {"data_format": "HWNC"}, "data_format must be 'NHWC' or 'NCHW'"),
    "strides": (
        (X, W),
        {"strides": [1, 2, 2, 3]},
        "strides must be 1 on the batch and the",
    ),
    "padding": ((X, W), {"padding": "FULL"}, "padding must be 'SAME', 'VALID' or a list of pairs"),
    "no sample": ((X[:, :1], W[:2]), {"dilations": [1, 2, 1, 1]}, "lies in the padding"),
}


@pytest.mark.parametrize("fn", [jaxdil.dilation2d, jaxdil.erosion2d], ids=["dilation", "erosion"])
@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, fn):
    call, kind, words = REFUSED[case]
    with pytest.raises(kind) as caught:
        call(fn)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{fn.__name__}: {words}")


@pytest.mark.parametrize(("fn", "case"), [*itertools.product(TWINS, REFUSED_BY_TWINS)])
def test_refusals_of_the_twins(fn, case):
    arrays, changed, words = REFUSED_BY_TWINS[case]
    options = {"strides": 1, "padding": "SAME", "data_format": "NHWC", "dilations": 1} | changed
    with pytest.raises(ValueError, match=rf"^tf\.{fn.__name__}: ") as caught:
        fn(*arrays, **options)
    assert words in str(caught.value)


REFUSED_POOLS = {
    "type": (lambda: tf.pool(X, [2, 2], "max"), "tf.pool: pooling_type must be 'MAX' or 'AVG'"),
    "both": (
        lambda: tf.pool(X, [2, 2], "MAX", strides=2, dilations=2),
        "tf.pool: dilations > 1 exclude strides > 1 and padding 'SAME', got 2, 2 and 'VALID'",
    ),
    "same": (
        lambda: tf.pool(X, [2, 2], "MAX", padding="SAME", dilations=2),
        "TensorFlow refuses them together; jaxdil.max_pool and jaxdil.avg_pool take them.",
    ),
    "rank": (
        lambda: tf.avg_pool(X[0, 0], 2, 2, "SAME"),
        "tf.avg_pool: input must have a batch, 1 to 3 spatial axes and channels, got shape (6, 3)",
    ),
    "named rank": (lambda: tf.max_pool1d(X, 2, 2, "SAME"), "tf.max_pool1d: input must have 3 axes"),
    "taps": (lambda: tf.max_pool2d(X, [1, 2, 3], 2, "SAME"), "tf.max_pool2d: ksize must be an int"),
}


@pytest.mark.parametrize("case", REFUSED_POOLS)
def test_refusals_of_pooling_twins(case):
    call, words = REFUSED_POOLS[case]
    with pytest.raises(ValueError, match=r"^tf\.") as caught:
        call()
    assert words in str(caught.value)


def test_integers_have_no_mean_in_a_twin():
    with pytest.raises(TypeError, match=r"^tf\.avg_pool2d: x must hold floating-point numbers"):
        tf.avg_pool2d(X.astype(np.int32), 2, 2, "SAME")
