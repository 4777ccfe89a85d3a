"""The site's navigation and its look at links; `make site` builds it."""

from __future__ import annotations

import re
from pathlib import Path

import nova
from tests.docs.site import ROOT, dead_links, pages_of_the_navigation


def test_every_page_is_in_the_navigation_once_and_is_there() -> None:
    found = pages_of_the_navigation()
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}

    assert len(found) == len(set(found))
    assert written <= set(found)
    assert [page for page in found if not (ROOT / page).is_file()] == []


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(
        r"^::: nova\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )

    assert sorted(listed) == sorted(nova.__all__)


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#x">1</a><a href="c.html">2</a><a href="#top">3</a>'
    )
    (tmp_path / "b.html").write_text('<a href="https://example.org/nowhere">4</a><a href="a.html#top">5</a>')

    assert sorted(dead_links(tmp_path)) == ["a.html: b.html#x: no such place", "a.html: c.html: no such file"]
