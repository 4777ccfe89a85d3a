"""Who reads what since when: one message in one queue of the prefix, changed by one connection at a time.

AMQP lists neither queues nor bindings, so what `groups` tells must be kept by ourselves. The entries are one JSON document.
Whoever changes it holds an exclusive queue meanwhile, which ends with its connection; it publishes the new document, waits
for the confirmation, and acks the old one. After a crash in between there are two, and the higher version counts. A writer
that loses its turn in the middle, because its connection is gone, may still write one, of the same version as the next
writer's: they are merged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from nova.brokers.rabbitmq.conversation import Conversation, Got
from nova.brokers.rabbitmq.messages import Outgoing, count_of
from nova.brokers.rabbitmq.names import QUORUM, Names
from nova.brokers.rabbitmq.turns import holding, turn
from nova.errors import PublishError

__all__ = ["Book", "Registry"]

T = TypeVar("T")

WORN = 10_000
"""Returns after which the book is written anew; a hundredth of the queue's limit."""
BACK_WITHIN = 1.0
"""Seconds within which what was put back can be seen."""


class Book(msgspec.Struct):
    """The entries. Pure.

    Attributes:
        version: rises with every change.
        groups: group -> topic -> the instant (epoch ms) from which on delayed tasks are for it; 0 = all.
        kept: group -> topics with messages addressed to it that it need not read.
        ended: topic -> when its last group was removed.
        removed: group -> when it was removed; what was delayed for it before is dropped when it comes.
    """

    version: int = 0
    groups: dict[str, dict[str, int]] = {}
    kept: dict[str, list[str]] = {}
    ended: dict[str, int] = {}
    removed: dict[str, int] = {}

    def register(self, group: str, topics: Iterable[str], now_ms: int) -> bool:
        """Note that a group reads topics; False = it did before."""
        mine = self.groups.setdefault(group, {})
        missing = [topic for topic in topics if topic not in mine]
        for topic in missing:
            mine[topic] = now_ms if self.readers(topic) else self.ended.get(topic, 0)
        self.removed.pop(group, None)
        return bool(missing)

    def keep(self, group: str, topic: str) -> bool:
        """Note that something is kept for a group; False = it was known."""
        if topic in self.groups.get(group, ()) or topic in self.kept.get(group, ()):
            return False
        self.kept.setdefault(group, []).append(topic)
        return True

    def remove(self, group: str, now_ms: int) -> bool:
        """Forget a group; False = there is none."""
        mine, kept = self.groups.pop(group, None), self.kept.pop(group, None)
        for topic in mine or ():
            if not self.readers(topic):
                self.ended[topic] = now_ms
        if mine is None and kept is None:
            return False
        self.removed[group] = now_ms
        return True

    def readers(self, topic: str) -> list[str]:
        """The groups that read a topic, the first one first: what nobody had claimed is that one's."""
        since = {group: topics[topic] for group, topics in self.groups.items() if topic in topics}
        return sorted(since, key=lambda group: (since[group], group))

    def queues(self, group: str) -> list[str]:
        """All topics with a queue of the group."""
        return sorted({*self.groups.get(group, ()), *self.kept.get(group, ())})

    def merge(self, other: Book) -> None:
        """Note also what another one of the same version says: two were written at the same time.

        A group that only one of them has stays. Whoever removed it is told that this failed, and can do so again.
        """
        for group, topics in other.groups.items():
            mine = self.groups.setdefault(group, {})
            for topic, since_ms in topics.items():
                mine[topic] = min(since_ms, mine.get(topic, since_ms))
        for group, kept in other.kept.items():
            for topic in kept:
                self.keep(group, topic)
        for topic, at_ms in other.ended.items():
            self.ended[topic] = max(at_ms, self.ended.get(topic, 0))
        self.removed = {
            group: at_ms
            for group, at_ms in {**self.removed, **other.removed}.items()
            if group not in self.groups and group not in self.kept
        }


class Registry:
    """The book on the server. Any thread."""

    def __init__(
        self,
        names: Names,
        talk: Callable[[], Conversation],
        publish: Callable[[Sequence[Outgoing]], Any],
        where: str,
        timeout: float,
    ) -> None:
        self._names = names
        self._talk = talk
        self._publish = publish
        self._where = where
        self._timeout = timeout
        self._turn = threading.Lock()

    def read(self) -> Book:
        """The book as it is now.

        Raises:
            BrokerError: it cannot be read.
        """
        return self.change(lambda book: (book, False))

    def change(self, change: Callable[[Book], tuple[T, bool]]) -> T:
        """Apply a change while nobody else can; it returns a result and whether there is anything to store.

        A book that is only looked at is put back, which a server without room for anything new still does.

        Raises:
            BrokerError: the book cannot be read or stored.
        """
        what = f"{self._where}: the list of groups"
        lock = self._names.registry_lock
        with holding(self._turn, self._timeout, what), self._talk() as talk, turn(talk, lock, self._timeout, what):
            held = self._take(talk)
            book = _newest([_read(got.body) for got in held])
            result, changed = change(book)
            talk.extend()
            if changed or len(held) > 1 or any(count_of(got.properties.headers or {}) > WORN for got in held):
                book.version += 1
                talk.flush()  # it is still our turn; or somebody else may have written meanwhile
                self._store(book)
                talk.ack([got.tag for got in held])
                talk.flush()
            elif held:
                talk.nack_all()
                talk.until_ready(self._names.registry, 1, BACK_WITHIN)
            return result

    def _take(self, talk: Conversation) -> list[Got]:
        """The book, or two of them; [] = there is none yet.

        The queue may seem empty for a moment when the connection of somebody who held the book has just been lost.
        """
        queue = self._names.registry
        is_new = talk.look(queue) is None
        talk.declare_queue(queue, QUORUM)
        held: list[Got] = []
        while (got := talk.get(queue)) is not None:
            held.append(got)
        if not held and not is_new and talk.until_ready(queue, 1, BACK_WITHIN):
            return self._take(talk)
        return held

    def _store(self, book: Book) -> None:
        message = Outgoing("", self._names.registry, msgspec.json.encode(book), {}, self._names.registry)
        (error,) = self._publish([message]).result(self._timeout + 20)
        if error is not None:
            raise PublishError(str(error), may_be_stored=error.may_be_stored) from error


def _newest(books: Sequence[Book]) -> Book:
    """What they say together: usually there is one."""
    version = max((book.version for book in books), default=0)
    newest, *others = [book for book in books if book.version == version] or [Book()]
    for other in others:
        newest.merge(other)
    return newest


def _read(body: bytes) -> Book:
    try:
        return msgspec.json.decode(body, type=Book)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Book(version=-1)  # somebody else's message; what is there otherwise counts
