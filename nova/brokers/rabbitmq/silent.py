"""Places that confirm nothing: what is meant for them is held back, so that it holds up nothing else. Pure; one thread.

A queue without a leader confirms no message. The channel that sends to it waits for it with all that comes after, and soon
the server reads no more from the whole connection (3.10.8, tried). So the place of the oldest message without a confirmation
is taken for silent after a while. What is meant for it waits here, and one message at a time is tried on a channel of its
own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

from nova.brokers.rabbitmq.messages import Outgoing

__all__ = ["SilentPlaces", "place_of"]

Item = TypeVar("Item", bound=tuple[object, int, Outgoing])


class SilentPlaces(Generic[Item]):
    """What is held back, by place.

    Args:
        after: seconds without a confirmation after which a place is silent.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._held: dict[str, deque[Item]] = {}
        self._tried: set[str] = set()
        self._oldest: int | None = None
        self._since = 0.0
        self._confirms = 0

    def __len__(self) -> int:
        """How many places are silent."""
        return len(self._held)

    def look(self, unconfirmed: Mapping[int, Item], confirms: int, now: float) -> tuple[str, bool] | None:
        """See whether another place has become silent; from time to time.

        Args:
            unconfirmed: what is on its way by tag, the oldest first.
            confirms: how often the server has confirmed something.

        Returns:
            The place, and whether the server has confirmed nothing at all meanwhile.
        """
        oldest = next((tag for tag, item in unconfirmed.items() if place_of(item[2]) not in self._held), None)
        if oldest is None or oldest != self._oldest:
            self._oldest, self._since, self._confirms = oldest, now, confirms
            return None
        if now - self._since < self._after:
            return None
        place = place_of(unconfirmed[oldest][2])
        self._held[place] = deque()
        self._oldest = None
        return place, confirms == self._confirms

    def start_over(self) -> None:
        """Count from now on: there is another connection, whose tags mean other messages, or the server had an excuse."""
        self._oldest = None

    def hold(self, item: Item) -> bool:
        """Hold it back if its place is silent; False = send it."""
        held = self._held.get(place_of(item[2]))
        if held is None:
            return False
        held.append(item)
        return True

    def to_try(self) -> list[Item]:
        """The oldest of each place for which none is tried already."""
        found = [held.popleft() for place, held in self._held.items() if held and place not in self._tried]
        self._tried.update(place_of(item[2]) for item in found)
        return found

    def tried(self, item: Item, *, is_back: bool) -> deque[Item]:
        """How a try ended; returns what can be sent now."""
        place = place_of(item[2])
        self._tried.discard(place)
        if is_back:
            return self.confirmed(item)
        if place in self._held:
            self._held[place].appendleft(item)
            return deque()
        return deque([item])

    def confirmed(self, item: Item) -> deque[Item]:
        """Its place is not silent any more: what was held back for it."""
        return self._held.pop(place_of(item[2]), None) or deque()

    def forget_done(self) -> None:
        """Keep only what still has no outcome."""
        for place, held in self._held.items():
            self._held[place] = deque(item for item in held if not item[2].done)


def place_of(message: Outgoing) -> str:
    """A topic, a queue or a delay level."""
    return message.key if message.topic or not message.exchange else message.exchange
