"""NaN and infinity in each kernel for a TPU, interpreted: they reach what reads them, and no more.

A sample reaches the outputs that read it, and in a kernel gradient the taps. A cotangent reaches
all taps there: those that meet only zeros around x as well, as zero times NaN is NaN. Zeros between
samples, and those around them then, nobody multiplies. lax on a CPU says the same, but of a
cotangent where it takes another convolution: of groups, and of few images.
"""

import functools
import math

import jax
import numpy as np
import pytest
from geometries import definition, geometry
from kernels import PINNED, problems
from test_pallas_tpu_2d import each

import jaxdil
from jaxdil._pallas import (
    plan_2d,
    plan_3d,
    plan_dense,
    plan_dense_gradient,
    plan_groups,
    plan_groups_gradient,
    plan_volumes,
    plan_volumes_gradient,
)


def grouped(name, size, kernel, groups, inner=1, outer=1, **options):
    """Groups of so many channels each."""
    channels = groups * inner, groups * outer
    return geometry(name, size, kernel, channels=channels, groups=groups, **options)


FAR = (5, 5), (0, 1), (1, 0)

ROWS = (
    grouped("row", (45,), (3,), 3, batch=1, d=2, pad=(3, 2)),
    grouped("row, turned", (140,), (3,), 16, pad=(2, 0)),
    grouped("rows, abreast", (45,), (3,), 128, batch=2, d=2, pad=(3, 2)),
)
IMAGES = (
    grouped("depthwise", (11, 9), (4, 2), 3, batch=1, pad=((3, 1), (0, 2))),
    grouped("depthwise, four together", (10, 5), (3, 2), 3, batch=4, s=2, pad=(1, 1)),
    grouped("depthwise, far apart", (5, 7), (3, 3), 3, batch=4, d=(1, 9), pad=((1, 1), (9, 9))),
    grouped("depthwise, transposed", (7, 5), (4, 3), 3, batch=1, a=2, pad=((2, 3), (1, 2))),
)
VOLUMES = (
    grouped("depthwise volume", (5, 4, 8), (3, 2, 3), 3, pad=((2, 0), (1, 1), (1, 1))),
    grouped("depthwise volume, far apart", (3, 4, 5), (3, 2, 3), 2, batch=4, d=(5, 1, 1), pad=FAR),
    geometry("volume, stays", (5, 6, 7), (2, 3, 2), channels=(4, 3), s=(2, 1, 2), pad=(1, 1)),
    geometry("volume, exchanged", (3, 8, 5), (2, 3, 2), channels=(3, 4), pad=(1, 1)),
    geometry("volume, joined", (3, 4, 16), (3, 2, 3), channels=(16, 5), batch=1, pad=(1, 1)),
    geometry("volume, far apart", (3, 4, 8), (3, 2, 3), channels=(3, 2), d=(5, 1, 1), pad=FAR),
    geometry("volume, transposed", (3, 4, 4), (3, 1, 2), channels=(3, 4), a=(2, 1, 2), pad=(1, 1)),
)
DENSE = (
    geometry("stays", (9, 8), (3, 3), channels=(4, 3), s=(2, 1), d=(1, 2), pad=(1, 2)),
    geometry("exchanged", (6, 7), (3, 3), channels=(3, 5), pad=(1, 1)),
    geometry("more padding than kernel", (5, 6), (3, 2), channels=(3, 5), pad=((3, 1), (0, 2))),
    geometry("far apart", (5, 6), (3, 3), channels=(3, 2), d=(6, 1), pad=((6, 6), (1, 1))),
    geometry("rows in strips", (11, 6), (3, 2), channels=(4, 3), d=(2, 1)),
    geometry("row, exchanged", (150,), (3,), channels=(8, 16), pad=(1, 1)),
    geometry("transposed", (5, 4), (4, 3), channels=(3, 4), a=2, pad=(2, 2)),
    geometry("transposed, kernel < stride", (3, 4), (1, 2), channels=(3, 2), a=(2, 3), pad=(0, 1)),
)
GROUPS = (
    grouped("groups", (5, 8), (3, 3), 3, 3, 2, batch=1, pad=(1, 1)),
    grouped("groups, blocks", (3, 8), (2, 2), 8, 32, 32, batch=1, pad=(1, 0)),
    grouped("groups, two images", (4, 5), (3, 2), 2, 4, 3, batch=2, pad=((1, 1), (1, 0))),
    grouped("groups, strided", (9, 11), (3, 3), 2, 3, 4, s=2, pad=(1, 1)),
    grouped("groups, far apart", (4, 8), (3, 2), 2, 3, 3, batch=1, d=(6, 1), pad=((6, 6), (1, 0))),
    grouped("groups, transposed", (5, 4), (4, 3), 2, 3, 4, a=2, pad=(2, 2)),
)
ALL = (*ROWS, *IMAGES, *VOLUMES, *DENSE, *GROUPS)
BY_NAME = {g.name: g for g in ALL}


