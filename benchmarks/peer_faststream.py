"""Runner: FastStream with confluent-kafka, executed by the Python of its own environment.

`python -m benchmarks.peer_faststream HOW ADDRESS TOPIC TASKS [SIZE]`.

As fast as it can be told to be without giving up at-least-once delivery: `AckPolicy.ACK` commits after each call of the
handler, without waiting for the broker (its default, `ACK_FIRST`, loses what a killed worker had received); an async
handler, no log, no type casting (`apply_types=False`), no serializer but orjson, uvloop. Its producer is not idempotent by
default, and stays so.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import workload
from benchmarks.kafka_broker import Watch, make_topic

BATCH = 500
GROUP = "faststream"


async def publish(address: str, topic: str, tasks: int) -> None:
    """`publish`, awaited: each confirmed before the next."""
    times: list[float] = []

    async def send(broker: Any, rows: list[dict[str, Any]]) -> None:
        for body in rows:
            start = time.perf_counter()
            await broker.publish(body, topic, key=str(body["n"]))
            times.append(1000 * (time.perf_counter() - start))

    await _publish(address, topic, tasks, send, {"ms": times})


async def publish_batch(address: str, topic: str, tasks: int, size: int) -> None:
    """`publish_batch`, awaited."""

    async def send(broker: Any, rows: list[dict[str, Any]]) -> None:
        for chunk in workload.chunks(rows, size):
            await broker.publish_batch(*chunk, topic=topic)

    await _publish(address, topic, tasks, send, {})


async def handle(address: str, topic: str, tasks: int) -> None:
    """One message a call."""
    tally, done = workload.Tally(tasks), asyncio.Event()

    async def handler(body: dict[str, Any]) -> None:
        tally.one(body["n"])
        if len(tally.seen) >= tasks:
            done.set()

    await _handle(address, topic, tasks, handler, tally, done, {})


async def handle_batches(address: str, topic: str, tasks: int) -> None:
    """Batches of 500."""
    tally, done = workload.Tally(tasks), asyncio.Event()

    async def handler(bodies: list[dict[str, Any]]) -> None:
        tally.many([body["n"] for body in bodies])
        if len(tally.seen) >= tasks:
            done.set()

    await _handle(address, topic, tasks, handler, tally, done, {"batch": True, "max_records": BATCH})


async def _publish(
    address: str,
    topic: str,
    tasks: int,
    send: Callable[[Any, list[dict[str, Any]]], Coroutine[Any, Any, None]],
    details: dict[str, Any],
) -> None:
    make_topic(address, topic)
    rows = workload.bodies(tasks)
    async with _broker(address) as broker:
        start, cpu = time.perf_counter(), time.process_time()
        await send(broker, rows)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = Watch(address, topic).stored()
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu, **details)


async def _handle(
    address: str,
    topic: str,
    tasks: int,
    handler: Callable[[Any], Coroutine[Any, Any, None]],
    tally: workload.Tally,
    done: asyncio.Event,
    options: dict[str, Any],
) -> None:
    broker = _broker(address)
    ack = importlib.import_module("faststream").AckPolicy.ACK
    broker.subscriber(topic, group_id=GROUP, auto_offset_reset="earliest", ack_policy=ack, **options)(handler)
    watch = Watch(address, topic, GROUP)
    async with broker:
        await broker.start()
        await _wait(done, tally)
        tally.handled()
        await asyncio.to_thread(watch.until_committed, tasks)
        tally.answer(tasks)


async def _wait(done: asyncio.Event, tally: workload.Tally) -> None:
    """Until it is done, or nothing has come for a while."""
    seen = -1
    while not done.is_set() and seen < len(tally.seen):
        seen = len(tally.seen)
        try:
            await asyncio.wait_for(done.wait(), workload.STALL)
        except TimeoutError:
            continue


def _broker(address: str) -> Any:
    # FastStream is in no environment of ours, so type checkers cannot know it either.
    confluent = importlib.import_module("faststream.confluent")
    return confluent.KafkaBroker(address, logger=None, apply_types=False, serializer=None)


if __name__ == "__main__":
    how: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
        "publish": publish,
        "publish_batch": publish_batch,
        "handle": handle,
        "handle_batches": handle_batches,
    }
    with asyncio.Runner(loop_factory=importlib.import_module("uvloop").new_event_loop) as runner:
        runner.run(how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])))
