"""tuning: what is measured, and that a table chooses where it may and nowhere else.

No test looks at how long something took: times are made up, so that what is chosen is known.
"""

import contextlib
import functools
import itertools
import json
import pickle
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import integers
from jax import lax

import jaxdil
from jaxdil import _device, _dispatch, _measure, tuning
from jaxdil._methods import METHODS, load, races
from jaxdil.tuning import Key, Table, Times, _tune

pytestmark = pytest.mark.core

X, W = integers(0, (2, 9, 8, 6)), integers(1, (3, 3, 1, 6))  # depthwise, channels last
DENSE = integers(2, (3, 3, 6, 4))
NUMBERS = ("NHWC", "HWIO", "NHWC")
HERE = _device.default_device()


# In one axis, for tests that compile every method.
X1, W1 = integers(0, (2, 7, 3)), integers(1, (3, 1, 3))


def line(x, w):
    return lax.conv_general_dilated(
        x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=3
    )


def line_loss(x, w):
    return (line(x, w) ** 2).sum()


def conv(x, w, dilation=1):
    return lax.conv_general_dilated(
        *(x, w, (1, 1), "SAME"),
        rhs_dilation=(dilation,) * 2,
        dimension_numbers=NUMBERS,
        feature_group_count=x.shape[-1] // w.shape[-2],
    )


def loss(x, w):
    return (conv(x, w) ** 2).sum()


def problems(fn, *args):
    """The distinct convolutions of a function, in their order."""
    return list(dict.fromkeys(row.problem for row in jaxdil.explain(fn, gradients=False)(*args)))


def times(method):
    """Times in which a method is the fastest."""
    return Times(tuple({method: 1.0, "xla": 20.0 if method != "xla" else 1.0}.items()), "1", "2")


def table_for(fn, *args, method, here=HERE):
    """A table that says of every convolution of a function that a method is the fastest."""
    return Table({Key(*here, problem): times(method) for problem in problems(fn, *args)})


def served(fn, *args):
    """The methods in the program of a function that is compiled now."""
    text = jax.jit(fn).lower(*args).as_text(debug_info=True)
    return {name for name in METHODS if f"jaxdil.{name}" in text}


def fresh(fn):
    """A function that JAX has not seen: what is installed is no key of its caches."""

    def again(*args):
        return fn(*args)

    return again


def chosen(fn, *args):
    return [row.method for row in jaxdil.explain(fn, gradients=False)(*args)]


@pytest.fixture(autouse=True)
def leaves_nothing_in_force():
    yield
    assert tuning.use(None) is None
    assert tuning.active() is None


@pytest.fixture
def measured(monkeypatch):
    """Stands for measuring; the convolutions that were asked for."""
    asked = []

    def stand_in(eqn, problem, platform, seconds):
        asked.append((problem, platform, seconds))
        return {"xla": 2e-3, "taps": 1e-3}

    monkeypatch.setattr(_tune, "_times", stand_in)
    return asked


# --- what is measured -----------------------------------------------------------------------------


def scanned(x, w):
    return lax.scan(lambda y, _: (conv(y, w), None), x, length=5)[0]


@jax.custom_vjp
def custom(x, w):
    return conv(x, w)


custom.defvjp(lambda x, w: (conv(x, w), (x, w)), lambda r, g: (conv(g, r[1], 2), r[1]))

FUNCTIONS = {
    "plain": (conv, 1),
    "jit": (jax.jit(conv), 1),
    "the same twice": (lambda x, w: conv(conv(x, w), w), 1),
    "two": (lambda x, w: conv(conv(x, w), w, 2), 2),
    "scan": (scanned, 1),
    "while": (lambda x, w: lax.while_loop(lambda y: y.sum() < 0, lambda y: conv(y, w), x), 1),
    "cond": (lambda x, w: lax.cond(x.sum() > 0, conv, lambda x, w: conv(x, w, 2), x, w), 2),
    "custom rule": (custom, 1),
    "grad of a custom rule": (jax.grad(lambda x, w: custom(x, w).sum()), 2),
    "grad by the kernel": (jax.grad(loss, 1), 2),
    # The gradient by the input of a convolution that keeps the size is one of the same sizes.
    "grad": (jax.grad(loss, (0, 1)), 2),
    "grad of checkpoint": (jax.grad(jax.checkpoint(loss), 1), 2),
    "step": (lambda x, w: w - jax.grad(jax.jit(loss), 1)(x, w), 2),
    "ours": (functools.partial(jaxdil.conv, groups=6), 1),
    "accelerated": (jaxdil.accelerate(conv), 1),
    "none": (lambda x, w: x + w.sum(), 0),
    "empty": (lambda x, w: conv(x[:0], w), 0),
}


@pytest.mark.parametrize("name", FUNCTIONS, ids=lambda name: name.replace(" ", "_"))
def test_every_convolution_is_measured_once(name, measured):
    fn, count = FUNCTIONS[name]
    table = tuning.tune(fn, X, W)
    assert len(table) == len(measured) == count
    assert set(table) == {
        Key(*HERE, problem) for problem in problems(fn, X, W) if not problem.is_empty
    }
    assert {platform for _, platform, _ in measured} <= {HERE[0]}


