"""Where a measurement was made: device, versions, date, commit, and the machine's two ceilings."""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from jaxdil._device import cores, cpu_model

__all__ = ["ROOT", "ceilings", "commit", "cores", "find_device", "header"]

ROOT = pathlib.Path(__file__).parent.parent
SCHEMA = 1


def find_device(name: str) -> Any:
    """The first device of a platform.

    Raises:
      ValueError: if there is none.
    """
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        msg = f"--device: JAX finds no {name} here ({str(error).splitlines()[0]})"
        raise ValueError(msg) from error


def commit() -> str:
    """The commit that is checked out, with "-dirty" if the code differs from it.

    Where the code is a copy without its history, the variable BENCHMARKS_COMMIT says what it is.
    """
    if said := os.environ.get("BENCHMARKS_COMMIT"):
        return said

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "jaxdil", "benchmarks/*.py")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def header(
    device_name: str,
    device: Any,
    *,
    peers: dict[str, ModuleType],
    arguments: Sequence[str],
    command: str = "run",
) -> dict[str, Any]:
    """The first record of a result, without the ceilings."""
    return {
        "kind": "header",
        "schema": SCHEMA,
        "benchmark": "layers" if command == "run" else command,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "device": device_name,
        "device_kind": device.device_kind,
        "cpu": cpu_model(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        **{name: module.version() for name, module in peers.items()},
        "commit": commit(),
        "command": shlex.join(["python", "-m", "benchmarks", command, *arguments]),
    }


def ceilings(
    device_name: str, device: Any, dtypes: Sequence[str], peers: dict[str, ModuleType], *, size: int
) -> dict[str, Any]:
    """FLOP/s of a large matrix product in each dtype (the best library's), bytes/s of a copy.

    Also how long a call takes that computes nothing: below that, only the calling is measured.
    ``size`` is the side of the matrix; 8 times the bytes of one are copied.
    """
    products = {}
    for dtype in dtypes:
        normal = np.random.default_rng(0).standard_normal((size, size), np.float32)
        a = jax.device_put(normal.astype(jnp.dtype(dtype)), device)
        own = 2 * size**3 / _median_time(lambda a: a @ a, a)
        others = [peer.ceilings(size, dtype, device_name) for peer in peers.values()]
        products[dtype] = max([own, *others])
    big = jax.device_put(np.zeros(8 * size * size, np.float32), device)
    # In place: a fresh result would time the operating system handing out pages.
    copied = 2 * big.nbytes / _median_time(lambda a: -a, big, donate=True)
    nothing = _median_time(
        lambda a: -a, jax.device_put(np.zeros(1, np.float32), device), repeats=100
    )
    return {"matmul_flops": products, "copy_bytes": copied, "call_s": nothing}


def _median_time(
    fn: Callable[[Any], Any], a: Any, repeats: int = 5, *, donate: bool = False
) -> float:
    compiled = jax.jit(fn, donate_argnums=0 if donate else ()).lower(a).compile()
    result = compiled(a).block_until_ready()
    took = []
    for _ in range(repeats):
        a = result if donate else a
        started = time.perf_counter()
        result = compiled(a).block_until_ready()
        took.append(time.perf_counter() - started)
    return statistics.median(took)
