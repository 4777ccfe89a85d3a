"""Reading a group's dead letters: held by one channel while the reader is open, and put back when it closes.

Putting back counts as a hand-out. The queue's limit is a million of them, and a letter that was looked at ten thousand times
is replaced by a fresh copy, so that looking never wears one out. What a reader holds others do not see; so readers take
turns, those of other processes too.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from nova.brokers.base import Delivery
from nova.brokers.rabbitmq.conversation import Conversation, Got
from nova.brokers.rabbitmq.messages import Outgoing, Place, copy_back, deliver
from nova.brokers.rabbitmq.publisher import Publisher
from nova.brokers.rabbitmq.turns import give_back, take
from nova.envelope import TARGET
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["RabbitDeadLetters"]

T = TypeVar("T")

BACK_WITHIN = 1.0
WORN = 10_000
"""Looks after which a letter is replaced by a copy; a hundredth of the queue's limit."""
MOST_AT_ONCE = 60_000
QUIET = 0.25
"""Seconds without a letter after which there are no more, though the server had counted them: another reader holds them."""


class RabbitDeadLetters:
    """One group's letters. One thread at a time; readers of one driver share `turn`.

    Args:
        talk: opens a conversation.
        turn: held from the first read to `close`.
    """

    def __init__(
        self,
        queue: str,
        topic: str,
        talk: Callable[[], Conversation],
        publisher: Publisher,
        where: str,
        timeout: float,
        turn: threading.Lock,
    ) -> None:
        self._queue = queue
        self._topic = topic
        self._open_talk = talk
        self._publisher = publisher
        self._where = where
        self._timeout = timeout
        self._turn = turn
        self._lock = f"{queue}_READER"
        self._talk: Conversation | None = None
        self._letters: dict[str, Delivery] = {}
        self._held = 0
        """Letters that the channel holds; of those that were only counted nothing else is kept."""
        self._arrived = threading.Condition()

    def read(self, limit: int, after: str | None = None) -> list[tuple[str, Delivery]]:
        """The oldest letters behind the cursor."""
        talk = self._open()
        talk.extend()
        while True:
            behind = [cursor for cursor in sorted(self._letters) if after is None or cursor > after]
            if len(behind) >= limit or not self._fetch(talk, limit - len(behind)):
                return [(cursor, self._letters[cursor]) for cursor in behind[:limit]]

    def remove(self, deliveries: Sequence[Delivery]) -> int:
        """Ack them and wait until the server has read that."""
        talk = self._open()
        talk.extend()
        mine = {delivery.handle.tag: cursor for cursor, delivery in self._letters.items()}
        gone = [delivery.handle for delivery in deliveries if not delivery.handle.settled]
        gone = [place for place in gone if place.tag in mine]
        talk.ack([place.tag for place in gone])
        talk.flush()
        for place in gone:
            place.settled = True
            del self._letters[mine[place.tag]]
            self._held -= 1
        return len(gone)

    def count(self) -> Counter[str]:
        """Letters by the topic they were buried from; "" where they do not say. Their bodies are let go as they come."""
        talk = self._open()
        talk.extend()
        counted: Counter[str] = Counter()

        def look(got: Got) -> tuple[str, Delivery | None]:
            letter = self._letter(got)
            return letter.headers.get(TARGET, ""), letter if letter.handle.count >= WORN else None

        while found := self._take(talk, MOST_AT_ONCE, look):
            counted.update([target for target, _ in found])
            self._letters |= {_cursor(letter.handle.tag): letter for _, letter in found if letter is not None}
        return counted

    def close(self) -> None:
        """Put back what it holds. Idempotent."""
        if self._talk is None:
            return
        try:
            self._talk.extend()
            self._renew(self._talk)
            self._put_back(self._talk)
        finally:
            give_back(self._talk, self._lock)
            self._end()

    def _open(self) -> Conversation:
        if self._talk is None:
            if not self._turn.acquire(timeout=self._timeout):
                raise BrokerUnavailable(
                    f"{self._where}: another reader of {self._queue!r} in this process has been open for "
                    f"{self._timeout:g} s; close it first"
                )
            try:
                self._talk = self._open_talk()
                take(self._talk, self._lock, self._timeout, f"{self._where}: the dead letters of {self._queue!r}")
            except BaseException:
                self._end()
                raise
        elif self._held and not self._talk.is_open:
            self._letters.clear()
            self._held = 0
            raise BrokerError(f"{self._where}: the connection was lost while dead letters were read; read them again")
        return self._talk

    def _end(self) -> None:
        talk, self._talk = self._talk, None
        self._letters.clear()
        self._held = 0
        self._turn.release()
        if talk is not None:
            talk.close()

    def _put_back(self, talk: Conversation) -> None:
        """Return what is held and wait until others can see it: the queue takes a moment."""
        if self._held and talk.is_open:
            ready = talk.ready(self._queue)
            talk.nack_all()
            talk.until_ready(self._queue, ready + self._held, BACK_WITHIN)

    def _fetch(self, talk: Conversation, count: int) -> bool:
        """Read up to so many more; False = there are none."""
        letters = self._take(talk, count, self._letter)
        self._letters |= {_cursor(letter.handle.tag): letter for letter in letters}
        return bool(letters)

    def _take(self, talk: Conversation, count: int, look: Callable[[Got], T]) -> list[T]:
        """Hold up to so many more; what `look` makes of each is kept. [] = there are none."""
        count = min(count, talk.ready(self._queue), MOST_AT_ONCE)
        if count <= 0:
            return []
        came: list[T] = []

        def on_message(got: Got) -> None:
            seen = look(got)
            with self._arrived:
                came.append(seen)
                self._arrived.notify()

        consumer = talk.consume(self._queue, count, on_message)
        with self._arrived:
            last = time.monotonic()
            known = 0
            while len(came) < count and time.monotonic() - last < QUIET:
                self._arrived.wait(QUIET)
                if len(came) > known:
                    known, last = len(came), time.monotonic()
        talk.cancel(consumer)
        self._held += len(came)
        return came

    def _letter(self, got: Got) -> Delivery:
        delivery = deliver(self._topic, self._queue, 0, got.tag, got.properties, got.body)
        delivery.suspect = False
        return delivery

    def _renew(self, talk: Conversation) -> None:
        worn = [delivery for delivery in self._letters.values() if delivery.handle.count >= WORN]
        if not worn or not talk.is_open:
            return
        copies = [_fresh(delivery, self._queue) for delivery in worn]
        outcome = self._publisher.send(copies).result(self._timeout + 20)
        talk.ack([delivery.handle.tag for delivery, error in zip(worn, outcome, strict=True) if error is None])
        talk.flush()


def _fresh(delivery: Delivery, queue: str) -> Outgoing:
    place: Place = delivery.handle
    place.count = 0
    return copy_back(delivery, queue)


def _cursor(tag: int) -> str:
    """In the queue's order: a later page must never hold what lies before an earlier one."""
    return f"{tag:012d}"
