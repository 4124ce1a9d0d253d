"""A table as text: JSON, a line a convolution, under the device and the JAX it was measured on."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from jaxdil._errors import error
from jaxdil._methods import METHODS
from jaxdil._problem import Problem
from jaxdil.tuning._entry import Key, Times

__all__ = ["check_times", "dumps", "loads"]

FORMAT, VERSION = "jaxdil table", 2

_NAMES = tuple(field.name for field in dataclasses.fields(Problem) if field.compare)
_DTYPES = ("x_dtype", "w_dtype", "out_dtype")


def dumps(entries: Mapping[Key, Times]) -> str:
    """The text of a table."""
    sections: dict[tuple[str, str, str, str], list[str]] = {}
    for key, times in entries.items():
        head = (key.platform, key.device, times.jax, times.jaxlib)
        line = {**_fields(key.problem), "best": times.method, "milliseconds": dict(times.ms)}
        sections.setdefault(head, []).append(json.dumps(line))
    devices = []
    for head, lines in sorted(sections.items()):
        names = ("platform", "device", "jax", "jaxlib")
        told = "".join(
            f"      {json.dumps(name)}: {json.dumps(value)},\n"
            for name, value in zip(names, head, strict=True)
        )
        rows = ",\n".join(f"        {line}" for line in sorted(lines))
        devices.append(f'    {{\n{told}      "convolutions": [\n{rows}\n      ]\n    }}')
    listed = "\n" + ",\n".join(devices) + "\n  " if devices else ""
    return f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n  "devices": [{listed}]\n}}\n'


def loads(text: str, where: str) -> dict[Key, Times]:
    """The entries of a table's text; ``where`` says whose text it is.

    Raises:
      ValueError: if the text is none of a table, or one that this release cannot read.
    """
    try:
        told = json.loads(text)
    except ValueError as problem:
        raise ValueError(error(where, f"this is not a table: no JSON ({problem})", _MAKE)) from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        what = f'this is not a table: its "format" is not "{FORMAT}"'
        raise ValueError(error(where, what, _MAKE))
    if told.get("version") != VERSION:
        what = f"the version of the format must be {VERSION}, got {told.get('version')!r}"
        hint = "Another release of jaxdil wrote it. Tune again, or load it with that release."
        raise ValueError(error(where, what, hint))
    entries = {}
    line: Any = None
    try:
        for section in told["devices"]:
            line = None
            platform, device, *releases = (
                _string(section[name]) for name in ("platform", "device", "jax", "jaxlib")
            )
            for line in section["convolutions"]:
                took = tuple(line["milliseconds"].items())
                check_times(where, took)
                entries[Key(platform, device, _problem(line))] = Times(took, *releases)
    except (AttributeError, KeyError, TypeError) as problem:
        what = f"an entry cannot be read ({type(problem).__name__}: {problem})"
        raise ValueError(error(where, what, *([json.dumps(line)] if line else []), _MAKE)) from None
    return entries


_MAKE = "Tables are written by table.save(path), table being the result of jaxdil.tuning.tune."


def check_times(where: str, ms: Sequence[tuple[str, float]]) -> None:
    """Raise unless these are times of known methods."""
    if not ms:
        raise ValueError(error(where, "a convolution must have the time of a method, got none"))
    for name, took in ms:
        if name not in METHODS:
            known = ", ".join(map(repr, METHODS))
            what = f"methods must be among {known}, got {name!r}"
            raise ValueError(error(where, what, "Another release of jaxdil knew it. Tune again."))
        if not 0 < took < math.inf:
            what = f"the time of {name!r} must be positive and finite, got {took!r}"
            raise ValueError(error(where, what))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        msg = f"{value!r} is no string"
        raise TypeError(msg)
    return value


def _fields(problem: Problem) -> dict[str, Any]:
    fields = {name: getattr(problem, name) for name in _NAMES}
    fields.update({name: np.dtype(fields[name]).name for name in _DTYPES})
    precision = fields["precision"]
    if isinstance(precision, tuple):
        fields["precision"] = [each.name for each in precision]
    elif precision is not None:
        fields["precision"] = precision.name
    return fields


def _problem(line: Mapping[str, Any]) -> Problem:
    fields = {name: _canonical(line[name]) for name in _NAMES}
    fields.update({name: np.dtype(_string(line[name])) for name in _DTYPES})
    precision = line["precision"]
    if isinstance(precision, str):
        fields["precision"] = lax.DotAlgorithmPreset[precision]
    elif precision is not None:
        fields["precision"] = tuple(lax.Precision[name] for name in precision)
    return Problem(**fields)


def _canonical(value: Any) -> Any:
    """Lists of JSON as tuples, whose only numbers are integers."""
    if isinstance(value, list):
        return tuple(map(_canonical, value))
    if isinstance(value, float):
        msg = f"{value!r} is no integer"
        raise TypeError(msg)
    return value
