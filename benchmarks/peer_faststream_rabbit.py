"""Runner: FastStream on RabbitMQ (aio-pika), executed by the Python of its own environment.

`python -m benchmarks.peer_faststream_rabbit HOW ADDRESS QUEUE TASKS`. A durable quorum queue, persistent messages, confirms;
acks after the handler; an async handler, no log, no type casting, orjson, uvloop, a prefetch of 2,000.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import workload
from benchmarks.rabbitmq_broker import QUORUM, until_ready


async def publish(address: str, queue: str, tasks: int) -> None:
    """`publish`, awaited one by one: its way to know that a message is stored."""
    broker, declared = _broker(address, queue)
    rows = workload.bodies(tasks)
    async with broker:
        await broker.declare_queue(declared)
        start, cpu = time.perf_counter(), time.process_time()
        for body in rows:
            await broker.publish(body, queue=queue, persist=True)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = until_ready(address, tasks, queue)
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu)


async def handle(address: str, queue: str, tasks: int) -> None:
    """One message a call."""
    tally, done = workload.Tally(tasks), asyncio.Event()
    broker, declared = _broker(address, queue)

    async def handler(body: dict[str, Any]) -> None:
        tally.one(body["n"])
        if len(tally.seen) >= tasks:
            done.set()

    channel = importlib.import_module("faststream.rabbit").Channel(prefetch_count=2000)
    broker.subscriber(declared, channel=channel)(handler)
    async with broker:
        await broker.start()
        await _wait(done, tally)
        tally.handled()
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


def _broker(address: str, queue: str) -> tuple[Any, Any]:
    rabbit = importlib.import_module("faststream.rabbit")
    broker = rabbit.RabbitBroker(address, logger=None, apply_types=False, serializer=None)
    return broker, rabbit.RabbitQueue(queue, queue_type=rabbit.QueueType.QUORUM, durable=True, arguments=dict(QUORUM))


if __name__ == "__main__":
    how: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"publish": publish, "handle": handle}
    with asyncio.Runner(loop_factory=importlib.import_module("uvloop").new_event_loop) as runner:
        runner.run(how[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4])))
