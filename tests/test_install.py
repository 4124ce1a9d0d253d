"""install: what a process compiles is served by our choice, and uninstall leaves no trace."""

import functools
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import integers
from jax import lax
from jax.interpreters import mlir

import jaxdil
from jaxdil._methods import METHODS

pytestmark = pytest.mark.core

X, W = integers(0, (2, 9, 8, 6)), integers(1, (3, 3, 1, 6))  # depthwise, channels last
NUMBERS = ("NHWC", "HWIO", "NHWC")
CONV = lax.conv_general_dilated_p


def depthwise(x, w, stride=1):
    return lax.conv_general_dilated(
        x, w, (stride,) * 2, "SAME", dimension_numbers=NUMBERS, feature_group_count=w.shape[-1]
    )


def loss(x, w):
    return (depthwise(x, w, 2) ** 2).sum()


def fresh(fn):
    """A function that JAX has not seen, so that it is compiled anew."""

    def again(*args):
        return fn(*args)

    return again


def served(fn, *args):
    """The methods that serve a function compiled now, and how many convolutions are left to XLA."""
    text = jax.jit(fresh(fn)).lower(*args).as_text(debug_info=True)
    return {name for name in METHODS if f"jaxdil.{name}" in text}, text.count("stablehlo.conv")


def entries():
    """The lowering rules of lax's convolution and of ours, on every platform."""
    tables = mlir._platform_specific_lowerings
    return {
        (platform, str(primitive)): entry
        for platform in list(tables)
        for primitive, entry in tables[platform].items()
        if "conv" in str(primitive)
    } | {("", "common"): mlir._lowerings[CONV]}


@pytest.fixture(autouse=True)
def leaves_no_trace():
    before = entries()
    yield
    jaxdil.uninstall()
    after = entries()
    assert before.keys() == after.keys()
    assert all(before[key] is after[key] for key in before)


# --- what it does ---------------------------------------------------------------------------------


def test_off_by_default():
    assert jaxdil.installed_platforms() == ()
    assert served(depthwise, X, W) == (set(), 1)


def test_everything_compiled_is_served():
    jaxdil.install(platforms="cpu")
    assert served(depthwise, X, W) == ({"taps"}, 0)
    gradients = jax.grad(loss, (0, 1))
    assert served(gradients, X, W) == ({"taps", "phases", "correlate"}, 0)
    np.testing.assert_array_equal(jax.jit(fresh(depthwise))(X, W), reference(depthwise, X, W))
    for ours, theirs in zip(
        jax.jit(fresh(gradients))(X, W), reference(gradients, X, W), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    # What is dense stays with lax, which is not chosen for again.
    assert served(lambda x: lax.conv(x, x, (1, 1), "SAME"), jnp.ones((4, 4, 5, 5))) == ({"xla"}, 1)


def reference(fn, *args):
    """What a process without jaxdil installed computes."""
    installed = jaxdil.installed_platforms()
    jaxdil.uninstall()
    try:
        return jax.jit(fresh(fn))(*args)
    finally:
        if installed:
            jaxdil.install(platforms=installed)


TRANSFORMED = {
    "without jit": depthwise,
    "jit": jax.jit(depthwise),
    "scan": lambda x, w: lax.scan(lambda y, _: (depthwise(y, w), None), x, length=2)[0],
    "grad of checkpoint": jax.grad(jax.checkpoint(loss), (0, 1)),
    "per-example gradients": jax.vmap(jax.grad(lambda w, x: loss(x[None], w)), (None, 0)),
    "jvp": lambda x, w: jax.jvp(depthwise, (x, w), (x, w)),
}


@pytest.mark.parametrize("name", TRANSFORMED, ids=lambda name: name.replace(" ", "_"))
def test_under_transformations(name):
    fn = TRANSFORMED[name]
    args = (W, X) if name == "per-example gradients" else (X, W)
    expected = reference(fn, *args)
    with jaxdil.installed():
        methods, left = served(fn, *args)
        assert methods - {"xla"}
        assert left == 0
        jax.tree.map(np.testing.assert_array_equal, fresh(fn)(*args), expected)
        jax.tree.map(np.testing.assert_array_equal, jax.jit(fresh(fn))(*args), expected)


def test_programs_are_laxs_own():
    """Only what a program becomes changes: tools that read programs see lax's primitive."""
    plain = str(jax.make_jaxpr(jax.grad(loss))(X, W))
    with jaxdil.installed():
        assert str(jax.make_jaxpr(jax.grad(loss))(X, W)) == plain


def transposed(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), [(2, 2), (1, 2)], lhs_dilation=(2, 1), dimension_numbers=NUMBERS
    )


