"""The documentation is true: its code runs, its links lead somewhere, no public name is missing."""

import importlib.util
import linecache
import re
import sys
import textwrap
import urllib.parse
from pathlib import Path

import pytest

import jaxdil

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>[^\n]*)\n", re.MULTILINE)


def blocks(text):
    """(info string, code, line of its first statement) of every fenced block of a page."""
    start = 0
    while opened := FENCE.search(text, start):
        closed = re.compile(rf"^ *{opened['fence']} *$", re.MULTILINE).search(text, opened.end())
        assert closed, f"a fence is never closed: {opened[0]!r}"
        first = text.count("\n", 0, opened.end()) + 1
        yield opened["info"].strip(), textwrap.dedent(text[opened.end() : closed.start()]), first
        start = closed.end()


def prose(text):
    """A page without its code, in which brackets are no links."""
    for _, code, _ in blocks(text):
        text = text.replace(textwrap.indent(code, ""), "")
    return re.sub(r"`[^`\n]*`", "", text)


def run(text, name):
    """Run the Python blocks of a page, one namespace for all of them."""
    namespace = {"__name__": "__page__"}
    # So that a traceback shows the line of the page.
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    for info, code, first in blocks(text):
        if re.match(r"\W*(py|python\d?|pycon|ipython)\b", info):
            assert info == "python", (
                f"line {first}: write ```python, not ```{info}; every block runs"
            )
            exec(compile("\n" * (first - 1) + code, name, "exec"), namespace)


# The modules of the extra `peers`, for pages that run another library beside jaxdil. Such a page
# says so on its first line: <!-- needs: keras, torch -->
PEERS = {"equinox", "flax", "haiku", "keras", "torch"}
NEEDS = re.compile(r"\A<!-- needs: (.+) -->\n")


def missing(text):
    """The modules that a page needs and that are not installed; none of them is imported."""
    needed = NEEDS.match(text)
    names = needed[1].split(", ") if needed else []
    assert PEERS.issuperset(names), f"{names} are not all in {sorted(PEERS)}"
    return [name for name in names if importlib.util.find_spec(name) is None]


@every_page
def test_python_of_a_page_runs(page, user_defaults, tmp_path, monkeypatch):
    text = page.read_text()
    if absent := missing(text):
        pytest.skip(f"{page.name} runs {', '.join(absent)}: pip install -e '.[peers]'")
    monkeypatch.chdir(tmp_path)  # a page may write files
    run(text, str(page))
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def test_a_page_that_fails_is_found():
    with pytest.raises(ZeroDivisionError):
        run("Text.\n\n- item\n\n    ```python\n    1 / 0\n    ```\n", "page")
    with pytest.raises(AssertionError, match="every block runs"):
        run("```python no-run\n1 / 0\n```\n", "page")
    run("```python\na = 1\n```\n\n```text\n1 / 0\n```\n\n```python\nassert a == 1\n```\n", "page")


def test_what_a_page_needs_is_looked_for(monkeypatch):
    page = "<!-- needs: keras, torch -->\n# Title\n"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    assert missing(page) == ["torch"]
    assert missing("# Title\n\n" + page) == []
    with pytest.raises(AssertionError, match="troch"):
        missing(page.replace("torch", "troch"))


LINK = re.compile(
    r"\]\(\s*<?([^\s)>]+)|<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\""
)


def broken_links(text, folder):
    """The relative links and figures of a page that lead to no file."""
    targets = [markdown or html for markdown, html in LINK.findall(prose(text))]
    targets += re.findall(r"^\[[^]^]+\]:\s*(\S+)", prose(text), re.MULTILINE)
    local = [t for t in targets if not re.match(r"[a-z][a-z+.-]*:|//|#", t)]
    return [t for t in local if not (folder / urllib.parse.unquote(t.split("#")[0])).exists()]


@every_page
def test_links_and_figures_of_a_page_exist(page):
    assert not broken_links(page.read_text(), page.parent)


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").touch()
    (tmp_path / "there.png").touch()
    page = (
        '[a](there.md#part) [b](gone.md) ![c](there.png) <img alt="" src="gone.png"> `[d](code)`\n'
        "[e](https://example.org) [f](#part) [g]\n\n[g]: lost.md\n\n```text\n[h](code)\n```\n"
    )
    assert broken_links(page, tmp_path) == ["gone.md", "gone.png", "lost.md"]


def test_every_public_name_is_on_an_api_page():
    pages = "\n".join(page.read_text() for page in PAGES)
    documented = re.findall(r"^::: jaxdil\.(\w+)$", pages, re.MULTILINE)
    assert sorted(documented) == sorted(set(jaxdil.__all__) - {"__version__"})


def test_every_speed_of_the_readme_is_measured():
    """The table of speeds is made of rows of the page that is made from raw results."""
    speeds = re.findall(
        r"^\| (?:depthwise|grouped|dilated|transposed|dense|all) \|.*$", README, re.MULTILINE
    )
    assert len(speeds) >= 10
    assert not set(speeds) - set((ROOT / "docs" / "benchmarks.md").read_text().splitlines())
