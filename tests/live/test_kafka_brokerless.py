"""Clients that fail for good, as librdkafka's may (its issue 5301, and more): they are replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from nova import NovaError, Task
from nova.brokers.base import Delivery, DriverContext, Message, SubscribeRequest
from nova.brokers.kafka import publisher as publishing
from nova.brokers.kafka import pump as pumping
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.driver import KafkaDriver
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never
from tests.servers.kafka.finding import shared_address
from tests.servers.kafka.relay import ForgetfulRelay


class Deaf:
    """In the place of a client that has lost its brokers for good: nothing comes, nothing goes, and it never ends."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __len__(self) -> int:
        return 1

    def poll(self, timeout: float) -> None:
        time.sleep(timeout)

    def produce(self, *args: Any, **values: Any) -> None:
        """Never reported."""

    def list_topics(self, *args: Any, **values: Any) -> None:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def close(self) -> None:
        threading.Event().wait()


@pytest.fixture
def relay() -> Iterator[ForgetfulRelay]:
    started = ForgetfulRelay(shared_address())
    yield started
    started.close()


@pytest.fixture
def broker(tmp_path: Path, relay: ForgetfulRelay) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    direct = made.section["bootstrap_servers"]
    made.section["bootstrap_servers"] = relay.address
    yield made
    made.section["bootstrap_servers"] = direct
    made.close()


def test_every_client_works_again_after_the_cluster_denied_its_brokers(broker: Broker, relay: ForgetfulRelay) -> None:
    q = broker.queue()
    seen: set[str] = set()
    q.start(lambda task: seen.add(task.id))
    q.enqueue(Task("t", id="before"))
    q.enqueue(Task("t", id="before-delayed"), process_in=0.1)
    eventually(lambda: len(seen) == 2)
    eventually(lambda: q.depth().waiting == 0)
    assert [group.name for group in q.groups.list()] == ["g"]
    relay.forgets = True
    eventually(lambda: relay.told >= 10, timeout=40, what="every client has asked")
    relay.hang_up()
    time.sleep(2)
    relay.forgets = False

    def works() -> bool:
        try:
            q.enqueue(Task("t", id="after"))
            q.enqueue(Task("t", id="after-delayed"), process_in=0.1)
            q.enqueue(Task("t", id="class"), queue="other", priority=3)  # a topic to be made, a question for the admin
        except NovaError:
            return False
        return True

    eventually(works, timeout=90, what="enqueued")
    eventually(lambda: {"after", "after-delayed"} <= seen, timeout=60, what="handled")
    assert q.dead.list() == []
    assert [group.name for group in q.groups.list()] == ["g"]


def test_a_deaf_consumer_is_replaced_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumping, "RENEW_AFTER", 1.0)
    broker = make("kafka", tmp_path)
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver = KafkaDriver(KafkaConfig(**broker.section))
    driver.open(DriverContext(prefix=broker.prefix), 10)
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=100))
    pump = subscription.pump
    sent = [Message(topic, b"x", {"nova-id": f"m{i}"}, f"m{i}") for i in range(20)]
    assert driver.publish(sent).result(10) == [None] * 20
    held: list[Delivery] = []

    def receive() -> int:
        held.extend(subscription.receive(100, 0.2))
        return len(held)

    eventually(lambda: receive() == 20)
    assert subscription.extend(held) == []
    real = pump._consumer
    deaf: Any = Deaf(real)
    pump.call(lambda: setattr(pump, "_consumer", deaf))
    eventually(lambda: pump._consumer is deaf)
    real.close()  # its group takes it for dead
    eventually(lambda: pump._consumer is not deaf, timeout=40, what="replaced")
    eventually(lambda: receive() == 40, timeout=20, what="what was not acknowledged came again")
    assert subscription.extend(held) == held[:20], "what the deaf one brought is lost"
    subscription.ack(held[:20])
    never(lambda: driver.depth([topic], "g")[topic].running != 20, during=1.0, what="its acks have no effect any more")
    assert sorted(d.headers["nova-id"] for d in held[20:]) == sorted(d.headers["nova-id"] for d in held[:20])
    driver.close(5)
    broker.close()


def test_a_deaf_producer_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "LOOK_EVERY", 0.2)
    broker = make("kafka", tmp_path)
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver = KafkaDriver(KafkaConfig(**broker.section))
    driver.open(DriverContext(prefix=broker.prefix), 10)
    driver.ensure([topic])
    publisher = driver._open_parts.publisher
    message = Message(topic, b"x", {}, "m")
    assert driver.publish([message]).result(10) == [None]
    deaf: Any = Deaf(publisher.producer)
    publisher._producer = deaf
    lost = driver.publish([message])
    eventually(lambda: publisher.producer is not deaf, what="replaced")
    assert deaf.asked == 2
    assert driver.publish([message]).result(10) == [None]
    assert not lost.done(), "whether it was stored nobody can tell yet"
    publisher._retired.clear()
    driver.close(5)
    broker.close()


def test_what_a_replaced_producer_still_holds_is_confirmed(tmp_path: Path) -> None:
    broker = make("kafka", tmp_path)
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver = KafkaDriver(KafkaConfig(**broker.section))
    driver.open(DriverContext(prefix=broker.prefix), 10)
    driver.ensure([topic])
    publisher = driver._open_parts.publisher
    calls = []
    for number in range(20):
        calls.append(driver.publish([Message(topic, b"x", {}, f"m{number}-{i}") for i in range(100)]))
        if number % 5 == 0:
            publisher.renew()
    assert [call.result(10) for call in calls] == [[None] * 100] * 20
    eventually(lambda: not publisher._retired, what="those that hold nothing are closed")
    assert driver.depth([topic], "g")[topic].waiting == 2000
    driver.close(5)
    broker.close()
