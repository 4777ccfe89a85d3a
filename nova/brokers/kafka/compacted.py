"""Reading a compacted topic of one partition to its end, again and again. One thread at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.failures import broker_error
from nova.brokers.kafka.handles import close_consumer, open_handle
from nova.brokers.kafka.patience import ask
from nova.brokers.kafka.settings import reader_settings
from nova.errors import BrokerUnavailable

__all__ = ["TopicReader", "read_range"]

CHUNK = 1000


class TopicReader:
    """Yields the records of partition 0 that it has not yielded before.

    Args:
        group: the name it asks under; see `Names.reader`.
        where: the broker's address, for messages.
    """

    def __init__(self, config: KafkaConfig, topic: str, group: str, where: str) -> None:
        self._topic = topic
        self._where = f"{where}: reading topic {topic!r}"
        self._position = 0
        self._consumer = open_handle(Consumer, reader_settings(config, group))

    def catch_up(self, timeout: float) -> Iterator[Message]:
        """Every new record up to the end as it is now.

        Raises:
            BrokerError: the end was not reached in time; a later call goes on from there.
        """
        for message in read_range(self._consumer, self._topic, 0, self._position, None, timeout, self._where):
            self._position = (message.offset() or 0) + 1
            yield message

    def close(self) -> None:
        """Let go of the broker."""
        close_consumer(self._consumer)


def read_range(
    consumer: Consumer, topic: str, partition: int, start: int, end: int | None, timeout: float, where: str
) -> Iterator[Message]:
    """The records of a partition from `start` to below `end` (None = the end as it is now).

    A start behind the end is that of a topic that was made anew: it is read from its beginning.

    Raises:
        BrokerError: the end was not reached in time.
    """
    deadline = time.monotonic() + timeout
    place = TopicPartition(topic, partition)
    marks = ask(where, lambda: consumer.get_watermark_offsets(place, timeout=timeout), timeout)
    if marks is None:
        raise BrokerUnavailable(f"{where}: no answer in {timeout:g} s")
    low, high = marks
    end = high if end is None else min(end, high)
    position = start if low <= start <= high else low
    if position >= end:
        return
    try:
        consumer.assign([TopicPartition(topic, partition, position)])
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
