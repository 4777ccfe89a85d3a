"""Which priority class runs next: weights share the slots, reserves on top of them bound the wait of the urgent. Pure.

With concurrency C and reserves `high` and `low` (DESIGN section 4; 2 and 1 when C >= 4, else none):

* each class alone holds at most C slots;
* low + normal hold at most C + low, so `high` slots are always free for high;
* high + normal hold at most C + high, so `low` slots are always free for low;
* all together hold at most C + high + low.

Among the classes that have work and room, smooth weighted round robin picks (nginx's: add each weight, take the largest,
subtract the sum). Weights alone do not bound a wait (measured: design notes, section 5); the reserves do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Reserves", "Scheduler"]

HIGH, NORMAL, LOW = 0, 1, 2
"""Positions of the classes in every tuple here."""


@dataclass(frozen=True, slots=True)
class Reserves:
    """Slots on top of the concurrency that only one class may take."""

    high: int
    low: int

    @classmethod
    def of(cls, concurrency: int, reserve: int | None) -> Reserves:
        """The reserves of a worker; `reserve` is the user's own number of slots for high, None = the default."""
        if concurrency >= 4:
            return cls(2 if reserve is None else reserve, 1)
        return cls(reserve or 0, 0)


class Scheduler:
    """Counts what runs and picks the class of the next job. Not thread-safe: the dispatcher's lock guards it.

    Args:
        concurrency: C, jobs of one class at once.
        weights: shares of high, normal, low; each >= 1.
        reserves: the slots on top of C.
    """

    __slots__ = ("_c", "_credit", "_high_normal", "_low_normal", "_total", "_weights", "running")

    def __init__(self, concurrency: int, weights: tuple[int, int, int], reserves: Reserves) -> None:
        self._c = concurrency
        self._weights = weights
        self._low_normal = concurrency + reserves.low
        self._high_normal = concurrency + reserves.high
        self._total = concurrency + reserves.high + reserves.low
        self._credit = [0, 0, 0]
        self.running = [0, 0, 0]

    @property
    def slots(self) -> int:
        """The most jobs that ever run at once."""
        return self._total

    def pick(self, ready: Sequence[object]) -> int | None:
        """Take a slot for one of the classes whose entry in `ready` is true; None if none has both work and room."""
        candidates = [c for c in (HIGH, NORMAL, LOW) if ready[c] and self._has_room(c)]
        if not candidates:
            return None
        chosen = candidates[0]
        if len(candidates) > 1:
            credit, weights = self._credit, self._weights
            total = 0
            for c in candidates:
                credit[c] += weights[c]
                total += weights[c]
                if credit[c] > credit[chosen]:
                    chosen = c
            credit[chosen] -= total
        self.running[chosen] += 1
        return chosen

    def room(self, c: int) -> int:
        """Jobs this class could start now, if it alone did."""
        high, normal, low = self.running
        room = min(self._c - self.running[c], self._total - high - normal - low)
        if c != HIGH:
            room = min(room, self._low_normal - low - normal)
        if c != LOW:
            room = min(room, self._high_normal - high - normal)
        return max(room, 0)

    def _has_room(self, c: int) -> bool:
        high, normal, low = self.running
        return (
            self.running[c] < self._c
            and high + normal + low < self._total
            and (c == HIGH or low + normal < self._low_normal)
            and (c == LOW or high + normal < self._high_normal)
        )

    def finish(self, chosen: int) -> None:
        """Give a slot back."""
        self.running[chosen] -= 1
