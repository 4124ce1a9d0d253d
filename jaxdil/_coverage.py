"""Which samples a unit sees, in how many ways, and how strongly: sets, counts and gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxdil._arguments import integer
from jaxdil._errors import error
from jaxdil._receptive_field import Layers, read_layers
from jaxdil._swap import is_array
from jaxdil._tape import tape_of

__all__ = ["coverage", "covers", "effective_receptive_field", "receptive_inputs"]

# What indexes an array in NumPy: integers, slices, ...
Index: TypeAlias = Any


@overload
def coverage(layers: Layers) -> np.ndarray: ...


@overload
def coverage(
    layers: Callable[..., Any], *, unit: Index = ..., argnum: int = ...
) -> Callable[..., np.ndarray]: ...


def coverage(
    layers: Layers | Callable[..., Any], *, unit: Index = None, argnum: int = 0
) -> np.ndarray | Callable[..., np.ndarray]:
    """In how many ways each sample of the input reaches a unit: the number of paths between them.

    ``ways[q] = #{(t_1, ..., t_L): sum_i jump_i dilation_i t_i = q}``, a tap t_i in every layer.

    Zeros within the field are holes: samples that the unit passes over. A stack of equal
    dilations has them (*gridding*), and where the counts are uneven, neighbours weigh unevenly.

    Args:
      layers: as in `receptive_field`: a list of layers, or a function with one array as result.
      unit: of a function: which units of the result, any NumPy index of it; those of several are
        added up. The one in the middle if None.
      argnum: of a function: which of its arguments is the input, an array.

    Returns:
      Of layers, the counts over the field of one unit, an array of float64 with one axis an axis of
      the layers. Of a function, one that takes its arguments and returns the counts in the shape of
      the input, channels and all: a path through another channel is another path. Above 2**53 they
      are rounded.

    Raises:
      ValueError: as `receptive_field`; for a unit that the result has not, or several results.
      TypeError: as `receptive_field`.
      OverflowError: if there are more than 1e308 paths; `receptive_inputs` still answers.

    Cost: one trace, and a pass back through the program in NumPy, a slice a tap.

    Source: Wang et al., Understanding Convolution for Semantic Segmentation, arXiv:1702.08502.

    >>> jaxdil.coverage([(3, 1, 2), (3, 1, 2)]).astype(int)
    array([1, 0, 2, 0, 3, 0, 2, 0, 1])
    >>> jaxdil.coverage([(3, 1, 1), (3, 1, 3)]).astype(int)
    array([1, 1, 1, 1, 1, 1, 1, 1, 1])

    >>> import jax.numpy as jnp
    >>> shortcut = lambda x: x + jaxdil.conv(x, jnp.ones((3, 1, 1)), dilation=2)
    >>> jaxdil.coverage(shortcut)(jnp.ones((1, 9, 1)))[0, :, 0].astype(int)
    array([0, 0, 1, 0, 2, 0, 1, 0, 0])
    """
    return _counted("coverage", layers, unit, argnum, math.inf)


@overload
def receptive_inputs(layers: Layers) -> np.ndarray: ...


@overload
def receptive_inputs(
    layers: Callable[..., Any], *, unit: Index = ..., argnum: int = ...
) -> Callable[..., np.ndarray]: ...


def receptive_inputs(
    layers: Layers | Callable[..., Any], *, unit: Index = None, argnum: int = 0
) -> np.ndarray | Callable[..., np.ndarray]:
    """The exact set of samples that can reach a unit, as a mask.

    ``mask[q] = coverage[q] > 0``: through some tap in every layer there is a path from q.

    Every tap counts, whatever its weight, and an operation that mixes an axis reads all of it.

    Args:
      layers: as in `coverage`.
      unit: as in `coverage`; of several units, what reaches any of them.
      argnum: as in `coverage`.

    Returns:
      Of layers, a mask over the field of one unit. Of a function, one that takes its arguments and
      returns a mask in the shape of the input.

    Raises:
      ValueError: as `coverage`.
      TypeError: as `coverage`.

    Cost: as `coverage`.

    >>> jaxdil.receptive_inputs([(3, 1, 2), (2, 1, 1)])
    array([ True,  True,  True,  True,  True,  True])
    >>> import jax, jax.numpy as jnp
    >>> pool = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), "VALID")
    >>> jaxdil.receptive_inputs(pool, unit=1)(jnp.ones(6))
    array([False, False,  True,  True, False, False])
    """
    found = _counted("receptive_inputs", layers, unit, argnum, 1.0)
    if not callable(found):
        return found > 0

    def masked(*args: Any, **kwargs: Any) -> np.ndarray:
        return found(*args, **kwargs) > 0

    return masked


def covers(layers: Layers) -> bool:
    """Whether a unit of a stack sees every sample of its field, so that there are no holes.

    ``all(coverage > 0)``, exactly. Compare `hdc_distance`, the rule of Wang et al.

    Args:
      layers: as in `receptive_field`.

    Returns:
      True if no sample between the first and the last is passed over, on any axis.

    Raises:
      ValueError: as `receptive_field`.
      TypeError: as `receptive_field`.

    >>> jaxdil.covers([(3, 1, 1), (3, 1, 2), (3, 1, 5)]), jaxdil.covers([(3, 1, 2)] * 3)
    (True, False)
    """
    return all(line.all() for line in _lines("covers", layers, 1.0))


def effective_receptive_field(
    fn: Callable[..., Any], *, unit: Index = None, argnum: int = 0
) -> Callable[..., jax.Array]:
    """How strongly each sample of the input moves a unit: the size of its gradient.

        effect[q] = |d y[unit] / d x[q]|

    Far smaller than the receptive field as a rule, and shaped like a bell. Average it over inputs
    and weights to see what an architecture does.

    Args:
      fn: any function that ``jax.grad`` can derive, with one array of floats as its result.
      unit: which units, any NumPy index of the result; those of several are added up before the
        derivative is taken. The one in the middle if None.
      argnum: which of its arguments is the input, an array of floats.

    Returns:
      A function of the arguments of fn, arrays, to the effect in the shape and dtype of the input.
      It runs under jit and vmap.

    Raises:
      ValueError: for a unit that the result has not, or several results.
      TypeError: if the input is no array of floats.

    Cost: one gradient of fn.

    Source: Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks, arXiv:1701.04128.

    >>> import jax.numpy as jnp
    >>> blur = lambda x: jaxdil.conv(x, jnp.array([0.25, 0.5, 0.25]).reshape(3, 1, 1))
    >>> twice = lambda x: blur(blur(x))
    >>> jaxdil.effective_receptive_field(twice)(jnp.ones((1, 7, 1)))[0, :, 0]
    Array([0.    , 0.0625, 0.25  , 0.375 , 0.25  , 0.0625, 0.    ], dtype=float32)
    """
    where = "effective_receptive_field"
    argnum = integer(where, "argnum", argnum)

    @functools.wraps(fn)
    def effect(*args: Any, **kwargs: Any) -> jax.Array:
        x: Any = args[argnum] if 0 <= argnum < len(args) else None
        if not is_array(x) or not jnp.issubdtype(x.dtype, jnp.floating):
            got = f"{len(args)} arguments" if x is None else getattr(x, "dtype", type(x).__name__)
            what = f"argument {argnum} of the function must be an array of floats, got {got}"
            raise TypeError(error(where, what, "Pass argnum= for another."))

        def chosen(x: jax.Array) -> jax.Array:
            y = fn(*args[:argnum], x, *args[argnum + 1 :], **kwargs)
            shape = _one_shape(where, [leaf.shape for leaf in jax.tree.leaves(y)])
            (y,) = jax.tree.leaves(y)
            return jnp.sum(y * jnp.asarray(_mask(where, shape, unit), y.dtype))

        return jnp.abs(jax.grad(chosen)(jnp.asarray(x)))

    return effect


def _counted(
    where: str, layers: Layers | Callable[..., Any], unit: Index, argnum: int, most: float
) -> Any:
    """Counts of paths, each cut off at ``most``."""
    if not callable(layers):
        if unit is not None:
            what = f"unit is for functions, got unit={unit!r} with layers"
            raise ValueError(error(where, what, "Every unit of a stack sees the same pattern."))
        lines = _lines(where, layers, most)
        return _finite(where, functools.reduce(np.multiply.outer, lines))
    argnum = integer(where, "argnum", argnum)

    def traced(*args: Any, **kwargs: Any) -> np.ndarray:
        tape, _ = tape_of(where, layers, args, kwargs, argnum)
        shape = _one_shape(where, tape.result_shapes)
        mask = _mask(where, shape, unit).astype(float)
        (result,) = tape.results
        if result is None:
            return np.zeros(tape.shapes[0])
        return _finite(where, tape.ways(result, mask, most=most))

    return traced


def _lines(where: str, layers: Layers, most: float) -> list[np.ndarray]:
    """Paths from each sample of the field, on each axis by itself."""
    read, _ = read_layers(where, layers)
    lines = []
    for axis in range(len(read[0].kernel) if read else 1):
        ways, jump = np.ones(1), 1
        for kernel, stride, dilation, _ in read:
            step = dilation[axis] * jump
            longer = np.zeros(len(ways) + (kernel[axis] - 1) * step)
            with np.errstate(over="ignore"):
                for tap in range(kernel[axis]):
                    longer[tap * step : tap * step + len(ways)] += ways
            ways, jump = np.minimum(longer, most), jump * stride[axis]
        lines.append(ways)
    return lines


def _finite(where: str, ways: np.ndarray) -> np.ndarray:
    if not np.isfinite(ways).all():
        what = "there are more than 1e308 paths, too many to count"
        raise OverflowError(error(where, what, "receptive_inputs says which samples have any."))
    return ways


def _one_shape(where: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if len(shapes) != 1:
        what = f"the function must return one array, got {len(shapes)}"
        raise ValueError(error(where, what, "Return the one that is meant."))
    return shapes[0]


def _mask(where: str, shape: tuple[int, ...], unit: Index) -> np.ndarray:
    """Which samples of a result are meant."""
    mask = np.zeros(shape, bool)
    try:
        mask[tuple(n // 2 for n in shape) if unit is None else unit] = True
    except IndexError as reason:
        what = f"unit must index the result, of shape {shape}, got {unit!r}"
        raise ValueError(error(where, what, str(reason))) from reason
    if not mask.any():
        raise ValueError(error(where, f"unit={unit!r} is none of the result, of shape {shape}"))
    return mask
