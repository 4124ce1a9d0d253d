"""conv_p under every transformation of JAX, compared with lax's convolution under the same.

The operands are small integers, so that every order of summation gives the same result and both
sides must be equal, not close.
"""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import BY_NAME, draw, equations, integers, methods_asked, methods_run
from jax import export, lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import jaxdil
from jaxdil import _dispatch
from jaxdil._methods import METHODS

pytestmark = pytest.mark.core

DENSE = BY_NAME["stride and dilation, coprime"]
DEPTHWISE = BY_NAME["depthwise with multiplier"]
TRANSPOSED = BY_NAME["transposed, 4 taps, stride 2"]
SUBJECTS = (DENSE, DEPTHWISE, TRANSPOSED)
PINS = {DENSE: "taps or auto", DEPTHWISE: "space_to_batch or auto", TRANSPOSED: "phases or auto"}

# Kernels take no doubles, and have tests of their own.
# Kernels are interpreted, which takes long; `exchange` serves kernel gradients alone.
every_method = pytest.mark.parametrize(
    "method", [m for m in METHODS if "pallas" not in m and m != "exchange"]
)
every_subject = pytest.mark.parametrize("g", SUBJECTS, ids=lambda g: g.name.replace(" ", "_"))


def theirs(g):
    """lax's convolution of a geometry."""
    letters = "DHW"[-g.rank :]
    return functools.partial(
        lax.conv_general_dilated,
        window_strides=g.stride,
        padding=g.padding,
        lhs_dilation=g.input_dilation,
        rhs_dilation=g.dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=g.groups,
    )


def ours(g, method="auto"):
    """Our convolution of a geometry."""
    return functools.partial(jaxdil.conv, method=method, **g.options)


def arrays(g, dtype=np.float64):
    """x and w."""
    return integers(0, g.x_shape, dtype), integers(1, g.w_shape, dtype)


