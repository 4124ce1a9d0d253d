"""The table of measured methods in force: that of the innermost ``with`` here, else the process's.

A choice is made while a function is compiled, and JAX keeps what it compiled. So the table of a
``with`` is a value that JAX adds to the keys of its caches: a function compiled under another table
is compiled anew, and one compiled under this table is found again. The table of the process is no
such value (JAX 0.8 sets one for a thread only); changing it clears the caches.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import jax

from jaxdil._problem import Problem

__all__ = ["Measured", "active", "exchange", "within"]


@runtime_checkable
class Measured(Protocol):
    """What a choice asks of a table. Hashable and cheap to compare: JAX does so at each call."""

    def ranking(self, problem: Problem, platform: str | None) -> Sequence[tuple[str, str]]:
        """Methods measured here for the problem, the best first, each with the words for why."""


_lock = threading.Lock()
# "process": its table. "context": JAX's context, made when the first table is entered and not when
# jaxdil is imported, because whatever a process has compiled is compiled anew once it exists.
_state: dict[str, Any] = {}


def active() -> Any:
    """The table in force in this thread, or None."""
    context = _state.get("context")
    inner = None if context is None else context.value
    return _state.get("process") if inner is None else inner


def within(table: Measured) -> AbstractContextManager[Any]:
    """``table``, and no other, in force in this thread for a stretch of code."""
    with _lock:
        if "context" not in _state:
            _state["context"] = jax.make_user_context(None)
    return _state["context"](table)


def exchange(table: Measured | None) -> Any:
    """Put a table in force for the process; the one that was."""
    with _lock:
        before, _state["process"] = _state.get("process"), table
    if before != table:
        jax.clear_caches()
    return before
