"""RabbitMQ under SIGKILLs of the server, and starts without number: `make chaos`. Results: docs/measurements.md."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova import Task
from tests.chaos.server_kills import three_kills_under_10_000_tasks_lose_nothing
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually
from tests.live.leaderless import hold_beside
from tests.servers.rabbitmq.finding import private_node

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
