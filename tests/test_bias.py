"""Bias and mask: on every function that takes them, rounded once, and what their gradients are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_matches
from geometries import equations, integers

import jaxdil
from jaxdil import reference
from jaxdil._primitive import conv_p

pytestmark = pytest.mark.core

X, W = integers(0, (2, 5, 6, 2)), integers(1, (3, 2, 2, 4))
BIAS, MASK = integers(2, (4,)), integers(3, (3, 2, 2, 4)) > 0
PAIRS = [(1, 1), (0, 1)]


def test_conv():
    want = reference.conv(X, W * MASK, padding=PAIRS) + BIAS
    np.testing.assert_array_equal(jaxdil.conv(X, W, bias=BIAS, mask=MASK), want)
    as_numbers = MASK.astype(np.float32)
    np.testing.assert_array_equal(jaxdil.conv(X, W, bias=BIAS, mask=as_numbers), want)
    first = jaxdil.conv(X.transpose(0, 3, 1, 2), W, bias=BIAS, mask=MASK, data_format="NCHW")
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), want)
    np.testing.assert_array_equal(jaxdil.conv(X[0], W, bias=BIAS, mask=MASK), want[0])
    numbers = ("NHWC", "OIHW", "CNHW")
    kernel, mask = (a.transpose(3, 2, 0, 1) for a in (W, MASK))
    explicit = jaxdil.conv(X, kernel, bias=BIAS, mask=mask, data_format=numbers)
    np.testing.assert_array_equal(explicit.transpose(1, 2, 3, 0), want)


def test_depthwise_and_separable():
    bias = integers(2, (8,))
    want = reference.depthwise_conv(X, W * MASK, padding=PAIRS) + bias
    np.testing.assert_array_equal(jaxdil.depthwise_conv(X, W, bias=bias, mask=MASK), want)
    mixing, last = integers(4, (8, 3)), integers(5, (3,))
    want = reference.separable_conv(X, W, mixing[None, None], padding=PAIRS) + last
    np.testing.assert_array_equal(jaxdil.separable_conv(X, W, mixing, bias=last), want)


def test_conv_transpose():
    w, mask, bias = W.swapaxes(2, 3), MASK.swapaxes(2, 3), integers(2, (8,))
    options = {"stride": 2, "groups": 2}
    want = jaxdil.conv_transpose(X, w * mask, **options) + bias[None, None, None]
    got = jaxdil.conv_transpose(X, w, bias=bias, mask=mask, **options)
    np.testing.assert_array_equal(got, want)
    options |= {"data_format": "channels_first", "padding_mode": "circular"}
    x = X.transpose(0, 3, 1, 2)
    want = jaxdil.conv_transpose(x, w, **options) + bias[:, None, None][None]
    np.testing.assert_array_equal(jaxdil.conv_transpose(x, w, bias=bias, **options), want)


def test_integers_and_wider_results():
    x, w = X.astype(np.int8), W.astype(np.int8)
    want = reference.conv(X, W, padding=PAIRS).astype(np.int32) + BIAS.astype(np.int32)
    for bias in (BIAS.astype(np.int8), BIAS.astype(np.int32)):
        got = jaxdil.conv(x, w, bias=bias, preferred_element_type=np.int32)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, want)


HALF = ("conv", "depthwise_conv", "separable_conv", "conv_transpose", "circular transpose")


def halves(name):
    """A call in half precision, its arrays, and the same by definition."""
    x = jax.random.normal(jax.random.key(0), (1, 9, 2), jnp.bfloat16)
    w = jax.random.normal(jax.random.key(1), (3, 2, 2), jnp.bfloat16)
    if name == "conv":
        return jaxdil.conv, (x, w), {}, lambda x, w: reference.conv(x, w, padding=1)
    if name == "depthwise_conv":
        function = jaxdil.depthwise_conv
        return function, (x, w), {}, lambda x, w: reference.depthwise_conv(x, w, padding=1)
    if name == "separable_conv":
        one = jnp.ones((3, 2, 1), jnp.bfloat16) / 3  # sums that bfloat16 does not hold
        half = np.asarray(jaxdil.depthwise_conv(x, one)).astype(np.float64)
        return (
            jaxdil.separable_conv,
            (x, one, w[0]),
            {},
            lambda x, one, w: reference.conv(half, w[None]),
        )
    options = {"stride": 1, "padding": [(4, 4)]} if name == "circular transpose" else {}
    options |= {"padding_mode": "circular"} if options else {}

    def transposed(x, w):
        whole = reference.conv_transpose(x, w, input_shape=11)
        if not options:
            return whole[:, 1:-1]
        return np.roll(np.pad(whole, [(0, 0), (0, 1), (0, 0)]).reshape(1, 4, 3, 2).sum(1), -1, 1)

    return jaxdil.conv_transpose, (x, w), options, transposed


@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_rounded_once(name):
    """A bias that cancels nearly all: the sum is right to the last bit of what is left."""
    function, arrays, options, definition = halves(name)
    wide = [np.asarray(a).astype(np.float64) for a in arrays]
    plain = definition(*wide)
    bias = jnp.asarray(-plain[0, 1], jnp.bfloat16)
    got = function(*arrays, bias=bias, **options)
    addend = np.asarray(bias).astype(np.float64)
    magnitude = definition(*map(np.abs, wide)) + abs(addend)
    want = plain + addend
    assert_matches(got, want, magnitude, terms=20, dtype=np.float32, out_dtype=jnp.bfloat16)


def test_derivatives_in_half_precision():
    """They are the convolution's own, in half precision: none of them is computed in float32."""
    function, (x, w), options, _ = halves("circular transpose")
    bias = jnp.ones(2, jnp.bfloat16)
    for call, plain in (
        (lambda x, w, b: jaxdil.conv(x, w, bias=b), jaxdil.conv),
        (lambda x, w, b: function(x, w, bias=b, **options), lambda x, w: function(x, w, **options)),
    ):
        y, back = jax.vjp(call, x, w, bias)
        g = jax.random.normal(jax.random.key(2), y.shape, y.dtype)
        dx, dw, db = back(g)
        for got, want in zip((dx, dw), jax.vjp(plain, x, w)[1](g), strict=True):
            assert got.dtype == jnp.bfloat16
            np.testing.assert_array_equal(got, want)
        total = np.asarray(g).astype(np.float64).sum((0, 1))
        np.testing.assert_array_equal(db, total.astype(jnp.bfloat16))
        program = jax.make_jaxpr(lambda x, w, g, b=back: b(g))(x, w, g).jaxpr
        convolutions = [eqn for eqn in equations(program) if eqn.primitive is conv_p]
        assert len(convolutions) == 2
        assert {v.aval.dtype for eqn in convolutions for v in eqn.outvars} == {
            jnp.dtype(jnp.bfloat16)
        }

        def loss(x, w, call=call):
            return (call(x, w, bias).astype(np.float32) ** 2).sum()

        second = jax.jit(jax.grad(lambda x, w: (jax.grad(loss)(x, w) ** 2).sum(), (0, 1)))(x, w)
        assert all(jnp.isfinite(d).all() for d in second)
        batch = jnp.stack([x, 2 * x])
        each = jax.vmap(call, (0, None, None))(batch, w, bias)
        np.testing.assert_array_equal(each[1], call(batch[1], w, bias))


