"""The part of docs/benchmarks.md about whole networks, compiled for a chip that was not had."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.markdown import bold, table
from benchmarks.report_compiled import megabytes, thousands, unpriced
from benchmarks.report_models import TITLES, Network, networks
from benchmarks.results import Result, geometric_mean

__all__ = ["section"]

_INTRO = """\
The same networks. Nothing ran here: the compiler for this chip compiled each program and estimated
its cycles, which [Accelerators](accelerators.md) explains. The models are compiled as they are, in
float32; a TPU rounds the operands of their products to bfloat16, as JAX has it by default.\
"""

_LEGEND = """\
Thousands of cycles. *Over lax*: how many times fewer cycles than lax. *Temporaries* and *unpriced*
(what instructions without an estimate write): megabytes in jaxdil's program, and in lax's.\
"""


def section(result: Result) -> str:
    """The text about one result."""
    h, found = result.header, networks(result)
    known = ("jax", "jaxlib", "libtpu", "keras", "flax", "haiku", "equinox")
    versions = ", ".join(f"{name} {h[name]}" for name in known if name in h)
    parts = [
        f"## Whole networks, {h['device']} ({h['device_kind']}), compiled only, {h['date'][:10]}",
        _INTRO,
        f"{versions}, commit {h['commit']}." + (f" Note: {h['note']}." if "note" in h else ""),
        f"```sh\n{h['command']}\n```",
        _LEGEND,
        _table(found),
        _summary(found),
    ]
    if absent := [r for r in result.records if r["status"] != "ok"]:
        lines = [f"- {r['case']} {r['mode']}: `{r['contender']}`: {r['reason']}" for r in absent]
        parts.append("Not compiled, and in no mean:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _table(found: Sequence[Network]) -> str:
    lines = [
        [
            *("model", "examples", "mode", "ours / all", "lax", "jaxdil", "over lax"),
            *("methods", "temporaries", "unpriced", "compile s, jaxdil / lax"),
        ]
    ]
    for row in found:
        lax, auto = row.contenders["lax"], row.contenders["auto"]
        methods = sorted(auto["methods"].items(), key=lambda item: -item[1])
        lines.append(
            [
                f"`{row.case}`",
                "x".join(map(str, auto["shape"])),
                TITLES[row.mode],
                f"{row.of('ours')} / {row.of('convolutions')}",
                *(thousands(row.time(name)) for name in ("lax", "auto")),
                bold(row.speedup("lax")),
                ", ".join(f"{count} `{name}`" for name, count in methods),
                " / ".join(megabytes(record.get("temp_bytes")) for record in (auto, lax)),
                f"{unpriced(auto)} / {unpriced(lax)}",
                " / ".join(
                    f"{r['compile_s']:.0f}" if "compile_s" in r else "-" for r in (auto, lax)
                ),
            ]
        )
    return table(lines)


def _summary(found: Sequence[Network]) -> str:
    text = ["Geometric means of how many times fewer cycles than lax, in brackets the worst:"]
    for mode, title in TITLES.items():
        ratios = [s for row in found if row.mode == mode and (s := row.speedup("lax")) is not None]
        if ratios:
            text.append(f"{title} {geometric_mean(ratios):.2f} ({bold(min(ratios))}).")
    return " ".join(text) if len(text) > 1 else ""


def _seconds(took: float | None) -> str:
    return "-" if took is None else f"{took:.0f}"
