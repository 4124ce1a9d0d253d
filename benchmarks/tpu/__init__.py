"""What the compiler for a TPU makes of programs, without a TPU: whether they compile, and at what.

Nothing runs, so nothing is timed and no result is checked.
"""

from benchmarks.tpu.chips import CHIPS, Chip, chip_of, device_of, lowered
from benchmarks.tpu.compiler import Cache, Compiler
from benchmarks.tpu.layers import run
from benchmarks.tpu.models import run_models
from benchmarks.tpu.program import Estimate, estimate

__all__ = [
    "CHIPS",
    "Cache",
    "Chip",
    "Compiler",
    "Estimate",
    "chip_of",
    "device_of",
    "estimate",
    "lowered",
    "run",
    "run_models",
]
