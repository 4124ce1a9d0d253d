"""TensorFlow's numbers for jaxdil.tf.

    python tests/tf_cases.py      # writes tests/data/tf.npz; needs tensorflow and numpy alone

Whatever TensorFlow can compute on a CPU; gradients too, where it has them there.
"""

import platform
import sys
import warnings

import numpy as np
import tf_window_cases
from peer import Case, Results, named, save

X1, X2, X3 = (2, 9, 4), (2, 8, 7, 4), (1, 4, 5, 6, 2)
W1, W2, W3 = (3, 4, 2), (3, 2, 4, 6), (2, 3, 1, 2, 3)
PAIRS = [[0, 0], [1, 2], [0, 3], [0, 0]]
DTYPES = ("bfloat16", "float64")


def convs():
    """atrous_conv2d, conv1d, conv2d, conv3d, convolution."""
    for padding, rate in [("SAME", 1), ("SAME", 2), ("VALID", (2, 3)), (PAIRS, 2)]:
        yield Case("atrous_conv2d", (X2, W2), {"rate": rate, "padding": padding})
    for options in [
        {"stride": 1, "padding": "VALID", "dilations": 3},
        {"stride": 2, "padding": "SAME"},
        {"stride": 3, "padding": "SAME", "dilations": 2},
    ]:
        yield Case("conv1d", (X1, W1), options)
    for options in [
        {"strides": 2, "padding": "SAME"},
        {"strides": [1, 2, 3, 1], "padding": "VALID", "dilations": [1, 2, 3, 1]},
        {"strides": [3, 2], "padding": "SAME", "dilations": 2},
        {"strides": 2, "padding": PAIRS},
    ]:
        yield Case("conv2d", (X2, W2), options)
    yield Case("conv2d", (X2, (3, 2, 2, 6)), {"strides": [2, 1], "padding": "SAME"})  # two groups
    yield Case("conv2d", ((2, 3, 6, 5, 2), (3, 3, 2, 2)), {"strides": 2, "padding": "SAME"})
    # TensorFlow has no gradient of this one on a CPU.
    dilated = {"strides": 2, "padding": PAIRS, "dilations": [2, 3]}
    yield Case("conv2d", (X2, W2), dilated, forward_only=True)
    for options in [
        {"strides": [1, 2, 1, 3, 1], "padding": "SAME"},
        {"strides": [1] * 5, "padding": "VALID"},
    ]:
        yield Case("conv3d", (X3, W3), options)
    yield Case("convolution", (X1, W1), {"padding": "SAME", "strides": 2})
    yield Case("convolution", (X2, W2), {"dilations": [2, 1]})
    yield Case("convolution", (X3, (2, 2, 2, 2, 2)), {"padding": "SAME", "dilations": [2, 1, 3]})
    for dtype in DTYPES:
        yield Case("conv2d", (X2, (2, 3, 4, 2)), {"strides": [2, 1], "padding": "SAME"}, dtype)
        yield Case("atrous_conv2d", (X2, (2, 3, 4, 2)), {"rate": 2, "padding": "SAME"}, dtype)


def depthwise():
    """depthwise_conv2d, separable_conv2d: with a stride and a rate, TensorFlow's own rule."""
    w, mix = (3, 2, 4, 2), (1, 1, 8, 3)
    for stride, rate, padding in [
        (1, (1, 1), "SAME"),
        (2, (1, 1), "VALID"),
        (1, (2, 3), "SAME"),
        (2, (2, 3), "SAME"),
        (3, (2, 2), "SAME"),
        (2, (3, 1), "VALID"),
        (2, (2, 3), PAIRS),
    ]:
        options = {"strides": [1, stride, stride, 1], "padding": padding, "dilations": rate}
        yield Case("depthwise_conv2d", (X2, w), options)
        if padding == "SAME":
            yield Case("separable_conv2d", (X2, w, mix), options)
    options = {"strides": [1, 2, 2, 1], "padding": "SAME", "dilations": [2, 2]}
    for dtype in DTYPES:
        yield Case("depthwise_conv2d", (X2, (2, 3, 4, 1)), options, dtype)


def transposes():
    """conv1d_transpose, conv2d_transpose, conv3d_transpose, atrous_conv2d_transpose."""
    for size, padding in [(9, "SAME"), (10, "SAME"), (11, "VALID"), (12, "VALID")]:
        options = {"output_shape": (2, size, 3), "strides": 2, "padding": padding}
        yield Case("conv1d_transpose", ((2, 5, 4), (3, 3, 4)), options)
    x, w = (2, 5, 4, 4), (3, 2, 3, 4)
    pairs = [[0, 0], [1, 1], [0, 0], [0, 0]]
    for shape, strides, padding in [
        ((2, 9, 12, 3), (2, 3), "SAME"),
        ((2, 12, 9, 3), 2, "VALID"),
        ((2, 9, 8, 3), 2, pairs),
        ((2, 5, 4, 3), 1, "SAME"),
    ]:
        options = {"output_shape": shape, "strides": strides, "padding": padding}
        yield Case("conv2d_transpose", (x, w), options)
    options = {"output_shape": (1, 6, 5, 2, 3), "strides": (2, 2, 1)}
    yield Case("conv3d_transpose", ((1, 3, 3, 2, 4), (3, 2, 1, 3, 4)), options)
    for shape, padding in [((2, 5, 4, 3), "SAME"), ((2, 9, 6, 3), "VALID")]:
        options = {"output_shape": shape, "rate": 2, "padding": padding}
        yield Case("atrous_conv2d_transpose", (x, w), options)
    for dtype in DTYPES:
        options = {"output_shape": (1, 6, 5, 2), "strides": 2}
        yield Case("conv2d_transpose", ((1, 3, 3, 2), (3, 3, 2, 2)), options, dtype)


