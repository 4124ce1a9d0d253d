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

pytestmark = pytest.mark.core

RNG = np.random.default_rng(7)


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
    fn, oracle, params, x = case(name, rank=2, size=5)
    expected = oracle(params, x, np.tanh)
    g = RNG.normal(size=expected.shape)

    def loss(p, x):
        y = fn(p, x)
        return (y * g).sum(), y

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
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
    fast = jax.jit(jax.vmap(jaxdil.accelerate(fn), in_axes=(None, 0)))
    actual = fast(params, x[:, None])
    assert actual.dtype == dtype
    exact = jax.tree.map(lambda leaf: np.asarray(leaf.astype(jnp.float64)), (params, x))
    expected, size = oracle(*exact, np.tanh), magnitude(oracle, *exact)
    if name == "multi_rate_conv":  # the batch is its second axis
        actual = jnp.swapaxes(actual, 0, 1)
    # What a layer returns is rounded to bfloat16; what it sums is not.
    terms = 1000 if dtype == jnp.float32 else 24
    assert_matches(actual.reshape(expected.shape), expected, size, terms=terms, dtype=dtype)
