"""Which groups consume which topics, and from where: the compacted topic `{prefix}_GROUPS`.

A group is written there before it first subscribes. The first group of a topic gets what was sent before; a later one
begins at the ends that were read just before its registration. The log's order says who was first, so two groups that
start at the same moment agree. When the last group of a topic is removed, a mark without a group keeps where the next first
one begins. Delayed tasks arrive long after they were sent; the instant of a registration, stamped by the broker, tells which
of them are older than the group. Any thread; one at a time inside.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nova.brokers.base import Confirmation
from nova.brokers.kafka.compacted import TopicReader
from nova.brokers.kafka.names import Names
from nova.brokers.kafka.records import Record
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
    """

    group: str
    topic: str
    starts: dict[int, int]
    since_ms: int
    order: int


class GroupBook:
    """Reads and writes the registrations of a prefix."""

    def __init__(
        self, reader: TopicReader, publish: Callable[[Sequence[Record]], Confirmation], ends: Ends, names: Names
    ) -> None:
        self._reader = reader
        self._publish = publish
        self._ends = ends
        self._names = names
        self._entries: dict[tuple[str, str], Registration] = {}
        self._slots: tuple[int, int] | None = None
        self._working = threading.Lock()

    def register(self, group: str, topics: Sequence[str], timeout: float) -> dict[str, Registration]:
        """Make sure that the group is registered; returns where it begins, by topic.

        Raises:
            BrokerError: it cannot be registered.
        """
        deadline = time.monotonic() + timeout
        with self._working:
            self._read(deadline)
            missing = [topic for topic in topics if (topic, group) not in self._entries]
            if missing:
                ends = self._ends(missing, _left(deadline))
                self._write([_record(self._names, topic, group, ends.get(topic, {})) for topic in missing], deadline)
                self._read(deadline)
                # Written down, because the first may be removed before a later one asks who it was.
                first = [topic for topic in missing if self._is_first(topic, group)]
                self._write([self._as_first(topic, group) for topic in first], deadline)
                self._read(deadline)
            return {topic: self._entries[topic, group] for topic in topics}

    def registrations(self, timeout: float) -> list[Registration]:
        """All there are, as of now.

        Raises:
            BrokerError: they cannot be read.
        """
        with self._working:
            self._read(time.monotonic() + timeout)
            return [entry for (_, group), entry in self._entries.items() if group != NOBODY]

    def agree_on_slots(self, count: int, unit_ms: int, timeout: float) -> None:
        """Write down the delay slots of the prefix, or compare: with two settings lanes would hold unequally long.

        Raises:
            BrokerError: the prefix was made with others.
        """
        deadline = time.monotonic() + timeout
        with self._working:
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
        with self._working:
            self._read(deadline)
            topics = [topic for topic, name in self._entries if name == group]
            last = [topic for topic in topics if not self._others(topic, group)]
            ends = self._ends(last, _left(deadline))
            self._write([_record(self._names, topic, NOBODY, ends.get(topic, {})) for topic in last], deadline)
            self._write([Record(self._names.groups, _key(topic, group), None, {}) for topic in topics], deadline)
            self._read(deadline)

    def close(self) -> None:
        """Let go of the broker."""
        with self._working:
            self._reader.close()

    def _others(self, topic: str, group: str) -> list[Registration]:
        return [
            entry for (other, name), entry in self._entries.items() if other == topic and name not in (group, NOBODY)
        ]

    def _is_first(self, topic: str, group: str) -> bool:
        mine = self._entries[topic, group].order
        return all(entry.order > mine for entry in self._others(topic, group))

    def _as_first(self, topic: str, group: str) -> Record:
        mark = self._entries.get((topic, NOBODY))
        starts, since_ms = ({}, 0) if mark is None else (mark.starts, mark.since_ms)
        return _record(self._names, topic, group, starts, since_ms, self._entries[topic, group].order)

    def _read(self, deadline: float) -> None:
        for message in self._reader.catch_up(_left(deadline)):
            key, value = (message.key() or b"").decode(errors="replace"), message.value()
            if key == SLOTS and value is not None:
                found = json.loads(value)
                self._slots = (found["count"], found["unit_ms"])
                continue
            topic, _, group = key.partition("|")
            entry = None
            if value is not None:
                entry = _parse(topic, group, value, message.offset() or 0, message.timestamp()[1])
            if entry is None:
                self._entries.pop((topic, group), None)
            else:
                self._entries[topic, group] = entry

    def _write(self, records: Sequence[Record], deadline: float) -> None:
        if not records:
            return
        try:
            outcome = self._publish(records).result(_left(deadline))
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
    since_ms: int | None = None,
    order: int | None = None,
) -> Record:
    """`since_ms` and `order` are None in a first writing: the broker's stamp and offset say them."""
    found = {"starts": {str(number): offset for number, offset in starts.items()}, "since": since_ms, "order": order}
    return Record(names.groups, _key(topic, group), json.dumps(found).encode(), {})


def _key(topic: str, group: str) -> str:
    return f"{topic}|{group}"


def _parse(topic: str, group: str, value: bytes, offset: int, stamp_ms: int) -> Registration | None:
    try:
        found = json.loads(value)
        starts = {int(number): int(start) for number, start in found["starts"].items()}
        since_ms, order = found["since"], found["order"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    since_ms = stamp_ms if since_ms is None else int(since_ms)
    return Registration(group, topic, starts, since_ms, offset if order is None else int(order))


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())
