"""Between a message of the seam and a record of Kafka. Pure.

A delayed message is a record of a delay topic; what it is to become stands in headers that no consumer sees:
`nova-hold` how long its lane holds it, `nova-x-due` when it is due, `nova-x-target` the topic it goes to, `nova-x-sent` when
the broker stored it first (by its clock), `nova-x-key` its key, `nova-x-escrow` the lease of the handler that still runs it.
`nova-x-deaths` counts the holders of a task that died while it was in escrow. The id of a task of Nova's is left out where
the record's key says it.
"""

from __future__ import annotations

import operator
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from confluent_kafka import Message as KafkaMessage

from nova.brokers.base import Confirmation, Message
from nova.brokers.kafka.delay_lanes import DelayLanes
from nova.brokers.kafka.names import Names
from nova.envelope import GROUP, ID, Headers, number, without_id

__all__ = [
    "DEATHS",
    "DUE",
    "ESCROW",
    "HOLD",
    "KEY",
    "SENT",
    "TARGET",
    "ForeignRecord",
    "Publish",
    "Record",
    "as_record",
    "decode_headers",
    "delayed",
    "headers_of",
    "raw_headers",
    "released",
]

HOLD = "nova-hold"
DUE = "nova-x-due"
TARGET = "nova-x-target"
KEY = "nova-x-key"
ESCROW = "nova-x-escrow"
DEATHS = "nova-x-deaths"
SENT = "nova-x-sent"
_OWN = (HOLD, DUE, TARGET, KEY, ESCROW)

ANY_PARTITION = -1

RawHeaders = Sequence[tuple[str, bytes | str | None]]


class ForeignRecord(Exception):
    """A record of a delay topic that Nova did not write."""


class Record(msgspec.Struct, gc=False):
    """What is produced. A struct for speed; nobody changes one."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Headers
    partition: int = ANY_PARTITION


Publish = Callable[[Sequence[Record]], Confirmation]
"""Hands records to the broker; see `Sender.send`."""


def as_record(message: Message, names: Names, lanes: DelayLanes, now_ms: int) -> Record:
    """The record of a message: in its topic, or on its way there through the delay topics."""
    headers = message.headers
    if message.group is not None and headers.get(GROUP) != message.group:
        headers = {**headers, GROUP: message.group}
    key = message.key or message.id
    headers = without_id(headers, key)
    due_ms = message.due_ms
    if due_ms is not None and due_ms > now_ms:
        return delayed(names, lanes, message.topic, key, message.body, headers, due_ms, now_ms)
    if message.topic == names.dead:
        # A compacted topic keeps one record per key, and one task may be buried twice.
        headers, key = {**headers, ID: message.id}, f"{key}/{uuid.uuid4().hex}"
    return Record(message.topic, key, message.body, headers)


def delayed(
    names: Names,
    lanes: DelayLanes,
    target: str,
    key: str | None,
    value: bytes,
    headers: Mapping[str, str],
    due_ms: int,
    now_ms: int,
) -> Record:
    """A hop of a delayed message: the longest hold that does not exceed what remains."""
    own = {**headers, DUE: str(due_ms), TARGET: target}
    if key is not None:
        own[KEY] = key
    lane = lanes.pick(due_ms - now_ms)
    if lane is None:
        return Record(names.near, key, value, own)
    own[HOLD] = str(lane.hold_ms)
    return Record(names.level(lane.level), key, value, own, lane.index)


def released(names: Names, lanes: DelayLanes, value: bytes, headers: Mapping[str, str], now_ms: int) -> Record:
    """The next hop of a delayed record, or its arrival at its target.

    Raises:
        ForeignRecord: it is none of ours.
    """
    due_ms, target, key = number(headers.get(DUE)), headers.get(TARGET), headers.get(KEY)
    if due_ms is None or target is None or not names.owns(target):
        raise ForeignRecord
    if due_ms > now_ms:
        kept = {name: text for name, text in headers.items() if name != HOLD}
        return delayed(names, lanes, target, key, value, kept, due_ms, now_ms)
    return Record(target, key, value, {name: text for name, text in headers.items() if name not in _OWN})


def raw_headers(message: KafkaMessage) -> RawHeaders:
    """A record's headers as the client gives them; none if a name of them is no UTF-8, which only foreign records have.

    `message.headers()` then returns a half-made list with an exception pending (confluent-kafka 2.16). Python 3.11 does not
    look for one at a place that has run often, goes on and crashes; called this way it does look.
    """
    try:
        return _ask_for_headers(message) or ()
    except SystemError:
        return ()


_ask_for_headers: Callable[[KafkaMessage], RawHeaders | None] = operator.methodcaller("headers")


def headers_of(message: KafkaMessage) -> Headers:
    """A record's headers as text."""
    return decode_headers(raw_headers(message))


def decode_headers(raw: Iterable[tuple[str, bytes | str | None]] | None) -> Headers:
    """Headers as text; what is no UTF-8 is shown with replacement marks (no header of Nova's is)."""
    if raw is None:
        return {}
    try:
        return {name: value.decode() for name, value in raw}  # type: ignore[union-attr]
    except (UnicodeDecodeError, AttributeError):
        return {name: _as_text(value) for name, value in raw}


def _as_text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
