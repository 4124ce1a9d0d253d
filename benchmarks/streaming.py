"""Samples a second of WaveNet: from a carried state, and recomputing the receptive field for each.

Two stacks of ten layers, dilations 1 to 512, as published; one stream. "Generate" makes each sample
from the one before: by steps of `jaxdil.streaming`, by steps over a plain queue of the past (what
is written by hand), and from the whole receptive field. "Filter" knows its input: by chunks of
several lengths, and as a whole. All are compared before they are timed.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import machine, run, timing
from benchmarks.contenders import Contender, ready
from jaxdil import streaming

__all__ = ["DILATIONS", "Case", "contenders_of", "measure"]

DILATIONS = 2 * tuple(2**i for i in range(10))
# Two orders of the same sums, through twenty layers of single precision.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """A WaveNet and how many samples of it are made in a call."""

    channels: int
    dilations: tuple[int, ...] = DILATIONS
    samples: int = 2048
    """By steps."""
    queued: int = 256
    """Over a queue."""
    recomputed: int = 4
    """From the whole receptive field."""
    filtered: int = 8192
    """By chunks and as a whole."""
    chunks: tuple[int, ...] = (16, 256, 2048)

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"WaveNet, {len(self.dilations)} layers of {self.channels} channels"

    @property
    def field(self) -> int:
        """Samples that one sample is made from."""
        return sum(self.dilations) + 1


def _parameters(case: Case) -> dict[str, Any]:
    rng, c = np.random.default_rng(0), case.channels

    def layer(*shape: int) -> dict[str, Any]:
        scale = np.sqrt(np.prod(shape[:-1]))
        w = rng.normal(size=shape) / scale
        return {"w": jnp.asarray(w, jnp.float32), "b": jnp.zeros(shape[-1], jnp.float32)}

    layers = [
        {"gated": layer(2, c, 2 * c), "residual": layer(1, c, c), "skip": layer(1, c, c)}
        for _ in case.dilations
    ]
    return {"in": layer(1, 1, c), "layers": layers, "out": layer(1, c, 1)}


def _wavenet(case: Case) -> Callable[..., jax.Array]:
    def net(conv: Any, params: Any, x: jax.Array) -> jax.Array:
        h = x @ params["in"]["w"][0]
        _, skip = streaming.wavenet_stack(conv, params["layers"], h, dilations=case.dilations)
        return jnp.tanh(jnp.maximum(skip, 0) @ params["out"]["w"][0])

    return net


# --- the ways -------------------------------------------------------------------------------------


def _step(case: Case, params: Any, first: jax.Array) -> jax.Array:
    net = streaming.network(_wavenet(case))

    def one(carry: Any, _: None) -> tuple[Any, jax.Array]:
        states, x = carry
        y, states = net.step(states, params, x)
        return (states, y), y

    states = net.init(params, first[:, None])
    return lax.scan(one, (states, first), None, length=case.samples)[1][:, 0, 0]


def _queue(case: Case, params: Any, first: jax.Array) -> jax.Array:
    """Each layer keeps its last d frames in the order of time and shifts them by one."""

    def one(carry: Any, _: None) -> tuple[Any, jax.Array]:
        pasts, x = carry
        after = []

        def conv(x: jax.Array, w: jax.Array, *, dilation: int) -> jax.Array:
            z = jnp.concatenate([pasts[len(after)], x], axis=1)
            after.append(z[:, 1:])
            return z[:, :1] @ w[0] + z[:, dilation:] @ w[1]

        y = _wavenet(case)(conv, params, x[:, None])[:, 0]
        return (after, y), y

    pasts = [jnp.zeros((1, d, case.channels), jnp.float32) for d in case.dilations]
    return lax.scan(one, (pasts, first), None, length=case.queued)[1][:, 0, 0]


def _recompute(case: Case, params: Any, first: jax.Array) -> jax.Array:
    net = streaming.network(_wavenet(case))

    def one(window: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        y = net.whole(params, window)[:, -1:]
        return jnp.concatenate([window[:, 1:], y], axis=1), y

    # Biases are zero, so that silence before the first sample is what an empty state means.
    window = jnp.zeros((1, case.field, 1), jnp.float32).at[:, -1].set(first)
    return lax.scan(one, window, None, length=case.recomputed)[1][:, 0, 0, 0]


def _chunks(case: Case, length: int, params: Any, x: jax.Array) -> jax.Array:
    net = streaming.network(_wavenet(case))

    def one(states: Any, piece: jax.Array) -> tuple[Any, jax.Array]:
        y, states = net.chunk(states, params, piece)
        return states, y

    pieces = x.reshape(-1, 1, length, 1)
    return lax.scan(one, net.init(params, x), pieces)[1].reshape(-1)


def _whole(case: Case, params: Any, x: jax.Array) -> jax.Array:
    return streaming.network(_wavenet(case)).whole(params, x)[0, :, 0]


def contenders_of(case: Case, device: Any) -> list[tuple[str, int, Contender]]:
    """(mode, samples a call, contender): the first of each mode is what the others must equal."""
    params = jax.device_put(_parameters(case), device)
    first = jax.device_put(np.full((1, 1), 0.5, np.float32), device)
    rng = np.random.default_rng(1)
    x = jax.device_put(rng.normal(size=(1, case.filtered, 1)).astype(np.float32), device)
    ways: list[tuple[str, str, int, Callable[..., jax.Array], jax.Array]] = [
        ("generate", "step", case.samples, _step, first),
        ("generate", "queue", case.queued, _queue, first),
        ("generate", "recompute", case.recomputed, _recompute, first),
        ("filter", "whole", case.filtered, _whole, x),
    ]
    for length in case.chunks:

        def chunks(case: Case, params: Any, x: jax.Array, length: int = length) -> jax.Array:
            return _chunks(case, length, params, x)

        ways.append(("filter", f"chunks of {length}", case.filtered, chunks, x))
    return [
        (mode, samples, _compiled(name, fn, case, params, given))
        for mode, name, samples, fn, given in ways
    ]


def _compiled(name: str, fn: Any, case: Case, params: Any, given: jax.Array) -> Contender:
    started = time.perf_counter()
    compiled = jax.jit(fn, static_argnums=0).lower(case, params, given).compile()
    analysis = compiled.memory_analysis()
    return Contender(
        name=name,
        call=lambda: compiled(params, given).block_until_ready(),
        result=np.asarray,
        compile_s=time.perf_counter() - started,
        temp_bytes=getattr(analysis, "temp_size_in_bytes", None),
    )


# --- the measurement ------------------------------------------------------------------------------


def measure(
    cases: Sequence[Case],
    *,
    device: str,
    seconds: float,
    out: pathlib.Path | None = None,
    arguments: Sequence[str] = (),
) -> pathlib.Path:
    """Measure the cases and write the result; returns its path.

    Args:
      cases: what to measure.
      device: "cpu", "cuda", "rocm" or "tpu".
      seconds: of timing, for each case.
      out: the file, else one named after date, device and commit in benchmarks/results/.
      arguments: the command line, for the record.

    Raises:
      ValueError: if there is no such device.
    """
    on = machine.find_device(device)
    header = machine.header(device, on, peers={}, arguments=arguments, command="streaming")
    run.say_if_busy(header)
    path = out or run.free_path(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file, run.progress(len(cases), unit="network") as (say, step):
        run.write(file, header)
        for case in cases:
            for record in _records(case, on, seconds):
                run.write(file, record)
                say(_heard(record))
            step()
    return path


def _records(case: Case, on: Any, seconds: float) -> list[dict[str, Any]]:
    expected: dict[str, np.ndarray] = {}
    records, able = [], []
    for mode, samples, contender in contenders_of(case, on):
        result, estimate = ready(contender)
        want = expected.setdefault(mode, result)
        both = min(len(result), len(want))
        error = float(np.max(np.abs(result[:both] - want[:both])) / np.max(np.abs(want)))
        record = {
            "kind": "result", "network": case.name, "channels": case.channels,
            "field": case.field, "mode": mode, "contender": contender.name, "samples": samples,
            "error": error, "compile_s": contender.compile_s, "temp_bytes": contender.temp_bytes,
            "status": "ok",
        }  # fmt: skip
        records.append(record)
        if error <= TOLERANCE:
            able.append((contender, estimate))
        else:
            reason = f"differs by {error:.2g} of the largest sample"
            record |= {"status": "refused", "reason": reason}
    times = timing.round_robin(able, seconds=seconds)
    for record in records:
        if record["status"] == "ok":
            taken = times[record["contender"]]
            record.update(timing.quantiles(taken))
            record["samples_per_s"] = record["samples"] / record["median"]
            record["times_us"] = [round(t * 1e6, 1) for t in taken]
    return records


def _heard(record: dict[str, Any]) -> str:
    """A record in a few words."""
    who = f"{record['network']:<40} {record['mode']:<9} {record['contender']:<16}"
    if record["status"] != "ok":
        return f"{who} {record['status']}: {record['reason']}"
    return f"{who} {record['samples_per_s']:>12,.0f} samples/s"