def assert_same(got, expected):
    """Equal in structure, shape, dtype and every number."""
    chex.assert_trees_all_equal_shapes_and_dtypes(got, expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


# --- transformations ------------------------------------------------------------------------------


def squares(conv):
    """A loss that is not linear, so that its second derivatives are not zero."""
    return lambda x, w: (conv(x, w) ** 2).sum()


def scanned(conv):
    def run(x, w):
        def step(total, factor):
            y = conv(x * factor, w)
            return total + y, y.sum()

        return lax.scan(step, jnp.zeros_like(conv(x, w)), jnp.arange(3, dtype=x.dtype))

    return run


def looped(conv):
    def run(x, w):
        def body(carry):
            i, total = carry
            return i + 1, total + conv(x * (i + 1).astype(x.dtype), w)

        return lax.while_loop(lambda c: c[0] < 3, body, (jnp.int32(0), jnp.zeros_like(conv(x, w))))

    return run


def fori(conv):
    def run(x, w):
        return lax.fori_loop(0, 3, lambda i, y: y + conv(x, w) * i, jnp.zeros_like(conv(x, w)))

    return run


def branched(conv):
    def run(x, w):
        y = lax.cond(x[0, 0, 0] > 0, conv, lambda x, w: -conv(x, w), x, w)
        branches = [conv, lambda x, w: conv(2 * x, w), lambda x, w: conv(x, w) * 0]
        return y + lax.switch(jnp.int32(1), branches, x, w)

    return run


def both(conv):
    return jax.grad(squares(conv), (0, 1))


TRANSFORMATIONS = {
    "jit": jax.jit,
    "grad": both,
    "value_and_grad": lambda conv: jax.value_and_grad(squares(conv), (0, 1)),
    "jvp": lambda conv: lambda x, w: jax.jvp(conv, (x, w), (w.sum() - x, x.sum() - w)),
    "linearize": lambda conv: lambda x, w: jax.linearize(conv, x, w)[1](x + 1, w + 1),
    "vjp": lambda conv: lambda x, w: jax.vjp(conv, x, w)[1](conv(x, w)),
    "linear_transpose": lambda conv: (
        lambda x, w: jax.linear_transpose(lambda x: conv(x, w), x)(conv(x, w))
    ),
    "hessian": lambda conv: jax.hessian(squares(conv), (0, 1)),
    "jacobians": lambda conv: (
        lambda x, w: (
            jax.jacfwd(conv, (0, 1))(x, w),
            jax.jacrev(conv, (0, 1))(x, w),
        )
    ),
    "grad of grad": lambda conv: jax.grad(
        lambda x, w: sum((d**2).sum() for d in both(conv)(x, w)), (0, 1)
    ),
    "jvp of grad of grad": lambda conv: (
        lambda x, w: jax.jvp(
            jax.grad(lambda x, w: (jax.grad(squares(conv), 1)(x, w) * w).sum()), (x, w), (x, w)
        )
    ),
    "per-example gradients": lambda conv: (
        lambda x, w: jax.vmap(jax.grad(squares(conv), (0, 1)), (0, None))(x[:, None], w)
    ),
    "grad of vmap": lambda conv: jax.grad(
        lambda x, w: (jax.vmap(conv, (0, None))(x[:, None], w) ** 2).sum(), (0, 1)
    ),
    "checkpoint": lambda conv: jax.grad(jax.checkpoint(squares(conv)), (0, 1)),
    "scan": scanned,
    "grad of scan": lambda conv: jax.grad(
        lambda x, w: (scanned(jax.checkpoint(conv))(x, w)[0] ** 2).sum(), (0, 1)
    ),
    "while_loop": looped,
    "jvp of while_loop": lambda conv: (
        lambda x, w: jax.jvp(lambda x, w: looped(conv)(x, w)[1], (x, w), (x, w))
    ),
    "fori_loop": fori,
    "grad of fori_loop": lambda conv: jax.grad(lambda x, w: (fori(conv)(x, w) ** 2).sum(), (0, 1)),
    "cond and switch": branched,
    "grad of cond and switch": lambda conv: jax.grad(squares(branched(conv)), (0, 1)),
    "vmap of cond": lambda conv: lambda x, w: jax.vmap(branched(conv), (0, None))(x[:, None], w),
}


@every_subject
@pytest.mark.parametrize("name", TRANSFORMATIONS, ids=lambda name: name.replace(" ", "_"))
def test_transformation(name, g):
    transform = TRANSFORMATIONS[name]

    def run(x, w):
        chosen, pinned = (transform(ours(g, pin))(x, w) for pin in ("auto", PINS[g]))
        return chosen, pinned, transform(theirs(g))(x, w)

    chosen, pinned, expected = jax.jit(run)(*arrays(g))
    assert_same(chosen, expected)
    assert_same(pinned, expected)


def test_outside_of_jit():
    """Called eagerly, and transformed eagerly."""
    x, w = arrays(DENSE)
    assert_same(ours(DENSE)(x, w), theirs(DENSE)(x, w))
    assert_same(both(ours(DENSE))(x, w), both(theirs(DENSE))(x, w))


@pytest.mark.parametrize("pin", ["auto", "taps or auto", "space_to_batch or auto"])
@pytest.mark.parametrize("g", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])
def test_vmap_of_every_axis(g, pin):
    """x and w batched along each of their axes and the one behind, or not at all."""
    x, w = arrays(g, np.float32)
    patterns = [
        (i, j)
        for i in (*range(x.ndim + 1), None)
        for j in (*range(w.ndim + 1), None)
        if (i, j) != (None, None)
    ]
    x_rows, w_rows = (np.stack([a, a + 1, -a]) for a in (x, w))

    def run(conv):
        def all_patterns(xs, ws):
            results = {}
            for i, j in patterns:
                a = x if i is None else jnp.moveaxis(xs, 0, i)
                b = w if j is None else jnp.moveaxis(ws, 0, j)
                results[str((i, j))] = jax.vmap(conv, (i, j))(a, b)
            return results

        return jax.jit(all_patterns)(x_rows, w_rows)

    assert_same(run(ours(g, pin)), run(theirs(g)))


@pytest.mark.parametrize("pin", ["auto", "taps or auto"])
def test_nested_vmap(pin):
    x, w = arrays(DENSE, np.float32)
    x = np.stack([np.stack([x, x + 1]), np.stack([-x, x - 1])], axis=1)
    w = np.stack([w, 1 - w, w + 2], axis=2)

    def run(conv):
        crossed = jax.vmap(jax.vmap(jax.vmap(conv, (None, 2)), (1, None)), (0, None), out_axes=1)
        paired = jax.vmap(jax.vmap(both(conv), (0, None)), (1, 2))
        return jax.jit(lambda x, w: (crossed(x, w), paired(x, w[:, :, :2])))(x, w)

    assert_same(run(ours(DENSE, pin)), run(theirs(DENSE)))


@pytest.mark.parametrize("out_axes", [0, 1, 3, -1])
def test_vmap_out_axes(out_axes):
    x, w = arrays(DENSE, np.float32)
    x = np.stack([x, x + 1])
    got, expected = (
        jax.vmap(conv, (0, None), out_axes=out_axes)(x, w) for conv in (ours(DENSE), theirs(DENSE))
    )
    assert_same(got, expected)


