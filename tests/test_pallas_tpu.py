"""The kernels for a TPU, interpreted, their blocks made small: small arrays cross their borders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_conv, assert_input_grad, assert_kernel_grad
from jax import lax
from kernels import SIMULATED

import jaxdil
from jaxdil import reference, streaming
from jaxdil._methods import METHODS, races
from jaxdil._pallas import lying_1d, plan_1d, tpu_1d

METHOD = "pallas_tpu"


pytestmark = pytest.mark.usefixtures("short_rows")


def draw(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def whole(seed, shape, dtype=jnp.float32):
    """Small integers: sums of their products are exact."""
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 4, shape), dtype)


# --- each role ------------------------------------------------------------------------------------

# (N, T, C), taps, dilation, padding. Blocks have 32 or 64 rows and 128 channels.
GEOMETRIES = {
    "causal, several blocks": ((2, 150, 3), 4, 1, (3, 0)),
    "two blocks of channels, odd": ((1, 33, 131), 2, 1, (1, 0)),
    "same, dilated": ((2, 71, 2), 5, 2, (4, 4)),
    "valid": ((1, 70, 2), 8, 1, (0, 0)),
    "full": ((1, 40, 2), 3, 20, (40, 40)),
    "ahead": ((3, 64, 2), 3, 4, (0, 8)),
    "shorter than its reach": ((2, 5, 2), 4, 3, (9, 0)),
    "one tap": ((1, 17, 2), 1, 1, (0, 0)),
    # Examples in the sublanes.
    "two abreast": ((2, 71, 128), 4, 3, (9, 0)),
    "two abreast, two blocks of channels": ((2, 37, 256), 3, 4, (4, 4)),
    "four abreast, valid": ((4, 45, 131), 3, 2, (0, 0)),
    "eight abreast, twice": ((16, 45, 100), 3, 1, (1, 1)),
    "eight abreast, ahead, shorter than its reach": ((8, 5, 120), 4, 3, (0, 9)),
    # Time in the lanes, channels of all examples beside each other.
    "turned": ((3, 300, 16), 4, 1, (3, 0)),
    "turned, one block, dilated": ((2, 100, 8), 5, 16, (32, 32)),
    "turned, valid": ((1, 260, 8), 8, 3, (0, 0)),
    "turned, ahead, two blocks of channels": ((17, 140, 8), 3, 4, (0, 8)),
}
CORE = ("causal, several blocks", "turned", "full", "shorter than its reach")
every_geometry = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.core] if n in CORE else []) for n in GEOMETRIES]
)


def check_roles(name, dtype):
    """Forward and both gradients by the kernels, against the definition."""
    shape, taps, dilation, padding = GEOMETRIES[name]
    channels = shape[-1]
    options = {"dilation": dilation, "padding": [padding], "groups": channels}
    x, w = draw(0, shape, dtype), draw(1, (taps, 1, channels), dtype)
    conv = functools.partial(jaxdil.conv, **options, method=METHOD)
    g = draw(2, jax.eval_shape(conv, x, w).shape, dtype)

    @jax.jit
    def roles(x, w, g):
        pinned = options | {"method": METHOD}
        dx = jaxdil.conv_input_grad(g, w, input_shape=x.shape, **pinned)
        return conv(x, w), dx, jaxdil.conv_kernel_grad(x, g, kernel_shape=w.shape, **pinned)

    y, dx, dw = roles(x, w, g)
    assert_conv(y, x, w, **options)
    assert_input_grad(dx, g, w, input_shape=x.shape[1:-1], **options)
    assert_kernel_grad(dw, x, g, kernel_shape=taps, **options)


@every_geometry
def test_forward_and_both_gradients(name):
    check_roles(name, jnp.float32)


@pytest.mark.parametrize(
    "name", ["causal, several blocks", "shorter than its reach", "turned", "two abreast"]
)
def test_half_precision_sums_in_single(name):
    check_roles(name, jnp.bfloat16)


def test_channels_before_time_are_taken_as_they_lie():
    """Time is in the lanes there, although channels would fill them as well."""
    x, w = whole(0, (1, 128, 128)), whole(1, (3, 1, 128))
    for order, turned in (("NCW", True), ("NWC", False)):
        conv = functools.partial(jaxdil.conv, groups=128, data_format=order)
        rows = jaxdil.explain(conv, platform="tpu", gradients=False)(x, w)
        assert plan_1d.plan_of(rows[0].problem).turned is turned
        got = jax.jit(functools.partial(conv, method=METHOD))(x, w)
        np.testing.assert_array_equal(got, conv(x, w, method="xla"))


@pytest.mark.parametrize(
    ("shape", "dilation", "abreast"),
    [
        ((2, 71, 128), 1, 2),
        ((4, 3199, 128), 1, 4),
        ((16, 71, 128), 1, 8),
        ((16, 72, 128), 1, 1),  # time fills the sublanes as well
        ((3, 71, 128), 1, 1),
        ((16, 71, 128), 128, 8),
        ((16, 71, 128), 129, 1),  # so far apart that the halos of 8 are too long
    ],
)
def test_examples_are_abreast_where_they_lie_in_the_sublanes(shape, dilation, abreast):
    x, w = jnp.ones(shape), jnp.ones((3, 1, 128))
    conv = functools.partial(jaxdil.conv, groups=128, dilation=dilation, padding="CAUSAL")
    (row,) = jaxdil.explain(conv, platform="tpu", gradients=False)(x, w)
    assert plan_1d.plan_of(row.problem).abreast == abreast


def depthwise(x, w, method=METHOD, padding=((3, 2),), **options):
    return jaxdil.conv(x, w, padding=padding, groups=x.shape[-1], method=method, **options)


@pytest.mark.core
@pytest.mark.parametrize("shape", [(1, 40, 3), (2, 13, 128)])
def test_second_derivatives(shape):
    x, w = whole(0, shape), whole(1, (4, 1, shape[-1]))

    def of_gradients(x, w, method):
        def loss(x, w):
            return (depthwise(x, w, method) ** 2).sum()

        dx, dw = jax.grad(loss, (0, 1))(x, w)
        return (dx * x[:, ::-1]).sum() + (dw * w[::-1]).sum()

    both = jax.jit(jax.grad(of_gradients, (0, 1)), static_argnums=2)
    jax.tree.map(np.testing.assert_array_equal, both(x, w, f"{METHOD} or auto"), both(x, w, "xla"))


# --- what is beside the samples -------------------------------------------------------------------


PLANS = {
    "causal": plan_1d.Plan(1, 45, 130, 4, 1, 3, 0, rows=32, lanes=128),
    "ahead": plan_1d.Plan(1, 45, 3, 3, 2, 1, 3, rows=16, lanes=128),
    "alone": plan_1d.Plan(1, 45, 3, 4, 3, 5, 2, rows=64, lanes=128),
    "turned": plan_1d.Plan(1, 300, 130, 4, 1, 3, 0, turned=True, rows=128, lanes=128),
    "turned, alone": plan_1d.Plan(1, 45, 20, 3, 2, 1, 3, turned=True, rows=128, lanes=128),
    "abreast, tiles": plan_1d.Plan(2, 45, 256, 4, 1, 3, 0, abreast=2, rows=32, lanes=256),
    "abreast, alone": plan_1d.Plan(8, 13, 130, 3, 2, 1, 3, abreast=4, rows=16, lanes=128),
    "masked": plan_1d.Plan(1, 150, 3, 3, 2, 4, 0, masked=True, rows=128, lanes=128),
}


@pytest.mark.parametrize("name", PLANS)
def test_no_read_is_out_of_bounds_and_none_of_memory_that_nothing_was_written_to(name):
    """Of the interpreter of a TPU, whose memory is NaN until it is written."""
    plan = PLANS[name]
    x, w = whole(0, (plan.batch, plan.size, plan.channels)), whole(1, (plan.taps, plan.channels))
    shape = (plan.batch, plan.positions)
    g = whole(2, (*shape, plan.channels))
    bits = jnp.asarray(np.random.default_rng(3).integers(0, 2**plan.taps, shape), jnp.int32)
    options = {"dtype": jnp.float32, "bits": bits if plan.masked else None}
    x, g = lying_1d.lie(x, plan), lying_1d.lie(g, plan)
    for kernel, operands in ((tpu_1d.convolution, (x, w)), (tpu_1d.kernel_gradient, (x, g))):
        got = kernel(*operands, plan, **options, interpret=SIMULATED)
        np.testing.assert_array_equal(got, kernel(*operands, plan, **options, interpret=True))
        assert np.isfinite(got).all()


VIEWS = {
    "2 of a tile": (2, 130, 128, jnp.float32),
    "2 of two tiles, halves to words": (2, 256, 256, jnp.bfloat16),
    "4 of three tiles, halves": (4, 384, 256, jnp.bfloat16),
    "8 of a tile": (8, 3, 128, jnp.float32),
}


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="its interpreter sees no words")
@pytest.mark.parametrize("name", VIEWS)
def test_examples_abreast_seen_as_words(name, monkeypatch):
    """As the compiler sees a block."""
    abreast, channels, lanes, dtype = VIEWS[name]
    shape = (2 * abreast, 21, channels)
    options = {"abreast": abreast, "rows": 16, "lanes": lanes}
    plan = plan_1d.Plan(*shape, 3, 2, 1, 3, **options)
    x, w, g = draw(0, shape, dtype), draw(1, (3, channels), dtype), draw(2, shape, dtype)
    x, g = (lying_1d.lie(a.at[0, 7, 1].set(jnp.nan), plan) for a in (x, g))
    out = jnp.float32 if "to words" in name else dtype
    for kernel, operands in ((tpu_1d.convolution, (x, w)), (tpu_1d.kernel_gradient, (x, g))):
        want = kernel(*operands, plan, dtype=out, interpret=True)
        with monkeypatch.context() as patch:
            patch.setattr(tpu_1d, "_views", lambda _: True)
            got = kernel(*operands, plan, dtype=out, interpret=True)
        np.testing.assert_array_equal(got, want)


# --- transforms -----------------------------------------------------------------------------------


def test_vmap_and_scan():
    xs, ws = whole(0, (3, 1, 40, 2)), whole(1, (3, 2, 1, 2))

    def all_kinds(xs, ws, method):
        conv = functools.partial(depthwise, method=method, padding=((1, 0),))
        last, _ = lax.scan(lambda x, w: (conv(x, w), 0), xs[0], ws)
        return (
            jax.vmap(conv, (0, None))(xs, ws[0]),
            jax.vmap(conv, (None, 0))(xs[0], ws),
            jax.vmap(jax.grad(lambda w, x: (conv(x, w) ** 2).sum()))(ws, xs),
            last,
        )

    run = jax.jit(all_kinds, static_argnums=2)
    jax.tree.map(
        np.testing.assert_array_equal, run(xs, ws, f"{METHOD} or auto"), run(xs, ws, "xla")
    )


# --- packed sequences and streams -----------------------------------------------------------------

LENGTHS = ((100, 30, 1, 9, 40), (3, 127, 20, 30))


def ids_of(lengths):
    return jnp.stack([jnp.repeat(jnp.arange(len(row)), jnp.array(row)) for row in lengths])


@pytest.mark.core
@pytest.mark.parametrize(("taps", "dilation"), [(4, 1), (8, 5)])
def test_packed_sequences(taps, dilation):
    """Against each sequence for itself, and the gradients against sums of taps."""
    x, w, ids = whole(0, (2, 180, 2)), whole(1, (taps, 2, 1)), ids_of(LENGTHS)
    conv = functools.partial(streaming.causal_conv, depthwise=True, dilation=dilation)

    @functools.partial(jax.jit, static_argnames="method")
    def run(x, w, method):
        y, pullback = jax.vjp(lambda x, w: conv(x, w, segment_ids=ids, method=method), x, w)
        return y, *pullback(y)

    got = run(x, w, method=METHOD)
    ends = [np.cumsum(row)[:-1] for row in LENGTHS]
    parts = [np.split(np.asarray(row), cuts) for row, cuts in zip(x, ends, strict=True)]
    options = {"padding": [((taps - 1) * dilation, 0)], "dilation": dilation, "groups": 2}
    kernel = np.asarray(w).reshape(taps, 1, 2)

    def alone(part):
        return reference.conv(part[None], kernel, **options)[0]

    want = np.stack([np.concatenate(list(map(alone, row))) for row in parts])
    np.testing.assert_array_equal(got[0], want)
    jax.tree.map(np.testing.assert_array_equal, got, run(x, w, method="auto"))


def test_packed_sequences_in_both_modes_to_second_order():
    x, w, ids = whole(0, (1, 20, 2)), whole(1, (3, 2, 1)), ids_of([(9, 11)])

    def second(x, w, method):
        def loss(x, w):
            y = streaming.causal_conv(x, w, depthwise=True, segment_ids=ids, method=method)
            return (y**2).sum()

        return jax.jvp(jax.grad(loss, (0, 1)), (x, w), (x[:, ::-1], w[::-1]))

    run = jax.jit(second, static_argnums=2)
    jax.tree.map(np.testing.assert_array_equal, run(x, w, METHOD), run(x, w, "auto"))


def test_a_stream_in_chunks_by_the_kernel():
    x, w = whole(0, (2, 90, 3)), whole(1, (4, 3, 1))
    chunk = jax.jit(functools.partial(streaming.chunk, method=METHOD))
    y, state = streaming.prefill(x[:, :40], w, depthwise=True, method=METHOD)
    z, _ = chunk(state, x[:, 40:], w)
    want = streaming.causal_conv(x, w, depthwise=True, method="xla")
    np.testing.assert_array_equal(jnp.concatenate([y, z], axis=1), want)


# --- what it does not serve -----------------------------------------------------------------------

REFUSED = {
    "a stride of 2": ((1, 9, 4), (2, 1, 4), {"groups": 4, "stride": 2}),
    "the input is dilated": ((1, 9, 4), (2, 1, 4), {"groups": 4, "input_dilation": 2}),
    "33 taps, more than 32": ((1, 99, 4), (33, 1, 4), {"groups": 4}),
    "beyond the kernel's reach of 1": ((1, 9, 4), (2, 1, 4), {"groups": 4, "padding": [(2, 0)]}),
    "a reach of 2400 frames": (
        (1, 9, 4),
        (2, 1, 4),
        {"groups": 4, "dilation": 2400, "padding": "CAUSAL"},
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_it_cannot_serve_it_says(reason):
    x_shape, w_shape, options = REFUSED[reason]
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, w_shape))
    with pytest.raises(jaxdil.MethodError, match=f"pallas_tpu: .*{reason}"):
        jax.eval_shape(functools.partial(jaxdil.conv, **options, method=METHOD), x, w)


def test_other_dtypes_are_refused():
    x, w = jnp.ones((1, 9, 4), jnp.float16), jnp.ones((2, 1, 4), jnp.float16)
    with pytest.raises(jaxdil.MethodError, match="pallas_tpu: float16"):
        depthwise(x, w)
    ids = jnp.zeros((1, 9), jnp.int32)
    with pytest.raises(jaxdil.MethodError, match="float16"):
        streaming.causal_conv(x, w[:, 0, :, None], depthwise=True, segment_ids=ids, method=METHOD)


def test_a_kernel_races_on_its_own_platform_only():
    assert [name for name in METHODS if not races(name, "cpu")] == [METHOD, "pallas_gpu"]
    assert [name for name in METHODS if not races(name, "tpu")] == ["pallas_gpu"]
