"""A kernel for each example, and a kernel for each position: by loops, and by lax."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checker import assert_matches
from geometries import equations, integers
from jax import lax

import jaxdil
from jaxdil import _batched, reference

pytestmark = pytest.mark.core


def each_example(x, w, **options):
    """A loop over the examples."""
    return np.concatenate([reference.conv(x[n : n + 1], w[n], **options) for n in range(len(x))])


def each_position(x, w, *, stride, dilation, padding, groups=1):
    """A loop over positions, taps and groups."""
    rank = x.ndim - 2
    x = np.pad(x, [(0, 0), *padding, (0, 0)])
    positions, taps = w.shape[:rank], w.shape[rank : 2 * rank]
    inner, outer = w.shape[-2], w.shape[-1] // groups
    y = np.zeros((len(x), *positions, w.shape[-1]), x.dtype)
    for p, t in itertools.product(np.ndindex(*positions), np.ndindex(*taps)):
        at = tuple(s * i + d * j for i, j, s, d in zip(p, t, stride, dilation, strict=True))
        for g in range(groups):
            o = slice(g * outer, (g + 1) * outer)
            sample = x[(slice(None), *at)][:, g * inner : (g + 1) * inner]
            y[(slice(None), *p)][:, o] += sample @ w[(*p, *t)][:, o]
    return y


# x, the kernel, and options.
CASES = {
    "2-D": ((3, 7, 6, 4), (3, 2, 4, 5), {}),
    "strided, dilated": (
        (2, 9, 8, 3),
        (2, 3, 3, 4),
        {"stride": (2, 1), "dilation": (1, 3), "padding": [(2, 0), (1, 4)]},
    ),
    "depthwise": ((2, 8, 6), (3, 1, 12), {"groups": 6, "dilation": 2}),
    "wide groups": ((2, 5, 18), (3, 9, 4), {"groups": 2, "stride": 2}),
    "1x1": ((3, 4, 4, 2), (1, 1, 2, 3), {}),
    "3-D": ((2, 4, 3, 5, 2), (2, 2, 3, 2, 2), {"stride": (1, 2, 1)}),
    "many taps": ((2, 20, 2), (70, 2, 3), {"padding": [(40, 41)]}),
    "no axis": ((3, 4), (4, 5), {}),
}
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def window(case):
    """Arrays of small integers, and canonical options."""
    x, kernel, options = CASES[case]
    rank = len(kernel) - 2
    options = {"stride": 1, "dilation": 1, "padding": "SAME"} | options
    for name in ("stride", "dilation"):
        if isinstance(options[name], int):
            options[name] = (options[name],) * rank
    sizes = {"size": x[1:-1], "kernel": kernel[:-2]}
    axes = {name: options[name] for name in ("stride", "dilation")}
    options["padding"] = jaxdil.resolve_padding(options["padding"], **sizes, **axes)
    return integers(0, x), kernel, options


@every_case
def test_conv_per_example(case):
    x, kernel, options = window(case)
    w = integers(1, (len(x), *kernel))
    want = each_example(x, w, **options)
    np.testing.assert_array_equal(jaxdil.conv_per_example(x, w, **options), want)


@every_case
def test_conv_local(case):
    x, kernel, options = window(case)
    positions = jaxdil.conv_output_shape(x.shape, kernel, **options)[1:-1]
    w = integers(1, (*positions, *kernel))
    want = each_position(x, w, **options)
    np.testing.assert_array_equal(jaxdil.conv_local(x, w, **options), want)


def test_layouts_and_padding_modes():
    x, w = integers(0, (3, 7, 6, 4)), integers(1, (3, 3, 2, 4, 5))
    options = {"padding": [(2, 0), (1, 3)], "padding_mode": "circular"}
    turned = np.pad(x, [(0, 0), (2, 0), (1, 3), (0, 0)], mode="wrap")
    want = each_example(turned, w)
    np.testing.assert_array_equal(jaxdil.conv_per_example(x, w, **options), want)
    first = x.transpose(0, 3, 1, 2)
    got = jaxdil.conv_per_example(first, w, data_format="NCHW", **options)
    np.testing.assert_array_equal(got, want.transpose(0, 3, 1, 2))
    kernels = integers(2, (*want.shape[1:3], 3, 2, 4, 5))
    want = each_position(turned, kernels, stride=(1, 1), dilation=(1, 1), padding=[(0, 0)] * 2)
    np.testing.assert_array_equal(jaxdil.conv_local(x, kernels, **options), want)
    np.testing.assert_array_equal(jaxdil.conv_local(x[0], kernels, **options), want[0])
    got = jaxdil.conv_local(first[None], kernels, data_format="NCHW", **options)
    np.testing.assert_array_equal(got, want.transpose(0, 3, 1, 2)[None])


def test_nothing_in_nothing_out():
    w = integers(1, (0, 3, 2, 4))
    assert jaxdil.conv_per_example(integers(0, (0, 5, 2)), w).shape == (0, 5, 4)
    assert jaxdil.conv_local(integers(0, (2, 0, 2)), w).shape == (2, 0, 4)
    zeros = jaxdil.conv_per_example(integers(0, (2, 5, 0)), integers(1, (2, 3, 0, 4)))
    np.testing.assert_array_equal(zeros, np.zeros((2, 5, 4)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.int8, np.complex64], ids=jnp.dtype)
def test_dtypes(dtype):
    key = jax.random.key(0)
    x, w = (
        jax.random.normal(jax.random.fold_in(key, i), shape).astype(dtype)
        if dtype != np.int8
        else integers(i, shape).astype(dtype)
        for i, shape in enumerate([(2, 5, 3), (2, 9, 3, 2)])
    )
    wide = np.complex128 if dtype == np.complex64 else np.float64
    arrays = [np.asarray(a).astype(wide) for a in (x, w)]
    want = each_example(*arrays, padding=[(4, 4)])
    magnitude = each_example(*map(np.abs, arrays), padding=[(4, 4)])
    got = jaxdil.conv_per_example(x, w)
    arithmetic = np.float32 if dtype == jnp.bfloat16 else dtype
    terms = 54
    assert_matches(got, want, magnitude, terms=terms, dtype=arithmetic, out_dtype=dtype)
    wider = {jnp.bfloat16: np.float32, np.int8: np.int32}.get(dtype)
    if wider:
        got = jaxdil.conv_per_example(x, w, preferred_element_type=wider)
        assert_matches(got, want, magnitude, terms=terms, dtype=wider)


# --- lax and Keras --------------------------------------------------------------------------------


def test_conv_local_is_lax():
    """Its function, its layout, its gradients."""
    x, kernel, options = window("strided, dilated")
    positions = jaxdil.conv_output_shape(x.shape, kernel, **options)[1:-1]
    rank, channels = len(positions), math.prod(kernel[:-1])
    x = jnp.asarray(x, np.float64)
    w = jnp.asarray(integers(1, (*positions, channels, kernel[-1])), np.float64)
    spatial = "DHW"[-rank:]

    def theirs(x, w):
        numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
        args = (options["stride"], options["padding"], kernel[:-2], None, options["dilation"])
        return lax.conv_general_dilated_local(x, w, *args, numbers)

    def ours(x, w):
        w = jaxdil.local_kernel(w, kernel=kernel[:-2], source="lax")
        return jaxdil.conv_local(x, w, **options)

    def everything(fn):
        def loss(x, w):
            return (fn(x, w) ** 2).sum() / 2

        return jax.jit(lambda x, w: (fn(x, w), jax.jvp(jax.grad(loss, (0, 1)), (x, w), (x, w))))(
            x, w
        )

    jax.tree.map(np.testing.assert_array_equal, everything(ours), everything(theirs))


def keras_2(x, w, kernel, stride):
    """Keras 2's implementation 1: patches of an image, taps before channels, times a matrix."""
    rows = []
    sizes = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:], kernel, stride, strict=False)]
    for p in np.ndindex(*sizes):
        cut = [slice(s * i, s * i + k) for i, s, k in zip(p, stride, kernel, strict=True)]
        rows.append(x[:, *cut].reshape(len(x), -1))
    y = np.einsum("pnk,pko->npo", np.stack(rows), w)
    return y.reshape(len(x), *sizes, -1)


