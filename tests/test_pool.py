"""max_pool and avg_pool: against loops and PyTorch, their derivatives, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import windows
from jax.test_util import check_grads

import jaxdil

pytestmark = pytest.mark.core


def ints(seed, *shape, dtype=np.float32):
    """Small integers: ties, and sums that are exact in any order."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


# size, window, stride, dilation, padding
GEOMETRIES = [
    ((11,), (4,), (1,), (2,), "SAME"),
    ((8, 9), (2, 2), (2, 2), (1, 1), "VALID"),
    ((9, 7), (3, 2), (2, 1), (1, 2), "SAME"),
    ((7, 8), (5, 3), (1, 3), (1, 2), ((2, 1), (3, 0))),
    ((9, 8), (2, 3), (1, 1), (2, 1), ((-1, 1), (1, -2))),
    ((5, 6, 4), (3, 2, 2), (1, 2, 1), (2, 1, 3), ((2, 2), (0, 1), (1, 2))),
]
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def setting(geometry, *, batch=2, channels=3):
    """An input, the options of a call, and the windows of the input by definition."""
    size, taps, *rest = geometry
    kw = dict(zip(("stride", "dilation", "padding"), rest, strict=True))
    x = ints(0, batch, *size, channels)
    y, inside = windows.patches(x, taps, **kw)
    rank = len(size)
    return (
        x,
        dict(kw, window=taps),
        windows.flat(y, rank),
        windows.flat(inside[None, ..., None], rank),
    )


@every_geometry
def test_max_pool(geometry):
    x, kw, y, inside = setting(geometry)
    expected = np.where(inside, y, -np.inf).max(-2)
    np.testing.assert_array_equal(jaxdil.max_pool(x, **kw), expected)
    first = jaxdil.max_pool(np.moveaxis(x, -1, 1), **kw, data_format="channels_first")
    np.testing.assert_array_equal(first, np.moveaxis(expected, -1, 1))


@every_geometry
def test_avg_pool(geometry):
    x, kw, y, inside = setting(geometry)
    total, taps = y.sum(-2), y.shape[-2]
    for include, count in ((True, taps), (False, inside.sum(-2))):
        got = jaxdil.avg_pool(x, **kw, count_include_pad=include)
        # The sum is exact, the quotient is rounded, or the reciprocal and the product.
        np.testing.assert_allclose(got, total / count, rtol=2**-22)


def test_avg_pool_with_channels_first():
    x, kw, *_ = setting(GEOMETRIES[3])
    kw["count_include_pad"] = False
    first = jaxdil.avg_pool(np.moveaxis(x, -1, 1), **kw, data_format="channels_first")
    np.testing.assert_array_equal(first, np.moveaxis(jaxdil.avg_pool(x, **kw), -1, 1))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16])
def test_integers(dtype):
    x = (ints(0, 1, 7, 2) * 10 - (0 if dtype is np.int8 else -40)).astype(dtype)
    y = jaxdil.max_pool(x, window=3, stride=1, dilation=2, padding="SAME")
    assert y.dtype == dtype
    expected = [max(x[0, i, 0] for i in (p - 2, p, p + 2) if 0 <= i < 7) for p in range(7)]
    np.testing.assert_array_equal(y[0, :, 0], expected)


@pytest.mark.parametrize("geometry", GEOMETRIES[1:5], ids=str)
def test_gradient_goes_to_the_first_of_the_largest(geometry):
    x, kw, y, inside = setting(geometry, channels=2)
    g = ints(1, *y.shape[:-2], 2)
    got = jax.jit(lambda x, g: jax.vjp(lambda x: jaxdil.max_pool(x, **kw), x)[1](g)[0])(x, g)
    # Each window's largest sample that comes first, by definition.
    first = np.where(inside, y, -np.inf).argmax(-2)
    taps = np.arange(y.shape[-2])[:, None] == first[..., None, :]
    spread = (taps * g[..., None, :]).reshape(*g.shape[:-1], *kw["window"], 2)
    size = x.shape[1:-1]
    options = {name: kw[name] for name in ("stride", "dilation", "padding")}
    expected = windows.folded(spread, size, kw["window"], **options)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES[2:4], ids=str)
