"""Every method on every geometry it serves: results, gradients, the program that ran, its size."""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import (
    BY_NAME,
    GEOMETRIES,
    definition,
    equations,
    geometry,
    integers,
    judge,
    methods_asked,
    methods_run,
    operands,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from processors import chosen, pretend

import jaxdil
from jaxdil import _geometry
from jaxdil._methods import METHODS, Convolve, load
from jaxdil._problem import Problem
from jaxdil._rules import (
    cpu,
    cpu_channels,
    cpu_cores,
    cpu_few,
    cpu_groups,
    cpu_intel,
    cpu_library,
    cpu_products,
    cpu_taps,
)

ROLES = ("forward", "input gradient", "kernel gradient")
FIRST = {"data_format": "channels_first"}
OR_AUTO = " or auto"

# Kernels serve few of these geometries; each has tests of its own.
PLAIN = [name for name in METHODS if not name.startswith("pallas_")]
every_method = pytest.mark.parametrize("method", PLAIN)
# What a method refuses in every role is auto's own, and one test of auto is enough.
every_method_and_auto = pytest.mark.parametrize("method", [*PLAIN, "auto"])
# Every third of them also with the oldest JAX: all would take longer than the rest together.
every_geometry = pytest.mark.parametrize(
    "g",
    [
        pytest.param(g, id=g.name.replace(" ", "_"), marks=[] if i % 3 else [pytest.mark.core])
        for i, g in enumerate(GEOMETRIES)
    ],
)


def calls(g, method, **options):
    """The function of (x, w, cotangent) that computes each role by a method."""
    options = {**g.options, "method": method, **options}
    return {
        "forward": lambda x, w, c: jaxdil.conv(x, w, **options),
        "input gradient": lambda x, w, c: jaxdil.conv_input_grad(
            c, w, input_shape=g.x_shape, **options
        ),
        "kernel gradient": lambda x, w, c: jaxdil.conv_kernel_grad(
            x, c, kernel_shape=g.w_shape, **options
        ),
    }


def refusal(fn, *arrays):
    """Why a pinned method does not serve, or None."""
    try:
        jax.eval_shape(fn, *arrays)
    except jaxdil.MethodError as reason:
        return str(reason)
    return None


def program(parts):
    """One function that runs all parts, each in the scope of its name."""

    def run(*arrays):
        results = {}
        for name, part in parts.items():
            with jax.named_scope(name.replace(" ", "_")):
                results[name] = part(*arrays)
        return results

    return run


def compiled(fn, *arrays):
    """The results of a function under jit, and the text of its program."""
    lowered = jax.jit(fn).lower(*arrays)
    return lowered.compile()(*arrays), lowered.as_text(debug_info=True)


def derived(g, method, **options):
    """Result and both gradients by differentiation; the method where it can serve."""
    pin = method if method == "auto" else method + OR_AUTO
    options = {**g.options, "method": pin, **options}

    def run(x, w, c):
        y, pullback = jax.vjp(lambda x, w: jaxdil.conv(x, w, **options), x, w)
        return dict(zip(ROLES, (y, *pullback(c)), strict=True))

    return run


@pytest.fixture(autouse=True)
def some_processor(monkeypatch):
    """The choice on a CPU with AVX-512; what is particular to others has tests of its own."""
    pretend(monkeypatch)


@pytest.fixture
def without_avx_512(monkeypatch):
    """The choice on a CPU whose widest vectors are AVX2's, without instructions for bfloat16."""
    pretend(monkeypatch, vectors="AVX2", half=False)


# --- results --------------------------------------------------------------------------------------


@every_method
@every_geometry
def test_results_and_gradients(g, method):
    arrays = operands(g, np.dtype(np.float32))
    pinned, refused = {}, {}
    for role, call in calls(g, method).items():
        reason = refusal(call, *arrays)
        (pinned if reason is None else refused)[role] = call if reason is None else reason
    for reason in refused.values():
        assert f"\n  {method}: " in reason  # a refusal says why

    if not pinned:
        return
    # Differentiation binds the same convolutions, which `test_dtypes` has of every method.
    results, text = compiled(program(pinned), *arrays)
    for role in pinned:
        judge(results[role], role, g, np.float32)
        assert methods_run(text, role) == {method}
    assert methods_asked(program(pinned), *arrays) == [method] * len(pinned)


@every_geometry
def test_results_and_gradients_by_choice(g):
    results, _ = compiled(derived(g, "auto"), *operands(g, np.dtype(np.float32)))
    for role in ROLES:
        judge(results[role], role, g, np.float32)


def test_the_scope_check_can_fail():
    g = BY_NAME["odd kernel"]
    arrays = operands(g, np.dtype(np.float32))
    _, text = compiled(program({"forward": calls(g, "xla")["forward"]}), *arrays)
    assert methods_run(text, "forward") == {"xla"}
    assert methods_run(text, "input gradient") == set()
    _, text = compiled(program({"forward": lambda x, w, c: x}), *arrays)
    assert methods_run(text, "forward") == set()


def test_the_compiled_program_carries_the_method():
    g = BY_NAME["dilation"]
    x, w, _ = operands(g, np.dtype(np.float32))
    for method in ("taps", "space_to_batch"):
        fn = functools.partial(jaxdil.conv, method=method, **g.options)
        assert f"jaxdil.{method}" in jax.jit(fn).lower(x, w).compile().as_text()


# How many of the geometries each method must serve, by role. A method that refuses what it could
# serve is a failure too.
SERVED = {
    "xla": (51, 51, 51),
    "taps": (40, 27, 19),
    "phases": (11, 19, 9),
    "correlate": (50, 49, 49),
    "planes": (8, 8, 8),
    "slabs": (17, 17, 12),
    "columns": (34, 29, 42),
    "patches": (7, 7, 3),
    "expand": (10, 10, 10),
    "split": (10, 10, 10),
    "exchange": (6, 5, 31),
    "even": (4, 45, 3),
    "margin": (20, 12, 20),
    "im2col": (35, 30, 35),
    "trim": (5, 6, 5),
    "space_to_batch": (40, 27, 19),
    "pallas_tpu": (3, 3, 3),
    "cudnn": (30, 21, 11),
    "pallas_gpu": (10, 11, 10),
}


@pytest.mark.core
@pytest.mark.parametrize("method", METHODS)
def test_each_method_serves(method):
    counts = dict.fromkeys(ROLES, 0)
    for g in GEOMETRIES:
        arrays = operands(g, np.dtype(np.float32))
        for role, call in calls(g, method).items():
            counts[role] += refusal(call, *arrays) is None
    least = dict(zip(ROLES, SERVED[method], strict=True))
    assert all(counts[role] >= least[role] for role in ROLES), counts


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "stride", "pad"),
    [
        ((2, 6, 9), (6, 1, 4), (1,), [(3, 0)]),
        ((2, 6, 9, 8), (6, 1, 3, 3), (2, 2), [(0, 1), (1, 1)]),
        ((2, 6, 9, 8), (6, 1, 7, 5), (1, 1), [(3, 3), (2, 2)]),  # in a loop
        ((2, 3, 4, 5, 6), (3, 1, 3, 2, 3), (1, 1, 1), [(1, 1), (0, 1), (1, 1)]),
    ],
)
def test_depthwise_with_channels_first_is_not_laid_out_anew(x, w, stride, pad):
    x, w = integers(0, x), integers(1, w)

    def conv(x, w):
        return lax.conv_general_dilated(x, w, stride, pad, feature_group_count=x.shape[1])

    lowered = jax.jit(jaxdil.accelerate(conv, method="taps")).lower(x, w).compile()
    np.testing.assert_array_equal(lowered(x, w), conv(x, w))
    moved = re.findall(r"\w+\[([\d,]+)\]\S* transpose\(", lowered.as_text())
    large = [shape for shape in moved if math.prod(map(int, shape.split(","))) > w.size]
    assert not large


# --- what can be asked of lax alone ---------------------------------------------------------------

NC, NWC = ("NC", "IO", "NC"), ("NWC", "WIO", "NWC")
# Shapes of x and w, dimension numbers, options.
BEYOND = {
    "no spatial axis": ((3, 4), (4, 5), NC, {}),
    "no spatial axis, groups": ((3, 4), (2, 6), NC, {"feature_group_count": 2}),
    "no spatial axis, batch groups": ((4, 3), (3, 6), NC, {"batch_group_count": 2}),
    "batch groups": (
        *((4, 9, 2), (3, 2, 4), NWC),
        {"batch_group_count": 2, "window_strides": (2,), "padding": ((1, 2),)},
    ),
    "batch groups of one example": (
        *((3, 7, 2), (3, 2, 3), NWC),
        {"batch_group_count": 3, "rhs_dilation": (2,), "padding": ((3, 0),)},
    ),
    "batch groups, all dilated, cropped": (
        *((4, 6, 2), (2, 2, 4), NWC),
        {"batch_group_count": 2, "lhs_dilation": (2,), "rhs_dilation": (3,), "padding": ((-1, 3),)},
    ),
    "three layouts, all dilated, cropped": (
        *((2, 6, 7, 2), (4, 1, 1, 2), ("NHWC", "OIHW", "NCHW")),
        {
            "feature_group_count": 2,
            "window_strides": (1, 2),
            "lhs_dilation": (2, 1),
            "rhs_dilation": (2, 2),
            "padding": ((0, -1), (0, 0)),
        },
    ),
}


def lax_conv(x, w, numbers, **options):
    """lax; with one spatial axis for none, where the oldest JAX that is tested confuses groups."""
    if numbers != NC:
        return lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)
    options = {**options, "window_strides": (1,), "padding": ((0, 0),)}
    y = lax.conv_general_dilated(x[:, None], w[None], dimension_numbers=NWC, **options)
    return y[:, 0]


@pytest.mark.core
@every_method_and_auto
def test_what_can_be_asked_of_lax_alone(method):
    """Exactly: the operands are small integers."""
    pin = method if method == "auto" else method + OR_AUTO

    def ours(x, w, numbers, **options):
        options = {"dimension_numbers": numbers, "method": pin, **options}
        return jaxdil.conv_general_dilated(x, w, **options)

    parts, arrays = {}, {}
    for name, (x_shape, w_shape, numbers, others) in BEYOND.items():
        if method == "xla" and name.startswith("no spatial axis, "):
            continue  # see above
        rank = len(x_shape) - 2
        options = {"window_strides": (1,) * rank, "padding": ((0, 0),) * rank, **others}

        def run(x, w, conv, numbers=numbers, options=options):
            y, pullback = jax.vjp(lambda x, w: conv(x, w, numbers, **options), x, w)
            return y, *pullback(y)

        arrays[name] = integers(0, x_shape), integers(1, w_shape)
        parts[name] = lambda arrays, name=name, run=run: [
            run(*arrays[name], conv) for conv in (ours, lax_conv)
        ]
    results, _ = compiled(program(parts), arrays)
    for name, (got, expected) in results.items():
        for role, a, b in zip(ROLES, got, expected, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{role} of {name}")


# --- dtypes ---------------------------------------------------------------------------------------

DTYPES = ("float16", "bfloat16", "float64", "int8", "int32", "complex64", "complex128")
# Of half precision, integers and complex numbers one each meets all of these, the other two.
FIRST_OF_KIND = ("bfloat16", "float64", "int8", "complex64")
OF_DTYPES = (
    "stride and dilation, coprime",
    "depthwise with multiplier",
    "groups",
    "transposed, 4 taps, stride 2",
    "2-D transposed, unequal",
    "2-D depthwise",  # which `correlate` loops over
)


def serves(g, method, *arrays):
    """Whether a method has a part in a geometry, in any role."""
    return any(refusal(call, *arrays) is None for call in calls(g, method).values())


@every_method_and_auto
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, method):
    dtype = jnp.dtype(dtype)
    parts, arrays = {}, {}
    for name in OF_DTYPES if dtype in FIRST_OF_KIND else OF_DTYPES[1:4:2]:
        g, operand = BY_NAME[name], operands(BY_NAME[name], dtype)
        if not serves(g, method, *operand):
            continue
        if jnp.issubdtype(dtype, jnp.inexact):
            run = derived(g, method)
        else:
            pin = method if method == "auto" else method + OR_AUTO
            run = program({"forward": calls(g, pin)["forward"]})
        parts[name] = lambda arrays, name=name, run=run: run(*arrays[name])
        arrays[name] = operand
    results, _ = compiled(program(parts), arrays)
    for name, roles in results.items():
        for role, result in roles.items():
            judge(result, role, BY_NAME[name], dtype)


@pytest.mark.core
@every_method_and_auto
def test_other_dtypes_of_lax(method):
    """Booleans and integers without sign, as lax has them: any of all, and modulo 2^n."""
    pin = method if method == "auto" else method + OR_AUTO
    shapes = {name: BY_NAME[name][1:3] for name in OF_DTYPES}
    options = {
        name: {
            "window_strides": g.stride,
            "padding": g.padding,
            "lhs_dilation": g.input_dilation,
            "rhs_dilation": g.dilation,
            "feature_group_count": g.groups,
            "dimension_numbers": (("NWC", "WIO", "NWC"), ("NHWC", "HWIO", "NHWC"))[g.rank - 1],
        }
        for name, g in ((name, BY_NAME[name]) for name in OF_DTYPES)
    }
    # A kernel gradient, though of no dtype that has one: its batch is split into groups.
    shapes["a batch in groups"] = ((4, 9, 2), (7, 2, 4))
    options["a batch in groups"] = {
        "window_strides": (1,),
        "padding": ((1, 1),),
        "dimension_numbers": ("NWC", "WIO", "NWC"),
        "batch_group_count": 2,
    }
    pairs, arrays = {}, {}
    for name, dtype in itertools.product(shapes, ("bool", "uint8", "uint32")):
        key = f"{name}, {dtype}"
        draws = (integers(seed, shape, np.int64) for seed, shape in enumerate(shapes[name]))
        arrays[key] = [jnp.asarray(a > 0 if dtype == "bool" else a.astype(dtype)) for a in draws]
        ours = functools.partial(jaxdil.conv_general_dilated, method=pin, **options[name])
        theirs = functools.partial(lax.conv_general_dilated, **options[name])
        pairs[key] = lambda arrays, key=key, both=(ours, theirs): [f(*arrays[key]) for f in both]
    results, _ = compiled(program(pairs), arrays)
    for key, (got, expected) in results.items():
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected, err_msg=key)


@pytest.mark.core
@every_method
@pytest.mark.parametrize(("dtype", "wide"), [("bfloat16", "float32"), ("int8", "int32")])
def test_preferred_element_type(dtype, wide, method):
    dtype, wide = jnp.dtype(dtype), jnp.dtype(wide)
    parts, arrays = {}, {}
    for name in OF_DTYPES:
        g = BY_NAME[name]
        call = calls(g, method + OR_AUTO, preferred_element_type=wide)["forward"]
        parts[name] = lambda arrays, name=name, call=call: call(*arrays[name])
        arrays[name] = operands(g, dtype)
    results, _ = compiled(program(parts), arrays)
    for name in OF_DTYPES:
        judge(results[name], "forward", BY_NAME[name], dtype, wide)


@every_method
def test_preferred_element_type_of_gradients(method):
    g = BY_NAME["stride and dilation, coprime"]
    x, w, c = operands(g, jnp.dtype("bfloat16"))
    parts = calls(g, method + OR_AUTO, preferred_element_type=jnp.float32)
    results, _ = compiled(program(parts), x, w, c)
    for role in ROLES:
        judge(results[role], role, g, jnp.bfloat16, jnp.float32)


# --- special values -------------------------------------------------------------------------------


