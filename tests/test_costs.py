"""costs: against sums by definition, and against XLA's analysis where that is right."""

import copy
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import windows
from jax import lax

import jaxdil

pytestmark = pytest.mark.core

SPEC = ("NHWC", "HWIO", "NHWC")


def zeros(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def laxs(x, w, **options):
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, w, dimension_numbers=SPEC, **options)


def xlas(fn, *args):
    return jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]


X, W = zeros(2, 9, 8, 4), zeros(3, 2, 4, 6)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("stride", "dilation"), [((1, 1), (1, 1)), ((2, 1), (1, 3)), ((3, 2), (2, 2))]
)
def test_flops_by_definition(stride, dilation, padding):
    reads = windows.reads(X.shape[1:3], W.shape[:2], stride, dilation, padding)
    pairs = sum(inside for *_, inside in reads)
    (row,) = jaxdil.costs(jaxdil.conv)(X, W, stride=stride, dilation=dilation, padding=padding)
    assert row.flops == 2 * pairs * 2 * 4 * 6
    assert row.macs == pairs * 2 * 4 * 6
    y = jax.eval_shape(
        lambda x, w: jaxdil.conv(x, w, stride=stride, dilation=dilation, padding=padding), X, W
    )
    assert row.bytes == 4 * sum(math.prod(a.shape) for a in (X, W, y))
    assert row.parameters == 3 * 2 * 4 * 6


@pytest.mark.parametrize(
    ("w", "options"),
    [
        (W, {"padding": "VALID"}),
        (W, {"rhs_dilation": (2, 3)}),
        (W, {"window_strides": (2, 3), "rhs_dilation": (1, 2)}),
        (W, {"padding": [(2, 0), (1, 3)], "lhs_dilation": (2, 3)}),
        (zeros(3, 3, 1, 8), {"feature_group_count": 4}),
    ],
    ids=str,
)
def test_xla_agrees_on_what_lax_has(w, options):
    def forward(x, w):
        return laxs(x, w, **options)

    assert jaxdil.costs(forward)(X, w).flops == xlas(forward, X, w)
    # Of the last, XLA's compiler writes the kernel gradient otherwise, with more to multiply.
    if w is W:
        both = jax.grad(lambda x, w: forward(x, w).sum(), (0, 1))
        counted = jaxdil.costs(both)(X, w)
        # The forward pass is traced but not needed.
        assert counted.flops - counted[0].flops == xlas(both, X, w)
        assert [r.role for r in counted] == ["forward", "kernel gradient", "input gradient"]
        assert [r.parameters for r in counted] == [math.prod(w.shape), 0, 0]


def test_xla_agrees_on_matrix_products():
    def forward(a, b):
        return jnp.einsum("bij,bkj->bik", a, b)

    a, b = zeros(3, 5, 7), zeros(3, 4, 7)
    (row,) = jaxdil.costs(forward)(a, b)
    assert row.kind == "matmul"
    assert row.flops == xlas(forward, a, b) == 2 * 3 * 5 * 4 * 7
    assert row.bytes == 4 * (a.size + b.size + 3 * 5 * 4)
    pulled = jaxdil.costs(jax.grad(lambda a, b: forward(a, b).sum(), (0, 1)))(a, b)
    assert [r.role for r in pulled] == ["forward", "gradient", "gradient"]
    assert pulled.flops == 3 * row.flops


# --- where XLA's analysis is not what one wants ---------------------------------------------------


def test_a_scan_counts_every_trip():
    w = zeros(5, 3, 3, 4, 4)

    def layers(ws, x):
        return lax.scan(lambda x, w: (laxs(x, w), None), x, ws)[0]

    counted = jaxdil.costs(layers)(w, X)
    (row,) = counted
    assert (row.times, counted.flops) == (5, 5 * row.flops)
    assert counted.bytes == 5 * row.bytes
    assert counted.parameters == w.size
    # XLA: the body once (and the two additions of the counter).
    assert row.flops <= xlas(layers, w, X) < row.flops + 10


def test_a_formulation_is_counted_as_the_convolution_it_is():
    w = zeros(3, 3, 4, 1)
    same = [
        jaxdil.costs(lambda x, w, m=m: jaxdil.depthwise_conv(x, w, method=m))(X, w).flops
        for m in ("taps", "xla")
    ]
    assert same[0] == same[1] == xlas(lambda x, w: jaxdil.depthwise_conv(x, w, method="xla"), X, w)
    # Slices of the padded input are multiplied in the padding too.
    assert xlas(lambda x, w: jaxdil.depthwise_conv(x, w, method="taps"), X, w) > same[0]


# --- control flow ---------------------------------------------------------------------------------


