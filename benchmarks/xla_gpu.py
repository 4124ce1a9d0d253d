"""What XLA makes of convolutions for a GPU, on a machine without one: lax beside jaxdil.

    pip install triton 'jax[cuda12]'      # triton for its ptxas; of jax, the plugin is enough
    python -m benchmarks.xla_gpu          # or: --cases depthwise, --dtype float32

XLA compiles for an H100 that is described to it, without tuning, for which it would need one. For
each convolution that a rule for CUDA takes away from lax: the kernels and library calls that the
program launches, the bytes that these read and write, each operand and result once, and what the
convolution itself became. Nothing runs, and a call of cuDNN says nothing of how good it is.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxdil
from benchmarks.case import MODES, Case, as_dtype, function, shapes
from benchmarks.cases import CASES
from benchmarks.contenders import ARGUMENTS

__all__ = ["Program", "device", "launches", "main", "program"]

# What XLA asks of a device; the numbers of an H100 SXM.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%(\S+) = (.*?) ([\w-]+)\((.*?)\)(?:, |$)")
_SHAPE = re.compile(r"\b([a-z]+)(\d+)\w*\[([\d,]*)\]")
# What neither launches a kernel nor moves a byte.
_FREE = ("parameter", "get-tuple-element", "bitcast", "tuple", "constant")


class Program(NamedTuple):
    """What a compiled program launches."""

    launches: int
    bytes: int
    calls: tuple[str, ...]


def device() -> Any:
    """A device that can be compiled for, and nothing else."""
    from jax.experimental import topologies

    # The plugin would look for the libraries of CUDA, which compiling does without.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    flags = f"--xla_gpu_autotune_level=0 --xla_gpu_cuda_data_dir={_tools()}"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}"
    found = topologies.get_topology_desc(
        "h100", platform="cuda", target_config=_H100, topology="1x1x1"
    )
    return found.devices[0]


def _tools() -> Path:
    """The folder where XLA finds ptxas and libdevice, as CUDA would lay them out."""
    import triton

    found = Path(triton.__file__).parent / "backends" / "nvidia"
    folder = Path(tempfile.mkdtemp())
    (folder / "bin").symlink_to(found / "bin")
    (folder / "nvvm").mkdir()
    (folder / "nvvm" / "libdevice").symlink_to(found / "lib")
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return folder


def program(fn: Callable[..., Any], arrays: Sequence[Any], on: Any) -> str:
    """The text of a function's compiled program."""
    at = jax.sharding.SingleDeviceSharding(on)
    arguments = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at) for a in arrays]
    lowered = jax.jit(fn).trace(*arguments).lower(lowering_platforms=("cuda",))
    return lowered.compile().as_text()


def launches(text: str) -> Program:
    """Add up what the entry of a program launches; the body of a loop is not looked into."""
    lines = text[text.index("\nENTRY ") :].splitlines()
    found = [match for match in map(_INSTRUCTION.match, lines) if match]
    sizes = {name: _bytes(shape) for name, shape, _, _ in (m.groups() for m in found)}
    count, moved, calls = 0, 0, []
    for match in found:
        name, _, operation, operands = match.groups()
        if operation in _FREE:
            continue
        count += 1
        moved += sizes[name] + sum(sizes[o] for o in re.findall(r"%([\w.-]+)", operands))
        if operation in ("custom-call", "convolution"):
            calls.append(_described(match.string, name))
    return Program(count, moved, tuple(calls))


def _bytes(shape: str) -> int:
    """Bytes of an array, or of those of a tuple."""
    each = _SHAPE.findall(shape)
    return sum(
        math.prod(map(int, filter(None, dims.split(",")))) * int(b) // 8 for _, b, dims in each
    )


def _described(line: str, name: str) -> str:
    (target,) = re.findall(r'custom_call_target="([^"]*)"', line) or [name]
    (window,) = re.findall(r"window={([^}]*)}", line) or [""]
    kept = [part for part in window.split() if not part.startswith("pad")]
    return " ".join([target.removeprefix("__cudnn$"), *kept])


def main() -> None:
    """Print a table of the cases that a rule takes away from lax."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="those whose name or family contains this")
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    on = device()
    print("| case | | rule | method | lax: launches, MB, convolution | jaxdil: launches, MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if options.cases in f"{case.name} {case.family}":
            for line in filter(None, (_row(case, mode, options.dtype, on) for mode in MODES)):
                print(line, flush=True)


def _row(case: Case, mode: str, dtype: str, on: Any) -> str | None:
    case = as_dtype(case, dtype)
    fn, arrays = function(case, mode), [shapes(case)[name] for name in ARGUMENTS[mode]]
    ours = jaxdil.accelerate(fn)
    (row,) = jaxdil.explain(ours, platform="cuda", gradients=False)(*arrays)
    if row.method == "xla":
        return None
    try:
        lax = launches(program(fn, arrays, on))
        theirs = f"{lax.launches}, {lax.bytes / 1e6:.1f}, `{'; '.join(lax.calls)}`"
    except jax.errors.JaxRuntimeError as error:
        theirs = str(error).splitlines()[0]
    own = launches(program(ours, arrays, on))
    rule = row.because.partition(":")[0].removeprefix("rule ")
    return (
        f"| {case.name} | {mode} | {rule} | `{row.method}` | {theirs} "
        f"| {own.launches}, {own.bytes / 1e6:.1f} |"
    )


if __name__ == "__main__":
    main()
