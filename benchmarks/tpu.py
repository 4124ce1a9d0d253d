"""What the compiler for a TPU makes of each case, without a TPU: whether it compiles, and at what.

libtpu brings the whole compiler, which runs on any x86-64 Linux machine and compiles for a chip
that is described to it. Nothing runs, so nothing is timed and no result is checked. What a program
says of itself when it is compiled:

- ``cycles``: the compiler's own estimate for each instruction, added up, what is inside a loop as
  often as the loop goes round. Instructions without an estimate are named in ``unpriced`` with the
  bytes that they move; a Pallas kernel is among them.
- ``memory_analysis`` (temporaries) and ``cost_analysis`` (bytes that instructions read and write,
  in the memory on the chip too).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

import jaxdil
from benchmarks import machine
from benchmarks.case import Case, as_dtype, function, shapes
from benchmarks.contenders import ARGUMENTS
from benchmarks.run import free_path, progress, write
from jaxdil._methods import METHODS
from jaxdil._methods import load as load_method

__all__ = [
    "CHIPS",
    "Cache",
    "Chip",
    "Estimate",
    "chip_of",
    "device_of",
    "estimate",
    "lowered",
    "run",
]


CACHE = machine.ROOT / ".cache" / "compiled.jsonl"


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

# Instructions that do nothing at run time, or only name what another computes.
_FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
        *("copy-done", "slice-done", "async-done", "opt-barrier", "partition-id"),
        *("add-dependency", "while", "conditional", "call"),
    )
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "f64": 8}

_NAME = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"^ ?([a-z][\w\-]*)\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")


class Estimate(NamedTuple):
    """What a compiled program says of itself."""

    cycles: int
    loops: int
    """Loops, each counted as often as it goes round."""
    unknown_loops: int
    """Loops of which the program does not say how often; their bodies count once."""
    unpriced: dict[str, int]
    """Operation or custom call without an estimate -> bytes of its results."""
    branches: int = 0
    """Conditionals, of which the cheapest branch counts: the others are for samples that are not
    finite."""

    @property
    def kernels(self) -> list[str]:
        """Custom calls that are kernels of somebody's own, such as Pallas makes."""
        return [name for name in self.unpriced if "tpu_custom_call" in name]

    def plus(self, other: Estimate, times: int = 1) -> Estimate:
        """This and another, which happens some times."""
        unpriced = dict(self.unpriced)
        for what, size in other.unpriced.items():
            unpriced[what] = unpriced.get(what, 0) + times * size
        return Estimate(
            self.cycles + times * other.cycles,
            self.loops + other.loops,
            self.unknown_loops + other.unknown_loops,
            unpriced,
            self.branches + other.branches,
        )


class _Instruction(NamedTuple):
    name: str
    opcode: str
    shape: str
    rest: str


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


def lowered(fn: Callable[..., Any], arrays: Sequence[Any], device: Any) -> Any:
    """The program of a function of arrays, of which only shapes and dtypes are looked at."""
    at = jax.sharding.SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at) for a in arrays]
    return jax.jit(fn).lower(*arguments)


# --- the estimate ---------------------------------------------------------------------------------


def estimate(text: str) -> Estimate:
    """Add up what a compiled program says of its instructions."""
    entry, computations = _computations(text)
    return _sum(entry, computations)


def _sum(name: str, computations: dict[str, list[_Instruction]]) -> Estimate:
    """What a computation costs, and what it calls."""
    total = Estimate(0, 0, 0, {})
    for instruction in computations.get(name, ()):
        found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
        if found:
            total = total.plus(Estimate(int(found[1]), 0, 0, {}))
        elif instruction.opcode not in _FREE and (size := _size(instruction.shape)) > 4:
            what = _what(instruction)
            total = total.plus(Estimate(0, 0, 0, {what: size} if what else {}))
        if instruction.opcode == "while":
            turns = _turns(instruction, computations)
            body = re.search(r"body=%?([\w.\-]+)", instruction.rest)
            assert body is not None
            total = total.plus(_sum(body[1], computations), turns or 1)
            total = total._replace(
                loops=total.loops + 1, unknown_loops=total.unknown_loops + (turns is None)
            )
        elif instruction.opcode == "conditional":
            branches = [_sum(inner, computations) for inner in _branches(instruction)]
            total = total.plus(min(branches, key=lambda branch: branch.cycles))
            total = total._replace(branches=total.branches + 1)
        elif instruction.opcode in ("call", "async-start"):
            for inner in re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", instruction.rest):
                total = total.plus(_sum(inner, computations))
    return total


