"""Dense convolutions of one input channel and of one tap: which are products, and which lax's."""

import jax
import jax.numpy as jnp
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


def chosen(x, w, numbers=LAST, *, padding="SAME", stride=1, dtype=np.float32):
    def convolve(x, w):
        steps = (stride,) * (x.ndim - 2)
        return lax.conv_general_dilated(x, w, steps, padding, dimension_numbers=numbers)

    like = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x, w))
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


@pytest.mark.parametrize(
    ("x", "outer", "options", "choices"),
    [
        # From 24 channels on to however few outputs, once that is some work.
        ((1, 64, 64, 24), 6, {}, "xla | C7 taps | C7 taps"),
        ((1, 64, 64, 24), 5, {}, "xla"),
        ((1, 64, 64, 32), 1, {}, "xla | C7 taps | C7 taps"),
        ((1, 40, 40, 32), 2, {}, "xla | C7 taps | C7 taps"),
        ((1, 39, 39, 32), 2, {}, "xla"),
        ((1, 64, 64, 31), 2, {}, "xla"),
        ((1, 4, 4, 32), 32, {}, "xla | C7 taps | C7 taps"),
        # From fewer to 20 and more.
        ((1, 112, 112, 8), 20, {}, "xla | C7 taps | C7 taps"),
        ((1, 112, 112, 16), 19, {}, "xla"),
        ((1, 96, 96, 8), 20, {}, "xla"),
        ((1, 112, 112, 2), 64, {}, "xla | C7 taps | xla"),
        # With a stride to many, or where it is much.
        ((4, 28, 28, 64), 48, {"stride": 2}, "xla | C7 taps | C7 taps"),
        ((4, 28, 28, 64), 47, {"stride": 2}, "xla"),
        ((4, 112, 112, 64), 25, {"stride": 2}, "xla | C7 taps | C7 taps"),
        # In bfloat16.
        ((1, 28, 28, 64), 2, {"dtype": jnp.bfloat16}, "xla | C7 taps | C7 taps"),
        ((1, 27, 27, 64), 2, {"dtype": jnp.bfloat16}, "xla"),
        ((1, 112, 112, 64), 1, {"dtype": jnp.bfloat16}, "xla"),
        ((1, 112, 112, 3), 20, {"dtype": jnp.bfloat16}, "xla | C7 taps | C7 taps"),
        ((1, 112, 112, 3), 19, {"dtype": jnp.bfloat16}, "xla"),
        ((1, 112, 112, 64), 32, {"dtype": jnp.bfloat16, "stride": 2}, "xla | C7 taps | C7 taps"),
    ],
)
def test_one_tap_of_an_image(x, outer, options, choices):
    assert chosen(x, (1, 1, x[-1], outer), **options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "outer", "options", "choices"),
    [
        ((2, 500, 64), 64, {}, "C7 taps | C7 taps | xla"),
        ((2, 500, 64), 63, {}, "C7 taps | xla | xla"),
        ((2, 500, 64), 8, {}, "xla | C7 taps | xla"),
        ((2, 500, 63), 8, {}, "xla"),
        ((2, 500, 64), 1, {}, "xla"),
        ((4, 500, 64), 8, {"stride": 2}, "xla"),
        ((16, 1000, 64), 64, {}, "xla"),
        ((2, 500, 16), 10, {"dtype": jnp.bfloat16}, "xla | C7 taps | C7 taps"),
        ((1, 500, 16), 10, {"dtype": jnp.bfloat16}, "C14 xla"),
        ((16, 32, 7), 512, {"dtype": jnp.bfloat16}, "xla"),
    ],
)
def test_one_tap_of_a_line(x, outer, options, choices):
    numbers = ("NHC", "HIO", "NHC")
    assert chosen(x, (1, x[-1], outer), numbers, **options) == of_this_jax(choices)


def test_bfloat16_without_instructions_for_it_is_as_on_other_processors(monkeypatch):
    x, w = (1, 28, 28, 64), (1, 1, 64, 2)
    assert chosen(x, w, dtype=jnp.bfloat16) == of_this_jax("xla | C7 taps | C7 taps")
    pretend(monkeypatch, model="Intel(R) Xeon(R) Processor", half=False)
    assert chosen(x, w, dtype=jnp.bfloat16) == "xla"


@pytest.mark.parametrize(
    ("x", "outer", "dtype", "choices"),
    [
        ((16, 7, 7, 64), 128, np.float32, "xla | C7 taps | xla"),
        ((8, 7, 7, 64), 128, np.float32, "xla"),
        ((8, 7, 7, 64), 128, jnp.bfloat16, "xla | C7 taps | xla"),
    ],
)
def test_kernel_gradient_of_a_kernel_as_large_as_its_image(x, outer, dtype, choices):
    like = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x, (*x[1:], outer)))
    rows = jaxdil.explain(lambda x, w: jaxdil.conv(x, w, padding="VALID"), platform="cpu")(*like)
    (row,) = (row for row in rows if row.role == "kernel gradient")
    assert rule_and_method(row) == of_this_jax(choices)


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
