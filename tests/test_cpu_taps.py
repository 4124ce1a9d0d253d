"""Dense convolutions of one input channel and of one tap: which are products, and which lax's."""

import jax
import numpy as np
import pytest
from jax import lax
from processors import of_this_jax, pretend, rule_and_method

import jaxdil

pytestmark = pytest.mark.core

LAST, FIRST = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
BARE = {"padding": "VALID"}


@pytest.fixture(autouse=True)
def xeon(monkeypatch):
    pretend(monkeypatch, model="Intel(R) Xeon(R) Processor")


def chosen(x, w, numbers=LAST, *, padding="SAME"):
    def convolve(x, w):
        ones = (1,) * (x.ndim - 2)
        return lax.conv_general_dilated(x, w, ones, padding, dimension_numbers=numbers)

    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    return rule_and_method(jaxdil.explain(convolve, platform="cpu", gradients=False)(*like)[0])


@pytest.mark.parametrize(
    ("x", "w", "options", "method"),
    [
        # Channels first: to few outputs, more of which are padded.
        ((8, 1, 28, 28), (17, 1, 3, 3), {}, "C6 taps"),
        ((8, 1, 28, 28), (18, 1, 3, 3), {}, "xla"),
        ((8, 1, 28, 28), (8, 1, 5, 5), {}, "C6 taps"),
        ((8, 1, 28, 28), (8, 1, 5, 5), BARE, "xla"),
        ((8, 1, 28, 28), (6, 1, 5, 5), BARE, "C6 taps"),
        ((8, 1, 28, 28), (9, 1, 4, 5), {}, "xla"),
        ((8, 1, 28, 28), (4, 1, 7, 7), {}, "C6 taps"),
        ((8, 1, 28, 28), (5, 1, 7, 7), {}, "xla"),
        ((8, 1, 28, 28), (256, 1, 1, 1), {}, "C6 taps"),
    ],
)
def test_one_channel_channels_first(x, w, options, method):
    assert chosen(x, w, FIRST, **options) == method


@pytest.mark.parametrize(
    ("x", "w", "intel", "others"),
    [
        ((4, 56, 56, 64), (1, 1, 64, 64), "xla | C7 taps | C7 taps", "C7 taps"),
        ((20, 56, 56, 64), (1, 1, 64, 64), "xla | C7 taps | C7 taps", "C7 taps"),
        ((24, 56, 56, 64), (1, 1, 64, 64), "xla | C7 taps | xla", "xla | C7 taps | xla"),
    ],
)
def test_one_tap(monkeypatch, x, w, intel, others):
    assert chosen(x, w) == of_this_jax(intel)
    pretend(monkeypatch)
    assert chosen(x, w) == of_this_jax(others)


def test_a_volume_of_one_tap_of_any_size():
    x, w = (8, 56, 56, 56, 64), (1, 1, 1, 64, 64)
    assert chosen(x, w, ("NDHWC", "DHWIO", "NDHWC")) == "C7 taps"


@pytest.mark.parametrize(
    ("x", "w", "method"),
    [
        ((1, 20, 20, 1), (3, 3, 1, 16), "C6 taps"),
        ((1, 19, 21, 1), (3, 3, 1, 16), "xla"),
        ((1, 19, 21, 1), (3, 3, 1, 11), "C6 taps"),
        ((1, 19, 21, 1), (3, 3, 1, 12), "xla"),
    ],
)
def test_small_images_of_one_channel(x, w, method):
    assert chosen(x, w) == method
