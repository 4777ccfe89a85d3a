"""What only RabbitMQ can show: queues of groups, delays of many prefixes, dead letters looked at, frozen arguments."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from nova import BrokerError, ReceivedTask, Reject, Task
from nova.brokers.base import Message, SubscribeRequest
from nova.brokers.rabbitmq.names import QUORUM
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never
from tests.live.opened import amqp_channel


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("rabbitmq", tmp_path)
    yield made
    made.close()


@pytest.fixture
def channel(broker: Broker) -> Iterator[BlockingChannel]:
    with amqp_channel(broker) as opened:
        yield opened


def ready(channel: BlockingChannel, queue: str) -> int | None:
    """Messages that wait in a queue; None = there is no such queue."""
    probe = channel.connection.channel()
    try:
        count = int(probe.queue_declare(queue, passive=True).method.message_count)
    except ChannelClosedByBroker:
        return None
    probe.close()
    return count


def test_a_producer_of_the_default_group_leaves_no_queue_of_its_own(broker: Broker, channel: BlockingChannel) -> None:
    producer = broker.queue(group="TASK_QUEUE_GROUP")
    sent = {done.task_id for done in producer.enqueue_batch([Task("t", i) for i in range(500)]).accepted}
    sent |= {producer.enqueue(Task("t"), process_in=0.2).task_id}
    unclaimed = f"{broker.prefix}_PRIORITY_NORMAL_UNCLAIMED"
    eventually(lambda: ready(channel, unclaimed) == 500)
    seen: Counter[str] = Counter()
    broker.queue(group="another").start(lambda task: seen.update([task.id]))
    eventually(lambda: set(seen) == sent)
    assert set(seen.values()) == {1}
    for topic in ("PRIORITY_HIGH", "PRIORITY_NORMAL", "PRIORITY_LOW", "DEAD", "QUARANTINE"):
        assert ready(channel, f"TASK_QUEUE_GROUP.{broker.prefix}_{topic}") is None
    assert ready(channel, unclaimed) == 0


def test_groups_whose_names_and_prefixes_run_into_each_other_share_nothing(tmp_path: Path) -> None:
    first, second = make("rabbitmq", tmp_path), make("rabbitmq", tmp_path)
    first.prefix, second.prefix = f"b-{second.prefix}", second.prefix
    seen: list[str] = []
    try:
        q = first.queue(group="a")
        q.start(lambda task: seen.append(task.id))
        other = second.queue(group="a-b")
        other.start(lambda task: None)
        done = q.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(20)])
        eventually(lambda: sorted(seen) == sorted(accepted.task_id for accepted in done.accepted))
    finally:
        first.close()
        second.close()


def test_delayed_tasks_of_a_deleted_prefix_hold_up_nobody(
    broker: Broker, channel: BlockingChannel, tmp_path: Path
) -> None:
    gone = make("rabbitmq", tmp_path)
    q = gone.queue()
    q.enqueue_batch([Task("t", i) for i in range(100)], process_in=1.0)
    gone.close()
    assert ready(channel, f"{gone.prefix}_DELAY_0") is None
    late: list[float] = []

    def handle(task: ReceivedTask) -> None:
        assert task.due_at is not None
        late.append(time.time() - task.due_at.timestamp())

    other = broker.queue()
    other.start(handle)
    other.enqueue_batch([Task("t", i) for i in range(50)], process_in=2.0)
    eventually(lambda: len(late) == 50, timeout=15)
    assert min(late) >= 0


def test_a_message_that_leaves_the_levels_long_before_its_time_goes_through_them_again(
    broker: Broker, channel: BlockingChannel
) -> None:
    """So it is beyond 8.7 years. What the server wrote on the way must not go along: it takes the second way for a cycle."""
    q = broker.queue()
    seen: list[float] = []
    q.start(lambda task: seen.append(time.time()))
    due = time.time() + 4
    headers: dict[str, Any] = {
        **{"nova-id": "t", "task_type": "t", "nova": "1 blob", "nova-due": str(int(due * 1000))},
        **{"nova-x-due": str(int(due * 1000)), "nova-x-target": f"{broker.prefix}_PRIORITY_NORMAL"},
        "x-first-death-queue": "nova_delay_v1_11",
        "x-death": [{"queue": f"nova_delay_v1_{level:02d}", "reason": "expired", "count": 1} for level in range(6, 38)],
    }
    properties = pika.BasicProperties(headers=headers, delivery_mode=2, message_id="t")
    channel.basic_publish("", f"{broker.prefix}_DELAY_0", b"x", properties)
    eventually(lambda: ready(channel, "nova_delay_v1_11") != 0, what="it is not held by the worker meanwhile")
    eventually(lambda: seen, timeout=15)
    assert seen[0] >= due - 0.001


def test_levels_that_are_late_are_told_by_housekeeping(
    broker: Broker, channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nova.brokers.rabbitmq.holder.LATE", 0.5)
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    assert subscription.receive(1, 0.1) == []
    driver.housekeeping()
    due = time.time() + 0.1
    never(lambda: False, during=1.0)
    headers = {"nova-id": "t", "nova-x-due": str(int(due * 1000)), "nova-x-target": topic}
    channel.basic_publish("", f"{broker.prefix}_DELAY_0", b"x", pika.BasicProperties(headers=headers, message_id="t"))
    assert [delivery.headers["nova-id"] for delivery in subscription.receive(1, 10)] == ["t"]
    with pytest.raises(BrokerError, match="leave the server's delay levels 1 s late"):
        driver.housekeeping()
    driver.housekeeping()  # said once
    driver.close()


def test_a_message_in_the_near_queue_that_is_none_of_ours_is_kept_aside(
    broker: Broker, channel: BlockingChannel
) -> None:
    q = broker.queue()
    seen: list[str] = []
    q.start(lambda task: seen.append(task.id))
    before = ready(channel, "nova_delay_v1_lost") or 0
    channel.basic_publish("", f"{broker.prefix}_DELAY_0", b"?", pika.BasicProperties(headers={"nova-x-due": "²"}))
    q.enqueue(Task("t", id="ours"), process_in=0.2)
    eventually(lambda: seen == ["ours"])
    eventually(lambda: (ready(channel, "nova_delay_v1_lost") or 0) > before)


def test_dead_letters_looked_at_fifty_times_by_two_processes_are_all_still_there(broker: Broker) -> None:
    def reject(task: ReceivedTask) -> None:
        raise Reject("no")

    one, two = broker.queue(), broker.queue()
    one.start(reject)
    one.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(100)])
    eventually(lambda: one.depth().dead == 100)
    failures: list[int] = []

    def look() -> None:
        for _ in range(25):
            count = len(two.dead.list(limit=200))
            if count != 100:
                failures.append(count)

    other = threading.Thread(target=look)
    other.start()
    for _ in range(25):
        assert len(one.dead.list(limit=200)) == 100, "another reader must not hide letters from this one"
    other.join()
    assert failures == []
    assert one.depth().dead == 100
    assert one.dead.purge() == 100


def test_a_letter_that_was_looked_at_very_often_is_written_anew(
    broker: Broker, channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nova.brokers.rabbitmq.dead.WORN", 3)
    topic = f"{broker.prefix}_DEAD"
    driver = broker.driver()
    letter = Message(topic, b"x", {"nova-id": "t", "nova-group": "g"}, "t", group="g")
    assert driver.publish([letter]).result(10) == [None]
    counts: list[int] = []
    for _ in range(8):
        reader = driver.browse_dead(topic, "g")
        ((_, delivery),) = reader.read(10)
        counts.append(delivery.handle.count)
        reader.close()
    assert counts == [0, 1, 2, 3, 0, 1, 2, 3]
    assert ready(channel, f"g.{topic}") == 1
    driver.close()


def test_a_clean_stop_with_tasks_ahead_counts_nothing(broker: Broker, channel: BlockingChannel) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    first = broker.queue()
    first.start(lambda task: None)
    assert first.stop()
    broker.queue().enqueue_batch([Task("t", i) for i in range(300)])
    release = threading.Event()
    for _ in range(5):
        q = broker.queue()
        started = threading.Event()

        def handle(task: ReceivedTask, started: threading.Event = started) -> None:
            started.set()
            release.wait(0.05)

        q.start(handle, concurrency=4)
        assert started.wait(10)
        assert q.stop()
    left = ready(channel, f"g.{topic}") or 0
    assert left > 50
    for _ in range(left):
        _, properties, _ = channel.basic_get(f"g.{topic}")
        assert properties is not None
        assert "nova-x-count" not in (properties.headers or {})
        assert not (properties.headers or {}).get("x-delivery-count")
    assert broker.queue().dead.list() == []


def test_what_is_ahead_of_a_worker_that_is_full_goes_to_another(broker: Broker) -> None:
    busy, free = broker.queue(), broker.queue()
    release = threading.Event()
    ran: list[str] = []
    first = threading.Event()

    def hold(task: ReceivedTask) -> None:
        first.set()
        release.wait(60)

    busy.enqueue_batch([Task("t", i) for i in range(12)])
    busy.start(hold, concurrency=1)
    assert first.wait(10)
    free.start(lambda task: ran.append(task.id), concurrency=1)
    eventually(lambda: len(ran) >= 8, timeout=15, what="a full worker keeps at most a few ahead")
    release.set()


def test_tasks_of_a_queue_with_other_arguments_are_refused_with_the_way_out(
    broker: Broker, channel: BlockingChannel
) -> None:
    queue = f"g.{broker.prefix}_PRIORITY_NORMAL"
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "classic"})
    with pytest.raises(
        BrokerError, match=f"queue '{queue}'.*inequivalent arg 'x-queue-type'.*remove it, or use another"
    ):
        broker.queue().start(lambda task: None)
    channel.queue_delete(queue)


def test_a_queue_of_nova_has_the_frozen_arguments(broker: Broker, channel: BlockingChannel) -> None:
    broker.queue().start(lambda task: None)
    for queue in (f"g.{broker.prefix}_PRIORITY_NORMAL", f"{broker.prefix}_PRIORITY_NORMAL_UNCLAIMED"):
        channel.queue_declare(queue, durable=True, arguments=dict(QUORUM))


def test_a_worker_whose_group_was_removed_while_it_was_away_begins_anew(
    broker: Broker, channel: BlockingChannel
) -> None:
    """The server ends the consumers of a deleted queue; the group registers again and gets what comes from then on."""
    q = broker.queue()
    seen: list[str] = []
    q.start(lambda task: seen.append(task.id))
    q.enqueue(Task("t", id="before"))
    eventually(lambda: seen == ["before"])
    channel.queue_delete(f"g.{broker.prefix}_PRIORITY_NORMAL")
    eventually(lambda: ready(channel, f"g.{broker.prefix}_PRIORITY_NORMAL") is not None)
    q.enqueue(Task("t", id="after"))
    eventually(lambda: seen == ["before", "after"])
    never(lambda: len(seen) > 2, during=0.3)


@pytest.mark.parametrize(
    "headers",
    [
        {"nova-x-count": "9" * 5000},
        {"a-time": datetime(2024, 1, 1, tzinfo=UTC), "a-list": [1, {"b": None}], "a-number": Decimal("1.5")},
    ],
)
def test_a_strange_message_of_others_makes_no_worker_deaf(
    broker: Broker, channel: BlockingChannel, headers: dict[str, Any]
) -> None:
    q = broker.queue()
    handled: list[str] = []
    q.start(lambda task: handled.append(task.id))
    q.enqueue(Task("t", id="before"))
    eventually(lambda: "before" in handled)
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    body = b'{"task_id":"strange","task":{"Type":"t","Payload":null},"queue":"","priority":2}'
    channel.basic_publish("", f"g.{topic}", body, pika.BasicProperties(headers=headers))
    q.enqueue(Task("t", id="after"))
    eventually(lambda: {"strange", "after"} <= set(handled))
