"""`python -m benchmarks`: run a suite, print its tables, keep everything as JSON; exit 1 if a task was lost or doubled."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import embedded
from benchmarks.peers import HUEY, cache_directory
from benchmarks.samples import ROOT, Results

SUITES: dict[str, Callable[[int, int], tuple[Results, str, dict[str, Any]]]] = {"embedded": embedded.run}


def main() -> int:
    arguments = _parse()
    environment = _environment()
    results, report, more = SUITES[arguments.suite](arguments.tasks, arguments.rounds)
    print(_heading(arguments.suite, environment), report, sep="\n\n")
    samples = {name: [dataclasses.asdict(s) for s in found] for name, found in results.samples.items()}
    kept = {"suite": arguments.suite, "environment": environment, "samples": samples, **more}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    if results.void:
        print(f"\nVOID, tasks were lost or handled twice: {', '.join(results.void)}", file=sys.stderr)
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Nova and its peers in one run.")
    parser.add_argument("--suite", choices=SUITES, default="embedded")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of each run (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each thing is measured (default 3)")
    default = ROOT / "build" / "benchmarks.json"
    parser.add_argument("--json", type=Path, default=default, help="where the raw numbers go (build/benchmarks.json)")
    arguments = parser.parse_args()
    if arguments.tasks < 100 or arguments.rounds < 1:
        parser.error("expected at least 100 tasks and 1 round")
    return arguments


def _environment() -> dict[str, Any]:
    return {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": {
            "nova": version("nova-taskqueue"),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            HUEY.name: HUEY.version,
        },
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


def _heading(suite: str, environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    return (
        f"Nova benchmarks: {suite}, {environment['date']}\n{environment['command']}\n{versions}\n"
        f"{environment['machine']}, {environment['cores']} cores, load {environment['load']:.2f} at the start, "
        f"a 4 KiB fdatasync {environment['fdatasync_us']:g} µs"
    )


if __name__ == "__main__":
    sys.exit(main())
