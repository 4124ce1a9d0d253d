"""What Triton makes of the kernels for a GPU, on a machine without one.

    pip install triton
    python -m benchmarks.ptx              # or: --arch 80, --keep FOLDER

For each case and gradient the kernel is lowered as for CUDA, compiled to PTX by Triton and to
machine code by the ptxas that comes with it. Printed are the registers of a thread, what spilled
(bytes), bytes of shared memory, barriers, and how many bytes the loads and stores of a thread move.
Nothing runs: this says that the kernels compile, and whether memory is read in wide pieces.
"""

from __future__ import annotations

import argparse
import collections
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxdil

__all__ = ["CASES", "kernels", "lowered", "main"]


class Case(NamedTuple):
    """A depthwise convolution."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: int
    batch: int = 8
    options: Mapping[str, Any] = MappingProxyType({})


CASES = {
    "short causal": Case((4096,), (4,), 2048, 8, {"padding": "CAUSAL"}),
    "mobilenet": Case((56, 56), (3, 3), 144, 32),
    "mobilenet, stride": Case((112, 112), (3, 3), 96, 32, {"stride": 2}),
    "deeplab": Case((65, 65), (3, 3), 256, 8, {"dilation": 12}),
    "convnext": Case((56, 56), (7, 7), 96, 32),
    "replknet": Case((56, 56), (31, 31), 128, 8),
    "volume": Case((16, 28, 28), (3, 3, 3), 128, 8),
    "upsampling": Case((56, 56), (4, 4), 64, 8, {"input_dilation": 2, "padding": "FULL"}),
    "three channels": Case((256, 256), (5, 5), 3, 8),
}


def lowered(case: Case, dtype: Any) -> dict[str, Any]:
    """Forward and both gradients of a case, lowered for CUDA."""
    x = jax.ShapeDtypeStruct((case.batch, *case.size, case.channels), dtype)
    w = jax.ShapeDtypeStruct((*case.kernel, 1, case.channels), dtype)
    options = {"padding": "SAME", **case.options, "groups": case.channels, "method": "pallas_gpu"}

    def conv(x: jax.Array, w: jax.Array) -> jax.Array:
        return jaxdil.conv(x, w, **options)

    y = jax.eval_shape(conv, x, w)
    functions = {
        "fwd": (conv, (x, w)),
        "dx": (lambda w, c: jax.linear_transpose(lambda x: conv(x, w), x)(c)[0], (w, y)),
        "dw": (lambda x, c: jax.linear_transpose(lambda w: conv(x, w), w)(c)[0], (x, y)),
    }
    return {
        mode: jax.jit(fn).trace(*args).lower(lowering_platforms=("cuda",)).compiler_ir()
        for mode, (fn, args) in functions.items()
    }


def kernels(module: Any) -> Iterator[tuple[str, str, int]]:
    """Name, text and warps of each Triton kernel in a lowered program."""
    from jaxlib.mlir import ir
    from jaxlib.triton import dialect

    def calls(operation: Any) -> Iterator[Any]:
        for region in operation.regions:
            for block in region.blocks:
                for op in block.operations:
                    target = op.operation.attributes
                    if "call_target_name" in target and "triton" in str(target["call_target_name"]):
                        yield {a.name: a.attr for a in target["mhlo.backend_config"]}
                    yield from calls(op.operation)

    for config in calls(module.operation):
        context = ir.Context()
        dialect.register_dialect(context)
        context.load_all_available_dialects()
        text = str(ir.Module.parse(ir.StringAttr(config["ir"]).value_bytes, context))
        yield config["name"].value, text, config["num_warps"].value


def _report(text: str, warps: int, arch: int, folder: Path, name: str) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import get_ptxas

    path = folder / f"{name}.ttir"
    path.write_text(text)
    compiled = triton.compile(
        str(path), target=GPUTarget("cuda", arch, 32), options={"num_warps": warps}
    )
    ptx = compiled.asm["ptx"]
    path.with_suffix(".ptx").write_text(ptx)
    ptxas = get_ptxas(arch).path
    said = subprocess.run(
        [
            *(ptxas, "-v", f"--gpu-name=sm_{arch}{'a' * (arch >= 90)}"),
            *(path.with_suffix(".ptx"), "-o", path.with_suffix(".cubin")),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    (registers,) = re.findall(r"Used (\d+) registers", said)
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    moved = [_moved("ld", ptx), _moved("st", ptx)]
    return (
        f"{registers:>9} {spilled:>7} {compiled.metadata.shared:>6} {ptx.count('bar.sync'):>8}"
        f"  loads {moved[0]}; stores {moved[1]}"
    )


def _moved(what: str, ptx: str) -> str:
    found = re.findall(rf"\b{what}\.global\S*?(?:\.v(\d))?\.[bfu](\d+)", ptx)
    counts = collections.Counter(int(n or 1) * int(bits) // 8 for n, bits in found)
    return ", ".join(f"{n} of {size} B" for size, n in sorted(counts.items())) or "none"


def main() -> None:
    """Print a line for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, default=90, help="80, 90, ...: compute capability")
    parser.add_argument("--keep", type=Path, help="where to leave IR, PTX and machine code")
    parser.add_argument("--cases", default="", help="those whose name contains this")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{'':46} registers spilled shared barriers")
    for case in (name for name in CASES if options.cases in name):
        for dtype in (jnp.bfloat16, jnp.float32):
            for mode, module in lowered(CASES[case], dtype).items():
                for _, text, warps in kernels(module):
                    label = f"{case} {mode} {jnp.dtype(dtype).name}"
                    name = re.sub(r"\W+", "-", label)
                    print(f"{label:46}", _report(text, warps, options.arch, folder, name))


if __name__ == "__main__":
    main()
