"""What is chosen on Intel's processors with AVX-512, where it is another choice than on AMD's."""

import jax.numpy as jnp
import numpy as np
import pytest
from processors import chosen, of_this_jax, pretend

import jaxdil
from jaxdil._rules import cpu_cores

pytestmark = pytest.mark.core

KERNEL, FORWARD = "kernel gradient", "forward"
BARE, TWO, STRIDED = {"padding": 0}, {"stride": 2}, {"padding": 0, "stride": 2}
BF16 = jnp.bfloat16


@pytest.fixture(autouse=True)
def xeon(monkeypatch):
    """One core of it, so that C18 has nothing to say of idle ones."""
    pretend(monkeypatch, model="Intel(R) Xeon(R) Processor")
    monkeypatch.setattr(cpu_cores, "cores", lambda: 1)


@pytest.mark.parametrize(
    ("role", "x", "w", "options", "kinds"),
    [
        (KERNEL, (32, 8, 8, 96), (3, 1, 96, 48), TWO, {}),
        (KERNEL, (8, 28, 28, 8), (3, 3, 8, 24), TWO, {}),
        (KERNEL, (1, 16, 16, 8), (4, 4, 8, 8), {"stride": 3}, {"conv": jaxdil.conv_transpose}),
        (FORWARD, (4, 64, 64, 16), (1, 3, 16, 48), TWO, {}),
        (FORWARD, (1, 16, 16, 22), (3, 3, 22, 22), TWO, {"conv": jaxdil.conv_transpose}),
        (FORWARD, (1, 64, 64, 6), (5, 5, 6, 1), {}, {}),
        (FORWARD, (1, 28, 28, 48), (7, 7, 3, 48), {}, {"groups": None}),
        ("input gradient", (1, 28, 28, 64), (3, 3, 16, 64), TWO, {"groups": None}),
    ],
)
def test_without_avx_512_intel_is_as_any_other(monkeypatch, role, x, w, options, kinds):
    found = []
    for model in ("Intel(R) Core(TM)", "A processor"):
        pretend(monkeypatch, model=model, vectors="AVX2", half=False)
        found.append(chosen(role, x, w, options, **kinds))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 32, 32, 16), (3, 3, 16, 16), TWO, "C22 im2col"),
        ((1, 32, 32, 16), (3, 3, 16, 16), {}, "C22 im2col"),
        ((3, 16, 16, 96), (3, 3, 96, 80), TWO, "C20 im2col | C20 im2col | xla"),
        ((1, 40, 40, 64), (3, 3, 64, 40), {"dilation": 4}, "C12 exchange"),
        ((2, 64, 64, 4), (3, 3, 4, 256), {}, "xla | C22 slabs | C19 planes"),
    ],
)
def test_kernel_gradients_that_others_have_too(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((32, 8, 8, 96), (3, 1, 96, 48), TWO, "xla | C19 correlate | C19 correlate"),
        ((16, 8, 8, 96), (3, 1, 96, 20), TWO, "xla | C19 im2col | C19 im2col"),
        ((16, 8, 8, 96), (3, 2, 96, 48), TWO, "xla | C19 im2col | C19 im2col"),
        ((16, 8, 8, 96), (3, 3, 96, 48), TWO, "xla"),
        ((16, 8, 8, 96), (3, 1, 96, 48), {"stride": 2, "dilation": 2}, "xla"),
        ((16, 8, 8, 2), (3, 1, 2, 48), TWO, "xla"),
        ((32, 8, 8, 96), (3, 1, 96, 21), TWO, "xla | C19 correlate | C19 correlate"),
    ],
)
def test_kernel_gradients_of_columns_with_a_stride(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((8, 28, 28, 8), (3, 3, 8, 24), TWO, "xla | C19 planes | C19 planes"),
        ((8, 28, 28, 8), (3, 3, 8, 23), TWO, "xla"),
        ((7, 28, 28, 8), (3, 3, 8, 24), TWO, "xla"),
        ((8, 28, 28, 9), (3, 3, 9, 24), TWO, "xla"),
        ((4, 56, 56, 16), (4, 4, 16, 120), TWO, "xla | C19 planes | C19 planes"),
        ((4, 56, 56, 16), (4, 4, 16, 119), TWO, "xla"),
        ((4, 56, 56, 17), (4, 4, 17, 120), TWO, "xla"),
    ],
)
def test_kernel_gradients_of_few_channels_to_many(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((4, 20, 20, 12), (7, 7, 12, 20), TWO, "xla | C19 im2col | C19 im2col"),
        ((4, 20, 20, 12), (7, 8, 12, 20), TWO, "xla"),
        ((5, 20, 20, 12), (7, 7, 12, 20), TWO, "xla"),
        ((4, 20, 20, 12), (7, 7, 12, 21), TWO, "xla"),
        ((4, 20, 20, 4), (3, 3, 4, 20), {}, "xla | C19 planes | C19 planes"),
        ((4, 20, 20, 4), (3, 3, 4, 20), BARE, "xla"),
        ((5, 20, 20, 4), (3, 3, 4, 20), {}, "xla"),
        ((1, 40, 40, 3), (9, 9, 3, 3), {}, "xla | C19 planes | C19 planes"),
        ((4, 20, 20, 12), (5, 10, 12, 20), TWO, "xla"),
    ],
)
def test_kernel_gradients_of_few_images(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((2, 200, 6), (5, 6, 192), {}, "xla | C19 im2col | xla"),
        ((3, 200, 6), (5, 6, 192), {}, "xla"),
        ((2, 300, 6), (5, 6, 192), {}, "xla | C19 im2col | xla"),
        ((2, 301, 6), (5, 6, 192), {}, "xla"),
        ((1, 2048, 4), (5, 4, 92), {}, "xla | C19 im2col | xla"),
        ((1, 2049, 4), (5, 4, 92), {}, "xla"),
        ((2, 200, 6), (5, 6, 192), BARE, "xla"),
        ((2, 5000, 6), (5, 6, 192), {"padding": 0, "stride": 2}, "xla | C19 im2col | xla"),
    ],
)
def test_kernel_gradients_of_a_few_lines(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 112, 112, 24), (3, 3, 24, 32), TWO, "C20 im2col | C19 slabs | C19 slabs"),
        ((1, 112, 112, 40), (3, 3, 40, 32), TWO, "C20 im2col | C19 slabs | xla"),
        ((1, 80, 80, 24), (3, 3, 24, 32), BARE, "xla | C19 slabs | C19 slabs"),
        ((1, 80, 80, 25), (3, 3, 25, 32), BARE, "xla | C19 slabs | xla"),
        ((1, 80, 80, 20), (3, 3, 20, 32), {"padding": 0, "dilation": 2}, "xla | C19 slabs | xla"),
        ((1, 64, 64, 96), (3, 3, 96, 32), {}, "C20 slabs | C19 slabs | xla"),
        ((1, 112, 112, 31), (3, 3, 31, 32), TWO, "C20 im2col | C19 slabs | C19 slabs"),
        ((1, 112, 112, 32), (3, 3, 32, 32), TWO, "C20 im2col | C19 slabs | xla"),
        ((1, 64, 64, 95), (3, 3, 95, 32), {}, "C20 slabs | C19 slabs | C19 slabs"),
        ((1, 66, 66, 24), (3, 3, 24, 16), BARE, "xla | C19 slabs | xla"),
    ],
)
def test_large_kernel_gradients_of_a_single_image(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((4, 64, 64, 16), (1, 3, 16, 48), TWO, "xla | C19 planes | xla"),
        ((4, 64, 64, 16), (1, 3, 16, 39), TWO, "xla"),
        ((4, 64, 64, 16), (3, 1, 16, 48), TWO, "xla"),
        ((4, 65, 65, 16), (2, 2, 16, 48), TWO, "xla | C19 planes | xla"),
        ((4, 64, 64, 16), (3, 3, 16, 48), TWO, "xla"),
        ((4, 64, 64, 16), (3, 3, 16, 48), {"padding": 0, "stride": 2}, "xla | C19 planes | xla"),
        ((2, 64, 64, 40), (3, 3, 40, 48), {"padding": 0, "stride": 2}, "xla | C19 slabs | xla"),
        ((1, 64, 64, 16), (3, 3, 16, 48), {"padding": 0, "stride": 2}, "xla"),
        ((1, 16, 16, 16), (1, 3, 16, 48), TWO, "xla"),
        ((4, 64, 64, 16), (1, 3, 16, 40), TWO, "xla"),
    ],
)
def test_images_with_a_stride_to_many_outputs(x, w, options, choices):
    assert chosen(FORWARD, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # To few outputs: patches of 2 MB, of up to 1,600 terms; of 4 MB; from 64 channels on.
        ((1, 72, 72, 24), (3, 3, 24, 8), BARE, "xla | C18 im2col | xla"),
        ((1, 72, 72, 17), (3, 3, 17, 1), BARE, "xla | C18 im2col | xla"),
        ((1, 72, 72, 16), (3, 3, 16, 8), BARE, "xla"),
        ((1, 56, 56, 20), (3, 3, 20, 8), BARE, "xla | C18 im2col | xla"),
        ((1, 54, 54, 20), (3, 3, 20, 8), BARE, "xla"),
        ((1, 60, 60, 24), (8, 8, 24, 3), BARE, "xla | C18 im2col | xla"),
        ((1, 60, 60, 25), (8, 8, 25, 3), BARE, "xla | C18 im2col | xla"),
        ((1, 60, 60, 26), (8, 8, 26, 3), BARE, "xla | C18 margin | xla"),
        ((1, 72, 72, 63), (3, 3, 63, 3), BARE, "xla | C18 im2col | xla"),
        ((1, 72, 72, 64), (3, 3, 64, 3), BARE, "xla | C18 slabs | xla"),
        ((1, 40, 40, 64), (3, 3, 64, 3), BARE, "xla"),
        ((1, 96, 96, 48), (1, 9, 48, 1), BARE, "xla | C18 slabs | xla"),
        # To more of them: 4 MB, of which the margin is up to a quarter, or half; or 8 MB.
        ((1, 85, 85, 17), (3, 3, 17, 9), BARE, "xla | C18 margin | xla"),
        ((1, 80, 80, 18), (3, 3, 18, 9), BARE, "xla | C11 even | xla"),
        ((1, 34, 34, 32), (7, 7, 32, 16), BARE, "xla | C18 margin | xla"),
        ((1, 33, 33, 32), (7, 7, 32, 16), BARE, "xla"),
        ((2, 33, 33, 32), (7, 7, 32, 16), BARE, "xla | C18 margin | xla"),
        ((1, 49, 49, 24), (7, 7, 24, 20), {"padding": 0, "dilation": 2}, "xla | C18 margin | xla"),
        ((1, 40, 40, 32), (7, 7, 32, 20), {"padding": 0, "dilation": 2}, "xla"),
        ((8, 22, 22, 128), (5, 5, 128, 64), {"padding": 0, "dilation": 3}, "xla"),
        # Of an odd number of channels half a megabyte, to 9 to 48, a margin of a quarter.
        ((1, 32, 32, 17), (3, 3, 17, 9), BARE, "xla | C18 margin | xla"),
        ((1, 31, 31, 17), (3, 3, 17, 9), BARE, "xla | C11 even | xla"),
        ((1, 32, 32, 18), (3, 3, 18, 9), BARE, "xla | C11 even | xla"),
        ((1, 32, 32, 17), (3, 3, 17, 48), BARE, "xla | C18 margin | xla"),
        ((1, 32, 32, 17), (3, 3, 17, 49), BARE, "xla | C11 even | xla"),
        ((1, 26, 26, 33), (5, 5, 33, 48), BARE, "xla | C18 margin | xla"),
        ((1, 22, 22, 33), (5, 5, 33, 48), BARE, "xla | C11 even | xla"),
        # With a stride.
        ((1, 88, 88, 28), (5, 5, 28, 12), STRIDED, "xla | C18 slabs | xla"),
        ((1, 88, 88, 28), (5, 5, 28, 11), STRIDED, "xla"),
        ((1, 76, 76, 28), (5, 5, 28, 12), STRIDED, "xla"),
        ((1, 108, 108, 28), (5, 5, 28, 3), STRIDED, "xla | C18 slabs | xla"),
        ((1, 108, 108, 36), (4, 4, 36, 3), STRIDED, "xla"),
        ((4, 180, 180, 36), (3, 3, 36, 1), STRIDED, "xla | C18 planes | xla"),
        ((4, 180, 180, 17), (4, 4, 17, 8), STRIDED, "xla | C18 slabs | xla"),
        ((1, 72, 72, 24), (3, 3, 24, 8), {}, "xla"),
    ],
)
def test_large_images_that_are_not_padded(x, w, options, choices):
    assert chosen(FORWARD, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "choices"),
    [
        ((4, 72, 72, 44), (3, 3, 44, 25), "xla | C18 margin | xla"),
        ((4, 72, 72, 44), (3, 3, 44, 24), "xla"),
        # A work of 6e7 to 32 outputs, of less than half in padding; neither to 33.
        ((1, 81, 81, 32), (3, 3, 32, 32), "xla | C18 margin | xla"),
        ((1, 80, 80, 32), (3, 3, 32, 32), "xla"),
        ((1, 80, 80, 32), (3, 3, 32, 33), "xla | C18 margin | xla"),
        ((8, 18, 18, 64), (5, 5, 64, 32), "xla | C18 margin | xla"),
        ((8, 17, 17, 64), (5, 5, 64, 32), "xla"),
        ((8, 17, 17, 64), (5, 5, 64, 33), "xla | C18 margin | xla"),
        # A block and a half of 96 channels and more is divided.
        ((4, 8, 9, 192), (3, 3, 192, 192), "xla | C18 margin | xla"),
        ((8, 16, 16, 96), (3, 3, 96, 100), "xla"),
        ((8, 16, 16, 92), (3, 3, 92, 100), "xla | C18 margin | xla"),
        ((8, 16, 16, 96), (3, 3, 96, 96), "xla | C18 margin | xla"),
        # Numbers that are not round (C11): of a work of 5e7, from there on from 13 channels to 33.
        ((1, 63, 63, 34), (3, 3, 34, 40), "xla | C11 even | xla"),
        ((1, 66, 66, 34), (3, 3, 34, 40), "xla | C18 margin | xla"),
        ((4, 50, 50, 13), (3, 3, 13, 43), "xla | C18 margin | xla"),
        ((4, 49, 49, 13), (3, 3, 13, 43), "xla | C11 even | xla"),
        ((4, 70, 70, 11), (3, 3, 11, 43), "xla | C11 even | xla"),
        ((4, 60, 60, 27), (3, 3, 27, 24), "xla | C11 even | C11 even"),
    ],
)
def test_padded_images_that_would_leave_a_core_idle(monkeypatch, x, w, choices):
    monkeypatch.setattr(cpu_cores, "cores", lambda: 2)
    assert chosen(FORWARD, x, w, {}) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "choices"),
    [
        # Channels in fours: to up to 16 outputs from 13 to 80; to 33 to 48 and beyond 64 from 7.
        ((1, 32, 32, 14), (3, 3, 14, 12), "xla | C11 even | xla"),
        ((1, 32, 32, 12), (3, 3, 12, 14), "xla"),
        ((1, 32, 32, 11), (3, 3, 11, 14), "xla"),
        ((1, 32, 32, 79), (3, 3, 79, 12), "xla | C11 even | xla"),
        ((1, 32, 32, 81), (3, 3, 81, 12), "xla"),
        ((1, 32, 32, 7), (3, 3, 7, 40), "xla | C11 even | xla"),
        ((1, 32, 32, 6), (3, 3, 6, 40), "xla"),
        ((1, 32, 32, 8), (3, 3, 8, 40), "xla"),
        ((1, 32, 32, 7), (3, 3, 7, 66), "xla | C11 even | xla"),
        # In pairs to 17 to 32 and to 81 to 96, in any number to 64.
        ((1, 32, 32, 33), (3, 3, 33, 20), "xla | C11 even | xla"),
        ((1, 32, 32, 34), (3, 3, 34, 20), "xla"),
        ((1, 32, 32, 33), (3, 3, 33, 96), "xla | C11 even | xla"),
        ((1, 32, 32, 33), (3, 3, 33, 64), "xla"),
        # Outputs of more than three quarters of a block, of enough channels.
        ((1, 32, 32, 16), (3, 3, 16, 25), "xla | C11 even | xla"),
        ((1, 32, 32, 12), (3, 3, 12, 25), "xla"),
        ((1, 32, 32, 16), (3, 3, 16, 24), "xla"),
        ((1, 32, 32, 16), (3, 3, 16, 49), "xla | C11 even | xla"),
        ((1, 32, 32, 16), (3, 3, 16, 48), "xla"),
        ((1, 32, 32, 32), (3, 3, 32, 13), "xla | C11 even | xla"),
        ((1, 32, 32, 28), (3, 3, 28, 13), "xla"),
        ((1, 32, 32, 32), (3, 3, 32, 7), "xla | C11 even | xla"),
        ((1, 32, 32, 32), (3, 3, 32, 12), "xla"),
        ((1, 32, 32, 32), (3, 3, 32, 113), "xla | C11 even | xla"),
        ((1, 32, 32, 28), (3, 3, 28, 113), "xla"),
        # A work of 10^6.
        ((1, 9, 9, 36), (3, 3, 36, 49), "xla | C11 even | xla"),
        ((1, 7, 7, 36), (3, 3, 36, 49), "xla"),
    ],
)
def test_numbers_of_channels_that_are_not_round(x, w, choices):
    assert chosen(FORWARD, x, w, {}) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "dtype"),
    [
        ((1, 32, 32, 14), (3, 3, 14, 12), {}, BF16),
        ((1, 32, 32, 14), (1, 1, 14, 12), {}, np.float32),
        ((1, 32, 14), (3, 14, 12), {}, np.float32),
        ((1, 32, 32, 14), (3, 3, 14, 12), {"padding": 2}, np.float32),
    ],
)
def test_numbers_of_channels_elsewhere(x, w, options, dtype):
    assert "even" not in chosen(FORWARD, x, w, options, dtype=dtype)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 56, 56, 20), (3, 3, 20, 2), BARE, "xla | C18 im2col | xla"),
        ((1, 54, 54, 20), (3, 3, 20, 2), BARE, "xla"),
        ((1, 160, 160, 48), (7, 7, 48, 3), STRIDED, "xla | C18 im2col | xla"),
        ((1, 56, 56, 20), (3, 3, 20, 2), {}, "xla"),
        # Padded, from 32 channels on: to 32 outputs; on JAX 0.10 alone, of 700 positions, to 16.
        ((4, 17, 17, 32), (3, 3, 32, 32), {}, "xla | C14 im2col | C14 im2col"),
        ((4, 17, 17, 30), (3, 3, 30, 32), {}, "xla"),
        ((4, 17, 17, 32), (3, 3, 32, 31), {}, "xla"),
        ((4, 28, 28, 32), (3, 3, 32, 16), {}, "xla | C14 im2col | xla"),
        ((4, 26, 26, 32), (3, 3, 32, 16), {}, "xla"),
        ((2, 28, 28, 36), (3, 1, 36, 40), {}, "xla"),
    ],
)
def test_images_in_bfloat16(x, w, options, choices):
    assert chosen(FORWARD, x, w, options, dtype=BF16) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 64, 64, 6), (5, 5, 6, 6), {}, "C22 im2col"),
        ((1, 64, 64, 8), (4, 4, 8, 8), {}, "C22 im2col"),
        ((1, 64, 64, 8), (5, 5, 8, 8), {}, "xla"),
        ((1, 64, 64, 6), (1, 5, 6, 6), {}, "xla"),
        ((1, 64, 64, 6), (5, 5, 6, 1), {}, "C22 im2col"),
        ((1, 64, 64, 6), (5, 6, 6, 2), {}, "xla"),
        ((1, 64, 64, 3), (3, 4, 3, 6), {}, "C22 im2col"),
        ((1, 64, 64, 2), (3, 4, 2, 6), {}, "xla"),
    ],
)
def test_few_channels_to_few(x, w, options, choices):
    assert chosen(FORWARD, x, w, options) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 16, 16, 8), (2, 2, 3, 8), {"stride": 3}, "C20 phases"),
        ((1, 16, 16, 80), (2, 2, 2, 80), {"stride": 3}, "xla"),
        ((1, 24, 24, 41), (3, 3, 8, 41), {"stride": 2}, "xla"),
        ((1, 24, 24, 40), (3, 3, 8, 40), {"stride": 2}, "C20 phases"),
        ((1, 16, 16, 64), (4, 5, 64, 64), {"stride": 2}, "C20 phases"),
        ((1, 15, 16, 64), (4, 5, 64, 64), {"stride": 2}, "xla"),
        ((1, 16, 16, 8), (3, 3, 8, 8), {"stride": 2}, "xla"),
        ((1, 16, 16, 1), (3, 3, 8, 1), {"stride": 2}, "C20 phases"),
        ((1, 1000, 16), (6, 16, 16), {"stride": 2}, "C20 phases"),
        ((1, 1000, 16), (6, 7, 16), {"stride": 2}, "xla"),
        ((1, 199, 64), (6, 64, 64), {"stride": 2}, "xla"),
        ((1, 100, 64), (2, 4, 64), {"stride": 3}, "C20 phases"),
        ((1, 25, 10, 64), (4, 5, 64, 64), {"stride": 2}, "C20 phases"),
        ((1, 1000, 16), (6, 8, 16), {"stride": 2}, "xla"),
        ((1, 200, 64), (6, 64, 64), {"stride": 2}, "C20 phases"),
        ((1, 16, 16, 20), (3, 3, 21, 20), {"stride": 2}, "xla"),
        ((1, 16, 16, 22), (3, 3, 22, 22), {"stride": 2}, "C20 phases"),
        ((1, 25, 10, 64), (4, 5, 64, 64), {"stride": 2, "dilation": 2}, "C20 phases"),
    ],
)
def test_transposed_convolutions(x, w, options, choices):
    assert chosen(FORWARD, x, w, options, conv=jaxdil.conv_transpose) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 16, 16, 8), (4, 4, 16, 8), {"stride": 3}, "C2 correlate"),
        ((1, 16, 16, 8), (4, 4, 8, 8), {"stride": 3}, "C2 phases"),
        ((1, 16, 16, 8), (4, 4, 12, 8), {"stride": 3}, "C2 exchange"),
        ((1, 16, 16, 8), (4, 4, 3, 8), {"stride": 3}, "C2 exchange"),
        ((1, 16, 16, 12), (4, 4, 96, 12), {"stride": 2}, "C2 correlate"),
        ((1, 16, 16, 13), (4, 4, 96, 13), {"stride": 2}, "C2 exchange"),
        ((1, 16, 16, 13), (4, 5, 96, 13), {"stride": 2}, "C2 phases"),
        ((1, 16, 16, 15), (4, 4, 16, 15), {"stride": 2}, "C2 phases"),
        ((1, 16, 16, 16), (4, 4, 16, 16), {"stride": 2}, "C2 exchange"),
        ((1, 16, 16, 16), (5, 5, 16, 16), {"stride": 2}, "C2 phases"),
        ((1, 16, 16, 8), (5, 5, 4, 8), {"stride": 2}, "C2 phases"),
        ((1, 16, 16, 9), (5, 5, 4, 9), {"stride": 2}, "C2 exchange"),
        ((1, 16, 16, 8), (4, 4, 4, 8), {"stride": 2}, "C2 exchange"),
        ((1, 16, 16, 8), (4, 4, 4, 8), {"stride": 3}, "C2 phases"),
        ((1, 16, 16, 8), (4, 4, 9, 8), {"stride": 3}, "C2 exchange"),
        ((1, 16, 16, 8), (4, 4, 8, 8), {"stride": 3, "dilation": 2}, "C2 correlate"),
    ],
)
def test_kernel_gradients_of_transposed_convolutions(x, w, options, choices):
    assert chosen(KERNEL, x, w, options, conv=jaxdil.conv_transpose) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((2, 32, 32, 48), (3, 3, 48, 12), {}, "xla | C14 im2col | C14 im2col"),
        ((2, 32, 32, 47), (3, 3, 47, 12), {}, "xla"),
        ((2, 32, 32, 48), (3, 3, 48, 11), {}, "xla"),
        ((2, 32, 32, 48), (7, 8, 48, 12), {}, "xla"),
        ((1, 16, 16, 48), (3, 3, 48, 12), {}, "xla"),
        ((1, 28, 28, 96), (3, 3, 96, 96), {}, "xla | C14 im2col | C14 im2col"),
        ((1, 9, 9, 64), (3, 3, 64, 64), {"dilation": 4}, "xla | C13 im2col | C13 im2col"),
        ((2, 32, 32, 48), (7, 7, 48, 12), {}, "xla | C14 im2col | C14 im2col"),
        ((1, 31, 32, 48), (3, 3, 48, 12), {}, "xla | C14 im2col | C14 im2col"),
        ((1, 30, 32, 48), (3, 3, 48, 12), {}, "xla"),
    ],
)
def test_half_precision(x, w, options, choices):
    assert chosen(FORWARD, x, w, options, dtype=BF16) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 28, 28, 64), (3, 3, 16, 64), {"stride": 2}, "C5 split"),
        ((1, 28, 28, 40), (3, 3, 20, 40), {}, "C5 split"),
        ((1, 28, 28, 32), (3, 3, 16, 32), {}, "C5 expand"),
        ((1, 28, 28, 192), (1, 1, 48, 192), {}, "C5 taps | C5 split | xla"),
        ((1, 28, 28, 96), (1, 1, 24, 196), {}, "C5 taps | C5 im2col | xla"),
        ((1, 28, 28, 196), (1, 1, 49, 196), {}, "C5 taps | C5 im2col | xla"),
        ((1, 28, 28, 512), (1, 1, 256, 512), {}, "C5 taps | C5 split | C5 split"),
        # 1x1 of 9 to 15 input channels.
        ((2, 32, 32, 60), (1, 1, 15, 60), {}, "xla | C5 expand | xla"),
        ((1, 44, 44, 72), (1, 1, 9, 72), {}, "xla | C5 split | xla"),
        ((1, 45, 45, 72), (1, 1, 9, 72), {}, "xla | C5 expand | xla"),
        ((2, 44, 44, 60), (1, 1, 15, 60), TWO, "xla"),
        ((2, 45, 45, 60), (1, 1, 15, 60), TWO, "xla | C5 expand | xla"),
        ((2, 32, 32, 108), (1, 1, 12, 216), {}, "xla | C5 expand | xla"),
        ((2, 32, 32, 108), (1, 1, 12, 225), {}, "xla"),
        ((2, 32, 32, 96), (1, 1, 12, 256), {}, "xla | C5 expand | xla"),
        ((2, 32, 32, 132), (1, 1, 12, 132), {}, "xla | C5 split | xla"),
        # Of more.
        ((2, 28, 28, 96), (1, 1, 24, 96), {}, "C5 taps | C5 expand | xla"),
        ((1, 28, 28, 96), (1, 1, 24, 96), {}, "C5 taps | C5 split | xla"),
        ((2, 28, 28, 128), (1, 1, 32, 128), {}, "C5 taps | C5 im2col | xla"),
        ((2, 28, 28, 64), (1, 1, 16, 64), {}, "C5 taps | C5 im2col | xla"),
        ((2, 56, 56, 96), (1, 1, 24, 96), TWO, "C5 taps | C5 im2col | xla"),
        ((1, 56, 56, 96), (1, 1, 24, 96), TWO, "C5 taps | C5 xla | xla"),
        ((1, 56, 56, 64), (1, 1, 16, 64), TWO, "C5 taps | C5 split | xla"),
        ((8, 28, 28, 192), (1, 1, 24, 192), {}, "C5 taps | C5 taps | xla"),
        ((3, 28, 28, 192), (1, 1, 24, 192), {}, "C5 taps | C5 im2col | xla"),
        ((1, 28, 28, 32), (9, 9, 2, 32), {}, "C5 expand"),
        ((1, 28, 28, 34), (9, 9, 2, 34), {}, "C5 taps"),
        ((1, 28, 28, 16), (9, 9, 2, 64), {}, "C5 expand"),
        ((1, 28, 28, 32), (8, 8, 2, 32), {}, "C5 taps"),
        ((1, 28, 28, 48), (7, 7, 3, 48), {}, "C5 split"),
        ((1, 28, 28, 16), (6, 6, 4, 16), {}, "C5 split"),
        ((1, 28, 28, 16), (3, 3, 4, 16), {}, "C5 taps"),
        ((1, 28, 28, 18), (9, 9, 2, 72), {}, "C5 taps"),
        ((1, 28, 28, 100), (1, 1, 20, 100), {}, "C5 taps | C5 im2col | xla"),
        ((1, 28, 28, 64), (1, 1, 16, 64), {}, "C5 taps | C5 split | xla"),
        ((1, 28, 28, 60), (1, 1, 15, 60), {}, "xla | C5 split | xla"),
        ((1, 28, 28, 40), (6, 6, 5, 40), {}, "C5 expand"),
    ],
)
def test_groups(x, w, options, choices):
    assert chosen(FORWARD, x, w, options, groups=None) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 14, 14, 96), (3, 3, 48, 96), {}, "C5 split | C5 taps | C5 taps"),
        ((1, 14, 14, 94), (3, 3, 47, 94), {}, "C5 split"),
        ((1, 14, 14, 96), (1, 1, 48, 96), {}, "C5 taps"),
    ],
)
def test_groups_in_half_precision(x, w, options, choices):
    assert chosen(FORWARD, x, w, options, groups=None, dtype=BF16) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 28, 28, 64), (3, 3, 16, 64), {"stride": 2}, "C4 split"),
        ((1, 28, 28, 60), (3, 3, 15, 60), {"stride": 2}, "C4 phases"),
        ((1, 28, 28, 64), (2, 2, 16, 64), {"stride": 2}, "C4 phases"),
    ],
)
def test_input_gradients_of_groups_with_a_stride(x, w, options, choices):
    assert chosen("input gradient", x, w, options, groups=None) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((8, 28, 28, 60), (1, 1, 20, 120), {}, "C1 correlate | C1 expand | C1 correlate"),
        ((8, 28, 28, 160), (1, 1, 20, 160), {}, "C1 correlate"),
        ((1, 8, 16, 16, 96), (3, 3, 3, 3, 480), TWO, "C1 im2col"),
        ((1, 8, 16, 16, 64), (3, 3, 3, 2, 128), TWO, "C1 correlate"),
        ((1, 8, 16, 16, 96), (3, 3, 3, 3, 480), {"stride": (1, 2, 2)}, "C1 correlate"),
        ((8, 28, 28, 100), (1, 1, 20, 100), {}, "C1 correlate"),
        ((8, 28, 28, 128), (1, 1, 64, 128), {}, "C1 correlate | C1 expand | C1 correlate"),
        ((8, 28, 28, 63), (1, 1, 21, 63), {}, "C1 correlate"),
        ((1, 14, 14, 64), (5, 5, 8, 64), {}, "C1 correlate | C1 split | C1 correlate"),
        ((1, 14, 14, 56), (5, 5, 7, 56), {}, "C1 correlate"),
        ((1, 14, 14, 64), (5, 5, 8, 56), {}, "C1 correlate"),
        ((1, 14, 14, 192), (5, 5, 24, 192), TWO, "C1 im2col | C1 split | C1 im2col"),
        ((1, 12, 12, 192), (5, 5, 24, 192), TWO, "C1 im2col"),
        ((2, 28, 28, 80), (3, 3, 20, 80), TWO, "C1 im2col | C1 split | C1 im2col"),
        ((2, 28, 28, 60), (3, 3, 20, 60), TWO, "C1 im2col"),
        ((2, 28, 28, 76), (3, 3, 19, 76), TWO, "C1 im2col"),
        ((2, 28, 28, 96), (3, 3, 24, 96), TWO, "C1 im2col"),
        ((1, 28, 28, 80), (3, 3, 20, 40), {}, "C1 im2col | C1 exchange | C1 im2col"),
        ((1, 28, 28, 80), (3, 3, 20, 44), {}, "C1 im2col"),
        ((1, 28, 28, 128), (3, 3, 32, 64), {}, "C1 split | C1 im2col | C1 split"),
        ((2, 14, 14, 96), (3, 3, 24, 96), {}, "C1 split | C1 im2col | C1 split"),
        ((3, 14, 14, 96), (3, 3, 24, 96), {}, "C1 split"),
        ((2, 14, 13, 96), (3, 3, 24, 96), {}, "C1 split"),
        ((2, 14, 14, 92), (3, 3, 23, 92), {}, "C1 im2col"),
    ],
)
def test_kernel_gradients_of_groups(x, w, options, choices):
    assert chosen(KERNEL, x, w, options, groups=None) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # A single image, up to 500 positions, a work of 3 x 10^5, 3 channels, 8 groups.
        ((1, 500, 24), (8, 3, 24), {}, "C1 im2col"),
        ((1, 501, 24), (8, 3, 24), {}, "C1 correlate"),
        ((1, 500, 24), (33, 3, 48), {}, "C1 im2col"),
        ((1, 500, 24), (34, 3, 48), {}, "C1 split"),
        ((2, 100, 24), (8, 3, 24), {}, "C1 correlate"),
        ((1, 500, 16), (8, 2, 16), {}, "C1 correlate"),
        ((1, 500, 27), (8, 3, 27), {}, "C1 correlate"),
        # Up to four groups of six channels; up to 32 of 80 taps times channels.
        ((2, 700, 24), (3, 6, 24), {}, "C1 split"),
        ((2, 700, 30), (3, 6, 30), {}, "C1 correlate"),
        ((2, 700, 20), (3, 5, 20), {}, "C1 correlate"),
        ((2, 700, 256), (10, 8, 256), {}, "C1 split"),
        ((2, 700, 256), (9, 8, 256), {}, "C1 correlate"),
        ((2, 700, 264), (10, 8, 264), {}, "C1 correlate"),
        ((2, 700, 64), (40, 2, 64), {}, "C1 correlate"),
        ((2, 700, 64), (10, 8, 16), {}, "C1 exchange"),
        ((2, 700, 32), (10, 8, 8), {}, "C1 split"),
        # No more taps than positions.
        ((2, 64, 96), (64, 6, 96), {}, "C1 split"),
        ((2, 63, 96), (64, 6, 96), {}, "C1 correlate"),
        ((1, 99, 768), (128, 48, 768), {}, "C1 correlate"),
        # With a stride up to 300 positions.
        ((2, 600, 24), (3, 6, 24), TWO, "C1 split"),
        ((2, 602, 24), (3, 6, 24), TWO, "C1 correlate"),
    ],
)
def test_kernel_gradients_of_groups_of_lines(x, w, options, choices):
    assert chosen(KERNEL, x, w, options, groups=None) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "intel", "others"),
    [
        ((2, 700, 128), (25, 8, 128), "C1 split", "C1 split"),
        ((2, 700, 128), (24, 8, 128), "C1 split", "C1 correlate"),
        ((1, 300, 24), (8, 3, 24), "C1 im2col", "C1 correlate"),
        ((2, 700, 24), (3, 6, 24), "C1 split", "C1 correlate"),
    ],
)
def test_lines_of_groups_elsewhere(monkeypatch, x, w, intel, others):
    """What takes long to compile is one by one on any processor."""
    assert chosen(KERNEL, x, w, {}, groups=None) == intel
    pretend(monkeypatch)
    assert chosen(KERNEL, x, w, {}, groups=None) == others


