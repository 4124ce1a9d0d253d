"""A table: measured times for convolutions on devices, from which `auto` takes the best method."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from jaxdil import _active
from jaxdil._device import kind_here
from jaxdil._errors import error
from jaxdil._explanation import table as aligned
from jaxdil._problem import Problem
from jaxdil.tuning._entry import Key, Times, digits
from jaxdil.tuning._file import check_times, dumps, loads

__all__ = ["Table", "active", "load", "use"]

# The `with` blocks that this thread is in, innermost last. A table is a value that many threads may
# enter, and one thread twice, so what leaving it restores is kept here.
_entered = threading.local()


class Table(Mapping[Key, Times]):
    """Measured times, an immutable mapping from `Key` to `Times`.

    Made by `tune` or `load`. Where a table is in force (``with table:`` in a thread, `use` in the
    process), ``method="auto"`` takes the best method that was measured for the convolution on the
    kind of device at hand, and `jaxdil.explain` tells the times as its reason. Nothing else
    changes: a pinned method stays, and a convolution that the table does not hold, or holds for
    other devices only, is chosen for by the rules.

    In a ``with`` inside another, or while the process uses a table, both hold: what the inner one
    lacks is looked up in the outer. A ``with`` stands around calls of compiled functions, which are
    compiled once for each table; inside a function that ``jax.jit`` traces it has no effect.

    Args:
      entries: from ``Key`` to ``Times``; none if left out.

    Raises:
      TypeError: for keys and values of other types.
      ValueError: for methods that there are not, and times that cannot be.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 9, 4)), jnp.ones((3, 4, 1))
    >>> table = jaxdil.tuning.tune(jaxdil.depthwise_conv, x, w, seconds=0.01)
    >>> len(table)
    1
    >>> with table:
    ...     y = jaxdil.depthwise_conv(x, w)
    """

    __slots__ = ("_digest", "_entries", "_platforms")

    def __init__(self, entries: Mapping[Key, Times] | None = None, /) -> None:
        checked = {}
        for key, times in ({} if entries is None else entries).items():
            _check_entry(key, times)
            ordered = sorted(times.ms, key=lambda pair: (pair[1], pair[0]))
            checked[key] = times._replace(ms=tuple(ordered))
        self._entries = checked
        self._platforms = {key.platform for key in checked}
        # JAX compares tables at each call of a compiled function.
        lines = sorted(f"{key}: {times}" for key, times in checked.items())
        self._digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def __getitem__(self, key: Key) -> Times:
        return self._entries[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of devices it was measured on."""
        return tuple(sorted({key.device for key in self}))

    def merge(self, *others: Table) -> Table:
        """One table of this and others; what two of them hold is taken from the later.

        ``a | b`` is ``a.merge(b)``.

        Args:
          others: tables, of this or of other devices.

        Returns:
          A new table.

        Raises:
          TypeError: for what is no table.
        """
        merged = self
        for other in others:
            _check_table("Table.merge", "others must be tables", other)
            merged = _merged(merged, other)
        return merged

    def __or__(self, other: object) -> Table:
        return self.merge(other) if isinstance(other, Table) else NotImplemented

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file, as JSON, which `load` reads.

        The file tells for each device its platform and kind and the releases of JAX and jaxlib,
        then a line for each convolution: its sizes, the best method and each method's milliseconds.

        Args:
          path: of the file, which is replaced if it exists; its folder must exist.

        Raises:
          OSError: if the file cannot be written.
        """
        pathlib.Path(path).write_text(dumps(self), encoding="utf-8")

    def ranking(self, problem: Problem, platform: str | None) -> Sequence[tuple[str, str]]:
        """The methods measured for a problem on the device here, the best first, each with why.

        Args:
          problem: the convolution.
          platform: that it is compiled for.

        Returns:
          Pairs of a method and the reason that `jaxdil.explain` would give; none if the problem was
          not measured on the kind of device that this process has.
        """
        device = kind_here(platform) if platform in self._platforms else None
        if platform is None or device is None:
            return ()
        times = self._entries.get(Key(platform, device, problem))
        if times is None:
            return ()
        return [(method, times.because(method, device)) for method in times.ranking]

    def __enter__(self) -> Table:
        outer = active()
        block = _active.within(self if outer is None else outer.merge(self))
        block.__enter__()
        _blocks().append(block)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _blocks().pop().__exit__(kind, raised, traceback)

    def __reduce__(self) -> Any:
        return Table, (self._entries,)

    def __repr__(self) -> str:
        """A row for each convolution, the one that gains most first."""
        rows = sorted(self.items(), key=lambda entry: _gain(entry[1]))
        head = ["x", "w", "y", "window", "dtype", "method", "ms", "lax ms", "faster", "device"]
        lines = [_line(key, times) for key, times in rows]
        count = f"{len(self)} convolution{'' if len(self) == 1 else 's'}"
        return "\n".join([*aligned(head, lines), f"{count} measured"])


def _check_entry(key: Any, times: Any) -> None:
    if not isinstance(key, Key) or not isinstance(times, Times):
        what = f"entries must be from Key to Times, got {key!r}: {times!r}"
        raise TypeError(error("tuning.Table", what, "Tables are made by tune and load."))
    check_times("tuning.Table", times.ms)


def _check_table(where: str, what: str, given: Any) -> None:
    if not isinstance(given, Table):
        hint = "Pass jaxdil.tuning.load(path) for a file."
        raise TypeError(error(where, f"{what}, got {given!r}", hint))


def _path(given: Any) -> pathlib.Path:
    if not isinstance(given, (str, os.PathLike)):
        what = f"path must be that of a file, got {given!r}"
        raise TypeError(error("tuning.load", what, "Pass a string or a pathlib.Path."))
    return pathlib.Path(given)


@functools.lru_cache(64)  # entering a table under another makes the same table each time
def _merged(table: Table, other: Table) -> Table:
    return Table({**table, **other})


def _blocks() -> list[AbstractContextManager[Any]]:
    if not hasattr(_entered, "blocks"):
        _entered.blocks = []
    blocks: list[AbstractContextManager[Any]] = _entered.blocks
    return blocks


def _gain(times: Times) -> float:
    took = dict(times.ms)
    return took[times.method] - took.get("xla", took[times.method])


def _line(key: Key, times: Times) -> list[str]:
    problem, took = key.problem, dict(times.ms)
    shapes = ("x".join(map(str, s)) for s in (problem.x_shape, problem.w_shape, problem.y_shape))
    ones = (1,) * problem.rank
    window = [
        f"{word} {'x'.join(map(str, value))}"
        for word, value in (
            ("stride", problem.stride),
            ("dilation", problem.dilation),
            ("input dilation", problem.input_dilation),
        )
        if value != ones
    ]
    window += [f"groups {problem.groups}"] if problem.groups > 1 else []
    window += [f"batch groups {problem.batch_groups}"] if problem.batch_groups > 1 else []
    mine, lax = took[times.method], took.get("xla")
    return [
        *shapes,
        ", ".join(window),
        problem.x_dtype.name,
        times.method,
        digits(mine),
        "" if lax is None else digits(lax),
        "" if lax is None else f"{lax / mine:.1f}x",
        key.device,
    ]


def load(path: str | os.PathLike[str]) -> Table:
    """The table in a file that `Table.save` wrote.

    Args:
      path: of the file.

    Returns:
      The table. Entries measured on other devices are kept, and never chosen by here.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is none of a table, of another version of the format, or names a method
        that this release does not have.
      TypeError: if path is no path.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jaxdil.tuning.Table().save(pathlib.Path(folder, "table.json"))
    ...     len(jaxdil.tuning.load(pathlib.Path(folder, "table.json")))
    0
    """
    file = _path(path)
    if not file.is_file():
        what = f"path must be that of a file, and there is none at {str(path)!r}"
        raise FileNotFoundError(error("tuning.load", what, "table.save(path) writes one."))
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        what = f"{str(path)!r} is not a table: no text"
        raise ValueError(error("tuning.load", what, "table.save(path) writes one.")) from None
    return Table(loads(text, f"tuning.load({str(path)!r})"))


def use(table: Table | None) -> Table | None:
    """From now on, choose by a table in the whole process, in every thread.

    What was compiled before is compiled anew when it is called next: JAX's caches are cleared. So
    call it once, before the first step. A ``with`` that a thread is in keeps what it found.

    Args:
      table: that of `tune` or `load`; None for none, as it was at first.

    Returns:
      The table that was used before, or None, to be put back.

    Raises:
      TypeError: for what is no table.

    >>> jaxdil.tuning.use(jaxdil.tuning.Table())
    >>> len(jaxdil.tuning.use(None))
    0
    """
    if table is not None:
        _check_table("tuning.use", "table must be a Table or None", table)
    before: Table | None = _active.exchange(table)
    return before


def active() -> Table | None:
    """The table that choices are made by in this thread now.

    Returns:
      All that hold here, of ``with`` and of `use`, merged; None if none does.

    >>> jaxdil.tuning.active() is None
    True
    >>> with jaxdil.tuning.Table():
    ...     len(jaxdil.tuning.active())
    0
    """
    table: Table | None = _active.active()
    return table
