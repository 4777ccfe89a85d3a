"""A quorum queue without a leader answers nothing, for as long as that lasts. It must harm no other queue.

So it is on a server after a crash, and on a cluster that has lost two of three nodes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from nova import BrokerUnavailable
from nova.brokers.base import Delivery, Message, SubscribeRequest
from tests.eventually import eventually, never
from tests.live.leaderless import FLOWS_WITHIN, channels, hold_beside, join, leaderless, messages, opened, receive
from tests.servers.rabbitmq.finding import private_node
from tests.servers.rabbitmq.server import RabbitServer

GIVES_UP_AFTER = 10.0
"""Seconds after which this server ends the connection of a channel that waits for a leader; some 95 elsewhere."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    started = private_node(tmp_path_factory.mktemp("rabbitmq"), erlang="-kernel net_ticktime 4")
    yield started
    started.stop()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"L{abs(hash(request.node.name)) % 10**8}"


def test_its_neighbours_are_served_and_lose_nothing_with_it(server: RabbitServer, prefix: str) -> None:
    good, bad = f"{prefix}_PRIORITY_NORMAL", f"{prefix}-bad"
    with opened(server, prefix) as heir:
        with opened(server, prefix) as driver:
            driver.subscribe(SubscribeRequest(topics=(good, bad), group="g", prefetch=10)).close()
            assert driver.publish(messages(good, 5) + messages(bad, 5)).result(10) == [None] * 10
            with leaderless(server, f"g.{bad}"):
                subscription = join(driver, good, bad)
                held = receive(subscription, 5, within=12)
                assert sorted(delivery.topic for delivery in held) == [good] * 5
                never(lambda: any(delivery.lost for delivery in held), during=7.0, what="its channel was given up")
                driver.close(2)
                again = receive(join(heir, good), 5, within=10)
                assert len(again) == 5, "what a channel held that waits for the queue stays with it"
        eventually(lambda: heir.depth([bad], "g")[bad].waiting == 5, what="its leader is back")


def test_each_consumer_is_given_its_own_time_to_be_confirmed(
    server: RabbitServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nova.brokers.rabbitmq.channel.CONFIRMED_WITHIN", 8.0)
    topic = f"{prefix}_PRIORITY_NORMAL"
    with opened(server, prefix) as driver:
        subscription = join(driver, topic)
        assert driver.publish(messages(topic, 1)).result(10) == [None]
        began = time.monotonic()
        (delivery,) = receive(subscription, 1, within=10)
        never(lambda: False, during=began + 4.0 - time.monotonic())
        with leaderless(server, f"g.{topic}"):
            subscription.receive(50, 0.0)  # a new consumer, with a larger prefetch
            never(lambda: delivery.lost, during=began + 8.7 - time.monotonic(), what="the first one's time was over")
        never(lambda: delivery.lost, during=2.0)


def test_it_holds_up_no_other_messages(server: RabbitServer, prefix: str) -> None:
    """The server reads no more from a connection with some thirty messages for such a queue."""
    good, bad = f"{prefix}_PRIORITY_NORMAL", f"{prefix}-bad"
    with opened(server, prefix, confirm_timeout=6.0) as driver:
        join(driver, good).close()
        join(driver, bad).close()
        with leaderless(server, f"g.{bad}"):
            lost = driver.publish(messages(bad, 3000))
            never(lambda: False, during=0.5)
            assert driver.publish(messages(good, 50)).result(10) == [None] * 50, "those that were behind it"
            more = driver.publish(messages(bad, 100))
            assert driver.publish(messages(good, 50)).result(2) == [None] * 50, "and later ones at once"
            assert all(error is not None and error.may_be_stored for error in lost.result(10)[:30])
            assert None not in more.result(10)
            assert driver.publish(messages(good, 50)).result(2) == [None] * 50, "after they were given up too"
        eventually(lambda: driver.publish(messages(bad, 100)).result(10) == [None] * 100, what="its leader is back")
        assert len(driver._open_parts.publisher._silent) == 0


def test_what_its_neighbours_hold_stays_theirs_when_the_server_ends_a_connection(
    server: RabbitServer, prefix: str
) -> None:
    """With as long as the server usually takes: tests/chaos/test_rabbitmq.py."""
    hold_beside(server, prefix, 2.5 * GIVES_UP_AFTER)


def test_a_quarantine_without_a_leader_is_asked_once_at_a_time(server: RabbitServer, prefix: str) -> None:
    topic = f"{prefix}_QUARANTINE"
    with opened(server, prefix, call_timeout=2.0) as driver:
        request = SubscribeRequest(topics=(topic,), group="g", prefetch=1, charged=True)
        subscription = driver.subscribe(request)
        assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t", group="g")]).result(10) == [None]
        with leaderless(server, f"g.{topic}"):
            with pytest.raises(BrokerUnavailable, match="no answer"):
                subscription.receive(1, 0.5)
            before = channels(server)
            for _ in range(4):
                began = time.monotonic()
                with pytest.raises(BrokerUnavailable, match="may have no leader"):
                    subscription.receive(1, 0.5)
                assert time.monotonic() - began >= 0.5, "an outage is no hot loop"
            assert channels(server) <= before
        found: list[Delivery] = []

        def came() -> bool:
            with contextlib.suppress(BrokerUnavailable):  # until the server has closed the channel
                found.extend(subscription.receive(1, 0.5))
            return bool(found)

        eventually(came, timeout=FLOWS_WITHIN)