def test_shapes_stand_for_arrays_and_other_arguments_pass(measured):
    def fn(params, mode, *, dilation, activation=None):
        assert (mode, activation) == ("train", None)
        return conv(params["x"], params["w"], dilation)

    shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in (("x", X), ("w", W))}
    table = tuning.tune(fn, shapes, "train", dilation=2, seconds=7, activation=None)
    ((problem, _, seconds),) = measured
    assert (problem.dilation, seconds) == ((2, 2), 7)
    assert list(table) == [Key(*HERE, problem)]


def test_nothing_is_run(measured):
    def fn(x, w):
        jax.debug.callback(lambda: pytest.fail("it ran"))
        return conv(x, w)

    assert len(tuning.tune(fn, X, W)) == 1
    jax.effects_barrier()


def test_symbolic_sizes_are_left_alone(measured):
    (n,) = jax.export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((n, 9, 8, 6), np.float32)
    assert len(tuning.tune(lambda x: conv(x, jnp.ones((3, 3, 6, 4), x.dtype)), x)) == 0


def test_times_are_kept_with_their_releases(measured):
    (entry,) = tuning.tune(conv, X, W).values()
    assert entry.ms == (("taps", 1.0), ("xla", 2.0))
    assert entry.jax == jax.__version__
    assert entry.jaxlib


def test_a_bar_is_drawn_for_a_person(measured, monkeypatch, capsys):
    tuning.tune(conv, X, W)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tuning.tune(conv, X, W)
    assert "tune: measuring [" in capsys.readouterr().err


def able(problem):
    racing = [name for name in METHODS if races(name, HERE[0])]
    return [name for name in racing if load(name).supports(problem, HERE[0]) is None]


def raced(monkeypatch, seconds=None):
    """Stands for the clock: the methods' seconds in the order of METHODS; what each race was."""
    races = []

    def race(calls, **options):
        for call in calls:
            jax.block_until_ready(call())
        races.append((len(calls), options))
        return list(seconds or itertools.repeat(1.0, len(calls)))

    monkeypatch.setattr(_tune, "race", race)
    return races


@pytest.mark.parametrize("at", [0, 1, -1], ids=["lax", "the_second", "the_last"])
def test_the_fastest_of_all_able_methods_is_taken(at, monkeypatch):
    fn = jax.grad(line_loss, 1)
    names = {problem: able(problem) for problem in problems(fn, X1, W1)}
    assert all(n[0] == "xla" and len(n) > 1 for n in names.values())

    def race(calls, **_):  # where fewer methods are able, the race has fewer contenders
        return [0.5 if i == at % len(calls) else 1.0 + i for i in range(len(calls))]

    monkeypatch.setattr(_tune, "race", race)
    table = tuning.tune(fn, X1, W1)
    assert len(table) == len(names) == 2
    for key, entry in table.items():
        assert sorted(name for name, _ in entry.ms) == sorted(names[key.problem])
        assert entry.method == entry.ms[0][0] == names[key.problem][at]


def test_the_time_is_shared_by_the_contenders(monkeypatch):
    races = raced(monkeypatch)
    tuning.tune(line, X1, W1, seconds=3)
    count = len(able(problems(line, X1, W1)[0]))
    ((contenders, options),) = races
    assert contenders == count
    assert options["seconds"] == 3 / count


def test_it_measures():
    """Once with nothing made up."""
    table = tuning.tune(jax.grad(line_loss, 1), X1, W1, seconds=1e-3)
    assert len(table) == 2
    for key, entry in table.items():
        assert {name for name, _ in entry.ms} == set(able(key.problem))
        assert all(ms > 0 for _, ms in entry.ms)
    with table:
        gradient = jax.grad(line_loss, 1)(X1, W1)
    np.testing.assert_array_equal(gradient, jax.grad(line_loss, 1)(X1, W1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "complex64", "int8", "int32"])
def test_every_dtype_is_measured(dtype, monkeypatch):
    raced(monkeypatch)
    x, w = X1.astype(dtype), W1.astype(dtype)
    ((key, entry),) = tuning.tune(line, x, w).items()
    assert {name for name, _ in entry.ms} == set(able(key.problem))


def test_any_layout_and_negative_padding(monkeypatch):
    raced(monkeypatch)

    def fn(x, w):
        numbers = ("NCHW", "OIHW", "NHWC")
        pads = [(-1, 2), (1, -2)]
        return lax.conv_general_dilated(x, w, (1, 2), pads, dimension_numbers=numbers)

    x, w = np.moveaxis(X, -1, 1), DENSE.transpose(3, 2, 0, 1)
    ((key, entry),) = tuning.tune(fn, x, w).items()
    assert {name for name, _ in entry.ms} == set(able(key.problem))
    assert key.problem == problems(fn, x, w)[0]


# --- what is left out -----------------------------------------------------------------------------


