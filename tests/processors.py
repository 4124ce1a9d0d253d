"""The choice as on a processor that need not be this one, and as under each JAX."""

import functools

import jax
import numpy as np

import jaxdil
from jaxdil._methods import even
from jaxdil._rules import (
    cpu,
    cpu_amd,
    cpu_channels,
    cpu_cores,
    cpu_few,
    cpu_groups,
    cpu_intel,
    cpu_library,
    cpu_products,
    cpu_taps,
)

__all__ = ["LIBRARY", "chosen", "of_this_jax", "pretend", "rule_and_method"]

# JAX before 0.10, 0.10, and from 0.11 on have a library each.
LIBRARY = 0 if jax.__version_info__ < (0, 10) else 1 if jax.__version_info__ < (0, 11) else 2


def of_this_jax(choices):
    """That of JAX 0.8, of 0.10, of 0.12, or of all."""
    return (choices.split(" | ") * 3)[LIBRARY]


def rule_and_method(row):
    """Of a row of `explain`: "C19 planes", or "xla" where no rule holds."""
    rule, _, _ = row.because.partition(":")
    return f"{rule.removeprefix('rule ')} {row.method}".removeprefix("no rule ")


def pretend(monkeypatch, *, model="A processor", vectors="AVX-512", half=True):
    """Tell the rules a CPU's name, its vectors, and whether it multiplies in bfloat16."""
    told = {"cpu_model": model, "cpu_vectors": vectors, "multiplies_bfloat16": half}
    told_to = (cpu, cpu_amd, cpu_channels, cpu_cores, cpu_few, cpu_groups, cpu_intel, cpu_library)
    for rules in (*told_to, cpu_products, cpu_taps, even):
        for name, value in told.items():
            if hasattr(rules, name):
                monkeypatch.setattr(rules, name, lambda value=value: value)


def chosen(role, x, w, options, *, dtype=np.float32, conv=jaxdil.conv, **kinds):
    """Rule and method: "C19 planes", or "xla" where no rule holds."""
    like = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x, w))
    rows = jaxdil.explain(functools.partial(conv, **options, **kinds), platform="cpu")(*like)
    (row,) = (row for row in rows if row.role == role)
    return rule_and_method(row)
