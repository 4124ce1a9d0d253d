"""The kernels of depthwise volumes for a TPU, interpreted: results, gradients, memory, refusals."""

import functools

import jax
import numpy as np
import pytest
from geometries import geometry, judge, operands
from kernels import PINNED, SIMULATED, problems, sure
from test_pallas_tpu_2d import check

import jaxdil
from jaxdil._pallas import plan_3d, tpu_3d, tpu_3d_gradient


def depthwise(name, size, kernel, channels=3, **options):
    """A depthwise geometry."""
    return geometry(name, size, kernel, channels=(channels,) * 2, groups=channels, **options)


# Each axis in the sublanes, strides and rates of every axis, planes that come late and stay long.
DEPTHWISE = (
    depthwise("same", (5, 6, 7), (3, 3, 3), channels=130, batch=1, pad=(1, 1)),
    depthwise(
        "columns in the sublanes", (5, 4, 8), (2, 3, 2), batch=1, pad=((1, 0), (1, 1), (0, 1))
    ),
    depthwise("rows in the sublanes", (3, 8, 5), (3, 2, 3), batch=1, pad=(1, 1)),
    depthwise("planes in the sublanes", (8, 5, 6), (3, 3, 2), batch=1, s=(1, 2, 2), pad=(1, 1)),
    depthwise(
        "eight together", (5, 5, 6), (3, 2, 4), batch=16, s=(2, 1, 3), d=(2, 1, 2), pad=(2, 3)
    ),
    depthwise("two together", (9, 5, 6), (2, 3, 1), s=(3, 1, 1), d=(1, 2, 1), pad=(1, 0)),
    depthwise("causal", (6, 5, 5), (3, 3, 3), batch=3, pad=((2, 0), (1, 1), (1, 1))),
    depthwise("ahead", (6, 5, 5), (3, 3, 3), batch=1, pad=((0, 4), (1, 1), (1, 1))),
    depthwise("stride larger than the kernel", (8, 5, 6), (2, 1, 2), batch=1, s=(3, 2, 1)),
    depthwise("a plane of padding first", (7, 4, 8), (4, 3, 3), batch=1, s=(3, 1, 1), pad=(3, 1)),
    depthwise("valid", (5, 6, 4), (4, 3, 2), batch=1),
    depthwise("many taps", (6, 7, 5), (5, 4, 5), batch=4, pad=(2, 2)),
    depthwise(
        "one tap along the planes", (4, 6, 5), (1, 3, 3), batch=1, pad=((0, 0), (1, 1), (1, 1))
    ),
)
BY_NAME = {g.name: g for g in DEPTHWISE}
TRANSPOSED = (
    depthwise("transposed", (3, 5, 4), (3, 4, 3), batch=1, a=2, pad=(2, 1)),
    depthwise(
        "transposed, spread planes",
        (5, 3, 4),
        (2, 3, 3),
        batch=4,
        a=(3, 2, 1),
        d=(2, 1, 1),
        pad=(2, 2),
    ),
)
CORE = ("same", "planes in the sublanes", "eight together")


def each(geometries):
    """Parametrized by geometry; those of CORE run with the oldest JAX too."""
    return pytest.mark.parametrize(
        "g",
        [
            pytest.param(
                g, id=g.name.replace(" ", "_"), marks=[pytest.mark.core] if g.name in CORE else []
            )
            for g in geometries
        ],
    )


@each(DEPTHWISE)
def test_results_and_both_gradients(g):
    check(g, np.float32)


@each(TRANSPOSED)
def test_transposed_convolutions_phase_by_phase(g):
    check(g, np.float32, by_input=False, by_kernel=False)


def test_each_order_of_axes_is_taken():
    orders = {plan_3d.plan_of(problem_of(g)).order for g in DEPTHWISE}
    assert orders == {(0, 1, 2), (0, 2, 1), (1, 2, 0)}


@each([BY_NAME["planes in the sublanes"], BY_NAME["eight together"]])
def test_half_precision_adds_up_in_single(g):
    check(g, jax.numpy.bfloat16)


def problem_of(g):
    """The problem of a forward convolution."""
    return problems(g)[0]


