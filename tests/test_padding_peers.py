"""Padding modes as PyTorch, Flax, Equinox and Haiku mean them, live where they are installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import integers

import jaxdil

X, W = integers(0, (2, 9, 8, 3)), integers(1, (3, 2, 3, 4))
BIAS, MASK = integers(2, (4,)), (W > 0).astype(W.dtype)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_torch(mode):
    torch = pytest.importorskip("torch")
    window = {"stride": (2, 1), "dilation": (1, 3)}
    layer = torch.nn.Conv2d(3, 4, (3, 2), padding=(2, 4), padding_mode=mode, **window)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(W.transpose(3, 2, 0, 1)))
        layer.bias.copy_(torch.tensor(BIAS))
        want = layer(torch.tensor(X.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    got = jaxdil.conv(X, W, padding=(2, 4), padding_mode=mode, bias=BIAS, **window)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("name", "mode"), [("CIRCULAR", "circular"), ("REFLECT", "reflect")])
def test_flax(name, mode):
    """Flax pads k_eff - 1 samples, one more after than before, whatever the stride."""
    nnx = pytest.importorskip("flax.nnx")
    window = {"strides": (2, 3), "kernel_dilation": (2, 1), "padding": name}
    layer = nnx.Conv(3, 4, (3, 2), rngs=nnx.Rngs(0), mask=MASK, **window)
    layer.kernel[...], layer.bias[...] = jnp.asarray(W), jnp.asarray(BIAS)
    got = jaxdil.conv(
        X,
        W,
        stride=(2, 3),
        dilation=(2, 1),
        padding=lambda k_eff: ((k_eff - 1) // 2, k_eff // 2),
        padding_mode=mode,
        mask=MASK,
        bias=BIAS,
    )
    np.testing.assert_array_equal(got, layer(jnp.asarray(X)))


def test_flax_circular_transpose():
    """Wrapped round the period n s; the odd sample is cropped at the start."""
    nnx = pytest.importorskip("flax.nnx")
    taps, stride = (3, 4), (2, 1)
    w = integers(1, (*taps, 4, 3))
    options = {"transpose_kernel": True, "padding": "CIRCULAR", "use_bias": False}
    layer = nnx.ConvTranspose(3, 4, taps, strides=stride, rngs=nnx.Rngs(0), **options)
    layer.kernel[...] = jnp.asarray(w)
    got = jaxdil.conv_transpose(X, w, stride=stride, padding="SAME_LOWER", padding_mode="circular")
    np.testing.assert_array_equal(got, layer(jnp.asarray(X)))


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER"])
def test_equinox_circular_transpose(padding):
    eqx = pytest.importorskip("equinox")
    window = {"stride": (2, 3), "dilation": (2, 1), "padding": padding}
    options = {"padding_mode": "CIRCULAR", "use_bias": False, "key": jax.random.key(0)}
    layer = eqx.nn.ConvTranspose2d(3, 4, (3, 5), **window, **options)
    w = integers(1, (3, 5, 4, 3))  # of the convolution; Equinox stores it flipped, (C, O, ...)
    kernel = jnp.asarray(w[::-1, ::-1].transpose(2, 3, 0, 1))
    layer = eqx.tree_at(lambda layer: layer.weight, layer, kernel)
    want = jax.vmap(layer)(jnp.asarray(X.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(
        jaxdil.conv_transpose(X, w, padding_mode="circular", **window), want
    )


def test_haiku_pad_functions():
    hk = pytest.importorskip("haiku")
    options = {"size": (9, 8), "kernel": (3, 2), "dilation": (2, 3)}
    for function, name in (
        (hk.pad.causal, "CAUSAL"),
        (hk.pad.reverse_causal, "REVERSE_CAUSAL"),
        (hk.pad.full, "FULL"),
        (hk.pad.valid, "VALID"),
        (hk.pad.same, "SAME"),
    ):
        got = jaxdil.resolve_padding(function, **options)
        assert got == jaxdil.resolve_padding(name, **options)
        assert got == jaxdil.resolve_padding({"H": function, "W": name}, **options)
