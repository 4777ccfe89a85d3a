"""How long a delayed task waits where: lanes of constant hold, whose order is their due order. Pure.

Level k has lanes that hold 1, 2, … times its unit. A task goes to the largest hold that is not longer than what remains,
and from there on again, until less than the finest unit remains: then it waits in the near topic, to the millisecond. So no
broker message is ever read early and no sum of holds exceeds the delay. Longer delays than the top lane's go through the
top lane again.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LANES", "DelayLanes", "Lane"]

LEVELS = 6
RADIX = 16


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane.

    Attributes:
        level: 1 to `LEVELS`.
        index: from 0; the partition of the level's topic.
        hold_ms: how long everything in it waits.
    """

    level: int
    index: int
    hold_ms: int


class DelayLanes:
    """The lanes of one setting of `with_delay_slots(count, duration)`.

    The finest level has `count - 1` lanes of `duration`, twice `duration`, …; the next has a unit of `count * duration`, and
    each further one `RADIX` times the last, 15 lanes each.

    Args:
        count: slots of the finest level; what is due within the first is near.
        unit_ms: its duration.
    """

    def __init__(self, count: int, unit_ms: int) -> None:
        self.count = count
        self.unit_ms = unit_ms
        self._levels: list[tuple[int, int, int]] = []
        """(level, unit, lanes), the coarsest first."""
        unit = unit_ms
        for level in range(1, LEVELS + 1):
            lanes = count - 1 if level == 1 else RADIX - 1
            if lanes:
                self._levels.insert(0, (level, unit, lanes))
            unit *= count if level == 1 else RADIX

    def pick(self, remaining_ms: int) -> Lane | None:
        """Where a task goes that is due in `remaining_ms`; None = near."""
        for level, unit, lanes in self._levels:
            if unit <= remaining_ms:
                times = min(remaining_ms // unit, lanes)
                return Lane(level, times - 1, times * unit)
        return None

    def has(self, level: int) -> bool:
        """Whether there is such a level; one slot leaves the finest without lanes."""
        return any(number == level for number, _, _ in self._levels)

    def lanes_of(self, level: int) -> int:
        """How many lanes a level has."""
        return next(lanes for number, _, lanes in self._levels if number == level)


DEFAULT_LANES = DelayLanes(RADIX, 16_000)
"""Six levels of radix 16 from 16 seconds: a delay of ten years takes at most two turns of the top lane."""
