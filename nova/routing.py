"""Which topic a task waits on: names checked, composed and read back. Pure.

Forms (DESIGN section 5): `{prefix}_PRIORITY_HIGH|NORMAL|LOW` for the default queue; `{prefix}-{queue}` with
`…_PRIORITY_HIGH` and `…_PRIORITY_LOW` beside it for any other. Nova's own: `{prefix}_DEAD` for the dead letters of every
queue; `{prefix}_QUARANTINE` and `{prefix}-{queue}_QUARANTINE`, one per queue, because only the queue's own workers have its
handler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from nova.errors import ConfigError
from nova.task import Priority

__all__ = ["DEFAULT_QUEUE", "Topics", "check_name", "check_prefix", "check_queue"]

DEFAULT_QUEUE = "default"
NAME_PATTERN = "[A-Za-z0-9_-]{1,50}"
"""Prefixes, queues and groups."""
CLASSES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""The priority classes in the order the worker prefers them."""


def check_name(what: str, name: object) -> str:
    """A prefix, queue or group name that every broker can carry.

    Raises:
        ConfigError: not 1 to 50 of `A-Za-z0-9_-`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{what}: expected 1 to 50 letters, digits, '_' or '-' (no dots), got {name!r}")
    return name


def check_prefix(prefix: object) -> str:
    """A legal topic prefix.

    Raises:
        ConfigError: illegal, or it holds a mark by which topics are read back.
    """
    checked = check_name("topic prefix", prefix)
    if any(mark in checked for mark in _RESERVED):
        raise ConfigError(f"topic prefix: {checked!r} holds {_MARKS}, which mark Nova's own topics")
    return checked


def check_queue(name: object) -> str:
    """A legal queue name, `default` included.

    Raises:
        ConfigError: illegal, or reserved for Nova's own topics.
    """
    queue = check_name("queue", name)
    if queue == "tasks" or any(mark in queue for mark in _RESERVED):
        raise ConfigError(
            f"queue: {queue!r} is reserved ('tasks' and names with {_MARKS} are Nova's own topics); choose another name"
        )
    return queue


@dataclass(frozen=True, slots=True)
class Topics:
    """The topic names of one prefix."""

    prefix: str
    _ready: dict[tuple[str, int], str] = field(default_factory=dict, repr=False, compare=False)
    _read: dict[str, tuple[str, Priority]] = field(default_factory=dict, repr=False, compare=False)

    def ready(self, queue: str, priority: int) -> str:
        """Where a task of this queue and class waits."""
        topic = self._ready.get((queue, priority))
        if topic is None:
            topic = self._ready[queue, priority] = self._compose(queue, Priority(priority))
        return topic

    def read(self, topic: str) -> tuple[str, Priority]:
        """The queue and class of a ready topic.

        Raises:
            ConfigError: the topic is not one of this prefix.
        """
        found = self._read.get(topic)
        if found is None:
            found = self._parse(topic)
            if len(self._read) < 1000:
                self._read[topic] = found
        return found

    def _parse(self, topic: str) -> tuple[str, Priority]:
        stem, _, rank = topic.rpartition("_PRIORITY_")
        priority = Priority[rank] if stem and rank in Priority.__members__ else Priority.NORMAL
        stem = stem or topic
        if stem == self.prefix and topic != self.prefix:
            return DEFAULT_QUEUE, priority
        if stem.startswith(f"{self.prefix}-"):
            return stem[len(self.prefix) + 1 :], priority
        raise ConfigError(f"topic: {topic!r} does not belong to the prefix {self.prefix!r}")

    @property
    def dead(self) -> str:
        """Where buried tasks wait for a person."""
        return f"{self.prefix}_DEAD"

    def quarantine(self, queue: str) -> str:
        """Where a queue's tasks suspected of killing their process are run one at a time."""
        return f"{self._stem(queue)}_QUARANTINE"

    def _compose(self, queue: str, priority: Priority) -> str:
        stem = self._stem(queue)
        is_plain = queue != DEFAULT_QUEUE and priority is Priority.NORMAL
        return stem if is_plain else f"{stem}_PRIORITY_{priority.name}"

    def _stem(self, queue: str) -> str:
        return self.prefix if queue == DEFAULT_QUEUE else f"{self.prefix}-{queue}"


_NAME = re.compile(NAME_PATTERN)
_RESERVED = ("_PRIORITY_", "_DELAY_", "_DEAD", "_QUARANTINE")
_MARKS = "_PRIORITY_, _DELAY_, _DEAD or _QUARANTINE"
