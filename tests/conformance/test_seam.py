"""The driver seam itself: publish, settle in any order, give back, groups, topics before their first group."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from nova.brokers.base import Delivery, Driver, Message, SubscribeRequest, Subscription
from nova.clock import SystemClock
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never, soon

NOW = SystemClock().now_ms
SHORT = 0.3
"""Seconds in which something that must not come has time to come."""
READ_AHEAD = 2.0
"""Seconds until the first messages of every topic have come: measured up to 5 ms apart on Kafka, under load 0.5 s."""


@pytest.fixture
def driver(broker: Broker) -> Iterator[Driver]:
    made = broker.driver()
    yield made
    made.close()


def message(topic: str, number: int, **fields: object) -> Message:
    return Message(topic, b"body %d" % number, {"nova-id": f"m{number}", "x": "é"}, f"m{number}", **fields)  # type: ignore[arg-type]


def publish(driver: Driver, *messages: Message) -> None:
    driver.ensure(sorted({m.topic for m in messages}))
    assert driver.publish(messages).result(10) == [None] * len(messages)


def subscribe(driver: Driver, *topics: str, group: str = "g", charged: bool = False) -> Subscription:
    return driver.subscribe(SubscribeRequest(topics=topics, group=group, prefetch=5000, charged=charged))


def receive(subscription: Subscription, count: int, timeout: float = 30) -> list[Delivery]:
    got: list[Delivery] = []
    deadline = time.monotonic() + timeout
    while len(got) < count and time.monotonic() < deadline:
        got += subscription.receive(count - len(got), 0.2)
    return got


def receive_one(*subscriptions: Subscription, timeout: float = 30) -> tuple[Subscription, Delivery]:
    """The next delivery, whichever of them gets it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for subscription in subscriptions:
            for delivery in subscription.receive(1, 0.05):
                return subscription, delivery
    raise AssertionError(f"nobody received anything within {timeout:g} s")


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.headers["nova-id"] for delivery in deliveries]


def test_bytes_and_headers_arrive_as_they_were_sent(driver: Driver, broker: Broker) -> None:
    bodies = [b"", b"\x00", b"\xff" * 1000, "é".encode(), bytes(1 << 20)]
    sent = [
        Message(f"{broker.prefix}_PRIORITY_NORMAL", body, {"nova-id": str(i), "h": "äöü\n\"'"}, str(i))
        for i, body in enumerate(bodies)
    ]
    publish(driver, *sent)
    subscription = subscribe(driver, sent[0].topic)
    got = receive(subscription, len(sent))
    assert {d.headers["nova-id"]: d.body for d in got} == {m.id: m.body for m in sent}
    assert all(d.headers["h"] == "äöü\n\"'" and d.topic == sent[0].topic for d in got)
    subscription.close()


