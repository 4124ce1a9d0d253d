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


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # 5 MB in all (here of 71 outputs, not of 45) or a work of 8.5 x 10^7, to 17 and more.
        ((16, 32, 32, 48), (3, 3, 48, 71), TWO, "xla | C24 im2col | xla"),
        ((16, 32, 32, 48), (3, 3, 48, 72), TWO, "xla | C24 planes | xla"),
        ((16, 32, 32, 48), (3, 3, 48, 45), TWO, "xla"),
        ((16, 32, 32, 48), (7, 7, 48, 40), TWO, "xla | C24 planes | xla"),
        ((32, 56, 56, 28), (3, 3, 28, 28), {}, "xla | C24 im2col | xla"),
        ((8, 112, 112, 16), (5, 5, 16, 17), TWO, "xla | C24 im2col | xla"),
        ((8, 112, 112, 16), (5, 5, 16, 16), TWO, "xla"),
        # 5 MB of a work of 4.2 x 10^7; of 3.7 MB.
        ((16, 96, 48, 24), (1, 3, 24, 48), TWO, "xla | C24 planes | xla"),
        ((16, 40, 40, 24), (1, 3, 24, 48), TWO, "xla"),
        # Rows of 16 positions, which 30 columns make 15 of.
        ((32, 100, 32, 60), (3, 3, 60, 60), TWO, "xla | C24 im2col | xla"),
        ((32, 100, 30, 60), (3, 3, 60, 60), TWO, "xla"),
        # With a stride from 5 channels on.
        ((2, 192, 192, 5), (7, 7, 5, 48), TWO, "xla | C24 planes | xla"),
        ((2, 192, 192, 4), (7, 7, 4, 48), TWO, "xla"),
        ((16, 56, 56, 4), (7, 7, 4, 48), BARE, "xla | C24 planes | xla"),
        # Multiples of 128, padded, the library is at its best with.
        ((1, 65, 65, 256), (3, 3, 256, 256), {"dilation": 12}, "xla"),
        # A cotangent of 60 kB of up to 7 images and 9 taps; of 15 kB.
        ((1, 26, 26, 64), (3, 3, 64, 88), TWO, "xla | C24 im2col | xla"),
        ((1, 26, 26, 64), (3, 3, 64, 89), TWO, "xla"),
        ((7, 8, 8, 64), (3, 3, 64, 100), TWO, "xla | C24 im2col | xla"),
        ((8, 8, 8, 64), (3, 3, 64, 100), TWO, "xla"),
        ((1, 26, 26, 64), (3, 4, 64, 80), TWO, "xla"),
        ((8, 16, 16, 40), (3, 3, 40, 29), {"stride": 4}, "xla | C24 im2col | xla"),
        ((8, 16, 16, 40), (3, 3, 40, 30), {"stride": 4}, "xla"),
        ((1, 14, 14, 21), (5, 5, 21, 76), TWO, "xla | C24 im2col | xla"),
        ((1, 14, 14, 21), (5, 5, 21, 77), TWO, "xla"),
        ((8, 16, 16, 40), (3, 3, 40, 2), {"stride": 4}, "xla"),
        ((4, 224, 224, 16), (3, 3, 16, 8), {"stride": 32}, "xla"),
        # One axis: a stride, or padded and 2,048 positions of one image, 600 of two.
        ((1, 2048, 12), (5, 12, 12), {}, "xla | C24 im2col | xla"),
        ((1, 2049, 12), (5, 12, 12), {}, "xla"),
        ((1, 2048, 12), (5, 12, 12), BARE, "xla"),
        ((2, 300, 4), (5, 4, 12), {}, "xla | C24 im2col | xla"),
        ((2, 301, 4), (5, 4, 12), {}, "xla"),
        ((3, 200, 4), (5, 4, 12), {}, "xla"),
        ((2, 5000, 12), (5, 12, 12), TWO, "xla | C24 im2col | xla"),
        ((3, 5000, 12), (5, 12, 12), TWO, "xla"),
        ((1, 5000, 12), (5, 12, 2), TWO, "xla"),
    ],
)
def test_kernel_gradients(x, w, options, choices):
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)


