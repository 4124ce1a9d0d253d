"""The kernels for a GPU, interpreted: results and derivatives; lowered for CUDA; its rules."""

import dataclasses
import functools
import re
from types import SimpleNamespace

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import BY_NAME as OTHERS
from geometries import definition, geometry, integers, judge, methods_run, operands
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_methods import assert_random, geometries

import jaxdil
from jaxdil._methods import goes, load, races
from jaxdil._pallas.gpu_tiles import Axis, tile_of
from jaxdil._problem import Problem

TRITON = "__gpu$xla.gpu.triton"
ROLES = ("forward", "input gradient", "kernel gradient")
PIN = "pallas_gpu or auto"


def depthwise(name, size, kernel, channels=3, **options):
    """A depthwise geometry."""
    return geometry(name, size, kernel, channels=(channels, channels), groups=channels, **options)


# Beside those of tests/geometries.py: several tiles, several shares, loops over taps, all ranks.
CASES = (
    depthwise("causal", (37,), (4,), channels=8, pad=(3, 0)),
    depthwise("causal, dilated", (30,), (3,), channels=5, d=4, pad=(8, 0), batch=3),
    depthwise("several tiles of channels", (9,), (3,), channels=65, pad=(1, 1)),
    depthwise("several shares", (150,), (2,), channels=33),
    depthwise("2-D, odd sizes", (11, 7), (3, 3), s=2, pad=(1, 1), batch=3),
    depthwise("2-D, dilated", (9, 10), (3, 3), d=(2, 3), pad=(2, 3)),
    depthwise("35 taps", (40,), (35,), channels=2, pad=(2, 1), s=2),
    depthwise("9 x 4 taps", (9, 4), (9, 4), channels=2, pad=(3, 1)),
    depthwise("7 x 7, odd rows", (13, 9), (7, 7), channels=3, pad=(3, 3)),
    depthwise("5 x 5, dilated along", (8, 9), (5, 5), channels=3, pad=(2, 4), d=(1, 2)),
    depthwise("3-D, lines", (4, 8, 6), (3, 3, 3), channels=4, pad=(1, 1)),
    depthwise("3-D", (3, 4, 5), (2, 1, 3), pad=(1, 0), d=(1, 2, 1)),
    depthwise("transposed 2-D", (4, 5), (4, 3), a=(2, 3), pad=((2, 2), (1, 3))),
    depthwise("transposed, phases of unlike taps", (4, 5), (3, 5), a=(2, 3), pad=((1, 1), (2, 3))),
    depthwise("transposed, everything", (6,), (5,), s=4, d=6, a=8, pad=(9, 11)),
)
CASES += tuple(
    OTHERS[name]
    for name in (
        *("groups", "depthwise with multiplier", "depthwise, stride and dilation"),
        *("3-D, everything unequal", "transposed groups"),
    )
)
every_case = pytest.mark.parametrize(
    "g",
    [
        pytest.param(g, id=g.name.replace(" ", "_"), marks=[] if i % 4 else [pytest.mark.core])
        for i, g in enumerate(CASES)
    ],
)
BY_NAME = {g.name: g for g in CASES}


def roles(g, method="pallas_gpu", **options):
    """One function of (x, w, cotangent) that gives all three roles of a geometry."""
    options = {**g.options, "method": method, **options}

    def run(x, w, c):
        return {
            "forward": jaxdil.conv(x, w, **options),
            "input gradient": jaxdil.conv_input_grad(c, w, input_shape=g.x_shape, **options),
            "kernel gradient": jaxdil.conv_kernel_grad(x, c, kernel_shape=g.w_shape, **options),
        }

    return run


def for_cuda(fn, *arrays):
    """The text of a function lowered for CUDA."""
    return jax.jit(fn).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text(debug_info=True)


# --- results --------------------------------------------------------------------------------------


@every_case
def test_results(g):
    results = jax.jit(roles(g))(*operands(g, np.dtype(np.float32)))
    for role in ROLES:
        judge(results[role], role, g, np.float32)


