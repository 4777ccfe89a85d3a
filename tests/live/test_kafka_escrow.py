"""Long tasks on Kafka: they run once while workers come and go, and again only when their worker is dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from nova import ReceivedTask, Task
from tests.conformance.brokers import Broker, make
from tests.conformance.processes import Workers
from tests.eventually import eventually, never

LEASE = 3.0
BEYOND_DEFAULT = 10.0
"""Seconds: a rebalance, and the `revoke_grace` of a worker that was told nothing."""
TAKEOVER = 40.0
"""Seconds in which a dead holder's task has started again: session, lease and hop, with a wide margin."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path, {"escrow_after": 1.0, "escrow_lease": LEASE, "revoke_grace": 2.0})
    yield made
    made.close()


def test_a_task_longer_than_every_timeout_runs_once_while_workers_come_and_go(broker: Broker) -> None:
    first = broker.queue()
    starts: list[str] = []
    finish = threading.Event()

    def handle(task: ReceivedTask) -> None:
        starts.append(task.id)
        if task.type == "long":
            assert finish.wait(60)

    first.start(handle, concurrency=4)
    first.enqueue(Task("long", id="long"))
    eventually(lambda: starts == ["long"])
    for _ in range(3):  # each joins and leaves: two rebalances
        other = broker.queue()
        other.start(handle, concurrency=4)
        never(lambda: starts.count("long") > 1, during=2.0)
        other.enqueue_batch([Task("short", i) for i in range(20)])
        assert other.stop()
    assert first.depth().running == 1, "it is in escrow"
    finish.set()
    eventually(lambda: first.depth().running == 0)
    never(lambda: starts.count("long") > 1, during=LEASE + 2, what="the copy in escrow falls due and is dropped")
    eventually(lambda: len(starts) == 61)


def test_a_task_still_running_when_its_partition_must_go_stays_with_its_worker(broker: Broker) -> None:
    """Before `escrow_after` has passed a rebalance moves the partition."""
    q = broker.queue()
    starts: list[str] = []
    finish = threading.Event()

    def handle(task: ReceivedTask) -> None:
        starts.append(task.id)
        assert finish.wait(60)

    q.start(handle, concurrency=8)
    q.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(8)])
    eventually(lambda: len(starts) == 8)
    other = broker.queue()
    other.start(handle, concurrency=8)
    never(lambda: len(starts) > 8, during=LEASE + 3)
    finish.set()
    never(lambda: len(starts) > 8, during=LEASE + 2)
    assert sorted(starts) == sorted(f"t{i}" for i in range(8))
    eventually(lambda: q.depth().running + q.depth().waiting == 0)


def test_tasks_that_end_within_revoke_grace_need_no_escrow(tmp_path: Path) -> None:
    broker = make("kafka", tmp_path, {"revoke_grace": 30.0})
    finish = threading.Event()
    ended: list[str] = []

    def handle(task: ReceivedTask) -> None:
        assert finish.wait(60)
        ended.append(task.id)

    try:
        q = broker.queue()
        q.start(handle, concurrency=8)
        q.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(8)])
        eventually(lambda: q.depth().running == 8)
        broker.queue().start(handle, concurrency=8)
        never(lambda: ended, during=BEYOND_DEFAULT)
        finish.set()
        eventually(lambda: q.depth().running == 0)
        assert sorted(ended) == sorted(f"t{i}" for i in range(8))
        assert written(broker, f"{broker.prefix}_LEASE") == 0
    finally:
        finish.set()
        broker.close()


def written(broker: Broker, topic: str) -> int:
    """How many records the topic ever got."""
    reader = Consumer({"bootstrap.servers": broker.section["bootstrap_servers"], "group.id": "reader"})
    try:
        numbers = reader.list_topics(topic, timeout=10).topics[topic].partitions
        return sum(reader.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1] for number in numbers)
    finally:
        reader.close()


def test_a_long_task_that_fails_is_retried_once_and_not_by_the_escrow_too(broker: Broker) -> None:
    q = broker.queue()
    runs: list[tuple[int, float]] = []

    def handle(task: ReceivedTask) -> None:
        runs.append((task.attempt, time.monotonic()))
        if task.attempt == 1:
            time.sleep(2.0)  # longer than escrow_after
            raise RuntimeError("once")

    q.start(handle, concurrency=2)
    q.enqueue(Task("t"))
    eventually(lambda: [attempt for attempt, _ in runs] == [1, 2])
    never(lambda: len(runs) > 2, during=LEASE + 3)


def test_a_dead_holders_task_runs_again_and_a_killer_ends_in_the_dead_letters(broker: Broker, tmp_path: Path) -> None:
    workers = Workers(broker.config(retry={"max_retries": 3, "base": 0.02}), tmp_path / "log")
    q = broker.queue()
    try:
        q.enqueue(Task("hold", id="held"))
        for death in range(6):
            process = workers.start("handle")
            eventually(lambda: workers.words("start")["held"] == death + 1, timeout=TAKEOVER)  # noqa: B023
            never(lambda: process.poll() is not None, during=2.0, what="long enough to be in escrow")  # noqa: B023
            workers.kill(process)
        workers.start("handle")
        eventually(lambda: q.dead.list(), timeout=TAKEOVER)
        assert [(dead.id, dead.reason) for dead in q.dead.list()] == [("held", "crashed its worker 3 times")]
        assert workers.words("start")["held"] == 6
    finally:
        workers.close()
