"""Weights: every way from library to library and back, and each layout in its library's own layer.

The layers run live, with parameters in the shapes that they make themselves, filled with small
integers, so that results are exact and must be equal. TensorFlow is represented by its twins, whose
numbers are proved elsewhere.
"""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxdil
from jaxdil import _kernels, weights
from jaxdil._kernels import LAYOUTS, LIBRARIES, UNGROUPED_TRANSPOSE

core = pytest.mark.core


def integers(shape):
    """Small ones, the same for a shape in every run."""
    return np.random.default_rng(shape).integers(-3, 4, shape).astype(np.float32)


# --- round trips ----------------------------------------------------------------------------------

# In jaxdil's own layout: no two axes alike, an even and an odd number of taps.
KERNELS = [
    ("conv", (4, 6), 2),
    ("depthwise_conv", (3, 2), 3),
    ("conv_transpose", (5, 4), 1),
    ("conv_transpose", (3, 4), 2),
    ("conv_transpose", (2, 4), 4),
    ("dense", (4, 6), None),
]


@core
@pytest.mark.parametrize(("kind", "channels", "groups"), KERNELS)
@pytest.mark.parametrize("taps", [(), (3,), (2, 3), (3, 1, 2)], ids=len)
def test_every_way_there_and_back(kind, channels, groups, taps):
    taps = () if kind == "dense" else taps
    ours = np.random.default_rng(0).permutation(math.prod(taps + channels)).reshape(taps + channels)
    grouped_transpose = kind == "conv_transpose" and groups > 1
    libraries = [n for n in LIBRARIES if not (grouped_transpose and n in UNGROUPED_TRANSPOSE)]
    options = {"kind": kind, "groups": groups}
    stored = {n: weights.convert(ours, source="jaxdil", target=n, **options) for n in libraries}
    for source, target in itertools.product(libraries, libraries):
        w = weights.convert(stored[source], source=source, target=target, **options)
        np.testing.assert_array_equal(w, stored[target], strict=True)
        assert w.base is None
        assert w.flags.c_contiguous
        assert not np.shares_memory(w, stored[source])
    assert len(libraries) >= 4


@core
def test_the_layouts_are_those_of_the_table():
    """One element followed by hand through every layout."""
    w = np.zeros((3, 5, 2, 4), np.int8)  # (*K, J, C), two groups: J = 2, C = 2 I
    w[0, 1, 1, 3] = 1  # taps 0 and 1 of output 1 of group 1, from input 1 of group 1
    options = {"source": "jaxdil", "kind": "conv_transpose", "groups": 2}
    assert np.argwhere(weights.convert(w, target="torch", **options)).tolist() == [[3, 1, 0, 1]]
    assert np.argwhere(weights.convert(w, target="lax", **options)).tolist() == [[2, 3, 1, 3]]
    assert np.argwhere(weights.convert(w, target="equinox", **options)).tolist() == [[3, 1, 2, 3]]
    w = np.zeros((3, 5, 2, 4), bool)  # (*K, C, M); any dtype goes
    w[0, 1, 1, 2] = True
    options = {"source": "tf", "kind": "depthwise_conv"}
    assert np.argwhere(weights.convert(w, target="haiku", **options)).tolist() == [[0, 1, 0, 6]]
    assert np.argwhere(weights.convert(w, target="torch", **options)).tolist() == [[6, 0, 0, 1]]


@core
def test_jax_arrays_stay_jax_arrays_under_jit():
    w = jnp.arange(2 * 3 * 5, dtype=jnp.float32).reshape(2, 3, 5)

    @jax.jit
    def there_and_back(w):
        options = {"kind": "conv_transpose", "groups": 2}
        there = weights.convert(w, source="torch", target="lax", **options)
        return there, weights.convert(there, source="lax", target="torch", **options)

    there, back = there_and_back(w)
    assert isinstance(there, jax.Array)
    assert there.shape == (5, 1, 6)
    assert (back == w).all()


@core
def test_half_precision_and_empty_kernels_go_too():
    w = np.ones((4, 0, 3), jnp.bfloat16)
    moved = weights.convert(w, source="torch", target="jaxdil")
    assert (moved.shape, moved.dtype) == ((3, 0, 4), w.dtype)
    empty = weights.convert(np.ones((3, 0, 2)), source="tf", target="lax", kind="depthwise_conv")
    assert empty.shape == (3, 1, 0)


