"""``python -m benchmarks``: run, models, streaming, report, compare."""

from __future__ import annotations

import argparse
import fnmatch
import os
import pathlib
import sys
from collections.abc import Sequence

_EPILOG = """\
examples:
  python -m benchmarks run                                 everything on the CPU, 20 minutes or more
  python -m benchmarks run --cases 'mobilenet*,transposed' --modes fwd --seconds 0.2
  python -m benchmarks run --random 100 --seed 7           layers that nobody tuned for
  python -m benchmarks run --device cuda --peers lax,torch
  python -m benchmarks run --device tpu:v5e                what its compiler says, without a TPU
  python -m benchmarks models --models 'keras-*'           whole networks
  python -m benchmarks models --device tpu:v5e             the same, compiled and not run
  python -m benchmarks streaming                           samples a second of WaveNet, a minute
  python -m benchmarks report                              the newest results -> docs/benchmarks.md
  python -m benchmarks compare benchmarks/results/A.jsonl benchmarks/results/B.jsonl
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="How fast jaxdil is on this machine, beside lax and PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    run = commands.add_parser("run", help="measure, and write raw times to benchmarks/results/")
    run.add_argument(
        "--device",
        default="cpu",
        help="cpu, cuda, rocm or tpu; or a chip to compile for without having it, as tpu:v5e",
    )
    run.add_argument(
        "--dtype",
        help="of all cases (default: each its own; bfloat16 for tpu:CHIP)",
    )
    run.add_argument(
        "--limit",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds to compile one program for tpu:CHIP (default: %(default)s)",
    )
    run.add_argument(
        "--peers", default="lax,torch", metavar="NAMES", help="of lax, torch (default: %(default)s)"
    )
    run.add_argument(
        "--cases",
        metavar="GLOBS",
        help="comma-separated globs of case names or families (default: all)",
    )
    run.add_argument(
        "--random", type=int, metavar="N", help="in place of the cases, N layers drawn at random"
    )
    run.add_argument("--seed", type=int, metavar="S", help="what --random draws from (default: 0)")
    run.add_argument(
        "--modes",
        default="fwd,dx,dw",
        help="of fwd, dx (gradient by the input), dw (by the kernel)",
    )
    run.add_argument(
        "--methods",
        default="all",
        metavar="NAMES",
        help="beside the one chosen: all that can serve, none (auto), or names (default: all)",
    )
    run.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        metavar="S",
        help="of timing for each case and mode (default: %(default)s)",
    )
    run.add_argument(
        "--batch",
        type=int,
        help="what a smaller batch is raised to (default: 32 on a GPU; for a chip each its own)",
    )
    run.add_argument(
        "--stop-after",
        type=float,
        metavar="S",
        help="on a GPU: seconds after which nothing more is begun (default: all is measured)",
    )
    run.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="the result (default: a new file)"
    )
    run.add_argument("--list", action="store_true", help="show the cases and stop")

    models = commands.add_parser(
        "models", help="measure whole networks, under lax, accelerated, and Keras on PyTorch"
    )
    models.add_argument("--device", default="cpu", help="as of run")
    models.add_argument("--limit", type=float, default=600.0, metavar="S",
                        help="seconds to compile one program (default: %(default)s)")  # fmt: skip
    models.add_argument("--peers", default="lax,torch", help="of lax, torch (default: %(default)s)")
    models.add_argument("--models", metavar="GLOBS", help="comma-separated globs (default: all)")
    models.add_argument("--batch", type=int, default=4, help="examples (default: %(default)s)")
    models.add_argument("--size", type=int, help="samples an axis (default: the model's own)")
    models.add_argument("--seconds", type=float, default=2.0, metavar="S",
                        help="of timing, each (default: %(default)s)")  # fmt: skip
    models.add_argument("--out", type=pathlib.Path, metavar="FILE", help="the result")
    models.add_argument("--list", action="store_true", help="show the models and stop")

    streaming = commands.add_parser(
        "streaming", help="samples a second of WaveNet by steps, by chunks and recomputed"
    )
    streaming.add_argument("--device", default="cpu", choices=("cpu", "cuda", "rocm", "tpu"))
    streaming.add_argument(
        "--channels",
        default="32,64",
        metavar="NUMBERS",
        help="of a network each (default: %(default)s)",
    )
    streaming.add_argument(
        "--seconds", type=float, default=8.0, metavar="S",
        help="of timing for each network (default: %(default)s)",
    )  # fmt: skip
    streaming.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="the result (default: a new file)"
    )

    report = commands.add_parser(
        "report", help="make docs/benchmarks.md and its figures from results"
    )
    report.add_argument("results", nargs="*", type=pathlib.Path, metavar="RESULT",
                        help="of `run` and `streaming` (default: the newest)")  # fmt: skip
    report.add_argument(
        "--docs", type=pathlib.Path, metavar="FOLDER", help="where to write (default: docs/)"
    )

    compare = commands.add_parser("compare", help="auto's times in two results, as ratios")
    compare.add_argument("a", type=pathlib.Path, metavar="A", help="the result before")
    compare.add_argument("b", type=pathlib.Path, metavar="B", help="the result after")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(argv)
    try:
        commands = {
            "run": _run,
            "models": _models,
            "streaming": _streaming,
            "report": _report,
            "compare": _compare,
        }
        commands[options.command](options, argv[1:])
    except (ValueError, FileNotFoundError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; what was measured is kept", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace, argv: list[str]) -> None:
    if options.device != "cpu":
        # So that PyTorch finds memory left on the same GPU. Read when JAX starts its backend.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from benchmarks import contenders, random_cases, run
    from benchmarks.case import MODES, as_dtype
    from benchmarks.cases import select

    drawn = options.random is not None
    if drawn and options.cases:
        msg = "--random: draws its own layers; leave --cases out"
        raise ValueError(msg)
    if drawn and options.device != "cpu":
        msg = f"--random: of --device cpu alone, not {options.device}"
        raise ValueError(msg)
    if drawn and options.random < 1:
        msg = f"--random: at least one layer, not {options.random}"
        raise ValueError(msg)
    if not drawn and options.seed is not None:
        msg = "--seed: of --random alone; say how many layers to draw"
        raise ValueError(msg)
    cases = random_cases.draw(options.random, options.seed or 0) if drawn else select(options.cases)
    if options.list:
        for case in cases:
            print(f"{case.family:<10}  {case.name:<22}  {case.geometry:<58}  {case.source}")
        return
    modes = options.modes.split(",")
    if unknown := [mode for mode in modes if mode not in MODES]:
        msg = f"--modes: {unknown[0]!r} is none of {', '.join(MODES)}"
        raise ValueError(msg)
    contenders.check_methods(options.methods)
    if options.device.startswith("tpu:"):
        from benchmarks import tpu

        path = tpu.run(
            cases,
            device=options.device,
            modes=modes,
            methods=options.methods,
            dtype=options.dtype or "bfloat16",
            batch=options.batch,
            limit=options.limit,
            out=options.out,
            arguments=argv,
        )
        print(f"written: {path}")
        return
    _check_device(options.device)
    if options.dtype:
        cases = tuple(as_dtype(case, options.dtype) for case in cases)
    if options.device in ("cuda", "rocm"):
        from benchmarks import gpu

        path = gpu.run(
            cases,
            device=options.device,
            peers=options.peers.split(","),
            modes=modes,
            methods=options.methods,
            batch=options.batch or 32,
            limit=options.stop_after,
            out=options.out,
            arguments=argv,
        )
        print(f"written: {path}")
        return
    path = run.run(
        cases,
        device=options.device,
        peers=options.peers.split(","),
        modes=modes,
        methods=options.methods,
        seconds=options.seconds,
        out=options.out,
        arguments=argv,
        ceiling_size=2048 if options.device == "cpu" else 8192,
        drawn=drawn,
    )
    print(f"written: {path}")


def _check_device(name: str) -> None:
    if name not in ("cpu", "cuda", "rocm", "tpu"):
        msg = f"--device: {name!r} is none of cpu, cuda, rocm, tpu, tpu:CHIP"
        raise ValueError(msg)


def _streaming(options: argparse.Namespace, argv: list[str]) -> None:
    from benchmarks import streaming

    try:
        channels = [int(number) for number in options.channels.split(",")]
    except ValueError as error:
        msg = f"--channels: numbers, with commas between them, not {options.channels!r}"
        raise ValueError(msg) from error
    path = streaming.measure(
        [streaming.Case(number) for number in channels],
        device=options.device,
        seconds=options.seconds,
        out=options.out,
        arguments=argv,
    )
    print(f"written: {path}")


def _models(options: argparse.Namespace, argv: list[str]) -> None:
    if options.device.startswith("tpu:"):
        # The models hold arrays, and libtpu would look for a chip. Read when JAX starts.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from benchmarks import networks, zoo

    globs = (options.models or "*").split(",")
    entries = [e for e in zoo.ENTRIES if any(fnmatch.fnmatch(e.name, glob) for glob in globs)]
    if not entries:
        msg = f"--models: nothing matches {options.models!r}; see --list"
        raise ValueError(msg)
    if options.list:
        for entry in entries:
            print(f"{entry.name:<26}  {entry.library:<8}  {entry.size:>5}  {entry.source}")
        return
    if options.device.startswith("tpu:"):
        from benchmarks import tpu

        path = tpu.run_models(
            [entry.name for entry in entries],
            device=options.device,
            batch=options.batch,
            size=options.size,
            limit=options.limit,
            out=options.out,
            arguments=argv,
        )
        print(f"written: {path}")
        return
    _check_device(options.device)
    path = networks.run_models(
        [entry.name for entry in entries],
        device=options.device,
        peers=options.peers.split(","),
        batch=options.batch,
        size=options.size,
        seconds=options.seconds,
        out=options.out,
        arguments=argv,
    )
    print(f"written: {path}")


def _report(options: argparse.Namespace, _: list[str]) -> None:
    from benchmarks import report, results

    paths = options.results or results.newest()
    for path in report.write([results.load(p) for p in paths], docs=options.docs):
        print(f"written: {path}")


def _compare(options: argparse.Namespace, _: list[str]) -> None:
    from benchmarks import compare, results

    print(compare.text(results.load(options.a), results.load(options.b)))


if __name__ == "__main__":
    sys.exit(main())
