"""The examples of five well-known tutorials, and what these get wrong: worked_examples.json, run.

000 is an article on tf.nn.atrous_conv2d, 001 and 002 are on tf.nn.depthwise_conv2d, 003 is on
dilated convolution in NumPy and TensorFlow, 004 on receptive fields. The numbers are TensorFlow
2.21's, small integers and dyadic fractions, so every result is exact.
"""

import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import jaxdil
from jaxdil import reference, tf

DATA = json.loads((Path(__file__).parent / "worked_examples.json").read_text())
EXAMPLES = {example["id"]: example for example in DATA["examples"]}
ERRATA = DATA["errata"]
exactly = np.testing.assert_array_equal


def array(values):
    return jnp.asarray(values, jnp.float32)


def image(matrix):
    """A matrix as (1, H, W, 1)."""
    return array(matrix)[None, :, :, None]


def kernel(matrix):
    """A matrix as (KH, KW, 1, 1)."""
    return array(matrix)[:, :, None, None]


# --- the examples ---------------------------------------------------------------------------------


def run_call(example):
    """The function of jaxdil.tf by the name, the arrays and the options of the example."""
    call, inputs = example["call"], example["inputs"]
    arrays = [array(values) for values in inputs.values()]
    if "raises" in example["expected"]:
        assert example["expected"] == {"raises": "ValueError"}
        with pytest.raises(ValueError, match="does not fit"):
            getattr(tf, call["fn"])(*arrays, **call["kwargs"])
        return
    y = getattr(tf, call["fn"])(*arrays, **call["kwargs"])
    exactly(y, array(example["expected"]))
    assert list(y.shape) == example["expected_shape"]
    if "one_channel" in example:
        exactly(y, np.broadcast_to(image(example["one_channel"]), y.shape))


def run_shapes(example):
    """conv2d and depthwise_conv2d of the same arrays, of which only the shapes are told."""
    kwargs = dict(example["call"]["kwargs"])
    rate = kwargs.pop("rate")
    x, w = (jnp.ones(spec["shape"]) for spec in example["inputs"].values())
    assert example["expected"] == {
        "conv2d": list(tf.conv2d(x, w, dilations=rate, **kwargs).shape),
        "depthwise_conv2d": list(tf.depthwise_conv2d(x, w, rate=rate, **kwargs).shape),
    }


def run_first_tap_rows(example):
    """The row that the first tap of each output row reads: the image holds its row numbers."""
    kwargs = dict(example["call"]["kwargs"])
    rate = kwargs.pop("rate")
    rows = array(example["inputs"]["input"])
    x = jnp.broadcast_to(rows, (24, 24))[None, :, :, None]
    delta = example["inputs"]["filter"]
    w = jnp.zeros(delta["shape"], x.dtype).at[tuple(delta["delta_at"])].set(1)
    by_depthwise = tf.depthwise_conv2d(x, w, rate=rate, **kwargs)
    exactly(by_depthwise[0, :, 0, 0], example["expected"]["depthwise_tf"])
    by_conv = tf.conv2d(x, w, dilations=rate, **kwargs)
    exactly(by_conv[0, :, 0, 0], example["expected"]["uniform"])


def run_small_values(example):
    """Both answers to a stride with a rate, value for value."""
    x, w = (array(values) for values in example["inputs"].values())
    y = tf.depthwise_conv2d(x, w, **example["call"]["kwargs"])
    exactly(y, example["expected"]["tf_space_to_batch"])
    uniform = jaxdil.depthwise_conv(x, w, stride=2, dilation=2, padding="VALID")
    exactly(uniform, example["expected"]["uniform"])


def run_unequal_strides(example):
    """TensorFlow's kernel refuses unequal strides. That is no mathematics: they are computed."""
    assert "TF only" in example["expected"]["raises"]
    shapes = (spec["shape"] for spec in example["inputs"].values())
    x, w = (np.arange(np.prod(shape)).reshape(shape) % 7 - 3 for shape in shapes)
    y = tf.depthwise_conv2d(array(x), array(w), **example["call"]["kwargs"])
    exactly(y, reference.depthwise_conv(x, w, stride=(2, 1)))


def run_dilated_kernel(example):
    w = kernel(example["inputs"]["kernel"])
    dilated = jaxdil.dilate_kernel(w, dilation=example["call"]["kwargs"]["rate"])
    exactly(dilated[..., 0, 0], example["expected"])
    assert list(dilated.shape[:2]) == example["expected_shape"]


