"""Topics: made where the brokers' own port can be reached, checked everywhere. Any thread; one at a time inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from nova.brokers.rocketmq.admin import Admin, type_of
from nova.brokers.rocketmq.client import Connection
from nova.brokers.rocketmq.failures import TOPIC_NOT_FOUND
from nova.brokers.rocketmq.names import DELAY, NORMAL, Names
from nova.brokers.rocketmq.stubs import definition
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["TopicKeeper"]

LOOK_EVERY = 0.05
_TYPES = {NORMAL: definition.MessageType.NORMAL, DELAY: definition.MessageType.DELAY}
_SINGLE = ("_DEAD",)
"""Topics with one queue, in whose order they are read."""


class TopicKeeper:
    """The topics of a prefix.

    Args:
        queues: of a topic that is made here, on each broker.
        timeout: seconds a question may take.
    """

    def __init__(self, admin: Admin, connection: Connection, names: Names, queues: int, timeout: float) -> None:
        self._admin = admin
        self._connection = connection
        self._names = names
        self._queues = queues
        self._timeout = timeout
        self._brokers: dict[str, tuple[str, ...]] = {}
        self._using = threading.Lock()

    def ensure(self, topics: Iterable[str]) -> None:
        """Make sure that these can be published to.

        Raises:
            BrokerError: some are missing or of another type; the message says what must exist.
        """
        with self._using:
            missing = [topic for topic in topics if topic not in self._brokers]
            if not missing:
                return
            if self._admin.reach() is not None:
                for topic in missing:
                    self._make(topic)
                return
            absent = [topic for topic in missing if not self._find(topic)]
            if absent:
                raise BrokerError(self._demand(absent))

    def exists(self, topic: str) -> bool:
        """Whether there is such a topic; nothing is made."""
        with self._using:
            if topic in self._brokers:
                return True
            if self._admin.reach() is None:
                return self._find(topic)
            return self._look(topic)

    def brokers_of(self, topic: str) -> Sequence[str]:
        """The names of the brokers that have an ensured topic."""
        with self._using:
            return self._brokers[topic]

    def forget(self, topics: Iterable[str]) -> None:
        """Look again next time: the server may have come back without them."""
        with self._using:
            for topic in topics:
                self._brokers.pop(topic, None)

    def _make(self, topic: str) -> None:
        kind = self._names.type_of(topic)
        for broker in self._admin.brokers("making a topic"):
            if broker.topic(topic) is None:
                broker.make_topic(topic, kind, 1 if topic.endswith(_SINGLE) else self._queues)
        self._look(topic)
        deadline = time.monotonic() + self._timeout
        while not self._admin.has_route(topic):
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"{self._connection.where}: the name server does not show the topic {topic!r}")
            time.sleep(LOOK_EVERY)

    def _look(self, topic: str) -> bool:
        """Learn from the brokers who has a topic; the proxy is not asked, because it would remember a no for 20 s."""
        found = {broker.name: broker.topic(topic) for broker in self._admin.brokers("looking for a topic")}
        there = {name: settings for name, settings in found.items() if settings is not None}
        for settings in there.values():
            if type_of(settings) != self._names.type_of(topic):
                raise BrokerError(self._wrong_type(topic, type_of(settings)))
        if there:
            self._brokers[topic] = tuple(sorted(there))
        return bool(there)

    def _find(self, topic: str) -> bool:
        """Learn from the proxy who has a topic; False = nobody.

        Raises:
            BrokerError: it is of another type, or the proxy does not tell.
        """
        queues, failure = self._connection.route(topic, self._timeout)
        if failure is not None and failure.code == TOPIC_NOT_FOUND:
            return False
        if failure is not None:
            raise failure.as_error(f"{self._connection.where}: topic {topic!r}")
        kind = self._names.type_of(topic)
        for queue in queues:
            if queue.accept_message_types and _TYPES[kind] not in queue.accept_message_types:
                found = "/".join(definition.MessageType.Name(value) for value in queue.accept_message_types)
                raise BrokerError(self._wrong_type(topic, found))
        self._brokers[topic] = tuple(sorted({queue.broker.name for queue in queues}))
        return True

    def _wrong_type(self, topic: str, found: str) -> str:
        return (
            f"{self._connection.where}: topic {topic!r} is of the type {found}, expected {self._names.type_of(topic)}; "
            "delete it so that Nova can make it anew, or use another topic prefix"
        )

    def _demand(self, absent: Sequence[str]) -> str:
        commands = "; ".join(
            f"mqadmin updateTopic -n NAMESERVER -c CLUSTER -t {topic} -a +message.type={self._names.type_of(topic)}"
            for topic in absent
        )
        return (
            f"{self._connection.where}: these topics must exist: {', '.join(absent)}; no name server could be asked to "
            f"make them, so give with_rocketmq(admin='host:9876'), or run: {commands}"
        )