def test_kernel_gradients_elsewhere(monkeypatch):
    """Neither in half precision, nor channels first, nor on a processor of another vendor."""
    x, w = (1, 26, 26, 64), (3, 3, 64, 88)
    assert chosen(KERNEL, x, w, TWO) == of_this_jax("xla | C24 im2col | xla")
    assert "C24" not in chosen(KERNEL, x, w, TWO, dtype=BF16)
    first = {"data_format": "channels_first"}
    assert "C24" not in chosen(KERNEL, (1, 64, 26, 26), w, TWO, **first)
    pretend(monkeypatch)
    assert "C24" not in chosen(KERNEL, x, w, TWO)
    pretend(monkeypatch, model="AMD EPYC (AVX2)", vectors="AVX2")
    assert "C24" not in chosen(KERNEL, x, w, TWO)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # 2.3 times as many channels as outputs, or 36,000 positions; from 6 channels on.
        ((1, 48, 48, 23), (3, 3, 10, 23), TWO, "xla | C20 phases | xla"),
        ((1, 48, 48, 24), (3, 3, 10, 24), TWO, "xla"),
        ((1, 48, 48, 24), (3, 3, 10, 24), {"stride": 4}, "xla | C20 phases | xla"),
        ((1, 47, 47, 24), (3, 3, 10, 24), {"stride": 4}, "xla"),
        ((1, 40, 40, 13), (5, 5, 6, 13), TWO, "xla | C20 phases | xla"),
        ((1, 40, 40, 11), (5, 5, 5, 11), TWO, "xla"),
        # A work of 5 x 10^6, zeros counted.
        ((1, 16, 16, 24), (3, 3, 24, 24), TWO, "xla | C20 phases | xla"),
        ((1, 16, 16, 23), (3, 3, 23, 23), TWO, "xla"),
        # Several taps to a phase: up to 30 channels, or a work of 4 x 10^8.
        ((1, 28, 28, 30), (3, 3, 30, 30), TWO, "xla | C20 phases | xla"),
        ((1, 28, 28, 31), (3, 3, 31, 31), TWO, "xla"),
        ((1, 28, 28, 31), (3, 3, 31, 31), {"stride": 4}, "xla | C20 phases | xla"),
        ((1, 28, 28, 40), (5, 5, 40, 40), {"stride": 3}, "xla"),
        ((1, 28, 28, 48), (5, 5, 48, 48), {"stride": 3}, "xla | C20 phases | xla"),
        # Multiples of 128 the library is at its best with.
        ((8, 8, 8, 256), (4, 4, 132, 256), TWO, "xla | C20 phases | xla"),
        ((8, 8, 8, 256), (4, 4, 128, 256), TWO, "xla"),
        # One axis: 600 kB in all.
        ((1, 1000, 48), (16, 48, 48), TWO, "xla | C20 phases | xla"),
        ((1, 750, 48), (16, 48, 48), TWO, "xla"),
        ((1, 1000, 99), (16, 99, 99), TWO, "xla | C20 phases | xla"),
        ((1, 1000, 100), (16, 100, 100), TWO, "xla"),
    ],
)
def test_zeros_between_samples(x, w, options, choices):
    """Transposed convolutions."""
    assert chosen(FORWARD, x, w, options, conv=jaxdil.conv_transpose) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        ((1, 28, 28, 20), (3, 3, 40, 20), TWO, "xla | C20 phases | xla"),
        ((1, 28, 28, 20), (3, 3, 39, 20), TWO, "xla"),
    ],
)
def test_zeros_between_samples_in_bfloat16(x, w, options, choices):
    """To twice as many outputs as there are channels."""
    kinds = {"dtype": BF16, "conv": jaxdil.conv_transpose}
    assert chosen(FORWARD, x, w, options, **kinds) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "w", "choices"),
    [
        # From 21 channels on, or of patches of 17 MB.
        ((1, 24, 24, 48), (3, 3, 48, 21), "xla | C14 im2col | xla"),
        ((1, 24, 24, 48), (3, 3, 48, 20), "xla"),
        ((4, 50, 50, 48), (3, 3, 48, 20), "xla | C14 im2col | xla"),
        ((4, 50, 49, 48), (3, 3, 48, 20), "xla"),
        # Rows of up to 88, a work of 5 x 10^6, and 48 channels of few taps, as on Intel's.
        ((1, 24, 88, 48), (3, 3, 48, 24), "xla | C14 im2col | xla"),
        ((1, 24, 89, 48), (3, 3, 48, 24), "xla"),
        ((1, 16, 16, 48), (3, 3, 48, 46), "xla | C14 im2col | xla"),
        ((1, 16, 16, 48), (3, 3, 48, 45), "xla"),
    ],
)
def test_products_in_bfloat16(monkeypatch, x, w, choices):
    assert chosen(FORWARD, x, w, {}, dtype=BF16) == of_this_jax(choices)
    pretend(monkeypatch, model="AMD EPYC (AVX-512)", half=False)
    assert chosen(FORWARD, x, w, {}, dtype=BF16) == "xla"


