"""explain: one row a convolution, each column of it against what can be counted by hand."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import GEOMETRIES, equations
from jax import lax

import jaxdil
from jaxdil import _dispatch, reference
from jaxdil._methods import METHODS

pytestmark = pytest.mark.core

ROLES = ["forward", "input gradient", "kernel gradient"]
X, W = np.ones((2, 3, 9), np.float32), np.ones((3, 3, 3), np.float32)


def conv(x, w, dilation=1):
    return lax.conv_general_dilated(x, w, (1,), "SAME", rhs_dilation=(dilation,))


def line_of(fn):
    """The line after the `def` of a function."""
    return inspect.getsourcelines(fn)[1] + 1


def two(x, w):
    with jax.named_scope("block"):
        x = conv(x, w)
        with jax.named_scope("inner"):
            x = jnp.tanh(x)
            return conv(x, w, 2)


def loss(x, w):
    return (two(x, w) ** 2).sum()


def ours(fn, *args):
    """How many convolutions `accelerate` rewrites."""
    traced = jax.make_jaxpr(jaxdil.accelerate(fn))(*args)
    return sum(eqn.primitive.name == "jaxdil_conv" for eqn in equations(traced.jaxpr))


# --- which rows -----------------------------------------------------------------------------------


def test_each_convolution_is_followed_by_its_gradients():
    rows = jaxdil.explain(two)(X, W)
    assert [row.role for row in rows] == ROLES * 2
    assert [row.name for row in rows] == ["block"] * 3 + ["block/inner"] * 3
    assert [row.role for row in jaxdil.explain(two, gradients=False)(X, W)] == ["forward"] * 2


def scanned(x, w):
    return lax.scan(lambda y, _: (conv(y, w), None), x, length=5)[0]


FUNCTIONS = {
    "two": two,
    "grad": jax.grad(loss, (0, 1)),
    "grad by the kernel": jax.grad(loss, 1),
    "jit of grad": jax.jit(jax.value_and_grad(loss, (0, 1))),
    "grad of checkpoint": jax.grad(jax.checkpoint(loss), (0, 1)),
    "scan": scanned,
    "grad of scan": jax.grad(lambda x, w: scanned(x, w).sum(), (0, 1)),
    "cond": lambda x, w: lax.cond(x.sum() > 0, conv, lambda x, w: conv(x, w, 2), x, w),
    "vmap of grad": jax.vmap(jax.grad(loss, 1), (0, None)),
    "hessian-vector product": lambda x, w: jax.jvp(jax.grad(loss), (x, w), (x, w)),
    "our own": lambda x, w: jaxdil.conv(x, w, data_format="NCW"),
    "none": lambda x, w: x + 1,
}


@pytest.mark.parametrize("name", FUNCTIONS, ids=lambda name: name.replace(" ", "_"))
def test_as_many_as_accelerate_rewrites(name):
    fn = FUNCTIONS[name]
    x = np.ones((2, 2, 3, 9), np.float32) if name == "vmap of grad" else X
    rows = jaxdil.explain(fn, gradients=False)(x, W)
    assert len(rows) == ours(fn, x, W)
    assert (len(rows) == 0) == (name == "none")


@pytest.mark.parametrize("name", ["grad", "jit of grad", "grad of checkpoint", "vmap of grad"])
def test_a_gradient_shows_what_it_contains(name):
    x = np.ones((2, 2, 3, 9), np.float32) if name == "vmap of grad" else X
    roles = [row.role for row in jaxdil.explain(FUNCTIONS[name])(x, W)]
    # A checkpoint runs the first convolution, on which the second depends, once more.
    assert roles.count("forward") in ((3, 4) if "checkpoint" in name else (2,))
    assert roles.count("kernel gradient") == 2
    # The first convolution's gradient by its input is wanted only where x is an argument.
    assert roles.count("input gradient") == (1 if name == "vmap of grad" else 2)
    assert roles[:2] == ["forward"] * 2


LAYOUTS = {
    "NCHW": ("NCHW", "OIHW", "NCHW"),
    "NHWC": ("NHWC", "HWIO", "NHWC"),
    "HWNC": ("HWNC", "HWIO", "HWNC"),
    "CHWN": ("CHWN", "IHWO", "CHWN"),
    "mixed": ("NHWC", "OIHW", "CHWN"),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_roles_in_any_layout(layout, groups, stride):
    lhs, rhs, out = LAYOUTS[layout]
    sizes = {"N": 4, "C": 2, "H": 8, "W": 7, "I": 2 // groups, "O": 6}
    x = np.ones([sizes[c] for c in lhs], np.float32)
    w = np.ones([{**sizes, "H": 3, "W": 2}[c] for c in rhs], np.float32)

    def fn(x, w):
        y = lax.conv_general_dilated(
            x, w, (stride, 1), "SAME", dimension_numbers=(lhs, rhs, out), feature_group_count=groups
        )
        return (y**2).sum()

    rows = sorted(jaxdil.explain(fn)(x, w), key=lambda row: row.role)
    assert [row.role for row in rows] == ROLES
    # What a gradient is of can be told by its size, in whatever order its axes are.
    assert [sorted(row.y_shape) for row in rows[1:]] == [sorted(x.shape), sorted(w.shape)]
    contained = jaxdil.explain(jax.grad(fn, (0, 1)))(x, w)
    assert sorted(row.role for row in contained) == sorted(ROLES)


def flipped(x, w):
    return jnp.flip(jax.jit(lambda x, w: jnp.flip(conv(x, w), 2))(x, w), 2)


SMALL = {
    "fewer outputs than taps": lambda x, w: lax.conv(x[..., :4], w, (1,), "VALID"),
    "as many outputs as taps": lambda x, w: lax.conv(x[..., :5], w, (1,), "VALID"),
    "one output": lambda x, w: lax.conv(x[..., :3], w, (1,), "VALID"),
    "strided": lambda x, w: lax.conv(x[..., :4], w, (2,), "SAME"),
    "groups": lambda x, w: lax.conv_general_dilated(
        x[..., :2], w[:, :1], (1,), "SAME", feature_group_count=3
    ),
    "the batch last": lambda x, w: lax.conv_general_dilated(
        x[..., :3].T, w.T, (1,), "SAME", dimension_numbers=("WCN", "WIO", "WCN")
    ),
    "flipped after": flipped,
    "half precision within": lambda x, w: conv(x.astype(np.float16), w.astype(np.float16)).astype(
        np.float32
    ),
    "checkpointed": lambda x, w: jax.checkpoint(conv)(x[..., :2], w),
    "scanned": lambda x, w: lax.scan(lambda x, _: (conv(x, w), None), x[..., :2], length=2)[0],
    "conditional": lambda x, w: lax.cond(x[0, 0, 0] > 0, conv, conv, x[..., :2], w),
    "without space": lambda x, w: lax.conv_general_dilated(x[..., 0], w[..., 0], (), ()),
    "batched kernels": lambda x, w: jax.vmap(conv)(x[:, None, :, :2], jnp.stack([w, w])),
}


@pytest.mark.parametrize("name", SMALL, ids=lambda name: name.replace(" ", "_"))
@pytest.mark.parametrize("wraps", ["grad", "jit of grad"])
def test_roles_whatever_the_sizes(name, wraps):
    """By what each does: an image smaller than the kernel is told from it by no size."""

    def fn(x, w):
        return (SMALL[name](x, w) ** 2).sum()

    def roles(argnums):
        both = jax.grad(fn, argnums)
        rows = jaxdil.explain(jax.jit(both) if wraps == "jit of grad" else both)(X, W)
        return [row.role for row in rows if row.role != "forward"]

    count = 2 if name == "conditional" else 1  # a branch each
    assert roles(0) == ["input gradient"] * count
    assert sorted(roles((0, 1))) == ROLES[1:2] * count + ROLES[2:] * count


# --- columns --------------------------------------------------------------------------------------


def test_the_source_is_the_line_that_the_user_wrote():
    for fn in (conv, jax.jit(conv), jax.vmap(conv, (0, None))):
        x = X if fn is conv or hasattr(fn, "lower") else X[None]
        for row in jaxdil.explain(fn)(x, W):
            assert row.source == f"test_explain.py:{line_of(conv)} (conv)"
    for row in jaxdil.explain(jax.grad(loss, (0, 1)))(X, W):
        assert row.source == f"test_explain.py:{line_of(conv)} (conv)"


def ours_within(x, w):
    return jaxdil.conv_transpose(x, w, stride=2, data_format="NCW")


def test_the_source_of_our_own_functions_is_their_caller():
    rows = jaxdil.explain(ours_within)(X, W)
    place = f"test_explain.py:{line_of(ours_within)} (ours_within)"
    assert {row.source for row in rows} == {place}


def test_names_are_the_users_scopes():
    def fn(x, w):
        with jax.named_scope("stem"):
            return jax.jit(two)(x, w).sum()

    plain = [row.name for row in jaxdil.explain(fn, gradients=False)(X, W)]
    assert [name.replace("/two/", "/") for name in plain] == ["stem/block", "stem/block/inner"]
    inside = [row.name for row in jaxdil.explain(jax.grad(fn, (0, 1)))(X, W)]
    assert set(inside) == set(plain)


def test_times_are_the_trips_of_the_scans_around_it():
    def nested(x, w):
        def outer(y, _):
            return lax.scan(lambda y, _: (conv(y, w), None), y, length=3)[0], None

        return conv(lax.scan(outer, x, length=4)[0], w)

    assert [row.times for row in jaxdil.explain(nested, gradients=False)(X, W)] == [12, 1]
    assert {row.times for row in jaxdil.explain(scanned)(X, W)} == {5}
    rows = jaxdil.explain(lambda x, w: lax.fori_loop(0, 7, lambda i, y: conv(y, w), x))(X, W)
    assert {row.times for row in rows} == {7}


@pytest.mark.parametrize("g", GEOMETRIES[::3], ids=lambda g: g.name.replace(" ", "_"))
def test_flops_are_what_a_count_gives(g):
    """Each product of a sample and a tap is a multiplication and an addition."""
    ones = (np.ones(g.x_shape, np.float32), np.ones(g.w_shape, np.float32))
    rows = jaxdil.explain(functools.partial(jaxdil.conv, **g.options))(*ones)
    products = reference.conv(*ones, **g.options).sum()
    assert sorted(row.role for row in rows) == ROLES
    assert [row.flops for row in rows] == [2 * products] * 3


def test_bytes_and_shapes():
    rows = jaxdil.explain(conv)(X, W)
    sizes = [array.size for array in (X, W, conv(X, W))]
    assert [row.bytes for row in rows] == [4 * sum(sizes)] * 3
    assert (rows[0].x_shape, rows[0].w_shape, rows[0].y_shape) == (X.shape, W.shape, X.shape)
    half = jaxdil.explain(conv)(X.astype(np.float16), W.astype(np.float16))
    assert half[0].bytes == 2 * sum(sizes)


# --- methods --------------------------------------------------------------------------------------


# Without those that need a dilated input, a second axis, windows side by side, groups or
# padding that is read alone.
PARTICULAR = (
    *("phases", "cudnn", "slabs", "patches", "expand", "split", "exchange"),
    *("even", "trim", "pallas_tpu", "pallas_gpu"),
)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in PARTICULAR])
def test_a_pinned_method_and_why(method):
    fn = functools.partial(jaxdil.conv, method=method, data_format="NCW")
    row, *gradients = jaxdil.explain(fn)(X, W)
    assert (row.method, row.because) == (method, "pinned by the caller")
    assert len(gradients) == 2


def test_a_pinned_method_that_cannot_serve_says_each_reason():
    fn = functools.partial(jaxdil.conv, method="phases", data_format="NCW")
    with pytest.raises(jaxdil.MethodError) as caught:
        jaxdil.explain(fn)(X, W)
    assert "method='phases' cannot serve the convolution" in str(caught.value)
    assert "phases: the input is not dilated" in str(caught.value)

    many = np.ones((1, 3, 300), np.float32)
    with pytest.raises(jaxdil.MethodError) as caught:
        jaxdil.explain(functools.partial(jaxdil.conv, method="correlate", data_format="NCW"))(
            many, W
        )
    message = str(caught.value)
    assert "correlate: 300 output positions" in message
    assert "phases: the input is not dilated" in message
    assert "Able: xla, taps, planes, even, margin, im2col, space_to_batch" in message


def test_each_platform_is_asked_for(monkeypatch):
    asked = []

    def choose(problem, *, pinned="auto", platform):
        asked.append(platform)
        return _dispatch.Choice("taps", f"for {platform}")

    monkeypatch.setattr(_dispatch, "choose", choose)
    for platform in ("cpu", "cuda", "rocm", "tpu"):
        row = jaxdil.explain(conv, platform=platform, gradients=False)(X, W)[0]
        assert (row.method, row.because) == ("taps", f"for {platform}")
    assert jaxdil.explain(conv)(X, W)[0].because == f"for {jax.default_backend()}"


def test_the_method_shown_is_the_method_that_runs():
    """For dense, grouped and transposed convolutions and their gradients, on this machine."""
    cases = [g for g in GEOMETRIES if g.rank < 3][::4]
    for g in cases:
        fn = functools.partial(jaxdil.conv, **g.options)
        shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (g.x_shape, g.w_shape)]
        row = jaxdil.explain(fn, gradients=False)(*shapes)[0]
        text = jax.jit(fn).lower(*shapes).as_text(debug_info=True)
        assert f"jaxdil.{row.method}" in text, g.name


def test_the_choice_of_every_platform_is_told(monkeypatch):
    def choose(problem, *, pinned="auto", platform):
        return _dispatch.Choice("taps" if platform == "tpu" else "xla", f"for {platform}"[:5])

    monkeypatch.setattr(_dispatch, "choose", choose)
    row = jaxdil.explain(conv, platform="cpu", gradients=False)(X, W)[0]
    assert {name: choice.method for name, choice in row.choices.items()} == {
        name: "taps" if name == "tpu" else "xla" for name in ("cpu", "cuda", "rocm", "tpu")
    }
    rows = jaxdil.explain(conv, platform="cpu", gradients=False)(X, W)
    assert str(rows).splitlines()[2].endswith("tpu: taps (for t)")


def test_an_unknown_platform_is_refused_before_anything_is_called():
    with pytest.raises(ValueError, match="explain: platform must be one of 'cpu', 'cuda'"):
        jaxdil.explain(conv, platform="metal")


# --- measuring ------------------------------------------------------------------------------------


def test_measured_times_and_their_totals():
    rows = jaxdil.explain(scanned, measure=True)(X, W)
    assert len(rows) == 3
    for row in rows:
        assert row.lax_ms > 0
        assert row.ms > 0
        assert row.cost == 5 * row.lax_ms
        assert (row.ms == row.lax_ms) == (row.method == "xla")
    head, *_, total = str(rows).splitlines()
    assert "lax ms" in head
    before, after = 5 * sum(row.lax_ms for row in rows), 5 * sum(row.ms for row in rows)
    assert f"{before:.3f} ms under lax, {after:.3f} ms here" in total


def test_one_convolution_is_measured_once(monkeypatch):
    raced = []
    monkeypatch.setattr(
        "jaxdil._explain.race", lambda calls: raced.append(calls) or [1.0, 0.5][: len(calls)]
    )
    rows = jaxdil.explain(lambda x, w: conv(conv(x, w), w), measure=True, gradients=False)(X, W)
    assert len(rows) == 2
    assert len(raced) == 1
    assert rows[0].lax_ms == rows[1].lax_ms == 1000


def test_integers_can_be_measured():
    row = jaxdil.explain(conv, measure=True)(X.astype(np.int32), W.astype(np.int32))[0]
    assert row.lax_ms > 0


def test_what_is_not_here_cannot_be_measured():
    elsewhere = "tpu" if jax.default_backend() == "cpu" else "cpu"
    with pytest.raises(ValueError, match="explain: measure=True needs the platform here"):
        jaxdil.explain(conv, platform=elsewhere, measure=True)


def test_a_bar_is_drawn_for_a_person_only(monkeypatch, capsys):
    from jaxdil._measure import progress

    assert list(progress([1, 2], total=2, what="here")) == [1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress([1, 2], total=2, what="here")) == [1, 2]
    assert "here [###############...............] 1/2" in capsys.readouterr().err


# --- the table ------------------------------------------------------------------------------------


def test_it_prints_as_a_table_with_totals():
    rows = jaxdil.explain(two)(X, W)
    text = str(rows)
    assert repr(rows) == text
    head, rule, *lines, total = text.splitlines()
    assert head.split() == [
        *("source", "name", "role", "x", "w", "y"),
        *("times", "MFLOP", "MB", "share", "method", "because", "elsewhere"),
    ]
    assert set(rule) == {"-", " "}
    assert len(lines) == len(rows) == 6
    for line, row in zip(lines, rows, strict=True):  # the first convolution is the costlier one
        assert line.startswith(row.source)
        assert row.role in line
        assert f" {row.method}" in line
        assert "x".join(map(str, row.x_shape)) in line
    assert total.startswith("6 convolutions (")
    assert total.endswith(f"{sum(row.flops for row in rows) / 1e9:.3f} GFLOP")
    shares = [
        float(word.removesuffix("%")) for line in lines for word in line.split() if "%" in word
    ]
    assert abs(sum(shares) - 100) < 0.05 * len(rows) + 1e-9  # each is printed to a tenth


def test_the_costliest_comes_first_in_the_table():
    def fn(x, w):
        return scanned(conv(x, w, 2), w)  # the first runs once, the second five times

    rows = jaxdil.explain(fn, gradients=False)(X, W)
    assert [row.times for row in rows] == [1, 5]
    lines = str(rows).splitlines()[2:-1]
    assert [line.split("3x3x3")[1].split()[1] for line in lines] == ["5", "1"]


def test_totals_count_every_run():
    rows = jaxdil.explain(scanned, gradients=False)(X, W)
    assert str(rows).splitlines()[-1].startswith(f"1 convolutions (1 {rows[0].method}), 5 runs")


def test_no_convolution_is_a_table_too():
    rows = jaxdil.explain(lambda x: x + 1)(X)
    assert rows == ()
    assert str(rows).splitlines()[-1] == "0 convolutions (none), 0 runs, 0.000 GFLOP"


def test_it_is_data():
    rows = jaxdil.explain(two)(X, W)
    assert isinstance(rows, tuple)
    assert sum(row.flops for row in rows if row.role == "forward") > 0
    assert all(row._asdict()["flops"] > 0 for row in rows)
    assert rows[0].problem.x_shape == (2, 9, 3)


# --- arguments ------------------------------------------------------------------------------------


def test_shapes_stand_for_arrays():
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (X, W)]
    assert jaxdil.explain(two)(*shapes) == jaxdil.explain(two)(X, W)
    large = jax.ShapeDtypeStruct((1000, 3, 10**7), np.float32)
    assert jaxdil.explain(conv, gradients=False)(large, W)[0].y_shape == (1000, 3, 10**7)


def test_other_arguments_pass_through():
    def fn(params, mode, *, dilation=1, key=None):
        assert mode == "train"
        return {"y": conv(params["x"], params["w"], dilation), "mode": mode}

    rows = jaxdil.explain(fn)({"x": X, "w": W}, "train", dilation=3)
    assert rows[0].problem.dilation == (3,)


def test_nothing_is_run():
    def fn(x, w):
        jax.debug.callback(lambda: pytest.fail("it ran"))
        return conv(x, w)

    assert len(jaxdil.explain(fn)(X, W)) == 3
    jax.effects_barrier()


def test_integers_have_no_gradients():
    x, w = X.astype(np.int32), W.astype(np.int32)
    assert [row.role for row in jaxdil.explain(conv)(x, w)] == ["forward"]