def run_true_convolution(example):
    """SciPy's convolution with a zero-inserted kernel is TensorFlow's with a rotated kernel."""
    options, expected = example["call"]["kwargs"], example["expected"]
    rate, mode = options["rate"], options["mode"]
    x, w = image(example["inputs"]["image"]), kernel(example["inputs"]["kernel"])
    dilated = jaxdil.dilate_kernel(w, dilation=rate)
    true = scipy.signal.convolve2d(x[0, ..., 0], dilated[..., 0, 0], mode=mode)
    exactly(true, expected["true_convolution"])
    rotated = w[::-1, ::-1]
    exactly(tf.atrous_conv2d(x, rotated, rate, mode)[0, ..., 0], true)
    exactly(tf.conv2d(x, rotated, 1, mode, dilations=rate)[0, ..., 0], true)
    unflipped = tf.atrous_conv2d(x, w, rate, mode)[0, ..., 0]
    exactly(unflipped, expected["cross_correlation_unflipped"])


def run_backprop(example):
    """Both gradients, by JAX and by name; the one by the input is the transposed convolution."""
    rate, padding = example["call"]["kwargs"].values()
    x, w = image(example["inputs"]["image"]), kernel(example["inputs"]["kernel"])
    g, expected = image(example["inputs"]["cotangent"]), example["expected"]
    _, vjp = jax.vjp(lambda x, w: tf.atrous_conv2d(x, w, rate, padding), x, w)
    dx, dw = vjp(g)
    exactly(dx[0, ..., 0], expected["grad_input"])
    exactly(dw[..., 0, 0], expected["grad_kernel"])
    exactly(tf.atrous_conv2d_transpose(g, w, x.shape, rate, padding), dx)
    exactly(tf.atrous_conv2d(g, w[::-1, ::-1], rate, padding), dx)  # odd kernel, stride 1, SAME
    exactly(jaxdil.conv_kernel_grad(x, g, kernel_shape=w.shape, dilation=rate), dw)


def run_effective_kernel(example):
    rows = example["expected"].get("table")
    if rows is None:
        options = example["call"]["kwargs"]
        rows = [{"k": options["kernel_size"], "rate": options["rate"], **example["expected"]}]
    for row in rows:
        size = row.get("eff", row.get("value"))
        assert jaxdil.effective_kernel_size(row["k"], dilation=row["rate"]) == size


def run_one_axis(example):
    """A row of five: the outputs, how many, what the middle one sees and how far that reaches."""
    options = example["call"]["kwargs"]
    stride, rate, pads = options["strides"], options["dilations"], options["padding"]
    x, w = (array(values) for values in example["inputs"].values())

    def f(x):
        return tf.conv1d(x, w, stride, [[0, 0], pads, [0, 0]], dilations=rate)

    y = f(x)
    exactly(y, example["expected"])
    assert list(y.shape) == example["expected_shape"]
    assert y.shape[1] == example["output_length"]
    seen = jax.grad(lambda x: f(x)[0, y.shape[1] // 2, 0])(x)[0, :, 0]
    exactly(1 + np.flatnonzero(seen), example["middle_unit_sees_inputs_1based"])
    (field,) = jaxdil.receptive_field([(3, stride, rate, pads[0])])
    assert field.size == example["receptive_field"]


def run_receptive_field(example):
    fields = jaxdil.receptive_field(example["call"]["kwargs"]["layers"])
    assert [field.size for field in fields] == example["expected"]["rf"]
    assert [field.size for field in fields] == [2 ** (i + 2) - 1 for i in range(3)]


RUNS = {
    "002/ex1_shapes": run_shapes,
    "002/ex2_shapes": run_shapes,
    "002/ex2_first_tap_rows": run_first_tap_rows,
    "002/small_values": run_small_values,
    "002/unequal_strides_error": run_unequal_strides,
    "004/stack_1_2_4": run_receptive_field,
}
FAMILIES = {
    "000/atrous": run_call,
    "001/": run_call,
    "003/dilated_kernel": run_dilated_kernel,
    "003/rate": run_true_convolution,
    "003/backprop": run_backprop,
    "004/effective_kernel": run_effective_kernel,
    "004/one_d": run_one_axis,
}


def runner(name):
    """The function that runs an example: its own, or that of its family."""
    families = [run for start, run in FAMILIES.items() if name.startswith(start)]
    return RUNS[name] if name in RUNS else families[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name):
    runner(name)(EXAMPLES[name])


def test_there_are_35_examples_and_each_has_a_runner():
    assert len(EXAMPLES) == len(DATA["examples"]) == DATA["n_examples"] == 35
    assert all(callable(runner(name)) for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_with_a_wrong_result_is_found(name):
    """Every runner looks at what is expected: change it, and it fails."""

    def spoil(value):
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items()}
        if isinstance(value, list):
            return [spoil(item) for item in value]
        return value + 1 if isinstance(value, (int, float)) else "spoilt"

    example = EXAMPLES[name]
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError, TypeError)):
        runner(name)(example | {"expected": spoil(example["expected"])})


