"""What the compiler makes of whole networks: inference and a training step, lax and accelerated."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import networks, zoo
from benchmarks.run import free_path, progress, write
from benchmarks.tpu.chips import chip_of
from benchmarks.tpu.compiler import CACHE, Compiler, header_of

__all__ = ["run_models"]


def run_models(
    names: Sequence[str],
    *,
    device: str,
    batch: int,
    size: int | None,
    out: pathlib.Path | None = None,
    arguments: Sequence[str] = (),
    cache_path: pathlib.Path = CACHE,
    limit: float = 600.0,
) -> pathlib.Path:
    """Compile the models as they are, in float32, and write the result; returns its path.

    Args:
      names: entries of the zoo.
      device: "tpu:" and a chip of `CHIPS`.
      batch: examples in a batch.
      size: samples along each axis of an example; each entry's own if None.
      out: the file, else one named after date, device and commit in benchmarks/results/.
      arguments: the command line, for the record.
      cache_path: where what the compiler said is kept, by the text of each program.
      limit: seconds for a program, after which it is given up and the record says so.

    Raises:
      ValueError: if the compiler is not installed, or does not know the chip.
    """
    chip = chip_of(device)
    assert chip is not None
    entries = [zoo.select(name) for name in names]
    header = header_of(device, dtype=None, arguments=arguments, command="models")
    header |= networks.versions(entry.library for entry in entries)
    path = out or free_path(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    total = len(entries) * len(networks.MODES)
    with (
        path.open("w") as file,
        progress(total, unit="mode") as (say, step),
        Compiler(chip, cache_path, limit) as compiler,
    ):
        write(file, header)
        for entry in entries:
            if importlib.util.find_spec(entry.library) is None:
                say(f"{entry.name}: {entry.library} is not installed: pip install 'jaxdil[peers]'")
                continue
            for mode in networks.MODES:
                records = _measure(entry, mode, compiler, batch=batch, size=size)
                for record in records:
                    write(file, record)
                say(_heard(records))
                step()
    return path


def _measure(
    entry: zoo.Entry, mode: str, compiler: Compiler, *, batch: int, size: int | None
) -> list[dict[str, Any]]:
    """A record for lax and one for auto."""
    shared = networks.described(entry, _built(entry.name, size, batch), mode, "tpu")
    build = functools.partial(_program, entry.name, mode, size, batch)
    return [
        shared | {"contender": name} | compiler.outcome(build, name) for name in ("lax", "auto")
    ]


def _program(
    name: str, mode: str, size: int | None, batch: int
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return networks.program(_built(name, size, batch), mode)


@functools.lru_cache(maxsize=1)
def _built(name: str, size: int | None, batch: int) -> zoo.Model:
    return zoo.build(name, size=size, batch=batch)


def _heard(records: Sequence[dict[str, Any]]) -> str:
    """A mode of a model in a line."""
    lax, auto = records
    text = f"{auto['case']:<26} {auto['mode']:<5}"
    if "cycles" not in auto:
        return f"{text} auto: {auto['reason']}"
    text += f" {auto['cycles'] / 1e3:.0f}k cycles"
    if "cycles" in lax:
        text += f", lax {lax['cycles'] / 1e3:.0f}k"
    return text + f"  ({auto['ours']} of {auto['convolutions']} convolutions ours)"
