"""Two groups on one prefix: what one does with a task never reaches the other. Groups are listed and removed."""

from __future__ import annotations

import pytest

from nova import BrokerError, GroupInfo, ReceivedTask, Reject, Task, TaskQueue
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never

SETTLE = 0.5
"""Seconds in which a stray copy would have come."""


def register(broker: Broker, *groups: str) -> None:
    """Let each group read the default queue once, and stop its worker again."""
    for group in groups:
        q = broker.queue(group=group)
        q.start(lambda task: None)
        assert q.stop()


def groups_of(q: TaskQueue) -> dict[str, GroupInfo]:
    return {group.name: group for group in q.groups.list()}


def remove(q: TaskQueue, group: str) -> None:
    """Remove a group, as soon as the broker has seen that its workers are gone."""
    eventually(lambda: not groups_of(q)[group].active)
    assert q.groups.remove(group) is True
    assert q.groups.remove(group) is False


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


def test_groups_are_listed_with_their_queues_and_what_is_kept_for_them(broker: Broker) -> None:
    a, b = broker.queue(group="a"), broker.queue(group="b", queues=["default", "mail"])
    seen: list[str] = []
    assert b.groups.list() == []
    a.start(lambda task: None)
    b.start(lambda task: seen.append(task.id))
    eventually(lambda: [(g.name, g.queues, g.active) for g in b.groups.list()] == [
        ("a", ("default",), True), ("b", ("default", "mail"), True),
    ])  # fmt: skip
    both = groups_of(b)
    assert set(both["a"].topics) < set(both["b"].topics)
    assert all(topic.startswith(broker.prefix) for topic in both["b"].topics)
    assert a.stop()
    b.enqueue_batch([Task("t", i) for i in range(5)])
    eventually(lambda: len(seen) == 5)
    eventually(lambda: [(g.name, g.waiting, g.active) for g in b.groups.list()] == [("a", 5, False), ("b", 0, True)])


def test_removing_a_group_drops_what_is_kept_for_it_and_leaves_the_others_alone(broker: Broker) -> None:
    def reject(task: ReceivedTask) -> None:
        raise Reject("no")

    a, b = broker.queue(group="a"), broker.queue(group="b")
    a.start(reject)
    b.start(reject)
    a.enqueue(Task("t", id="dead"))
    eventually(lambda: len(a.dead.list()) == len(b.dead.list()) == 1)
    assert a.stop()
    assert b.stop()
    q = broker.queue(group="other")
    q.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(4)])
    q.enqueue(Task("t", id="late"), process_in=1.0)
    remove(q, "a")
    assert list(groups_of(q)) == ["b"]

    a, b = broker.queue(group="a"), broker.queue(group="b")
    runs_a: list[str] = []
    runs_b: list[str] = []
    a.start(lambda task: runs_a.append(task.id))
    b.start(lambda task: runs_b.append(task.id))
    eventually(lambda: sorted(runs_b) == ["late", "t0", "t1", "t2", "t3"])
    never(lambda: runs_a, during=SETTLE)
    assert a.dead.list() == []
    assert [dead.id for dead in b.dead.list()] == ["dead"]


def test_a_removed_group_that_starts_again_gets_what_is_enqueued_from_then_on(broker: Broker) -> None:
    register(broker, "a", "b")
    q = broker.queue(group="b")
    q.enqueue(Task("t", id="before"))
    remove(q, "a")
    q.enqueue(Task("t", id="between"))
    a = broker.queue(group="a")
    runs: list[str] = []
    a.start(lambda task: runs.append(task.id))
    q.enqueue(Task("t", id="after"))
    eventually(lambda: runs)
    never(lambda: runs != ["after"], during=SETTLE)


def test_a_queue_whose_last_group_is_removed_waits_for_a_first_one_again(broker: Broker) -> None:
    register(broker, "a")
    q = broker.queue(group="a")
    q.enqueue(Task("t", id="dropped"))
    remove(q, "a")
    assert q.groups.list() == []
    q.enqueue(Task("t", id="kept"))
    b = broker.queue(group="b")
    runs: list[str] = []
    b.start(lambda task: runs.append(task.id))
    eventually(lambda: runs)
    never(lambda: runs != ["kept"], during=SETTLE)


def test_a_group_with_running_workers_is_not_removed(broker: Broker) -> None:
    a, q = broker.queue(group="a"), broker.queue(group="b")
    runs: list[str] = []
    a.start(lambda task: runs.append(task.id))
    eventually(lambda: groups_of(q)["a"].active)
    with pytest.raises(BrokerError, match="'a' has running workers; stop its workers first"):
        q.groups.remove("a")
    done = q.enqueue(Task("t"))
    eventually(lambda: runs == [done.task_id])
    assert a.stop()
    remove(q, "a")


def test_a_group_is_removed_from_its_own_prefix_only(broker: Broker) -> None:
    long = f"{broker.prefix}-long"
    for prefix in (broker.prefix, long):
        q = broker.queue(group="a", topic_prefix=prefix)
        q.start(lambda task: None)
        assert q.stop()
    short, other = broker.queue(group="a"), broker.queue(group="a", topic_prefix=long)
    other.enqueue(Task("t", id="kept"))
    assert not set(groups_of(short)["a"].topics) & set(groups_of(other)["a"].topics)
    remove(short, "a")
    assert list(groups_of(other)) == ["a"]
    runs: list[str] = []
    other.start(lambda task: runs.append(task.id))
    eventually(lambda: runs == ["kept"])
