"""What is chosen for a TPU lowers on any machine, and compiles where the compiler is installed."""

import functools
import importlib.util
import json
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxdil
from benchmarks import compare, report, results, tpu
from benchmarks.case import as_dtype, function, make, shapes
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS
from benchmarks.tpu import bundles, layers
from jaxdil._methods import METHODS, races

BY_NAME = {case.name: as_dtype(case, "bfloat16") for case in CASES}
# Of volumes the cases have none of few channels.
BY_NAME["video"] = make(
    "video", "-", "dense", (1, 8, 32, 32, 3), (3, 3, 3, 3, 16), dtype="bfloat16"
)

# One case for each rule, and the method that it names.
BY_RULE = {
    "T1": ("mobilenetv1-mult2", "dw", "expand"),
    "T2": ("eegnet-mult2", "dx", "expand"),
    "T3": ("video", "fwd", "planes"),
    "T4": ("mobilenetv2-112", "fwd", "slabs"),
    "T5": ("vit-patch16", "fwd", "patches"),
    "T6": ("wavenet-d512", "fwd", "taps"),
    "T7": ("espnet-d8", "fwd", "taps"),
    "T8": ("wavenet-d512", "dw", "columns"),
    "T9": ("resnet-1x1", "dx", "taps"),
    "T10": ("mamba-k4", "dw", "pallas_tpu"),
    "T11": ("mobilenetv2-56", "fwd", "pallas_tpu"),
    "T12": ("mobilenetv2-112", "dw", "columns"),
    "T13": ("vit-patch16", "dw", "space_to_batch"),
    "T14": ("aspp-r18", "dw", "correlate"),
    "T15": ("jax-5227", "dw", "planes"),
    "T16": ("dcgan-8", "fwd", "pallas_tpu"),
    "T17": ("resnext-7", "fwd", "pallas_tpu"),
    "T18": ("unet3d-32", "fwd", "pallas_tpu"),
}
every_rule = pytest.mark.parametrize("rule", BY_RULE)


def program(rule):
    """The function of a rule's case, accelerated, and the shapes of its arguments."""
    name, mode, _ = BY_RULE[rule]
    case = BY_NAME[name]
    held = shapes(case)
    return jaxdil.accelerate(function(case, mode)), [held[name] for name in ARGUMENTS[mode]]


@every_rule
def test_each_rule_is_the_reason_for_its_case(rule):
    fn, args = program(rule)
    (row,) = jaxdil.explain(fn, platform="tpu", gradients=False)(*args)
    assert row.method == BY_RULE[rule][2]
    assert row.because.startswith(f"rule {rule}: ")


@pytest.mark.core
@every_rule
def test_each_rule_lowers_for_a_tpu_on_any_machine(rule):
    fn, args = program(rule)
    exported = jax.export.export(jax.jit(fn), platforms=["tpu"])(*args)
    assert exported.platforms == ("tpu",)
    assert exported.out_avals[0].shape == jax.eval_shape(fn, *args).shape


def test_only_floats_of_up_to_32_bits_have_rules():
    for dtype in (np.int32, np.complex64, np.float64):
        x, w = np.ones((1, 64, 8), dtype), np.ones((2, 8, 8), dtype)
        rows = jaxdil.explain(jaxdil.conv, platform="tpu", gradients=False)(x, w)
        assert [row.method for row in rows] == ["xla"]


def methods_of(fn, *shapes):
    """What is chosen on a TPU for the convolutions of a function of float32 arrays."""
    args = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    return [row.method for row in jaxdil.explain(fn, platform="tpu", gradients=False)(*args)]


@pytest.mark.parametrize("each", [(), (4,)], ids=["an example", "four examples"])
@pytest.mark.parametrize("channels", [1, 3, 16, 64])
@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_gradients_of_each_example_are_not_made_wider(channels, stride, each):
    """Their groups come of vmap, and their kernel is an image: zeros only make more of it."""
    conv = functools.partial(jaxdil.conv, stride=stride)

    def one(x, w):
        return jax.grad(lambda w: conv(x.reshape(-1, *x.shape[-3:]), w).sum())(w)

    for size, taps, outer in ((14, 3, 16), (28, 8, 32), (7, 1, 64)):
        w = (taps, taps, channels, outer)
        methods = methods_of(jax.vmap(one, in_axes=(0, None)), (8, *each, size, size, channels), w)
        assert "expand" not in methods


@pytest.mark.parametrize(
    ("size", "channels", "method"), [(56, 1, "planes"), (28, 1, "xla"), (28, 3, "slabs")]
)
def test_rows_of_one_channel_lie_side_by_side_in_all_but_small_images(size, channels, method):
    conv = functools.partial(jaxdil.conv, stride=2)
    for taps in (3, 8):
        kernel = (taps, taps, channels, 16)
        assert methods_of(conv, (4, size, size, channels), kernel) == [method]


@pytest.mark.parametrize(
    ("x", "kernel", "outer", "method"),
    [
        ((4, 7, 7, 32), 4, 16, "xla"),
        ((4, 7, 7, 64), 3, 32, "xla"),
        ((4, 14, 14, 64), 3, 32, "xla"),  # 4 examples lie in the sublanes: copied on either side
        ((4, 14, 14, 20), 4, 12, "xla"),
        ((4, 14, 14, 12), 3, 12, "taps"),
        ((2, 28, 28, 16), 3, 8, "taps"),
        ((2, 14, 14, 16), 3, 8, "pallas_tpu"),
        ((4, 14, 14, 8), 4, 16, "pallas_tpu"),
        ((4, 28, 28, 64), 3, 32, "pallas_tpu"),
    ],
)
def test_an_image_with_few_zeros_goes_where_its_output_lies_well(x, kernel, outer, method):
    assert methods_of(spread(2), x, (kernel, kernel, x[-1], outer)) == [method]


@pytest.mark.parametrize(
    ("x", "kernel", "outer", "method"),
    [
        ((2, 32, 12), 5, 20, "xla"),
        ((8, 43, 32), 7, 12, "xla"),
        ((32, 32, 32), 5, 8, "xla"),
        ((8, 64, 32), 5, 8, "taps"),
        ((4, 16, 16), 3, 8, "taps"),
        ((8, 256, 3), 7, 12, "taps"),
    ],
)
def test_a_row_with_few_zeros_is_products_for_each_tap_if_it_is_long(x, kernel, outer, method):
    assert methods_of(spread(1), x, (kernel, x[-1], outer)) == [method]


