"""Delays: durable, never early, on time."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta

from nova import ReceivedTask, Task
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never

MARGIN = 2.0
"""Seconds by which a loaded machine may be late; `make chaos` measures the real figures."""


def test_delayed_tasks_are_never_early_and_come_on_time(broker: Broker) -> None:
    q = broker.queue()
    late: list[float] = []

    def handle(task: ReceivedTask) -> None:
        now = time.time()
        assert task.due_at is not None
        late.append(now - task.due_at.timestamp())

    q.start(handle)
    chance = random.Random(3)
    for _ in range(100):
        q.enqueue(Task("t"), process_in=chance.uniform(0.001, 1.5))
    eventually(lambda: len(late) == 100)
    assert min(late) >= 0
    assert sorted(late)[98] < broker.driver().capabilities.delay_p99 + MARGIN


def test_a_due_time_in_the_past_means_now(broker: Broker) -> None:
    q = broker.queue()
    seen = threading.Event()
    q.start(lambda task: seen.set())
    assert q.enqueue(Task("t"), process_at=datetime.now(UTC) - timedelta(days=1)).due_at is None
    assert seen.wait(10)


def test_a_sooner_task_enqueued_later_comes_first(broker: Broker) -> None:
    q = broker.queue()
    order: list[str] = []
    q.start(lambda task: order.append(task.type))
    q.enqueue(Task("later"), process_in=1.0)
    q.enqueue(Task("sooner"), process_in=0.2)
    eventually(lambda: order == ["sooner", "later"])


def test_a_delayed_task_survives_the_end_of_every_worker(broker: Broker) -> None:
    first = broker.queue()
    first.start(lambda task: None)
    first.enqueue(Task("t", id="years"), process_in=timedelta(days=3650))
    first.enqueue(Task("t", id="kept"), process_in=1.0)
    first.stop()
    seen: list[str] = []
    second = broker.queue()
    second.start(lambda task: seen.append(task.id))
    eventually(lambda: seen == ["kept"])
    never(lambda: "years" in seen, during=0.3)
    eventually(lambda: broker.tells(second.depth(), delayed=1, running=0, waiting=0))


def test_delayed_tasks_have_a_priority(broker: Broker) -> None:
    q = broker.queue()
    q.enqueue(Task("t"), process_in=0.3, priority=3)
    q.enqueue(Task("t"), process_in=30, priority=3)
    assert all(entry.priority == 3 for entry in q.depth().queues if entry.delayed)
    assert broker.tells(q.depth(), delayed=2) or broker.tells(q.depth(), delayed=1)
    seen: list[int] = []
    q.start(lambda task: seen.append(task.priority))
    eventually(lambda: seen == [3])
