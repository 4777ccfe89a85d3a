"""Steps of the Kafka driver that must come before one another, each held up to see that the next one waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from nova import clock
from nova.brokers.base import Confirmation, Delivery, DriverContext, Message, SubscribeRequest
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.driver import KafkaDriver
from nova.brokers.kafka.records import Record
from nova.envelope import GROUP, TARGET
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    yield made
    made.close()


@pytest.fixture
def driver(broker: Broker) -> Iterator[KafkaDriver]:
    made = KafkaDriver(KafkaConfig(**broker.section))
    made.open(DriverContext(prefix=broker.prefix), 10)
    yield made
    made.close(5)


def test_a_delayed_record_counts_as_moved_only_when_its_copy_is_confirmed(broker: Broker, driver: KafkaDriver) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    forwarder = driver._open_parts._forwarder
    assert forwarder is not None
    asked, confirmation = threading.Event(), Future[list[None]]()

    def hold_up(records: Sequence[Record]) -> Confirmation:
        assert len(records) == 1
        asked.set()
        return confirmation  # type: ignore[return-value]

    forwarder._publish = hold_up
    message = Message(topic, b"x", {}, "m", due_ms=clock.now_ms() + 300)
    assert driver.publish([message]).result(10) == [None]
    assert asked.wait(10)
    never(lambda: driver.depth([topic], "g")[topic].delayed == 0, during=1.5, what="it is nowhere else yet")
    confirmation.set_result([None])
    eventually(lambda: driver.depth([topic], "g")[topic].delayed == 0)


def test_what_ends_within_the_grace_is_not_copied_when_its_partition_must_go(
    broker: Broker, driver: KafkaDriver
) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    request = SubscribeRequest(topics=(topic,), group="g", prefetch=100)
    first = driver.subscribe(request)
    sent = [Message(topic, b"x", {"nova-id": f"m{i}"}, f"m{i}") for i in range(20)]
    assert driver.publish(sent).result(10) == [None] * 20
    running: list[Delivery] = []
    while len(running) < 20:
        running += first.receive(20, 10.0)
    for delivery in running:
        delivery.started = True
    threading.Timer(2.0, lambda: first.ack(running)).start()
    other = KafkaDriver(KafkaConfig(**broker.section))
    other.open(DriverContext(prefix=broker.prefix), 10)
    second = other.subscribe(request)
    eventually(lambda: second.pump.partitions(), timeout=20, what="it took a partition over")
    assert second.receive(20, 2.0) == [], "they were done when it came"
    topics = AdminClient({"bootstrap.servers": broker.section["bootstrap_servers"]}).list_topics(timeout=10).topics
    assert f"{broker.prefix}_LEASE" not in topics, "something went into the escrow"
    other.close(5)


def test_a_task_that_is_buried_twice_lies_there_twice(broker: Broker, driver: KafkaDriver) -> None:
    """The topic keeps one record per key: the second funeral of a task that was requeued must not replace the first."""
    dead = f"{broker.prefix}_DEAD"
    letter = Message(dead, b"x", {GROUP: "g", TARGET: f"{broker.prefix}_PRIORITY_NORMAL"}, "m", group="g")
    driver.ensure([dead])
    assert driver.publish([letter]).result(10) == [None]
    assert driver.publish([letter]).result(10) == [None]
    letters = driver.browse_dead(dead, "g")
    try:
        assert len(letters.read(10)) == 2
    finally:
        letters.close()
