"""Concurrency and priority: exact slots, weights, reserves."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from nova import Priority, ReceivedTask, Task, with_priority_weights
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never


class Gate:
    """Counts handlers that run at once and holds them until opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.running: Counter[Priority] = Counter()
        self.most = 0
        self.started: list[Priority] = []
        self._lock = threading.Lock()

    def handle(self, task: ReceivedTask) -> None:
        with self._lock:
            self.running[task.priority] += 1
            self.started.append(task.priority)
            self.most = max(self.most, sum(self.running.values()))
        assert self.open.wait(30)
        with self._lock:
            self.running[task.priority] -= 1


@pytest.mark.parametrize("concurrency", [1, 2, 3, 4, 16])
def test_one_class_alone_gets_exactly_the_concurrency(broker: Broker, concurrency: int) -> None:
    q, gate = broker.queue(), Gate()
    q.start(gate.handle, concurrency=concurrency)
    q.enqueue_batch([Task("t", i) for i in range(40)])
    eventually(lambda: gate.running[Priority.NORMAL] == concurrency)
    never(lambda: gate.most > concurrency, during=0.3)
    gate.open.set()
    eventually(lambda: len(gate.started) == 40)
    assert gate.most == concurrency


def test_concurrency_one_never_runs_two_whatever_the_classes(broker: Broker) -> None:
    q, gate = broker.queue(), Gate()
    gate.open.set()
    q.start(gate.handle, concurrency=1)
    for rank in Priority:
        q.enqueue_batch([Task("t", i) for i in range(50)], priority=rank)
    eventually(lambda: len(gate.started) == 150)
    assert gate.most == 1


def test_reserved_slots_take_high_and_low_behind_a_full_house(broker: Broker) -> None:
    q, gate = broker.queue(), Gate()
    q.start(gate.handle, concurrency=8)
    q.enqueue_batch([Task("t", i) for i in range(50)])
    eventually(lambda: gate.running[Priority.NORMAL] == 8)
    q.enqueue_batch([Task("t", i) for i in range(20)], priority=Priority.HIGH)
    q.enqueue_batch([Task("t", i) for i in range(20)], priority=Priority.LOW)
    eventually(lambda: gate.running == {Priority.HIGH: 2, Priority.NORMAL: 8, Priority.LOW: 1})
    never(lambda: gate.most > 11, during=0.3)
    gate.open.set()
    eventually(lambda: len(gate.started) == 90)


def test_an_own_reserve_gives_high_a_slot_at_concurrency_one(broker: Broker) -> None:
    q, gate = broker.queue(with_priority_weights(reserve=1)), Gate()
    q.start(gate.handle, concurrency=1)
    q.enqueue_batch([Task("t", i) for i in range(5)], priority=Priority.LOW)
    eventually(lambda: gate.running[Priority.LOW] == 1)
    q.enqueue_batch([Task("t", i) for i in range(5)], priority=Priority.HIGH)
    eventually(lambda: gate.running == {Priority.LOW: 1, Priority.HIGH: 1})
    never(lambda: gate.most > 2, during=0.2)
    gate.open.set()
    eventually(lambda: len(gate.started) == 10)


def test_high_overtakes_a_low_backlog_and_low_goes_on(broker: Broker) -> None:
    q = broker.queue()
    waits: list[float] = []
    low: list[float] = []

    def handle(task: ReceivedTask) -> None:
        if task.priority is Priority.HIGH:
            waits.append(time.time() - task.json())
        else:
            low.append(time.monotonic())
            time.sleep(0.1)

    q.enqueue_batch([Task("low", i) for i in range(400)], priority=Priority.LOW)
    q.start(handle, concurrency=4)
    eventually(lambda: len(low) >= 4)
    for _ in range(10):
        q.enqueue(Task("high", time.time()), priority=Priority.HIGH)
        time.sleep(0.05)  # the rate of the high tasks
    eventually(lambda: len(waits) == 10)
    assert sorted(waits)[8] < 1.0, "wide margin: the low backlog alone lasts 10 s"
    count = len(low)
    eventually(lambda: len(low) > count)
    q.stop(timeout=5)
