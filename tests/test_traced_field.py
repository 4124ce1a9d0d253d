"""Receptive fields of traced functions, against the derivatives and the NaNs of those functions.

A function that is linear with weights of one has, as its derivative, the number of paths between
each input and each output: an oracle for counts and for sets. A NaN at one input reaches every
output that depends on it: an oracle for what is not linear.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxdil
from jaxdil import coverage, receptive_field, receptive_inputs
from jaxdil._tape import tape_of

pytestmark = pytest.mark.core


def paths(fn, x):
    """Paths from every input to every output: outputs first."""
    return np.asarray(jax.jit(jax.jacobian(fn))(x))


def reached(fn, x):
    """Whether a NaN at an input turns an output into one: outputs first."""
    spots = jnp.where(jnp.eye(x.size, dtype=bool), jnp.nan, x.ravel()[None])
    y = jax.vmap(fn)(spots.reshape(x.size, *x.shape))
    return np.moveaxis(np.isnan(y), 0, -1).reshape(*y.shape[1:], *x.shape)


def ones(*shape):
    return jnp.ones(shape)


# --- random programs of one axis ------------------------------------------------------------------
# Each piece takes (1, n, c) to (1, m, d).


def kernel(x, k, out, groups=1):
    return ones(k, x.shape[-1] // groups, out)


def conv(x, k, s, d, lo, hi):
    padding = [(lo, hi + d * k)]
    return jaxdil.conv(x, kernel(x, k, 2), stride=s, dilation=d, padding=padding)


def lax_conv(x, k, s, d, lo, hi):
    numbers = ("NWC", "WIO", "NWC")
    edges = [(max(lo, 0), hi + d * k)]
    return lax.conv_general_dilated(
        x, kernel(x, k, 2), (s,), edges, (d,), rhs_dilation=(s,), dimension_numbers=numbers
    )


def grouped(x, k, s, d, lo, hi):
    w = kernel(x, k, 4, groups=2)
    return jaxdil.conv(x, w, dilation=d, groups=2)


def depthwise(x, k, s, d, lo, hi):
    return jaxdil.depthwise_conv(x, ones(k, x.shape[-1], 1), stride=s, padding="SAME")


def transposed(x, k, s, d, lo, hi):
    return jaxdil.conv_transpose(x, kernel(x, k, 2), stride=s, dilation=d)


def pooled(x, k, s, d, lo, hi):
    edges = [(0, 0), (max(lo, 0), hi), (0, 0)]
    return lax.reduce_window(x, 0.0, lax.add, (1, k, 1), (1, s, 1), edges, (1, 1, 1), (1, d, 1))


def padded(x, k, s, d, lo, hi):
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (lo, hi, s - 1), (0, 0, 0)])


def sliced(x, k, s, d, lo, hi):
    return x[:, min(k, x.shape[1] - 1) :: s]


def branched(x, k, s, d, lo, hi):
    one = jaxdil.conv(x, kernel(x, 3, 2), dilation=d)
    other = jaxdil.conv(x, kernel(x, k, 2))
    return one + other if s == 1 else jnp.concatenate([one, other[:, ::-1]], s - 1)


def residual(x, k, s, d, lo, hi):
    return x + jaxdil.conv(x, kernel(x, 3, x.shape[-1]), dilation=d)


def by_phases(x, k, s, d, lo, hi):
    edges = [(0, d * (-(-x.shape[1] // d)) - x.shape[1])]
    x = jaxdil.space_to_batch(x, block_shape=[d], paddings=edges)
    return jaxdil.batch_to_space(jaxdil.conv(x, kernel(x, k, 2)), block_shape=[d])


def into_channels(x, k, s, d, lo, hi):
    x = x[:, : x.shape[1] // d * d]
    y = jnp.swapaxes(x.reshape(1, x.shape[1] // d, d, x.shape[2]), 2, 3)
    return y.reshape(1, y.shape[1], -1) if k > 1 else jnp.transpose(y, (0, 2, 1, 3))[:, 0]


def summed(x, k, s, d, lo, hi):
    return jnp.cumsum(x, axis=s % 2 + 1)


def moved(x, k, s, d, lo, hi):
    return jnp.roll(x, k, axis=1) if s == 1 else jnp.pad(x, [(0, 0), (k, k), (0, 0)], mode="wrap")


def looped(x, k, s, d, lo, hi):
    w = kernel(x, 3, x.shape[-1])
    if s == 1:
        return lax.fori_loop(0, k, lambda i, y: jaxdil.conv(y, w, dilation=d), x)
    rows = jnp.swapaxes(x, 0, 1)
    _, y = lax.scan(lambda c, row: (row, row + c), jnp.zeros_like(rows[0]), rows, reverse=s == 3)
    return jnp.swapaxes(y, 0, 1)


def resampled(x, k, s, d, lo, hi):
    return jax.image.resize(x, (1, x.shape[1] * k, x.shape[2]), "nearest")


def placed(x, k, s, d, lo, hi):
    # An index that is known when the function is read, though not by Python.
    start = jnp.asarray(k) * 2 - 1
    part = lax.dynamic_slice_in_dim(x, start, max(x.shape[1] // 2, 1), axis=1)
    return lax.dynamic_update_slice_in_dim(x, part, jnp.asarray(s), axis=1)


KINDS = [
    conv, lax_conv, grouped, depthwise, transposed, pooled, padded, sliced, branched, residual,
    by_phases, into_channels, summed, moved, looped, resampled, placed,
]  # fmt: skip


def piece(kind, random):
    k, s, d = (int(n) for n in random.integers(1, 4, 3))
    return functools.partial(
        kind, k=k, s=s, d=d, lo=int(random.integers(-1, 5)), hi=int(random.integers(5))
    )


def program(seed, x, most=200):
    """Three pieces, one of a given kind, whose values are not empty and stay small."""
    random = np.random.default_rng(seed)
    while True:
        kinds = [KINDS[i] for i in random.integers(len(KINDS), size=3)]
        kinds[seed % 3] = KINDS[seed % len(KINDS)]
        stack = [piece(kind, random) for kind in kinds]
        if fits(stack, x, most):
            return lambda x: functools.reduce(lambda y, f: f(y), stack, x)


def fits(stack, x, most=200):
    for f in stack:
        try:
            x = jax.eval_shape(f, x)
        except ValueError:  # a kernel larger than its input
            return False
        if not 0 < x.size <= most or x.shape[-1] % 2:
            return False
    return True


@pytest.mark.parametrize("seed", range(2 * len(KINDS)))
def test_counts_and_sets_are_those_of_the_derivative(seed):
    x = ones(1, 13, 2)
    fn = program(seed, x)
    truth = paths(fn, x)
    for unit in {tuple(n // 2 for n in truth.shape[:3]), (0, 0, 0), (-1, -1, -1)}:
        np.testing.assert_array_equal(coverage(fn, unit=unit)(x), truth[unit])
        np.testing.assert_array_equal(receptive_inputs(fn, unit=unit)(x), truth[unit] > 0)
    np.testing.assert_array_equal(coverage(fn, unit=...)(x), truth.sum((0, 1, 2)))


@pytest.mark.parametrize("seed", range(2 * len(KINDS)))
def test_bounds_are_the_ends_of_the_set(seed):
    """Of the unit in the middle, where no edge takes part; no set ever leaves its bounds."""
    n = 60
    x = ones(1, n, 2)
    fn = program(seed, x, most=1500)
    tape, _ = tape_of("test", fn, (x,), {}, 0)
    bounds = tape.bounds(1)[tape.results[0]]
    shape = tape.result_shapes[0]
    middle = tuple(m // 2 for m in shape)
    for unit in (middle, (0, 0, 0), tuple(m - 1 for m in shape)):
        first, last = (np.broadcast_to(b, shape)[unit] for b in bounds[:2])
        seen = np.flatnonzero(receptive_inputs(fn, unit=unit)(x).any((0, 2)))
        assert all(first <= q <= last for q in seen)
        if unit == middle and first >= 0 and last < n and first <= last:
            assert (seen[0], seen[-1]) == (first, last)


# --- functions that are not linear ----------------------------------------------------------------


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (2, 3), (1, 2), "SAME")


def own_pool(x):
    return lax.reduce_window(x, 1.0, lambda a, b: a * b + a, (2, 1), (2, 1), "VALID")


def dilated_stack(x):
    y = x[None, ..., None]
    for rate in (1, 2):
        y = jax.nn.relu(jaxdil.conv(y, ones(3, 2, 1, 1), dilation=(rate, 1)))
    return y[0, ..., 0]


EXACT = {
    "max pooling": max_pool,
    "a pooling of one's own": own_pool,
    "a stack of dilations": dilated_stack,
    "bodies of jit, checkpoint and custom rules": jax.jit(
        jax.checkpoint(lambda x: jax.nn.relu(doubled(x[1:])) * 2)
    ),
    "softmax": lambda x: jax.nn.softmax(x, axis=1),
    "normalised over an axis": lambda x: x - x.mean(0, keepdims=True),
    "a matrix product": lambda x: ones(3, 6) @ x,
    "a product of batches": lambda x: jnp.einsum("ij,jk->ji", x, ones(4, 2)),
    "a product with itself": lambda x: x @ x.T,
    "flattened and dense": lambda x: x.reshape(-1) @ ones(24, 3),
    "taken by number": lambda x: x[jnp.array([4, 0, 4]), 1:],
    "taken in pairs": lambda x: x[jnp.array([4, 0]), jnp.array([1, 3])],
    "repeated": lambda x: jnp.tile(x, (2, 1)) + jnp.repeat(x, 2, axis=0),
    "stacked": lambda x: jnp.stack([x[0], x[3], x[5]], axis=1),
    "split": lambda x: jnp.split(x, 3, axis=0)[1],
    "cumulated from the end": lambda x: lax.cumsum(x, axis=0, reverse=True),
    "set in place": lambda x: lax.dynamic_update_slice(x, x[:2, :2] * 2, (jnp.asarray(3), 1)),
    "a recurrence": lambda x: lax.scan(lambda c, row: (c + row, c.sum()), x[0], x[1:])[1],
    "two of three scanned": lambda x: lax.map(lambda pair: pair[0] - pair[1][::-1], (x, x[::-1])),
    "a kernel made of the input": lambda x: jaxdil.conv(
        ones(1, 9, 1), x[1:4, 1:2, None], padding="VALID"
    )[0],
    "vmap": jax.vmap(lambda row: jaxdil.conv(row[None, :, None], ones(3, 1, 1))[0, :, 0]),
}


@pytest.mark.parametrize("name", EXACT)
def test_sets_are_those_that_a_nan_reaches(name):
    fn, x = EXACT[name], jnp.arange(24.0).reshape(6, 4) + 1
    truth = reached(fn, x)
    rank = truth.ndim - x.ndim
    for unit in np.ndindex(truth.shape[:rank]):
        np.testing.assert_array_equal(receptive_inputs(fn, unit=unit)(x), truth[unit])


# Where a NaN is put in order with the rest, or kept to one part of a complex number.
MIXED = {
    "sorted": (lambda x: jnp.sort(x, axis=0), (slice(None), 1)),
    "the largest": (lambda x: lax.top_k(x, 2)[0], 2),
    "where it is": (lambda x: jnp.argmax(x, axis=1), 2),
    "a Fourier transform": (lambda x: jnp.fft.rfft(x, axis=1), 2),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_an_axis_reads_all_of_it(name):
    fn, row = MIXED[name]
    x, expected = jnp.arange(24.0).reshape(6, 4), np.zeros((6, 4), bool)
    expected[row] = True
    unit = (2, 1) if jax.eval_shape(fn, x).ndim == 2 else 2
    np.testing.assert_array_equal(receptive_inputs(fn, unit=unit)(x), expected)
    assert receptive_field(fn)(x).unknown == ()


WHOLE = {
    "while": lambda x: lax.while_loop(lambda c: c[0, 0] > 0, lambda c: c - 1, x),
    "cholesky": lambda x: jnp.linalg.cholesky(x[:4]),
    "scatter": lambda x: x.at[jnp.array([1, 2])].set(0.0),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_no_rule_knows_sees_everything_and_is_named(name):
    x = jnp.eye(6, 4) + 1
    field = receptive_field(WHOLE[name])(x)
    seen = receptive_inputs(WHOLE[name])(x)
    assert field.unknown == (name,)
    assert field.size == (len(np.flatnonzero(seen.any(1))), 4)
    assert seen.sum() == math.prod(field.size)


def near(x):
    return jaxdil.conv(x, ones(3, 1, 1))


def far(x):
    return jaxdil.conv(x, ones(2, 1, 1), dilation=4, padding=[(4, 0)])


def test_branches_of_a_cond_are_united_and_the_predicate_counts():
    def fn(x, flag):
        return lax.cond(flag, near, far, x)

    x, flag = ones(1, 9, 1), jnp.arange(2)[1] > 0
    seen = receptive_inputs(fn)(x, flag)
    assert np.flatnonzero(seen).tolist() == [0, 3, 4, 5]
    assert receptive_field(fn, axes=1)(x, flag).size == 6
    assert receptive_inputs(lambda x: fn(x, x.sum() > 0))(x).all()
    assert receptive_field(lambda x: fn(x, x.sum() > 0), axes=1)(x).size == 9


def test_a_start_that_is_not_known_may_be_any():
    x = jnp.arange(7.0)
    seen = receptive_inputs(lambda x, i: lax.dynamic_slice(x, (i,), (3,)), unit=0)
    assert np.flatnonzero(seen(x, 2)).tolist() == [2]
    assert np.flatnonzero(seen(x, jax.ShapeDtypeStruct((), jnp.int32))).tolist() == [0, 1, 2, 3, 4]
    put = receptive_inputs(lambda u, i: lax.dynamic_update_slice(ones(5), u, (i,)), unit=1)
    assert np.flatnonzero(put(ones(3), jax.ShapeDtypeStruct((), jnp.int32))).tolist() == [0, 1]
    gathered = receptive_inputs(lambda x, i: x[i], unit=0)
    assert gathered(x, jax.ShapeDtypeStruct((2,), jnp.int32)).all()