def test_a_cond_is_its_costliest_branch_and_a_while_one_trip():
    w = zeros(3, 3, 4, 4)

    def once(x, w):
        return laxs(x, w)

    def chosen(w, x):
        return lax.cond(x.sum() > 0, once, lambda x, w: once(once(x, w), w), x, w)

    def repeated(w, x):
        return lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, once(c[1], w)), (0, x))

    single = jaxdil.costs(once)(X, w)
    assert jaxdil.costs(chosen)(w, X).flops == 2 * single.flops
    assert jaxdil.costs(repeated)(w, X).flops == single.flops
    for fn in (chosen, repeated):
        assert jaxdil.costs(fn)(w, X).parameters == w.size


def test_a_checkpoint_runs_forward_twice():
    w = zeros(3, 3, 4, 4)

    @jax.checkpoint
    def block(x, w):
        return jnp.sin(laxs(jnp.sin(laxs(x, w)), w))

    counted = jaxdil.costs(jax.grad(lambda w, x: block(x, w).sum()))(w, X)
    roles = [row.role for row in counted]
    assert roles.count("forward") == 4
    assert roles.count("kernel gradient") == 2
    assert counted.parameters == w.size


# --- parameters -----------------------------------------------------------------------------------


def network(params, x):
    y = jax.nn.relu(laxs(x, params["first"]) + params["bias"][None, None, None])
    y = jaxdil.conv_transpose(y, params["up"], stride=2)
    return y.mean((1, 2)) @ params["dense"]


PARAMS = {
    "first": zeros(3, 3, 4, 6),
    "bias": zeros(6),
    "up": zeros(2, 2, 5, 6),
    "dense": zeros(5, 3),
}


def test_parameters_are_the_kernels_or_what_argnums_say():
    kernels = sum(a.size for name, a in PARAMS.items() if name != "bias")
    for fn in (network, jax.jit(network), jax.grad(lambda p, x: network(p, x).sum())):
        assert jaxdil.costs(fn)(PARAMS, X).parameters == kernels
        assert jaxdil.costs(fn, argnums=0)(PARAMS, X).parameters == kernels + 6
    rows = jaxdil.costs(network)(PARAMS, X)
    assert [row.parameters for row in rows] == [PARAMS[n].size for n in ("first", "up", "dense")]
    assert jaxdil.costs(network, argnums=(0, 1))(PARAMS, X).parameters == kernels + 6 + X.size


def test_a_kernel_in_use_twice_counts_once_and_a_computed_one_not():
    w = zeros(3, 3, 4, 4)

    def shared(x, w):
        return sum(jaxdil.conv(x, w, dilation=rate) for rate in (1, 2, 4))

    counted = jaxdil.costs(shared)(X, w)
    assert [row.parameters for row in counted] == [w.size] * 3
    assert counted.parameters == w.size
    assert jaxdil.costs(lambda x, w: jaxdil.conv(x, jnp.tanh(w)))(X, w).parameters == 0
    assert jaxdil.costs(lambda x, w: x @ jnp.tanh(w))(zeros(2, 3), zeros(3, 4)).parameters == 0


def test_a_closure_holds_parameters_too():
    w = jnp.ones((3, 3, 4, 2), jnp.float32)
    assert jaxdil.costs(lambda x: jaxdil.conv(x, w))(X).parameters == w.size


def test_the_operand_of_an_einsum_that_is_a_parameter():
    def mixed(w, x):
        return lax.dot_general(w, x, (((1,), (1,)), ((), ())))

    w, x = zeros(5, 7), zeros(3, 7)
    assert jaxdil.costs(mixed, argnums=0)(w, x)[0].parameters == w.size
    assert jaxdil.costs(mixed)(w, x)[0].parameters == x.size  # x @ w, as far as one can tell


# --- what it looks like ---------------------------------------------------------------------------


def test_the_table_and_its_totals():
    counted = jaxdil.costs(network)(PARAMS, X)
    lines = str(counted).splitlines()
    assert lines[0].split() == [
        *("source", "name", "kind", "role", "x", "w", "y", "times", "MFLOP", "MB", "parameters")
    ]
    assert len(lines) == 2 + 3 + 1
    assert "test_costs.py" in lines[2]
    assert f"{counted.flops / 1e6:.2f} MFLOP ({counted.macs / 1e6:.2f} MMAC)" in lines[-1]
    assert lines[-1].endswith(f"MB, {counted.parameters} parameters")
    assert repr(counted) == str(counted)
    for same in (copy.copy(counted), pickle.loads(pickle.dumps(counted))):
        assert same == counted
        assert same.parameters == counted.parameters
    assert jaxdil.costs(jnp.sin)(X).flops == 0


def test_refusals():
    with pytest.raises(TypeError, match=r"^costs: argnums must be an integer, got 'p'"):
        jaxdil.costs(network, argnums="p")
    with pytest.raises(ValueError, match=r"^costs: argnums must be >= 0, got -1"):
        jaxdil.costs(network, argnums=-1)
    with pytest.raises(ValueError, match=r"^costs: argnums must be below 2, the number of pos"):
        jaxdil.costs(network, argnums=2)(PARAMS, X)
