"""Runner: Nova on SQLite, default settings (synchronous=FULL). `python -m benchmarks.nova_sqlite HOW FILE TASKS`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

from benchmarks import workload
from nova import ReceivedTask, Task, TaskQueue, with_sqlite
from nova.brokers.sqlite.config import SQLiteConfig
from nova.brokers.sqlite.driver import SQLiteDriver

CONCURRENCY = 16


def enqueue_batch(path: str, tasks: int) -> None:
    """`enqueue_batch` of 100, one caller."""

    def send(queue: TaskQueue) -> None:
        for chunk in workload.chunks(workload.bodies(tasks)):
            queue.enqueue_batch([Task("bench.row", body) for body in chunk]).raise_for_failures()

    _enqueue(path, tasks, send)


def enqueue(path: str, tasks: int) -> None:
    """`enqueue` one by one, one caller: one fsync each."""

    def send(queue: TaskQueue) -> None:
        for body in workload.bodies(tasks):
            queue.enqueue(Task("bench.row", body))

    _enqueue(path, tasks, send)


def handle(path: str, tasks: int) -> None:
    """`start` with one task a call; the clock stops when the last ack is committed."""
    seen: list[int] = []

    def handler(task: ReceivedTask) -> None:
        seen.append(task.json()["n"])

    with TaskQueue(with_sqlite(path)) as queue:
        start, cpu = time.perf_counter(), time.process_time()
        queue.start(handler, concurrency=CONCURRENCY)
        workload.wait_for(lambda: len(seen), tasks)
        workload.wait_for(lambda: -unsettled(queue), 0)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    workload.answer(tasks, seconds, seen, cpu_seconds=cpu, concurrency=CONCURRENCY)


def unsettled(queue: TaskQueue) -> int:
    """What the broker still holds for the workers of this queue, dead letters included."""
    depth = queue.depth()
    return depth.waiting + depth.running + depth.dead


def _enqueue(path: str, tasks: int, send: Callable[[TaskQueue], None]) -> None:
    with TaskQueue(with_sqlite(path)) as queue:
        start, cpu = time.perf_counter(), time.process_time()
        send(queue)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        stored = queue.depth().waiting
    # Which ones are there is shown by the run that handles them; here they are counted.
    workload.answer(tasks, seconds, range(stored), cpu_seconds=cpu, synchronous=_synchronous(path))


def _synchronous(path: str) -> str:
    with contextlib.closing(SQLiteDriver(SQLiteConfig(path=path)).connect()) as connection:
        level = connection.query(lambda c: c.execute("PRAGMA synchronous").fetchone()[0])
    return workload.SYNCHRONOUS[level]


if __name__ == "__main__":
    how = {"enqueue_batch": enqueue_batch, "enqueue": enqueue, "handle": handle}
    how[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