@pytest.fixture
def small(monkeypatch):
    """As many blocks as there may be: what lies at their borders is nobody else's."""
    monkeypatch.setattr(plan_dense, "MOST_ROWS", 16)
    monkeypatch.setattr(plan_dense_gradient, "STRIP", 32)
    plans = plan_2d.plans_of
    most = lambda problem: max(plans(problem), key=lambda plan: math.prod(plan.grid))  # noqa: E731
    monkeypatch.setattr(plan_2d, "plan_of", most)
    forget()
    yield
    forget()


def forget():
    """No plan is remembered."""
    for planner in (plan_dense, plan_groups, plan_volumes):
        planner._plan_of.cache_clear()
    for planner in (plan_dense_gradient, plan_groups_gradient, plan_volumes_gradient):
        planner.plan_of.cache_clear()


def places(shape):
    """The first sample, the last, one at an edge and one in the middle."""
    middle = tuple(n // 2 for n in shape[1:-1])
    yield (0,) * len(shape)
    yield tuple(n - 1 for n in shape)
    yield (0, *middle[:-1], shape[-2] - 1, 0)
    yield (shape[0] - 1, *middle, shape[-1] - 1)


def roles(g):
    """By role the two arrays it is of, and the function; a gradient by the input, where strided.

    Elsewhere it is a convolution of the same kind.
    """
    options = {**g.options, "method": PINNED}
    by_kernel = functools.partial(jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **options)
    found = {
        "forward": ("xw", functools.partial(jaxdil.conv, **options)),
        "kernel gradient": ("xc", by_kernel),
    }
    if max(g.stride) > 1:
        by_input = functools.partial(jaxdil.conv_input_grad, input_shape=g.x_shape, **options)
        found["input gradient"] = ("cw", by_input)
    return found


def reached(g, role, name, arrays, at):
    """What an element of an array reaches."""
    if role == "kernel gradient" and name == "c" and max(g.input_dilation) == 1:
        return np.broadcast_to(np.arange(g.w_shape[-1]) == at[-1], g.w_shape)
    spike = np.zeros_like(arrays[name])
    spike[at] = 1
    return definition(role, g, *({**arrays, name: spike}[each] for each in "xwc")) > 0


@each(ALL, core=("depthwise", "exchanged", "groups", "transposed"))
@pytest.mark.usefixtures("small", "short_rows")
def test_special_samples_reach_what_they_reach_in_lax(g):
    shapes = {"x": g.x_shape, "w": g.w_shape, "c": g.y_shape}
    draw = np.random.default_rng(0).integers
    arrays = {name: draw(1, 4, shape).astype(np.float32) for name, shape in shapes.items()}
    served = 0
    for role, (names, function) in roles(g).items():
        try:
            jax.eval_shape(function, *(arrays[name] for name in names))
        except jaxdil.MethodError:
            continue
        served += 1
        run = jax.jit(function)
        clean = np.asarray(run(*(arrays[each] for each in names)))
        for name in names.replace("w", ""):
            for at in places(shapes[name]):
                want = reached(g, role, name, arrays, at)
                for value in (np.nan, np.inf):
                    given = {**arrays, name: arrays[name].copy()}
                    given[name][at] = value
                    got = np.asarray(run(*(given[each] for each in names)))
                    said = f"{role}, {value} in {name} at {at}"
                    np.testing.assert_array_equal(~np.isfinite(got), want, err_msg=said)
                    np.testing.assert_array_equal(got[~want], clean[~want], err_msg=said)
                    # Zero times infinity is NaN, so that this one may be either.
                    if np.isnan(value) or role != "kernel gradient":
                        np.testing.assert_array_equal(np.isnan(got), want & np.isnan(value), said)
    assert served


@pytest.mark.core
@pytest.mark.parametrize("name", ["stays", "exchanged", "far apart", "transposed"])
def test_lax_says_the_same_of_kernel_gradients(name):
    g = BY_NAME[name]
    by_lax = functools.partial(
        jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **g.options, method="xla"
    )
    arrays = {"x": np.ones(g.x_shape, np.float32), "c": np.ones(g.y_shape, np.float32)}
    arrays["w"] = None
    for special in "xc":
        for at in places(arrays[special].shape):
            given = {**arrays, special: arrays[special].copy()}
            given[special][at] = np.nan
            want = reached(g, "kernel gradient", special, arrays, at)
            np.testing.assert_array_equal(np.isnan(by_lax(given["x"], given["c"])), want)


@pytest.mark.core
def test_only_a_gradient_that_multiplies_other_zeros_is_in_doubt():
    planners = {
        plan_2d: IMAGES[:3],
        plan_3d: VOLUMES[:2],
        plan_volumes_gradient: VOLUMES[2:],
        plan_dense_gradient: DENSE,
        plan_groups_gradient: GROUPS,
    }
    doubted = set()
    for planner, geometries in planners.items():
        for g in geometries:
            plan = planner.plan_of(problems(g)[1])
            doubted |= {g.name} if getattr(plan, "dense", plan).doubted else set()
    assert {name for name in BY_NAME if "far apart" in name or "exchanged" in name} <= doubted
    assert {"transposed", "volume, transposed", "groups", "groups, transposed"} <= doubted
    sure = {"depthwise", "depthwise, four together", "depthwise volume", "volume, stays", "stays"}
    assert not doubted & {*sure, "more padding than kernel", "groups, strided"}
