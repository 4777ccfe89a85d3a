"""The groups of a topic prefix: list them, remove one. Any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nova.brokers.base import Driver, Group, GroupRegistry
from nova.errors import ConfigError, NotSupported
from nova.routing import Topics, check_name

__all__ = ["GroupInfo", "Groups"]


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group, as the broker knows it.

    Attributes:
        name: what `with_group_id` says.
        queues: the logical queues it gets tasks from, sorted; () if it reads none and something is kept for it all the same.
        topics: the topics it is registered for, sorted.
        waiting: how many messages the broker keeps for it: waiting, delayed, running and dead, which is what its removal
            drops. About right where the broker counts positions; None = the broker does not say.
        active: whether a worker of it is connected now; one that was killed counts until its broker has noticed. None = the
            broker does not say.
    """

    name: str
    queues: tuple[str, ...]
    topics: tuple[str, ...]
    waiting: int | None
    active: bool | None


class Groups:
    """`queue.groups`: every group that the broker keeps tasks of this topic prefix for, not only the own one.

    A group exists from the first start of one of its workers, and for good: while nobody runs it, its tasks collect.

    Args:
        driver: called at each use; opens the driver if need be.
    """

    def __init__(self, driver: Callable[[], Driver], topics: Topics) -> None:
        self._driver = driver
        self._topics = topics

    def list(self) -> list[GroupInfo]:
        """All groups, sorted by name.

        Raises:
            NotSupported: the driver keeps no register of groups.
            BrokerError: the broker does not tell now.
        """
        return [self._show(group) for group in self._registry().groups()]

    def remove(self, name: str) -> bool:
        """Remove a group and drop every task kept for it, dead letters included; returns whether there was one.

        Other groups lose nothing. A worker that starts with this name again makes a new group, which gets what is enqueued
        from then on; only if a queue has no group by then, also what it kept meanwhile for the first one.

        Raises:
            ConfigError: an illegal name; nothing was opened.
            NotSupported: the driver keeps no register of groups.
            BrokerError: workers of the group run now (stop them first), or the broker could not do it.
        """
        check_name("groups.remove", name)
        return self._registry().remove_group(name)

    def _registry(self) -> GroupRegistry:
        driver = self._driver()
        if not isinstance(driver, GroupRegistry):
            raise NotSupported(
                f"groups: the driver {driver.capabilities.name!r} cannot list or remove groups, it is no "
                "nova.brokers.base.GroupRegistry; use the broker's own tools"
            )
        return driver

    def _show(self, group: Group) -> GroupInfo:
        queues = {queue for topic in group.topics if (queue := self._queue_of(topic)) is not None}
        return GroupInfo(group.name, tuple(sorted(queues)), group.topics, group.waiting, group.active)

    def _queue_of(self, topic: str) -> str | None:
        """The queue whose tasks wait on a topic; None for Nova's own topics."""
        if topic == self._topics.dead or topic.endswith("_QUARANTINE"):
            return None
        try:
            return self._topics.read(topic)[0]
        except ConfigError:
            return None
