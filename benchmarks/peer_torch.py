"""PyTorch: oneDNN on a CPU, cuDNN on a GPU, in the memory format that suits it.

Arrays that a case holds channels last are ``channels_last`` tensors (plain ones in 1-D, for which
PyTorch has no such format), those it holds channels first are contiguous. Kernels are reordered,
and a transposed layer's are flipped, before the clock. Uneven padding is a call of ``pad``, as in
code that people write, and is timed where a training step would run it.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from benchmarks.case import Case
from benchmarks.contenders import Contender

__all__ = ["UnsupportedError", "build", "ceilings", "prepare", "variants", "version"]

_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
# OpenMP's threads spin after their work, by default 300,000 times, up to 16 ms. On a machine of few
# cores that would slow down whoever is next.
_SETTLE = 0.02
# Seconds after which a ceiling is known well enough.
_LONGEST_S = 3.0


class UnsupportedError(NotImplementedError):
    """PyTorch has no call for this case."""


def version() -> str:
    """Of PyTorch."""
    return torch.__version__


def prepare(device: str, threads: int) -> str | None:
    """Threads as JAX has cores, the fastest of cuDNN's algorithms; or why it cannot take part."""
    if device == "tpu":
        return "PyTorch does not run on a TPU here"
    if device != "cpu" and not torch.cuda.is_available():
        return f"this PyTorch ({torch.__version__}) sees no GPU"
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    return None


def variants(case: Case, device: str) -> dict[str, dict[str, Any]]:
    """Contender -> options of ``build``. On a GPU either memory format may be the faster one."""
    if device == "cpu" or case.data_format == "channels_first" or case.rank not in _FORMATS:
        return {"torch": {}}
    return {"torch": {}, "torch-contiguous": {"contiguous": True}}


def build(
    case: Case, mode: str, arrays: dict[str, np.ndarray], device: str, *, contiguous: bool = False
) -> Contender:
    """The case by PyTorch's convolution, or by ``convolution_backward`` for one gradient alone.

    With ``contiguous`` all tensors have channels first in memory, whatever the case has.

    Raises:
      UnsupportedError: if PyTorch cannot express it.
    """
    device = "cpu" if device == "cpu" else "cuda"  # what PyTorch calls AMD's GPUs too
    dtype = getattr(torch, case.dtype)
    even, excess = _padding(case)
    if case.transposed:
        # Crops of the output: what PyTorch calls padding, and what its end crops less.
        if any(extra > 0 or -extra >= s for extra, s in zip(excess, case.stride, strict=True)):
            msg = f"PyTorch has no output_padding for {case.padding}"
            raise UnsupportedError(msg)
        output_padding, pad = [-extra for extra in excess], None
    else:
        output_padding = [0] * case.rank
        pad = _pad_argument(excess) if any(map(any, excess)) else None
    settings = (
        list(case.stride),
        even,
        list(case.dilation),
        case.transposed,
        output_padding,
        case.groups,
    )
    tensor = functools.partial(
        _tensor, case=case, device=device, dtype=dtype, contiguous=contiguous
    )
    x, w, g = (tensor(arrays[name], name) for name in "xwg")

    def padded(x: torch.Tensor) -> torch.Tensor:
        return x if pad is None else functional.pad(x, pad)

    def backward(x: torch.Tensor, w: torch.Tensor, *, mask: list[bool]) -> tuple[Any, ...]:
        return torch.ops.aten.convolution_backward(g, x, w, None, *settings, mask)

    def fwd() -> torch.Tensor:
        with torch.no_grad():
            return torch.ops.aten.convolution(padded(x), w, None, *settings)

    padded_x = padded(x)  # a training step has it from its forward pass

    def dx() -> torch.Tensor:
        grad = backward(padded_x, w, mask=[True, False, False])[0]
        return grad if pad is None else functional.pad(grad, [-p for p in pad])

    def dw() -> torch.Tensor:
        return backward(padded_x, w, mask=[False, True, False])[1]

    run = {"fwd": fwd, "dx": dx, "dw": dw}[mode]
    kind = {"fwd": "g", "dx": "x", "dw": "w"}[mode]
    return Contender(
        name="torch-contiguous" if contiguous else "torch",
        call=_waiting(run, device),
        result=lambda out: _array(out, case, kind, jnp.dtype(case.dtype)),
        settle=_SETTLE if device == "cpu" else 0.0,
    )


def ceilings(side: int, dtype: str, device: str) -> float:
    """Achieved FLOP/s of a square matrix product."""
    device = "cpu" if device == "cpu" else "cuda"
    a = torch.randn(side, side, device=device).to(getattr(torch, dtype))
    call = _waiting(lambda: a @ a, device)
    # The first call is not counted, unless it takes as long as all may: a minute in half precision,
    # on a CPU that has no instructions for it.
    took: list[float] = []
    while len(took) < 6 and sum(took) < _LONGEST_S:
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(took[1:] or took)


def _waiting(run: Callable[[], Any], device: str) -> Callable[[], Any]:
    if device == "cpu":
        return run

    def waited() -> Any:
        out = run()
        torch.cuda.synchronize()
        return out

    return waited


def _padding(case: Case) -> tuple[list[int], list[Any]]:
    """Padding as PyTorch says it, and the rest an axis: (lo, hi), or hi - lo if transposed."""
    if case.transposed:
        return [lo for lo, _ in case.pads], [hi - lo for lo, hi in case.pads]
    even = [min(pair) for pair in case.pads]
    return even, [(lo - p, hi - p) for (lo, hi), p in zip(case.pads, even, strict=True)]


def _pad_argument(excess: Sequence[tuple[int, int]]) -> list[int]:
    return [p for pair in reversed(excess) for p in pair]


def _tensor(
    array: np.ndarray, kind: str, *, case: Case, device: str, dtype: Any, contiguous: bool
) -> torch.Tensor:
    first = case.data_format == "channels_first"
    if kind == "w":
        # To (O, I, *K), or what PyTorch wants of a transposed layer: (I, O, *K), flipped.
        array = array if first else np.moveaxis(array, (-1, -2), (0, 1))
        if case.transposed:
            array = np.flip(_swapped(array, case.groups), tuple(range(2, array.ndim)))
    elif not first:
        array = np.moveaxis(array, -1, 1)
    # numpy's bfloat16 is none that PyTorch knows; float32 holds it exactly.
    tensor = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    tensor = tensor.to(device=device, dtype=dtype)
    if not (first or contiguous) and case.rank in _FORMATS:
        tensor = tensor.contiguous(memory_format=_FORMATS[case.rank])
    return tensor


def _array(out: torch.Tensor, case: Case, kind: str, dtype: Any) -> np.ndarray:
    """A result in the layout of the case, the inverse of ``_tensor``."""
    array = out.float().cpu().numpy().astype(dtype)
    first = case.data_format == "channels_first"
    if kind == "w":
        if case.transposed:
            array = _swapped(np.flip(array, tuple(range(2, array.ndim))), case.groups)
        return array if first else np.moveaxis(array, (0, 1), (-1, -2))
    return array if first else np.moveaxis(array, 1, -1)


def _swapped(w: np.ndarray, groups: int) -> np.ndarray:
    """(G a, b, *K) to (G b, a, *K)."""
    outer, inner, *kernel = w.shape
    blocks = w.reshape(groups, outer // groups, inner, *kernel).swapaxes(1, 2)
    return blocks.reshape(groups * inner, outer // groups, *kernel)
