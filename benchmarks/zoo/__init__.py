"""Whole models, as their libraries and papers have them, in one shape.

    model = zoo.build("keras-mobilenet-v2", size=64, batch=2)
    jax.jit(model.forward)(model.params, model.state, model.batch)
    jax.jit(jaxdil.accelerate(model.train))(model.params, model.state, model.batch)

The layers are those of Keras, Flax, Haiku and Equinox, and whole networks too where these libraries
have them. Nothing here knows of jaxdil. A library is imported when one of its models is asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["ENTRIES", "Entry", "Model", "Result", "build", "descend", "select"]


class Result(NamedTuple):
    """What one pass forward and back gives."""

    loss: Any
    outputs: Any
    gradients: Any
    """A tree like the parameters."""
    state: Any


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its first parameters, and a batch of random examples for it."""

    params: Any
    """What is trained: a tree of float32 arrays."""
    state: Any
    """What training reads and replaces beside them, such as running statistics."""
    batch: tuple[Any, Any]
    """Examples and what is wanted of them."""
    forward: Callable[[Any, Any, Any], Any]
    """Outputs at inference, from the parameters, the state and the examples."""
    train: Callable[[Any, Any, Any], Result]
    """One pass in training, from the parameters, the state and the batch."""
    keras: Any = None
    """The compiled ``keras.Model``, for `fit` and `predict`."""


class Entry(NamedTuple):
    """A model that can be built."""

    name: str
    library: str
    """The package its layers come from, as it is imported."""
    function: str
    """The function of benchmarks/zoo/LIBRARY_models.py that builds it."""
    source: str
    """Who describes it."""
    size: int
    """Samples along each axis of an example, as a rule."""
    least: int
    """The fewest that the model, or its library, can take."""
    arguments: dict[str, Any]
    """Of that function, beside those of ``build``."""


def _keras(name: str, application: str, source: str, least: int = 32) -> Entry:
    return Entry(name, "keras", "application", source, 128, least, {"application": application})


ENTRIES = (
    _keras("keras-mobilenet-v2", "MobileNetV2", "keras.applications; Sandler et al. 2018"),
    _keras(
        "keras-mobilenet-v3-small", "MobileNetV3Small", "keras.applications; Howard et al. 2019"
    ),
    _keras("keras-efficientnet-b0", "EfficientNetB0", "keras.applications; Tan and Le 2019"),
    _keras("keras-xception", "Xception", "keras.applications; Chollet 2017", 71),
    _keras("keras-convnext-tiny", "ConvNeXtTiny", "keras.applications; Liu et al. 2022"),
    _keras("keras-resnet50", "ResNet50", "keras.applications; He et al. 2016"),
    _keras("keras-nasnet-mobile", "NASNetMobile", "keras.applications; Zoph et al. 2018"),
    Entry("haiku-mobilenet-v1", "haiku", "mobilenet", "hk.nets; Howard et al. 2017", 128, 32, {}),
    Entry("haiku-resnet", "haiku", "resnet", "hk.nets.ResNet50; He et al. 2016", 128, 32, {}),
    Entry("haiku-wavenet", "haiku", "wavenet", "van den Oord et al. 2016", 4096, 4, {}),
    Entry("linen-separable", "flax", "linen_separable", "entry flow of Chollet 2017", 128, 16, {}),
    Entry("linen-deeplab", "flax", "linen_deeplab", "head of Chen et al. 2018 (v3+)", 33, 8, {}),
    Entry("linen-unet-3d", "flax", "linen_unet", "Cicek et al. 2016", 32, 8, {}),
    Entry("linen-dp-sgd", "flax", "linen_dp_sgd", "Abadi et al. 2016, by vmap of grad", 28, 16, {}),
    Entry("nnx-convnext", "flax", "nnx_convnext", "blocks of Liu et al. 2022", 64, 16, {}),
    Entry("nnx-replknet", "flax", "nnx_replknet", "blocks of Ding et al. 2022", 56, 8, {}),
    Entry("equinox-autoencoder", "equinox", "autoencoder", "DCGAN; Radford et al. 2016", 64, 8, {}),
    Entry("equinox-mamba", "equinox", "mamba", "block of Gu and Dao 2023", 512, 4, {}),
)


def select(name: str) -> Entry:
    """The entry of a name.

    Raises:
      ValueError: for an unknown one.
    """
    for entry in ENTRIES:
        if entry.name == name:
            return entry
    msg = f"no model is called {name!r}; known: {', '.join(entry.name for entry in ENTRIES)}"
    raise ValueError(msg)


def build(
    name: str, *, size: int | None = None, batch: int = 4, narrow: bool = False, **options: Any
) -> Model:
    """A model with random parameters, the same in every run.

    Args:
      name: of an entry.
      size: samples along each spatial axis of an example; the entry's own if None.
      batch: how many examples.
      narrow: few channels, for tests; every layer is kept.
      options: of the function that builds the model, such as ``conv_general_dilated`` for the
        models of Flax.

    Raises:
      ValueError: for an unknown name, or too small a size.
      ImportError: if the library of the model is not installed.
    """
    entry = select(name)
    size = entry.size if size is None else size
    if size < entry.least:
        msg = f"{name} needs a size of at least {entry.least}, got {size}"
        raise ValueError(msg)
    if importlib.util.find_spec(entry.library) is None:
        msg = f"{name} needs {entry.library}, which is not installed: pip install 'jaxdil[peers]'"
        raise ImportError(msg)
    module = importlib.import_module(f"benchmarks.zoo.{entry.library}_models")
    function = getattr(module, entry.function)
    return function(size=size, batch=batch, narrow=narrow, **entry.arguments, **options)


def descend(model: Model, rate: float) -> Callable[[Any, Any, Any], tuple[Any, Any, Result]]:
    """One step of gradient descent: the next parameters, the next state and the result."""
    import jax

    @functools.wraps(model.train)
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, Result]:
        result = model.train(params, state, batch)
        down = jax.tree.map(lambda p, g: p - rate * g, params, result.gradients)
        return down, result.state, result

    return step
