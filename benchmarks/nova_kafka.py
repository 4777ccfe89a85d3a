"""Runner: Nova on Kafka, default settings. `python -m benchmarks.nova_kafka HOW ADDRESS PREFIX TASKS`."""

from __future__ import annotations

import sys
import time

from benchmarks import workload
from benchmarks.kafka_broker import PARTITIONS, Watch
from nova import Batch, ReceivedTask, Task, TaskQueue, TimeCountAggregator, with_group_id, with_kafka, with_topic_prefix

CONCURRENCY = 16
BATCH = 500
GROUP = "g"


def enqueue_batch(address: str, prefix: str, tasks: int, size: int) -> None:
    """`enqueue_batch`, one caller; returns when the broker has confirmed."""
    rows = workload.bodies(tasks)
    with open_queue(address, prefix) as queue:
        queue._open().ensure([topic_of(prefix)])
        start, cpu = time.perf_counter(), time.process_time()
        for chunk in workload.chunks(rows, size):
            queue.enqueue_batch([Task("bench.row", body) for body in chunk]).raise_for_failures()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    workload.answer(tasks, seconds, range(Watch(address, topic_of(prefix)).stored()), cpu_seconds=cpu)


def enqueue(address: str, prefix: str, tasks: int) -> None:
    """`enqueue` one by one, one caller."""
    rows = workload.bodies(tasks)
    times: list[float] = []
    with open_queue(address, prefix) as queue:
        queue._open().ensure([topic_of(prefix)])
        begin, cpu = time.perf_counter(), time.process_time()
        for body in rows:
            start = time.perf_counter()
            queue.enqueue(Task("bench.row", body))
            times.append(1000 * (time.perf_counter() - start))
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    workload.answer(tasks, seconds, range(Watch(address, topic_of(prefix)).stored()), cpu_seconds=cpu, ms=times)


def handle(address: str, prefix: str, tasks: int) -> None:
    """`start` with one task a call."""
    seen: list[int] = []
    first = 0.0

    def handler(task: ReceivedTask) -> None:
        nonlocal first
        if not first:
            first = time.perf_counter()
        seen.append(task.json()["n"])

    with open_queue(address, prefix) as queue:
        watch = Watch(address, topic_of(prefix), group_of(prefix))
        begin, cpu = time.perf_counter(), time.process_time()
        queue.start(handler, concurrency=CONCURRENCY)
        workload.wait_for(lambda: len(seen), tasks)
        handled = time.perf_counter()
        watch.until_committed(tasks)
        end, cpu = time.perf_counter(), time.process_time() - cpu
    workload.answer(tasks, end - first, seen, cpu_seconds=cpu, start_seconds=first - begin, last_commit_seconds=end - handled)


def handle_batches(address: str, prefix: str, tasks: int) -> None:
    """`start_batch` in batches of 500."""
    seen: list[int] = []
    sizes: list[int] = []
    first = 0.0

    def handler(batch: Batch) -> None:
        nonlocal first
        if not first:
            first = time.perf_counter()
        sizes.append(len(batch))
        seen.extend([task.json()["n"] for task in batch])

    with open_queue(address, prefix) as queue:
        watch = Watch(address, topic_of(prefix), group_of(prefix))
        begin, cpu = time.perf_counter(), time.process_time()
        queue.start_batch(handler, TimeCountAggregator(BATCH, 1.0))
        workload.wait_for(lambda: len(seen), tasks)
        handled = time.perf_counter()
        watch.until_committed(tasks)
        end, cpu = time.perf_counter(), time.process_time() - cpu
    workload.answer(tasks, end - first, seen, cpu_seconds=cpu, start_seconds=first - begin, last_commit_seconds=end - handled, batches=len(sizes))


def open_queue(address: str, prefix: str) -> TaskQueue:
    """A queue with default settings."""
    kafka = with_kafka(address, partitions=PARTITIONS, replication_factor=1)
    return TaskQueue(kafka, with_topic_prefix(prefix), with_group_id(GROUP))


def topic_of(prefix: str) -> str:
    return f"{prefix}_PRIORITY_NORMAL"


def group_of(prefix: str) -> str:
    return f"{prefix}.{GROUP}.normal"


if __name__ == "__main__":
    how = {"enqueue_batch": enqueue_batch, "enqueue": enqueue, "handle": handle, "handle_batches": handle_batches}
    how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
