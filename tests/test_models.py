"""accelerate on models of Flax, Haiku and Equinox: the same numbers, and the same training."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import export
from models import (
    assert_as_good,
    assert_explained,
    assert_learns,
    convolutions,
    named,
    perturbed,
    trained,
)

import jaxdil
from benchmarks import zoo
from jaxdil._methods import METHODS, goes, taps

pytestmark = pytest.mark.usefixtures("user_defaults")

# The size of an example, small; the rate of descent; how many convolutions there are forward; and
# how many of them read the examples, so that no gradient by their input is wanted.
MODELS = {
    "haiku-mobilenet-v1": (32, 0.05, 11, 1),
    "haiku-resnet": (32, 0.01, 17, 1),
    "haiku-wavenet": (64, 0.05, 33, 1),
    "linen-separable": (32, 0.05, 11, 1),
    "linen-deeplab": (20, 0.05, 8, 5),
    "linen-unet-3d": (8, 0.05, 8, 1),
    "linen-dp-sgd": (16, 0.05, 2, 1),
    "nnx-convnext": (16, 0.02, 4, 1),
    "nnx-replknet": (64, 0.05, 5, 1),
    "equinox-autoencoder": (16, 0.05, 4, 1),
    "equinox-mamba": (16, 0.05, 2, 0),
}
# Run with the oldest JAX too: one of each library.
CORE = ("haiku-mobilenet-v1", "linen-dp-sgd", "nnx-convnext", "equinox-mamba")
# LLVM sees loops, no convolutions, and takes half of the time of a compilation.
QUICK = {"xla_backend_optimization_level": 0}


@functools.cache
def built(name, **options):
    pytest.importorskip(zoo.select(name).library)
    return zoo.build(name, size=MODELS[name][0], batch=2, narrow=True, **options)


def stepping(name):
    """One step of training, and inference beside it."""
    model = built(name)
    descend = zoo.descend(model, MODELS[name][1])

    def step(params, state, batch):
        after, later, result = descend(params, state, batch)
        inference = model.forward(params, state, batch[0])
        return after, later, {**result._asdict(), "inference": inference}

    return step


def run(step, model, seed=0):
    return trained(step, *perturbed((model.params, model.state, model.batch), seed))


def jit(fn):
    return jax.jit(fn, compiler_options=QUICK)


@functools.cache
def plain_runs(name):
    """The plain model's training, and the same with everything changed in its last places."""
    step = jit(stepping(name))
    return [run(step, built(name), seed) for seed in range(5)]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.core if n in CORE else ()) for n in MODELS]
)
def test_an_accelerated_model_is_the_model(name):
    model = built(name)
    expected, *others = plain_runs(name)
    assert_learns(expected)
    assert_as_good(run(jit(jaxdil.accelerate(stepping(name))), model), expected, others)
    *_, layers, first = MODELS[name]
    step = zoo.descend(model, 0.1)
    rows = assert_explained(step, model.params, model.state, model.batch, count=3 * layers - first)
    roles = [row.role for row in rows]
    assert roles.count("forward") == roles.count("kernel gradient") == layers


def test_a_scan_runs_its_convolutions_once_a_stack():
    model = built("haiku-wavenet")
    rows = jaxdil.explain(model.forward, gradients=False)(model.params, model.state, model.batch[0])
    assert [row.times for row in rows] == [1, *[2] * 30, 1, 1]
    dilations = [row.problem.dilation[0] for row in rows if row.problem.taps == 2]
    assert dilations == [1, *(2**i for i in range(10))]


# --- the check itself -----------------------------------------------------------------------------


def flipped(x, w, problem, conv):
    return honest(x, w[::-1], problem, conv)


def rounded(x, w, problem, conv):
    return honest(x, w.astype(jnp.bfloat16).astype(w.dtype), problem, conv)


def shifted(x, w, problem, conv):
    return jnp.roll(honest(x, w, problem, conv), 1, axis=1)


honest = taps.apply


