"""What is chosen for volumes on a CPU, of whatever vendor and under whatever JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processors import LIBRARY, chosen, pretend

import jaxdil

pytestmark = pytest.mark.core

KERNEL, FORWARD, INPUT = "kernel gradient", "forward", "input gradient"
BARE, TWO = {"padding": 0}, {"stride": 2}


@pytest.fixture(autouse=True)
def processor(monkeypatch):
    pretend(monkeypatch)


@pytest.mark.parametrize(
    ("role", "x", "w", "options", "choice"),
    [
        # One tap with a stride: the products of 5 x 10^4 and more, its gradient whatever they are.
        (FORWARD, (1, 10, 10, 10, 20), (1, 1, 1, 20, 20), TWO, "C7 taps"),
        (FORWARD, (1, 10, 10, 10, 20), (1, 1, 1, 20, 19), TWO, "xla"),
        (FORWARD, (1, 10, 10, 10, 20), (1, 1, 1, 20, 20), {}, "xla"),
        (FORWARD, (1, 10, 10, 10, 20), (1, 1, 1, 20, 20), {"stride": (1, 2, 1)}, "C7 taps"),
        (INPUT, (1, 10, 10, 10, 20), (1, 1, 1, 20, 20), TWO, "C9 phases"),
        (INPUT, (1, 4, 4, 4, 2), (1, 1, 1, 2, 3), TWO, "C9 phases"),
        (INPUT, (1, 10, 10, 10, 20), (1, 1, 1, 20, 20), {}, "xla"),
        # Windows larger than the output.
        (FORWARD, (1, 4, 4, 4, 64), (3, 3, 3, 64, 8), BARE, "C9 slabs"),
        (FORWARD, (1, 4, 4, 4, 16), (3, 3, 3, 16, 8), BARE, "C9 planes"),
        (INPUT, (1, 4, 4, 4, 16), (3, 3, 3, 16, 8), TWO, "C9 phases"),
        # Kernel gradients of up to 63 positions an image, or of no more taps than the stride skips.
        (KERNEL, (2, 3, 3, 7, 16), (3, 3, 3, 16, 24), {}, "C9 im2col"),
        (KERNEL, (2, 4, 4, 4, 16), (3, 3, 3, 16, 24), {}, "C9 planes"),
        (KERNEL, (1, 16, 16, 16, 8), (2, 2, 2, 8, 9), {"stride": 2, "padding": 1}, "C9 im2col"),
        (KERNEL, (1, 16, 16, 16, 8), (3, 3, 1, 8, 9), TWO, "C9 planes"),
        # Taps three samples apart and more on every axis.
        (KERNEL, (1, 16, 16, 16, 8), (4, 4, 4, 8, 9), {"dilation": 3}, "C9 correlate"),
        (KERNEL, (1, 16, 16, 16, 8), (4, 4, 4, 8, 9), {"dilation": (3, 3, 2)}, "C9 planes"),
    ],
)
def test_volumes(role, x, w, options, choice):
    assert chosen(role, x, w, options) == choice
    # Before JAX 0.10 a product in bfloat16 with a turned kernel is lax's (C14).
    if LIBRARY or role != INPUT or w[0] > 1:
        assert chosen(role, x, w, options, dtype=jnp.bfloat16) == choice


def test_a_transposed_volume_of_one_tap():
    x, w = (1, 5, 5, 5, 12), (1, 1, 1, 9, 12)
    assert chosen(FORWARD, x, w, TWO, conv=jaxdil.conv_transpose) == "C9 phases"


@pytest.mark.parametrize(
    ("role", "w", "choice"),
    [
        # Doubles to 16 outputs, of a work of 4 x 10^6; of several taps.
        (FORWARD, (3, 3, 3, 16, 16), "C9 planes"),
        (FORWARD, (3, 3, 3, 16, 15), "xla"),
        (FORWARD, (3, 3, 3, 9, 16), "xla"),
        (INPUT, (3, 3, 3, 16, 16), "C9 planes"),
        (INPUT, (3, 3, 3, 15, 17), "xla"),
        (KERNEL, (3, 3, 3, 15, 17), "C9 planes"),
        (KERNEL, (3, 3, 3, 17, 15), "xla"),
        (INPUT, (1, 1, 1, 256, 256), "xla"),
    ],
)
def test_volumes_of_doubles(role, w, choice):
    options = TWO if w[0] == 1 else {}
    assert chosen(role, (1, 9, 9, 9, w[-2]), w, options, dtype=np.float64) == choice


def test_volumes_of_integers_and_complex_numbers():
    like = (
        jax.ShapeDtypeStruct((1, 9, 9, 9, 16), int),
        jax.ShapeDtypeStruct((3, 3, 3, 16, 16), int),
    )
    (row,) = jaxdil.explain(jaxdil.conv, platform="cpu", gradients=False)(*like)
    assert row.method == "xla"
    assert (
        chosen(FORWARD, (1, 9, 9, 9, 16), (3, 3, 3, 16, 16), {}, dtype=np.complex64) == "C9 planes"
    )
