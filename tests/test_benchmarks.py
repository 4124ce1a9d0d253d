"""The benchmarks measure what they say: every case is right, a wrong contender is refused, and the
report tells what was lost. Nothing here looks at a clock."""

import collections
import dataclasses
import importlib.util
import json
import math
import re

import jax
import numpy as np
import pytest
from checker import assert_conv, assert_input_grad, assert_kernel_grad

import jaxdil
from benchmarks import __main__ as command
from benchmarks import case as cases_of
from benchmarks import (
    check,
    compare,
    contenders,
    gpu,
    random_cases,
    report,
    results,
    run,
    streaming,
)
from benchmarks.case import FAMILIES, MODES, as_dtype, function, operands, shapes, shrunk, terms
from benchmarks.cases import CASES, select
from jaxdil import reference
from jaxdil._device import multiplies_bfloat16

SMALL = tuple(shrunk(case) for case in CASES)
# Layers that differ only in size are the same layer when small; each is run once.
DIFFERENT = tuple(
    {dataclasses.replace(c, name="", source="", family=""): c for c in SMALL}.values()
)
has_torch = importlib.util.find_spec("torch") is not None


def by_name(name):
    return next(case for case in SMALL if case.name == name)


# --- the cases


def test_cases_are_many_named_and_sourced():
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.source.strip() for case in CASES)
    assert {case.family for case in CASES} == set(FAMILIES)
    assert {case.dtype for case in CASES} == {"float32", "bfloat16"}
    assert {case.data_format for case in CASES} == {"channels_last", "channels_first"}
    assert {case.rank for case in CASES} == {1, 2, 3}


@pytest.mark.parametrize(("full", "small"), list(zip(CASES, SMALL, strict=True)))
def test_a_shrunk_case_keeps_its_structure(full, small):
    assert math.prod(small.x) <= min(math.prod(full.x), 50_000)
    for what in ("family", "transposed", "dtype", "data_format", "rank"):
        assert getattr(small, what) == getattr(full, what)
    assert small.stride == tuple(min(s, 4) for s in full.stride)
    assert (small.groups > 1) == (full.groups > 1)
    assert [d > 1 for d in small.dilation] == [d > 1 for d in full.dilation]
    assert (small.w[-1] > small.x[-1]) == (full.w[-1] > full.x[-1]) or full.groups != full.x[-1]


