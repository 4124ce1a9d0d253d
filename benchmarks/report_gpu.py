"""Results of one GPU as one: the newest time of each layer, of what the rules choose today."""

from __future__ import annotations

from collections.abc import Sequence

import jaxdil
from benchmarks.case import as_dtype, function, shapes, with_batch
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS
from benchmarks.results import Record, Result
from jaxdil._choice import Choice

__all__ = ["NOTE", "merged"]

NOTE = """\
Times are those for which the GPU was busy with a call, by the profiler's clock, after its cache was
overwritten; what Python takes to make the call is not in them. The batch of a layer is at least
{least_batch}, or as many images as keep an array within 2^24 elements. PyTorch runs with cuDNN's
fastest algorithm, in channels last and contiguous, and the faster of the two counts. Where a rule
has changed since a measurement, jaxdil's time is that of the method that the rule takes now, from
the same run; where that was not measured there is none. Programs were compiled side by side, so
compile times say nothing.\
"""

# Methods that have become a part of another's, which compiles to what it was.
PARTS = {"cudnn": "exchange"}

_BY_NAME = {case.name: case for case in CASES}


def merged(results: Sequence[Result]) -> Result:
    """Results of `run` on one kind of GPU as one, under the header of the newest."""
    order = sorted(results, key=lambda result: result.header["date"])
    newest = order[-1]
    found: dict[tuple[str, str, str], list[Record]] = {}
    for result in order:
        here: dict[tuple[str, str, str], list[Record]] = {}
        for record in result.records:
            key = record["case"], record["mode"], record["dtype"]
            here.setdefault(key, []).append(record | {"commit": result.header["commit"]})
        least = result.header["least_batch"]
        found |= {key: _row(key, records, least) for key, records in here.items()}
    records = [record for row in found.values() for record in row]
    return Result(newest.path, newest.header, records)


def _row(key: tuple[str, str, str], records: Sequence[Record], least_batch: int) -> list[Record]:
    by = {record["contender"]: record | {"compile_s": None} for record in records}
    formats = [by.pop(name) for name in ("torch", "torch-contiguous") if name in by]
    timed = [record for record in formats if record["status"] == "ok"]
    if formats:
        best = min(timed, key=lambda record: record["median"]) if timed else formats[0]
        by["torch"] = best | {"contender": "torch"}
    choice = _choice(*key, least_batch)
    auto = by["auto"]
    if choice.method not in (auto["method"], PARTS.get(auto["method"] or "")):
        taken = by["lax"] if choice.method == "xla" else by.get(choice.method)
        if taken is None or taken["status"] != "ok":
            reason = f"not measured: the rules now take {choice.method}"
            taken = {k: v for k, v in auto.items() if k not in ("median", "times_us")}
            taken |= {"status": "unsupported", "reason": reason}
        by["auto"] = taken | {"contender": "auto"}
    by["auto"] |= {"method": choice.method, "because": choice.because}
    return list(by.values())


def _choice(name: str, mode: str, dtype: str, least_batch: int) -> Choice:
    case = with_batch(as_dtype(_BY_NAME[name], dtype), least_batch)
    arrays = [shapes(case)[argument] for argument in ARGUMENTS[mode]]
    explained = jaxdil.explain(function(case, mode), platform="cuda", gradients=False)
    (row,) = explained(*arrays)
    return Choice(row.method, row.because)
