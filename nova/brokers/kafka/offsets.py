"""What the broker tells about offsets: the ends of partitions, and what groups have committed. Any thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from nova.brokers.kafka import offset_map
from nova.brokers.kafka.admin import Admin
from nova.brokers.kafka.names import Place
from nova.brokers.kafka.offset_map import OffsetMap
from nova.brokers.kafka.patience import left

__all__ = ["Offsets"]


class Offsets:
    """Questions to one broker.

    Args:
        where: its address, for messages.
    """

    def __init__(self, admin: Admin, where: str) -> None:
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

        def question(client: AdminClient, seconds: float) -> list[TopicPartition]:
            futures = client.list_consumer_group_offsets([request], request_timeout=seconds)
            return list(futures[group].result(seconds + 1).topic_partitions)

        found: dict[Place, OffsetMap] = {}
        for place in self._admin.ask(f"{self._where}: reading the offsets of group {group!r}", question, timeout):
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

        def question(client: AdminClient, seconds: float) -> None:
            for future in client.delete_records(request, request_timeout=seconds).values():
                future.result(seconds + 1)

        if request:
            self._admin.ask(f"{self._where}: deleting finished records", question, timeout)

    def _list(self, places: Iterable[Place], specification: OffsetSpec | None, timeout: float) -> dict[Place, int]:
        request: dict[TopicPartition, Any] = {TopicPartition(*place): specification for place in places}
        if not request:
            return {}

        def question(client: AdminClient, seconds: float) -> dict[Place, int]:
            futures = client.list_offsets(request, request_timeout=seconds)
            deadline = time.monotonic() + seconds + 1
            try:
                return {
                    (place.topic, place.partition): future.result(left(deadline)).offset
                    for place, future in futures.items()
                }
            except KafkaException:
                client.list_topics(timeout=seconds)  # leaders have moved: the client does not look by itself
                raise

        return self._admin.ask(f"{self._where}: reading offsets", question, timeout)
