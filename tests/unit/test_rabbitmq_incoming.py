"""What is read past pika is what pika would have read, and all else reaches pika untouched and in order."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec
from pika.connection import Connection

from nova.brokers.rabbitmq.incoming import DeliveryReader, Properties, read_content

SHORT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
INSTANTS = st.integers(0, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
VALUES = st.recursive(
    SHORT | NUMBERS | st.booleans() | st.none() | INSTANTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=5,
)
PROPERTIES = st.builds(
    spec.BasicProperties,
    content_type=st.none() | SHORT,
    content_encoding=st.none() | SHORT,
    headers=st.none()
    | st.dictionaries(SHORT, SHORT | NUMBERS, max_size=5)
    | st.dictionaries(SHORT, VALUES, max_size=4),
    delivery_mode=st.none() | st.integers(1, 2),
    priority=st.none() | st.integers(0, 9),
    correlation_id=st.none() | SHORT,
    reply_to=st.none() | SHORT,
    expiration=st.none() | SHORT,
    message_id=st.none() | SHORT,
    timestamp=st.none() | st.integers(0, 2**40),
    type=st.none() | SHORT,
    app_id=st.none() | SHORT,
)
OURS, PIKAS, CONFIRMS = 3, 4, 5


class Wire:
    """As much of a connection as the reader touches."""

    def __init__(self) -> None:
        self._frame_buffer = b""
        self.bytes_received = 0
        self.events: list[object] = []

    def _on_data_available(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            size, decoded = frame.decode_frame(data[position:])
            assert decoded is not None, "pika gets whole frames"
            self.events.append(data[position : position + size])
            position += size


def reading(connection: Any) -> DeliveryReader:
    return DeliveryReader(connection)


def as_pika_reads(properties: spec.BasicProperties, size: int) -> Properties:
    _, decoded = frame.decode_frame(frame.Header(1, size, properties).marshal())
    assert isinstance(decoded, frame.Header)
    found: Any = decoded.properties
    return Properties(found.headers or {}, found.message_id, found.timestamp)


def message(channel: int, tag: int, properties: spec.BasicProperties, pieces: list[bytes]) -> list[bytes]:
    method = spec.Basic.Deliver(f"consumer-{tag}", tag, False, "exchange", "key")
    return [
        frame.Method(channel, method).marshal(),
        frame.Header(channel, sum(map(len, pieces)), properties).marshal(),
        *(frame.Body(channel, piece).marshal() for piece in pieces),
    ]


@given(properties=PROPERTIES, size=st.integers(0, 2**40))
def test_properties_are_read_as_pika_reads_them(properties: spec.BasicProperties, size: int) -> None:
    raw = frame.Header(1, size, properties).marshal()
    assert read_content(raw, 7) == (size, as_pika_reads(properties, size))


@given(st.data())
def test_deliveries_come_here_and_all_else_to_pika_in_one_order(data: st.DataObject) -> None:
    expected: list[object] = []
    wire = b""
    for tag in range(1, data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(["ours", "theirs", "heartbeat", "ack", "confirm"]))
        if kind in ("ours", "theirs"):
            properties = data.draw(PROPERTIES)
            pieces = data.draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3))
            frames = message(OURS if kind == "ours" else PIKAS, tag, properties, pieces)
            wire += b"".join(frames)
            body = b"".join(pieces)
            expected += [(tag, as_pika_reads(properties, len(body)), body)] if kind == "ours" else frames
        elif kind == "confirm":
            multiple, is_ack = data.draw(st.booleans()), data.draw(st.booleans())
            method = (
                spec.Basic.Ack(tag, multiple) if is_ack else spec.Basic.Nack(tag, multiple, data.draw(st.booleans()))
            )
            wire += frame.Method(CONFIRMS, method).marshal()
            expected.append((tag, multiple, is_ack))
        else:
            other = frame.Heartbeat() if kind == "heartbeat" else frame.Method(OURS, spec.Basic.Ack(tag, True))
            wire += other.marshal()
            expected.append(other.marshal())
    connection = Wire()
    reader = reading(connection)
    reader.takers[OURS] = lambda tag, properties, body: connection.events.append((tag, properties, body))
    reader.confirmed[CONFIRMS] = lambda tag, multiple, is_ack: connection.events.append((tag, multiple, is_ack))
    cuts = sorted({0, len(wire), *data.draw(st.lists(st.integers(0, len(wire)), max_size=6))})
    for start, end in itertools.pairwise(cuts):
        connection._on_data_available(wire[start:end])
    assert connection.events == expected
    assert connection.bytes_received == len(wire)


def test_what_pika_has_begun_to_read_it_goes_on_with() -> None:
    connection = Wire()
    reader = reading(connection)
    got: list[bytes] = []
    reader._pass_on = got.append
    connection._frame_buffer = b"half of a frame"
    reader.feed(b"the other half")
    assert got == [b"the other half"]


def test_pika_has_what_the_reader_stands_between() -> None:
    assert "_on_data_available" in dir(Connection)
    assert b"".join(message(1, 1, spec.BasicProperties(), [b"x"]))[7:11] == b"\x00\x3c\x00\x3c"
