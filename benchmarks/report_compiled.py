"""The part of docs/benchmarks.md about a chip that was compiled for and not had."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.case import FAMILIES, MODES
from benchmarks.markdown import bold, table
from benchmarks.results import Record, Result, Row, geometric_mean, rows

__all__ = ["NOISE", "megabytes", "merged", "section", "thousands", "unpriced"]

# An estimate is repeated exactly, but a copy more or less of a kernel is no difference.
NOISE = 1.02

_INTRO = """\
Nothing ran here. The compiler for this chip compiled each program and estimated its cycles: its own
cost model, added up over the instructions of the program. No time was measured and no result was
checked; [Accelerators](accelerators.md) says how the figures are made and what they leave out.\
"""

_LEGEND = """\
Thousands of cycles. *Roofline*: the operations at the chip's peak, or the bytes of input, kernel
and output at its bandwidth, whichever takes longer; no estimate is below it but by chance. *Over
lax*: how many times fewer cycles than lax. *Unpriced*: megabytes that instructions without an
estimate write in jaxdil's program, and in lax's.\
"""


def merged(results: Sequence[Result]) -> Result:
    """Results for one chip as one, under the header of the newest: of each case the newest.

    A case has its records from one result, so that jaxdil and lax are of one compiler.
    """
    order = sorted(results, key=lambda result: str(result.header["date"]))
    newest, found = order[-1], dict[tuple[str, str], list[Record]]()
    for result in order:
        here: dict[tuple[str, str], list[Record]] = {}
        for record in result.records:
            key = record["case"], record["mode"]
            here.setdefault(key, []).append(record | {"commit": result.header["commit"]})
        found |= here
    records = [record for records in found.values() for record in records]
    return Result(newest.path, newest.header, records)


def section(result: Result, picture: str) -> str:
    """The text about one result; ``picture`` is the file of its figure."""
    h, found = result.header, rows(result)
    chip = h["chip"]
    peak = f"{chip['flops'] / 1e12:.0f} TFLOP/s in bfloat16, {chip['bandwidth'] / 1e9:.0f} GB/s"
    peak += f", {chip['clock'] / 1e9:.2f} GHz"
    versions = ", ".join(f"{name} {h[name]}" for name in ("jax", "jaxlib", "libtpu"))
    commits = [record.get("commit", h["commit"]) for record in result.records]
    older = [commit for commit in dict.fromkeys(commits) if commit != h["commit"]]
    count = len({row.case for row in found})
    large = f", batches of {h['least_batch']}" if "least_batch" in h else ""
    about = f"{count} layers, {{dtype}}. {versions}, commit {h['commit']}"
    if older:
        there = len({r["case"] for r in result.records if r.get("commit") != h["commit"]})
        about += f"; {there} of them, marked, as of commit {', '.join(older)}"
    if large:
        about += "; each with at least so many examples as x and y of 2^24 elements allow"
    dtype = f"all in {h['dtype']}" if h["dtype"] else "each in its own dtype"
    parts = [
        f"## {h['device']} ({h['device_kind']}), compiled only{large}, {h['date'][:10]}",
        _INTRO,
        f"{about.format(dtype=dtype)}.",
        f"Of the chip: {peak}.",
        f"```sh\n{h['command']}\npython -m benchmarks report\n```",
        "Geometric means of how many times fewer cycles than lax; in brackets the worst case.",
        _summary(found),
        "By rule of [Choosing a method](choosing-a-method.md):",
        _by_rule(found),
        f"![Times fewer cycles than lax, a dot a case]({picture})",
        _remarks(found),
        _LEGEND,
        _full(found, result),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(found: Sequence[Row]) -> str:
    lines = [["family", "layers", *(mode for mode in MODES)]]
    for family in (*FAMILIES, "all"):
        chosen = [row for row in found if family in (row.family, "all")]
        if chosen:
            cells = []
            for mode in MODES:
                ratios = [
                    s
                    for row in chosen
                    if row.mode == mode and (s := row.speedup("lax")) is not None
                ]
                mean = geometric_mean(ratios)
                cells.append(f"{mean:.2f} ({bold(min(ratios))})" if mean is not None else "-")
            lines.append([family, str(len({row.case for row in chosen})), *cells])
    return table(lines)


def _by_rule(found: Sequence[Row]) -> str:
    reasons: dict[tuple[str, str], list[float]] = {}
    for row in found:
        if (s := row.speedup("lax")) is not None:
            because = str(row.contenders["auto"].get("because"))
            reasons.setdefault((because, row.method), []).append(s)
    lines = [["reason", "method", "programs", "geometric mean", "worst", "best"]]
    for (because, method), ratios in sorted(reasons.items()):
        mean, best = f"{geometric_mean(ratios):.2f}", f"{max(ratios):.2f}"
        lines.append([because, f"`{method}`", str(len(ratios)), mean, bold(min(ratios)), best])
    return table(lines)


def _remarks(found: Sequence[Row]) -> str:
    compared = [(s, row) for row in found if (s := row.speedup("lax")) is not None]
    worse = sorted((s, row.case, row.mode) for s, row in compared if s < 1 / NOISE)
    parts = [
        f"More cycles than lax (by more than 2 %) in {len(worse)} of {len(compared)} programs."
    ]
    parts += [f"- {case} {mode}: {bold(s)}" for s, case, mode in worse]
    not_compiled = [
        f"- {row.case} {row.mode}: `{r['contender']}` {r['status']}: {r['reason']}"
        for row in found
        for r in row.contenders.values()
        if r["status"] != "ok" and r["contender"] in ("lax", "auto")
    ]
    if not_compiled:
        parts.append("\nNot compiled, and in no mean:\n\n" + "\n".join(not_compiled))
    kernels = [r for row in found for r in row.contenders.values() if r.get("unpriced_kernels")]
    parts.append(f"\nPrograms with a kernel that the estimate leaves out: {len(kernels)}.")
    return "\n".join(parts)


def _full(found: Sequence[Row], result: Result) -> str:
    chip, newest = result.header["chip"], result.header["commit"]
    columns = ("case", "layer", "mode", "roofline", "lax", "jaxdil", "over lax", "method")
    lines = [[*columns, "temporaries MB", "unpriced MB"]]
    for row in found:
        lax, auto = row.contenders.get("lax", {}), row.contenders.get("auto", {})
        any_ = lax or auto
        roof = max(any_["flops"] / chip["flops"], any_["bytes"] / chip["bandwidth"])
        lines.append(
            [
                row.case if any_.get("commit", newest) == newest else f"{row.case} (older)",
                row.geometry.replace("*", "\\*"),
                row.mode,
                f"{roof * chip['clock'] / 1e3:.1f}",
                *(thousands(row.time(name)) for name in ("lax", "auto")),
                bold(row.speedup("lax")),
                f"`{row.method}`",
                megabytes(auto.get("temp_bytes")),
                f"{unpriced(auto)} / {unpriced(lax)}",
            ]
        )
    return table(lines)


def thousands(cycles: float | None) -> str:
    """Cycles, in thousands."""
    return "-" if cycles is None else f"{cycles / 1e3:.1f}"


def megabytes(size: int | None) -> str:
    """Bytes, in millions."""
    return "-" if size is None else f"{size / 1e6:.1f}"


def unpriced(record: Record) -> str:
    """Megabytes that instructions without an estimate write."""
    # What is brought into the chip's memory ahead of its use overlaps with other work.
    sizes = [n for what, n in record.get("unpriced", {}).items() if what != "copy-start"]
    return megabytes(sum(sizes)) if "unpriced" in record else "-"
