"""Clients that fail for good, as librdkafka's may (its issue 5301, and more): they are replaced."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from nova import BrokerUnavailable, ConfigError, NovaError, Task
from nova.brokers.base import Delivery, Message, SubscribeRequest
from nova.brokers.kafka import publisher as publishing
from nova.brokers.kafka import pump as pumping
from nova.brokers.kafka.driver import KafkaDriver
from nova.brokers.kafka.handles import close_producer
from nova.brokers.kafka.subscription import KafkaSubscription
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never
from tests.live.opened import kafka_driver
from tests.servers.kafka.finding import shared_address
from tests.servers.kafka.relay import ForgetfulRelay


class Deaf:
    """In the place of a client that has lost its brokers for good: nothing comes, nothing goes, and it never ends."""

    def __init__(self, client: Any, waiting: int = 1) -> None:
        self._client = client
        self._waiting = waiting
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __len__(self) -> int:
        return self._waiting

    def poll(self, timeout: float) -> None:
        time.sleep(timeout)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        time.sleep(timeout)
        return []

    def produce(self, *args: Any, **values: Any) -> None:
        """Never reported."""

    def list_topics(self, *args: Any, **values: Any) -> None:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def close(self) -> None:
        threading.Event().wait()


class Unknowing(Deaf):
    """In the place of a client to which its brokers once said that there is no such partition."""

    def get_watermark_offsets(self, place: TopicPartition, **options: Any) -> None:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))


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


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    yield made
    made.close()


@pytest.fixture
def driver(direct: Broker) -> Iterator[KafkaDriver]:
    with kafka_driver(direct) as made:
        yield made


@pytest.fixture
def topic(direct: Broker, driver: KafkaDriver) -> str:
    topic = f"{direct.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    return topic


def received(subscription: KafkaSubscription, count: int) -> list[Delivery]:
    found: list[Delivery] = []

    def all_came() -> bool:
        with contextlib.suppress(BrokerUnavailable):
            found.extend(subscription.receive(count, 0.2))
        return len(found) >= count

    eventually(all_came, timeout=40)
    return found


def test_a_deaf_consumer_is_replaced_and_nothing_is_lost(
    driver: KafkaDriver, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pumping, "RENEW_AFTER", 1.0)
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


def test_a_deaf_reader_is_replaced_within_the_call(direct: Broker) -> None:
    """It knows the partition no more, and says so for as long as it is asked: the caller would have to ask again."""
    with direct.queue() as q:
        q.start(lambda task: None)
        eventually(lambda: [group.name for group in q.groups.list()] == ["g"])
        assert isinstance(q._driver, KafkaDriver)
        reader = q._driver._open_parts.groups._reader._reader
        assert reader._consumer is not None
        deaf: Any = Unknowing(reader._consumer)
        reader._consumer = deaf
        assert [group.name for group in q.groups.list()] == ["g"]
        assert deaf.asked > 1, "a passing answer is waited for"
        assert reader._consumer is not deaf


def test_a_deaf_producer_is_replaced(driver: KafkaDriver, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "LOOK_EVERY", 0.2)
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


def test_what_a_replaced_producer_still_holds_is_confirmed(driver: KafkaDriver, topic: str) -> None:
    publisher = driver._open_parts.publisher
    calls = []
    for number in range(20):
        calls.append(driver.publish([Message(topic, b"x", {}, f"m{number}-{i}") for i in range(100)]))
        if number % 5 == 0:
            publisher.renew()
    assert [call.result(10) for call in calls] == [[None] * 100] * 20
    eventually(lambda: not publisher._retired, what="those that hold nothing are closed")
    assert driver.depth([topic], "g")[topic].waiting == 2000


@pytest.mark.parametrize("charged", [False, True])
def test_a_task_that_outlives_outages_is_no_killer(
    direct: Broker, driver: KafkaDriver, topic: str, *, charged: bool
) -> None:
    """The process lives, only its consumer was replaced: counted as deaths that would bury a good task."""
    topic = f"{direct.prefix}_QUARANTINE" if charged else topic
    driver.ensure([topic])
    assert driver.publish([Message(topic, b"x", {"nova-id": "m"}, "m", group="g")]).result(10) == [None]
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10, charged=charged))
    for _ in range(5):
        (delivery,) = received(subscription, 1)
        delivery.started = True
        assert not delivery.suspect
        assert delivery.charges == int(charged)
        subscription.pump.call(subscription.pump._renew)
        eventually(lambda: delivery.lost)  # noqa: B023


def test_an_abandoned_consumer_gets_nothing_any_more(driver: KafkaDriver, topic: str) -> None:
    """Its last words include assignments: taken for the new one's they would pass unfinished tasks over."""
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    pump = subscription.pump
    eventually(pump.partitions)
    before = pump.partitions()
    assigned: list[object] = []

    class Abandoned:
        def incremental_assign(self, places: list[TopicPartition]) -> None:
            assigned.append(places)

    pump._assign(Abandoned(), [TopicPartition(topic, 0)])  # type: ignore[arg-type]
    assert assigned == [[]]
    assert pump.partitions() == before


