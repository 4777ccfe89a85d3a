"""Failures: the next attempt, the dead letters, and back again."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from nova import Middleware, Outcome, ReceivedTask, Reject, Retry, Task, with_middleware
from nova.brokers.base import Message
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never

MARGIN = 2.0
"""Seconds by which a loaded machine may be late."""


def test_attempts_are_one_plus_max_retries_then_buried_with_reason_and_bytes(broker: Broker) -> None:
    q = broker.queue()
    attempts: list[tuple[int, int]] = []

    def fail(task: ReceivedTask) -> None:
        attempts.append((task.attempt, task.run))
        raise ValueError(f"no {task.attempt}")

    q.start(fail)
    done = q.enqueue(Task("t", {"n": 1}))
    own = q.enqueue(Task("own", {"n": 2}), max_retries=0)
    eventually(lambda: len(q.dead.list()) == 2)
    dead = {task.id: task for task in q.dead.list()}
    first = dead[done.task_id]
    assert (first.type, first.queue, first.reason, first.attempt) == ("t", "default", "retries exhausted", 3)
    assert first.error_type == "ValueError"
    assert "no 3" in first.error
    assert b'"Type":"t"' in first.body
    assert first.died_at is not None
    assert dead[own.task_id].attempt == 1
    assert Counter(attempts) == Counter([(1, 1), (2, 2), (3, 3), (1, 1)])


def test_gaps_between_attempts_are_the_policys(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 2, "base": 0.2, "cap": 10.0, "jitter": 0.1})
    starts: list[float] = []

    def fail(task: ReceivedTask) -> None:
        starts.append(time.monotonic())
        raise RuntimeError

    q.start(fail)
    q.enqueue(Task("t"))
    eventually(lambda: len(starts) == 3)
    first, second = starts[1] - starts[0], starts[2] - starts[1]
    assert 0.179 <= first < 0.22 + MARGIN
    assert 0.359 <= second < 0.44 + MARGIN


def test_retry_names_its_own_delay_and_reject_goes_straight_to_the_dead(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 1, "base": 30.0})
    starts: list[float] = []

    def steer(task: ReceivedTask) -> None:
        starts.append(time.monotonic())
        if task.type == "rejected":
            raise Reject("never valid")
        if task.attempt == 1:
            raise Retry(delay=0.2)

    q.start(steer)
    q.enqueue(Task("again"))
    eventually(lambda: len(starts) == 2)
    assert 0.199 <= starts[1] - starts[0] < 0.2 + MARGIN
    q.enqueue(Task("rejected"))
    eventually(lambda: [(d.reason, d.attempt) for d in q.dead.list()] == [("rejected", 1)])
    assert "never valid" in q.dead.list()[0].error


def test_an_unknown_type_is_retried_then_buried_as_such(broker: Broker) -> None:
    q = broker.queue()

    @q.task("known")
    def known() -> None: ...

    q.start()
    q.enqueue(Task("stranger"))
    eventually(lambda: [(d.reason, d.attempt) for d in q.dead.list()] == [("unknown type", 3)])


def test_an_undecodable_message_is_buried_at_once_with_its_bytes(broker: Broker) -> None:
    q = broker.queue()
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    bad = Message(topic, b"\xff not json", {"nova-id": "bad", "nova": "1 json"}, "bad")
    strange = Message(topic, b"?", {"nova-id": "strange", "nova": "1 martian"}, "strange")
    assert driver.publish([bad, strange]).result(10) == [None, None]
    handled: list[str] = []
    q.start(lambda task: handled.append(task.id))
    eventually(lambda: len(q.dead.list()) == 2)
    assert {(d.id, d.reason, d.body) for d in q.dead.list()} == {
        ("bad", "undecodable", b"\xff not json"),
        ("strange", "undecodable", b"?"),
    }
    q.enqueue(Task("good", id="good"))
    eventually(lambda: handled == ["good"])
    driver.close()


def test_dead_letters_listed_fifty_times_are_filtered_requeued_and_purged(broker: Broker) -> None:
    q = broker.queue()
    fail = [True]
    runs: list[tuple[str, int, int]] = []

    def handle(task: ReceivedTask) -> None:
        runs.append((task.type, task.attempt, task.run))
        if fail[0]:
            raise Reject

    q.start(handle)
    q.enqueue_batch([Task(f"type{i % 2}", i, id=f"t{i}") for i in range(40)], queue="default")
    eventually(lambda: len(q.dead.list(limit=100)) == 40)
    for _ in range(50):
        assert len(q.dead.list(limit=100)) == 40
    assert len(q.dead.list(type="type0", limit=100)) == 20
    assert len(q.dead.list(limit=7)) == 7
    assert [dead.id for dead in q.dead.list(id="t4")] == ["t4"]
    assert q.depth().dead == 40
    assert sum(entry.dead or 0 for entry in q.depth().queues) == 40
    fail[0] = False
    runs.clear()
    assert q.dead.requeue(id="t3") == 1
    assert q.dead.requeue(type="type0", limit=1000) == 20
    eventually(lambda: len(runs) == 21)
    assert set(runs) == {("type0", 1, 2), ("type1", 1, 2)}
    assert q.dead.purge(type="type1", limit=4) == 4
    left = q.dead.list()[-1].id
    assert q.dead.purge(id=left) == 1
    assert q.dead.purge(id=left) == 0
    assert q.dead.purge() == 14
    assert q.dead.list() == []


def test_a_failing_task_holds_back_no_other(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 50, "base": 0.01, "cap": 0.02})
    seen: set[str] = set()

    def handle(task: ReceivedTask) -> None:
        if task.type == "bad":
            raise RuntimeError
        seen.add(task.id)

    q.start(handle, concurrency=2)
    q.enqueue_batch([Task("bad", i) for i in range(10)])
    q.enqueue_batch([Task("good", i) for i in range(200)])
    eventually(lambda: len(seen) == 200)


def test_hooks_see_every_outcome_and_their_errors_change_nothing(broker: Broker) -> None:
    events: list[str] = []
    errors: list[str] = []

    class Recorder(Middleware):
        def before_enqueue(self, task: Task) -> Task:
            return Task(task.type, task.payload, id=task.id, metadata={"by": "hook"})

        def before_handle(self, task: ReceivedTask) -> None:
            assert task.metadata == {"by": "hook"}

        def after_handle(self, task: ReceivedTask, outcome: Outcome) -> None:
            events.append(f"{task.type} {outcome.status}")
            raise RuntimeError("a hook's own bug")

    q = broker.queue(with_middleware(Recorder()), retry={"max_retries": 1, "base": 0.01})

    def handle(task: ReceivedTask) -> None:
        if task.type == "bad":
            raise RuntimeError("handler")

    def on_error(task: ReceivedTask, error: BaseException) -> None:
        errors.append(f"{task.attempt} {error}")
        raise RuntimeError("another bug")

    q.start(handle, on_error=on_error)
    q.enqueue_batch([Task("good"), Task("bad")])
    eventually(lambda: sorted(events) == ["bad buried", "bad retrying", "good completed"])
    assert errors == ["1 handler", "2 handler"]
    eventually(lambda: q.depth().running == 0)


def test_a_refusing_before_hook_reaches_the_caller(broker: Broker) -> None:
    class Refuse(Middleware):
        def before_enqueue(self, task: Task) -> Task:
            raise PermissionError(task.type)

    q = broker.queue(with_middleware(Refuse()))
    with pytest.raises(PermissionError, match="secret"):
        q.enqueue(Task("secret"))
    never(lambda: q.depth().waiting, during=0.1)


def test_expired_tasks_are_skipped_and_late_ones_dead_lettered(broker: Broker) -> None:
    from datetime import UTC, datetime, timedelta

    q = broker.queue()
    handled: list[str] = []
    q.enqueue(Task("gone"), expires_at=datetime.now(UTC) + timedelta(seconds=0.05))
    q.enqueue(Task("late"), queue_timeout=0.05)
    q.enqueue(Task("fine"), queue_timeout=60, expires_at=datetime.now(UTC) + timedelta(hours=1))
    q.enqueue(Task("delayed"), queue_timeout=30, process_in=0.3)
    never(lambda: False, during=0.1)
    q.start(lambda task: handled.append(task.type))
    eventually(lambda: sorted(handled) == ["delayed", "fine"])
    eventually(lambda: [(d.type, d.reason) for d in q.dead.list()] == [("late", "queue timeout")])
    eventually(lambda: q.depth().waiting + q.depth().running == 0)


def test_a_task_whose_body_alone_names_it_is_buried_and_replayed_under_its_id(broker: Broker) -> None:
    def fail(task: ReceivedTask) -> None:
        raise ValueError(task.id)

    q = broker.queue()
    q.start(fail)
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    body = f'{{"task_id":"foreign-1","task":{{"Type":"t","Payload":null}},"queue":"{topic}","priority":2}}'.encode()
    driver = broker.driver()
    assert driver.publish([Message(topic, body, {}, "foreign-1")]).result(10) == [None]
    driver.close()

    eventually(lambda: len(q.dead.list()) == 1, timeout=20)

    (dead,) = q.dead.list()
    assert (dead.id, dead.type, dead.attempt) == ("foreign-1", "t", 3)
    assert q.dead.requeue(id="foreign-1") == 1


def test_letters_of_many_pages_are_all_listed_and_all_purged(broker: Broker) -> None:
    q = broker.queue()

    def refuse(task: ReceivedTask) -> None:
        raise Reject("no")

    q.start(refuse, concurrency=8)
    q.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(450)])
    eventually(lambda: len(q.dead.list(limit=1000)) == 450, timeout=60)
    assert {letter.id for letter in q.dead.list(limit=1000)} == {f"t{i}" for i in range(450)}
    assert q.dead.purge() == 450
    assert q.dead.list() == []
