"""The checker lets honest results pass, and every planted fault fails; a part of the suite."""

import types

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import (
    assert_bilinear,
    assert_conv,
    assert_input_grad,
    assert_kernel_grad,
    assert_matches,
    budget,
)

from jaxdil import reference

GEOMETRY = {"stride": [1, 2], "dilation": [2, 1], "padding": [(2, 1), (0, 2)], "groups": 2}
FLOATS = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64, jnp.complex64, jnp.complex128]


def operands(dtype, x_shape=(2, 8, 9, 6), w_shape=(3, 3, 3, 8)):
    rng = np.random.default_rng(0)
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        ints = (rng.integers(info.min, info.max, s, endpoint=True) for s in (x_shape, w_shape))
        return tuple(jnp.asarray(v, dtype) for v in ints)
    x, w = (rng.standard_normal((2, *s)) for s in (x_shape, w_shape))
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return tuple(jnp.asarray(v[0] + 1j * v[1], dtype) for v in (x, w))
    return tuple(jnp.asarray(v[0], dtype) for v in (x, w))


def lax_conv(x, w, out_dtype=None):
    return jax.lax.conv_general_dilated(
        x,
        w,
        window_strides=GEOMETRY["stride"],
        padding=GEOMETRY["padding"],
        rhs_dilation=GEOMETRY["dilation"],
        feature_group_count=GEOMETRY["groups"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=out_dtype,
    )


# Honest results.


@pytest.mark.parametrize("dtype", [*FLOATS, jnp.int8, jnp.int32], ids=lambda d: d.__name__)
def test_honest_conv_passes(dtype):
    x, w = operands(dtype)
    assert_conv(lax_conv(x, w), x, w, **GEOMETRY)


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [(jnp.int8, jnp.int32), (jnp.bfloat16, jnp.float32), (jnp.float16, jnp.float32)],
)
def test_honest_wider_output_passes(dtype, out_dtype):
    x, w = operands(dtype)
    assert_conv(lax_conv(x, w, out_dtype), x, w, out_dtype=out_dtype, **GEOMETRY)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
def test_honest_gradients_pass(dtype):
    x, w = operands(dtype)
    y, pullback = jax.vjp(lax_conv, x, w)
    g = operands(dtype, y.shape)[0]
    dx, dw = pullback(g)
    assert_input_grad(dx, g, w, input_shape=x.shape[1:-1], **GEOMETRY)
    assert_kernel_grad(dw, x, g, kernel_shape=w.shape[:-2], **GEOMETRY)


def test_bfloat16_arithmetic_on_float32_data():
    # What a TPU does under default precision: operands rounded, sums in float32.
    x, w = operands(jnp.float32)
    rounded = (v.astype(jnp.bfloat16).astype(jnp.float32) for v in (x, w))
    y = lax_conv(*rounded)
    assert_conv(y, x, w, dtype=jnp.bfloat16, **GEOMETRY)
    with pytest.raises(AssertionError, match="rounding budget"):
        assert_conv(y, x, w, **GEOMETRY)


def test_any_bilinear_definition():
    x, w = operands(jnp.float32, (1, 7, 4), (3, 4, 2))
    y = reference.depthwise_conv(np.asarray(x), np.asarray(w), dilation=2).astype(np.float32)
    assert_bilinear(y, reference.depthwise_conv, x, w, terms=3, dilation=2)


def test_underflow_passes():
    # 1e-25 * 1e-25 is below float32's subnormals
    x, w = jnp.full((1, 3, 1), 1e-25, jnp.float32), jnp.full((3, 1, 1), 1e-25, jnp.float32)
    assert_conv(jnp.zeros((1, 1, 1), jnp.float32), x, w)


def test_empty_passes():
    x, w = jnp.zeros((1, 2, 3), jnp.float32), jnp.zeros((5, 3, 4), jnp.float32)
    assert_conv(jnp.zeros((1, 0, 4), jnp.float32), x, w)


# Planted faults.


def one_element_off(y):
    worst = np.unravel_index(np.abs(y).argmax(), y.shape)
    return y.at[worst].multiply(np.float32(1 + 1e-4))


