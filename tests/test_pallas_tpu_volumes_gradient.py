"""The kernel of a dense kernel gradient of volumes for a TPU, interpreted: results and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import definition, geometry, judge, operands
from jax.experimental.pallas import tpu as pltpu
from test_pallas_tpu_2d import each, problems

import jaxdil
from benchmarks.case import function, shapes
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS
from jaxdil._methods import load
from jaxdil._pallas import plan_dense_gradient, plan_volumes_gradient

PINNED = "pallas_tpu"

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
    geometry("transposed", (3, 4, 4), (4, 4, 4), channels=(3, 4), a=2, pad=(2, 2)),
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
