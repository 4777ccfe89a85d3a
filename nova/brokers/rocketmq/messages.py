"""Between a message of the seam and one of RocketMQ's. Pure.

Headers are user properties. The proxy refuses control characters and names of its own in them (40007), so what it would
refuse travels as JSON in `nova-x-more`. It refuses more than 16 KiB of them: then the long ones stand as JSON before the
body, in as many bytes as `nova-x-before` says. It refuses empty bodies too (41302): `nova-x-empty` says that the one byte
there is none. Other properties that no consumer sees: `nova-x-due` when a delayed message is due, `nova-x-target` the
topic it goes to, `nova-x-for` the group it is addressed to, `nova-x-sent` when a delayed one was published,
`nova-x-count` hand-outs without a clean end of the copies before this one.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nova.brokers.base import Delivery, Message
from nova.brokers.rocketmq.names import Names
from nova.brokers.rocketmq.stubs import definition, service
from nova.envelope import GROUP, Headers, number

__all__ = [
    "DUE",
    "FOR",
    "SENT",
    "TARGET",
    "Outgoing",
    "Place",
    "as_lost",
    "as_outgoing",
    "copy_back",
    "deliver",
    "due_of",
    "new_id",
    "read",
    "read_headers",
    "released",
    "request_of",
    "visible",
]

DUE = "nova-x-due"
TARGET = "nova-x-target"
FOR = "nova-x-for"
SENT = "nova-x-sent"
COUNT = "nova-x-count"
MORE = "nova-x-more"
EMPTY = "nova-x-empty"
BEFORE = "nova-x-before"
_OWN = "nova-x-"
_ON_THE_WAY = (DUE, TARGET)

SUSPICIOUS = 3
"""Hand-outs without a clean end after which a message may be killing its consumers."""

MOST_PROPERTIES = 14_336
"""Bytes; as it comes the proxy takes 2 KiB more (`maxUserPropertySize`), its own and the broker's not counted."""
_LONG = 256
"""Characters of a header that may stand before the body."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
"""Of a header that is a property as it is; the server's own properties are spelt otherwise."""


_PROCESS = os.urandom(10).hex().upper()
_numbers = itertools.count()


class Outgoing(msgspec.Struct, gc=False):
    """A message on its way to the server. A struct for speed; nobody changes one.

    Attributes:
        deliver_ms: the instant (epoch ms) at which the server's timer delivers it; None = it is no timed one.
        message_id: RocketMQ's own, the same on every attempt to send.
    """

    topic: str
    body: bytes
    headers: Headers
    id: str
    deliver_ms: int | None = None
    message_id: str = ""


class Place(msgspec.Struct):
    """Where a delivery is held; the handle of a `Delivery`.

    Attributes:
        topic: on the server.
        receipt: what settles it; changes with every renewal.
        until: monotonic time at which the lease ends.
        count: hand-outs without a clean end, before this one.
        headers: as they came, the driver's own included.
        settled: acked or given back, or it belongs to another.
        renewing: a request is on its way.
    """

    topic: str
    receipt: str
    message_id: str
    until: float
    count: int
    headers: Headers
    id: str
    settled: bool = False
    renewing: bool = False


def as_outgoing(message: Message, names: Names, now_ms: int, guard_ms: int, longest_ms: int) -> Outgoing:
    """Where a message goes: to its topic, or into the server's timers first."""
    headers, group = message.headers, message.group
    if group is not None:
        headers = {**headers, GROUP: group, FOR: group}
    due_ms = message.due_ms
    if due_ms is not None and due_ms > now_ms:
        own = {**headers, DUE: str(due_ms), TARGET: message.topic, SENT: str(now_ms)}
        return _timed(names, message.body, own, message.id, due_ms, now_ms, guard_ms, longest_ms)
    return Outgoing(message.topic, message.body, headers, message.id, None, new_id())


def released(names: Names, delivery: Delivery, now_ms: int, guard_ms: int, longest_ms: int) -> Outgoing | None:
    """The next hop of a delayed message, or its arrival; None = it is none of ours."""
    place: Place = delivery.handle
    headers = place.headers
    due_ms, target = number(headers.get(DUE)), headers.get(TARGET)
    if due_ms is None or not target:
        return None
    if due_ms > now_ms:
        return _timed(names, delivery.body, headers, place.id, due_ms, now_ms, guard_ms, longest_ms)
    kept = {name: text for name, text in headers.items() if name not in _ON_THE_WAY and name != COUNT}
    return Outgoing(target, delivery.body, kept, place.id, None, new_id())


def as_lost(delivery: Delivery, topic: str) -> Outgoing:
    """The same in another topic, for people to look at."""
    place: Place = delivery.handle
    return Outgoing(topic, delivery.body, place.headers, place.id, None, new_id())


def due_of(delivery: Delivery) -> int | None:
    """When a delayed message is due, epoch ms; None = it is none of ours."""
    return number(delivery.handle.headers.get(DUE))


def copy_back(delivery: Delivery, group: str | None) -> Outgoing:
    """A fresh copy for one group of what is given back: any other way would count as a hand-out without a clean end."""
    place: Place = delivery.handle
    headers = {name: text for name, text in place.headers.items() if name != COUNT}
    if group is not None:
        headers[FOR] = group
    if place.count:
        headers[COUNT] = str(place.count)
    delayed = DUE in headers and TARGET in headers
    return Outgoing(place.topic, delivery.body, headers, place.id, 1 if delayed else None, new_id())


