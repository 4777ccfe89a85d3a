"""Reading partitions from one offset to another, and compacted topics to their end again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.failures import broker_error
from nova.brokers.kafka.handles import abandon_consumer, close_consumer, open_handle
from nova.brokers.kafka.patience import ask, left, turn
from nova.brokers.kafka.settings import reader_settings
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["RangeReader", "TopicReader"]

CHUNK = 1000
ATTEMPTS = 3
"""Clients that are asked for the ends of a partition, within the caller's time."""


class RangeReader:
    """Reads any part of any partition, without a group. Any thread; the next waits until one is done.

    Args:
        group: the name it asks under; see `Names.reader`.
        where: the broker's address, for messages.
    """

    def __init__(self, config: KafkaConfig, group: str, where: str) -> None:
        self._settings = reader_settings(config, group)
        self._where = where
        self._consumer: Consumer | None = None
        self._working = threading.Lock()

    def read(self, topic: str, partition: int, start: int, end: int | None, timeout: float) -> Iterator[Message]:
        """The records from `start` to below `end` (None = the end as it is now).

        A start behind the end is that of a topic that was made anew: it is read from its beginning.

        Raises:
            BrokerError: the end was not reached in time.
        """
        deadline = time.monotonic() + timeout
        where = f"{self._where}: reading topic {topic!r}"
        place = TopicPartition(topic, partition)
        with turn(self._working, deadline, where):
            consumer, low, high = self._find(place, left(deadline), where)
            position = start if low <= start <= high else low
            try:
                yield from _read(
                    consumer, place, position, high if end is None else min(end, high), left(deadline), where
                )
            except BrokerError:
                self._let_go()
                raise

    def close(self) -> None:
        """Let go of the broker; another `read` connects anew."""
        with self._working:
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                close_consumer(consumer)

    def _find(self, place: TopicPartition, timeout: float, where: str) -> tuple[Consumer, int, int]:
        """A client that knows the partition, its first offset and its end.

        One that does not answer is replaced: it may have lost its brokers for good, see `Publisher._look_after`.
        """
        share = timeout / ATTEMPTS
        tried = 0
        while True:
            if self._consumer is None:
                self._consumer = open_handle(Consumer, self._settings)
            try:
                return self._consumer, *_ends(self._consumer, place, share, where)
            except BrokerError:
                self._let_go()
                tried += 1
                if tried == ATTEMPTS:
                    raise

    def _let_go(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            abandon_consumer(consumer)


class TopicReader:
    """Yields the records of a topic's partition 0 that it has not yielded before. One thread at a time.

    Args:
        group, where: as for `RangeReader`.
    """

    def __init__(self, config: KafkaConfig, topic: str, group: str, where: str) -> None:
        self._reader = RangeReader(config, group, where)
        self._topic = topic
        self._position = 0

    def catch_up(self, timeout: float) -> Iterator[Message]:
        """Every new record up to the end as it is now.

        Raises:
            BrokerError: the end was not reached in time; a later call goes on from there.
        """
        for message in self._reader.read(self._topic, 0, self._position, None, timeout):
            self._position = (message.offset() or 0) + 1
            yield message

    def close(self) -> None:
        """Let go of the broker."""
        self._reader.close()


def _ends(consumer: Consumer, place: TopicPartition, timeout: float, where: str) -> tuple[int, int]:
    marks = ask(where, lambda: consumer.get_watermark_offsets(place, timeout=timeout), timeout)
    if marks is None:
        raise BrokerUnavailable(f"{where}: no answer in {timeout:g} s")
    return marks


def _read(
    consumer: Consumer, place: TopicPartition, position: int, end: int, timeout: float, where: str
) -> Iterator[Message]:
    deadline = time.monotonic() + timeout
    if position >= end:
        return
    try:
        consumer.assign([TopicPartition(place.topic, place.partition, position)])
        while position < end:
            if time.monotonic() >= deadline:
                raise BrokerUnavailable(f"{where}: its end was not reached in {timeout:g} s")
            first = consumer.poll(0.1)
            if first is None:
                continue
            for message in (first, *consumer.consume(CHUNK, 0)):
                error = message.error()
                if error is not None:
                    raise KafkaException(error)
                position = (message.offset() or 0) + 1
                if position <= end:
                    yield message
    except KafkaException as exc:
        raise broker_error(where, exc) from exc
    finally:
        consumer.unassign()
