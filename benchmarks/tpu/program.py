"""What a compiled program says of itself: the compiler's own estimate, added up.

``cycles`` are the estimates of all instructions, what is inside a loop as often as the loop goes
round. Instructions without an estimate are named in ``unpriced`` with the bytes that they move.

``kernel_cycles``, a part of ``cycles``, are kernels of somebody's own, such as Pallas makes. They
have no estimate: the instruction words that one runs through are counted (see ``bundles``), the
bytes that it says it moves are divided by the bandwidth of the memory, and the larger of the two is
taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.tpu.bundles import Bundles
from benchmarks.tpu.chips import CHIPS, Chip

__all__ = ["Estimate", "estimate"]

# Instructions that do nothing at run time, or only name what another computes.
_FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
        *("copy-done", "slice-done", "async-done", "opt-barrier", "partition-id"),
        *("add-dependency", "while", "conditional", "call"),
    )
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "f64": 8}

_NAME = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"^ ?([a-z][\w\-]*)\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_BODY = re.compile(r'"custom_call_config":\{"body":"([^"]*)"')
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")


class Estimate(NamedTuple):
    """What a compiled program says of itself."""

    cycles: int
    loops: int
    """Loops, each counted as often as it goes round."""
    unknown_loops: int
    """Loops of which the program does not say how often; their bodies count once."""
    unpriced: dict[str, int]
    """Operation or custom call without an estimate -> bytes of its results."""
    branches: int = 0
    """Conditionals, of which the cheapest branch counts: the others are for samples that are not
    finite."""
    kernel_cycles: int = 0
    """The part of ``cycles`` that is kernels of somebody's own."""

    @property
    def kernels(self) -> list[str]:
        """Kernels of somebody's own of which nothing is known."""
        return [name for name in self.unpriced if "tpu_custom_call" in name]

    def plus(self, other: Estimate, times: int = 1) -> Estimate:
        """This and another, which happens some times."""
        unpriced = dict(self.unpriced)
        for what, size in other.unpriced.items():
            unpriced[what] = unpriced.get(what, 0) + times * size
        return Estimate(
            self.cycles + times * other.cycles,
            self.loops + other.loops,
            self.unknown_loops + other.unknown_loops,
            unpriced,
            self.branches + other.branches,
            self.kernel_cycles + times * other.kernel_cycles,
        )


class _Instruction(NamedTuple):
    name: str
    opcode: str
    shape: str
    rest: str


def estimate(
    text: str, chip: str = "v5e", listings: Mapping[str, Bundles] | None = None
) -> Estimate:
    """Add up what a compiled program says of its instructions, and the listings of its kernels."""
    entry, computations = _computations(text)
    return _sum(entry, computations, CHIPS[chip], _of_twins(computations, listings or {}))


def _of_twins(
    computations: dict[str, list[_Instruction]], listings: Mapping[str, Bundles]
) -> dict[str, Bundles]:
    """The listings, and those of kernels that are the same as a listed one: it is compiled once."""
    kernels = {
        i.name: found[1]
        for instructions in computations.values()
        for i in instructions
        if "tpu_custom_call" in i.rest and (found := _BODY.search(i.rest))
    }
    by_body = {kernels[name]: listing for name, listing in listings.items() if name in kernels}
    twins = {name: by_body[body] for name, body in kernels.items() if body in by_body}
    return {**twins, **listings}


def _sum(
    name: str,
    computations: dict[str, list[_Instruction]],
    chip: Chip,
    listings: Mapping[str, Bundles],
) -> Estimate:
    """What a computation costs, and what it calls."""
    total = Estimate(0, 0, 0, {})
    for instruction in computations.get(name, ()):
        found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
        if found:
            total = total.plus(Estimate(int(found[1]), 0, 0, {}))
        elif instruction.name in listings and "tpu_custom_call" in instruction.rest:
            cycles = _kernel(instruction, listings[instruction.name], chip)
            total = total.plus(Estimate(cycles, 0, 0, {}, kernel_cycles=cycles))
        elif instruction.opcode not in _FREE and (size := _size(instruction.shape)) > 4:
            what = _what(instruction)
            total = total.plus(Estimate(0, 0, 0, {what: size} if what else {}))
        if instruction.opcode == "while":
            turns = _turns(instruction, computations)
            body = re.search(r"body=%?([\w.\-]+)", instruction.rest)
            assert body is not None
            total = total.plus(_sum(body[1], computations, chip, listings), turns or 1)
            total = total._replace(
                loops=total.loops + 1, unknown_loops=total.unknown_loops + (turns is None)
            )
        elif instruction.opcode == "conditional":
            inside = _branches(instruction)
            branches = [_sum(inner, computations, chip, listings) for inner in inside]
            total = total.plus(min(branches, key=lambda branch: branch.cycles))
            total = total._replace(branches=total.branches + 1)
        elif instruction.opcode in ("call", "async-start"):
            for inner in re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", instruction.rest):
                total = total.plus(_sum(inner, computations, chip, listings))
    return total


def _kernel(instruction: _Instruction, listing: Bundles, chip: Chip) -> int:
    """Cycles of a kernel: its instructions, or moving what it says it moves, if that is longer."""
    said = re.search(r'"bytes_accessed":"(\d+)"', instruction.rest)
    moving = int(said[1]) / chip.bandwidth * chip.clock if said else 0
    return max(listing.count, math.ceil(moving))


def _branches(instruction: _Instruction) -> list[str]:
    if group := re.search(r"branch_computations=\{([^}]*)\}", instruction.rest):
        return re.findall(r"[\w.\-]+", group[1])
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.rest)


def _computations(text: str) -> tuple[str, dict[str, list[_Instruction]]]:
    entry, name = "", ""
    computations: dict[str, list[_Instruction]] = {}
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif name and (found := _NAME.match(stripped := line.strip())):
            shape, rest = _shape(stripped[found.end() :])
            if opcode := _OPCODE.match(rest):
                computations[name].append(_Instruction(found[1], opcode[1], shape, rest))
    return entry, computations


def _shape(text: str) -> tuple[str, str]:
    """The shape that a line goes on with, and the rest of it."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: i + 1], text[i + 1 :].lstrip()
    return text, ""


def _size(shape: str) -> int:
    """Bytes of an array or of those of a tuple; of what copies start with, the first."""
    arrays = _ARRAY.findall(shape)
    return sum(
        _BYTES.get(dtype, 4) * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in arrays
    )


def _what(instruction: _Instruction) -> str | None:
    if instruction.opcode != "custom-call":
        return instruction.opcode
    target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
    name = target[1] if target else "?"
    return None if name == "AllocateBuffer" else f"custom-call {name}"


def _turns(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int | None:
    """How often a loop goes round: as it says, or the constant that its counter stays below."""
    if said := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return int(said[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    inside = computations.get(condition[1], []) if condition else []
    limits = {
        int(found[1])
        for i in inside
        if i.opcode == "constant" and (found := re.match(r"constant\(([1-9]\d*)\)", i.rest))
    }
    return limits.pop() if len(limits) == 1 else None