def dilated(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", rhs_dilation=(2, 2), dimension_numbers=NUMBERS
    )


def embedded(x, w):
    """Windows of w that tile the image."""
    return lax.conv_general_dilated(x, w, w.shape[:2], "VALID", dimension_numbers=NUMBERS)


def odd(x, w):
    """Of three channels."""
    return dilated(x[..., :3], w[:, :, :3])


# Kernels have no doubles, and tests of their own.
@pytest.mark.parametrize("method", [m for m in METHODS if not m.startswith("pallas")])
def test_a_pinned_method_serves_what_it_can(method):
    dense = integers(2, (3, 2, 6, 4))
    seen = set()
    calls = [(depthwise, W), (jax.grad(loss, 1), W)]
    calls += [(fn, dense) for fn in (transposed, dilated, embedded, odd)]
    calls += [(jax.grad(lambda x, w: transposed(x, w).sum(), 1), dense)]
    for fn, w in calls:
        expected = reference(fn, X, w)
        with jaxdil.installed(method=f"{method} or auto"):
            seen |= served(fn, X, w)[0]
            np.testing.assert_array_equal(jax.jit(fresh(fn))(X, w), expected)
    assert method in seen


def test_strictly_pinned_it_raises_where_the_method_cannot_serve():
    with (
        jaxdil.installed(method="phases"),
        pytest.raises(jaxdil.MethodError, match="phases: the input is not dilated"),
    ):
        jax.jit(fresh(depthwise))(X, W)


def test_the_pin_of_our_own_functions_is_kept():
    """What a caller pins to lax is lax's, also where the same convolution is chosen for."""

    def both(x, w):
        return depthwise(x, w) + jaxdil.conv(x, w, groups=6, method="xla")

    with jaxdil.installed():
        assert served(both, X, W) == ({"taps", "xla"}, 1)


def test_complex_and_empty_convolutions():
    z = integers(3, (1, 6, 5, 6)) * (1 + 2j)
    expected = reference(depthwise, z, W + 0j)
    with jaxdil.installed():
        np.testing.assert_array_equal(jax.jit(fresh(depthwise))(z, W + 0j), expected)
        assert jax.jit(fresh(depthwise))(X[:0], W).shape == (0, 9, 8, 6)


def test_exported_programs_have_a_choice_a_platform():
    shapes = [jax.ShapeDtypeStruct(a.shape, np.float32) for a in (X, W)]
    with jaxdil.installed(platforms="cpu"):
        exported = jax.export.export(jax.jit(fresh(depthwise)), platforms=("cpu", "cuda", "tpu"))
        text = str(exported(*shapes).mlir_module())
    assert text.count("stablehlo.convolution") >= 1  # for cuda and tpu
    np.testing.assert_allclose(
        exported(*shapes).call(X.astype(np.float32), W.astype(np.float32)), depthwise(X, W)
    )


# --- on and off -----------------------------------------------------------------------------------


def test_platforms():
    jaxdil.install(platforms="cpu")
    assert jaxdil.installed_platforms() == ("cpu",)
    jaxdil.install(platforms=("gpu", "cpu"))
    assert jaxdil.installed_platforms() == ("cpu", "cuda", "rocm")
    jaxdil.uninstall(platforms="cuda")
    assert jaxdil.installed_platforms() == ("cpu", "rocm")
    jaxdil.install()
    assert jaxdil.installed_platforms() == ("cpu", "cuda", "rocm", "tpu")
    jaxdil.uninstall()
    assert jaxdil.installed_platforms() == ()
    jaxdil.install(platforms="tpu")
    assert served(depthwise, X, W) == (set(), 1)


