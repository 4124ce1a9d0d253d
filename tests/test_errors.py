"""Every refusal: its type, its words, and that it comes at the call, under jit too.

An error names the function and the argument, what came, what is needed and what to do instead.
"""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdil
from jaxdil import _primitive
from jaxdil._errors import MethodError

PACKAGE = Path(jaxdil.__file__).parent


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.fixture(autouse=True)
def nothing_is_bound(monkeypatch):
    """A call that is refused never reaches the convolution, let alone a compiler."""
    bound = []
    bind = _primitive.conv_p.bind
    monkeypatch.setattr(
        _primitive.conv_p, "bind", lambda *args, **params: bound.append(1) or bind(*args, **params)
    )
    return bound


def refused(fn, kind, *fragments, bound=()):
    """The call raises ``kind`` with these words in its message, eagerly and under jit."""
    messages = []
    for call in (fn, lambda: jax.eval_shape(jax.jit(fn))):
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        messages.append(str(caught.value))
    assert not bound
    for message in messages:
        for fragment in fragments:
            assert fragment in message, f"{fragment!r} is not in:\n{message}"
        assert not re.search(r"\s$", message)
    return messages[0]


# --- the functions, each called by the shapes of a convolution ------------------------------------


def conv(x, w, **options):
    return jaxdil.conv(ones(*x), ones(*w), **options)


def depthwise_conv(x, w, **options):
    return jaxdil.depthwise_conv(ones(*x), ones(*w), **options)


def separable_conv(x, w, **options):
    return jaxdil.separable_conv(ones(*x), ones(*w), ones(int(np.prod(w[-2:])), 3), **options)


def conv_transpose(x, w, **options):
    return jaxdil.conv_transpose(ones(*x), ones(*w).swapaxes(-1, -2), **options)


def conv_input_grad(x, w, **options):
    return jaxdil.conv_input_grad(ones(2, *x[1:-1], w[-1]), ones(*w), input_shape=x, **options)


def conv_kernel_grad(x, w, **options):
    return jaxdil.conv_kernel_grad(ones(*x), ones(2, *x[1:-1], w[-1]), kernel_shape=w, **options)


def conv_output_shape(x, w, **options):
    return jaxdil.conv_output_shape(x, w, **options)


def conv_transpose_output_shape(x, w, **options):
    return jaxdil.conv_transpose_output_shape(x, (*w[:-2], w[-1], w[-2]), **options)


FORWARD = (conv, depthwise_conv, separable_conv, conv_output_shape)
TRANSPOSED = (conv_transpose, conv_transpose_output_shape)
GRADIENTS = (conv_input_grad, conv_kernel_grad)
EVERY = (*FORWARD, *TRANSPOSED, *GRADIENTS)
GROUPED = tuple(f for f in EVERY if f not in (depthwise_conv, separable_conv))
ARRAYS = (conv, depthwise_conv, separable_conv, conv_transpose, *GRADIENTS)


def over(*functions):
    return pytest.mark.parametrize("fn", functions, ids=lambda fn: fn.__name__)


def shapes(fn):
    """x and w that fit, for every function alike."""
    return (2, 7, 6, 4), (3, 3, 4, 4)


# --- kernels that do not fit ----------------------------------------------------------------------


@over(*FORWARD, *GRADIENTS)
def test_kernel_larger_than_the_image(fn, nothing_is_bound):
    x, w = shapes(fn)
    refused(
        lambda: fn(x, w, padding="VALID", dilation=(1, 3)),
        ValueError,
        f"{fn.__name__}: the kernel does not fit into the input on spatial axis 1",
        "it spans 7 samples (3 taps at dilation 3), the input has 6 and with padding (0, 0) 6",
        "Pad more (padding='SAME' keeps the size)",
        bound=nothing_is_bound,
    )


@over(*FORWARD, *GRADIENTS)
def test_padding_that_crops_everything(fn, nothing_is_bound):
    x, w = shapes(fn)
    refused(
        lambda: fn(x, w, padding=[(-2, -3), (1, 1)]),
        ValueError,
        "the kernel does not fit into the input on spatial axis 0",
        "with padding (-2, -3) 2",
        bound=nothing_is_bound,
    )


@over(*FORWARD, *GRADIENTS)
def test_kernel_without_taps(fn, nothing_is_bound):
    x, (_, *w) = shapes(fn)
    refused(
        lambda: fn(x, (0, *w)),
        ValueError,
        "w must have at least one tap an axis, got a kernel of (0, 3)",
        bound=nothing_is_bound,
    )


@over(*TRANSPOSED)
def test_transposed_kernel_without_taps(fn, nothing_is_bound):
    x, (_, *w) = shapes(fn)
    refused(lambda: fn(x, (0, *w)), ValueError, "at least one tap", bound=nothing_is_bound)


@over(*TRANSPOSED)
def test_transposed_padding_that_crops_everything(fn, nothing_is_bound):
    x, w = shapes(fn)
    refused(
        lambda: fn(x, w, padding=[(1, 1), (5, 3)]),
        ValueError,
        f"{fn.__name__}: nothing is left of the output on spatial axis 1",
        "padding (5, 3) crops all of 8 samples",
        "Crop less.",
        bound=nothing_is_bound,
    )


# --- stride, dilation and other integers ----------------------------------------------------------


