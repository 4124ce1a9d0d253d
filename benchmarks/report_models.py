"""The part of docs/benchmarks.md on whole networks, and its figure."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.figures import pyplot, save
from benchmarks.markdown import bold, device, ms, table
from benchmarks.results import Record, Result, geometric_mean

__all__ = ["TITLES", "Network", "draw", "networks", "section"]

TITLES = {"infer": "inference", "step": "training step"}


_INTRO = (
    "Models as Keras, Flax, Haiku and Equinox have them, or built of their layers, with random "
    "weights: inference, and a training step with its gradients and its update, as `jax.jit(fn)` "
    "and as `jax.jit(jaxdil.accelerate(fn))`; models of Keras on its torch backend too, with the "
    "same weights. Outputs are compared before the clock starts; then all take turns."
)


class Network(NamedTuple):
    """A model in a mode, its contenders by name."""

    case: str
    mode: str
    contenders: dict[str, Record]

    def time(self, name: str) -> float | None:
        """Median seconds of a contender, or cycles if it was only compiled; None if neither."""
        record = self.contenders.get(name)
        if record is None or record["status"] != "ok":
            return None
        return record["median"] if "median" in record else record["cycles"]

    def speedup(self, over: str) -> float | None:
        """How many times faster auto is than another; below 1 it loses."""
        ours, theirs = self.time("auto"), self.time(over)
        return theirs / ours if ours is not None and theirs is not None else None

    def of(self, key: str) -> str:
        """What all contenders have in common."""
        return str(self.contenders["lax"][key])


def section(result: Result, figure: str) -> str:
    """The text, with the figure at that path."""
    h, found = result.header, networks(result)
    known = ("jax", "jaxlib", "keras", "flax", "haiku", "equinox", "torch")
    versions = ", ".join(f"{name} {h[name]}" for name in known if name in h)
    parts = [
        f"## Whole networks, {device(h)}, {h['date'][:10]}",
        _INTRO,
        f"{versions}, Python {h['python']}, commit {h['commit']}. {h['cores']} cores."
        + (f" Note: {h['note']}." if "note" in h else ""),
        f"```sh\n{h['command']}\n```",
        _table(found),
        _summary(found),
        f"![Times faster than lax, and than Keras on PyTorch]({figure})",
    ]
    if refused := [r for r in result.records if r["status"] != "ok"]:
        parts += [f"- {r['case']} {r['mode']}: {r['contender']}: {r['reason']}" for r in refused]
    return "\n\n".join(parts) + "\n"


def draw(result: Result, path: pathlib.Path) -> None:
    """How many times faster each model is; left of the line it loses."""
    plt = pyplot()
    found = networks(result)
    cases = list(dict.fromkeys(row.case for row in found))
    at = {case: len(cases) - i for i, case in enumerate(cases)}
    modes = list(dict.fromkeys(row.mode for row in found))
    figure, axes = plt.subplots(
        1, len(modes), figsize=(10, 1.6 + 0.25 * len(cases)),
        sharex=True, sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    style = {"lax": ("o", "#0072B2", "lax"), "torch": ("^", "#D55E00", "Keras on PyTorch")}
    for axis, mode in zip(axes[0], modes, strict=True):
        for over, (marker, colour, label) in style.items():
            points = [
                (s, at[row.case])
                for row in found
                if row.mode == mode and (s := row.speedup(over)) is not None
            ]
            if points:
                axis.scatter(
                    *zip(*points, strict=True), c=colour, marker=marker, s=28,
                    label=f"over {label}", zorder=3,
                )  # fmt: skip
        axis.axvline(1, color="k", linewidth=1)
        axis.set(xscale="log", title=TITLES[mode], xlabel="times faster (left of 1: slower)")
        axis.grid(axis="both", alpha=0.25, which="both")
    axes[0, 0].set_yticks(list(at.values()), list(at))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    save(plt, figure, path)


def networks(result: Result) -> list[Network]:
    """One a model and mode, in the order of the result."""
    found: dict[tuple[str, str], Network] = {}
    for r in result.records:
        row = found.setdefault((r["case"], r["mode"]), Network(r["case"], r["mode"], {}))
        row.contenders[r["contender"]] = r
    return list(found.values())


def _table(found: Sequence[Network]) -> str:
    lines = [
        [
            *("model", "examples", "mode", "ours / all", "lax ms", "jaxdil ms", "torch ms"),
            *("over lax", "over torch", "compile s, lax", "compile s, jaxdil"),
        ]
    ]
    for row in found:
        shape = "x".join(map(str, row.contenders["lax"]["shape"]))
        auto = row.contenders["auto"]
        spread = f" ({ms(auto['q10'])} to {ms(auto['q90'])})" if auto["status"] == "ok" else ""
        lines.append(
            [
                f"`{row.case}`",
                shape,
                TITLES[row.mode],
                f"{row.of('ours')} / {row.of('convolutions')}",
                ms(row.time("lax")),
                ms(row.time("auto")) + spread,
                ms(row.time("torch")),
                bold(row.speedup("lax")),
                bold(row.speedup("torch")),
                f"{row.contenders['lax']['compile_s']:.1f}",
                f"{auto['compile_s']:.1f}",
            ]
        )
    return table(lines)


def _summary(found: Sequence[Network]) -> str:
    text = ["Geometric means of the networks of Keras, in brackets the worst:"]
    for mode in dict.fromkeys(row.mode for row in found):
        here = [row for row in found if row.mode == mode and row.time("torch") is not None]
        if here:
            text.append(
                f"{TITLES[mode]} {_mean(row.speedup('lax') for row in here)} times faster than "
                f"lax, {_mean(row.speedup('torch') for row in here)} times faster than PyTorch."
            )
    steps = [row.contenders for row in found if row.mode == "step"]
    if steps:
        ratio = {
            key: geometric_mean(c["auto"][key] / c["lax"][key] for c in steps)
            for key in ("compile_s", "trace_s")
        }
        text.append(
            f"Over all training steps, compiling takes {ratio['compile_s']:.2f} times as long as "
            f"under lax, and tracing {ratio['trace_s']:.2f} times."
        )
    return " ".join(text) if len(text) > 1 else ""


def _mean(ratios: Iterable[float | None]) -> str:
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{geometric_mean(known):.2f} ({bold(min(known))})"
