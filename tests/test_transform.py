"""accelerate: which convolutions it reaches, and that nothing else about a function changes.

Operands are small integers, so that the accelerated function must be equal to the plain one.
"""

import enum
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import equations, integers
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import jaxdil
from jaxdil._methods import METHODS

pytestmark = pytest.mark.core

X, W = integers(0, (2, 3, 9)), integers(1, (3, 3, 3))  # (N, C, S) and (O, I, K), as lax orders them


def conv(x, w, dilation=1):
    """A convolution that keeps the size, by lax."""
    return lax.conv_general_dilated(x, w, (1,), "SAME", rhs_dilation=(dilation,))


def names(fn, *args, **kwargs):
    """The primitives in the program of a function."""
    traced = jax.make_jaxpr(functools.partial(fn, **kwargs))(*args)
    return [eqn.primitive.name for eqn in equations(traced.jaxpr)]


def counts(fn, *args):
    """How many convolutions of a function are lax's, and how many ours."""
    found = names(fn, *args)
    return found.count("conv_general_dilated"), found.count("jaxdil_conv")


def assert_same(got, expected):
    """Equal in structure, shape, dtype and every number."""
    chex.assert_trees_all_equal_shapes_and_dtypes(got, expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


# --- what it reaches ------------------------------------------------------------------------------


@jax.custom_jvp
def with_jvp(x, w):
    return conv(x, w) * 2


@with_jvp.defjvp
def _with_jvp_rule(primals, tangents):
    x, w = primals
    dx, dw = tangents
    return with_jvp(x, w), 2 * conv(dx, w) + 2 * conv(x, dw)


@jax.custom_vjp
def with_vjp(x, w):
    return conv(x, w) * 2


def _with_vjp_forward(x, w):
    return with_vjp(x, w), (x, w)


def _with_vjp_backward(saved, g):
    dx, dw = jax.vjp(conv, *saved)[1](g)
    return 3 * dx, 2 * dw


with_vjp.defvjp(_with_vjp_forward, _with_vjp_backward)


@jax.custom_gradient
def custom_gradient(x, w):
    return conv(x, w), lambda g: jax.vjp(conv, x, w)[1](2 * g)


def scanned(x, w):
    return lax.scan(lambda y, d: (conv(y, w), d), x, jnp.arange(2))[0]


def looped(x, w):
    return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, conv(c[1], w)), (0, x))[1]


def branched(x, w):
    return lax.cond(x.sum() > 0, conv, lambda x, w: conv(x, w, 2), x, w)


def on_devices(x, w):
    mesh = jax.make_mesh(
        (2,), ("data",), devices=jax.devices("cpu")[:2], axis_types=(AxisType.Auto,)
    )
    return jax.shard_map(conv, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))(x, w)


def transposed(x, w):
    return lax.conv_transpose(
        x, w, (2,), "SAME", rhs_dilation=(2,), dimension_numbers=("NCH", "OIH", "NCH")
    )


def local(x, w):
    kernels = jnp.tile(w.reshape(3, 9, 1), (1, 1, 4))
    return lax.conv_general_dilated_local(x, kernels, (2,), [(0, 0)], (3,))


def patches(x, w):
    return lax.conv_general_dilated_patches(x, (3,), (2,), "SAME", rhs_dilation=(2,))


# Every way to write a convolution that JAX knows, and how many there are in it.
WRITTEN = {
    "lax.conv": (lambda x, w: lax.conv(x, w, (2,), "VALID"), 1),
    "lax.conv_general_dilated": (conv, 1),
    "lax.conv_transpose": (transposed, 1),
    "lax.conv_general_dilated_patches": (patches, 1),
    "lax.conv_general_dilated_local": (local, 1),
    "jnp.convolve": (lambda x, w: jnp.convolve(x[0, 0], w[0, 0], mode="same"), 1),
    "scipy.signal.convolve2d": (
        lambda x, w: jax.scipy.signal.convolve2d(x[0], w[0], mode="same"),
        1,
    ),
}

