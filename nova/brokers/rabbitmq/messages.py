"""Between a message of the seam and one of AMQP. Pure.

Headers that no consumer sees: `nova-x-due` when a delayed message is due, `nova-x-target` the topic it goes to, `nova-x-for`
the group it is addressed to, `nova-x-sent` when a delayed one was published, `nova-x-key` its key. `nova-x-count`
counts hand-outs without a clean end of the copies before this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pika import spec

from nova.brokers.base import Delivery, Message
from nova.brokers.rabbitmq.delay_levels import pick
from nova.brokers.rabbitmq.incoming import Properties
from nova.brokers.rabbitmq.names import Names
from nova.envelope import GROUP, ID, Headers, is_id_beside, number, without_id

__all__ = ["Outgoing", "as_outgoing", "copy_back", "count_of", "deliver", "named", "released", "texts_of"]

DUE = "nova-x-due"
TARGET = "nova-x-target"
FOR = "nova-x-for"
SENT = "nova-x-sent"
COUNT = "nova-x-count"
_OWN = "nova-x-"

LAST_SECOND = 253_402_300_799
"""Of the year 9999; others put milliseconds there."""
DELIVERY_COUNT = "x-delivery-count"
_BROKERS = frozenset(
    {
        DELIVERY_COUNT,
        "x-acquired-count",
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
    }
)
"""What the server writes on its way. A copy must not carry them on: a message that comes back to a queue it was dead-lettered
from is taken for a cycle and dropped without a word."""

SUSPICIOUS = 3
"""Hand-outs without a clean end after which a message may be killing its consumers."""


class Outgoing(msgspec.Struct, gc=False):
    """A message on its way to the server. A struct for speed; the publisher alone changes one, on its thread.

    Attributes:
        exchange: "" = straight to the queue `key`.
        topic: for all groups of this topic, where nobody may be bound yet; "" = for this queue or level alone.
        tries: how often its place had to be made.
        sent: it was written to a connection; the server may have it.
        returned: the server had no place for it.
        done: its outcome is known.
    """

    exchange: str
    key: str
    body: bytes
    headers: Headers
    id: str
    topic: str = ""
    tries: int = 0
    sent: bool = False
    returned: bool = False
    done: bool = False


class Place(msgspec.Struct, gc=False):
    """Where a delivery is held; the handle of a `Delivery`.

    Attributes:
        epoch: which channel of its subscription.
        queue: it came from.
        count: hand-outs without a clean end, before this one.
        headers: as they came, the driver's own included.
        settled: acked or given back.
        came: when, on the monotonic clock; the server waits for the ack from then on.
    """

    epoch: int
    tag: int
    queue: str
    count: int
    headers: Headers
    id: str
    settled: bool = False
    came: float = 0.0


def as_outgoing(message: Message, names: Names, now_ms: int, guard_ms: int) -> Outgoing:
    """Where a message goes: to all groups, to one group's queue, or on its way there through the delay levels."""
    headers, group = message.headers, message.group
    if group is not None and headers.get(GROUP) != group:
        headers = {**headers, GROUP: group}
    due_ms = message.due_ms
    if due_ms is not None and due_ms > now_ms:
        own = {**headers, DUE: str(due_ms), TARGET: message.topic, SENT: str(now_ms)}
        if group is not None:
            own[FOR] = group
        return _delayed(names, message.body, own, message.id, due_ms - now_ms, guard_ms)
    if group is not None:
        return Outgoing("", names.queue(group, message.topic), message.body, headers, message.id)
    return Outgoing(names.exchange, message.topic, message.body, headers, message.id, message.topic)


def released(names: Names, body: bytes, headers: Headers, id: str, now_ms: int, guard_ms: int) -> Outgoing | None:
    """The next hop of a message from the near queue, or its arrival; None = it is none of ours."""
    due_ms, target = number(headers.get(DUE)), headers.get(TARGET)
    if due_ms is None or not target:
        return None
    if due_ms > now_ms:
        return _delayed(names, body, headers, id, due_ms - now_ms, guard_ms)
    group = headers.get(FOR)
    kept = {name: text for name, text in headers.items() if name not in (DUE, TARGET, FOR)}
    if group is not None:
        return Outgoing("", names.queue(group, target), body, kept, id)
    return Outgoing(names.exchange, target, body, kept, id, target)


def copy_back(delivery: Delivery, queue: str) -> Outgoing:
    """A fresh copy of a delivery that is given back: a return would count as a hand-out without a clean end."""
    place: Place = delivery.handle
    headers = {name: text for name, text in place.headers.items() if name != COUNT}
    if place.count:
        headers[COUNT] = str(place.count)
    return Outgoing("", queue, delivery.body, headers, place.id)


def deliver(
    topic: str, queue: str, epoch: int, tag: int, properties: Properties | spec.BasicProperties, body: bytes
) -> Delivery:
    """A delivery of what the server brought."""
    headers = texts_of(properties)
    count = (number(headers.get(COUNT)) or 0) + count_of(properties.headers or {})
    seconds = properties.timestamp
    timestamp_ms = int(seconds) * 1000 if seconds is not None and int(seconds) <= LAST_SECOND else None
    place = Place(epoch, tag, queue, count, headers, properties.message_id or "")
    shown = headers
    for name in headers:
        if name.startswith(_OWN):
            shown = {name: text for name, text in headers.items() if not name.startswith(_OWN)}
            break
    return Delivery(topic, body, shown, place, timestamp_ms, suspect=count >= SUSPICIOUS)


def named(message: Outgoing) -> tuple[Headers, str]:
    """Headers and message id as they travel: the id stands once, where the property can hold it (255 bytes of UTF-8)."""
    id = message.id
    if not id or (len(id) > 63 and len(id.encode()) > 255):
        return message.headers, ""
    return without_id(message.headers, id), id


def texts_of(properties: Properties | spec.BasicProperties) -> Headers:
    """The headers that a task may carry: texts, none of the server's own, and the id that `named` left out."""
    found = (properties.headers or {}).items()
    headers = {name: text for name, text in found if isinstance(text, str) and name not in _BROKERS}
    if properties.message_id and is_id_beside(headers):
        headers[ID] = properties.message_id
    return headers


def _delayed(names: Names, body: bytes, headers: Headers, id: str, remaining_ms: int, guard_ms: int) -> Outgoing:
    path = pick(names.prefix, remaining_ms, guard_ms)
    if path is None:
        return Outgoing("", names.near, body, headers, id)
    return Outgoing(path.exchange, path.routing_key, body, headers, id)


def count_of(headers: Mapping[str, Any]) -> int:
    """How often the server has taken a message back."""
    count = headers.get(DELIVERY_COUNT)
    return count if isinstance(count, int) else 0
