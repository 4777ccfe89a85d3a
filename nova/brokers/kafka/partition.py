"""One assigned partition: what is finished, what is lent, and what its predecessors left. Owned by the pump's thread. Pure.

A record that kills its process must be found, though Kafka counts no deliveries. So the committed text says whether the last
owner gave the partition up in order, how many in a row did not, and how far it had handed records out. What was handed out
and not finished by three owners that died in a row is suspect (the worker then runs it alone, in the quarantine). From the
second death on, "how far" is committed before records are handed out, or a record that kills at once would never be below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from nova.brokers.base import Delivery
from nova.brokers.kafka import offset_map
from nova.brokers.kafka.offset_map import OffsetMap
from nova.brokers.kafka.tracker import OffsetTracker

__all__ = [
    "CALM_SECONDS",
    "CAREFUL_DEATHS",
    "SUSPECT_DEATHS",
    "KafkaDelivery",
    "Partition",
]

SUSPECT_DEATHS = 3
CAREFUL_DEATHS = 2
CALM_SECONDS = 10.0

_deaths = attrgetter("deaths")


class KafkaDelivery(Delivery, gc=False, eq=False, kw_only=True):
    """A record that is lent.

    Attributes:
        partition, offset: where it is.
        deaths: holders that died while it was in escrow.
    """

    partition: Partition
    offset: int
    deaths: int = 0

    def again(self) -> KafkaDelivery:
        """The same record, lent anew."""
        return KafkaDelivery(
            self.topic,
            self.body,
            self.headers,
            timestamp_ms=self.timestamp_ms,
            suspect=self.suspect,
            id=self.id,
            partition=self.partition,
            offset=self.offset,
            deaths=self.deaths,
        )


class Partition:
    """One partition from its assignment to its end.

    Args:
        topic, number: where it is.
        shown: the topic its deliveries name.
        left: what the last owner committed, or None if nothing.
        charged: count each hand-out durably.
        watchful: look for records that kill their process.
        owner: who it is assigned to; an owner that lost it and got it back has not died.

    Attributes:
        held: deliveries lent (or waiting to be), by offset.
        held_bytes: their bodies.
        dirty: something changed since the last commit.
        marked: the commit that says "not given up in order" is durable.
        fenced: the text grew so long that no new records are taken.
        paused: told so to the client.
        truncated: commits whose text had no room for all that is finished.
        since: monotonic time of the assignment, set by its owner.
        over: given up or lost; what is held of it has no effect any more.
    """

    def __init__(
        self, topic: str, number: int, shown: str, left: OffsetMap | None, *, charged: bool, watchful: bool, owner: int
    ) -> None:
        self.topic = topic
        self.number = number
        self.shown = shown
        self.charged = charged
        self._watchful = watchful
        self._owner = owner
        self.held: dict[int, KafkaDelivery] = {}
        self.held_bytes = 0
        self.dirty = False
        self.marked = False
        self.fenced = False
        self.paused = False
        self.over = False
        self.truncated = 0
        self.tracker: OffsetTracker | None = None
        self.charges: dict[int, int] = {}
        self.since = 0.0
        self._taken_back = False
        self._deaths = 0
        self._exposed = 0
        self._calm_at = 0
        if left is not None:
            self.tracker = OffsetTracker(left.base, left.done())
            self.charges = dict(left.charges)
            if not left.clean and watchful:
                self._deaths = left.deaths + (left.owner != owner)
                self._exposed = self._calm_at = left.handed

    @property
    def base(self) -> int | None:
        """The offset to commit; None before the first record of a partition nobody committed."""
        return None if self.tracker is None else self.tracker.base

    @property
    def needs_mark(self) -> bool:
        """Records may be handed out only after a commit."""
        return self.charged or (self._watchful and (not self.marked or self.is_careful))

    @property
    def is_careful(self) -> bool:
        """Somebody died so often here that few records are lent at once, and each is written down before."""
        return self._deaths >= CAREFUL_DEATHS and not self.charged

    def fetch(self, offset: int) -> bool:
        """A record came; False if it is finished already."""
        tracker = self.tracker
        if tracker is None:
            tracker = self.tracker = OffsetTracker(offset)
        self.dirty = True
        return tracker.fetch(offset) and offset not in self.held

    def lend(self, deliveries: Sequence[KafkaDelivery]) -> None:
        """They are handed out now."""
        self.held.update({delivery.offset: delivery for delivery in deliveries})
        self.held_bytes += sum([len(delivery.body) for delivery in deliveries])
        if not self.charged and not self._deaths and not any(map(_deaths, deliveries)):
            return
        for delivery in deliveries:
            offset = delivery.offset
            if self.charged:
                delivery.charges = self.charges[offset] = self.charges.get(offset, delivery.deaths) + 1
                continue
            if self._deaths and not self.marked:
                self._calm_at = max(self._calm_at, offset + 1)
            is_exposed = self._deaths >= SUSPECT_DEATHS and offset < self._exposed
            if is_exposed or delivery.deaths >= SUSPECT_DEATHS:
                delivery.suspect = True

    def begin_again(self) -> None:
        """The topic was deleted and made anew: offsets mean other records now, and nothing of them is finished."""
        self.lose()
        self.over = False
        self.tracker = None
        self.charges.clear()
        self._deaths = self._exposed = self._calm_at = 0

    def finish(self, offsets: Iterable[int]) -> None:
        """These are done for good."""
        if self.tracker is not None:
            self.tracker.complete(offsets)
            self.dirty = True
            for offset in offsets if self.charges else ():
                self.charges.pop(offset, None)

    def calm_down(self, age: float) -> None:
        """Forget the deaths of former owners once this one has lived for a while and finished what they had exposed.

        Args:
            age: seconds since the assignment. Progress alone proves nothing: what kills may come right behind.
        """
        if self._deaths and age >= CALM_SECONDS and self.tracker is not None and self.tracker.base >= self._calm_at:
            self._deaths = 0

    def settle(self, deliveries: Iterable[KafkaDelivery]) -> list[int]:
        """They are lent no more; returns the offsets of those that were."""
        held = self.held
        offsets: list[int] = []
        size = 0
        for delivery in deliveries:
            offset = delivery.offset
            if held.get(offset) is delivery:
                del held[offset]
                size += len(delivery.body)
                offsets.append(offset)
        self.held_bytes -= size
        return offsets

    def drop_unstarted(self) -> list[KafkaDelivery]:
        """Give up what nobody works on; returns what runs.

        A task that starts at this very moment runs here and there: a duplicate, never a loss.
        """
        for delivery in list(self.held.values()):
            if not delivery.started:
                delivery.lost = True
                self.settle((delivery,))
                if self.charged:
                    self._uncharge(delivery.offset)
        return list(self.held.values())

    def take_back_charges(self) -> None:
        """What is held ends in order: it is not charged."""
        for offset in self.held if self.charged and not self._taken_back else ():
            self._uncharge(offset)
        self._taken_back = True

    def forgive(self, offsets: Iterable[int]) -> None:
        """These were lent by an owner that lost the partition and got it back: nobody died of them."""
        for offset in offsets:
            if offset in self.charges:
                self._uncharge(offset)

    def lose(self) -> None:
        """Somebody else has it now, or will: what is held here has no effect any more."""
        self.over = True
        for delivery in self.held.values():
            delivery.lost = True
        self.held.clear()
        self.held_bytes = 0

    def text(self, *, clean: bool) -> str:
        """What is committed beside the base."""
        tracker = self.tracker
        assert tracker is not None, "nothing to commit yet"
        found = OffsetMap(
            tracker.base,
            tracker.next if clean or self.is_careful else max(tracker.next, self._exposed),
            tracker.runs(),
            clean,
            0 if clean else self._deaths,
            self.charges,
            self._owner,
        )
        text, whole = offset_map.encode(found)
        self.truncated += not whole
        self.fenced = len(text) > (offset_map.FENCE if not self.fenced else offset_map.FENCE // 2)
        return text

    def _uncharge(self, offset: int) -> None:
        self.dirty = True
        self.charges[offset] -= 1
        if not self.charges[offset]:
            del self.charges[offset]
