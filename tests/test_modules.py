"""The paper modules: their numbers by numpy, and what each paper says of its own."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_matches

import jaxdil
from jaxdil import modules, reference
from jaxdil.modules._context import _identity

pytestmark = pytest.mark.core

RNG = np.random.default_rng(7)
# What runs once is compiled in little time rather than to run in little.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def shapes(init, *args, **options):
    """The parameters that an initialiser makes, without making them."""
    return jax.eval_shape(lambda: init(jax.random.key(0), *args, **options))


def drawn(init, *args, **options):
    """Random parameters of that structure, float64, none of them 0."""

    def draw(path, leaf):
        values = RNG.normal(size=leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1]) or 1)
        return 0.5 + np.abs(values) if "variance" in jax.tree_util.keystr(path) else values

    return jax.tree_util.tree_map_with_path(draw, shapes(init, *args, **options))


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def weights(tree):
    """Number of parameters that are trained: all but the statistics of batch norms."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    return sum(v.size for name, v in names if "mean" not in name and "variance" not in name)


# --- the papers' equations in numpy, float64, by reference.conv -----------------------------------


def layer(p, x, *, stride=1, dilation=1, padding=None, depthwise=False):
    """One convolution with its bias or norm; "same" padding of an odd kernel unless said."""
    taps = p["w"].shape[:-2]
    pads = [dilation * (k - 1) // 2 for k in taps] if padding is None else padding
    pads = [(n, n) if isinstance(n, int) else n for n in pads]
    conv = reference.depthwise_conv if depthwise else reference.conv
    y = conv(x, p["w"], stride=stride, dilation=dilation, padding=pads) + p.get("b", 0)
    if norm := p.get("norm"):
        deviation = np.sqrt(norm["variance"] + 1e-5)
        y = norm["scale"] * (y - norm["mean"]) / deviation + norm["offset"]
    return y


def context(p, x, f):
    for one, d in zip(p[:-1], (1, 1, 2, 4, 8, 16, 1), strict=True):
        x = f(layer(one, x, dilation=d))
    return layer(p[-1], x)


def aspp(p, x, f):
    rates = zip(p["atrous"], (12, 24, 36), strict=True)
    mean = x.mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True)
    image = np.tile(f(layer(p["image"], mean)), (1, *x.shape[1:-1], 1))
    seen = [f(layer(one, x, dilation=r)) for one, r in rates]
    return f(layer(p["project"], np.concatenate([f(layer(p["pointwise"], x)), *seen, image], -1)))


def degridding(p, x, f):
    for one, d in zip(p, (2, 2, 1, 1), strict=True):
        x = f(layer(one, x, dilation=d))
    return x


def smoothed(p, x, f):
    each = [layer({"w": p["smooth"][..., None, None]}, x[..., c : c + 1]) for c in (0, 1)]
    return layer(p["conv"], np.concatenate(each, -1), dilation=3)