def test_weights_of_keras():
    x = integers(0, (2, 7, 6, 3))
    w = integers(1, (3 * 5, 3 * 2 * 3, 4))
    kernels = jaxdil.local_kernel(w, kernel=(3, 2), source="keras", positions=(3, 5))
    got = jaxdil.conv_local(x, kernels, stride=(2, 1), padding="VALID")
    np.testing.assert_array_equal(got, keras_2(x, w, (3, 2), (2, 1)))
    w = integers(1, (5, 3 * 3, 4))
    kernels = jaxdil.local_kernel(w, kernel=(3,), source="keras")
    got = jaxdil.conv_local(x[:, :, 0], kernels, padding="VALID")
    np.testing.assert_array_equal(got, keras_2(x[:, :, 0], w, (3,), (1,)))


# --- what runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv_per_example", "conv_local"])
def test_no_convolution_and_no_patches_of_all_taps(name):
    """Not in the call, not in its gradients, not in theirs, not under vmap."""
    call = getattr(jaxdil, name)

    def loss(x, w):
        return (call(x, w) ** 2).sum()

    gradients = jax.grad(loss, (0, 1))
    second = jax.grad(lambda x, w: (jax.grad(loss, 1)(x, w) ** 2).sum())
    temporaries = {}
    for taps in (9, 81):
        x = jnp.ones((2, 64, 16))
        w = jnp.ones((2 if name == "conv_per_example" else 64, taps, 16, 16))
        compiled = jax.jit(gradients).lower(x, w).compile()
        assert "convolution(" not in compiled.as_text()
        temporaries[taps] = compiled.memory_analysis().temp_size_in_bytes - 3 * w.nbytes
    for fn, arrays in ((second, (x, w)), (jax.vmap(gradients), (x[None], w[None]))):
        names = {eqn.primitive.name for eqn in equations(jax.make_jaxpr(fn)(*arrays).jaxpr)}
        assert "dot_general" in names
        assert not [n for n in names if n.startswith(("conv_general", "jaxdil_conv"))]
    # Nine times the taps, and nothing grows but what is as large as the kernels.
    assert temporaries[81] < temporaries[9] + 9 * x.nbytes


