"""Space to batch, to depth, and back; chains of dilated functions as one split and one merge."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxdil import reference
from jaxdil._conv import conv
from jaxdil._resample import (
    batch_to_space,
    depth_to_space,
    space_to_batch,
    space_to_batch_paddings,
    space_to_depth,
)
from jaxdil._with_space_to_batch import with_space_to_batch


def numbered(*shape, dtype=np.float32):
    """1, 2, 3, ...: every value once, and none of them the zero of padding."""
    return jnp.asarray(np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape), dtype)


def random(*shape, seed=0, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).integers(-9, 10, shape), dtype)


# --- space and batch ------------------------------------------------------------------------------

# x shape, block shape, paddings
SPACES = [
    ((2, 6), [2], [(0, 0)]),
    ((1, 5, 3), [2], [(0, 1)]),
    ((3, 5, 7, 2), [2, 3], [(1, 2), (0, 2)]),
    ((1, 4, 4, 4, 2), [2, 1, 4], [(0, 0), (3, 1), (2, 2)]),
    ((2, 4, 6), [], []),
    ((2, 4, 6), [1, 1], [(0, 0), (1, 0)]),
    ((2, 2, 3, 2, 2), [2, 3], [(0, 0), (0, 0)]),
    ((0, 4, 3), [2], [(0, 0)]),
    ((2, 0, 3), [2], [(1, 1)]),
]


@pytest.mark.core
@pytest.mark.parametrize(("shape", "blocks", "pads"), SPACES)
def test_space_to_batch_is_its_definition(shape, blocks, pads):
    x = numbered(*shape)
    expected = reference.space_to_batch(np.asarray(x), block_shape=blocks, paddings=pads)
    y = space_to_batch(x, block_shape=blocks, paddings=pads)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == x.dtype


@pytest.mark.parametrize(("shape", "blocks", "pads"), SPACES)
def test_batch_to_space_is_its_definition(shape, blocks, pads):
    y = space_to_batch(numbered(*shape), block_shape=blocks, paddings=pads)
    y = y + jnp.ones_like(y)  # also where the padding was
    expected = reference.batch_to_space(np.asarray(y), block_shape=blocks, crops=pads)
    np.testing.assert_array_equal(batch_to_space(y, block_shape=blocks, crops=pads), expected)


@pytest.mark.parametrize(("shape", "blocks", "pads"), SPACES)
def test_batch_to_space_undoes_space_to_batch(shape, blocks, pads):
    x = numbered(*shape)
    y = space_to_batch(x, block_shape=blocks, paddings=pads)
    np.testing.assert_array_equal(batch_to_space(y, block_shape=blocks, crops=pads), x)


@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.int8, jnp.bfloat16, jnp.complex64])
def test_any_dtype_is_moved(dtype):
    x = numbered(1, 3, 2, dtype=dtype)
    y = space_to_batch(x, block_shape=[2], paddings=[(0, 1)])
    assert y.dtype == dtype
    assert not np.asarray(y)[1, 1].any()
    assert (batch_to_space(y, block_shape=[2], crops=[(0, 1)]) == x).all()


def test_paddings_and_crops_are_written_in_several_ways():
    x = numbered(1, 4, 4, 1)
    expected = space_to_batch(x, block_shape=[2, 3], paddings=[(1, 1), (1, 1)])
    for pads in (1, [1, 1], [(1, 1), 1], np.ones((2, 2), int), np.int64(1)):
        y = space_to_batch(np.asarray(x), block_shape=np.array([2, 3]), paddings=pads)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(batch_to_space(y, block_shape=(2, 3), crops=pads), x)


sizes = st.integers(0, 7)
pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))


axes = st.lists(st.tuples(sizes, st.integers(1, 4), pairs), min_size=1, max_size=3)


@given(axes)
@settings(max_examples=300)
def test_the_paddings_reach_a_multiple_and_no_further(axes):
    size, blocks, base = map(list, zip(*axes, strict=True))
    pads, crops = space_to_batch_paddings(size, block_shape=blocks, base_paddings=base)
    for n, b, (lo, hi), pad, crop in zip(size, blocks, base, pads, crops, strict=True):
        extra = pad[1] - hi
        assert pad[0] == lo
        assert (n + sum(pad)) % b == 0
        assert 0 <= extra < b
        assert crop == (0, extra)


@given(axes, st.integers(0, 2))
@settings(max_examples=40)
def test_any_size_is_split_and_put_together(axes, batch):
    size, blocks, base = map(list, zip(*axes, strict=True))
    pads, crops = space_to_batch_paddings(size, block_shape=blocks, base_paddings=base)

    @jax.jit  # one compilation instead of one for each step
    def ours(x):
        y = space_to_batch(x, block_shape=blocks, paddings=pads)
        return y, batch_to_space(y, block_shape=blocks, crops=crops)

    x = np.arange(1, 1 + batch * np.prod(size, dtype=int)).reshape(batch, *size)
    y, whole = ours(x)
    expected = reference.space_to_batch(x, block_shape=blocks, paddings=pads)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(whole, np.pad(x, [(0, 0), *base]))


def test_paddings_have_defaults():
    assert space_to_batch_paddings([9, 8], block_shape=2) == (((0, 1), (0, 0)), ((0, 1), (0, 0)))
    assert space_to_batch_paddings([], block_shape=[]) == ((), ())


# --- space and depth ------------------------------------------------------------------------------


def space_to_depth_by_loops(x, blocks):
    batch, *size, channels = x.shape
    y = np.zeros((batch, *(n // b for n, b in zip(size, blocks, strict=True)),
                  int(np.prod(blocks)) * channels), x.dtype)  # fmt: skip
    for n, *at, c in np.ndindex(*x.shape):
        phase = np.ravel_multi_index([i % b for i, b in zip(at, blocks, strict=True)], blocks)
        inside = [i // b for i, b in zip(at, blocks, strict=True)]
        y[(n, *inside, phase * channels + c)] = x[(n, *at, c)]
    return y


DEPTHS = [
    ((2, 6, 3), 2),
    ((1, 4, 6, 2), (2, 3)),
    ((2, 4, 4, 2), 4),
    ((1, 2, 4, 6, 2), (1, 2, 3)),
    ((2, 3, 3, 1), 1),
    ((0, 4, 4, 2), 2),
    ((1, 4, 4, 0), 2),
]


@pytest.mark.core
@pytest.mark.parametrize(("shape", "block"), DEPTHS)
def test_space_to_depth_is_its_definition_and_is_undone(shape, block):
    x = numbered(*shape)
    blocks = (block,) * (x.ndim - 2) if isinstance(block, int) else block
    y = space_to_depth(x, block_size=block)
    np.testing.assert_array_equal(y, space_to_depth_by_loops(np.asarray(x), blocks))
    np.testing.assert_array_equal(depth_to_space(y, block_size=block), x)


@pytest.mark.parametrize(("shape", "block"), DEPTHS)
def test_channels_first_is_the_same_with_the_axes_moved(shape, block):
    x = numbered(*shape)
    first, last = "NC" + "DHW"[-(x.ndim - 2) :], "N" + "DHW"[-(x.ndim - 2) :] + "C"
    expected = jnp.moveaxis(space_to_depth(x, block_size=block, data_format=last), -1, 1)
    swapped = jnp.moveaxis(x, -1, 1)
    for name in ("channels_first", first, first.lower()):
        y = space_to_depth(swapped, block_size=block, data_format=name)
        np.testing.assert_array_equal(y, expected)
        back = depth_to_space(y, block_size=block, data_format=name)
        np.testing.assert_array_equal(back, swapped)


# --- dilated functions ----------------------------------------------------------------------------


def dilated_chain(x, kernels, rates, pads):
    """By definition, each function after the other on the whole of x."""
    y = np.asarray(x)
    for w, pad in zip(kernels, pads, strict=True):
        padding = [(lo * d, hi * d) for (lo, hi), d in zip(pad, rates, strict=True)]
        y = reference.conv(y, np.asarray(w), dilation=rates, padding=padding)
    return y


def phase_ops(kernels, pads):
    return [partial(conv, w=w, padding=p) for w, p in zip(kernels, pads, strict=True)]


def test_where_tensorflow_is_wrong():
    """9x9 ones, 3x3 ones twice, rate 2: without zeroing the added cells 17 sums are wrong."""
    x, w = jnp.ones((1, 9, 9, 1)), jnp.ones((3, 3, 1, 1))
    pads, crops = space_to_batch_paddings((9, 9), block_shape=2)
    y = conv(conv(space_to_batch(x, block_shape=[2, 2], paddings=pads), w), w)
    theirs = batch_to_space(y, block_shape=[2, 2], crops=crops)
    right = dilated_chain(x, [w, w], (2, 2), [[(1, 1)] * 2] * 2)
    assert (right.max(), np.abs(theirs - right).max(), (theirs != right).sum()) == (81, 11, 17)
    assert (theirs[0, 7, 7, 0], right[0, 7, 7, 0]) == (36, 25)

    ours = with_space_to_batch(x, [partial(conv, w=w)] * 2, dilation=2)
    np.testing.assert_array_equal(ours, right)
    once = with_space_to_batch(x, partial(conv, w=w), dilation=2)
    np.testing.assert_array_equal(
        with_space_to_batch(once, phase_ops([w], ["SAME"]), dilation=2), right
    )


# name: sizes, rates, kernel and padding (in taps, of a phase) of each function
SAME3, VALID3 = (3, (1, 1)), (3, (0, 0))
CHAINS = {
    "same": ((9, 8), (2, 3), [SAME3, SAME3, (5, (2, 2))]),
    "valid": ((11, 14), (2, 3), [VALID3, VALID3]),
    "same then valid": ((9, 10), (3, 2), [SAME3, VALID3, SAME3]),
    "valid then same": ((9, 10), (3, 2), [VALID3, SAME3]),
    "even kernels": ((9, 7), (2, 2), [(2, (0, 1)), (4, (1, 2)), (2, (1, 0))]),
    "causal": ((10,), (3,), [(3, (2, 0)), (2, (1, 0))]),
    "full": ((5,), (3,), [(3, (2, 2)), SAME3]),
    "three axes": ((5, 4, 3), (2, 1, 3), [SAME3, SAME3]),
    "rate 1": ((5, 4), (1, 1), [SAME3, VALID3]),
    "rate above the size": ((3, 4), (5, 7), [SAME3, SAME3]),
    "no function": ((5,), (2,), []),
    "an empty space": ((0, 4), (2, 2), [SAME3]),
}


@pytest.mark.core
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_the_dilated_functions_one_after_the_other(name):
    size, rates, functions = CHAINS[name]
    channels = [2, 3, 1, 2][: len(functions) + 1]
    x = random(2, *size, 2)
    kernels = [
        random(*(k,) * len(size), i, o, seed=i + 7)
        for (k, _), (i, o) in zip(functions, itertools.pairwise(channels), strict=True)
    ]
    pads = [[pad] * len(size) for _, pad in functions]
    ops = phase_ops(kernels, ["SAME"] if 0 in size else pads)
    expected = dilated_chain(x, kernels, rates, pads)
    y = with_space_to_batch(x, ops, dilation=rates)
    np.testing.assert_array_equal(y, expected)

    first = [lambda x, op=op: jnp.moveaxis(op(jnp.moveaxis(x, 1, -1)), -1, 1) for op in ops]
    y = with_space_to_batch(
        jnp.moveaxis(x, -1, 1), first, dilation=rates, data_format="channels_first"
    )
    np.testing.assert_array_equal(jnp.moveaxis(y, 1, -1), expected)


def test_a_bias_does_not_leak_into_the_next_function():
    x, w = random(1, 7, 5, 1), random(3, 3, 1, 1, seed=1)
    ops = [lambda x: conv(x, w) + jnp.full_like(x, 5), jax.nn.relu, lambda x: conv(x, w)]
    y = np.maximum(dilated_chain(x, [w], (2, 3), [[(1, 1)] * 2]) + 5, 0)
    expected = dilated_chain(y, [w], (2, 3), [[(1, 1)] * 2])
    np.testing.assert_array_equal(with_space_to_batch(x, ops, dilation=(2, 3)), expected)


def test_same_with_an_even_kernel_is_half_the_rate_away():
    x, w = random(1, 12, 1), random(2, 1, 1, seed=1)
    y = with_space_to_batch(x, lambda x: conv(x, w), dilation=4)
    np.testing.assert_array_equal(y, conv(x, w, dilation=4, padding=[(0, 4)]))
    same = conv(x, w, dilation=4)  # pads (2, 2)
    np.testing.assert_array_equal(y[:, :-2], same[:, 2:])
    assert (y != same).any()


functions = st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(0, 2))


@given(st.integers(1, 9), st.integers(1, 4), st.lists(functions, min_size=1, max_size=3))
@settings(max_examples=40)
def test_any_chain_on_any_size(n, rate, functions):
    """Against numpy: weighted sums of k neighbours plus 3, padded by lo and hi."""
    x, m = np.arange(1.0, n + 1), n
    expected = x
    for k, lo, hi in functions:
        m += rate * (lo + hi - (k - 1))
        assume(m > 0)
        padded = np.pad(expected, (rate * lo, rate * hi))
        expected = 3 + sum(padded[t * rate :][:m] * (t + 1) for t in range(k))

    def op(x, k, lo, hi):
        padded = jnp.pad(x, ((0, 0), (lo, hi), (0, 0)))
        left = padded.shape[1] - (k - 1)
        return 3 + sum(padded[:, t : t + left] * (t + 1) for t in range(k))

    ops = [partial(op, k=k, lo=lo, hi=hi) for k, lo, hi in functions]
    y = jax.jit(lambda x: with_space_to_batch(x, ops, dilation=rate))(x[None, :, None])
    np.testing.assert_array_equal(y[0, :, 0], expected)


# --- transforms -----------------------------------------------------------------------------------

W = random(3, 3, 2, 2, seed=5) / 10
TRANSFORMED = {
    "space_to_batch": lambda x: space_to_batch(x, block_shape=[2, 3], paddings=[(1, 0), (0, 1)]),
    "batch_to_space": lambda x: batch_to_space(x, block_shape=[2, 1], crops=[(1, 0), (0, 1)]),
    "space_to_depth": lambda x: space_to_depth(x, block_size=(1, 5)),
    "depth_to_space": lambda x: depth_to_space(x, block_size=(1, 2)),
    "with_space_to_batch": lambda x: with_space_to_batch(
        x, [lambda x: jnp.sin(conv(x, W)), lambda x: conv(x, W, padding="VALID")], dilation=2
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_derivatives_to_second_order(name):
    check_grads(TRANSFORMED[name], (random(2, 7, 5, 2) / 10,), order=2)


@pytest.mark.parametrize("name", TRANSFORMED)
def test_jit_and_vmap(name):
    f, x = TRANSFORMED[name], random(3, 2, 7, 5, 2)
    expected = jnp.stack([f(row) for row in x])
    batched = [jax.vmap(f)(x), jax.jit(jax.vmap(f))(x), jax.vmap(f, 3)(jnp.moveaxis(x, 0, 3))]
    for got in batched:
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_reaches_what_the_functions_close_over():
    x, w = random(1, 7, 5, 1), random(3, 3, 1, 1, seed=1)

    def split(w):
        return (with_space_to_batch(x, [lambda x: conv(x, w)] * 2, dilation=2) ** 2).sum()

    def whole(w):
        return (conv(conv(x, w, dilation=2), w, dilation=2) ** 2).sum()

    np.testing.assert_allclose(jax.grad(split)(w), jax.grad(whole)(w), rtol=1e-12)


# --- errors ---------------------------------------------------------------------------------------

X = jnp.ones((2, 6, 4))
ERRORS = {
    "indivisible": (
        lambda: space_to_batch(X, block_shape=[4]),
        ValueError,
        (
            r"space_to_batch: block_shape \(4,\) must divide the padded sizes, got \(6,\)\n"
            r"  x has shape \(2, 6, 4\), paddings are \(\(0, 0\),\)\.\n  space_to_batch_paddings"
        ),
    ),
    "negative padding": (
        lambda: space_to_batch(X, block_shape=[2], paddings=[(-1, 1)]),
        ValueError,
        r"space_to_batch: paddings\[0\]\[0\] must be >= 0, got -1",
    ),
    "paddings of another rank": (
        lambda: space_to_batch(X, block_shape=[2], paddings=[(0, 0), (0, 0)]),
        ValueError,
        r"space_to_batch: paddings must have one entry a block axis, 1 in all, got",
    ),
    "block below 1": (
        lambda: space_to_batch(X, block_shape=[0]),
        ValueError,
        r"space_to_batch: block_shape\[0\] must be >= 1, got 0",
    ),
    "a fraction of a block": (
        lambda: space_to_batch(X, block_shape=[2.0]),
        TypeError,
        r"space_to_batch: block_shape\[0\] must be an integer, got 2\.0",
    ),
    "one block for all": (
        lambda: space_to_batch(X, block_shape=2),
        TypeError,
        r"space_to_batch: block_shape must be a sequence of integers, one an axis, got 2",
    ),
    "more blocks than axes": (
        lambda: batch_to_space(X, block_shape=[2, 2, 2]),
        ValueError,
        (
            r"batch_to_space: block_shape must have at most 2 entries, one for each axis of x "
            r"after the batch, got \(2, 2, 2\) for shape \(2, 6, 4\)"
        ),
    ),
    "no array": (
        lambda: space_to_batch([[1, 2]], block_shape=[2]),
        TypeError,
        r"space_to_batch: x must be an array, got list\n  Pass jnp\.asarray\(x\)\.",
    ),
    "a scalar": (
        lambda: space_to_batch(jnp.ones(()), block_shape=[]),
        ValueError,
        r"space_to_batch: x must have a batch axis, got a scalar",
    ),
    "batch of another number of phases": (
        lambda: batch_to_space(X, block_shape=[3]),
        ValueError,
        (
            r"batch_to_space: the batch of x must be a multiple of the 3 phases of block_shape "
            r"\(3,\), got shape \(2, 6, 4\)"
        ),
    ),
    "crop above the size": (
        lambda: batch_to_space(X, block_shape=[2], crops=[(7, 6)]),
        ValueError,
        r"batch_to_space: crops\[0\] must cut off at most the 12 samples there are, got \(7, 6\)",
    ),
    "paddings of blocks and sizes that differ": (
        lambda: space_to_batch_paddings([9], block_shape=[2, 2]),
        ValueError,
        r"space_to_batch_paddings: block_shape must be an integer or 1 of them",
    ),
    "negative size": (
        lambda: space_to_batch_paddings([-1], block_shape=[2]),
        ValueError,
        r"space_to_batch_paddings: input_shape\[0\] must be >= 0, got -1",
    ),
    "block that does not divide": (
        lambda: space_to_depth(X, block_size=4),
        ValueError,
        r"space_to_depth: block_size \(4,\) must divide the spatial sizes of x, got \(6,\)",
    ),
    "depth of another number of samples": (
        lambda: depth_to_space(X, block_size=3),
        ValueError,
        (
            r"depth_to_space: the channels of x must be a multiple of 3, the samples of a block "
            r"\(3,\), got 4"
        ),
    ),
    "no space": (
        lambda: space_to_depth(jnp.ones((2, 3)), block_size=1),
        ValueError,
        r"space_to_depth: x must have a batch, spatial axes and channels, got shape \(2, 3\)",
    ),
    "format": (
        lambda: space_to_depth(X, block_size=2, data_format="NHWC"),
        ValueError,
        (
            r"space_to_depth: data_format must be 'channels_last', 'channels_first' or letters "
            r"such as 'NHWC', 'NCHW', got 'NHWC'\n  x has shape \(2, 6, 4\): 3 letters"
        ),
    ),
    "dilation below 1": (
        lambda: with_space_to_batch(X, [], dilation=0),
        ValueError,
        r"with_space_to_batch: dilation must be >= 1, got 0",
    ),
    "no function": (
        lambda: with_space_to_batch(X, [3], dilation=2),
        TypeError,
        r"with_space_to_batch: ops\[0\] must be a function of an array, got 3",
    ),
    "stride": (
        lambda: with_space_to_batch(X, lambda x: x[:, ::2], dilation=2),
        ValueError,
        (
            r"with_space_to_batch: ops\[0\] must move in steps of 1, yet 2 samples more change its "
            r"output from \(2,\) to \(3,\)\n  A stride does not commute"
        ),
    ),
    "another batch": (
        lambda: with_space_to_batch(X, [jnp.sin, lambda x: x[:1]], dilation=2),
        ValueError,
        (
            r"with_space_to_batch: ops\[1\] must keep the batch and the number of axes, got "
            r"\(4, 3, 4\) -> \(1, 3, 4\)"
        ),
    ),
    "nothing left": (
        lambda: with_space_to_batch(X, lambda x: x[:, 3:], dilation=2),
        ValueError,
        (
            r"with_space_to_batch: ops\[0\] leaves nothing of the spatial sizes \(6,\) at dilation "
            r"\(2,\)\n  Pad more"
        ),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=f"^{message}"):
        call()


@pytest.mark.parametrize("letters", ["NHC", "NCWX", "CNH", "NCC", "NWH", "", 3])
def test_formats_that_cannot_be(letters):
    if letters == "NHC":
        assert space_to_depth(X, block_size=2, data_format=letters).shape == (2, 3, 8)
        return
    with pytest.raises(ValueError, match="data_format must be"):
        space_to_depth(X, block_size=2, data_format=letters)
