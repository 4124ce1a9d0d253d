"""What keeps programs small on a CPU: short axes in lines, loops and products of few operations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import integers
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from processors import pretend

import jaxdil
from jaxdil import _layout, _loop

pytestmark = pytest.mark.core


@st.composite
def padded(draw):
    """A shape and the padding of each axis, some negative, some with zeros between."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    if draw(st.booleans()):
        shape[0] = _layout.LINES
    pads = []
    for size in shape:
        between = draw(st.integers(0, 2)) if draw(st.booleans()) else 0
        length = size + (size - 1) * between
        lo = draw(st.integers(-(length // 2), 3))
        pads.append(draw(st.sampled_from([(0, 0, 0), (lo, draw(st.integers(0, 3)), between)])))
    return tuple(shape), pads


@given(padded())
def test_padding_in_lines_is_padding(case):
    shape, pads = case
    x = integers(0, shape)
    expected = lax.pad(x, jnp.zeros((), x.dtype), pads)
    for lines in (True, False):
        np.testing.assert_array_equal(_layout.pad(x, pads, lines=lines), expected)


def pads_of(fn, *arrays):
    """The shapes that a function pads."""
    text = jax.jit(fn).lower(*arrays).as_text()
    return re.findall(r"stablehlo\.pad .*: \(tensor<([0-9x]+)xf[0-9]+>", text)


def test_few_channels_are_padded_with_their_line():
    pads = [(0, 0, 0), (1, 1, 0), (2, 2, 0), (0, 0, 0)]

    def padded(x):
        return _layout.pad(x, pads, lines=True)

    assert pads_of(padded, jnp.ones((2, 9, 7, 128))) == ["2x9x896"]
    # Many channels are a line themselves; few lines would leave cores without one.
    assert pads_of(padded, jnp.ones((2, 9, 7, 129))) == ["2x9x7x129"]
    assert pads_of(padded, jnp.ones((1, 7, 7, 64))) == ["1x7x7x64"]
    pads = [(0, 0, 0)] * 4
    assert pads_of(padded, jnp.ones((2, 9, 7, 4))) == []


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="lines are padded on a CPU alone")
def test_forward_and_kernel_gradient_pad_alike():
    """So that XLA compiles one of the two."""
    x, w = jnp.ones((2, 9, 9, 16)), jnp.ones((3, 3, 16, 1))

    def loss(x, w):
        return jaxdil.depthwise_conv(x, w, padding="SAME", method="taps or auto").sum()

    pads = pads_of(jax.value_and_grad(loss, 1), x, w)
    assert pads == ["2x9x144", "2x9x144"]


def test_repeat_is_a_loop_of_the_length_asked_for():
    def turn(i, y):
        assert i.dtype == np.uint32
        return y.at[i].set(i * 3)

    np.testing.assert_array_equal(
        _loop.repeat(5, turn, jnp.zeros(6, np.uint32)), [0, 3, 6, 9, 12, 0]
    )
    np.testing.assert_array_equal(_loop.repeat(0, turn, jnp.ones(2, np.uint32)), [1, 1])


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on a CPU")
def test_one_tap_is_a_product_of_arrays_as_they_lie(monkeypatch):
    """Both gradients of a 1x1 convolution, of which XLA would turn an operand round."""
    pretend(monkeypatch)  # before JAX 0.10 Intel's are left to lax
    x, w = integers(0, (4, 24, 24, 48)), integers(1, (1, 1, 48, 64))
    g = integers(2, (4, 24, 24, 64))

    def both(x, w, g):
        return jax.vjp(jaxdil.conv, x, w)[1](g)

    lowered = jax.jit(both).lower(x, w, g)
    compiled = lowered.compile()
    functions = set(re.findall(r"func private @(jaxdil_[a-z]+)", lowered.as_text()))
    assert functions == {"jaxdil_taps", "jaxdil_correlate"}
    assert not re.search(r" (copy|transpose)\(", compiled.as_text())
    dx, dw = compiled(x, w, g)
    np.testing.assert_array_equal(dx, np.einsum("nhwo,io->nhwi", g, w[0, 0]))
    np.testing.assert_array_equal(dw[0, 0], np.einsum("nhwi,nhwo->io", x, g))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what is done on a CPU")
@pytest.mark.parametrize(
    ("dilation", "padding"), [(1, (1, 1)), (2, (2, 2)), (1, (2, 0)), (2, (0, 4))]
)
def test_volumes_are_neither_padded_nor_cut_along_their_first_axis(dilation, padding):
    x, w = integers(0, (2, 6, 5, 5, 3)), integers(1, (3, 1, 1, 3, 4))
    options = {"dilation": (dilation, 1, 1), "padding": [padding, (0, 0), (0, 0)]}

    def by(method):
        return lambda x, w: jaxdil.conv(x, w, method=method, **options)

    np.testing.assert_array_equal(by("slabs")(x, w), by("xla")(x, w))
    # What is padded is a term of the output: 4 channels and not 3.
    assert set(pads_of(by("slabs"), x, w)) == {"2x6x5x5x4"}