def test_derivatives_of_every_order(geometry):
    x, kw, *_ = setting(geometry, batch=1, channels=1)
    # Without ties, so that finite differences exist.
    x = jnp.asarray(np.random.default_rng(2).permutation(x.size).reshape(x.shape), np.float64)

    @jax.jit
    def smooth(x):
        x = jnp.sin(x)
        most, mean = (pool(x, **kw) for pool in (jaxdil.max_pool, jaxdil.avg_pool))
        return jnp.sum(most * jnp.cos(mean))

    def along(f, direction):
        return jax.jit(lambda x: jax.jvp(f, (x,), (direction,))[1])

    direction = jnp.asarray(np.random.default_rng(3).normal(size=x.shape))
    check_grads(smooth, (x,), order=1, modes=["rev"], eps=1e-4)
    # The second derivative, forward over reverse, against a difference of first ones.
    slope = along(smooth, direction)
    difference = (slope(x + 1e-4 * direction) - slope(x - 1e-4 * direction)) / 2e-4
    second = along(lambda x: jnp.vdot(jax.grad(smooth)(x), direction), direction)(x)
    np.testing.assert_allclose(second, difference, rtol=1e-5)


@pytest.mark.parametrize(("n", "k"), [(300, 150), (40, 17)])
def test_long_windows(n, k):
    x = ints(0, 1, n, 1)
    kw = {"stride": (3,), "dilation": (1,), "padding": "VALID"}
    y, _ = windows.patches(x, (k,), **kw)
    np.testing.assert_array_equal(jaxdil.max_pool(x, window=k, stride=3), y.max(-2))
    got = jaxdil.avg_pool(x, window=k, stride=3)
    np.testing.assert_allclose(got, y.sum(-2) / k, rtol=2**-22)


def test_half_precision_sums_in_float32():
    x = jnp.ones((1, 513, 1), jnp.bfloat16).at[0, 0].set(256)
    assert jaxdil.avg_pool(x, window=513)[0, 0, 0] == jnp.bfloat16((256 + 512) / 513)
    most, pull = jax.vjp(lambda x: jaxdil.max_pool(x, window=256, stride=1), x[:, ::-1])
    assert most.dtype == jnp.bfloat16
    assert pull(jnp.ones_like(most))[0].sum() == most.size
    # The sum of 256 gradients, one of them large, would stay at the large one in bfloat16.
    y, pull = jax.vjp(lambda x: jaxdil.avg_pool(x, window=256, stride=1), x)
    g = jnp.ones_like(y).at[0, 0].set(256)
    assert pull(g)[0][0, 255, 0] == jnp.bfloat16((256 + 255) / 256)


def test_nan_is_the_maximum():
    x = np.arange(6.0).reshape(1, 6, 1)
    for at in range(6):
        holed = x.copy()
        holed[0, at] = np.nan
        y = jaxdil.max_pool(holed, window=3, stride=1)
        np.testing.assert_array_equal(np.isnan(y).ravel(), [p <= at < p + 3 for p in range(4)])


def test_the_default_stride_is_the_window():
    x = ints(0, 1, 6, 8, 2)
    tiled = jaxdil.max_pool(x, window=(3, 2))
    np.testing.assert_array_equal(tiled, x.reshape(1, 2, 3, 4, 2, 2).max((2, 4)))


def test_jit_and_vmap():
    x = jnp.asarray(ints(0, 3, 2, 6, 5, 2))

    def both(x):
        # Windows of 4, so that means of integers are exact.
        kw = {"window": (2, 2), "stride": (1, 2), "dilation": (2, 1), "padding": "SAME"}
        return jaxdil.max_pool(x, **kw) + jaxdil.avg_pool(x, **kw)

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(both(x) ** 2))(x)

    for fn in (both, gradient):
        each = jnp.stack([fn(part) for part in x])
        np.testing.assert_array_equal(jax.jit(jax.vmap(fn))(x), each)