# Every place it may stand in.
PLACES = {
    "jit": (jax.jit(conv), 1),
    "jit in jit": (jax.jit(lambda x, w: jax.jit(conv)(x, w) + conv(x, w, 2)), 2),
    "scan": (scanned, 1),
    "while_loop": (looped, 1),
    "fori_loop": (lambda x, w: lax.fori_loop(0, 2, lambda i, x: conv(x, w), x), 1),
    "cond": (branched, 2),
    "switch": (lambda x, w: lax.switch(1, [conv, lambda x, w: conv(x, w, 2)], x, w), 2),
    "checkpoint": (jax.checkpoint(conv), 1),
    "custom_jvp": (with_jvp, 1),
    "custom_vjp": (with_vjp, 1),
    "shard_map": (on_devices, 1),
    "vmap": (lambda x, w: jax.vmap(conv, (0, None))(x[None], w), 1),
    "scan in cond in jit": (
        jax.jit(lambda x, w: lax.cond(x.sum() > 0, scanned, lambda x, w: x, x, w)),
        1,
    ),
    "map of checkpoint": (lambda x, w: lax.map(lambda y: jax.checkpoint(conv)(y, w), x[None]), 1),
    "associative_scan": (lambda x, w: lax.associative_scan(lambda a, b: a + b, conv(x, w)), 1),
    "named_call": (jax.named_call(conv, name="here"), 1),
    "pmap": (lambda x, w: jax.pmap(conv, in_axes=(0, None))(x[:, None], w), 1),
    "custom_gradient": (custom_gradient, 1),
    "closed over in jit": (lambda x, w: jax.jit(lambda x: conv(x, w))(x), 1),
}
DIFFERENTIABLE = {name: fn for name, (fn, _) in PLACES.items() if "while" not in name}


@pytest.mark.parametrize("name", [*WRITTEN, *PLACES], ids=lambda name: name.replace(" ", "_"))
def test_every_convolution_is_reached(name):
    fn, number = {**WRITTEN, **PLACES}[name]
    assert counts(fn, X, W) == (number, 0)
    for method in ("auto", "xla"):
        assert counts(jaxdil.accelerate(fn, method=method), X, W) == (0, number)
    assert_same(jax.jit(jaxdil.accelerate(fn))(X, W), jax.jit(fn)(X, W))


@pytest.mark.parametrize("name", WRITTEN)
def test_gradients_of_every_way_to_write_it(name):
    fn = jax.grad(lambda x, w: (WRITTEN[name][0](x, w) ** 2).sum(), (0, 1))
    total = counts(fn, X, W)[0]
    assert total > 0
    assert counts(jaxdil.accelerate(fn), X, W) == (0, total)
    assert_same(jax.jit(jaxdil.accelerate(fn))(X, W), jax.jit(fn)(X, W))


@pytest.mark.parametrize("name", DIFFERENTIABLE, ids=lambda name: name.replace(" ", "_"))
def test_gradients_inside_and_outside(name):
    fn = DIFFERENTIABLE[name]

    def grad(fn):
        return jax.grad(lambda x, w: (fn(x, w) ** 2).sum(), (0, 1))

    inside, outside = jaxdil.accelerate(grad(fn)), grad(jaxdil.accelerate(fn))
    for accelerated in (inside, outside):
        theirs, ours = counts(accelerated, X, W)
        assert theirs == 0
        assert ours > 0
    expected = jax.jit(grad(fn))(X, W)
    assert_same(jax.jit(inside)(X, W), expected)
    assert_same(jax.jit(outside)(X, W), expected)


@pytest.mark.parametrize("name", ["jit", "scan", "cond", "checkpoint", "custom_jvp", "custom_vjp"])
def test_batches_and_forward_derivatives_outside(name):
    fn = PLACES[name][0]

    def run(fn, x, w):
        batch = jax.vmap(fn, (0, None))(jnp.stack([x, x + 1]), w)
        if name == "custom_vjp":
            return batch
        return batch, jax.jvp(fn, (x, w), (x - 1, w + 1))

    # Of arguments: from constants XLA of the oldest JAX computes some of lax's own wrongly.
    accelerated = jax.jit(functools.partial(run, jaxdil.accelerate(fn)))
    assert counts(accelerated, X, W)[0] == 0
    assert_same(accelerated(X, W), jax.jit(functools.partial(run, fn))(X, W))


