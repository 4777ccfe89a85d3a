"""The bytes of a published message, and of acks: frames of AMQP 0-9-1 in one piece. Pure.

pika builds an object for each frame and writes each to the socket by itself, which is most of what a batch costs (figures in
docs/performance.md). `tests/unit/test_rabbitmq_frames.py` holds the two against each other.

Source: AMQP 0-9-1, 2.3.5 (frames), 4.2.6.1 (content header); RabbitMQ's errata on field tables.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from struct import Struct

__all__ = ["ack_frames", "publish_frames"]

_FRAME = Struct(">BHI")
_END = b"\xce"
_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC = 60
_PUBLISH = Struct(">HHH")
_ACK = Struct(">BHIHHQBB")
_CONTENT = Struct(">HHQH")
_LONG = Struct(">I")
_INSTANT = Struct(">Q")
_MANDATORY = b"\x01"
_PERSISTENT = b"\x02"
_FLAGS = 1 << 15 | 1 << 13 | 1 << 12 | 1 << 10 | 1 << 7 | 1 << 6
"""Content type, headers, delivery mode, correlation id, message id, timestamp."""


def publish_frames(
    channel: int,
    most: int,
    exchange: str,
    key: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    content_type: str,
    correlation_id: str,
    message_id: str,
    timestamp: int,
) -> bytes:
    """A mandatory, persistent message.

    Args:
        most: the longest body frame's content, as agreed with the server.
        timestamp: in seconds.

    Raises:
        ValueError: a short text is longer than 255 bytes of UTF-8, a text holds what UTF-8 cannot, or the headers fill more
            than one frame, over which the server would close the connection.
    """
    content = b"".join(
        (
            _CONTENT.pack(_BASIC, 0, len(body), _FLAGS),
            _name(content_type),
            _table(tuple(headers.items())),
            _PERSISTENT,
            _short(correlation_id),
            _short(message_id),
            _INSTANT.pack(timestamp),
        )
    )
    if len(content) > most:
        raise ValueError(
            f"its headers have {len(content)} bytes, the server takes {most}; put the data into the payload"
        )
    parts = [_publish_method(channel, exchange, key), _FRAME.pack(_HEADER, channel, len(content)), content, _END]
    for start in range(0, len(body), most):
        piece = body[start : start + most]
        parts += (_FRAME.pack(_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def ack_frames(channel: int, through: int | None, singles: Sequence[int]) -> bytes:
    """All up to `through` at once, and some more one by one."""
    pack = _ACK.pack
    parts = [pack(_METHOD, channel, 13, _BASIC, 80, tag, 0, 0xCE) for tag in singles]
    if through is not None:
        parts.insert(0, pack(_METHOD, channel, 13, _BASIC, 80, through, 1, 0xCE))
    return b"".join(parts)


@functools.lru_cache(maxsize=256)
def _publish_method(channel: int, exchange: str, key: str) -> bytes:
    """The first frame of a message, the same for all that go to one place."""
    method = b"".join((_PUBLISH.pack(_BASIC, 40, 0), _short(exchange), _short(key), _MANDATORY))
    return b"".join((_FRAME.pack(_METHOD, channel, len(method)), method, _END))


@functools.lru_cache(maxsize=64)
def _table(headers: tuple[tuple[str, str], ...]) -> bytes:
    """A field table, often the same for all tasks of a call: their id is not in it."""
    fields: list[bytes] = []
    for name, text in headers:
        value = text.encode()
        fields += (_name(name), b"S", _LONG.pack(len(value)), value)
    table = b"".join(fields)
    return _LONG.pack(len(table)) + table


@functools.lru_cache(maxsize=1024)
def _name(text: str) -> bytes:
    """A short text that comes again and again."""
    return _short(text)


def _short(text: str) -> bytes:
    value = text.encode()
    if len(value) > 255:
        raise ValueError(f"{text[:60]!r}… is longer than 255 bytes")
    return bytes((len(value),)) + value
