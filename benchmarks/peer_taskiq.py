"""Runner: Taskiq on RabbitMQ (taskiq-aio-pika), executed by the Python of its own environment.

`python -m benchmarks.peer_taskiq HOW ADDRESS QUEUE TASKS`. A quorum queue, acks after the task, no results,
an async task, uvloop, a prefetch of 2,000.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import workload
from benchmarks.rabbitmq_broker import until_ready


async def publish(address: str, queue: str, tasks: int) -> None:
    """`kiq`, awaited one by one."""
    broker = _broker(address, queue)

    async def run(body: dict[str, Any]) -> None: ...

    task = broker.register_task(run, task_name="row")
    rows = workload.bodies(tasks)
    await broker.startup()
    start, cpu = time.perf_counter(), time.process_time()
    for body in rows:
        await task.kiq(body)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    await broker.shutdown()
    stored = until_ready(address, tasks, queue)
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu)


async def handle(address: str, queue: str, tasks: int) -> None:
    """A receiver in this process."""
    tally, done, finish = workload.Tally(tasks), asyncio.Event(), asyncio.Event()
    broker = _broker(address, queue)

    async def run(body: dict[str, Any]) -> None:
        tally.one(body["n"])
        if len(tally.seen) >= tasks:
            done.set()

    broker.register_task(run, task_name="row")
    broker.is_worker_process = True
    await broker.startup()
    receiver = importlib.import_module("taskiq.receiver").Receiver(broker, max_async_tasks=100, run_startup=False)
    listening = asyncio.create_task(receiver.listen(finish))
    await _wait(done, tally)
    tally.handled()
    finish.set()
    await asyncio.wait([listening], timeout=10)
    tally.answer(tasks)
    await broker.shutdown()


async def _wait(done: asyncio.Event, tally: workload.Tally) -> None:
    """Until it is done, or nothing has come for a while."""
    seen = -1
    while not done.is_set() and seen < len(tally.seen):
        seen = len(tally.seen)
        try:
            await asyncio.wait_for(done.wait(), workload.STALL)
        except TimeoutError:
            continue


def _broker(address: str, queue: str) -> Any:
    aio = importlib.import_module("taskiq_aio_pika")
    kind = importlib.import_module("taskiq_aio_pika.queue")
    exchange = importlib.import_module("taskiq_aio_pika.exchange").Exchange(name=queue)
    named = kind.Queue(name=queue, type=kind.QueueType.QUORUM)
    return aio.AioPikaBroker(address, exchange=exchange, task_queues=[named], qos=2000)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    how: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"publish": publish, "handle": handle}
    with asyncio.Runner(loop_factory=importlib.import_module("uvloop").new_event_loop) as runner:
        runner.run(how[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4])))