@over(*EVERY)
@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [0, -1, (1, 0)], ids=str)
def test_integers_below_one(fn, name, value, nothing_is_bound):
    named = f"{name}[1]" if isinstance(value, tuple) else name
    got = value[-1] if isinstance(value, tuple) else value
    refused(
        lambda: fn(*shapes(fn), **{name: value}),
        ValueError,
        f"{fn.__name__}: {named} must be >= 1, got {got}",
        bound=nothing_is_bound,
    )


@over(*EVERY)
@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [1.5, 2.0, "2", True, None, np.float32(2), (1, 2.0)], ids=repr)
def test_what_is_not_an_integer(fn, name, value, nothing_is_bound):
    item = value[-1] if isinstance(value, tuple) else value
    refused(
        lambda: fn(*shapes(fn), **{name: value}),
        TypeError,
        f"{fn.__name__}: {name}",
        f"must be an integer, got {item!r} of type {type(item).__name__}",
        "A fraction is never rounded; pass int(...) if that is meant.",
        bound=nothing_is_bound,
    )


@over(*EVERY)
@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [(1,), (1, 2, 1), ()], ids=str)
def test_integers_of_a_wrong_number(fn, name, value, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), **{name: value}),
        ValueError,
        f"{fn.__name__}: {name} must be an integer or 2 of them (one a spatial axis), "
        f"got {len(value)}: {value!r}",
        bound=nothing_is_bound,
    )


@over(conv, conv_output_shape, *GRADIENTS)
def test_input_dilation(fn, nothing_is_bound):
    x, w = shapes(fn)
    where = f"{fn.__name__}: input_dilation"
    for value, kind, words in (
        (0, ValueError, f"{where} must be >= 1, got 0"),
        (1.5, TypeError, f"{where} must be an integer, got 1.5 of type float"),
        ((2,), ValueError, f"{where} must be an integer or 2 of them"),
    ):
        refused(lambda v=value: fn(x, w, input_dilation=v), kind, words, bound=nothing_is_bound)


# --- channels -------------------------------------------------------------------------------------


@over(conv, conv_output_shape, *GRADIENTS)
def test_channels_that_do_not_match(fn, nothing_is_bound):
    x, w = (2, 7, 6, 4), (3, 3, 3, 4)
    refused(
        lambda: fn(x, w),
        ValueError,
        f"{fn.__name__}: x has 4 channels, but w with 3 input channels and groups=1 takes 3",
        "The input channels of w must be the channels of x divided by groups.",
        bound=nothing_is_bound,
    )
    refused(
        lambda: fn(x, (3, 3, 2, 4)),
        ValueError,
        f"{fn.__name__}: x has 4 channels, but w with 2 input channels and groups=1 takes 2",
        "Pass groups=2.",
        bound=nothing_is_bound,
    )


@over(*TRANSPOSED)
def test_channels_that_do_not_match_transposed(fn, nothing_is_bound):
    refused(
        lambda: fn((2, 7, 6, 4), (3, 3, 3, 5)),
        ValueError,
        f"{fn.__name__}: w must be (*K, O / groups, C)",
        "C = 4",
        "the channels of x, got (3, 3, 5, 3)",
        "It is the kernel of the convolution which this transposes",
        bound=nothing_is_bound,
    )


@over(depthwise_conv, separable_conv)
def test_channels_of_a_depthwise_kernel(fn, nothing_is_bound):
    x = (2, 7, 6, 4)
    refused(
        lambda: fn(x, (3, 3, 1, 8)),
        ValueError,
        f"{fn.__name__}: w must be (*K, C, M)",
        "C = 4",
        "the channels of x, got (3, 3, 1, 8)",
        "x has shape (2, 7, 6, 4); M is the channel multiplier.",
        "w is in lax's order (*K, 1, C * M): reshape it to (*K, C, M).",
        bound=nothing_is_bound,
    )
    refused(
        lambda: fn(x, (3, 3, 3, 2)),
        ValueError,
        "the channels of x, got (3, 3, 3, 2)",
        "For a dense kernel (*K, I, O) call jaxdil.conv.",
        bound=nothing_is_bound,
    )


@over(conv, conv_output_shape, *GRADIENTS)
def test_groups_that_do_not_divide_the_outputs(fn, nothing_is_bound):
    refused(
        lambda: fn((2, 7, 6, 4), (3, 3, 2, 5), groups=2),
        ValueError,
        f"{fn.__name__}: groups must divide the",
        "5 ",
        "output channels of w, got groups=2",
        bound=nothing_is_bound,
    )


@over(*TRANSPOSED)
def test_groups_that_do_not_divide_the_channels_transposed(fn, nothing_is_bound):
    refused(
        lambda: fn((2, 7, 6, 4), (3, 3, 4, 2), groups=3),
        ValueError,
        f"{fn.__name__}: groups must divide",
        bound=nothing_is_bound,
    )


@over(*GROUPED)
@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (0, ValueError, "groups must be >= 1, got 0"),
        (-2, ValueError, "groups must be >= 1, got -2"),
        (2.0, TypeError, "groups must be an integer, got 2.0 of type float"),
        (True, TypeError, "groups must be an integer, got True of type bool"),
        ((2, 2), TypeError, "groups must be an integer, got (2, 2) of type tuple"),
    ],
)
def test_groups(fn, value, kind, words, nothing_is_bound):
    x, w = shapes(fn)
    refused(lambda: fn(x, w, groups=value), kind, f"{fn.__name__}: {words}", bound=nothing_is_bound)


