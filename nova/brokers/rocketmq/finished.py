"""What one process has finished for a group, so that it is not done again here when the server hands it out again.

A killed server remembers positions that are up to five seconds old, an ack may never arrive, and a lease may end while its
handler is at work. The message that comes again is the same one, under the same id. Remembered are the last 30,000 to
60,000, some five seconds of what one process can receive. Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from nova.brokers.rocketmq.messages import Place

__all__ = ["Finished"]

MOST = 30_000
"""In each of two sets, of which the older is dropped when the newer is full."""


class Finished:
    """Messages that need nobody any more."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._newer: set[str] = set()
        self._older: set[str] = set()
        self._using = threading.Lock()

    def add(self, places: Iterable[Place]) -> None:
        """Remember these."""
        with self._using:
            self._newer.update([_name(place) for place in places if place.id])
            if len(self._newer) >= self._most:
                self._newer, self._older = set(), self._newer

    def __contains__(self, place: object) -> bool:
        """Whether it was finished here."""
        if not isinstance(place, Place) or not place.id:
            return False
        name = _name(place)
        with self._using:
            return name in self._newer or name in self._older


def _name(place: Place) -> str:
    """RocketMQ's id alone will not do: an older client's threads give one id to several messages."""
    return f"{place.message_id} {place.id}"
