"""What a pump is told, and who gets what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nova.brokers.kafka.partition import KafkaDelivery

__all__ = ["PumpOptions", "Receiver"]


class Receiver(Protocol):
    """Who gets what a pump reads. Called on the pump's thread."""

    def room(self) -> int:
        """How many more records are wanted now."""
        ...

    def put(self, deliveries: list[KafkaDelivery]) -> None:
        """Take these."""
        ...

    def give_away(self, deliveries: list[KafkaDelivery], deadline: float) -> list[KafkaDelivery]:
        """Their partition goes to another while they still run: see to it that they run nowhere else.

        Returns:
            Those it managed.
        """
        ...

    def tick(self) -> None:
        """Called some times a second."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpOptions:
    """What a pump reads and how.

    Attributes:
        settings: librdkafka's.
        topics: to subscribe to; those that do not exist (yet) are read once they do.
        shown: the topic a delivery names, where it is another.
        group: records addressed to other groups are passed over; None = no record is.
        starts: where to begin in partitions nobody has committed; a missing one begins at its first record.
        since_ms: what was sent before this instant is passed over, by topic (delayed tasks come long after).
        charged: count each hand-out durably.
        watchful: look for records that kill their process.
        partition_limit: the most records (and bytes) of a partition held at once; None = no bound.
        revoke_grace: seconds that running tasks get when their partition must be given away.
    """

    name: str
    where: str
    settings: dict[str, Any]
    topics: Sequence[str]
    group: str | None
    shown: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    since_ms: Mapping[str, int] = field(default_factory=dict)
    charged: bool = False
    watchful: bool = True
    partition_limit: Callable[[str], tuple[int, int]] | None = None
    revoke_grace: float = 5.0
