"""A long chunk behind carried frames: a kernel for a TPU reads them, else they are laid out."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.pallas import tpu as pltpu

import jaxdil
from jaxdil import _active, reference, streaming
from jaxdil._pallas import plan_1d, tpu_1d

METHOD = "pallas_tpu"
NAME = "jaxdil_resumed_conv"


pytestmark = pytest.mark.usefixtures("short_rows")


def whole(seed, shape, dtype=jnp.float32):
    """Small integers: sums of their products are exact."""
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 4, shape), dtype)


def ones(shape):
    """Ones in single precision: tests have 64 bits on."""
    return jnp.ones(shape, jnp.float32)


def state_of(frames, w, dilation=1):
    """The state after some frames."""
    return streaming.prefill(frames, w, depthwise=True, dilation=dilation)[1]


def laid_out(frames, x, w, dilation=1):
    """The outputs of x behind frames, by definition."""
    z, (taps, channels, _) = np.concatenate([frames, x], axis=1), w.shape
    span = (taps - 1) * dilation
    z = z[:, frames.shape[1] - span :]
    kernel = np.asarray(w).reshape(taps, 1, channels)
    return reference.conv(z, kernel, padding=0, dilation=dilation, groups=channels)


def names(fn, *args):
    """The primitives of a program, those inside of others too."""
    return str(jax.make_jaxpr(fn)(*args))


# (N, T, C) of the chunk, taps, dilation.
CHUNKS = {
    "several blocks": ((2, 150, 3), 4, 1),
    "one block": ((1, 30, 2), 4, 1),
    "two blocks of channels": ((1, 40, 131), 2, 1),
    "dilated": ((2, 100, 2), 3, 16),
    "the past is as long": ((1, 48, 2), 4, 16),
}


@pytest.mark.core
@pytest.mark.parametrize("name", CHUNKS)
def test_the_kernel_reads_the_past(name):
    shape, taps, dilation = CHUNKS[name]
    x, w = whole(0, shape), whole(1, (taps, shape[-1], 1))
    frames = whole(2, (shape[0], (taps - 1) * dilation + 3, shape[-1]))
    state = state_of(frames, w, dilation)
    chunk = functools.partial(streaming.chunk, method=METHOD)
    assert NAME in names(chunk, state, x, w)
    y, after = jax.jit(chunk)(state, x, w)
    np.testing.assert_array_equal(y, laid_out(frames, x, w, dilation))
    want = state_of(jnp.concatenate([frames, x], axis=1), w, dilation)
    again, _ = streaming.chunk(want, x, w)
    np.testing.assert_array_equal(streaming.chunk(after, x, w)[0], again)


def test_half_precision_sums_in_single():
    x, w, frames = (
        whole(i, s, jnp.bfloat16) for i, s in enumerate([(1, 70, 3), (4, 3, 1), (1, 3, 3)])
    )
    chunk = functools.partial(streaming.chunk, method=METHOD, preferred_element_type=jnp.float32)
    y, _ = chunk(state_of(frames, w), x, w)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, laid_out(*(np.float32(a) for a in (frames, x, w))))


def test_no_read_is_of_memory_that_nothing_was_written_to():
    """Of the interpreter of a TPU, whose memory is NaN until it is written."""
    params = pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")
    for rows in (32, 64):
        plan = plan_1d.Plan(1, 45, 130, 4, 2, 6, 0, resumed=True, rows=rows, lanes=128)
        x, w, past = whole(0, (1, 45, 130)), whole(1, (4, 130)), whole(2, (1, 6, 130))
        y = tpu_1d.convolution(x, w, plan, dtype=jnp.float32, past=past, interpret=params)
        np.testing.assert_array_equal(y, laid_out(past, x, w[..., None], 2))


def test_a_nan_of_the_past_reaches_what_reads_it():
    x, w = ones((1, 70, 2)), ones((4, 2, 1))
    frames = ones((1, 3, 2)).at[0, 1, 1].set(jnp.nan)
    y, _ = streaming.chunk(state_of(frames, w), x, w, method=METHOD)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 1], [0, 1, 1]]


# --- transforms: a chunk that auto would give to the kernel on a TPU ------------------------------

X, W, FRAMES = (1, 70, 128), (3, 128, 1), (1, 4, 128)


@pytest.fixture
def chunk_of(request):
    """What makes outputs of frames before, a chunk and a kernel by a method."""

    def run(frames, x, w, method="auto"):
        return streaming.chunk(state_of(frames, w, 2), x, w, method=method)[0]

    return run


def test_a_program_says_which_convolution_it_is(chunk_of):
    args = whole(2, FRAMES), whole(0, X), whole(1, W)
    assert NAME in names(chunk_of, *args)
    assert NAME not in names(functools.partial(chunk_of, method="xla"), *args)
    rows = jaxdil.explain(streaming.chunk, platform="tpu", gradients=False)(
        state_of(args[0], args[2], 2), *args[1:]
    )
    assert [(row.x_shape, row.method) for row in rows] == [((1, 74, 128), "pallas_tpu")]


class Measured:
    """A table in which `taps` was the fastest everywhere."""

    def ranking(self, problem, platform):
        return [("taps", "measured")]


def test_a_table_decides_for_chunks_as_for_all_else(chunk_of):
    args = whole(2, FRAMES), whole(0, X), whole(1, W)

    def kernels(traced):
        return traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call")

    def traced():
        return jax.jit(chunk_of).trace(*args)

    assert kernels(traced()) == 1
    with _active.within(Measured()):
        assert kernels(traced()) == 0


@pytest.mark.parametrize("method", ["auto", METHOD])
def test_gradients_by_everything_to_second_order(chunk_of, method):
    args = whole(2, FRAMES), whole(0, X), whole(1, W)

    def both(method):
        def loss(*args):
            return (chunk_of(*args, method=method) ** 2).sum()

        def of_gradients(*args):
            parts = jax.grad(loss, (0, 1, 2))(*args)
            return sum((part * jnp.flip(a, 1)).sum() for part, a in zip(parts, args, strict=True))

        return jax.jit(jax.grad(of_gradients, (0, 1, 2)))(*args), jax.grad(loss, (0, 1, 2))(*args)

    pinned = method if method == "auto" else f"{method} or auto"
    jax.tree.map(np.testing.assert_array_equal, both(pinned), both("xla"))


def test_batched_in_a_scan_and_transposed(chunk_of):
    frames, x, w = whole(2, FRAMES), whole(0, X), whole(1, W)

    def all_kinds(frames, x, w, *, method):
        conv = functools.partial(chunk_of, method=method)
        state = state_of(frames, w, 2)

        def turn(state, x):
            y, state = streaming.chunk(state, x, w, method=method)
            return state, y

        of_w = jax.linear_transpose(functools.partial(conv, frames, x), w)
        of_x = jax.linear_transpose(lambda frames, x: conv(frames, x, w), frames, x)
        return (
            jax.vmap(conv, (None, 0, None))(frames, jnp.stack([x, -x]), w),
            jax.vmap(conv, (0, None, 0))(jnp.stack([frames, 2 * frames]), x, jnp.stack([w, -w])),
            lax.scan(turn, state, jnp.stack([x, x[:, ::-1]]))[1],
            of_w(x),
            of_x(x),
        )

    run = jax.jit(all_kinds, static_argnames="method")
    args = frames, x, w
    jax.tree.map(np.testing.assert_array_equal, run(*args, method="auto"), run(*args, method="xla"))


@pytest.mark.core
def test_it_lowers_for_each_platform():
    """On a TPU to one kernel, and nothing laid out; elsewhere to what it was."""
    w = ones(W)
    state = state_of(ones(FRAMES), w)
    args = state, jax.ShapeDtypeStruct(X, np.float32), jax.ShapeDtypeStruct(W, np.float32)

    def outputs(state, x, w):
        return streaming.chunk(state, x, w)[0]

    def text(platform):
        exported = jax.export.export(jax.jit(outputs), platforms=[platform])(*args)
        return exported.mlir_module()

    assert text("tpu").count("tpu_custom_call") == 1
    assert "concatenate" not in text("tpu")
    for platform in ("cpu", "cuda"):
        assert "tpu_custom_call" not in text(platform)
        assert "concatenate" in text(platform)


def test_what_the_kernel_does_not_serve_is_laid_out():
    for shape, taps, options in (
        ((1, 70, 64), 4, {}),  # few channels, time in the lanes
        ((1, 40, 128), 4, {}),  # few frames
        ((1, 70, 128), 33, {}),  # many taps
        ((1, 70, 128), 4, {"stride": 2}),
    ):
        x, w = ones(shape), ones((taps, shape[-1], 1))
        _, state = streaming.prefill(x, w, depthwise=True, **options)
        assert NAME not in names(streaming.chunk, state, x, w)


def test_a_pin_that_cannot_serve_says_why():
    x, w = ones((1, 70, 3)), ones((33, 3, 1))
    state = state_of(x, w)
    with pytest.raises(jaxdil.MethodError, match="33 taps, more than 32"):
        streaming.chunk(state, x, w, method=METHOD)