@pytest.mark.core
@every_method_and_auto
def test_a_special_sample_reaches_what_reads_it(method):
    """NaN and infinity stay where the definition puts them, neither spread nor swallowed."""
    parts, inputs, expected = {}, {}, {}
    for g in GEOMETRIES[:: 6 if method == "correlate" else 2]:
        x, w = (np.ones(shape, np.float32) for shape in (g.x_shape, g.w_shape))
        call = calls(g, method)["forward"]
        if refusal(call, x, w, None) is not None:
            continue
        at = (0, *(n // 2 for n in g.x_shape[1:]))
        parts[g.name] = lambda inputs, name=g.name, call=call: call(*inputs[name], None)
        inputs[g.name] = (x, w, at)
        spike = np.zeros_like(x)
        spike[at] = 1
        expected[g.name] = definition("forward", g, spike, w, None) > 0
    run = jax.jit(program(parts))
    for value in (np.nan, np.inf):
        results = run({name: (special(x, at, value), w) for name, (x, w, at) in inputs.items()})
        for name, reached in expected.items():
            np.testing.assert_array_equal(~np.isfinite(results[name]), reached, err_msg=name)
            lost = np.asarray(results[name])[reached]
            assert (np.isnan(lost) if np.isnan(value) else np.isposinf(lost)).all(), name


def special(x, at, value):
    """x with a value in one place."""
    x = x.copy()
    x[at] = value
    return x


# --- nothing to compute ---------------------------------------------------------------------------

EMPTY = {
    "batch": ((0, 5, 2), (3, 2, 3), 1),
    "input channels": ((2, 5, 0), (3, 0, 3), 1),
    "output channels": ((2, 5, 2), (3, 2, 0), 1),
    "space": ((2, 0, 2), (3, 2, 3), 1),
    "space, stride": ((2, 0, 2), (3, 2, 3), 3),
    "output": ((2, 2, 2), (3, 2, 3), 1),
    "output, stride": ((2, 2, 2), (5, 2, 3), 3),
}


@functools.cache
def of_nothing(conv, case, dilation, **options):
    """Result and both gradients."""
    x_shape, w_shape, stride = EMPTY[case]
    x, w = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32)
    conv = functools.partial(
        conv,
        window_strides=(stride,),
        padding=[(1, 1)] if case.startswith("space") else [(0, 0)],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        **options,
    )

    def run(x, w):
        y, pullback = jax.vjp(conv, x, w)
        return y, *pullback(jnp.ones_like(y))

    return jax.jit(run)(x, w)


@pytest.mark.core
@every_method
@pytest.mark.parametrize("case", EMPTY, ids=lambda case: case.replace(" ", "_"))
@pytest.mark.parametrize("dilation", [1, 2])
def test_nothing_to_compute(case, dilation, method):
    """What lax makes of nothing, in shape, dtype and value, gradients included."""
    got = of_nothing(jaxdil.conv_general_dilated, case, dilation, method=method + OR_AUTO)
    for a, b in zip(got, of_nothing(lax.conv_general_dilated, case, dilation), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)


# --- size of the program --------------------------------------------------------------------------


def problem(g):
    """The canonical problem of a geometry."""
    dtype = np.dtype(np.float32)
    return Problem(
        batch=g.x_shape[0],
        size=g.x_shape[1:-1],
        channels=g.x_shape[-1],
        kernel=g.w_shape[:-2],
        out_channels=g.w_shape[-1],
        stride=g.stride,
        padding=g.padding,
        input_dilation=g.input_dilation,
        dilation=g.dilation,
        groups=g.groups,
        batch_groups=1,
        x_dtype=dtype,
        w_dtype=dtype,
        out_dtype=dtype,
    )


# Where a formulation could write out more than it should. They are only traced.
LARGE = (
    geometry("long kernel", (4000,), (1000,)),
    geometry("long kernel, depthwise", (900,), (255,), channels=(4, 4), groups=4, s=2),
    geometry("large kernel", (64, 64), (15, 15), d=2),
    geometry("patches", (64, 64), (32, 32), s=32),
    geometry("patches, transposed", (4, 4), (32, 32), a=32, pad=(31, 31)),
    geometry("long step, transposed", (9,), (500,), a=500, pad=(499, 499)),
    geometry("long step, small kernel, transposed", (9,), (3,), a=500, pad=(2, 2)),
    geometry("step 8, transposed, 2-D", (6, 6), (16, 16), a=8, pad=(15, 15)),
    geometry("step 8, transposed, 2-D, odd", (6, 6), (11, 11), a=8, pad=(10, 10)),
    geometry("far dilation, stride", (900, 900), (3, 3), d=127, s=3),
    geometry("far dilation", (3000, 300), (3, 3), d=(900, 127)),
    geometry("small output", (130, 130), (120, 120)),
    geometry("small output, 2-D", (60, 60), (50, 51), channels=(2, 2), groups=2),
    geometry("small output, 3-D", (14, 14, 14), (10, 10, 10)),
)


def written_out(g, method):
    """Terms and slices that stand in the program of a method, or None if it refuses."""
    p = problem(g)
    if load(method).supports(p, None) is not None:
        return None

    def part(x, w, p):
        assert (x.shape, w.shape) == (p.x_shape, p.w_shape)
        return load("xla").apply(x, w, p, part)

    shapes = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (p.x_shape, p.w_shape))
    conv = Convolve(part, None)
    traced = jax.make_jaxpr(lambda x, w: load(method).apply(x, w, p, conv))(*shapes)
    every = list(equations(traced.jaxpr))
    names = [eqn.primitive.name for eqn in every]
    products = ("conv_general_dilated", "dot_general", "dynamic_slice", "gather")
    joined = (len(e.invars) for e in every if e.primitive.name in ("concatenate", "reduce"))
    return max(*map(names.count, products), *joined, 0), names.count("slice")


@pytest.mark.core
@every_method
def test_no_method_writes_out_more_than_128_terms(method):
    cropless = [g for g in GEOMETRIES if min(min(pair) for pair in g.padding) >= 0]
    over = {}
    for g in (*cropless, *LARGE):
        terms, slices = written_out(g, method) or (0, 0)
        # A term may cut both operands along each axis, take every s-th, and look up its row and
        # its place in tables.
        if terms > 128 or slices > 128 * (2 * g.rank + 3):
            over[g.name] = (terms, slices)
    assert not over


# --- what a TPU alone is given --------------------------------------------------------------------


def for_a_tpu(method):
    """The geometries that a method serves on a TPU, as functions of (x, w) for any platform."""
    conv = Convolve(lambda x, w, p: load("xla").apply(x, w, p, conv), "tpu")
    cropless = [g for g in GEOMETRIES if min(min(pair) for pair in g.padding) >= 0]
    served = {g.name: g for g in cropless if load(method).supports(problem(g), "tpu") is None}
    return {
        name: functools.partial(load(method).apply, problem=problem(g), conv=conv)
        for name, g in served.items()
    }


@pytest.mark.parametrize("method", ["taps", "planes", "expand"])
def test_what_a_method_does_on_a_tpu_alone_is_right(method):
    parts = for_a_tpu(method)
    inputs = {name: operands(BY_NAME[name], np.float32)[:2] for name in parts}
    run = jax.jit(lambda inputs: {name: part(*inputs[name]) for name, part in parts.items()})
    for name, y in run(inputs).items():
        judge(y, "forward", BY_NAME[name], np.float32)
    kinds = {
        "taps": lambda g: max(g.input_dilation) > 1,
        "planes": lambda g: g.rank > 1 and g.input_dilation[0] > 1,
        "expand": lambda g: g.groups > 1,
    }
    assert any(kinds[method](BY_NAME[name]) for name in parts)


