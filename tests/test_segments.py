"""Packed sequences as a primitive: closed under differentiation and batching, inside a mesh too."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import equations
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import jaxdil
from jaxdil import streaming

pytestmark = pytest.mark.core

IDS = jnp.asarray(np.repeat([[0, 1, 2, 1], [5, 5, 7, 8]], [4, 7, 1, 5], axis=1), jnp.int32)


def whole(seed, shape, dtype=jnp.float32):
    """Small integers: sums of their products are exact."""
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 4, shape), dtype)


X, W = whole(0, (2, 17, 3)), whole(1, (3, 3, 1))


def packed(x, w, ids=IDS, dilation=2):
    return streaming.causal_conv(x, w, depthwise=True, dilation=dilation, segment_ids=ids)


def both(x, w, ids):
    """Gradients that depend on both operands."""
    return jax.grad(lambda x, w: (packed(x, w, ids) ** 2).sum(), (0, 1))(x, w)


def test_derivatives_to_second_order_in_both_modes():
    x, w = (jnp.asarray(a, jnp.float64) for a in (X, W))
    check_grads(jax.jit(packed), (x, w), order=2, modes=("fwd", "rev"))


def test_a_gradient_is_made_of_the_same_two():
    found = [e.primitive.name for e in equations(jax.make_jaxpr(both)(X, W, IDS).jaxpr)]
    ours = [name for name in found if name.startswith("jaxdil")]
    assert sorted(set(ours)) == ["jaxdil_segmented_conv", "jaxdil_segmented_kernel_grad"]
    assert len(ours) == 3


PATTERNS = [axes for axes in itertools.product((0, None), repeat=3) if any(a == 0 for a in axes)]


def test_vmap_over_every_operand():
    arrays = (X, W, IDS)
    many = tuple(jnp.stack([a, a[::-1]]) for a in arrays)

    @jax.jit
    def batched(arrays, many):
        results = []
        for axes in PATTERNS:
            args = [m if axis == 0 else a for axis, a, m in zip(axes, arrays, many, strict=True)]
            run = lambda x, w, ids: (packed(x, w, ids), *both(x, w, ids))  # noqa: E731
            results.append(jax.vmap(run, axes)(*args))
        return results

    one = jax.jit(lambda x, w, ids: (packed(x, w, ids), *both(x, w, ids)))
    for axes, got in zip(PATTERNS, batched(arrays, many), strict=True):
        each = [
            one(*(m[i] if axis == 0 else a for axis, a, m in zip(axes, arrays, many, strict=True)))
            for i in range(2)
        ]
        jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, np.stack(b)), got, *each)


def test_over_a_mesh():
    """Sequences on a device each, the kernel on both: its gradient is the sum over them."""
    mesh = jax.make_mesh(
        (2,), ("rows",), devices=jax.devices("cpu")[:2], axis_types=(jax.sharding.AxisType.Auto,)
    )
    over = jax.shard_map(
        packed, mesh=mesh, in_specs=(P("rows"), P(), P("rows")), out_specs=P("rows")
    )

    def loss(x, w, ids):
        return (over(x, w, ids) ** 2).sum()

    got = jax.jit(jax.grad(loss, (0, 1)))(X, W, IDS)
    jax.tree.map(np.testing.assert_array_equal, got, both(X, W, IDS))


def test_where_the_types_say_how_arrays_are_sharded():
    mesh = jax.make_mesh(
        (2,),
        ("rows",),
        devices=jax.devices("cpu")[:2],
        axis_types=(jax.sharding.AxisType.Explicit,),
    )
    x, ids = (jax.device_put(a, NamedSharding(mesh, P("rows"))) for a in (X, IDS))
    got = jax.jit(packed)(x, jax.device_put(W, NamedSharding(mesh, P())), ids)
    np.testing.assert_array_equal(got, packed(X, W))


def test_its_receptive_field_is_known():
    field = jaxdil.receptive_field(lambda x: packed(x, W))(X)
    plain = jaxdil.receptive_field(
        lambda x: streaming.causal_conv(x, W, depthwise=True, dilation=2)
    )(X)
    assert field == plain


@pytest.mark.parametrize(("method", "kernels"), [("auto", 1), ("pallas_tpu", 1), ("taps", 0)])
def test_on_a_tpu_it_is_a_kernel_unless_another_method_is_pinned(method, kernels):
    x, w = jnp.ones((1, 64, 128), jnp.float32), jnp.ones((4, 128, 1), jnp.float32)
    conv = functools.partial(streaming.causal_conv, depthwise=True, method=method)
    fn = jax.jit(lambda x, w, ids: conv(x, w, segment_ids=ids))
    traced = fn.trace(x, w, jnp.zeros((1, 64), jnp.int32))
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == kernels
