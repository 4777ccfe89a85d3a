"""A broker that is away, or comes back: clear errors for producers, patience in workers, nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from nova import NovaError, ReceivedTask, Task
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never

AWAY = 3.0
"""Seconds a broker is away here: longer than every first wait of a worker."""
STATED = 40.0
"""Seconds in which an enqueue must have ended, whatever the broker does."""


@pytest.mark.own_server
def test_a_worker_outlives_an_absent_broker_and_no_accepted_task_is_lost(
    broker: Broker, requires: Callable[[str], None]
) -> None:
    requires("broker away")
    q, producer = broker.queue(), broker.queue()
    seen: set[str] = set()

    def handle(task: ReceivedTask) -> None:
        if task.type == "fails" and task.attempt == 1:
            raise RuntimeError
        time.sleep(0.01)  # so that work goes on when the broker leaves
        seen.add(task.id)

    accepted = {f"t{i}" for i in range(300)}
    producer.enqueue_batch([Task("fails" if i % 10 == 0 else "t", i, id=f"t{i}") for i in range(300)])
    q.start(handle, concurrency=4)
    eventually(lambda: len(seen) > 20)
    errors: list[NovaError] = []
    with broker.away():
        started = time.monotonic()
        while time.monotonic() - started < AWAY:
            try:
                accepted.add(producer.enqueue(Task("t", id=f"away-{len(errors)}")).task_id)
            except NovaError as exc:
                errors.append(exc)
        assert time.monotonic() - started < AWAY + STATED
    assert errors, "nothing was refused: the broker was not away"
    assert broker.name in str(errors[0])
    accepted.add(producer.enqueue(Task("t", id="after")).task_id)
    eventually(lambda: accepted <= seen, timeout=60)
    eventually(lambda: q.depth().running == 0, timeout=60)
    assert q.dead.list() == []
    age = q.last_receive_age
    assert age is not None
    assert age < 10


@pytest.mark.own_server
@pytest.mark.timeout(300)  # three starts of a server, of which one took 40 s on a machine with a load of 26
def test_a_killed_server_loses_nothing_and_leaves_no_deaf_worker(
    broker: Broker, requires: Callable[[str], None]
) -> None:
    requires("server killed")
    q, producer = broker.queue(), broker.queue()
    seen: set[str] = set()
    q.start(lambda task: seen.add(task.id))
    accepted: set[str] = set()
    stop = threading.Event()

    def produce() -> None:
        number = 0
        while not stop.is_set():
            report = producer.enqueue_batch([Task("t", id=f"t{number}-{i}") for i in range(10)])
            accepted.update(done.task_id for done in report.accepted)
            number += 1

    thread = threading.Thread(target=produce)
    thread.start()
    for _ in range(3):
        eventually(lambda: len(seen) > 100)
        broker.kill_server()
    stop.set()
    thread.join()
    eventually(lambda: accepted <= seen, timeout=60)
    never(lambda: q.dead.list(), during=0.1)
