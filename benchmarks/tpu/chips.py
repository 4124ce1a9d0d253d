"""The chips that libtpu compiles for, and programs for them.

libtpu brings the whole compiler, which runs on any x86-64 Linux machine and compiles for a chip
that is described to it. Nothing runs.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

__all__ = ["CHIPS", "Chip", "chip_of", "device_of", "lowered"]


class Chip(NamedTuple):
    """A chip as the compiler knows it, and what its maker says of it."""

    topology: str
    flops: float
    """bfloat16, a second."""
    bandwidth: float
    """Bytes a second to and from its memory (HBM)."""
    clock: float
    """Cycles a second: what turns an estimate into a time, and nothing else."""


# Peaks and bandwidths: Google's pages of each chip. Clocks follow from the peaks: a matrix unit of
# 128 x 128 (256 x 256 from v6e on) does one multiply-add a cell and cycle, and a chip has 8 of them
# (v4, v5p: two cores) or 4 (v5e, v6e). A device of v4 and v5p is a whole chip.
CHIPS = {
    "v4": Chip("v4:2x2x1", 275e12, 1228e9, 1.05e9),
    "v5e": Chip("v5e:2x2", 197e12, 819e9, 1.5e9),
    "v5p": Chip("v5p:2x2x1", 459e12, 2765e9, 1.75e9),
    "v6e": Chip("v6e:2x2", 918e12, 1640e9, 1.75e9),
}


def chip_of(device: str) -> str | None:
    """The chip of "tpu:v5e", None if a device is named that way by nobody.

    Raises:
      ValueError: for a chip that is not known.
    """
    kind, colon, name = device.partition(":")
    if kind != "tpu" or not colon:
        return None
    if name not in CHIPS:
        msg = f"--device: {device!r} is unknown; tpu:{', tpu:'.join(CHIPS)} are known"
        raise ValueError(msg)
    return name


def device_of(name: str) -> Any:
    """A device of a chip, good for compiling and for nothing else.

    Raises:
      ValueError: if the compiler is not installed, or does not know the chip.
    """
    from jax.experimental import topologies

    # Otherwise libtpu asks the metadata server of a cloud that this machine is not in, for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # It also holds a lock, for the sake of chips that are not here.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError as error:
        msg = "--device tpu:... needs the compiler for TPUs: pip install 'jaxdil[tpu]'"
        raise ValueError(msg) from error
    try:
        found = topologies.get_topology_desc(CHIPS[name].topology, platform="tpu")
    except (RuntimeError, ValueError, NotImplementedError) as error:
        msg = f"--device: this libtpu does not compile for {name} ({str(error).splitlines()[0]})"
        raise ValueError(msg) from error
    return found.devices[0]


def lowered(fn: Callable[..., Any], args: Sequence[Any], device: Any) -> Any:
    """The program of a function of trees of arrays, of which only shapes and dtypes are read."""
    at = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at), args)
    return jax.jit(fn).lower(*shapes)