# --- ranks ----------------------------------------------------------------------------------------


@over(*EVERY)
@pytest.mark.parametrize("extra", [1, -2], ids=["one too many", "two too few"])
def test_a_wrong_number_of_axes(fn, extra, nothing_is_bound):
    x = (2, 2, 7, 6, 4) if extra == 1 else (6, 4)
    name = "input_shape" if fn is conv_input_grad else "x"
    refused(
        lambda: fn(x, (3, 3, 4, 4)),
        ValueError,
        f"{fn.__name__}: {name} must have 4 axes (NHWC), or 3 without a batch, got shape {x}",
        "so 2 of the axes of",
        bound=nothing_is_bound,
    )


@over(*EVERY)
def test_a_kernel_of_a_lower_rank(fn, nothing_is_bound):
    """A 1-D kernel does not silently run along one axis of an image."""
    refused(
        lambda: fn((2, 7, 6, 4), (3, 4, 4)),
        ValueError,
        "must have 3 axes (NWC), or 2 without a batch, got shape (2, 7, 6, 4)",
        "name the layout: data_format='NWC'.",
        bound=nothing_is_bound,
    )


@over(*EVERY)
def test_a_kernel_that_does_not_have_the_rank_of_the_letters(fn, nothing_is_bound):
    refused(
        lambda: fn((2, 7, 6, 4), (3, 4, 4), data_format="NHWC"),
        ValueError,
        f"{fn.__name__}: w must be (*K, I, O) with 2 spatial axes, as data_format='NHWC' says, "
        "so 4 axes, got shape (3, 4, 4)",
        bound=nothing_is_bound,
    )


def test_a_kernel_without_channels(nothing_is_bound):
    for call in (
        lambda: jaxdil.conv(ones(1, 5, 2), ones(3)),
        lambda: jaxdil.conv_transpose(ones(1, 5, 2), ones(3)),
        lambda: jaxdil.depthwise_conv(ones(1, 5, 2), ones(3)),
        lambda: jaxdil.dilate_kernel(ones(3), dilation=2),
        lambda: jaxdil.conv_output_shape((1, 5, 2), (3,)),
    ):
        refused(
            call,
            ValueError,
            "w must be (*K, I, O), with at least 2 axes, got shape (3,)",
            bound=nothing_is_bound,
        )


# --- padding --------------------------------------------------------------------------------------


@over(*EVERY)
@pytest.mark.parametrize("padding", ["SOME", "", ["SAME", "CIRCULAR"]], ids=str)
def test_a_name_that_is_no_padding(fn, padding, nothing_is_bound):
    name = padding if isinstance(padding, str) else padding[1]
    refused(
        lambda: fn(*shapes(fn), padding=padding),
        ValueError,
        f"{fn.__name__}: padding must be one of 'VALID', 'SAME', 'SAME_LOWER', 'CAUSAL', "
        f"'REVERSE_CAUSAL', 'FULL', "
        f"got {name!r}",
        "Or pass an int",
        "a pair (before, after)",
        bound=nothing_is_bound,
    )


@over(*EVERY)
@pytest.mark.parametrize("padding", [(1,), [(1, 1)], ("SAME",) * 3, []], ids=str)
def test_padding_of_a_wrong_number_of_axes(fn, padding, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), padding=padding),
        ValueError,
        f"{fn.__name__}: padding must have one entry a spatial axis, 2 in all, got {padding!r}",
        "An entry is an int, a pair (before, after) or a name.",
        bound=nothing_is_bound,
    )


def test_a_pair_for_the_only_axis(nothing_is_bound):
    """(1, 2) of one axis is the commonest slip; the message writes it right."""
    refused(
        lambda: jaxdil.conv(ones(1, 7, 2), ones(3, 2, 2), padding=(1, 2)),
        ValueError,
        "padding must have one entry a spatial axis, 1 in all, got (1, 2)",
        "For one axis write [(1, 2)].",
        bound=nothing_is_bound,
    )


@over(*EVERY)
@pytest.mark.parametrize("entry", [(1, 1, 1), (1,)], ids=str)
def test_an_entry_that_is_no_pair(fn, entry, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), padding=[(1, 1), entry]),
        ValueError,
        f"{fn.__name__}: padding of an axis must be a pair (before, after), got {entry!r}",
        bound=nothing_is_bound,
    )


@over(*EVERY)
@pytest.mark.parametrize("padding", [1.5, None, [(1, 1.0), (0, 0)], True], ids=repr)
def test_padding_that_is_not_an_integer(fn, padding, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), padding=padding),
        TypeError,
        f"{fn.__name__}: padding must be an integer, got",
        bound=nothing_is_bound,
    )


@over(*EVERY)
@pytest.mark.parametrize(
    ("padding", "words"),
    [
        ({"X": 1, "W": 1}, "got 'X' in {'X': 1, 'W': 1}"),
        ({"H": 1, "W": 1, 0: 1}, "got 0 in"),
        ({"H": 1, 2: 1}, "got 2 in"),
        ({-1: 1, 0: 1}, "got -1 in"),
        ({"HW": 1}, "got 'HW' in"),
    ],
    ids=str,
)
def test_padding_of_an_axis_that_is_none(fn, padding, words, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), padding=padding),
        ValueError,
        f"{fn.__name__}: padding names each spatial axis once, by one of the letters 'HW' or a "
        f"number from 0 to 1, {words}",
        "Letters are those of data_format, or W, HW and DHW if it has none.",
        bound=nothing_is_bound,
    )