def spoil(monkeypatch, method, change):
    """A method whose results are wrong."""
    module = load(method)
    apply = module.apply
    monkeypatch.setattr(module, "apply", lambda *args: change(apply(*args)))


WRONG = {
    "shifted": lambda y: jnp.roll(y, 1, -2),
    "one element": lambda y: y.at[0, 3, 0].add(1),
    "doubled": lambda y: 2 * y,
    "NaN": lambda y: y.at[0, 0, 0].set(np.nan),
    "zero": lambda y: 0 * y,
}


@pytest.mark.parametrize("fault", WRONG, ids=lambda name: name.replace(" ", "_"))
def test_a_method_with_another_result_than_lax(fault, monkeypatch):
    raced(monkeypatch)
    spoil(monkeypatch, "correlate", WRONG[fault])
    with pytest.warns(RuntimeWarning, match="'correlate' is left out for the convolution of x"):
        ((key, entry),) = tuning.tune(line, X1, W1).items()
    assert {name for name, _ in entry.ms} == set(able(key.problem)) - {"correlate"}


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64", "int32"])
def test_wrong_results_of_other_dtypes(dtype, monkeypatch):
    raced(monkeypatch)
    spoil(monkeypatch, "correlate", lambda y: jnp.roll(y, 1, -2))
    with pytest.warns(RuntimeWarning, match="its result"):
        tuning.tune(line, X1.astype(dtype), W1.astype(dtype))


def test_a_method_that_fails(monkeypatch):
    raced(monkeypatch)
    program = _tune._program

    def fails(eqn, arrays, method, **changes):
        if method == "taps":
            message = "RESOURCE_EXHAUSTED: out of memory\nmore"
            raise jax.errors.JaxRuntimeError(message)
        return program(eqn, arrays, method, **changes)

    monkeypatch.setattr(_tune, "_program", fails)
    with pytest.warns(RuntimeWarning, match="'taps' is left out .*: RESOURCE_EXHAUSTED: out of"):
        (entry,) = tuning.tune(line, X1, W1).values()
    assert "taps" not in dict(entry.ms)


def test_a_method_that_takes_too_much_memory(monkeypatch):
    """Unless it is what the rules take: a table is never worse than none."""
    raced(monkeypatch)
    assert chosen(line, X1, W1) == ["taps"]
    program, asked = _tune._program, []

    def noted(eqn, arrays, method, **changes):
        asked.append(method)
        return program(eqn, arrays, method, **changes)

    def temporaries(program):
        return 2**21 if asked[-1] in ("taps", "correlate") else 0

    monkeypatch.setattr(_tune, "_program", noted)
    monkeypatch.setattr(_tune, "_temporaries", temporaries)
    ((key, entry),) = tuning.tune(line, X1, W1).items()
    assert set(asked) == set(able(key.problem))
    assert {name for name, _ in entry.ms} == set(asked) - {"correlate"}


def test_measuring_does_not_look_at_the_table_in_force(monkeypatch):
    seen = []
    monkeypatch.setattr(_tune, "_times", lambda *_: seen.append(tuning.active()) or {"xla": 1.0})
    with table_for(conv, X, W, method="taps"):
        tuning.tune(conv, X, W)
        assert len(tuning.active()) == 1
    assert [len(table) for table in seen] == [0]


# --- the race -------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Contenders that take as long as they say."""
    now = [0.0]
    monkeypatch.setattr(_measure.time, "perf_counter", lambda: now[0])

    def contender(took):
        def call():
            call.calls += 1
            now[0] += took

        call.calls = 0
        return call

    return contender


def test_a_race_lasts_as_long_as_it_is_told(clock):
    calls = [clock(0.25), clock(0.5)]
    assert _measure.race(calls, seconds=2) == [0.25, 0.5]
    assert [call.calls for call in calls] == [1 + 8, 1 + 4]
    calls = [clock(0.25)]
    _measure.race(calls, seconds=2, most=5)
    assert calls[0].calls == 1 + 5
    slow = [clock(3.0), clock(0.01)]
    _measure.race(slow, seconds=2)
    assert slow[0].calls == 1 + _measure.LEAST


def test_the_hopeless_are_timed_no_further(clock):
    calls = [clock(0.25), clock(1.25), clock(5.0)]
    assert _measure.race(calls, seconds=4, hopeless=4) == [0.25, 1.25, 5.0]
    # One that is slow has its three turns, unless even these take too long.
    assert [call.calls for call in calls] == [1 + 16, 1 + 3, 1 + 1]


# --- what a table chooses -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["taps", "correlate", "space_to_batch", "xla"])
def test_the_method_of_the_table_runs(method):
    table = table_for(conv, X, W, method=method)
    with table:
        assert chosen(conv, X, W) == [method]
        assert method in served(jaxdil.accelerate(conv), X, W)
        y = jax.jit(jaxdil.accelerate(conv))(X, W)
    np.testing.assert_array_equal(y, conv(X, W))


