"""Measure layers on a GPU: compiled side by side, then timed by the GPU's own clock.

A call of a convolution that a GPU does in 20 us takes a Python program several times that, whoever
calls. So what counts here is how long the GPU is busy: the profiler (CUPTI, roctracer) has start
and end of each kernel. Before every call all of the cache is overwritten, by a kernel whose name
tells where the call begins in the profile.

A program takes seconds to compile, most of them on one core. So the cases of a part are compiled on
all cores; nothing else uses the GPU meanwhile, as XLA tries cuDNN's algorithms on it. Then every
result is checked, and then the part is timed.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import contenders, machine
from benchmarks import run as harness
from benchmarks.case import Case, with_batch
from benchmarks.contenders import Contender

__all__ = ["Clock", "busy", "run"]

# Measurements that are compiled together.
PART = 24

# Timed calls of a contender.
CALLS = 7

# Bytes that are written over before a call, several times the cache.
OVERWRITTEN = 2**28

# The kernel that does it. No convolution takes a tangent.
_MARK = re.compile(r"(^|_)tan(_|$)")

_Entry = tuple[dict[str, Any], Contender]


class Clock:
    """Seconds for which the GPU is busy with a call."""

    def __init__(self, on: Any) -> None:
        self._scratch = jax.device_put(np.zeros(OVERWRITTEN // 4, np.float32), on)
        self._mark = jax.jit(jnp.tan).lower(self._scratch).compile()

    def measure(self, them: Sequence[Contender]) -> list[list[float]]:
        """Several calls of each, in turns that begin with another every time.

        Raises:
          RuntimeError: if the profile does not show all of them.
        """
        turns = [[*range(i % len(them), len(them)), *range(i % len(them))] for i in range(CALLS)]
        order = [i for turn in turns for i in turn]
        options = jax.profiler.ProfileOptions()
        options.host_tracer_level = options.python_tracer_level = 0
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, profiler_options=options):
                for i in order:
                    self._mark(self._scratch).block_until_ready()
                    them[i].call()
            (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
            took = busy(jax.profiler.ProfileData.from_file(str(path)), calls=len(order))
        times: list[list[float]] = [[] for _ in them]
        for i, seconds in zip(order, took, strict=True):
            times[i].append(seconds)
        return times


def busy(profile: jax.profiler.ProfileData, *, calls: int) -> list[float]:
    """Seconds for which a GPU was busy after each mark: kernels that overlap count once.

    Raises:
      RuntimeError: if there are not as many marks as calls, or nothing after one of them.
    """
    kernels = sorted(
        (event.start_ns, event.start_ns + event.duration_ns, event.name)
        for plane in profile.planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
    )
    took: list[float] = []
    until = 0.0
    for start, stop, name in kernels:
        if _MARK.search(name):
            took.append(0.0)
        elif took:
            took[-1] += max(stop - max(start, until), 0) * 1e-9
        until = max(until, stop)
    if len(took) != calls or not all(took):
        names = sorted({name for _, _, name in kernels})
        msg = f"the profile shows {sum(map(bool, took))} of {calls} calls; its kernels: {names}"
        raise RuntimeError(msg)
    return took


def run(
    cases: Sequence[Case],
    *,
    device: str,
    peers: Sequence[str],
    modes: Sequence[str],
    methods: str,
    batch: int,
    limit: float | None = None,
    out: pathlib.Path | None = None,
    arguments: Sequence[str] = (),
) -> pathlib.Path:
    """Measure the cases on a GPU and write the result; returns its path.

    Args:
      cases: what to measure.
      device: "cuda" or "rocm".
      peers: "lax" and libraries of ``contenders.PEERS``.
      modes: of "fwd", "dx", "dw".
      methods: "all", "auto", or names with commas between them.
      batch: what a smaller batch of a case is raised to, for a layer to fill the GPU.
      limit: seconds after which no further part is begun.
      out: the file, else one named after date, device and commit in benchmarks/results/.
      arguments: the command line, for the record.

    Raises:
      ValueError: if there is no such device, or for an unknown peer.
    """
    on = machine.find_device(device)
    libraries = harness.libraries_of(peers, device)
    header = machine.header(device, on, peers=libraries, arguments=arguments)
    header |= {"clock": "profiler", "least_batch": batch, "compiled_beside": machine.cores()}
    path = out or harness.free_path(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    clock = Clock(on)
    header["ceilings"] = ceilings(clock, on, sorted({case.dtype for case in cases}))
    jobs = [(with_batch(case, batch), mode) for case in cases for mode in modes]
    began = time.monotonic()
    with (
        path.open("w") as file,
        harness.progress(len(jobs)) as (say, step),
        concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool,
    ):
        harness.write(file, header)
        bench = _Bench(on, device, libraries, "lax" in peers, methods, clock, pool)
        for start in range(0, len(jobs), PART):
            if limit is not None and time.monotonic() - began > limit:
                say(f"{limit:.0f} s are over: {len(jobs) - start} measurements are left out")
                break
            for case, mode, records in bench.measured(jobs[start : start + PART]):
                for record in records:
                    harness.write(file, record)
                    if record["status"] not in ("ok", "unsupported"):
                        who = f"{case.name} {mode}: {record['contender']}"
                        say(f"  {who} {record['status']}: {record['reason']}")
                say(f"{case.name:<22} {harness.heard(mode, records)}")
                step()
    return path


def ceilings(clock: Clock, on: Any, dtypes: Sequence[str], *, size: int = 8192) -> dict[str, Any]:
    """FLOP/s of a matrix product in each dtype, as JAX does it by default; bytes/s of a copy."""

    def seconds(fn: Callable[[Any], Any], a: Any) -> float:
        compiled = jax.jit(fn).lower(a).compile()
        call = Contender("ceiling", lambda: compiled(a).block_until_ready(), np.asarray)
        call.call()
        (times,) = clock.measure([call])
        return statistics.median(times)

    with jax.default_device(on):
        a = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
        products = {t: 2 * size**3 / seconds(lambda a: a @ a, a.astype(t)) for t in dtypes}
        copied = 2 * a.nbytes / seconds(lambda a: -a, a)
    return {"matmul_flops": products, "copy_bytes": copied, "call_s": 0.0}


@dataclasses.dataclass(frozen=True)
class _Bench:
    """What all parts of a run share."""

    on: Any
    device: str
    libraries: dict[str, ModuleType]
    time_lax: bool
    methods: str
    clock: Clock
    pool: concurrent.futures.Executor

    def measured(
        self, part: Sequence[tuple[Case, str]]
    ) -> Iterator[tuple[Case, str, list[dict[str, Any]]]]:
        """Compile, check and time some cases; the records of each as soon as it is timed."""
        jobs = list(self.pool.map(self._compiled, part))
        checks = [check for prepared, entries in jobs for check in self._run(prepared, entries)]
        for check in checks:
            check.result()
        for prepared, entries in jobs:
            right = [entry for entry in entries if entry[0].get("status") == "ok"]
            times = self.clock.measure([contender for _, contender in right]) if right else []
            for (record, _), took in zip(right, times, strict=True):
                harness.add_times(record, took)
            yield prepared.case, prepared.mode, list(prepared.records.values())

    def _compiled(self, job: tuple[Case, str]) -> tuple[harness.Prepared, list[_Entry]]:
        prepared = harness.prepare(
            *job,
            self.on,
            device=self.device,
            time_lax=self.time_lax,
            peers=self.libraries,
            methods=self.methods,
            compile_lax_once=True,
        )
        ours = (name for name in prepared.builders if name not in prepared.theirs)
        return prepared, _built(prepared, ours)

    def _run(
        self, prepared: harness.Prepared, entries: list[_Entry]
    ) -> Iterator[concurrent.futures.Future[None]]:
        """Run everything once; the comparisons, under way."""
        entries += _built(prepared, prepared.theirs)
        reference = prepared.reference()
        for record, contender in entries:
            with harness.failing(record):
                # In here PyTorch tries cuDNN's algorithms.
                result, _ = contenders.ready(contender, seconds=0)
                judged = (record, contender, result, reference, prepared, self.device)
                yield self.pool.submit(harness.judge, *judged)


def _built(prepared: harness.Prepared, names: Iterable[str]) -> list[_Entry]:
    entries = []
    for name in names:
        with harness.failing(prepared.records[name]):
            entries.append((prepared.records[name], prepared.builders[name]()))
    return entries
