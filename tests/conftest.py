"""What holds in every test: strict JAX, eight devices, reproducible random cases."""

import collections
import gc
import importlib.metadata
import os

# Read when JAX starts its backend (the last two when Matplotlib and Keras are imported), so before
# anything imports it.
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
# Nearly all time goes into compiling small programs: two fifths of that into what LLVM does to
# speed them up, half of the rest into the MLIR that XLA makes of each fusion on the way to LLVM,
# both none of ours, and a fifth of what then remains into splitting small modules for threads. The
# last word is the caller's: with
# XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" the suite runs
# as users compile. The doctests, `make demo` and the benchmarks, which check every result before
# they time it, do that anyway. A flag that XLA no longer has ends the process, so the second is set
# for the releases that are known to have it.
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false"
        if importlib.metadata.version("jaxlib").startswith(("0.8.", "0.9.", "0.10."))
        else "",
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
    )
)
os.environ["MPLBACKEND"] = "Agg"
os.environ["KERAS_BACKEND"] = "jax"

import hypothesis
import jax
import pytest

# Traces are many objects that live, and looking through them time and again takes a twentieth.
gc.set_threshold(20_000, 20, 50)

# Strict: the library may neither promote a dtype nor broadcast a rank without saying so.
# Tracebacks whole: JAX takes its own frames out by asking the file system about each frame, a tenth
# of the time of tests that expect errors.
STRICT = {
    "jax_traceback_filtering": "off",
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
}
USER = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}

# One profile everywhere: the cases are derived from the test, not from a clock, so that what fails
# in one place fails in every other. No deadline, because the first case of a shape compiles.
hypothesis.settings.register_profile(
    "jaxdil", derandomize=True, deadline=None, print_blob=True, database=None
)
hypothesis.settings.load_profile("jaxdil")


def configure(values):
    """Set options of JAX."""
    for name, value in values.items():
        jax.config.update(name, value)


configure(STRICT)


@pytest.fixture
def user_defaults():
    """JAX as a user finds it, for examples whose output is printed on a page."""
    configure(USER)
    yield
    configure(STRICT)


@pytest.fixture
def short_rows(monkeypatch):
    """The kernel of rows for a TPU cuts short rows into several blocks."""
    from jaxdil._pallas import plan_1d, tpu_1d

    monkeypatch.setattr(plan_1d, "ROWS", 32)
    monkeypatch.setattr(plan_1d, "CHANNELS", 128)
    monkeypatch.setattr(plan_1d, "MOST_ROWS", 128)
    monkeypatch.setattr(tpu_1d, "CHUNK", 16)


def pytest_addoption(parser):
    """A part of the suite that still has every test in it."""
    parser.addoption(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="of the cases of a parametrized test run the first and every Nth after it",
    )


@pytest.hookimpl(trylast=True)  # when -k and -m have chosen
def pytest_collection_modifyitems(config, items):
    """Leave out what ``--one-in`` does."""
    step = config.getoption("--one-in")
    met = collections.Counter()
    kept, left_out = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        (left_out if met[test] % step else kept).append(item)
        met[test] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