def test_the_training_step_of_a_small_network():
    def loss(params, batch):
        y = jnp.tanh(conv(batch["x"], params["first"], 2))
        y = jax.checkpoint(with_jvp)(y, params["second"])
        return ((y - batch["y"]) ** 2).mean()

    @jax.jit
    def step(params, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        return jax.tree.map(lambda p, g: p - g / 100, params, grads), value

    params = {"first": W / 8, "second": W / 4}
    batch = {"x": X, "y": X}
    accelerated = jaxdil.accelerate(step, method="xla")
    assert counts(accelerated, params, batch) == (0, counts(step, params, batch)[0])
    assert_same(accelerated(params, batch), step(params, batch))
    check_grads(
        lambda x: jaxdil.accelerate(loss)(params, {"x": x, "y": X}), (X / 4,), 1, modes=("rev",)
    )


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("dots_saveable", True), ("everything_saveable", True), ("nothing_saveable", False)],
)
def test_a_checkpoint_policy_sees_laxs_convolution(policy, kept):
    """What a policy would keep for the way back of lax's convolutions, it keeps of ours."""

    def fn(x, w):
        return jnp.tanh(conv(jnp.tanh(conv(x, w)), w)).sum()

    x, w = (a.astype(np.float64) / 8 for a in (X, W))
    checkpointed = jax.checkpoint(fn, policy=getattr(jax.checkpoint_policies, policy))
    plain = jax.grad(checkpointed, (0, 1))
    without = counts(jax.grad(fn, (0, 1)), x, w)[0]
    total = counts(plain, x, w)[0]
    assert (total == without) == kept
    for accelerated in (
        jax.grad(jaxdil.accelerate(checkpointed), (0, 1)),
        jax.grad(jax.jit(jaxdil.accelerate(checkpointed)), (0, 1)),
        jaxdil.accelerate(plain),
    ):
        assert counts(accelerated, x, w) == (0, total)
        chex.assert_trees_all_close(accelerated(x, w), plain(x, w), rtol=1e-12, atol=1e-12)


def test_a_policy_of_names_and_of_parameters():
    """A policy is asked about lax's primitive, with lax's parameters."""
    asked = []

    def policy(primitive, *_, **params):
        asked.append((primitive, set(params)))
        return primitive is lax.conv_general_dilated_p

    fn = jax.checkpoint(lambda x, w: jnp.tanh(conv(x, w)).sum(), policy=policy)
    jax.make_jaxpr(jax.grad(jaxdil.accelerate(fn)))(X, W)
    known = [params for primitive, params in asked if primitive is lax.conv_general_dilated_p]
    assert known
    assert all("method" not in params for params in known)
    assert not [primitive for primitive, _ in asked if primitive.name == "jaxdil_conv"]


def test_names_and_lines_are_kept():
    """For profilers and for errors: a program says where each convolution stands, as before."""

    def fn(x, w):
        with jax.named_scope("stem"):
            return jax.jit(conv)(x, w)

    def places(traced):
        return [
            (str(e.source_info.name_stack), e.source_info.traceback.frames[0].line_num)
            for e in equations(traced.jaxpr)
            if e.primitive.name in ("conv_general_dilated", "jaxdil_conv")
        ]

    plain = places(jax.make_jaxpr(fn)(X, W))
    again = places(jax.make_jaxpr(jaxdil.accelerate(fn))(X, W))
    assert [name for name, _ in plain] == [name for name, _ in again]
    assert plain == again
    text = jax.jit(jaxdil.accelerate(fn)).lower(X, W).as_text(debug_info=True)
    assert "stem" in text
    assert "test_transform.py" in text


def test_shapes_without_arrays():
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (X, W)]
    for name in ("jit", "scan", "custom_vjp", "shard_map"):
        fn = PLACES[name][0]
        assert jax.eval_shape(jaxdil.accelerate(fn), *shapes) == jax.eval_shape(fn, *shapes)


