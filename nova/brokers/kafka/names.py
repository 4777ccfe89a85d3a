"""The Kafka names of one prefix: which topics are what, and the consumer group that reads a topic for a Nova group. Pure.

Consumer groups are named `{prefix}.{group}.high`, `.normal`, `.low` and `.quarantine`: one per class, because a rebalance
waits for every member of a group, and the slow revoke of long low tasks must not hold up the high ones; with the prefix,
because groups of one name on different prefixes have nothing to do with each other. No name of Nova's holds a dot.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Names", "Place", "class_of"]

Place = tuple[str, int]
"""A partition: its topic and its number."""

CLASSES = ("high", "normal", "low", "quarantine")


@dataclass(frozen=True, slots=True)
class Names:
    """The names under a topic prefix."""

    prefix: str

    @property
    def groups(self) -> str:
        """Compacted: which group consumes which topic, and from where."""
        return f"{self.prefix}_GROUPS"

    @property
    def leases(self) -> str:
        """Compacted: who still runs an escrowed task."""
        return f"{self.prefix}_LEASE"

    @property
    def dead(self) -> str:
        """Compacted: dead letters until they are removed."""
        return f"{self.prefix}_DEAD"

    @property
    def near(self) -> str:
        """Delayed tasks that are due soon."""
        return f"{self.prefix}_DELAY_0"

    @property
    def go_delayed(self) -> str:
        """Where Go producers' delayed tasks end (`docs/wire.md`); read as the default queue's normal class."""
        return f"{self.prefix}_TASKS"

    @property
    def forwarder(self) -> str:
        """The consumer group that forwards delayed tasks."""
        return f"{self.prefix}.delay"

    @property
    def reader(self) -> str:
        """What readers of whole topics call themselves; no such consumer group ever has a member or a commit."""
        return f"{self.prefix}.reader"

    def level(self, number: int) -> str:
        """The topic of a delay level, 1 or more."""
        return f"{self.prefix}_DELAY_{number}"

    def is_compacted(self, topic: str) -> bool:
        """A topic whose records live until their key is written again."""
        return topic in (self.groups, self.leases, self.dead)

    def level_of(self, topic: str) -> int | None:
        """0 for the near topic, 1 or more for a level, None for any other."""
        stem, _, number = topic.rpartition("_DELAY_")
        return int(number) if stem == self.prefix and number.isdigit() else None

    def shown(self, topic: str) -> str:
        """The topic a delivery names: Go's is told as the default queue's."""
        return f"{self.prefix}_PRIORITY_NORMAL" if topic == self.go_delayed else topic

    def consumer_group(self, group: str, topic: str) -> str:
        """The consumer group that reads a topic for a Nova group."""
        return f"{self.prefix}.{group}.{class_of(topic)}"

    def consumer_groups(self, group: str) -> list[str]:
        """All that may read for a Nova group."""
        return [f"{self.prefix}.{group}.{name}" for name in CLASSES]

    def owns(self, topic: str) -> bool:
        """Whether the topic belongs to this prefix (and not only to one that begins alike)."""
        return topic.startswith((f"{self.prefix}_", f"{self.prefix}-"))


def class_of(topic: str) -> str:
    """The class of a topic: high, normal, low or quarantine."""
    if topic.endswith("_QUARANTINE"):
        return "quarantine"
    _, mark, rank = topic.rpartition("_PRIORITY_")
    return rank.lower() if mark and rank in ("HIGH", "LOW") else "normal"
