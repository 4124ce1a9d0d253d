"""Strides made dilations: a strided stack evaluated at every position, by the same weights.

    stride s, dilation d, padding p    ->    stride 1, dilation f d, padding f p;    f <- f s

f is the product of the strides taken out before. The dense stack has at position f q what the
strided one had at q, and between them what it would have had for an input shifted there: what
shift-and-stitch computes in f**rank passes comes out of one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Num

from jaxdil import _arguments, _geometry
from jaxdil._errors import error

__all__ = ["remove_strides", "stack"]

Step: TypeAlias = Callable[..., Any]

OPTIONS = ("stride", "dilation", "padding")
# By these, too, a layer tells that it reads more than one position.
MORE = {"dilation", "dilations", "layers", "padding", "rates", "window"}


def stack(
    params: Sequence[Any], x: Num[Array, "..."], *, layers: Sequence[Step]
) -> Num[Array, "..."]:
    """One layer after the other.

    ``x = layer(p, x)`` for each, or ``layer(x)`` where p is None.

    Args:
      params: parameters of each layer; None for one that has none, such as a pooling.
      x: input of the first.
      layers: functions of (params, x), such as those of this package with their options set by
        ``functools.partial``; of x alone where params are None.

    Returns:
      What the last returns.

    Raises:
      ValueError: if there are not as many params as layers.

    >>> import functools, jax, jax.numpy as jnp
    >>> layers = [functools.partial(jaxdil.modules.conv_layer, stride=2), jax.nn.relu]
    >>> params = [jaxdil.modules.init_conv_layer(jax.random.key(0), 8, 8), None]
    >>> stack(params, jnp.ones((1, 9, 9, 8)), layers=layers).shape
    (1, 5, 5, 8)
    """
    if len(params) != len(layers):
        what = f"params must have an entry for each of the {len(layers)} layers, got {len(params)}"
        raise ValueError(error("stack", what, "Pass None for a layer without parameters."))
    for p, layer in zip(params, layers, strict=True):
        x = layer(x) if p is None else layer(p, x)
    return x


def remove_strides(layers: Sequence[Step], *, output_stride: int = 1) -> list[Step]:
    """The layers of a strided stack, dense: strides taken out, rates and padding multiplied.

    ``stride 1, dilation f d, padding f p``, with f the product of the strides taken out of earlier
    layers. Parameters stay as they are. On the same input, output q of the strided stack is output
    ``f q`` of the dense one. What stands between is what the strided stack has for an input that is
    shifted, as long as nothing but its first layer pads; near a padded border it is not.

    Args:
      layers: functions; those with options ``stride``, ``dilation`` and ``padding`` (set by
        ``functools.partial``, else at their defaults) slide a window: `conv_layer`,
        `inverted_residual`, ``jaxdil.max_pool``, ... Any other is taken to work on each position
        by itself and stays as it is.
      output_stride: strides stay as long as their product does not exceed this, >= 1; 16 or 8 for
        a network that goes on into `aspp`.

    Returns:
      As many functions, to be called as the old ones: by `stack`, or one by one.

    Raises:
      ValueError: if the stride that is to stay does not divide a layer's; where a layer changes,
        for "SAME" padding of a stride, since what it pads depends on the size, for padding by
        letters of axes, and for a padding_mode other than zeros, whose samples are strided too.
      TypeError: for integers that are not, and a layer that strides but cannot dilate.

    Cost: integers only. The dense stack costs f**rank times the strided one's last layers.

    Source: Chen et al., DeepLab, arXiv:1412.7062 and arXiv:1606.00915; Sermanet et al., OverFeat,
      arXiv:1312.6229, and Long et al., arXiv:1411.4038, on shift-and-stitch.

    >>> import functools
    >>> conv = jaxdil.modules.conv_layer
    >>> layers = [functools.partial(conv, stride=s, padding=1) for s in (2, 2, 1)]
    >>> [layer.keywords for layer in remove_strides(layers, output_stride=2)][1:]
    [{'stride': 1, 'padding': 1, 'dilation': 1}, {'stride': 1, 'padding': 2, 'dilation': 2}]
    """
    where = "remove_strides"
    goal = _arguments.integer(where, "output_stride", output_stride, least=1)
    kept, removed = np.array(1), np.array(1)
    dense: list[Step] = []
    for i, layer in enumerate(layers):
        name = f"layers[{i}]"
        changes = bool(np.any(removed != 1))
        if (options := _window_options(where, name, layer, changes=changes)) is None:
            dense.append(layer)
            continue
        stride = _ints(where, f"{name}.stride", options["stride"])
        stays = np.minimum(stride, np.maximum(goal // kept, 1))
        if np.any(stride % stays):
            what = f"{name} has stride {_plain(stride)}, of which {_plain(stays)} cannot stay"
            hint = f"output_stride={goal} must be a product of strides from the first layer on."
            raise ValueError(error(where, what, hint))
        # Of arrays without axes, NumPy makes scalars.
        kept, out = np.asarray(kept * stays), np.asarray(removed * (stride // stays))
        if np.any(out != 1):
            if options["padding_mode"] != "zeros":
                what = f"{name} has padding_mode={options['padding_mode']!r}, not 'zeros'"
                hint = "At the far border other samples would be reflected or wrapped than before."
                raise ValueError(error(where, what, hint))
            dilation = _ints(where, f"{name}.dilation", options["dilation"]) * removed
            padding = _scaled(where, name, options["padding"], removed, stride)
            windows = {"stride": _plain(stays), "dilation": _plain(dilation), "padding": padding}
            dense.append(functools.partial(layer, **windows))
        else:
            dense.append(layer)
        removed = out
    return dense


def _window_options(where: str, name: str, layer: Step, *, changes: bool) -> dict[str, Any] | None:
    """Stride, dilation and padding of a layer, or None if it has no window."""
    try:
        parameters = inspect.signature(layer).parameters
    except (TypeError, ValueError):  # some functions in C have no signature
        return None
    options = {n: parameters[n].default for n in OPTIONS if n in parameters}
    if options.get("stride", 0) is None and "window" in parameters:
        options["stride"] = parameters["window"].default  # as poolings have it
    if len(options) == len(OPTIONS) and inspect.Parameter.empty not in options.values():
        mode = parameters["padding_mode"].default if "padding_mode" in parameters else "zeros"
        return options | {"padding_mode": mode}
    if "stride" in options or (changes and not MORE.isdisjoint(parameters)):
        what = f"{name} slides a window, and its options {sorted(parameters)} are not all there"
        hint = "A layer has stride=, dilation= and padding=, or works on each position by itself."
        raise TypeError(error(where, what, hint, "Write a module with several as its parts."))
    return None


def _scaled(where: str, name: str, padding: Any, factor: np.ndarray, stride: np.ndarray) -> Any:
    """Padding, a factor larger on each axis."""
    if isinstance(padding, Mapping):
        what = f"{name} has padding by the names of axes, {padding!r}, and its strides have none"
        raise ValueError(error(where, what, "Write it as a list, an entry for each spatial axis."))
    entry = functools.partial(_scaled_entry, where, name)
    listed = isinstance(padding, Sequence) and not isinstance(padding, str)
    if not listed and not factor.ndim and not stride.ndim:
        return entry(padding, int(factor), int(stride))
    rank = len(padding) if listed else max(factor.size, stride.size)
    entries = padding if listed else [padding] * rank
    factors, strides = np.broadcast_to(factor, rank), np.broadcast_to(stride, rank)
    return [entry(p, int(f), int(s)) for p, f, s in zip(entries, factors, strides, strict=True)]


def _scaled_entry(where: str, name: str, entry: Any, factor: int, stride: int) -> Any:
    """Padding of one axis, a factor larger, as if for a kernel a factor shorter than it is."""
    if isinstance(entry, str):
        # In the others, what is padded is a multiple of k_eff - 1, and so is multiplied already.
        if not entry.upper().startswith("SAME"):
            return entry
        if stride != 1:
            what = f"{name} has padding {entry!r} and a stride, so what it pads depends on the size"
            hint = "Write it in ints or pairs; jaxdil.resolve_padding says which."
            raise ValueError(error(where, what, hint))
        entry = functools.partial(_same, entry.upper())
    if callable(entry):
        return lambda k_eff: _times(entry((k_eff - 1) // factor + 1), factor)
    return _times(entry, factor)


def _same(padding: str, k_eff: int) -> tuple[int, int]:
    return _geometry.string_padding(padding, k_eff, k_eff, 1)


def _times(padding: Any, factor: int) -> Any:
    return _plain(np.array(padding) * factor)


def _ints(where: str, name: str, value: Any) -> np.ndarray:
    """An int, or one for each axis, as an array."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return np.array(_arguments.integers(where, name, value, len(value)))
    return np.array(_arguments.integer(where, name, value, least=1))


def _plain(values: Any) -> Any:
    """An array as an int, or as a tuple of them."""
    listed = np.asarray(values).tolist()
    return tuple(listed) if isinstance(listed, list) else listed
