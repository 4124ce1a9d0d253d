"""One benchmark case: a layer of a published network as data, and the convolution that it is.

Shapes are written channels last whatever the layout of the arrays: x (N, *S, C), w (*K, I, O). A
transposed layer is described in its own words (``stride`` spreads the input, ``padding`` crops the
output) and runs as what lax makes of it: a convolution of the input, dilated.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "FAMILIES",
    "MODES",
    "Case",
    "as_dtype",
    "function",
    "make",
    "operands",
    "shapes",
    "shrunk",
    "terms",
    "with_batch",
]

MODES = ("fwd", "dx", "dw")
FAMILIES = ("depthwise", "grouped", "dilated", "transposed", "dense")

Pairs = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A named layer and where it comes from. ``make`` fills the tuples in."""

    name: str
    source: str
    family: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str | Pairs
    """"SAME", "VALID", "CAUSAL" or pairs; of a transposed layer, what is cropped off the output."""
    groups: int
    transposed: bool
    dtype: str
    data_format: str

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.x) - 2

    @property
    def extent(self) -> tuple[int, ...]:
        """Size of the dilated kernel."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.w, self.dilation, strict=False))

    @property
    def pads(self) -> Pairs:
        """``padding`` as pairs."""
        if not isinstance(self.padding, str):
            return self.padding
        pairs = []
        for n, k, s in zip(self.x[1:-1], self.extent, self.stride, strict=True):
            match self.padding:
                case "VALID":
                    lo, total = 0, 0
                case "CAUSAL":
                    lo, total = k - 1, k - 1
                case _:
                    total = max((-(-n // s) - 1) * s + k - n, 0)
                    lo = total // 2
            pairs.append((lo, total - lo))
        return tuple(pairs)

    @property
    def lax_arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``lax.conv_general_dilated``."""
        ones, last = (1,) * self.rank, self.rank + 1
        pads, stride, spread = self.pads, self.stride, ones
        if self.transposed:
            pads = tuple(
                (k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip(self.extent, pads, strict=True)
            )
            stride, spread = ones, self.stride
        if self.data_format == "channels_first":
            image = kernel = tuple(range(self.rank + 2))
        else:
            image = (0, last, *range(1, last))
            kernel = (last, last - 1, *range(self.rank))
        return {
            "window_strides": stride,
            "padding": pads,
            "lhs_dilation": spread,
            "rhs_dilation": self.dilation,
            "dimension_numbers": lax.ConvDimensionNumbers(image, kernel, image),
            "feature_group_count": self.groups,
        }

    def stored(self, image: np.ndarray) -> np.ndarray:
        """An array (N, *S, C) with its axes as the case's layout has them in memory."""
        if self.data_format == "channels_first":
            return np.ascontiguousarray(np.moveaxis(image, -1, 1))
        return image

    def stored_kernel(self, w: np.ndarray) -> np.ndarray:
        """A kernel (*K, I, O) as the case's layout has it: (O, I, *K) if channels come first."""
        if self.data_format == "channels_first":
            return np.ascontiguousarray(np.moveaxis(w, (-1, -2), (0, 1)))
        return w

    @property
    def geometry(self) -> str:
        """The layer in one short line, for tables."""
        parts = ["x".join(map(str, self.x)), "*", "x".join(map(str, self.w))]
        parts += [f"s{_short(self.stride)}"] if set(self.stride) != {1} else []
        parts += [f"d{_short(self.dilation)}"] if set(self.dilation) != {1} else []
        parts += [f"g{self.groups}"] if self.groups > 1 else []
        parts += ["transposed"] if self.transposed else []
        parts += (
            [self.padding] if self.padding in ("VALID", "CAUSAL") and not self.transposed else []
        )
        parts += ["bf16"] if self.dtype == "bfloat16" else []
        parts += ["channels first"] if self.data_format == "channels_first" else []
        return " ".join(parts)

    @property
    def labels(self) -> dict[str, str]:
        """What every record of a result says of the layer."""
        names = ("family", "source", "geometry", "dtype")
        return {"case": self.name} | {name: getattr(self, name) for name in names}


def make(
    name: str,
    source: str,
    family: str,
    x: Sequence[int],
    w: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
    transposed: bool = False,
    dtype: str = "float32",
    data_format: str = "channels_last",
) -> Case:
    """A case, an int standing for the same on every axis (padding: on both sides too)."""
    rank = len(x) - 2
    pairs = ((padding, padding),) * rank if isinstance(padding, int) else padding
    if transposed and pairs == "VALID":
        pairs = ((0, 0),) * rank
    assert family in FAMILIES, f"{name}: family {family!r} is none of {FAMILIES}"
    assert x[-1] == w[-2] * groups, f"{name}: channels {x[-1]} are not {groups} times {w[-2]}"
    assert w[-1] % groups == 0, f"{name}: {groups} groups do not divide {w[-1]} channels"
    assert not (transposed and isinstance(pairs, str)), f"{name}: say what is cropped in numbers"
    return Case(
        name=name,
        source=source,
        family=family,
        x=tuple(x),
        w=tuple(w),
        stride=_each(stride, rank),
        dilation=_each(dilation, rank),
        padding=pairs if isinstance(pairs, str) else tuple(pairs),
        groups=groups,
        transposed=transposed,
        dtype=dtype,
        data_format=data_format,
    )


def operands(case: Case) -> dict[str, np.ndarray]:
    """x, w and the cotangent g, normal and the same in every run, as the case stores them."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    dtype = jnp.dtype(case.dtype)

    def normal(shape: Sequence[int]) -> np.ndarray:
        return rng.standard_normal(shape, np.float32).astype(dtype)

    arrays = {"x": case.stored(normal(case.x)), "w": case.stored_kernel(normal(case.w))}
    y = jax.eval_shape(function(case, "fwd"), arrays["x"], arrays["w"])
    return arrays | {"g": normal(y.shape)}


def shapes(case: Case) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of each of `operands`, for what computes nothing."""
    dtype = jnp.dtype(case.dtype)
    x = jax.ShapeDtypeStruct(_stored_shape(case, case.x), dtype)
    w = jax.ShapeDtypeStruct(_stored_shape(case, case.w, kernel=True), dtype)
    y = jax.eval_shape(function(case, "fwd"), x, w)
    return {"x": x, "w": w, "g": jax.ShapeDtypeStruct(y.shape, dtype)}


def as_dtype(case: Case, dtype: str) -> Case:
    """The case in another dtype."""
    return dataclasses.replace(case, dtype=dtype)


def with_batch(case: Case, batch: int, most: int = 2**24) -> Case:
    """The case with a batch of at least ``batch``, halved until x and y have ``most`` elements."""
    while True:
        larger = dataclasses.replace(case, x=(max(batch, case.x[0]), *case.x[1:]))
        arrays = shapes(larger).values()
        if batch <= case.x[0] or max(math.prod(a.shape) for a in arrays) <= most:
            return larger
        batch //= 2


def function(case: Case, mode: str) -> Callable[[Any, Any], Any]:
    """The convolution by lax of (x, w), or a gradient: dx of (g, w), dw of (x, g)."""

    def conv(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, **case.lax_arguments)

    dtype = jnp.dtype(case.dtype)
    x = jax.ShapeDtypeStruct(_stored_shape(case, case.x), dtype)
    w = jax.ShapeDtypeStruct(_stored_shape(case, case.w, kernel=True), dtype)

    def dx(g: Any, w: Any) -> Any:
        return jax.linear_transpose(lambda x: conv(x, w), x)(g)[0]

    def dw(x: Any, g: Any) -> Any:
        return jax.linear_transpose(lambda w: conv(x, w), w)(g)[0]

    return {"fwd": conv, "dx": dx, "dw": dw}[mode]


def terms(case: Case, mode: str, positions: int) -> int:
    """Products summed into one element of the result, at most; ``positions`` is how many y has."""
    taps = math.prod(case.w[:-2])
    if mode == "fwd":
        return taps * case.w[-2]
    if mode == "dx":
        return taps * case.w[-1] // case.groups
    return math.prod(case.x[:-1]) if case.transposed else positions


def shrunk(case: Case) -> Case:
    """The case made small, for tests: its rank, parity and strides, few samples and channels."""
    # A wide stride is narrowed, and its kernel with it, so that they overlap as they did.
    stride = tuple(min(s, 4) for s in case.stride)
    kernel = tuple(k * s // old for k, s, old in zip(case.w, stride, case.stride, strict=False))
    kernel = tuple(min(k, 9 if k % 2 else 8) for k in kernel)
    dilation = tuple(min(d, 5) for d in case.dilation)
    groups = min(case.groups, 4)
    inner = min(case.w[-2], 3)
    outer = min(case.w[-1] // case.groups, 3)
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    room = zip(case.x[1:-1], extent, stride, strict=True)
    size = [min(n, (4 if case.transposed else k + 2 * s) // 2 * 2 + n % 2) for n, k, s in room]
    padding = case.padding
    if not isinstance(padding, str):
        padding = tuple(
            (lo * new // old, hi * new // old)
            for (lo, hi), new, old in zip(padding, extent, case.extent, strict=True)
        )
    return dataclasses.replace(
        case,
        x=(min(case.x[0], 2), *size, groups * inner),
        w=(*kernel, inner, groups * outer),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )


def _each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _short(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def _stored_shape(case: Case, shape: tuple[int, ...], *, kernel: bool = False) -> tuple[int, ...]:
    if case.data_format != "channels_first":
        return shape
    return (shape[-1], shape[-2], *shape[:-2]) if kernel else (shape[0], shape[-1], *shape[1:-1])
