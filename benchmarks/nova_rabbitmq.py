"""Runner: Nova on RabbitMQ, default settings. `python -m benchmarks.nova_rabbitmq HOW ADDRESS PREFIX TASKS [SIZE]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import workload
from benchmarks.rabbitmq_broker import until_ready
from nova import (
    Batch,
    ReceivedTask,
    Task,
    TaskQueue,
    TimeCountAggregator,
    with_group_id,
    with_rabbitmq,
    with_topic_prefix,
)

CONCURRENCY = 16
BATCH = 500
GROUP = "g"


def prepare(address: str, prefix: str, tasks: int) -> None:
    """Have a worker make all queues, before anything is measured."""
    with _open(address, prefix) as queue:
        queue.start(lambda _: None)
    workload.answer(tasks, 1.0, range(tasks))


def enqueue_batch(address: str, prefix: str, tasks: int, size: int) -> None:
    """`enqueue_batch`, one caller."""

    def send(queue: TaskQueue, rows: list[dict[str, Any]]) -> None:
        for chunk in workload.chunks(rows, size):
            queue.enqueue_batch([Task("bench.row", body) for body in chunk]).raise_for_failures()

    _enqueue(address, prefix, tasks, send, {})


def enqueue(address: str, prefix: str, tasks: int) -> None:
    """`enqueue` one by one, one caller."""
    times: list[float] = []

    def send(queue: TaskQueue, rows: list[dict[str, Any]]) -> None:
        for body in rows:
            start = time.perf_counter()
            queue.enqueue(Task("bench.row", body))
            times.append(1000 * (time.perf_counter() - start))

    _enqueue(address, prefix, tasks, send, {"ms": times})


def handle(address: str, prefix: str, tasks: int) -> None:
    """`start` with one task a call."""

    def start(queue: TaskQueue, tally: workload.Tally) -> None:
        def handler(task: ReceivedTask) -> None:
            tally.one(task.json()["n"])

        queue.start(handler, concurrency=CONCURRENCY)

    _handle(address, prefix, tasks, start)


def handle_batches(address: str, prefix: str, tasks: int) -> None:
    """`start_batch` in batches of 500."""

    def start(queue: TaskQueue, tally: workload.Tally) -> None:
        def handler(batch: Batch) -> None:
            tally.many([task.json()["n"] for task in batch])

        queue.start_batch(handler, TimeCountAggregator(BATCH, 1.0))

    _handle(address, prefix, tasks, start)


def _enqueue(
    address: str,
    prefix: str,
    tasks: int,
    send: Callable[[TaskQueue, list[dict[str, Any]]], None],
    details: dict[str, Any],
) -> None:
    with _open(address, prefix) as queue:
        rows = workload.bodies(tasks)
        start, cpu = time.perf_counter(), time.process_time()
        send(queue, rows)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = until_ready(address, tasks, f"{GROUP}.{prefix}_PRIORITY_NORMAL")
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu, **details)


def _handle(address: str, prefix: str, tasks: int, start: Callable[[TaskQueue, workload.Tally], None]) -> None:
    with _open(address, prefix) as queue:
        tally = workload.Tally(tasks)
        start(queue, tally)
        tally.wait()
        tally.handled()
        queue.stop()
        tally.answer(tasks)


def _open(address: str, prefix: str) -> TaskQueue:
    return TaskQueue(with_rabbitmq(address), with_topic_prefix(prefix), with_group_id(GROUP))


if __name__ == "__main__":
    how: dict[str, Callable[..., None]] = {
        "prepare": prepare,
        "enqueue_batch": enqueue_batch,
        "enqueue": enqueue,
        "handle": handle,
        "handle_batches": handle_batches,
    }
    how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