@pytest.mark.parametrize(
    ("x", "w", "groups", "options", "methods"),
    [
        ((4, 14, 14, 160), (3, 3, 16, 160), 10, {}, ["pallas_tpu"] * 2),
        ((8, 16, 16, 256), (3, 3, 32, 512), 8, {"stride": 2}, ["xla"] * 2),
        ((4, 16, 16, 256), (3, 3, 32, 512), 8, {"stride": 2}, ["pallas_tpu"] * 2),
        ((1, 13, 17, 200), (3, 3, 40, 200), 5, {}, ["pallas_tpu", "xla"]),
        ((2, 10, 10, 72), (3, 3, 12, 72), 6, {"stride": 2}, ["pallas_tpu", "xla"]),
        ((1, 112, 112, 12), (3, 3, 3, 24), 4, {}, ["expand"] * 2),
    ],
)
def test_groups_go_in_one_pass_where_they_lie_well(x, w, groups, options, methods):
    conv = functools.partial(jaxdil.conv, groups=groups, **options)

    def by_kernel(x, w):
        return jax.grad(lambda w: conv(x, w).sum())(w)

    assert [methods_of(fn, x, w)[-1] for fn in (conv, by_kernel)] == methods


def spread(rank):
    """A convolution of an input dilated by 2, with twice its positions."""

    def run(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            (1,) * rank,
            [(k // 2, (k + 1) // 2) for k in w.shape[:rank]],
            lhs_dilation=(2,) * rank,
            dimension_numbers=("NHWC", "HWIO", "NHWC") if rank == 2 else ("NHC", "HIO", "NHC"),
        )

    return run


# --- the compiler ---------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the compiler for TPUs is not installed: pip install 'jaxdil[tpu]'",
)


@pytest.fixture(scope="module")
def v5e():
    """A device of a v5e, good for compiling."""
    return tpu.device_of("v5e")


SMALL = {
    "dense": ((1, 12, 12, 8), (3, 3, 8, 16), {"dilation": 2}),
    "groups": ((1, 12, 12, 16), (3, 3, 4, 16), {"groups": 4}),
    "transposed": ((1, 6, 6, 8), (4, 4, 8, 8), {"input_dilation": 2, "padding": "FULL"}),
    "volume": ((1, 6, 8, 8, 8), (3, 3, 3, 8, 8), {}),
    "patches": ((1, 8, 8, 8), (4, 4, 8, 16), {"stride": 4}),
    "far": ((1, 4, 4, 8), (3, 3, 8, 8), {"dilation": 4}),
}


def served(method):
    """The small convolutions and their gradients that a method computes itself, as functions."""
    for name, (x_shape, w_shape, options) in SMALL.items():
        x, w = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (x_shape, w_shape))
        y = jax.eval_shape(functools.partial(jaxdil.conv, **options), x, w)
        pinned = functools.partial(functools.partial, method=method, **options)
        for mode, fn, args in (
            ("fwd", pinned(jaxdil.conv), (x, w)),
            ("dx", pinned(jaxdil.conv_input_grad, input_shape=x_shape), (y, w)),
            ("dw", pinned(jaxdil.conv_kernel_grad, kernel_shape=w_shape), (x, y)),
        ):
            try:
                jax.eval_shape(fn, *args)
            except jaxdil.MethodError:
                continue
            yield f"{name} {mode}", fn, args


def kernels_in(text):
    """How many kernels a program has, without those that copy for samples that are not finite."""
    calls = (line for line in text.splitlines() if 'target="tpu_custom_call"' in line)
    return sum("jaxdil_copy" not in call for call in calls)


@needs_compiler
@pytest.mark.parametrize("method", [m for m in METHODS if races(m, "tpu")])
def test_each_method_compiles_for_a_tpu(method, v5e):
    """All that it serves, as one program."""
    found = list(served(method))
    assert found

    def run(every):
        return {name: fn(*args) for (name, fn, _), args in zip(found, every, strict=True)}

    compiled = tpu.lowered(run, ([args for *_, args in found],), v5e).compile()
    estimate = tpu.estimate(compiled.as_text())
    assert estimate.cycles > 0 or estimate.kernels


@needs_compiler
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("chip", ["v5e", "v6e"])
def test_the_kernels_of_one_axis_compile(chip, dtype):
    """Forward and both gradients, of one sequence a row and of packed ones."""
    x = jax.ShapeDtypeStruct((2, 1100, 260), dtype)
    w = jax.ShapeDtypeStruct((4, 260, 1), dtype)
    ids = jax.ShapeDtypeStruct((2, 1100), np.int32)

    def both(x, w, ids):
        def run(x, w):
            conv = functools.partial(jaxdil.streaming.causal_conv, depthwise=True, dilation=5)
            packed = conv(x, w, segment_ids=ids, method="pallas_tpu")
            return conv(x, w, method="pallas_tpu"), packed

        y, pullback = jax.vjp(run, x, w)
        return y, pullback(y)

    compiled = tpu.lowered(both, (x, w, ids), tpu.device_of(chip)).compile()
    assert len(tpu.estimate(compiled.as_text()).kernels) == 1
    assert kernels_in(compiled.as_text()) == 6


@needs_compiler
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
def test_the_kernels_of_one_axis_turn_time_and_channels_on_the_chip(chip, dtype):
    """Few channels have time in the lanes: it is read as it lies, in one block and in several."""
    for size in (1000, 2500):
        x = jax.ShapeDtypeStruct((3, size, 72), dtype)
        w = jax.ShapeDtypeStruct((4, 1, 72), dtype)

        def run(x, w):
            conv = functools.partial(jaxdil.conv, groups=72, padding="CAUSAL")
            y, pullback = jax.vjp(functools.partial(conv, method="pallas_tpu"), x, w)
            return y, pullback(y)

        text = tpu.lowered(run, (x, w), tpu.device_of(chip)).compile().as_text()
        assert kernels_in(text) == 3
        # Neither image is copied into another order.
        assert not re.search(rf"\[3,{size},72\]\S* (copy|transpose)\(", text)