@over(*EVERY)
def test_padding_that_leaves_an_axis_out(fn, nothing_is_bound):
    for padding, missing in (({"H": "CAUSAL"}, "'W'"), ({"W": 1}, "'H'"), ({}, "'H'")):
        refused(
            lambda p=padding: fn(*shapes(fn), padding=p),
            ValueError,
            f"{fn.__name__}: padding has no entry for the axis {missing}, got {padding!r}",
            "Write 'VALID' for an axis without padding.",
            bound=nothing_is_bound,
        )


def test_axes_without_letters(nothing_is_bound):
    shapes = (1, 4, 4, 4, 4, 1), (2, 2, 2, 2, 1, 1)
    for padding, words in (
        ({"W": 1}, "each spatial axis once, by a number from 0 to 3, got 'W'"),
        ({0: 1, 1: 1, 2: 1}, "padding has no entry for the axis 3"),
        ({0.0: 1}, "an axis of padding must be an integer, got 0.0 of type float"),
    ):
        refused(
            lambda p=padding: conv(*shapes, padding=p),
            TypeError if "integer" in words else ValueError,
            words,
            bound=nothing_is_bound,
        )


@over(*EVERY)
@pytest.mark.parametrize("first", [True, False])
def test_padding_of_batch_or_channels(fn, first, nothing_is_bound):
    """A pair for every axis, TensorFlow's form, cannot pad those."""
    padding = [(0, 1), (1, 1), (1, 1), (0, 0)] if first else ((0, 0), (1, 1), (1, 1), (1, 0))
    name = "batch, which is axis 0" if first else "channels, which is axis 3"
    refused(
        lambda: fn(*shapes(fn), padding=padding),
        ValueError,
        f"{fn.__name__}: padding with a pair for every axis of x has (0, 0) for the {name}, "
        f"got {padding!r}",
        "For the 2 spatial axes alone, write 2 pairs.",
        bound=nothing_is_bound,
    )


@over(*EVERY)
def test_a_function_that_makes_no_padding(fn, nothing_is_bound):
    for made, kind, words in (
        (None, TypeError, "padding must be an integer, got None"),
        ((1,), ValueError, "padding of an axis must be a pair (before, after), got (1,)"),
        ("SOME", ValueError, "padding must be one of 'VALID'"),
    ):
        refused(
            lambda m=made: fn(*shapes(fn), padding=lambda k: m),
            kind,
            f"{fn.__name__}: {words}",
            bound=nothing_is_bound,
        )


@over(*FORWARD, *TRANSPOSED)
@pytest.mark.parametrize(
    ("name", "mode"), [("circular", "circular"), ("WRAP", "circular"), ("edge", "replicate")]
)
def test_a_mode_in_place_of_an_amount(fn, name, mode, nothing_is_bound):
    """Flax writes padding="CIRCULAR"; here that says how much and something else says of what."""
    refused(
        lambda: fn(*shapes(fn), padding=name),
        ValueError,
        f"got {name!r}",
        f"What the padding holds is another argument: padding_mode={mode!r}.",
        bound=nothing_is_bound,
    )


# --- what the padding holds -----------------------------------------------------------------------

MODAL = (conv, depthwise_conv, separable_conv, conv_transpose)


@over(*MODAL)
@pytest.mark.parametrize("mode", ["wrap", "SAME", None, 0], ids=repr)
def test_a_mode_that_is_none(fn, mode, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), padding_mode=mode),
        ValueError,
        f"{fn.__name__}: padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', "
        f"got {mode!r}",
        "how much there is of it is said by padding.",
        bound=nothing_is_bound,
    )


@over(*MODAL)
def test_a_reflection_of_more_than_there_is(fn, nothing_is_bound):
    x, w = shapes(fn)
    # A transposed convolution mirrors back into its output, which is to have 6 samples too.
    x, pads = ((2, 7, 12, 4), [(1, 1), (2, 6)]) if fn is conv_transpose else (x, [(0, 0), (1, 6)])
    refused(
        lambda: fn(x, w, padding=pads, padding_mode="reflect"),
        ValueError,
        f"{fn.__name__}: padding_mode='reflect' has 5 samples to mirror on spatial axis 1 of 6, "
        f"got padding {pads[1]}",
        "Pad less there, or take 'replicate' or 'circular', which go on for ever.",
        bound=nothing_is_bound,
    )


@over(conv, depthwise_conv, separable_conv)
def test_an_empty_axis_has_nothing_to_repeat(fn, nothing_is_bound):
    refused(
        lambda: fn((1, 7, 0, 4), (3, 3, 4, 4), padding_mode="circular"),
        ValueError,
        f"{fn.__name__}: padding_mode='circular' repeats samples, and spatial axis 1 has none",
        "Padding (1, 1) can hold zeros there.",
        bound=nothing_is_bound,
    )


def test_a_mode_with_zeros_between_the_samples(nothing_is_bound):
    refused(
        lambda: conv((1, 7, 6, 4), (3, 3, 4, 4), padding_mode="replicate", input_dilation=(1, 2)),
        ValueError,
        "conv: padding_mode='replicate' continues the samples of x, and input_dilation=(1, 2) puts "
        "zeros between them: it could mean two things",
        "Pad x first, or call jaxdil.conv_transpose.",
        bound=nothing_is_bound,
    )