def test_taps_of_one_axis_are_a_line_on_a_tpu():
    g = geometry("line", (8, 3, 5), (3, 1, 1), d=(2, 1, 1), pad=((1, 2), (0, 0), (0, 0)))
    conv = Convolve(lambda x, w, p: load("xla").apply(x, w, p, conv), "tpu")
    x, w, _ = operands(g, np.float32)
    run = functools.partial(load("taps").apply, problem=problem(g), conv=conv)
    products = [e for e in jax.make_jaxpr(run)(x, w).eqns if e.primitive is lax.dot_general_p]
    assert [e.invars[0].aval.shape for e in products] == [(30, 7, 2)] * 3
    judge(run(x, w), "forward", g, np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_groups_stay_apart_on_a_tpu(value):
    """Where outputs, and not samples, say that something is not finite."""
    parts = for_a_tpu("expand")
    inputs, expected = {}, {}
    for name in parts:
        g = BY_NAME[name]
        x, w = np.ones(g.x_shape, np.float32), np.ones(g.w_shape, np.float32)
        at = (0, *(n // 2 for n in g.x_shape[1:]))
        inputs[name] = (special(x, at, value), w)
        expected[name] = definition("forward", g, special(0 * x, at, 1), w, None) > 0
    run = jax.jit(lambda inputs: {name: part(*inputs[name]) for name, part in parts.items()})
    for name, y in run(inputs).items():
        np.testing.assert_array_equal(~np.isfinite(y), expected[name], err_msg=name)


# --- arithmetic of one axis, against enumeration --------------------------------------------------

small = st.integers(1, 6)
pads = st.integers(-7, 12)


def row(n, input_dilation):
    """An axis written out: the number of each sample, None for each inserted zero."""
    extent = input_dilation * (n - 1) + 1 if n else 0
    return [i // input_dilation if i % input_dilation == 0 else None for i in range(extent)]


def padded(cells, lo, hi):
    """A row with zeros added, or cells taken away, at its ends."""
    cells = [None] * lo + cells if lo > 0 else cells[-lo:]
    return cells + [None] * hi if hi >= 0 else cells[: max(len(cells) + hi, 0)]


def met(n, k, p, *, stride, dilation, lo, input_dilation):
    """The (tap, sample) pairs that meet at output p of one axis."""
    pairs = set()
    for t in range(k):
        sample, between = divmod(stride * p + dilation * t - lo, input_dilation)
        if not between and 0 <= sample < n:
            pairs.add((t, sample))
    return pairs


@settings(max_examples=1000)
@given(n=st.integers(0, 9), k=small, s=small, d=small, a=small, lo=pads, hi=pads)
def test_output_size(n, k, s, d, a, lo, hi):
    room = len(row(n, a)) + lo + hi
    fits = [p for p in range(max(room, 0)) if p % s == 0 and p + d * (k - 1) < room]
    size = _geometry.output_size(n, k, stride=s, dilation=d, padding=(lo, hi), input_dilation=a)
    assert size == len(fits)
    assert _geometry.dilated_size(k, d) == len(row(k, d))


@settings(max_examples=1000)
@given(n=st.integers(1, 20), k=small, s=small, d=small)
def test_string_padding(n, k, s, d):
    k_eff = d * (k - 1) + 1

    def outputs(lo, hi):
        return len(range(0, n + lo + hi - k_eff + 1, s))

    lo, hi = _geometry.string_padding("SAME", n, k_eff, s)
    assert hi - lo in (0, 1)
    assert lo >= 0
    # As much as gives ceil(n / s) outputs, and no more.
    assert outputs(lo, hi) >= -(-n // s)
    assert lo + hi == 0 or outputs(lo, hi) == -(-n // s) > outputs(lo, hi - 1)
    assert _geometry.string_padding("SAME_LOWER", n, k_eff, s) == (hi, lo)
    assert _geometry.string_padding("VALID", n, k_eff, s) == (0, 0)
    lo, hi = _geometry.string_padding("CAUSAL", n, k_eff, s)
    assert (lo, hi) == (k_eff - 1, 0)
    assert outputs(lo, hi) == -(-n // s)
    lo, hi = _geometry.string_padding("FULL", n, k_eff, 1)
    # Every overlap of a kernel and a row: n + k_eff - 1 of them.
    assert len(range(n + lo + hi - k_eff + 1)) == n + k_eff - 1


@pytest.mark.core
@settings(max_examples=2000)
@given(n=st.integers(0, 9), a=small, lo=pads, hi=pads)
def test_crop_negative(n, a, lo, hi):
    """A slice and padding that is not negative leave the same row."""
    wanted = padded(row(n, a), lo, hi)
    start, stop, left, right = _geometry.crop_negative(n, a, lo, hi)
    assert min(left, right) >= 0
    assert 0 <= start <= stop <= n
    kept = [None if i is None else i + start for i in row(stop - start, a)]
    got = padded(kept, left, right)
    # Where more is cut off than there is, the row has the length that the sizes say, and no sample.
    if len(row(n, a)) + lo + hi >= 0 and (-lo if lo < 0 else 0) <= len(row(n, a)):
        assert got == wanted
    assert len(got) == max(len(row(n, a)) + lo + hi, 0)


@pytest.mark.core
@settings(max_examples=2000)
@given(
    n=st.integers(1, 9),
    k=st.integers(1, 9),
    p=st.integers(0, 9),
    s=small,
    d=small,
    a=small,
    lo=pads,
)
def test_what_meets_what(n, k, p, s, d, a, lo):
    window = {"stride": s, "dilation": d, "lo": lo, "input_dilation": a}
    expected = [met(n, k, i, **window) for i in range(p)]

    found = _geometry.progressions(n, k, p, **window)
    assert len(found) == p
    for each, pairs in zip(found, expected, strict=True):
        listed = [
            (each.tap + each.tap_step * u, each.sample + each.sample_step * u)
            for u in range(each.terms)
        ]
        assert set(listed) == pairs
        assert len(listed) == len(pairs)

    assert _geometry.meetings(n, k, p, **window) == sum(map(len, expected))

    outputs = []
    for phase in _geometry.phases(k, p, **window):
        for q in range(phase.outputs):
            outputs.append(phase.phase + phase.step * q)
            pairs = {
                (phase.tap + phase.tap_step * u, phase.stride * q + phase.dilation * u - phase.lo)
                for u in range(phase.taps)
            }
            assert {pair for pair in pairs if 0 <= pair[1] < n} == expected[outputs[-1]]
    assert sorted(outputs) == list(range(p))


# --- random geometries ----------------------------------------------------------------------------


@st.composite
def geometries(draw, rank=None):
    """Any geometry whose kernel fits, tiny."""
    rank = draw(st.integers(1, 2)) if rank is None else rank
    axes = []
    for _ in range(rank):
        n, k = draw(st.integers(1, 8 - 2 * rank)), draw(st.integers(1, 5 - rank))
        s, d, a = (draw(st.integers(1, 4)) for _ in range(3))
        a = a if draw(st.booleans()) else 1
        extent = a * (n - 1) + 1
        lo = draw(st.integers(max(-3, 1 - extent), 5))
        # At least what lets the kernel fit; never a crop of more than there is.
        least = max(-3, d * (k - 1) + 1 - extent - lo, 1 - extent + max(-lo, 0))
        hi = draw(st.integers(least, max(least, 5)))
        axes.append((n, k, s, d, a, (lo, hi)))
    size, kernel, s, d, a, pad = zip(*axes, strict=True)
    groups, inner, outer = (draw(st.integers(1, most)) for most in (3, 2, 2))
    channels = (groups * inner, groups * outer)
    batch = draw(st.integers(1, 2))
    return geometry(
        "random",
        size,
        kernel,
        channels=channels,
        batch=batch,
        s=s,
        d=d,
        a=a,
        pad=pad,
        groups=groups,
    )


def assert_random(cases, method):
    """Result and gradients of all that a method serves, in one program.

    Exactly: the operands are small integers.
    """
    arrays = [tuple(map(integers, range(3), (g.x_shape, g.w_shape, g.y_shape))) for g in cases]
    served = [serves(g, method, *each) for g, each in zip(cases, arrays, strict=True)]
    cases, arrays = (list(itertools.compress(some, served)) for some in (cases, arrays))

    def run(arrays):
        return [derived(g, method)(*each) for g, each in zip(cases, arrays, strict=True)]

    for g, each, got in zip(cases, arrays, jax.jit(run)(arrays), strict=True):
        for role in ROLES:
            expected = definition(role, g, *each)
            np.testing.assert_array_equal(got[role], expected, err_msg=f"{role} of {g}")


@every_method
@settings(max_examples=6)
@given(cases=st.lists(geometries(), min_size=6, max_size=6))
def test_random_geometries(method, cases):
    assert_random(cases, method)


@settings(max_examples=12)
@given(cases=st.lists(geometries(rank=1), min_size=6, max_size=6))
def test_random_geometries_by_choice(cases):
    assert_random(cases, "auto")


@settings(max_examples=8)
@given(cases=st.lists(geometries(rank=2), min_size=6, max_size=6))
def test_random_geometries_by_choice_in_two_axes(cases):
    assert_random(cases, "auto")


# --- groups on a CPU ------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "methods", "newer"),
    [
        ((2, 12, 12, 64), (3, 3, 32, 64), ("split", "split", "split"), ()),
        ((2, 12, 12, 64), (3, 3, 16, 64), ("split", "split", "im2col"), ()),
        ((2, 12, 12, 64), (6, 6, 16, 64), ("split", "split", "split"), ()),
        ((2, 12, 12, 64), (3, 3, 16, 132), ("split", "split", "split"), ()),
        ((2, 200, 64), (3, 16, 64), ("split", "split", "correlate"), ()),
        # A few as one; to few outputs and from few inputs; from wider ones one by one.
        ((2, 12, 12, 48), (3, 3, 16, 48), ("expand", "expand", "im2col"), ()),
        ((2, 12, 12, 60), (3, 3, 12, 10), ("expand", "taps", "exchange"), ()),
        ((2, 12, 12, 60), (3, 3, 12, 15), ("split", "taps", "exchange"), ()),
        ((2, 12, 12, 96), (3, 3, 24, 8), ("split", "taps", "exchange"), ()),
        ((2, 12, 12, 96), (3, 3, 24, 32), ("split", "taps", "split"), ()),
        ((2, 12, 12, 64), (3, 3, 16, 32), ("split", "taps", "exchange"), ()),
        ((9, 99, 99, 64), (3, 3, 16, 32), ("split", "taps", "im2col"), ()),
        # Products that would take too much memory.
        ((2, 12, 12, 32), (3, 3, 8, 256), ("split", "split", "im2col"), ()),
        ((9, 12, 12, 32), (3, 3, 8, 256), ("split", "split", "correlate"), ()),
        ((2, 99, 99, 32), (3, 3, 8, 124), ("taps", "split", "im2col"), ()),
        ((2, 99, 99, 32), (3, 3, 8, 256), ("split", "split", "split"), ()),
        ((16, 12, 12, 64), (3, 3, 16, 64), ("split", "split", "split"), ()),
        # Few positions are a batched product, of one tap too.
        ((2, 12, 12, 64), (3, 3, 4, 64), ("taps", "taps", "im2col"), ()),
        ((3, 12, 12, 64), (3, 3, 4, 64), ("taps", "taps", "correlate"), ()),
        ((2, 12, 12, 64), (3, 3, 2, 64), ("taps", "taps", "correlate"), ()),
        ((1, 28, 28, 64), (1, 1, 8, 64), ("taps", "taps", "im2col"), ()),
        ((4, 28, 28, 64), (1, 1, 8, 64), ("taps", "taps", "expand"), ()),
        # As many products as one sum takes, and more.
        ((2, 12, 12, 60), (4, 4, 6, 60), ("taps", "taps", "correlate"), ()),
        ((2, 12, 12, 64), (4, 4, 8, 64), ("split", "split", "correlate"), ()),
        ((2, 12, 12, 64), (5, 5, 4, 64), ("taps", "taps", "correlate"), ()),
        ((2, 12, 12, 60), (5, 5, 5, 60), ("split", "split", "correlate"), ()),
        ((2, 12, 12, 64), (1, 1, 32, 64), ("taps", "taps", "correlate"), ("xla", "xla")),
        ((2, 12, 12, 128), (1, 1, 64, 64), ("split", "taps", "correlate"), ("split", "xla")),
        ((2, 4, 4, 64), (5, 5, 16, 64), ("taps", "taps", "split"), ()),
        ((2, 8, 8, 64), (9, 9, 16, 64), ("xla", "xla", "correlate"), ()),
    ],
)
def test_groups_go_by_their_width(x, w, methods, newer):
    """``newer`` is what JAX 0.11 and later choose for the first of them, where that is another."""
    if jax.__version_info__ >= (0, 11):
        methods = (*newer, *methods[len(newer) :])
    if jax.__version_info__ < (0, 10) and w[0] == 1:
        methods = ("taps", *methods[1:])
    conv = functools.partial(jaxdil.conv, groups=None)
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    assert tuple(row.method for row in jaxdil.explain(conv, platform="cpu")(*like)) == methods


@pytest.mark.core
@pytest.mark.parametrize(
    ("size", "groups", "method"), [(9, 32, "split"), (9, 33, "correlate"), (14, 32, "correlate")]
)
def test_kernel_gradients_of_more_taps_than_terms(size, groups, method):
    conv = functools.partial(jaxdil.conv, stride=4, groups=groups)
    like = [(2, *(size,) * 3, groups), (5, 5, 5, 1, 2 * groups)]
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in like]
    *_, gradient = jaxdil.explain(conv, platform="cpu")(*like)
    assert gradient.method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("w", "groups", "method"),
    [
        ((3, 3, 3, 3, 12), 4, "taps"),
        ((3, 3, 3, 4, 16), 4, "expand"),
        ((3, 3, 3, 4, 64), 16, "taps"),
        ((4, 4, 4, 4, 16), 4, "expand"),
        ((5, 5, 5, 4, 16), 4, "split"),
        ((5, 5, 5, 2, 8), 4, "split"),
        ((5, 5, 5, 1, 8), 8, "taps"),
    ],
)
def test_groups_in_three_axes(w, groups, method):
    conv = functools.partial(jaxdil.conv, groups=groups)
    for dtype, expected in ((np.float32, method), (np.float64, "taps")):
        like = (jax.ShapeDtypeStruct(n, dtype) for n in ((1, 9, 9, 9, w[-2] * groups), w))
        forward, *_ = jaxdil.explain(conv, platform="cpu")(*like)
        assert forward.method == expected


@pytest.mark.core
@pytest.mark.parametrize(("size", "kernel"), [((20,), (5,)), ((9, 9), (3, 3)), ((20,), (40,))])
def test_a_turned_kernel_of_groups_is_read_in_its_order(size, kernel):
    """XLA would make the order an attribute of the array, and read it number by number."""
    x, w = np.ones((2, *size, 32), np.float32), np.ones((*kernel, 4, 32), np.float32)
    conv = functools.partial(jaxdil.conv, groups=8, method="taps")
    gradient = jax.jit(lambda w, c: jax.linear_transpose(lambda x: conv(x, w), x)(c)[0])
    text = gradient.lower(w, x).compile().as_text()
    sums = [block for block in text.split("\n\n") if " multiply(" in block]
    assert sums
    assert all(" transpose(" not in block and " copy(" not in block for block in sums)


@pytest.mark.parametrize("groups", [2, 16])
def test_split_compiles_one_convolution_for_all_groups(groups):
    x, w = np.ones((1, 8, 8, 160), np.float32), np.ones((3, 3, 160 // groups, 160), np.float32)
    fn = functools.partial(jaxdil.conv, groups=groups, method="split")
    assert jax.jit(fn).lower(x, w).as_text().count("stablehlo.convolution") == 1


# --- kernel gradients to few channels on a CPU ----------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "exchanged"),
    [
        ((1, 12, 12, 32), (3, 3, 32, 3), {}, True),
        ((1, 12, 12, 32), (3, 3, 32, 31), {"dilation": 2}, True),
        ((1, 12, 32), (3, 32, 8), {}, True),
        ((7, 12, 12, 64), (3, 3, 64, 16), {}, True),
        ((8, 12, 12, 64), (3, 3, 64, 16), {}, False),
        ((8, 12, 12, 64), (3, 3, 64, 33), {}, True),
        ((8, 12, 12, 48), (3, 3, 48, 33), {}, False),
        ((1, 12, 12, 64), (3, 3, 64, 32), {}, False),
        ((1, 12, 12, 31), (3, 3, 31, 8), {}, True),
        ((1, 12, 12, 31), (3, 3, 31, 9), {}, False),
        ((1, 12, 12, 32), (3, 3, 32, 3), {"stride": 2}, False),
        ((1, 12, 12, 32), (1, 1, 32, 3), {}, True),
        ((1, 12, 12, 32), (1, 1, 32, 32), {}, False),
    ],
)
def test_kernel_gradients_to_few_channels_are_exchanged(x, w, options, exchanged):
    x, w = (integers(i, shape).astype(np.float32) for i, shape in enumerate((x, w)))
    conv = functools.partial(jaxdil.conv, **options)
    *_, row = jaxdil.explain(conv, platform="cpu")(x, w)
    assert (row.method == "exchange") is exchanged
    assert row.because.startswith("rule C12") is exchanged

    def gradient(method):
        fn = functools.partial(conv, method=method)
        return jax.jit(jax.grad(lambda w: (fn(x, w) ** 2).sum()))(w)

    np.testing.assert_array_equal(gradient("auto"), gradient("xla"))


# --- two groups on a CPU --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "w", "method"),
    [
        ((2, 32, 32, 4), (3, 3, 2, 34), "expand"),
        ((2, 32, 32, 4), (3, 3, 2, 32), "taps"),
        ((2, 32, 32, 4), (3, 3, 2, 64), "taps"),
        ((2, 32, 32, 4), (3, 3, 2, 400), "expand"),
        ((2, 32, 32, 6), (3, 3, 2, 102), "taps"),
        ((2, 32, 32, 2), (3, 3, 1, 48), "expand"),
        ((2, 32, 32, 16), (3, 3, 8, 48), "expand"),
        ((2, 400, 4), (3, 2, 48), "expand"),
        ((1, 12, 12, 12, 4), (3, 3, 3, 2, 48), "expand"),
        ((2, 32, 32, 4), (1, 1, 2, 48), "expand"),
    ],
)
def test_two_narrow_groups_to_many_outputs(x, w, method):
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    conv = functools.partial(jaxdil.conv, groups=x[-1] // w[-2])
    (row,) = jaxdil.explain(conv, gradients=False, platform="cpu")(*like)
    assert row.method == method


# --- an odd number of channels on a CPU -----------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "method"),
    [
        ((1, 33, 33, 3), (3, 3, 3, 32), "even"),
        ((1, 33, 33, 17), (3, 3, 17, 32), "even"),
        ((1, 33, 33, 3), (3, 3, 3, 33), "xla"),
        ((1, 33, 33, 3), (3, 3, 3, 16), "xla"),
        ((1, 33, 33, 4), (3, 3, 4, 32), "xla"),
        ((1, 7, 7, 3), (3, 3, 3, 32), "xla"),
        ((1, 333, 3), (3, 3, 32), "xla"),
    ],
)
def test_an_odd_number_of_channels_is_made_even(x, w, method):
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    (row,) = jaxdil.explain(jaxdil.conv, gradients=False, platform="cpu")(*like)
    known = (0, 10) <= jax.__version_info__ < (0, 12 if x[-1] < 17 else 99)
    assert row.method == (method if known else "xla")


@pytest.mark.core
@pytest.mark.parametrize("inner", [3, 5])
@pytest.mark.parametrize("outer", [7, 14, 21, 31, 45, 50, 127])
def test_the_outputs_of_round_numbers_are_those_asked_for(inner, outer):
    x = integers(0, (2, 6, 5, inner)).astype(np.float32)
    w = integers(1, (3, 3, inner, outer)).astype(np.float32)
    even, plain = (jaxdil.conv(x, w, method=m) for m in ("even", "xla"))
    np.testing.assert_array_equal(even, plain)


@pytest.mark.core
@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_a_channel_of_zeros_spoils_nothing(spoiled):
    x, w = (
        integers(0, (2, 9, 8, 3)).astype(np.float32),
        integers(1, (3, 3, 3, 17)).astype(np.float32),
    )
    x[0, 4, 4, 1] = spoiled
    w[1, 1, 2, 3] = spoiled
    options = {"stride": 2, "dilation": 2, "padding": 3}
    even, plain = (jaxdil.conv(x, w, method=m, **options) for m in ("even", "xla"))
    np.testing.assert_array_equal(even, plain)


# --- matrix products for dense convolutions on a CPU ----------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "products"),
    [
        ((2, 9, 8, 5), (3, 3, 5, 7), {}, 3),  # the taps of the last axis side by side
        ((2, 9, 8, 5), (3, 2, 5, 7), {"stride": 2}, 3),
        ((1, 4, 5, 3), (3, 3, 3, 32), {}, 1),  # fewer positions than outputs: all taps
        ((1, 9, 9, 4), (3, 3, 4, 6), {"dilation": 4}, 9),  # mostly padding: none
        ((1, 4, 4, 4), (3, 3, 4, 6), {"dilation": 9}, 1),  # the tap in the middle alone
        ((2, 30, 4), (5, 4, 6), {"dilation": 3, "padding": "CAUSAL"}, 5),
        ((2, 12, 12, 12, 4), (3, 2, 3, 4, 6), {"stride": (1, 2, 1)}, 3),
        ((2, 9, 8, 5), (3, 3, 5, 7), {"padding": "VALID", "dilation": (1, 3)}, 3),
    ],
)
def test_patches_lie_side_by_side_where_that_pays(x, w, options, products):
    x, w = (integers(i, shape).astype(np.float32) for i, shape in enumerate((x, w)))
    conv = functools.partial(jaxdil.conv, **options, method="im2col")
    plain = functools.partial(jaxdil.conv, **options, method="xla")
    np.testing.assert_array_equal(jax.jit(conv)(x, w), plain(x, w))

    def gradient(conv):
        return jax.jit(jax.grad(lambda w: (conv(x, w) ** 2).sum()))

    def count(text):
        return text.count("stablehlo.dot_general")

    assert count(jax.jit(conv).lower(x, w).as_text()) == products
    derived = functools.partial(jaxdil.conv, **options, method="im2col or auto")
    np.testing.assert_array_equal(gradient(derived)(w), gradient(plain)(w))


@pytest.mark.core
@pytest.mark.parametrize(
    ("size", "dilation", "in_half", "in_single"),
    [
        (6, 1, 3, 9),  # padded 1.8 times, as a small image is
        (3, 1, 3, 9),  # 2.8 times
        (8, 2, 3, 9),  # 2.25 times, by a dilation
        (7, 2, 9, 9),  # 2.5 times
    ],
)
def test_patches_of_half_precision_lie_side_by_side_sooner(size, dilation, in_half, in_single):
    conv = jax.jit(functools.partial(jaxdil.conv, dilation=dilation, method="im2col"))

    def products(dtype):
        like = (jax.ShapeDtypeStruct(s, dtype) for s in ((16, size, size, 4), (3, 3, 4, 6)))
        return conv.lower(*like).as_text().count("stablehlo.dot_general")

    assert (products(jnp.bfloat16), products(np.float32)) == (in_half, in_single)


@pytest.mark.core
def test_a_large_kernel_gradient_has_the_taps_of_its_last_axis_side_by_side():
    x, g = (integers(i, (1, 56, 56, n)).astype(np.float32) for i, n in enumerate((90, 2)))
    call = functools.partial(jaxdil.conv_kernel_grad, kernel_shape=(3, 3, 90, 2))
    ours = jax.jit(functools.partial(call, method="im2col"))
    text = ours.lower(x, g).as_text()
    assert text.count("stablehlo.dot_general") == 3
    assert "tensor<1x56x56x270xf32>" in text  # and not in turns
    np.testing.assert_array_equal(ours(x, g), call(x, g, method="xla"))


@pytest.mark.core
@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, {"dilation": 4}, {"stride": 2}])
def test_a_product_spoils_what_lax_spoils(spoiled, options):
    x = integers(0, (2, 9, 8, 3)).astype(np.float32)
    w = integers(1, (3, 3, 3, 5)).astype(np.float32)
    x[0, 4, 4, 1] = spoiled
    by = (jaxdil.conv(x, w, **options, method=m) for m in ("im2col", "xla"))
    np.testing.assert_array_equal(*by)


BF16 = jnp.bfloat16


def rules_and_methods(x, w, dtype, options):
    """Number of the rule and method, forward and by the kernel: ["18", "margin", "no", "xla"]."""
    like = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x, w))
    conv = functools.partial(jaxdil.conv, groups=None, **options)
    forward, *_, kernel = jaxdil.explain(conv, platform="cpu")(*like)
    found = []
    for row in (forward, kernel):
        rule, _, _ = row.because.partition(":")
        found += [rule.removeprefix("rule C").removesuffix(" rule"), row.method]
    return found


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "dtype", "options", "methods"),
    [
        ((1, 9, 9, 192), (3, 3, 192, 192), np.float32, {"dilation": 4}, "13 im2col 13 correlate"),
        ((1, 9, 9, 63), (3, 3, 63, 64), np.float32, {"dilation": 4}, "no xla no xla"),
        ((1, 33, 33, 192), (3, 3, 192, 192), np.float32, {"dilation": 4}, "no xla no xla"),
        ((1, 9, 9, 64), (3, 3, 64, 64), BF16, {"dilation": 4}, "13 im2col 13 correlate"),
        ((1, 9, 9, 79), (3, 3, 79, 79), BF16, {}, "14 im2col no xla"),
        ((1, 9, 9, 96), (3, 3, 96, 96), BF16, {}, "14 im2col 14 im2col"),
        ((1, 78, 78, 64), (3, 3, 64, 64), BF16, {}, "14 im2col 14 im2col"),
        ((1, 26, 26, 63), (3, 3, 63, 63), BF16, {}, "no xla no xla"),
        ((1, 90, 90, 22), (3, 3, 22, 32), BF16, {}, "no xla no xla"),
        ((1, 9, 9, 96), (3, 3, 96, 63), BF16, {}, "no xla no xla"),
        ((2, 90, 64), (3, 64, 64), BF16, {}, "14 im2col no xla"),
        ((1, 9, 9, 64), (3, 3, 64, 64), np.float16, {}, "no xla no xla"),
        ((1, 7, 7, 256), (3, 3, 256, 256), np.float32, {}, "15 im2col 15 im2col"),
        ((1, 7, 7, 192), (3, 3, 192, 192), np.float32, {}, "no xla 15 im2col"),
        ((1, 7, 7, 191), (3, 3, 191, 192), np.float32, {}, "no xla no xla"),
        ((1, 14, 14, 512), (3, 3, 512, 512), np.float32, {}, "15 im2col 15 im2col"),
        ((2, 14, 14, 512), (3, 3, 512, 512), np.float32, {}, "15 im2col no xla"),
        ((8, 14, 14, 256), (3, 3, 256, 256), np.float32, {}, "no xla no xla"),
        ((4, 14, 14, 256), (3, 3, 256, 256), np.float32, {"stride": 2}, "no xla 15 im2col"),
        ((1, 7, 7, 256), (3, 3, 256, 256), np.float64, {}, "no xla no xla"),
        ((1, 9, 9, 32), (3, 3, 32, 32), np.float32, {"dilation": 6}, "13 im2col 13 correlate"),
        ((1, 9, 9, 31), (3, 3, 31, 32), np.float32, {"dilation": 6}, "no xla no xla"),
        ((8, 28, 28, 80), (3, 3, 80, 80), np.float32, {}, "no xla 16 im2col"),
        ((7, 28, 28, 80), (3, 3, 80, 80), np.float32, {}, "no xla no xla"),
        ((8, 28, 28, 80), (5, 5, 80, 80), np.float32, {}, "no xla no xla"),
        ((8, 28, 28, 161), (3, 3, 161, 80), np.float32, {}, "no xla no xla"),
        ((8, 28, 28, 80), (3, 3, 80, 80), np.float32, {"dilation": 4}, "no xla no xla"),
        ((8, 56, 56, 128), (3, 3, 128, 128), np.float32, {}, "no xla 16 im2col"),
        ((7, 56, 56, 128), (3, 3, 128, 128), np.float32, {}, "no xla no xla"),
        ((8, 56, 56, 48), (3, 3, 48, 48), np.float32, {}, "no xla 16 im2col"),
        ((7, 56, 56, 64), (3, 3, 64, 64), np.float32, {}, "no xla no xla"),
        ((8, 56, 56, 47), (3, 3, 47, 48), np.float32, {}, "no xla no xla"),
        ((1, 110, 110, 64), (3, 3, 64, 64), np.float32, {"stride": 2}, "no xla 16 im2col"),
        ((1, 108, 108, 64), (3, 3, 64, 64), np.float32, {"stride": 2}, "no xla no xla"),
        ((1, 40, 40, 160), (3, 3, 160, 160), np.float32, {"stride": 2}, "no xla 16 im2col"),
        ((1, 38, 38, 160), (3, 3, 160, 160), np.float32, {"stride": 2}, "no xla no xla"),
        ((2, 2, 2, 64), (3, 3, 64, 64), np.float32, {}, "17 im2col 17 planes"),
        ((2, 2, 2, 2, 64), (3, 3, 3, 64, 64), np.float32, {}, "17 im2col 9 planes"),
        ((3, 6, 64), (9, 64, 64), BF16, {}, "17 im2col no xla"),
        ((1, 2, 2, 64), (3, 3, 64, 64), np.float64, {}, "no xla no xla"),
        ((2, 2, 2, 31), (3, 3, 31, 64), np.float32, {}, "no xla 17 planes"),
        ((66, 2, 2, 16), (3, 3, 16, 16), np.float32, {}, "17 im2col no xla"),
        ((65, 2, 2, 16), (3, 3, 16, 16), np.float32, {}, "no xla no xla"),
        ((9, 2, 2, 64), (2, 2, 64, 64), np.float32, {}, "no xla no xla"),
        # Of any size in two axes: a kernel larger than the image.
        ((2, 8, 10, 8), (9, 9, 8, 8), np.float32, {}, "17 planes 17 planes"),
        ((2, 8, 10, 8), (9, 9, 8, 8), BF16, {}, "17 planes 17 planes"),
        ((2, 8, 10, 7), (9, 9, 7, 8), np.float32, {}, "no xla no xla"),
        ((2, 9, 9, 8), (9, 9, 8, 8), np.float32, {}, "no xla no xla"),
        ((8, 8, 10, 8), (9, 9, 8, 8), np.float32, {}, "17 planes 17 planes"),
        ((9, 8, 10, 8), (9, 9, 8, 8), np.float32, {}, "17 planes no xla"),
        ((2, 8, 10, 8), (9, 9, 8, 8), np.float32, {"stride": 2}, "17 planes no xla"),
        ((1, 12, 24, 8), (17, 18, 8, 8), np.float32, {}, "17 planes 17 planes"),
        ((1, 64, 16), (65, 16, 16), np.float32, {}, "17 im2col no xla"),
        ((1, 64, 15), (65, 15, 16), np.float32, {}, "no xla no xla"),
        ((1, 65, 16), (65, 16, 16), np.float32, {}, "no xla no xla"),
        ((1, 20, 16), (21, 16, 16), np.float32, {}, "no xla no xla"),
        ((1, 12, 24, 8), (18, 17, 8, 8), np.float32, {}, "17 im2col 17 planes"),
        ((1, 20, 20, 96), (3, 3, 96, 64), BF16, {}, "14 im2col no xla"),
        ((1, 20, 20, 120), (3, 3, 120, 80), BF16, {}, "14 im2col 14 exchange"),
    ],
)
def test_dense_convolutions_by_matrix_products(monkeypatch, x, w, dtype, options, methods):
    """On one core, where C18 has nothing to say, and of vectors that C20 does not know."""
    monkeypatch.setattr(cpu_cores, "cores", lambda: 1)
    monkeypatch.setattr(cpu_channels, "cpu_vectors", str)  # without C11
    monkeypatch.setattr(cpu_library, "cpu_vectors", str)
    found = rules_and_methods(x, w, dtype, options)
    # Below JAX 0.10 XLA has another library, which a product does not beat but where it is of
    # half precision or spares the padding, or where the library is not called.
    expected = methods.split()
    if jax.__version_info__ < (0, 10):
        for at in (0, 2):
            if not (expected[at] in ("9", "13", "17") or (expected[at] == "14" and at == 0)):
                expected[at : at + 2] = ["no", "xla"]
    # From JAX 0.11 on that of 64 channels is good at kernel gradients too.
    if jax.__version_info__ >= (0, 11) and min(w[-2:]) < 80 and expected[2] in ("14", "16"):
        expected[2:] = ["16", "im2col"] if "stride" in options else ["no", "xla"]
    assert found == expected


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "dtype", "options", "methods"),
    [
        ((4, 28, 28, 64), (3, 3, 64, 64), np.float32, {}, "18 margin 18 slabs"),
        ((4, 28, 28, 128), (3, 3, 128, 32), np.float32, {}, "18 margin 18 exchange"),
        ((4, 28, 28, 128), (3, 3, 128, 31), np.float32, {}, "no xla 18 exchange"),
        ((4, 28, 28, 64), (3, 3, 64, 64), np.float64, {}, "no xla no xla"),
        ((1, 26, 26, 64), (3, 3, 64, 64), np.float32, {}, "no xla no xla"),  # little work
        ((4, 28, 28, 128), (3, 3, 128, 64), np.float32, {}, "18 margin 18 exchange"),
        ((4, 28, 28, 128), (3, 3, 128, 128), np.float32, {}, "no xla no xla"),
        ((4, 28, 28, 128), (3, 3, 128, 192), np.float32, {}, "18 margin 18 exchange"),
        ((4, 28, 28, 192), (3, 3, 192, 192), np.float32, {}, "18 margin 18 slabs"),
        ((4, 28, 28, 64), (3, 3, 64, 64), np.float32, {"dilation": 4}, "18 margin no xla"),
        ((1, 56, 56, 64), (3, 3, 64, 64), np.float32, {}, "18 margin 18 slabs"),
        ((1, 128, 128, 64), (3, 3, 64, 64), np.float32, {}, "no xla 18 slabs"),
        ((4, 16, 16, 64), (5, 5, 64, 96), np.float32, {}, "18 margin no xla"),
        ((4, 16, 16, 64), (5, 5, 64, 128), np.float32, {}, "no xla no xla"),
        ((8, 56, 56, 64), (3, 3, 64, 64), np.float32, {}, "18 margin 16 im2col"),
        ((1, 130, 130, 64), (3, 3, 64, 64), np.float32, {"padding": 0}, "18 margin 18 slabs"),
        ((1, 57, 57, 128), (3, 3, 128, 128), np.float32, {"padding": 0}, "18 margin no xla"),
        ((1, 58, 58, 128), (3, 3, 128, 128), np.float32, {"padding": 0}, "18 margin no xla"),
        ((4, 30, 30, 128), (3, 3, 128, 64), np.float32, {"padding": 0}, "18 margin 18 slabs"),
        ((4, 54, 54, 64), (3, 3, 64, 64), np.float32, {"stride": 2}, "18 planes no xla"),
        ((2, 54, 54, 72), (3, 3, 72, 64), np.float32, {"stride": 2}, "18 slabs no xla"),
        ((4, 54, 54, 32), (3, 3, 32, 64), np.float32, {"stride": 2}, "18 planes no xla"),
        ((4, 64, 64, 64), (2, 2, 64, 64), np.float32, {"stride": 2}, "no xla 16 im2col"),
        ((8, 9, 9, 192), (3, 3, 192, 192), np.float32, {"padding": 2}, "no xla 12 exchange"),
        # Too much to copy for an exchange.
        ((4, 112, 112, 64), (3, 3, 64, 48), np.float32, {}, "no xla 16 im2col"),
        ((4, 96, 96, 128), (3, 3, 128, 64), np.float32, {}, "18 margin 16 im2col"),
        # Where products were chosen for more channels before.
        ((1, 9, 9, 191), (3, 3, 191, 192), np.float32, {"dilation": 4}, "13 im2col no xla"),
        ((1, 40, 40, 63), (3, 3, 63, 63), BF16, {}, "14 im2col 14 im2col"),
        ((1, 36, 36, 63), (3, 3, 63, 63), BF16, {}, "14 im2col no xla"),
        ((1, 90, 90, 24), (3, 3, 24, 32), BF16, {}, "14 im2col 14 im2col"),
    ],
)
def test_the_library_of_jax_0_10_leaves_a_core_idle(monkeypatch, x, w, dtype, options, methods):
    monkeypatch.setattr(cpu_cores, "cores", lambda: 2)
    # What C20 has beside it has tests of its own.
    monkeypatch.setattr(cpu_channels, "cpu_vectors", str)  # without C11
    monkeypatch.setattr(cpu_library, "cpu_vectors", str)
    found = rules_and_methods(x, w, dtype, options)
    if jax.__version_info__[:2] == (0, 10):
        assert found == methods.split()
    else:
        assert "18" not in found


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "dtype", "options", "method"),
    [
        # A cotangent larger than the cache, of large images.
        ((4, 56, 56, 64), (3, 3, 64, 64), np.float32, {}, "im2col"),
        ((4, 28, 28, 256), (3, 3, 256, 256), np.float32, {}, "planes"),
        ((8, 28, 28, 96), (5, 5, 96, 96), np.float32, {}, "planes"),
        ((4, 56, 56, 128), (3, 3, 128, 256), BF16, {}, "im2col"),
        ((8, 112, 112, 64), (3, 3, 64, 64), np.float32, {"stride": 2}, "im2col"),
        ((16, 14, 14, 256), (3, 3, 256, 256), np.float32, {}, "xla"),
        # Few channels: of one image, of many; few outputs are still exchanged.
        ((1, 64, 64, 21), (3, 3, 21, 21), np.float32, {"dilation": 2}, "slabs"),
        ((1, 224, 224, 3), (7, 7, 3, 64), np.float32, {"stride": 2}, "slabs"),
        ((8, 64, 64, 3), (3, 3, 3, 64), np.float32, {}, "planes"),
        ((8, 64, 64, 16), (3, 3, 16, 16), np.float32, {}, "xla"),
        ((4, 96, 96, 32), (3, 3, 32, 9), np.float32, {}, "exchange"),
        ((4, 224, 224, 64), (3, 3, 64, 3), np.float32, {}, "planes"),
        # Few positions.
        ((1, 28, 28, 128), (3, 3, 128, 128), np.float32, {}, "planes"),
        ((2, 28, 28, 128), (3, 3, 128, 128), np.float32, {}, "xla"),
        # Doubles, one axis and volumes are as on any other.
        ((4, 56, 56, 64), (3, 3, 64, 64), np.float64, {}, "xla"),
        ((4, 9000, 128), (3, 128, 128), np.float32, {}, "xla"),
    ],
)
def test_kernel_gradients_on_an_intel_processor(monkeypatch, x, w, dtype, options, method):
    monkeypatch.setattr(cpu_cores, "cores", lambda: 1)
    like = [jax.ShapeDtypeStruct(shape, dtype) for shape in (x, w)]
    explained = jaxdil.explain(functools.partial(jaxdil.conv, **options), platform="cpu")
    *others, _ = explained(*like)
    monkeypatch.setattr(cpu_intel, "cpu_model", lambda: "Intel(R) Xeon(R) Processor")
    *same, row = explained(*like)
    assert [row.method for row in same] == [row.method for row in others]
    if jax.__version_info__ >= (0, 10):
        assert row.method == method
        assert row.because.startswith("rule C19: ") == (method in ("im2col", "planes", "slabs"))
    else:
        assert "C19" not in row.because


