"""docs/peers.md is true of jaxdil: its column is full, and every name and option in it exists."""

import inspect
import re
from functools import reduce
from pathlib import Path

import jaxdil

PAGE = (Path(__file__).parent.parent / "docs" / "peers.md").read_text()


def tables(text):
    """The rows of each table, header first, as lists of cells."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.split(r" *(?<!\\)\| *", line.strip("| ")) for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


OURS = [(row[0], row[1]) for header, *rows in tables(PAGE) if header[0] == "jaxdil" for row in rows]
TAKE = [tuple(row) for header, *rows in tables(PAGE) if header[-1] == "take" for row in rows]


def missing(cell):
    """What is code in a cell and no public name, ``f``, and no option of one, ``f(name=)``."""
    lacks = []
    for code in re.findall(r"`([^`]+)`", cell):
        named = re.fullmatch(r"([\w.]+)(?:\((\w+)=.*\))?", code)
        try:
            thing = reduce(getattr, named[1].split("."), jaxdil)
            home = reduce(getattr, named[1].split(".")[:-1], jaxdil)
            public = named[1].split(".")[-1] in home.__all__
            if not public or (named[2] and named[2] not in inspect.signature(thing).parameters):
                lacks.append(code)
        except (AttributeError, TypeError):
            lacks.append(code)
    return lacks


def test_every_name_exists():
    assert not {row: lacks for row, cell in OURS + TAKE if (lacks := missing(cell))}


def test_our_column_is_full():
    assert len(OURS) >= 79
    assert not [row for row, cell in OURS if not cell or cell.startswith("-")]


def test_a_wrong_name_is_found():
    assert missing('`conv`, `tf.conv2d`; `conv(dilation=)`, `unfold(order="CK")`') == []
    wrong = ["convv", "tf.conv4d", "conv(rate=)", "reference.np", "conv()"]
    assert missing(", ".join(f"`{name}`" for name in wrong)) == wrong


def test_every_quirk_is_there():
    said = {
        int(n) for group in re.findall(r"\[([\d, ]+)\]\(#quirks\)", PAGE) for n in group.split(",")
    }
    listed = {int(n) for n in re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE)}
    assert said <= listed == set(range(1, len(listed) + 1))
