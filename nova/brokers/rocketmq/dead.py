"""A group's dead letters: read by their place in the brokers' log, so that looking takes nothing and counts nothing.

A log deletes no single message. What was removed is said by a message in the same topic, `nova-x-removed`, that names
the places; whoever reads the topic reads both, in any order. Reading needs the brokers' own port: over gRPC a look is a
hand-out, is counted, and hides what it shows from others for at least ten seconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nova.brokers.base import Confirmation, Delivery
from nova.brokers.rocketmq.admin import Admin, Broker
from nova.brokers.rocketmq.log_format import Stored, read_messages
from nova.brokers.rocketmq.messages import FOR, Outgoing, new_id, read, read_headers, visible
from nova.envelope import GROUP, ID, TARGET, number
from nova.errors import BrokerError

__all__ = ["Graveyard", "RocketDeadLetters"]

REMOVED = "nova-x-removed"
PULLED = 256
REMOVED_AT_ONCE = 200
"""Places in one message: its properties have at most 16 KiB."""
RENEWED_AT_ONCE = 500
SHOWN_SOON = 0.01


_Spot = tuple[str, int, int]
"""Broker, queue and offset."""


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a letter lies; sorts by age."""

    stored_ms: int
    broker: str
    queue: int
    offset: int

    @property
    def spot(self) -> _Spot:
        """Without its age."""
        return self.broker, self.queue, self.offset

    def __str__(self) -> str:
        return f"{self.stored_ms:015d}/{self.broker}/{self.queue:05d}/{self.offset:020d}"


class Graveyard:
    """What is known of the topic of the dead letters: read once, then its news. Shared by the readers of one driver.

    Args:
        pull_as: the consumer group in whose name it is pulled; nothing is committed.
    """

    def __init__(self, admin: Admin, topic: str, pull_as: str) -> None:
        self._admin = admin
        self._topic = topic
        self._pull_as = pull_as
        self._read_to: dict[tuple[str, int], int] = {}
        self._letters: dict[str, dict[_Place, str]] = {}
        """By group: place and the topic it was buried from."""
        self._known: dict[_Spot, tuple[str, _Place]] = {}
        self._gone: set[_Spot] = set()
        self._using = threading.Lock()

    def letters(self, group: str) -> dict[_Place, str]:
        """The places of a group's letters as of now, and the topics they were buried from.

        Raises:
            BrokerError: the brokers do not tell.
        """
        with self._using:
            for broker in self._admin.brokers("reading dead letters"):
                for queue in self._queues(broker):
                    self._refresh(broker, queue)
            return dict(self._letters.get(group, {}))

    def read(self, places: Sequence[_Place]) -> Iterator[tuple[_Place, Stored]]:
        """Letters, several in one question where they lie together."""
        wanted = {place.spot: place for place in places}
        brokers = {broker.name: broker for broker in self._admin.brokers("reading dead letters")}
        found: dict[_Place, Stored] = {}
        for place in places:
            broker = brokers.get(place.broker)
            if place in found or broker is None:
                continue
            data, _ = broker.pull(self._pull_as, self._topic, place.queue, place.offset, PULLED)
            for stored in read_messages(data):
                hit = wanted.get((place.broker, stored.queue, stored.offset))
                if hit is not None:
                    found[hit] = stored
        for place in places:
            if place in found:
                yield place, found[place]

    def _queues(self, broker: Broker) -> range:
        """One where Nova made the topic; mqadmin makes eight."""
        found = broker.topic(self._topic)
        return range(found["readQueueNums"] if found is not None else 0)

    def _refresh(self, broker: Broker, queue: int) -> None:
        start = broker.start(self._topic, queue)
        position = max(self._read_to.get((broker.name, queue), 0), start)
        end = broker.end(self._topic, queue)
        while position < end:
            data, following = broker.pull(self._pull_as, self._topic, queue, position, PULLED)
            for stored in read_messages(data):
                self._note(broker.name, stored)
            position = max(following, position + 1)
            self._read_to[broker.name, queue] = position
        self._forget_deleted(broker.name, queue, start)

    def _note(self, broker: str, stored: Stored) -> None:
        removed = stored.properties.get(REMOVED)
        if removed is not None:
            for spot in filter(None, map(_spot_of, removed.split())):
                self._remove(spot)
            return
        place = _Place(stored.stored_ms, broker, stored.queue, stored.offset)
        if place.spot in self._gone:
            return
        headers = read_headers(stored.properties)
        group = headers.get(FOR) or headers.get(GROUP) or ""
        self._known[place.spot] = group, place
        self._letters.setdefault(group, {})[place] = headers.get(TARGET, "")

    def _remove(self, spot: _Spot) -> None:
        self._gone.add(spot)
        if spot in self._known:
            group, place = self._known.pop(spot)
            del self._letters[group][place]

    def _forget_deleted(self, broker: str, queue: int, start: int) -> None:
        """What the broker has deleted with age."""
        gone = [spot for spot in (*self._known, *self._gone) if spot[:2] == (broker, queue) and spot[2] < start]
        for spot in gone:
            self._remove(spot)
        self._gone.difference_update(gone)