# --- bias, mask, sharding -------------------------------------------------------------------------

OUTPUTS = {conv: 4, depthwise_conv: 16, separable_conv: 3, conv_transpose: 4}


@over(*OUTPUTS)
def test_bias(fn, nothing_is_bound):
    channels, where = OUTPUTS[fn], f"{fn.__name__}: "
    need = f"bias must have shape ({channels},), one entry an output channel, got "
    for bias, kind, words in (
        ([0.0] * channels, TypeError, "bias must be an array, got list"),
        (ones(channels + 1), ValueError, f"{need}({channels + 1},)"),
        (ones(1, channels), ValueError, f"{need}(1, {channels})"),
        (
            ones(channels, dtype=np.float64),
            TypeError,
            "bias must have the dtype of x, float32, got float64\n  Nothing is promoted silently",
        ),
    ):
        refused(lambda b=bias: fn(*shapes(fn), bias=b), kind, where + words, bound=nothing_is_bound)
    refused(
        lambda: fn(*shapes(fn), bias=ones(channels, dtype=int), preferred_element_type=np.float64),
        TypeError,
        "bias must have the dtype of x, float32 or the result's, float64, got int64",
        bound=nothing_is_bound,
    )


@over(conv, depthwise_conv, conv_transpose)
def test_mask(fn, nothing_is_bound):
    for mask, kind, words in (
        ([1], TypeError, "mask must be an array, got list"),
        (ones(3, 3), ValueError, "mask must have the shape of w, (3, 3, 4, 4), got (3, 3)"),
        (
            ones(3, 3, 4, 4, dtype=np.int32),
            TypeError,
            "mask must be boolean or have the dtype of w, float32, got int32",
        ),
    ):
        refused(
            lambda m=mask: fn(*shapes(fn), mask=m),
            kind,
            f"{fn.__name__}: {words}",
            bound=nothing_is_bound,
        )


@over(*MODAL)
def test_a_sharding_of_a_result_that_is_reshaped(fn, nothing_is_bound):
    spec = jax.sharding.PartitionSpec("d")
    for x, count in (((7, 6, 4), 0), ((2, 2, 7, 6, 4), 2)):
        refused(
            lambda x=x: fn(x, (3, 3, 4, 4), data_format="NHWC", out_sharding=spec),
            ValueError,
            f"{fn.__name__}: out_sharding is for x with one batch axis, got {count} of them",
            "Reshape x to one batch axis first.",
            bound=nothing_is_bound,
        )


# --- layout ---------------------------------------------------------------------------------------


@over(*EVERY)
@pytest.mark.parametrize("data_format", ["HWNC", "NHW", "NC", "N2WC", "channel_first", "NHCW", ""])
def test_letters_that_are_no_layout(fn, data_format, nothing_is_bound):
    # "NC" is a layout, of no spatial axis.
    words = (
        "with 0 spatial axes" if data_format == "NC" else "data_format must be 'channels_last', "
    )
    refused(
        lambda: fn(*shapes(fn), data_format=data_format),
        ValueError,
        fn.__name__,
        words,
        repr(data_format),
        bound=nothing_is_bound,
    )


@over(*EVERY)
@pytest.mark.parametrize("data_format", [3, ["N", "C"], b"NHWC"], ids=repr)
def test_a_layout_that_is_no_string(fn, data_format, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), data_format=data_format),
        TypeError,
        f"{fn.__name__}: data_format must be a string or dimension numbers, got {data_format!r}",
        bound=nothing_is_bound,
    )


@over(conv, conv_output_shape)
def test_dimension_numbers(fn, nothing_is_bound):
    numbers = ("NHWC", "HWIO", "NHWC")
    refused(
        lambda: fn((7, 6, 4), (3, 3, 4, 4), data_format=numbers),
        ValueError,
        f"{fn.__name__}: x and w must have the same number of axes under explicit dimension "
        "numbers, got shapes (7, 6, 4) and (3, 3, 4, 4)",
        bound=nothing_is_bound,
    )
    for numbers in (("NHWC", "HWIO"), ("NHWC", "HWIO", "NHW"), ("NHWC", "HWXO", "NHWC")):
        refused(
            lambda n=numbers: fn((2, 7, 6, 4), (3, 3, 4, 4), data_format=n),
            ValueError,
            f"{fn.__name__}: data_format {numbers!r} is not usable: ",
            bound=nothing_is_bound,
        )


@over(depthwise_conv, separable_conv, *TRANSPOSED, *GRADIENTS)
def test_dimension_numbers_where_they_are_not_taken(fn, nothing_is_bound):
    numbers = ("NHWC", "HWIO", "NHWC")
    refused(
        lambda: fn(*shapes(fn), data_format=numbers),
        ValueError,
        f"{fn.__name__}: data_format must be a name or letters, got {numbers!r}",
        bound=nothing_is_bound,
    )


# --- arrays ---------------------------------------------------------------------------------------

