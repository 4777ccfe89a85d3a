"""docs/performance.md shows one whole run, and nothing that the run did not keep."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import page
from benchmarks.__main__ import SUITES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def kept() -> Any:
    return json.loads((DOCS / "benchmarks" / "results.json").read_text(encoding="utf-8"))


def texts_of(svg: str) -> list[str]:
    """What one can read in a chart; another version of the library may draw it elsewhere."""
    return sorted(
        "".join(found.itertext()).strip() for found in ET.fromstring(svg).iter() if found.tag.endswith("}text")
    )


def test_the_page_has_the_tables_of_the_run_that_is_kept(kept: Any) -> None:
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    shown = text.partition(page.BEGIN)[2].partition(page.END)[0]
    assert shown.strip() == page.figures(kept)


def test_every_suite_has_its_chart_of_that_run(kept: Any) -> None:
    for name, drawn in page.charts(kept).items():
        there = (DOCS / "benchmarks" / f"{name}.svg").read_text(encoding="utf-8")
        assert texts_of(there) == texts_of(drawn)
        for what, samples in kept["suites"][name]["samples"].items():
            assert (what in texts_of(there)) is ("cpu_seconds" in samples[0]["details"])


def test_the_run_is_whole_and_sound(kept: Any) -> None:
    assert list(kept["suites"]) == list(SUITES)
    for suite in kept["suites"].values():
        for samples in suite["samples"].values():
            assert len(samples) >= 3
            assert {(sample["lost"], sample["duplicates"]) for sample in samples} == {(0, 0)}


def test_a_run_is_put_between_the_marks_and_nowhere_else(kept: Any, tmp_path: Path) -> None:
    page_file = tmp_path / "performance.md"
    page_file.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", encoding="utf-8")
    page.publish(kept, tmp_path)
    text = page_file.read_text(encoding="utf-8")
    assert re.fullmatch(rf"before\n{page.BEGIN}\n\n(.+)\n\n{page.END}\nafter\n", text, re.DOTALL)
    assert "old" not in text
    assert json.loads((tmp_path / "benchmarks" / "results.json").read_text(encoding="utf-8")) == kept


def test_a_page_without_marks_is_left_alone(kept: Any, tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text("no marks\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for figures"):
        page.publish(kept, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["performance.md"]