# --- what it leaves alone -------------------------------------------------------------------------


def test_a_function_without_convolution_is_unchanged():
    def fn(x, w):
        return lax.scan(lambda c, v: (c + v.sum(), w[0] @ v), 0.0, x)

    x = X.astype(np.float64)
    w = W.astype(np.float64)
    assert str(jax.make_jaxpr(jaxdil.accelerate(fn))(x, w)) == str(jax.make_jaxpr(fn)(x, w))
    assert_same(jaxdil.accelerate(fn)(x, w), fn(x, w))


def test_applied_twice_it_does_nothing_more():
    once = jaxdil.accelerate(conv, method="taps")
    twice = jaxdil.accelerate(once, method="xla")
    assert str(jax.make_jaxpr(twice)(X, W)) == str(jax.make_jaxpr(once)(X, W))


def test_our_own_functions_keep_their_method():
    def fn(x, w):
        return jaxdil.conv(x, w, method="taps", data_format="NCW") + conv(x, w)

    traced = jax.make_jaxpr(jaxdil.accelerate(fn, method="space_to_batch"))(X, W)
    found = [
        e.params["method"] for e in equations(traced.jaxpr) if e.primitive.name == "jaxdil_conv"
    ]
    assert found == ["taps", "space_to_batch"]


class Color(enum.Enum):
    RED = 1


def test_what_is_not_an_array_passes_through():
    seen = []

    def fn(x, w, flag, mode, *, activation, nothing=None, scale=2, color=Color.RED):
        seen[:] = [flag, mode, activation, nothing, scale, color]
        y = conv(x, w, scale) if flag and mode == "same" else x
        return activation(y), {"mode": mode, "none": nothing, "scale": scale, "fn": activation}

    y, rest = jaxdil.accelerate(fn)(X, W, True, "same", activation=jnp.tanh, scale=3)
    assert seen == [True, "same", jnp.tanh, None, 3, Color.RED]
    assert rest == {"mode": "same", "none": None, "scale": 3, "fn": jnp.tanh}
    np.testing.assert_array_equal(y, fn(X, W, True, "same", activation=jnp.tanh, scale=3)[0])


def test_pytrees_of_arguments_and_results():
    class Pair(tuple):
        __slots__ = ()

    jax.tree_util.register_pytree_node(Pair, lambda p: (tuple(p), None), lambda _, c: Pair(c))

    def fn(params, *inputs, **more):
        a, b = params["pair"]
        return Pair([conv(inputs[0], a), [more["extra"], conv(inputs[1], b)]])

    args = ({"pair": Pair([W, W + 1]), "unused": None}, X, np.asarray(X))
    got = jaxdil.accelerate(fn)(*args, extra=np.float32(3))
    assert isinstance(got, Pair)
    assert_same(got, fn(*args, extra=jnp.float32(3)))
    assert counts(jaxdil.accelerate(functools.partial(fn, extra=1)), *args) == (0, 2)


def test_static_arguments_of_an_outer_jit():
    @functools.partial(jax.jit, static_argnums=2, static_argnames="mode")
    @jaxdil.accelerate
    def fn(x, w, dilation, *, mode="full"):
        return conv(x, w, dilation), jnp.int32(len(mode))

    assert_same(fn(X, W, 2), (conv(X, W, 2), jnp.int32(4)))
    assert_same(fn(X, W, 3, mode="no"), (conv(X, W, 3), jnp.int32(2)))


def test_static_arguments_of_an_inner_jit():
    inner = jax.jit(conv, static_argnums=2)
    assert_same(jaxdil.accelerate(inner)(X, W, 2), conv(X, W, 2))
    assert counts(lambda x, w: jaxdil.accelerate(inner)(x, w, 2), X, W) == (0, 1)


def test_name_and_signature_are_kept():
    accelerated = jaxdil.accelerate(conv)
    assert accelerated.__name__ == "conv"
    assert accelerated.__doc__ == conv.__doc__
    assert accelerated.__wrapped__ is conv


