"""What is known to be faster than lax, by platform: a list of rules each, one platform a file.

A rule is whether it holds for a problem, and the choice if it does; the first that holds decides.
Each carries the number of its paragraph in docs/choosing-a-method.md or docs/accelerators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jaxdil._choice import Choice
from jaxdil._problem import Problem
from jaxdil._rules import cpu, cuda, tpu

__all__ = ["RULES"]

RULES: dict[str, Callable[[Problem], Iterator[tuple[bool, Choice]]]] = {
    "cpu": cpu.rules,
    "cuda": cuda.rules,
    "tpu": tpu.rules,
}
