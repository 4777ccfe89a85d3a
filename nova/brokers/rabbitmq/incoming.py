"""Reading deliveries and confirmations past pika, which makes objects of each and decodes much that nobody looks at.

That was half of what a delivery cost (figures in docs/performance.md). Only what comes whole on channels that ask for it is
read here; all else goes on to pika, in the order in which it came. On the link's thread.

Source: AMQP 0-9-1, 2.3.5 (frames), 4.2.6.1 (content header); RabbitMQ's errata on field tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception's name
from typing import Any

import msgspec
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
_TEXT = ord("S")
_NUMBERS = {ord(kind): Struct(f">{form}") for kind, form in zip("bBsuIilL", "bBhHiIqq", strict=True)}
_LENGTHS = {
    ord(kind): length
    for kind, length in zip("tbBsUuIilLfdDTV", (1, 1, 1, 2, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0), strict=True)
}
_PREFIXED = frozenset(map(ord, "SxAF"))
"""Kinds of field values: those read, those of a fixed length, and those that say theirs."""
_FRAMING = 8
"""Bytes of a frame around its content."""


_log = logging.getLogger(__name__)


class Properties(msgspec.Struct, gc=False):
    """What Nova reads of a message's properties; named as pika's are."""

    headers: dict[str, str | int]
    message_id: str | None
    timestamp: int | None


Taker = Callable[[int, Properties, bytes], None]
"""Given the delivery tag, the properties and the body."""


Confirmed = Callable[[int, bool, bool], None]
"""Given the tag, whether all up to it are meant, and whether they are stored."""


class _Begun:
    """A delivery of which not all frames have come."""

    __slots__ = ("missing", "pieces", "properties", "tag")

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.properties: Properties | None = None
        self.pieces: list[bytes] = []
        self.missing = 0


class DeliveryReader:
    """Stands between a connection and its socket. Each byte is looked at once, however slowly a large body comes.

    Attributes:
        takers: who gets the deliveries of a channel, by its number.
        confirmed: who gets the confirmations of a channel, by its number.
    """

    def __init__(self, connection: Connection) -> None:
        self.takers: dict[int, Taker] = {}
        self.confirmed: dict[int, Confirmed] = {}
        self._connection: Any = connection
        self._pass_on: Callable[[bytes], None] = self._connection._on_data_available
        self._pieces: list[bytes] = []
        """Of a frame that is not all there."""
        self._have = 0
        self._needed = 0
        self._begun: dict[int, _Begun] = {}
        self._connection._on_data_available = self.feed

    def feed(self, data: bytes) -> None:
        """What the socket brought."""
        if self._connection._frame_buffer:
            self._pass_on(data)  # from before this one stood here; whole frames again after it
            return
        self._connection.bytes_received += len(data)  # a sign of life, also while a large body comes slowly
        self._pieces.append(data)
        self._have += len(data)
        if self._have < self._needed:
            return
        if len(self._pieces) > 1:
            data = b"".join(self._pieces)
        start = position = 0
        while (end := _end_of_frame(data, position)) <= len(data):
            channel = data[position + 1] << 8 | data[position + 2]
            if self._is_ours(data, position, channel):
                if start < position:
                    self._pass_on(data[start:position])
                start = end
                self._take(data, position, end, channel)
            position = end
        if start < position:
            self._pass_on(data[start:position])
        self._pieces = [data[position:]] if position < len(data) else []
        self._have = len(data) - position
        self._needed = end - position

    def _is_ours(self, data: bytes, position: int, channel: int) -> bool:
        if data[position] != _METHOD:
            return channel in self._begun
        self._begun.pop(channel, None)
        kind = data[position + 7 : position + 11]
        if kind == _DELIVER:
            return channel in self.takers
        return kind in (_ACK, _NACK) and channel in self.confirmed

    def _take(self, data: bytes, position: int, end: int, channel: int) -> None:
        kind = data[position]
        if kind == _METHOD:
            if data[position + 7 : position + 11] == _DELIVER:
                (tag,) = _TAG.unpack_from(data, position + 12 + data[position + 11])
                self._begun[channel] = _Begun(tag)
                return
            (tag,) = _TAG.unpack_from(data, position + 11)
            self.confirmed[channel](tag, bool(data[position + 19] & 1), data[position + 10] == _ACK[3])
            return
        begun = self._begun[channel]
        if kind == _HEADER:
            begun.missing, begun.properties = read_content(data, position + 7)
        else:
            begun.pieces.append(data[position + 7 : end - 1])
            begun.missing -= end - position - _FRAMING
        if begun.missing <= 0 and begun.properties is not None:
            del self._begun[channel]
            body = begun.pieces[0] if len(begun.pieces) == 1 else b"".join(begun.pieces)
            taker = self.takers.get(channel)
            if taker is None:
                return  # its channel was given up meanwhile
            try:
                taker(begun.tag, begun.properties, body)
            except Exception:  # noqa: BLE001 - it stays unacknowledged; without this one message would cut the connection again and again
                _log.exception("a message that cannot be read stays where it is, delivery tag %d", begun.tag)


def _end_of_frame(data: bytes, position: int) -> int:
    """Where the frame that begins here ends, or at least how much is needed to know."""
    if position + 7 > len(data):
        return position + _FRAMING
    return position + _FRAMING + int(_LONG.unpack_from(data, position + 3)[0])


def read_content(data: bytes, position: int) -> tuple[int, Properties]:
    """Body size and properties of the content header that begins there; properties that make no sense are none."""
    size, flags = _CONTENT.unpack_from(data, position + 4)
    try:
        return size, _read_properties(data, position + 14, flags)
    except (IndexError, StructError):
        return size, Properties({}, None, None)


def _read_properties(data: bytes, position: int, flags: int) -> Properties:
    more = flags
    while more & _MORE:  # no property is in there today
        more = data[position] << 8 | data[position + 1]
        position += 2
    headers: dict[str, str | int] = {}
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
    return Properties(headers, message_id, timestamp)


def _read_table(data: bytes, start: int) -> tuple[dict[str, str | int], int]:
    """The texts and the numbers of a field table, and where it ends.

    No more is used of anybody's headers, and others send what nobody can read: pika raises for a timestamp of the year 55840.
    """
    position = start + 4
    end = position + int(_LONG.unpack_from(data, start)[0])
    table: dict[str, str | int] = {}
    while position < end:
        kind_at = position + 1 + data[position]
        kind, value = data[kind_at], kind_at + 1
        length = _LENGTHS.get(kind)
        if length is None:
            if kind not in _PREFIXED:
                break  # unknown, and so is where the next one begins
            length = 4 + int(_LONG.unpack_from(data, value)[0])
        try:
            if kind == _TEXT:
                table[data[position + 1 : kind_at].decode()] = data[value + 4 : value + length].decode()
            elif kind in _NUMBERS:
                (table[data[position + 1 : kind_at].decode()],) = _NUMBERS[kind].unpack_from(data, value)
        except UnicodeDecodeError:
            pass  # no text
        position = value + length
    return table, end
