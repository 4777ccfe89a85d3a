"""Who reads what since when: the brokers' own consumer groups and their positions, changed by one process at a time.

A group is registered for a topic when it has a position in each of its queues. The first group of a topic begins at the
beginning, a later one behind what is there; the server by itself would begin somewhere near the end. Beside the
positions, under a number that is no queue's, stands the instant from which on delayed tasks are for the group. Where a
topic's last group was removed, the same is kept under a name that is no group's (`Names.ended`): the next first one
begins there. Any thread.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager

from nova import clock
from nova.brokers.base import Group, TopicDepth
from nova.brokers.prefixes import topics_of
from nova.brokers.refusals import group_in_use
from nova.brokers.rocketmq.admin import Admin, Broker
from nova.brokers.rocketmq.limits import LEAST_RETRIES
from nova.brokers.rocketmq.names import Names
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["Registry"]

SINCE = 1_000_000
"""The number under which the instant of a registration stands among the positions."""
MAX_RETRIES = 1_000_000
PATIENCE = 0.02

Positions = dict[str, dict[int, int]]
"""By `topic@group`."""


class Registry:
    """The groups of one prefix."""

    def __init__(self, admin: Admin, names: Names, where: str, timeout: float) -> None:
        self._admin = admin
        self._names = names
        self._where = where
        self._timeout = timeout
        self._turn = threading.Lock()

    def join(self, group: str, topics: Sequence[str], *, for_all: bool) -> dict[str, int]:
        """Make RocketMQ's group and its positions; returns since when (epoch ms) delayed tasks are for it, by topic.

        Args:
            group: RocketMQ's name of it.
            for_all: it also gets what is published for all groups; False = only what is addressed to it, from the beginning.

        Raises:
            BrokerError: it cannot be registered, or has a `retryMaxTimes` at which tasks would get lost.
        """
        brokers = self._admin.reach()
        if brokers is None:
            return dict.fromkeys(topics, 0)
        for broker in brokers:
            self._make_group(broker, group)
        since: dict[str, int] = {}
        with self._alone(brokers[0]):
            tables = {broker: broker.positions() for broker in brokers}
            now_ms = clock.now_ms()
            for topic in topics:
                for broker in brokers:
                    mine = self._register(broker, tables[broker], group, topic, now_ms, for_all=for_all)
                    since[topic] = max(mine, since.get(topic, 0))
        return since

    def is_registered(self, group: str, topics: Sequence[str]) -> bool:
        """Whether the server still knows: one that was killed forgets what it was told in the last seconds."""
        brokers = self._admin.reach()
        if brokers is None:
            return True
        return all(broker.position(group, topic, SINCE) is not None for broker in brokers for topic in topics)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """What waits for a group in each topic; the server tells neither what is lent nor what its timers hold."""
        brokers = self._admin.brokers("counting")
        tables = {broker: broker.positions() for broker in brokers}
        return {
            topic: TopicDepth(
                sum(self._waiting(broker, tables[broker], topic, group) for broker in brokers), None, None
            )
            for topic in topics
        }

    def list(self) -> list[Group]:
        """Every group of the prefix, without its dead letters."""
        brokers = self._admin.brokers("listing groups")
        tables = {broker: broker.positions() for broker in brokers}
        found: dict[str, set[str]] = {}
        for key in {key for table in tables.values() for key, positions in table.items() if SINCE in positions}:
            topic, _, consumer_group = key.rpartition("@")
            group = self._names.group_of(consumer_group)
            if group is not None:
                found.setdefault(group, set()).add(topic)
        return [
            Group(
                group,
                tuple(sorted(topics_of(self._names.prefix, topics))),
                sum(
                    self._waiting(b, tables[b], topic, self._names.consumer_group(group))
                    for b in brokers
                    for topic in topics
                ),
                self.is_active(group),
            )
            for group, topics in sorted(found.items())
        ]

    def is_active(self, group: str) -> bool:
        """Whether a consumer of the group is connected now."""
        name = self._names.consumer_group(group)
        return any(broker.is_connected(name) for broker in self._admin.brokers("listing groups"))

    def check_idle(self, group: str) -> None:
        """See that nobody works for a group.

        Raises:
            BrokerError: somebody does, or was killed less than two minutes ago: the server counts it in until then (115 s).
        """
        if self.is_active(group):
            raise group_in_use(self._where, group, "for two minutes")

    def remove(self, group: str) -> bool:
        """Forget a group, in an order in which a second call finishes what a first one did not; False = there is none.

        Raises:
            BrokerError: its workers run.
        """
        name = self._names.consumer_group(group)
        brokers = self._admin.brokers("removing a group")
        if all(broker.group(name) is None for broker in brokers):
            return False
        self.check_idle(group)
        with self._alone(brokers[0]):
            for broker in brokers:
                self._remove(broker, name)
        return True

    def alone(self) -> AbstractContextManager[None]:
        """While no other process of the prefix does what it does under this.

        Raises:
            BrokerUnavailable: another one has not ended.
        """
        return self._alone(self._admin.brokers("taking turns")[0])

    def _make_group(self, broker: Broker, group: str) -> None:
        found = broker.group(group)
        if found is None:
            broker.make_group(group, MAX_RETRIES)
            return
        retries = found.get("retryMaxTimes", 0)
        if retries < LEAST_RETRIES:
            raise BrokerError(
                f"{self._where}: the consumer group {group!r} has retryMaxTimes={retries}, after which the server takes a "
                f"task away while it runs; expected at least {LEAST_RETRIES}: delete the group so that Nova can make it "
                f"anew, or run mqadmin updateSubGroup -n NAMESERVER -c CLUSTER -g '{group}' -r {MAX_RETRIES}"
            )

    def _register(self, broker: Broker, table: Positions, group: str, topic: str, now_ms: int, *, for_all: bool) -> int:
        known = table.get(f"{topic}@{group}", {})
        if SINCE in known:
            return known[SINCE]
        queues = _queues(broker, topic)
        ended = table.get(f"{topic}@{self._names.ended}", {})
        others = self._readers(table, topic, group)
        for queue in queues:
            at = broker.end(topic, queue) if for_all and others else ended.get(queue, 0)
            broker.set_position(group, topic, queue, at if for_all else known.get(queue, 0))
        since = now_ms if others and for_all else ended.get(SINCE, 0)
        broker.set_position(group, topic, SINCE, since)
        return since

    def _readers(self, table: Positions, topic: str, besides: str) -> bool:
        """Whether another group is registered for the topic."""
        for key, positions in table.items():
            other, _, group = key.rpartition("@")
            if other == topic and group != besides and SINCE in positions and self._names.group_of(group) is not None:
                return True
        return False

    def _waiting(self, broker: Broker, table: Positions, topic: str, group: str) -> int:
        if SINCE not in table.get(f"{topic}@{group}", {}):
            if self._readers(table, topic, group):
                return 0  # it would begin behind what is there
            ended = table.get(f"{topic}@{self._names.ended}", {})
            return sum(
                broker.end(topic, queue) - max(ended.get(queue, 0), broker.start(topic, queue))
                for queue in _queues(broker, topic)
            )
        retries = [retry for retry in self._names.retry_topics(group, topic) if broker.topic(retry) is not None]
        return sum(broker.left(group, name) for name in (topic, *retries))

    def _remove(self, broker: Broker, group: str) -> None:
        table = broker.positions()
        now_ms = clock.now_ms()
        if broker.group(self._names.ended) is None:  # positions are kept for groups that exist
            broker.make_group(self._names.ended, MAX_RETRIES)
        for key in table:
            topic, _, name = key.rpartition("@")
            if name != group or topic.startswith("%"):
                continue
            if SINCE in table[key] and not self._readers(table, topic, group):
                for queue in _queues(broker, topic):
                    broker.set_position(self._names.ended, topic, queue, broker.end(topic, queue))
                broker.set_position(self._names.ended, topic, SINCE, now_ms)
            for retry in self._names.retry_topics(group, topic):
                if broker.topic(retry) is not None:
                    broker.delete_topic(retry)
        broker.delete_group(group)

    @contextmanager
    def _alone(self, broker: Broker) -> Generator[None]:
        """While no other process changes registrations of the prefix; whoever dies holds it for a minute at most."""
        deadline = time.monotonic() + self._timeout
        owner = uuid.uuid4().hex
        name, topic = self._names.registering, self._names.default_topic
        with self._turn:
            while not broker.try_lock(name, topic, owner):
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self._where}: another process has been registering groups of {self._names.prefix!r} for "
                        f"{self._timeout:g} s; if it died, its lock ends within a minute"
                    )
                time.sleep(PATIENCE)
            try:
                yield
            finally:
                broker.unlock(name, topic, owner)


def _queues(broker: Broker, topic: str) -> range:
    found = broker.topic(topic)
    return range(found["readQueueNums"] if found is not None else 0)
