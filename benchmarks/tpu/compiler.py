"""The compiler, in a process that is ended when a program takes too long, and what it has said.

``memory_analysis`` gives the temporaries of a program, ``cost_analysis`` the bytes that its
instructions read and write, in the memory on the chip too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jaxdil
from benchmarks import machine
from benchmarks.tpu import bundles
from benchmarks.tpu.chips import CHIPS, chip_of, device_of, lowered
from benchmarks.tpu.program import estimate

__all__ = ["CACHE", "Build", "Cache", "Compiler", "header_of"]

Build = Callable[[], tuple[Callable[..., Any], Sequence[Any]]]
"""What makes a function and its arguments, of which shapes and dtypes are enough."""

CACHE = machine.ROOT / ".cache" / "compiled.jsonl"


class Compiler:
    """Compiles in another process, which is ended when a program takes too long, and remembers."""

    def __init__(self, chip: str, cache_path: pathlib.Path, limit: float) -> None:
        self._chip, self._limit = chip, limit
        self._cache = Cache(cache_path, chip)
        self._process: Any = None
        self._pipe: Any = None
        self._listings: Any = None

    def __enter__(self) -> Compiler:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._stop()

    def outcome(self, build: Build, contender: str) -> dict[str, Any]:
        """What the compiler says of a program: as it is, for "lax", or accelerated by a method.

        Args:
          build: called in the other process, so it must be something that can be pickled.
          contender: "lax", "auto" or the name of a method.
        """
        if self._process is None or not self._process.is_alive():
            self._start()
        self._pipe.send((build, contender))
        said = self._hear(math.inf)
        if said is None:
            return {"status": "failed", "reason": "the compiler ended without a word"}
        if isinstance(said, dict):
            return said
        known = self._cache.get(said)
        if known is not None and known.get("limit", math.inf) < self._limit:
            known = None
        if known is not None and known.get("unpriced_kernels"):
            known = None  # of a time when kernels had no price
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
        self._listings = tempfile.TemporaryDirectory()
        args = (self._chip, theirs, pathlib.Path(self._listings.name))
        self._process = context.Process(target=_compile, args=args, daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self._listings.cleanup()


def _compile(chip: str, pipe: Any, folder: pathlib.Path) -> None:
    """Lower what is asked for, say which program that is, and compile it if it is not known."""
    bundles.ask(folder)
    on = device_of(chip)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            build, contender = pipe.recv()
            # Whatever is said of one program belongs into the result, and stops no other.
            try:
                fn, args = build()
                fn = fn if contender == "lax" else jaxdil.accelerate(fn, method=contender)
                program = lowered(fn, args, on)
            except Exception as error:
                pipe.send(_failure(error))
                continue
            pipe.send(re.sub(r"^module @\S+", "module", program.as_text(), flags=re.M))
            if pipe.recv():
                pipe.send(_outcome(program, chip, folder))
                bundles.clear(folder)


def _failure(error: Exception) -> dict[str, Any]:
    reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
    return {"status": "failed", "reason": f"{type(error).__name__}: {reason}"[:500]}


def _outcome(program: Any, chip: str, folder: pathlib.Path) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        program = program.compile()
    except Exception as error:
        return _failure(error)
    took = time.perf_counter() - started
    found = estimate(program.as_text(), chip, bundles.kernels(folder))
    costs = program.cost_analysis() or {}
    memory = program.memory_analysis()
    return {
        "status": "ok",
        "cycles": found.cycles,
        "kernel_cycles": found.kernel_cycles,
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


def header_of(
    device: str, *, dtype: str | None, arguments: Sequence[str], command: str = "run"
) -> dict[str, Any]:
    """The first record of a result.

    Raises:
      ValueError: if the compiler is not installed, or does not know the chip.
    """
    chip = chip_of(device)
    assert chip is not None
    header = machine.header(device, device_of(chip), peers={}, arguments=arguments, command=command)
    return header | {
        "benchmark": "compiled" if command == "run" else f"{command}-compiled",
        "libtpu": importlib.metadata.version("libtpu"),
        "dtype": dtype,
        "chip": CHIPS[chip]._asdict(),
        "checked": "compiled only: nothing ran, no result was checked, no time was measured",
    }
