"""The suite for the embedded drivers: Nova on SQLite beside Huey on SQLite and sqlite3 alone; the worker on memory.

Within a round everything is measured once, Nova and peer in turn, every second round in the opposite order; ratios are
taken within rounds. A file that one run fills is what the next one empties; Huey's is copied, so that each number of
threads gets the same one.
"""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import HUEY, cache_directory
from benchmarks.report import Ratio, faults, percentile, rates, ratio_data, ratios_by_round, table, verdict
from benchmarks.samples import Results, Sample, measure, spawn

__all__ = ["DEFAULT_TASKS", "TITLE", "run", "versions"]

TITLE = "Embedded: SQLite, and the worker on memory"
DEFAULT_TASKS = 20_000
HUEY_THREADS = (1, 4)
COST_TASKS = 100_000
COST_MOST = 20.0
"""Microseconds a task may cost the worker itself."""
WAKE_TASKS = 60

RAW_IN, RAW_OUT = "sqlite3 alone, in hundreds: in", "sqlite3 alone, in hundreds: out"
BATCH_IN, SINGLE_IN = "Nova enqueue_batch(100)", "Nova enqueue, one by one"
NOVA_OUT = "Nova start, one task a call"
COST = {1: "Nova worker on memory, concurrency 1", 16: "Nova worker on memory, concurrency 16"}
INSIDE, ACROSS = "in one process", "across processes"
FSYNC = {"default": "Huey as installed", "off": "Huey fsync=False", "on": "Huey fsync=True"}


def huey_in(fsync: str) -> str:
    return f"{FSYNC[fsync]}: in"


def huey_out(fsync: str, threads: int) -> str:
    return f"{FSYNC[fsync]}: out, {threads} thread{'s' if threads > 1 else ''}"


def ratios() -> list[Ratio]:
    """What is compared, with the bound of today and the next one.

    The bounds are meant against Huey as its users run it. Without fsync it promises less than Nova, whose settings stay; it
    is judged by the same bounds, so that nobody has to guess how much of the difference is the disk's.
    """
    compared = []
    for fsync in ("default", "off"):
        outs = tuple(huey_out(fsync, threads) for threads in HUEY_THREADS)
        compared.append(Ratio("in: enqueue_batch(100)", BATCH_IN, FSYNC[fsync], (huey_in(fsync),), (2.0, 4.0)))
        compared.append(Ratio("in: enqueue", SINGLE_IN, FSYNC[fsync], (huey_in(fsync),)))
        compared.append(Ratio("out: one task a call", NOVA_OUT, f"{FSYNC[fsync]}, best", outs, (3.0, 6.0)))
    compared.append(Ratio("in: enqueue_batch(100)", BATCH_IN, "sqlite3 alone", (RAW_IN,)))
    compared.append(Ratio("out: one task a call", NOVA_OUT, "sqlite3 alone", (RAW_OUT,)))
    return compared