def test_no_arguments_and_closures():
    w = jnp.asarray(W)
    assert_same(jaxdil.accelerate(lambda: conv(jnp.asarray(X), w))(), conv(X, W))
    closed = jax.jit(lambda x, w: jaxdil.accelerate(lambda x: conv(x, w))(x))
    assert_same(closed(X, W), conv(X, W))
    assert counts(closed, X, W) == (0, 1)


def test_integers_and_random_keys():
    def fn(key, x):
        noise = jax.random.randint(key, W.shape, -2, 3)
        return conv(x, noise), key

    x = X.astype(np.int64)
    got, expected = (f(jax.random.key(1), x) for f in (jaxdil.accelerate(fn), fn))
    np.testing.assert_array_equal(got[0], expected[0])
    assert got[1].dtype == expected[1].dtype


def test_prints_and_callbacks_still_run(capsys):
    called = []

    def fn(x, w):
        jax.debug.print("sum {s}", s=x.sum())
        y = conv(x, w)
        jax.debug.callback(lambda v: called.append(v.shape), y)
        shape = jax.ShapeDtypeStruct(y.shape, y.dtype)
        return jax.pure_callback(lambda v: np.asarray(v) + 1, shape, y)

    for run in (jaxdil.accelerate(fn), jax.jit(jaxdil.accelerate(fn))):
        called.clear()
        y = run(X, W)
        jax.effects_barrier()
        assert called == [y.shape]
        np.testing.assert_array_equal(y, np.asarray(conv(X, W)) + 1)
    assert capsys.readouterr().out.count("sum ") == 2


def test_traced_once_under_jit():
    fn = chex.assert_max_traces(scanned, n=1)
    accelerated = jax.jit(jaxdil.accelerate(fn))
    for factor in (1, 2, 3):
        accelerated(X * factor, W)


def test_donation_and_shardings_of_an_inner_jit_are_kept():
    inner = jax.jit(conv, donate_argnums=0)
    plain, accelerated = (
        next(e.params for e in jax.make_jaxpr(f)(X, W).jaxpr.eqns)
        for f in (inner, jaxdil.accelerate(inner))
    )
    changed = {name for name in plain if plain[name] != accelerated[name]}
    assert changed == {"jaxpr"}


# --- methods --------------------------------------------------------------------------------------


# Without those that need a dilated input, a second axis, windows side by side, groups or
# padding that is read alone.
PARTICULAR = (
    *("phases", "cudnn", "slabs", "patches", "expand", "split", "exchange"),
    *("even", "trim", "pallas_tpu", "pallas_gpu"),
)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in PARTICULAR])
def test_a_pinned_method_serves_all(method):
    accelerated = jaxdil.accelerate(scanned, method=method)
    traced = jax.make_jaxpr(accelerated)(X, W)
    found = [
        e.params["method"] for e in equations(traced.jaxpr) if e.primitive.name == "jaxdil_conv"
    ]
    assert found == [method]
    assert f"jaxdil.{method}" in jax.jit(accelerated).lower(X, W).as_text(debug_info=True)
    assert_same(jax.jit(accelerated)(X, W), scanned(X, W))


def test_a_pinned_method_that_cannot_serve_is_an_error():
    with pytest.raises(jaxdil.MethodError, match="phases: the input is not dilated") as caught:
        jaxdil.accelerate(scanned, method="phases")(X, W)
    assert (
        "Able: xla, taps, correlate, planes, columns, even, margin, im2col, space_to_batch"
        in str(caught.value)
    )
    # Where it is left open, others serve.
    assert_same(jaxdil.accelerate(scanned, method="phases or auto")(X, W), scanned(X, W))


def test_an_unknown_method_is_refused_before_anything_is_called():
    with pytest.raises(ValueError, match="accelerate: method must be 'auto' or one of"):
        jaxdil.accelerate(conv, method="fft")
    with pytest.raises(TypeError, match="accelerate: method must be a string"):
        jaxdil.accelerate(conv, method=3)


def test_errors_of_the_function_are_its_own():
    with pytest.raises(ZeroDivisionError):
        jaxdil.accelerate(lambda x: 1 / 0)(X)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        jaxdil.accelerate(conv)(X)