def test_the_reason():
    where = f"(jaxdil table, {HERE[1]})"
    key = Key(*HERE, problems(conv, X, W)[0])
    for ms, method, text in [
        ((("xla", 3.4), ("taps", 0.123456)), "taps", "taps 0.123 ms, lax 3.4 ms"),
        ((("xla", 0.25), ("taps", 1234.5), ("correlate", 0.5)), "xla", "lax 0.25 ms, correlate"),
        ((("taps", 12345.6),), "taps", "taps 12346 ms (jaxdil"),
        ((("xla", 1.0),), "xla", "lax 1 ms (jaxdil"),
    ]:
        with Table({key: Times(ms, "1", "2")}):
            (row,) = jaxdil.explain(conv, gradients=False)(X, W)
        assert row.method == method
        assert row.because.startswith(f"measured: {text}")
        assert row.because.endswith(where)


def test_lax_stays_where_nothing_gains():
    for ms, method in [(0.96, "xla"), (0.94, "taps"), (1.0, "xla")]:
        entry = Times((("taps", ms), ("xla", 1.0)), "1", "2")
        assert entry.method == method
        assert entry.ranking[0] == method


def test_what_the_table_lacks_is_chosen_by_rule():
    with table_for(conv, X, W, method="correlate"):
        rows = jaxdil.explain(lambda x, w: conv(conv(x, w), w, 2), gradients=False)(X, W)
    assert [row.method for row in rows] == ["correlate", "taps"]
    assert rows[1].because.startswith("rule C5")


def test_a_pinned_method_stays():
    pinned = functools.partial(jaxdil.conv, groups=6, method="space_to_batch")
    half_pinned = functools.partial(jaxdil.conv, groups=6, method="phases or auto")
    with table_for(conv, X, W, method="correlate"):
        assert chosen(pinned, X, W) == ["space_to_batch"]
        assert chosen(half_pinned, X, W) == ["correlate"]  # phases cannot serve it


OTHERS = {
    "another CPU": (HERE[0], "Another CPU, 64 cores"),
    "more cores": (HERE[0], HERE[1].replace("core", "hundred core")),
    "another platform": ("tpu", HERE[1]),
    "a platform that is not here": ("tpu", "TPU v5e"),
}


@pytest.mark.parametrize("name", OTHERS, ids=lambda name: name.replace(" ", "_"))
def test_other_devices_are_ignored(name):
    with table_for(conv, X, W, method="correlate", here=OTHERS[name]):
        (row,) = jaxdil.explain(conv, gradients=False)(X, W)
        assert served(jaxdil.accelerate(conv), X, W) == {"taps"}
    assert row.because.startswith("rule C5")
    assert {name: choice.method for name, choice in row.choices.items()} == {
        **dict.fromkeys(("cuda", "rocm", "tpu"), "xla"),
        "cpu": "taps",
    }


def test_each_device_of_a_merged_table_has_its_own(monkeypatch):
    tables = [
        table_for(conv, X, W, method=method, here=here)
        for method, here in [("correlate", HERE), ("space_to_batch", ("tpu", "TPU v5e"))]
    ]
    monkeypatch.setattr("jaxdil.tuning._table.kind_here", {HERE[0]: HERE[1], "tpu": "TPU v5e"}.get)
    with tables[0] | tables[1]:
        (row,) = jaxdil.explain(conv, gradients=False)(X, W)
    assert row.method == "correlate"
    assert row.choices["tpu"].method == "space_to_batch"
    assert row.choices["cuda"].method == "xla"


def test_what_a_method_refuses_is_not_chosen():
    key = Key(*HERE, problems(conv, X, W)[0])
    assert "phases" not in able(key.problem)
    ms = (("phases", 0.1), ("correlate", 0.2), ("taps", 0.3), ("xla", 2.0))
    with Table({key: Times(ms, "1", "2")}):
        assert chosen(conv, X, W) == ["correlate"]  # the next that was measured
    with Table({key: Times(ms[:1], "1", "2")}):
        assert chosen(conv, X, W) == ["taps"]  # the rule


def test_parts_of_a_method_are_looked_up_too():
    def dilated(x, w):
        return conv(x, w, 2)

    parts = []
    choose = _dispatch.choose

    def noted(problem, **options):
        parts.append((problem, options))
        return choose(problem, **options)

    with pytest.MonkeyPatch.context() as patch, table_for(dilated, X, W, method="space_to_batch"):
        patch.setattr(_dispatch, "choose", noted)
        assert served(jaxdil.accelerate(dilated), X, W) == {"space_to_batch", "taps"}
    part = next(problem for problem, options in parts if options.get("within"))
    table = table_for(dilated, X, W, method="space_to_batch")
    with table | Table({Key(*HERE, part): times("correlate")}):
        assert served(jaxdil.accelerate(dilated), X, W) == {"space_to_batch", "correlate"}


def test_a_method_for_its_own_part_ends():
    """Nothing to split: `space_to_batch` hands the very problem on, padded."""

    def padded(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=NUMBERS, feature_group_count=6
        )

    with table_for(padded, X, W, method="space_to_batch"):
        assert served(jaxdil.accelerate(padded), X, W) == {"space_to_batch", "taps"}


