"""install on keras.applications: real ``predict`` and ``fit``, which own their jit.

Each predicts and is fitted as a whole, as one fine-tunes: batch normalisation is frozen. With the
statistics of two examples, a rounding of the first step changes the losses of later ones so much
that no fault could be told; what is fitted with them ends after some blocks, where every kind of
its layers has come.
"""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest
from models import (
    STEPS,
    Run,
    assert_as_good,
    assert_explained,
    assert_learns,
    named,
    perturbed,
)

import jaxdil
from benchmarks import zoo
from jaxdil import _layout, _primitive

pytestmark = pytest.mark.usefixtures("user_defaults")

# Where the network ends, the size of an image, and the rate of descent.
NETWORKS = {
    "keras-mobilenet-v2": ("block_2_add", 32, 0.01),
    "keras-mobilenet-v3-small": ("expanded_conv_3_project_bn", 32, 0.01),
    "keras-efficientnet-b0": ("block2a_project_bn", 32, 0.01),
    "keras-xception": ("block3_sepconv1_act", 71, 0.01),
    "keras-convnext-tiny": ("convnext_tiny_stage_1_block_0_identity", 32, 0.0002),
    "keras-resnet50": ("conv2_block2_out", 32, 0.01),
    "keras-nasnet-mobile": ("reduction_concat_stem_1", 32, 0.01),
}
# So small that what Keras keeps as momentum after one step is that step's gradient times the rate.
NO_MOMENTUM = 2.0**-100
# The convolutions of the whole network, forward, and its rate of descent.
WHOLE = {
    "keras-mobilenet-v2": (52, 1e-3),
    "keras-mobilenet-v3-small": (54, 1e-2),
    "keras-efficientnet-b0": (81, 1e-2),
    "keras-xception": (74, 1e-10),
    "keras-convnext-tiny": (22, 2e-4),
    "keras-resnet50": (53, 1e-7),
    "keras-nasnet-mobile": (356, 2e-6),
}


def built(name, until=None):
    pytest.importorskip("keras")
    return zoo.build(name, size=NETWORKS[name][1], batch=2, narrow=True, until=until)


def frozen(model):
    """``model`` with its batch normalisation as at inference, in training too."""
    import keras

    network = model.keras
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False

    def values(variables):
        return [jax.numpy.array(v.value) for v in variables]

    return dataclasses.replace(
        model,
        params=values(network.trainable_variables),
        state=values(network.non_trainable_variables),
    )


def fresh(network, rate):
    """Compile it anew, so that JAX has not seen its functions."""
    import keras

    network.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=NO_MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )


def predicted(model, seed=0):
    """What `predict` gives, and the examples and labels it starts from."""
    network = model.keras
    params, state, (x, labels) = perturbed((model.params, model.state, model.batch), seed)
    for variables, values in (
        (network.trainable_variables, params),
        (network.non_trainable_variables, state),
    ):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    return network.predict(x, batch_size=len(x), verbose=0), x, labels


def fitted(model, seed=0):
    """What `predict` gives, the gradients and statistics of the first step, the losses of `fit`."""
    network = model.keras
    inference, x, labels = predicted(model, seed)

    def fit(epochs):
        history = network.fit(x, labels, batch_size=len(x), epochs=epochs, shuffle=False, verbose=0)
        return history.history["loss"]

    losses = fit(1)
    # The first two variables of the optimiser are its counter and its rate.
    momenta = [np.asarray(v) for v in network.optimizer.variables[2:]]
    assert len(momenta) == len(network.trainable_variables)
    first = named(
        {
            "inference": inference,
            "gradients": dict(enumerate(momenta)),
            "state": dict(enumerate(map(np.asarray, network.non_trainable_variables))),
        }
    )
    return Run(first, np.array(losses + fit(STEPS - 1)))


@contextlib.contextmanager
def watched(monkeypatch):
    """The problems of the convolutions that are lowered by our rule."""
    seen = set()
    choice_of = _primitive.choice_of

    def watching(x, w, y, params, platform):
        seen.add(_layout.problem_of(x, w, y, params))
        return choice_of(x, w, y, params, platform)

    with monkeypatch.context() as patch:
        patch.setattr(_primitive, "choice_of", watching)
        yield seen


def layers(network):
    """How many convolutions the layers of a network make."""
    import keras

    count = 0
    for layer in network.layers:
        inner = layers(layer) if hasattr(layer, "layers") else 0
        separable = isinstance(layer, keras.layers.SeparableConv2D)
        count += inner + 2 * separable
        count += isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
    return count


def training_step(network, batch):
    """The function that `fit` compiles, and arguments for it."""
    variables = (
        network.trainable_variables,
        network.non_trainable_variables,
        network.optimizer.variables,
        network.metrics_variables,
    )
    return network.train_step, tuple([v.value for v in some] for some in variables), batch


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.core if "resnet" in n else ()) for n in NETWORKS],
)
def test_fit_and_predict_under_install(name, monkeypatch):
    until, _, rate = NETWORKS[name]
    model = built(name, until)
    fresh(model.keras, rate)
    expected, *others = [fitted(model, seed) for seed in range(6)]
    assert_learns(expected)

    fresh(model.keras, rate)
    with jaxdil.installed(platforms="cpu"), watched(monkeypatch) as seen:
        got = fitted(model)
    assert_as_good(got, expected, others)

    count = layers(model.keras)
    rows = assert_explained(*training_step(model.keras, model.batch), count=3 * count - 1)
    assert {row.problem for row in rows} == seen


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_network_under_install(name, monkeypatch):
    count, rate = WHOLE[name]
    model = frozen(built(name))
    assert layers(model.keras) == count
    fresh(model.keras, rate)
    expected = fitted(model)
    assert_learns(expected)

    # What a last place changes is asked of the installed network: at the level of optimisation at
    # which tests are compiled, lax takes several times as long for each of the steps.
    fresh(model.keras, rate)
    with jaxdil.installed(platforms="cpu"), watched(monkeypatch) as seen:
        got, *others = [fitted(model, seed) for seed in range(4)]
    assert_as_good(got, expected, others, around=got)
    rows = assert_explained(*training_step(model.keras, model.batch), count=3 * count - 1)
    assert {row.problem for row in rows} == seen
