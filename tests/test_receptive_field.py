"""Receptive fields: known stacks, and what the gradients of real convolutions reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdil._conv import conv
from jaxdil._receptive_field import Layer, ReceptiveField, receptive_field


def sizes(layers):
    return [field.size for field in receptive_field(layers)]


def test_dilations_that_double():
    """Figure 1 of arXiv 1511.07122: 2**(i + 2) - 1."""
    assert sizes([[3, 1, 1], [3, 1, 2], [3, 1, 4]]) == [3, 7, 15]
    assert sizes([[3, 1, 2**i] for i in range(8)]) == [2 ** (i + 2) - 1 for i in range(8)]


def test_context_module():
    """Table 1 of arXiv 1511.07122."""
    layers = [(3, 1, d) for d in (1, 1, 2, 4, 8, 16, 1)] + [(1,)]
    assert sizes(layers) == [3, 5, 9, 17, 33, 65, 67, 67]


def test_strides_multiply_the_jump():
    # VGG-like: two 3x3 and a 2x2 pooling, three times.
    fields = receptive_field([(3, 1, 1, 1), (3, 1, 1, 1), (2, 2)] * 3)
    assert [f.size for f in fields] == [3, 5, 6, 10, 14, 16, 24, 32, 36]
    assert [f.jump for f in fields] == [1, 1, 2, 2, 2, 4, 4, 4, 8]
    assert fields[2].start == 0.5  # between samples 0 and 1


def test_layers_are_written_in_several_ways():
    expected = (ReceptiveField(3, 1, 1.0), ReceptiveField(7, 2, 3.0))
    assert receptive_field([(3,), (3, 2, 2)]) == expected
    assert receptive_field([Layer(3), Layer(3, dilation=2, stride=2)]) == expected
    assert receptive_field(np.array([[3, 1, 1], [3, 2, 2]])) == expected
    assert receptive_field([]) == ()


def test_axes_are_independent():
    one = [(3, 2, 1, 1), (5, 1, 3, -2)]
    other = [(2, 1, 4, 0), (1, 3, 1, 1)]
    both = [tuple(zip(a, b, strict=True)) for a, b in zip(one, other, strict=True)]
    for field, *parts in zip(*map(receptive_field, (both, one, other)), strict=True):
        assert field == tuple(zip(*parts, strict=True))
    # An int among them stands for every axis.
    assert receptive_field([((3, 5),), (3,)])[-1].size == (5, 7)


STACKS = {
    "one": [(3, 1, 1, 0)],
    "even kernel": [(2, 1, 3, 0), (4, 1, 1, 2)],
    "dilations": [(3, 1, 1, 1), (3, 1, 2, 2), (3, 1, 4, 4)],
    "strides": [(3, 2, 1, 1), (3, 3, 1, 0), (2, 1, 1, 1)],
    "strides and dilations": [(3, 2, 2, 1), (5, 1, 3, 4), (2, 2, 1, 0)],
    "cropping": [(3, 2, 1, -2), (3, 1, 2, -1)],
    "causal": [(2, 1, d, d) for d in (1, 2, 4, 8)],
}


@pytest.mark.core
@pytest.mark.parametrize("name", STACKS)
def test_gradients_reach_what_is_said(name):
    """Unit p depends on the samples around start + p jump, on `size` of them from end to end."""
    stack, n = STACKS[name], 120
    for depth in range(1, len(stack) + 1):
        size, jump, start = receptive_field(stack[:depth])[-1]

        def network(x, depth=depth):
            for k, s, d, lo in stack[:depth]:
                x = conv(x, jnp.ones((k, 1, 1)), stride=s, dilation=d, padding=[(lo, 0)])
            return x[0, :, 0]

        reached = np.asarray(jax.jacobian(network)(jnp.ones((1, n, 1)))[:, 0, :, 0]) != 0
        inner = 0
        for p, row in enumerate(reached):
            first, last = start + p * jump - (size - 1) / 2, start + p * jump + (size - 1) / 2
            assert first == int(first)
            seen = np.flatnonzero(row)
            if first >= 0 and last < n:
                inner += 1
                assert (seen[0], seen[-1]) == (first, last)
            else:
                assert first <= seen[0]
                assert seen[-1] <= last
        assert inner >= 3


def test_gradients_on_two_axes():
    layers = [Layer((3, 2), (1, 2), (2, 1), (0, 1)), Layer((2, 3), 1, (1, 2), (1, 0))]
    size, jump, start = receptive_field(layers)[-1]

    def network(x):
        for k, s, d, lo in layers:
            x = conv(x, jnp.ones((*k, 1, 1)), stride=s, dilation=d, padding=[(p, 0) for p in lo])
        return x[0, 3, 4, 0]

    reached = np.argwhere(np.asarray(jax.grad(network)(jnp.ones((1, 16, 20, 1)))[0, :, :, 0]))
    for axis, unit in enumerate((3, 4)):
        middle = start[axis] + unit * jump[axis]
        first, last = reached[:, axis].min(), reached[:, axis].max()
        assert (first + last) / 2 == middle
        assert last - first + 1 == size[axis]


ERRORS = {
    "no sequence": (3, TypeError, r"layers must be a sequence of layers, got 3"),
    "a layer that is an int": (
        [3],
        TypeError,
        r"layers\[0\] must be \(kernel, stride, dilation, padding\), the kernel at least, got 3",
    ),
    "an empty layer": ([(3,), ()], ValueError, r"layers\[1\] must have 1 to 4 entries"),
    "five entries": ([(3, 1, 1, 0, 0)], ValueError, r"layers\[0\] must have 1 to 4 entries"),
    "kernel": ([(0,)], ValueError, r"layers\[0\]\.kernel must be >= 1, got 0"),
    "stride": ([(3, 0)], ValueError, r"layers\[0\]\.stride must be >= 1, got 0"),
    "dilation": ([(3, 1, -1)], ValueError, r"layers\[0\]\.dilation must be >= 1, got -1"),
    "a fraction": ([(3, 1, 1.5)], TypeError, r"layers\[0\]\.dilation must be an integer, got 1\.5"),
    "padding by name": (
        [(3, 1, 1, "SAME")],
        TypeError,
        r"layers\[0\]\.padding must be an integer, got 'SAME'",
    ),
    "axes that differ": (
        [((3, 3),), (3, (1, 1, 1))],
        ValueError,
        r"layers\[1\]\.stride must be an integer or 2 of them",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(name):
    layers, kind, message = ERRORS[name]
    with pytest.raises(kind, match=f"^receptive_field: {message}"):
        receptive_field(layers)
