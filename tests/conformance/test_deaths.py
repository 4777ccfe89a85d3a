"""Processes that die: nothing is lost, a killer is found, a zombie changes nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nova import CountAggregator, Task
from nova.brokers.base import Message
from tests.conformance.brokers import Broker
from tests.conformance.processes import Workers
from tests.eventually import eventually, never

LEASE = 60.0
"""Seconds a test waits for work to come back after a death; leases here are 2 s."""


@pytest.fixture
def workers(broker: Broker, tmp_path: Path, requires: Callable[[str], None]) -> Iterator[Workers]:
    requires("survives the death of its processes")
    made = Workers(broker.config(retry={"max_retries": 3, "base": 0.02}), tmp_path / "log")
    yield made
    made.close()


def test_work_of_a_killed_worker_is_done_by_another(broker: Broker, workers: Workers) -> None:
    q = broker.queue()
    q.enqueue_batch([Task("work" if i % 5 else "fail", i, id=f"t{i}") for i in range(1000)])
    first = workers.start("handle")
    eventually(lambda: len(workers.words("done")) > 100, timeout=30)
    workers.kill(first)
    workers.start("handle")
    eventually(lambda: len(workers.words("done")) == 1000, timeout=LEASE)
    eventually(lambda: q.depth().running + q.depth().waiting + q.depth().delayed == 0, timeout=LEASE)
    assert q.dead.list() == []


def test_a_batch_killed_inside_its_handler_is_seen_again(broker: Broker, workers: Workers) -> None:
    q = broker.queue()
    q.enqueue_batch([Task("row", i, id=f"t{i}") for i in range(100)])
    first = workers.start("batch")
    eventually(lambda: workers.words("batch"), timeout=30)
    workers.kill(first)
    assert len(workers.words("done")) < 100
    workers.start("batch")
    eventually(lambda: len(workers.words("done")) == 100, timeout=LEASE)


def test_what_was_accepted_before_the_producer_died_is_stored(broker: Broker, workers: Workers) -> None:
    producer = workers.start("enqueue")
    eventually(lambda: len(workers.words("accepted")) > 500, timeout=30)
    workers.kill(producer)
    accepted = set(workers.words("accepted"))
    seen: set[str] = set()
    broker.queue().start(lambda task: seen.add(task.id))
    eventually(lambda: accepted <= seen, timeout=LEASE)


def test_a_task_that_kills_its_process_is_buried_and_takes_no_other_with_it(broker: Broker, workers: Workers) -> None:
    q = broker.queue()
    q.enqueue_batch([Task("work", i, id=f"t{i}") for i in range(200)])
    q.enqueue(Task("exit", id="killer"))
    deaths = 0
    while not q.dead.list():
        process = workers.start("handle")
        while process.poll() is None and not q.dead.list():
            never(lambda: False, during=0.05)
        deaths += process.poll() is not None
        assert deaths <= 6
        if process.poll() is None:
            workers.kill(process, signal.SIGTERM)
        else:
            workers.alive.remove(process)
    assert [(d.id, d.reason) for d in q.dead.list()] == [("killer", "crashed its worker 3 times")]
    workers.start("handle")
    eventually(lambda: len(workers.words("done")) == 200, timeout=LEASE)
    eventually(lambda: q.depth().quarantined == 0)


def test_clean_restarts_charge_nobody(broker: Broker, workers: Workers) -> None:
    q = broker.queue()
    q.enqueue_batch([Task("work", i, id=f"t{i}") for i in range(3000)])
    for _ in range(5):
        process = workers.start("handle")
        before = len(workers.words("done"))
        eventually(lambda: len(workers.words("done")) > before, timeout=30)  # noqa: B023
        assert workers.kill(process, signal.SIGTERM) == 0
    workers.start("handle")
    eventually(lambda: len(workers.words("done")) == 3000, timeout=60)
    assert set(workers.words("done").values()) == {1}, "a clean stop duplicates nothing"
    assert set(workers.words("start").values()) == {1}
    assert q.dead.list() == []


def test_a_zombie_cannot_settle_what_another_worker_took(broker: Broker, workers: Workers) -> None:
    q = broker.queue()
    q.enqueue(Task("hold", id="held"))
    zombie = workers.start("handle")
    eventually(lambda: workers.words("start")["held"] == 1, timeout=30)
    zombie.send_signal(signal.SIGSTOP)
    heir = workers.start("handle")
    eventually(lambda: workers.words("start")["held"] == 2, timeout=LEASE)
    zombie.send_signal(signal.SIGCONT)
    never(lambda: workers.words("start")["held"] > 2, during=1.0)
    workers.kill(zombie)
    assert broker.tells(q.depth(), running=1, waiting=0), "the heir still holds it"
    workers.kill(heir)


def test_processes_wake_each_other(broker: Broker, workers: Workers, requires: Callable[[str], None]) -> None:
    requires("shared between processes")
    workers.start("handle")
    q = broker.queue()
    for n in range(10):
        q.enqueue(Task("t", id=f"wake{n}"))
        eventually(lambda: workers.words("done")[f"wake{n}"] == 1, timeout=10)  # noqa: B023
    assert os.getpid() not in {process.pid for process in workers.alive}


def test_a_suspect_is_only_run_by_the_workers_of_its_own_queue(broker: Broker) -> None:
    """The quarantine of one queue must not hand its tasks to another queue's handler."""
    q = broker.queue()
    ran: list[tuple[str, str]] = []
    driver = broker.driver()
    topic = f"{broker.prefix}-imports_QUARANTINE"
    driver.ensure([topic])
    headers = {
        "nova-id": "suspect",
        "task_type": "row",
        "nova": "1 blob",
        "nova-target": f"{broker.prefix}-imports",
    }
    suspect = Message(topic, b"x", {**headers, "nova-group": "g"}, "suspect", group="g")
    assert driver.publish([suspect]).result(10) == [None]
    q.start(lambda task: ran.append(("default", task.id)))
    never(lambda: ran, during=0.5)
    q.start_batch(lambda batch: ran.extend(("imports", i) for i in batch.ids), CountAggregator(5), queues=["imports"])
    eventually(lambda: ran == [("imports", "suspect")])
    driver.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_stop_at_once(broker: Broker, workers: Workers, number: int) -> None:
    q = broker.queue()
    q.enqueue(Task("hold", id="held"))
    process = workers.start("handle")
    eventually(lambda: workers.words("start")["held"] == 1, timeout=30)
    process.send_signal(number)
    never(lambda: process.poll() is not None, during=0.5, what="the first signal waits for the handler, up to 20 s")
    process.send_signal(number)
    eventually(lambda: process.poll() is not None, timeout=10)
    workers.alive.remove(process)
    workers.start("handle")
    eventually(lambda: workers.words("start")["held"] == 2, timeout=LEASE)
