"""Results as they lie in files, and the ratios that the report and the comparison are made of."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.case import FAMILIES, MODES

__all__ = ["Record", "Result", "Row", "geometric_mean", "load", "newest", "rows"]

RESULTS = pathlib.Path(__file__).parent / "results"

Record = dict[str, Any]


class Result(NamedTuple):
    """A file of JSON lines, read."""

    path: pathlib.Path
    header: Record
    records: list[Record]

    @property
    def benchmark(self) -> str:
        """What was measured: layers, or what the command of that name does."""
        return str(self.header.get("benchmark", "layers"))

    @property
    def kind(self) -> str:
        """What a newer result takes the place of: that benchmark on that device, or chip."""
        device = self.header["device"]
        return self.benchmark if device == "cpu" else f"{self.benchmark} {device}"

    @property
    def place(self) -> tuple[str, str]:
        """Its kind, and of CPUs and batches which: one stands beside the other."""
        if self.benchmark == "compiled":
            return self.kind, str(self.header.get("least_batch", ""))
        return self.kind, self.header["cpu"] if self.header["device"] == "cpu" else ""

    @property
    def is_partial(self) -> bool:
        """Whether others of its kind stand beside it: some cases are measured again, not all."""
        return self.header.get("clock") == "profiler" or self.benchmark == "compiled"


class Row(NamedTuple):
    """A case in a mode: its contenders by name, and what they share."""

    case: str
    family: str
    mode: str
    geometry: str
    source: str
    contenders: dict[str, Record]

    def time(self, name: str) -> float | None:
        """Median seconds of a contender, or cycles if it was only compiled; None if it was not."""
        record = self.contenders.get(name)
        if record is None or record["status"] != "ok":
            return None
        return record["median"] if "median" in record else record["cycles"]

    def speedup(self, over: str) -> float | None:
        """How many times faster auto is than another; below 1 it loses."""
        ours, theirs = self.time("auto"), self.time(over)
        return theirs / ours if ours is not None and theirs is not None else None

    @property
    def method(self) -> str:
        """What auto chose."""
        return str(self.contenders.get("auto", {}).get("method") or "-")

    @property
    def best_other(self) -> tuple[str, float] | None:
        """The fastest of jaxdil's methods that auto did not take, and its time."""
        times = {
            n: self.time(n) for n, r in self.contenders.items() if r.get("method") and n != "auto"
        }
        timed = {name: t for name, t in times.items() if t is not None}
        return min(timed.items(), key=lambda item: item[1]) if timed else None


def load(path: pathlib.Path) -> Result:
    """Read a result.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is not a result.
    """
    records = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            msg = f"{path}, line {number}: not JSON ({error.msg}); a result is what `run` writes"
            raise ValueError(msg) from error
    if not records or records[0].get("kind") != "header":
        msg = f"{path}: no header record; a result is what `run` writes"
        raise ValueError(msg)
    return Result(path, records[0], [r for r in records[1:] if r["kind"] == "result"])


def newest() -> list[pathlib.Path]:
    """Of each benchmark on each device the result that was measured last, layers first.

    Raises:
      FileNotFoundError: if there is none of layers.
    """
    found = [load(path) for path in RESULTS.glob("*.jsonl")]
    last = {r.place: r.path for r in sorted(found, key=lambda r: r.header["date"])}
    if "layers" not in {kind for kind, _ in last}:
        msg = f"no result in {RESULTS}; first: python -m benchmarks run"
        raise FileNotFoundError(msg)
    paths = {*last.values(), *(r.path for r in found if r.is_partial)}
    kinds = {path: load(path).kind for path in paths}
    order = {
        kind: (kind != "layers", not kind.startswith("layers"), kind) for kind in kinds.values()
    }
    return sorted(paths, key=lambda path: (*order[kinds[path]], path))


def rows(result: Result) -> list[Row]:
    """One a case and mode, in the order of families, cases and modes.

    Raises:
      ValueError: if the result is not one of layers.
    """
    if result.benchmark not in ("layers", "random", "compiled"):
        msg = f"{result.path}: not a result of `run`, but of `{result.benchmark}`"
        raise ValueError(msg)
    found: dict[tuple[str, str], Row] = {}
    for r in result.records:
        row = found.setdefault(
            (r["case"], r["mode"]),
            Row(r["case"], r["family"], r["mode"], r["geometry"], r["source"], {}),
        )
        row.contenders[r["contender"]] = r
    order = list(dict.fromkeys(case for case, _ in found))
    return sorted(
        found.values(),
        key=lambda row: (FAMILIES.index(row.family), order.index(row.case), MODES.index(row.mode)),
    )


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None of none."""
    known = [math.log(v) for v in values if v is not None]
    return math.exp(math.fsum(known) / len(known)) if known else None