@needs_compiler
def test_channels_before_time_are_not_copied(v5e):
    x, w = (jax.ShapeDtypeStruct(s, "bfloat16") for s in ((2, 256, 1024), (4, 1, 256)))
    run = functools.partial(jaxdil.conv, groups=256, data_format="NCW", method="pallas_tpu")
    text = tpu.lowered(run, (x, w), v5e).compile().as_text()
    assert kernels_in(text) == 1
    assert not re.search(r"\[2,(256,1024|1024,256)\]\S* (copy|transpose)\(", text)


@needs_compiler
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
@pytest.mark.parametrize("frames", [256, 1100])
def test_a_chunk_goes_through_memory_once(frames, chip, dtype):
    """Behind carried frames, which the kernel reads from where they are."""
    w = jnp.ones((4, 256, 1), dtype)
    state = jaxdil.streaming.init((2, 256), w, depthwise=True, dilation=5)
    x = jax.ShapeDtypeStruct((2, frames, 256), dtype)
    program = tpu.lowered(jaxdil.streaming.chunk, (state, x, w), tpu.device_of(chip)).compile()
    assert kernels_in(program.as_text()) == 1
    # They are not laid out in front of it.
    assert f"[2,{frames + 15},256]" not in program.as_text()


@needs_compiler
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
@pytest.mark.parametrize(
    ("examples", "frames", "channels", "dilation"),
    [(2, 201, 256, 1), (2, 3199, 640, 512), (4, 71, 250, 2), (16, 999, 256, 128)],
)
def test_examples_abreast_compile(examples, frames, channels, dilation, chip, dtype):
    """Read and written as they lie."""
    shapes = (examples, frames, channels), (3, 1, channels)
    x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)

    def run(x, w):
        options = {"groups": channels, "dilation": dilation, "padding": "CAUSAL"}
        y, pullback = jax.vjp(lambda x, w: jaxdil.conv(x, w, **options, method="pallas_tpu"), x, w)
        return y, pullback(y)

    text = tpu.lowered(run, (x, w), tpu.device_of(chip)).compile().as_text()
    assert kernels_in(text) == 3
    assert not re.search(rf"\[{examples},{frames},{channels}\]\S* (copy|transpose)\(", text)


# Whole images and blocks of rows, columns or images in the sublanes, strides, dilation.
IMAGES = {
    "3x3": ((1, 30, 24, 130), 3, {}),
    "5x5": ((8, 10, 10, 32), 5, {}),
    "7x7": ((2, 14, 14, 256), 7, {}),
    "dilated": ((1, 33, 33, 256), 3, {"dilation": 18}),
    "strided": ((2, 112, 112, 96), 3, {"stride": 2}),
    "in the lanes": ((192, 28, 28, 24), 3, {"stride": 2}),
}


@pytest.mark.parametrize(
    ("x", "kernel", "method"),
    [
        # 128 images fill the lanes, which 576 channels do not.
        ((128, 14, 14, 576), 3, "pallas_tpu"),
        ((128, 56, 56, 16), 3, "pallas_tpu"),
        ((128, 28, 28, 20), 3, "xla"),
        ((128, 2, 4, 64), 3, "xla"),
        ((128, 8, 8, 8, 48), 3, "xla"),
        ((128, 64, 200), 3, "xla"),
        # 8 examples lie in the sublanes.
        ((8, 999, 256), 3, "pallas_tpu"),
        ((8, 999, 40), 3, "pallas_tpu"),
        ((2, 3001, 100), 3, "xla"),
        ((2, 1001, 100), 3, "pallas_tpu"),
    ],
)
def test_depthwise_as_it_lies_in_memory(x, kernel, method):
    w = (*(kernel,) * (len(x) - 2), 1, x[-1])
    assert methods_of(functools.partial(jaxdil.conv, groups=x[-1]), x, w) == [method]


@pytest.mark.parametrize(
    ("x", "w", "options", "small", "method"),
    [
        ((56, 56, 64), (3, 3, 64, 64), {}, 8, "pallas_tpu"),
        ((56, 56, 3), (3, 3, 3, 64), {"stride": 1}, 8, "planes"),
        ((64, 64, 3), (8, 8, 3, 96), {"stride": 8}, 8, "patches"),
        ((14, 14, 160), (3, 3, 16, 160), {"groups": 10}, 8, "pallas_tpu"),
        ((14, 14, 120), (1, 1, 40, 480), {"groups": 3}, 8, "pallas_tpu"),
        ((8, 8, 8, 64), (3, 3, 3, 64, 64), {}, 8, "pallas_tpu"),
    ],
)
def test_what_is_not_read_as_a_large_batch_lies_stays_with_lax(x, w, options, small, method):
    conv = functools.partial(jaxdil.conv, **options)
    assert methods_of(conv, (small, *x), w) == [method]
    assert methods_of(conv, (128, *x), w) == ["xla"]


@pytest.mark.parametrize(
    ("x", "dilation", "method"),
    [
        ((8, 999, 256), 128, "pallas_tpu"),
        ((8, 999, 256), 129, "xla"),
        ((4, 999, 256), 256, "pallas_tpu"),
        ((4, 999, 256), 257, "xla"),
        # 2 and 4 examples are copied for it, which lax costs more than where taps are near.
        ((4, 4111, 256), 257, "xla"),
        ((4, 4113, 256), 257, "pallas_tpu"),
    ],
)
def test_rows_abreast_that_reach_too_far_stay_with_lax(x, dilation, method):
    conv = functools.partial(jaxdil.conv, groups=256, dilation=dilation, padding="CAUSAL")
    assert methods_of(conv, x, (3, 1, 256)) == [method]


@pytest.mark.parametrize(
    ("x", "taps", "method"),
    [
        ((2, 3199, 512), 3, "xla"),  # examples lie in the sublanes
        ((2, 3200, 512), 8, "pallas_tpu"),
        ((2, 3200, 512), 9, "xla"),
        ((4, 3200, 512), 3, "xla"),
    ],
)
def test_kernel_gradients_of_few_depthwise_rows_go_to_the_kernel(x, taps, method):
    assert gradient_of(x, (taps, 1, x[-1]), groups=x[-1]) == method


