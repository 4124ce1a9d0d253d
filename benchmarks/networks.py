"""Whole networks, as others wrote them: inference and a training step, under lax and accelerated.

Each model of the zoo is compiled twice, as it is and through `accelerate`; a model of Keras runs on
its torch backend as well. Outputs are compared before anything is timed, and then all take turns.
"""

from __future__ import annotations

import collections
import functools
import gc
import importlib.metadata
import importlib.util
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

import jaxdil
from benchmarks import keras_torch, machine, run, timing, zoo
from benchmarks.contenders import Contender

__all__ = ["MODES", "described", "measure", "program", "run_models", "versions"]

MODES = ("infer", "step")

# Of gradient descent: so small that a network neither learns nor diverges while it is timed.
RATE = 1e-6

# The largest difference of outputs, as a share of the largest output. Rounding in tens of layers
# reaches 1e-4; a wrong convolution anywhere is of the order of 1.
TOLERANCE = 1e-2


def run_models(
    names: Sequence[str],
    *,
    device: str,
    peers: Sequence[str],
    batch: int,
    size: int | None,
    seconds: float,
    out: pathlib.Path | None = None,
    arguments: Sequence[str] = (),
) -> pathlib.Path:
    """Measure the models and write the result; returns its path.

    Args:
      names: entries of the zoo.
      device: "cpu", "cuda", "rocm" or "tpu".
      peers: of "lax", "torch".
      batch: examples in a batch.
      size: samples along each axis of an example; each entry's own if None.
      seconds: of timing, for each model and mode.
      out: the file, else one named after date, device and commit in benchmarks/results/.
      arguments: the command line, for the record.

    Raises:
      ValueError: if there is no such device, or for an unknown model.
    """
    on = machine.find_device(device)
    entries = [zoo.select(name) for name in names]
    header = machine.header(device, on, peers={}, arguments=arguments, command="models")
    header |= versions([*(entry.library for entry in entries), "torch"])
    path = out or run.free_path(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    run.say_if_busy(header)
    with path.open("w") as file, run.progress(len(entries) * len(MODES)) as (say, step):
        run.write(file, header)
        for entry in entries:
            if importlib.util.find_spec(entry.library) is None:
                say(f"{entry.name}: {entry.library} is not installed: pip install 'jaxdil[peers]'")
                continue
            with jax.default_device(on):
                for records in measure(
                    entry, peers=peers, batch=batch, size=size, seconds=seconds, device=device
                ):
                    for record in records:
                        run.write(file, record)
                    say(_heard(records))
                    step()
    return path


def measure(
    entry: zoo.Entry,
    *,
    peers: Sequence[str] = ("lax",),
    batch: int,
    size: int | None,
    seconds: float,
    device: str = "cpu",
    **options: Any,
) -> Iterator[list[dict[str, Any]]]:
    """For each mode, one record a contender."""
    model = zoo.build(entry.name, size=size, batch=batch, **options)
    torch = None
    if "torch" in peers and device == "cpu" and entry.library == "keras":
        if (reason := keras_torch.missing()) is not None:
            print(f"{entry.name}: Keras on PyTorch takes no part: {reason}")
        else:
            torch = keras_torch.Peer(model.keras, model.batch, threads=machine.cores(), rate=RATE)
    try:
        for mode in MODES:
            yield _measure(entry, model, mode, torch, seconds)
    finally:
        if torch is not None:
            torch.close()


def program(model: zoo.Model, mode: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What a model computes in a mode: a function and its arguments."""
    if mode == "infer":
        return model.forward, (model.params, model.state, model.batch[0])
    return zoo.descend(model, RATE), (model.params, model.state, model.batch)


def described(
    entry: zoo.Entry, model: zoo.Model, mode: str, platform: str | None = None
) -> dict[str, Any]:
    """What all records of a model in a mode say, its choices on a platform included."""
    fn, args = program(model, mode)
    rows = jaxdil.explain(fn, platform=platform, gradients=False)(*args)
    return {
        "kind": "result",
        "case": entry.name,
        "library": entry.library,
        "source": entry.source,
        "mode": mode,
        "shape": list(np.shape(jax.tree.leaves(model.batch[0])[0])),
        "convolutions": len(rows),
        "ours": sum(row.method != "xla" for row in rows),
        "methods": dict(collections.Counter(row.method for row in rows)),
        "flops": sum(row.times * row.flops for row in rows),
    }


def _measure(
    entry: zoo.Entry, model: zoo.Model, mode: str, torch: Any, seconds: float
) -> list[dict[str, Any]]:
    fn, args = program(model, mode)
    shared = described(entry, model, mode)
    records, able = [], []
    expected = None
    for name, wrap in (("lax", lambda fn: fn), ("auto", jaxdil.accelerate)):
        contender, outputs, costs = _compiled(name, wrap(fn), args, mode)
        records.append(shared | {"contender": name} | costs)
        expected = outputs if expected is None else expected
        _admit(contender, outputs, expected, records[-1], able)
    if torch is not None:
        call = functools.partial(torch.call, mode)
        contender = Contender(name="torch", call=call, result=np.asarray, settle=0.02)
        # In training both start from the same numbers as at inference, whose outputs are compared.
        outputs = torch.outputs() if mode == "infer" else expected
        records.append(shared | {"contender": "torch"})
        call()
        _admit(contender, outputs, expected, records[-1], able)
    times = timing.round_robin(able, seconds=seconds)
    for record in records:
        if record["status"] == "ok":
            took = times[record["contender"]]
            record.update(timing.quantiles(took), times_us=[round(t * 1e6, 1) for t in took])
    return records


def _compiled(
    name: str, fn: Callable[..., Any], args: tuple[Any, ...], mode: str
) -> tuple[Contender, np.ndarray, dict[str, Any]]:
    jitted = jax.jit(fn)
    gc.collect()  # else what the last program left is collected while this one is traced
    started = time.perf_counter()
    traced = jitted.trace(*args)
    between = time.perf_counter()
    compiled = traced.lower().compile()
    done = time.perf_counter()
    result = compiled(*args)
    outputs = result if mode == "infer" else result[2].outputs
    analysis = compiled.memory_analysis()
    costs = {
        "trace_s": between - started,
        "compile_s": done - between,
        "temp_bytes": getattr(analysis, "temp_size_in_bytes", None),
    }
    call = functools.partial(_wait, compiled, args)
    return Contender(name=name, call=call, result=np.asarray), np.asarray(outputs), costs


def _wait(compiled: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(compiled(*args))


def _admit(
    contender: Contender,
    outputs: np.ndarray,
    expected: np.ndarray,
    record: dict[str, Any],
    able: list[tuple[Contender, float]],
) -> None:
    """Let a contender be timed if its outputs are lax's."""
    error = float(np.abs(outputs - expected).max() / np.abs(expected).max())
    record["error"] = error if np.isfinite(error) else None
    if not error <= TOLERANCE:
        reason = f"outputs differ from lax's by {error:.3g} of the largest"
        record |= {"status": "refused", "reason": reason}
        return
    record["status"] = "ok"
    started = time.perf_counter()
    contender.call()
    able.append((contender, time.perf_counter() - started))


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    names = {"haiku": "dm-haiku"}
    return {
        library: importlib.metadata.version(names.get(library, library))
        for library in sorted(set(libraries))
        if importlib.util.find_spec(library) is not None
    }


def _heard(records: Sequence[dict[str, Any]]) -> str:
    """A mode of a model in a line."""
    by = {r["contender"]: r for r in records if r["status"] == "ok"}
    text = f"{records[0]['case']:<26} {records[0]['mode']:<5}"
    if "auto" not in by:
        return text + " auto was not timed: " + str(records[1].get("reason"))
    text += f" {by['auto']['median'] * 1e3:.3g} ms"
    for name in ("lax", "torch"):
        if name in by:
            text += f", {by[name]['median'] / by['auto']['median']:.2f}x {name}"
    return text + f"  ({records[0]['ours']} of {records[0]['convolutions']} convolutions ours)"
