"""Kernels and biases carried from one library to another, number for number.

TensorFlow, Keras, PyTorch, Flax, Haiku, Equinox, lax and jaxdil store the same kernel in different
orders. Each is turned into lax's and back (``jaxdil._kernels``), so that any goes to any. Nothing
is computed but the order of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, TypeVar

import jax
import numpy as np

from jaxdil import _arguments, _kernels
from jaxdil._errors import error

__all__ = ["convert", "convert_bias", "convert_separable", "reorder_channels"]

Library: TypeAlias = Literal["jaxdil", "lax", "flax", "haiku", "equinox", "tf", "keras", "torch"]
Kind: TypeAlias = Literal["conv", "depthwise_conv", "conv_transpose", "dense"]
AnyArray = TypeVar("AnyArray", jax.Array, np.ndarray)


def convert(
    w: AnyArray,
    *,
    source: Library,
    target: Library,
    kind: Kind = "conv",
    groups: int | None = None,
) -> AnyArray:
    """The kernel of a layer of one library, in the order in which another library stores it.

    ``layer_of_target(x, convert(w)) == layer_of_source(x, w)``, number for number, where both are
    given the same stride, dilation, and padding in samples.

    | kind | jaxdil | tf, keras | lax, flax | haiku | torch | equinox |
    |---|---|---|---|---|---|---|
    | conv | K I O | K I O | K I O | K I O | O I K | O I K |
    | depthwise_conv | K C M | K C M | K 1 CM | K 1 CM | CM 1 K | CM 1 K |
    | conv_transpose | K J C | K J C | R I O | R O I | C J K | O I R |
    | dense | I O | I O | I O | I O | O I | O I |

    K are the taps on all spatial axes and R the taps in reversed order, C and O all input and
    output channels, I = C / groups, J = O / groups, M the channel multiplier. Flax and lax with
    ``transpose_kernel=True`` store TensorFlow's order: name them "tf".

    Args:
      w: the kernel, in the order of source, with any number of spatial axes.
      source: library that w comes from: "jaxdil", "lax", "flax" (linen or nnx), "haiku",
        "equinox", "tf", "keras" (on any backend) or "torch".
      target: library to store it for.
      kind: the layer, by the name of the function that takes it: "conv" (dense or grouped),
        "depthwise_conv", "conv_transpose" (dense, grouped or depthwise), or "dense" for the matrix
        of a linear layer.
      groups: number of blocks of channels; None means 1. Of a depthwise kernel it is C, the
        channels of its input, and is needed where the target tells C from M and the source does
        not.

    Returns:
      An array like w, of numpy or of JAX. It shares no memory with w.

    Raises:
      ValueError: for an unknown library or kind, a wrong number of axes, groups that do not divide
        the channels, and a layer that one of the libraries does not have.
      TypeError: if w is neither a numpy nor a JAX array, or groups is not an integer.

    Cost: a copy.

    >>> import numpy as np
    >>> w = np.zeros((8, 3, 5, 5))  # torch.nn.Conv2d(3, 8, 5).weight
    >>> jaxdil.weights.convert(w, source="torch", target="jaxdil").shape
    (5, 5, 3, 8)
    >>> w = np.zeros((6, 4, 5))  # torch.nn.ConvTranspose1d(6, 8, 5, groups=2).weight
    >>> options = {"kind": "conv_transpose", "groups": 2}
    >>> jaxdil.weights.convert(w, source="torch", target="jaxdil", **options).shape
    (5, 4, 6)
    >>> jaxdil.weights.convert(w, source="torch", target="equinox", **options).shape
    (8, 3, 5)
    """
    return _kernels.convert("weights.convert", "w", w, source, target, kind, groups)


def convert_separable(
    depthwise_w: AnyArray,
    pointwise_w: AnyArray,
    *,
    source: Library,
    target: Library,
    channels: int | None = None,
) -> tuple[AnyArray, AnyArray]:
    """Both kernels of a separable convolution: a depthwise one, and the 1x1 one that mixes.

    TensorFlow and Keras have one layer for it, the other libraries two, one after the other.

    Args:
      depthwise_w: kernel of the depthwise part, in the order of source.
      pointwise_w: kernel of the 1x1 part, in the order of source.
      source: as in `convert`.
      target: as in `convert`.
      channels: C, as groups of `convert` for a depthwise kernel.

    Returns:
      The two kernels in the order of target.

    Raises:
      ValueError: as `convert`, and if the parts do not fit each other.
      TypeError: as `convert`.

    >>> import numpy as np
    >>> parts = np.zeros((6, 1, 3, 3)), np.zeros((8, 6, 1, 1))  # two torch.nn.Conv2d
    >>> options = {"source": "torch", "target": "keras", "channels": 3}
    >>> [w.shape for w in jaxdil.weights.convert_separable(*parts, **options)]
    [(3, 3, 3, 2), (1, 1, 6, 8)]
    """
    where = "weights.convert_separable"
    between = (source, target)
    first = _kernels.convert(
        where, "depthwise_w", depthwise_w, *between, "depthwise_conv", channels
    )
    second = _kernels.convert(where, "pointwise_w", pointwise_w, *between, "conv", None)
    depthwise = _kernels.sizes(depthwise_w, _kernels.LAYOUTS["depthwise_conv"][source])
    pointwise = _kernels.sizes(pointwise_w, _kernels.LAYOUTS["conv"][source])
    made = math.prod(depthwise.values())  # C M, or 1 O
    if (
        pointwise_w.ndim != depthwise_w.ndim
        or pointwise["I"] != made
        or pointwise_w.size != made * pointwise["O"]
    ):
        raise ValueError(
            error(
                where,
                f"pointwise_w must have a single tap on each of {depthwise_w.ndim - 2} spatial "
                f"axes and {made} input channels, got shape {pointwise_w.shape}",
                f"depthwise_w {depthwise_w.shape} makes {made} channels for it to mix.",
            )
        )
    return first, second


def convert_bias(
    b: AnyArray, *, source: Library, target: Library, rank: int | None = None
) -> AnyArray:
    """The bias of a convolution, dense to transposed: (O,), but (O, 1, ..., 1) in Equinox.

    Haiku's layers under ``data_format="NC..."`` store Equinox's shape too: name them "equinox".

    Args:
      b: the bias, in the shape of source.
      source: as in `convert`.
      target: as in `convert`.
      rank: number of spatial axes, needed where only the target counts them.

    Returns:
      An array like b, of numpy or of JAX. It shares no memory with b.

    Raises:
      ValueError: for an unknown library and a wrong number of axes.
      TypeError: as `convert`.

    >>> import numpy as np
    >>> jaxdil.weights.convert_bias(np.zeros(8), source="torch", target="equinox", rank=2).shape
    (8, 1, 1)
    """
    where = "weights.convert_bias"
    _kernels.check_names(where, source, target, "conv")
    _kernels.check_array(where, "b", b)
    ones = b.ndim - 1
    if rank is not None:
        rank = _arguments.integer(where, "rank", rank, least=0)
    if source == "equinox":
        fits = b.ndim > 0 and b.shape[1:] == (1,) * ones and rank in (None, ones)
        wanted = "(O, 1, ..., 1), a 1 for each spatial axis" + f", {rank} in all" * bool(rank) + ","
        rank = ones
    else:
        fits, wanted = b.ndim == 1, "(O,)"
    if not fits:
        raise ValueError(error(where, f"b must be {wanted} in {source}, got shape {b.shape}"))
    if target == "equinox" and rank is None:
        raise ValueError(
            error(
                where,
                "rank is needed: Equinox's bias has an axis of 1 for each spatial axis",
                "Pass rank=2 for the bias of a Conv2d.",
            )
        )
    spread = rank if target == "equinox" and rank else 0
    return _kernels.fresh(b.reshape(b.size, *(1,) * spread))


def reorder_channels(
    w: AnyArray, *, axis: int, shape: Sequence[int], source: str, target: str
) -> AnyArray:
    """One axis that several were flattened into, flattened in another order.

    A linear layer behind a flattened image has an input for each channel and position: in the order
    C, H, W in PyTorch and Equinox, in the order H, W, C where channels are last. Its matrix fits
    either way, and is wrong unless its inputs are reordered. The same happens to the outputs of a
    layer that are reshaped to an image, and to channels that ``pixel_shuffle`` (C, r, r) or
    ``depth_to_space`` (r, r, C) spreads over positions.

    Args:
      w: an array with such an axis, a bias included.
      axis: the axis.
      shape: its sizes in the order of source.
      source: a letter for each of them, such as "CHW".
      target: the same letters in the wanted order, such as "HWC".

    Returns:
      An array like w, of the same shape. It shares no memory with w.

    Raises:
      ValueError: if the letters, the sizes and the axis do not fit each other.
      TypeError: as `convert`.

    >>> import numpy as np
    >>> w = np.arange(4).reshape(4, 1)  # 2 channels at 2 positions
    >>> jaxdil.weights.reorder_channels(w, axis=0, shape=(2, 2), source="CH", target="HC").ravel()
    array([0, 2, 1, 3])
    """
    where = "weights.reorder_channels"
    _kernels.check_array(where, "w", w)
    axis = _arguments.integer(where, "axis", axis)
    if not -w.ndim <= axis < w.ndim:
        raise ValueError(error(where, f"w has no axis {axis}, its shape is {w.shape}"))
    if sorted(source) != sorted(target) or len(set(source)) != len(source):
        raise ValueError(
            error(
                where,
                f"source and target must be the same letters, each once, got {source!r} and "
                f"{target!r}",
                "For a flattened image from PyTorch: source='CHW', target='HWC'.",
            )
        )
    sizes = _arguments.integers(where, "shape", shape, len(source), least=0)
    axis %= w.ndim
    if math.prod(sizes) != w.shape[axis]:
        raise ValueError(
            error(
                where,
                f"shape must multiply to {w.shape[axis]}, the size of axis {axis} of w "
                f"{w.shape}, got {sizes}",
            )
        )
    split = w.reshape(*w.shape[:axis], *sizes, *w.shape[axis + 1 :])
    order = [axis + source.index(letter) for letter in target]
    rest = range(axis + len(sizes), split.ndim)
    return _kernels.fresh(split.transpose(*range(axis), *order, *rest).reshape(w.shape))