# --- what the tutorials get wrong -----------------------------------------------------------------


def shape_of_valid(erratum):
    for check in erratum["evidence"]["check"]:
        (batch, height, width, _), (kh, kw), rate = check["x"], check["k"], check["rate"]
        y = tf.atrous_conv2d(jnp.ones(check["x"]), jnp.ones((kh, kw, 1, 1)), rate, "VALID")
        assert list(y.shape) == check["out"]
        assert check["out"] == [batch, height - rate * (kh - 1), width - rate * (kw - 1), 1]


def padding_has_no_default(erratum):
    assert erratum["evidence"]["raises"] == "TypeError"
    with pytest.raises(TypeError, match="padding"):
        tf.atrous_conv2d(value=jnp.ones((1, 4, 4, 2)), filters=jnp.ones((3, 3, 2, 5)), rate=1)


def listing_has_three_rows(erratum):
    y = tf.atrous_conv2d(jnp.ones((1, 3, 4, 2)), jnp.ones((3, 3, 2, 5)), 2, "SAME")
    assert list(y.shape) == erratum["evidence"]["rows3_rate2_SAME_shape"]


def result_has_four_axes(erratum):
    assert "(1,4,4,5)" in erratum["right"]
    y = tf.atrous_conv2d(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), 2, "SAME")
    assert y.shape == (1, 4, 4, 5)


def rate_may_be_a_pair_and_padding_a_list(erratum):
    x, w = jnp.ones((1, 9, 9, 1)), jnp.ones((3, 3, 1, 1))
    assert tf.atrous_conv2d(x, w, (1, 2), "VALID").shape == (1, 7, 5, 1)
    for rate in (1, 2):
        y = tf.atrous_conv2d(x, w, rate, [[0, 0], [rate, rate], [0, 0], [0, 0]])
        assert y.shape == (1, 9, 9 - 2 * rate, 1)
    for rate in (2.7, "2", True):  # where TensorFlow takes 2, 2 and 1
        with pytest.raises(TypeError, match="rate must be an integer"):
            tf.atrous_conv2d(x, w, rate, "SAME")


def taps_are_rate_apart(erratum):
    for k, rate in [(3, 2), (2, 4), (5, 3)]:
        taps = jaxdil.dilate_kernel(jnp.ones((k, 1, 1)), dilation=rate)[:, 0, 0]
        exactly(np.flatnonzero(taps), rate * np.arange(k))
        assert taps.size == k + (k - 1) * (rate - 1)
        assert jaxdil.effective_kernel_size(k, dilation=rate) == taps.size


def output_belongs_to_four_rows(erratum):
    w = jnp.ones((3, 3, 2, 2))
    for rows, shape in [(3, (1, 1, 2, 4)), (4, (1, 2, 2, 4))]:
        assert (
            tf.depthwise_conv2d(jnp.ones((1, rows, 4, 2)), w, [1, 1, 1, 1], "VALID").shape == shape
        )


def rate_is_called_dilations(erratum):
    names = ["input", "filter", "strides", "padding", "data_format", "dilations", "name"]
    assert list(inspect.signature(tf.depthwise_conv2d).parameters)[:7] == names
    x, w = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 2))
    exactly(
        tf.depthwise_conv2d(x, w, 1, "SAME", rate=[2, 2]),
        tf.depthwise_conv2d(x, w, 1, "SAME", dilations=[2, 2]),
    )


def explicit_padding_is_taken(erratum):
    x, w = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    y = tf.depthwise_conv2d(x, w, [1, 1, 1, 1], [[0, 0], [1, 2], [2, 1], [0, 0]])
    assert list(y.shape) == erratum["evidence"]


