"""Reading a group's dead letters: a compacted topic, so that a letter stays until its key is written empty."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from nova.brokers.base import Delivery
from nova.brokers.kafka.compacted import RangeReader, TopicReader
from nova.brokers.kafka.records import Publish, Record, headers_of
from nova.envelope import GROUP, TARGET
from nova.errors import BrokerError

__all__ = ["KafkaDeadLetters"]


class KafkaDeadLetters:
    """One group's letters, found by reading the topic once and its news at each call. Takes nothing out. Any thread.

    Args:
        exists: whether there is such a topic yet.
        open_reader: for reading it from its beginning.
        scanner: for reading pages.
    """

    def __init__(
        self,
        topic: str,
        group: str,
        where: str,
        timeout: float,
        *,
        exists: Callable[[], bool],
        open_reader: Callable[[], TopicReader],
        scanner: RangeReader,
        publish: Publish,
    ) -> None:
        self._topic = topic
        self._group = group
        self._where = f"{where}: reading topic {topic!r}"
        self._timeout = timeout
        self._exists = exists
        self._open_reader = open_reader
        self._scanner = scanner
        self._publish = publish
        self._reader: TopicReader | None = None
        self._letters: dict[bytes, tuple[int, str]] = {}
        """Key to offset and the topic it was buried from."""
        self._working = threading.Lock()

    def read(self, limit: int, after: str | None = None) -> list[tuple[str, Delivery]]:
        """The oldest letters behind the cursor, which is an offset."""
        with self._working:
            self._refresh()
            start = int(after) if after else -1
            offsets = sorted(offset for offset, _ in self._letters.values() if offset > start)[:limit]
            if not offsets:
                return []
            wanted = set(offsets)
            found: list[tuple[str, Delivery]] = []
            for message in self._scanner.read(self._topic, 0, offsets[0], offsets[-1] + 1, self._timeout):
                offset, value = message.offset(), message.value()
                if offset in wanted and value is not None:
                    headers = headers_of(message)
                    delivery = Delivery(self._topic, value, headers, message.key(), message.timestamp()[1])
                    found.append((str(offset), delivery))
            return found

    def remove(self, deliveries: Sequence[Delivery]) -> int:
        """Write their keys empty and wait for it."""
        with self._working:
            self._refresh()
            keys = [delivery.handle for delivery in deliveries if delivery.handle in self._letters]
            records = [Record(self._topic, key, None, {}) for key in keys]
            for error in self._publish(records).result() if records else ():
                if error is not None:
                    raise BrokerError(str(error)) from error
            for key in keys:
                self._letters.pop(key, None)
            return len(keys)

    def count(self) -> Counter[str]:
        """Letters by the topic they were buried from; "" where they do not say."""
        with self._working:
            self._refresh()
            return Counter(target for _, target in self._letters.values())

    def close(self) -> None:
        """Let go of the broker."""
        with self._working:
            if self._reader is not None:
                self._reader.close()
            self._reader = None
            self._scanner.close()

    def _refresh(self) -> None:
        if self._reader is None:
            if not self._exists():
                return
            self._letters.clear()
            self._reader = self._open_reader()
        for message in self._reader.catch_up(self._timeout):
            key = message.key() or b""
            if message.value() is None:
                self._letters.pop(key, None)
                continue
            headers = headers_of(message)
            if headers.get(GROUP) == self._group:
                self._letters[key] = (message.offset() or 0, headers.get(TARGET, ""))