def test_a_client_that_cannot_be_built_leaves_the_old_one(
    driver: KafkaDriver, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate is being exchanged just then, or there are no threads."""
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    tried: list[object] = []

    def fail(*args: object) -> None:
        tried.append(args)
        raise ConfigError("no certificate")

    for module in (pumping, publishing):
        monkeypatch.setattr(module, "open_handle", fail)
    subscription.pump.call(subscription.pump._renew)
    with pytest.raises(ConfigError):
        driver._open_parts.publisher.renew()
    eventually(lambda: len(tried) == 2)
    assert driver.publish([Message(topic, b"x", {}, "m")]).result(10) == [None]
    received(subscription, 1)


def test_an_idle_producer_asks_for_no_topic(driver: KafkaDriver, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers may make one that is asked for, with a retention of days."""
    monkeypatch.setattr(publishing, "LOOK_EVERY", 0.05)
    publisher = driver._open_parts.publisher
    assert driver.publish([Message(topic, b"x", {}, "m")]).result(10) == [None]
    idle: Any = Deaf(publisher.producer, waiting=0)
    real, publisher._producer = publisher._producer, idle
    never(lambda: idle.asked, during=6.0)
    publisher._producer = real


def test_a_replaced_producer_that_fails_takes_nothing_with_it(driver: KafkaDriver, topic: str) -> None:
    publisher = driver._open_parts.publisher

    class Failing:
        purged = False

        def poll(self, timeout: float) -> None:
            raise KafkaException(KafkaError(KafkaError._FATAL))

        def purge(self) -> None:
            self.purged = True

        def __len__(self) -> int:
            return int(not self.purged)

        def close(self) -> None:
            """Nothing left."""

    good = publisher.producer
    failing: Any = Failing()
    publisher._retired.append(failing)
    eventually(lambda: not publisher._retired)
    assert failing.purged
    assert publisher.producer is good
    assert driver.publish([Message(topic, b"x", {}, "m")]).result(10) == [None]


def test_a_look_that_hangs_holds_up_no_close_and_keeps_its_client(
    driver: KafkaDriver, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To destroy a client that another thread is in would be a crash."""
    monkeypatch.setattr(publishing, "LOOK_EVERY", 0.05)
    publisher = driver._open_parts.publisher
    hangs, ends = threading.Event(), threading.Event()
    closed: list[object] = []
    monkeypatch.setattr(publishing, "close_producer", closed.append)

    class Hangs(Deaf):
        def list_topics(self, *args: Any, **values: Any) -> None:
            self._waiting = 0
            hangs.set()
            ends.wait(30)

    real = publisher.producer
    slow: Any = Hangs(real)
    publisher._producer = slow
    assert hangs.wait(10)
    start = time.monotonic()
    publisher.close(0.3)
    assert time.monotonic() - start < 2.0, "0.3 s and what a loaded machine adds"
    assert closed == []
    ends.set()
    publisher._watch.join(5)
    assert not publisher._watch.is_alive()
    close_producer(real)