@needs_compiler
@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
def test_the_kernels_of_images_compile(chip, dtype, name):
    x_shape, k, options = IMAGES[name]
    x, w = (jax.ShapeDtypeStruct(s, dtype) for s in (x_shape, (k, k, 1, x_shape[-1])))

    def run(x, w):
        conv = functools.partial(jaxdil.conv, groups=x_shape[-1], **options, method="pallas_tpu")
        y, pullback = jax.vjp(conv, x, w)
        return y, pullback(y)

    compiled = tpu.lowered(run, (x, w), tpu.device_of(chip)).compile()
    assert kernels_in(compiled.as_text()) == 3


# Blocks of groups and all in one, columns and images in the sublanes, channels in them, slices.
GROUPS = {
    "blocks": ((1, 7, 7, 256), 3, 8, {}),
    "four images": ((4, 14, 14, 160), 3, 10, {}),
    "sixteen images": ((16, 7, 7, 96), 3, 24, {"dilation": 2}),
    "two images, strided": ((2, 14, 14, 72), 3, 6, {"stride": 2}),
    "few channels": ((2, 9, 200, 24), (3, 5), 3, {}),
    "slices": ((2, 64, 64, 512), 1, 8, {}),
}


@needs_compiler
@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
def test_the_kernels_of_groups_compile(chip, dtype, name):
    x_shape, k, groups, options = GROUPS[name]
    k = k if isinstance(k, tuple) else (k, k)
    shapes = x_shape, (*k, x_shape[-1] // groups, x_shape[-1])
    x, w = (jax.ShapeDtypeStruct(s, dtype) for s in shapes)

    def run(x, w):
        conv = functools.partial(jaxdil.conv, groups=groups, **options)
        y, pullback = jax.vjp(functools.partial(conv, method="pallas_tpu or auto"), x, w)
        return y, pullback(y)

    compiled = tpu.lowered(run, (x, w), tpu.device_of(chip)).compile()
    # The kernel gradient of the slices is of whole images, which in single precision are too large.
    kernels = 2 if (name, dtype) == ("slices", "float32") else 3
    assert kernels_in(compiled.as_text()) == kernels


# Columns, planes and examples in the sublanes; a plane of the ring is more than its channels.
VOLUMES = {
    "columns": ((1, 13, 20, 20, 108), (1, 1, 1)),
    "planes, strided": ((1, 16, 14, 14, 216), (1, 2, 2)),
    "examples": ((8, 13, 12, 12, 130), (2, 1, 1)),
}


@needs_compiler
@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
def test_the_kernels_of_volumes_compile(chip, dtype, name):
    x_shape, stride = VOLUMES[name]
    x, w = (jax.ShapeDtypeStruct(s, dtype) for s in (x_shape, (3, 3, 3, 1, x_shape[-1])))

    def run(x, w):
        options = {"groups": x_shape[-1], "stride": stride, "method": "pallas_tpu"}
        y, pullback = jax.vjp(functools.partial(jaxdil.conv, **options), x, w)
        return y, pullback(y)

    compiled = tpu.lowered(run, (x, w), tpu.device_of(chip)).compile()
    assert kernels_in(compiled.as_text()) == 3


# Planes one by one, several examples, strides and phases; channels side by side, and across.
VOLUMES_BY_KERNEL = {
    "side by side": ((1, 12, 16, 16, 32), (3, 3, 3, 32, 64), {}),
    "strided": ((2, 9, 17, 20, 64), (3, 3, 3, 64, 128), {"stride": 2}),
    "dilated": ((1, 12, 24, 24, 32), (3, 3, 3, 32, 32), {"dilation": 2}),
    "transposed": ((1, 8, 8, 8, 64), (3, 3, 3, 64, 16), {"input_dilation": 2}),
    "across": ((1, 8, 20, 128, 16), (3, 3, 3, 16, 16), {}),
    "planes in the sublanes": ((1, 16, 14, 14, 96), (3, 3, 3, 96, 160), {}),
}


@needs_compiler
@pytest.mark.parametrize("name", VOLUMES_BY_KERNEL)
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
def test_the_kernel_gradients_of_dense_volumes_compile(chip, dtype, name):
    x_shape, w_shape, options = VOLUMES_BY_KERNEL[name]
    x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x_shape, w_shape))
    y = jax.eval_shape(functools.partial(jaxdil.conv, **options), x, w)
    gradient = functools.partial(
        jaxdil.conv_kernel_grad, kernel_shape=w_shape, **options, method="pallas_tpu"
    )
    compiled = tpu.lowered(gradient, (x, y), tpu.device_of(chip)).compile()
    assert kernels_in(compiled.as_text()) == 1


# Columns, planes and rows in the sublanes, joined and across; strides, dilations, phases, blocks.
DENSE_VOLUMES = {
    "joined": ((1, 8, 16, 32, 32), (3, 3, 3, 32, 64), {}),
    "across": ((1, 6, 8, 64, 16), (3, 3, 3, 16, 16), {"dilation": 2}),
    "planes": ((1, 8, 28, 28, 144), (3, 1, 1, 144, 64), {}),
    "strided": ((2, 9, 16, 16, 48), (3, 3, 3, 48, 40), {"stride": 2}),
    "transposed": ((1, 8, 8, 8, 64), (3, 3, 3, 64, 16), {"input_dilation": 2, "padding": "FULL"}),
    "blocks": ((8, 4, 6, 6, 256), (2, 2, 2, 256, 640), {}),
    "one output": ((1, 5, 8, 8, 64), (3, 3, 3, 64, 1), {}),
}


@needs_compiler
@pytest.mark.parametrize("name", DENSE_VOLUMES)
@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
def test_the_dense_kernels_of_volumes_compile(chip, dtype, name):
    x_shape, w_shape, options = DENSE_VOLUMES[name]
    x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x_shape, w_shape))

    def run(x, w):
        conv = functools.partial(jaxdil.conv, **options, method="pallas_tpu")
        y, pullback = jax.vjp(lambda x: conv(x, w), x)
        return y, pullback(y)

    text = tpu.lowered(run, (x, w), tpu.device_of(chip)).compile().as_text()
    assert kernels_in(text) >= 2