def gradients():
    """conv2d_backprop_input and _filter, depthwise_conv2d_backprop_input and _filter."""
    for strides, padding in [([1, 2, 2, 1], "SAME"), ([1, 1, 1, 1], "VALID")]:
        options = {"strides": strides, "padding": padding}
        size = (4, 4) if padding == "SAME" else (6, 6)
        for name, w, channels in [("conv2d", W2, 6), ("depthwise_conv2d", (3, 2, 4, 2), 8)]:
            g = (2, *size, channels)
            yield Case(f"{name}_backprop_input", (w, g), {"input_sizes": X2, **options})
            yield Case(f"{name}_backprop_filter", (X2, g), {"filter_sizes": w, **options})


def depths():
    """conv_transpose, space_to_depth, depth_to_space, extract_patches."""
    options = {"output_shape": (2, 9, 8, 3), "strides": 2}
    yield Case("conv_transpose", ((2, 5, 4, 4), (3, 2, 3, 4)), options)
    yield Case("space_to_depth", ((2, 6, 4, 3),), {"block_size": 2})
    yield Case("depth_to_space", ((2, 3, 2, 12),), {"block_size": 2})
    for padding in ("SAME", "VALID"):
        options = {"sizes": [1, 3, 2, 1], "strides": [1, 2, 1, 1], "rates": [1, 2, 2, 1]}
        yield Case("extract_patches", ((2, 6, 4, 3),), {**options, "padding": padding})


def batches():
    """The functions between space and batch."""
    block = {"block_shape": [2, 3]}
    yield Case("space_to_batch_nd", ((2, 5, 5, 2),), {**block, "paddings": [[1, 0], [0, 1]]})
    yield Case("batch_to_space_nd", ((12, 3, 2, 2),), {**block, "crops": [[1, 0], [0, 1]]})
    options = {"input_shape": [5, 6], "block_shape": [2, 4], "base_paddings": [[1, 0], [0, 1]]}
    yield Case("required_space_to_batch_paddings", (), options, forward_only=True)
    # Two arrays: the input, and the kernel of the convolution that stands in the middle.
    for padding in ("SAME", "VALID"):
        options = {"dilation_rate": [2, 3], "padding": padding, "filter_shape": [3, 2]}
        yield Case("with_space_to_batch", ((1, 9, 8, 2), (3, 2, 2, 2)), options)


CASES = [
    *convs(),
    *depthwise(),
    *transposes(),
    *gradients(),
    *depths(),
    *batches(),
    *tf_window_cases.cases(),
]


def call(nn, case, arrays):
    """A case, run by a module that has the functions of tf.nn; ours is one."""
    if "_backprop_" in case.function:  # whose arrays do not come first
        first = "filter" if case.function.endswith("_input") else "input"
        keyed = dict(zip([first, "out_backprop"], arrays, strict=True))
        return getattr(nn, case.function)(**keyed, **case.options)
    if case.function != "with_space_to_batch":
        return getattr(nn, case.function)(*arrays, **case.options)
    x, w = arrays
    options = {**case.options, "op": lambda x, rank, padding: nn.conv2d(x, w, 1, padding)}
    return nn.with_space_to_batch(x, **options)


class Functions:
    """The functions of tf.nn, and those of their kind that TensorFlow keeps elsewhere."""

    def __init__(self, tf):
        self._places = tf.nn, tf, tf.image, tf.compat.v1, tf.compat.v1.nn

    def __getattr__(self, name):
        return next(getattr(place, name) for place in self._places if hasattr(place, name))


def run(case: Case) -> Results:
    """What TensorFlow makes of a case: its result, and the gradient of each array."""
    import tensorflow as tf

    arrays = [tf.cast(tf.constant(a), case.dtype) for a in case.arrays()]
    with warnings.catch_warnings(), tf.GradientTape() as tape:
        warnings.simplefilter("ignore")  # stride with rate, which is what we want to see
        tape.watch(arrays)
        made = call(Functions(tf), case, arrays)
    y, *more = made if isinstance(made, tuple) else (made,)
    grads = ()
    if case.differentiable:
        g = tf.cast(tf.constant(case.cotangent(tuple(y.shape))), case.dtype)
        grads = tape.gradient(y, arrays, g)
    results = named((y, more), grads)
    return {name: tf.cast(t, tf.float64).numpy() for name, t in results.items()}


if __name__ == "__main__":
    import tensorflow as tf

    versions = {"tensorflow": tf.__version__, "numpy": np.__version__}
    versions |= {"python": platform.python_version(), "machine": platform.machine()}
    save("tf", {str(case): run(case) for case in CASES}, versions)
    sys.stdout.write(f"{len(CASES)} cases\n")
