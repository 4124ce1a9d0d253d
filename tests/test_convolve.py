"""True convolution: against numpy and scipy, and as the adjoint of nothing but a turned kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

import jaxdil
from jaxdil import reference

pytestmark = pytest.mark.core


def integers(seed, *shape):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("taps", [(3, 2), (4, 3)])
def test_scipy_in_two_dimensions(taps):
    """Even kernels too, whose centre scipy puts elsewhere than SAME."""
    x, w = integers(0, 7, 8), integers(1, *taps)
    sparse = np.zeros([2 * k - 1 for k in taps], np.float32)
    sparse[::2, ::2] = w
    for padding, mode in [("FULL", "full"), ("SAME_LOWER", "same"), ("VALID", "valid")]:
        for kernel, dilation in [(w, 1), (sparse, 2)]:
            y = jaxdil.convolve(
                x[None, ..., None], w[..., None, None], dilation=dilation, padding=padding
            )
            expected = signal.convolve2d(x, kernel, mode)
            np.testing.assert_array_equal(y[0, ..., 0], expected, err_msg=f"{padding} {dilation}")


def test_a_causal_one_is_a_filter():
    x, w = integers(0, 20), integers(1, 5)
    y = jaxdil.convolve(x[:, None], w[:, None, None], padding="CAUSAL")  # unbatched
    np.testing.assert_array_equal(y[:, 0], signal.lfilter(w, [1.0], x))


def test_channels_groups_strides_and_layouts():
    x, w = integers(0, 2, 9, 8, 4), integers(1, 3, 2, 2, 6)
    options = {"stride": (2, 1), "dilation": (1, 2)}
    y = jaxdil.convolve(x, w, padding=1, groups=2, **options)
    turned = reference.conv(x, w[::-1, ::-1], padding=[(1, 1)] * 2, groups=2, **options)
    np.testing.assert_array_equal(y, turned)
    numbers = ("CHNW", "IOHW", "NCHW")
    z = jaxdil.convolve(
        x.transpose(3, 1, 0, 2),
        w.transpose(2, 3, 0, 1),
        padding=1,
        groups=2,
        data_format=numbers,
        **options,
    )
    np.testing.assert_array_equal(z, np.moveaxis(y, -1, 1))


def test_a_wrapped_one_is_circular_with_its_bias():
    x, w = integers(0, 8), integers(1, 3)
    spectrum = np.fft.fft(x) * np.fft.fft(w, 8)
    y = jaxdil.convolve(
        x[:, None],
        w[:, None, None],
        padding="CAUSAL",
        padding_mode="circular",
        bias=np.ones(1, np.float32),
    )
    np.testing.assert_array_equal(y[:, 0], np.rint(np.fft.ifft(spectrum).real) + 1)


def test_it_commutes():
    """What correlation does not: x * w = w * x."""
    x, w = integers(0, 1, 9, 1), integers(1, 1, 4, 1)
    y = jaxdil.convolve(x, w.reshape(4, 1, 1), padding="FULL")
    np.testing.assert_array_equal(y, jaxdil.convolve(w, x.reshape(9, 1, 1), padding="FULL"))


def test_its_gradient_is_the_correlation():
    x, w = integers(0, 1, 9, 1), jnp.asarray(integers(1, 4, 1, 1))
    g = jnp.asarray(integers(2, 1, 12, 1))
    _, vjp = jax.vjp(lambda x: jaxdil.convolve(x, w, padding="FULL"), jnp.asarray(x))
    np.testing.assert_array_equal(vjp(g)[0], jaxdil.conv(g, w, padding="VALID"))


def test_refusals_are_those_of_conv_in_its_name():
    with pytest.raises(ValueError, match=r"^convolve: .*kernel does not"):
        jaxdil.convolve(jnp.ones((1, 2, 1)), jnp.ones((3, 1, 1)), padding="VALID")
    with pytest.raises(TypeError, match=r"^convolve: w must be an array"):
        jaxdil.convolve(jnp.ones((1, 2, 1)), [1.0])