class Round:
    """One round in a directory of its own."""

    def __init__(self, results: Results, directory: Path, tasks: int, python: str) -> None:
        self._results = results
        self._directory = directory
        self._tasks = tasks
        self._python = python

    def run(self, *, backwards: bool) -> None:
        """Measure everything once."""
        blocks: list[Callable[[], None]] = [
            self._raw,
            lambda: self._huey("default", HUEY_THREADS),
            self._nova,
            lambda: self._huey("off", HUEY_THREADS),
            lambda: self._huey("on", HUEY_THREADS[:1]),
            self._wake,
        ]
        for block in reversed(blocks) if backwards else blocks:
            block()

    def _raw(self) -> None:
        path = self._directory / "raw.db"
        self._add(RAW_IN, measure("raw_sqlite", "insert", path, self._tasks))
        self._add(RAW_OUT, measure("raw_sqlite", "handle", path, self._tasks))

    def _nova(self) -> None:
        path, single = self._directory / "nova.db", self._directory / "single.db"
        self._add(BATCH_IN, measure("nova_sqlite", "enqueue_batch", path, self._tasks))
        self._add(NOVA_OUT, measure("nova_sqlite", "handle", path, self._tasks))
        self._add(SINGLE_IN, measure("nova_sqlite", "enqueue", single, max(1, self._tasks // 4)))
        for concurrency, name in COST.items():
            self._add(name, measure("worker_cost", "run", COST_TASKS, concurrency))

    def _huey(self, fsync: str, threads: tuple[int, ...]) -> None:
        path = self._directory / f"huey-{fsync}.db"
        sample = measure("peer_huey", "enqueue", path, self._tasks, fsync, python=self._python)
        self._add(huey_in(fsync), sample)
        for number in threads:
            copy = path.with_suffix(f".{number}.db")
            shutil.copy(path, copy)
            sample = measure("peer_huey", "handle", copy, self._tasks, fsync, number, python=self._python)
            self._add(huey_out(fsync, number), sample)

    def _wake(self) -> None:
        self._add(INSIDE, measure("wakeup", "inside", self._directory / "inside.db", WAKE_TASKS))
        self._add(ACROSS, measure("wakeup", "across", self._directory / "across.db", WAKE_TASKS))

    def _add(self, name: str, sample: Sample) -> None:
        self._results.add(name, sample)


def versions() -> dict[str, str]:
    """What takes part, beside Nova and Python."""
    return {"sqlite": sqlite3.sqlite_version, HUEY.name: HUEY.version}


def run(tasks: int, rounds: int) -> tuple[Results, str, dict[str, Any]]:
    """All rounds; returns the results, the report, and what else belongs into the JSON."""
    python = HUEY.python()
    results = Results()
    parts: list[dict[str, float]] = []
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        # Beside the cache and not in /tmp, which may be memory, where an fsync costs nothing.
        with tempfile.TemporaryDirectory(prefix="run-", dir=cache) as directory:
            Round(results, Path(directory), tasks, python).run(backwards=number % 2 == 1)
        parts.append(spawn("worker_cost", "parts", COST_TASKS))
    part = {name: statistics.median(found[name] for found in parts) for name in parts[0]}
    more = {"ratios": ratio_data(results, ratios()), "worker_parts_us": parts}
    return results, _report(results, part), more


def _report(results: Results, parts: dict[str, float]) -> str:
    aside = {*COST.values(), INSIDE, ACROSS}
    measured = sorted(name for name in results.samples if name not in aside)
    theirs, ours = (results.samples[name][0].details["synchronous"] for name in (huey_in("default"), BATCH_IN))
    sections = [
        rates(results, measured),
        f"PRAGMA synchronous, read from a connection of each: Huey as installed {theirs}, Nova {ours}.",
        ratios_by_round(results, ratios()),
        _cost(results),
        _parts(results, parts),
        _wakes(results),
    ]
    return "\n\n".join(sections)


def _cost(results: Results) -> str:
    rows = []
    for name in COST.values():
        samples = results.samples[name]
        wall = [1e6 * sample.seconds / sample.tasks for sample in samples]
        cpu = [1e6 * sample.details["cpu_seconds"] / sample.tasks for sample in samples]
        rows.append(
            [
                name,
                " ".join(f"{value:.1f}" for value in wall),
                f"{statistics.median(wall):.1f}",
                f"{statistics.median(cpu):.1f}",
                verdict(statistics.median(wall), COST_MOST, at_most=True),
                *faults(samples),
            ]
        )
    head = ["decode, dispatch, settle", "µs/task by round", "median", "CPU µs", "target", "lost", "twice"]
    return table("Cost of the worker itself", head, rows)


def _parts(results: Results, parts: dict[str, float]) -> str:
    """The breakdown; what is contained in another part is set in, what the whole has beyond the sum stands last."""
    rows = []
    total = 0.0
    for name in sorted(parts, key=_order):
        inside = "." in name
        total += 0.0 if inside else parts[name]
        rows.append([f"  of it {name.split('.')[1]}" if inside else name, f"{parts[name]:.2f}"])
    rows.append(["sum", f"{total:.2f}"])
    for concurrency, name in COST.items():
        whole = statistics.median(1e6 * sample.seconds / sample.tasks for sample in results.samples[name])
        rows.append([f"threads and waiting, concurrency {concurrency}", f"{whole - total:.2f}"])
    return table("Its parts, one thread, chunks of 1,000", ["part", "µs/task"], rows)


def _order(name: str) -> tuple[int, bool]:
    return ("receive", "admit", "lanes", "run", "settle").index(name.split(".")[0]), "." in name


def _wakes(results: Results) -> str:
    rows = []
    for name, most in ((INSIDE, 5.0), (ACROSS, 60.0)):
        samples = results.samples[name]
        for start, key in (("stored", "stored_ms"), ("the call of enqueue", "called_ms")):
            values = [value for sample in samples for value in sample.details[key]]
            p99 = percentile(values, 0.99)
            judged = verdict(p99, most, at_most=True) if key == "stored_ms" else ""
            figures = [f"{value:.1f}" for value in (percentile(values, 0.5), p99, max(values))]
            rows.append([name, start, str(len(values)), *figures, judged])
    head = ["handler starts", "ms since", "tasks", "p50", "p99", "max", "target for p99"]
    return table("Wake-up of an idle worker on SQLite", head, rows)
