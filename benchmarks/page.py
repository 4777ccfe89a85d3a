"""What a whole run found, as the documentation shows it, from what the run kept as JSON alone.

`docs/benchmarks/results.json` is the run, `docs/benchmarks/SUITE.svg` a chart of each suite's rates, and docs/performance.md
has the tables between two marks. `tests/docs/test_performance.py` fails if they are not of one run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chart import draw

__all__ = ["BEGIN", "END", "charts", "figures", "heading", "publish"]

BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of the figures -->"


def heading(environment: Mapping[str, Any]) -> str:
    """When, how, with what and on what a run was made."""
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    return (
        f"Nova benchmarks, {environment['date']}\n{environment['command']}\n{versions}\n"
        f"{environment['machine']}, {environment['cores']} cores, load {environment['load']:.2f} at the start, "
        f"a 4 KiB fdatasync {environment['fdatasync_us']:g} µs"
    )


def figures(kept: Mapping[str, Any]) -> str:
    """The part of docs/performance.md between the marks."""
    parts = [f"```text\n{heading(kept['environment'])}\n```"]
    for name, suite in kept["suites"].items():
        versions = ", ".join(f"{what} {number}" for what, number in suite["versions"].items())
        parts += [
            f"### {suite['title']}",
            f"{versions}; {suite['tasks']:,} tasks a run.",
            f"![Tasks a second of each measured thing](benchmarks/{name}.svg)",
            f"```text\n{suite['report']}\n```",
        ]
    return "\n\n".join(parts)


def charts(kept: Mapping[str, Any]) -> dict[str, str]:
    """An SVG for each suite."""
    return {name: draw(suite["title"], _rates(suite["samples"])) for name, suite in kept["suites"].items()}


def publish(kept: Mapping[str, Any], docs: Path) -> None:
    """Put a run into the documentation.

    Raises:
        ValueError: the page has no marks.
    """
    page = docs / "performance.md"
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for figures; expected {BEGIN!r} and {END!r}")
    folder = docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")
    for name, drawn in charts(kept).items():
        (folder / f"{name}.svg").write_text(drawn, encoding="utf-8")
    page.write_text(f"{before}{BEGIN}\n\n{figures(kept)}\n\n{END}{after}", encoding="utf-8")


def _rates(samples: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, list[float]]:
    """Of what has a rate: how long an idle worker takes to wake up has none."""
    return {
        name: [sample["tasks"] / sample["seconds"] for sample in found]
        for name, found in samples.items()
        if "cpu_seconds" in found[0]["details"]
    }
