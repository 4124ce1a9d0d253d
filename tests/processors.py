"""The choice as on a processor that need not be this one."""

from jaxdil._rules import (
    cpu,
    cpu_cores,
    cpu_few,
    cpu_groups,
    cpu_intel,
    cpu_library,
    cpu_products,
    cpu_taps,
)

__all__ = ["pretend"]


def pretend(monkeypatch, *, model="A processor", vectors="AVX-512", half=True):
    """Tell the rules a CPU's name, its vectors, and whether it multiplies in bfloat16."""
    told = {"cpu_model": model, "cpu_vectors": vectors, "multiplies_bfloat16": half}
    told_to = (cpu, cpu_cores, cpu_few, cpu_groups, cpu_intel, cpu_library, cpu_products, cpu_taps)
    for rules in told_to:
        for name, value in told.items():
            if hasattr(rules, name):
                monkeypatch.setattr(rules, name, lambda value=value: value)
