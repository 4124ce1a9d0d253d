"""Two results side by side: how auto's time changed from A to B."""

from __future__ import annotations

from benchmarks.case import MODES
from benchmarks.results import Result, geometric_mean, rows

__all__ = ["text"]


def text(a: Result, b: Result) -> str:
    """A table of B's time over A's, worst first, and geometric means; above 1, B is slower.

    Raises:
      ValueError: if the results have no case and mode in common in which auto was timed.
    """
    if a.benchmark != b.benchmark:
        msg = f"{a.path} and {b.path} were not measured by the same benchmark"
        raise ValueError(msg)
    unit, factor = ("kcycles", 1e-3) if b.benchmark == "compiled" else ("ms", 1e3)
    before = {(row.case, row.mode): row for row in rows(a)}
    found = []
    for row in rows(b):
        old = before.get((row.case, row.mode))
        t_a, t_b = (old.time("auto") if old else None), row.time("auto")
        if old is not None and t_a is not None and t_b is not None:
            found.append((t_b / t_a, row.case, row.mode, t_a, t_b, old.method, row.method))
    if not found:
        msg = f"{a.path} and {b.path} have no measurement of auto in common"
        raise ValueError(msg)
    found.sort(reverse=True)
    lines = [f"{label}: {_where(result)}" for label, result in (("A", a), ("B", b))]
    if a.header["device_kind"] != b.header["device_kind"] or a.header["cpu"] != b.header["cpu"]:
        lines.append("The machines differ: the ratios compare machines as well as code.")
    head = f"{'A ' + unit:>10}{'B ' + unit:>10}"
    lines += ["", f"{'B / A':>7}  {'case':<24}{'mode':<6}{head}  method"]
    for ratio, case, mode, t_a, t_b, m_a, m_b in found:
        method = m_b if m_a == m_b else f"{m_a} -> {m_b}"
        lines.append(
            f"{ratio:7.2f}  {case:<24}{mode:<6}{t_a * factor:10.3f}{t_b * factor:10.3f}  {method}"
        )
    lines.append("")
    for mode in (*MODES, "all"):
        ratios = [r for r, _, m, *_ in found if mode in (m, "all")]
        if ratios:
            lines.append(
                f"{mode:>4}: geometric mean {geometric_mean(ratios):.3f} over {len(ratios)}, "
                f"worst {max(ratios):.2f}, best {min(ratios):.2f}"
            )
    return "\n".join(lines)


def _where(result: Result) -> str:
    h = result.header
    machine = f"{h['device']} ({h['cpu']})"
    return (
        f"{h['date'][:10]}, commit {h['commit']}, {machine}, jax {h['jax']}  [{result.path.name}]"
    )
