"""How many instruction words a kernel runs through, from the listing that the compiler writes.

A TPU issues one word (a bundle) of several instructions a cycle. libtpu writes the words of each
kernel to a folder if it is asked to when it is loaded; a line of a listing is a word, and says in
which loop it is. So the words, each as often as its loops go round, are the cycles that the
instructions of a kernel take; waiting for memory is not among them. Of a branch both sides count:
it is an upper bound.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import NamedTuple

__all__ = ["Bundles", "ask", "clear", "count", "kernels"]

_LINE = re.compile(r"^ *(?:0x[0-9a-f]+|0)\b([A-Z ]*):?\s*([> ]*?) *\{(.*)")
_EXIT = re.compile(r", (\d+) /\* loop exit test")
_LISTING = re.compile(r"^\d+-(.+?)-\d+-final_bundles\.txt$")


class Bundles(NamedTuple):
    """What the listing of one kernel says."""

    count: int
    """Words, each as often as its loops go round."""
    unknown_loops: int
    """Loops of which the listing does not say how often; their words count once a turn around."""


class _Loop:
    """A loop, and the words directly in it."""

    def __init__(self, parent: _Loop | None, *, is_grid: bool = False) -> None:
        self.parent, self.words, self.turns = parent, 0, None if parent else 1
        self.is_grid = is_grid

    @property
    def times(self) -> int:
        return (self.turns or 1) * (self.parent.times if self.parent else 1)


def ask(folder: pathlib.Path) -> None:
    """Have libtpu write its listings to a folder; it reads this when it is loaded."""
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    mine = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
    mine += " --xla_jf_dump_llo_pass_label_regex=final_bundles"
    os.environ["LIBTPU_INIT_ARGS"] = f"{flags} {mine}".strip()


def clear(folder: pathlib.Path) -> None:
    """Remove the listings of one program before the next is compiled."""
    for path in folder.iterdir():
        path.unlink()


def kernels(folder: pathlib.Path) -> dict[str, Bundles]:
    """The kernels whose listings are in a folder, by the name of their instruction."""
    found = {path: _LISTING.match(path.name) for path in sorted(folder.glob("*-final_bundles.txt"))}
    return {name[1]: count(path.read_text()) for path, name in found.items() if name}


def count(listing: str) -> Bundles:
    """Add up the words of a listing."""
    path = [_Loop(None)]
    loops = list(path)
    depth = 0
    for line in listing.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        label, marks, text = found.groups()
        # An empty word has no marks: it is where the one before it is. A loop's last words mix with
        # those after it, so a word of an outer loop does not yet end the inner one.
        depth = marks.count(">") if text.strip() != "}" else depth
        if "LB" in label:
            path = path[:depth]
            path.append(_Loop(path[-1], is_grid="iteration index, stage" in text))
            loops.append(path[-1])
        path[depth].words += 1
        for turns in _EXIT.findall(text):
            # Loops that end together are asked one after the other, the innermost first.
            loop = path[depth]
            while loop.turns is not None and loop.parent is not None:
                loop = loop.parent
            # The loop over blocks goes round twice more, to copy the first and the last.
            loop.turns = int(turns) - 2 * loop.is_grid
    return Bundles(
        sum(loop.words * loop.times for loop in loops),
        sum(loop.turns is None for loop in loops),
    )