def test_twice_is_once():
    jaxdil.install()
    first = served(depthwise, X, W)
    jaxdil.install()
    assert served(depthwise, X, W) == first
    jaxdil.uninstall()
    assert served(depthwise, X, W) == (set(), 1)
    jaxdil.uninstall()  # harmless


def test_for_a_stretch():
    with jaxdil.installed():
        assert served(depthwise, X, W)[0] == {"taps"}
        with jaxdil.installed(method="xla"):
            assert served(depthwise, X, W) == ({"xla"}, 1)
        assert served(depthwise, X, W)[0] == {"taps"}
    assert jaxdil.installed_platforms() == ()

    jaxdil.install(platforms="cpu")
    with pytest.raises(ZeroDivisionError), jaxdil.installed():
        raise ZeroDivisionError
    assert jaxdil.installed_platforms() == ("cpu",)


def test_functions_compiled_before_keep_their_code_until_caches_are_cleared():
    before = jax.jit(fresh(depthwise))
    before(X, W)
    with jaxdil.installed():
        assert "jaxdil.taps" not in before.lower(X, W).compile().as_text()
        jax.clear_caches()
        assert "jaxdil.taps" in before.lower(X, W).compile().as_text()
    jax.clear_caches()
    assert "jaxdil.taps" not in before.lower(X, W).compile().as_text()


def test_threads():
    """Many threads that install, compile and uninstall at once: right results, and no trace."""
    expected = reference(depthwise, X, W)
    failures = []

    def work():
        try:
            for _ in range(3):
                with jaxdil.installed():
                    np.testing.assert_array_equal(jax.jit(fresh(depthwise))(X, W), expected)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_import_order_does_not_matter():
    """A name that was taken from jax.lax beforehand is served as well."""
    code = """
from jax.lax import conv_general_dilated
import jax, jax.numpy as jnp
fn = lambda x, w: conv_general_dilated(x, w, (1,), "SAME", feature_group_count=4)
import jaxdil
jaxdil.install()
from jax.lax import conv_general_dilated as later
text = jax.jit(fn).lower(jnp.ones((1, 4, 8)), jnp.ones((4, 1, 3))).as_text(debug_info=True)
assert "jaxdil.taps" in text
fn = lambda x, w: later(x, w, (1,), "SAME", feature_group_count=4)
text = jax.jit(fn).lower(jnp.ones((1, 4, 8)), jnp.ones((4, 1, 3))).as_text(debug_info=True)
print("jaxdil.taps" in text)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


# --- what it rests on -----------------------------------------------------------------------------


def test_the_private_names_of_jax_that_install_uses():
    """If this fails, JAX has renamed its tables of lowering rules: see jaxdil/_install.py."""
    common, tables = mlir._lowerings, mlir._platform_specific_lowerings
    assert CONV in common
    assert CONV in tables["cpu"]
    entry = tables["cpu"][CONV]
    mlir.register_lowering(CONV, lambda *_, **__: None, platform="cpu")
    assert tables["cpu"][CONV] is not entry
    tables["cpu"][CONV] = entry


@pytest.mark.parametrize("function", ["install", "uninstall", "installed"])
def test_unknown_platforms_and_methods(function):
    def call(**options):
        made = getattr(jaxdil, function)(**options)
        if function == "installed":
            made.__enter__()

    with pytest.raises(ValueError, match="platforms must be among 'cpu', 'cuda', 'rocm', 'tpu'"):
        call(platforms="metal")
    with pytest.raises(ValueError, match="got 'CPU'"):
        call(platforms=["cpu", "CPU"])
    with pytest.raises(TypeError, match="platforms must be a name or several"):
        call(platforms=3)
    if function != "uninstall":
        with pytest.raises(ValueError, match="method must be 'auto' or one of"):
            call(method="fft")
        with pytest.raises(TypeError, match="method must be a string"):
            call(method=functools.partial)
    assert jaxdil.installed_platforms() == ()
