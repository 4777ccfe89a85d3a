"""What `enqueue` promises: stored, refused before anything is sent, or told apart."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from nova import EncodeError, Priority, QueueClosed, ReceivedTask, Task, priority, process_in, queue
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never, soon


def test_enqueue_returns_what_was_stored(broker: Broker) -> None:
    q = broker.queue()
    before = datetime.now(UTC)
    done = q.enqueue(
        Task("t", 1, id="mine"), queue("imports"), priority(Priority.HIGH), process_in(timedelta(minutes=5))
    )
    assert (done.task_id, done.queue, done.priority) == ("mine", "imports", Priority.HIGH)
    assert done.due_at is not None
    assert timedelta(seconds=299) < done.due_at - before < timedelta(seconds=305)
    assert q.enqueue(Task("t")).due_at is None
    soon(lambda: broker.tells(q.depth(["default", "imports"]), waiting=1, delayed=1))


def test_a_task_enqueued_before_any_worker_waits_for_the_first_group(broker: Broker) -> None:
    broker.queue(group="TASK_QUEUE_GROUP").enqueue_batch([Task("t", i, id=f"t{i}") for i in range(20)])
    seen: set[str] = set()
    broker.queue(group="somebody-else").start(lambda task: seen.add(task.id))
    eventually(lambda: len(seen) == 20)


def test_the_handler_sees_what_was_enqueued(broker: Broker) -> None:
    q = broker.queue()
    seen: list[ReceivedTask] = []
    q.start(seen.append)
    done = q.enqueue(Task("email.send", {"to": "ä@b.c"}, key="k", metadata={"tenant": "ü"}), priority=Priority.LOW)
    eventually(lambda: seen)
    (task,) = seen
    assert (task.id, task.type, task.queue, task.priority) == (done.task_id, "email.send", "default", Priority.LOW)
    assert (task.json(), task.key, task.metadata) == ({"to": "ä@b.c"}, "k", {"tenant": "ü"})
    assert (task.attempt, task.run) == (1, 1)
    assert task.created_at is not None
    assert abs(task.created_at - datetime.now(UTC)) < timedelta(seconds=30)


def test_a_bad_task_in_a_batch_sends_none_of_it(broker: Broker) -> None:
    q = broker.queue()
    limit = broker.driver().capabilities.max_body_bytes
    with pytest.raises(EncodeError, match="'bad'"):
        q.enqueue_batch([Task("good"), Task("bad", {"x": object()})])
    with pytest.raises(EncodeError, match=f"takes at most {limit}"):
        q.enqueue_batch([Task("good"), Task("big", bytes(limit))])
    never(lambda: q.depth().waiting, during=0.1)


def test_max_body_bytes_is_the_largest_body(broker: Broker) -> None:
    broker.section = {**broker.section, "max_body_bytes": 1000}
    q = broker.queue(message_format="blob")
    q.enqueue(Task("t", bytes(1000)))
    with pytest.raises(EncodeError, match="takes at most 1000"):
        q.enqueue(Task("t", bytes(1001)))
    soon(lambda: q.depth().waiting == 1)


def test_async_verbs_store_and_report(broker: Broker) -> None:
    q = broker.queue()

    async def produce() -> None:
        done = await asyncio.gather(*(q.aenqueue(Task("t", i)) for i in range(50)))
        assert len({d.task_id for d in done}) == 50
        report = await q.aenqueue_batch([Task("t", i) for i in range(50)])
        assert len(report.raise_for_failures().accepted) == 50

    asyncio.run(produce())
    soon(lambda: q.depth().waiting == 100)


def test_many_threads_share_one_queue(broker: Broker) -> None:
    q = broker.queue()
    threads = [threading.Thread(target=lambda: [q.enqueue(Task("t")) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    soon(lambda: q.depth().waiting == 200)


def test_a_stopped_queue_refuses_with_the_way_out(broker: Broker) -> None:
    q = broker.queue()
    q.enqueue(Task("t"))
    q.stop()
    q.stop()
    with pytest.raises(QueueClosed, match="build a new TaskQueue"):
        q.enqueue(Task("t"))
