"""Which groups consume which topics, and from where: the compacted topic `{prefix}_GROUPS`.

A group is written there before it first subscribes, with the ends of the partitions read just before. The first group of a
topic gets what was sent before all the same; a later one begins at those ends. Who is first is never written: everybody reads
it from the log's order, so processes that start at the same moment agree, and one that dies halfway leaves nothing wrong.
Marks under no group tell what the log can no longer: that the first group was removed while others stay, and where the next
first one begins after the last was removed. Delayed tasks arrive long after they were sent; the instant of a registration,
stamped by the broker, tells which of them are older than the group. Any thread; one at a time inside.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from confluent_kafka import Message

from nova.brokers.kafka.compacted import TopicReader
from nova.brokers.kafka.names import Names
from nova.brokers.kafka.patience import left, turn
from nova.brokers.kafka.records import Publish, Record
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["GroupBook", "Registration"]

Ends = Callable[[Sequence[str], float], dict[str, dict[int, int]]]
"""Given topics and a timeout, the end offset of each partition of those that exist."""
NOBODY = ""
SLOTS = "delay-slots"
"""The key under which the delay slots of the prefix stand; no topic is named so."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One group's claim on one topic.

    Attributes:
        starts: partition to first offset; a partition that is missing begins at its first record.
        since_ms: what was sent before this instant is not the group's.
        order: where it stands in the log.
        taken: of a mark under no group: the first group was removed, those that stay are later ones.
    """

    group: str
    topic: str
    starts: dict[int, int]
    since_ms: int
    order: int
    taken: bool = False


class GroupBook:
    """Reads and writes the registrations of a prefix."""

    def __init__(self, reader: TopicReader, publish: Publish, ends: Ends, names: Names) -> None:
        self._reader = reader
        self._publish = publish
        self._ends = ends
        self._names = names
        self._entries: dict[tuple[str, str], Registration] = {}
        self._twice: set[tuple[str, str]] = set()
        self._slots: tuple[int, int] | None = None
        self._working = threading.Lock()

    def register(self, group: str, topics: Sequence[str], timeout: float) -> dict[str, Registration]:
        """Make sure that the group is registered; returns where it begins, by topic.

        Raises:
            BrokerError: it cannot be registered.
        """
        deadline = time.monotonic() + timeout
        with self._turn(deadline):
            self._read(deadline)
            missing = [topic for topic in topics if (topic, group) not in self._entries]
            if missing:
                ends = self._ends(missing, left(deadline))
                self._write([_record(self._names, topic, group, ends.get(topic, {})) for topic in missing], deadline)
                self._read(deadline)
                # Another process may have written the same group just before: compaction must not keep ours only.
                twice = [topic for topic in missing if (topic, group) in self._twice]
                self._write([_spelled_out(self._names, self._entries[topic, group]) for topic in twice], deadline)
                self._read(deadline)
            return {topic: self._resolved(self._entries[topic, group]) for topic in topics}

    def registrations(self, timeout: float) -> list[Registration]:
        """All there are, as of now.

        Raises:
            BrokerError: they cannot be read.
        """
        deadline = time.monotonic() + timeout
        with self._turn(deadline):
            self._read(deadline)
            return [self._resolved(entry) for (_, group), entry in self._entries.items() if group != NOBODY]

    def agree_on_slots(self, count: int, unit_ms: int, timeout: float) -> None:
        """Write down the delay slots of the prefix, or compare: with two settings lanes would hold unequally long.

        Raises:
            BrokerError: the prefix was made with others.
        """
        deadline = time.monotonic() + timeout
        with self._turn(deadline):
            self._read(deadline)
            if self._slots is None:
                value = json.dumps({"count": count, "unit_ms": unit_ms}).encode()
                self._write([Record(self._names.groups, SLOTS, value, {})], deadline)
                self._read(deadline)
            if self._slots is not None and self._slots != (count, unit_ms):
                made, seconds = self._slots[0], self._slots[1] / 1000
                raise BrokerError(
                    f"the delay slots of the prefix {self._names.prefix!r} are {made} of {seconds:g} s, not {count} of "
                    f"{unit_ms / 1000:g} s: use with_delay_slots({made}, {seconds:g}), or another prefix"
                )

    def remove(self, group: str, timeout: float) -> None:
        """Forget a group; what its topics hold now is for nobody who comes later.

        Raises:
            BrokerError: it cannot be written.
        """
        deadline = time.monotonic() + timeout
        with self._turn(deadline):
            self._read(deadline)
            topics = [topic for topic, name in self._entries if name == group]
            last = [topic for topic in topics if not self._others(topic, group)]
            first = [t for t in topics if t not in last and self._is_first(self._entries[t, group])]
            ends = self._ends(last, left(deadline))
            self._write([_record(self._names, topic, NOBODY, ends.get(topic, {})) for topic in last], deadline)
            self._write([_record(self._names, topic, NOBODY, {}, taken=True) for topic in first], deadline)
            self._write([Record(self._names.groups, _key(topic, group), None, {}) for topic in topics], deadline)
            self._read(deadline)

    def close(self) -> None:
        """Let go of the broker."""
        with self._working:
            self._reader.close()

    def _turn(self, deadline: float) -> AbstractContextManager[None]:
        return turn(self._working, deadline, f"reading {self._names.groups!r}")

    def _others(self, topic: str, group: str) -> list[Registration]:
        return [
            entry for (other, name), entry in self._entries.items() if other == topic and name not in (group, NOBODY)
        ]

    def _is_first(self, entry: Registration) -> bool:
        mark = self._entries.get((entry.topic, NOBODY))
        if mark is not None and mark.taken:
            return False
        return all(other.order > entry.order for other in self._others(entry.topic, entry.group))

    def _resolved(self, entry: Registration) -> Registration:
        """As it was written, unless it is the first: that begins at the mark, or at the beginning."""
        if not self._is_first(entry):
            return entry
        mark = self._entries.get((entry.topic, NOBODY))
        starts, since_ms = ({}, 0) if mark is None else (mark.starts, mark.since_ms)
        return dataclasses.replace(entry, starts=starts, since_ms=since_ms)

    def _read(self, deadline: float) -> None:
        for message in self._reader.catch_up(left(deadline)):
            key, value = (message.key() or b"").decode(errors="replace"), message.value()
            if key == SLOTS:
                self._slots = _parse_slots(value) or self._slots
                continue
            topic, _, group = key.partition("|")
            self._note((topic, group), message, value)

    def _note(self, key: tuple[str, str], message: Message, value: bytes | None) -> None:
        entry = None
        if value is not None:
            entry = _parse(*key, value, message.offset() or 0, message.timestamp()[1])
        if entry is None:
            self._entries.pop(key, None)
            self._twice.discard(key)
        elif key in self._entries and key[1] != NOBODY:
            self._twice.add(key)  # the earlier one counts
        else:
            self._entries[key] = entry

    def _write(self, records: Sequence[Record], deadline: float) -> None:
        if not records:
            return
        try:
            outcome = self._publish(records).result(left(deadline))
        except TimeoutError:
            raise BrokerUnavailable(f"writing to {self._names.groups!r} was not confirmed in time") from None
        for error in outcome:
            if error is not None:
                raise error


def _record(
    names: Names,
    topic: str,
    group: str,
    starts: dict[int, int],
    *,
    taken: bool = False,
    entry: Registration | None = None,
) -> Record:
    """`since` and `order` are None in a first writing: the broker's stamp and offset say them."""
    found = {
        "starts": {str(number): offset for number, offset in starts.items()},
        "since": None if entry is None else entry.since_ms,
        "order": None if entry is None else entry.order,
        "taken": taken,
    }
    return Record(names.groups, _key(topic, group), json.dumps(found).encode(), {})


def _spelled_out(names: Names, entry: Registration) -> Record:
    return _record(names, entry.topic, entry.group, entry.starts, entry=entry)


def _key(topic: str, group: str) -> str:
    return f"{topic}|{group}"


def _parse(topic: str, group: str, value: bytes, offset: int, stamp_ms: int) -> Registration | None:
    try:
        found = json.loads(value)
        starts = {int(number): int(start) for number, start in found["starts"].items()}
        since_ms, order, taken = found["since"], found["order"], bool(found["taken"])
        since_ms = stamp_ms if since_ms is None else int(since_ms)
        return Registration(group, topic, starts, since_ms, offset if order is None else int(order), taken)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _parse_slots(value: bytes | None) -> tuple[int, int] | None:
    try:
        found = json.loads(value or b"")
        return int(found["count"]), int(found["unit_ms"])
    except (ValueError, KeyError, TypeError):
        return None
