"""The kernels of groups for a TPU, interpreted: results, gradients, blocks, samples, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import geometry, judge, operands
from kernels import PINNED, judge_simulated, problems
from test_pallas_tpu_2d import check, check_second_derivatives, each

import jaxdil
from jaxdil._pallas import plan_groups, plan_groups_gradient


def grouped(name, size, kernel, groups, inner, outer, **options):
    """Groups of so many channels each."""
    channels = groups * inner, groups * outer
    return geometry(name, size, kernel, channels=channels, groups=groups, **options)


# One block and several, with and without registers that are all zeros; channels of a group that are
# no multiple of 8; columns in the lanes, and 2, 4 and 8 images in the sublanes.
BOTH = (
    grouped("same", (5, 8), (3, 3), 3, 3, 2, batch=1, pad=(1, 1)),
    grouped("blocks", (3, 8), (2, 2), 8, 32, 32, batch=1, pad=(1, 0)),
    grouped("blocks of one group", (3, 8), (2, 1), 2, 128, 128, batch=1, pad=(1, 0)),
    grouped("blocks, to more channels", (3, 8), (1, 3), 8, 32, 64, batch=1, pad=(0, 1)),
    grouped("registers of zeros", (3, 8), (2, 2), 10, 16, 16, batch=1, pad=(1, 0)),
    grouped("one tap", (4, 6), (1, 1), 3, 8, 5, batch=3),
    grouped("stride", (7, 9), (3, 3), 2, 3, 4, s=2, pad=(1, 1)),
    grouped("dilation", (10, 8), (3, 2), 2, 4, 3, d=(2, 3), pad=((2, 2), (0, 3))),
    grouped("stride and dilation", (9, 9), (2, 3), 2, 2, 3, s=(2, 3), d=(3, 2), pad=(3, 1)),
    grouped("two images", (4, 5), (3, 3), 2, 4, 4, batch=2, pad=(1, 1)),
    grouped("four images, rows strided", (7, 6), (3, 2), 2, 2, 3, batch=4, s=(2, 1), d=(1, 2)),
    grouped("eight images", (3, 5), (2, 3), 2, 4, 3, batch=8, pad=(1, 1)),
    grouped("sixteen images", (3, 7), (2, 3), 2, 2, 2, batch=16, pad=((0, 1), (1, 1))),
    grouped("negative padding", (6, 5), (3, 2), 2, 3, 2, batch=2, pad=((-1, 2), (1, -2))),
    grouped("a row", (21,), (4,), 2, 3, 5, d=2, pad=(6, 0)),
    grouped("a row, columns across", (150,), (3,), 4, 4, 2, pad=(1, 1)),
    grouped("a long row", (700,), (3,), 2, 2, 2, batch=1, s=2, pad=(1, 1)),
    grouped("a long row, two abreast", (141,), (2,), 2, 5, 3, batch=2, pad=(0, 1)),
)
TRANSPOSED = (
    grouped("transposed", (3, 4), (4, 3), 2, 3, 4, a=2, pad=(2, 2)),
    grouped("transposed, kernel < stride", (3, 4), (1, 2), 3, 3, 2, a=(2, 3), pad=(0, 1)),
    grouped("transposed, rows alone", (3, 5), (3, 2), 2, 4, 4, a=(2, 1), pad=(1, 1)),
    grouped("transposed row", (40,), (16,), 2, 2, 3, a=8, pad=(11, 11)),
)
BY_NAME = {g.name: g for g in (*BOTH, *TRANSPOSED)}


@each((*BOTH, *TRANSPOSED), core=("same", "blocks", "stride", "four images, rows strided"))
def test_results_and_both_gradients(g):
    check(g, np.float32)


@each([BY_NAME["blocks"], BY_NAME["two images"], BY_NAME["transposed"]], core=("two images",))
def test_half_precision_adds_up_in_single(g):
    check(g, jnp.bfloat16)


@pytest.mark.core
def test_images_lie_in_the_sublanes_where_columns_fill_them_less_well():
    for name, abreast in (
        ("same", 1),
        ("two images", 2),
        ("four images, rows strided", 4),
        ("sixteen images", 8),
        ("stride", 1),
        ("a long row, two abreast", 2),
    ):
        forward, gradient = problems(BY_NAME[name])
        assert plan_groups.plan_of(forward).dense.abreast == abreast
        assert plan_groups_gradient.plan_of(gradient).dense.image.abreast == abreast


@pytest.mark.core
@pytest.mark.parametrize(
    ("groups", "inner", "outer", "count"),
    [
        (32, 32, 32, 4),
        (32, 16, 32, 8),
        (10, 16, 16, 10),
        (3, 80, 20, 3),
        (2, 128, 256, 1),
        (2, 128, 64, 2),
        (4, 200, 200, None),
        (16, 48, 48, 8),
    ],
)
def test_groups_of_a_block_fill_registers(groups, inner, outer, count):
    assert plan_groups.joined(groups, inner, outer) == count


@pytest.mark.core
def test_channels_with_no_products_between_them_are_registers():
    assert plan_groups.tiles(10, 16, 16) == [
        (slice(0, 128), slice(0, 128)),
        (slice(128, 160), slice(128, 160)),
    ]
    assert plan_groups.tiles(3, 80, 20) == [(slice(0, 240), slice(0, 60))]


@pytest.fixture
def sliced(monkeypatch):
    """Images cut into single rows."""
    plans = plan_groups.plans_of
    monkeypatch.setattr(plan_groups, "plans_of", lambda problem: [plans(problem)[-1]])
    plan_groups._plan_of.cache_clear()
    yield
    plan_groups._plan_of.cache_clear()


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize(("batch", "columns"), [(3, 8), (4, 6), (16, 3)])
def test_images_of_one_tap_are_cut_by_rows(batch, columns):
    g = grouped("one tap", (6, columns), (1, 1), 2, 3, 4, batch=batch)
    assert plan_groups.plan_of(problems(g)[0]).slices == 6
    check(g, np.float32)


def test_preferred_element_type():
    g = BY_NAME["two images"]
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


# --- samples that are not finite ------------------------------------------------------------------


@pytest.mark.core
def test_a_special_weight_reaches_what_reads_it():
    g = BY_NAME["blocks"]
    x, w = (np.ones(shape, np.float32) for shape in (g.x_shape, g.w_shape))
    w[0, 1, 3, 40] = np.inf
    y = np.asarray(jaxdil.conv(x, w, **g.options, method=PINNED))
    assert np.isinf(y[..., 40]).any()
    assert np.isfinite(np.delete(y, 40, -1)).all()


def test_a_number_that_half_precision_rounds_to_infinity_counts_as_such():
    """Products round single precision to half, unless more is asked for."""
    g = BY_NAME["same"]
    largest = np.finfo(np.float32).max
    given, w, _ = operands(g, np.dtype(np.float32))
    x = given.copy()
    x[0, 2, 3, 1] = largest
    apart = jaxdil.conv(x, w, **g.options, method=PINNED)
    whole = jaxdil.conv(np.where(x == largest, 0, given), w, **g.options, method=PINNED)
    others = np.arange(g.y_shape[-1]) >= g.y_shape[-1] // g.groups
    np.testing.assert_array_equal(apart[..., others], whole[..., others])


# --- the memory on the chip -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["same", "blocks", "two images", "sixteen images", "transposed", "a row, columns across"],
)
def test_nothing_is_read_that_was_not_written(name):
    judge_simulated(BY_NAME[name], forward="grouped", gradient="grouped_gradient")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "groups", "options", "because"),
    [
        ((1, 200, 200, 128), (3, 3, 32, 128), 4, {}, r"bytes of a block, of \d+, or"),
        ((1, 16, 16, 512), (9, 9, 256, 512), 2, {}, r"products, of \d+"),
        ((1, 9, 9, 600), (3, 3, 200, 600), 3, {}, "no groups of up to 512 channels together"),
        ((1, 9, 9, 4), (3, 3, 2, 4), 2, {"precision": "high"}, "a precision of"),
        (
            (1, 9, 9, 4),
            (1, 2, 2, 4),
            2,
            {"padding": ((0, 0), (20, 20)), "dilation": (1, 30)},
            "no tap meets a sample",
        ),
    ],
)
def test_what_is_refused_is_told_why(x, w, groups, options, because):
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    conv = functools.partial(jaxdil.conv, groups=groups, method=PINNED, **options)
    with pytest.raises(jaxdil.MethodError, match=because):
        jax.eval_shape(conv, x, w)


@pytest.mark.core
def test_kernel_gradients_that_are_refused():
    def ask(g):
        x, c = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (g.x_shape, g.y_shape))
        gradient = functools.partial(
            jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **g.options, method=PINNED
        )
        jax.eval_shape(gradient, x, c)

    with pytest.raises(jaxdil.MethodError, match="the input dilated, and a stride or a dilation"):
        ask(grouped("both", (5, 4), (3, 2), 2, 2, 3, a=(2, 1), d=(1, 2), pad=(3, 2)))
    with pytest.raises(jaxdil.MethodError, match=r"bytes of a block, of \d+, or"):
        ask(grouped("large", (300, 300), (3, 3), 4, 32, 32, batch=1, pad=(1, 1)))
    with pytest.raises(jaxdil.MethodError, match="no groups of up to 512 channels together"):
        ask(grouped("wide", (5, 5), (3, 3), 3, 200, 200, pad=(1, 1)))
