"""Space on Kafka: given back when every registered group is done, and not before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from nova import ReceivedTask, Task
from nova.brokers.kafka import driver
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never

EVERY = 0.3
"""Seconds between two looks for space, instead of a minute."""


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setattr(driver, "RECLAIM_EVERY", EVERY)
    made = make("kafka", tmp_path)
    yield made
    made.close()


def kept(broker: Broker, topic: str) -> int:
    """How many records the log of a topic still holds."""
    consumer = Consumer({"bootstrap.servers": broker.section["bootstrap_servers"], "group.id": "look"})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        marks = [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in partitions]
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


def test_a_registered_group_that_is_stopped_loses_nothing_to_reclaiming(broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    a, b = broker.queue(group="a"), broker.queue(group="b")
    seen_a: set[str] = set()
    seen_b: set[str] = set()
    a.start(lambda task: seen_a.add(task.id))
    b.start(lambda task: seen_b.add(task.id))
    assert b.stop()
    sent = {f"t{i}" for i in range(1000)}
    a.enqueue_batch([Task("t", id=task_id) for task_id in sorted(sent)])
    eventually(lambda: seen_a == sent)
    never(lambda: kept(broker, topic) < 1000, during=5 * EVERY, what="b has not read them")
    b = broker.queue(group="b")
    b.start(lambda task: seen_b.add(task.id))
    eventually(lambda: seen_b == sent)
    eventually(lambda: kept(broker, topic) == 0)


def test_a_removed_group_holds_no_space(broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    a, b = broker.queue(group="a"), broker.queue(group="b")
    seen: set[str] = set()
    a.start(lambda task: seen.add(task.id))
    b.start(lambda task: None)
    assert b.stop()
    a.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(100)])
    eventually(lambda: len(seen) == 100)
    never(lambda: kept(broker, topic) < 100, during=3 * EVERY)
    eventually(lambda: not next(group for group in a.groups.list() if group.name == "b").active)
    assert a.groups.remove("b")
    eventually(lambda: kept(broker, topic) == 0)


def test_one_unfinished_task_keeps_itself_and_what_follows_it(broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    q = broker.queue()
    release = threading.Event()
    done: set[str] = set()

    def handle(task: ReceivedTask) -> None:
        if task.id == "stuck":
            assert release.wait(60)
        done.add(task.id)

    q.start(handle, concurrency=4)
    q.enqueue_batch([Task("t", i, id=f"a{i}", key="k") for i in range(50)])
    eventually(lambda: len(done) == 50)
    q.enqueue(Task("t", id="stuck", key="k"))
    q.enqueue_batch([Task("t", i, id=f"b{i}", key="k") for i in range(50)])
    eventually(lambda: len(done) == 100)
    eventually(lambda: kept(broker, topic) == 51)
    never(lambda: kept(broker, topic) < 51, during=3 * EVERY)
    release.set()
    eventually(lambda: kept(broker, topic) == 0)


def test_delayed_records_are_deleted_once_forwarded_and_not_before(broker: Broker) -> None:
    near = f"{broker.prefix}_DELAY_0"
    q = broker.queue()
    seen: set[str] = set()
    q.start(lambda task: seen.add(task.id))
    q.enqueue_batch([Task("t", i, id=f"soon{i}") for i in range(50)], process_in=0.5)
    q.enqueue(Task("t", id="late"), process_in=6.0)
    eventually(lambda: len(seen) == 50)
    never(lambda: kept(broker, near) < 1, during=1.0)
    eventually(lambda: "late" in seen)
    eventually(lambda: kept(broker, near) == 0)


def test_without_reclaiming_everything_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "RECLAIM_EVERY", EVERY)
    made = make("kafka", tmp_path)
    made.section["reclaim"] = False
    seen: set[str] = set()
    q = made.queue()
    q.start(lambda task: seen.add(task.id))
    q.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(20)])
    eventually(lambda: len(seen) == 20)
    never(lambda: kept(made, f"{made.prefix}_PRIORITY_NORMAL") < 20, during=2 * EVERY)
    made.close()


def test_a_topic_that_is_made_anew_under_a_running_worker_is_read_from_its_beginning(broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    admin = AdminClient({"bootstrap.servers": broker.section["bootstrap_servers"]})
    q = broker.queue()
    seen: set[str] = set()
    q.start(lambda task: seen.add(task.id))
    q.enqueue_batch([Task("t", i, id=f"old{i}") for i in range(200)])
    eventually(lambda: len(seen) == 200)
    eventually(lambda: q.depth().running == 0)
    admin.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    other = broker.queue()
    other.enqueue_batch([Task("t", i, id=f"new{i}") for i in range(50)]).raise_for_failures()
    eventually(lambda: {f"new{i}" for i in range(50)} <= seen, timeout=60)