# --- the layers of each library -------------------------------------------------------------------
# A function of this section makes a layer, fills it with integers and returns its parameters, as
# the library stores them, with its result for the input x (1, *S, C).


class Case:
    """A layer: its kind, and what every library needs to know to make it."""

    def __init__(self, kind, rank, *, groups=1, stride=2, dilation=2):
        self.kind, self.rank, self.groups = kind, rank, groups
        self.stride, self.dilation = stride, dilation
        self.taps = (3, 2)[:rank]
        self.c, self.o = 4, 6
        if kind in ("depthwise_conv", "separable_conv"):
            self.groups, self.o = self.c, 2 * self.c
        self.x = integers((1, *(11, 9)[:rank], self.c))

    def __repr__(self):
        return f"{self.kind}-{self.rank}d-{self.groups}"

    def ours(self, library, w, b, *, convention="lax"):
        """jaxdil's result with the parameters of a library."""
        convert = {"source": library, "target": "jaxdil"}
        kind = self.kind if self.kind != "separable_conv" else "depthwise_conv"
        options = {"stride": self.stride, "dilation": self.dilation, "padding": "VALID"}
        if self.kind == "separable_conv":
            w = weights.convert_separable(*w, channels=self.c, **convert)
        else:
            w = (weights.convert(w, kind=kind, groups=self.groups, **convert),)
        if self.kind in ("conv", "conv_transpose"):
            options["groups"] = self.groups
        if self.kind == "conv_transpose":
            options["convention"] = convention
        y = getattr(jaxdil, self.kind)(self.x, *w, **options)
        return np.asarray(y) + weights.convert_bias(b, **convert)


def torch_layer(case):
    torch = pytest.importorskip("torch")
    transposed = "Transpose" if case.kind == "conv_transpose" else ""
    layer = getattr(torch.nn, f"Conv{transposed}{case.rank}d")(
        case.c,
        case.o,
        case.taps,
        stride=case.stride,
        dilation=case.dilation,
        groups=case.groups,
    )
    w, b = (integers(tuple(p.shape)) for p in (layer.weight, layer.bias))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(w))
        layer.bias.copy_(torch.from_numpy(b))
        y = layer(torch.from_numpy(np.moveaxis(case.x, -1, 1).copy())).numpy()
    return w, b, np.moveaxis(y, 1, -1)


def keras_layer(case):
    keras = pytest.importorskip("keras")
    name = {
        "conv": f"Conv{case.rank}D",
        "depthwise_conv": f"DepthwiseConv{case.rank}D",
        "separable_conv": f"SeparableConv{case.rank}D",
        "conv_transpose": f"Conv{case.rank}DTranspose",
    }[case.kind]
    options = {"strides": case.stride, "dilation_rate": case.dilation}
    if case.kind != "depthwise_conv":
        options["filters"] = case.o
    if case.kind in ("depthwise_conv", "separable_conv"):
        options["depth_multiplier"] = 2
    if case.kind == "conv":
        options["groups"] = case.groups
    layer = getattr(keras.layers, name)(kernel_size=case.taps, **options)
    layer.build((None, *case.x.shape[1:]))
    parameters = [integers(tuple(p.shape)) for p in layer.weights]
    layer.set_weights(parameters)
    *w, b = parameters
    return w if len(w) > 1 else w[0], b, np.asarray(layer(case.x))


def flax_options(case):
    if case.kind == "conv_transpose":
        return {"strides": (case.stride,) * case.rank, "kernel_dilation": case.dilation}
    return {
        "strides": case.stride,
        "kernel_dilation": case.dilation,
        "feature_group_count": case.groups,
    }


def nnx_layer(case):
    nnx = pytest.importorskip("flax.nnx")
    make = nnx.ConvTranspose if case.kind == "conv_transpose" else nnx.Conv
    layer = make(case.c, case.o, case.taps, padding="VALID", rngs=nnx.Rngs(0), **flax_options(case))
    w, b = integers(layer.kernel.shape), integers(layer.bias.shape)
    layer.kernel, layer.bias = nnx.Param(jnp.asarray(w)), nnx.Param(jnp.asarray(b))
    return w, b, jax.jit(layer)(case.x)


