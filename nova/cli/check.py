"""`nova check`: read the broker's limits and settings, and say which will hurt, with the numbers and the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nova.brokers.base import Finding
from nova.check import CheckReport
from nova.cli.options import AsJson, split_names
from nova.cli.outcome import DONE, FAILED
from nova.cli.output import write_json, write_line
from nova.cli.target import ConfigFile, Url, queue_of
from nova.errors import ConfigError

__all__ = ["check"]

WORDS = {"harm": "HURTS", "hint": "hint", "unread": "?", "ok": "ok"}
"""How a finding begins, by its severity."""
INDENT = " " * 7


def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The queue's TOML file; the same as --config.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", metavar="N", min=1, max=100_000, help="Worker processes that are to run at once."),
    ] = 1,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queues", "--queue", metavar="NAMES", help="What they read; several by comma or by repeating it."
        ),
    ] = None,
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> int:
    """Connect, read the broker's limits, and say what will hurt. Exits with 1 if something will, with 0 for hints alone."""
    if file is not None and config is not None:
        raise ConfigError("check: the file is given twice; leave --config out")
    chosen = config if file is None else file
    queue = queue_of(chosen, url)
    try:  # not `with`: a broker that cannot be reached is a finding
        report = queue.check(split_names(queues), workers=workers)
    finally:
        queue.stop()
    if as_json:
        write_json({"will_hurt": report.will_hurt, "findings": [asdict(finding) for finding in report.findings]})
    else:
        for line in _lines(report):
            write_line(line)
    return FAILED if report.will_hurt else DONE


def _lines(report: CheckReport) -> Iterable[str]:
    for finding in report.findings:
        yield from _shown(finding)
    counts = Counter(finding.severity for finding in report.findings)
    yield f"{counts['harm']} will hurt, {counts['hint']} hints, {counts['unread']} not readable, {counts['ok']} ok"


def _shown(finding: Finding) -> Iterable[str]:
    yield f"{WORDS[finding.severity]:<{len(INDENT)}}{finding.name}: {finding.found}"
    if finding.meaning:
        yield f"{INDENT}{finding.meaning}"
    if finding.fix:
        yield f"{INDENT}-> {finding.fix}"
