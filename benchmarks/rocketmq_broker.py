"""What the suite and its runners ask of RocketMQ's brokers themselves, by the same means for everybody."""

from __future__ import annotations

import time
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

from benchmarks.workload import STALL
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.errors import BrokerError

__all__ = ["answers", "config", "make", "stored", "until_stored"]

QUEUES = 4


def config(address: str) -> RocketMQConfig:
    """The driver's options for `rocketmq://host:8081?admin=host:9876`."""
    parts = urlsplit(address)
    return RocketMQConfig(endpoints=parts.netloc, admin=parse_qs(parts.query)["admin"][0])


def answers(address: str) -> bool:
    """Whether the name server knows a broker."""
    with closing(Admin(config(address), "rocketmq", 5)) as admin:
        try:
            return bool(admin.brokers("measuring"))
        except (BrokerError, KeyError):
            return False


def make(address: str, topic: str, group: str) -> None:
    """A topic as Nova makes them, and a group that begins at its beginning."""
    with closing(Admin(config(address), "rocketmq", 10)) as admin:
        for broker in admin.brokers("measuring"):
            broker.make_topic(topic, "NORMAL", QUEUES)
            broker.make_group(group, 1_000_000)
            for queue in range(QUEUES):
                broker.set_position(group, topic, queue, 0)
        while not admin.has_route(topic):
            time.sleep(0.05)


def stored(address: str, topic: str) -> int:
    """Messages that lie in a topic, handled or not."""
    with closing(Admin(config(address), "rocketmq", 10)) as admin:
        brokers = admin.brokers("measuring")
        return sum(broker.end(topic, queue) for broker in brokers for queue in range(QUEUES))


def until_stored(address: str, messages: int, topic: str) -> int:
    """How many are stored, as soon as it is so many, or when nothing has moved for `STALL` seconds."""
    best, since = -1, time.monotonic()
    while (now := stored(address, topic)) < messages:
        if now > best:
            best, since = now, time.monotonic()
        elif time.monotonic() - since > STALL:
            break
        time.sleep(0.05)
    return now
