"""What the broker tells about offsets: the ends of partitions, and what groups have committed. Any thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from nova.brokers.kafka import offset_map
from nova.brokers.kafka.offset_map import OffsetMap
from nova.brokers.kafka.patience import ask

__all__ = ["Offsets", "Place"]

Place = tuple[str, int]


class Offsets:
    """Questions to one broker.

    Args:
        where: its address, for messages.
    """

    def __init__(self, admin: AdminClient, where: str) -> None:
        self._admin = admin
        self._where = where

    def ends(self, places: Iterable[Place], timeout: float) -> dict[Place, int]:
        """One above the last record of each.

        Raises:
            BrokerError: the broker does not tell.
        """
        return self._list(places, OffsetSpec.latest(), timeout)

    def beginnings(self, places: Iterable[Place], timeout: float) -> dict[Place, int]:
        """The first record of each that is still there.

        Raises:
            BrokerError: the broker does not tell.
        """
        return self._list(places, OffsetSpec.earliest(), timeout)

    def committed(self, group: str, places: Sequence[Place], timeout: float) -> dict[Place, OffsetMap]:
        """What a consumer group has committed; a place without a commit is missing.

        Raises:
            BrokerError: the broker does not tell.
        """
        if not places:
            return {}
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in places])

        def question() -> list[TopicPartition]:
            futures = self._admin.list_consumer_group_offsets([request], request_timeout=timeout)
            return list(futures[group].result(timeout + 1).topic_partitions)

        found: dict[Place, OffsetMap] = {}
        for place in ask(f"{self._where}: reading the offsets of group {group!r}", question, timeout):
            if place.offset >= 0 and place.error is None:
                known = offset_map.decode(place.offset, place.metadata)
                found[place.topic, place.partition] = known or OffsetMap(place.offset, place.offset)
        return found

    def delete_before(self, bounds: dict[Place, int], timeout: float) -> None:
        """Give the space of all records below these offsets back.

        Raises:
            BrokerError: at least one was refused.
        """
        request = [TopicPartition(topic, number, offset) for (topic, number), offset in bounds.items()]

        def question() -> None:
            for future in self._admin.delete_records(request, request_timeout=timeout).values():
                future.result(timeout + 1)

        if request:
            ask(f"{self._where}: deleting finished records", question, timeout)

    def _list(self, places: Iterable[Place], specification: OffsetSpec | None, timeout: float) -> dict[Place, int]:
        request: dict[TopicPartition, Any] = {TopicPartition(*place): specification for place in places}
        if not request:
            return {}

        def question() -> dict[Place, int]:
            futures = self._admin.list_offsets(request, request_timeout=timeout)
            deadline = time.monotonic() + timeout + 1
            return {
                (place.topic, place.partition): future.result(max(0.1, deadline - time.monotonic())).offset
                for place, future in futures.items()
            }

        return ask(f"{self._where}: reading offsets", question, timeout)