def _branches(instruction: _Instruction) -> list[str]:
    if group := re.search(r"branch_computations=\{([^}]*)\}", instruction.rest):
        return re.findall(r"[\w.\-]+", group[1])
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.rest)


def _computations(text: str) -> tuple[str, dict[str, list[_Instruction]]]:
    entry, name = "", ""
    computations: dict[str, list[_Instruction]] = {}
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif name and (found := _NAME.match(stripped := line.strip())):
            shape, rest = _shape(stripped[found.end() :])
            if opcode := _OPCODE.match(rest):
                computations[name].append(_Instruction(found[1], opcode[1], shape, rest))
    return entry, computations


def _shape(text: str) -> tuple[str, str]:
    """The shape that a line goes on with, and the rest of it."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: i + 1], text[i + 1 :].lstrip()
    return text, ""


def _size(shape: str) -> int:
    """Bytes of an array or of those of a tuple; of what copies start with, the first."""
    arrays = _ARRAY.findall(shape)
    return sum(
        _BYTES.get(dtype, 4) * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in arrays
    )


def _what(instruction: _Instruction) -> str | None:
    if instruction.opcode != "custom-call":
        return instruction.opcode
    target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
    name = target[1] if target else "?"
    return None if name == "AllocateBuffer" else f"custom-call {name}"


def _turns(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int | None:
    """How often a loop goes round: as it says, or the constant that its counter stays below."""
    if said := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return int(said[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    inside = computations.get(condition[1], []) if condition else []
    limits = {
        int(found[1])
        for i in inside
        if i.opcode == "constant" and (found := re.match(r"constant\(([1-9]\d*)\)", i.rest))
    }
    return limits.pop() if len(limits) == 1 else None


# --- the run --------------------------------------------------------------------------------------


def run(
    cases: Sequence[Case],
    *,
    device: str,
    modes: Sequence[str],
    methods: str,
    dtype: str | None = "bfloat16",
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
      methods: "all", or "auto" for jaxdil's choice alone.
      dtype: that all cases are compiled in; None for each in its own.
      out: the file, else one named after date, device and commit in benchmarks/results/.
      arguments: the command line, for the record.
      cache_path: where that is kept.
      limit: seconds for a program, after which it is given up and the record says so.

    Raises:
      ValueError: if the compiler is not installed, or does not know the chip.
    """
    chip = chip_of(device)
    assert chip is not None
    header = _header(device, device_of(chip), dtype, arguments)
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
    (row,) = jaxdil.explain(function(case, mode), platform="tpu", gradients=False)(
        *_arguments(case, mode)
    )
    shared = {
        "kind": "result",
        "case": case.name,
        "family": case.family,
        "source": case.source,
        "geometry": case.geometry,
        "dtype": case.dtype,
        "mode": mode,
        "flops": row.flops,
        "bytes": row.bytes,
    }
    names = ["lax", "auto"]
    if methods != "auto":
        others = [name for name in METHODS if name not in ("xla", row.method)]
        names += [n for n in others if load_method(n).supports(row.problem, "tpu") is None]
    records = []
    for name in names:
        # What auto leaves to lax is lax's program, and is not compiled again.
        same = name == "auto" and row.method == "xla"
        outcome = compiler.outcome(case, mode, "lax" if same else name)
        method = {"lax": None, "auto": row.method}.get(name, name)
        because = row.because if name == "auto" else None
        records.append(shared | {"contender": name, "method": method, "because": because} | outcome)
    return records


def _arguments(case: Case, mode: str) -> list[jax.ShapeDtypeStruct]:
    held = shapes(case)
    return [held[name] for name in ARGUMENTS[mode]]


# --- the compiler, in a process of its own --------------------------------------------------------