def test_installed():
    with jaxdil.installed(), table_for(conv, X, W, method="correlate"):
        assert served(fresh(conv), X, W) == {"correlate"}
    with jaxdil.installed(method="taps"), table_for(conv, X, W, method="correlate"):
        assert served(fresh(conv), X, W) == {"taps"}


def test_exported():
    fn = jax.jit(jaxdil.accelerate(conv))
    with table_for(conv, X, W, method="correlate"):
        exported = jax.export.export(fn, platforms=("cpu", "tpu"))(X, W)
    # The artefact keeps its choice.
    np.testing.assert_array_equal(exported.call(X, W), conv(X, W))
    assert exported.mlir_module().count("stablehlo.convolution") == 1  # for the TPU


# --- in force, and no longer ----------------------------------------------------------------------

OURS = jaxdil.accelerate(conv)


def runs(fn, *args):
    """The methods in the code that a compiled function runs with now."""
    text = fn.lower(*args).compile().as_text()
    return {name for name in METHODS if f"jaxdil.{name}" in text}


def test_a_function_compiled_before_reacts_and_comes_back():
    traces = []

    @jax.jit
    def fn(x, w):
        traces.append(tuning.active())
        return OURS(x, w)

    a, b = (table_for(conv, X, W, method=method) for method in ("correlate", "space_to_batch"))
    expected = conv(X, W)
    for _ in range(3):
        np.testing.assert_array_equal(fn(X, W), expected)
        with a:
            np.testing.assert_array_equal(fn(X, W), expected)
            assert runs(fn, X, W) == {"correlate"}
        with b:
            np.testing.assert_array_equal(fn(X, W), expected)
            assert "space_to_batch" in runs(fn, X, W)
        assert runs(fn, X, W) == {"taps"}
    # Compiled once for each table, not once for each time. JAX counts the first table anew: from
    # then on tables are part of its keys.
    assert traces.count(a) == traces.count(b) == 1
    assert traces.count(None) <= 2


def test_equal_tables_share_what_is_compiled():
    traces = []
    fn = jax.jit(lambda x, w: traces.append(1) or OURS(x, w))
    for _ in range(3):
        with table_for(conv, X, W, method="correlate"):
            fn(X, W)
    assert len(traces) == 1


def test_without_jit():
    """Called eagerly, our own functions, transformed ones and loops react as well."""
    log = []
    choose = _dispatch.choose

    def noted(problem, **options):
        choice = choose(problem, **options)
        if options["platform"]:
            log.append(choice.method)
        return choice

    x, w = X[:, 1:, 1:], W  # sizes that no other test has compiled
    fns = [
        functools.partial(jaxdil.conv, groups=6),
        lambda x, w: lax.scan(lambda y, _: (OURS(y, w), None), x, length=2)[0],
        lambda x, w: jax.vmap(functools.partial(jaxdil.conv, groups=6), (0, None))(x[:, None], w),
    ]
    tables = [table_for(fn, x, w, method="correlate") for fn in fns]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dispatch, "choose", noted)
        for fn, table in zip(fns, tables, strict=True):
            fn(x, w)
            with table:
                log.clear()
                fn(x, w)
                assert log[-1] == "correlate"
            log.clear()
            fn(x, w)
            assert set(log) <= {"taps"}


def test_lowering_ahead_of_time():
    traced = jax.jit(OURS).trace(X, W)
    with table_for(conv, X, W, method="correlate"):
        assert "jaxdil.correlate" in traced.lower().as_text(debug_info=True)
    assert "jaxdil.taps" in traced.lower().as_text(debug_info=True)


def test_inside_a_traced_function_it_has_no_effect():
    table = table_for(conv, X, W, method="correlate")

    def fn(x, w):
        with table:
            return OURS(x, w)

    assert served(fn, X, W) == {"taps"}


def test_tables_nest():
    """The inner one first, then the outer, then the process's; left, each is as it was."""
    fns = [lambda x, w, d=d: conv(x, w, d) for d in (1, 2, 3)]
    one, two, three = (table_for(fn, X, W, method="correlate") for fn in fns)
    inner = table_for(fns[0], X, W, method="space_to_batch")

    def all_chosen():
        return [chosen(fn, X, W)[0] for fn in fns]

    with one:
        assert all_chosen() == ["correlate", "taps", "taps"]
        with two, inner:
            assert all_chosen() == ["space_to_batch", "correlate", "taps"]
            with one:
                assert all_chosen() == ["correlate", "correlate", "taps"]
            assert all_chosen() == ["space_to_batch", "correlate", "taps"]
        assert tuning.active() == one
        tuning.use(three)
        assert tuning.active() == one  # what it found when it was entered
        with inner:
            assert all_chosen() == ["space_to_batch", "taps", "taps"]
    assert tuning.active() == three
    with one:
        assert all_chosen() == ["correlate", "taps", "correlate"]
    tuning.use(None)


