"""RabbitMQ under SIGKILLs of the server, and starts without number: `make chaos`. Results: docs/measurements.md."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova import Task, TaskQueue
from tests.chaos.server_kills import three_kills_under_10_000_tasks_lose_nothing
from tests.chaos.sizes import on_disk, resident
from tests.conformance.brokers import Broker, make
from tests.conformance.processes import Workers
from tests.eventually import eventually
from tests.live.leaderless import hold_beside
from tests.servers.rabbitmq.finding import private_node
from tests.servers.rabbitmq.server import RabbitServer

DEAF_AFTER = 20.0
"""Seconds within which a worker must have its first task.""" ""

HELD_FOR = 220.0
"""More than twice the 95 s after which the server ends a connection that waits for a leader."""


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    made = make("rabbitmq", tmp_path, own_server=request.node.get_closest_marker("own_server") is not None)
    yield made
    made.close()


@pytest.mark.own_server
def test_three_kills_of_the_server_under_10_000_tasks_lose_nothing(broker: Broker) -> None:
    three_kills_under_10_000_tasks_lose_nothing(broker, catch_up=120, back=60)


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


def test_what_the_neighbours_of_a_queue_without_a_leader_hold_for_long_stays_theirs(tmp_path: Path) -> None:
    server = private_node(tmp_path)
    try:
        after = hold_beside(server, "LONG", HELD_FOR)
    finally:
        server.stop()
    print(
        f"\nheld for {HELD_FOR:g} s beside a queue without a leader: none given to others, none counted, nothing piled up;"
        f" its own tasks {after:.1f} s after the leader was back"
    )


def test_a_million_delayed_tasks_cost_a_worker_little_and_a_server_some_disk(tmp_path: Path) -> None:
    server = private_node(tmp_path / "server")
    broker = Broker("rabbitmq", {"url": server.address}, "MILLION")
    workers = Workers(broker.config(retry={"max_retries": 3, "base": 0.05}), tmp_path / "log")
    try:
        line = _a_million_delayed(server, tmp_path / "server" / "data", broker.queue(), workers)
    finally:
        workers.close()
        broker.close()
        server.stop()
    print(f"\n1,000,000 delayed tasks of 1 hour to 30 days: {line}")


def _a_million_delayed(server: RabbitServer, data: Path, q: TaskQueue, workers: Workers) -> str:
    worker = workers.start("handle")
    q.enqueue(Task("work", id="warm"))
    eventually(lambda: workers.words("done")["warm"] == 1, timeout=30)
    assert server.pid is not None
    before = resident(worker.pid), resident(server.pid), on_disk(data)
    chance, begin = random.Random(3), time.monotonic()
    peak, most = before[0], before[2]
    for n in range(0, 1_000_000, 2000):
        q.enqueue_batch(
            [Task("work", "x" * 100, id=f"t{i}") for i in range(n, n + 2000)],
            process_in=chance.uniform(3600, 30 * 86_400),
        )
        peak, most = max(peak, resident(worker.pid)), max(most, on_disk(data))
    sent = time.monotonic() - begin
    q.enqueue(Task("work", id="still"), process_in=1.0)
    eventually(lambda: workers.words("done")["still"] == 1, timeout=30)
    after = resident(worker.pid), resident(server.pid), on_disk(data)
    assert peak - before[0] < 100 << 20
    return (
        f"enqueued in {sent:.0f} s; worker {_mb(before[0])} MB before, {_mb(peak)} MB at most; server's memory"
        f" {_mb(before[1])} to {_mb(after[1])} MB, its disk {_mb(before[2])} to {_mb(after[2])} MB, {_mb(most)} MB at most"
    )


def _mb(size: int) -> int:
    return size >> 20
