"""What the runners of Nova on a broker with a server do: one program, of which the broker decides how it is watched."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import workload
from nova import Batch, ReceivedTask, Task, TaskQueue, TimeCountAggregator

__all__ = ["BATCH", "CONCURRENCY", "GROUP", "Broker", "topic_of"]

CONCURRENCY = 16
BATCH = 500
GROUP = "g"

Settled = Callable[[TaskQueue, int], None]
"""Returns when the broker has confirmed the last ack of so many tasks."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker as a benchmark sees it; each is given address and prefix.

    Attributes:
        open: a queue on it, default settings.
        stored: how many tasks lie there; waits until it is that many, where the broker takes a moment.
        watch: begins to watch what is settled, before the worker starts.
    """

    open: Callable[[str, str], TaskQueue]
    stored: Callable[[str, str, int], int]
    watch: Callable[[str, str], Settled]

    def main(self) -> None:
        """`HOW ADDRESS PREFIX TASKS [SIZE]`."""
        how: dict[str, Callable[..., None]] = {
            "prepare": self.prepare,
            "enqueue_batch": self.enqueue_batch,
            "enqueue": self.enqueue,
            "handle": self.handle,
            "handle_batches": self.handle_batches,
        }
        how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))

    def prepare(self, address: str, prefix: str, tasks: int) -> None:
        """Have a worker make all topics or queues and register its group, before anything is measured."""
        with self.open(address, prefix) as queue:
            queue.start(lambda _: None)
        workload.answer(tasks, 1.0, range(tasks))

    def enqueue_batch(self, address: str, prefix: str, tasks: int, size: int) -> None:
        """`enqueue_batch`, one caller."""

        def send(queue: TaskQueue, rows: list[dict[str, Any]]) -> None:
            for chunk in workload.chunks(rows, size):
                queue.enqueue_batch([Task("bench.row", body) for body in chunk]).raise_for_failures()

        self._enqueue(address, prefix, tasks, send, {})

    def enqueue(self, address: str, prefix: str, tasks: int) -> None:
        """`enqueue` one by one, one caller."""
        times: list[float] = []

        def send(queue: TaskQueue, rows: list[dict[str, Any]]) -> None:
            for body in rows:
                start = time.perf_counter()
                queue.enqueue(Task("bench.row", body))
                times.append(1000 * (time.perf_counter() - start))

        self._enqueue(address, prefix, tasks, send, {"ms": times})

    def handle(self, address: str, prefix: str, tasks: int) -> None:
        """`start` with one task a call."""

        def start(queue: TaskQueue, tally: workload.Tally) -> None:
            def handler(task: ReceivedTask) -> None:
                tally.one(task.json()["n"])

            queue.start(handler, concurrency=CONCURRENCY)

        self._handle(address, prefix, tasks, start)

    def handle_batches(self, address: str, prefix: str, tasks: int) -> None:
        """`start_batch` in batches of 500."""

        def start(queue: TaskQueue, tally: workload.Tally) -> None:
            def handler(batch: Batch) -> None:
                tally.many([task.json()["n"] for task in batch])

            queue.start_batch(handler, TimeCountAggregator(BATCH, 1.0))

        self._handle(address, prefix, tasks, start)

    def _enqueue(
        self,
        address: str,
        prefix: str,
        tasks: int,
        send: Callable[[TaskQueue, list[dict[str, Any]]], None],
        details: dict[str, Any],
    ) -> None:
        with self.open(address, prefix) as queue:
            rows = workload.bodies(tasks)
            start, cpu = time.perf_counter(), time.process_time()
            send(queue, rows)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        stored = self.stored(address, prefix, tasks)
        workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu, **details)

    def _handle(
        self, address: str, prefix: str, tasks: int, start: Callable[[TaskQueue, workload.Tally], None]
    ) -> None:
        settled = self.watch(address, prefix)
        with self.open(address, prefix) as queue:
            tally = workload.Tally(tasks)
            start(queue, tally)
            tally.wait()
            tally.handled()
            settled(queue, tasks)
            tally.answer(tasks)


def topic_of(prefix: str) -> str:
    """Where the tasks lie."""
    return f"{prefix}_PRIORITY_NORMAL"