@pytest.mark.core
@pytest.mark.skipif(jax.__version_info__[:2] != (0, 10), reason="other JAX leaves no core idle")
@pytest.mark.parametrize(
    ("x", "w", "options", "methods"),
    [
        ((4, 40, 40, 32), (3, 3, 32, 32), {}, ("margin", "xla")),
        ((4, 40, 40, 40), (3, 3, 40, 40), {}, ("margin", "margin")),
        ((4, 54, 54, 64), (3, 3, 64, 64), {"stride": 2}, ("planes", "xla")),
        ((1, 112, 112, 32), (3, 3, 32, 32), {"padding": 0}, ("margin", "margin")),
    ],
)
def test_an_idle_core_of_an_intel_processor(monkeypatch, x, w, options, methods):
    monkeypatch.setattr(cpu_cores, "cores", lambda: 2)
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w)]
    explained = jaxdil.explain(functools.partial(jaxdil.conv, **options), platform="cpu")
    for model, method in zip(("AMD EPYC", "Intel(R) Xeon(R)"), methods, strict=True):
        monkeypatch.setattr(cpu_cores, "cpu_model", lambda model=model: model)
        assert explained(*like)[0].method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "dtype", "options", "methods"),
    [
        # The kernel gradient, of several images, of one, with a stride, with channels first.
        ((4, 28, 28, 128), (3, 3, 128, 128), np.float32, {}, "20 margin 20 planes"),
        ((1, 56, 56, 128), (3, 3, 128, 128), np.float32, {}, "20 margin 20 slabs"),
        ((1, 56, 56, 128), (5, 5, 128, 128), np.float32, {}, "20 margin 20 planes"),
        ((1, 56, 56, 128), (3, 3, 128, 128), np.float32, {"dilation": 2}, "20 margin 20 planes"),
        ((4, 56, 56, 24), (3, 3, 24, 24), np.float32, {}, "20 margin 20 slabs"),
        ((4, 56, 56, 24), (3, 3, 24, 24), np.float32, {"stride": 2}, "no xla 20 im2col"),
        ((8, 64, 64, 16), (3, 3, 16, 32), np.float32, {"stride": 2}, "no xla 20 slabs"),
        ((1, 56, 56, 64), (3, 3, 64, 64), BF16, {}, "20 margin 20 slabs"),
        ((1, 56, 56, 64), (3, 3, 64, 64), BF16, {"stride": 2}, "no xla 20 im2col"),
        ((1, 16, 16, 64), (3, 3, 64, 64), BF16, {"dilation": 4}, "20 margin no xla"),
        # The first layer of a network, little work, and what other rules have better.
        ((1, 224, 224, 3), (7, 7, 3, 64), np.float32, {"stride": 2}, "20 planes 20 slabs"),
        ((1, 28, 28, 16), (3, 3, 16, 16), np.float32, {}, "no xla no xla"),
        ((4, 32, 32, 64), (3, 3, 64, 4), np.float32, {}, "no xla 12 exchange"),
        ((4, 32, 32, 256), (3, 3, 256, 16), np.float32, {}, "20 margin 12 exchange"),
        ((8, 32, 32, 256), (3, 3, 256, 16), np.float32, {}, "20 margin no xla"),
        ((4, 32, 32, 512), (3, 3, 512, 32), np.float32, {}, "20 margin 20 planes"),
        ((4, 64, 64, 24), (3, 3, 24, 4), np.float32, {}, "no xla 12 exchange"),
        ((4, 32, 32, 256), (3, 3, 256, 24), np.float32, {}, "20 margin 12 exchange"),
        ((4, 32, 32, 256), (3, 3, 256, 25), np.float32, {}, "20 margin 20 slabs"),
        ((1, 14, 14, 256), (3, 3, 256, 256), np.float32, {}, "20 margin 15 im2col"),
        ((2, 7, 7, 512), (3, 3, 512, 512), np.float32, {}, "15 im2col 15 im2col"),
        # Outputs that fill no vector; a margin that would be a fifth of the image.
        ((2, 64, 64, 36), (3, 3, 36, 36), np.float32, {}, "no xla 20 planes"),
        ((64, 5, 5, 64), (3, 3, 64, 64), np.float32, {}, "no xla 20 planes"),
        ((1, 64, 128, 25), (3, 3, 25, 25), np.float32, {}, "20 margin 20 slabs"),
        ((1, 64, 64, 7), (3, 3, 7, 24), np.float32, {}, "11 even no xla"),
        # Without padding; many taps of few channels.
        ((1, 56, 56, 24), (3, 3, 24, 24), np.float32, {"padding": 0}, "20 margin 20 planes"),
        ((1, 56, 56, 20), (5, 5, 20, 16), np.float32, {"padding": 0}, "no xla no xla"),
        ((1, 56, 56, 16), (5, 5, 16, 16), np.float32, {"padding": 0}, "no xla 20 planes"),
        ((7, 64, 64, 3), (7, 7, 3, 3), np.float32, {}, "no xla 20 slabs"),
        ((8, 64, 64, 3), (7, 7, 3, 3), np.float32, {}, "no xla no xla"),
        ((7, 64, 64, 3), (9, 9, 3, 3), np.float32, {}, "no xla no xla"),
        # Groups by the kernel: of several images, of one, of few positions.
        ((1, 40, 40, 32), (3, 3, 8, 32), np.float32, {"stride": 2}, "5 taps 1 im2col"),
        ((1, 42, 42, 32), (3, 3, 8, 32), np.float32, {"stride": 2}, "5 taps 1 correlate"),
        ((2, 14, 14, 240), (3, 3, 20, 240), np.float32, {}, "5 split 1 split"),
        ((1, 14, 14, 240), (3, 3, 20, 240), np.float32, {}, "5 split 1 exchange"),
        ((1, 14, 14, 240), (3, 3, 20, 240), np.float32, {"stride": 2}, "5 split 1 im2col"),
        ((1, 8, 8, 256), (3, 3, 32, 256), np.float32, {}, "5 split 1 im2col"),
        ((1, 9, 9, 256), (3, 3, 32, 256), np.float32, {}, "5 split 1 split"),
        # Of kernels larger than the image.
        ((4, 4, 4, 256), (5, 5, 64, 256), np.float32, {}, "no xla 1 split"),
        ((4, 2, 2, 256), (3, 3, 64, 256), np.float32, {}, "5 taps 1 im2col"),
        ((1, 64, 64, 7), (3, 3, 7, 32), np.float32, {}, "no xla no xla"),
        ((4, 28, 28, 128), (3, 3, 128, 128), np.float64, {}, "no xla no xla"),
        # Eight images fill the vectors of few outputs.
        ((8, 32, 32, 24), (3, 3, 24, 24), np.float32, {}, "20 margin no xla"),
        ((8, 32, 32, 24), (3, 3, 24, 32), np.float32, {}, "20 margin 20 slabs"),
        ((12, 32, 32, 24), (3, 3, 24, 24), np.float32, {}, "20 margin 20 slabs"),
        # Few channels that read little but padding; a few long lines with a stride.
        ((4, 64, 64, 3), (5, 5, 3, 16), np.float32, {"dilation": 16}, "20 planes 20 planes"),
        ((4, 64, 64, 9), (5, 5, 9, 16), np.float32, {"dilation": 16}, "no xla 20 planes"),
        ((4, 200, 64), (4, 64, 64), np.float32, {"stride": 2}, "no xla 20 im2col"),
        ((4, 198, 64), (4, 64, 64), np.float32, {"stride": 2}, "no xla no xla"),
        # Padding to many outputs; a large kernel on fewer channels than a vector has.
        (
            (1, 33, 33, 192),
            (3, 3, 192, 2048),
            np.float32,
            {"dilation": 18},
            "20 planes 13 correlate",
        ),
        (
            (1, 33, 33, 191),
            (3, 3, 191, 2048),
            np.float32,
            {"dilation": 18},
            "no xla 20 planes",
        ),
        ((2, 28, 28, 8), (7, 7, 1, 8), np.float32, {}, "5 split 1 correlate"),
        ((2, 28, 28, 9), (7, 7, 1, 9), np.float32, {}, "5 taps 1 correlate"),
        ((2, 28, 28, 8), (6, 8, 1, 8), np.float32, {}, "5 taps 1 correlate"),
        ((5, 200, 64), (4, 64, 64), np.float32, {"stride": 2}, "no xla no xla"),
        ((4, 200, 32), (4, 32, 64), np.float32, {"stride": 2}, "no xla 20 im2col"),
        # A column of taps to few outputs.
        ((4, 56, 56, 64), (5, 1, 64, 16), np.float32, {}, "20 margin no xla"),
        ((4, 56, 56, 64), (5, 1, 64, 17), np.float32, {}, "no xla 12 exchange"),
        ((4, 56, 56, 64), (1, 5, 64, 15), np.float32, {}, "20 margin 12 exchange"),
        ((4, 56, 56, 64), (5, 1, 64, 2), np.float32, {}, "no xla no xla"),
        ((4, 200, 31), (4, 31, 64), np.float32, {"stride": 2}, "no xla no xla"),
        # Outputs that leave vectors empty; few of a large image without padding.
        ((2, 28, 28, 64), (3, 3, 64, 12), np.float32, {}, "20 margin 12 exchange"),
        ((2, 40, 40, 24), (3, 3, 24, 15), np.float32, {}, "20 margin no xla"),
        ((2, 40, 40, 23), (3, 3, 23, 15), np.float32, {}, "no xla no xla"),
        ((1, 56, 56, 64), (3, 3, 64, 8), np.float32, {"padding": 0}, "20 margin no xla"),
        ((1, 55, 55, 64), (3, 3, 64, 8), np.float32, {"padding": 0}, "no xla no xla"),
        ((1, 80, 80, 64), (3, 3, 64, 3), np.float32, {"padding": 0}, "no xla no xla"),
    ],
)
@pytest.mark.usefixtures("without_avx_512")
def test_a_processor_without_avx_512(monkeypatch, x, w, dtype, options, methods):
    monkeypatch.setattr(cpu_cores, "cores", lambda: 1)
    monkeypatch.setattr(cpu_few, "cpu_vectors", str)
    found = rules_and_methods(x, w, dtype, options)
    if jax.__version_info__[:2] == (0, 10):
        assert found == methods.split()
        return
    # Other JAX are slow by the kernel alone; since 0.11 only where there is more to do, and 0.8
    # only of fewer than eight images.
    assert found[0] != "20"
    if found[2] == "20" and len(w) == 4:
        assert jax.__version_info__ < (0, 11) or found[3] == "planes"
        assert jax.__version_info__ >= (0, 10) or x[0] < 8


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "methods"),
    [
        # Kernel gradients of a single line, and of two.
        ((1, 1000, 64), (5, 64, 64), {}, "no xla 20 im2col"),
        ((1, 1001, 64), (5, 64, 64), {}, "no xla no xla"),
        ((2, 500, 8), (5, 8, 8), {}, "no xla 20 im2col"),
        ((2, 500, 7), (5, 7, 8), {}, "no xla no xla"),
        ((3, 100, 16), (5, 16, 16), {}, "no xla no xla"),
        ((1, 256, 192), (5, 192, 192), {}, "no xla 20 im2col"),
        ((1, 257, 192), (5, 192, 192), {}, "no xla no xla"),
        # To few outputs.
        ((2, 250, 64), (3, 64, 8), {}, "20 im2col 20 im2col"),
        ((2, 249, 64), (3, 64, 8), {}, "no xla 20 im2col"),
        ((8, 250, 64), (3, 64, 8), {"dilation": 4}, "20 im2col 12 exchange"),
        ((8, 250, 63), (3, 63, 8), {}, "no xla 12 exchange"),
        ((8, 250, 64), (3, 64, 9), {}, "no xla 12 exchange"),
        ((8, 250, 64), (2, 64, 8), {}, "no xla 12 exchange"),
        ((8, 999, 64), (3, 64, 8), {"stride": 2}, "no xla no xla"),
        # Few positions of many channels, which C15 has with AVX-512.
        ((2, 50, 728), (7, 728, 728), {"dilation": 4}, "no xla 20 im2col"),
    ],
)
@pytest.mark.usefixtures("without_avx_512")
def test_lines_without_avx_512(x, w, options, methods):
    assert rules_and_methods(x, w, np.float32, options) == methods.split()


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "dtype", "options", "methods"),
    [
        # Lines: short ones by the kernel, with and without a stride, wide patches, channels first.
        ((1, 1000, 64), (5, 64, 64), np.float32, {}, "no xla 20 im2col"),
        ((1, 1001, 64), (5, 64, 64), np.float32, {}, "no xla no xla"),
        ((1, 1000, 100), (81, 100, 64), np.float32, {}, "no xla no xla"),
        ((2, 500, 8), (5, 8, 8), BF16, {}, "no xla 20 im2col"),
        ((4, 200, 64), (4, 64, 64), np.float32, {"stride": 2}, "no xla 20 im2col"),
        ((4, 200, 64), (94, 64, 64), np.float32, {"stride": 2}, "no xla no xla"),
        ((1, 512, 32), (5, 32, 32), np.float32, {"padding": 0}, "no xla no xla"),
        ((1, 512, 31), (5, 31, 32), np.float32, {"padding": 0}, "no xla 20 im2col"),
        ((8, 250, 64), (3, 64, 8), np.float32, {"dilation": 4}, "20 im2col 12 exchange"),
        ((8, 250, 63), (3, 63, 8), np.float32, {}, "no xla 12 exchange"),
        # Lines of one tap to a few outputs.
        ((4, 500, 64), (1, 64, 16), np.float32, {}, "no xla 12 exchange"),
        ((4, 500, 63), (1, 63, 16), np.float32, {}, "no xla no xla"),
        ((4, 500, 64), (1, 64, 17), np.float32, {}, "no xla no xla"),
    ],
)
def test_lines_with_avx_512(x, w, dtype, options, methods):
    assert rules_and_methods(x, w, dtype, options) == methods.split()