@pytest.mark.parametrize("case", DIFFERENT, ids=lambda c: c.name)
def test_auto_agrees_with_lax_on_every_case(case):
    arrays = operands(case)
    x, w, g = (arrays[name] for name in "xwg")

    def all_three(conv):
        def compute(x, w, g):
            y, pullback = jax.vjp(conv, x, w)
            return y, *pullback(g)

        return jax.jit(compute)

    lax = all_three(function(case, "fwd"))
    auto = all_three(lambda x, w: jaxdil.conv_general_dilated(x, w, **case.lax_arguments))
    magnitudes = lax(*map(np.abs, (x, w, g)))
    for mode, got, want, size in zip(MODES, auto(x, w, g), lax(x, w, g), magnitudes, strict=True):
        share = check.worst(
            *map(np.asarray, (got, want, size)),
            terms=terms(case, mode, g.size // case.w[-1]),
            device="cpu",
        )
        assert share <= 1, f"{mode}: {share} times what rounding allows"


@pytest.mark.parametrize(
    "name", ["mobilenetv2-28-s2", "resnext-56", "strided-dilated", "flax-4207"]
)
def test_lax_is_given_the_convolution_that_the_case_describes(name):
    case = by_name(name)
    x, w, g = (operands(case)[k] for k in "xwg")
    geometry = {
        "stride": case.stride,
        "dilation": case.dilation,
        "padding": case.pads,
        "groups": case.groups,
    }
    got = {
        mode: np.asarray(function(case, mode)(*(operands(case)[k] for k in names)))
        for mode, names in contenders.ARGUMENTS.items()
    }
    assert_conv(got["fwd"], x, w, **geometry)
    assert_input_grad(got["dx"], g, w, input_shape=x.shape[1:-1], **geometry)
    assert_kernel_grad(got["dw"], x, g, kernel_shape=w.shape[:-2], **geometry)


def test_lax_is_given_the_transposed_convolution_that_the_case_describes():
    case = by_name("cyclegan-k3s2")
    x, w = (operands(case)[k] for k in "xw")
    # The convolution that this transposes has the kernel flipped, its channels exchanged.
    flipped = np.swapaxes(w[::-1, ::-1], -1, -2)
    expected = reference.conv_transpose(
        x,
        flipped,
        input_shape=operands(case)["g"].shape[1:-1],
        stride=case.stride,
        padding=case.pads,
    )
    np.testing.assert_allclose(function(case, "fwd")(x, w), expected, rtol=1e-4, atol=1e-5)


def test_cases_are_selected_by_name_and_family():
    assert [case.name for case in select("resnet-56,resnet-stem")] == ["resnet-stem", "resnet-56"]
    assert {case.family for case in select("transposed")} == {"transposed"}
    assert select(None) is CASES
    with pytest.raises(ValueError, match=r"'nothing\*' matches no case"):
        select("resnet*,nothing*")


def test_random_layers_are_those_of_their_seed():
    layers = random_cases.draw(60, 3)
    assert layers[:7] == random_cases.draw(7, 3)
    assert layers[0] != random_cases.draw(1, 4)[0]
    assert len({case.name for case in layers}) == 60
    assert {case.family for case in layers} == set(FAMILIES)
    assert {case.rank for case in layers} == {1, 2, 3}
    assert {case.dtype for case in layers} == {"float32", "bfloat16"}
    assert {case.data_format for case in layers} == {"channels_last", "channels_first"}
    for case in layers:
        arrays = shapes(case)
        samples = [math.prod(arrays[name].shape) for name in "xg"]
        assert min(samples) > 0
        assert sum(samples) <= random_cases.MOST_SAMPLES


# --- the check


def test_a_wrong_result_is_found():
    want = np.ones((3, 3), np.float32)

    def judged(actual):
        return check.worst(actual, want, want, terms=9, device="cpu")

    assert judged(want) == 0
    assert judged(want + np.float32(1e-6)) <= 1
    nan = want.copy()
    nan[1, 1] = np.nan
    assert judged(nan) == math.inf
    assert judged(want[:2]) == math.inf
    assert judged(want.astype(np.float64)) == math.inf
    assert judged(want * np.float32(1.0001)) > 1


# One of each kind of call that PyTorch is given.
ODD = tuple(
    {
        (c.rank, c.transposed, c.groups > 1, c.stride, c.data_format, c.dtype, c.pads): c
        for c in DIFFERENT
        if c.transposed or c.rank != 2 or c.w[0] <= 5
    }.values()
)


@pytest.mark.skipif(not has_torch, reason="torch is not installed")
@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_pytorch_computes_the_same(mode, contiguous):
    from benchmarks import peer_torch

    assert peer_torch.prepare("cpu", 1) is None
    on = jax.devices("cpu")[0]
    layers = ODD
    if not multiplies_bfloat16():
        # PyTorch sums in bfloat16 there, which a run refuses; the layouts are the same.
        layers = tuple(as_dtype(case, "float32") for case in ODD)
    for case in layers:
        arrays = operands(case)
        wanted = contenders.with_lax(case, mode, arrays, on)[1]()
        contender = peer_torch.build(case, mode, arrays, "cpu", contiguous=contiguous)
        share = check.worst(
            contender.result(contender.call()),
            wanted.expected,
            wanted.magnitude,
            terms=terms(case, mode, arrays["g"].size // case.w[-1]),
            device="cpu",
        )
        assert share <= 1, f"{case.name}: {share} times what rounding allows"


# --- the runner

TWO = (by_name("mobilenetv1-56"), by_name("cyclegan-k3s2"))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def small_run(path, **options):
    settings = {
        "device": "cpu",
        "peers": ["lax"],
        "modes": MODES,
        "methods": "all",
        "seconds": 0.01,
    }
    return run.run(TWO, **(settings | options), out=path, ceiling_size=32)


def test_run_writes_a_header_and_a_record_a_contender(tmp_path):
    peers = ["lax", "torch"] if has_torch else ["lax"]
    header, *records = lines(small_run(tmp_path / "new" / "a.jsonl", peers=peers))
    assert header["kind"] == "header"
    for key in (
        "date",
        "device",
        "device_kind",
        "cpu",
        "cores",
        "jax",
        "jaxlib",
        "commit",
        "command",
    ):
        assert header[key], key
    assert header["ceilings"]["matmul_flops"]["float32"] > 0
    assert header["ceilings"]["copy_bytes"] > 0
    assert all(r["kind"] == "result" and r["status"] == "ok" for r in records)
    seen = collections.defaultdict(list)
    for r in records:
        seen[r["case"], r["mode"]].append(r["contender"])
        assert len(r["times_us"]) >= 1
        assert r["q10"] <= r["median"] <= r["q90"]
        assert r["gflops"] > 0
        assert r["gbs"] > 0
        assert r["error"] <= 1
        if r["contender"] != "torch":
            assert r["compile_s"] > 0
            assert r["temp_bytes"] is None or r["temp_bytes"] >= 0
    assert set(seen) == {(case.name, mode) for case in TWO for mode in MODES}
    for names in seen.values():
        assert {*peers, "auto"} <= set(names)
        assert len(names) == len(set(names))


def test_what_auto_chose_is_measured_once_and_labelled(tmp_path):
    _, *records = lines(small_run(tmp_path / "a.jsonl", modes=["fwd"]))
    for case in TWO:
        mine = {r["contender"]: r for r in records if r["case"] == case.name}
        assert mine["auto"]["method"] not in mine
        assert mine["auto"]["because"]
        assert "xla" not in mine  # which is lax


def test_methods_auto_measures_no_other(tmp_path):
    _, *records = lines(small_run(tmp_path / "a.jsonl", methods="auto", peers=[], modes=["dw"]))
    assert {r["contender"] for r in records} == {"auto"}


def test_a_wrong_contender_is_refused_before_it_is_timed(tmp_path, monkeypatch, capsys):
    real = contenders.with_jaxdil

    def with_a_fault(*args, **options):
        def build(original):
            made = original()
            return dataclasses.replace(made, result=lambda out: np.asarray(out) * np.float32(1.001))

        builders = real(*args, **options)
        return {name: lambda b=b: build(b) for name, b in builders.items()}

    monkeypatch.setattr(contenders, "with_jaxdil", with_a_fault)
    _, *records = lines(small_run(tmp_path / "a.jsonl", modes=["fwd"]))
    auto = [r for r in records if r["contender"] == "auto"]
    assert len(auto) == len(TWO)
    for r in auto:
        assert r["status"] == "refused"
        assert "what rounding allows" in r["reason"]
        assert "times_us" not in r
        assert "median" not in r
    assert "auto refused" in "".join(capsys.readouterr())


def test_a_contender_that_breaks_stops_no_other(tmp_path, monkeypatch):
    def broken(*args, **options):
        def build():
            msg = "out of order"
            raise RuntimeError(msg)

        return {"auto": build}

    monkeypatch.setattr(contenders, "with_jaxdil", broken)
    _, *records = lines(small_run(tmp_path / "a.jsonl", modes=["fwd"]))
    found = {(r["contender"], r["status"]) for r in records}
    assert found == {("lax", "ok"), ("auto", "failed")}
    assert next(r for r in records if r["status"] == "failed")["reason"].endswith("out of order")


def test_a_peer_that_is_not_installed_is_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(contenders.PEERS, "not_there", "benchmarks.peer_not_there")
    _, *records = lines(small_run(tmp_path / "a.jsonl", peers=["lax", "not_there"], modes=["fwd"]))
    told = [line for line in capsys.readouterr().err.splitlines() if "not_there" in line]
    assert told == ["not_there is not installed, so it takes no part: pip install 'jaxdil[peers]'"]
    assert {"lax", "auto"} <= {r["contender"] for r in records}


def test_mistakes_on_the_command_line_are_one_line(tmp_path, capsys):
    for argv, said in (
        (["run", "--peers", "lax,caffe"], "'caffe' is unknown"),
        (["run", "--cases", "nothing"], "'nothing' matches no case"),
        (["run", "--modes", "fwd,back"], "'back' is none of"),
        (["run", "--random", "0"], "at least one layer, not 0"),
        (["run", "--random", "3", "--cases", "resnet*"], "leave --cases out"),
        (["run", "--random", "3", "--device", "tpu:v5e"], "of --device cpu alone, not tpu:v5e"),
        (["run", "--seed", "3"], "say how many layers to draw"),
        (["report", str(tmp_path / "gone.jsonl")], "gone.jsonl"),
    ):
        assert command.main(argv) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_the_command_line_lists_helps_and_runs(tmp_path, capsys, monkeypatch):
    assert command.main(["run", "--list", "--cases", "grouped"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(select("grouped"))
    for argv in (
        ["--help"],
        *([name, "--help"] for name in ("run", "streaming", "report", "compare")),
    ):
        with pytest.raises(SystemExit) as stopped:
            command.main([*argv, "--help"])
        assert stopped.value.code == 0
        assert "usage: python -m benchmarks" in capsys.readouterr().out


# --- the report


def synthetic(path, times, **changes):
    """A result of one case a family: ``times`` has milliseconds by contender."""
    header = {
        "kind": "header", "schema": 1, "date": "2026-01-02T03:04:05+00:00", "device": "cpu",
        "device_kind": "cpu", "cpu": "A processor", "cores": 2, "python": "3.11.0", "jax": "0.0.1",
        "jaxlib": "0.0.1", "commit": "abc1234", "command": "python -m benchmarks run --cases some",
        "ceilings": {"matmul_flops": {"float32": 1e11}, "copy_bytes": 1e10, "call_s": 1e-5},
    }  # fmt: skip
    records = [header | changes]
    for case in CASES[:1] + CASES[-1:]:
        for mode in MODES:
            for name, milliseconds in times.items():
                if name == "lax" and case is CASES[-1]:
                    milliseconds = milliseconds / 100  # noqa: PLW2901 - so that auto loses here
                median = milliseconds / 1e3
                record = {
                    "kind": "result", "case": case.name, "family": case.family, "mode": mode,
                    "source": case.source, "geometry": case.geometry, "dtype": "float32",
                    "flops": 1e6, "bytes": 1e5, "contender": name, "status": "ok", "reason": None,
                    "method": {"auto": "taps", "phases": "phases"}.get(name), "because": None,
                    "compile_s": 0.1, "temp_bytes": 100, "median": median, "q10": median,
                    "q90": median, "times_us": [median * 1e6], "gflops": 1e-3 / median,
                    "gbs": 1e-4 / median,
                }  # fmt: skip
                records.append(record)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return results.load(path)


def section(page, title):
    return re.split(r"^#+ ", page.split(f"### {title}\n")[1], flags=re.MULTILINE)[0]


def test_the_report_shows_what_is_lost(tmp_path):
    result = synthetic(tmp_path / "r.jsonl", {"lax": 10, "auto": 1, "phases": 0.5, "torch": 0.8})
    page, *figures = report.write([result], docs=tmp_path / "docs")
    text = page.read_text()
    winning, losing = CASES[0].name, CASES[-1].name
    lost = section(text, "Where it loses").split("Slower than PyTorch")
    assert "in 3 of 6" in lost[0]
    assert losing in lost[0]
    assert winning not in lost[0]
    assert winning in lost[1]  # torch takes 0.8 ms everywhere
    row = next(
        line for line in section(text, "Every case").splitlines() if line.startswith(f"| {losing} ")
    )
    assert "**0.10**" in row
    assert "slower than lax; slower than PyTorch; `phases` takes 0.5" in row
    assert "**0.80**" in row
    # geometric mean of 10 and 0.1
    assert "| all | fwd | 2 | 1.00 (**0.10**)" in section(text, "Summary")
    for fact in ("A processor", "abc1234", "jax 0.0.1", "2026-01-02", "--cases some"):
        assert fact in text
    assert all(path.stat().st_size > 1000 for path in figures)
    drawn = {f"figures/{path.name}" for path in figures}
    assert drawn == set(re.findall(r"!\[.*?\]\((.*?)\)", text))


@pytest.mark.parametrize(
    "names", [["auto"], ["lax", "auto"], ["auto", "torch"], ["lax"], ["torch"]]
)
def test_the_report_needs_no_particular_contender(tmp_path, names):
    result = synthetic(tmp_path / "r.jsonl", dict.fromkeys(names, 1.0))
    page, *_ = report.write([result], docs=tmp_path / "docs")
    for absent in {"lax", "torch"} - {name for name in names if "auto" in names}:
        title = {"lax": "lax", "torch": "PyTorch"}[absent]
        assert f"{title} was not measured." in page.read_text()


def test_the_report_is_made_of_what_run_writes(tmp_path):
    path = small_run(tmp_path / "a.jsonl")
    assert command.main(["report", str(path), "--docs", str(tmp_path / "docs")]) == 0
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert all(case.name in text for case in TWO)


def test_a_processor_stands_beside_another(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    one = synthetic(tmp_path / "a.jsonl", {"lax": 10, "auto": 1})
    synthetic(tmp_path / "b.jsonl", {"lax": 10, "auto": 2}, cpu="Another", date="2026-02-01")
    newer = synthetic(tmp_path / "c.jsonl", {"lax": 10, "auto": 4}, date="2026-03-01")
    assert [path.name for path in results.newest()] == ["b.jsonl", "c.jsonl"]
    other = results.load(tmp_path / "b.jsonl")
    page, *_ = report.write([one, other, newer], docs=tmp_path / "docs")
    found = re.findall(r"^## CPU: (.*)$", page.read_text(), flags=re.MULTILINE)
    assert found == ["A processor, 2026-03-01", "Another, 2026-02-01"]


def test_random_layers_have_a_section_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(random_cases, "MOST_SAMPLES", 4096)
    path, docs = tmp_path / "r.jsonl", tmp_path / "docs"
    argv = ["--peers", "lax", "--methods", "auto", "--seconds", "0", "--modes", "fwd"]
    assert command.main(["run", "--random", "2", "--seed", "8", *argv, "--out", str(path)]) == 0
    loaded = results.load(path)
    assert loaded.kind == "random"
    assert {r["case"] for r in loaded.records} == {"random-8-0", "random-8-1"}
    layers = synthetic(tmp_path / "l.jsonl", {"lax": 10, "auto": 1})
    # One that is lost is named by its geometry.
    record = next(r for r in loaded.records if r["contender"] == "auto")
    record["median"], record["method"] = 1e3, "taps"
    page, *figures = report.write([layers, loaded], docs=docs)
    _, _, text = page.read_text().partition("## Random layers, ")
    assert f"| {record['geometry']} | fwd |".replace("*", "\\*") in text
    assert "--random 2 --seed 8" in text
    assert sum(path.stem.endswith("r") for path in figures) == 1


def on_a_gpu(path, date, commit, times, methods):
    """A result of MobileNetV2's strided layer on a GPU: microseconds and methods by contender."""
    header = {
        "kind": "header", "date": date, "device": "cuda", "device_kind": "A card", "cpu": "cpu",
        "cores": 8, "python": "3.12", "jax": "0.0.1", "jaxlib": "0.0.1", "commit": commit,
        "command": "python -m benchmarks run --device cuda", "clock": "profiler", "least_batch": 2,
        "ceilings": {"matmul_flops": {"float32": 1e14}, "copy_bytes": 1e12, "call_s": 0.0},
    }  # fmt: skip
    case = next(case for case in CASES if case.name == "mobilenetv2-112-s2")
    records = [header]
    for name, us in times.items():
        record = case.labels | {
            "kind": "result", "mode": "fwd", "contender": name, "status": "ok", "reason": None,
            "method": methods.get(name), "because": None, "flops": 1e9, "bytes": 1e6,
            "compile_s": 9.0, "temp_bytes": 0, "median": us / 1e6, "q10": us / 1e6,
            "q90": us / 1e6, "times_us": [us], "gflops": 1.0, "gbs": 1.0,
        }  # fmt: skip
        records.append(record)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return results.load(path)


def test_results_of_a_gpu_are_one_with_the_newest_times_of_what_the_rules_take_now(tmp_path):
    old = on_a_gpu(
        *(tmp_path / "old.jsonl", "2026-01-01", "aaa"),
        {"lax": 50, "auto": 50, "pallas_gpu": 20, "torch": 40, "torch-contiguous": 30},
        {"auto": "xla", "pallas_gpu": "pallas_gpu"},
    )
    row = {r["contender"]: r for r in report.report_gpu.merged([old]).records}
    # The rule of today is the kernel, whatever it was then; PyTorch's better format counts.
    assert (row["auto"]["median"], row["auto"]["method"]) == (20e-6, "pallas_gpu")
    assert row["torch"]["median"] == 30e-6
    assert "torch-contiguous" not in row
    new = on_a_gpu(
        *(tmp_path / "new.jsonl", "2026-01-02", "bbb"),
        {"lax": 51, "auto": 21, "torch": 41},
        {"auto": "pallas_gpu"},
    )
    for order in ([old, new], [new, old]):
        merged = report.report_gpu.merged(order)
        assert merged.header["commit"] == "bbb"
        assert {r["contender"]: r["median"] for r in merged.records} == {
            "lax": 51e-6, "auto": 21e-6, "torch": 41e-6,
        }  # fmt: skip
    untimed = on_a_gpu(
        tmp_path / "c.jsonl", "2026-01-03", "ccc", {"lax": 50, "auto": 60}, {"auto": "taps"}
    )
    page, *_ = report.write([untimed], docs=tmp_path)
    text = page.read_text()
    assert "not measured: the rules now take pallas_gpu" in text
    assert "profiler's clock" in text
    assert "Compile time" not in text


def test_a_file_that_is_no_result_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="no header record"):
        results.load(path)
    path.write_text('{"kind": "header"}\n{"kind":\n')
    with pytest.raises(ValueError, match="line 2: not JSON"):
        results.load(path)


# --- streams


STREAM = streaming.Case(
    4, dilations=(1, 2, 4), samples=12, queued=10, recomputed=9, filtered=16, chunks=(2, 8)
)


def stream(path, **options):
    return streaming.measure([STREAM], device="cpu", seconds=0.01, out=path, **options)


def test_the_ways_of_a_stream_are_right_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    result = results.load(stream(tmp_path / "s.jsonl", arguments=["--channels", "4"]))
    assert result.benchmark == "streaming"
    assert "benchmarks streaming --channels 4" in result.header["command"]
    ways = ["step", "queue", "recompute", "whole", "chunks of 2", "chunks of 8"]
    assert [r["contender"] for r in result.records] == ways
    for r in result.records:
        assert r["status"] == "ok"
        assert r["samples_per_s"] == r["samples"] / r["median"]
        assert len(r["times_us"]) >= 3
    synthetic(tmp_path / "r.jsonl", {"lax": 10, "auto": 1})
    assert [path.name for path in results.newest()] == ["r.jsonl", "s.jsonl"]
    page, *_ = report.write([result], docs=tmp_path / "docs")
    text = page.read_text()
    assert all(f"| {way} |" in text for way in ways)
    with pytest.raises(ValueError, match="not a result of `run`, but of `streaming`"):
        results.rows(result)


def test_a_wrong_way_of_a_stream_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_queue", lambda *args: 1.01 * streaming._step(*args))
    result = results.load(stream(tmp_path / "s.jsonl"))
    by = {r["contender"]: r for r in result.records}
    assert by["queue"]["status"] == "refused"
    assert "median" not in by["queue"]
    assert by["step"]["status"] == "ok"
    page, *_ = report.write([result], docs=tmp_path / "docs")
    assert "| queue | refused | differs by 0.01" in page.read_text()


# --- the comparison


def test_compare_shows_ratios_worst_first_and_the_mean(tmp_path, capsys):
    synthetic(tmp_path / "a.jsonl", {"auto": 1.0})
    synthetic(tmp_path / "b.jsonl", {"auto": 2.0}, cpu="Another processor")
    assert command.main(["compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "all: geometric mean 2.000 over 6, worst 2.00, best 2.00" in out
    assert "The machines differ" in out
    assert out.count(" taps") == 6


def test_compare_needs_something_in_common(tmp_path):
    a = synthetic(tmp_path / "a.jsonl", {"auto": 1.0})
    b = synthetic(tmp_path / "b.jsonl", {"lax": 1.0})
    with pytest.raises(ValueError, match="in common"):
        compare.text(a, b)


def test_every_mode_has_a_function():
    assert set(contenders.ARGUMENTS) == set(cases_of.MODES)


# --- a GPU's own clock


def profiled(*kernels):
    """A profile of a GPU whose streams ran kernels: (stream, name, start ns, length ns)."""
    streams = collections.defaultdict(list)
    for stream, *kernel in kernels:
        streams[stream].append(kernel)
    names = sorted({kernel[1] for kernel in kernels})
    lines = "".join(
        f'lines {{ id: {i} name: "Stream #{stream}(Compute)" timestamp_ns: 0 '
        + "".join(
            f"events {{ metadata_id: {names.index(name) + 1} "
            f"offset_ps: {start * 1000} duration_ps: {length * 1000} }} "
            for name, start, length in events
        )
        + "} "
        for i, (stream, events) in enumerate(streams.items())
    )
    table = "".join(
        f'event_metadata {{ key: {i} value {{ id: {i} name: "{name}" }} }} '
        for i, name in enumerate(names, start=1)
    )
    text = (
        f'planes {{ id: 1 name: "/device:GPU:0" {lines} {table} }} planes {{ name: "/host:CPU" }}'
    )
    Data = jax.profiler.ProfileData
    return Data.from_serialized_xspace(Data.text_proto_to_serialized_xspace(text))


def test_a_gpu_is_busy_from_mark_to_mark_and_kernels_side_by_side_count_once():
    profile = profiled(
        (1, "before_all", 0, 5),
        (1, "wrapped_tan", 10, 100),
        (1, "conv", 120, 30),
        (2, "transpose", 140, 20),  # half of it beside the last one
        (1, "loop_tan_fusion", 300, 100),
        (2, "standard_gemm", 500, 7),  # no tangent
        (1, "sum", 600, 3),
    )
    assert gpu.busy(profile, calls=2) == pytest.approx([40e-9, 10e-9])


@pytest.mark.parametrize("last", [[], [(1, "wrapped_tan", 200, 9)]])
def test_a_profile_without_all_calls_is_an_error(last):
    profile = profiled((1, "wrapped_tan", 10, 100), (1, "conv", 120, 30), *last)
    with pytest.raises(RuntimeError, match=r"1 of 2 calls.*'conv', 'wrapped_tan'"):
        gpu.busy(profile, calls=2)


class CountingClock:
    """In the place of the profiler: how often each contender was called."""

    def __init__(self, on):
        pass

    def measure(self, them):
        for contender in them:
            contender.call()
        return [[1e-5] * gpu.CALLS for _ in them]


def test_a_run_on_a_gpu_compiles_a_part_checks_it_and_times_it(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "Clock", CountingClock)
    monkeypatch.setattr(gpu, "PART", 2)
    monkeypatch.setattr(gpu, "with_batch", lambda case, batch: case)
    monkeypatch.setattr(gpu, "ceilings", lambda *_: {})
    path = gpu.run(
        [by_name("mobilenetv2-14"), by_name("tcn-d8")],
        device="cpu",
        peers=["lax"],
        modes=MODES,
        methods="taps,correlate",
        batch=2,
        out=tmp_path / "result.jsonl",
    )
    result = results.load(path)
    assert (result.header["clock"], result.header["least_batch"]) == ("profiler", 2)
    found = results.rows(result)
    assert [(row.case, row.mode) for row in found] == [
        (case, mode) for case in ("mobilenetv2-14", "tcn-d8") for mode in MODES
    ]
    assert {"lax", "auto", "taps"} <= found[3].contenders.keys()
    for row in found:
        for record in row.contenders.values():
            assert record["status"] == "ok", record
            assert record["error"] <= 1
            assert record["times_us"] == [10.0] * gpu.CALLS


def test_what_is_wrong_is_refused_on_a_gpu_too(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "Clock", CountingClock)
    monkeypatch.setattr(gpu, "ceilings", lambda *_: {})
    from jaxdil._methods import taps

    right = taps.apply
    monkeypatch.setattr(taps, "apply", lambda *args: right(*args) * 1.5)
    path = gpu.run(
        [by_name("mobilenetv2-14")],
        device="cpu",
        peers=["lax"],
        modes=["fwd"],
        methods="taps,planes",
        batch=1,
        out=tmp_path / "result.jsonl",
    )
    (row,) = results.rows(results.load(path))
    assert row.contenders["lax"]["status"] == "ok"
    wrong = [r for r in row.contenders.values() if r["method"] == "taps"]
    assert [r["status"] for r in wrong] == ["refused"]
    assert "differs from lax" in wrong[0]["reason"]


def test_a_larger_batch_stops_at_the_size_of_the_arrays():
    case = next(case for case in CASES if case.name == "mobilenetv2-112")
    assert cases_of.with_batch(case, 32).x == (32, *case.x[1:])
    assert cases_of.with_batch(case, 32, most=9 * math.prod(case.x)).x == (8, *case.x[1:])
    assert cases_of.with_batch(case, 32, most=1).x == case.x
    eight = next(case for case in CASES if case.name == "mobilenetv2-14")
    assert cases_of.with_batch(eight, 4) == eight


def test_methods_are_named_or_the_command_says_which_there_are(capsys):
    assert command.main(["run", "--methods", "taps,tabs"]) == 2
    assert "--methods: 'tabs' is none of all, auto, xla, taps" in capsys.readouterr().err
