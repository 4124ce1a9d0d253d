"""keras.applications on the JAX backend."""

from __future__ import annotations

import math
import os
from typing import Any

# Read when keras is first imported.
os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras

from benchmarks.zoo import Model
from benchmarks.zoo.parts import CLASSES, classified, cross_entropy, filled, trained

__all__ = ["application", "start"]

_NARROW = {"MobileNetV2": {"alpha": 0.35}, "MobileNetV3Small": {"alpha": 0.5}}


def application(
    *,
    application: str,
    size: int,
    batch: int,
    narrow: bool,
    until: str | None = None,
    rate: float = 0.01,
) -> Model:
    """A network of ``keras.applications``, compiled for gradient descent of the given rate.

    ``until`` names a layer, where the network ends: the classifier follows that one.

    Raises:
      ImportError: if Keras is on another backend than JAX.
    """
    if keras.backend.backend() != "jax":
        msg = (
            f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=jax before it is imported"
        )
        raise ImportError(msg)
    arguments = _NARROW.get(application, {}) if narrow else {}
    # No initialiser is run: see `start`.
    with keras.StatelessScope(initialize_variables=False):
        network = getattr(keras.applications, application)(
            weights=None,
            classes=CLASSES,
            classifier_activation=None,
            input_shape=(size, size, 3),
            **arguments,
        )
        if until is not None:
            pooled = keras.layers.GlobalAveragePooling2D()(network.get_layer(until).output)
            network = keras.Model(network.inputs, keras.layers.Dense(CLASSES)(pooled))
    # Two runs shall be the same but for the convolutions.
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    # Keras must forget that these variables wait for their own initialisers.
    keras.utils.clear_session(free_memory=False)
    start(network)
    network.compile(
        optimizer=keras.optimizers.SGD(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )

    def run(params: Any, state: Any, x: Any) -> Any:
        return network.stateless_call(params, state, x, training=True)

    def forward(params: Any, state: Any, x: Any) -> Any:
        return network.stateless_call(params, state, x, training=False)[0]

    return Model(
        # Copies: `fit` donates the arrays of the variables.
        params=[jax.numpy.array(v.value) for v in network.trainable_variables],
        state=[jax.numpy.array(v.value) for v in network.non_trainable_variables],
        batch=classified((batch, size, size, 3)),
        forward=forward,
        train=trained(run, cross_entropy),
        keras=network,
    )


def start(network: Any) -> None:
    """Give the variables of a network their first values, once more if it has been trained."""
    for number, variable in enumerate(network.variables):
        shape = tuple(variable.shape)
        depthwise = len(shape) == 4 and (shape[-1] == 1 or "depthwise" in variable.path)
        fan = math.prod(shape[:2] if depthwise else shape[:-1])
        # Numbered, since Keras numbers the names of layers by what was built before.
        name = f"{number}/{variable.name}"
        variable.assign(filled(name, shape, variable.dtype, fan=fan))
