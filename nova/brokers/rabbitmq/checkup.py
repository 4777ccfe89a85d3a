"""Reads a server's limits for `limits` to judge, on a connection of its own. Any thread.

What this user may do AMQP tells by refusing it alone. So it is tried, with queues that are this connection's own and end with
it, and with messages that nothing takes.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

from pika.channel import Channel
from pika.connection import Connection

from nova.brokers.base import CheckRequest, Finding
from nova.brokers.rabbitmq import delay_levels as delays
from nova.brokers.rabbitmq.conversation import Conversation
from nova.brokers.rabbitmq.failures import ACCESS_REFUSED, NOT_FOUND, Refused, text_of
from nova.brokers.rabbitmq.limits import (
    QueueFacts,
    Right,
    ServerFacts,
    judge_queues,
    judge_rights,
    judge_server,
    judge_unread,
)
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.names import Names

__all__ = ["Checkup"]

NOWHERE = "nova.check"
"""A routing key that no queue is bound by."""
BLOCKED_WITHIN = 3.0
"""Seconds for a message that is confirmed in one or two milliseconds."""
ENDED_WITHIN = 1.0
"""Seconds: a server that blocks publishers does not read the end of a connection either."""


class Checkup:
    """One look at a vhost."""

    def __init__(self, links: Links, names: Names, long_task_after: float) -> None:
        self._links = links
        self._names = names
        self._long_task_after = long_task_after

    def look(self, request: CheckRequest) -> list[Finding]:
        """All there is to say.

        Raises:
            BrokerError: the server does not answer.
        """
        link = self._links.open_for("a check")
        try:
            connection = link.await_up(request.timeout)
            with Conversation(link, request.timeout) as talk:
                queues = [self._look_at(talk, request.group, topic) for topic in (*request.topics, *request.own_topics)]
                rights = self._try_queues(talk, request.group)
                exchanges = ["", self._names.exchange] if _is_there(talk, self._names.exchange) else [""]
            writing, blocked = _try_publishing(link, connection, exchanges)
            server = _facts(connection, blocked)
        finally:
            link.close(ENDED_WITHIN)
        return [
            *judge_server(server),
            *judge_unread(server.version, self._long_task_after),
            *judge_queues(queues),
            *judge_rights([*rights, *writing]),
        ]

    def _look_at(self, talk: Conversation, group: str, topic: str) -> QueueFacts:
        """Declared again if it is there: only so the server says that it is another."""
        name = self._names.queue(group, topic)
        if talk.look(name) is None:
            return QueueFacts(name, is_there=False)
        try:
            talk.declare_queue(name, self._names.arguments(topic))
        except Refused as exc:
            return QueueFacts(name, is_there=True, refusal=str(exc))
        return QueueFacts(name, is_there=True)

    def _try_queues(self, talk: Conversation, group: str) -> list[Right]:
        """What a worker does with the group's queues and the prefix's own; also the delay levels, if none made them yet."""
        names = self._names
        patterns = [f"{group}.{names.prefix}_", f"{names.prefix}_"]
        if not _is_there(talk, delays.READY):
            patterns.append("nova_delay_")
        return [right for pattern in patterns for right in _try_queue(talk, pattern)]


def _try_queue(talk: Conversation, pattern: str) -> list[Right]:
    """Make, fill and empty a queue that ends with the connection."""
    name, shown = f"{pattern}CHECK_{uuid.uuid4().hex}", f"{pattern}…"
    making = _refusal(lambda: talk.declare_queue(name, {}, exclusive=True))
    if making is not None:
        return [Right("configure", shown, making)]
    reading = _refusal(lambda: talk.get(name))
    talk.delete_queue(name)
    return [Right("configure", shown, None), Right("read", shown, reading)]


def _try_publishing(link: Link, connection: Connection, exchanges: list[str]) -> tuple[list[Right], str | None]:
    """Which exchanges this user may publish to, and why the server takes nothing from anybody, if so."""
    rights: list[Right] = []
    for exchange in exchanges:
        canary = _Canary(link, connection, exchange)
        canary.await_end(BLOCKED_WITHIN)
        if canary.blocked is not None:
            return rights, canary.blocked
        rights.append(Right("write", exchange or "amq.default", canary.refusal))
    return rights, None


class _Canary:
    """A message that nothing takes, on a channel of its own: confirmed, refused, or stuck with a server that blocks us.

    Attributes:
        refusal: why this user may not publish there, or None.
        blocked: why nobody may now, or None.
    """

    def __init__(self, link: Link, connection: Connection, exchange: str) -> None:
        self.refusal: str | None = None
        self.blocked: str | None = "no confirmation"
        self._exchange = exchange
        self._ended = threading.Event()
        link.run(lambda: self._begin(connection))

    def await_end(self, timeout: float) -> None:
        """Until its fate is known."""
        if not self._ended.wait(timeout):
            self.blocked = f"no confirmation in {timeout:g} s"

    def _begin(self, connection: Connection) -> None:
        connection.add_on_connection_blocked_callback(self._on_blocked)
        channel = connection.channel(on_open_callback=self._on_open)
        channel.add_on_close_callback(self._on_closed)

    def _on_open(self, channel: Channel) -> None:
        def confirmed(_: Any) -> None:
            self._end(None, None)
            channel.close()

        channel.confirm_delivery(confirmed, callback=lambda _: channel.basic_publish(self._exchange, NOWHERE, b""))

    def _on_closed(self, channel: Channel, reason: BaseException) -> None:
        del channel
        self._end(text_of(reason), None)

    def _on_blocked(self, connection: Connection, frame: Any) -> None:
        del connection
        self._end(None, str(frame.method.reason))

    def _end(self, refusal: str | None, blocked: str | None) -> None:
        if not self._ended.is_set():
            self.refusal, self.blocked = refusal, blocked
            self._ended.set()


def _facts(connection: Connection, blocked: str | None) -> ServerFacts:
    properties: dict[str, Any] = connection.server_properties or {}
    return ServerFacts(
        product=str(properties.get("product", "?")),
        version=str(properties.get("version", "?")),
        frame_max=int(connection.params.frame_max or 0),
        channel_max=int(connection.params.channel_max or 0),
        capabilities=frozenset(name for name, has in connection.server_capabilities.items() if has),
        blocked=blocked,
    )


def _is_there(talk: Conversation, exchange: str) -> bool:
    try:
        talk.declare_exchange(exchange, "topic", passive=True)
    except Refused as exc:
        if exc.code != NOT_FOUND:
            raise
        return False
    return True


def _refusal(action: Callable[[], object]) -> str | None:
    """The server's refusal for want of a right, or None."""
    try:
        action()
    except Refused as exc:
        if exc.code != ACCESS_REFUSED:
            raise
        return str(exc)
    return None
