"""A queue without a leader, for tests: its process is suspended, which to all who speak with it is the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from nova.brokers.base import Delivery, DriverContext, Message, SubscribeRequest
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rabbitmq.driver import RabbitMQDriver
from nova.brokers.rabbitmq.subscription import RabbitSubscription
from tests.eventually import eventually, never
from tests.servers.rabbitmq.server import RabbitServer

FLOWS_WITHIN = 15.0
"""Seconds after which the tasks of a queue whose leader is back are handed out: docs/brokers.md."""


@contextmanager
def opened(
    server: RabbitServer, prefix: str, *, call_timeout: float = 10.0, **options: float
) -> Generator[RabbitMQDriver]:
    driver = RabbitMQDriver(RabbitMQConfig(url=server.address, **options))  # type: ignore[arg-type]
    driver.open(DriverContext(prefix=prefix, call_timeout=call_timeout), 10)
    try:
        yield driver
    finally:
        driver.close(2)


@contextmanager
def leaderless(server: RabbitServer, queue: str) -> Generator[None]:
    process = f"whereis('%2F_{queue}')"
    server.control("eval", f"sys:suspend({process}).")
    try:
        yield
    finally:
        server.control("eval", f"sys:resume({process}).")


def messages(topic: str, count: int) -> list[Message]:
    return [Message(topic, b"x", {"nova-id": f"{topic}-{i}"}, f"{topic}-{i}") for i in range(count)]


def receive(subscription: RabbitSubscription, count: int, within: float) -> list[Delivery]:
    deadline, found = time.monotonic() + within, list[Delivery]()
    while len(found) < count and time.monotonic() < deadline:
        found += subscription.receive(count - len(found), 0.2)
    return found


def join(driver: RabbitMQDriver, *topics: str) -> RabbitSubscription:
    found = driver.subscribe(SubscribeRequest(topics=topics, group="g", prefetch=100))
    assert isinstance(found, RabbitSubscription)
    return found


def hold_beside(server: RabbitServer, prefix: str, seconds: float) -> float:
    """Hold tasks of one queue for as long beside one without a leader: they stay, uncounted, and nothing piles up.

    Returns:
        Seconds until the tasks of the other queue came, once its leader was back.
    """
    good, bad = f"{prefix}_PRIORITY_NORMAL", f"{prefix}-bad"
    with opened(server, prefix) as driver:
        join(driver, good, bad).close()
        assert driver.publish(messages(good, 5) + messages(bad, 5)).result(10) == [None] * 10
        with leaderless(server, f"g.{bad}"):
            subscription = join(driver, good, bad)
            held = receive(subscription, 5, within=12)
            assert [delivery.topic for delivery in held] == [good] * 5
            link = subscription._feeds[f"g.{bad}"].channel._link
            first, before, most = link.connection, channels(server), 0
            threads, files = threading.active_count(), _open_files()
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                never(lambda: any(delivery.lost for delivery in held), during=2.0, what="given to others")
                most = max(most, channels(server))
            assert link.connection is not first, "the server has ended it"
            assert most <= before, "no new channel while the last one is there"
            assert threading.active_count() <= threads + 1, "one for chores, from the first one on"
            assert _open_files() <= files
            assert driver.publish(messages(good, 1)).result(10) == [None]
            (fresh,) = receive(subscription, 1, within=2)
            subscription.ack([fresh])
        is_back = time.monotonic()
        late = receive(subscription, 5, within=FLOWS_WITHIN)
        assert [delivery.topic for delivery in late] == [bad] * 5, "its leader is back"
        after = time.monotonic() - is_back
        subscription.ack(late)
    with opened(server, prefix) as heir:
        again = receive(join(heir, good), 5, within=10)
        assert [delivery.handle.count for delivery in again] == [0] * 5
        eventually(lambda: heir.depth([bad], "g")[bad].waiting == 0)
    return after


def channels(server: RabbitServer) -> int:
    """As the server counts them on its connections."""
    return sum(int(word) for word in server.control("list_connections", "channels").split() if word.isdigit())


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
