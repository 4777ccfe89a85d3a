"""Groups on the server: joined, counted, listed, removed. Any thread."""

from __future__ import annotations

from collections.abc import Sequence

from nova import clock
from nova.brokers.base import Group, TopicDepth
from nova.brokers.rabbitmq.conversation import Conversation
from nova.brokers.rabbitmq.feed import Source
from nova.brokers.rabbitmq.names import Names
from nova.brokers.rabbitmq.registry import Book, Registry
from nova.brokers.rabbitmq.topology import Topology
from nova.brokers.refusals import group_in_use

__all__ = ["GroupKeeper"]


class GroupKeeper:
    """The groups of one prefix."""

    def __init__(self, names: Names, topology: Topology, registry: Registry, where: str) -> None:
        self._names = names
        self._topology = topology
        self._registry = registry
        self._where = where

    def join(self, group: str, topics: Sequence[str], *, for_all: bool) -> dict[str, Source]:
        """Register a group, make its queues, and say what it reads, by queue.

        Noted first, so that what there is of it can be removed; then bound, then registered: a group that dies in between
        gets too much, never too little. Registered before it is bound, what falls due meanwhile would come to later groups
        only, which pass it over.

        Args:
            for_all: it also gets what is published for all groups; False = only what is addressed to it.
        """
        names = self._names
        self._topology.ensure()

        def note(book: Book) -> tuple[None, bool]:
            return None, sum(book.keep(group, topic) for topic in topics) > 0

        def register(book: Book) -> tuple[Book, bool]:
            return book, book.register(group, topics, clock.now_ms())

        self._registry.change(note)
        self._topology.join(group, topics, for_all=for_all)
        book = self._registry.change(register)
        first = [topic for topic in topics if for_all and book.readers(topic)[0] == group]
        for topic in first:
            self._topology.make_unclaimed(topic)
        sources: dict[str, Source] = {}
        for topic in topics:
            home = names.queue(group, topic)
            sources[home] = Source(home, topic, home, book.groups[group][topic])
            if topic in first:
                sources[names.unclaimed(topic)] = Source(names.unclaimed(topic), topic, home)
        if for_all and names.default_topic in topics and self._exists(names.go_delayed):
            home = names.queue(group, names.default_topic)
            sources[names.go_delayed] = Source(names.go_delayed, names.default_topic, home)
        return sources

    def address(self, group: str, topic: str) -> None:
        """Make the queue of a group for what is addressed to it, whether it reads the topic or not."""

        def keep(book: Book) -> tuple[None, bool]:
            return None, book.keep(group, topic)

        self._registry.change(keep)
        self._topology.make_queue(group, topic)

    def removed_at(self, group: str) -> int:
        """When a group was removed that has not come back since (epoch ms); -1 = it was not."""
        return self._registry.read().removed.get(group, -1)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """Ready messages of each topic; AMQP tells neither what is lent nor what is delayed."""
        names = self._names
        found: dict[str, TopicDepth] = {}
        with self._topology.talk() as talk:
            unclaimed: dict[str, int] = {}
            for topic in topics:
                ready = talk.ready(names.queue(group, topic))
                found[topic] = TopicDepth(ready, None, None)
                left = talk.ready(names.unclaimed(topic))
                if left:
                    unclaimed[topic] = left
        if unclaimed:
            book = self._registry.read()
            for topic, left in unclaimed.items():
                if (book.readers(topic) or [group])[0] == group:
                    found[topic].waiting += left
        return found

    def list(self) -> list[Group]:
        """Every group in the book."""
        book = self._registry.read()
        with self._topology.talk() as talk:
            return [self._describe(talk, book, group) for group in sorted({*book.groups, *book.kept})]

    def remove(self, group: str) -> bool:
        """Delete a group's queues and forget it, in an order in which a second call finishes what a first one did not."""

        def remove(book: Book) -> tuple[bool, bool]:
            topics = book.queues(group)
            with self._topology.talk() as talk:
                self._delete(talk, book, group, topics)
            gone = book.remove(group, clock.now_ms())
            return gone, gone

        if group not in (book := self._registry.read()).groups and group not in book.kept:
            return False
        return self._registry.change(remove)

    def _delete(self, talk: Conversation, book: Book, group: str, topics: Sequence[str]) -> None:
        names = self._names
        queues = [names.queue(group, topic) for topic in topics]
        for queue in queues:
            if (found := talk.look(queue)) is not None and found[1]:
                raise group_in_use(self._where, group)
        for queue, topic in zip(queues, topics, strict=True):
            if not names.is_go(topic):  # all groups share that one, and Go's consumers
                talk.delete_queue(queue)
        for topic in book.groups.get(group, ()):
            if book.readers(topic)[0] == group and talk.look(names.unclaimed(topic)) is not None:
                talk.delete_queue(names.unclaimed(topic))

    def _describe(self, talk: Conversation, book: Book, group: str) -> Group:
        names = self._names
        reads: list[str] = []
        waiting, active = 0, False
        for topic in book.queues(group):
            found = talk.look(names.queue(group, topic))
            if found is None:
                continue
            waiting += 0 if names.is_go(topic) else found[0]
            active = active or found[1] > 0
            if topic in book.groups.get(group, ()):
                reads.append(topic)
                if book.readers(topic)[0] == group:
                    waiting += talk.ready(names.unclaimed(topic))
        return Group(group, tuple(reads), waiting, active)

    def _exists(self, queue: str) -> bool:
        with self._topology.talk() as talk:
            return talk.look(queue) is not None
