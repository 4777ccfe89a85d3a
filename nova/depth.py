"""How much waits, as the broker counts it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nova.brokers.base import TopicDepth
from nova.routing import CLASSES, Topics
from nova.task import Priority

__all__ = ["Depth", "QueueDepth", "depth_of"]


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """One class of one queue, for one group; None where the broker does not say."""

    queue: str
    priority: Priority
    waiting: int
    delayed: int | None
    running: int | None
    dead: int | None


@dataclass(frozen=True, slots=True)
class Depth:
    """All queues asked for.

    Attributes:
        queues: one entry per queue and class.
        dead: dead letters of the group in all.
        quarantined: suspects of the group in these queues, waiting or running.
    """

    queues: list[QueueDepth]
    dead: int
    quarantined: int

    @property
    def waiting(self) -> int:
        """Tasks that may run now."""
        return sum(queue.waiting for queue in self.queues)

    @property
    def delayed(self) -> int:
        """Tasks due later, as far as the broker says."""
        return sum(queue.delayed or 0 for queue in self.queues)

    @property
    def running(self) -> int:
        """Tasks lent to workers, as far as the broker says."""
        return sum(queue.running or 0 for queue in self.queues)


def topics_of(topics: Topics, queues: Sequence[str]) -> list[str]:
    """Every topic whose counts make a `Depth`."""
    ready = [topics.ready(queue, priority) for queue in queues for priority in CLASSES]
    return [*ready, topics.dead, *map(topics.quarantine, queues)]


def depth_of(topics: Topics, queues: Sequence[str], counts: Mapping[str, TopicDepth]) -> Depth:
    """The broker's counts by queue and class."""
    dead = counts[topics.dead]
    by_target = dead.dead_by_target
    quarantines = [counts[topics.quarantine(queue)] for queue in queues]
    entries = []
    for queue in queues:
        for priority in CLASSES:
            topic = topics.ready(queue, priority)
            count = counts[topic]
            entries.append(
                QueueDepth(
                    queue,
                    priority,
                    count.waiting,
                    count.delayed,
                    count.running,
                    None if by_target is None else by_target.get(topic, 0),
                )
            )
    return Depth(
        entries, dead.waiting + (dead.running or 0), sum(count.waiting + (count.running or 0) for count in quarantines)
    )
