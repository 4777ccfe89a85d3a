"""Two groups on one prefix: what one does with a task never reaches the other."""

from __future__ import annotations

from nova import ReceivedTask, Reject, Task
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never

SETTLE = 0.5
"""Seconds in which a stray copy would have come."""


def test_a_fails_twice_a_runs_three_times_and_b_once(broker: Broker) -> None:
    a, b = broker.queue(group="a"), broker.queue(group="b")
    runs_a: list[int] = []
    runs_b: list[int] = []

    def fail_twice(task: ReceivedTask) -> None:
        runs_a.append(task.attempt)
        if task.attempt < 3:
            raise RuntimeError("not yet")

    a.start(fail_twice)
    b.start(lambda task: runs_b.append(task.attempt))
    a.enqueue(Task("t"))
    eventually(lambda: runs_a == [1, 2, 3])
    never(lambda: len(runs_a) > 3 or len(runs_b) > 1, during=SETTLE)
    assert runs_b == [1]


def test_what_a_buries_only_a_lists_and_what_a_requeues_only_a_runs(broker: Broker) -> None:
    a, b = broker.queue(group="a"), broker.queue(group="b")
    runs_a: list[int] = []
    runs_b: list[str] = []

    def reject_first(task: ReceivedTask) -> None:
        runs_a.append(task.run)
        if task.run == 1:
            raise Reject("first run")

    a.start(reject_first)
    b.start(lambda task: runs_b.append(task.id))
    done = b.enqueue(Task("t"))
    eventually(lambda: a.dead.list())
    assert [dead.id for dead in a.dead.list()] == [done.task_id]
    assert b.dead.list() == []
    assert b.dead.requeue() == 0
    assert a.dead.requeue() == 1
    eventually(lambda: runs_a == [1, 2])
    never(lambda: len(runs_b) > 1, during=SETTLE)
    assert a.dead.list() == []


def test_workers_of_one_group_share_the_tasks(broker: Broker) -> None:
    one, two = broker.queue(), broker.queue()
    seen: list[str] = []
    for q in (one, two):
        q.start(lambda task: seen.append(task.id))
    one.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(500)])
    eventually(lambda: len(set(seen)) == 500)
    never(lambda: len(seen) > 500, during=SETTLE)
