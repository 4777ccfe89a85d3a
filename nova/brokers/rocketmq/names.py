"""The names on one RocketMQ cluster under a topic prefix. Pure.

A consumer group of RocketMQ's is `{group}%{prefix}`: groups of one name on different prefixes have nothing to do with
each other, and a server that joins group and topic with `_` for its retry topics (`%RETRY%{group}_{topic}`) would else
give the group `a` of the prefix `b_c` and the group `a_b` of the prefix `c` one retry topic. No name of Nova's holds a
`%`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DELAY", "NORMAL", "Names"]

NORMAL = "NORMAL"
DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Names:
    """The names under a topic prefix."""

    prefix: str

    @property
    def dead(self) -> str:
        """Dead letters of all groups, and what says that some were removed."""
        return f"{self.prefix}_DEAD"

    @property
    def near(self) -> str:
        """Where delayed tasks wait in the server's timers, and come to workers just before they are due."""
        return f"{self.prefix}_DELAY_0"

    @property
    def lost(self) -> str:
        """What lay among the delayed tasks and is none of Nova's."""
        return f"{self.prefix}_DELAY_LOST"

    @property
    def probe(self) -> str:
        """Nobody makes it: asked for where any answer will do. The proxy remembers for 20 s that a topic is missing."""
        return f"{self.prefix}_PROBE"

    @property
    def default_topic(self) -> str:
        """The default queue's normal class."""
        return f"{self.prefix}_PRIORITY_NORMAL"

    @property
    def go_delayed(self) -> str:
        """Where Go producers' delayed tasks end; read as the default queue's normal class."""
        return f"{self.prefix}-tasks"

    @property
    def forwarder(self) -> str:
        """The consumer group that forwards delayed tasks."""
        return f"{self.prefix}%%delays"

    @property
    def ended(self) -> str:
        """A group without consumers: under its name the server remembers where a topic's next first group begins."""
        return f"{self.prefix}%%ended"

    @property
    def registering(self) -> str:
        """No group: under this name one process at a time changes registrations."""
        return f"{self.prefix}%%registering"

    def type_of(self, topic: str) -> str:
        """The message type of a topic."""
        return DELAY if topic == self.near else NORMAL

    def shown(self, topic: str) -> str:
        """The topic a delivery names: Go's is told as the default queue's."""
        return self.default_topic if topic == self.go_delayed else topic

    def consumer_group(self, group: str) -> str:
        """RocketMQ's group of a Nova group."""
        return f"{group}%{self.prefix}"

    def group_of(self, consumer_group: str) -> str | None:
        """The Nova group of one of RocketMQ's, if it is of this prefix."""
        group, mark, prefix = consumer_group.partition("%")
        return group if mark and group and prefix == self.prefix else None

    def retry_topics(self, consumer_group: str, topic: str) -> tuple[str, str]:
        """Where the server puts what comes back, in both of its spellings (`enableRetryTopicV2`)."""
        return f"%RETRY%{consumer_group}_{topic}", f"%RETRY%{consumer_group}+{topic}"
