"""The quarantine on Kafka: one suspect at a time in each process, however many its partitions hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova.brokers.base import DriverContext, Message, SubscribeRequest
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.driver import KafkaDriver
from tests.conformance.brokers import Broker, make


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path, {"partitions": 6})
    yield made
    made.close()


def test_an_innocent_is_never_lent_and_charged_beside_a_suspect(broker: Broker) -> None:
    """A crash would be charged to both. Partitions come and go while one is lent: others must wait uncharged."""
    topic = f"{broker.prefix}_QUARANTINE"
    drivers = [KafkaDriver(KafkaConfig(**broker.section)) for _ in range(3)]
    for driver in drivers:
        driver.open(DriverContext(prefix=broker.prefix), 10)
    drivers[0].ensure([topic])
    sent = [Message(topic, b"x", {"nova-id": f"m{i}"}, f"m{i}", group="g") for i in range(24)]
    assert drivers[0].publish(sent).result(10) == [None] * 24
    request = SubscribeRequest(topics=(topic,), group="g", prefetch=1, charged=True)
    first = drivers[0].subscribe(request)
    (held,) = first.receive(1, 10)
    held.started = True
    for other in drivers[1:]:  # each join and leave moves partitions to and from the first
        subscription = other.subscribe(request)
        begin = time.monotonic()
        while time.monotonic() - begin < 2.0:
            lent = [d for partition in first.pump.partitions() for d in list(partition.held.values())]
            assert len(lent) <= 1
            assert sum(sum(partition.charges.values()) for partition in first.pump.partitions()) <= 1
        subscription.close(10)
        time.sleep(0.5)  # its partitions come back
    first.ack([held])
    seen = {held.headers["nova-id"]}
    deadline = time.monotonic() + 30
    while len(seen) < 24 and time.monotonic() < deadline:
        for delivery in first.receive(1, 1.0):
            assert delivery.charges == 1
            seen.add(delivery.headers["nova-id"])
            first.ack([delivery])
    assert len(seen) == 24
    for driver in drivers:
        driver.close(5)