def test_second_derivatives():
    g = BY_NAME["planes in the sublanes"]
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-3, 4, shape).astype(np.float32) for shape in (g.x_shape, g.w_shape))

    def of_gradients(x, w, method):
        def loss(x, w):
            return (jaxdil.conv(x, w, **g.options, method=method) ** 2).sum()

        dx, dw = jax.grad(loss, (0, 1))(x, w)
        return (dx * x[:, ::-1]).sum() + (dw * w[::-1]).sum()

    both = jax.jit(jax.grad(of_gradients, (0, 1)), static_argnums=2)
    jax.tree.map(np.testing.assert_array_equal, both(x, w, f"{PINNED} or auto"), both(x, w, "xla"))


def test_batched_over_images_and_over_kernels():
    g = BY_NAME["causal"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = functools.partial(jaxdil.conv, **g.options, method=PINNED)
    ys = jax.vmap(conv, (0, None))(np.stack([x, 2 * x]), w)
    zs = jax.vmap(conv, (None, 0))(x, np.stack([w, -w]))
    for y, factor in [(ys[0], 1), (ys[1], 0.5), (zs[0], 1), (zs[1], -1)]:
        judge(y * factor, "forward", g, np.float32)


@pytest.mark.parametrize(
    "name", ["same", "eight together", "ahead", "stride larger than the kernel"]
)
def test_nothing_is_read_that_was_not_written(name):
    """A simulated memory full of NaN: what is read outside of an array or of a copy shows."""
    g = BY_NAME[name]
    x, w, c = operands(g, np.dtype(np.float32))
    forward, gradient = problems(g)
    plan = plan_3d.plan_of(forward)
    there = (0, *(1 + axis for axis in plan.order), 4)
    back = (0, *(1 + plan.order.index(axis) for axis in range(3)), 4)
    w = w.reshape(*w.shape[:3], -1).transpose(*plan.order, 3)
    how = {"dtype": np.float32, "interpret": SIMULATED}
    x, c = x.transpose(there), c.transpose(there)
    y = tpu_3d.convolution(x, w, plan, **how)
    judge(y.transpose(back), "forward", g, np.float32)
    plan = plan_3d.plan_of(gradient)
    dw = sure(*tpu_3d_gradient.kernel_gradient(x, c, plan, **how))
    dw = dw.transpose([plan.order.index(axis) for axis in range(3)] + [3])
    judge(dw.reshape(g.w_shape), "kernel gradient", g, np.float32)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "because"),
    [
        ((1, 5, 9, 9, 4), (3, 3, 3, 2, 4), {"groups": 2}, "2 channels a group"),
        ((1, 5, 9, 9, 4), (3, 3, 3, 1, 8), {"groups": 4}, "2 outputs a channel"),
        ((1, 5, 300, 304, 2), (3, 3, 3, 1, 2), {"groups": 2}, "bytes of planes in the memory"),
        ((1, 5, 8, 8, 2), (3, 3, 3, 1, 2), {"groups": 2, "padding": 3}, "padding 3 of planes"),
        ((1, 3, 3, 3, 3, 2), (2, 2, 2, 2, 1, 2), {"groups": 2}, "4 spatial axes"),
    ],
)
def test_what_is_refused_is_told_why(x, w, options, because):
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    with pytest.raises(jaxdil.MethodError, match=because):
        jax.eval_shape(functools.partial(jaxdil.conv, **options, method=PINNED), x, w)


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "because"),
    [
        ((1, 5, 8, 8, 2), (3, 3, 3, 1, 2), {"input_dilation": 2}, "with the input dilated"),
        ((1, 5, 8, 40, 2), (1, 1, 26, 1, 2), {}, "of 26 taps an axis"),
    ],
)
def test_kernel_gradients_that_are_refused(x, w, options, because):
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    y = jax.eval_shape(functools.partial(jaxdil.conv, groups=2, **options), x, w)
    gradient = functools.partial(
        jaxdil.conv_kernel_grad, kernel_shape=w.shape, groups=2, **options, method=PINNED
    )
    with pytest.raises(jaxdil.MethodError, match=because):
        jax.eval_shape(gradient, x, y)


@pytest.mark.core
def test_other_dtypes_are_refused():
    x, w = (jax.ShapeDtypeStruct(s, np.float16) for s in ((1, 5, 8, 8, 2), (3, 3, 3, 1, 2)))
    with pytest.raises(jaxdil.MethodError, match="float16, and it serves float32 and bfloat16"):
        jax.eval_shape(functools.partial(jaxdil.conv, groups=2, method=PINNED), x, w)
