"""Who reads what since when: one message in one queue of the prefix, changed by one connection at a time.

AMQP lists neither queues nor bindings, so what `groups` tells must be kept by ourselves. The entries are one JSON document.
Whoever changes it holds an exclusive queue meanwhile, which ends with its connection; it publishes the new document, waits
for the confirmation, and acks the old one. After a crash in between there are two, and the higher version counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from nova.brokers.rabbitmq.conversation import Conversation, Got
from nova.brokers.rabbitmq.messages import Outgoing
from nova.brokers.rabbitmq.names import QUORUM, Names
from nova.brokers.rabbitmq.turns import turn
from nova.errors import PublishError

__all__ = ["Book", "Registry"]

T = TypeVar("T")


class Book(msgspec.Struct):
    """The entries. Pure.

    Attributes:
        version: rises with every change.
        groups: group -> topic -> the instant (epoch ms) from which on delayed tasks are for it; 0 = all.
        kept: group -> topics with messages addressed to it that it need not read.
        ended: topic -> when its last group was removed.
    """

    version: int = 0
    groups: dict[str, dict[str, int]] = {}
    kept: dict[str, list[str]] = {}
    ended: dict[str, int] = {}

    def register(self, group: str, topics: Iterable[str], now_ms: int) -> bool:
        """Note that a group reads topics; False = it did before."""
        mine = self.groups.setdefault(group, {})
        missing = [topic for topic in topics if topic not in mine]
        for topic in missing:
            mine[topic] = now_ms if self.readers(topic) else self.ended.get(topic, 0)
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
        return mine is not None or kept is not None

    def readers(self, topic: str) -> list[str]:
        """The groups that read a topic, the first one first: what nobody had claimed is that one's."""
        since = {group: topics[topic] for group, topics in self.groups.items() if topic in topics}
        return sorted(since, key=lambda group: (since[group], group))

    def queues(self, group: str) -> list[str]:
        """All topics with a queue of the group."""
        return sorted({*self.groups.get(group, ()), *self.kept.get(group, ())})


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
        with self._turn, self._talk() as talk:
            if talk.look(self._names.registry) is None:
                return Book()
            return self._locked(talk, lambda book: (book, False))

    def change(self, change: Callable[[Book], tuple[T, bool]]) -> T:
        """Apply a change while nobody else can; it returns a result and whether there is anything to store.

        Raises:
            BrokerError: the book cannot be read or stored.
        """
        with self._turn, self._talk() as talk:
            talk.declare_queue(self._names.registry, QUORUM)
            return self._locked(talk, change)

    def _locked(self, talk: Conversation, change: Callable[[Book], tuple[T, bool]]) -> T:
        what = f"{self._where}: the list of groups"
        with turn(talk, self._names.registry_lock, self._timeout, what):
            held = self._take(talk)
            book = max((_read(got.body) for got in held), key=lambda book: book.version, default=Book())
            result, changed = change(book)
            if held or changed:
                # Also if nothing changed: a message that is looked at and put back wears out.
                book.version += 1
                self._store(book)
                talk.ack([got.tag for got in held])
                talk.flush()
            return result

    def _take(self, talk: Conversation) -> list[Got]:
        held: list[Got] = []
        while (got := talk.get(self._names.registry)) is not None:
            held.append(got)
        return held

    def _store(self, book: Book) -> None:
        message = Outgoing("", self._names.registry, msgspec.json.encode(book), {}, self._names.registry)
        (error,) = self._publish([message]).result(self._timeout + 20)
        if error is not None:
            raise PublishError(str(error), may_be_stored=error.may_be_stored) from error


def _read(body: bytes) -> Book:
    try:
        return msgspec.json.decode(body, type=Book)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Book(version=-1)  # somebody else's message; what is there otherwise counts