def _spot_of(text: str) -> _Spot | None:
    """A place in what says that letters were removed; None = anybody may write to a topic."""
    broker, *numbers = text.split("/")
    queue, offset = [number(part) for part in numbers] if len(numbers) == 2 else (None, None)
    return None if queue is None or offset is None else (broker, queue, offset)


class RocketDeadLetters:
    """One group's letters. One thread at a time."""

    def __init__(
        self,
        graveyard: Graveyard,
        topic: str,
        group: str,
        publish: Callable[[Sequence[Outgoing]], Confirmation],
        timeout: float,
    ) -> None:
        self._graveyard = graveyard
        self._topic = topic
        self._group = group
        self._publish = publish
        self._timeout = timeout

    def read(self, limit: int, after: str | None = None) -> list[tuple[str, Delivery]]:
        """The oldest letters behind the cursor."""
        places = [
            place for place in sorted(self._graveyard.letters(self._group)) if after is None or str(place) > after
        ]
        return [(str(place), self._delivery(place, stored)) for place, stored in self._graveyard.read(places[:limit])]

    def remove(self, deliveries: Sequence[Delivery]) -> int:
        """Say that they are gone, and wait until that is stored."""
        there = self._graveyard.letters(self._group)
        places = [delivery.handle for delivery in deliveries if delivery.handle in there]
        for start in range(0, len(places), REMOVED_AT_ONCE):
            part = places[start : start + REMOVED_AT_ONCE]
            text = " ".join(f"{place.broker}/{place.queue}/{place.offset}" for place in part)
            message = Outgoing(self._topic, b"-", {REMOVED: text, FOR: self._group}, "", None, new_id())
            (error,) = self._publish([message]).result(self._timeout + 20)
            if error is not None:
                raise BrokerError(str(error)) from error
        self._await_removal(places)
        return len(places)

    def renew(self, before_ms: int) -> int:
        """Write letters anew that were stored before an instant: brokers delete by age. Returns how many.

        One process at a time, or a letter is doubled.

        Raises:
            BrokerError: some could not be; they are still there.
        """
        old = [place for place in sorted(self._graveyard.letters(self._group)) if place.stored_ms < before_ms]
        letters = [self._delivery(place, stored) for place, stored in self._graveyard.read(old[:RENEWED_AT_ONCE])]
        copies = [
            Outgoing(
                self._topic,
                letter.body,
                {**letter.headers, FOR: self._group},
                letter.headers.get(ID, ""),
                None,
                new_id(),
            )
            for letter in letters
        ]
        outcome = self._publish(copies).result(self._timeout + 20) if copies else []
        self.remove([letter for letter, error in zip(letters, outcome, strict=True) if error is None])
        for error in outcome:
            if error is not None:
                raise BrokerError(str(error)) from error
        return len(letters)

    def count(self) -> Counter[str]:
        """Letters by the topic they were buried from; "" where they do not say."""
        return Counter(self._graveyard.letters(self._group).values())

    def close(self) -> None:
        """It holds nothing."""

    def _await_removal(self, places: Sequence[_Place]) -> None:
        """A broker shows what it has confirmed a moment later; whoever looks next must not find these letters."""
        deadline = time.monotonic() + self._timeout
        while (there := self._graveyard.letters(self._group)) and any(place in there for place in places):
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"topic {self._topic!r}: the removal of {len(places)} letters is stored and not shown yet"
                )
            time.sleep(SHOWN_SOON)

    def _delivery(self, place: _Place, stored: Stored) -> Delivery:
        ours = {name: text for name, text in stored.properties.items() if not name.isupper()}  # not the server's
        headers, body = read(ours, stored.body)
        return Delivery(self._topic, body, visible(headers), place, stored.stored_ms)
