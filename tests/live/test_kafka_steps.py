"""Steps of the Kafka driver that must come before one another, each held up to see that the next one waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from nova import clock
from nova.brokers.base import Confirmation, Delivery, DriverContext, Message, SubscribeRequest
from nova.brokers.kafka.commits import Commits
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.delay_lanes import DEFAULT_LANES
from nova.brokers.kafka.driver import KafkaDriver
from nova.brokers.kafka.escrow import Escrow
from nova.brokers.kafka.health import Health
from nova.brokers.kafka.names import Names
from nova.brokers.kafka.partition import KafkaDelivery, Partition
from nova.brokers.kafka.records import Record
from nova.envelope import GROUP, ID, TARGET
from nova.errors import PublishError
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never
from tests.live.opened import kafka_driver


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    yield made
    made.close()


@pytest.fixture
def driver(broker: Broker) -> Iterator[KafkaDriver]:
    with kafka_driver(broker) as made:
        yield made


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


def test_a_copy_of_which_nobody_knows_is_called_back() -> None:
    """The record stays with its worker: a copy in escrow that was stored after all must not run when its lease is over."""
    sent: list[Record] = []
    outcomes: list[PublishError | None] = [None, PublishError("no report", may_be_stored=True), None]

    def publish(records: Sequence[Record]) -> Confirmation:
        sent.extend(records)
        done: Confirmation = Future()
        done.set_result([outcomes[len(sent) - 1]])
        return done

    names = Names("P")
    partition = Partition("P_A", 0, "P_A", None, charged=False, watchful=True, owner=1)
    delivery = KafkaDelivery("P_A", b"x", {ID: "m"}, partition=partition, offset=0)
    lease = Escrow(publish, names, DEFAULT_LANES, "g", 60.0).take_over(delivery)
    assert lease.has_failed
    assert [(record.topic, record.value) for record in sent[2:]] == [(names.leases, b"done")]
    assert sent[2].key == sent[0].key, "of the same lease"


def test_only_what_is_assigned_waits_for_a_coordinator() -> None:
    place = TopicPartition("P_A", 0)
    partitions = {("P_A", 0): Partition("P_A", 0, "P_A", None, charged=False, watchful=True, owner=1)}
    commits = Commits(partitions, Health("here", "c"), "here")
    silent = KafkaError(KafkaError.NOT_COORDINATOR)
    commits.answered(silent, [place])
    assert commits.unheard > 0
    commits.answered(None, [place])
    assert commits.unheard == 0, "it was taken"
    commits.answered(silent, [place])
    commits.forget(("P_A", 0))
    assert commits.unheard == 0, "assigned anew"
    commits.answered(silent, [place])
    partitions.clear()
    assert commits.unheard == 0, "gone"
    commits.answered(silent, [place])
    assert commits.unheard == 0, "of one that is gone already"