class Compiler:
    """Compiles in another process, which is ended when a program takes too long, and remembers."""

    def __init__(self, chip: str, cache_path: pathlib.Path, limit: float) -> None:
        self._chip, self._limit = chip, limit
        self._cache = Cache(cache_path, chip)
        self._process: Any = None
        self._pipe: Any = None

    def __enter__(self) -> Compiler:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._stop()

    def outcome(self, case: Case, mode: str, contender: str) -> dict[str, Any]:
        """What the compiler says of a contender."""
        if self._process is None or not self._process.is_alive():
            self._start()
        self._pipe.send((case, mode, contender))
        said = self._hear(math.inf)
        if said is None:
            return {"status": "failed", "reason": "the compiler ended without a word"}
        if isinstance(said, dict):
            return said
        known = self._cache.get(said)
        if known is not None and known.get("limit", math.inf) < self._limit:
            known = None
        self._pipe.send(known is None)
        if known is not None:
            return known
        outcome = self._hear(self._limit)
        if outcome is None:
            slow = self._process.is_alive()
            self._stop()
            if not slow:
                return {"status": "failed", "reason": "the compiler ended without a word"}
            reason = f"not compiled within {self._limit:g} s"
            outcome = {"status": "slow", "reason": reason, "limit": self._limit}
        self._cache.put(said, outcome)
        return outcome

    def _hear(self, seconds: float) -> Any:
        try:
            if self._pipe.poll(None if seconds == math.inf else seconds):
                return self._pipe.recv()
        except EOFError:
            pass
        return None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_compile, args=(self._chip, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _compile(chip: str, pipe: Any) -> None:
    """Lower what is asked for, say which program that is, and compile it if it is not known."""
    on = device_of(chip)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            case, mode, contender = pipe.recv()
            fn = function(case, mode)
            fn = fn if contender == "lax" else jaxdil.accelerate(fn, method=contender)
            # Whatever is said of one program belongs into the result, and stops no other.
            try:
                program = lowered(fn, _arguments(case, mode), on)
            except Exception as error:
                pipe.send(_failure(error))
                continue
            pipe.send(re.sub(r"^module @\S+", "module", program.as_text(), flags=re.M))
            if pipe.recv():
                pipe.send(_outcome(program))


def _failure(error: Exception) -> dict[str, Any]:
    reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
    return {"status": "failed", "reason": f"{type(error).__name__}: {reason}"[:500]}


def _outcome(program: Any) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        program = program.compile()
    except Exception as error:
        return _failure(error)
    took = time.perf_counter() - started
    found = estimate(program.as_text())
    costs = program.cost_analysis() or {}
    memory = program.memory_analysis()
    return {
        "status": "ok",
        "cycles": found.cycles,
        "loops": found.loops,
        "unknown_loops": found.unknown_loops,
        "branches": found.branches,
        "unpriced": found.unpriced,
        "unpriced_kernels": found.kernels,
        "accessed_bytes": int(costs["bytes accessed"]) if "bytes accessed" in costs else None,
        "temp_bytes": getattr(memory, "temp_size_in_bytes", None),
        "code_bytes": getattr(memory, "generated_code_size_in_bytes", None),
        "compile_s": round(took, 3),
    }


def _header(device: str, on: Any, dtype: str | None, arguments: Sequence[str]) -> dict[str, Any]:
    chip = CHIPS[device.partition(":")[2]]
    header = machine.header(device, on, peers={}, arguments=arguments)
    return header | {
        "benchmark": "compiled",
        "libtpu": importlib.metadata.version("libtpu"),
        "dtype": dtype,
        "chip": chip._asdict(),
        "checked": "compiled only: nothing ran, no result was checked, no time was measured",
    }


class Cache:
    """What is known of programs from earlier runs, by what goes into the compiler."""

    def __init__(self, path: pathlib.Path, chip: str) -> None:
        self._path = path
        self._compiler = f"tpu:{chip} libtpu {importlib.metadata.version('libtpu')}"
        self._known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError, KeyError):
                    entry = json.loads(line)
                    self._known[entry["program"]] = entry["outcome"]

    def get(self, text: str) -> dict[str, Any] | None:
        """What is known of a program."""
        return self._known.get(self._key(text))

    def put(self, text: str, outcome: dict[str, Any]) -> None:
        """Remember what the compiler said of a program."""
        key = self._key(text)
        self._known[key] = outcome
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"program": key, "outcome": outcome}) + "\n")

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._compiler}\n{text}".encode()).hexdigest()


def _heard(mode: str, records: Sequence[dict[str, Any]]) -> str:
    by = {record["contender"]: record for record in records}
    lax, auto = by["lax"], by["auto"]
    if "cycles" not in auto:
        return f"{mode} auto: {auto.get('reason', 'not compiled')}"
    text = f"{mode} {auto['cycles'] / 1e3:.3g}k ({auto['method']})"
    if "cycles" in lax:
        text += f", lax {lax['cycles'] / 1e3:.3g}k"
    return text