# Rows and images; strides, dilations and phases; few channels side by side, and across.
DENSE = {
    "3x3": ((1, 28, 28, 256), (3, 3, 256, 130), {}),
    "strided": ((8, 30, 16, 64), (3, 2, 64, 128), {"stride": 2}),
    "dilated": ((2, 33, 40, 32), (3, 3, 32, 256), {"dilation": 4}),
    "transposed": ((1, 14, 14, 128), (4, 4, 128, 640), {"input_dilation": 2, "padding": "FULL"}),
    "a row": ((3, 1100, 64), (5, 64, 128), {"dilation": 3, "padding": "CAUSAL"}),
    "a row, strided": ((1, 999, 128), (8, 128, 48), {"stride": 4}),
    "a row, transposed": ((1, 70, 256), (16, 256, 64), {"input_dilation": 8, "padding": "FULL"}),
}


@needs_compiler
@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(
    ("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32"), ("v4", "bfloat16")]
)
def test_the_dense_kernels_compile(chip, dtype, name):
    """Forward and both gradients."""
    x_shape, w_shape, options = DENSE[name]
    x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x_shape, w_shape))

    def run(x, w):
        conv = functools.partial(jaxdil.conv, **options, method="pallas_tpu")
        y, pullback = jax.vjp(conv, x, w)
        return y, pullback(y)

    compiled = tpu.lowered(run, (x, w), tpu.device_of(chip)).compile()
    assert kernels_in(compiled.as_text()) == 3


@needs_compiler
@pytest.mark.parametrize("precision", [None, "highest"])
def test_the_dense_kernels_compile_in_both_precisions(precision, v5e):
    x, w = (jax.ShapeDtypeStruct(s, "float32") for s in ((1, 16, 16, 128), (3, 3, 128, 128)))
    conv = functools.partial(jaxdil.conv, precision=precision, method="pallas_tpu")
    assert "tpu_custom_call" in tpu.lowered(conv, (x, w), v5e).compile().as_text()


@needs_compiler
@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 16, 16, 256), (4, 4, 256, 128), {"input_dilation": 2, "padding": ((2, 2), (2, 2))}),
        ((1, 32, 32, 128), (3, 3, 128, 64), {}),
        ((1, 56, 56, 32), (3, 3, 32, 64), {}),
        ((2, 1024, 64), (3, 64, 128), {}),
    ],
)
def test_nothing_is_copied_around_a_dense_kernel(x, w, options, v5e):
    """Neither image, nor kernel: not in the gradient by the input either, which turns it round."""
    arrays = [jax.ShapeDtypeStruct(shape, "bfloat16") for shape in (x, w)]
    conv = functools.partial(jaxdil.conv, **options, method="pallas_tpu")
    y = jax.eval_shape(conv, *arrays)

    def back(w, g):
        (dx,) = jax.linear_transpose(lambda x: conv(x, w), arrays[0])(g)
        return dx

    for fn, args in ((conv, arrays), (back, (arrays[1], y))):
        text = tpu.lowered(fn, args, v5e).compile().as_text()
        assert "tpu_custom_call" in text
        assert not re.search(r" (copy|transpose|reverse|fusion|pad)\(", text)


def gradient_of(x_shape, w_shape, dtype="bfloat16", **options):
    """The method that is chosen for a kernel gradient."""
    x, w = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x_shape, w_shape))
    y = jax.eval_shape(functools.partial(jaxdil.conv, **options), x, w)
    fn = functools.partial(jaxdil.conv_kernel_grad, kernel_shape=w_shape, **options)
    (row,) = jaxdil.explain(fn, platform="tpu", gradients=False)(x, y)
    return row.method


@pytest.mark.parametrize(
    ("data_format", "stride", "method"),
    [("NHWC", 2, "pallas_tpu"), ("NCHW", 2, "xla"), ("NCHW", 1, "pallas_tpu")],
)
def test_a_kernel_gradient_with_channels_before_rows_is_copied(data_format, stride, method):
    """Of a transposed convolution that takes longer than what is won."""
    x = jnp.ones((1, 14, 14, 256) if data_format == "NHWC" else (1, 256, 14, 14), jnp.bfloat16)
    w = jnp.ones((2, 2, 128, 256), jnp.bfloat16)
    conv = functools.partial(jaxdil.conv_transpose, x, stride=stride, data_format=data_format)

    def gradient(y):
        return jax.vjp(conv, w)[1](y)

    rows = jaxdil.explain(gradient, platform="tpu", gradients=False)(conv(w))
    assert [row.method for row in rows if row.role == "kernel gradient"] == [method]


@pytest.mark.parametrize(
    ("x", "kernel", "options", "method"),
    [
        ((1, 8, 8, 8, 64), (3, 3, 3), {}, "pallas_tpu"),
        ((1, 13, 24, 24, 64), (3, 1, 1), {"stride": (2, 1, 1)}, "pallas_tpu"),
        ((1, 13, 20, 20, 64), (3, 3, 3), {"stride": (1, 2, 2)}, "xla"),  # the cotangent is copied
        ((1, 13, 20, 20, 64), (3, 3, 3), {"dtype": "float32"}, "xla"),  # both are
        ((1, 13, 24, 16, 64), (3, 3, 3), {"dtype": "float32"}, "pallas_tpu"),
        ((2, 8, 8, 8, 64), (3, 3, 3), {}, "xla"),
        ((1, 8, 8, 8, 8), (3, 3, 3), {}, "xla"),
        ((1, 7, 8, 8, 64), (3, 3, 3), {}, "xla"),
        ((1, 13, 10, 10, 64), (3, 3, 3), {}, "xla"),  # planes lie in the sublanes
    ],
)
def test_kernel_gradients_of_one_depthwise_volume_go_to_the_kernel(x, kernel, options, method):
    options = {"groups": x[-1], **options}
    assert gradient_of(x, (*kernel, 1, x[-1]), **options) == method


