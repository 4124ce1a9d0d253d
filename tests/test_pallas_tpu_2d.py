"""The kernels of images for a TPU, interpreted: results, gradients, blocks, memory, refusals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_input_grad, assert_kernel_grad
from geometries import geometry, judge, operands
from kernels import PINNED, SIMULATED, problems, sure

import jaxdil
from benchmarks.case import function, shapes
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS
from jaxdil._methods import load
from jaxdil._pallas import plan_2d


def depthwise(name, size, kernel, channels=3, **options):
    """A depthwise geometry."""
    return geometry(name, size, kernel, channels=(channels,) * 2, groups=channels, **options)


# Sizes that cross blocks of 8 rows, of 128 channels and of the images that lie together.
DEPTHWISE = (
    depthwise("same", (17, 11), (3, 3), channels=130, batch=1, pad=(1, 1)),
    depthwise("one column", (19, 5), (3, 1), batch=3, pad=((2, 0), (0, 0))),
    depthwise("even and uneven", (11, 9), (4, 2), batch=1, pad=((3, 1), (0, 2))),
    depthwise("stride", (18, 16), (3, 3), s=2, pad=((0, 1), (1, 1))),
    depthwise("dilation", (20, 9), (3, 2), batch=1, d=(4, 3), pad=((4, 4), (3, 0))),
    depthwise("stride and dilation", (23, 13), (3, 2), batch=1, s=(2, 3), d=(3, 2), pad=(3, 2)),
    depthwise("kernel larger than the image", (5, 4), (7, 6), batch=1, pad=((4, 3), (3, 5))),
    depthwise("dilation larger than the image", (5, 8), (3, 3), batch=1, d=9, pad=(9, 9)),
    depthwise("eight together", (9, 5), (2, 3), batch=16, pad=(1, 1)),
    depthwise("two together, stride", (10, 6), (3, 3), batch=2, s=2, pad=(1, 1)),
    depthwise("four together, many taps", (3, 5), (9, 8), batch=4, pad=(4, 4)),
)
# Images in the lanes, 16 channels in the sublanes; two blocks of images.
ACROSS = (
    depthwise("across", (9, 5), (3, 2), channels=16, batch=24, pad=(1, 1)),
    depthwise("across, stride", (7, 6), (3, 3), channels=8, batch=20, s=2, pad=(1, 1)),
    depthwise("across, two blocks", (3, 2), (2, 2), channels=8, batch=250, pad=(1, 0)),
    depthwise("across, many taps", (3, 4), (9, 8), channels=8, batch=40, pad=(4, 4)),
)
BY_NAME = {g.name: g for g in DEPTHWISE}
TRANSPOSED = (
    depthwise("transposed", (7, 5), (4, 3), batch=1, a=2, pad=((2, 3), (1, 2))),
    depthwise(
        "transposed, dilated", (9, 4), (3, 2), batch=1, a=(3, 2), d=(2, 3), s=(2, 1), pad=(4, 3)
    ),
    depthwise("transposed, four together", (9, 3), (2, 3), batch=4, a=(2, 3), pad=(1, 2)),
)


def each(geometries, core=()):
    """Parametrized by geometry; those named run with the oldest JAX too."""
    return pytest.mark.parametrize(
        "g",
        [
            pytest.param(
                g, id=g.name.replace(" ", "_"), marks=[pytest.mark.core] if g.name in core else []
            )
            for g in geometries
        ],
    )


@pytest.fixture
def most_blocks(monkeypatch):
    """The plan of the most blocks, in place of that of the fewest cycles."""

    def plan_of(problem):
        return max(plan_2d.plans_of(problem), key=lambda plan: (math.prod(plan.grid), plan.images))

    monkeypatch.setattr(plan_2d, "plan_of", plan_of)


def roles(g, *, by_input=True, by_kernel=True):
    """The function of (x, w, c) that computes each role by the kernels, and by nothing else."""
    options = {**g.options, "method": PINNED}

    def run(x, w, c):
        found = {"forward": jaxdil.conv(x, w, **options)}
        if by_input:
            dx = jaxdil.conv_input_grad(c, w, input_shape=g.x_shape, **options)
            found["input gradient"] = dx
        if by_kernel:
            dw = jaxdil.conv_kernel_grad(x, c, kernel_shape=g.w_shape, **options)
            found["kernel gradient"] = dw
        return found

    return run


def check(g, dtype, **options):
    """Fail unless the kernels give what the definition does."""
    dtype = jnp.dtype(dtype)
    for role, found in jax.jit(roles(g, **options))(*operands(g, dtype)).items():
        judge(found, role, g, dtype)


@each(DEPTHWISE, core=("same", "stride", "eight together"))
@pytest.mark.usefixtures("most_blocks")
def test_blocks(g):
    check(g, np.float32)


@each(ACROSS, core=("across",))
@pytest.mark.usefixtures("most_blocks")
def test_images_in_the_lanes(g):
    x = jax.ShapeDtypeStruct(g.x_shape, np.float32)
    conv = functools.partial(jaxdil.conv, **g.options)
    (row,) = jaxdil.explain(conv, platform="tpu", gradients=False)(x, np.ones(g.w_shape, x.dtype))
    assert plan_2d.lies_across(row.problem)
    assert plan_2d.plan_of(row.problem).crossed
    check(g, np.float32, by_kernel=False)
    check(g, jnp.bfloat16, by_kernel=False)


@each(TRANSPOSED, core=("transposed",))
@pytest.mark.usefixtures("most_blocks")
def test_transposed_convolutions_phase_by_phase(g):
    check(g, np.float32, by_kernel=False)


@each([BY_NAME["stride"], BY_NAME["eight together"]], core=("stride",))
def test_half_precision_adds_up_in_single(g):
    check(g, jnp.bfloat16)


def test_preferred_element_type():
    g = BY_NAME["two together, stride"]
    x, w, _ = operands(g, jnp.dtype(jnp.bfloat16))
    y = jaxdil.conv(x, w, **g.options, preferred_element_type=jnp.float32, method=PINNED)
    judge(y, "forward", g, jnp.bfloat16, jnp.float32)


def check_second_derivatives(g):
    """Of <c, conv(x, w)>, which is bilinear: the mixed one, by either order."""
    x, w, c = operands(g, np.dtype(np.float32))
    u, v = x[:, ::-1] * 2, w[::-1] * 3

    def value(x, w):
        return jnp.vdot(c, jaxdil.conv(x, w, **g.options, method=f"{PINNED} or auto"))

    @jax.jit
    def mixed(x, w):
        by_w = jax.grad(lambda w: jnp.vdot(u, jax.grad(value)(x, w)))(w)
        by_x = jax.grad(lambda x: jnp.vdot(v, jax.grad(value, 1)(x, w)))(x)
        return by_w, by_x

    by_w, by_x = mixed(x, w)
    assert_kernel_grad(by_w, u, c, kernel_shape=g.w_shape[:2], **g.window)
    assert_input_grad(by_x, c, v, input_shape=g.x_shape[1:3], **g.window)


@pytest.mark.usefixtures("most_blocks")
def test_second_derivatives():
    check_second_derivatives(depthwise("second", (10, 5), (3, 2), batch=1, s=(2, 1), pad=(1, 1)))


def test_batched_over_images_and_over_kernels():
    g = BY_NAME["even and uneven"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = functools.partial(jaxdil.conv, **g.options, method=PINNED)
    # Twice as much, and the negative of it: exact in binary.
    ys = jax.vmap(conv, (0, None))(np.stack([x, 2 * x]), w)
    zs = jax.vmap(conv, (None, 0))(x, np.stack([w, -w]))
    for y, factor in [(ys[0], 1), (ys[1], 0.5), (zs[0], 1), (zs[1], -1)]:
        judge(y * factor, "forward", g, np.float32)


# --- the memory on the chip -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "by_rows"), [("same", 1), ("eight together", 0)])
def test_nothing_is_read_that_was_not_written(name, by_rows):
    """A simulated memory full of NaN: what is read outside of an array or of a copy shows."""
    from jaxdil._pallas import tpu_2d, tpu_2d_gradient

    g = BY_NAME[name]
    x, w, c = operands(g, np.dtype(np.float32))
    how = {"dtype": np.float32, "interpret": SIMULATED}
    # One of the two by blocks of rows, the other by whole images.
    plans = [
        max(plan_2d.plans_of(problem), key=lambda plan: plan.blocks if i == by_rows else plan.tiles)
        for i, problem in enumerate(problems(g))
    ]
    assert [plan.blocks > 1 for plan in plans] == [by_rows == 0, by_rows == 1]
    y = tpu_2d.convolution(x, w.reshape(*w.shape[:2], -1), plans[0], **how)
    judge(y, "forward", g, np.float32)
    dw = sure(*tpu_2d_gradient.kernel_gradient(x, c, plans[1], **how))
    judge(dw.reshape(w.shape), "kernel gradient", g, np.float32)


DEPTHWISE_CASES = [
    case for case in CASES if case.family == "depthwise" and len(shapes(case)["x"].shape) == 4
]


@pytest.mark.core
def test_every_plan_fits_and_reads_an_image_little_more_than_once():
    served = 0
    for case in DEPTHWISE_CASES:
        held = shapes(case)
        for mode, names in ARGUMENTS.items():
            fn = function(case, mode)
            (row,) = jaxdil.explain(fn, platform="tpu", gradients=False)(
                *(held[name] for name in names)
            )
            if load(PINNED).supports(row.problem, "tpu"):
                continue
            served += 1
            plan = plan_2d.plan_of(row.problem)
            assert plan.memory <= plan_2d.MEMORY
            # Every channel, image and row is in one block, and nothing but the last may be beyond.
            channels, images, blocks = plan.grid
            assert channels * plan.tiles == plan.all_tiles
            assert images * plan.images * max(plan.together, 1) == plan.batch
            assert (blocks - 1) * plan.height < plan.rows.outputs <= blocks * plan.height
            assert blocks * plan.window <= 1.5 * plan.rows.size
    assert served > 50


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "because"),
    [
        ((1, 8, 200_000, 2), (3, 3, 1, 2), {"groups": 2}, "bytes of a block and its halo"),
    ],
)
def test_what_is_refused_is_told_why(x, w, options, because):
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    with pytest.raises(jaxdil.MethodError, match=because):
        jax.eval_shape(functools.partial(jaxdil.conv, **options, method=PINNED), x, w)


@pytest.mark.core
def test_kernel_gradients_that_are_refused():
    x, c = (jax.ShapeDtypeStruct((1, 40, 40, 2), np.float32),) * 2
    gradient = functools.partial(
        jaxdil.conv_kernel_grad, kernel_shape=(27, 1, 1, 2), groups=2, method=PINNED
    )
    with pytest.raises(jaxdil.MethodError, match="27 taps an axis, more than 25"):
        jax.eval_shape(gradient, x, c)
    g = TRANSPOSED[0]
    x, c = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (g.x_shape, g.y_shape))
    gradient = functools.partial(
        jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **g.options, method=PINNED
    )
    with pytest.raises(jaxdil.MethodError, match="a kernel gradient with the input dilated"):
        jax.eval_shape(gradient, x, c)


@pytest.mark.core
@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_dtypes_that_are_refused(dtype):
    g = BY_NAME["stride"]
    x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in (g.x_shape, g.w_shape))
    with pytest.raises(jaxdil.MethodError, match=f"{dtype}, and it serves float32 and bfloat16"):
        jax.eval_shape(functools.partial(jaxdil.conv, **g.options, method=PINNED), x, w)