def test_what_is_settled_in_any_order_never_comes_back_and_the_rest_does(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    publish(driver, *(message(topic, i) for i in range(200)))
    subscription = subscribe(driver, topic)
    got = receive(subscription, 200)
    shuffled = random.Random(7).sample(got, 200)
    for chunk in (shuffled[:50], shuffled[50:51], shuffled[51:120]):
        subscription.ack(chunk)
    subscription.close()
    again = subscribe(driver, topic)
    assert sorted(ids(receive(again, 80))) == sorted(ids(shuffled[120:]))
    assert again.receive(10, SHORT) == []
    again.close()


def test_released_deliveries_come_back_soon_and_uncounted(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    publish(driver, message(topic, 1))
    subscription = subscribe(driver, topic)
    for _ in range(10):
        (delivery,) = receive(subscription, 1)
        assert not delivery.suspect
        subscription.release([delivery])
    (delivery,) = receive(subscription, 1)
    subscription.ack([delivery])
    subscription.close()


def test_settling_twice_or_after_a_release_changes_nothing(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    publish(driver, message(topic, 1))
    first, second = subscribe(driver, topic), subscribe(driver, topic)
    holder, stale = receive_one(first, second)
    holder.release([stale])
    _, fresh = receive_one(first, second)  # it comes again "here or elsewhere"
    holder.ack([stale])
    holder.release([stale])
    first.close()
    second.close()
    third = subscribe(driver, topic)
    assert ids(receive(third, 1)) == ids([fresh])
    third.close()


def test_one_subscription_reads_several_topics_and_starves_none(driver: Driver, broker: Broker) -> None:
    topics = [f"{broker.prefix}-q{i}" for i in range(3)]
    publish(driver, *(message(topic, 1000 * t + i) for t, topic in enumerate(topics) for i in range(100)))
    subscription = subscribe(driver, *topics)
    subscription.ack(receive(subscription, 1))
    never(lambda: False, during=READ_AHEAD)
    seen: set[str] = set()
    for _ in range(9):  # 180 of the 299 left: a topic that is served last would not be among them
        got = subscription.receive(20, 5)
        seen |= {delivery.topic for delivery in got}
        subscription.ack(got)
    assert seen == set(topics)
    subscription.close()


def test_receive_waits_for_a_message_and_ends_on_time_or_at_close(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    subscription = subscribe(driver, topic)
    started = time.monotonic()
    assert subscription.receive(1, 0.2) == []
    assert 0.15 <= time.monotonic() - started < 3
    threading.Timer(0.1, publish, (driver, message(topic, 1))).start()
    assert ids(subscription.receive(1, 10)) == ["m1"]
    threading.Timer(0.1, subscription.close).start()
    started = time.monotonic()
    assert subscription.receive(1, 30) == []
    assert time.monotonic() - started < 10


def test_a_topic_keeps_its_messages_for_the_first_group_that_subscribes(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    publish(driver, *(message(topic, i) for i in range(5)), message(topic, 9, due_ms=NOW() + 300))
    first = subscribe(driver, topic, group="first")
    second = subscribe(driver, topic, group="second")
    assert sorted(ids(receive(first, 6))) == ["m0", "m1", "m2", "m3", "m4", "m9"]
    assert second.receive(10, SHORT) == []
    first.close()
    second.close()


def test_a_fresh_message_is_for_every_group_and_an_addressed_one_for_its_own(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    a, b = subscribe(driver, topic, group="a"), subscribe(driver, topic, group="b")
    publish(driver, message(topic, 1), message(topic, 2, group="a"), message(topic, 3, due_ms=NOW() + 100))
    got_a, got_b = receive(a, 3), receive(b, 2)
    assert (sorted(ids(got_a)), sorted(ids(got_b))) == (["m1", "m2", "m3"], ["m1", "m3"])
    assert b.receive(1, SHORT) == []
    a.ack(got_a)
    a.close()
    b.close()
    b = subscribe(driver, topic, group="b")
    assert sorted(ids(receive(b, 2))) == ["m1", "m3"], "another group's ack is none of b's"
    b.close()


def test_a_charged_subscription_counts_unclean_returns_only(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_QUARANTINE"
    publish(driver, message(topic, 1, group="g"))
    for _ in range(3):
        subscription = subscribe(driver, topic, charged=True)
        (delivery,) = receive(subscription, 1)
        assert delivery.charges == 1
        subscription.release([delivery])
        subscription.close()
    subscription = subscribe(driver, topic, charged=True)
    (delivery,) = receive(subscription, 1)
    assert delivery.charges == 1
    subscription.ack([delivery])
    subscription.close()


def test_dead_letters_are_read_fifty_times_and_are_all_still_there(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_DEAD"
    publish(driver, *(message(topic, i, group="g") for i in range(30)), message(topic, 99, group="other"))
    reader = driver.browse_dead(topic, "g")
    soon(lambda: len(reader.read(100)) == 30)
    page: list[tuple[str, Delivery]] = []
    for _ in range(50):
        page = reader.read(20)
        rest = reader.read(20, page[-1][0])
        assert ids([d for _, d in page + rest]) == [f"m{i}" for i in range(30)]
    assert reader.remove([d for _, d in page[:5]]) == 5
    assert reader.remove([d for _, d in page[:5]]) == 0
    assert len(reader.read(100)) == 25
    reader.close()


def test_depth_counts_what_waits_what_is_late_and_what_is_lent(driver: Driver, broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    publish(driver, *(message(topic, i) for i in range(6)), message(topic, 9, due_ms=NOW() + 60_000))
    soon(lambda: driver.depth([topic], "g")[topic].waiting == 6)
    assert driver.depth([topic], "g")[topic].delayed in (None, 1)
    subscription = subscribe(driver, topic)
    got = receive(subscription, 4)
    depth = driver.depth([topic], "g")[topic]
    assert depth.waiting <= 2
    assert depth.running in (None, 6 - depth.waiting)
    subscription.ack(got)
    subscription.close()
    eventually(lambda: driver.depth([topic], "g")[topic].waiting == 2)


def test_publishing_after_close_is_refused_and_says_so(broker: Broker) -> None:
    driver = broker.driver()
    if not driver.capabilities.durable:
        return driver.close()  # memory's broker outlives its handle: publishing goes on
    driver.close()
    driver.close()
    (error,) = driver.publish([message(f"{broker.prefix}_PRIORITY_NORMAL", 1)]).result(10)
    assert error is not None
    assert "closed" in str(error)
    return None
