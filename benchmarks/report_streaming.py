"""The section of docs/benchmarks.md on streams, made from a result of ``streaming``."""

from __future__ import annotations

from benchmarks.results import Record, Result

__all__ = ["section"]

_INTRO = """\
Samples a second of one stream through WaveNet, two stacks of ten layers with dilations 1 to 512,
under `jit`. *Generate*: each sample is made from the one before. `step` is `jaxdil.streaming`,
`queue` keeps the past of each layer in the order of time and shifts it, `recompute` runs the whole
receptive field for each sample. *Filter*: the input is known; chunks of `jaxdil.streaming`, and the
whole sequence at once. All were compared before they were timed.\
"""

_COLUMNS = (
    "| network | mode | way | samples/s | us a sample (10 to 90 %) | over recompute, whole "
    "| compile s |"
)


def section(result: Result) -> str:
    """The section of one result.

    Raises:
      ValueError: if there is no measurement in it.
    """
    if not result.records:
        msg = f"{result.path}: no measurement in it"
        raise ValueError(msg)
    h = result.header
    device = f"CPU: {h['cpu']}" if h["device"] == "cpu" else f"{h['device']}: {h['device_kind']}"
    facts = (
        f"jax {h['jax']}, jaxlib {h['jaxlib']}, Python {h['python']}, commit {h['commit']}. "
        f"CPU: {h['cpu']}, {h['cores']} cores. Raw times: `benchmarks/results/{result.path.name}`."
    )
    again = f"{h['command']}\npython -m benchmarks report"
    parts = [
        f"## Streams: {device}, {h['date'][:10]}",
        facts,
        f"```sh\n{again}\n```",
        _INTRO,
        _table(result.records),
    ]
    return "\n\n".join(parts) + "\n"


def _table(records: list[Record]) -> str:
    least = {}
    for r in records:
        if r["contender"] in ("recompute", "whole") and r["status"] == "ok":
            least[r["network"], r["mode"]] = r["samples_per_s"]
    lines = [_COLUMNS, "|" + "---|" * (_COLUMNS.count("|") - 1)]
    for r in records:
        cells = [r["network"], r["mode"], r["contender"]]
        if r["status"] != "ok":
            cells += [r["status"], r["reason"], "-", "-"]
        else:
            low, middle, high = (r[q] / r["samples"] * 1e6 for q in ("q10", "median", "q90"))
            base = least.get((r["network"], r["mode"]))
            cells += [
                f"{r['samples_per_s']:,.0f}",
                f"{middle:.3g} ({low:.3g} to {high:.3g})",
                "-" if base is None else f"{r['samples_per_s'] / base:.3g}",
                f"{r['compile_s']:.1f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
