"""What is read past pika is what pika would have read, and all else reaches pika untouched and in order."""

from __future__ import annotations

import itertools
import struct
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
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
    headers = {
        name: value
        for name, value in (found.headers or {}).items()
        if isinstance(value, (str, int)) and not isinstance(value, bool)
    }
    return Properties(headers, found.message_id, found.timestamp)


def message(channel: int, tag: int, properties: spec.BasicProperties, pieces: list[bytes]) -> list[bytes]:
    method = spec.Basic.Deliver(f"consumer-{tag}", tag, False, "exchange", "key")
    return [
        frame.Method(channel, method).marshal(),
        frame.Header(channel, sum(map(len, pieces)), properties).marshal(),
        *(frame.Body(channel, piece).marshal() for piece in pieces),
    ]


@settings(deadline=None)
@given(properties=PROPERTIES, size=st.integers(0, 2**40))
def test_properties_are_read_as_pika_reads_them(properties: spec.BasicProperties, size: int) -> None:
    raw = frame.Header(1, size, properties).marshal()
    assert read_content(raw, 7) == (size, as_pika_reads(properties, size))


@settings(deadline=None)
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


def table(*fields: tuple[str, bytes]) -> bytes:
    """A content header with a field table of raw values, each with its kind."""
    raw = b"".join(bytes([len(name)]) + name.encode() + value for name, value in fields)
    payload = struct.pack(">HHQH", 60, 0, 3, 1 << 13) + struct.pack(">I", len(raw)) + raw
    return struct.pack(">BHI", 2, OURS, len(payload)) + payload + b"\xce"


GOOD = ("good", b"S\x00\x00\x00\x02ok")


@pytest.mark.parametrize(
    "value",
    [
        b"T" + struct.pack(">Q", 1_700_000_000_000),
        b"d" + struct.pack(">d", float("nan")),
        b"f" + struct.pack(">f", float("inf")),
        b"D\xff\x00\x00\x00\x01",
        b"V",
        b"t\x01",
        b"U" + bytes(2),
        b"x\x00\x00\x00\x03abc",
        b"S\x00\x00\x00\x02\xff\xfe",
        b"F\x00\x00\x00\x06\x01nT" + bytes(3),
        b"A\x00\x00\x00\x02zz",
    ],
)
def test_a_header_of_another_kind_is_passed_over_whatever_is_in_it(value: bytes) -> None:
    """pika raises for some of these, which ended the connection, again and again, for every worker of the group."""
    size, found = read_content(table(("odd", value), GOOD), 7)
    assert (size, found.headers) == (3, {"good": "ok"})


@settings(deadline=None)
@given(st.lists(st.tuples(SHORT, st.binary(max_size=30)), max_size=4), st.binary(max_size=40))
def test_no_bytes_in_a_header_end_the_reading(fields: list[tuple[str, bytes]], tail: bytes) -> None:
    raw = table(*((name[:50], value) for name, value in fields), ("tail", tail))
    size, found = read_content(raw, 7)
    assert size == 3
    assert all(isinstance(value, (str, int)) for value in found.headers.values())


def test_frames_of_other_channels_may_stand_between_those_of_a_delivery() -> None:
    connection = Wire()
    reader = reading(connection)
    reader.takers[OURS] = lambda tag, properties, body: connection.events.append((tag, body))
    reader.confirmed[CONFIRMS] = lambda tag, multiple, is_ack: connection.events.append(tag)
    method, header, first, second = message(OURS, 7, spec.BasicProperties(), [b"ab", b"cd"])
    beat, ack = frame.Heartbeat().marshal(), frame.Method(CONFIRMS, spec.Basic.Ack(9, False)).marshal()
    connection._on_data_available(b"".join((method, beat, header, ack, first, beat, second)))
    assert connection.events == [beat, 9, beat, (7, b"abcd")]


def test_a_taker_that_raises_loses_no_other_message(caplog: pytest.LogCaptureFixture) -> None:
    connection = Wire()
    reader = reading(connection)

    def take(tag: int, properties: Properties, body: bytes) -> None:
        if tag == 2:
            raise ValueError("nobody can read this")
        connection.events.append(tag)

    reader.takers[OURS] = take
    wire = b"".join(b"".join(message(OURS, tag, spec.BasicProperties(), [b"x"])) for tag in (1, 2, 3))
    connection._on_data_available(wire)
    assert connection.events == [1, 3]
    assert "delivery tag 2" in caplog.text


def test_a_large_body_in_small_pieces_is_read_once() -> None:
    """Read anew at each piece, 16 MB took 23 s of the link's thread, and urgent tasks waited for it."""
    connection = Wire()
    reader = reading(connection)
    got: list[int] = []
    reader.takers[OURS] = lambda tag, properties, body: got.append(len(body))
    wire = b"".join(message(OURS, 1, spec.BasicProperties(), [bytes(131_064)] * 128))
    begin = time.perf_counter()
    for start in range(0, len(wire), 4096):
        reader.feed(wire[start : start + 4096])
    assert got == [128 * 131_064]
    assert time.perf_counter() - begin < 5.0, "some 50 ms; 5 s is a wide margin"


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