@pytest.mark.parametrize(
    ("x", "w", "dtype", "options", "methods"),
    [
        # Few channels, many, multiples of 128, many outputs of few channels.
        ((1, 64, 128, 16), (3, 3, 16, 16), np.float32, {"dilation": 2}, "no xla 20 planes"),
        ((2, 28, 28, 144), (5, 5, 144, 160), np.float32, {}, "no xla 20 planes"),
        ((2, 28, 28, 128), (5, 5, 128, 256), np.float32, {}, "no xla no xla"),
        ((2, 28, 28, 40), (5, 5, 40, 160), np.float32, {}, "no xla 20 planes"),
        ((2, 28, 28, 40), (5, 5, 40, 161), np.float32, {}, "no xla no xla"),
        # Half precision; eight images; with a stride.
        ((1, 64, 64, 22), (5, 5, 22, 22), BF16, {}, "no xla 20 slabs"),
        ((1, 64, 64, 24), (5, 5, 24, 24), BF16, {}, "no xla no xla"),
        ((8, 32, 32, 24), (5, 5, 24, 24), np.float32, {}, "no xla no xla"),
        ((7, 64, 64, 40), (5, 5, 40, 48), np.float32, {"stride": 2}, "no xla 20 im2col"),
        ((8, 64, 64, 40), (5, 5, 40, 48), np.float32, {"stride": 2}, "no xla no xla"),
        (
            (7, 64, 64, 40),
            (5, 5, 40, 48),
            np.float32,
            {"stride": 2, "dilation": 3},
            "no xla no xla",
        ),
        ((7, 40, 64, 64), (5, 5, 40, 48), np.float32, FIRST | {"stride": 2}, "no xla no xla"),
        # Slabs, and planes where channels are first.
        ((1, 64, 64, 22), (5, 5, 22, 22), np.float32, {}, "no xla 20 slabs"),
        ((1, 22, 64, 64), (5, 5, 22, 22), np.float32, FIRST, "no xla 20 planes"),
        # Without padding, and dilated.
        ((2, 64, 64, 20), (5, 5, 20, 20), np.float32, {"padding": 0}, "18 margin 20 planes"),
        (
            (2, 64, 64, 20),
            (5, 5, 20, 20),
            np.float32,
            {"padding": 0, "dilation": 4},
            "18 margin no xla",
        ),
        # Images that are not padded: patches of 4 MB and more, of less, of few channels.
        ((4, 63, 63, 64), (3, 3, 64, 9), np.float32, {"padding": 0}, "18 margin no xla"),
        ((4, 24, 24, 64), (3, 3, 64, 9), np.float32, {"padding": 0}, "18 margin no xla"),
        ((4, 23, 23, 64), (3, 3, 64, 9), np.float32, {"padding": 0}, "no xla no xla"),
        ((4, 130, 130, 17), (3, 3, 17, 9), np.float32, {"padding": 0}, "18 margin no xla"),
        ((4, 130, 130, 16), (3, 3, 16, 9), np.float32, {"padding": 0}, "no xla 20 planes"),
        # To few outputs.
        ((4, 63, 63, 64), (3, 3, 64, 8), np.float32, {"padding": 0}, "18 im2col no xla"),
        ((4, 130, 130, 17), (3, 3, 17, 8), np.float32, {"padding": 0}, "18 im2col no xla"),
        ((4, 130, 130, 16), (3, 3, 16, 8), np.float32, {"padding": 0}, "no xla 20 planes"),
        ((4, 66, 66, 64), (3, 3, 64, 8), BF16, {"padding": 0}, "18 im2col no xla"),
        (
            (4, 130, 130, 64),
            (3, 3, 64, 8),
            np.float32,
            {"padding": 0, "stride": 2},
            "18 slabs 20 slabs",
        ),
        (
            (4, 70, 70, 64),
            (3, 3, 64, 8),
            np.float32,
            {"padding": 0, "dilation": 3},
            "no xla no xla",
        ),
    ],
)
def test_what_the_library_is_slow_at_with_avx_512(monkeypatch, x, w, dtype, options, methods):
    if jax.__version_info__[:2] != (0, 10):
        pytest.skip("measured with the library of JAX 0.10")
    monkeypatch.setattr(cpu_cores, "cores", lambda: 1)
    monkeypatch.setattr(cpu_few, "cpu_vectors", str)
    assert rules_and_methods(x, w, dtype, options) == methods.split()


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "method"),
    [
        # With a stride, whatever the padding.
        ((3, 40, 40, 3), (3, 3, 3, 20), {"stride": 2}, "22 im2col"),
        ((3, 40, 40, 3), (3, 3, 3, 20), {"stride": 2, "padding": 0}, "22 im2col"),
        ((3, 40, 40, 3), (3, 3, 3, 21), {"stride": 2}, "no xla"),
        ((4, 40, 40, 16), (3, 3, 16, 20), {"stride": 2}, "no xla"),
        ((3, 40, 40, 2), (3, 3, 2, 20), {"stride": 2}, "no xla"),
        ((3, 40, 40, 3), (3, 3, 3, 2), {"stride": 2}, "no xla"),
        ((1, 40, 40, 8), (7, 7, 8, 16), {"stride": 2}, "22 im2col"),
        ((1, 40, 40, 8), (7, 8, 8, 16), {"stride": 2}, "no xla"),
        # Without one: padded, of little work.
        ((3, 30, 30, 16), (3, 3, 16, 16), {}, "22 im2col"),
        ((3, 30, 30, 16), (3, 3, 16, 16), {"dilation": 2}, "22 im2col"),
        ((1, 64, 64, 16), (1, 3, 16, 16), {}, "22 im2col"),
        ((1, 64, 64, 16), (3, 1, 16, 16), {}, "no xla"),
        ((1, 64, 64, 16), (3, 3, 16, 16), {"padding": 0}, "no xla"),
        ((1, 80, 80, 12), (3, 3, 12, 16), {}, "22 im2col"),
        # Fewer channels than half the outputs, in wide images.
        ((1, 64, 40, 10), (3, 3, 10, 20), {}, "22 planes"),
        ((1, 64, 39, 10), (3, 3, 10, 20), {}, "no xla"),
        ((1, 64, 64, 11), (3, 3, 11, 20), {}, "22 im2col"),
    ],
)
def test_kernel_gradients_of_few_images(monkeypatch, x, w, options, method):
    found = rules_and_methods(x, w, np.float32, options)
    assert found[2:] == method.split()
    half = rules_and_methods(x, w, BF16, options)
    assert half[2:] == ("no xla" if "planes" in method else method).split()
    elsewhere_none_of_it(monkeypatch, x, w, np.float32, options)