def test_transforms():
    """vmap in each pattern of axes, and forward over reverse, against a plain statement."""
    x = jnp.asarray(integers(0, (2, 3, 6, 2)), np.float64)
    w = jnp.asarray(integers(1, (2, 3, 9, 2, 2)), np.float64)

    def one(x, w):
        numbers = ("NWC", "WIO", "NWC")
        return lax.conv_general_dilated(x[None], w, (1,), "SAME", dimension_numbers=numbers)[0]

    def plain(x, w):
        return jnp.stack([one(*pair) for pair in zip(x, w, strict=True)])

    for axes in ((0, 0), (0, None), (None, 0)):
        arrays = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]
        got = jax.vmap(jaxdil.conv_per_example, axes)(*arrays)
        each = [
            [a if b is None else a[i] for a, b in zip(arrays, axes, strict=True)] for i in (0, 1)
        ]
        np.testing.assert_array_equal(got, jnp.stack([plain(*pair) for pair in each]))

    def derivatives(fn):
        def loss(x, w):
            return (fn(x, w) ** 2).sum() / 2

        return jax.jit(lambda x, w: jax.jvp(jax.grad(loss, (0, 1)), (x, w), (x, w)))(x[0], w[0])

    jax.tree.map(
        np.testing.assert_array_equal, derivatives(jaxdil.conv_per_example), derivatives(plain)
    )


def test_a_program_is_made_once():
    """A second call of the same shapes compiles nothing."""
    x, w = jnp.ones((2, 11, 2)), jnp.ones((2, 3, 2, 2))
    jaxdil.conv_per_example(x, w)
    before = _batched._sums._cache_size()
    jaxdil.conv_per_example(2 * x, w)
    assert _batched._sums._cache_size() == before


# --- refusals -------------------------------------------------------------------------------------


def ones(*shape):
    return np.ones(shape, np.float32)