def xception(p, x, f):
    y = x
    for one in p["separable"]:
        y = layer(one["pointwise"], layer(one["depthwise"], f(y), depthwise=True))
    y = np.pad(y, [(0, 0), *[(1, 1)] * (x.ndim - 2), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(y, (3,) * (x.ndim - 2), range(1, x.ndim - 1))
    pooled = windows.max(tuple(range(x.ndim, windows.ndim)))[
        (slice(None), *[slice(None, None, 2)] * (x.ndim - 2))
    ]
    return pooled + layer(p["skip"], x, stride=2)


def atrous_xception(p, x, f):
    y = x
    for one in p["separable"]:
        y = layer(one["pointwise"], f(layer(one["depthwise"], f(y), dilation=2, depthwise=True)))
    return y + x


def mobilenet(p, x, f):
    y = f(layer(p["expand"], x))
    return layer(p["project"], f(layer(p["depthwise"], y, dilation=2, depthwise=True))) + x


def wavenet(p, x, f, gate=lambda a, b: np.tanh(a) / (1 + np.exp(-b))):
    aside = 0
    for one, d in zip(p, (1, 2, 4), strict=True):
        z = layer(one["gated"], x, dilation=d, padding=[(d, 0)])
        z = gate(*np.split(z + layer(one["condition"], CONDITION), 2, -1))
        x, aside = x + layer(one["residual"], z), aside + layer(one["skip"], z)
    return np.concatenate([x, aside], -1)


def multi_rate(p, x, f):
    return np.stack([layer(p, x, dilation=d) for d in (1, 2, 3)])


def interaction(p, x, f):
    """Each block of 2 samples an axis, flattened, times the matrix."""
    y, rank = np.zeros(x.shape, x.dtype), x.ndim - 2
    for at in np.ndindex(x.shape[1:-1]):
        i = np.ravel_multi_index([n % 2 for n in at], (2,) * rank)
        for j, offset in enumerate(np.ndindex((2,) * rank)):
            there = tuple(n - n % 2 + o for n, o in zip(at, offset, strict=True))
            if all(n < size for n, size in zip(there, x.shape[1:-1], strict=True)):
                y[:, *at] += p["w"][i, j] * x[:, *there]
    return y


# --- each module: what is called, what it should be, its parameters -------------------------------

BN = modules.init_batch_norm
CONDITION = RNG.normal(size=(1, 1, 3))


def with_condition(p, x, **options):
    condition = jnp.asarray(CONDITION, x.dtype)
    condition = jnp.broadcast_to(condition, (x.shape[0], 1, 3))
    return jnp.concatenate(
        modules.wavenet_stack(p, x, dilations=(1, 2, 4), condition=condition), -1
    )


CASES = {
    "context_module": (modules.context_module, context, modules.init_context_module, (2,), {}),
    "aspp": (
        functools.partial(modules.aspp, output_stride=8),
        aspp,
        modules.init_aspp,
        (2, 3),
        {"norm": BN},
    ),
    "degridding": (modules.degridding, degridding, modules.init_degridding, (2,), {"norm": BN}),
    "smoothed_conv": (
        functools.partial(modules.smoothed_conv, dilation=3),
        smoothed,
        modules.init_smoothed_conv,
        (2, 3),
        {"dilation": 3},
    ),
    "group_interaction": (
        functools.partial(modules.group_interaction, dilation=2),
        interaction,
        lambda key, **options: modules.init_group_interaction(dilation=2, **options),
        (),
        {},
    ),
    "xception_block": (
        functools.partial(modules.xception_block, stride=2),
        xception,
        modules.init_xception_block,
        (2, (3, 4)),
        {"norm": BN, "skip": True},
    ),
    "atrous_xception_block": (
        functools.partial(modules.atrous_xception_block, dilation=2),
        atrous_xception,
        modules.init_atrous_xception_block,
        (2, (3, 2)),
        {"norm": BN},
    ),
    "inverted_residual": (
        functools.partial(modules.inverted_residual, dilation=2, residual=True),
        mobilenet,
        modules.init_inverted_residual,
        (2, 2),
        {"norm": BN, "expansion": 3},
    ),
    "wavenet_stack": (
        with_condition,
        wavenet,
        modules.init_wavenet_stack,
        (2,),
        {"layers": 3, "gate_channels": 3, "skip_channels": 4, "condition_channels": 3},
    ),
    "multi_rate_conv": (modules.multi_rate_conv, multi_rate, modules.init_conv_layer, (2, 3), {}),
}
PLAIN = {"smoothed_conv", "group_interaction", "wavenet_stack", "multi_rate_conv"}  # no activation
every_module = pytest.mark.parametrize("name", CASES)


def magnitude(oracle, params, x):
    """The same on absolute values; no activation shrinks a sum, nor the error in it."""

    def absolute(path, leaf):
        # A norm subtracts the mean.
        return -np.abs(leaf) if "mean" in jax.tree_util.keystr(path) else np.abs(leaf)

    options = {"gate": lambda a, b: a + b} if oracle is wavenet else {}
    params = jax.tree_util.tree_map_with_path(absolute, params)
    return oracle(params, np.abs(x), lambda v: v, **options)


def case(name, rank, size, batch=1):
    fn, oracle, init, args, options = CASES[name]
    rank = 1 if name == "wavenet_stack" else rank
    options = options if name == "wavenet_stack" else options | {"rank": rank}
    params, x = drawn(init, *args, **options), RNG.normal(size=(batch, *(size,) * rank, 2))
    # Smooth, and no longer than what goes in, so that differences and error bounds hold.
    fn = fn if name in PLAIN else functools.partial(fn, activation=jnp.tanh)
    return fn, oracle, params, x


@every_module
def test_numbers_and_gradients(name):
    """Outputs as the equations in numpy; gradients as differences of those equations."""
    rank = 2 if name in ("aspp", "group_interaction", "inverted_residual") else 1
    fn, oracle, params, x = case(name, rank=rank, size=5)
    expected = oracle(params, x, np.tanh)
    g = RNG.normal(size=expected.shape)

    def loss(p, x):
        y = fn(p, x)
        return (y * g).sum(), y

    grad = quick(jax.grad(loss, argnums=(0, 1), has_aux=True))
    grads, actual = grad(cast(params, jnp.float64), jnp.asarray(x))
    size = magnitude(oracle, params, x)
    assert_matches(actual, expected, size, terms=1000, dtype=jnp.float64)
    way = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), (params, x))
    step = 1e-5
    ends = [jax.tree.map(lambda a, b: a + s * b, (params, x), way) for s in (step, -step)]  # noqa: B023
    slope = sum(s * (oracle(*end, np.tanh) * g).sum() for s, end in zip((1, -1), ends, strict=True))
    along = sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), grads, way)))
    assert abs(slope / (2 * step) - along) <= 1e-6 * (np.abs(size) * np.abs(g)).sum()


