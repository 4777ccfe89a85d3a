"""RabbitMQ under SIGKILLs of the server, and starts without number: `make chaos`. Results: docs/measurements.md."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova import ReceivedTask, Task
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually

DEAF_AFTER = 20.0
"""Seconds within which a worker must have its first task; a consumer that is not confirmed is given up after 5 s."""


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    made = make("rabbitmq", tmp_path, own_server=request.node.get_closest_marker("own_server") is not None)
    yield made
    made.close()


@pytest.mark.own_server
def test_three_kills_of_the_server_under_10_000_tasks_lose_nothing(broker: Broker) -> None:
    q, producer = broker.queue(), broker.queue()
    done: Counter[str] = Counter()
    accepted: set[str] = set()
    unknown: set[str] = set()

    def handle(task: ReceivedTask) -> None:
        if task.type == "fail" and task.attempt == 1:
            raise RuntimeError("once")
        done.update([task.id])
        time.sleep(0.002)

    def send() -> None:
        waiting = [Task("fail" if i % 20 == 0 else "work", i, id=f"t{i}") for i in range(10_000)]
        while waiting:
            report = producer.enqueue_batch(waiting[:100], process_in=0.5 if len(waiting) % 500 == 0 else 0.0)
            accepted.update(task.task_id for task in report.accepted)
            unknown.update(report.unknown)
            again = {*report.failed, *report.unknown}
            waiting = [task for task in waiting[:100] if task.id in again] + waiting[100:]

    q.start(handle, concurrency=8)
    sending = threading.Thread(target=send)
    sending.start()
    away: list[float] = []
    for kill in range(3):
        eventually(lambda: len(done) > 2000 * (kill + 1), timeout=120)  # noqa: B023
        before = len(done)
        begin = time.monotonic()
        broker.kill_server()
        eventually(lambda: len(done) > before + 10, timeout=60, what="a worker is deaf")  # noqa: B023
        away.append(time.monotonic() - begin)
    sending.join()
    eventually(lambda: len(done) == 10_000, timeout=120)
    twice = sum(done.values()) - len(done)
    print(
        f"\n3 SIGKILLs of the server, 10,000 tasks: lost {len(accepted - set(done))}, duplicates {twice}, unknown and sent "
        f"again {len(unknown)}, tasks again after {', '.join(f'{seconds:.1f}' for seconds in away)} s, "
        f"buried {q.depth().dead}"
    )
    assert accepted <= set(done)
    assert q.depth().dead == 0


def test_50_starts_and_none_is_deaf(broker: Broker) -> None:
    producer = broker.queue()
    waits: list[float] = []
    for number in range(50):
        q = broker.queue()
        first = threading.Event()
        begin = time.monotonic()
        q.start(lambda task: first.set())  # noqa: B023
        producer.enqueue(Task("t", number))
        assert first.wait(DEAF_AFTER), f"start {number} is deaf"
        waits.append(time.monotonic() - begin)
        assert q.stop()
    print(f"\n50 starts: from start() to the first task at most {max(waits):.2f} s, none deaf")


@pytest.mark.own_server
def test_50_starts_after_kills_of_the_server_and_none_is_deaf(broker: Broker) -> None:
    producer = broker.queue()
    waits: list[float] = []
    for number in range(50):
        if number % 10 == 0:
            broker.kill_server()
        q = broker.queue()
        first = threading.Event()
        begin = time.monotonic()
        q.start(lambda task: first.set())  # noqa: B023
        eventually(lambda: producer.enqueue_batch([Task("t")]).accepted, timeout=60)
        assert first.wait(DEAF_AFTER), f"start {number} is deaf"
        waits.append(time.monotonic() - begin)
        q.stop()
    print(f"\n50 starts, the server killed before every tenth: first task after at most {max(waits):.2f} s, none deaf")
