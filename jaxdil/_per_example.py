"""A kernel for each example of a batch: StyleGAN2's modulation, hypernetworks, dynamic filters.

y[n, p, o] = sum_{t, i}  x[n, s p + d t - lo, g I + i]  w[n, t, i, o]
"""

from __future__ import annotations

from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxdil import _arguments, _batched, _window
from jaxdil._adjoint import named_layout
from jaxdil._arguments import Ints, Padding
from jaxdil._errors import error

__all__ = ["conv_per_example"]


def conv_per_example(
    x: Num[Array, "N ..."],
    w: Num[Array, "N *K I O"],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    groups: int | None = 1,
    data_format: str | None = None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Num[Array, "N ..."]:
    """Convolution of each example of a batch with a kernel of its own.

    ``y[n, p, o] = sum_{t, i} x[n, s p + d t - lo, g I + i] w[n, t, i, o]``: `conv` mapped over x
    and w together. ``jax.vmap`` of a convolution over both becomes one convolution in N groups,
    which few devices do well; this is a matrix product for a few taps at a time, batched over the
    examples.

    Args:
      x: input (N, *S, C).
      w: kernels (N, *K, I, O), I = C / groups.
      stride: samples between neighbouring outputs, >= 1.
      dilation: samples between neighbouring taps, >= 1.
      padding: as in `conv`.
      padding_mode: as in `conv`.
      groups: as in `conv`.
      data_format: a name or letters, as in `conv`; w is in the order above under each.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.

    Returns:
      y (N, *P, O).

    Raises:
      ValueError: as `conv`, and if x and w are not equally many.
      TypeError: as `conv`.

    Cost: ``2 N prod(P) prod(K) I O`` floating-point operations. The temporaries, gradients
      included, stay below a few times the input and the output, however large the kernel.

    Source: Karras et al., Analyzing and Improving the Image Quality of StyleGAN, arXiv:1912.04958;
      Ha et al., HyperNetworks, arXiv:1609.09106.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((2, 4, 1))
    >>> w = jnp.array([1.0, 10.0])[:, None, None, None] * jnp.ones((2, 3, 1, 1))
    >>> jaxdil.conv_per_example(x, w, padding="VALID")[..., 0]
    Array([[ 3.,  3.],
           [30., 30.]], dtype=float32)
    """
    where = "conv_per_example"
    _arguments.check_arrays(where, x=x, w=w)
    if w.ndim < 3:
        what = f"w must be (N, *K, I, O), with at least 3 axes, got shape {w.shape}"
        raise ValueError(error(where, what, "One kernel for all examples: call jaxdil.conv."))
    layout = named_layout(where, x.shape, w.shape[1:], data_format)
    if layout.lead is None or len(layout.lead) != 1 or layout.lead[0] != w.shape[0]:
        raise ValueError(
            error(
                where,
                f"x and w must have one batch axis of the same size, got shapes {x.shape} and "
                f"{w.shape}",
                f"w is (N, *K, I, O), so x has {layout.rank + 2} axes.",
                "Several batch axes: reshape both to one, or jax.vmap over the others.",
            )
        )
    window = _window.forward(
        where,
        layout,
        x.shape,
        w.shape[1:],
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )
    return _batched.convolve(
        where,
        x,
        w,
        layout,
        window,
        equation=_batched.EXAMPLES,
        mode=padding_mode,
        precision=precision,
        preferred=preferred_element_type,
    )
