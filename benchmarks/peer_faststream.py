"""Runner: FastStream with confluent-kafka, executed by the Python of its own environment.

`python -m benchmarks.peer_faststream HOW ADDRESS TOPIC TASKS`.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from typing import Any

from benchmarks import workload
from benchmarks.kafka_broker import Watch, make_topic

BATCH = 500
GROUP = "faststream"


def publish(address: str, topic: str, tasks: int) -> None:
    """`publish`, awaited: each confirmed before the next."""
    times: list[float] = []

    async def send(broker: Any, rows: list[dict[str, Any]]) -> None:
        for number, body in enumerate(rows):
            start = time.perf_counter()
            await broker.publish(body, topic, key=str(number))
            times.append(1000 * (time.perf_counter() - start))

    asyncio.run(_publish(address, topic, tasks, send, {"ms": times}))


def publish_batch(address: str, topic: str, tasks: int, size: int) -> None:
    """`publish_batch`, awaited."""

    async def send(broker: Any, rows: list[dict[str, Any]]) -> None:
        for chunk in workload.chunks(rows, size):
            await broker.publish_batch(*chunk, topic=topic)

    asyncio.run(_publish(address, topic, tasks, send, {}))


async def _publish(address: str, topic: str, tasks: int, send: Any, details: dict[str, Any]) -> None:
    make_topic(address, topic)
    rows = workload.bodies(tasks)
    async with _broker(address) as broker:
        start, cpu = time.perf_counter(), time.process_time()
        await send(broker, rows)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    workload.answer(tasks, seconds, range(Watch(address, topic).stored()), cpu_seconds=cpu, **details)


def handle(address: str, topic: str, tasks: int) -> None:
    """One message a call."""
    asyncio.run(_handle(address, topic, tasks, batch=False))


def handle_batches(address: str, topic: str, tasks: int) -> None:
    """Batches of 500."""
    asyncio.run(_handle(address, topic, tasks, batch=True))


async def _handle(address: str, topic: str, tasks: int, *, batch: bool) -> None:
    ack_policy = importlib.import_module("faststream").AckPolicy.ACK
    broker = _broker(address)
    watch = Watch(address, topic, GROUP)
    seen: list[int] = []
    done = asyncio.Event()
    first = 0.0
    options = {"batch": True, "max_records": BATCH} if batch else {}

    async def one(body: dict[str, Any]) -> None:
        nonlocal first
        if not first:
            first = time.perf_counter()
        seen.append(body["n"])
        if len(seen) >= tasks:
            done.set()

    async def many(bodies: list[dict[str, Any]]) -> None:
        nonlocal first
        if not first:
            first = time.perf_counter()
        seen.extend([body["n"] for body in bodies])
        if len(seen) >= tasks:
            done.set()

    subscriber = broker.subscriber(topic, group_id=GROUP, auto_offset_reset="earliest", ack_policy=ack_policy, **options)
    subscriber(many if batch else one)
    async with broker:
        begin, cpu = time.perf_counter(), time.process_time()
        await broker.start()
        await asyncio.wait_for(done.wait(), 120)
        handled = time.perf_counter()
        await asyncio.to_thread(watch.until_committed, tasks)
        end, cpu = time.perf_counter(), time.process_time() - cpu
    workload.answer(
        tasks, end - first, seen, cpu_seconds=cpu, start_seconds=first - begin, last_commit_seconds=end - handled
    )


def _broker(address: str) -> Any:
    # FastStream is in no environment of ours, so type checkers cannot know it either.
    confluent = importlib.import_module("faststream.confluent")
    return confluent.KafkaBroker(address, logger=None, apply_types=False)


if __name__ == "__main__":
    how = {"publish": publish, "publish_batch": publish_batch, "handle": handle, "handle_batches": handle_batches}
    how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
