"""Measure every case and mode: lax, the methods of jaxdil, its peers; correct first, then timed.

For each case and mode inputs are made and everything is compiled and warmed before the clock
starts. What does not agree with lax (``check``) is refused and not timed. Records are written as
they are measured, so that a run that is interrupted keeps what it has.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TextIO

import numpy as np

from benchmarks import check, contenders, machine, timing
from benchmarks.case import Case, operands, terms
from benchmarks.contenders import Contender, Reference

__all__ = [
    "RESULTS",
    "Prepared",
    "add_times",
    "failing",
    "free_path",
    "heard",
    "judge",
    "libraries_of",
    "measure",
    "prepare",
    "progress",
    "run",
    "say_if_busy",
    "write",
]

RESULTS = machine.ROOT / "benchmarks" / "results"


def run(
    cases: Sequence[Case],
    *,
    device: str,
    peers: Sequence[str],
    modes: Sequence[str],
    methods: str,
    seconds: float,
    out: pathlib.Path | None = None,
    arguments: Sequence[str] = (),
    ceiling_size: int = 2048,
    drawn: bool = False,
) -> pathlib.Path:
    """Measure the cases and write the result; returns its path.

    Args:
      cases: what to measure.
      device: "cpu", "cuda", "rocm" or "tpu".
      peers: "lax" and libraries of ``contenders.PEERS``. One that is not installed is left out,
        with a message. Without "lax", lax still serves to check the others.
      modes: of "fwd", "dx", "dw".
      methods: "all", "auto" for jaxdil's choice alone, or names with commas between them.
      seconds: of timing, for each case and mode.
      out: the file, else one named after date, device and commit in benchmarks/results/.
      arguments: the command line, for the record.
      ceiling_size: side of the matrix whose product is the ceiling of arithmetic.
      drawn: whether the cases are random ones, whose result stands beside that of all others. What
        is left to lax is lax's program there, and not compiled twice.

    Raises:
      ValueError: if there is no such device, or for an unknown peer.
    """
    on = machine.find_device(device)
    libraries = libraries_of(peers, device)
    header = machine.header(device, on, peers=libraries, arguments=arguments)
    header["benchmark"] = "random" if drawn else "layers"
    say_if_busy(header)
    path = out or free_path(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    dtypes = sorted({case.dtype for case in cases})
    header["ceilings"] = machine.ceilings(device, on, dtypes, libraries, size=ceiling_size)
    with path.open("w") as file, progress(len(cases) * len(modes)) as (say, step):
        write(file, header)
        for case in cases:
            said = []
            for mode in modes:
                records = measure(
                    case,
                    mode,
                    on,
                    device=device,
                    time_lax="lax" in peers,
                    peers=libraries,
                    methods=methods,
                    seconds=seconds,
                    compile_lax_once=drawn,
                )
                for record in records:
                    write(file, record)
                said.append(heard(mode, records))
                for record in records:
                    if record["status"] not in ("ok", "unsupported"):
                        who = f"{case.name} {mode}: {record['contender']}"
                        say(f"  {who} {record['status']}: {record['reason']}")
                step()
            say(f"{case.name:<22} " + "  |  ".join(said))
    return path


def measure(
    case: Case,
    mode: str,
    on: Any,
    *,
    device: str,
    time_lax: bool = True,
    peers: dict[str, ModuleType],
    methods: str = "all",
    seconds: float = 1.0,
    compile_lax_once: bool = False,
) -> list[dict[str, Any]]:
    """One record a contender, for a case in a mode."""
    prepared = prepare(
        case,
        mode,
        on,
        device=device,
        time_lax=time_lax,
        peers=peers,
        methods=methods,
        compile_lax_once=compile_lax_once,
    )
    reference = prepared.reference()
    able = []
    for name, record in prepared.records.items():
        # Whatever goes wrong in one contender belongs into the result, and stops no other.
        with failing(record):
            contender = prepared.builders[name]()
            result, estimate = contenders.ready(contender)
            judge(record, contender, result, reference, prepared, device)
            if record["status"] == "ok":
                able.append((contender, estimate))
    times = timing.round_robin(able, seconds=seconds)
    for name, took in times.items():
        add_times(prepared.records[name], took)
    return list(prepared.records.values())


class Prepared(NamedTuple):
    """A case in a mode, before anything ran: how to build who takes part, and their records."""

    case: Case
    mode: str
    positions: int
    reference: Callable[[], Reference]
    builders: dict[str, Callable[[], Contender]]
    records: dict[str, dict[str, Any]]
    theirs: tuple[str, ...]
    """Which are of other libraries."""


def prepare(
    case: Case,
    mode: str,
    on: Any,
    *,
    device: str,
    time_lax: bool,
    peers: dict[str, ModuleType],
    methods: str,
    compile_lax_once: bool = False,
) -> Prepared:
    """Make the operands; the contenders are compiled when they are built.

    What is left to lax is lax's program. To compile it twice is to measure how the compiler's own
    choice varies, which on a GPU is a race that it runs each time, and takes seconds.
    """
    arrays = operands(case)
    lax, reference = contenders.with_lax(case, mode, arrays, on)
    ours = {"lax": lax} if time_lax else {}
    ours |= contenders.with_jaxdil(
        case, mode, arrays, on, methods=methods, lax=lax if compile_lax_once else None
    )
    theirs = {
        name: functools.partial(module.build, case, mode, arrays, device, **options)
        for module in peers.values()
        for name, options in module.variants(case, device).items()
    }
    shared = {"kind": "result", **case.labels, "mode": mode}
    return Prepared(
        case,
        mode,
        math.prod(arrays["g"].shape) // case.w[-1],
        reference,
        builders := ours | theirs,
        {name: shared | {"contender": name} for name in builders},
        tuple(theirs),
    )


@contextlib.contextmanager
def failing(record: dict[str, Any]) -> Iterator[None]:
    """Whatever is raised is noted in a contender's record, and goes no further."""
    try:
        yield
    except NotImplementedError as error:
        record |= {"status": "unsupported", "reason": str(error)}
    except Exception as error:
        record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}


