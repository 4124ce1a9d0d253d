"""What the compiler makes of each layer: whether it compiles, and at what."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

import jaxdil
from benchmarks.case import Case, as_dtype, function, shapes, with_batch
from benchmarks.contenders import ARGUMENTS, others
from benchmarks.run import free_path, progress, write
from benchmarks.tpu.chips import chip_of
from benchmarks.tpu.compiler import CACHE, Compiler, header_of

__all__ = ["measure", "run"]


def run(
    cases: Sequence[Case],
    *,
    device: str,
    modes: Sequence[str],
    methods: str,
    dtype: str | None = "bfloat16",
    batch: int | None = None,
    out: pathlib.Path | None = None,
    arguments: Sequence[str] = (),
    cache_path: pathlib.Path = CACHE,
    limit: float = 120.0,
) -> pathlib.Path:
    """Compile the cases and write the result; returns its path.

    What the compiler said is kept by the text of each program, so that a run that was interrupted,
    or one after a change, compiles only what is new.

    Args:
      cases: what to compile.
      device: "tpu:" and a chip of `CHIPS`.
      modes: of "fwd", "dx", "dw".
      methods: "all", "auto" for jaxdil's choice alone, or names with commas between them.
      dtype: that all cases are compiled in; None for each in its own.
      batch: what a smaller batch of a case is raised to; None for each as it is.
      out: the file, else one named after date, device and commit in benchmarks/results/.
      arguments: the command line, for the record.
      cache_path: where that is kept.
      limit: seconds for a program, after which it is given up and the record says so.

    Raises:
      ValueError: if the compiler is not installed, or does not know the chip.
    """
    chip = chip_of(device)
    assert chip is not None
    header = header_of(device, dtype=dtype, arguments=arguments)
    if batch:
        header |= {"least_batch": batch}
        cases = [with_batch(case, batch) for case in cases]
    path = out or free_path(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = [as_dtype(case, dtype) if dtype else case for case in cases]
    total = len(cases) * len(modes)
    with (
        path.open("w") as file,
        progress(total, unit="mode") as (say, step),
        Compiler(chip, cache_path, limit) as compiler,
    ):
        write(file, header)
        for case in cases:
            heard = []
            for mode in modes:
                records = measure(case, mode, compiler, methods=methods)
                for record in records:
                    write(file, record)
                heard.append(_heard(mode, records))
                step()
            say(f"{case.name:<22} " + "  |  ".join(heard))
    return path


def measure(
    case: Case, mode: str, compiler: Compiler, *, methods: str = "all"
) -> list[dict[str, Any]]:
    """One record a contender, for a case in a mode."""
    fn, args = program(case, mode)
    (row,) = jaxdil.explain(fn, platform="tpu", gradients=False)(*args)
    shared = {
        "kind": "result",
        **case.labels,
        "mode": mode,
        "flops": row.flops,
        "bytes": row.bytes,
    }
    names = ["lax", "auto", *others(row, "tpu", methods)]
    build = functools.partial(program, case, mode)
    records = []
    for name in names:
        # What auto leaves to lax is lax's program, and is not compiled again.
        same = name == "auto" and row.method == "xla"
        outcome = compiler.outcome(build, "lax" if same else name)
        method = {"lax": None, "auto": row.method}.get(name, name)
        because = row.because if name == "auto" else None
        records.append(shared | {"contender": name, "method": method, "because": because} | outcome)
    return records


def program(case: Case, mode: str) -> tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]:
    """The function of a case in a mode, and the shapes of its arguments."""
    held = shapes(case)
    return function(case, mode), [held[name] for name in ARGUMENTS[mode]]


def _heard(mode: str, records: Sequence[dict[str, Any]]) -> str:
    by = {record["contender"]: record for record in records}
    lax, auto = by["lax"], by["auto"]
    if "cycles" not in auto:
        return f"{mode} auto: {auto.get('reason', 'not compiled')}"
    text = f"{mode} {auto['cycles'] / 1e3:.3g}k ({auto['method']})"
    if "cycles" in lax:
        text += f", lax {lax['cycles'] / 1e3:.3g}k"
    return text