def elsewhere_none_of_it(monkeypatch, x, w, dtype, options):
    """C22 was measured with AVX-512 alone."""
    for vectors in ("AVX2", ""):
        monkeypatch.setattr(cpu_few, "cpu_vectors", lambda vectors=vectors: vectors)
        forward, _, kernel, _ = rules_and_methods(x, w, dtype, options)
        assert "22" not in (forward, kernel)


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((4, 6, 30, 30), (3, 3, 6, 4), {}),
        ((4, 32, 20, 20), (3, 3, 32, 8), {"padding": 0}),
    ],
)
def test_images_with_channels_first_are_not_laid_out_anew_for_few_outputs(x, w, options):
    assert rules_and_methods(x, w, np.float32, options | FIRST)[2:] == ["no", "xla"]


def test_few_outputs_of_a_large_window_are_no_kernel_gradient():
    """Its taps, more than its positions, are what a kernel gradient has."""
    x, w = (8, 41, 41, 3), (20, 20, 3, 8)
    rule, *_ = rules_and_methods(x, w, np.float32, {"dilation": 2, "padding": 0})
    assert rule != "22"


@pytest.mark.core
def test_one_window_larger_than_the_image_is_another_matter():
    pad = {"padding": ((0, 1), (0, 0))}
    rule, *_ = rules_and_methods((1, 16, 16, 8), (17, 16, 8, 8), np.float32, pad)
    assert rule != "17"


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "rule"),
    [
        ((1, 8, 8, 16), (9, 9, 16, 16), "rule C17"),
        ((1, 8, 8, 16), (9, 9, 15, 16), "no rule"),
        ((1, 9, 9, 16), (9, 9, 16, 16), "no rule"),
        ((1, 64, 16), (65, 16, 16), "rule C17"),
        ((1, 65, 16), (65, 16, 16), "no rule"),
    ],
)
def test_a_transposed_convolution_of_a_small_image(monkeypatch, x, w, rule):
    monkeypatch.setattr(cpu_library, "cpu_vectors", str)
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    conv = functools.partial(jaxdil.conv_transpose, stride=2)
    forward, *_ = jaxdil.explain(conv, platform="cpu")(*like)
    assert (forward.because.partition(":")[0], forward.method) == (
        rule,
        "phases" if rule == "rule C17" else "xla",
    )


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "method"),
    [
        ((2, 8, 10, 16), (9, 9, 16, 16), "slabs"),
        ((2, 8, 10, 15), (9, 9, 15, 16), "planes"),
        ((2, 9, 9, 16), (9, 9, 16, 16), "xla"),
        # Patches of few samples, unless they are large.
        ((1, 6, 6, 64), (9, 9, 64, 64), "im2col"),
        ((4, 6, 6, 256), (9, 9, 256, 64), "slabs"),
    ],
)
def test_a_full_convolution_of_a_small_image(x, w, method):
    """Every window meets a sample, as in input gradients of what was not padded."""
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    conv = functools.partial(jaxdil.conv, padding=8)
    forward, *_ = jaxdil.explain(conv, platform="cpu")(*like)
    assert forward.method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "method", "before"),
    [
        ((1, 40, 40, 12), (3, 3, 12, 8), {}, "22 im2col", "22 im2col"),
        ((1, 40, 40, 12), (3, 3, 12, 8), {"dilation": 2}, "22 im2col", "22 im2col"),
        ((1, 40, 40, 16), (3, 3, 16, 8), {}, "22 im2col", "no xla"),
        ((1, 40, 40, 17), (3, 3, 17, 8), {}, "no xla", "no xla"),
        ((1, 40, 40, 12), (3, 3, 12, 8), {"stride": 2}, "no xla", "no xla"),
        ((1, 40, 40, 12), (3, 3, 12, 7), {"padding": 0}, "22 im2col", "22 im2col"),
        ((1, 40, 40, 12), (3, 3, 12, 8), {"padding": 0}, "no xla", "no xla"),
        ((1, 40, 16, 12), (3, 3, 12, 8), {}, "22 im2col", "22 im2col"),
        ((1, 40, 15, 12), (3, 3, 12, 8), {}, "no xla", "no xla"),
        ((1, 40, 40, 12), (3, 3, 12, 2), {}, "no xla", "no xla"),
        ((1, 40, 40, 2), (3, 3, 2, 8), {}, "no xla", "no xla"),
        # So many terms that it fills its kernels; so few that patches are nothing.
        ((1, 40, 40, 8), (7, 7, 8, 8), {}, "22 im2col", "22 im2col"),
        ((1, 40, 40, 9), (7, 7, 9, 8), {}, "no xla", "no xla"),
        ((1, 40, 40, 4), (5, 10, 4, 8), {}, "no xla", "no xla"),
        ((1, 40, 40, 4), (3, 1, 4, 8), {}, "22 im2col", "22 im2col"),
        ((1, 40, 40, 3), (3, 1, 3, 8), {}, "no xla", "no xla"),
        # Three channels of a large kernel.
        ((1, 40, 40, 3), (5, 5, 3, 8), {}, "22 planes", "22 planes"),
        ((1, 40, 40, 3), (3, 7, 3, 8), {}, "22 im2col", "22 im2col"),
        ((1, 40, 40, 4), (5, 5, 4, 8), {}, "22 im2col", "22 im2col"),
        # Some more outputs.
        ((1, 40, 40, 8), (3, 3, 8, 12), {}, "22 planes", "22 im2col"),
        ((1, 40, 40, 8), (3, 3, 8, 13), {}, "no xla", "no xla"),
        ((1, 40, 40, 9), (3, 3, 9, 12), {}, "no xla", "22 im2col"),
        ((1, 40, 40, 8), (3, 3, 8, 12), {"padding": 0}, "no xla", "no xla"),
    ],
)
def test_few_channels_to_few_outputs(monkeypatch, x, w, options, method, before):
    """``before`` is under the library that JAX has before 0.10."""
    method = method if jax.__version_info__ >= (0, 10) else before
    assert rules_and_methods(x, w, np.float32, options)[:2] == method.split()
    # Half precision is as slow, where it is multiplied; by planes it was not measured.
    if "planes" in method:
        method = "22 im2col" if w[-1] <= 8 else "no xla"
    assert rules_and_methods(x, w, BF16, options)[:2] == method.split()
    monkeypatch.setattr(cpu_few, "multiplies_bfloat16", lambda: False)
    assert rules_and_methods(x, w, BF16, options)[:2] == ["no", "xla"]
    elsewhere_none_of_it(monkeypatch, x, w, np.float32, options)


@pytest.mark.parametrize(
    ("x", "w", "dtype", "options", "method"),
    [
        # With a stride, of more images.
        ((8, 56, 56, 32), (3, 3, 32, 20), np.float32, {"stride": 2}, "22 im2col"),
        ((8, 56, 56, 31), (3, 3, 31, 20), np.float32, {"stride": 2}, "no xla"),
        ((8, 30, 30, 32), (3, 3, 32, 20), np.float32, {"stride": 2}, "no xla"),
        ((32, 12, 12, 96), (3, 3, 96, 16), np.float32, {"stride": 2}, "no xla"),
        ((4, 24, 24, 192), (3, 3, 192, 16), np.float32, {"stride": 2}, "22 im2col"),
        # Of four images, padded.
        ((4, 30, 30, 6), (3, 3, 6, 4), np.float32, {}, "22 im2col"),
        ((4, 30, 30, 5), (3, 3, 5, 4), np.float32, {}, "no xla"),
        ((4, 30, 30, 6), (1, 3, 6, 4), np.float32, {}, "no xla"),
        ((5, 30, 30, 6), (3, 3, 6, 4), np.float32, {}, "no xla"),
        ((4, 64, 64, 12), (3, 3, 12, 12), np.float32, {}, "20 slabs"),
        # Of more, not padded: many channels to few, or large images.
        ((4, 20, 20, 32), (3, 3, 32, 8), np.float32, {"padding": 0}, "22 im2col"),
        ((4, 20, 20, 32), (3, 3, 32, 8), BF16, {"padding": 0}, "22 im2col"),
        ((4, 20, 20, 31), (3, 3, 31, 8), np.float32, {"padding": 0}, "no xla"),
        ((4, 20, 20, 32), (3, 3, 32, 9), np.float32, {"padding": 0}, "no xla"),
        ((3, 20, 20, 32), (3, 3, 32, 8), np.float32, {"padding": 0}, "no xla"),
        ((16, 70, 70, 16), (3, 3, 16, 12), np.float32, {"padding": 0}, "22 im2col"),
        ((16, 60, 60, 16), (3, 3, 16, 12), np.float32, {"padding": 0}, "no xla"),
        ((16, 70, 70, 16), (3, 3, 16, 12), np.float32, {"padding": 0, "dilation": 2}, "no xla"),
        # A column of taps.
        ((1, 30, 30, 8), (3, 1, 8, 48), np.float32, {}, "22 correlate"),
        ((1, 30, 30, 8), (3, 1, 8, 48), BF16, {}, "no xla"),
        ((1, 24, 24, 8), (3, 1, 8, 48), np.float32, {}, "no xla"),
        ((1, 30, 30, 7), (3, 1, 7, 48), np.float32, {}, "no xla"),
        ((1, 30, 30, 8), (3, 1, 8, 24), np.float32, {}, "no xla"),
        # With a stride, to some more.
        ((3, 32, 32, 24), (3, 3, 24, 32), np.float32, {"stride": 2}, "22 im2col"),
        ((3, 32, 32, 24), (3, 3, 24, 32), BF16, {"stride": 2}, "no xla"),
        ((3, 32, 32, 24), (3, 3, 24, 33), np.float32, {"stride": 2}, "no xla"),
        ((3, 30, 30, 24), (2, 2, 24, 32), np.float32, {"stride": 2}, "10 im2col"),
        ((3, 30, 30, 24), (3, 3, 24, 32), np.float32, {"stride": 2}, "no xla"),
        ((3, 34, 34, 23), (3, 3, 23, 32), np.float32, {"stride": 2}, "no xla"),
        ((4, 32, 32, 24), (3, 3, 24, 32), np.float32, {"stride": 2}, "no xla"),
        # Few channels to many.
        ((1, 64, 64, 4), (3, 3, 4, 48), np.float32, {}, "22 slabs"),
        ((1, 64, 64, 6), (3, 3, 6, 48), np.float32, {}, "22 slabs"),
        ((1, 64, 64, 7), (3, 3, 7, 48), np.float32, {}, "no xla"),
        ((1, 64, 64, 3), (3, 3, 3, 48), np.float32, {}, "no xla"),
        ((1, 64, 64, 4), (3, 3, 4, 32), np.float32, {}, "no xla"),
        ((1, 62, 62, 4), (3, 3, 4, 48), np.float32, {}, "no xla"),
        ((1, 64, 64, 4), (2, 3, 4, 48), np.float32, {}, "no xla"),
        ((1, 64, 64, 4), (3, 3, 4, 48), np.float32, {"dilation": 2}, "no xla"),
        ((4, 73, 73, 12), (3, 3, 12, 96), np.float32, {"padding": 0}, "22 planes"),
        ((4, 72, 72, 12), (3, 3, 12, 96), np.float32, {"padding": 0}, "no xla"),
        ((4, 73, 73, 17), (3, 3, 17, 96), np.float32, {"padding": 0}, "no xla"),
    ],
)
def test_kernel_gradients_of_few_channels(monkeypatch, x, w, dtype, options, method):
    # Under JAX before 0.10 some of it was measured, of later libraries none.
    if jax.__version_info__ >= (0, 11):
        assert rules_and_methods(x, w, dtype, options)[2] != "22"
        return
    if jax.__version_info__ < (0, 10):
        pytest.skip("measured with the library of JAX 0.10")
    assert rules_and_methods(x, w, dtype, options)[2:] == method.split()
    elsewhere_none_of_it(monkeypatch, x, w, dtype, options)


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "method"),
    [
        # A work of 10^6 on the samples, in one axis too.
        ((1, 16, 16, 21), (3, 3, 21, 21), {}, "C20 phases"),
        ((1, 16, 16, 20), (3, 3, 20, 20), {}, "xla"),
        ((1, 100, 60), (3, 60, 60), {}, "C20 phases"),
        ((1, 90, 60), (3, 60, 60), {}, "xla"),
        # Channels first, and along one axis or another.
        ((1, 21, 16, 16), (3, 3, 21, 21), {"data_format": "channels_first"}, "C20 phases"),
        ((1, 16, 16, 21), (3, 3, 21, 21), {"stride": (2, 1), "dilation": (1, 2)}, "C20 phases"),
    ],
)
@pytest.mark.parametrize("vectors", ["AVX2", "AVX-512"])
def test_zeros_between_samples_and_taps(monkeypatch, x, w, options, method, vectors):
    options = {"stride": 2, "dilation": 2, "conv": jaxdil.conv_transpose} | options
    for model in ("Intel(R) Xeon(R)", "AMD EPYC", "A processor"):
        pretend(monkeypatch, model=model, vectors=vectors, half=False)
        assert chosen("forward", x, w, {}, **options) == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "stride", "method"),
    [
        # Many samples; half as many of more taps to many outputs.
        ((2, 36, 36, 16), (3, 3, 16, 16), 2, "20 phases"),
        ((2, 32, 32, 16), (3, 3, 16, 16), 2, "20 phases / no xla"),
        ((2, 32, 32, 16), (5, 5, 16, 16), 2, "20 phases"),
        ((2, 31, 32, 16), (3, 3, 16, 16), 2, "no xla"),
        ((4, 16, 16, 64), (4, 4, 64, 64), 2, "20 phases / no xla"),
        ((4, 16, 16, 64), (5, 5, 64, 64), 2, "20 phases"),
        ((4, 16, 16, 64), (3, 3, 64, 64), 2, "no xla"),
        ((4, 16, 16, 64), (4, 4, 40, 64), 2, "no xla"),
        ((4, 15, 16, 64), (4, 4, 64, 64), 2, "no xla"),
        # Small images.
        ((32, 12, 12, 64), (4, 4, 64, 64), 2, "20 phases"),
        ((32, 11, 12, 64), (4, 4, 64, 64), 2, "no xla"),
        # Few outputs, few channels, one.
        ((2, 64, 64, 64), (5, 5, 6, 64), 2, "no xla"),
        ((1, 28, 28, 4), (3, 3, 16, 4), 2, "20 phases"),
        ((1, 26, 26, 4), (3, 3, 16, 4), 2, "no xla"),
        ((4, 64, 64, 4), (4, 4, 4, 4), 2, "20 phases"),
        ((3, 64, 64, 4), (4, 4, 4, 4), 2, "no xla"),
        ((4, 64, 64, 4), (5, 5, 3, 4), 2, "no xla"),
        ((1, 9, 9, 1), (3, 3, 1, 1), 2, "20 phases"),
        # A kernel that is a multiple of the stride, and one that is no longer than it.
        ((1, 16, 16, 16), (6, 6, 16, 16), 2, "8 phases"),
        ((4, 32, 32, 32), (2, 2, 32, 32), 2, "10 patches"),
        # In one axis.
        ((2, 1000, 16), (3, 16, 16), 2, "20 phases"),
        ((2, 999, 16), (3, 16, 16), 2, "no xla"),
        ((2, 1000, 16), (5, 8, 16), 2, "no xla"),
        ((2, 1000, 16), (16, 8, 16), 4, "20 phases"),
        ((2, 1000, 16), (31, 7, 16), 4, "no xla"),
        ((2, 1000, 3), (5, 16, 3), 2, "no xla"),
        ((2, 1000, 3), (8, 16, 3), 2, "20 phases"),
        ((1, 200, 1), (31, 1, 1), 4, "20 phases"),
        ((1, 199, 1), (31, 1, 1), 4, "no xla"),
        ((1, 20, 1), (16, 8, 1), 4, "20 phases"),
        # With AVX-512: from many channels to few, and what C8 has there.
        ((2, 1000, 80), (16, 16, 80), 4, "20 phases"),
        ((2, 1000, 81), (16, 16, 81), 4, "20 phases / no xla"),
        ((1, 64, 112, 2), (11, 11, 8, 2), 3, "no xla / 8 phases"),
        ((1, 64, 62, 2), (11, 11, 8, 2), 3, "no xla"),
        ((1, 64, 112, 2), (11, 11, 3, 2), 3, "no xla"),
        ((1, 8, 8, 8), (11, 11, 2, 8), 2, "no xla / 8 phases"),
        ((1, 28, 14, 4), (4, 4, 16, 4), 2, "no xla / 8 phases"),
        ((1, 28, 14, 5), (4, 4, 16, 5), 2, "no xla"),
    ],
)
@pytest.mark.usefixtures("without_avx_512")
def test_zeros_between_samples(monkeypatch, x, w, stride, method):
    conv = functools.partial(jaxdil.conv_transpose, stride=stride)
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w)]

    def found():
        forward, *_ = jaxdil.explain(conv, platform="cpu")(*like)
        rule, _, _ = forward.because.partition(":")
        return f"{rule.removeprefix('rule C').removesuffix(' rule')} {forward.method}"

    method, *another = method.split(" / ")
    assert found() == method
    for rules in (cpu, cpu_library):
        monkeypatch.setattr(rules, "cpu_vectors", lambda: "AVX-512")
    assert found() == (another or [method])[0]
    # Where nothing is known of the vectors, lax.
    monkeypatch.setattr(cpu_library, "cpu_vectors", lambda: "")
    assert not found().startswith("20")


