"""Networks written once: as a whole, by chunks and by steps; the stacks; and what is refused."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdil import reference, streaming

pytestmark = pytest.mark.core


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])))


def wavenet_params(rng, layers, *, r=4, d=3, q=5, h=2):
    return [
        {
            "gated": {"w": normal(rng, 2, r, 2 * d), "b": normal(rng, 2 * d)},
            "condition": {"w": normal(rng, 1, h, 2 * d)},
            "residual": {"w": normal(rng, 1, d, r), "b": normal(rng, r)},
            "skip": {"w": normal(rng, 1, d, q), "b": normal(rng, q)},
        }
        for _ in range(layers)
    ]


def tcn_params(rng, widths):
    blocks = []
    for c, o in itertools.pairwise(widths):
        block = {
            "first": {"w": normal(rng, 3, c, o), "b": normal(rng, o)},
            "second": {"w": normal(rng, 3, o, o)},
        }
        blocks.append(block | ({"project": {"w": normal(rng, 1, c, o)}} if c != o else {}))
    return blocks


# --- a network is its pieces ----------------------------------------------------------------------


def strided(conv, params, x):
    """An encoder: a residual layer, a stride of two with its shortcut, another one."""
    h = x + jnp.tanh(conv(x, params["a"], dilation=3))
    down = conv(h, params["b"], stride=2) + conv(h, params["short"], stride=2)
    return conv(jnp.tanh(down), params["c"], depthwise=True, stride=2)


def networks():
    rng = np.random.default_rng(0)
    wavenet = functools.partial(streaming.wavenet_stack, dilations=(1, 8))
    tcn = functools.partial(streaming.tcn_stack, dilations=(1, 6))
    encoder = {
        "a": normal(rng, 2, 4, 4),
        "b": normal(rng, 3, 4, 4),
        "short": normal(rng, 1, 4, 4),
        "c": normal(rng, 2, 4, 1),
    }
    ids = jnp.asarray(np.repeat([[1, 2, 3], [7, 7, 8]], [3, 6, 3], axis=1))
    return {
        "wavenet": (wavenet, wavenet_params(rng, 2), {"condition": normal(rng, 2, 12, 2)}),
        "tcn": (tcn, tcn_params(rng, (4, 4, 3)), {}),
        "short": (
            streaming.short_conv,
            {"w": normal(rng, 4, 4), "b": normal(rng, 4)},
            {"segment_ids": ids},
        ),
        "strided": (strided, encoder, {}),
    }


def close(a, b):
    """To rounding of float64 after a few layers of numbers about one."""
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-13), a, b)


@pytest.mark.parametrize("name", networks())
def test_a_network_by_chunks_and_by_steps(name):
    fn, params, named = networks()[name]
    net = streaming.network(fn)
    x = normal(np.random.default_rng(1), 2, 12, 4)

    @jax.jit
    def run(params, x, named):
        def cut(a, b):
            return x[:, a:b], jax.tree.map(lambda v: v[:, a:b], named)

        first, more = cut(0, 6)
        y, states = net.prefill(params, first, **more)
        ys = [y]
        for a, b in ((6, 6), (6, 10)):
            piece, more = cut(a, b)
            y, states = net.chunk(states, params, piece, **more)
            ys.append(y)
        for t in range(10, 12):
            piece, more = jax.tree.map(lambda a, t=t: a[:, t], (x, named))
            y, states = net.step(states, params, piece, **more)
            ys += [jax.tree.map(lambda a: a[:, None], y)] if jax.tree.leaves(y) else []
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *ys), states

    got, states = run(params, x, named)
    close(got, net.whole(params, x, **named))
    fresh = net.init(params, x, **named)
    shapes = [jax.tree.map(jnp.shape, s.frames) for s in fresh]
    assert [jax.tree.map(jnp.shape, s.frames) for s in states] == shapes


def test_generation_is_a_scan():
    """Each sample made from those before: the same as recomputing the whole for each."""
    fn, params, _ = networks()["tcn"]
    params = tcn_params(np.random.default_rng(0), (4, 4, 4))
    net = streaming.network(fn)
    start = normal(np.random.default_rng(1), 1, 4)

    def one(carry, _):
        states, x = carry
        y, states = net.step(states, params, x)
        return (states, y - 1), y - 1

    states = net.init(params, start[:, None])
    _, made = jax.jit(lambda s: jax.lax.scan(one, (s, start), None, length=9))(states)
    so_far = jnp.concatenate([start[:, None], jnp.moveaxis(made, 0, 1)[:, :-1]], axis=1)
    close(jnp.moveaxis(made, 0, 1), net.whole(params, so_far) - 1)


# --- the stacks, by their papers ------------------------------------------------------------------


def causal(x, w, dilation):
    w = np.asarray(w)
    return reference.conv(x, w, dilation=dilation, padding=[((len(w) - 1) * dilation, 0)])


def test_wavenet_by_its_equations():
    _, params, named = networks()["wavenet"]
    x = np.asarray(normal(np.random.default_rng(2), 2, 12, 4))
    got = streaming.wavenet_stack(
        streaming.causal_conv, params, jnp.asarray(x), dilations=(1, 8), **named
    )
    skips = 0
    for layer, dilation in zip(params, (1, 8), strict=True):
        w, b = np.asarray(layer["gated"]["w"]), np.asarray(layer["gated"]["b"])
        v = np.asarray(layer["condition"]["w"][0])
        at = np.asarray(named["condition"]) @ v
        filtered = causal(x, w[..., :3], dilation) + b[:3] + at[..., :3]
        gate = causal(x, w[..., 3:], dilation) + b[3:] + at[..., 3:]
        z = np.tanh(filtered) / (1 + np.exp(-gate))
        x = x + z @ np.asarray(layer["residual"]["w"][0]) + np.asarray(layer["residual"]["b"])
        skips = skips + z @ np.asarray(layer["skip"]["w"][0]) + np.asarray(layer["skip"]["b"])
    close(got, (x, skips))


def test_tcn_by_its_figure():
    params = tcn_params(np.random.default_rng(0), (4, 3, 3))
    x = np.asarray(normal(np.random.default_rng(2), 2, 12, 4))
    conv = streaming.causal_conv
    got = streaming.tcn_stack(conv, params, jnp.asarray(x), dilations=(1, 5))
    for block, dilation in zip(params, (1, 5), strict=True):
        first = np.asarray(block["first"]["b"])
        h = np.maximum(causal(x, block["first"]["w"], dilation) + first, 0)
        h = np.maximum(causal(h, block["second"]["w"], dilation), 0)
        kept = x @ np.asarray(block["project"]["w"][0]) if "project" in block else x
        x = np.maximum(h + kept, 0)
    close(got, x)


def test_short_conv_by_its_equation():
    _, params, named = networks()["short"]
    x = np.asarray(normal(np.random.default_rng(2), 2, 12, 4))
    got = streaming.short_conv(streaming.causal_conv, params, jnp.asarray(x), **named)
    ids, w = np.asarray(named["segment_ids"]), np.asarray(params["w"])
    want = np.zeros(x.shape)
    for n, t, j in np.ndindex(2, 12, 4):
        if t - j >= 0 and ids[n, t - j] == ids[n, t]:
            want[n, t] += x[n, t - j] * w[3 - j]
    want += np.asarray(params["b"])
    close(got, want / (1 + np.exp(-want)))


# --- refusals -------------------------------------------------------------------------------------


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


W = ones(3, 4, 4)
STATE = streaming.init((2, 4), W)
SEGMENTED = streaming.init((2, 4), W, segmented=True)
IDS = np.zeros((2, 5), np.int32)
WHOLE = streaming.causal_conv
X = ones(2, 5, 4)
CALL = "streaming.causal_conv"


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: WHOLE(X, ones(3, 4)), ValueError,
         f"{CALL}: w must be (K, *KS, I, O), with at least 3 axes, got shape (3, 4)\n  A dep"),
        (lambda: WHOLE(X, ones(3, 4, 1), depthwise=True, groups=4), ValueError,
         f"{CALL}: groups must be left at 1 with depthwise=True, got groups=4"),
        (lambda: WHOLE(X, W, padding="VALID"), ValueError,
         f"{CALL}: padding is for spatial axes beside time, and x has none, got 'VALID'"),
        (lambda: WHOLE(ones(2, 5, 6, 4), ones(3, 3, 4, 4), padding=[1, 1]), ValueError,
         f"{CALL}: padding must have an entry for each axis beside time, 1 in all, got [1, 1]"),
        (lambda: WHOLE(X, ones(3, 5, 1), depthwise=True), ValueError,
         f"{CALL}: w must be (K, *KS, C, M) with C = 4, the channels of x, as depthwise=True says"),
        (lambda: WHOLE(X, W, dilation=0), ValueError, f"{CALL}: dilation must be >= 1, got 0"),
        (lambda: WHOLE(X, ones(3, 5, 4)), ValueError, f"{CALL}: x has 4 channels, but w"),
        (lambda: WHOLE(X, W, segment_ids=IDS[:, :4]), ValueError,
         f"{CALL}: segment_ids must be (N, T) = (2, 5), got (2, 4)"),
        (lambda: WHOLE(X, W, segment_ids=IDS.astype(np.float32)), TypeError,
         f"{CALL}: segment_ids must be an array of integers, got float32"),
        (lambda: WHOLE(X, W, segment_ids=[1]), TypeError,
         f"{CALL}: segment_ids must be an array of integers, got list"),
        (lambda: streaming.init((2, 5, 4), W), ValueError,
         "streaming.init: frame_shape must be (N, *S, C) with 2 entries, or (*S, C), got (2, 5"),
        (lambda: streaming.init((2, 3), W), ValueError, "streaming.init: x has 3 channels, but w"),
        (lambda: streaming.init((2, 4.0), W), TypeError,
         "streaming.init: frame_shape must be an integer, got 4.0"),
        (lambda: streaming.chunk(X, W, W), TypeError,
         "streaming.chunk: state must be a State, got ndarray\n  It comes first"),
        (lambda: streaming.chunk(STATE, X, ones(2, 4, 4)), ValueError,
         "streaming.chunk: w must have 3 axes and 3 taps in time, as the state, got shape (2, 4"),
        (lambda: streaming.chunk(STATE, ones(2, 4), W), ValueError,
         "streaming.chunk: x must be (2, T, 4) for this state, got shape (2, 4)\n  streaming."),
        (lambda: streaming.step(STATE, X, W), ValueError,
         "streaming.step: x must be (2, 4) for this state, got shape (2, 5, 4)"),
        (lambda: streaming.step(STATE, ones(2, 4, dtype=jnp.bfloat16), W.astype(jnp.bfloat16)),
         TypeError, "streaming.step: x must have the dtype of the state, float32, got bfloat16"),
        (lambda: streaming.chunk(STATE, X, W, segment_ids=IDS), ValueError,
         "streaming.chunk: segment_ids was given, but the state is not segmented"),
        (lambda: streaming.chunk(SEGMENTED, X, W), ValueError,
         "streaming.chunk: segment_ids is missing, but the state is segmented"),
        (lambda: streaming.step(SEGMENTED, ones(2, 4), W, segment_ids=IDS), ValueError,
         "streaming.step: segment_ids must be (N,) = (2,), an id for the frame, got (2, 5)"),
        (lambda: streaming.prefill(X, W, stride=0), ValueError,
         "streaming.prefill: stride must be >= 1, got 0"),
        (lambda: streaming.prefill(X, W.astype(np.float64)), TypeError,
         "streaming.prefill: x and w must have one dtype, got x float32, w float64"),
        (lambda: streaming.wavenet_stack(WHOLE, [], X, dilations=(1,)), ValueError,
         "streaming.wavenet_stack: dilations must have an entry for each of the 0 entries"),
        (lambda: streaming.tcn_stack(WHOLE, [{}], X, dilations=()), ValueError,
         "streaming.tcn_stack: dilations must have an entry for each of the 1 entries of params"),
        (lambda: streaming.wavenet_stack(
            WHOLE, [{"gated": {"w": W}}], X, dilations=(1,), condition=X), ValueError,
         "streaming.wavenet_stack: condition and its parameters must come together; a layer has"),
    ],
)  # fmt: skip
def test_refusals(call, kind, message):
    with pytest.raises(kind, match="^" + re.escape(message)):
        call()


def once(conv, w, x, *, dilation=1, times=1):
    for _ in range(times):
        x = conv(x, w, dilation=dilation)
    return x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": 3}, "fn calls more than 2 convolutions; there are 2 states"),
        ({"times": 1}, "fn calls only 1 convolutions; there are 2 states"),
        ({"times": 2, "dilation": 2}, "fn calls convolution 0 with Geometry(taps=3"),
    ],
)
def test_a_network_must_call_the_same_convolutions(options, message):
    states = streaming.network(functools.partial(once, times=2)).init(W, X)
    with pytest.raises(ValueError, match=re.escape(f"streaming.network: {message}")):
        streaming.network(functools.partial(once, **options)).chunk(states, W, X)


def test_inputs_of_a_network_have_time():
    with pytest.raises(
        ValueError, match=re.escape("inputs must have axes (N, T, ...), got shape (")
    ):
        streaming.network(once).init(W, ones(4))


def test_padding_beside_time():
    x, w = jnp.ones((1, 5, 6, 2)), jnp.ones((3, 3, 2, 2))
    want = streaming.causal_conv(x, w, dilation=(1, 2))
    for padding in ([(2, 2)], 2, "same", [lambda extent: extent // 2]):
        got = streaming.causal_conv(x, w, dilation=(1, 2), padding=padding)
        np.testing.assert_array_equal(got, want)
