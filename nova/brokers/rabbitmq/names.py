"""The names on one RabbitMQ vhost: exchanges, queues and their frozen arguments. Pure.

A queue is declared with the same arguments by every version of Nova on every version of the server; others would be refused
for as long as it exists. Between a group and a topic stands a dot, which no name of Nova's holds: with a dash the group `a`
of the prefix `b-c` and the group `a-b` of the prefix `c` would share a queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["CLASSIC", "QUORUM", "Names"]

QUORUM: Mapping[str, Any] = MappingProxyType({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000})
"""Of every queue with tasks in it. From 4.0 on a queue without a limit drops a message at its 20th return, and 3.10 takes -1
and then deletes what is returned: so a number out of reach. Every copy starts at 0 again."""
CLASSIC: Mapping[str, Any] = MappingProxyType({})
"""Of the queues that Go consumers declare."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names under a topic prefix.

    Attributes:
        exchange: where fresh tasks go; the routing key is the topic.
        go_compatible: ready topics have the queues of Go consumers, which know no groups.
    """

    prefix: str
    exchange: str
    go_compatible: bool = False

    def queue(self, group: str, topic: str) -> str:
        """Where a group's messages of a topic wait."""
        return f"{self.prefix}-{topic}" if self.is_go(topic) else f"{group}.{topic}"

    def arguments(self, topic: str) -> Mapping[str, Any]:
        """Of that queue."""
        return CLASSIC if self.is_go(topic) else QUORUM

    def is_go(self, topic: str) -> bool:
        """Whether Go consumers read the topic's queue too."""
        return self.go_compatible and topic != self.dead and not topic.endswith("_QUARANTINE")

    @property
    def dead(self) -> str:
        """The topic of the dead letters."""
        return f"{self.prefix}_DEAD"

    @property
    def registry(self) -> str:
        """Holds one message: which group reads what, and since when."""
        return f"{self.prefix}_GROUPS"

    @property
    def registry_lock(self) -> str:
        """Exclusive to the connection that changes the registry."""
        return f"{self.prefix}_GROUPS_LOCK"

    @property
    def near(self) -> str:
        """Delayed tasks that are due soon."""
        return f"{self.prefix}_DELAY_0"

    @property
    def default_topic(self) -> str:
        """The default queue's normal class."""
        return f"{self.prefix}_PRIORITY_NORMAL"

    @property
    def go_delayed(self) -> str:
        """The queue in which Go producers' delayed tasks end; read as the default queue's normal class."""
        return f"{self.prefix}-tasks_TARGET_QUEUE"

    def unclaimed(self, topic: str) -> str:
        """Where a topic's messages wait for its first group."""
        return f"{topic}_UNCLAIMED"

    def topic_of(self, queue: str) -> tuple[str, str] | None:
        """Group and topic of a group's queue; None for any other."""
        group, dot, topic = queue.partition(".")
        return (group, topic) if dot else None
