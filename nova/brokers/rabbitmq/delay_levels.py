"""How long a delayed message waits where: one queue per power of two, a way through those that its delay consists of. Pure.

Level k holds every message for exactly 2^k ms, so that the first one in is the first one out. A message's routing key spells
its delay in bits, highest level first, and ends in the prefix: each level's exchange sends a 1 into its queue, whose messages
go on to the next lower exchange when their time is over, and a 0 there at once. The last exchange brings it to the near queue
of its prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BOTTOM", "TOP", "DelayPath", "Level", "pick"]

BOTTOM = 6
TOP = 37
"""Levels of 64 ms to 4.4 years; 8.7 years in all. What is due later goes through them again."""
VERSION = "v1"
"""Of the way's arrangement: other arrangements get other names and live beside it."""
DELIVER = f"nova_delay_{VERSION}_deliver"
LOST = f"nova_delay_{VERSION}_lost"
READY = f"nova_delay_{VERSION}_ready"
"""An exchange that is declared when all others are there."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level: an exchange, and a queue that holds for `hold_ms`."""

    number: int

    @property
    def name(self) -> str:
        """Of the exchange, and of the queue."""
        return f"nova_delay_{VERSION}_{self.number:02d}"

    @property
    def hold_ms(self) -> int:
        """How long the queue holds a message."""
        return 1 << self.number

    @property
    def below(self) -> str:
        """The exchange to which a message goes on."""
        return DELIVER if self.number == BOTTOM else Level(self.number - 1).name

    def pattern(self, bit: int) -> str:
        """The routing keys with this bit at this level."""
        return ".".join(["*"] * (TOP - self.number) + [str(bit), "#"])


@dataclass(frozen=True, slots=True)
class DelayPath:
    """Where a message enters, and what it says there."""

    exchange: str
    routing_key: str


def levels() -> list[Level]:
    """All, lowest first."""
    return [Level(number) for number in range(BOTTOM, TOP + 1)]


def pick(prefix: str, remaining_ms: int, guard_ms: int) -> DelayPath | None:
    """The way of a message that is due in so many ms; None = straight into the near queue.

    The way ends `guard_ms` early or up to one bottom level more, never late: the rest is held by a worker, which knows the
    exact instant. A server pauses now and then, and every level passes its pauses on.
    """
    units = min(max(remaining_ms - guard_ms, 0) >> BOTTOM, (1 << (TOP - BOTTOM + 1)) - 1)
    if units == 0:
        return None
    bits = f"{units:0{TOP - BOTTOM + 1}b}"
    return DelayPath(Level(BOTTOM + units.bit_length() - 1).name, ".".join([*bits, prefix]))