X, W = ones(2, 7, 6, 4), ones(3, 3, 4, 4)
CALLS = {
    "conv": (jaxdil.conv, "x", "w"),
    "depthwise_conv": (jaxdil.depthwise_conv, "x", "w"),
    "separable_conv": (
        lambda x, w: jaxdil.separable_conv(x, w, ones(16, 3)),
        "x",
        "depthwise_w",
    ),
    "conv_transpose": (jaxdil.conv_transpose, "x", "w"),
    "conv_input_grad": (lambda x, w: jaxdil.conv_input_grad(x, w, input_shape=X.shape), "g", "w"),
    "conv_kernel_grad": (
        lambda x, w: jaxdil.conv_kernel_grad(w, x, kernel_shape=W.shape),
        "g",
        "x",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_an_array(name, nothing_is_bound):
    call, first, second = CALLS[name]
    for value, kind in (([[1.0]], "list"), (1.0, "float"), (None, "NoneType"), ("x", "str")):
        refused(
            lambda v=value: call(v, W),
            TypeError,
            f"{name}: {first} must be an array, got {kind}",
            f"Pass jnp.asarray({first}).",
            bound=nothing_is_bound,
        )
        refused(
            lambda v=value: call(X, v),
            TypeError,
            f"{name}: {second} must be an array, got {kind}",
            bound=nothing_is_bound,
        )


@pytest.mark.parametrize("name", CALLS)
def test_arrays_that_hold_no_numbers(name, nothing_is_bound):
    call, first, _ = CALLS[name]
    refused(
        lambda: call(X.astype(bool), W),
        TypeError,
        f"{name}: {first} must hold numbers, got dtype bool",
        bound=nothing_is_bound,
    )


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int32"])
def test_two_dtypes(name, dtype, nothing_is_bound):
    call, first, second = CALLS[name]
    message = refused(
        lambda: call(X, W.astype(jnp.dtype(dtype))),
        TypeError,
        f"{name}: ",
        "must have one dtype, got ",
        f"{first} float32",
        f"{second} {dtype}",
        "Nothing is promoted silently; cast one with .astype(...).",
        bound=nothing_is_bound,
    )
    assert first in message.splitlines()[0].split(" must")[0]


def test_the_pointwise_kernel(nothing_is_bound):
    x, w = ones(2, 7, 6, 4), ones(3, 3, 4, 2)
    for shape in ((3, 3, 8, 5), (1, 8, 5), (8,), (4, 5), (1, 1, 4, 5), (1, 1, 1, 8, 5)):
        refused(
            lambda s=shape: jaxdil.separable_conv(x, w, ones(*s)),
            ValueError,
            f"separable_conv: pointwise_w must be (1, 1, 8, O) or (8, O), got {shape}",
            "depthwise_w (3, 3, 4, 2) makes 8 channels (C * M) for it to mix.",
            bound=nothing_is_bound,
        )
    refused(
        lambda: jaxdil.separable_conv(x, w, ones(8, 5, dtype=np.float64)),
        TypeError,
        "x and depthwise_w and pointwise_w must have one dtype",
        bound=nothing_is_bound,
    )


# --- transposed convolutions ----------------------------------------------------------------------


@over(*TRANSPOSED)
def test_conventions(fn, nothing_is_bound):
    for value in ("tf", "LAX", None):
        refused(
            lambda v=value: fn(*shapes(fn), convention=v),
            ValueError,
            f"{fn.__name__}: convention must be 'minimal' or 'lax', got {value!r}",
            bound=nothing_is_bound,
        )


@over(*TRANSPOSED)
def test_causal_could_mean_two_things(fn, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), padding="causal", stride=2, dilation=3),
        ValueError,
        f"{fn.__name__}: padding='CAUSAL' could mean two things for a transposed convolution",
        "No output ahead of its input: padding=(0, 5)",
        "The adjoint of such a convolution: padding=(6, 0).",
        bound=nothing_is_bound,
    )
    refused(
        lambda: fn(*shapes(fn), padding=["SAME", "reverse_causal"], stride=2, dilation=3),
        ValueError,
        f"{fn.__name__}: padding='REVERSE_CAUSAL' could mean two things",
        "No output behind its input: padding=(5, 0)",
        "The adjoint of such a convolution: padding=(0, 6).",
        bound=nothing_is_bound,
    )


@over(*TRANSPOSED)
def test_output_padding(fn, nothing_is_bound):
    x, w = shapes(fn)
    where = fn.__name__
    below = f"{where}: output_padding must be below max(stride, dilation) = 2"
    for options, words in (
        ({"output_padding": 2, "stride": 2, "padding": 0}, f"{below}, and 0 under 'SAME', got 2"),
        ({"output_padding": 1, "stride": 2}, "and 0 under 'SAME', got 1 with padding 'SAME'"),
        ({"output_padding": -1}, f"{where}: output_padding must be >= 0, got -1"),
        ({"output_padding": (1,)}, f"{where}: output_padding must be an integer or 2 of them"),
        (
            {"output_padding": 1, "stride": 2, "padding": "VALID", "output_shape": (16, 14)},
            f"{where}: output_padding and output_shape exclude each other",
        ),
    ):
        refused(lambda o=options: fn(x, w, **o), ValueError, words, bound=nothing_is_bound)
    refused(
        lambda: fn(x, w, output_padding=0.5),
        TypeError,
        f"{where}: output_padding must be an integer, got 0.5",
        bound=nothing_is_bound,
    )


