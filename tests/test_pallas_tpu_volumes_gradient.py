"""The kernel of a dense kernel gradient of volumes for a TPU, interpreted: results and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import geometry, judge, operands
from kernels import PINNED, judge_simulated, problems
from test_pallas_tpu_2d import each

import jaxdil
from benchmarks.case import function, shapes
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS
from jaxdil._methods import load
from jaxdil._pallas import plan_dense_gradient, plan_volumes_gradient

# Each axis in the sublanes, strides and rates of every axis, planes that come late and stay long,
# channels side by side in the lanes and across them, several examples in a block.
VOLUMES = (
    geometry("same", (5, 6, 7), (3, 3, 3), channels=(5, 7), pad=(1, 1)),
    geometry("side by side", (4, 5, 8), (3, 2, 3), channels=(48, 32), batch=1, pad=(1, 1)),
    geometry("rows in the sublanes", (3, 8, 5), (2, 3, 2), channels=(3, 4), batch=1, pad=(1, 1)),
    geometry("planes in the sublanes", (8, 5, 6), (3, 2, 3), channels=(3, 2), batch=1, pad=(1, 1)),
    geometry("stride", (7, 6, 8), (3, 3, 3), channels=(3, 4), s=2, pad=(1, 1)),
    geometry(
        "stride and dilation",
        (9, 7, 8),
        (2, 3, 2),
        channels=(4, 3),
        s=(2, 1, 3),
        d=(3, 2, 1),
        pad=(2, 2),
    ),
    geometry("stride larger than the kernel", (8, 5, 6), (2, 1, 2), channels=(2, 3), s=(3, 2, 1)),
    geometry(
        "causal", (6, 5, 5), (3, 3, 3), channels=(2, 2), batch=3, pad=((2, 0), (1, 1), (1, 1))
    ),
    geometry("ahead", (6, 5, 5), (3, 3, 3), channels=(2, 2), pad=((0, 2), (1, 1), (1, 1))),
    geometry("one tap along the planes", (4, 6, 5), (1, 3, 3), channels=(3, 2), batch=4),
    geometry(
        "taps along the planes alone",
        (6, 4, 5),
        (3, 1, 1),
        channels=(16, 3),
        pad=((1, 1), (0, 0), (0, 0)),
    ),
    geometry("several tiles", (3, 4, 8), (2, 2, 2), channels=(130, 129), batch=1),
    geometry("blocks of channels", (3, 4, 4), (2, 2, 2), channels=(640, 2), batch=2, s=(1, 2, 1)),
    geometry("columns across", (3, 4, 150), (2, 2, 3), channels=(16, 8), batch=1, pad=(1, 1)),
    geometry("transposed", (3, 3, 4), (4, 3, 2), channels=(3, 4), a=2, pad=(2, 2)),
    geometry(
        "transposed, spread planes", (4, 5, 4), (3, 3, 2), channels=(2, 3), a=(3, 1, 2), pad=(2, 1)
    ),
)
BY_NAME = {g.name: g for g in VOLUMES}


def gradient(g, method=PINNED, **options):
    """The kernel gradient of a geometry."""
    return functools.partial(
        jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **g.options, method=method, **options
    )


def check(g, dtype):
    """Fail unless the kernel gives what the definition does."""
    x, _, c = operands(g, jnp.dtype(dtype))
    judge(jax.jit(gradient(g))(x, c), "kernel gradient", g, dtype)


@each(VOLUMES, core=("same", "stride", "transposed"))
def test_kernel_gradient(g):
    check(g, np.float32)


@each([BY_NAME[name] for name in ("side by side", "stride", "transposed")], core=("stride",))
def test_half_precision_adds_up_in_single(g):
    check(g, jnp.bfloat16)


@pytest.fixture
def small(monkeypatch):
    """Blocks of one example and of few channels, in short strips."""
    monkeypatch.setattr(plan_dense_gradient, "STRIP", 32)
    plans = plan_volumes_gradient._plans

    def smallest(problem):
        by_size = lambda plan: (plan.plane.wide, plan.plane.image.images)  # noqa: E731
        return [min(plans(problem), key=by_size)]

    monkeypatch.setattr(plan_volumes_gradient, "_plans", smallest)
    plan_volumes_gradient.plan_of.cache_clear()
    yield
    plan_volumes_gradient.plan_of.cache_clear()


@each([BY_NAME[name] for name in ("stride", "blocks of channels", "transposed")])
@pytest.mark.usefixtures("small")
def test_many_blocks(g):
    check(g, np.float32)


def test_each_order_of_axes_is_taken():
    orders = {plan_volumes_gradient.plan_of(problems(g)[1]).order for g in VOLUMES}
    assert orders == {(0, 1, 2), (0, 2, 1), (1, 2, 0)}


def test_preferred_element_type():
    g = BY_NAME["stride"]
    x, _, c = operands(g, jnp.dtype(jnp.bfloat16))
    dw = gradient(g, preferred_element_type=jnp.float32)(x, c)
    judge(dw, "kernel gradient", g, jnp.bfloat16, jnp.float32)


def test_second_derivatives():
    g = geometry("second", (5, 4, 6), (2, 2, 3), channels=(3, 2), s=(2, 1, 2), pad=(1, 1))
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-3, 4, shape).astype(np.float32) for shape in (g.x_shape, g.w_shape))

    def of_gradients(x, w, method):
        def loss(x, w):
            return (jaxdil.conv(x, w, **g.options, method=method) ** 2).sum()

        dx, dw = jax.grad(loss, (0, 1))(x, w)
        return (dx * x[:, ::-1]).sum() + (dw * w[::-1]).sum()

    both = jax.jit(jax.grad(of_gradients, (0, 1)), static_argnums=2)
    jax.tree.map(np.testing.assert_array_equal, both(x, w, f"{PINNED} or auto"), both(x, w, "xla"))


def test_batched_over_images():
    g = BY_NAME["causal"]
    x, _, c = operands(g, np.dtype(np.float32))
    dws = jax.vmap(gradient(g), (0, None))(np.stack([x, 2 * x]), c)
    for dw, factor in zip(dws, (1, 0.5), strict=True):
        judge(dw * factor, "kernel gradient", g, np.float32)


@pytest.mark.parametrize("name", ["same", "stride larger than the kernel", "ahead", "transposed"])
def test_nothing_is_read_that_was_not_written(name):
    judge_simulated(BY_NAME[name], gradient="dense_gradient")


@pytest.mark.core
def test_every_plan_fits_and_reads_an_array_once():
    plans = 0
    for case in CASES:
        held = shapes(case)
        if case.groups > 1 or len(held["x"].shape) != 5:
            continue
        fn, args = function(case, "dw"), [held[name] for name in ARGUMENTS["dw"]]
        (row,) = jaxdil.explain(fn, platform="tpu", gradients=False)(*args)
        if load(PINNED).supports(row.problem, "tpu"):
            continue
        plan = plan_volumes_gradient.plan_of(row.problem)
        assert plan.memory <= plan_dense_gradient.MEMORY
        assert plan.plane.image.batch % plan.plane.image.images == 0
        assert plan.plane.still % plan.plane.wide == 0
        assert plan.grid[2] <= plan.planes.size + plan.planes.outputs
        plans += 1
    assert plans >= 4


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("g", "because"),
    [
        (
            geometry("both", (5, 4, 4), (2, 2, 2), channels=(2, 3), a=2, s=(2, 1, 1)),
            "the input dilated, and a stride or a dilation",
        ),
        (
            geometry("far", (5, 4, 4), (2, 2, 2), channels=(2, 3), s=4, pad=(8, 8)),
            "padding 8 of planes",
        ),
        (
            geometry("large", (9, 200, 200), (3, 3, 3), channels=(64, 64), batch=1, pad=(1, 1)),
            r"bytes of a block, of \d+, or",
        ),
    ],
)
def test_what_is_refused_is_told_why(g, because):
    x, c = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (g.x_shape, g.y_shape))
    with pytest.raises(jaxdil.MethodError, match=because):
        jax.eval_shape(gradient(g), x, c)
