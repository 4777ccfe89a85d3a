"""A worker as a process of its own, for tests that kill it: `python -m tests.conformance.worker_process CONFIG MODE LOG`.

Appends one line per event to LOG (`O_APPEND`, one write each, so that lines of many processes never mix): the event, its
words, the process id and the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from nova import Batch, ReceivedTask, Task, TaskQueue, TimeCountAggregator


def main(config: str, mode: str, log: str) -> None:
    descriptor = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def write(*words: object) -> None:
        os.write(descriptor, (" ".join(map(str, [*words, os.getpid(), time.time()])) + "\n").encode())

    queue = TaskQueue.from_config(json.loads(config))
    queue.connect()
    write("up", os.getpid())
    MODES[mode](queue, write)


def handle(queue: TaskQueue, write: Callable[..., None]) -> None:
    """Short tasks; `exit` kills the process, `fail` fails once, `hold` runs for ten minutes."""

    def run(task: ReceivedTask) -> None:
        if task.due_at is not None:
            write("late", task.id, time.time() - task.due_at.timestamp())
        write("start", task.id, task.run)
        if task.type == "exit":
            os._exit(1)
        if task.type == "fail" and task.attempt == 1:
            write("failed", task.id, task.run)
            raise RuntimeError("once")
        if task.type == "hold":
            time.sleep(600)
        if task.type == "work":
            time.sleep(0.002)
        write("done", task.id, task.run)

    queue.run(run, concurrency=4, timeout=20)


def batch(queue: TaskQueue, write: Callable[..., None]) -> None:
    """Batches that take a while inside the handler."""

    def load(tasks: Batch) -> None:
        write("batch", len(tasks))
        time.sleep(0.3)
        for task in tasks:
            write("done", task.id, task.run)

    queue.run(load, TimeCountAggregator(50, 0.2), timeout=20)


def enqueue(queue: TaskQueue, write: Callable[..., None]) -> None:
    """Enqueue until killed; writes each id after it was accepted."""
    number = 0
    while True:
        report = queue.enqueue_batch([Task("work", n, id=f"p{os.getpid()}-{n}") for n in range(number, number + 20)])
        number += 20
        for done in report.accepted:
            write("accepted", done.task_id)


MODES = {"handle": handle, "batch": batch, "enqueue": enqueue}

if __name__ == "__main__":
    main(*sys.argv[1:])