def judge(
    record: dict[str, Any],
    contender: Contender,
    result: np.ndarray,
    reference: Reference,
    prepared: Prepared,
    device: str,
) -> None:
    """Compare a contender's result with lax's, and note what is known of it before the clock."""
    share = check.worst(
        result,
        reference.expected,
        reference.magnitude,
        terms=terms(prepared.case, prepared.mode, prepared.positions),
        device=device,
    )
    record |= {
        "flops": reference.flops,
        "bytes": reference.bytes,
        "method": contender.method,
        "because": contender.because,
        "error": share if math.isfinite(share) else None,
        "compile_s": contender.compile_s,
        "temp_bytes": contender.temp_bytes,
        "status": "ok",
    }
    if not share <= 1:
        reason = f"differs from lax by {share:.3g} times what rounding allows"
        record |= {"status": "refused", "reason": reason}


def add_times(record: dict[str, Any], times: Sequence[float]) -> None:
    """Note a contender's times, in seconds, and the rates that they mean."""
    record |= timing.quantiles(times)
    record["gflops"] = record["flops"] / record["median"] / 1e9
    record["gbs"] = record["bytes"] / record["median"] / 1e9
    record["times_us"] = [round(t * 1e6, 1) for t in times]


def libraries_of(peers: Sequence[str], device: str) -> dict[str, ModuleType]:
    """The modules of the peers that can take part, with a word on those that cannot."""
    found = {}
    for name in peers:
        if name == "lax":
            continue
        module = contenders.peer(name)
        if module is None:
            _note(f"{name} is not installed, so it takes no part: pip install 'jaxdil[peers]'")
        elif (reason := module.prepare(device, machine.cores())) is not None:
            _note(f"{name} takes no part: {reason}")
        else:
            found[name] = module
    return found


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def say_if_busy(header: dict[str, Any]) -> None:
    """A word of warning where the machine has other work."""
    if header["load"] is not None and header["load"] > header["cores"] / 2:
        _note(
            f"This machine is busy (load {header['load']}, {header['cores']} cores). That slows "
            "down some contenders much more than others: compare nothing with this result."
        )


def free_path(header: dict[str, Any]) -> pathlib.Path:
    """A new file in benchmarks/results/, named after what was measured, when, where and of what."""
    kind = "" if header["benchmark"] == "layers" else f"{header['benchmark']}-"
    device = header["device"].replace(":", "-")
    stem = f"{header['date'][:10]}-{kind}{device}-{header['commit']}"
    names = [stem, *(f"{stem}-{i}" for i in range(2, 1000))]
    return next(path for name in names if not (path := RESULTS / f"{name}.jsonl").exists())


def write(file: TextIO, record: dict[str, Any]) -> None:
    """Add a record to a result."""
    file.write(json.dumps(record) + "\n")
    file.flush()


@contextlib.contextmanager
def progress(
    total: int, *, unit: str = "measurement"
) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A function that prints a line and one that advances the bar, if tqdm is here to draw one."""
    try:
        import tqdm
    except ImportError:
        yield (lambda text: print(text, flush=True)), (lambda: None)
        return
    # disable=None: no bar where it would go into a file.
    with tqdm.tqdm(total=total, unit=unit, disable=None) as bar:
        yield bar.write, bar.update


def heard(mode: str, records: Sequence[dict[str, Any]]) -> str:
    """A mode of a case in a few words."""
    by = {r["contender"]: r for r in records if r["status"] == "ok"}
    auto = by.get("auto")
    if auto is None:
        return f"{mode} auto was not timed"
    text = f"{mode} {auto['median'] * 1e3:.3g} ms ({auto['method']})"
    for name in ("lax", "torch"):
        if name in by:
            text += f", {by[name]['median'] / auto['median']:.2f}x {name}"
    return text