@pytest.mark.parametrize(
    ("x", "outer", "options", "method"),
    [
        ((1, 32, 32, 32, 32), 64, {}, "pallas_tpu"),
        ((2, 32, 32, 32, 64), 16, {}, "pallas_tpu"),
        ((4, 32, 32, 32, 32), 64, {}, "xla"),
        ((1, 32, 32, 32, 64), 64, {}, "xla"),
        ((1, 15, 16, 16, 32), 64, {}, "xla"),
        ((1, 32, 32, 32, 8), 64, {}, "xla"),
        ((1, 32, 32, 32, 32), 256, {}, "xla"),
        ((1, 32, 32, 32, 64), 128, {"stride": 2}, "pallas_tpu"),
        ((1, 20, 20, 20, 64), 64, {"dilation": 2}, "pallas_tpu"),
        ((1, 14, 14, 14, 64), 64, {"stride": 2}, "xla"),
    ],
)
def test_kernel_gradients_of_dense_volumes(x, outer, options, method):
    assert gradient_of(x, (3, 3, 3, x[-1], outer), **options) == method


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("stride", [1, (1, 2, 2)])
def test_depthwise_volumes_go_to_the_kernel_and_large_ones_of_many_examples_to_lax(batch, stride):
    def chosen(size):
        x, w = jnp.zeros((batch, *size, 64), "bfloat16"), jnp.zeros((3, 3, 3, 64, 1), "bfloat16")
        args = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, w))
        fn = functools.partial(jaxdil.depthwise_conv, stride=stride)
        rows = jaxdil.explain(fn, platform="tpu")(*args)
        return {row.role: row.method for row in rows}

    both = ("forward", "input gradient")
    assert {chosen((4, 16, 16))[role] for role in both} == {"pallas_tpu"}
    large = "slabs" if batch < 8 else "xla"
    assert {chosen((4, 200, 200))[role] for role in both} == {large}


@pytest.mark.parametrize(
    ("x", "kernel", "outer", "stride", "method"),
    [
        ((1, 16, 16, 16, 16), 3, 16, 1, "pallas_tpu"),
        ((8, 16, 16, 16, 32), 3, 64, 2, "pallas_tpu"),
        ((1, 16, 16, 16, 40), 3, 24, 1, "pallas_tpu"),
        ((1, 8, 14, 14, 256), (3, 1, 1), 256, 1, "pallas_tpu"),
        ((1, 20, 24, 20, 24), 3, 48, 1, "slabs"),  # a register is not filled by whole taps
        ((1, 8, 28, 28, 64), 3, 64, (1, 2, 2), "slabs"),
        ((1, 4, 4, 4, 512), 3, 512, 1, "slabs"),  # fewer positions than channels
        ((16, 4, 14, 14, 256), (1, 3, 3), 256, 1, "xla"),
        ((1, 8, 200, 200, 64), 3, 64, 1, "slabs"),  # more than the memory on the chip
    ],
)
def test_dense_volumes_go_to_the_kernel(x, kernel, outer, stride, method):
    kernel = (kernel,) * 3 if isinstance(kernel, int) else kernel
    conv = functools.partial(jaxdil.conv, stride=stride)
    assert methods_of(conv, x, (*kernel, x[-1], outer)) == [method]


@needs_compiler
def test_over_several_chips_a_kernel_is_each_ones_own(v5e):
    """XLA cannot divide a kernel: where it divides the program there is none, by hand there is."""
    chips = list(v5e.client.devices())
    mesh = jax.sharding.Mesh(np.array(chips), ("data",))

    def at(shape, dtype, *spec):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    args = (
        at((8, 256, 128), "bfloat16", "data"),
        at((4, 128, 1), "bfloat16"),
        at((8, 256), np.int32, "data"),
        at((32, 16, 16, 128), "bfloat16", "data"),
        at((3, 3, 128, 1), "bfloat16"),
    )

    def both(x, w, ids, image, kernel):
        conv = functools.partial(jaxdil.streaming.causal_conv, depthwise=True)
        y = conv(x, w), conv(x, w, segment_ids=ids)
        return *y, jaxdil.depthwise_conv(image, kernel)

    text = jax.jit(both).lower(*args).compile().as_text()
    assert "tpu_custom_call" not in text
    assert "all-gather" not in text
    specs = tuple(a.sharding.spec for a in args)
    by_hand = jax.shard_map(both, mesh=mesh, in_specs=specs, out_specs=specs[0])
    text = jax.jit(by_hand).lower(*args).compile().as_text()
    assert kernels_in(text) == 3


@needs_compiler
def test_a_kernel_has_a_price(tmp_path):
    """In a process of its own, which libtpu is loaded in with the wish for listings."""
    build = functools.partial(layers.program, BY_NAME["mamba-k4"], "fwd")
    with tpu.Compiler("v5e", tmp_path / "cache", 60.0) as compiler:
        outcome = compiler.outcome(build, "pallas_tpu")
    assert outcome["unpriced_kernels"] == []
    assert 0 < outcome["kernel_cycles"] == outcome["cycles"]


@needs_compiler
def test_a_loop_counts_as_often_as_it_goes_round(v5e):
    x = jax.ShapeDtypeStruct((512, 512), jnp.float32)

    def looped(times):
        def run(x):
            return lax.fori_loop(np.int32(0), np.int32(times), lambda _, x: jnp.tanh(x @ x), x)

        return tpu.estimate(tpu.lowered(run, (x,), v5e).compile().as_text())

    few, many = looped(10), looped(100)
    assert (few.loops, many.loops, many.unknown_loops) == (1, 1, 0)
    assert 5 < many.cycles / few.cycles < 11


@needs_compiler
def test_a_network_is_compiled(tmp_path, user_defaults):
    pytest.importorskip("equinox")
    options = {"batch": 1, "size": 4, "cache_path": tmp_path / "cache.jsonl"}
    found = [
        results.load(
            tpu.run_models(["equinox-mamba"], device="tpu:v5e", out=tmp_path / name, **options)
        )
        for name in ("first.jsonl", "again.jsonl")
    ]
    first, again = (result.records for result in found)
    which = [(record["mode"], record["contender"]) for record in first]
    assert which == [("infer", "lax"), ("infer", "auto"), ("step", "lax"), ("step", "auto")]
    assert all(record["status"] == "ok" and record["cycles"] > 0 for record in first)
    assert again == first  # nothing was compiled again: even how long that took is the same


# --- reading the program --------------------------------------------------------------------------

