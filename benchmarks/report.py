"""docs/benchmarks.md and its figures, made from results and from nothing else."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence

from benchmarks import (
    figures,
    report_compiled,
    report_compiled_models,
    report_gpu,
    report_models,
    report_streaming,
)
from benchmarks.case import FAMILIES, MODES
from benchmarks.machine import ROOT
from benchmarks.markdown import bold, device, ms, table
from benchmarks.random_cases import DRAWN
from benchmarks.results import Record, Result, Row, geometric_mean, rows

__all__ = ["write"]

_COLUMNS = (
    *("case", "layer", "mode", "lax", "jaxdil", "PyTorch", "over lax", "over PyTorch", "method"),
    *("GFLOP/s", "GB/s", "roof", "compile s", "temporaries", "remark"),
)

# Medians of one and the same program differ by this much between two measurements.
NOISE = 1.05

_INTRO = """\
# Benchmarks

Layers of published networks and workloads of public issue threads, each forward and by both
gradients: `lax.conv_general_dilated` under `jit`, jaxdil's own choice (`method="auto"`), jaxdil's
other methods, and PyTorch, taking turns in one process. Every result was compared with that of lax
before it was timed. This page is made by `python -m benchmarks report` from raw times, which are
kept beside the code; a case that jaxdil loses stands in the same tables as those it wins, in bold.

*Over lax* and *over PyTorch* say how many times faster jaxdil is; below 1 it is slower. PyTorch
runs with as many threads as there are cores, in its channels-last memory format unless a case puts
channels first, forward without recording gradients, and computes one gradient at a time. All times
are medians of single calls as a Python program makes them.
"""

_RANDOM = """\
Drawn from a seed by `benchmarks/random_cases.py`: the families of the tables above, any sizes, a
fifth in bfloat16, a quarter with channels first. No rule was made on these before they were
measured. What is left to lax is lax's own program. A seed stands for the same layers at the same
commit.\
"""

_LEGEND = """\
Milliseconds: the median, and in brackets the 10 and 90 % quantiles of jaxdil's. *Roof*: the share
of what the ceilings allow, above 100 % where the data stay in the caches. *Temporaries*: bytes
beside input and output, as a multiple of these.\
"""


def write(results: Sequence[Result], *, docs: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Write the page and its figures for some results; returns the paths."""
    docs = ROOT / "docs" if docs is None else docs
    page, written = [_INTRO], []
    places = dict.fromkeys(result.place for result in results)
    for result in (_whole([r for r in results if r.place == place]) for place in places):
        if result.benchmark == "streaming":
            page.append(report_streaming.section(result))
            continue
        if not result.records:
            msg = f"{result.path}: no measurement in it"
            raise ValueError(msg)
        if result.benchmark == "models":
            path = docs / "figures" / f"models-{result.path.stem}.svg"
            report_models.draw(result, path)
            written.append(path)
            page.append(report_models.section(result, f"figures/{path.name}"))
            continue
        if result.benchmark == "models-compiled":
            page.append(report_compiled_models.section(result))
            continue
        if result.benchmark == "compiled":
            path = docs / "figures" / f"cycles-{result.path.stem}.svg"
            figures.speedups(result, path, label="times fewer cycles (left of 1: more)")
            written.append(path)
            page.append(report_compiled.section(result, f"figures/{path.name}"))
            continue
        drawn = result.benchmark == "random"
        names = {}
        plots = {"speedup": figures.speedups} | ({} if drawn else {"roofline": figures.roofline})
        for kind, draw in plots.items():
            path = docs / "figures" / f"{kind}-{result.path.stem}.svg"
            draw(result, path)
            names[kind] = f"figures/{path.name}"
            written.append(path)
        page.append((_section_of_random if drawn else _section)(result, names))
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text("\n".join(page))
    return [docs / "benchmarks.md", *written]


def _whole(results: Sequence[Result]) -> Result:
    """Results of one kind, on one device, as one."""
    if not results[-1].is_partial or not results[-1].records:
        return results[-1]
    parts = report_compiled if results[-1].benchmark == "compiled" else report_gpu
    return parts.merged(results)


