"""On a CPU a batch goes in turns where all at once would need much memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import geometry, integers
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxdil
from jaxdil import _turns
from jaxdil._problem import Problem

pytestmark = pytest.mark.core


def depthwise(name, size, kernel, **options):
    return geometry(name, size, kernel, channels=(4, 4), groups=4, **options)


# With methods that can serve them, or their gradients. Five images, so that turns of two overlap.
CASES = {
    "depthwise": (depthwise("", (7, 6), (3, 3), pad=(1, 1), batch=5), ("taps", "correlate")),
    "depthwise, strided": (depthwise("", (9, 6), (3, 2), s=2, pad=(1, 0), batch=5), ("auto",)),
    "depthwise, causal": (depthwise("", (9,), (4,), pad=(3, 0), batch=5), ("taps",)),
    "groups": (geometry("", (7, 6), (3, 3), channels=(24, 48), groups=2, pad=(1, 1), batch=5),
        ("taps", "correlate")),
    "groups, strided and dilated": (geometry("", (11, 9), (3, 2), channels=(24, 24), groups=2,
        s=(2, 1), d=(1, 3), pad=(1, 2), batch=5), ("taps", "correlate")),
    "groups, many taps": (geometry("", (80,), (70,), channels=(18, 18), groups=2, pad=(3, 4),
        batch=5), ("correlate",)),
    "groups, many taps on two axes": (geometry("", (36, 5), (33, 2), channels=(18, 18), groups=2,
        pad=(3, 0), d=(1, 2), batch=5), ("correlate",)),
    "volume": (geometry("", (5, 6, 4), (3, 2, 3), channels=(3, 4), pad=(1, 1), batch=5),
        ("slabs", "planes")),
    "transposed": (geometry("", (5, 4), (4, 3), channels=(3, 4), a=2, pad=(2, 1), batch=5),
        ("phases",)),
    "dense": (geometry("", (7, 6), (3, 2), channels=(3, 4), pad=(1, 1), batch=5), ("im2col",)),
    "several outputs a channel": (geometry("", (6, 7), (3, 3), channels=(4, 8), groups=4,
        pad=(1, 0), batch=5), ("auto",)),
}  # fmt: skip


def everything(g, method, dtype=jnp.float32, **layout):
    """The convolution of integers and both its gradients, by the method where it can serve."""
    pin = method if method in ("auto", "xla") else f"{method} or auto"

    def run(x, w, c):
        conv = functools.partial(jaxdil.conv, **g.options, method=pin, **layout)
        y, pullback = jax.vjp(conv, x, w)
        return y, *pullback(c)

    arrays = [jnp.asarray(integers(i, s), dtype) for i, s in enumerate((g.x_shape, g.w_shape))]
    c = jnp.asarray(integers(2, g.y_shape), dtype)
    if layout:
        arrays[0], c = jnp.moveaxis(arrays[0], -1, 1), jnp.moveaxis(c, -1, 1)
    return run, (*arrays, c)


@pytest.fixture
def little_memory(monkeypatch):
    """Room for two of five images in a turn."""
    monkeypatch.setattr(_turns, "_kept", lambda problem, method: 5 * (method != "xla"))
    monkeypatch.setattr(_turns, "_limits", lambda method: (0, 2))


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("layout", [{}, {"data_format": "channels_first"}], ids=["last", "first"])
@pytest.mark.parametrize(("name", "method"), [(n, m) for n, (_, ms) in CASES.items() for m in ms])
def test_turns_change_no_result(name, method, layout):
    g = CASES[name][0]
    run, arrays = everything(g, method, **layout)
    lowered = jax.jit(run).lower(*arrays)
    assert "stablehlo.while" in lowered.as_text()
    expected = jax.jit(everything(g, "xla", **layout)[0])(*arrays)
    for got, want in zip(lowered.compile()(*arrays), expected, strict=True):
        np.testing.assert_array_equal(got, want)


# Images of at least 32 rows, so that there are blocks of 8 between the first and the last.
TALL = {
    "depthwise": (depthwise("", (37, 5), (3, 3), pad=(1, 1), batch=2), ("taps", "correlate")),
    "strided": (depthwise("", (75, 4), (3, 2), s=(2, 1), pad=((0, 1), (0, 0))), ("taps",)),
    "strided and dilated": (depthwise("", (81, 4), (5, 1), s=(2, 1), d=(3, 1),
        pad=((5, 2), (0, 0))), ("taps", "correlate")),
    "no padding": (depthwise("", (34, 5), (2, 2)), ("taps", "correlate")),
    "causal": (depthwise("", (49,), (4,), pad=(3, 0)), ("taps", "correlate")),
    "groups": (geometry("", (39, 4), (3, 3), channels=(24, 24), groups=2, pad=(2, 1)),
        ("correlate",)),
    "dense": (geometry("", (37, 5), (3, 2), channels=(3, 4), pad=(1, 1)), ("im2col",)),
    "volume": (geometry("", (36, 4, 3), (3, 2, 3), channels=(3, 4), pad=(1, 1)),
        ("slabs", "planes")),
}  # fmt: skip


@pytest.mark.parametrize("layout", [{}, {"data_format": "channels_first"}], ids=["last", "first"])
@pytest.mark.parametrize(("name", "method"), [(n, m) for n, (_, ms) in TALL.items() for m in ms])
def test_rows_in_turns_change_no_result(name, method, layout, monkeypatch):
    monkeypatch.setattr(_turns, "_kept", lambda problem, method: 10**6 * (method != "xla"))
    monkeypatch.setattr(_turns, "_limits", lambda method: (0, 1))
    cut = []
    by_rows = _turns._by_rows
    monkeypatch.setattr(_turns, "_by_rows", lambda *args: cut.append(1) or by_rows(*args))
    g = TALL[name][0]
    run, arrays = everything(g, method, **layout)
    got = jax.jit(run)(*arrays)
    assert cut
    for a, b in zip(got, jax.jit(everything(g, "xla", **layout)[0])(*arrays), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("channels", [9, 8])
@pytest.mark.parametrize("layout", [{}, {"data_format": "channels_first"}], ids=["last", "first"])
def test_channels_in_turns_change_no_result(layout, channels, monkeypatch):
    monkeypatch.setattr(_turns, "LANES", 2)
    monkeypatch.setattr(_turns, "_kept", lambda problem, method: problem.batch_groups)
    monkeypatch.setattr(_turns, "_limits", lambda method: (0, 4))
    cut = []
    by_channels = _turns._by_channels
    monkeypatch.setattr(
        _turns, "_by_channels", lambda *args: cut.append(args[4]) or by_channels(*args)
    )
    g = geometry("", (6, 5), (3, 2), channels=(channels,) * 2, groups=channels, pad=(1, 1), batch=1)
    run, arrays = everything(g, "correlate", **layout)
    got = jax.jit(run)(*arrays)
    assert cut == [4]
    for a, b in zip(got, jax.jit(everything(g, "xla", **layout)[0])(*arrays), strict=True):
        np.testing.assert_array_equal(a, b)


# Wide dilations, most of whose taps meet padding; some meet nothing else.
WIDE = {
    "wide": depthwise("", (7, 6), (3, 3), d=6, pad=(6, 6)),
    "wider than the image": depthwise("", (5, 4), (3, 3), d=9, pad=(9, 9)),
    "strided": depthwise("", (9, 8), (3, 2), d=5, s=(2, 3), pad=((7, 4), (5, 6))),
    "causal": depthwise("", (9,), (4,), d=7, pad=(21, 0)),
    "volume": depthwise("", (3, 4, 3), (2, 3, 1), d=(3, 4, 1), pad=((3, 0), (4, 4), (1, 2))),
}


@pytest.mark.parametrize("layout", [{}, {"data_format": "channels_first"}], ids=["last", "first"])
@pytest.mark.parametrize("name", WIDE)
def test_an_image_that_would_be_mostly_padding_is_not_padded(name, layout):
    run, arrays = everything(WIDE[name], "taps", **layout)
    lowered = jax.jit(lambda *a: run(*a)[0]).lower(*arrays)
    assert "stablehlo.pad" not in lowered.as_text()
    expected = jax.jit(everything(WIDE[name], "xla", **layout)[0])(*arrays)
    for got, want in zip(jax.jit(run)(*arrays), expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.usefixtures("little_memory")
def test_a_kernel_gradient_adds_up_its_turns_in_single_precision():
    g = geometry("", (64, 8), (1, 2), channels=(4, 4), groups=4, batch=5)
    x, c = jnp.ones(g.x_shape, jnp.bfloat16), jnp.ones(g.y_shape, jnp.bfloat16)
    kernel_grad = functools.partial(jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **g.options)
    # 5 x 448: turns of one image, added up in bfloat16, would stick at 2048.
    gradient = jax.jit(kernel_grad)(x, c)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient, np.asarray(2240, jnp.bfloat16))


def problem(x, w, **changes):
    """A depthwise problem of float32, unpadded."""
    single = np.dtype(np.float32)
    rank, channels = len(x) - 2, x[-1]
    ones = (1,) * rank
    made = Problem(
        batch=x[0], size=x[1:-1], channels=channels, kernel=w, out_channels=channels, stride=ones,
        padding=((1, 1),) * rank, input_dilation=ones, dilation=ones, groups=channels,
        batch_groups=1, x_dtype=single, w_dtype=single, out_dtype=single,
    )  # fmt: skip
    return made.replace(**changes)


def test_turns_are_for_much_memory_alone():
    small, large = (problem((n, 56, 56, 144), (3, 3)) for n in (8, 32))
    assert _turns._images(small, "taps") is None
    assert _turns._images(large, "xla") is None
    size = _turns._images(large, "taps")
    # At most 6 MiB of padded images, and turns as equal as can be.
    assert size == 3
    assert size * 58 * 58 * 144 * 4 <= _turns.TURN
    image = problem((1, 512, 512, 32), (3, 3))
    assert _turns._images(image, "taps") is None
    rows = _turns._rows(image, "taps")
    assert 4 * rows <= 512
    assert rows * 514 * 32 * 4 <= _turns.TURN
    # Patches are to stay in the cache, and an image is cut into four blocks and more.
    patches = problem((1, 56, 56, 192), (3, 3), groups=1)
    assert _turns.PATCHES[0] < _turns._kept(patches, "im2col") < _turns.MUCH
    assert _turns._rows(patches, "im2col") == 14
    # A kernel as tall as the image would read it all in every turn.
    assert _turns._rows(image.replace(kernel=(512, 3)), "taps") is None
    # Products of groups are laid out anew before and after; patches, before or after.
    mixed = small.replace(batch=32, kernel=(1, 1), groups=3, padding=((0, 0),) * 2)
    assert _turns._kept(mixed, "taps") == 3 * 32 * 56 * 56 * 144 * 4
    tiles = small.replace(batch=32, kernel=(2, 2), stride=(2, 2), groups=1, padding=((0, 0),) * 2)
    assert _turns._kept(tiles, "patches") == 32 * 56 * 56 * 144 * 4
    # A kernel gradient's turns do not overlap: what is added up is added up once.
    gradient = problem((144, 56, 56, 32), (56, 56), out_channels=144, groups=1, batch_groups=144)
    assert 32 % _turns._images(gradient, "correlate") == 0


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("name", "method"), [("depthwise", "taps"), ("groups", "taps"), ("groups", "split")]
)
def test_there_are_no_turns_where_xla_divides_the_batch(name, method):
    g = CASES[name][0]._replace(x_shape=(8, *CASES[name][0].x_shape[1:]))
    mesh = jax.make_mesh((8,), ("data",), devices=jax.devices("cpu"), axis_types=(AxisType.Auto,))
    conv = functools.partial(jaxdil.conv, **g.options, method=method)
    x, w = integers(0, g.x_shape), integers(1, g.w_shape)
    placed = jax.device_put(x, NamedSharding(mesh, P("data")))
    compiled = jax.jit(conv).lower(placed, jax.device_put(w, NamedSharding(mesh, P()))).compile()
    assert "all-gather" not in compiled.as_text()
    y = compiled(placed, jax.device_put(w, NamedSharding(mesh, P())))
    assert y.sharding.shard_shape(y.shape)[0] == 1
    np.testing.assert_array_equal(y, conv(x, w))


def test_small_convolutions_have_no_loop():
    grouped = functools.partial(jaxdil.conv, groups=2, method="taps")
    for fn, x, w in (
        (grouped, (4, 14, 14, 64), (3, 3, 32, 64)),
        (functools.partial(jaxdil.conv, groups=64), (4, 14, 14, 64), (3, 3, 1, 64)),
    ):
        text = jax.jit(fn).lower(jnp.ones(x, jnp.float32), jnp.ones(w, jnp.float32)).as_text()
        assert "while" not in text