def test_explain_finds_the_caller():
    """The program that holds the sum is JAX's own; what stands around it is not."""
    x, w = (jnp.asarray(a, jnp.bfloat16) for a in (X, W))
    call = jaxdil.explain(lambda x, w: jaxdil.conv(x, w, bias=w[0, 0, 0]), gradients=False)
    (row,) = call(x, w)
    assert row.source.startswith("test_bias.py:")


def test_a_masked_tap_has_no_gradient():
    w = W.astype(np.float64)
    dw = jax.grad(lambda w: jaxdil.conv(X.astype(w.dtype), w, mask=MASK).sum())(w)
    np.testing.assert_array_equal(dw != 0, (dw != 0) & MASK)
    assert (np.asarray(dw)[MASK] != 0).any()


def test_out_sharding():
    """What is explicitly sharded stays so, through the padding and the bias."""
    mesh = jax.make_mesh(
        (8,), ("d",), devices=jax.devices("cpu"), axis_types=(jax.sharding.AxisType.Explicit,)
    )
    spec = jax.sharding.PartitionSpec
    with jax.set_mesh(mesh):
        x = jax.device_put(integers(0, (8, 6, 2)), spec("d"))
        w = jax.device_put(integers(1, (3, 2, 8)), spec(None, None, "d"))
        options = {"bias": jnp.ones(8, x.dtype), "padding_mode": "circular"}
        kept = jaxdil.conv(x, integers(1, (3, 2, 8)), out_sharding=spec("d"), **options)
        assert jax.typeof(kept).sharding.spec == spec("d", None, None)
        wanted = spec(None, None, "d")
        x = jax.device_put(integers(0, (8, 6, 2)), spec())
        got = jaxdil.conv(x, w, out_sharding=wanted, **options)
        assert jax.typeof(got).sharding.spec == wanted
        np.testing.assert_array_equal(np.asarray(got), np.asarray(kept))
        for function, kernel in (
            (jaxdil.depthwise_conv, (3, 2, 4)),
            (jaxdil.conv_transpose, (3, 8, 2)),
        ):
            x = jax.device_put(integers(0, (8, 6, 2)), spec("d"))
            y = function(x, integers(1, kernel), out_sharding=spec("d"), **options)
            assert jax.typeof(y).sharding.spec == spec("d", None, None)
        y = jaxdil.separable_conv(
            x, integers(1, (3, 2, 4)), integers(2, (8, 8)), out_sharding=spec("d"), **options
        )
        assert jax.typeof(y).sharding.spec == spec("d", None, None)