def test_a_table_may_be_entered_again_and_left_by_an_exception():
    table = table_for(conv, X, W, method="correlate")
    with table, table:
        assert tuning.active() == table
    with pytest.raises(ZeroDivisionError), table:
        raise ZeroDivisionError
    assert tuning.active() is None
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(table) is table
        assert chosen(conv, X, W) == ["correlate"]


def in_thread(fn):
    results = []
    thread = threading.Thread(target=lambda: results.append(fn()))
    thread.start()
    thread.join()
    return results[0]


def test_a_thread_has_its_own():
    table = table_for(conv, X, W, method="correlate")
    with table:
        assert in_thread(tuning.active) is None
        assert in_thread(lambda: chosen(conv, X, W)) == ["taps"]
    tuning.use(table)
    assert in_thread(tuning.active) == table
    assert in_thread(lambda: chosen(conv, X, W)) == ["correlate"]
    assert tuning.use(None) == table
    assert in_thread(tuning.active) is None


def test_threads_at_once():
    """Each thread enters tables of its own and calls the same compiled function."""
    fn = jax.jit(OURS)
    expected = conv(X, W)
    methods = ("correlate", "space_to_batch", "taps", "xla")
    tables = {method: table_for(conv, X, W, method=method) for method in methods}
    barrier = threading.Barrier(len(methods))
    failures = []

    def work(method):
        try:
            barrier.wait()
            for _ in range(3):
                with tables[method]:
                    np.testing.assert_array_equal(fn(X, W), expected)
                    assert method in runs(fn, X, W)
                    assert tuning.active() == tables[method]
                assert tuning.active() is None
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(method,)) for method in methods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_whole_process():
    a, b = (table_for(conv, X, W, method=method) for method in ("correlate", "space_to_batch"))
    fn = jax.jit(OURS)
    fn(X, W)
    assert tuning.use(a) is None
    assert tuning.active() == a
    assert runs(fn, X, W) == {"correlate"}  # compiled before, and compiled anew
    assert tuning.use(b) == a
    assert "space_to_batch" in runs(fn, X, W)
    assert tuning.use(None) == b
    assert tuning.active() is None
    assert runs(fn, X, W) == {"taps"}


def test_using_the_same_table_again_keeps_what_is_compiled():
    tuning.use(table_for(conv, X, W, method="correlate"))
    traces = []
    fn = jax.jit(lambda x, w: traces.append(1) or OURS(x, w))
    fn(X, W)
    tuning.use(table_for(conv, X, W, method="correlate"))
    fn(X, W)
    assert len(traces) == 1
    tuning.use(None)