@pytest.mark.parametrize(
    ("x", "w", "dtype", "choices"),
    [
        # Patches of 16 samples as before.
        ((8, 64, 64, 3), (4, 4, 3, 96), np.float32, "C10 patches | C10 patches | xla"),
        # Larger ones: to 192 outputs and more, 5 x 10^5 of them in all.
        ((14, 224, 224, 3), (16, 16, 3, 192), np.float32, "xla | C10 patches | xla"),
        ((13, 224, 224, 3), (16, 16, 3, 192), np.float32, "xla"),
        ((28, 224, 224, 3), (16, 16, 3, 191), np.float32, "xla"),
        # Of 2,352 terms: to 384 and more, under JAX 0.12 192.
        ((1, 224, 224, 3), (28, 28, 3, 384), np.float32, "xla | C10 patches | C10 patches"),
        ((1, 224, 224, 3), (28, 28, 3, 383), np.float32, "xla | xla | C10 patches"),
        ((1, 224, 224, 3), (28, 28, 3, 192), np.float32, "xla | xla | C10 patches"),
        ((1, 224, 224, 3), (28, 28, 3, 191), np.float32, "xla"),
        ((1, 216, 216, 3), (27, 27, 3, 384), np.float32, "xla"),
        # Half precision as before.
        ((2, 224, 224, 3), (16, 16, 3, 96), BF16, "C10 patches"),
        ((1, 224, 224, 3), (16, 16, 3, 96), BF16, "xla"),
        ((2, 224, 224, 3), (16, 16, 3, 95), BF16, "xla"),
    ],
)
def test_patches_of_images(x, w, dtype, choices):
    options = {"stride": w[:2], "padding": 0}
    assert chosen(FORWARD, x, w, options, dtype=dtype) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # One image of few channels with a stride: from 2,500 positions on.
        ((1, 100, 100, 3), (7, 7, 3, 32), TWO, "xla | C19 slabs | C19 planes"),
        ((1, 100, 100, 4), (7, 7, 4, 32), TWO, "xla | C19 slabs | C19 planes"),
        ((1, 100, 100, 5), (7, 7, 5, 32), TWO, "xla | C19 slabs | C19 slabs"),
        ((1, 98, 100, 3), (7, 7, 3, 32), TWO, "xla | C19 planes | C19 planes"),
        ((1, 60, 60, 3), (7, 7, 3, 32), TWO, "xla"),
        ((1, 200, 200, 3), (7, 7, 3, 32), TWO, "xla | C19 slabs | C19 planes"),
        # More than 49 taps, to few outputs: up to 128, of up to three images.
        ((3, 40, 40, 8), (8, 8, 8, 14), TWO, "xla | C19 im2col | C19 im2col"),
        ((3, 64, 64, 7), (8, 8, 7, 20), TWO, "xla | C19 slabs | C19 slabs"),
        ((4, 40, 40, 8), (8, 8, 8, 14), TWO, "xla"),
        ((1, 84, 84, 4), (8, 8, 4, 16), {"stride": 4, "padding": 0}, "xla | C19 slabs | C19 slabs"),
        ((1, 84, 84, 4), (8, 8, 4, 21), {"stride": 4, "padding": 0}, "xla"),
        ((1, 64, 64, 3), (11, 11, 3, 8), TWO, "xla | C19 slabs | C19 slabs"),
        ((1, 64, 64, 3), (12, 11, 3, 8), TWO, "xla"),
    ],
)
def test_kernel_gradients_of_long_kernels_with_a_stride(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)