def linen_layer(case):
    linen = pytest.importorskip("flax.linen")
    make = linen.ConvTranspose if case.kind == "conv_transpose" else linen.Conv
    layer = make(case.o, case.taps, padding="VALID", **flax_options(case))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), case.x)["params"]
    w, b = integers(shapes["kernel"].shape), integers(shapes["bias"].shape)
    return w, b, jax.jit(layer.apply)({"params": {"kernel": w, "bias": b}}, case.x)


def haiku_layer(case):
    hk = pytest.importorskip("haiku")
    options = {"stride": case.stride, "padding": "VALID"}

    def forward(x):
        if case.kind == "depthwise_conv":
            make = getattr(hk, f"DepthwiseConv{case.rank}D")
            return make(2, case.taps, rate=case.dilation, **options)(x)
        if case.kind == "conv":
            options.update(rate=case.dilation, feature_group_count=case.groups)
        make = hk.ConvNDTranspose if case.kind == "conv_transpose" else hk.ConvND
        return make(case.rank, case.o, case.taps, **options)(x)

    layer = hk.without_apply_rng(hk.transform(forward))
    ((name, shapes),) = jax.eval_shape(layer.init, jax.random.key(0), case.x).items()
    w, b = integers(shapes["w"].shape), integers(shapes["b"].shape)
    return w, b, jax.jit(layer.apply)({name: {"w": w, "b": b}}, case.x)


def equinox_layer(case):
    eqx = pytest.importorskip("equinox")
    make = eqx.nn.ConvTranspose if case.kind == "conv_transpose" else eqx.nn.Conv
    layer = make(
        case.rank,
        case.c,
        case.o,
        case.taps,
        stride=case.stride,
        dilation=case.dilation,
        groups=case.groups,
        key=jax.random.key(0),
    )
    w, b = integers(layer.weight.shape), integers(layer.bias.shape)
    layer = eqx.tree_at(lambda t: (t.weight, t.bias), layer, (jnp.asarray(w), jnp.asarray(b)))
    y = eqx.filter_jit(layer)(np.moveaxis(case.x[0], -1, 0))
    return w, b, np.moveaxis(np.asarray(y), 0, -1)[None]


