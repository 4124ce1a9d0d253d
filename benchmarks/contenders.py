"""Who takes part: a convolution compiled, its arguments bound, ready to be called and timed.

lax and the methods of jaxdil are made here, other libraries in modules of their own, which PEERS
names. All compute the same function of the same numbers (``case.function``, ``case.operands``).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdil
from benchmarks.case import Case, as_dtype, function
from jaxdil._methods import METHODS, load, races

__all__ = [
    "ARGUMENTS",
    "PEERS",
    "Contender",
    "check_methods",
    "peer",
    "ready",
    "with_jaxdil",
    "with_lax",
]

# What a mode takes, in the order of its arguments.
ARGUMENTS = {"fwd": ("x", "w"), "dx": ("g", "w"), "dw": ("x", "g")}

# Library -> the module here that runs it. Each has `prepare`, `variants`, `build`, `ceilings` and
# `version`.
PEERS = {"torch": "benchmarks.peer_torch"}


@dataclasses.dataclass
class Contender:
    """One formulation of one case in one mode."""

    name: str
    call: Callable[[], Any]
    """Run it, and return when it is done."""
    result: Callable[[Any], np.ndarray]
    """What ``call`` returned, in the layout of the case."""
    compile_s: float | None = None
    temp_bytes: int | None = None
    method: str | None = None
    because: str | None = None
    settle: float = 0.0
    """Seconds to wait after its turn, until its threads no longer spin."""
    optional: bool = False
    """May be dropped where it is hopelessly slow."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """lax's result, how large the products are that it sums, and the size of the computation."""

    expected: np.ndarray
    magnitude: np.ndarray
    flops: int
    bytes: int


def with_lax(
    case: Case, mode: str, arrays: dict[str, np.ndarray], device: Any
) -> tuple[Callable[[], Contender], Callable[[], Reference]]:
    """How to build the convolution of lax, and what the others are checked against."""
    fn, args = function(case, mode), [arrays[name] for name in ARGUMENTS[mode]]
    row = _explained(fn, args, device)

    @functools.cache
    def compiled() -> tuple[Contender, Callable[..., Any]]:
        return _compiled("lax", fn, args, device)

    def reference() -> Reference:
        positive = [np.abs(a) for a in args]
        try:
            contender, program = compiled()
            expected = contender.result(contender.call())
            magnitude = np.asarray(program(*(jax.device_put(a, device) for a in positive)))
        except jax.errors.JaxRuntimeError:
            # cuDNN has no call for some half-precision convolutions that it has in float32.
            wide = jax.jit(function(as_dtype(case, "float32"), mode))
            expected, magnitude = (
                np.asarray(wide(*(jax.device_put(a.astype(np.float32), device) for a in them)))
                for them in (args, positive)
            )
            expected = expected.astype(case.dtype)
        return Reference(expected, magnitude, row.flops, row.bytes)

    return lambda: compiled()[0], reference


def with_jaxdil(
    case: Case,
    mode: str,
    arrays: dict[str, np.ndarray],
    device: Any,
    *,
    methods: str,
    lax: Callable[[], Contender] | None = None,
) -> dict[str, Callable[[], Contender]]:
    """How to build `auto` and each other method of ``methods`` that can serve ("all": of all).

    If ``lax`` is given, `auto` is what it builds where the choice is lax.
    """
    fn, args = function(case, mode), [arrays[name] for name in ARGUMENTS[mode]]
    row = _explained(fn, args, device)

    def build(name: str) -> Callable[[], Contender]:
        def built() -> Contender:
            if name == "auto" and row.method == "xla" and lax is not None:
                contender = dataclasses.replace(lax(), name=name)
            else:
                contender, _ = _compiled(name, jaxdil.accelerate(fn, method=name), args, device)
            contender.method = row.method if name == "auto" else name
            contender.because = row.because if name == "auto" else None
            contender.optional = name != "auto"
            return contender

        return built

    return {name: build(name) for name in ("auto", *others(row, _platform(device), methods))}


def others(row: Any, platform: str, methods: str) -> list[str]:
    """Those of ``methods`` that can serve a row of `explain`, beside lax and what it chose."""
    # "xla" is lax, which is timed as such; what auto chose is timed as auto.
    wanted = METHODS if methods == "all" else methods.split(",")
    names = [name for name in METHODS if name in wanted and name not in ("xla", row.method)]
    names = [name for name in names if races(name, platform)]
    return [name for name in names if load(name).supports(row.problem, platform) is None]


def check_methods(methods: str) -> None:
    """Raise ValueError unless these are "all", "auto", or names of methods between commas."""
    known = ("all", "auto", *METHODS)
    if unknown := [name for name in methods.split(",") if name not in known]:
        msg = f"--methods: {unknown[0]!r} is none of {', '.join(known)}"
        raise ValueError(msg)


def peer(name: str) -> ModuleType | None:
    """The module that runs a library, or None if the library is not installed.

    Raises:
      ValueError: for a library that the benchmarks do not know.
    """
    if name not in PEERS:
        msg = f"--peers: {name!r} is unknown; lax, {', '.join(PEERS)} are known"
        raise ValueError(msg)
    return importlib.import_module(PEERS[name]) if importlib.util.find_spec(name) else None


def ready(contender: Contender, *, seconds: float = 0.05) -> tuple[np.ndarray, float]:
    """Warm it up. Its result, and roughly how long a call takes."""
    started = time.perf_counter()
    out = contender.result(contender.call())
    last = began = time.perf_counter()
    took = began - started
    while last - started < seconds:
        contender.call()
        now = time.perf_counter()
        took, last = now - last, now
    return out, took


def _compiled(
    name: str, fn: Callable[..., Any], args: list[np.ndarray], device: Any
) -> tuple[Contender, Callable[..., Any]]:
    placed = [jax.device_put(a, device) for a in args]
    started = time.perf_counter()
    compiled = jax.jit(fn).lower(*placed).compile()
    contender = Contender(
        name=name,
        call=lambda: compiled(*placed).block_until_ready(),
        result=np.asarray,
        compile_s=time.perf_counter() - started,
        temp_bytes=_temporaries(compiled),
    )
    return contender, compiled


def _temporaries(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    return getattr(analysis, "temp_size_in_bytes", None)


def _explained(fn: Callable[..., Any], args: list[np.ndarray], device: Any) -> Any:
    shapes = [jax.ShapeDtypeStruct(a.shape, jnp.dtype(a.dtype)) for a in args]
    (row,) = jaxdil.explain(fn, platform=_platform(device), gradients=False)(*shapes)
    return row


def _platform(device: Any) -> str:
    return "cuda" if device.platform == "gpu" else device.platform
