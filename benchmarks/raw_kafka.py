"""Runner: the ceiling, confluent-kafka alone. `python -m benchmarks.raw_kafka HOW ADDRESS TOPIC TASKS [SIZE]`.

The producer promises what Nova's does (idempotent, confirmed by all replicas) and has a buffer as large; the rest are
librdkafka's defaults. A record has a key, three headers and a delivery report. Bodies are encoded and decoded by msgspec,
as in Nova.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, Message, Producer

from benchmarks import workload
from benchmarks.kafka_broker import Watch, make_topic

CHUNK = 500
GROUP = "raw"
COMMIT_EVERY = 0.25
"""As Nova does."""

encode = msgspec.json.encode
decode = msgspec.json.decode

Rows = Sequence[dict[str, Any]]


def produce(address: str, topic: str, tasks: int) -> None:
    """Everything into the client's buffer, then the reports of what is still under way."""

    def send(producer: Producer, rows: Rows) -> None:
        _produce(producer, topic, rows)
        producer.flush()

    _send(address, topic, tasks, send, {})


def produce_chunks(address: str, topic: str, tasks: int, size: int) -> None:
    """As `enqueue_batch` promises it: a chunk is confirmed before the next one is sent."""

    def send(producer: Producer, rows: Rows) -> None:
        for chunk in workload.chunks(rows, size):
            _produce(producer, topic, chunk)
            producer.flush()

    _send(address, topic, tasks, send, {})


def produce_one(address: str, topic: str, tasks: int) -> None:
    """One at a time: `produce`, then `flush`."""
    times: list[float] = []

    def send(producer: Producer, rows: Rows) -> None:
        for body in rows:
            start = time.perf_counter()
            _produce(producer, topic, (body,))
            producer.flush()
            times.append(1000 * (time.perf_counter() - start))

    _send(address, topic, tasks, send, {"ms": times})


def handle(address: str, topic: str, tasks: int) -> None:
    """`consume` in chunks, decode, commit every quarter of a second."""
    watch = Watch(address, topic, GROUP)
    settings: dict[str, Any] = {
        "bootstrap.servers": address,
        "group.id": GROUP,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    tally = workload.Tally(tasks)
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    progress = last_commit = time.monotonic()
    while len(tally.seen) < tasks and time.monotonic() - progress < workload.STALL:
        messages = consumer.consume(CHUNK, 0.05)
        now = time.monotonic()
        if not messages:
            continue
        progress = now
        tally.many([decode(message.value() or b"")["n"] for message in messages if message.error() is None])
        if now - last_commit > COMMIT_EVERY:
            last_commit = now
            consumer.commit(asynchronous=True)
    tally.handled()
    consumer.commit(asynchronous=False)
    watch.until_committed(tasks)
    tally.answer(tasks)
    consumer.close()


def _send(
    address: str, topic: str, tasks: int, send: Callable[[Producer, Rows], None], details: dict[str, Any]
) -> None:
    make_topic(address, topic)
    settings: dict[str, Any] = {
        "bootstrap.servers": address,
        "enable.idempotence": True,
        "acks": "all",
        "queue.buffering.max.messages": 1_000_000,
    }
    producer = Producer(settings)
    producer.list_topics(topic, timeout=10)
    rows = workload.bodies(tasks)
    start, cpu = time.perf_counter(), time.process_time()
    send(producer, rows)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = Watch(address, topic).stored()
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu, **details)


def _produce(producer: Producer, topic: str, rows: Rows) -> None:
    for body in rows:
        number = str(body["n"])
        headers: list[tuple[str, str | bytes | None]] = [
            ("content-type", "application/json"),
            ("id", number),
            ("attempt", "1"),
        ]
        while True:
            try:
                producer.produce(topic, encode(body), number, headers=headers, on_delivery=_report)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)


def _report(error: KafkaError | None, _: Message) -> None:
    if error is not None:
        raise RuntimeError(error.str())


if __name__ == "__main__":
    how: dict[str, Callable[..., None]] = {
        "produce": produce,
        "produce_chunks": produce_chunks,
        "produce_one": produce_one,
        "handle": handle,
    }
    how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
