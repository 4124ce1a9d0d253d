"""What lies beyond the edges of an array, and its adjoint, against numpy and by definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdil import _pad

pytestmark = pytest.mark.core

NUMPY = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
PADS = ((0, 0), (0, 2), (3, 1))
LARGE = ((9, 0), (4, 13))
every_mode = pytest.mark.parametrize("mode", _pad.MODES)


def image(*shape, dtype=np.int32):
    return np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)


def read(i, n, mode):
    """The sample that position i reads, None outside: the definition."""
    if mode == "zeros":
        return i if 0 <= i < n else None
    if mode == "reflect":
        i = -i if i < 0 else i
        return 2 * (n - 1) - i if i >= n else i
    return i % n if mode == "circular" else min(max(i, 0), n - 1)


@every_mode
def test_like_numpy(mode):
    x = image(2, 4, 3)
    for pads in (*PADS, *(() if mode == "reflect" else LARGE)):
        got = _pad.pad(x, [pads], 1, mode)
        np.testing.assert_array_equal(got, np.pad(x, [(0, 0), pads, (0, 0)], mode=NUMPY[mode]))
        assert got.dtype == x.dtype


@every_mode
def test_several_axes(mode):
    x, pads = image(2, 4, 3, 2), [(3, 1), (0, 2)]
    expected = np.pad(x, [(0, 0), *pads, (0, 0)], mode=NUMPY[mode])
    np.testing.assert_array_equal(_pad.pad(x, pads, 1, mode.upper()), expected)


@every_mode
def test_negative_entries_crop_what_is_continued(mode):
    """By definition: a crop at one end does not change what stands beyond the other."""
    x = image(5)
    for lo, hi in itertools.product((-4, 0, 3), (-1, 4)):
        at = [read(q - lo, 5, mode) for q in range(max(lo + 5 + hi, 0))]
        expected = [0 if i is None else x[i] for i in at]
        assert _pad.pad(x, [(lo, hi)], 0, mode).tolist() == expected


@every_mode
def test_fold_is_the_adjoint(mode):
    x = image(2, 4, 3)
    for lo, hi in (*PADS, (-1, 2), (3, -2), *(() if mode == "reflect" else LARGE)):
        y = image(2, 4 + lo + hi, 3) % 7
        folded = _pad.fold(y, [(lo, hi)], 1, mode)
        assert folded.shape == x.shape
        assert folded.dtype == x.dtype
        for i in range(4):
            readers = [q for q in range(4 + lo + hi) if read(q - lo, 4, mode) == i]
            np.testing.assert_array_equal(folded[:, i], y[:, readers].sum(1))


@every_mode
def test_derivatives_of_any_order(mode):
    """The gradient of pad is fold, and a second derivative goes through both."""
    x, pads = image(4, 2, dtype=np.float64), [(3, 2), (0, 1)]
    weights = image(9, 3, dtype=np.float64) % 5

    def loss(x):
        return (_pad.pad(x, pads, 0, mode) ** 2 * weights).sum() / 2

    first, second = jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (jnp.ones_like(x),)))(x)
    for got, inner in ((first, x), (second, np.ones_like(x))):
        padded = _pad.pad(inner, pads, 0, mode)
        np.testing.assert_array_equal(got, _pad.fold(padded * weights, pads, 0, mode))


def test_refusals():
    with pytest.raises(ValueError, match=r"pad: padding_mode must be one of 'zeros', 'reflect'"):
        _pad.pad(image(4), [(1, 1)], 0, "wrap")
    with pytest.raises(ValueError, match=r"got None\n  It says what the padding holds"):
        _pad.check("conv", None, (), ())
    with pytest.raises(
        ValueError, match=r"has 3 samples to mirror on spatial axis 1 of 4, got padding \(4, 0\)"
    ):
        _pad.pad(image(5, 4), [(4, 4), (4, 0)], 0, "reflect")
    with pytest.raises(ValueError, match="'circular' repeats samples, and spatial axis 0 has none"):
        _pad.pad(image(0, 4), [(1, 0)], 0, "circular")
    assert _pad.pad(image(0, 4), [(0, 0)], 0, "circular").shape == (0, 4)
    assert _pad.pad(image(0, 4), [(0, 1)], 0, "zeros").shape == (1, 4)
