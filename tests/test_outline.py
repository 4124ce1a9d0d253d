"""On a CPU our convolutions are functions of their own in the program, and stay so."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import integers
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxdil

pytestmark = pytest.mark.core

X, W = integers(0, (8, 9, 9, 4)), integers(1, (3, 3, 1, 4))


def depthwise(x, w):
    return lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def functions(text):
    """The functions of a lowered program that are ours."""
    return re.findall(r"func private @(jaxdil_\w+)\(", text)


def test_layers_of_one_shape_share_a_function_that_stays_one():
    def network(x, w):
        return depthwise(depthwise(depthwise(x, w), 2 * w), 3 * w)

    lowered = jax.jit(jaxdil.accelerate(network)).lower(X, W)
    text = lowered.as_text()
    assert functions(text) == ["jaxdil_taps"]
    assert len(re.findall(r'call @jaxdil_taps\(.*inlineable = "false"', text)) == 3
    assert text.count("inlineable") == 3  # nothing inside is a layer
    assert len(re.findall(r" call\(.*to_apply=%jaxdil_taps", lowered.compile().as_text())) == 3
    np.testing.assert_array_equal(lowered.compile()(X, W), network(X, W))


def test_what_it_calls_may_be_inlined():
    """The kernel gradient has a loop, whose small functions must not become calls each."""
    w = integers(1, (7, 7, 1, 4))
    gradient = jax.grad(lambda w, x: depthwise(x, w).sum())
    compiled = jax.jit(jaxdil.accelerate(gradient)).lower(w, X).compile().as_text()
    calls = re.findall(r" call\(.*to_apply=%([a-z]+).*", compiled)
    # JAX 0.12's XLA makes a call of a small loop as a whole, which is its own affair.
    hoisted = re.findall(r" call\(.*to_apply=%([a-z]+).*xla_cpu_small_call", compiled)
    assert sorted(calls) == sorted(["jaxdil", *hoisted])
    assert set(hoisted) <= {"while"}


def test_what_is_left_to_lax_is_not_touched():
    fn = jaxdil.accelerate(lambda x, w: lax.conv(x, w, (1, 1), "SAME"))
    text = jax.jit(fn).lower(jnp.ones((1, 8, 9, 9)), jnp.ones((8, 8, 3, 3))).as_text()
    assert "inlineable" not in text
    assert not functions(text)


def test_a_sharded_batch_stays_sharded():
    mesh = jax.make_mesh((8,), ("d",), devices=jax.devices("cpu"))
    x = jax.device_put(X, NamedSharding(mesh, P("d")))
    w = jax.device_put(W, NamedSharding(mesh, P()))
    fn = jax.jit(jaxdil.accelerate(depthwise))
    assert "all-gather" not in fn.lower(x, w).compile().as_text()
    y = fn(x, w)
    assert y.sharding.is_equivalent_to(x.sharding, y.ndim)
    np.testing.assert_array_equal(y, depthwise(X, W))