def stride_steps_inside_each_phase(erratum):
    x, w = jnp.ones((1, 24, 24, 3)), jnp.ones((4, 4, 3, 4))
    assert tf.depthwise_conv2d(x, w, 4, "VALID", rate=[3, 3]).shape == (1, 6, 6, 12)
    assert 3 * ((8 - 4) // 4 + 1) == 6
    assert tf.conv2d(x, w, 4, "VALID", dilations=3).shape == (1, 4, 4, 4)
    assert (24 - 10) // 4 + 1 == 4
    for n, k, r, s in [(24, 4, 3, 4), (25, 3, 2, 3), (9, 2, 4, 2)]:
        for padding, pad in [("VALID", 0), ("SAME", (k - 1) * r)]:
            extra = -(n + pad) % r
            size = r * (((n + pad + extra) // r - k) // s + 1) - extra
            y = tf.depthwise_conv2d(
                jnp.ones((1, n, n, 1)), jnp.ones((k, k, 1, 1)), s, padding, rate=r
            )
            assert y.shape == (1, size, size, 1)


def others_give_the_uniform_answer(erratum):
    assert erratum["evidence"]["raises"] == "ValueError"
    x, w = jnp.ones((1, 24, 24, 3)), jnp.ones((4, 4, 3, 4))
    with pytest.raises(ValueError, match="strides > 1 and dilations > 1"):
        tf.convolution(x, w, strides=[4, 4], dilations=[3, 3])
    options = {"stride": 4, "dilation": 3, "padding": "VALID"}
    assert jaxdil.depthwise_conv(x, w, **options).shape == (1, 4, 4, 12)
    exactly(tf.conv2d(x, w, 4, "VALID", dilations=3), jaxdil.conv(x, w, **options))


def fourth_axis_is_a_multiplier(erratum):
    x, w = jnp.ones((1, 24, 24, 3)), jnp.ones((4, 4, 3, 4))
    assert list(tf.depthwise_conv2d(x, w, 1, "VALID").shape) == erratum["evidence"]


def conv2d_has_no_cudnn_flag(erratum):
    x, w = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1))
    names = ["input", "filters", "strides", "padding", "data_format", "dilations", "name"]
    assert list(inspect.signature(tf.conv2d).parameters) == names
    with pytest.raises(TypeError, match="padding"):
        tf.conv2d(x, w, 1)
    with pytest.raises(TypeError, match="use_cudnn_on_gpu"):
        tf.conv2d(x, w, 1, "SAME", use_cudnn_on_gpu=True)


def kernel_gradient_exchanges_stride_and_dilation(erratum):
    stride, rate = 2, 3
    x = array(np.arange(17) % 5).reshape(1, 17, 1)
    w = array([1, -2, 3]).reshape(3, 1, 1)
    f, options = jaxdil.conv, {"stride": stride, "dilation": rate, "padding": "VALID"}
    y, vjp = jax.vjp(lambda x, w: f(x, w, **options), x, w)
    g = array(np.arange(y.shape[1]) - 2).reshape(y.shape)
    dx, dw = vjp(g)
    exactly(jaxdil.conv_transpose(g, w, output_shape=[17], **options), dx)
    spread = g.reshape(-1, 1, 1)  # the cotangent as a kernel
    exchanged = f(x, spread, stride=rate, dilation=stride, padding="VALID")
    exactly(exchanged[0, :3], dw[:, :, 0])


def every_rate_has_a_gradient(erratum):
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        x, w = jnp.ones((1, 9, 9, 1), dtype), jnp.ones((3, 3, 1, 1), dtype)
        for rate in (3, 4):
            dx = jax.grad(lambda x, r=rate, w=w: tf.conv2d(x, w, 1, "VALID", dilations=r).sum())(x)
            assert dx.dtype == dtype
            assert dx.sum() == 9 * (9 - 2 * rate) ** 2
    volume, cube = jnp.ones((1, 5, 5, 5, 1)), jnp.ones((3, 3, 3, 1, 1))
    assert tf.conv3d(volume, cube, [1] * 5, "VALID", dilations=[1, 2, 2, 2, 1]).shape == (1,) * 5


def pictures_show_a_stack(erratum):
    layers = [(3, 1, 1), (3, 1, 2), (3, 1, 4)]
    single = [jaxdil.receptive_field([layer])[-1].size for layer in layers]
    stack = [field.size for field in jaxdil.receptive_field(layers)]
    assert {"single": single, "stack": stack} == erratum["evidence"]


def dots_are_taps(erratum):
    dilated = jaxdil.dilate_kernel(jnp.ones((3, 3, 1, 1)), dilation=2)
    assert np.count_nonzero(dilated) == 9
    assert dilated.shape[:2] == (5, 5)
    assert jaxdil.receptive_field([(3, 1, 1), (3, 1, 2)])[-1].size == 7  # the shaded square


def growth_and_size_have_conditions(erratum):
    x, w = jnp.ones((1, 10, 1)), jnp.ones((3, 1, 1))
    sizes = {name: tf.conv1d(x, w, 1, name, dilations=2).shape[1] for name in ("valid", "same")}
    assert sizes == {
        "valid": erratum["evidence"]["valid_len_10_k3_r2"],
        "same": erratum["evidence"]["same_len_10_k3_r2"],
    }
    growing = jaxdil.receptive_field([(3, 1, 2**i) for i in range(8)])
    assert [field.size for field in growing] == [2 ** (i + 2) - 1 for i in range(8)]
    constant = jaxdil.receptive_field([(3, 1, 4)] * 8)
    assert [field.size for field in constant] == [1 + depth * 2 * 4 for depth in range(1, 9)]


def samples_are_rate_apart(erratum):
    x, w = jnp.arange(13.0).reshape(1, 13, 1), jnp.ones((3, 1, 1))
    for rate in (1, 2, 4):
        seen = jax.grad(lambda x, r=rate: tf.conv1d(x, w, 1, "VALID", dilations=r)[0, 0, 0])(x)
        exactly(np.flatnonzero(seen), [0, rate, 2 * rate])


def sizes_and_fields_have_formulas(erratum):
    for n, k, lo, hi, rate, stride in [(12, 3, 1, 2, 2, 2), (9, 4, 0, 0, 1, 3), (7, 2, 3, 0, 4, 1)]:
        y = tf.conv1d(
            jnp.ones((1, n, 1)), jnp.ones((k, 1, 1)), stride, [[0, 0], [lo, hi], [0, 0]], None, rate
        )
        assert y.shape[1] == (n + lo + hi - (k - 1) * rate - 1) // stride + 1
    layers = [(7, 2, 1, 3), (3, 1, 4, 4), (2, 2, 3, 0), (5, 1, 1, 1)]
    size, jump, start = 1, 1, 0.0
    for (k, stride, rate, lo), field in zip(layers, jaxdil.receptive_field(layers), strict=True):
        k_eff = (k - 1) * rate + 1
        size, start, jump = (
            size + (k_eff - 1) * jump,
            start + ((k_eff - 1) / 2 - lo) * jump,
            jump * stride,
        )
        assert field == (size, jump, start)


PROSE = "no computation: a link or a bracket"
CHECKS = [
    shape_of_valid,
    padding_has_no_default,
    listing_has_three_rows,
    result_has_four_axes,
    rate_may_be_a_pair_and_padding_a_list,
    PROSE,  # the paper that a link leads to
    taps_are_rate_apart,
    output_belongs_to_four_rows,
    rate_is_called_dilations,
    explicit_padding_is_taken,
    stride_steps_inside_each_phase,
    others_give_the_uniform_answer,
    fourth_axis_is_a_multiplier,
    conv2d_has_no_cudnn_flag,
    kernel_gradient_exchanges_stride_and_dilation,
    every_rate_has_a_gradient,
    PROSE,  # two links exchanged
    pictures_show_a_stack,
    dots_are_taps,
    growth_and_size_have_conditions,
    samples_are_rate_apart,
    sizes_and_fields_have_formulas,
]


@pytest.mark.parametrize(
    ("check", "erratum"),
    [(c, e) for c, e in zip(CHECKS, ERRATA, strict=True) if c is not PROSE],
    ids=[c.__name__ for c in CHECKS if c is not PROSE],
)
def test_what_is_right_instead(check, erratum):
    check(erratum)


def test_there_are_22_errata_and_only_links_are_not_computed():
    assert len(ERRATA) == 22
    prose = [erratum["right"] for erratum, c in zip(ERRATA, CHECKS, strict=True) if c is PROSE]
    assert prose == ["1511.07122 is Yu & Koltun; FCN is 1411.4038", "links are swapped"]