def _facts(result: Result) -> list[str]:
    """Where it was measured, of what, and how to do it again."""
    h, found = result.header, rows(result)
    c = h["ceilings"]
    products = c["matmul_flops"].items()
    peaks = ", ".join(f"{flops / 1e9:.0f} GFLOP/s in {dtype}" for dtype, flops in products)
    ceilings = f"{peaks} (a matrix product), {c['copy_bytes'] / 1e9:.1f} GB/s (a copy)"
    versions = ", ".join(f"{name} {h[name]}" for name in ("jax", "jaxlib", "torch") if name in h)
    versions += f", Python {h['python']}, commit {h['commit']}"
    cases = len({row.case for row in found})
    again = f"{h['command']}\npython -m benchmarks report benchmarks/results/{result.path.name}"
    return [
        f"{cases} layers. {versions}. CPU: {h['cpu']}, {h['cores']} cores.",
        f"Ceilings, of the same run: {ceilings}."
        + (f" An empty call: {c['call_s'] * 1e6:.0f} us." if c["call_s"] else ""),
        *([report_gpu.NOTE.format(**h)] if result.is_partial else []),
        f"```sh\n{again}\n```",
    ]


def _section_of_random(result: Result, names: dict[str, str]) -> str:
    found = rows(result)
    parts = [
        f"## Random layers, {device(result.header)}, {result.header['date'][:10]}",
        _RANDOM,
        *_facts(result),
        "Geometric means; in brackets the worst case.",
        _summary(found),
        _costs(found),
        f"![Times faster than lax and than PyTorch, a dot a layer]({names['speedup']})",
        _losses(found),
    ]
    return "\n\n".join(parts) + "\n"


