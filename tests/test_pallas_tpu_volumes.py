"""The kernel of dense volumes for a TPU, interpreted: results, gradients, memory, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import geometry, judge, operands
from kernels import PINNED, judge_simulated, problems
from test_pallas_tpu_2d import check, each

import jaxdil
from benchmarks.case import function, shapes
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS
from jaxdil._pallas import plan_volumes
from jaxdil._pallas.asked import MOST_PRODUCTS
from jaxdil._pallas.plan_2d import MEMORY

# Planes that come late and stay long, each axis in the sublanes, columns that are joined (of 16
# channels and more) and that lie across, strides and rates of every axis.
VOLUMES = (
    geometry("same", (4, 5, 16), (3, 3, 3), channels=(16, 5), batch=1, pad=(1, 1)),
    geometry("few channels", (5, 6, 7), (3, 2, 3), channels=(3, 4), pad=(1, 1)),
    geometry("planes in the sublanes", (8, 5, 6), (3, 3, 2), channels=(5, 3), batch=1, pad=(1, 1)),
    geometry("rows in the sublanes", (3, 8, 5), (3, 3, 3), channels=(4, 8), batch=1, pad=(1, 1)),
    geometry(
        "stride and dilation",
        (7, 9, 16),
        (2, 3, 2),
        channels=(16, 4),
        batch=3,
        s=(2, 1, 3),
        d=(2, 1, 2),
        pad=(2, 3),
    ),
    geometry("joined in turns", (3, 4, 32), (2, 3, 3), channels=(32, 16), batch=1, d=2, pad=(2, 1)),
    geometry("more than the lanes", (3, 4, 16), (2, 2, 3), channels=(64, 48), batch=1, pad=(1, 1)),
    geometry("causal", (6, 5, 5), (3, 3, 3), channels=(3, 2), pad=((2, 0), (1, 1), (1, 1))),
    geometry("ahead", (6, 5, 5), (3, 3, 3), channels=(3, 2), batch=1, pad=((0, 4), (1, 1), (1, 1))),
    geometry(
        "stride larger than the kernel",
        (8, 5, 6),
        (2, 1, 2),
        channels=(2, 3),
        batch=1,
        s=(3, 2, 1),
    ),
    geometry("blocks of outputs", (3, 4, 4), (2, 2, 2), channels=(2, 640), batch=2, pad=(1, 0)),
    geometry("across", (3, 2, 128), (2, 2, 3), channels=(16, 8), batch=1, pad=(1, 1)),
    geometry("one line of taps", (6, 5, 7), (3, 1, 1), channels=(144, 8), batch=1, pad=(1, 1)),
    geometry("one output", (4, 3, 8), (3, 3, 3), channels=(4, 1), batch=1, pad=(1, 1)),
)
TRANSPOSED = (
    geometry("transposed", (3, 4, 16), (3, 3, 3), channels=(16, 4), batch=1, a=2, pad=(1, 2)),
    geometry("transposed, few", (3, 4, 5), (4, 2, 3), channels=(2, 3), a=(2, 1, 3), pad=(2, 2)),
    geometry(
        "transposed and dilated",
        (4, 3, 12),
        (2, 3, 2),
        channels=(16, 3),
        batch=1,
        a=2,
        d=(2, 1, 3),
        pad=(3, 2),
    ),
)
BY_NAME = {g.name: g for g in (*VOLUMES, *TRANSPOSED)}
CORE = ("same", "few channels", "transposed")


@each(VOLUMES, core=CORE)
def test_forward_and_input_gradient(g):
    check(g, np.float32, by_kernel=False)


@each(TRANSPOSED, core=CORE)
def test_transposed_convolutions_phase_by_phase(g):
    check(g, np.float32, by_input=False, by_kernel=False)


@each([BY_NAME[name] for name in ("same", "joined in turns", "transposed")], core=())
def test_half_precision_adds_up_in_single(g):
    check(g, jnp.bfloat16, by_input=g not in TRANSPOSED, by_kernel=False)


def plan(name):
    return plan_volumes.plan_of(problems(BY_NAME[name])[0])


@pytest.mark.core
def test_columns_are_joined_where_their_channels_are_few_and_whole_registers():
    assert plan("same").plane.apart == 1
    assert plan("more than the lanes").plane.apart == 1
    assert plan("joined in turns").plane.apart == 2
    assert plan("transposed").plane.apart == 1
    assert plan("few channels").plane.apart == 0
    assert {plan(g.name).order for g in VOLUMES} == {(0, 1, 2), (0, 2, 1), (1, 2, 0)}
    assert plan("across").plane.across == (True, True)


def test_second_derivatives():
    g = geometry("second", (3, 4, 8), (2, 2, 2), channels=(16, 3), batch=1, pad=(1, 0))
    x, w, _ = operands(g, np.dtype(np.float32))

    def of_gradients(x, w, method):
        def loss(x, w):
            return (jaxdil.conv(x, w, **g.options, method=method) ** 2).sum()

        dx, dw = jax.grad(loss, (0, 1))(x, w)
        return (dx * x[:, ::-1]).sum() + (dw * w[::-1]).sum()

    both = jax.jit(jax.grad(of_gradients, (0, 1)), static_argnums=2)
    for found, wanted in zip(both(x, w, f"{PINNED} or auto"), both(x, w, "xla"), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_batched_over_images_and_over_kernels():
    g = BY_NAME["same"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = functools.partial(jaxdil.conv, **g.options, method=PINNED)
    ys = jax.vmap(conv, (0, None))(np.stack([x, 2 * x]), w)
    zs = jax.vmap(conv, (None, 0))(x, np.stack([w, -w]))
    for y, factor in [(ys[0], 1), (ys[1], 0.5), (zs[0], 1), (zs[1], -1)]:
        judge(y * factor, "forward", g, np.float32)


@pytest.mark.parametrize(
    "name", ["same", "few channels", "ahead", "stride larger than the kernel", "transposed"]
)
def test_nothing_is_read_that_was_not_written(name):
    judge_simulated(BY_NAME[name], forward="dense_volumes")


@pytest.mark.core
def test_every_plan_fits():
    plans = 0
    for case in CASES:
        held = shapes(case)
        if case.groups > 1 or len(held["x"].shape) < 5:
            continue
        for mode in ("fwd", "dx"):
            args = [held[name] for name in ARGUMENTS[mode]]
            explained = jaxdil.explain(function(case, mode), platform="tpu", gradients=False)
            (row,) = explained(*args)
            plan = plan_volumes.plan_of(row.problem)
            assert plan.memory <= MEMORY
            assert plan.products <= MOST_PRODUCTS
            plans += 1
    assert plans >= 10


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "because"),
    [
        ((1, 9, 200, 200, 64), (3, 3, 3, 64, 64), {}, r"bytes of a block, of \d+, or"),
        ((1, 5, 8, 8, 4), (3, 3, 3, 4, 4), {"padding": 3}, "padding 3 of planes"),
        ((1, 5, 8, 8, 4), (3, 3, 3, 4, 4), {"precision": "high"}, "a precision of"),
        (
            (1, 5, 5, 8, 4),
            (1, 1, 2, 4, 4),
            {"padding": ((0, 0), (0, 0), (20, 20)), "dilation": (1, 1, 30)},
            "no tap meets a sample",
        ),
    ],
)
def test_what_is_refused_is_told_why(x, w, options, because):
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    with pytest.raises(jaxdil.MethodError, match=because):
        jax.eval_shape(functools.partial(jaxdil.conv, **options, method=PINNED), x, w)