@pytest.mark.parametrize(
    ("x", "w", "groups", "method", "with_avx_512"),
    [
        ((1, 64, 64, 16), (3, 3, 4, 64), 4, "expand", "expand"),
        ((1, 62, 62, 16), (3, 3, 4, 64), 4, "phases", "phases"),
        ((4, 64, 64, 36), (3, 3, 9, 64), 4, "phases", "phases"),
        ((4, 64, 64, 16), (3, 3, 4, 32), 4, "phases", "phases"),
        ((4, 64, 64, 20), (3, 3, 4, 80), 5, "phases", "phases"),
        ((4, 800, 16), (3, 4, 64), 4, "phases", "phases"),
        # More outputs, and kernels no longer than the gap.
        ((4, 64, 64, 20), (3, 3, 5, 64), 4, "expand", "expand"),
        ((4, 64, 64, 24), (3, 3, 6, 64), 4, "expand", "phases"),
        ((4, 64, 64, 16), (2, 2, 4, 64), 4, "expand", "phases"),
        ((4, 64, 64, 16), (2, 3, 4, 64), 4, "expand", "expand"),
    ],
)
@pytest.mark.usefixtures("without_avx_512")
def test_a_few_groups_with_zeros_between_samples(monkeypatch, x, w, groups, method, with_avx_512):
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w)]
    conv = functools.partial(jaxdil.conv, stride=2, groups=groups)

    def found():
        _, gradient, _ = jaxdil.explain(conv, platform="cpu")(*like)
        assert gradient.because.startswith("rule C4: ")
        return gradient.method

    assert found() == method
    monkeypatch.setattr(cpu_groups, "cpu_vectors", lambda: "AVX-512")
    assert found() == with_avx_512


@pytest.mark.core
@pytest.mark.usefixtures("without_avx_512")
def test_input_gradients_of_strided_convolutions_without_avx_512():
    like = [jax.ShapeDtypeStruct(n, np.float32) for n in ((4, 56, 56, 32), (3, 3, 32, 64))]
    _, gradient, _ = jaxdil.explain(functools.partial(jaxdil.conv, stride=2), platform="cpu")(*like)
    # JAX 0.8 is as good at few taps to fewer outputs.
    assert gradient.method == ("phases" if cpu_products.LIBRARY else "xla")
    assert gradient.because.startswith("rule C20") == cpu_products.LIBRARY


@pytest.mark.core
def test_input_gradients_with_a_stride_and_a_dilation():
    """The taps lie apart, so that they are no windows side by side."""
    like = [jax.ShapeDtypeStruct(n, np.float32) for n in ((4, 64, 64, 1), (4, 4, 1, 1))]
    conv = functools.partial(jaxdil.conv, stride=4, dilation=2)
    _, gradient, _ = jaxdil.explain(conv, platform="cpu")(*like)
    assert gradient.method == "phases"
    assert gradient.because.startswith("rule C20")


@pytest.mark.core
@pytest.mark.parametrize(("padding", "method"), [("VALID", "phases"), ("SAME", "xla")])
def test_a_few_channels_of_a_transposed_convolution(padding, method):
    """Not cropped, every window that meets a sample is an output."""
    like = [jax.ShapeDtypeStruct(n, np.float32) for n in ((1, 20, 20, 2), (7, 7, 3, 2))]
    conv = functools.partial(jaxdil.conv_transpose, stride=2, padding=padding)
    forward, *_ = jaxdil.explain(conv, platform="cpu")(*like)
    assert forward.method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("channels", "outputs", "method"),
    [
        # To one or two outputs, to a few, and to too many: patches (C22), from three on.
        (16, 1, "exchange"),
        (15, 1, "taps"),
        (8, 2, "exchange"),
        (7, 2, "xla"),
        (16, 3, "exchange"),
        (16, 8, "exchange"),
        (18, 9, "im2col"),
        (12, 7, "im2col"),
    ],
)
def test_kernel_gradients_to_few_outputs(monkeypatch, channels, outputs, method):
    like = [(1, 20, 20, channels), (3, 3, channels, outputs)]
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in like]
    for vectors in ("AVX-512", "AVX2"):
        for rules in (cpu, cpu_library, cpu_products):
            monkeypatch.setattr(rules, "cpu_vectors", lambda vectors=vectors: vectors)
        *_, gradient = jaxdil.explain(jaxdil.conv, platform="cpu")(*like)
        assert gradient.method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("w", "groups", "stride", "methods"),
    [
        ((1, 1, 4, 32), 8, 1, "im2col taps"),
        ((1, 1, 8, 32), 4, 1, "im2col taps"),
        ((1, 1, 3, 32), 8, 1, "taps taps"),
        ((1, 1, 8, 32), 4, 2, "taps taps"),
        ((1, 2, 4, 32), 8, 1, "taps taps"),
    ],
)
def test_narrow_groups_of_one_tap_in_half_precision(monkeypatch, w, groups, stride, methods):
    x, w = (integers(i, n).astype(BF16) for i, n in enumerate(((2, 9, 9, w[2] * groups), w)))
    conv = functools.partial(jaxdil.conv, stride=stride, groups=groups)
    for able, method in zip((True, False), methods.split(), strict=True):
        monkeypatch.setattr(cpu_groups, "multiplies_bfloat16", lambda able=able: able)
        forward, *_ = jaxdil.explain(conv, platform="cpu")(x, w)
        assert (forward.method, forward.because[:8]) == (method, "rule C5:")
    ours, theirs = (jax.jit(functools.partial(conv, method=m))(x, w) for m in ("auto", "xla"))
    np.testing.assert_array_equal(ours.astype(np.float32), theirs.astype(np.float32))


@pytest.mark.core
@pytest.mark.parametrize(("outputs", "methods"), [(95, "patches patches"), (96, "patches xla")])
def test_half_precision_that_tiles_the_output(monkeypatch, outputs, methods):
    """As one matrix product, unless no instruction is for it."""
    conv = functools.partial(jaxdil.conv_transpose, stride=2)
    like = [jax.ShapeDtypeStruct(n, BF16) for n in ((4, 16, 16, 64), (2, 2, outputs, 64))]
    for able, method in zip((True, False), methods.split(), strict=True):
        for rules in (cpu, cpu_products):
            monkeypatch.setattr(rules, "multiplies_bfloat16", lambda able=able: able)
        forward, *_ = jaxdil.explain(conv, platform="cpu")(*like)
        assert forward.method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options", "methods"),
    [
        ((4, 9, 9, 16), (3, 3, 16, 32), {"padding": 2}, "xla xla exchange"),
        ((4, 50, 16), (5, 16, 32), {"padding": 4}, "xla xla exchange"),
        ((2, 9, 9, 16), (3, 3, 16, 32), {"padding": ((2, 2), (0, 0))}, "xla xla im2col"),
        ((2, 9, 9, 16), (3, 3, 16, 32), {"padding": 1}, "xla xla xla"),
        ((50, 96, 96, 16), (3, 3, 16, 16), {"padding": 2}, "xla xla im2col"),
    ],
)
def test_a_cotangent_larger_than_the_image(monkeypatch, x, w, options, methods):
    """As padding makes it, and transposed convolutions without any: XLA calls no library."""
    monkeypatch.setattr(cpu_channels, "cpu_vectors", str)  # without C11
    monkeypatch.setattr(cpu_cores, "cores", lambda: 1)
    conv = functools.partial(jaxdil.conv, **options)
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w)]
    rows = jaxdil.explain(conv, platform="cpu")(*like)
    assert " ".join(row.method for row in rows) == methods


@pytest.mark.core
@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, {"padding": 0}, {"dilation": 2, "stride": (1, 2)}])
def test_a_margin_changes_nothing(spoiled, options):
    x = integers(0, (2, 9, 8, 3)).astype(np.float32)
    w = integers(1, (3, 3, 3, 5)).astype(np.float32)
    x[1, 8, 4, 1] = spoiled
    by = (jaxdil.conv(x, w, **options, method=m) for m in ("margin", "xla"))
    np.testing.assert_array_equal(*by)


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((4, 2, 2, 32), (3, 3, 32, 40), {}),
        ((3, 4, 3, 32), (5, 5, 32, 33), {"stride": (1, 2)}),
        ((4, 2, 2, 2, 32), (3, 3, 3, 32, 32), {}),
        ((9, 6, 32), (9, 32, 32), {"padding": ((5, 3),)}),
        ((2, 3, 3, 32), (3, 4, 32, 32), {}),
        ((2, 4, 4, 64), (3, 3, 64, 64), {"stride": 2}),
        ((2, 6, 6, 32), (5, 5, 32, 32), {"stride": 2}),
    ],
)
def test_an_image_smaller_than_the_kernel(x, w, options):
    """XLA takes the image for the kernel then; one of the convolution and its gradients is ours."""
    x, w = (integers(i, shape).astype(np.float32) for i, shape in enumerate((x, w)))

    def loss(conv):
        return lambda x, w: (conv(x, w) ** 2).sum()

    ours, plain = (
        functools.partial(jaxdil.conv, **options, method=method) for method in ("auto", "xla")
    )
    gradient = jax.grad(loss(ours), (0, 1))
    assert any("rule C17" in row.because for row in jaxdil.explain(gradient, platform="cpu")(x, w))
    got = jax.jit(gradient)(x, w)
    for one, other in zip(got, jax.grad(loss(plain), (0, 1))(x, w), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(jax.jit(ours)(x, w), plain(x, w))


@pytest.mark.core
def test_products_in_half_precision_are_of_half_precision():
    x, w = jnp.ones((1, 16, 16, 64), BF16), jnp.ones((3, 3, 64, 64), BF16)
    text = jax.jit(jaxdil.conv).lower(x, w).as_text()
    (operands,) = {line.rpartition(" : ")[2] for line in text.splitlines() if "dot_general" in line}
    assert operands.count("bf16") == 2
    assert operands.endswith("f32>")


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 128, 12), (64, 128, 3), {"padding": "SAME"}),
        ((1, 128, 12), (64, 128, 1), {"padding": "VALID"}),
        ((1, 64, 12), (64, 64, 4), {"padding": "VALID", "window_strides": (4,)}),
        ((1, 64, 12), (64, 64, 3), {"padding": "SAME", "window_strides": (2,)}),
        ((1, 64, 1, 12), (64, 64, 1, 3), {"padding": "SAME", "window_strides": (1, 1)}),
        ((1, 64, 12), (64, 64, 4), {"padding": [(2, 2)], "lhs_dilation": (2,)}),
    ],
)
def test_one_row_of_half_precision_with_channels_first(x, w, options):
    """XLA has no code for a product of bfloat16 that is transposed as a whole."""
    arrays = [integers(i, shape).astype(BF16) for i, shape in enumerate((x, w))]
    conv = functools.partial(lax.conv_general_dilated, **{"window_strides": (1,)} | options)

    def run(conv):
        def both(x, w):
            y, pull = jax.vjp(conv, x, w)
            return y, *pull(jnp.ones_like(y))

        return jax.jit(both)(*arrays)

    row, *_ = jaxdil.explain(conv, platform="cpu")(*arrays)
    assert row.because.startswith("rule C14: bfloat16, a single row")
    for ours, theirs in zip(run(jaxdil.accelerate(conv)), run(conv), strict=True):
        np.testing.assert_array_equal(ours.astype(np.float32), theirs.astype(np.float32))


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "stride"),
    [
        ((4, 200, 80), (1, 80, 80), 2),
        ((8, 16, 960), (1, 960, 320), 1),
        ((16, 80, 16, 4), (2, 2, 4, 144), 2),
        ((4, 1, 1, 256), (4, 4, 256, 128), 1),
    ],
)
def test_input_gradients_of_half_precision_by_one_tap(x, w, stride):
    """XLA before JAX 0.10 has no code for a product of bfloat16 with a kernel turned round."""
    x, w = (integers(i, shape).astype(BF16) for i, shape in enumerate((x, w)))

    def gradient(method):
        conv = functools.partial(jaxdil.conv, stride=stride, method=method)
        return jax.jit(jax.grad(lambda x: conv(x, w).astype(np.float32).sum()))(x)

    ours, theirs = (gradient(method).astype(np.float32) for method in ("auto", "xla"))
    np.testing.assert_array_equal(ours, theirs)
    conv = functools.partial(jaxdil.conv, stride=stride)
    _, row, _ = jaxdil.explain(conv, platform="cpu")(x, w)
    assert cpu_products.LIBRARY or row.method in ("xla", "trim")


# --- kernel gradients of transposed convolutions on a CPU -----------------------------------------


