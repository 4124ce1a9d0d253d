"""Is this result right? Each element against the float64 reference, within what rounding allows.

    |actual - expected| <= safety * eps(arithmetic) * sqrt(terms) * sum |x||w|
                           + eps(output) * |expected|

The first part is what summing ``terms`` products may lose; its sum is the reference run on absolute
values, so cancellation is judged fairly and a real error is not hidden. The second is one rounding
to the output's dtype. Integers are exact, modulo their width. One rule for every dtype and size.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdil import reference

Array = jax.Array | np.ndarray


def budget(
    expected: np.ndarray,
    magnitude: np.ndarray,
    *,
    terms: int,
    dtype: Any,
    out_dtype: Any = None,
    safety: float = 4,
) -> np.ndarray:
    """The error each element may have.

    Args:
      expected: the float64 (complex128) result.
      magnitude: the same computation on absolute values.
      terms: products summed into one element.
      dtype: precision the arithmetic ran in, bfloat16 for bfloat16 passes over float32 data.
      out_dtype: dtype of the result; None means ``dtype``.
      safety: the small factor.
    """
    arithmetic = jnp.finfo(dtype)
    output = jnp.finfo(dtype if out_dtype is None else out_dtype)
    summing = safety * float(arithmetic.eps) * math.sqrt(terms) * magnitude
    rounding = float(output.eps) * np.abs(expected)
    # Below the normal range eps is no bound: XLA flushes subnormal products to zero, and what is
    # not flushed is rounded to a multiple of the smallest subnormal.
    underflow = terms * float(arithmetic.tiny) + float(output.smallest_subnormal)
    return summing + rounding + underflow


def assert_matches(
    actual: Array,
    expected: np.ndarray,
    magnitude: np.ndarray,
    *,
    terms: int,
    dtype: Any,
    out_dtype: Any = None,
    safety: float = 4,
) -> None:
    """Fail unless shape and dtype are right and every element is within its ``budget``.

    Integer results must equal ``expected`` modulo their width; ``magnitude`` and ``terms`` are not
    read for them.
    """
    out_dtype = jnp.dtype(dtype if out_dtype is None else out_dtype)
    assert actual.dtype == out_dtype, f"dtype is {actual.dtype}, expected {out_dtype}"
    assert actual.shape == expected.shape, f"shape is {actual.shape}, expected {expected.shape}"
    got = np.asarray(actual)
    if jnp.issubdtype(out_dtype, jnp.integer):
        expected = expected.astype(np.int64).astype(out_dtype)
        error, allowed = (got != expected).astype(np.int64), np.zeros(got.shape)
    else:
        got = got.astype(_wide(out_dtype))
        with np.errstate(invalid="ignore"):  # inf - inf, a failure below
            error = np.abs(got - expected)
        allowed = budget(
            expected, magnitude, terms=terms, dtype=dtype, out_dtype=out_dtype, safety=safety
        )
    within = error <= allowed  # false for NaN, true for 0 <= 0
    if not within.all():
        worst = tuple(int(i) for i in np.argwhere(~within)[0])
        msg = (
            f"{(~within).sum()} of {within.size} elements exceed their rounding budget; the first"
            f" at {worst}: got {got[worst]}, expected {expected[worst]},"
            f" off by {error[worst]:.3g}, allowed {allowed[worst]:.3g}"
        )
        raise AssertionError(msg)


def assert_bilinear(
    actual: Array,
    definition: Callable[..., np.ndarray],
    a: Array,
    b: Array,
    *,
    terms: int,
    dtype: Any = None,
    out_dtype: Any = None,
    safety: float = 4,
    **geometry: Any,
) -> None:
    """Fail unless ``actual`` is ``definition(a, b, **geometry)``, a function of ``reference``.

    Args:
      terms: products summed into one element.
      dtype: precision the arithmetic ran in; None means the output's, or float32 for half
        precision, which accumulates in float32.
      out_dtype: dtype the result must have; None means that of ``a``.
      safety: see ``budget``.
    """
    a, b = np.asarray(a), np.asarray(b)
    out_dtype = jnp.dtype(a.dtype if out_dtype is None else out_dtype)
    if dtype is None:
        half = jnp.issubdtype(out_dtype, jnp.floating) and out_dtype.itemsize < 4
        dtype = np.float32 if half else out_dtype
    if jnp.issubdtype(out_dtype, jnp.complexfloating):
        terms = 2 * terms  # each part of a complex product is a sum of two real ones
    expected = definition(a, b, **geometry)
    magnitude = definition(*(np.abs(v.astype(_wide(v.dtype))) for v in (a, b)), **geometry)
    assert_matches(
        actual, expected, magnitude, terms=terms, dtype=dtype, out_dtype=out_dtype, safety=safety
    )


def assert_conv(actual: Array, x: Array, w: Array, **options: Any) -> None:
    """Fail unless ``actual`` is ``reference.conv(x, w, ...)``; options are that function's and
    those of ``assert_bilinear``."""
    assert_bilinear(actual, reference.conv, x, w, terms=math.prod(w.shape[:-1]), **options)


def assert_input_grad(
    actual: Array, g: Array, w: Array, *, groups: int = 1, **options: Any
) -> None:
    """Fail unless ``actual`` is ``reference.conv_transpose(g, w, input_shape=..., ...)``."""
    terms = math.prod(w.shape[:-2]) * w.shape[-1] // groups
    assert_bilinear(actual, reference.conv_transpose, g, w, terms=terms, groups=groups, **options)


def assert_kernel_grad(actual: Array, x: Array, g: Array, **options: Any) -> None:
    """Fail unless ``actual`` is ``reference.conv_kernel_grad(x, g, kernel_shape=..., ...)``."""
    terms = math.prod(g.shape[:-1])
    assert_bilinear(actual, reference.conv_kernel_grad, x, g, terms=terms, **options)


def _wide(dtype: Any) -> Any:
    return np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64
