"""Messages as they lie in the brokers' log, which is how a pull brings them. Pure.

Source: RocketMQ `MessageDecoder`, `MessageSysFlag`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Stored", "read_messages"]

_MAGIC = {-626843481: 1, -626843477: 2}
"""By version, how many bytes tell the length of the topic's name."""
_BORN_V6 = 0x10
_STORED_V6 = 0x20
_HEAD = struct.Struct(">iiiiiqqiq")
_HOST, _HOST_V6 = 8, 20


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a log."""

    queue: int
    offset: int
    stored_ms: int
    body: bytes
    properties: dict[str, str]


def read_messages(data: bytes) -> Iterator[Stored]:
    """The messages of a pull's answer; what is cut off at its end is left out."""
    at = 0
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">i", data, at)
        if size <= 0 or at + size > len(data):
            return
        found = _read(data[at : at + size])
        if found is not None:
            yield found
        at += size


def _read(data: bytes) -> Stored | None:
    _, magic, _, queue, _, offset, _, flags, _ = _HEAD.unpack_from(data, 0)
    width = _MAGIC.get(magic)
    if width is None:
        return None  # the filler at the end of a file
    at = _HEAD.size + (_HOST_V6 if flags & _BORN_V6 else _HOST)
    (stored_ms,) = struct.unpack_from(">q", data, at)
    at += 8 + (_HOST_V6 if flags & _STORED_V6 else _HOST) + 4 + 8
    (length,) = struct.unpack_from(">i", data, at)
    body = data[at + 4 : at + 4 + length]
    at += 4 + length
    at += width + int.from_bytes(data[at : at + width], "big")
    (length,) = struct.unpack_from(">H", data, at)
    text = data[at + 2 : at + 2 + length].decode(errors="replace")
    properties = dict(pair.split("\x01", 1) for pair in text.split("\x02") if "\x01" in pair)
    return Stored(queue, offset, stored_ms, body, properties)
