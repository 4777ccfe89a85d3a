"""What every runner on Kafka asks of the broker itself, and by the same means: topics, ends, committed offsets.

Standard library and confluent-kafka only: FastStream's runner imports this from its own environment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from benchmarks.workload import STALL

__all__ = ["PARTITIONS", "Watch", "delete_topics", "make_topic"]

PARTITIONS = 6
"""Of every topic, Nova's default."""
ASK_EVERY = 0.01
TIMEOUT = 30.0


class Watch:
    """Reads how far a consumer group has committed a topic, as the broker tells it."""

    def __init__(self, address: str, topic: str, group: str = "") -> None:
        self._admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        self._places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._group = group
        self._admin.list_topics(timeout=TIMEOUT)  # connects, so that the first question asked takes no longer

    def stored(self) -> int:
        """Records in the topic."""
        ends = self._admin.list_offsets({place: OffsetSpec.latest() for place in self._places})
        return sum(found.result(TIMEOUT).offset for found in ends.values())

    def committed(self) -> int:
        """Records that the group need not see again."""
        asked = ConsumerGroupTopicPartitions(self._group, self._places)
        found = self._admin.list_consumer_group_offsets([asked])[self._group].result(TIMEOUT)
        return sum(max(0, place.offset) for place in found.topic_partitions)

    def until_committed(self, records: int) -> None:
        """Return when the broker has the group's commit of that many records; give up when nothing moves any more."""
        best, since = -1, time.monotonic()
        while (now := self.committed()) < records:
            if now > best:
                best, since = now, time.monotonic()
            elif time.monotonic() - since > STALL:
                return
            time.sleep(ASK_EVERY)


def make_topic(address: str, topic: str) -> None:
    """Make a topic, and wait until each partition has a leader."""
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found = admin.list_topics(timeout=TIMEOUT).topics.get(topic)
        if found and len(found.partitions) == PARTITIONS and all(p.leader >= 0 for p in found.partitions.values()):
            return
        time.sleep(0.02)


def delete_topics(address: str, prefixes: Sequence[str]) -> None:
    """Delete what a suite has made."""
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    topics = [topic for topic in admin.list_topics(timeout=TIMEOUT).topics if topic.startswith(tuple(prefixes))]
    if topics:
        for deleted in admin.delete_topics(topics, operation_timeout=TIMEOUT).values():
            deleted.result(TIMEOUT)
