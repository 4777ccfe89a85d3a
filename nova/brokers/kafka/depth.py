"""How much waits for a group: lag minus what the committed maps mark done, and a look into the delay topics.

Counts are the broker's, as of the last commits (at most `COMMIT_EVERY` old). Copies addressed to another group count as
waiting until a consumer passes them over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Message

from nova.brokers.base import TopicDepth
from nova.brokers.kafka.escrow import LeaseBook
from nova.brokers.kafka.names import Names, Place
from nova.brokers.kafka.offset_map import OffsetMap
from nova.brokers.kafka.offsets import Offsets
from nova.brokers.kafka.records import ESCROW, SENT, TARGET, headers_of
from nova.brokers.kafka.registry import Registration
from nova.envelope import GROUP, number

__all__ = ["DepthReader"]

LOOKED_AT = 20_000
"""Delayed records that are read one by one; of more, as many are read and the rest is reckoned by their shares."""

ReadRange = Callable[[Place, int, int], Iterator[Message]]


@dataclass(frozen=True, slots=True)
class DepthReader:
    """Counts for one call.

    Attributes:
        places: the partitions of every topic of the prefix that exists.
        read: the records of a partition from one offset to another.
        leases: the escrow's leases, caught up, if there are any.
    """

    names: Names
    offsets: Offsets
    group: str
    places: Mapping[str, Sequence[Place]]
    registrations: Sequence[Registration]
    read: ReadRange
    leases: Callable[[], LeaseBook]
    timeout: float

    def count(self, topics: Sequence[str]) -> dict[str, TopicDepth]:
        """Depths of ready and quarantine topics."""
        delayed, escrowed = self._look_at_delayed()
        counts: dict[str, TopicDepth] = {}
        for topic in topics:
            waiting, running = self._lag(topic)
            if topic == self.names.shown(self.names.go_delayed):
                more = self._lag(self.names.go_delayed)
                waiting, running = waiting + more[0], running + more[1]
            counts[topic] = TopicDepth(waiting, delayed[topic], running + escrowed[topic])
        return counts

    def _lag(self, topic: str) -> tuple[int, int]:
        """Waiting and running."""
        places = self.places.get(topic, ())
        if not places:
            return 0, 0
        starts = self._starts(topic)
        if starts is None:
            return 0, 0
        committed = self.offsets.committed(self.names.consumer_group(self.group, topic), places, self.timeout)
        ends = self.offsets.ends(places, self.timeout)
        missing = [place for place in places if place not in committed and place[1] not in starts]
        beginnings = self.offsets.beginnings(missing, self.timeout)
        waiting = running = 0
        for place, end in ends.items():
            found = committed.get(place)
            if found is None:
                waiting += max(0, end - starts.get(place[1], beginnings.get(place, 0)))
                continue
            handed = found.base if found.clean else max(found.handed, found.base)
            waiting += max(0, end - handed - (found.done_below(end) - found.done_below(handed)))
            running += 0 if found.clean else found.unfinished
        return waiting, running

    def _starts(self, topic: str) -> Mapping[int, int] | None:
        """Where the group begins; None if it is not registered and others are."""
        of_topic = [entry for entry in self.registrations if entry.topic == topic]
        mine = [entry for entry in of_topic if entry.group == self.group]
        if mine:
            return mine[0].starts
        return None if of_topic else {}

    def _look_at_delayed(self) -> tuple[Counter[str], Counter[str]]:
        """Delayed tasks, and running ones in escrow, by target topic."""
        delayed: Counter[str] = Counter()
        escrowed: Counter[str] = Counter()
        places = [p for topic, found in self.places.items() if self.names.level_of(topic) is not None for p in found]
        if not places:
            return delayed, escrowed
        committed = self.offsets.committed(self.names.forwarder, places, self.timeout)
        ends = self.offsets.ends(places, self.timeout)
        missing = [place for place in places if place not in committed]
        beginnings = self.offsets.beginnings(missing, self.timeout)
        ranges = {
            place: committed.get(place) or OffsetMap(beginnings.get(place, end), beginnings.get(place, end))
            for place, end in ends.items()
        }
        total = sum(max(0, ends[place] - found.base) for place, found in ranges.items())
        share = min(1.0, LOOKED_AT / total) if total else 1.0
        tokens: list[tuple[str, str]] = []
        for place, found in ranges.items():
            length = ends[place] - found.base
            if length > 0:
                looked = max(1, int(length * share))
                counts = self._count_range(place, found, found.base + looked, tokens)
                delayed.update({topic: round(number * length / looked) for topic, number in counts.items()})
        if tokens:
            book = self.leases()
            escrowed.update(target for token, target in tokens if book.is_running(token))
        return delayed, escrowed

    def _count_range(self, place: Place, found: OffsetMap, end: int, tokens: list[tuple[str, str]]) -> Counter[str]:
        counts: Counter[str] = Counter()
        done = set(found.done())
        since_ms = {entry.topic: entry.since_ms for entry in self.registrations if entry.group == self.group}
        for message in self.read(place, found.base, end):
            headers = headers_of(message)
            if message.offset() in done or headers.get(GROUP, self.group) != self.group:
                continue
            target = self.names.shown(headers.get(TARGET, ""))
            sent_ms = number(headers.get(SENT))
            if (message.timestamp()[1] if sent_ms is None else sent_ms) < since_ms.get(target, 0):
                continue
            if ESCROW in headers:
                tokens.append((headers[ESCROW], target))
            else:
                counts[target] += 1
        return counts
