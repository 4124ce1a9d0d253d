"""A stream is its sequence: however it is cut, in steps, chunks or a prefill, packed or not."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_conv
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from jaxdil import reference, streaming

pytestmark = pytest.mark.core

FRAMES = 19


@dataclasses.dataclass(frozen=True)
class Causal:
    """A causal convolution: the shape of a frame and of the kernel, and its options."""

    frame: tuple[int, ...]
    kernel: tuple[int, ...]
    options: tuple = ()

    @property
    def geometry(self):
        return dict(self.options)

    def arrays(self, dtype=np.float64, batch=2, frames=FRAMES):
        """x and w of small integers, which every dtype holds and every sum of them is exact in."""
        rng = np.random.default_rng(len(self.kernel) + sum(self.kernel))
        x = rng.integers(-3, 4, (batch, frames, *self.frame))
        return jnp.asarray(x, dtype), jnp.asarray(rng.integers(-3, 4, self.kernel), dtype)

    def reference(self, w):
        """The kernel and the options that `reference.conv` calls the same convolution by."""
        options = {"stride": 1, "dilation": 1, "groups": 1} | self.geometry
        rank = len(self.kernel) - 2
        dilation = np.broadcast_to(options["dilation"], rank)
        stride = np.broadcast_to(options["stride"], rank)
        if options.pop("depthwise", False):
            options["groups"] = w.shape[-2]
            w = w.reshape(*w.shape[:-2], 1, -1)
        past = (w.shape[0] - 1) * int(dilation[0])
        pads = [(past, 0)]
        for axis in range(1, rank):  # SAME
            n, s = self.frame[axis - 1], int(stride[axis])
            extent = (w.shape[axis] - 1) * int(dilation[axis]) + 1
            total = max((-(-n // s) - 1) * s + extent - n, 0)
            pads.append((total // 2, total - total // 2))
        options |= {"padding": pads, "stride": tuple(stride), "dilation": tuple(dilation)}
        return w, options


CASES = {
    "dense": Causal((3,), (3, 3, 4)),
    "dilated": Causal((3,), (2, 3, 4), (("dilation", 9),)),
    "ring": Causal((2,), (3, 2, 2), (("dilation", 7),)),
    "depthwise": Causal((3,), (4, 3, 2), (("depthwise", True),)),
    "depthwise, dilated": Causal((3,), (3, 3, 1), (("depthwise", True), ("dilation", 6))),
    "grouped": Causal((4,), (3, 2, 6), (("groups", 2), ("dilation", 2))),
    "strided": Causal((2,), (3, 2, 3), (("stride", 3), ("dilation", 5))),
    "stride over the kernel": Causal((2,), (2, 2, 3), (("stride", 4),)),
    "one tap": Causal((2,), (1, 2, 3), (("stride", 2), ("dilation", 3))),
    "video": Causal((4, 3, 2), (2, 3, 2, 2, 3), (("stride", (1, 2, 1)), ("dilation", (4, 1, 2)))),
}
some = pytest.mark.parametrize(
    "case",
    [CASES["ring"], CASES["depthwise"], CASES["strided"]],
    ids=["ring", "depthwise", "strided"],
)


def in_pieces(case, x, w, cuts, *, prefilled=False, segment_ids=None):
    """The outputs of a stream cut at these places, and its state at the end."""
    ids = (lambda a, b: None) if segment_ids is None else (lambda a, b: segment_ids[:, a:b])
    shape = (x.shape[0], *x.shape[2:])
    first, *rest = zip([0, *cuts], [*cuts, x.shape[1]], strict=True)
    if prefilled:
        y, state = streaming.prefill(x[:, : first[1]], w, **case.geometry, segment_ids=ids(*first))
        ys = [y]
    else:
        state = streaming.init(shape, w, **case.geometry, segmented=segment_ids is not None)
        ys, rest = [], [first, *rest]
    for a, b in rest:
        y, state = streaming.chunk(state, x[:, a:b], w, segment_ids=ids(a, b))
        ys.append(y)
    return jnp.concatenate(ys, axis=1), state


# --- chunks ---------------------------------------------------------------------------------------


@given(
    case=st.sampled_from(list(CASES.values())),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float64]),
    cuts=st.lists(st.integers(0, FRAMES), max_size=5).map(sorted),
    prefilled=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=8)
def test_any_chunking_is_the_whole(case, dtype, cuts, prefilled, seed):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(2, FRAMES, *case.frame)), dtype)
    w = jnp.asarray(rng.normal(size=case.kernel), dtype)
    run = jax.jit(functools.partial(in_pieces, case, cuts=cuts, prefilled=prefilled))
    y, state = run(x, w)
    kernel, options = case.reference(w)
    assert_conv(y, x, kernel, **options)
    fresh = streaming.init((2, *case.frame), w, **case.geometry)
    assert jax.tree.map(jnp.shape, state.frames) == jax.tree.map(jnp.shape, fresh.frames)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_whole_is_the_definition(case):
    x, w = case.arrays()
    kernel, options = case.reference(w)
    want = reference.conv(np.asarray(x), np.asarray(kernel), **options)
    np.testing.assert_array_equal(streaming.causal_conv(x, w, **case.geometry), want)


def test_short_chunks_wrap_at_every_register():
    case = CASES["ring"]
    x, w = case.arrays()
    want = streaming.causal_conv(x, w, **case.geometry)
    for length in (2, 3):
        y, _ = jax.jit(in_pieces, static_argnums=(0, 3))(
            case, x, w, tuple(range(length, FRAMES, length))
        )
        np.testing.assert_array_equal(y, want)


# --- steps ----------------------------------------------------------------------------------------


def stepped(state, xs, w):
    """Every frame of xs (T, N, ...) by a scan of steps."""

    def one(state, x):
        y, state = streaming.step(state, x, w)
        return state, y

    return jax.lax.scan(one, state, xs)


@pytest.mark.parametrize("name", ["dense", "dilated", "depthwise, dilated", "video"])
def test_a_scan_of_steps_is_the_whole(name):
    case = CASES[name]
    x, w = case.arrays(np.float32)
    state = streaming.init((2, *case.frame), w, **case.geometry)
    shapes = jax.tree.map(jnp.shape, state)
    run = jax.jit(stepped, donate_argnums=0)
    state, ys = run(state, jnp.moveaxis(x, 1, 0), w)  # a donated state that went unused would warn
    want = streaming.causal_conv(x, w, **case.geometry)
    np.testing.assert_array_equal(jnp.moveaxis(ys, 0, 1), want)
    assert jax.tree.map(jnp.shape, state) == shapes


def test_the_state_does_not_grow():
    w = jnp.ones((3, 4, 4), np.float32)

    def size(frames):
        _, state = jax.eval_shape(
            functools.partial(streaming.prefill, dilation=8),
            jnp.ones((2, frames, 4), np.float32),
            w,
        )
        return sum(a.size for a in jax.tree.leaves(state))

    # (K - 1) d frames of 4 channels in 2 rows, and the index.
    assert {size(frames) for frames in (0, 1, 16, 1000)} == {2 * 16 * 4 + 1}


@pytest.mark.parametrize("taps", [2, 3])
def test_a_step_does_not_copy_the_registers(taps):
    w = jnp.ones((taps, 8, 8), np.float32)
    state = streaming.init((1, 8), w, dilation=128)

    def loop(state, x):
        def one(carry, _):
            state, x = carry
            y, state = streaming.step(state, x, w)
            return (state, jnp.tanh(y)), None

        return jax.lax.scan(one, (state, x), None, length=9)[0]

    text = jax.jit(loop, donate_argnums=0).lower(state, jnp.ones((1, 8), np.float32)).compile()
    assert not re.findall(r"= f32\[1,128,\d,8\]\S* copy\(.*", text.as_text())


def test_numpy_doubles_are_what_jax_makes_of_them(user_defaults):
    x, w = np.ones((1, 4, 2)), np.ones((2, 2, 2))
    y, state = streaming.chunk(streaming.init((1, 2), w), x, w)
    assert y.dtype == state.frames.dtype == np.float32


def test_a_strided_step_says_when_there_is_no_output():
    x, w = CASES["strided"].arrays()
    state = streaming.init((2, 2), w, **CASES["strided"].geometry)
    ys, waits = [], []
    for t in range(7):
        waits.append(state.wait)
        y, state = streaming.step(state, x[:, t], w)
        ys.append(y)
    assert waits == [0, 2, 1, 0, 2, 1, 0]
    assert [y is None for y in ys] == [wait > 0 for wait in waits]
    want = streaming.causal_conv(x[:, :7], w, **CASES["strided"].geometry)
    np.testing.assert_array_equal(jnp.stack(ys[::3], axis=1), want)


def test_chunks_of_the_stride_are_the_carry_of_a_scan():
    x, w = CASES["strided"].arrays(frames=18)
    state = streaming.init((2, 2), w, **CASES["strided"].geometry)

    def hop(state, x):
        y, state = streaming.chunk(state, x, w)
        return state, y

    _, ys = jax.lax.scan(hop, state, jnp.moveaxis(x.reshape(2, 6, 3, 2), 1, 0))
    want = streaming.causal_conv(x, w, **CASES["strided"].geometry)
    np.testing.assert_array_equal(jnp.moveaxis(ys[:, :, 0], 0, 1), want)


# --- transforms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ring", "strided"])
def test_gradients_are_those_of_the_whole(name):
    case = CASES[name]
    x, w = case.arrays()
    g = streaming.causal_conv(*case.arrays(), **case.geometry)

    def gradients(fn):
        return jax.jit(jax.grad(lambda x, w: (fn(x, w) * g).sum(), argnums=(0, 1)))(x, w)

    cut = gradients(lambda x, w: in_pieces(case, x, w, (5, 6, 8, 9), prefilled=True)[0])
    whole = gradients(lambda x, w: streaming.causal_conv(x, w, **case.geometry))
    jax.tree.map(np.testing.assert_array_equal, cut, whole)


def test_gradient_through_a_state():
    """Of a loss of what comes after the prefill, by what went into it."""
    case = CASES["ring"]
    x, w = case.arrays()

    def tail(x, w):
        _, state = streaming.prefill(x[:, :11], w, **case.geometry)
        state, ys = stepped(state, jnp.moveaxis(x[:, 11:], 1, 0), w)
        return (ys**2).sum()

    def whole(x, w):
        return (streaming.causal_conv(x, w, **case.geometry)[:, 11:] ** 2).sum()

    got, want = (jax.jit(jax.grad(f, argnums=(0, 1)))(x, w) for f in (tail, whole))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_vmap_of_unbatched_streams():
    case = CASES["ring"]
    x, w = case.arrays()

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def run(x, w):
        state, ys = streaming.init(case.frame, w, **case.geometry), []
        for a, b in ((0, 2), (2, 12), (12, 13)):
            y, state = streaming.chunk(state, x[a:b], w)
            ys.append(y)
        y, state = streaming.step(state, x[13], w)
        rest, _ = streaming.chunk(state, x[14:16], w)
        return jnp.concatenate([*ys, y[None], rest])

    want = streaming.causal_conv(x[:, :16], w, **case.geometry)
    np.testing.assert_array_equal(run(x, w), want)
    np.testing.assert_array_equal(run(x, w)[0], streaming.causal_conv(x[0, :16], w, dilation=7))


def test_a_halo_is_a_state():
    """A sequence over eight devices: each goes on from the state of its neighbour."""
    case = CASES["ring"]
    x, w = case.arrays(np.float32, frames=8 * 15)
    mesh = jax.make_mesh(
        (8,), ("time",), devices=jax.devices("cpu"), axis_types=(jax.sharding.AxisType.Auto,)
    )

    def part(x, w):
        _, state = streaming.prefill(x, w, **case.geometry)
        right = [(i, i + 1) for i in range(7)]
        state = jax.tree.map(lambda a: jax.lax.ppermute(a, "time", right), state)
        return streaming.chunk(state, x, w)[0]

    over = jax.shard_map(
        part, mesh=mesh, in_specs=(P(None, "time"), P()), out_specs=P(None, "time")
    )
    got = jax.jit(over)(x, w)
    np.testing.assert_array_equal(got, streaming.causal_conv(x, w, **case.geometry))


# --- packed sequences -----------------------------------------------------------------------------

LENGTHS = ((4, 9, 1, 5), (7, 12))  # of the sequences in each of two rows
IDS = np.stack([np.repeat(np.arange(len(row)), row) for row in LENGTHS])

PACKED = {
    "depthwise": CASES["depthwise"],
    "dense": CASES["dense"],
    "dilated": Causal((2,), (3, 1, 2), (("dilation", 7), ("groups", 2))),
    "many taps": Causal((2,), (70, 2, 3)),
    "many taps, depthwise": Causal((2,), (66, 2, 1), (("depthwise", True),)),
    "video": CASES["video"],
}
packed = pytest.mark.parametrize("case", PACKED.values(), ids=PACKED)


def alone(case, x, w):
    """Every sequence convolved for itself, by definition."""
    kernel, options = case.reference(w)
    rows = []
    for row, lengths in zip(np.asarray(x), LENGTHS, strict=True):
        ends = np.cumsum(lengths)
        parts = np.split(row, ends[:-1])
        rows.append(
            np.concatenate(
                [reference.conv(p[None], np.asarray(kernel), **options)[0] for p in parts]
            )
        )
    return np.stack(rows)


@packed
def test_packed_sequences_are_each_for_itself(case):
    x, w = case.arrays()
    run = jax.jit(functools.partial(streaming.causal_conv, **case.geometry))
    np.testing.assert_array_equal(run(x, w, segment_ids=IDS), alone(case, x, w))


@pytest.mark.parametrize("name", ["depthwise", "dilated"])
@pytest.mark.parametrize("cuts", [(4, 5, 8, 11), (1, 3, 13)], ids=str)
def test_packed_sequences_across_chunks(name, cuts):
    case = PACKED[name]
    x, w = case.arrays()
    run = jax.jit(in_pieces, static_argnums=(0, 3), static_argnames="prefilled")
    y, _ = run(case, x, w, cuts, prefilled=cuts[0] == 4, segment_ids=IDS)
    np.testing.assert_array_equal(y, alone(case, x, w))


def test_packed_steps():
    case = PACKED["dilated"]
    x, w = case.arrays()
    state = streaming.init((2, 2), w, segmented=True, **case.geometry)

    def one(state, frame):
        y, state = streaming.step(state, frame[0], w, segment_ids=frame[1])
        return state, y

    _, ys = jax.lax.scan(one, state, (jnp.moveaxis(x, 1, 0), jnp.asarray(IDS.T)))
    np.testing.assert_array_equal(jnp.moveaxis(ys, 0, 1), alone(case, x, w))


@packed
def test_nothing_of_another_sequence_gets_through(case):
    """Not even NaN, which a product with zero would let pass; and no gradient back."""
    x, w = case.arrays()

    def of_one(a):
        return (IDS == 1).reshape(*IDS.shape, *(1,) * (a.ndim - 2))

    @jax.jit
    def run(x):
        y = streaming.causal_conv(x, w, segment_ids=IDS, **case.geometry)
        return jnp.where(of_one(y), y, 0.0).sum()

    assert np.isfinite(run(jnp.where(of_one(x), x, jnp.nan)))
    dx = jax.grad(run)(x)
    assert np.any(dx)
    assert not np.any(jnp.where(of_one(dx), 0.0, dx))


def test_packed_with_a_stride():
    """An output has the id of the frame it stands at."""
    case = Causal((2,), (3, 2, 3), (("stride", 2),))
    x, w = case.arrays()
    ids = np.repeat([[3, 5], [5, 3]], [8, 11], axis=1)

    @jax.jit
    def both(x, w):
        y, _ = in_pieces(case, x, w, (3, 4, 9, 12), segment_ids=ids)
        return streaming.causal_conv(x, w, segment_ids=ids, stride=2), y

    kernel, options = case.reference(np.asarray(w))
    want = [reference.conv(part, kernel, **options) for part in np.split(np.asarray(x), [8], 1)]
    for got in both(x, w):
        np.testing.assert_array_equal(got, np.concatenate(want, axis=1))


def test_half_precision_sums_in_single():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, FRAMES, 3)), jnp.bfloat16)
    w = jnp.asarray(rng.normal(size=(4, 3, 1)), jnp.bfloat16)
    ids = np.zeros((1, FRAMES), np.int32)
    y = streaming.causal_conv(x, w, depthwise=True, segment_ids=ids)
    assert_conv(y, x, w.reshape(4, 1, 3), padding=[(3, 0)], groups=3)
    wide = streaming.causal_conv(
        x, w, depthwise=True, segment_ids=ids, preferred_element_type=np.float32
    )
    assert_conv(wide, x, w.reshape(4, 1, 3), padding=[(3, 0)], groups=3, out_dtype=np.float32)