def lax_layer(case):
    numbers = lax.conv_dimension_numbers(
        case.x.shape,
        (*case.taps, 1, 1),
        ("NWC", "WIO", "NWC") if case.rank == 1 else ("NHWC", "HWIO", "NHWC"),
    )
    strides, dilation = (case.stride,) * case.rank, (case.dilation,) * case.rank
    w, b = integers((*case.taps, case.c // case.groups, case.o)), integers(case.o)
    if case.kind == "conv_transpose" and case.groups == 1:
        y = lax.conv_transpose(case.x, w, strides, "VALID", dilation, numbers)
    elif case.kind == "conv_transpose":
        # What conv_transpose does, with the groups that it does not take.
        extents = [d * (k - 1) + 1 for k, d in zip(case.taps, dilation, strict=True)]
        pads = [(k - 1, k - 1 + max(case.stride - k, 0)) for k in extents]
        y = lax.conv_general_dilated(
            case.x, w, (1,) * case.rank, pads, strides, dilation, numbers, case.groups
        )
    else:
        y = lax.conv_general_dilated(
            case.x, w, strides, "VALID", None, dilation, numbers, case.groups
        )
    return w, b, np.asarray(y) + b


def tf_layer(case):
    nn = jaxdil.tf
    b = integers(case.o)
    if case.kind == "conv":
        w = integers((*case.taps, case.c // case.groups, case.o))
        call = nn.conv1d if case.rank == 1 else nn.conv2d
        y = call(case.x, w, case.stride, "VALID", dilations=case.dilation)
    elif case.kind == "conv_transpose":
        w = integers((*case.taps, case.o, case.c))
        call = nn.conv1d_transpose if case.rank == 1 else nn.conv2d_transpose
        sizes = [
            case.stride * (n - 1) + case.dilation * (k - 1) + 1
            for n, k in zip(case.x.shape[1:], case.taps, strict=False)
        ]
        shape = (1, *sizes, case.o)
        y = call(case.x, w, shape, case.stride, "VALID", dilations=case.dilation)
    else:
        w = integers((*case.taps, case.c, 2))
        dilations = (case.dilation,) * 2
        y = nn.depthwise_conv2d(case.x, w, (1, 1, 1, 1), "VALID", dilations=dilations)
    return w, b, np.asarray(y) + b


LAYERS = {
    "torch": torch_layer,
    "keras": keras_layer,
    "flax.nnx": nnx_layer,
    "flax.linen": linen_layer,
    "haiku": haiku_layer,
    "equinox": equinox_layer,
    "lax": lax_layer,
    "tf": tf_layer,
}


def cases():
    """Every layer that a library has, with stride and dilation together where it takes both."""
    kinds = [("conv", 2), ("depthwise_conv", 4), ("conv_transpose", 1), ("conv_transpose", 2)]
    for library, rank, (kind, groups) in itertools.product(LAYERS, (1, 2), kinds):
        options = {}
        if kind == "conv_transpose" and groups > 1 and library not in ("torch", "equinox", "lax"):
            continue
        if library == "tf" and kind == "depthwise_conv":
            if rank == 1:
                continue
            options = {"stride": 1}  # both together mean something else there
        if library == "keras":  # its layers refuse both together
            options = {"stride": 1} if rank == 1 else {"dilation": 1}
        if library == "haiku" and kind == "conv_transpose":
            options = {"dilation": 1}
        if (library == "lax" and kind == "depthwise_conv") or (library, rank) == ("flax.linen", 1):
            continue  # the same once more
        case = Case(kind, rank, groups=groups, **options)
        yield pytest.param(library, case, id=f"{library}-{case!r}")
    yield pytest.param("keras", Case("separable_conv", 1, stride=1), id="keras-separable-1d")
    yield pytest.param("keras", Case("separable_conv", 2, dilation=1), id="keras-separable-2d")


@pytest.mark.parametrize(("library", "case"), [*cases()])
def test_a_layer_and_our_function_agree_exactly(library, case, user_defaults):
    w, b, y = LAYERS[library](case)
    # torch, equinox and tf size a transposed convolution as small as it can be.
    convention = "minimal" if library in ("torch", "equinox", "tf") else "lax"
    ours = case.ours(library.partition(".")[0], w, b, convention=convention)
    np.testing.assert_array_equal(ours, y)


def test_transpose_kernel_of_lax_and_flax_is_the_order_of_tf(user_defaults):
    case = Case("conv_transpose", 2)
    w, b = integers((*case.taps, case.o, case.c)), integers(case.o)
    numbers = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_transpose(case.x, w, (2, 2), "VALID", (2, 2), numbers, transpose_kernel=True)
    np.testing.assert_array_equal(case.ours("tf", w, b), y + b)


# --- linear layers, flattened images --------------------------------------------------------------


def test_a_linear_layer_behind_a_flattened_image(user_defaults):
    torch = pytest.importorskip("torch")
    c, sizes = 2, (3, 4)
    x = integers((5, c, *sizes))
    w, b = integers((6, c * math.prod(sizes))), integers(6)
    y = torch.nn.functional.linear(*map(torch.from_numpy, (x.reshape(5, -1), w, b))).numpy()
    ours = weights.convert(w, source="torch", target="jaxdil", kind="dense")
    unordered = np.moveaxis(x, 1, -1).reshape(5, -1) @ ours + b
    assert not (unordered == y).all()
    ours = weights.reorder_channels(ours, axis=0, shape=(c, *sizes), source="CHW", target="HWC")
    np.testing.assert_array_equal(np.moveaxis(x, 1, -1).reshape(5, -1) @ ours + b, y)


def test_a_linear_layer_whose_outputs_become_an_image(user_defaults):
    eqx = pytest.importorskip("equinox")
    c, sizes = 3, (2, 4)
    layer = eqx.nn.Linear(5, c * math.prod(sizes), key=jax.random.key(0))
    x, w, b = integers(5), integers(layer.weight.shape), integers(layer.bias.shape)
    layer = eqx.tree_at(lambda t: (t.weight, t.bias), layer, (jnp.asarray(w), jnp.asarray(b)))
    image = np.moveaxis(layer(x).reshape(c, *sizes), 0, -1)
    order = {"axis": -1, "shape": (c, *sizes), "source": "CHW", "target": "HWC"}
    ours = weights.convert(w, source="equinox", target="keras", kind="dense")
    ours = weights.reorder_channels(ours, **order)
    bias = weights.reorder_channels(b, **order)
    np.testing.assert_array_equal((x @ ours + bias).reshape(*sizes, c), image)


@pytest.mark.parametrize("library", ["keras", "flax.nnx", "haiku"])
def test_the_matrix_of_a_linear_layer(library, user_defaults):
    """Those that agree with us; PyTorch and Equinox stand above."""
    module = pytest.importorskip(library)
    x, w, b = integers((2, 3)), integers((3, 4)), integers(4)
    if library == "keras":
        layer = module.layers.Dense(4)
        layer.build((None, 3))
        layer.set_weights([w, b])
        y = layer(x)
    elif library == "haiku":

        def forward(x):
            return module.Linear(4, name="linear")(x)

        layer = module.without_apply_rng(module.transform(forward))
        y = layer.apply({"linear": {"w": w, "b": b}}, x)
    else:
        layer = module.Linear(3, 4, rngs=module.Rngs(0))
        layer.kernel, layer.bias = module.Param(jnp.asarray(w)), module.Param(jnp.asarray(b))
        y = layer(x)
    kernel = weights.convert(w, source=library.partition(".")[0], target="jaxdil", kind="dense")
    np.testing.assert_array_equal(x @ kernel + b, y)


def test_pixel_shuffle_becomes_depth_to_space(user_defaults):
    torch = pytest.importorskip("torch")
    x, w = integers((1, 3, 4, 5)), integers((8, 3, 1, 1))
    y = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w))
    y = np.moveaxis(torch.nn.functional.pixel_shuffle(y, 2).numpy(), 1, -1)
    ours = weights.convert(w, source="torch", target="jaxdil")
    ours = weights.reorder_channels(ours, axis=-1, shape=(2, 2, 2), source="Crs", target="rsC")
    z = jaxdil.depth_to_space(jaxdil.conv(np.moveaxis(x, 1, -1), ours), block_size=2)
    np.testing.assert_array_equal(z, y)


# --- bias -----------------------------------------------------------------------------------------


@core
def test_bias_there_and_back():
    b = np.arange(4.0)
    spread = weights.convert_bias(b, source="keras", target="equinox", rank=3)
    assert spread.shape == (4, 1, 1, 1)
    assert not np.shares_memory(spread, b)
    back = weights.convert_bias(spread, source="equinox", target="torch")
    np.testing.assert_array_equal(back, b, strict=True)
    same = weights.convert_bias(jnp.asarray(spread), source="equinox", target="equinox", rank=3)
    assert same.shape == (4, 1, 1, 1)
    assert weights.convert_bias(b, source="tf", target="flax").shape == (4,)


# --- errors ---------------------------------------------------------------------------------------


def convert(shape, **options):
    return weights.convert(np.ones(shape), **{"source": "torch", "target": "jaxdil"} | options)


def separable(depthwise, pointwise, **options):
    return weights.convert_separable(
        np.ones(depthwise), np.ones(pointwise), source="torch", target="jaxdil", **options
    )


def bias(shape, **options):
    return weights.convert_bias(np.ones(shape), **{"source": "torch", "target": "jaxdil"} | options)


def reorder(size, **options):
    options = {"axis": 0, "shape": (2, 3), "source": "AB", "target": "BA"} | options
    return weights.reorder_channels(np.ones(size), **options)


REFUSED = [
    (convert, [(4, 2, 3)], {"source": "pytorch"}, "source must be one of 'jaxdil', 'lax', 'flax'"),
    (convert, [(4, 2, 3)], {"target": "mxnet"}, "target must be one of 'jaxdil', 'lax', 'flax'"),
    (convert, [(4, 2, 3)], {"kind": "transposed"}, "kind must be one of 'conv', 'depthwise_conv'"),
    (convert, [(4, 2, 3)], {"kind": "separable_conv"}, "weights.convert_separable"),
    (convert, [4], {}, "w must be (O, I, *K) for the 'conv' of 'torch', got shape (4,)"),
    (convert, [(4, 2, 3)], {"kind": "dense"}, "w must be (O, I) for the 'dense' of 'torch'"),
    (convert, [(4, 2)], {"kind": "dense", "groups": 2}, "a dense layer has no groups"),
    (convert, [(4, 2, 3)], {"groups": 3}, "groups must divide O = 4, got 3"),
    (convert, [(4, 2, 3)], {"groups": 0}, "groups must be >= 1, got 0"),
    (
        convert,
        [(4, 2, 3)],
        {"kind": "conv_transpose", "groups": 3},
        "groups must divide C = 4, got 3\n  w (4, 2, 3) is (C, J, *K)",
    ),
    *(
        (
            convert,
            [(4, 2, 3)],
            {"kind": "conv_transpose", "groups": 2, "target": library},
            f"the transposed convolution of '{library}' has no groups",
        )
        for library in UNGROUPED_TRANSPOSE
    ),
    (
        convert,
        [(3, 4, 2)],
        {"kind": "depthwise_conv", "groups": 2, "source": "tf"},
        "groups of a depthwise kernel are its C = 4, got 2",
    ),
    (
        convert,
        [(4, 2, 3)],
        {"kind": "depthwise_conv"},
        "w must be (O, I, *K) for the 'depthwise_conv' of 'torch' with I = 1, got (4, 2, 3)",
    ),
    (
        convert,
        [(4, 1, 3)],
        {"kind": "depthwise_conv"},
        "w (4, 1, 3) has C * M = 4: pass groups=C, the input channels",
    ),
    (convert, [(4, 1, 3)], {"kind": "depthwise_conv", "groups": 3}, "groups must divide O = 4"),
    (
        separable,
        [(4, 1, 3), (5, 3, 1)],
        {"channels": 2},
        "and 4 input channels, got shape (5, 3, 1)",
    ),
    (separable, [(4, 1, 3), (5, 4, 2)], {"channels": 2}, "a single tap on each of 1 spatial axes"),
    (separable, [(4, 1, 3), (5, 4)], {"channels": 2}, "makes 4 channels for it to mix"),
    (separable, [(4, 1, 3), (5, 4, 1)], {"channels": 3}, "depthwise_w (4, 1, 3) is (O, I, *K)"),
    (bias, [4], {"source": "theano"}, "source must be one of"),
    (bias, [(4, 1)], {}, "b must be (O,) in torch, got shape (4, 1)"),
    (
        bias,
        [(4, 1, 2)],
        {"source": "equinox"},
        "b must be (O, 1, ..., 1), a 1 for each spatial axis, in equinox",
    ),
    (bias, [(4, 1)], {"source": "equinox", "rank": 2}, "2 in all, in equinox, got shape (4, 1)"),
    (bias, [4], {"target": "equinox"}, "rank is needed"),
    (bias, [4], {"target": "equinox", "rank": -1}, "rank must be >= 0, got -1"),
    (reorder, [6], {"axis": 1}, "w has no axis 1, its shape is (6,)"),
    (reorder, [6], {"target": "BC"}, "must be the same letters, each once, got 'AB' and 'BC'"),
    (reorder, [6], {"source": "AA", "target": "AA"}, "each once, got 'AA' and 'AA'"),
    (reorder, [6], {"shape": (2, 2)}, "shape must multiply to 6, the size of axis 0 of w (6,)"),
    (reorder, [6], {"shape": (2, 3, 1)}, "shape must be an integer or 2 of them"),
]


@core
@pytest.mark.parametrize(("function", "shapes", "options", "words"), REFUSED)
def test_what_is_refused(function, shapes, options, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        function(*shapes, **options)
    assert type(caught.value) is ValueError
    assert str(caught.value).startswith("weights.")


@core
def test_wrong_kinds_of_arguments():
    with pytest.raises(TypeError, match=r"weights.convert: w must be an array of numpy or JAX"):
        weights.convert([[1.0]], source="torch", target="jaxdil")
    with pytest.raises(TypeError, match=r"numpy.asarray\(b\), or b.detach\(\).numpy\(\)"):
        weights.convert_bias([1.0], source="torch", target="jaxdil")
    with pytest.raises(TypeError, match=r"groups must be an integer, got 2\.0"):
        convert((4, 2, 3), groups=2.0)


@core
def test_every_kind_names_every_library():
    assert all(tuple(layouts) and set(layouts) == set(LIBRARIES) for layouts in LAYOUTS.values())
    assert set(_kernels._TO_LAX) == set(_kernels._FROM_LAX)
