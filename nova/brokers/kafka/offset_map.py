"""The text committed beside a partition's offset: what is finished above it, and what its owner was doing. Pure.

Form: one version character, then base85 of varints: flags, handed - base, owner, charges, and the finished offsets as run
lengths or as a bit set, whichever is shorter; `z` after the version = deflated. A text nobody can read is an empty map: what
was finished above the base then runs again, and nothing is lost.

Kafka's broker refuses texts of 4,096 bytes and more, with the whole commit (measured; `offset.metadata.max.bytes`), so the
length is checked before.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["FENCE", "LIMIT", "OffsetMap", "decode", "encode"]

LIMIT = 3900
"""No longer text is committed."""
FENCE = 2900
"""From this length on the partition's new records are not taken."""

_VERSION = "1"
_DEFLATED = "z"
_RUNS, _BITS = 0, 1
_MOST_BYTES = 1 << 16
_MOST_DONE = 1 << 22
"""A text that claims more finished offsets is none of ours."""


@dataclass(frozen=True, slots=True)
class OffsetMap:
    """What a partition's owner leaves to its successor.

    Attributes:
        base: the committed offset.
        handed: one above the highest offset ever handed out.
        runs: lengths from the base on: unfinished, finished, unfinished, finished, …
        clean: the owner gave the partition up in order.
        deaths: owners in a row that did not, before this one.
        charges: how often an offset was handed out without a clean end (quarantine only).
        owner: who wrote it, a number below 2^28; 0 = nobody.
    """

    base: int
    handed: int
    runs: Sequence[int] = ()
    clean: bool = True
    deaths: int = 0
    charges: Mapping[int, int] = field(default_factory=dict)
    owner: int = 0

    def done(self) -> Iterator[int]:
        """The finished offsets above the base."""
        offset = self.base
        for index, length in enumerate(self.runs):
            if index % 2:
                yield from range(offset, offset + length)
            offset += length

    @property
    def unfinished(self) -> int:
        """How many offsets were handed out and not finished."""
        return max(0, self.handed - self.base - self.done_below(self.handed))

    def done_below(self, end: int) -> int:
        """How many offsets from the base to `end` are finished."""
        count, offset = 0, self.base
        for index, length in enumerate(self.runs):
            if index % 2:
                count += max(0, min(offset + length, end) - offset)
            offset += length
        return count


def encode(found: OffsetMap, limit: int = LIMIT) -> tuple[str, bool]:
    """The text, at most `limit` characters, and whether the whole map found room.

    A map that is too long keeps its beginning: what is left out runs again after a takeover.
    """
    text = _text(found, found.runs)
    if len(text) <= limit:
        return text, True
    fits, too_many = 0, len(found.runs) // 2
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if len(_text(found, found.runs[: 2 * middle])) <= limit:
            fits = middle
        else:
            too_many = middle
    return _text(found, found.runs[: 2 * fits]), False


def decode(base: int, text: str | None) -> OffsetMap | None:
    """The map committed with `base`, or None if the text is none of ours."""
    if not text or text[0] != _VERSION:
        return None
    try:
        if text[1:2] == _DEFLATED:
            data = zlib.decompressobj().decompress(base64.b85decode(text[2:]), _MOST_BYTES)
        else:
            data = base64.b85decode(text[1:])
        return _parse(base, data)
    except (ValueError, binascii.Error, zlib.error, StopIteration, IndexError):
        return None


def _text(found: OffsetMap, runs: Sequence[int]) -> str:
    numbers = [int(found.clean) + 2 * found.deaths, found.handed - found.base, found.owner, len(found.charges)]
    for offset, count in sorted(found.charges.items()):
        numbers += (offset - found.base, count)
    as_runs = bytes([_RUNS]) + b"".join(map(_varint, runs))
    bits = _bits(runs) if sum(runs) // 8 < len(as_runs) else None
    data = b"".join(map(_varint, numbers)) + (as_runs if bits is None else bytes([_BITS]) + bits)
    deflated = zlib.compress(data, 6)
    if len(deflated) + 1 < len(data):
        return _VERSION + _DEFLATED + base64.b85encode(deflated).decode()
    return _VERSION + base64.b85encode(data).decode()


def _parse(base: int, data: bytes) -> OffsetMap:
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    flags, handed, owner = number(), number(), number()
    charges: dict[int, int] = {}
    for _ in range(number()):
        offset = base + number()
        charges[offset] = number()
    kind = data[position]
    position += 1
    if kind == _BITS:
        runs = _runs_of(data[position:])
    elif kind == _RUNS:
        runs = []
        while position < len(data):
            runs.append(number())
    else:
        raise ValueError(f"unknown kind {kind}")
    if len(runs) % 2 or sum(runs) > _MOST_DONE:
        raise ValueError("no run lengths")
    return OffsetMap(base, base + handed, runs, bool(flags & 1), flags >> 1, charges, owner)


def _bits(runs: Sequence[int]) -> bytes:
    value = offset = 0
    for index, length in enumerate(runs):
        if index % 2:
            value |= ((1 << length) - 1) << offset
        offset += length
    return value.to_bytes((offset + 7) // 8, "little")


def _runs_of(bits: bytes) -> list[int]:
    value = int.from_bytes(bits, "little")
    text = bin(value)[:1:-1] if value else ""
    lengths = [len(list(group)) for _, group in itertools.groupby(text)]
    return [0, *lengths] if text[:1] == "1" else lengths


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