PROGRAM = """\
HloModule test, is_scheduled=true

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[], f32[8,128]{1,0}) parameter(0)
  %work = f32[8,128]{1,0:T(8,128)} fusion(%p), calls=%f, backend_config={"estimated_cycles":"10"}
  ROOT %t = (s32[], f32[8,128]{1,0}) tuple(%p, %work)
}

%condition (p.1: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  ROOT %less = pred[] compare(%p.1, %limit), direction=LT
}

%dear (q: f32[8,128]) -> f32[8,128] {
  ROOT %much = f32[8,128]{1,0} fusion(%q), calls=%f, backend_config={"estimated_cycles":"900"}
}

%cheap (q.1: f32[8,128]) -> f32[8,128] {
  ROOT %little = f32[8,128]{1,0} fusion(%q.1), calls=%f, backend_config={"estimated_cycles":"5"}
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %first = f32[8,128]{1,0} copy(%x), backend_config={"estimated_cycles":"100"}
  %moved = bf16[16,8,128]{2,1,0} reshape(%first), backend_config={"integer":"1"}
  %kernel = f32[8,128]{1,0} custom-call(%moved), custom_call_target="tpu_custom_call"
  %loop = (s32[], f32[8,128]{1,0}) while(%start), condition=%condition, body=%body
  %either = f32[8,128]{1,0} conditional(%c, %x, %x), branch_computations={%dear, %cheap}
  ROOT %y = f32[8,128]{1,0} bitcast(%either)
}
"""


def test_the_estimate_adds_up_a_program():
    found = tpu.estimate(PROGRAM)
    assert found.cycles == 100 + 7 * 10 + 5
    assert (found.loops, found.unknown_loops, found.branches) == (1, 0, 1)
    assert found.unpriced == {"reshape": 32768, "custom-call tpu_custom_call": 4096}
    assert found.kernels == ["custom-call tpu_custom_call"]


LISTING = """\
= control target key start
LB: loop body
     0   :  { %s1 = inlined_call_operand.hbm [shape: f32[8,128], index: 0] }
   0x1   :  { %s2 = sst [smem:[#allocation2]] %s1 }
   0x2 LB: > { %s3 = sphi %s4, %s5 }
   0x3   : > { %p1 = scmp.ge.s32.totalorder %s3, 10 /* loop exit test */ }
   0x4 LB: >> { %v1 = vld [vmem:[%s1] sm:$0xff]  ;;  %s6 = sadd.s32 1, %s7 }
   0x5   : >> { %p2 = scmp.ge.s32.totalorder %s6, 3 /* loop exit test */ }
   0x6   :  {}
   0x7   : > { %s8 = sadd.s32 1, %s3 }
   0x8   : >> { %v2 = vadd.f32 %v1, %v1 }
   0x9   : > { %9 = sbr.rel (!%p1) target = $region1 }
   0xa   :  { %10 = vsyncpa [#allocation3], 1 }
"""


def test_a_listing_adds_up_words_as_often_as_their_loops_go_round():
    # Three words of the inner loop and an empty one, four of the outer, three of neither.
    assert bundles.count(LISTING) == (3 + 10 * (4 + 3 * 4), 0)
    endless = LISTING.replace(", 3 /* loop exit test */", ", %s9 /* loop exit test */")
    assert bundles.count(endless) == (3 + 10 * (4 + 4), 1)
    # Two turns of the loop over blocks only copy.
    grid = LISTING.replace("sphi %s4, %s5", "sphi %s4, %s5 /* iteration index, stage = 1 */")
    assert bundles.count(grid) == (3 + 8 * (4 + 3 * 4), 0)
    # The tests of two loops that end together may both stand in the inner one.
    test = "scmp.ge.s32.totalorder (%p2), %s3, 10 /* loop exit test */"
    both = LISTING.replace("scmp.ge.s32.totalorder %s3, 10 /* loop exit test */", "nop")
    both = both.replace("{ %v2 = vadd.f32", "{ %p3 = " + test + "  ;;  %v2 = vadd.f32")
    assert bundles.count(both) == (3 + 10 * (4 + 3 * 4), 0)


def test_a_kernel_costs_its_words_or_its_bytes(tmp_path):
    (tmp_path / "1-kernel-72-final_bundles.txt").write_text(LISTING)
    (tmp_path / "1-kernel-71-schedule-analysis_final_bundles.txt").write_text("Schedule analysis:")
    listings = bundles.kernels(tmp_path)
    assert list(listings) == ["kernel"]
    found = tpu.estimate(PROGRAM, "v5e", listings)
    assert (found.kernel_cycles, found.cycles, found.kernels) == (163, 175 + 163, [])
    # 819 kB at 819 GB/s are a microsecond, and that 1500 cycles of 1.5 GHz.
    says = 'custom_call_target="tpu_custom_call", x={"bytes_accessed":"819000"}'
    told = PROGRAM.replace('custom_call_target="tpu_custom_call"', says)
    assert tpu.estimate(told, "v5e", listings).kernel_cycles == 1500
    bundles.clear(tmp_path)
    assert bundles.kernels(tmp_path) == {}


def test_the_same_kernel_twice_is_listed_once_and_counts_twice():
    (listing,) = (bundles.count(LISTING),)
    says = 'custom_call_target="tpu_custom_call", x={"custom_call_config":{"body":"abc"}}'
    told = PROGRAM.replace('custom_call_target="tpu_custom_call"', says)
    (line,) = (line for line in told.splitlines() if "%kernel" in line)
    twice = told.replace(line, f"{line}\n{line.replace('%kernel', '%twin')}")
    found = tpu.estimate(twice, "v5e", {"kernel": listing})
    assert (found.kernel_cycles, found.kernels) == (2 * 163, [])
    other = twice.replace("abc", "def", 1)
    assert tpu.estimate(other, "v5e", {"kernel": listing}).kernels == [
        "custom-call tpu_custom_call"
    ]


def test_a_loop_that_does_not_say_how_often_counts_once():
    found = tpu.estimate(PROGRAM.replace("constant(7)", "parameter(1)"))
    assert found.cycles == 100 + 10 + 5
    assert found.unknown_loops == 1


def test_what_a_loop_says_of_itself_comes_first():
    said = 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    assert tpu.estimate(PROGRAM.replace("body=%body", said)).cycles == 100 + 3 * 10 + 5