def test_refusals():
    per_example, local = jaxdil.conv_per_example, jaxdil.conv_local
    both = "x and w must have one batch axis of the same size, got shapes "
    order = "w must be (*P, *K, I, O), as many P as K, got shape "
    for call, kind, *words in (
        (lambda: per_example(ones(2, 5, 3), [1]), TypeError, "w must be an array, got list"),
        (
            lambda: per_example(ones(2, 3), ones(3, 4)),
            ValueError,
            "with at least 3 axes",
            "call jaxdil.conv",
        ),
        (
            lambda: per_example(ones(2, 5, 3), ones(3, 3, 3, 4)),
            ValueError,
            both + "(2, 5, 3) and (3, 3, 3, 4)",
        ),
        (lambda: per_example(ones(5, 3), ones(2, 3, 3, 4)), ValueError, both, "so x has 3 axes"),
        (
            lambda: per_example(ones(2, 2, 5, 3), ones(2, 3, 3, 4), data_format="NWC"),
            ValueError,
            both,
            "reshape both to one, or jax.vmap",
        ),
        (
            lambda: per_example(ones(2, 5, 3), ones(2, 3, 4, 4)),
            ValueError,
            "x has 3 channels, but w with 4 input channels and groups=1 takes 4",
        ),
        (
            lambda: per_example(ones(2, 5, 3), ones(2, 9, 3, 4), padding="VALID"),
            ValueError,
            "the kernel does not fit into the input on spatial axis 0",
        ),
        (
            lambda: per_example(ones(2, 5, 3), ones(2, 3, 3, 4), padding_mode="wrap"),
            ValueError,
            "padding_mode must be one of",
        ),
        (
            lambda: per_example(ones(2, 5, 3), ones(2, 3, 3, 4), data_format=("NWC", "WIO", "NWC")),
            ValueError,
            "data_format must be a name or letters",
        ),
        (
            lambda: local(ones(2, 5, 3), ones(5, 3, 3)),
            ValueError,
            order + "(5, 3, 3)",
            "local_kernel",
        ),
        (lambda: local(ones(2, 5, 3), ones(3)), ValueError, order + "(3,)"),
        (
            lambda: local(ones(2, 5, 3), ones(5, 3, 3, 4), padding="VALID"),
            ValueError,
            "w must have a kernel for each position of the output, (3,) of them, got (5,)",
            "jaxdil.conv_output_shape tells P",
        ),
        (
            lambda: local(ones(2, 5, 3), ones(5, 3, 3, 4), data_format=("NWC", "WIO", "NWC")),
            ValueError,
            "data_format must be a name or letters",
        ),
    ):
        with pytest.raises(kind) as caught:
            call()
        where = (
            "conv_local: " if "local" in str(caught.value).split(":")[0] else "conv_per_example: "
        )
        assert str(caught.value).startswith(where)
        for fragment in words:
            assert fragment in str(caught.value)


def test_refusals_of_local_kernel():
    convert = jaxdil.local_kernel
    for call, words in (
        (
            lambda: convert(ones(5, 6, 4), kernel=(3,), source="torch"),
            "source must be 'lax', 'flax' or 'keras', got 'torch'",
        ),
        (
            lambda: convert(ones(5, 7, 4), kernel=(3,), source="lax"),
            "w must be (*P, C prod(K), O) with 3 taps and 3 axes, got shape (5, 7, 4)",
        ),
        (lambda: convert(ones(5, 6, 4), kernel=(3, 1), source="flax"), "with 3 taps and 4 axes"),
        (
            lambda: convert(ones(5, 6, 4), kernel=(3,), source="lax", positions=(5,)),
            "positions are for Keras alone",
        ),
        (
            lambda: convert(ones(6, 6, 4), kernel=(3, 1), source="keras"),
            "w must be (prod(P), prod(K) C, O)",
        ),
        (
            lambda: convert(ones(6, 6, 4), kernel=(3, 1), source="keras", positions=(5, 1)),
            "and positions=(5, 1)",
        ),
    ):
        with pytest.raises(ValueError, match="local_kernel: ") as caught:
            call()
        assert words in str(caught.value)