@over(*TRANSPOSED)
@pytest.mark.parametrize(
    ("padding", "least", "most"), [("SAME", 13, 14), ("VALID", 15, 16), (1, 13, 14)]
)
def test_output_shape(fn, padding, least, most, nothing_is_bound):
    x, w = shapes(fn)
    width = {"SAME": 12, "VALID": 13, 1: 11}[padding]
    for wanted in (least - 1, most + 1):
        refused(
            lambda n=wanted: fn(x, w, stride=2, padding=padding, output_shape=(n, width)),
            ValueError,
            f"{fn.__name__}: output_shape must be {least} to {most} on spatial axis 0",
            f"got {wanted}",
            f"Those are the sizes from which a convolution at stride 2 with padding {padding!r} "
            "makes the 7 samples of x.",
            bound=nothing_is_bound,
        )
    for wanted in (least, most):
        fn(x, w, stride=2, padding=padding, output_shape=(wanted, width))
    nothing_is_bound.clear()
    refused(
        lambda: fn(x, w, stride=2, output_shape=(2, 14, 12, 4)),
        ValueError,
        f"{fn.__name__}: output_shape must be an integer or 2 of them",
        bound=nothing_is_bound,
    )


# --- gradients ------------------------------------------------------------------------------------


def test_a_cotangent_of_another_shape(nothing_is_bound):
    x, w = ones(2, 7, 6, 4), ones(3, 3, 4, 5)
    for shape in ((2, 7, 6, 4), (1, 7, 6, 5), (2, 6, 6, 5), (7, 6, 5), (2, 7, 6, 5, 1)):
        for call, where in (
            (
                lambda s=shape: jaxdil.conv_input_grad(ones(*s), w, input_shape=x.shape),
                "conv_input_grad",
            ),
            (
                lambda s=shape: jaxdil.conv_kernel_grad(x, ones(*s), kernel_shape=w.shape),
                "conv_kernel_grad",
            ),
        ):
            refused(
                call,
                ValueError,
                f"{where}: g must have the shape of the result of conv, (2, 7, 6, 5), got {shape}",
                "That is for an input of shape (2, 7, 6, 4)",
                bound=nothing_is_bound,
            )


# --- methods --------------------------------------------------------------------------------------


@over(*ARRAYS)
@pytest.mark.parametrize("method", ["fft", "", "auto or taps", "taps or auto or auto", "XLA"])
def test_an_unknown_method(fn, method, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), method=method),
        ValueError,
        f"{fn.__name__}: method must be 'auto' or one of 'xla', 'taps'",
        f"got {method!r}",
        "A name followed by ' or auto' takes that method where it can serve.",
        bound=nothing_is_bound,
    )


@over(*ARRAYS)
def test_a_method_that_is_no_string(fn, nothing_is_bound):
    refused(
        lambda: fn(*shapes(fn), method=None),
        TypeError,
        f"{fn.__name__}: method must be a string, got None",
        bound=nothing_is_bound,
    )


def test_an_unknown_method_of_the_general_function(nothing_is_bound):
    x, w = ones(2, 4, 7, 6), ones(4, 4, 3, 3)
    refused(
        lambda: jaxdil.conv_general_dilated(x, w, (1, 1), "SAME", method="fft"),
        ValueError,
        "conv_general_dilated: method must be 'auto' or one of",
        bound=nothing_is_bound,
    )


PINNED = {
    "taps": ({"input_dilation": 2}, "taps: the input is dilated"),
    "space_to_batch": ({"input_dilation": 2}, "space_to_batch: the input is dilated"),
    "phases": ({}, "phases: the input is not dilated, there is one phase only"),
    "correlate": ({"padding": 60}, "correlate: "),
}


@pytest.mark.parametrize("method", PINNED)
def test_a_pinned_method_that_cannot_serve(method):
    """At the call, with the reason of each method that cannot, and the names of those that can."""
    options, reason = PINNED[method]
    message = refused(
        lambda: conv((2, 7, 6, 4), (3, 3, 4, 4), method=method, **options),
        MethodError,
        f"method={method!r} cannot serve the convolution of x (2, 7, 6, 4) with w (3, 3, 4, 4)",
        reason,
        "Able: xla",
        f"Pass one of these, method='auto', or '{method} or auto'.",
    )
    able = re.search(r"Able: (.*?)\. ", message)[1].split(", ")
    reasons = [line.strip().partition(":")[0] for line in message.splitlines()[1:-1]]
    assert sorted(able + reasons) == sorted(jaxdil._methods.METHODS)
    assert issubclass(MethodError, NotImplementedError)


# --- shapes without arrays ------------------------------------------------------------------------


def test_effective_kernel_size():
    where = "effective_kernel_size: "
    for args, kwargs, kind, words in (
        ((0,), {}, ValueError, "kernel must be >= 1, got 0"),
        ((3,), {"dilation": 0}, ValueError, "dilation must be >= 1, got 0"),
        ((2.5,), {}, TypeError, "kernel must be an integer, got 2.5"),
        ((3,), {"dilation": "2"}, TypeError, "dilation must be an integer, got '2'"),
        (
            ((3, 3),),
            {"dilation": (1, 2, 3)},
            ValueError,
            "dilation must be an integer or 2 of them",
        ),
        (((3, 0),), {}, ValueError, "kernel[1] must be >= 1, got 0"),
    ):
        refused(lambda a=args, k=kwargs: jaxdil.effective_kernel_size(*a, **k), kind, where + words)


