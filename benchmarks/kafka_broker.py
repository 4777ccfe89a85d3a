"""What the suite and its runners ask of Kafka itself, by the same means for everybody: topics, their ends, what is committed.

Standard library and confluent-kafka only: FastStream's runner imports this from its own environment.
"""

from __future__ import annotations

import time
from typing import cast

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from benchmarks.workload import STALL

__all__ = ["PARTITIONS", "Watch", "answers", "delete_topics", "make_topic"]

PARTITIONS = 6
"""Of every topic; Nova's default."""
ASK_EVERY = 0.01
TIMEOUT = 30.0


class Watch:
    """Reads what a topic holds and how far a consumer group has committed it, as the broker tells."""

    def __init__(self, address: str, topic: str, group: str = "") -> None:
        self._admin = _admin(address)
        self._places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._group = group
        self._admin.list_topics(
            timeout=TIMEOUT
        )  # connects now, so that the first question takes no longer than the next

    def stored(self) -> int:
        """Records in the topic."""
        latest = cast(OffsetSpec, OffsetSpec.latest())
        ends = self._admin.list_offsets(dict.fromkeys(self._places, latest))
        return sum(found.result(TIMEOUT).offset for found in ends.values())

    def committed(self) -> int:
        """Records that the group need not see again."""
        asked = ConsumerGroupTopicPartitions(self._group, self._places)
        found = self._admin.list_consumer_group_offsets([asked])[self._group].result(TIMEOUT)
        return sum(max(0, place.offset) for place in found.topic_partitions)

    def until_committed(self, records: int) -> None:
        """Return when the broker has that many records as committed, or when nothing has moved for `STALL` seconds."""
        best, since = -1, time.monotonic()
        while (now := self.committed()) < records:
            if now > best:
                best, since = now, time.monotonic()
            elif time.monotonic() - since > STALL:
                return
            time.sleep(ASK_EVERY)


def answers(address: str) -> bool:
    """Whether a broker is there."""
    try:
        return bool(_admin(address).list_topics(timeout=5).brokers)
    except Exception:  # noqa: BLE001 - whatever it is, nobody answers
        return False


def make_topic(address: str, topic: str) -> None:
    """Make a topic and return when each partition has a leader."""
    admin = _admin(address)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found = admin.list_topics(timeout=TIMEOUT).topics.get(topic)
        if found and len(found.partitions) == PARTITIONS and all(p.leader >= 0 for p in found.partitions.values()):
            return
        time.sleep(0.02)


def delete_topics(address: str, prefix: str) -> None:
    """Delete what begins with a prefix."""
    admin = _admin(address)
    topics = [topic for topic in admin.list_topics(timeout=TIMEOUT).topics if topic.startswith(prefix)]
    if topics:
        for deleted in admin.delete_topics(topics, operation_timeout=TIMEOUT).values():
            deleted.result(TIMEOUT)


def _admin(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address, "log_level": 0})