def request_of(messages: Sequence[Outgoing]) -> Any:
    """The request that sends these, which are all for one topic."""
    request = service.SendMessageRequest()
    add = request.messages.add
    for message in messages:
        found = add()
        found.CopyFrom(_common(message.topic))
        headers, found.body = _wire_form(message)
        properties = found.user_properties
        for name, text in headers.items():
            properties[name] = text
        system = found.system_properties
        system.message_id = message.message_id
        if message.id.isprintable() and message.id and " " not in message.id:
            system.keys.append(message.id)
        if message.deliver_ms is not None:
            system.message_type = definition.MessageType.DELAY
            system.delivery_timestamp.FromMilliseconds(message.deliver_ms)
    return request


def deliver(found: Any, topic: str, shown: str, until: float) -> Delivery:
    """A delivery of what the server brought."""
    system = found.system_properties
    body: bytes = found.body
    if system.body_encoding == definition.Encoding.GZIP:
        body = _inflated(body)
    headers, body = read(found.user_properties, body)
    count = (number(headers.get(COUNT)) or 0) + max(0, system.delivery_attempt - 1)
    id_ = system.keys[0] if system.keys else ""
    place = Place(topic, system.receipt_handle, system.message_id, until, count, headers, id_)
    return Delivery(
        shown,
        body,
        visible(headers),
        place,
        system.store_timestamp.ToMilliseconds() if system.HasField("store_timestamp") else None,
        suspect=count >= SUSPICIOUS,
    )


def read(properties: Mapping[str, str], body: bytes) -> tuple[Headers, bytes]:
    """Headers and body of what came, the driver's own headers included."""
    if EMPTY not in properties and BEFORE not in properties:
        return read_headers(properties), body
    found = dict(properties)
    length = number(found.pop(BEFORE, None))
    if length is not None:
        found.update(_texts(body[:length]))
        body = body[length:]
    if found.pop(EMPTY, None) is not None:
        body = b""
    return read_headers(found), body


def read_headers(properties: Mapping[str, str]) -> Headers:
    """Headers out of properties alone."""
    headers = dict(properties)
    more = headers.pop(MORE, None)
    if more is not None:
        headers.update(_texts(more))
    return headers


def visible(headers: Headers) -> Headers:
    """Those that are not the driver's own."""
    for name in headers:
        if name.startswith(_OWN):
            return {name: text for name, text in headers.items() if not name.startswith(_OWN)}
    return headers


def new_id() -> str:
    """RocketMQ's id of a message: 32 hexadecimal digits, of this process and of the message."""
    return f"{_PROCESS}{next(_numbers):012X}"


@functools.lru_cache(maxsize=256)
def _common(topic: str) -> Any:
    """What all messages of a topic have in common, to be copied: several times as fast as setting each field."""
    found = definition.Message(topic=definition.Resource(name=topic))
    found.system_properties.body_encoding = definition.Encoding.IDENTITY
    found.system_properties.message_type = definition.MessageType.NORMAL
    return found


def _wire_form(message: Outgoing) -> tuple[Headers, bytes]:
    headers, body = _wire_headers(message), message.body or b"\0"
    if sum(map(len, headers.values())) * 4 < MOST_PROPERTIES or _size(headers) <= MOST_PROPERTIES:
        return headers, body
    long = {name: text for name, text in headers.items() if len(text) > _LONG}
    before = json.dumps(long).encode()
    kept = {name: text for name, text in headers.items() if name not in long}
    return {**kept, BEFORE: str(len(before))}, before + body


def _size(headers: Headers) -> int:
    """As the proxy counts it."""
    return sum(len(name.encode()) + len(text.encode()) for name, text in headers.items())


def _wire_headers(message: Outgoing) -> Headers:
    headers = message.headers
    if not _are_plain(headers):
        plain = {name: text for name, text in headers.items() if _are_plain({name: text})}
        odd = {name: text for name, text in headers.items() if name not in plain}
        headers = {**plain, MORE: json.dumps(odd)}
    return headers if message.body else {**headers, EMPTY: "1"}


def _are_plain(headers: Headers) -> bool:
    """Whether the proxy takes them as they are. Other texts are escaped as JSON."""
    texts = headers.values()
    return "".join(texts).isprintable() and all(map(str.strip, texts)) and all(map(_is_plain_name, headers))


@functools.lru_cache(maxsize=1024)
def _is_plain_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _texts(more: str | bytes) -> Headers:
    try:
        found = json.loads(more)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def _timed(
    names: Names, body: bytes, headers: Headers, id_: str, due_ms: int, now_ms: int, guard_ms: int, longest_ms: int
) -> Outgoing:
    at_ms = min(due_ms - guard_ms, now_ms + longest_ms)
    return Outgoing(names.near, body, headers, id_, max(at_ms, now_ms - 1), new_id())


def _inflated(body: bytes) -> bytes:
    try:
        return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else zlib.decompress(body)
    except (OSError, EOFError, zlib.error):
        return body  # the worker buries what it cannot decode, with these bytes