@pytest.mark.parametrize(
    ("role", "x", "w", "options", "choices"),
    [
        # Of 9 to 15 channels 2,000 positions; of 17 to 31 of up to three groups, to 48, 1,500.
        (FORWARD, (1, 48, 48, 40), (1, 1, 10, 40), {}, "xla | C5 expand | xla"),
        (FORWARD, (1, 44, 44, 40), (1, 1, 10, 40), {}, "xla"),
        (FORWARD, (1, 40, 40, 60), (1, 1, 20, 60), {}, "xla | C5 expand | xla"),
        (FORWARD, (1, 38, 38, 60), (1, 1, 20, 60), {}, "xla"),
        (FORWARD, (4, 64, 64, 60), (1, 1, 20, 144), {}, "xla | C5 expand | xla"),
        (FORWARD, (4, 64, 64, 60), (1, 1, 20, 147), {}, "xla"),
        (FORWARD, (4, 64, 64, 60), (1, 1, 20, 60), TWO, "xla"),
        (FORWARD, (4, 64, 64, 80), (1, 1, 20, 80), {}, "C5 taps | C5 taps | xla"),
        # Up to four groups of 20 channels to twice as many, without a stride.
        (KERNEL, (8, 28, 28, 60), (1, 1, 20, 120), {}, "C1 correlate | C1 expand | C1 correlate"),
        (KERNEL, (8, 28, 28, 80), (1, 1, 20, 80), {}, "C1 correlate | C1 expand | C1 correlate"),
        (KERNEL, (8, 28, 28, 60), (1, 1, 20, 123), {}, "C1 correlate"),
        (KERNEL, (8, 28, 28, 63), (1, 1, 21, 63), {}, "C1 correlate"),
        (KERNEL, (8, 28, 28, 100), (1, 1, 20, 100), {}, "C1 correlate"),
        (KERNEL, (8, 28, 28, 60), (1, 1, 20, 60), TWO, "C1 correlate"),
    ],
)
def test_groups_of_one_tap(role, x, w, options, choices):
    assert chosen(role, x, w, options, groups=None) == of_this_jax(choices)