@every_module
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
def test_precisions_vmap_and_accelerate(name, dtype):
    fn, oracle, params, x = case(name, rank=1, size=5, batch=2)
    params, x = cast(params, dtype), jnp.asarray(x, dtype)
    fast = quick(jax.vmap(jaxdil.accelerate(fn), in_axes=(None, 0)))
    actual = fast(params, x[:, None])
    assert actual.dtype == dtype
    exact = jax.tree.map(lambda leaf: np.asarray(leaf.astype(jnp.float64)), (params, x))
    expected, size = oracle(*exact, np.tanh), magnitude(oracle, *exact)
    if name == "multi_rate_conv":  # the batch is its second axis
        actual = jnp.swapaxes(actual, 0, 1)
    # What a layer returns is rounded to bfloat16; what it sums is not.
    terms = 1000 if dtype == jnp.float32 else 24
    assert_matches(actual.reshape(expected.shape), expected, size, terms=terms, dtype=dtype)


# --- 1511.07122: the context module ---------------------------------------------------------------


def test_context_module_has_the_fields_of_table_1():
    """What an impulse reaches after each layer is as large as what each layer sees."""
    params = jax.tree.map(
        lambda s: jnp.ones(s.shape), shapes(modules.init_context_module, 1, rank=1)
    )
    impulse = jnp.zeros((1, 141, 1)).at[0, 70].set(1)
    rates = (1, 1, 2, 4, 8, 16, 1, 1)

    @quick
    def reached(params, x):
        params = [{"w": p["w"]} for p in params]
        return [
            jnp.sum(modules.context_module(params[:n], x, dilations=rates[:n]) > 0)
            for n in range(1, 9)
        ]

    table = [3, 5, 9, 17, 33, 65, 67, 67]
    assert [int(n) for n in reached(params, impulse)] == table
    layers = [(p["w"].shape[0], 1, rate) for p, rate in zip(params, rates, strict=True)]
    assert [field.size for field in jaxdil.receptive_field(layers)] == table


