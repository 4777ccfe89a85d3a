"""The options of RocketMQ reach its server; docs/coming-from-go-nova.md says which are Go's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nova import ReceivedTask, Task, TaskQueue, with_group_id, with_rocketmq, with_topic_prefix
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.config import RocketMQConfig
from tests.conformance.brokers import Broker, make
from tests.conformance.processes import Workers
from tests.eventually import eventually

EARLY = 1.0
"""Seconds by which a lease may seem to end early: the server looks once a second."""
LATE = 4.0
"""Seconds by which it may seem to end late: the server looks every second, and the machine may be busy."""
WELL_BEFORE_DEFAULT = 4.0
"""Seconds: receives that were told a third of a second have ended, one that was told nothing has begun just now."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("rocketmq", tmp_path)
    yield made
    made.close()


@pytest.fixture
def admin(broker: Broker) -> Iterator[Admin]:
    made = Admin(RocketMQConfig(**broker.section), "rocketmq", 10)
    yield made
    made.close()


def queue(broker: Broker, **options: Any) -> TaskQueue:
    """A queue without options of its own beside the driver's."""
    return TaskQueue(
        with_rocketmq(**{**broker.section, **options}), with_topic_prefix(broker.prefix), with_group_id("g")
    )


def test_max_reconsume_times_are_the_runs_after_the_first(broker: Broker) -> None:
    runs: list[int] = []

    def fail(task: ReceivedTask) -> None:
        runs.append(task.attempt)
        raise ValueError("always")

    q = queue(broker, max_reconsume_times=1)
    try:
        q.start(fail)
        q.enqueue(Task("t"))
        eventually(lambda: len(q.dead.list()) == 1, timeout=20)
        assert runs == [1, 2]
    finally:
        q.stop(timeout=5)


@pytest.mark.parametrize("lease", [2.0, 10.0])
def test_a_dead_workers_task_comes_back_after_invisible_duration(broker: Broker, tmp_path: Path, lease: float) -> None:
    """Go's consume timeout: how long the server lends a task. It is renewed at half of it for as long as a handler runs."""
    broker.section = {**broker.section, "invisible_duration": lease}
    workers = Workers(broker.config(), tmp_path / "log")
    back: list[float] = []
    try:
        first = workers.start("handle")
        broker.queue().enqueue(Task("hold"))
        eventually(lambda: len(workers.lines("start")) == 1, timeout=20)
        began = time.time()
        workers.kill(first)
        broker.queue().start(lambda task: back.append(time.time()))
        eventually(lambda: back, timeout=lease + 20)
    finally:
        workers.close()
    assert lease / 2 - EARLY <= back[0] - began <= lease + LATE


def test_a_stop_waits_no_longer_than_poll_timeout_for_a_receive(broker: Broker) -> None:
    done = threading.Event()
    q = broker.queue()
    assert broker.section["poll_timeout"] == 0.3
    q.start(lambda task: done.set())
    q.enqueue(Task("t"))
    assert done.wait(15)
    began = time.monotonic()
    assert q.stop()
    assert time.monotonic() - began < WELL_BEFORE_DEFAULT


def test_topics_have_as_many_queues_as_told(broker: Broker, admin: Admin) -> None:
    broker.section = {**broker.section, "queues_per_topic": 3}
    done = threading.Event()
    q = broker.queue()
    q.start(lambda task: done.set())
    q.enqueue(Task("t"))
    assert done.wait(15)
    settings = [server.topic(f"{broker.prefix}_PRIORITY_NORMAL") for server in admin.brokers("a test")]
    assert [(found["readQueueNums"], found["writeQueueNums"]) for found in settings if found] == [(3, 3)]
