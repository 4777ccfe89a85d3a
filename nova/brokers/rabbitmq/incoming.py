"""Reading deliveries and confirmations past pika, which makes objects of each and decodes much that nobody looks at.

That was half of what a delivery cost (figures in docs/performance.md). Only what comes whole on channels that ask for it is
read here; all else goes on to pika, in the order in which it came. On the link's thread.

Source: AMQP 0-9-1, 2.3.5 (frames), 4.2.6.1 (content header); RabbitMQ's errata on field tables.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

import msgspec
from pika import data as pika_data
from pika.connection import Connection

__all__ = ["DeliveryReader", "Properties", "Taker", "read_content"]

_FRAME = Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER = b"\x00\x3c\x00\x3c"
_ACK = b"\x00\x3c\x00\x50"
_NACK = b"\x00\x3c\x00\x78"
_TAG = Struct(">Q")
_CONTENT = Struct(">QH")
_LONG = Struct(">I")
_LONG_LONG = Struct(">q")
_INSTANT = Struct(">Q")
_TYPE, _ENCODING, _TABLE, _MODE, _PRIORITY, _CORRELATION, _REPLY, _EXPIRATION, _ID, _TIMESTAMP = (
    1 << bit for bit in range(15, 5, -1)
)
_MORE = 1
_FRAMING = 8
"""Bytes of a frame around its content."""


class Properties(msgspec.Struct, gc=False):
    """What Nova reads of a message's properties; named as pika's are."""

    headers: dict[str, Any]
    message_id: str | None
    timestamp: int | None


Taker = Callable[[int, Properties, bytes], None]
"""Given the delivery tag, the properties and the body."""


Confirmed = Callable[[int, bool, bool], None]
"""Given the tag, whether all up to it are meant, and whether they are stored."""


class DeliveryReader:
    """Stands between a connection and its socket.

    Attributes:
        takers: who gets the deliveries of a channel, by its number.
        confirmed: who gets the confirmations of a channel, by its number.
    """

    def __init__(self, connection: Connection) -> None:
        self.takers: dict[int, Taker] = {}
        self.confirmed: dict[int, Confirmed] = {}
        self._connection: Any = connection
        self._pass_on: Callable[[bytes], None] = self._connection._on_data_available
        self._rest = b""
        self._connection._on_data_available = self.feed

    def feed(self, data: bytes) -> None:
        """What the socket brought."""
        if self._connection._frame_buffer:
            self._pass_on(data)  # from before this one stood here; whole frames again after it
            return
        self._connection.bytes_received += len(data)  # a sign of life, also while a large body comes slowly
        if self._rest:
            data = self._rest + data
        start = position = 0
        while (end := _end_of_frame(data, position)) is not None:
            kind, channel = data[position + 7 : position + 11], data[position + 1] << 8 | data[position + 2]
            is_method = data[position] == _METHOD
            if is_method and kind in (_ACK, _NACK) and channel in self.confirmed:
                if start < position:
                    self._pass_on(data[start:position])
                (tag,) = _TAG.unpack_from(data, position + 11)
                multiple = bool(data[position + 19] & 1)
                start = position = end
                self.confirmed[channel](tag, multiple, kind == _ACK)
                continue
            taker = self.takers.get(channel) if is_method and kind == _DELIVER else None
            if taker is None:
                position = end
                continue
            found = _read_delivery(data, position, end)
            if found is None:
                break  # the rest of it is still to come
            if start < position:
                self._pass_on(data[start:position])
            tag, properties, body, position = found
            start = position
            taker(tag, properties, body)
        if start < position:
            self._pass_on(data[start:position])
        self._rest = data[position:]


def _end_of_frame(data: bytes, position: int) -> int | None:
    """Where the frame that begins here ends; None = it is not all there."""
    if position + 7 > len(data):
        return None
    end = position + _FRAMING + int(_LONG.unpack_from(data, position + 3)[0])
    return end if end <= len(data) else None


def _read_delivery(data: bytes, method: int, header: int) -> tuple[int, Properties, bytes, int] | None:
    """Tag, properties, body and end of the delivery whose first two frames begin there; None = it is not all there."""
    position = _end_of_frame(data, header)
    if position is None:
        return None
    (tag,) = _TAG.unpack_from(data, method + 12 + data[method + 11])
    size, properties = read_content(data, header + 7)
    pieces: list[bytes] = []
    while size > 0:
        end = _end_of_frame(data, position)
        if end is None:
            return None
        piece = data[position + 7 : end - 1]
        pieces.append(piece)
        size -= len(piece)
        position = end
    return tag, properties, pieces[0] if len(pieces) == 1 else b"".join(pieces), position


def read_content(data: bytes, position: int) -> tuple[int, Properties]:
    """Body size and properties of the content header that begins there."""
    size, flags = _CONTENT.unpack_from(data, position + 4)
    position += 14
    more = flags
    while more & _MORE:  # no property is in there today
        more = data[position] << 8 | data[position + 1]
        position += 2
    headers: dict[str, Any] = {}
    message_id: str | None = None
    timestamp: int | None = None
    for flag in (_TYPE, _ENCODING):
        if flags & flag:
            position += 1 + data[position]
    if flags & _TABLE:
        headers, position = _read_table(data, position)
    position += (flags & _MODE != 0) + (flags & _PRIORITY != 0)
    for flag in (_CORRELATION, _REPLY, _EXPIRATION):
        if flags & flag:
            position += 1 + data[position]
    if flags & _ID:
        end = position + 1 + data[position]
        message_id = data[position + 1 : end].decode(errors="replace")
        position = end
    if flags & _TIMESTAMP:
        (timestamp,) = _INSTANT.unpack_from(data, position)
    return size, Properties(headers, message_id, timestamp)


def _read_table(data: bytes, start: int) -> tuple[dict[str, Any], int]:
    """Texts and numbers; a table with anything else is left to pika."""
    position = start + 4
    end = position + int(_LONG.unpack_from(data, start)[0])
    table: dict[str, Any] = {}
    try:
        while position < end:
            value = position + 1 + data[position]
            name = data[position + 1 : value].decode()
            kind = data[value]
            if kind == 0x53:  # S, a text
                position = value + 5 + int(_LONG.unpack_from(data, value + 1)[0])
                table[name] = data[value + 5 : position].decode()
            elif kind == 0x6C:  # l, a number
                (table[name],) = _LONG_LONG.unpack_from(data, value + 1)
                position = value + 9
            else:
                return _pikas_table(data, start), end
    except UnicodeDecodeError:
        return _pikas_table(data, start), end
    return table, end


def _pikas_table(data: bytes, start: int) -> dict[str, Any]:
    table: dict[str, Any] = pika_data.decode_table(data, start)[0]
    return table