def test_zeros_between_samples_channels_first():
    x, w, kinds = (1, 24, 24, 24), (3, 3, 24, 24), {"conv": jaxdil.conv_transpose}
    assert chosen(FORWARD, x, w, TWO, **kinds) == of_this_jax("xla | C20 phases | xla")
    assert chosen(FORWARD, x, w, TWO, data_format="channels_first", **kinds) == "xla"


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # To up to 8 outputs: 12 channels, 9 taps, 500 positions.
        ((1, 500, 12), (9, 12, 8), {}, "xla | C24 im2col | xla"),
        ((1, 499, 12), (9, 12, 8), {}, "xla"),
        ((1, 500, 11), (9, 11, 8), {}, "xla"),
        ((1, 500, 12), (10, 12, 8), {}, "xla"),
        ((1, 500, 12), (9, 12, 9), {}, "xla"),
        ((1, 1000, 12), (9, 12, 8), TWO, "xla"),
        # Of 2 to 7 channels: 1,000 positions, 5 taps, with a dilation 11.
        ((1, 1000, 7), (5, 7, 24), {}, "xla | C24 planes | xla"),
        ((1, 999, 7), (5, 7, 24), {}, "xla"),
        ((1, 1000, 8), (5, 8, 24), {}, "xla"),
        ((1, 1000, 7), (6, 7, 24), {}, "xla"),
        ((1, 1000, 7), (11, 7, 24), {"dilation": 2}, "xla | C24 planes | xla"),
        ((1, 1000, 7), (12, 7, 24), {"dilation": 2}, "xla"),
        ((1, 1000, 2), (5, 2, 2), {}, "xla | C24 planes | xla"),
        ((1, 1000, 1), (5, 1, 2), {}, "C6 taps"),
    ],
)
def test_lines_of_few_channels(monkeypatch, x, w, options, choices):
    assert chosen(FORWARD, x, w, options) == of_this_jax(choices)
    assert "C24" not in chosen(FORWARD, (2, *x[1:]), w, options, dtype=BF16)
    pretend(monkeypatch)
    assert "C24" not in chosen(FORWARD, x, w, options)


@pytest.mark.parametrize(
    ("x", "w", "options", "choices"),
    [
        # 16 channels of the cotangent, a kernel longer than the stride.
        ((1, 28, 28, 64), (3, 3, 16, 64), TWO, "C4 phases | C4 split | C4 phases"),
        ((1, 28, 28, 64), (3, 3, 16, 60), TWO, "C4 phases"),
        ((1, 28, 28, 64), (2, 2, 16, 64), TWO, "C4 phases"),
        # A few groups to few channels are one.
        ((4, 56, 56, 8), (3, 3, 2, 64), TWO, "C4 expand"),
        ((4, 56, 56, 16), (3, 3, 2, 128), TWO, "C4 phases | C4 split | C4 phases"),
    ],
)
def test_input_gradients_of_groups_with_a_stride(x, w, options, choices):
    assert chosen(INPUT, x, w, options, groups=None) == of_this_jax(choices)
    assert chosen(INPUT, x, w, options, groups=None, dtype=BF16) != "C4 split"


@pytest.mark.parametrize(
    ("x", "outer", "options", "choices"),
    [
        # In one axis up to 8 images and a work of 10^5: outputs are rows where they are the more.
        ((1, 200, 32), 32, TWO, "xla | C24 im2col | xla"),
        ((1, 200, 32), 33, TWO, "xla | C24 correlate | xla"),
        ((1, 200, 32), 31, TWO, "xla"),
        ((8, 200, 32), 32, TWO, "xla | C24 im2col | xla"),
        ((9, 200, 32), 32, TWO, "xla"),
        ((1, 400, 32), 32, {}, "xla"),
    ],
)
def test_kernel_gradients_of_a_strided_tap(monkeypatch, x, outer, options, choices):
    w = (1, x[-1], outer)
    assert chosen(KERNEL, x, w, options) == of_this_jax(choices)
    half = of_this_jax(choices).replace("correlate", "im2col")
    assert chosen(KERNEL, x, w, options, dtype=BF16) == half
    pretend(monkeypatch)
    assert "C24" not in chosen(KERNEL, x, w, options)


