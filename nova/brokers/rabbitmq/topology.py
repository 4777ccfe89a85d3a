"""Exchanges and queues, made when they are first needed and again after they were found missing. Any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from nova.brokers.rabbitmq import delay_levels as delays
from nova.brokers.rabbitmq.conversation import Conversation
from nova.brokers.rabbitmq.failures import NOT_FOUND, Refused
from nova.brokers.rabbitmq.leases import lease_arguments
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.names import QUORUM, Names
from nova.brokers.rabbitmq.turns import holding

__all__ = ["Topology"]

MAKING_LEVELS = 60.0
"""Seconds for the delay levels, once in the life of a vhost; half a second on a quiet server."""

_log = logging.getLogger(__name__)


class Topology:
    """What a prefix needs on the server."""

    def __init__(self, link: Link, names: Names, timeout: float) -> None:
        self._link = link
        self._names = names
        self._timeout = timeout
        self._making = threading.Lock()
        self._is_made = False

    def talk(self, timeout: float | None = None) -> Conversation:
        """A conversation with the server; close it."""
        return Conversation(self._link, self._timeout if timeout is None else timeout)

    def forget(self) -> None:
        """Something was missing: look again at the next need."""
        self._is_made = False

    def ensure(self) -> None:
        """The exchange, the way of delayed tasks and the near queue; nothing that belongs to a group.

        Raises:
            BrokerError: something cannot be made; the message says what is in its way.
        """
        with holding(self._making, max(self._timeout, MAKING_LEVELS), f"{self._link.where}: what the prefix needs"):
            if self._is_made:
                return
            names = self._names
            with self.talk() as talk:
                talk.declare_exchange(names.exchange, "topic")
                if not self._has_levels(talk):
                    self._make_levels()
                talk.declare_queue(names.near, QUORUM)
                talk.bind_queue(names.near, delays.DELIVER, f"#.{names.prefix}")
            self._is_made = True

    def make_queue(self, group: str, topic: str) -> None:
        """A group's queue, for what is addressed to it; what is published for all does not come there yet."""
        with self.talk() as talk:
            talk.declare_queue(self._names.queue(group, topic), self._names.arguments(topic))

    def make_unclaimed(self, topic: str) -> None:
        """The queue of a topic that has no group yet."""
        with self.talk() as talk:
            talk.declare_queue(self._names.unclaimed(topic), QUORUM)

    def make_lease(self, queue: str, home: str) -> None:
        """The private queue of long tasks."""
        with self.talk() as talk:
            talk.declare_queue(queue, lease_arguments(home))

    def join(self, group: str, topics: Iterable[str], *, for_all: bool) -> None:
        """A group's queues, bound to what is published for all."""
        names = self._names
        with self.talk() as talk:
            for topic in topics:
                queue = names.queue(group, topic)
                talk.declare_queue(queue, names.arguments(topic))
                if for_all:
                    talk.bind_queue(queue, names.exchange, topic)

    def _has_levels(self, talk: Conversation) -> bool:
        try:
            talk.declare_exchange(delays.READY, "fanout", passive=True)
        except Refused as exc:
            if exc.code != NOT_FOUND:
                raise
            return False
        return True

    def _make_levels(self) -> None:
        """From the last exchange upwards, so that nothing ever enters a way without an end."""
        _log.info("%s: making the delay levels of this vhost", self._link.where)
        with self.talk(max(self._timeout, MAKING_LEVELS)) as talk:
            talk.declare_exchange(delays.LOST, "fanout")
            talk.declare_queue(delays.LOST, QUORUM)
            talk.bind_queue(delays.LOST, delays.LOST, "")
            # A level would hold what has no place behind it, and after 32 of those everything else too.
            talk.declare_exchange(delays.DELIVER, "topic", {"alternate-exchange": delays.LOST})
            for level in delays.levels():
                talk.declare_exchange(level.name, "topic")
                talk.declare_queue(
                    level.name,
                    {
                        "x-queue-type": "quorum",
                        "x-message-ttl": level.hold_ms,
                        "x-dead-letter-exchange": level.below,
                        "x-dead-letter-strategy": "at-least-once",
                        "x-overflow": "reject-publish",
                    },
                )
                talk.bind_queue(level.name, level.name, level.pattern(1))
                talk.bind_exchange(level.below, level.name, level.pattern(0))
            talk.declare_exchange(delays.READY, "fanout")
