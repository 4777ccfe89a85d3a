"""Topics: made when missing, checked when there. Any thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType, TopicMetadata

from nova.brokers.kafka.admin import Admin
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.delay_lanes import DelayLanes
from nova.brokers.kafka.failures import broker_error, code_of
from nova.brokers.kafka.names import Names, Place
from nova.brokers.kafka.offsets import Offsets
from nova.brokers.kafka.patience import left
from nova.brokers.kafka.records import Record
from nova.brokers.kafka.settings import HEADROOM_BYTES
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["TopicKeeper"]

NEAR_PARTITIONS = 8
FOREVER = "-1"
NEW_FOR = 2.0
"""Seconds in which a leader that is there takes records."""

_log = logging.getLogger(__name__)


class TopicKeeper:
    """Makes sure of the topics of one prefix.

    Args:
        where: the broker's address, for messages.
        before_levels: called with a timeout before a delay level is made or used first; may raise `BrokerError`.
    """

    def __init__(
        self,
        admin: Admin,
        offsets: Offsets,
        config: KafkaConfig,
        names: Names,
        lanes: DelayLanes,
        where: str,
        before_levels: Callable[[float], None],
    ) -> None:
        self._admin = admin
        self._offsets = offsets
        self._config = config
        self._names = names
        self._lanes = lanes
        self._where = where
        self._before_levels = before_levels
        self._known: set[str] = set()
        self._working = threading.Lock()

    def knows_all(self, records: Sequence[Record]) -> bool:
        """Whether `ensure` has been through with the topics of all these."""
        return {record.topic for record in records} <= self._known

    def forget(self, topic: str) -> None:
        """It was not found; look again."""
        self._known.discard(topic)

    def ensure(self, topics: Sequence[str], timeout: float) -> None:
        """Make what is missing, check what is there.

        Raises:
            BrokerError: one cannot be made, or is configured so that tasks would be lost; names the topic and the way out.
        """
        wanted = [topic for topic in dict.fromkeys(self._with_finer_levels(topics)) if topic not in self._known]
        if not wanted:
            return
        deadline = time.monotonic() + timeout
        if any(self._names.level_of(topic) for topic in wanted):
            self._before_levels(timeout)
        with self._working:
            present = self.places(timeout)
            there = [topic for topic in wanted if topic in present]
            missing = [topic for topic in wanted if topic not in present]
            if there:
                self._check(there, present, left(deadline))
                self._await_leaders_in_use([place for topic in there for place in present[topic]], deadline)
            if missing:
                self._create(missing, left(deadline))
                self._await_leaders(missing, deadline)
            self._known.update(wanted)

    def places(self, timeout: float) -> dict[str, list[Place]]:
        """The topics of the prefix that exist, with their partitions.

        Raises:
            BrokerError: the broker does not tell.
        """
        return {
            topic: [(topic, number) for number in found.partitions]
            for topic, found in self._list(max(timeout, 0.1)).items()
            if self._names.owns(topic)
        }

    def partitions_of(self, topic: str) -> int:
        """With how many partitions it is made."""
        level = self._names.level_of(topic)
        if self._names.is_compacted(topic):
            return 1
        if level is None:
            return self._config.partitions
        return NEAR_PARTITIONS if level == 0 else self._lanes.lanes_of(level)

    def settings_of(self, topic: str) -> dict[str, str]:
        """With what configuration it is made."""
        settings = {
            "retention.ms": FOREVER,
            "retention.bytes": FOREVER,
            "cleanup.policy": "compact" if self._names.is_compacted(topic) else "delete",
            "max.message.bytes": str(self._config.max_body_bytes + HEADROOM_BYTES),
        }
        if self._names.level_of(topic) is not None or topic == self._names.groups:
            # A lane's order is its due order, and a group older or younger than a task, only by the broker's own clock.
            settings["message.timestamp.type"] = "LogAppendTime"
        return settings

    def _list(self, timeout: float) -> dict[str, TopicMetadata]:
        def question(client: AdminClient, seconds: float) -> dict[str, TopicMetadata]:
            return client.list_topics(timeout=seconds).topics

        return self._admin.ask(f"{self._where}: listing topics", question, timeout)

    def _with_finer_levels(self, topics: Sequence[str]) -> Iterator[str]:
        """A task of a coarse level needs the finer ones later: made now, the forwarders know them in time."""
        for topic in topics:
            for level in range(1, self._names.level_of(topic) or 0):
                if self._lanes.has(level):
                    yield self._names.level(level)
            yield topic

    def _create(self, topics: Sequence[str], timeout: float) -> None:
        specifications = [
            NewTopic(topic, self.partitions_of(topic), self._config.replication_factor, config=self.settings_of(topic))
            for topic in topics
        ]

        def question(client: AdminClient, seconds: float) -> None:
            for topic, future in client.create_topics(specifications, request_timeout=seconds).items():
                try:
                    future.result(seconds + 1)
                except KafkaException as exc:
                    if code_of(exc) != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise broker_error(f"{self._where}: creating topic {topic!r}", exc) from exc

        self._admin.ask(f"{self._where}: creating topics", question, timeout)

    def _await_leaders(self, topics: Sequence[str], deadline: float) -> None:
        """Until every partition has a leader that knows it is.

        Brokers tell of a new partition a moment before its leader takes records, and what is published then may be lost
        though it counts as stored (KAFKA-15591, see `Pending.report`). A leader that tells the end of its log takes records.
        """
        places = self._await_metadata(topics, deadline)
        self._offsets.ends(places, left(deadline))

    def _await_leaders_in_use(self, places: Iterable[Place], deadline: float) -> None:
        """The same for topics that are there: another process may have made them just now.

        An older one may lack a leader for long, which is no reason to refuse its other partitions.
        """
        try:
            self._offsets.ends(places, min(left(deadline), NEW_FOR))
        except BrokerError as exc:
            _log.warning("%s: not every partition takes tasks now: %s", self._where, exc)

    def _await_metadata(self, topics: Sequence[str], deadline: float) -> list[Place]:
        """Until brokers tell of every partition and its leader; the partitions."""
        wait = 0.005
        while True:
            metadata = self._list(left(deadline))
            waiting = [
                topic
                for topic in topics
                if topic not in metadata
                or not metadata[topic].partitions
                or any(partition.leader < 0 for partition in metadata[topic].partitions.values())
            ]
            if not waiting:
                return [(topic, number) for topic in topics for number in metadata[topic].partitions]
            if time.monotonic() >= deadline:
                raise BrokerUnavailable(f"{self._where}: the new topic {waiting[0]!r} has no leader yet")
            time.sleep(wait)
            wait = min(2 * wait, 0.2)

    def _check(self, topics: Sequence[str], present: Mapping[str, Sequence[Place]], timeout: float) -> None:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]

        def question(client: AdminClient, seconds: float) -> dict[str, dict[str, str]]:
            found: dict[str, dict[str, str]] = {}
            for resource, future in client.describe_configs(resources, request_timeout=seconds).items():
                topic = resource.name
                try:
                    found[topic] = {name: str(entry.value) for name, entry in future.result(seconds + 1).items()}
                except KafkaException as exc:
                    if code_of(exc) not in (
                        KafkaError.TOPIC_AUTHORIZATION_FAILED,
                        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
                    ):
                        raise broker_error(f"{self._where}: reading the configuration of topic {topic!r}", exc) from exc
                    _log.warning(
                        "%s: the configuration of topic %r cannot be checked (no DescribeConfigs right)",
                        self._where,
                        topic,
                    )
            return found

        for topic, found in self._admin.ask(f"{self._where}: reading configurations", question, timeout).items():
            self._check_one(topic, len(present[topic]), found)

    def _check_one(self, topic: str, partitions: int, found: dict[str, str]) -> None:
        wanted = self.settings_of(topic)
        level = self._names.level_of(topic)
        must: tuple[str, ...] = ("cleanup.policy",)
        if level is not None:
            must = ("cleanup.policy", "retention.ms", "retention.bytes", "message.timestamp.type")
            lanes = self.partitions_of(topic)
            if level > 0 and partitions < lanes:
                raise BrokerError(
                    f"{self._where}: topic {topic!r} has {partitions} partitions, the delay slots need {lanes}; "
                    "use the delay slots this prefix was made with, or another prefix"
                )
        for name in must:
            if name in found and found[name] != wanted[name]:
                raise BrokerError(
                    f"{self._where}: topic {topic!r} has {name}={found[name]}, which would lose tasks; "
                    f"set {name}={wanted[name]}"
                )
        problems: list[str] = []
        limited = [name for name in ("retention.ms", "retention.bytes") if found.get(name, FOREVER) != FOREVER]
        if limited and level is None and not self._names.is_compacted(topic):
            name = limited[0]
            problems.append(f"{name}={found[name]}: tasks that wait longer are lost; set {name}=-1")
        size, least = found.get("max.message.bytes", ""), wanted["max.message.bytes"]
        if size.isdigit() and int(size) < int(least):
            problems.append(
                f"max.message.bytes={size}: larger tasks, and what is sent together with them, are refused; "
                f"set max.message.bytes={least} or lower with_kafka(max_body_bytes=…)"
            )
        if problems:
            _log.warning("%s: topic %r has %s", self._where, topic, "; and ".join(problems))
