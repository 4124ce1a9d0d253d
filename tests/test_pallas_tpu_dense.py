"""The dense kernels for a TPU, interpreted: results, gradients, blocks, memory, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import geometry, judge, operands
from jax import lax
from kernels import PINNED, judge_simulated, problems
from test_pallas_tpu_2d import check, check_second_derivatives, each

import jaxdil
from benchmarks.case import function, shapes
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS
from jaxdil import _layout
from jaxdil._methods import load
from jaxdil._pallas import plan_dense, plan_dense_gradient

# Whose two gradients the kernels serve as well: images and rows; blocks of 512 outputs and of
# images, channels side by side in the lanes and across them, strips of positions, steps of all
# kinds.
DENSE = (
    geometry("same", (9, 11), (3, 3), channels=(5, 7), pad=(1, 1)),
    geometry("stride", (9, 11), (3, 3), channels=(3, 4), s=2, pad=(1, 1)),
    geometry("dilation", (12, 10), (3, 2), channels=(4, 3), d=(2, 3), pad=((2, 2), (0, 3))),
    geometry(
        "stride and dilation", (17, 13), (3, 3), channels=(4, 3), s=(2, 3), d=(3, 2), pad=(3, 1)
    ),
    geometry("one tap", (6, 8), (1, 1), channels=(8, 16), batch=3),
    geometry("side by side", (6, 8), (2, 3), channels=(48, 32), batch=1, pad=(1, 1)),
    geometry("several tiles", (5, 8), (2, 2), channels=(130, 129), batch=1, pad=((1, 0), (0, 1))),
    geometry("blocks of outputs", (4, 4), (2, 2), channels=(2, 640), batch=2, pad=(1, 0)),
    geometry("rows in strips", (24, 40), (2, 2), channels=(2, 3), batch=2, pad=(1, 0)),
    geometry(
        "taps in the padding alone", (5, 6), (3, 3), channels=(3, 2), d=(6, 1), pad=((6, 6), (1, 1))
    ),
    geometry("a row", (21,), (4,), channels=(3, 5), d=2, pad=(6, 0)),
    geometry("a row, columns across", (150,), (3,), channels=(16, 8), pad=(1, 1)),
    geometry("a long row", (700,), (3,), channels=(2, 2), batch=1, s=2, pad=(1, 1)),
    geometry("a row in strips", (1300,), (2,), channels=(2, 2), batch=1, pad=(0, 1)),
    geometry("negative padding", (9, 8), (3, 2), channels=(3, 2), pad=((-1, 2), (1, -2))),
)
# What is one sum for each phase, and no kernel gradient of a dilated input.
TRANSPOSED = (
    geometry("transposed", (3, 4), (4, 3), channels=(3, 4), a=2, pad=(2, 2)),
    geometry("transposed, kernel < stride", (3, 4), (1, 2), channels=(3, 2), a=(2, 3), pad=(0, 1)),
    geometry(
        "transposed, side by side", (4, 6), (3, 4), channels=(32, 16), batch=1, a=2, pad=(1, 2)
    ),
    geometry("transposed row", (40,), (16,), channels=(2, 3), a=8, pad=(11, 11)),
    geometry("transposed, cropped", (6, 5), (3, 3), channels=(2, 3), a=3, pad=(-2, -4)),
)
BOTH = (
    geometry(
        "transposed and dilated", (5, 4), (3, 2), channels=(2, 3), a=(2, 1), d=(1, 2), pad=(3, 2)
    ),
    geometry(
        "transposed and strided", (7, 9), (3, 3), channels=(3, 2), a=(2, 1), s=(3, 2), pad=(3, 2)
    ),
)
BY_NAME = {g.name: g for g in (*DENSE, *TRANSPOSED, *BOTH)}


@each((*DENSE, *TRANSPOSED), core=("same", "stride", "side by side", "a row", "transposed"))
def test_results_and_both_gradients(g):
    check(g, np.float32)


@each(BOTH, core=())
def test_gradients_that_another_method_takes(g):
    check(g, np.float32, by_kernel=False)


@pytest.fixture
def small(monkeypatch):
    """Blocks of one image and 128 channels, products of few rows, and short strips."""
    monkeypatch.setattr(plan_dense, "MOST_ROWS", 16)
    monkeypatch.setattr(plan_dense_gradient, "STRIP", 32)
    for module in (plan_dense, plan_dense_gradient):
        plans = module.plans_of

        def smallest(problem, plans=plans, **which):
            return [min(plans(problem, **which), key=lambda plan: (plan.wide, images_of(plan)))]

        monkeypatch.setattr(module, "plans_of", smallest)
    forget()
    yield
    forget()


def forget():
    """No plan is remembered."""
    plan_dense._plan_of.cache_clear()
    plan_dense_gradient.plan_of.cache_clear()


def images_of(plan):
    """Images in a block of a plan of either kind."""
    return getattr(plan, "image", plan).images if hasattr(plan, "strip") else plan.images


@each(
    [
        BY_NAME[name]
        for name in (
            "same",
            "stride",
            "blocks of outputs",
            "rows in strips",
            "transposed",
            "a row in strips",
        )
    ],
    core=("same",),
)
@pytest.mark.usefixtures("small")
def test_many_blocks(g):
    check(g, np.float32)


@each([BY_NAME["side by side"], BY_NAME["transposed"], BY_NAME["a long row"]], core=("transposed",))
def test_half_precision_adds_up_in_single(g):
    check(g, jnp.bfloat16)


def test_preferred_element_type():
    g = BY_NAME["stride"]
    x, w, _ = operands(g, jnp.dtype(jnp.bfloat16))
    y = jaxdil.conv(x, w, **g.options, preferred_element_type=jnp.float32, method=PINNED)
    judge(y, "forward", g, jnp.bfloat16, jnp.float32)


def test_second_derivatives():
    check_second_derivatives(BY_NAME["stride"])


def test_batched_over_images_and_over_kernels():
    g = BY_NAME["same"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = functools.partial(jaxdil.conv, **g.options, method=PINNED)
    # Twice as much, and the negative of it: exact in binary.
    ys = jax.vmap(conv, (0, None))(np.stack([x, 2 * x]), w)
    zs = jax.vmap(conv, (None, 0))(x, np.stack([w, -w]))
    for y, factor in [(ys[0], 1), (ys[1], 0.5), (zs[0], 1), (zs[1], -1)]:
        judge(y * factor, "forward", g, np.float32)


@pytest.mark.parametrize("numbers", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")])
def test_kernels_are_taken_as_they_lie(numbers):
    """By the order of its axes a kernel is most likely turned round, or not; both give the same."""
    g = BY_NAME["transposed"]
    arrays = operands(g, np.dtype(np.float32))
    orders = [["NHWC".index(a) for a in numbers[0]], ["HWIO".index(a) for a in numbers[1]]]
    x, w, c = (np.transpose(a, orders[i]) for a, i in zip(arrays, (0, 1, 0), strict=True))

    def conv(x, w):
        window = g.stride, g.padding, g.input_dilation, g.dilation
        return lax.conv_general_dilated(x, w, *window, numbers)

    y, pullback = jax.vjp(jaxdil.accelerate(conv, method=f"{PINNED} or auto"), x, w)
    found = dict(
        zip(("forward", "input gradient", "kernel gradient"), (y, *pullback(c)), strict=True)
    )
    for role, array in found.items():
        judge(
            np.transpose(array, np.argsort(orders[role == "kernel gradient"])), role, g, np.float32
        )


@pytest.mark.core
@pytest.mark.parametrize(
    ("spec", "turned"),
    [
        ((3, 2, 0, 1), False),  # HWIO
        ((2, 3, 0, 1), True),  # HWOI
        ((0, 1, 2, 3), False),  # OIHW
        ((1, 0, 2, 3), True),  # IOHW
        ((2, 1, 0), False),
        ((0, 1, 2), False),
    ],
)
def test_which_kernels_are_most_likely_turned_round(spec, turned):
    assert _layout.is_turned(spec) is turned


@pytest.mark.core
def test_a_turned_kernel_makes_no_other_problem_but_another_plan():
    (problem, _) = problems(BY_NAME["side by side"])
    turned = problem.replace(turned=True)
    assert turned == problem
    assert hash(turned) == hash(problem)
    assert plan_dense.plan_of(turned).turned
    assert not plan_dense.plan_of(problem).turned


# --- the memory on the chip -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "same",
        "transposed",
        "a row, columns across",
        "rows in strips",
        "taps in the padding alone",
    ],
)
def test_nothing_is_read_that_was_not_written(name):
    judge_simulated(BY_NAME[name], forward="dense", gradient="dense_gradient")


def served():
    """Every plan of a dense layer of the benchmark."""
    for case in CASES:
        held = shapes(case)
        if case.groups > 1 or len(held["x"].shape) > 4:
            continue
        for mode, names in ARGUMENTS.items():
            fn, args = function(case, mode), [held[name] for name in names]
            (row,) = jaxdil.explain(fn, platform="tpu", gradients=False)(*args)
            if load(PINNED).supports(row.problem, "tpu") is None:
                yield row.problem, mode == "dw"


@pytest.mark.core
def test_every_plan_fits_and_reads_little_more_than_once():
    plans = 0
    for problem, gradient in served():
        plan = (plan_dense_gradient if gradient else plan_dense).plan_of(problem)
        assert plan.memory <= plan_dense.MEMORY
        image = plan.image if gradient else plan
        assert image.batch % image.images == 0
        assert image.out_channels % plan.wide == 0
        plans += 1
    assert plans > 60


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "because"),
    [
        ((1, 200, 200, 64), (3, 3, 64, 64), {}, r"bytes of a block, of \d+, or"),
        ((1, 16, 16, 512), (7, 7, 512, 128), {}, r"products, of \d+"),
        ((1, 9, 9, 4), (3, 3, 4, 4), {"precision": "high"}, "a precision of"),
        (
            (1, 9, 9, 4),
            (1, 2, 4, 4),
            {"padding": ((0, 0), (20, 20)), "dilation": (1, 30)},
            "no tap meets a sample",
        ),
    ],
)
def test_what_is_refused_is_told_why(x, w, options, because):
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    with pytest.raises(jaxdil.MethodError, match=because):
        jax.eval_shape(functools.partial(jaxdil.conv, **options, method=PINNED), x, w)


@pytest.mark.core
def test_two_dtypes_are_refused():
    supports = load(PINNED).supports
    for problem in problems(BY_NAME["same"]):
        assert supports(problem, "tpu") is None
        mixed = problem.replace(w_dtype=np.dtype(jnp.bfloat16))
        assert supports(mixed, "tpu") == "pallas_tpu: two dtypes at once"


@pytest.mark.core
def test_kernel_gradients_that_are_refused():
    def ask(g):
        x, c = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (g.x_shape, g.y_shape))
        gradient = functools.partial(
            jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **g.options, method=PINNED
        )
        jax.eval_shape(gradient, x, c)

    with pytest.raises(jaxdil.MethodError, match="the input dilated, and a stride or a dilation"):
        ask(BY_NAME["transposed and dilated"])
    with pytest.raises(jaxdil.MethodError, match=r"bytes of a block, of \d+, or"):
        ask(geometry("large", (300, 300), (3, 3), channels=(128, 128), batch=1, pad=(1, 1)))


@pytest.mark.core
@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_dtypes_that_are_refused(dtype):
    g = BY_NAME["same"]
    x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in (g.x_shape, g.w_shape))
    with pytest.raises(jaxdil.MethodError, match=f"{dtype}, and it serves float32 and bfloat16"):
        jax.eval_shape(functools.partial(jaxdil.conv, **g.options, method=PINNED), x, w)
