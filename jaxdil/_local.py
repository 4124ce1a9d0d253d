"""Locally connected: a convolution whose kernel is another one at each position.

y[n, p, o] = sum_{t, i}  x[n, s p + d t - lo, g I + i]  w[p, t, i, o]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments, _batched, _window
from jaxdil._adjoint import named_layout
from jaxdil._arguments import Ints, Padding
from jaxdil._errors import error

__all__ = ["conv_local", "local_kernel"]


def conv_local(
    x: Num[Array, "..."],
    w: Num[Array, "..."],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    groups: int | None = 1,
    data_format: str | None = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Num[Array, "..."]:
    """Locally connected layer: a convolution that does not share its kernel between positions.

    ``y[n, p, o] = sum_{t, i} x[n, s p + d t - lo, g I + i] w[p, t, i, o]``, with ``g = o // (O /
    groups)``. ``lax.conv_general_dilated_local``, without writing patches of all taps.

    Args:
      x: input (N, *S, C), as in `conv`.
      w: kernels (*P, *K, I, O), I = C / groups: for each position p of the output, in front, a
        kernel as `conv` takes it. `local_kernel` makes it of lax's, Flax's and Keras' weights.
      stride: samples between neighbouring outputs, >= 1.
      dilation: samples between neighbouring taps, >= 1.
      padding: as in `conv`.
      padding_mode: as in `conv`.
      groups: as in `conv`.
      data_format: a name or letters, as in `conv`; w is in the order above under each.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.

    Returns:
      y (N, *P, O), its size that of `conv`.

    Raises:
      ValueError: as `conv`, and if w does not have a kernel for each position of the output.
      TypeError: as `conv`.

    Cost: ``2 N prod(P) prod(K) I O`` floating-point operations, and as many weights as ``prod(P)``
      kernels have. The temporaries, gradients included, stay below a few times the arrays.

    Source: Taigman et al., DeepFace, CVPR 2014.

    >>> import jax.numpy as jnp
    >>> x, w = (
    ...     jnp.ones((1, 4, 1)),
    ...     jnp.ones((2, 3, 1, 1)) * jnp.array([1.0, 10.0])[:, None, None, None],
    ... )
    >>> jaxdil.conv_local(x, w, padding="VALID").ravel()
    Array([ 3., 30.], dtype=float32)
    """
    where = "conv_local"
    _arguments.check_arrays(where, x=x, w=w)
    rank, odd = divmod(w.ndim - 2, 2)
    if odd or rank < 0:
        what = f"w must be (*P, *K, I, O), as many P as K, got shape {w.shape}"
        more = "jaxdil.local_kernel makes it of lax's, Flax's and Keras' weights."
        raise ValueError(error(where, what, more))
    layout = named_layout(where, x.shape, w.shape[rank:], data_format)
    x = layout.merge(x)
    window = _window.forward(
        where,
        layout,
        x.shape,
        w.shape[rank:],
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )
    if w.shape[:rank] != window.positions:
        raise ValueError(
            error(
                where,
                f"w must have a kernel for each position of the output, {window.positions} of "
                f"them, got {w.shape[:rank]}",
                f"w {w.shape} is (*P, *K, I, O); jaxdil.conv_output_shape tells P.",
            )
        )
    w = jnp.reshape(w, (math.prod(window.positions), *w.shape[rank:]))
    y = _batched.convolve(
        where,
        x,
        w,
        layout,
        window,
        equation=_batched.POSITIONS,
        mode=padding_mode,
        precision=precision,
        preferred=preferred_element_type,
    )
    return layout.restore(y)


def local_kernel(
    w: Num[Array, "..."],
    *,
    kernel: Sequence[int],
    source: Literal["lax", "flax", "keras"],
    positions: Sequence[int] | None = None,
) -> Num[Array, "..."]:
    """The weights of another library's locally connected layer as those of `conv_local`.

    ``(*P, C prod(K), O) or (prod(P), prod(K) C, O) -> (*P, *K, C, O)``

    Args:
      w: the weights: of ``lax.conv_general_dilated_local`` and Flax's ``ConvLocal``
        (*P, C prod(K), O), channels before taps; of Keras' ``LocallyConnected1D`` and ``2D``
        (prod(P), prod(K) C, O), taps before channels. lax's order "OIHW", its default, becomes
        this one by ``w.transpose(2, 3, 1, 0)``.
      kernel: taps on each axis.
      source: "lax", "flax" or "keras".
      positions: sizes of the output, which Keras does not store beyond one axis; for it alone.

    Returns:
      The kernels (*P, *K, C, O).

    Raises:
      ValueError: for an unknown source and for sizes that do not fit.
      TypeError: for integers that are not, arrays that are not.

    >>> import jax.numpy as jnp
    >>> w = jnp.zeros((5, 6, 3 * 3 * 2, 4))
    >>> jaxdil.local_kernel(w, kernel=(3, 3), source="flax").shape
    (5, 6, 3, 3, 2, 4)
    >>> w = jnp.zeros((5 * 6, 3 * 3 * 2, 4))
    >>> jaxdil.local_kernel(w, kernel=(3, 3), source="keras", positions=(5, 6)).shape
    (5, 6, 3, 3, 2, 4)
    """
    where = "local_kernel"
    _arguments.check_arrays(where, w=w)
    rank = len(kernel)
    taps = _arguments.integers(where, "kernel", kernel, rank)
    if source not in ("lax", "flax", "keras"):
        what = f"source must be 'lax', 'flax' or 'keras', got {source!r}"
        raise ValueError(error(where, what))
    if source == "keras" and positions is not None:
        sizes = _arguments.integers(where, "positions", positions, rank, least=0)
        axes, fits = 3, w.ndim == 3 and w.shape[0] == math.prod(sizes)
    else:
        axes = 3 if source == "keras" else rank + 2
        sizes = w.shape[:-2]
        fits = w.ndim == axes and len(sizes) == rank and positions is None
    if not fits or w.shape[-2] % math.prod(taps):
        order = "(prod(P), prod(K) C, O)" if source == "keras" else "(*P, C prod(K), O)"
        raise ValueError(
            error(
                where,
                f"w must be {order} with {math.prod(taps)} taps and {axes} axes, got shape "
                f"{w.shape}, kernel={taps} and positions={positions!r}",
                "positions are for Keras alone, and needed there for more than one axis.",
            )
        )
    if source == "keras":
        return jnp.reshape(w, (*sizes, *taps, -1, w.shape[-1]))
    w = jnp.reshape(w, (*sizes, -1, *taps, w.shape[-1]))
    return jnp.moveaxis(w, rank, -2)
