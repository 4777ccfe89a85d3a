"""`python -m benchmarks`: run suites, print their tables, keep everything as JSON; exit 1 if a task was lost or doubled."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import embedded, kafka, page, rabbitmq, rocketmq
from benchmarks.peers import cache_directory
from benchmarks.samples import ROOT, Absent, Results

SUITES: dict[str, ModuleType] = {"embedded": embedded, "kafka": kafka, "rabbitmq": rabbitmq, "rocketmq": rocketmq}
"""Each has `TITLE`, `DEFAULT_TASKS`, `versions()` and `run(tasks, rounds)`; what it says of itself is its method."""


def main() -> int:
    arguments = _parse()
    environment = _environment()
    print(page.heading(environment), flush=True)
    kept: dict[str, Any] = {"environment": environment, "suites": {}}
    void: list[str] = []
    absent: list[str] = []
    for name in [arguments.suite] if arguments.suite else SUITES:
        try:
            results, kept["suites"][name] = _run(name, arguments)
        except Absent as exc:
            print(f"\n{name}: not measured: {exc}", flush=True)
            absent.append(name)
        else:
            void += results.void
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    if void:
        print(f"\nVOID, tasks were lost or handled twice: {', '.join(void)}", file=sys.stderr)
        return 1
    if arguments.suite and absent:
        return 1
    if arguments.publish:
        return _publish(kept, absent)
    return 0


def _publish(kept: dict[str, Any], absent: list[str]) -> int:
    """The documentation shows whole runs only."""
    if absent:
        print(f"\nnot published: without {', '.join(absent)} it is no whole run", file=sys.stderr)
        return 1
    page.publish(kept, ROOT / "docs")
    print("\npublished: docs/performance.md, docs/benchmarks", file=sys.stderr)
    return 0


def _run(name: str, arguments: argparse.Namespace) -> tuple[Results, dict[str, Any]]:
    """Run a suite and print what it found; returns it, and what is kept of it."""
    suite = SUITES[name]
    tasks = arguments.tasks or suite.DEFAULT_TASKS
    results, report, more = suite.run(tasks, arguments.rounds)
    versions = suite.versions()
    print(
        f"\n{suite.TITLE}: {', '.join(f'{what} {number}' for what, number in versions.items())}",
        f"Method. {suite.__doc__}".rstrip(),
        report,
        sep="\n\n",
        flush=True,
    )
    samples = {what: [dataclasses.asdict(sample) for sample in found] for what, found in results.samples.items()}
    kept = {"title": suite.TITLE, "method": suite.__doc__, "tasks": tasks, "versions": versions, "report": report}
    return results, {**kept, "samples": samples, **more}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Nova and its peers in one run.")
    parser.add_argument("--suite", choices=SUITES, help="one suite; without it all that this machine can run")
    defaults = ", ".join(f"{name} {suite.DEFAULT_TASKS}" for name, suite in SUITES.items())
    parser.add_argument("--tasks", type=int, help=f"tasks of each run (default: {defaults})")
    parser.add_argument("--rounds", type=int, default=3, help="how often each thing is measured (default 3)")
    default = ROOT / "build" / "benchmarks.json"
    parser.add_argument("--json", type=Path, default=default, help="where the raw numbers go (build/benchmarks.json)")
    parser.add_argument("--publish", action="store_true", help="put a run of all suites into docs/performance.md")
    arguments = parser.parse_args()
    if (arguments.tasks is not None and arguments.tasks < 100) or arguments.rounds < 1:
        parser.error("expected at least 100 tasks and 1 round")
    if arguments.publish and arguments.suite:
        parser.error("--publish is for a run of all suites; leave --suite out")
    return arguments


def _environment() -> dict[str, Any]:
    return {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": {"nova": version("nova-taskqueue"), "python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "fdatasync_us": _fdatasync_us(),
    }


def _fdatasync_us() -> float:
    """What one 4 KiB write with fdatasync costs here: the floor under every commit."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    times = []
    with tempfile.TemporaryFile(dir=cache_directory()) as file:
        for block in range(100):
            os.pwrite(file.fileno(), b"x" * 4096, 4096 * block)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(times), 1)


if __name__ == "__main__":
    sys.exit(main())