def test_import_compiles_nothing_anew():
    """JAX's context for tables is made when the first is entered, and not before.

    JAX 0.12 traces anew once its own ``jax.extend`` is imported, so that comes first.
    """
    code = """
import jax, jax.extend
traces = []
fn = jax.jit(lambda x: traces.append(1) or x + 1)
fn(1.0)
import jaxdil
from jaxdil import tuning
tuning.active(), jaxdil.explain(jaxdil.depthwise_conv)(jax.numpy.ones((1, 9, 4)),
                                                       jax.numpy.ones((3, 4, 1)))
fn(1.0)
print(len(traces))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr


# --- a table as a value ---------------------------------------------------------------------------


def test_it_is_an_immutable_mapping():
    table = table_for(conv, X, W, method="taps")
    (key,) = table
    assert table[key] == times("taps")
    assert (len(table), key in table, table.get("none"), len(Table())) == (1, True, None, 0)
    assert dict(table) == {key: times("taps")}
    with pytest.raises(TypeError):
        table[key] = times("xla")
    entries = {key: times("taps")}
    again = Table(entries)
    entries.clear()
    assert again == table
    assert hash(again) == hash(table)
    assert again != Table()
    assert table != dict(table)
    assert pickle.loads(pickle.dumps(table)) == table


def test_times_are_in_order():
    key = Key(*HERE, problems(conv, X, W)[0])
    ms = (("xla", 3.0), ("taps", 1.0), ("correlate", 2.0))
    table = Table({key: Times(ms, "1", "2")})
    assert table[key].ms == (("taps", 1.0), ("correlate", 2.0), ("xla", 3.0))
    assert table == Table({key: Times(ms[::-1], "1", "2")})
    assert table.ranking(key.problem, HERE[0])[0][0] == "taps"
    assert table.ranking(key.problem, None) == ()


def test_merging():
    a = table_for(conv, X, W, method="taps")
    b = table_for(conv, X, W, method="correlate")
    c = table_for(conv, X, W, method="taps", here=("tpu", "TPU v5e"))
    (key,) = a
    assert (a | b)[key].method == "correlate"
    assert (b | a)[key].method == "taps"
    assert len(a | c) == 2
    assert (a | c).devices == tuple(sorted((HERE[1], "TPU v5e")))
    assert a.merge(c, b) == a | c | b
    assert a.merge() == a
    assert len(a) == 1
    with pytest.raises(TypeError):
        a | {}


def test_it_prints_as_a_table():
    def fn(x, w):
        return lax.conv_general_dilated(
            x, w, (2, 1), [(1, 1)] * 2, (1, 3), (1, 2), NUMBERS, feature_group_count=6
        )

    table = table_for(fn, X, W, method="taps") | table_for(jax.grad(loss, 1), X, W, method="xla")
    head, _, first, *_, total = str(table).splitlines()
    assert head.split()[:4] == ["x", "w", "y", "window"]
    assert first.startswith("2x9x8x6")
    assert "stride 2x1, dilation 1x2, input dilation 1x3, groups 6  float32  taps" in first
    assert first.split("taps")[1].split()[:3] == ["1", "20", "20.0x"]
    assert "batch groups 6" in str(table)
    assert total == "3 convolutions measured"
    assert str(Table()).splitlines()[-1] == "0 convolutions measured"
    (key,) = table_for(conv, X, W, method="taps")
    assert "1 convolution measured" in str(Table({key: Times((("taps", 1.0),), "1", "2")}))


# --- files ----------------------------------------------------------------------------------------


def everything():
    """A table of several devices, dtypes, precisions and releases."""

    def pair(dtype):
        return X.astype(dtype), W.astype(dtype)

    def precise(x, w):
        return lax.conv_general_dilated(
            *(x, w, (1, 1), [(2, 0), (0, 1)]),
            dimension_numbers=NUMBERS,
            feature_group_count=6,
            precision=("high", "highest"),
            preferred_element_type=np.float64,
        )

    tables = [table_for(conv, *pair(dtype), method="taps") for dtype in ("bfloat16", "complex64")]
    tables += [table_for(precise, *pair(np.float32), method="correlate")]
    tables += [table_for(jax.grad(loss, 1), X, W, method="xla", here=("tpu", "TPU “v5e”"))]
    (key,) = table_for(conv, X, W, method="taps")
    uneven = Times((("taps", 0.1), ("xla", 1 / 3)), "9.9.9", "9.9.8")
    return Table().merge(*tables, Table({key: uneven}))


def test_saved_and_loaded(tmp_path):
    table = everything()
    path = tmp_path / "table.json"
    table.save(path)
    loaded = tuning.load(path)
    assert loaded == table
    assert dict(loaded) == dict(table)
    assert tuning.load(str(path)) == table
    table.save(str(path))  # replaced
    assert tuning.load(path) == table
    Table().save(path)
    assert tuning.load(path) == Table()


def test_a_loaded_table_chooses(tmp_path):
    table_for(conv, X, W, method="correlate").save(tmp_path / "a.json")
    other = table_for(conv, X, W, method="taps", here=("tpu", "TPU v5e"))
    with tuning.load(tmp_path / "a.json") | other:
        assert chosen(conv, X, W) == ["correlate"]
    (other | tuning.load(tmp_path / "a.json")).save(tmp_path / "b.json")
    with tuning.load(tmp_path / "b.json"):
        assert "correlate" in served(jaxdil.accelerate(conv), X, W)


def test_a_file_can_be_read_by_people(tmp_path):
    path = tmp_path / "table.json"
    table = everything()
    table.save(path)
    told = json.loads(path.read_text())
    assert (told["format"], told["version"]) == ("jaxdil table", 2)
    heads = [tuple(d[n] for n in ("platform", "device", "jax", "jaxlib")) for d in told["devices"]]
    assert heads == sorted(heads)
    assert (*HERE, "9.9.9", "9.9.8") in heads
    lines = [line for line in path.read_text().splitlines() if '"batch"' in line]
    assert len(lines) == len(table)  # a line for each
    first = json.loads(lines[0].strip().removesuffix(","))
    assert first["best"] in METHODS
    assert set(first["milliseconds"]) <= set(METHODS)
    assert {"HIGH", "HIGHEST"} <= set(path.read_text().replace('"', " ").split())


def edited(tmp_path, edit):
    """A saved table, its JSON changed by hand."""
    path = tmp_path / "table.json"
    table_for(conv, X, W, method="taps").save(path)
    told = json.loads(path.read_text())
    edit(told, told["devices"][0]["convolutions"][0])
    path.write_text(json.dumps(told))
    return path


EDITS = {
    "another format": (lambda t, c: t.update(format="other"), 'its "format" is not "jaxdil table"'),
    "an older version": (
        lambda t, c: t.update(version=1),
        "the version of the format must be 2, got 1\n  Another release of jaxdil wrote it.",
    ),
    "no version": (lambda t, c: t.pop("version"), "must be 2, got None"),
    "no devices": (lambda t, c: t.pop("devices"), "an entry cannot be read (KeyError: 'devices')"),
    "unknown method": (
        lambda t, c: c["milliseconds"].update(winograd=1.0),
        "methods must be among 'xla', 'taps'",
    ),
    "no method": (lambda t, c: c["milliseconds"].clear(), "must have the time of a method"),
    "a time of zero": (
        lambda t, c: c["milliseconds"].update(taps=0),
        "the time of 'taps' must be positive and finite, got 0",
    ),
    "no time": (lambda t, c: c["milliseconds"].update(taps=None), "an entry cannot be read"),
    "a missing field": (lambda t, c: c.pop("stride"), "an entry cannot be read (KeyError: 'str"),
    "half a sample": (lambda t, c: c.update(size=[1.5, 2]), "1.5 is no integer"),
    "unknown dtype": (lambda t, c: c.update(x_dtype="float7"), "an entry cannot be read"),
    "a nameless device": (lambda t, c: t["devices"][0].update(device=3), "3 is no string"),
    "a list": (lambda t, c: t.update(devices=[[]]), "an entry cannot be read"),
}


@pytest.mark.parametrize("name", EDITS, ids=lambda name: name.replace(" ", "_"))
def test_a_file_that_is_no_table_is_refused(name, tmp_path):
    edit, message = EDITS[name]
    path = edited(tmp_path, edit)
    with pytest.raises(ValueError, match=r"tuning\.load") as caught:
        tuning.load(path)
    assert str(caught.value).startswith(f"tuning.load({str(path)!r}): ")
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe\x00", b"{", b"null", b'"table"'])
def test_what_is_no_json_is_refused(content, tmp_path):
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a table"):
        tuning.load(path)


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is none at .*\n  table.save\(path\)"):
            tuning.load(path)


# --- other refusals -------------------------------------------------------------------------------


def test_wrong_arguments():
    (key,) = table_for(conv, X, W, method="taps")
    for call, kind, message in [
        (lambda: tuning.tune(3), TypeError, "tuning.tune: fn must be a function, got 3"),
        (lambda: tuning.tune(conv, X, W, seconds=0), ValueError, "seconds must be a positive numb"),
        (lambda: tuning.tune(conv, X, W, seconds="1"), ValueError, "number, got '1'"),
        (lambda: tuning.tune(conv, X, W, seconds=True), ValueError, "number, got True"),
        (lambda: tuning.tune(conv, X, W, seconds=float("nan")), ValueError, "got nan"),
        (lambda: tuning.load(3), TypeError, "tuning.load: path must be that of a file, got 3"),
        (lambda: tuning.use("table.json"), TypeError, "tuning.use: table must be a Table or None"),
        (lambda: Table().merge({}), TypeError, "Table.merge: others must be tables, got {}"),
        (lambda: Table({1: 2}), TypeError, "tuning.Table: entries must be from Key to Times"),
        (
            lambda: Table({key: Times((("fft", 1.0),), "1", "2")}),
            ValueError,
            "tuning.Table: methods must be among 'xla', 'taps'",
        ),
        (lambda: Table({key: Times((), "1", "2")}), ValueError, "must have the time of a method"),
    ]:
        with pytest.raises(kind) as caught:
            call()
        assert message in str(caught.value)


# --- devices --------------------------------------------------------------------------------------


class Device:
    def __init__(self, platform, kind):
        self.platform, self.device_kind = platform, kind


def test_a_cpu_is_named_by_model_and_cores(monkeypatch):
    assert HERE[1] == _device.kind_here(HERE[0])
    monkeypatch.setattr(_device, "cpu_model", lambda: "A CPU")
    for count, name in [(1, "A CPU, 1 core"), (8, "A CPU, 8 cores")]:
        monkeypatch.setattr(_device, "cores", lambda count=count: count)
        assert _device.kind_here("cpu") == name
    assert _device.kind_here("tpu") is None
    assert _device.kind_here(None) is None


def test_other_devices_are_named_by_jax(monkeypatch):
    kinds = ["NVIDIA H100", "NVIDIA H100"]
    monkeypatch.setattr(
        jax, "local_devices", lambda backend: [Device("gpu", kind) for kind in kinds]
    )
    assert _device.kind_here("cuda") == "NVIDIA H100"
    kinds.append("NVIDIA A100")
    assert _device.kind_here("cuda") is None  # which one will run it?


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\ncpu MHz\t: 2596\n", "AMD EPYC"),
        ("processor: 0\nCPU implementer: 0x41\nCPU part: 0xd0c\n", "here 0x41 0xd0c"),
        ("model name: AMD EPYC\nflags: fpu avx avx2\n", "AMD EPYC (AVX2)"),
        ("model name: AMD EPYC\nflags: avx2 avx512f avx512_bf16\n", "AMD EPYC (AVX-512)"),
        ("", "here"),
    ],
    ids=["x86", "ARM", "AVX2", "AVX-512", "unknown"],
)
def test_the_model_of_a_cpu(lines, name, monkeypatch):
    monkeypatch.setattr(_device.sys, "platform", "linux")
    monkeypatch.setattr(_device.pathlib.Path, "exists", lambda _: True)
    monkeypatch.setattr(_device.pathlib.Path, "read_text", lambda _: lines)
    monkeypatch.setattr(_device.platform, "machine", lambda: "here")
    monkeypatch.setattr(_device.platform, "processor", lambda: "")
    _device._flags.cache_clear()
    try:
        assert _device.cpu_model.__wrapped__() == name
        assert _device.multiplies_bfloat16() == ("bf16" in lines)
    finally:
        _device._flags.cache_clear()