@pytest.mark.parametrize(
    ("size", "w", "stride", "method"),
    [
        ((8, 8), (3, 3, 16, 32), 2, "exchange"),
        ((8, 8), (4, 4, 16, 32), 2, "exchange"),
        ((8, 8), (2, 2, 16, 32), 2, "phases"),
        ((8, 8), (2, 2, 3, 32), 2, "exchange"),
        ((40,), (8, 16, 32), 4, "phases"),
        ((40,), (9, 16, 32), 4, "exchange"),
        # From few channels; of one image to few as well, and of several.
        ((8, 8), (3, 3, 16, 8), 2, "phases"),
        ((8, 8), (2, 2, 16, 8), 2, "correlate"),
        ((8, 8), (3, 3, 15, 8), 2, "exchange"),
        # From one channel; in 3-D from a few.
        ((8, 8), (3, 3, 4, 1), 2, "phases"),
        ((8, 8), (3, 3, 3, 1), 2, "xla"),
        ((8, 8, 8), (3, 3, 3, 20, 7), 3, "correlate"),
        ((8, 8, 8), (3, 3, 3, 20, 8), 3, "phases"),
    ],
)
def test_kernel_gradients_of_transposed_convolutions(size, w, stride, method):
    conv = functools.partial(jaxdil.conv_transpose, stride=stride, padding="VALID")
    x = jax.ShapeDtypeStruct((2, *size, w[-1]), np.float32)
    *_, gradient = jaxdil.explain(conv, platform="cpu")(x, jax.ShapeDtypeStruct(w, np.float32))
    assert gradient.method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("images", "w", "methods"),
    [
        (8, (4, 4, 3, 64), ("exchange", "phases")),
        (7, (4, 4, 3, 64), ("exchange", "exchange")),
        (8, (5, 5, 3, 64), ("exchange", "exchange")),
        (8, (4, 3, 64), ("exchange", "exchange")),
        # From one channel.
        (8, (3, 3, 4, 1), ("phases", "phases")),
        (9, (3, 3, 4, 1), ("exchange", "exchange")),
        (9, (4, 4, 4, 1), ("exchange", "phases")),
    ],
)
def test_kernel_gradients_of_several_transposed_images(monkeypatch, images, w, methods):
    conv = functools.partial(jaxdil.conv_transpose, stride=2, padding="VALID")
    like = [(images, *(8,) * (len(w) - 2), w[-1]), w]
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in like]
    for vectors, method in zip(("AVX-512", "AVX2"), methods, strict=True):
        monkeypatch.setattr(cpu, "cpu_vectors", lambda vectors=vectors: vectors)
        *_, gradient = jaxdil.explain(conv, platform="cpu")(*like)
        assert gradient.method == method


@pytest.mark.core
@pytest.mark.parametrize(("dilation", "method"), [(2, "planes"), (3, "correlate")])
def test_kernel_gradients_in_three_axes_with_taps_far_apart(dilation, method):
    conv = functools.partial(jaxdil.conv, dilation=dilation)
    like = [(1, 12, 12, 12, 8), (3, 3, 3, 8, 8)]
    *_, gradient = jaxdil.explain(conv, platform="cpu")(
        *(jax.ShapeDtypeStruct(shape, np.float32) for shape in like)
    )
    assert gradient.method == method


@pytest.mark.core
@pytest.mark.parametrize(
    ("x", "w", "stride"),
    [
        ((2, 5, 4, 6), (9, 9, 1, 6), (2, 3)),  # written out one by one these would be too many
        ((2, 3, 4, 6), (11, 8, 2, 9), (2, 1)),
        ((1, 7, 4), (70, 1, 8), (3,)),
    ],
)
def test_kernel_gradients_of_transposed_groups_are_exchanged(x, w, stride):
    """Of long kernels: those of an ordinary convolution, with image and cotangent exchanged."""
    conv = functools.partial(
        jaxdil.conv_general_dilated,
        window_strides=(1,) * len(stride),
        padding=[(k - 1, k - 2) for k in w[:-2]],
        lhs_dilation=stride,
        dimension_numbers=("NHWC", "HWIO", "NHWC") if len(x) > 3 else ("NWC", "WIO", "NWC"),
        feature_group_count=x[-1] // w[-2],
    )
    plain = functools.partial(conv, method="xla")
    x, w = integers(0, x).astype(np.float32), integers(1, w).astype(np.float32)
    *_, row = jaxdil.explain(conv, platform="cpu")(x, w)
    assert (row.role, row.method) == ("kernel gradient", "exchange")
    y = integers(2, jax.eval_shape(conv, x, w).shape).astype(np.float32)
    ours, theirs = (
        jax.jit(lambda x, w, y, c=c: jax.vjp(functools.partial(c, x), w)[1](y)[0])(x, w, y)
        for c in (conv, plain)
    )
    np.testing.assert_array_equal(ours, theirs)


# --- windows side by side on a CPU ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "w", "stride", "methods"),
    [
        ((1, 32, 32, 3), (4, 4, 3, 96), 4, ("patches", "patches", "space_to_batch")),
        ((1, 32, 32, 3), (4, 4, 3, 95), 4, ("xla", "patches", "space_to_batch")),
        ((1, 160, 160, 3), (16, 16, 3, 96), 16, ("xla", "patches", "xla")),
        ((2, 160, 160, 3), (16, 16, 3, 96), 16, ("patches", "patches", "xla")),
        ((2, 160, 160, 3), (16, 16, 3, 128), 16, ("patches", "patches", "space_to_batch")),
        ((1, 32, 32, 1), (4, 4, 1, 96), 4, ("patches", "patches", "space_to_batch")),
        ((8, 64, 64, 128), (2, 2, 128, 64), 2, ("patches", "patches", "im2col")),
        ((7, 64, 64, 128), (2, 2, 128, 63), 2, ("xla", "patches", "im2col")),
        ((7, 64, 64, 11), (2, 2, 11, 12), 2, ("xla", "patches", "space_to_batch")),
        # The last row is not read; a kernel gradient does not see it.
        ((1, 33, 32, 3), (4, 4, 3, 96), 4, ("xla", "patches", "space_to_batch")),
        ((1, 32, 3), (4, 3, 16), 4, ("patches", "patches", "xla")),
        ((1, 32, 3), (2, 3, 16), 2, ("xla", "patches", "xla")),
        ((1, 32, 3), (4, 3, 257), 4, ("xla", "patches", "xla")),
        ((1, 4, 32, 32, 3), (2, 2, 2, 3, 8), 2, ("patches", "patches", "space_to_batch")),
        ((1, 32, 32, 3), (4, 4, 3, 16), 2, ("xla", "xla", "im2col")),
    ],
)
def test_windows_side_by_side(x, w, stride, methods):
    conv = functools.partial(jaxdil.conv, stride=stride, padding="VALID")
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    forward, *gradients = (row.method for row in jaxdil.explain(conv, platform="cpu")(*like))
    assert tuple(gradients) == methods[1:]
    if jax.__version_info__ >= (0, 11) and len(x) < 5:
        assert forward != "patches"  # XLA's library is better at these from there on
    else:
        assert forward == methods[0]


@pytest.mark.parametrize(
    ("x", "w", "options", "first", "methods"),
    [
        # One window: of one image with the kernel's channels last, and of few products, lax.
        ((1, 5, 5, 32), (5, 5, 32, 80), {}, False, "xla patches taps"),
        ((1, 5, 5, 32), (5, 5, 32, 80), {}, True, "patches patches taps"),
        ((2, 5, 5, 2), (5, 5, 2, 40), {}, True, "xla xla xla"),
        # 1x1: by the kernel to fewer outputs, with a stride to few; between few channels.
        ((1, 9, 9, 256), (1, 1, 256, 255), {}, False, "taps taps exchange"),
        ((1, 9, 9, 256), (1, 1, 256, 256), {}, False, "taps taps correlate"),
        (
            (1, 17, 17, 256),
            (1, 1, 256, 32),
            {"window_strides": (2, 2)},
            False,
            "taps xla im2col",
        ),
        (
            (1, 17, 17, 256),
            (1, 1, 256, 33),
            {"window_strides": (2, 2)},
            False,
            "taps xla correlate",
        ),
        ((8, 512, 31), (1, 31, 32), {}, False, "xla xla xla"),
        ((2, 16, 16, 16, 31), (1, 1, 1, 31, 32), {}, False, "xla xla correlate"),
        # Groups under a kernel larger than the output.
        (
            (1, 4, 4, 4, 64),
            (5, 5, 5, 8, 64),
            {"feature_group_count": 8},
            False,
            "split split correlate",
        ),
        # Channels first: patches and few positions.
        ((1, 32, 32, 32), (4, 4, 32, 96), {"window_strides": (4, 4)}, True, "xla patches xla"),
        ((1, 4, 4, 512), (3, 3, 512, 512), {}, True, "xla xla xla"),
        ((4, 7, 7, 512), (3, 3, 512, 512), {}, True, "im2col im2col im2col"),
    ],
)
def test_where_lax_is_the_better_one(x, w, options, first, methods):
    """The borders of several rules, forward, by the input and by the kernel."""
    spatial = "DHW"[-(len(x) - 2) :]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    if first:
        x, w = (x[0], x[-1], *x[1:-1]), (w[-1], w[-2], *w[:-2])
        numbers = (f"NC{spatial}", f"OI{spatial}", f"NC{spatial}")
    ones = (1,) * len(spatial)
    whole = "window_strides" in options or (first and x[2:] == w[2:]) or x[1:3] == w[:2]
    options = {"window_strides": ones, "padding": "VALID" if whole else "SAME", **options}
    conv = functools.partial(lax.conv_general_dilated, dimension_numbers=numbers, **options)
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    rows = jaxdil.explain(conv, platform="cpu")(*like)
    assert [row.method for row in rows] == methods.split()


@pytest.mark.core
@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
@pytest.mark.parametrize(
    ("x", "w", "options", "role"),
    [
        ((3, 5, 5, 32), (5, 5, 32, 40), {}, "forward"),
        ((3, 5, 5, 32), (5, 5, 32, 40), {}, "input gradient"),
        ((3, 5, 6, 32), (5, 5, 32, 40), {"window_strides": (3, 3)}, "forward"),
        ((5, 4, 3, 3, 16), (4, 3, 3, 16, 24), {}, "input gradient"),
        ((16, 9, 32), (8, 32, 16), {"window_strides": (2,)}, "forward"),
        ((4, 1, 1, 32), (3, 4, 32, 64), {"padding": ((2, 2), (3, 3))}, "forward"),
    ],
)
def test_one_window_or_one_sample_is_one_matrix_product(x, w, options, role, first):
    """Layers of all with all, written as convolutions, and their gradients by the input."""
    x, w = (integers(i, shape).astype(np.float32) for i, shape in enumerate((x, w)))
    options = {"padding": "VALID", "window_strides": (1,) * (x.ndim - 2), **options}
    spatial = "DHW"[-(x.ndim - 2) :]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    if first:
        x, w = np.moveaxis(x, -1, 1), np.moveaxis(w, (-1, -2), (0, 1))
        numbers = (f"NC{spatial}", f"OI{spatial}", f"NC{spatial}")

    def conv(x, w):
        return lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)

    def loss(x, w):
        return (conv(x, w) ** 2).sum()

    gradient = jax.grad(loss, (0, 1))
    roles = {r.role: r.method for r in jaxdil.explain(gradient, platform="cpu")(x, w)}
    assert roles[role] == "patches"
    for fn in (conv, gradient):
        got, want = (jax.tree.leaves(jax.jit(f)(x, w)) for f in (jaxdil.accelerate(fn), fn))
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("x", "w", "stride", "method"),
    [
        ((1, 64, 64, 1), (3, 3, 1, 64), 1, "taps"),
        ((1, 64, 64, 1), (7, 7, 1, 64), 2, "xla"),
        ((1, 64, 64, 1), (7, 7, 1, 16), 2, "taps"),
        ((1, 16, 16, 16, 1), (3, 3, 3, 1, 64), 1, "taps"),
    ],
)
def test_one_input_channel_goes_by_the_work_of_a_position(x, w, stride, method):
    conv = functools.partial(jaxdil.conv, stride=stride)
    like = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, w))
    assert jaxdil.explain(conv, platform="cpu", gradients=False)(*like)[0].method == method


# --- what meets padding alone ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "w", "options", "inside"),
    [
        ((2, 1, 1, 16), (3, 3, 16, 8), {}, ((1, 1), (1, 1))),
        ((2, 1, 9, 16), (3, 3, 16, 8), {}, ((1, 3), (1, 9))),
        ((2, 6, 6, 16), (3, 3, 1, 16), {"groups": 16, "dilation": 6}, ((1, 1), (6, 6))),
        ((2, 5, 7, 16), (3, 3, 16, 8), {"dilation": 6}, ((1, 3), (5, 7))),
        ((1, 2, 2, 64), (5, 5, 8, 64), {"groups": 8}, ((3, 3), (2, 2))),
        ((2, 3, 3, 16), (9, 9, 16, 8), {}, ((5, 5), (3, 3))),
        ((2, 4, 16), (2, 16, 8), {"padding": [(4, 3)], "stride": 2}, ((2,), (2,))),
        ((2, 4, 16), (3, 16, 8), {"padding": [(40, 3)], "dilation": 20}, ((1,), (4,))),
    ],
)
def test_what_meets_padding_alone_is_not_computed(x, w, options, inside):
    """The kernel and the outputs of the convolution that is left, and of its gradients."""
    x, w = integers(0, x), integers(1, w)
    fn = functools.partial(jaxdil.conv, **{"padding": "SAME", **options})
    y = jax.eval_shape(fn, x, w)

    def both(x, w):
        y, pullback = jax.vjp(fn, x, w)
        return y, *pullback(jnp.ones_like(y))

    chosen = list(jaxdil.explain(both, platform="cpu", gradients=False)(x, w))
    # The zeros between samples, of the gradient of a strided one, `phases` leaves out.
    chosen = [row for row in chosen if set(row.problem.input_dilation) == {1}]
    assert {row.method for row in chosen} == {"trim"}
    assert all(row.because.startswith("rule C21: ") for row in chosen)
    parts = []

    def part(x, w, problem):
        parts.append((problem.kernel, problem.positions))
        assert (problem.x_shape, problem.w_shape) == (x.shape, w.shape)
        return lax.full(problem.y_shape, 1.0, problem.out_dtype)

    load("trim").apply(x, w, chosen[0].problem, Convolve(part, "cpu"))
    assert parts == [inside]
    plain = functools.partial(fn, method="xla")
    for got, by_lax in zip(
        jax.jit(both)(x, w),
        jax.jit(lambda x, w: (plain(x, w), *jax.vjp(plain, x, w)[1](jnp.ones_like(y))))(x, w),
        strict=True,
    ):
        np.testing.assert_array_equal(got, by_lax)


def test_what_is_within_reach_of_the_image_is_computed():
    for x, w, options in (
        ((2, 2, 2, 16), (3, 3, 16, 8), {}),
        ((2, 6, 6, 16), (3, 3, 16, 8), {"dilation": 5}),
        ((2, 4, 16), (3, 16, 8), {"padding": "FULL"}),
        # One output of a hundred reads nothing.
        ((2, 100, 16), (2, 16, 8), {"padding": [(2, 0)]}),
    ):
        conv = functools.partial(jaxdil.conv, **{"padding": "SAME", **options})
        rows = jaxdil.explain(conv, platform="cpu")(integers(0, x), integers(1, w))
        assert "trim" not in [row.method for row in rows]


@pytest.mark.parametrize(
    ("x", "channels_first", "method"),
    [
        ((4, 200, 64), True, "xla"),
        ((4, 200, 64), False, "taps"),
        ((2, 200, 64), True, "taps"),
    ],
)
@pytest.mark.usefixtures("without_avx_512")
def test_lines_with_channels_first_are_not_moved_for_one_tap(
    monkeypatch, x, channels_first, method
):
    like = [jax.ShapeDtypeStruct(n, np.float32) for n in (x, (1, 64, 128))]

    def found():
        order = (0, 2, 1) if channels_first else (0, 1, 2)

        def conv(x, w):
            return jaxdil.conv(
                x.transpose(order), w, data_format="NCW" if channels_first else "NWC"
            )

        (row,) = jaxdil.explain(conv, platform="cpu", gradients=False)(*like)
        return row.method

    assert found() == method
    monkeypatch.setattr(cpu_taps, "cpu_vectors", lambda: "AVX-512")
    assert found() == "taps"
