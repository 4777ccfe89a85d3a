"""Runner: the ceiling, pika alone on a quorum queue. `python -m benchmarks.raw_pika HOW ADDRESS QUEUE TASKS`.

Publishing as pika's documentation does it for speed: a `SelectConnection` in confirm mode with 2,000 messages on their way,
mandatory and persistent, with three headers. Consuming is a `BlockingConnection` with a prefetch of 2,000 that acks each
hundred at once. Bodies are encoded and decoded by msgspec, as in Nova.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pika

from benchmarks import workload
from benchmarks.rabbitmq_broker import QUORUM, make, until_ready

WINDOW = 2000
ACK_EVERY = 100

encode = msgspec.json.encode
decode = msgspec.json.decode


def publish(address: str, queue: str, tasks: int) -> None:
    """Pipelined confirms, straight to the queue."""
    make(address, queue, QUORUM)
    _publish(address, "", queue, tasks)


def publish_topic(address: str, queue: str, tasks: int) -> None:
    """The same through a topic exchange with this one queue behind it, which is the way of Nova's tasks."""
    make(address, queue, QUORUM)
    connection = pika.BlockingConnection(pika.URLParameters(address))
    channel = connection.channel()
    channel.exchange_declare(queue, "topic", durable=True)
    channel.queue_bind(queue, queue, queue)
    _publish(address, queue, queue, tasks)
    channel.exchange_delete(queue)
    connection.close()


def _publish(address: str, exchange: str, queue: str, tasks: int) -> None:
    rows = workload.bodies(tasks)
    state = {"next": 0, "confirmed": 0, "seconds": 0.0, "cpu": 0.0}
    connection: Any = None

    def pump(channel: Any) -> None:
        while state["next"] < tasks and state["next"] - state["confirmed"] < WINDOW:
            body = rows[int(state["next"])]
            channel.basic_publish(exchange, queue, encode(body), _properties(body["n"]), mandatory=True)
            state["next"] += 1

    def confirmed(frame: Any) -> None:
        state["confirmed"] = frame.method.delivery_tag if frame.method.multiple else state["confirmed"] + 1
        if state["confirmed"] >= tasks:
            state["seconds"] = time.perf_counter() - state["seconds"]
            state["cpu"] = time.process_time() - state["cpu"]
            connection.close()
        else:
            pump(channels[0])

    channels: list[Any] = []

    def opened(channel: Any) -> None:
        channels.append(channel)

        def begin(_: Any) -> None:
            state["seconds"], state["cpu"] = time.perf_counter(), time.process_time()
            pump(channel)

        channel.confirm_delivery(confirmed, callback=begin)

    connection = pika.SelectConnection(
        pika.URLParameters(address),
        on_open_callback=lambda connection: connection.channel(on_open_callback=opened),
        on_close_callback=lambda connection, _: connection.ioloop.stop(),
    )
    connection.ioloop.start()
    stored = until_ready(address, tasks, queue)
    workload.answer(tasks, state["seconds"], workload.numbered(stored, tasks), cpu_seconds=state["cpu"])


def publish_one(address: str, queue: str, tasks: int) -> None:
    """One at a time, each confirmed: a `BlockingConnection`."""
    make(address, queue, QUORUM)
    rows = workload.bodies(tasks)
    connection = pika.BlockingConnection(pika.URLParameters(address))
    channel = connection.channel()
    channel.confirm_delivery()
    times: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    for body in rows:
        start = time.perf_counter()
        channel.basic_publish("", queue, encode(body), _properties(body["n"]), mandatory=True)
        times.append(1000 * (time.perf_counter() - start))
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    connection.close()
    stored = until_ready(address, tasks, queue)
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu, ms=times)


def handle(address: str, queue: str, tasks: int) -> None:
    """Consume, decode, ack in hundreds."""
    connection = pika.BlockingConnection(pika.URLParameters(address))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=WINDOW)
    tally = workload.Tally(tasks)
    for method, _, body in channel.consume(queue, inactivity_timeout=workload.STALL):
        if method is None:
            break
        tally.one(decode(body or b"")["n"])
        if len(tally.seen) % ACK_EVERY == 0 or len(tally.seen) >= tasks:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if len(tally.seen) >= tasks:
            break
    tally.handled()
    connection.close()
    tally.answer(tasks)


def _properties(number: int) -> pika.BasicProperties:
    headers = {"content-type": "application/json", "id": str(number), "attempt": "1"}
    return pika.BasicProperties(delivery_mode=2, headers=headers, message_id=str(number))


if __name__ == "__main__":
    how: dict[str, Callable[..., None]] = {
        "publish": publish,
        "publish_topic": publish_topic,
        "publish_one": publish_one,
        "handle": handle,
    }
    how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