def test_context_module_has_the_channels_and_parameters_of_the_paper():
    basic = shapes(modules.init_context_module, 21)
    large = shapes(modules.init_context_module, 21, size="large")
    assert [p["w"].shape[-1] // 21 for p in basic] == [1] * 8
    assert [p["w"].shape[-1] // 21 for p in large] == [2, 2, 4, 8, 16, 32, 32, 1]
    # "The number of parameters in this context module is approximately 64 C^2."
    assert sum(p["w"].size for p in basic) == 64 * 21**2


@pytest.mark.parametrize("size", ["basic", "large"])
def test_identity_initialiser_passes_the_input_through(size):
    params = modules.init_context_module(
        jax.random.key(0), 2, size=size, noise=0.0, rank=1, dtype=jnp.float64
    )
    # Whole numbers, so that 32 copies of x / 32 add up to x without rounding.
    x = RNG.integers(-9, 10, (1, 9, 2)).astype(float)
    np.testing.assert_array_equal(quick(modules.context_module)(params, x), np.maximum(x, 0))


def test_noise_of_the_identity_initialiser():
    """Equation 5 with 64 channels, 128 of them out: around zero where nothing is passed."""
    w = np.asarray(_identity(jax.random.key(1), (3,), 64, 64, 128, 0.1, jnp.float32)["w"])
    passes = np.zeros((3, 64, 128), bool)
    for b in range(128):
        passes[1, b // 2, b] = True
    assert (w[passes] == 0.5).all()
    noise = w[~passes].astype(np.float64)
    assert abs(noise.std() / (0.1 * 0.5) - 1) < 0.02
    assert abs(noise.mean()) < 0.001
    assert not _identity(jax.random.key(1), (3,), 64, 64, 128, 0.0, jnp.float32)["w"][~passes].any()


# --- 1706.05587: ASPP -----------------------------------------------------------------------------


def test_a_rate_beyond_the_map_leaves_the_middle_tap():
    """Section 3.3: there "the 3 x 3 filter degenerates to a simple 1 x 1 filter"."""
    params = drawn(modules.init_aspp, 2, 3)
    x = RNG.normal(size=(1, 6, 6, 2))
    middle = [{"w": p["w"][1:2, 1:2], "b": p["b"]} for p in params["atrous"]]
    small = quick(modules.aspp)(params | {"atrous": middle}, x)
    np.testing.assert_allclose(quick(modules.aspp)(params, x), small, rtol=0, atol=1e-12)


def test_the_image_branch_is_a_bilinear_resize_of_its_mean():
    mean = jnp.asarray(RNG.normal(size=(1, 1, 1, 3)))
    resized = jax.image.resize(mean, (1, 4, 5, 3), "bilinear")
    np.testing.assert_allclose(resized, jnp.broadcast_to(mean, (1, 4, 5, 3)), rtol=1e-15)


def test_rates_double_at_output_stride_8():
    text = str(
        jax.make_jaxpr(functools.partial(modules.aspp, output_stride=8))(
            shapes(modules.init_aspp, 2, 3), jnp.ones((1, 9, 9, 2), jnp.float32)
        )
    )
    assert [f"rhs_dilation=({r}, {r})" in text for r in (6, 12, 18, 24, 36)] == [0, 1, 0, 1, 1]


# --- gridding: 1705.09914 and 1808.08931 ----------------------------------------------------------


def inputs_of(fn, x, at):
    """The samples of x (N, T, C) that the outputs at a place depend on."""
    grad = jax.grad(lambda x: fn(x)[:, at].sum())(x)
    return set(np.flatnonzero(np.any(np.asarray(grad) != 0, axis=(0, 2))).tolist())


def gridded(x):
    """Two convolutions at rate 4, as at the end of a dilated residual network."""
    for _ in range(2):
        x = jaxdil.conv(x, jnp.ones((3, 1, 1)), dilation=4)
    return x


def test_degridding_joins_what_dilation_keeps_apart():
    ones = jax.tree.map(lambda s: jnp.ones(s.shape), shapes(modules.init_degridding, 1, rank=1))
    x = jnp.ones((1, 61, 1))
    before = [inputs_of(gridded, x, at) for at in (30, 31)]
    assert before[0] == {14 + 8, 26, 30, 34, 38}
    assert not before[0] & before[1]
    after = [inputs_of(lambda x: modules.degridding(ones, gridded(x)), x, at) for at in (30, 31)]
    # Without holes, and neighbours see the same but for one sample on each side.
    assert after[0] == set(range(30 - 14, 30 + 15))
    assert after[1] == {n + 1 for n in after[0]}


def test_smoothing_joins_what_dilation_keeps_apart():
    x = jnp.ones((1, 31, 1))
    rate = 3
    params = shapes(modules.init_smoothed_conv, 1, 1, dilation=rate, rank=1)
    params = jax.tree.map(lambda s: jnp.ones(s.shape), params)

    def plain(x):
        return modules.conv_layer(params["conv"], x, dilation=rate)

    def smooth(x):
        return modules.smoothed_conv(params, x, dilation=rate)

    def mixed(x):
        return modules.group_interaction({"w": jnp.ones((rate, rate))}, plain(x), dilation=rate)

    assert inputs_of(plain, x, 15) == {12, 15, 18}
    assert inputs_of(plain, x, 16) == {13, 16, 19}
    assert inputs_of(smooth, x, 15) == set(range(10, 21))
    assert inputs_of(smooth, x, 16) == set(range(11, 22))
    # 15, 16 and 17 are one block of three.
    assert inputs_of(mixed, x, 15) == inputs_of(mixed, x, 16) == set(range(12, 21))


def test_smoothing_begins_as_the_identity():
    params = modules.init_smoothed_conv(
        jax.random.key(0), 2, 3, dilation=2, rank=1, dtype=jnp.float64
    )
    mixing = modules.init_group_interaction(dilation=2, rank=1, dtype=jnp.float64)
    x = jnp.asarray(RNG.normal(size=(2, 9, 2)))
    plain = modules.conv_layer(params["conv"], x, dilation=2)
    np.testing.assert_array_equal(modules.smoothed_conv(params, x, dilation=2), plain)
    np.testing.assert_array_equal(modules.group_interaction(mixing, plain, dilation=2), plain)
    # (2 r - 1)^2 parameters more, however many channels there are.
    assert shapes(modules.init_smoothed_conv, 64, 64, dilation=4)["smooth"].size == 49


# --- parameters that papers state -----------------------------------------------------------------


def test_xception_has_the_parameters_of_its_paper():
    """Table 3 of 1610.02357: 22,855,952."""
    conv = functools.partial(modules.init_conv_layer, norm=BN)
    block = functools.partial(modules.init_xception_block, norm=BN)

    def network(key):
        return [
            [conv(key, 3, 32), conv(key, 32, 64)],
            block(key, 64, (128, 128), skip=True),
            block(key, 128, (256, 256), skip=True),
            block(key, 256, (728, 728), skip=True),
            [block(key, 728, (728,) * 3) for _ in range(8)],
            block(key, 728, (728, 1024), skip=True),
            # The exit flow's two separable convolutions are those of a block.
            block(key, 1024, (1536, 2048), skip=True)["separable"],
            {"w": jnp.zeros((2048, 1000)), "b": jnp.zeros(1000)},
        ]

    assert weights(jax.eval_shape(network, jax.random.key(0))) == 22_855_952


def test_inverted_residual_has_the_parameters_of_its_paper():
    """Section 3 of 1801.04381: h w d' t (d' + k^2 + d'') multiply-adds, so weights at h = w = 1."""
    params = shapes(modules.init_inverted_residual, 24, 32, expansion=6, kernel=5)
    assert sum(p["w"].size for p in params.values()) == 24 * 6 * (24 + 25 + 32)
    assert "expand" not in shapes(modules.init_inverted_residual, 32, 16, expansion=1)


def test_mobilenet_v2_has_the_parameters_of_its_paper():
    """Table 2, and 3.4 M in table 4, which implementations count as 3,504,872."""
    stages = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]

    def network(key):
        layers, channels = [modules.init_conv_layer(key, 3, 32, norm=BN)], 32
        for t, c, n in stages:
            for _ in range(n):
                made = modules.init_inverted_residual(key, channels, c, expansion=t, norm=BN)
                layers, channels = [*layers, made], c
        layers.append(modules.init_conv_layer(key, 320, 1280, kernel=1, norm=BN))
        return [*layers, {"w": jnp.zeros((1280, 1000)), "b": jnp.zeros(1000)}]

    assert weights(jax.eval_shape(network, jax.random.key(0))) == 3_504_872


# --- 1609.03499: WaveNet --------------------------------------------------------------------------


def test_wavenet_sees_the_last_1024_samples_and_none_to_come():
    """ "each 1, 2, 4, ..., 512 block has receptive field of size 1024", and is causal."""
    params = cast(drawn(modules.init_wavenet_stack, 2), jnp.float64)
    x = jnp.asarray(RNG.normal(size=(1, 1100, 2)))

    @quick
    def probes(params, x):
        outputs, pull = jax.vjp(lambda x: modules.wavenet_stack(params, x), x)
        seeds = [jnp.zeros_like(y).at[:, 1050].set(1) for y in outputs]
        zero = jnp.zeros_like(seeds[0])
        return pull((seeds[0], zero))[0], pull((zero, seeds[1]))[0]

    for grad in probes(params, x):
        reached = np.flatnonzero(np.any(np.asarray(grad)[0] != 0, axis=-1))
        np.testing.assert_array_equal(reached, np.arange(1051 - 1024, 1051))
    assert jaxdil.receptive_field([(2, 1, 2**i) for i in range(10)])[-1].size == 1024


# --- norms ----------------------------------------------------------------------------------------


def test_a_folded_norm_changes_nothing():
    """The depthwise kernel's (K, C, 1) is scaled along C, the dense one's (K, I, O) along O."""
    params = {
        "block": drawn(modules.init_inverted_residual, 2, 3, norm=BN, rank=1),
        "bare": drawn(modules.init_xception_block, 3, (3,), norm=BN, rank=1),
        "both": drawn(modules.init_conv_layer, 3, 4, rank=1) | {"norm": drawn(BN_OF, 4)},
    }
    folded = jax.tree.map(np.asarray, quick(modules.fold_batch_norm)(params))
    assert not any(
        "norm" in jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(folded)
    )
    assert sorted(folded["bare"]["separable"][0]["depthwise"]) == ["w"]

    def network(p, x):
        y = layer(p["block"]["expand"], x)
        y = layer(p["block"]["project"], layer(p["block"]["depthwise"], y, depthwise=True))
        one = p["bare"]["separable"][0]
        y = layer(one["pointwise"], layer(one["depthwise"], y, depthwise=True))
        return layer(p["both"], y)

    x = RNG.normal(size=(1, 5, 2))
    np.testing.assert_allclose(network(folded, x), network(params, x), rtol=0, atol=1e-11)


def BN_OF(key, channels, dtype="float32"):  # noqa: N802
    return BN(channels, dtype=dtype)


def test_any_norm_can_be_passed():
    """Here by the statistics of the batch itself, as in training."""

    def standardised(scale, y):
        axes = tuple(range(y.ndim - 1))
        mean, variance = y.mean(axes, keepdims=True), y.var(axes, keepdims=True)
        return scale.reshape(1, 1, -1) * (y - mean) / jnp.sqrt(variance)

    params = modules.init_conv_layer(
        jax.random.key(0), 2, 3, rank=1, norm=jnp.ones, dtype=jnp.float64
    )
    assert sorted(params) == ["norm", "w"]
    y = modules.conv_layer(params, jnp.asarray(RNG.normal(size=(2, 9, 2))), norm=standardised)
    np.testing.assert_allclose(y.std((0, 1)), np.ones(3), rtol=1e-12)


def test_weights_are_drawn_with_the_variance_of_he():
    @quick
    def draw(key):
        dense = modules.init_conv_layer(key, 64, 64)
        depthwise = modules.init_inverted_residual(key, 512, 8, expansion=1)["depthwise"]
        return dense["w"].std(), depthwise["w"].std()

    dense, depthwise = draw(jax.random.key(0))
    assert abs(float(dense) / math.sqrt(2 / (9 * 64)) - 1) < 0.02
    assert abs(float(depthwise) / math.sqrt(2 / 9) - 1) < 0.05
    half = shapes(modules.init_conv_layer, 8, 8, groups=4, dtype=jnp.bfloat16)
    assert half["w"].shape == (3, 3, 2, 8)
    assert half["w"].dtype == half["b"].dtype == jnp.bfloat16


def test_an_image_without_a_batch_is_one_image():
    params = drawn(modules.init_aspp, 2, 3, rank=1)
    x = RNG.normal(size=(1, 6, 2))
    batched = quick(modules.aspp)(params, x)[0]
    np.testing.assert_allclose(quick(modules.aspp)(params, x[0]), batched, rtol=0, atol=1e-14)


# --- refusals -------------------------------------------------------------------------------------

X = np.ones((1, 9, 2))
LAYER = {"w": np.ones((3, 2, 2)), "b": np.zeros(2)}
REFUSALS = {
    "params without a kernel": (
        lambda: modules.conv_layer({"kernel": LAYER["w"]}, X),
        ValueError,
        ["conv_layer: a layer of params must be a dict with 'w'", "got ['kernel']"],
    ),
    "params that are no dict": (
        lambda: modules.conv_layer(LAYER["w"], X),
        ValueError,
        ["got ndarray", "The docstring of conv_layer says what params hold"],
    ),
    "a bias of another dtype": (
        lambda: modules.conv_layer(LAYER | {"b": np.zeros(2, np.float32)}, X),
        TypeError,
        ["conv_layer: bias must have the dtype of x, float64, got float32"],
    ),
    "channels": (
        lambda: modules.degridding([LAYER] * 4, np.ones((1, 9, 3))),
        ValueError,
        ["degridding: x has 3 channels, but w with 2 input channels"],
    ),
    "groups": (
        lambda: modules.init_conv_layer(jax.random.key(0), 6, 8, groups=4),
        ValueError,
        ["init_conv_layer: groups must divide the 6 input and 8 output channels, got 4"],
    ),
    "channels of an initialiser": (
        lambda: modules.init_aspp(jax.random.key(0), 0, 8),
        ValueError,
        ["init_aspp: in_channels must be >= 1, got 0"],
    ),
    "size": (
        lambda: modules.init_context_module(jax.random.key(0), 2, size="huge"),
        ValueError,
        ["init_context_module: size must be 'basic' or 'large', got 'huge'"],
    ),
    "noise": (
        lambda: modules.init_context_module(jax.random.key(0), 2, noise=-1.0),
        ValueError,
        ["init_context_module: noise must be >= 0, got -1.0"],
    ),
    "one dilation too few": (
        lambda: modules.degridding([LAYER] * 4, X, dilations=(2, 1)),
        ValueError,
        ["degridding: dilations must have an entry for each of the 4 layers of params, got (2, 1)"],
    ),
    "a dilation of 0": (
        lambda: modules.degridding([LAYER], X, dilations=(0,)),
        ValueError,
        ["degridding: dilations[0] must be >= 1, got 0"],
    ),
    "params that are no list": (
        lambda: modules.context_module(LAYER, X),
        TypeError,
        ["context_module: params must be a sequence, an entry a layer, got dict"],
    ),
    "output stride": (
        lambda: modules.aspp({"atrous": [LAYER] * 3}, X, output_stride=4),
        ValueError,
        ["aspp: output_stride must be 16 or 8, got 4", "pass the rates themselves"],
    ),
    "width of the smoothing": (
        lambda: modules.smoothed_conv({"smooth": np.ones(3), "conv": LAYER}, X, dilation=3),
        ValueError,
        ["smoothed_conv: params['smooth'] must be 5 wide at dilation 3", "got shape (3,)"],
    ),
    "size of the interaction": (
        lambda: modules.group_interaction({"w": np.ones((4, 4))}, X, dilation=3),
        ValueError,
        [
            "group_interaction: params['w'] must be (3, 3) at dilation 3 and 1 axes",
            "got shape (4, 4)",
        ],
    ),
    "channels that change under a residual": (
        lambda: modules.init_xception_block(jax.random.key(0), 8, (8, 16)),
        ValueError,
        ["init_xception_block: channels must end with in_channels=8", "pass skip=True"],
    ),
    "a stride without a skip layer": (
        lambda: modules.atrous_xception_block(
            {"separable": [{"depthwise": {"w": np.ones((3, 2, 1))}, "pointwise": LAYER}]},
            X,
            stride=2,
        ),
        ValueError,
        ["atrous_xception_block: the block makes (1, 5, 2), and what is added", "stride must be 1"],
    ),
    "a residual that does not fit": (
        lambda: modules.inverted_residual(
            {"depthwise": {"w": np.ones((3, 2, 1))}, "project": LAYER}, X, stride=2, residual=True
        ),
        ValueError,
        ["inverted_residual: residual=True adds x (1, 9, 2) to (1, 5, 2)", "Pass residual=False"],
    ),
    "a condition without parameters": (
        lambda: modules.wavenet_stack([{"gated": LAYER}], X, dilations=(1,), condition=X),
        ValueError,
        ["wavenet_stack: condition and its parameters must come together", "condition_channels=H"],
    ),
    "parameters without a condition": (
        lambda: modules.wavenet_stack([{"gated": LAYER, "condition": LAYER}], X, dilations=(1,)),
        ValueError,
        ["wavenet_stack: condition and its parameters must come together, but got None"],
    ),
    "no rate": (
        lambda: modules.multi_rate_conv(LAYER, X, rates=()),
        ValueError,
        ["multi_rate_conv: rates must be one or more dilations, got ()"],
    ),
    "rates that give several sizes": (
        lambda: modules.multi_rate_conv(LAYER, X, padding="VALID"),
        ValueError,
        ["multi_rate_conv: every rate must give the same size", "padding='SAME' does"],
    ),
    "another norm to fold": (
        lambda: modules.fold_batch_norm(LAYER | {"norm": {"scale": np.ones(2)}}),
        ValueError,
        ["fold_batch_norm: 'norm' must hold the parameters of batch_norm", "got ['scale']"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    call, kind, fragments = REFUSALS[name]
    with pytest.raises(kind) as caught:
        jax.eval_shape(call)
    assert type(caught.value) is kind
    for fragment in fragments:
        assert fragment in str(caught.value)