@settings(max_examples=2)
@given(cases=st.lists(geometries().filter(lambda g: g.groups > 1), min_size=3, max_size=3))
def test_random_geometries(cases):
    assert_random(cases, "pallas_gpu")


@pytest.mark.parametrize(
    ("dtype", "name"), [("bfloat16", "causal"), ("float16", "several tiles of channels")]
)
def test_half_precision_is_summed_in_single(name, dtype):
    g, dtype = BY_NAME[name], jnp.dtype(dtype)
    results = jax.jit(roles(g))(*operands(g, dtype))
    for role in ROLES:
        judge(results[role], role, g, dtype)


def test_a_result_may_be_wider_than_what_is_summed():
    g = BY_NAME["causal, dilated"]
    wide = roles(g, preferred_element_type=jnp.float32)
    results = jax.jit(wide)(*operands(g, jnp.dtype("bfloat16")))
    for role in ROLES:
        judge(results[role], role, g, jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.nan, "2-D, odd sizes"),
        (np.inf, "transposed, everything"),
        (np.nan, "transposed, phases of unlike taps"),
    ],
)
def test_a_special_sample_reaches_what_reads_it(name, value):
    g = BY_NAME[name]
    x, w, c = (np.ones(shape, np.float32) for shape in (g.x_shape, g.w_shape, g.y_shape))
    x[(0, *(n // 2 for n in g.x_shape[1:]))] = value
    spike = np.where(np.isfinite(x), 0.0, 1.0)
    found = jax.jit(roles(g))(x, w, c)
    for role in ("forward", "kernel gradient"):
        reached = definition(role, g, spike, w, c) > 0
        np.testing.assert_array_equal(~np.isfinite(found[role]), reached)


# --- under transformations ------------------------------------------------------------------------
# Small integers, of which every order of summation gives the same: equal to lax, not close.


def both_ways(g, run):
    """What a function of a convolution gives with the kernels, and with lax."""
    conv = (functools.partial(jaxdil.conv, **g.options, method=m) for m in (PIN, "xla"))
    x, w = integers(0, g.x_shape), integers(1, g.w_shape)
    ours, theirs = (jax.jit(functools.partial(run, c)) for c in conv)
    assert "jaxdil.pallas_gpu" in ours.lower(x, w).as_text(debug_info=True)
    jax.tree.map(np.testing.assert_array_equal, ours(x, w), theirs(x, w))


@pytest.mark.core
def test_derivatives_of_second_order():
    def run(conv, x, w):
        def loss(x, w):
            y = conv(x, w)
            return (y * y).sum()

        grad = jax.grad(loss, argnums=(0, 1))
        return grad(x, w), jax.jvp(grad, (x, w), (w.sum() + x, w))

    both_ways(depthwise("", (9,), (3,), channels=2, s=2, d=2, pad=(2, 1)), run)


def test_under_vmap_and_scan():
    g = depthwise("", (8,), (3,), channels=2, pad=(2, 0))

    def run(conv, x, w):
        xs, ws = jnp.stack([x, x + 1]), jnp.stack([w, w - 1])
        several = [
            jax.vmap(conv, axes)(*some)
            for axes, some in (
                ((0, None), (xs, w)),
                ((None, 0), (x, ws)),
                ((0, 0), (xs, ws)),
            )
        ]
        return several, jax.lax.scan(lambda x, w: (conv(x, w), w.sum()), x, ws)

    both_ways(g, run)


# --- what they refuse -----------------------------------------------------------------------------


def problem(**changes):
    """A depthwise problem, with some fields changed."""
    dtype = np.dtype(np.float32)
    fields = {
        "batch": 2, "size": (16,), "channels": 8, "kernel": (3,), "out_channels": 8,
        "stride": (1,), "padding": ((1, 1),), "input_dilation": (1,), "dilation": (1,),
        "groups": 8, "batch_groups": 1, "x_dtype": dtype, "w_dtype": dtype, "out_dtype": dtype,
    }  # fmt: skip
    return Problem(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"groups": 1}, "one group of all channels"),
        ({"channels": 72, "groups": 8}, "9 channels a group, more than 8"),
        ({"x_dtype": np.dtype(np.float64)}, "float64, and it sums floats of up to 32 bits"),
        ({"batch": 2**26}, "8589934592 elements, more than the 2147418112 it can index"),
        ({"batch": 0}, "nothing to compute"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_number(changes, reason):
    assert load("pallas_gpu").supports(problem(), "cuda") is None
    assert reason in load("pallas_gpu").supports(problem(**changes), "cuda")


def test_a_kernel_races_and_is_withheld_only_where_it_is_compiled():
    assert [races("pallas_gpu", p) for p in ("cuda", "rocm", "cpu")] == [True, True, False]
    for purpose in (
        {"exported": True, "partitioned": False},
        {"exported": False, "partitioned": True},
    ):
        assert not goes("pallas_gpu", "cuda", **purpose)
        assert goes("pallas_gpu", "cpu", **purpose)
        assert goes("taps", "cuda", **purpose)


# --- tiles ----------------------------------------------------------------------------------------

small = st.integers(1, 7)


@settings(max_examples=300)
@given(small, small, small, small, st.integers(0, 9))
def test_where_taps_meet_samples(stride, dilation, spread, taps, lo):
    """`Axis.first` and its steps, against trying every tap."""
    axis = Axis(10**6, taps, 40, stride, dilation, lo, spread)
    for output in range(40):
        at = [stride * output + dilation * t - lo for t in range(taps)]
        meeting = [(t, j // spread) for t, j in enumerate(at) if j % spread == 0]
        tap, sample, meets = axis.first(output)
        walk = [(tap + axis.tap_step * u, sample + axis.sample_step * u) for u in range(axis.terms)]
        assert [(t, j) for t, j in walk if meets and t < taps] == meeting


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("channels", [1, 3, 8, 96, 130, 144, 4096])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_tiles_are_powers_of_two_of_some_bytes_a_thread(channels, dtype, width):
    tile = tile_of(channels, jnp.dtype(dtype), 56, width)
    assert all(n & (n - 1) == 0 for n in tile)
    assert tile.rows * tile.columns * jnp.dtype(dtype).itemsize == 128 * width
    assert tile.each == width // jnp.dtype(dtype).itemsize
    idle = -(-channels // tile.columns) * tile.columns - channels
    assert idle < max(32, channels)
    assert tile_of(channels, jnp.dtype(dtype), 56, width, 8).pieces == 8
    assert tile_of(channels, jnp.dtype(dtype), 7).pieces == 4
    assert tile_of(channels, jnp.dtype(dtype), 5).pieces == 1


# --- lowering for CUDA ----------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "name", ["causal", "2-D, odd sizes", "3-D", "transposed, everything", "9 x 4 taps"]
)
def test_each_kernel_lowers_for_cuda_on_any_machine(name, dtype):
    g = BY_NAME[name]
    text = for_cuda(roles(g), *operands(g, jnp.dtype(dtype)))
    assert text.count(TRITON) == 3
    assert "stablehlo.convolution" not in text


def test_a_grid_has_one_axis_which_may_be_long():
    x = jax.ShapeDtypeStruct((64, 2**20, 8), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((4, 1, 8), jnp.bfloat16)
    conv = functools.partial(jaxdil.conv, groups=8, padding="CAUSAL", method="pallas_gpu")
    grid = [int(n) for n in re.findall(r"grid_[xyz] = (\d+)", for_cuda(conv, x, w))]
    # 2^26 outputs, 4 to a row of a tile of 128 rows.
    assert sorted(grid) == [1, 1, 2**17]


def test_a_jax_without_triton_takes_no_kernel(monkeypatch):
    monkeypatch.setattr(load("pallas_gpu"), "_has_triton", lambda: False)
    g = BY_NAME["causal"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = functools.partial(jaxdil.conv, **g.options)
    assert TRITON not in for_cuda(conv, x, w)
    with pytest.raises(jaxdil.MethodError, match=r"no jax\.experimental\.pallas\.triton"):
        for_cuda(functools.partial(conv, method="pallas_gpu"), x, w)


@pytest.mark.parametrize("capability", ["7.5", "8.0", "12.1"])
def test_a_gpu_for_which_xla_compiles_no_triton_takes_no_kernel(capability, monkeypatch):
    others = [SimpleNamespace(compute_capability="9.0"), SimpleNamespace()]
    here = [SimpleNamespace(compute_capability=capability), *others]
    monkeypatch.setattr(load("pallas_gpu"), "devices_here", {"cuda": here}.get)
    g = BY_NAME["causal"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = functools.partial(jaxdil.conv, **g.options)
    old = capability == "7.5"
    assert (TRITON in for_cuda(conv, x, w)) != old
    reason = load("pallas_gpu").supports(problem(), "cuda")
    assert reason == ("pallas_gpu: a GPU of compute capability 7.5, below 8.0" if old else None)
    assert load("pallas_gpu").supports(problem(), "cpu") is None


def test_whether_jax_has_triton_is_looked_up():
    assert load("pallas_gpu")._has_triton.__wrapped__()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.experimental, "__path__", [])
        assert not load("pallas_gpu")._has_triton.__wrapped__()


@pytest.mark.core
def test_a_pinned_kernel_is_exported_if_the_caller_allows_it():
    g = BY_NAME["causal"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = jax.jit(functools.partial(jaxdil.conv, **g.options, method="pallas_gpu"))
    platforms = ("cpu", "cuda", "tpu")
    with pytest.raises(ValueError, match="no compatibility guarantees"):
        jax.export.export(conv, platforms=platforms)(x, w)
    allowed = [jax.export.DisabledSafetyCheck.custom_call(TRITON)]
    exported = jax.export.export(conv, platforms=platforms, disabled_checks=allowed)(x, w)
    assert exported.mlir_module().count(f"custom_call @{TRITON}") == 1
    again = jax.export.deserialize(exported.serialize())
    judge(jax.jit(again.call)(x, w), "forward", g, np.float32)


@pytest.mark.core
def test_auto_takes_no_kernel_into_what_is_exported():
    g = BY_NAME["causal"]
    x, w, _ = operands(g, np.dtype(np.float32))
    conv = functools.partial(jaxdil.conv, **g.options)
    assert TRITON in for_cuda(conv, x, w)
    exported = jax.export.export(jax.jit(conv), platforms=("cpu", "cuda", "tpu"))(x, w)
    assert TRITON not in exported.mlir_module()
    again = jax.export.deserialize(exported.serialize())
    judge(jax.jit(again.call)(x, w), "forward", g, np.float32)


@pytest.mark.core
def test_auto_takes_no_kernel_where_xla_divides_the_program():
    # Of a GPU that is not here, as JAX 0.11 wants to be told of one.
    gpu = ("NVIDIA H100", None, "gpu")[: len(dataclasses.fields(AbstractDevice))]
    mesh = AbstractMesh((8,), ("data",), AxisType.Auto, abstract_device=AbstractDevice(*gpu))
    conv = functools.partial(jaxdil.conv, groups=8, padding="CAUSAL")
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 16, 8), (4, 1, 8)))
    shardings = (NamedSharding(mesh, P("data")), NamedSharding(mesh, P()))
    divided = jax.jit(conv, in_shardings=shardings)
    lowered = divided.trace(x, w).lower(lowering_platforms=("cuda",))
    assert TRITON not in lowered.as_text()
    # What is divided by hand is whole on each device.
    by_hand = jax.shard_map(conv, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    assert TRITON in for_cuda(by_hand, x, w)


# --- the rules ------------------------------------------------------------------------------------

SINGLE, HALF = np.dtype(np.float32), jnp.dtype("bfloat16")

# Geometry, dtype; then for forward, input gradient and kernel gradient rule and method.
RULES = {
    "integers": (geometry("", (9, 9), (3, 3), channels=(8, 8)), np.dtype(np.int8),
        ("G1 taps", "G1 taps", "G1 correlate")),
    "bfloat16 in 1-D": (geometry("", (64,), (3,), channels=(8, 8), pad=(1, 1)), HALF,
        ("G2 taps", "G2 taps", "G2 correlate")),
    "bfloat16 in 1-D, transposed": (geometry("", (32,), (4,), channels=(8, 8), a=2, pad=(2, 2)),
        HALF, ("G2 phases", "G2 taps", "G2 correlate")),
    "bfloat16 in 1-D, depthwise": (depthwise("", (64,), (4,), channels=8, pad=(3, 0)), HALF,
        ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "depthwise": (depthwise("", (12, 12), (3, 3), channels=8, pad=(1, 1)), HALF,
        ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "depthwise, stride": (depthwise("", (13, 13), (3, 3), channels=8, s=2, pad=(1, 1)), HALF,
        ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "depthwise, dilated": (depthwise("", (12, 12), (3, 3), channels=8, d=2, pad=(2, 2)), SINGLE,
        ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "depthwise in 3-D": (depthwise("", (6, 6, 6), (3, 3, 3), channels=8, pad=(1, 1)), SINGLE,
        ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "depthwise, a large image": (depthwise("", (28, 30), (3, 3), channels=8, pad=(1, 1)), SINGLE,
        ("G5 pallas_gpu", "G5 pallas_gpu", "xla")),
    "7x7": (depthwise("", (28, 30), (7, 7), channels=8, pad=(3, 3)), SINGLE,
        ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "7x7 in half precision": (depthwise("", (28, 30), (7, 7), channels=8, pad=(3, 3)), HALF,
        ("G5 pallas_gpu", "G5 pallas_gpu", "xla")),
    "causal": (depthwise("", (64,), (4,), channels=8, pad=(3, 0)), SINGLE,
        ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "three channels": (depthwise("", (12, 12), (3, 3), channels=3, d=2, pad=(1, 1)), SINGLE,
        ("xla", "xla", "xla")),
    "two outputs a channel": (geometry("", (12, 12), (3, 3), channels=(8, 16), groups=8,
        pad=(1, 1)), SINGLE, ("G4 taps", "G5 pallas_gpu", "G3 pallas_gpu")),
    "two outputs a channel, many": (geometry("", (128, 128), (3, 3), channels=(8, 16), groups=8,
        pad=(1, 1)), SINGLE, ("G5 pallas_gpu", "G5 pallas_gpu", "G3 pallas_gpu")),
    "groups of four": (geometry("", (12, 12), (3, 3), channels=(8, 8), groups=2, pad=(1, 1)),
        SINGLE, ("xla", "xla", "G3 pallas_gpu")),
    "groups of four in half precision": (geometry("", (12, 12), (3, 3), channels=(8, 8), groups=2,
        pad=(1, 1)), HALF, ("xla", "xla", "xla")),
    "1x1 of groups": (geometry("", (7, 7), (1, 1), channels=(48, 96), groups=3), SINGLE,
        ("G6 taps", "G6 taps", "G6 correlate")),
    "patches": (geometry("", (64, 64), (16, 16), channels=(3, 8), s=16), SINGLE,
        ("xla", "G8 phases", "xla")),
    "transposed": (geometry("", (8, 8), (4, 4), channels=(8, 8), a=2, pad=(2, 2)), SINGLE,
        ("G9 cudnn", "xla", "G9 exchange")),
    "dense": (geometry("", (12, 12), (3, 3), channels=(8, 8), d=2, pad=(2, 2)), SINGLE,
        ("xla", "xla", "xla")),
    "dense, causal": (geometry("", (20,), (3,), channels=(8, 8), d=4, pad=(8, 0)), SINGLE,
        ("G7 cudnn", "G7 cudnn", "xla")),
    "dense, strided, as TensorFlow pads": (geometry("", (12, 12), (3, 3), channels=(8, 8), s=2,
        pad=(0, 1)), SINGLE, ("G10 cudnn", "G9 cudnn", "xla")),
    "groups, causal": (geometry("", (20,), (3,), channels=(16, 16), groups=2, d=4, pad=(8, 0)),
        SINGLE, ("G7 cudnn", "G7 cudnn", "xla")),
    "doubles": (depthwise("", (12, 12), (3, 3), channels=8, d=2, pad=(2, 2)), np.dtype(np.float64),
        ("xla", "xla", "xla")),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_explain_says_what_cuda_takes_and_why(name):
    g, dtype, expected = RULES[name]
    arrays = [jax.ShapeDtypeStruct(s, dtype) for s in (g.x_shape, g.w_shape, g.y_shape)]
    rows = jaxdil.explain(roles(g, "auto"), platform="cuda", gradients=False)(*arrays)
    for row, what in zip(rows, expected, strict=True):
        *rule, method = what.split()
        assert row.method == row.choices["cuda"].method == method
        assert row.because.startswith(f"rule {rule[0]}: " if rule else "no rule: ")
        assert row.choices["rocm"].method == "xla"


def test_channels_first_depthwise_is_one_loop_with_the_copy_that_a_kernel_would_need():
    x, w = jax.ShapeDtypeStruct((2, 8, 12, 12), SINGLE), jax.ShapeDtypeStruct((8, 1, 3, 3), SINGLE)
    conv = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", feature_group_count=8
    )
    loss = jax.grad(lambda *a: conv(*a).sum(), argnums=(0, 1))
    rows = jaxdil.explain(loss, platform="cuda", gradients=False)(x, w)
    assert [row.because[:8] for row in rows] == ["rule G4:", "rule G3:", "rule G4:"]
    # A 7x7 kernel reads so much that the copies do not matter.
    w = jax.ShapeDtypeStruct((8, 1, 7, 7), SINGLE)
    (row,) = jaxdil.explain(conv, platform="cuda", gradients=False)(x, w)
    assert row.method == "pallas_gpu"


AVOIDED = {
    "dense": geometry("", (32,), (3,), channels=(8, 4), pad=(1, 1)),
    "dense, stride and dilation": geometry("", (32,), (3,), channels=(8, 4), s=2, d=3, pad=(3, 3)),
    "transposed": geometry("", (16,), (4,), channels=(8, 4), a=2, pad=(2, 2)),
    "groups": geometry("", (32,), (3,), channels=(8, 4), groups=2, pad=(1, 1)),
    "depthwise": depthwise("", (32,), (4,), channels=8, pad=(3, 0)),
    "2-D": geometry("", (8, 9), (3, 2), channels=(8, 4), s=2, pad=(1, 1)),
    "2-D, groups": geometry("", (8, 9), (3, 2), channels=(8, 4), groups=2, a=2, pad=(1, 1)),
}


@pytest.mark.core
@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("name", AVOIDED)
def test_what_cudnn_fails_at_is_not_given_to_it(name, exported):
    g = AVOIDED[name]
    for dtype in (jnp.bfloat16, np.int8, np.int32)[g.rank > 1 :]:
        arrays = [jax.ShapeDtypeStruct(s, dtype) for s in (g.x_shape, g.w_shape, g.y_shape)]
        run = roles(g, "auto")
        if exported:
            text = jax.export.export(jax.jit(run), platforms=["cuda"])(*arrays).mlir_module()
        else:
            text = for_cuda(run, *arrays)
        assert "stablehlo.convolution" not in text
    # Without the rules it would be.
    assert "stablehlo.convolution" in for_cuda(roles(g, "xla"), *arrays)


def test_a_transposed_convolution_is_written_as_the_gradient_that_cudnn_knows():
    g, dtype, _ = RULES["transposed"]
    arrays = [jax.ShapeDtypeStruct(s, dtype) for s in (g.x_shape, g.w_shape)]
    text = for_cuda(functools.partial(jaxdil.conv, **g.options), *arrays)
    # Reversed before the barrier and after, so that neither cancels the other.
    order = re.findall(r"stablehlo\.(reverse|optimization_barrier|convolution)", text)
    assert order == ["reverse", "optimization_barrier", "reverse", "convolution"]
    assert methods_run(text.replace("jit", "here"), "here") == {"cudnn"}