def test_dilate_kernel():
    where = "dilate_kernel: "
    w = ones(3, 3, 2, 2)
    for args, dilation, kind, words in (
        (w, 0, ValueError, "dilation must be >= 1, got 0"),
        (w, 1.5, TypeError, "dilation must be an integer, got 1.5"),
        (w, (1, 2, 3), ValueError, "dilation must be an integer or 2 of them"),
        ([1, 2], 2, TypeError, "w must be an array, got list"),
        (w.astype(bool), 2, TypeError, "w must hold numbers, got dtype bool"),
    ):
        refused(lambda a=args, d=dilation: jaxdil.dilate_kernel(a, dilation=d), kind, where + words)


def test_resolve_padding():
    where = "resolve_padding: "
    good = {"size": (7, 6), "kernel": (3, 3)}
    for padding, options, kind, words in (
        ("SOME", {}, ValueError, "padding must be one of"),
        ([1], {}, ValueError, "padding must have one entry a spatial axis, 2 in all"),
        (1.5, {}, TypeError, "padding must be an integer, got 1.5"),
        ("SAME", {"kernel": (3,)}, ValueError, "kernel must be an integer or 2 of them"),
        ("SAME", {"kernel": (3, 0)}, ValueError, "kernel[1] must be >= 1, got 0"),
        ("SAME", {"size": (7, -1)}, ValueError, "size[1] must be >= 0, got -1"),
        ("SAME", {"size": (7, 6.0)}, TypeError, "size[1] must be an integer, got 6.0"),
        ("SAME", {"stride": 0}, ValueError, "stride must be >= 1, got 0"),
        ("SAME", {"dilation": (2, 0)}, ValueError, "dilation[1] must be >= 1, got 0"),
        ("SAME", {"input_dilation": "2"}, TypeError, "input_dilation must be an integer, got '2'"),
    ):
        refused(
            lambda p=padding, o={**good, **options}: jaxdil.resolve_padding(p, **o),
            kind,
            where + words,
        )


# --- nothing in, nothing out: what is not refused -------------------------------------------------


def test_an_empty_batch_is_an_empty_batch():
    w = ones(3, 3, 4, 4)
    x = ones(0, 7, 6, 4)
    assert jaxdil.conv(x, w, padding="VALID").shape == (0, 5, 4, 4)
    assert jaxdil.depthwise_conv(x, w, stride=2).shape == (0, 4, 3, 16)
    assert jaxdil.separable_conv(x, w, ones(16, 3)).shape == (0, 7, 6, 3)
    assert jaxdil.conv_transpose(x, w, stride=2).shape == (0, 14, 12, 4)
    assert jaxdil.conv_input_grad(x, w, input_shape=x.shape).shape == x.shape
    dw = jaxdil.conv_kernel_grad(x, x, kernel_shape=w.shape)
    np.testing.assert_array_equal(dw, np.zeros(w.shape))


def test_an_empty_axis_stays_empty_under_same_and_is_refused_under_valid():
    x, w = ones(1, 0, 6, 4), ones(3, 3, 4, 4)
    assert jaxdil.conv(x, w).shape == (1, 0, 6, 4)
    assert jaxdil.conv(x, w, stride=2, padding="causal").shape == (1, 0, 3, 4)
    assert jaxdil.depthwise_conv(x, w, padding=["SAME_LOWER", "VALID"]).shape == (1, 0, 4, 16)
    assert jaxdil.conv_transpose(x, w).shape == (1, 0, 6, 4)
    assert jaxdil.conv_output_shape(x.shape, w.shape) == (1, 0, 6, 4)
    refused(
        lambda: jaxdil.conv(x, w, padding="VALID"),
        ValueError,
        "it spans 3 samples (3 taps at dilation 1), the input has 0 and with padding (0, 0) 0",
    )


def test_no_input_channels_give_zeros():
    y = jaxdil.conv(ones(1, 7, 6, 0), ones(3, 3, 0, 4))
    np.testing.assert_array_equal(y, np.zeros((1, 7, 6, 4)))
    refused(
        lambda: jaxdil.depthwise_conv(ones(1, 7, 6, 0), ones(3, 3, 0, 4)),
        ValueError,
        "depthwise_conv: ",
    )


# --- the whole ------------------------------------------------------------------------------------

MODULES = (
    "_arguments",
    "_padding",
    "_pad",
    "_bias",
    "_window",
    "_adjoint",
    "_conv",
    "_shapes",
    "_dispatch",
    "_primitive",
)


@pytest.mark.parametrize("module", MODULES)
def test_every_message_of_the_library_is_looked_for_here(module):
    """The first words of each `error(where, "...")` stand in this file or a neighbour's."""
    source = (PACKAGE / f"{module}.py").read_text()
    tests = Path(__file__).parent
    here = inspect.getsource(inspect.getmodule(ones))
    here += (tests / "test_primitive.py").read_text()
    # Messages and tests alike are joined over lines and split at what is filled in.
    plain = re.sub(r'["\']\s*\n\s*f?["\']', "", here)
    for call in re.finditer(r"error\(\s*where,\s*f?([\"'])(.*?)\1\s*[,)\n]", source, re.DOTALL):
        words = re.split(r"\{.*?\}", call[2])
        longest = max(words, key=len).strip(" ,")[:30]
        assert longest in plain, f"no test looks for {call[2]!r}"