@pytest.mark.parametrize("fault", [flipped, rounded, shifted])
def test_a_fault_in_one_method_is_beyond_the_budget(fault, monkeypatch):
    name = "linen-dp-sgd"
    expected, *others = plain_runs(name)
    monkeypatch.setattr(taps, "apply", fault)
    got = run(jit(jaxdil.accelerate(stepping(name))), built(name))
    with pytest.raises(AssertionError, match="beyond their rounding budget"):
        assert_as_good(got, expected, others)


# --- a convolution named in the layer -------------------------------------------------------------


@pytest.mark.parametrize("name", ["linen-separable", "nnx-replknet"])
def test_the_field_of_a_layer_of_flax(name):
    # `conv_general_dilated=` of Linen and of NNX: the same convolutions, gradients included, as
    # `accelerate` makes, and the same numbers.
    plain, ours = built(name), built(name, conv_general_dilated=jaxdil.conv_general_dilated)
    args = (plain.params, plain.state, plain.batch)
    *_, layers, first = MODELS[name]
    assert convolutions(ours.train, *args) == (0, 3 * layers - first)
    problems = [
        sorted(str(row.problem) for row in jaxdil.explain(model.train)(*args))
        for model in (plain, ours)
    ]
    assert problems[0] == problems[1]
    args = (plain.params, plain.state, plain.batch[0])
    got, expected = (
        named(jit(fn)(*args)) for fn in (ours.forward, jaxdil.accelerate(plain.forward))
    )
    for path, array in expected.items():
        assert (got[path] == array).all()


# --- one artefact for three platforms -------------------------------------------------------------

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(step, *args):
    """``step`` from a file in which it stands lowered for each platform, and that file's program.

    As arrays in a list: how a library names its trees is no part of a file.
    """
    leaves, tree = jax.tree.flatten(args)
    after = jax.tree.structure(jax.eval_shape(step, *args))

    def flat(*leaves):
        return jax.tree.leaves(step(*jax.tree.unflatten(tree, leaves)))

    artefact = export.export(jax.jit(flat), platforms=PLATFORMS)(*leaves)
    again = export.deserialize(artefact.serialize())
    assert again.platforms == PLATFORMS

    def call(*args):
        return jax.tree.unflatten(after, again.call(*jax.tree.leaves(args)))

    return call, artefact.mlir_module_serialized


@pytest.mark.core
@pytest.mark.parametrize("name", ["linen-dp-sgd", "haiku-mobilenet-v1", "equinox-autoencoder"])
@pytest.mark.parametrize("how", ["accelerate", "installed"])
def test_an_exported_model_is_the_model(name, how):
    """Inference and training, from one file, by the choices of each platform."""
    model, step = built(name), stepping(name)
    args = (model.params, model.state, model.batch)
    if how == "accelerate":
        call, program = exported(jaxdil.accelerate(step), *args)
    else:
        with jaxdil.installed():
            call, program = exported(step, *args)
    expected, *others = plain_runs(name)
    assert_as_good(run(jit(call), model), expected, others)
    rows = jaxdil.explain(step, gradients=False)(*args)
    chosen = {(row.choices[platform].method, platform) for row in rows for platform in PLATFORMS}
    # A kernel that JAX does not promise to read again stays out of what is exported.
    chosen = {m for m, platform in chosen if goes(m, platform, exported=True, partitioned=False)}
    assert {method for method in METHODS if f"jaxdil.{method}".encode() in program} >= chosen


# --- the zoo --------------------------------------------------------------------------------------


def test_every_model_is_tested():
    named_here = {*MODELS, *(e.name for e in zoo.ENTRIES if e.library == "keras")}
    assert named_here == {entry.name for entry in zoo.ENTRIES}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.build("resnet"), "no model is called 'resnet'; known: keras-mobilenet-v2, "),
        (
            lambda: zoo.build("keras-xception", size=32),
            "keras-xception needs a size of at least 71, got 32",
        ),
    ],
)
def test_a_model_that_cannot_be_built(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"haiku-resnet needs haiku, .*jaxdil\[peers\]"):
        zoo.build("haiku-resnet")
