"""What is chosen on AMD's processors with AVX-512, where it is another choice than on others."""

import jax.numpy as jnp
import numpy as np
import pytest
from processors import chosen, of_this_jax, pretend

import jaxdil
from jaxdil._rules import cpu_cores

pytestmark = pytest.mark.core

KERNEL, FORWARD, INPUT = "kernel gradient", "forward", "input gradient"
BARE, TWO, STRIDED = {"padding": 0}, {"stride": 2}, {"padding": 0, "stride": 2}
BF16 = jnp.bfloat16


@pytest.fixture(autouse=True)
def epyc(monkeypatch):
    """One core of it, so that C18 has nothing to say of idle ones."""
    pretend(monkeypatch, model="AMD EPYC (AVX-512)")
    monkeypatch.setattr(cpu_cores, "cores", lambda: 1)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # From 17 channels on, of patches of 4 MB, the margin up to a quarter; or of 8 MB.
        ((1, 85, 85, 17), (3, 3, 17, 9), BARE, "xla | C18 margin | xla"),
        ((1, 88, 88, 16), (3, 3, 16, 9), BARE, "xla"),
        ((1, 83, 83, 17), (3, 3, 17, 9), BARE, "xla"),
        ((1, 34, 34, 32), (7, 7, 32, 16), BARE, "xla | C18 margin | xla"),
        ((1, 33, 33, 32), (7, 7, 32, 16), BARE, "xla"),
        ((2, 33, 33, 32), (7, 7, 32, 16), BARE, "xla | C18 margin | xla"),
        ((1, 49, 49, 24), (7, 7, 24, 20), {"padding": 0, "dilation": 2}, "xla"),
        ((1, 72, 72, 24), (3, 3, 24, 9), {}, "xla"),
        # To up to 8 outputs patches of 8 MB, with a dilation of 16 MB, of up to 63 channels.
        ((1, 110, 110, 20), (3, 3, 20, 8), BARE, "xla | C18 im2col | xla"),
        ((1, 109, 109, 20), (3, 3, 20, 8), BARE, "xla"),
        ((1, 65, 65, 63), (3, 3, 63, 8), BARE, "xla | C18 im2col | xla"),
        ((1, 65, 65, 64), (3, 3, 64, 8), BARE, "xla"),
        ((1, 128, 128, 64), (3, 3, 64, 8), BARE, "xla | C18 im2col | xla"),
        ((1, 157, 157, 20), (3, 3, 20, 8), {"padding": 0, "dilation": 2}, "xla | C18 im2col | xla"),
        ((1, 156, 156, 20), (3, 3, 20, 8), {"padding": 0, "dilation": 2}, "xla"),
        # With a stride smaller than the kernel, of 2 MB, to 25 outputs and more.
        ((1, 59, 59, 28), (5, 5, 28, 28), STRIDED, "xla | C18 slabs | xla"),
        ((1, 55, 55, 28), (5, 5, 28, 28), STRIDED, "xla | C11 even | xla"),
        ((1, 78, 78, 20), (5, 5, 20, 25), STRIDED, "xla | C18 slabs | xla"),
        ((1, 78, 78, 20), (5, 5, 20, 24), STRIDED, "xla"),
        ((1, 78, 78, 20), (5, 5, 20, 29), STRIDED, "xla | C18 slabs | xla"),
        ((1, 78, 78, 20), (5, 5, 20, 30), STRIDED, "xla | C18 planes | xla"),
        ((1, 88, 88, 16), (5, 5, 16, 32), STRIDED, "xla | C18 planes | xla"),
        ((1, 88, 88, 15), (5, 5, 15, 32), STRIDED, "xla | C11 even | xla"),
        ((1, 160, 160, 28), (2, 2, 28, 28), STRIDED, "xla"),
        # Padded: from 37 outputs on, where they are no more than channels from 48 on of few rows.
        ((1, 64, 64, 64), (3, 3, 64, 64), TWO, "xla | C18 planes | xla"),
        ((1, 96, 96, 37), (3, 3, 37, 37), TWO, "xla | C18 planes | xla"),
        ((1, 96, 96, 36), (3, 3, 36, 36), TWO, "xla"),
        ((1, 64, 64, 128), (3, 3, 128, 64), TWO, "xla | C18 slabs | xla"),
        ((1, 64, 64, 128), (3, 3, 128, 48), TWO, "xla | C18 slabs | xla"),
        ((1, 64, 64, 128), (3, 3, 128, 47), TWO, "xla"),
        ((2, 64, 64, 128), (3, 3, 128, 64), TWO, "xla"),
    ],
)
def test_images_that_would_leave_a_core_idle(monkeypatch, x, w, options, choices):
    monkeypatch.setattr(cpu_cores, "cores", lambda: 2)
    assert chosen(FORWARD, x, w, options) == of_this_jax(choices)


def test_input_gradients_that_would_leave_a_core_idle(monkeypatch):
    """Of a transposed convolution, which is the same problem with its kernel turned round."""
    monkeypatch.setattr(cpu_cores, "cores", lambda: 2)
    x, w, options = (1, 48, 48, 64), (3, 3, 64, 64), {"stride": 2}
    turned = chosen(INPUT, x, w, options, conv=jaxdil.conv_transpose)
    assert turned == "xla"
    assert chosen(FORWARD, (1, 96, 96, 64), w, options) == of_this_jax("xla | C18 planes | xla")


@pytest.mark.parametrize(
    ("x", "w", "choices"),
    [
        # Patches of 2 MB, to up to 8 outputs of 8 MB.
        ((1, 56, 56, 20), (3, 3, 20, 9), "xla | C18 im2col | xla"),
        ((1, 54, 54, 20), (3, 3, 20, 9), "xla"),
        ((1, 110, 110, 20), (3, 3, 20, 8), "xla | C18 im2col | xla"),
        ((1, 109, 109, 20), (3, 3, 20, 8), "xla"),
        ((1, 110, 110, 16), (3, 3, 16, 12), "xla"),
    ],
)
def test_images_in_bfloat16_that_are_not_padded(monkeypatch, x, w, choices):
    assert chosen(FORWARD, x, w, BARE, dtype=BF16) == of_this_jax(choices)
    pretend(monkeypatch, model="AMD EPYC (AVX-512)", half=False)
    assert chosen(FORWARD, x, w, BARE, dtype=BF16) == "xla"


@pytest.mark.parametrize(
    ("x", "w", "choices"),
    [
        ((1, 32, 32, 33), (3, 3, 33, 48), "xla | C11 even | xla"),
        # More outputs.
        ((1, 32, 32, 33), (3, 3, 33, 49), "xla"),
        ((1, 32, 32, 42), (3, 3, 42, 96), "xla"),
        # Outputs that are rounded, and taps times outputs: 135, 126.
        ((1, 32, 32, 32), (3, 3, 32, 15), "xla | C11 even | xla"),
        ((1, 32, 32, 34), (3, 3, 34, 14), "xla"),
    ],
)
def test_numbers_of_channels(x, w, choices):
    assert chosen(FORWARD, x, w, {}) == of_this_jax(choices)