def drop_last_group(y):
    return y.at[..., y.shape[-1] // 2 :].set(0)


VALUE_FAULTS = {
    "shift_by_one": lambda y: jnp.roll(y, 1, axis=1),
    "drop_last_group": drop_last_group,
    "round_to_bf16": lambda y: y.astype(jnp.bfloat16).astype(y.dtype),
    "put_nan": lambda y: y.at[1, 2, 3, 4].set(jnp.nan),
    "put_inf": lambda y: y.at[1, 2, 3, 4].set(jnp.inf),
    "one_element_off": one_element_off,
    "all_zero": jnp.zeros_like,
}


@pytest.mark.parametrize("fault", VALUE_FAULTS.values(), ids=VALUE_FAULTS)
def test_fault_in_the_values_fails(fault):
    x, w = operands(jnp.float32)
    with pytest.raises(AssertionError, match="rounding budget"):
        assert_conv(fault(lax_conv(x, w)), x, w, **GEOMETRY)


@pytest.mark.parametrize("dtype", [*FLOATS, jnp.int8], ids=lambda d: d.__name__)
def test_flipped_kernel_fails(dtype):
    x, w = operands(dtype)
    with pytest.raises(AssertionError, match="rounding budget"):
        assert_conv(lax_conv(x, w[::-1, ::-1]), x, w, **GEOMETRY)


def test_wrong_padding_fails():
    x, w = operands(jnp.float32)
    swapped = GEOMETRY | {"padding": [(1, 2), (0, 2)]}
    with pytest.raises(AssertionError, match="rounding budget"):
        assert_conv(lax_conv(x, w), x, w, **swapped)


def test_one_integer_off_by_one_fails():
    x, w = operands(jnp.int8)
    with pytest.raises(AssertionError, match=r"1 of .* elements exceed their rounding budget"):
        assert_conv(lax_conv(x, w).at[0, 0, 0, 0].add(1), x, w, **GEOMETRY)


def test_conjugated_complex_fails():
    x, w = operands(jnp.complex64)
    with pytest.raises(AssertionError, match="rounding budget"):
        assert_conv(lax_conv(x, w.conj()), x, w, **GEOMETRY)


def test_swapped_gradients_fail():
    x, w = operands(jnp.float32)
    y, pullback = jax.vjp(lax_conv, x, w)
    g = operands(jnp.float32, y.shape)[0]
    dx, dw = pullback(g)
    with pytest.raises(AssertionError, match="rounding budget"):
        assert_input_grad(dx[:, ::-1], g, w, input_shape=x.shape[1:-1], **GEOMETRY)
    with pytest.raises(AssertionError, match="rounding budget"):
        assert_kernel_grad(dw[::-1], x, g, kernel_shape=w.shape[:-2], **GEOMETRY)


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [
        (jnp.float32, jnp.float64),
        (jnp.float32, jnp.bfloat16),
        (jnp.bfloat16, jnp.float32),
        (jnp.float32, jnp.complex64),
        (jnp.int8, jnp.int32),
    ],
)
def test_wrong_dtype_fails(dtype, wrong):
    x, w = operands(dtype)
    with pytest.raises(AssertionError, match=f"dtype is {jnp.dtype(wrong)}"):
        assert_conv(lax_conv(x, w).astype(wrong), x, w, **GEOMETRY)


@pytest.mark.parametrize("fault", [lambda y: y[:, :-1], lambda y: y[:1], lambda y: y.ravel()])
def test_wrong_shape_fails(fault):
    x, w = operands(jnp.float32)
    with pytest.raises(AssertionError, match="shape is"):
        assert_conv(fault(lax_conv(x, w)), x, w, **GEOMETRY)


# The budget itself.


def test_budget_by_hand():
    # 4 * eps * sqrt(9) * 2 + eps * 1 = 25 eps, and underflow too small to see beside it
    one, two = np.ones(1), np.full(1, 2.0)
    eps = float(jnp.finfo(jnp.float32).eps)
    assert budget(one, two, terms=9, dtype=jnp.float32) == 25 * eps


def test_the_message_shows_the_first_fault():
    good = np.ones((2, 3))
    bad = np.ones((2, 3), np.float32)
    bad[1, 2] = 3
    with pytest.raises(AssertionError, match=r"at \(1, 2\): got 3.0, expected 1.0, off by 2"):
        assert_matches(bad, good, good, terms=1, dtype=np.float32)


def test_a_part_of_the_suite_has_every_test_in_it():
    """What ``--one-in`` leaves out: of each test all but the first case and every Nth after it."""
    names = ["a.py::f[1]", "a.py::f[2]", "a.py::g", "a.py::f[3]", "a.py::f[4]", "b.py::f[1]"]
    items = [types.SimpleNamespace(nodeid=name) for name in names]
    told = []

    def deselected(items):
        told.extend(items)

    config = types.SimpleNamespace(
        getoption={"--one-in": 3}.get,
        hook=types.SimpleNamespace(pytest_deselected=deselected),
    )
    conftest.pytest_collection_modifyitems(config, items)
    assert [item.nodeid for item in items] == ["a.py::f[1]", "a.py::g", "a.py::f[4]", "b.py::f[1]"]
    assert [item.nodeid for item in told] == ["a.py::f[2]", "a.py::f[3]"]
