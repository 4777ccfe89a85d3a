"""Runner: Dramatiq on RabbitMQ, executed by the Python of its own environment.

`python -m benchmarks.peer_dramatiq HOW ADDRESS QUEUE TASKS`. Confirmed publishing; no middleware, which is its fastest; 8
threads, its default; acks after the task.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

from benchmarks import workload
from benchmarks.rabbitmq_broker import until_ready


def publish(address: str, queue: str, tasks: int) -> None:
    """`send` in a loop."""
    _, actor = _actor(address, queue, lambda body: None)
    rows = workload.bodies(tasks)
    start, cpu = time.perf_counter(), time.process_time()
    for body in rows:
        actor.send(body)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = until_ready(address, tasks, queue)
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu)


def handle(address: str, queue: str, tasks: int) -> None:
    """A worker in this process."""
    tally = workload.Tally(tasks)
    broker, _ = _actor(address, queue, lambda body: tally.one(body["n"]))
    worker = importlib.import_module("dramatiq").Worker(broker, worker_threads=8)
    worker.start()
    tally.wait()
    tally.handled()
    broker.join(queue)
    tally.answer(tasks)
    worker.stop()


def _actor(address: str, queue: str, function: Any) -> tuple[Any, Any]:
    dramatiq = importlib.import_module("dramatiq")
    rabbitmq = importlib.import_module("dramatiq.brokers.rabbitmq")
    broker = rabbitmq.RabbitmqBroker(url=address, confirm_delivery=True, middleware=[])

    def run(body: dict[str, Any]) -> None:
        function(body)

    return broker, dramatiq.actor(run, broker=broker, queue_name=queue, actor_name="row")


if __name__ == "__main__":
    {"publish": publish, "handle": handle}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
