"""The device here by the name that tells it from others of its platform.

JAX calls every CPU "cpu". What is fastest on one is not on another, nor with more cores, so a CPU
is named by its model, by the vectors that it computes with (a virtual machine may call processors
of several generations the same) and by the cores that this process may use.
"""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp

__all__ = [
    "cores",
    "cpu_model",
    "cpu_vectors",
    "default_device",
    "devices_here",
    "kind_here",
    "multiplies_bfloat16",
]

# x86's by what Linux calls them, the widest first.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}


def default_device() -> tuple[str, str]:
    """Platform, as lowering rules name it, and kind of the device that computes by default."""
    device = next(iter(jnp.zeros(()).devices()))
    name = device.platform
    if name == "gpu":
        name = "rocm" if _kinds("rocm") else "cuda"
    return name, _kind(device)


def kind_here(platform: str | None) -> str | None:
    """The kind of this process's devices of a platform, or None if there is none, or several."""
    kinds = set() if platform is None else _kinds(platform)
    return kinds.pop() if len(kinds) == 1 else None


def _kinds(platform: str) -> set[str]:
    return {_kind(device) for device in devices_here(platform)}


def devices_here(platform: str) -> list[Any]:
    """This process's devices of a platform; "gpu" is either kind of GPU."""
    try:
        return jax.local_devices(backend=platform)
    except RuntimeError:  # there is no such device
        return []


def _kind(device: Any) -> str:
    if device.platform != "cpu":
        return str(device.device_kind)
    count = cores()
    return f"{cpu_model()}, {count} core{'s' if count > 1 else ''}"


@functools.cache
def cores() -> int:
    """CPU cores that this process may use; JAX asks once, when it starts."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def cpu_model() -> str:
    """What the CPU calls itself, and its vectors where they are known."""
    told = _cpuinfo()
    if "model name" in told:
        vectors = cpu_vectors()
        return told["model name"] + (f" ({vectors})" if vectors else "")
    if "CPU part" in told:  # Linux on ARM gives numbers
        return f"{platform.machine()} {told.get('CPU implementer')} {told['CPU part']}"
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: PLW1510, S603
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def cpu_vectors() -> str:
    """The widest vectors of the CPU: "AVX-512", "AVX2", or "" where Linux names neither."""
    return next((name for flag, name in _VECTORS.items() if flag in _flags()), "")


def multiplies_bfloat16() -> bool:
    """Whether the CPU is known to have instructions for products of bfloat16."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_flags())


@functools.cache
def _flags() -> frozenset[str]:
    return frozenset(_cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """What Linux tells of the CPU, of the last of them; empty elsewhere."""
    info = pathlib.Path("/proc/cpuinfo")
    if sys.platform != "linux" or not info.exists():
        return {}
    lines = [line.partition(":") for line in info.read_text().splitlines()]
    return {key.strip(): value.strip() for key, _, value in lines}
