"""Runner: Huey on SQLite, executed by the Python of Huey's own environment.

`python -m benchmarks.peer_huey HOW FILE TASKS FSYNC [WORKERS]` with FSYNC one of default, on, off.
"""

from __future__ import annotations

import importlib
import sqlite3
import sys
import time
from typing import Any

from benchmarks import workload

FSYNC: dict[str, dict[str, bool]] = {"default": {}, "on": {"fsync": True}, "off": {"fsync": False}}

seen: list[int] = []


def main(how: str, path: str, tasks: int, fsync: str, workers: int) -> None:
    # Huey is in no environment of ours, so type checkers cannot know it either.
    huey: Any = importlib.import_module("huey").SqliteHuey(filename=path, **FSYNC[fsync])
    row = huey.task()(note)
    huey.storage.queue_size()  # opens the connection before the clock starts, as Nova's runner does
    (level,) = huey.storage.conn.execute("PRAGMA synchronous").fetchone()
    details: dict[str, Any] = {"synchronous": workload.SYNCHRONOUS[level], "sqlite": sqlite3.sqlite_version}
    if how == "enqueue":
        enqueue(huey, row, tasks, details)
    else:
        handle(huey, tasks, workers, {**details, "workers": workers})


def note(body: dict[str, Any]) -> None:
    seen.append(body["n"])


def enqueue(huey: Any, row: Any, tasks: int, details: dict[str, Any]) -> None:
    """Huey's way: call the task in a loop; one commit each."""
    rows = workload.bodies(tasks)
    start, cpu = time.perf_counter(), time.process_time()
    for body in rows:
        row(body)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = huey.storage.queue_size()
    huey.storage.close()
    workload.answer(tasks, seconds, range(stored), cpu_seconds=cpu, **details)


def handle(huey: Any, tasks: int, workers: int, details: dict[str, Any]) -> None:
    """A consumer with threads, until the last task has been executed and the queue is empty. No log is written."""
    consumer = huey.create_consumer(workers=workers)
    start, cpu = time.perf_counter(), time.process_time()
    consumer.start()
    workload.wait_for(lambda: len(seen), tasks)
    workload.wait_for(lambda: -huey.storage.queue_size(), 0)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    consumer.stop(graceful=True)
    workload.answer(tasks, seconds, seen, cpu_seconds=cpu, **details)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]) if len(sys.argv) > 5 else 1)