def test_batch_axes():
    x = ints(0, 3, 2, 6, 5, 2)
    many = jaxdil.max_pool(x, window=2, data_format="NHWC")
    assert many.shape == (3, 2, 3, 2, 2)
    np.testing.assert_array_equal(many[2], jaxdil.max_pool(x[2], window=2))
    np.testing.assert_array_equal(many[2, 1], jaxdil.max_pool(x[2, 1], window=(2, 2)))
    assert jaxdil.avg_pool(x[0, :0], window=2).shape == (0, 3, 2, 2)
    assert jaxdil.max_pool(x[0, :, :0], window=2, stride=1, padding="SAME").shape == (2, 0, 5, 2)


# --- PyTorch --------------------------------------------------------------------------------------

TORCH = [
    ((8,), (2, 1, 0), 1),
    ((9, 7), (3, 2, 1), 1),
    ((9, 7), (3, 1, 1), 2),
    ((6, 5, 7), (3, 2, 1), 2),
]


@pytest.mark.parametrize(("size", "window", "dilation"), TORCH, ids=str)
def test_pytorchs_numbers(size, window, dilation):
    torch = pytest.importorskip("torch")
    k, s, p = window
    x = ints(0, 2, 2, *size)
    pool = getattr(torch.nn.functional, f"max_pool{len(size)}d")
    t = torch.tensor(x, requires_grad=True)
    theirs = pool(t, k, s, p, dilation=dilation)
    kw = {"window": k, "stride": s, "padding": p, "data_format": "channels_first"}
    ours, pull = jax.vjp(lambda x: jaxdil.max_pool(x, dilation=dilation, **kw), jnp.asarray(x))
    np.testing.assert_array_equal(ours, theirs.detach())
    g = ints(1, *ours.shape)
    theirs.backward(torch.tensor(g))
    np.testing.assert_array_equal(pull(jnp.asarray(g))[0], t.grad)
    if dilation == 1:
        pool = getattr(torch.nn.functional, f"avg_pool{len(size)}d")
        for include in (True, False):
            theirs = pool(torch.tensor(x), k, s, p, count_include_pad=include)
            ours = jaxdil.avg_pool(x, count_include_pad=include, **kw)
            np.testing.assert_allclose(ours, theirs, rtol=2**-22)


# --- refusals -------------------------------------------------------------------------------------

X = np.ones((2, 7, 6, 3), np.float32)
max_pool, avg_pool = jaxdil.max_pool, jaxdil.avg_pool
REFUSED = [
    (lambda: max_pool(X.tolist(), window=2), TypeError, "max_pool: x must be an array, got list"),
    (
        lambda: max_pool(X.astype(np.complex64), window=2),
        TypeError,
        "max_pool: x must be real, got dtype complex64",
    ),
    (
        lambda: avg_pool(X.astype(np.int32), window=2),
        TypeError,
        "avg_pool: x must hold floating-point numbers, got dtype int32",
    ),
    (lambda: max_pool(X, window=0), ValueError, "max_pool: window must be >= 1, got 0"),
    (lambda: avg_pool(X, window=(2, 8)), ValueError, "avg_pool: the kernel does not fit into the"),
    (
        lambda: max_pool(X, window=2, stride=1, padding=2),
        ValueError,
        "altogether, which has no value: 2 taps at dilation 1 over 7 samples with padding (2, 2)",
    ),
    (
        lambda: max_pool(X[:, :1], window=2, dilation=2, stride=1, padding="SAME"),
        ValueError,
        "2 taps at dilation 2 over 1 samples with padding (1, 1)",
    ),
    (
        lambda: avg_pool(X, window=2, stride=1, padding=2, count_include_pad=False),
        ValueError,
        "avg_pool: window 0 on spatial axis 0 lies in the padding altogether",
    ),
    (
        lambda: avg_pool(X, window=2, padding="same_"),
        ValueError,
        "avg_pool: padding must be one of",
    ),
    (lambda: max_pool(X[None], window=(2, 2)), ValueError, "If x has several batch axes, name the"),
]


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_refusals(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert words in str(caught.value)


def test_padding_that_counts_may_be_a_whole_window():
    y = jaxdil.avg_pool(X, window=2, stride=1, padding=2)
    assert y.shape == (2, 10, 9, 3)
    assert not y[:, 0].any()