@pytest.mark.parametrize(("inner", "choices"), [(16, "xla | C24 im2col | xla"), (15, "xla")])
def test_kernel_gradients_of_a_strided_tap_channels_first(inner, choices):
    x, first = (1, inner, 900), {"data_format": "channels_first"}
    assert chosen(KERNEL, x, (1, inner, 16), TWO, **first) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "outer", "options", "dtype", "choices"),
    [
        # Single precision in one axis: from up to 24 channels or to up to 8, 10^5 to 4 x 10^6.
        ((1, 500, 24), 24, TWO, np.float32, "xla | C7 taps | xla"),
        ((1, 500, 25), 24, TWO, np.float32, "xla"),
        ((1, 500, 64), 8, TWO, np.float32, "xla | C7 taps | xla"),
        ((1, 500, 64), 9, TWO, np.float32, "xla"),
        ((1, 332, 24), 24, TWO, np.float32, "xla"),
        ((1, 500, 24), 24, {}, np.float32, "xla"),
        ((4, 3400, 24), 24, TWO, np.float32, "xla | C7 taps | xla"),
        ((4, 3500, 24), 24, TWO, np.float32, "xla"),
        ((1, 28, 28, 24), 24, TWO, np.float32, "xla"),
        # Of many channels up to 499 rows, which the rule of all processors has.
        ((1, 998, 64), 64, TWO, np.float32, "C7 taps"),
        ((1, 1000, 64), 64, TWO, np.float32, "C7 taps | xla | C7 taps"),
        ((1, 1000, 64), 64, {}, np.float32, "C7 taps"),
        # In bfloat16 in one axis and two, a work of 10^5.
        ((2, 200, 16), 32, TWO, BF16, "xla | C7 taps | xla"),
        ((2, 200, 16), 31, TWO, BF16, "xla"),
        ((1, 28, 28, 24), 24, TWO, BF16, "xla | C7 taps | xla"),
        ((1, 28, 28, 24), 21, TWO, BF16, "xla"),
        ((1, 28, 28, 24), 24, {}, BF16, "xla"),
    ],
)
def test_a_strided_tap(x, outer, options, dtype, choices):
    w = (*(1,) * (len(x) - 2), x[-1], outer)
    assert chosen(FORWARD, x, w, options, dtype=dtype) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("inner", "dtype", "choices"),
    [
        (16, BF16, "xla | C7 taps | xla"),
        (15, BF16, "xla"),
        (24, np.float32, "xla | C7 taps | xla"),
        # What is cut out well is moved channels first.
        (64, np.float32, "C7 taps"),
    ],
)
def test_a_strided_tap_channels_first(inner, dtype, choices):
    x, first = (2, inner, 1000), {"data_format": "channels_first"}
    assert chosen(FORWARD, x, (1, inner, 64), TWO, dtype=dtype, **first) == of_this_jax(choices)


@pytest.mark.parametrize(
    ("x", "outer", "dtype", "choices"),
    [
        # Transposed: from single precision in one axis to at most 2.2 times as many, 10^5.
        ((1, 200, 20), 44, np.float32, "xla | C20 phases | xla"),
        ((1, 200, 20), 45, np.float32, "xla"),
        ((1, 200, 20), 25, np.float32, "xla | C20 phases | xla"),
        ((1, 200, 20), 24, np.float32, "xla"),
        ((1, 14, 14, 32), 32, np.float32, "xla"),
        # In bfloat16 4 x 10^5.
        ((1, 20, 20, 32), 32, BF16, "xla | C20 phases | xla"),
        ((1, 20, 20, 32), 31, BF16, "xla"),
        ((2, 200, 20), 50, BF16, "xla | C20 phases | xla"),
        ((2, 200, 20), 49, BF16, "xla"),
    ],
)
def test_zeros_between_samples_of_one_tap(x, outer, dtype, choices):
    w = (*(1,) * (len(x) - 2), outer, x[-1])
    kinds = {"dtype": dtype, "conv": jaxdil.conv_transpose}
    assert chosen(FORWARD, x, w, TWO, **kinds) == of_this_jax(choices)
    first = (x[0], x[-1], *x[1:-1])
    assert "C20" not in chosen(FORWARD, first, w, TWO, data_format="channels_first", **kinds)