# --- what is left to lax --------------------------------------------------------------------------

LAYOUTS = (("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("HWNC", "OHWI", "NCHW"))


def in_a_loop(conv, layout):
    """Value and gradients of convolutions one after the other in a scan."""
    back = [layout[2].index(axis) for axis in layout[0]]

    def run(x, w):
        def turn(x, _):
            y = conv(x, w, (1, 1), "SAME", dimension_numbers=layout)
            return jnp.transpose(y, back), None

        return (lax.scan(turn, x, None, length=2)[0] ** 2).sum()

    x, w = integers(0, (2, 2, 5, 6), np.float32), integers(1, (2, 2, 3, 3), np.float32)
    x, w = (
        np.transpose(a, [usual.index(axis) for axis in own])
        for a, usual, own in zip((x, w), LAYOUTS[1], layout, strict=False)
    )
    return jax.jit(jax.value_and_grad(run, (0, 1))), x, w


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
def test_what_is_left_to_lax_on_a_cpu_has_channels_last(layout):
    """XLA turns other layouts, and those of kernel gradients, in the entry of a program alone."""
    fn, x, w = in_a_loop(jaxdil.conv_general_dilated, layout)
    plain, _, _ = in_a_loop(lax.conv_general_dilated, layout)

    def numbers(fn, platform):
        text = fn.trace(x, w).lower(lowering_platforms=(platform,)).as_text()
        return set(re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text))

    assert numbers(fn, "cpu") == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert len(numbers(plain, "cpu")) > 1
    assert numbers(fn, "rocm") == numbers(plain, "rocm")
    assert_same(fn(x, w), plain(x, w))


# --- derivatives ----------------------------------------------------------------------------------


@every_method
def test_derivatives_to_second_order(method):
    """Against finite differences, in both modes."""
    a = 2 if method in ("phases", "cudnn") else 1
    groups = 1 if method in ("planes", "columns", "patches", "cudnn", "im2col") else 2
    x, w = draw(0, (1, 7 // a, 2), np.float64), draw(1, (2, 2 // groups, 2), np.float64)
    if method == "even":  # needs an odd number of channels
        groups, x, w = 1, draw(0, (1, 7, 3), np.float64), draw(1, (2, 3, 2), np.float64)
    if method == "margin":  # needs an axis without a stride
        groups, x, w = 1, draw(0, (1, 7, 2), np.float64), draw(1, (2, 2, 2), np.float64)
    if method == "slabs":  # needs a second axis
        x, w = draw(0, (1, 7, 3, 2), np.float64), draw(1, (2, 1, 2 // groups, 2), np.float64)
    options = {
        "stride": 1 if method == "margin" else 2,
        "dilation": 1 if method in ("patches", "cudnn") else 3,
        "input_dilation": a,
        "padding": [(4, 3)] if method == "trim" else "VALID",  # needs some that is read alone
        "groups": groups,
    }
    conv = functools.partial(jaxdil.conv, **options, method=method)
    check_grads(jax.jit(conv), (x, w), order=2, modes=("fwd", "rev"))


SMOOTH = {
    "depthwise_conv": lambda x, w: jaxdil.depthwise_conv(x, w, stride=2, dilation=2),
    "separable_conv": lambda x, w: jaxdil.separable_conv(x, w, w.reshape(4, 2)),
    "conv_transpose": lambda x, w: jaxdil.conv_transpose(x, w, stride=2, dilation=3),
    "conv_input_grad": lambda x, w: jaxdil.conv_input_grad(x, w, input_shape=(1, 8, 2), stride=2),
    "conv_kernel_grad": lambda x, w: jaxdil.conv_kernel_grad(
        x, w.reshape(1, 4, 2), kernel_shape=(2, 2, 2)
    ),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_of_the_functions(name):
    x, w = draw(0, (1, 4, 2), np.float64), draw(1, (2, 2, 2), np.float64)
    check_grads(jax.jit(SMOOTH[name]), (x, w), order=2, modes=("fwd", "rev"))


def test_complex_derivatives():
    """Holomorphic, like lax's: nothing is conjugated."""
    x, w = arrays(DENSE, np.complex128)
    x, w = x + 1j * x[::-1], w - 2j * w

    def run(conv):
        return jax.jit(jax.grad(lambda x, w: (conv(x, w) ** 2).sum(), (0, 1), holomorphic=True))

    assert_same(run(ours(DENSE))(x, w), run(theirs(DENSE))(x, w))


# What a method needs to serve at all.
SERVED = {
    "phases": "transposed with dilation",
    "cudnn": "transposed, 4 taps, stride 2",
    "slabs": "unequal axes",
    "patches": "patches",
    "expand": "groups",
    "split": "groups",
    "even": "2-D one tap, stride",
    "margin": "odd kernel",
    "trim": "a single sample",
}


@every_method
def test_derivatives_of_a_pinned_method_take_it_where_it_serves(method):
    g = BY_NAME[SERVED.get(method, "stride")]
    x, w = arrays(g)
    conv = ours(g, method)
    asked = methods_asked(jax.grad(squares(conv), (0, 1)), x, w)
    assert asked == [method, f"{method} or auto", f"{method} or auto"]
    again = methods_asked(jax.grad(lambda x, w: both(conv)(x, w)[1].sum()), x, w)
    assert set(again) == {method, f"{method} or auto"}
    assert methods_asked(jax.vmap(conv, (0, None)), x[None], w) == [f"{method} or auto"]
    # Pinned is strict for what the user wrote, and the derivative it cannot serve is left open.
    assert_same(jax.jit(both(conv))(x, w), jax.jit(both(theirs(g)))(x, w))


def test_a_derivative_that_the_method_cannot_serve_runs_by_another():
    x, w = arrays(BY_NAME["stride"])

    def dx(x, w):
        with jax.named_scope("here"):
            return jax.vjp(lambda x: ours(BY_NAME["stride"], "taps")(x, w), x)[1](
                jnp.ones(BY_NAME["stride"].y_shape)
            )

    text = jax.jit(dx).lower(x, w).as_text(debug_info=True)
    assert methods_run(text, "here") - {"taps"}


# --- dtypes ---------------------------------------------------------------------------------------

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int32", "complex64", "complex128")


@pytest.mark.parametrize("pinned", [False, True], ids=["auto", "pinned"])
@every_subject
def test_dtypes(g, pinned):
    operands = {dtype: arrays(g, jnp.dtype(dtype)) for dtype in DTYPES}

    def run(conv):
        def each(x, w):
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return conv(x, w)
            y, pullback = jax.vjp(conv, x, w)
            return y, pullback(jnp.ones_like(y))

        return jax.jit(lambda ops: {dtype: each(*ops[dtype]) for dtype in DTYPES})(operands)

    assert_same(run(ours(g, PINS[g] if pinned else "auto")), run(theirs(g)))


# --- shapes ---------------------------------------------------------------------------------------


def test_eval_shape():
    x, w = (jax.ShapeDtypeStruct(s, np.float32) for s in (DENSE.x_shape, DENSE.w_shape))
    got = jax.eval_shape(ours(DENSE), x, w)
    assert (got.shape, got.dtype) == (DENSE.y_shape, np.float32)


@pytest.mark.parametrize("x_shape", [(0, 9, 2), (2, 0, 2), (0, 0, 2)])
def test_nothing_to_compute(x_shape):
    x, w = np.zeros(x_shape), np.ones((3, 2, 3))

    def run(conv):
        def each(x, w):
            return conv(x, w), both(conv)(x, w), jax.vmap(conv, (0, None))(x[None], w)

        return jax.jit(each)(x, w)

    got = run(functools.partial(jaxdil.conv, stride=2, dilation=2))
    same = functools.partial(
        lax.conv_general_dilated,
        window_strides=(2,),
        padding="SAME",
        rhs_dilation=(2,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    assert got[0].shape == (x_shape[0], -(-x_shape[1] // 2), 3)
    assert_same(got, run(same))


# --- traced once ----------------------------------------------------------------------------------


def test_a_new_batch_of_numbers_does_not_trace_again():
    x, w = arrays(DENSE)
    conv = jax.jit(chex.assert_max_traces(squares(ours(DENSE)), n=1))
    for factor in (1, 2, 3):
        conv(x * factor, w)


def test_a_batch_or_a_gradient_traces_once():
    x, w = arrays(DENSE)
    loss = chex.assert_max_traces(squares(ours(DENSE)), n=1)
    step = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1)), (0, None)))
    for factor in (1, 2):
        step(x[None] * factor, w)


def test_a_loop_body_has_one_convolution():
    traced = jax.make_jaxpr(scanned(ours(DENSE)))(*arrays(DENSE))
    assert sum(eqn.primitive.name == "jaxdil_conv" for eqn in equations(traced.jaxpr)) == 2


# --- export ---------------------------------------------------------------------------------------

PLATFORMS = ("cpu", "cuda", "tpu")


@every_subject
def test_export_for_three_platforms(g):
    x, w = arrays(g)
    exported = export.export(jax.jit(ours(g)), platforms=PLATFORMS)(x, w)
    assert exported.platforms == PLATFORMS
    again = export.deserialize(exported.serialize(vjp_order=1))
    assert_same(again.call(x, w), theirs(g)(x, w))
    assert_same(both(again.call)(x, w), jax.jit(both(theirs(g)))(x, w))


def test_each_platform_has_its_own_choice(monkeypatch):
    choices = {"cpu": "taps", "cuda": "correlate", "tpu": "xla", None: "xla"}
    monkeypatch.setattr(
        _dispatch,
        "choose",
        lambda problem, *, pinned="auto", platform: _dispatch.Choice(choices[platform], "a test"),
    )

    def here(x, w):
        with jax.named_scope("here"):
            return jaxdil.conv(x, w, dilation=2)

    x, w = np.ones((1, 7, 3), np.float32), np.ones((2, 3, 5), np.float32)
    traced = jax.jit(here).trace(x, w)
    text = traced.lower(lowering_platforms=PLATFORMS).as_text(debug_info=True)
    assert methods_run(text, "here") == {"taps", "correlate", "xla"}
    for platform in PLATFORMS:
        text = traced.lower(lowering_platforms=(platform,)).as_text(debug_info=True)
        assert methods_run(text, "here") == {choices[platform]}


@every_subject
def test_export_with_a_symbolic_batch(g):
    x, w = arrays(g)
    (batch,) = export.symbolic_shape("batch")
    abstract = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)

    def run(conv):
        return lambda x, w: (conv(x, w), both(conv)(x, w))

    exported = export.export(jax.jit(run(ours(g))), platforms=PLATFORMS)(abstract, w)
    again = export.deserialize(exported.serialize())
    for rows in (1, 3):
        some = np.concatenate([x] * 2)[:rows]
        assert_same(again.call(some, w), run(theirs(g))(some, w))


def test_a_pinned_method_needs_sizes_that_are_numbers():
    (batch,) = export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, 9, 2), np.float32)
    w = jax.ShapeDtypeStruct((3, 2, 3), np.float32)
    for pin in ("xla", "auto", "taps or auto"):
        export.export(jax.jit(functools.partial(jaxdil.conv, method=pin)))(x, w)
    with pytest.raises(jaxdil.MethodError, match="'taps' cannot serve: sizes are symbols"):
        export.export(jax.jit(functools.partial(jaxdil.conv, method="taps")))(x, w)


# --- many devices ---------------------------------------------------------------------------------


def many(g):
    """x with one row for each of eight devices, and w."""
    _, w = arrays(g)
    return integers(3, (8, *g.x_shape[1:]), np.float64), w


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@every_subject
def test_batch_sharded_under_jit(g, kind):
    mesh = jax.make_mesh((8,), ("data",), devices=jax.devices("cpu"), axis_types=(kind,))
    x, w = many(g)
    with jax.set_mesh(mesh):
        placed = (
            jax.device_put(x, NamedSharding(mesh, P("data"))),
            jax.device_put(w, NamedSharding(mesh, P())),
        )
        y = jax.jit(ours(g))(*placed)
        assert len(y.sharding.device_set) == 8
        assert y.sharding.shard_shape(y.shape)[0] == 1
        gradients = jax.jit(both(ours(g)))(*placed)
    assert_same(y, jax.jit(theirs(g))(x, w))
    assert_same(gradients, jax.jit(both(theirs(g)))(x, w))


@every_subject
def test_batch_sharded_under_shard_map(g):
    mesh = jax.make_mesh((8,), ("data",), devices=jax.devices("cpu"), axis_types=(AxisType.Auto,))
    x, w = many(g)

    def run(conv):
        spread = jax.shard_map(conv, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
        inside = jax.shard_map(
            both(conv),
            mesh=mesh,
            in_specs=(P("data"), P()),
            out_specs=(P("data"), P()),
        )
        return jax.jit(lambda x, w: (spread(x, w), both(spread)(x, w), inside(x, w)))(x, w)

    got = run(ours(g))
    assert_same(got, run(theirs(g)))
    assert_same(got[:2], jax.jit(lambda x, w: (theirs(g)(x, w), both(theirs(g))(x, w)))(x, w))
