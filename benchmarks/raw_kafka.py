"""Runner: the ceiling, confluent-kafka alone. `python -m benchmarks.raw_kafka HOW ADDRESS TOPIC TASKS`.

The producer is as safe as Nova's (idempotent, all replicas); a record has a key, three headers and a delivery report.
"""

from __future__ import annotations

import sys
import time
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


def produce(address: str, topic: str, tasks: int) -> None:
    """As many as fit into the client's buffer, then the reports of the rest."""
    producer = _producer(address)
    make_topic(address, topic)
    confirmed = 0

    def report(error: KafkaError | None, _: Message) -> None:
        nonlocal confirmed
        confirmed += error is None

    rows = workload.bodies(tasks)
    producer.list_topics(topic, timeout=10)
    start, cpu = time.perf_counter(), time.process_time()
    for number, body in enumerate(rows):
        producer.produce(topic, encode(body), str(number), headers=_headers(number), on_delivery=report)
        producer.poll(0)
    producer.flush()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert Watch(address, topic).stored() == confirmed
    workload.answer(tasks, seconds, range(confirmed), cpu_seconds=cpu)


def produce_flush(address: str, topic: str, tasks: int) -> None:
    """One at a time, each confirmed before the next."""
    producer = _producer(address)
    make_topic(address, topic)
    times: list[float] = []
    rows = workload.bodies(tasks)
    producer.list_topics(topic, timeout=10)
    begin, cpu = time.perf_counter(), time.process_time()
    for number, body in enumerate(rows):
        start = time.perf_counter()
        producer.produce(topic, encode(body), str(number), headers=_headers(number), on_delivery=lambda *_: None)
        producer.flush()
        times.append(1000 * (time.perf_counter() - start))
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    stored = Watch(address, topic).stored()
    workload.answer(tasks, seconds, range(stored), cpu_seconds=cpu, ms=times)


def handle(address: str, topic: str, tasks: int) -> None:
    """`consume` in chunks, decode, commit every quarter of a second; the clock runs from the first record."""
    watch = Watch(address, topic, GROUP)
    settings: dict[str, Any] = {
        "bootstrap.servers": address,
        "group.id": GROUP,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    begin, cpu = time.perf_counter(), time.process_time()
    seen: list[int] = []
    start = last_commit = 0.0
    while len(seen) < tasks and time.perf_counter() - begin < workload.STALL:
        messages = consumer.consume(CHUNK, 0.05)
        now = time.perf_counter()
        if messages and not seen:
            start = last_commit = now
        seen += [decode(message.value() or b"")["n"] for message in messages if message.error() is None]
        if seen and now - last_commit > COMMIT_EVERY:
            last_commit = now
            consumer.commit(asynchronous=True)
    consumer.commit(asynchronous=False)
    watch.until_committed(len(seen))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    consumer.close()
    workload.answer(tasks, seconds, seen, cpu_seconds=cpu, start_seconds=start - begin)


def _producer(address: str) -> Producer:
    return Producer({"bootstrap.servers": address, "enable.idempotence": True, "acks": "all", "queue.buffering.max.messages": 1_000_000})


def _headers(number: int) -> list[tuple[str, str]]:
    return [("content-type", "application/json"), ("id", str(number)), ("attempt", "1")]


if __name__ == "__main__":
    how = {"produce": produce, "produce_flush": produce_flush, "handle": handle}
    how[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