def test_an_unknown_chip_is_refused():
    with pytest.raises(ValueError, match="tpu:v5e, tpu:v5p, tpu:v6e are known"):
        tpu.chip_of("tpu:v3")
    assert tpu.chip_of("tpu:v6e") == "v6e"
    assert tpu.chip_of("tpu") is None


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="it is installed")
def test_without_the_compiler_it_says_how_to_get_it():
    with pytest.raises(ValueError, match=r"pip install 'jaxdil\[tpu\]'"):
        tpu.device_of("v5e")


# --- the report -----------------------------------------------------------------------------------


def result(path, cycles):
    """A result of a case in each mode: cycles of lax and of auto, None where not compiled."""
    case = BY_NAME["resnext-56"]
    header = {
        "kind": "header",
        "benchmark": "compiled",
        "date": "2026-01-02",
        "device": "tpu:v5e",
        "device_kind": "TPU v5 lite",
        "jax": "1",
        "jaxlib": "1",
        "libtpu": "1",
        "commit": "c0",
        "cpu": "a",
        "command": "run",
        "dtype": "bfloat16",
        "chip": tpu.CHIPS["v5e"]._asdict(),
    }
    records = [header]
    for mode, each in cycles.items():
        for name, estimate in zip(("lax", "auto"), each, strict=True):
            shared = {"kind": "result", "case": case.name, "family": case.family, "mode": mode}
            shared |= {"source": case.source, "geometry": case.geometry, "flops": 1, "bytes": 8190}
            shared |= {"contender": name, "method": "expand", "because": "rule T2: narrow groups"}
            outcome = {"status": "slow", "reason": "not compiled within 1 s"}
            if estimate is not None:
                outcome = {"status": "ok", "cycles": estimate, "temp_bytes": 0, "unpriced": {}}
            records.append(shared | outcome)
    path.write_text("\n".join(map(json.dumps, records)))
    return results.load(path)


def test_the_report_says_what_was_compiled_what_lost_and_what_was_not(tmp_path):
    found = result(tmp_path / "a.jsonl", {"fwd": (8000, 2000), "dx": (1000, 2000), "dw": (None, 5)})
    report.write([found], docs=tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "Nothing ran here." in page
    assert "| grouped | 1 | 4.00 (4.00) | 0.50 (**0.50**) | - |" in page
    assert "- resnext-56 dx: **0.50**" in page
    assert "- resnext-56 dw: `lax` slow: not compiled within 1 s" in page
    # 8190 bytes at 819 GB/s are 10 ns, and those 15 cycles of 1.5 GHz.
    assert "| fwd | 0.0 | 8.0 | 2.0 | 4.00 | `expand` |" in page
    assert (tmp_path / "figures" / "cycles-a.svg").exists()


def test_of_results_for_one_chip_the_newest_of_each_case_counts(tmp_path):
    old = result(tmp_path / "a.jsonl", {"fwd": (8000, 4000), "dx": (1000, 500)})
    new = result(tmp_path / "b.jsonl", {"fwd": (8000, 1000)})
    old.header.update(date="2026-01-01", commit="aaa")
    new.header.update(date="2026-01-02", commit="bbb")
    for order in ([old, new], [new, old]):
        report.write(order, docs=tmp_path)
        page = (tmp_path / "benchmarks.md").read_text()
        assert page.count("Nothing ran here.") == 1
        assert "| grouped | 1 | 8.00 (8.00) | 2.00 (2.00) | - |" in page
        assert "commit bbb; 1 of them, marked, as of commit aaa." in page
        assert "| resnext-56 (older) |" in page


def test_results_of_larger_batches_stand_by_themselves(tmp_path):
    each = result(tmp_path / "a.jsonl", {"fwd": (8000, 4000)})
    large = result(tmp_path / "b.jsonl", {"fwd": (8000, 1000)})
    large.header.update(date="2026-01-03", least_batch=128)
    report.write([each, large], docs=tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "compiled only, 2026-01-02" in page
    assert "compiled only, batches of 128, 2026-01-03" in page
    assert "| grouped | 1 | 2.00 (2.00) |" in page
    assert "| grouped | 1 | 8.00 (8.00) |" in page


def test_the_report_of_networks(tmp_path):
    header = result(tmp_path / "a.jsonl", {}).header | {"benchmark": "models-compiled"}
    header |= {"note": "b0 as of another commit"}
    shared = {"kind": "result", "case": "b0", "mode": "step", "shape": [4, 8, 3]}
    shared |= {"convolutions": 5, "ours": 4, "methods": {"xla": 1, "taps": 4}, "flops": 1}
    priced = {"status": "ok", "temp_bytes": 10**6, "unpriced": {"reshape": 10**6}, "compile_s": 2}
    slow = {"status": "slow", "reason": "not compiled within 1 s"}
    records = [
        shared | priced | {"contender": "lax", "cycles": 8000},
        shared | priced | {"contender": "auto", "cycles": 2000},
        shared | {"mode": "infer", "contender": "lax"} | slow,
        shared | priced | {"mode": "infer", "contender": "auto", "cycles": 2000},
    ]
    found = results.Result(tmp_path / "a.jsonl", header, records)
    assert found.kind == "models-compiled tpu:v5e"
    report.write([found], docs=tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    row = "| 4 / 5 | 8.0 | 2.0 | 4.00 | 4 `taps`, 1 `xla` | 1.0 / 1.0 | 1.0 / 1.0 | 2 / 2 |"
    assert f"| `b0` | 4x8x3 | training step {row}" in page
    assert "in brackets the worst: training step 4.00 (4.00)." in page
    assert "- b0 infer: `lax`: not compiled within 1 s" in page
    assert "Note: b0 as of another commit." in page


def test_estimates_are_compared_with_estimates(tmp_path):
    a = result(tmp_path / "a.jsonl", {"fwd": (8000, 2000)})
    b = result(tmp_path / "b.jsonl", {"fwd": (8000, 1000)})
    assert "0.50  resnext-56              fwd        2.000     1.000  expand" in compare.text(a, b)
    other = b._replace(header={**b.header, "benchmark": "layers"})
    with pytest.raises(ValueError, match="not measured by the same benchmark"):
        compare.text(a, other)