def _section(result: Result, names: dict[str, str]) -> str:
    found = rows(result)
    sources = dict.fromkeys((row.case, row.source) for row in found)
    parts = [
        f"## {device(result.header)}, {result.header['date'][:10]}",
        *_facts(result),
        "### Summary",
        "Geometric means; in brackets the worst case.",
        _summary(found),
        _costs(found),
        "### By rule",
        "What each rule of [Choosing a method](choosing-a-method.md) gained over lax.",
        _by_rule(found),
        f"![Times faster than lax and than PyTorch, a dot a case]({names['speedup']})",
        f"![Roofline]({names['roofline']})",
        "### Where it loses",
        _losses(found),
        "### Every case",
        _LEGEND,
        _full(found, result),
        "### Sources",
        "\n".join(f"- `{case}`: {source}" for case, source in sources),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(found: Sequence[Row]) -> str:
    def cell(chosen: Sequence[Row], over: str) -> str:
        ratios = [s for row in chosen if (s := row.speedup(over)) is not None]
        return f"{geometric_mean(ratios):.2f} ({bold(min(ratios))})" if ratios else "-"

    def behind(chosen: Sequence[Row]) -> str:
        both = [
            row for row in chosen if row.time("lax") is not None and row.time("torch") is not None
        ]
        mean = geometric_mean(row.time("lax") / row.time("torch") for row in both)
        return f"{mean:.2f}" if mean is not None else "-"

    lines = [["family", "mode", "layers", "over lax", "over PyTorch", "PyTorch over lax"]]
    for family in (*FAMILIES, "all"):
        for mode in MODES:
            chosen = [row for row in found if family in (row.family, "all") and row.mode == mode]
            if chosen:
                lines.append(
                    [
                        family,
                        mode,
                        str(len(chosen)),
                        cell(chosen, "lax"),
                        cell(chosen, "torch"),
                        behind(chosen),
                    ]
                )
    return table(lines)


def _by_rule(found: Sequence[Row]) -> str:
    """Speed-up over lax of the cases that each reason was given for."""
    reasons: dict[tuple[str, str], list[float]] = {}
    for row in found:
        if (s := row.speedup("lax")) is not None:
            because = str(row.contenders["auto"].get("because"))
            reasons.setdefault((because, row.method), []).append(s)
    lines = [["reason", "method", "measurements", "geometric mean", "worst", "best"]]
    for (because, method), ratios in sorted(reasons.items()):
        mean = geometric_mean(ratios)
        lines.append(
            [
                because,
                f"`{method}`",
                str(len(ratios)),
                f"{mean:.2f}",
                bold(min(ratios)),
                f"{max(ratios):.2f}",
            ]
        )
    return table(lines)


def _costs(found: Sequence[Row]) -> str:
    """Compile time and temporaries, beside lax's."""
    both = [
        (row.contenders["auto"], row.contenders["lax"])
        for row in found
        if row.time("auto") is not None and row.time("lax") is not None
    ]
    text = []
    if both and all(a["compile_s"] for a, _ in both):
        ratios = [a["compile_s"] / b["compile_s"] for a, b in both]
        most = max(a["compile_s"] - b["compile_s"] for a, b in both)
        text.append(
            f"Compile time: {statistics.median(ratios):.2f} times that of lax in the median, "
            f"at most {most:+.2f} s."
        )
    over = [
        a["temp_bytes"] / a["bytes"]
        for a, b in both
        if a["temp_bytes"] is not None and a["temp_bytes"] > max(2 * a["bytes"], b["temp_bytes"])
    ]
    if both:
        text.append(
            "Temporaries: above both lax's and twice input plus output in "
            f"{len(over)} of {len(both)} measurements"
            + (f", at most {max(over):.1f} times." if over else ".")
        )
    return " ".join(text)


def _losses(found: Sequence[Row]) -> str:
    parts = []
    for over, title, threshold in (("lax", "lax", NOISE), ("torch", "PyTorch", 1.0)):
        ratios = sorted(
            (s, row) for row in found if (s := row.speedup(over)) is not None and s < 1 / threshold
        )
        timed = sum(row.speedup(over) is not None for row in found)
        if not timed:
            parts.append(f"{title} was not measured.")
            continue
        than = (
            "by more than 5 %; less is noise, as is any ratio of `xla`, which is lax itself"
            if over == "lax"
            else "at all"
        )
        parts.append(f"Slower than {title} ({than}) in {len(ratios)} of {timed} measurements.")
        if ratios:
            lines = [["case", "mode", f"over {title}", f"{title} ms", "jaxdil ms", "method"]]
            lines += [
                [
                    row.case if row.source != DRAWN else row.geometry.replace("*", "\\*"),
                    row.mode,
                    bold(s),
                    ms(row.time(over)),
                    ms(row.time("auto")),
                    f"`{row.method}`",
                ]
                for s, row in ratios
            ]
            parts.append(table(lines))
    refused = [
        f"- {row.case} {row.mode}: `{r['contender']}` {r['status']}: {r['reason']}"
        for row in found
        for r in row.contenders.values()
        if r["status"] in ("refused", "failed")
    ]
    if refused:
        parts.append("Not timed, because wrong or broken:\n\n" + "\n".join(refused))
    return "\n\n".join(parts)


def _full(found: Sequence[Row], result: Result) -> str:
    ceilings, commit = result.header["ceilings"], result.header["commit"]
    lines = [_COLUMNS]
    for row in found:
        auto = row.contenders.get("auto", {"status": "absent"})
        timed = auto["status"] == "ok"
        spread = f" ({ms(auto['q10'])} to {ms(auto['q90'])})" if timed else ""
        lines.append(
            [
                row.case,
                row.geometry.replace("*", "\\*"),
                row.mode,
                ms(row.time("lax")),
                ms(row.time("auto")) + spread,
                ms(row.time("torch")),
                bold(row.speedup("lax")),
                bold(row.speedup("torch")),
                f"`{row.method}`",
                *_achieved(auto, ceilings),
                _remark(row, commit),
            ]
        )
    return table(lines)


def _achieved(record: Record, ceilings: Record) -> list[str]:
    """Rates, share of the roof, compile time and temporaries of a contender."""
    if record["status"] != "ok":
        return ["-"] * 5
    compute, copy = ceilings["matmul_flops"][record["dtype"]], ceilings["copy_bytes"]
    roof = min(compute, copy * record["flops"] / record["bytes"])
    temporaries = record["temp_bytes"]
    return [
        f"{record['gflops']:.1f}",
        f"{record['gbs']:.1f}",
        f"{record['gflops'] * 1e9 / roof:.0%}",
        "-" if record["compile_s"] is None else f"{record['compile_s']:.2f}",
        "-" if temporaries is None else f"{temporaries / record['bytes']:.1f}",
    ]


def _remark(row: Row, commit: str) -> str:
    remarks = []
    auto = row.contenders.get("auto", {})
    if auto.get("commit", commit) != commit:
        remarks.append(f"of commit {auto['commit']}")
    if "now take" in (auto.get("reason") or ""):
        remarks.append(auto["reason"])
    if (s := row.speedup("lax")) is not None and s < 1 / NOISE:
        remarks.append("slower than lax")
    if (s := row.speedup("torch")) is not None and s < 1:
        remarks.append("slower than PyTorch")
    ours, other = row.time("auto"), row.best_other
    if ours is not None and other is not None and other[1] * NOISE < ours:
        remarks.append(f"`{other[0]}` takes {ms(other[1])}")
    remarks += [
        f"{r['contender']} {r['status']}"
        for r in row.contenders.values()
        if r["status"] not in ("ok", "unsupported")
    ]
    return "; ".join(remarks)
