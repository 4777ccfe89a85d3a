"""Reads a cluster's limits and settings for `limits` to judge. Changes nothing. Any thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from nova.brokers.base import CheckRequest, Finding
from nova.brokers.kafka.admin import Admin
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.failures import DENIED, code_of, text_of
from nova.brokers.kafka.limits import (
    ClusterFacts,
    TopicFacts,
    judge_cluster,
    judge_groups,
    judge_missing,
    judge_replicas,
    judge_topic,
    judge_workers,
)
from nova.brokers.kafka.names import Names
from nova.brokers.kafka.topics import TopicKeeper

__all__ = ["Checkup"]


class Checkup:
    """One look at a cluster.

    Args:
        where: its address, for messages.
    """

    def __init__(self, admin: Admin, keeper: TopicKeeper, config: KafkaConfig, names: Names, where: str) -> None:
        self._admin = admin
        self._keeper = keeper
        self._config = config
        self._names = names
        self._where = where

    def look(self, request: CheckRequest) -> list[Finding]:
        """All there is to say.

        Raises:
            BrokerError: the cluster does not answer.
        """
        names, timeout = self._names, request.timeout
        there = self._keeper.places(timeout)
        levels = [topic for topic in there if names.level_of(topic)]
        wanted = dict.fromkeys(
            [*request.topics, *request.own_topics, names.near, names.groups, names.leases, *sorted(levels)]
        )
        present = [topic for topic in wanted if topic in there]
        missing = [topic for topic in wanted if topic not in there]
        facts = self._describe_topics(present, frozenset(request.topics), timeout)
        partitions = {topic.name: topic.partitions for topic in facts if topic.is_ready}
        partitions |= {topic: self._config.partitions for topic in request.topics if topic in missing}
        groups = dict.fromkeys(names.consumer_group(request.group, topic) for topic in request.topics)
        return [
            *judge_cluster(
                self._describe_cluster(timeout),
                session_timeout=self._config.session_timeout,
                workers=request.workers,
            ),
            *judge_workers(partitions, request.workers),
            *judge_missing(self._try_making(missing, timeout)),
            *judge_replicas(facts),
            *(finding for topic in facts for finding in judge_topic(topic, reclaim=self._config.reclaim)),
            *judge_groups({group: self._ask_rights(group, timeout) for group in groups}),
        ]

    def _describe_cluster(self, timeout: float) -> ClusterFacts:
        def question(client: AdminClient, seconds: float) -> list[Any]:
            found = client.describe_cluster(request_timeout=seconds).result(seconds + 1)
            return list(found.nodes)

        nodes = self._admin.ask(f"{self._where}: describing the cluster", question, timeout)
        settings = self._settings(ResourceType.BROKER, [str(node.id) for node in nodes[:1]], timeout)
        return ClusterFacts(brokers=len(nodes), settings=next(iter(settings.values()), None))

    def _describe_topics(self, topics: list[str], ready: frozenset[str], timeout: float) -> list[TopicFacts]:
        if not topics:
            return []

        def question(client: AdminClient, seconds: float) -> list[Any]:
            asked = client.describe_topics(
                TopicCollection(topics), include_authorized_operations=True, request_timeout=seconds
            )
            return [future.result(seconds + 1) for future in asked.values()]

        described = self._admin.ask(f"{self._where}: describing topics", question, timeout)
        settings = self._settings(ResourceType.TOPIC, topics, timeout)
        return [
            TopicFacts(
                name=topic.name,
                is_ready=topic.name in ready,
                partitions=len(topic.partitions),
                replicas=min((len(partition.replicas) for partition in topic.partitions), default=0),
                settings=settings[topic.name],
                wanted=self._keeper.settings_of(topic.name),
                rights=_rights(topic.authorized_operations),
            )
            for topic in described
        ]

    def _settings(self, kind: Any, names: Iterable[str], timeout: float) -> dict[str, Mapping[str, str] | None]:
        """The configuration of each; None = this user may not read it."""

        def question(client: AdminClient, seconds: float) -> dict[str, Mapping[str, str] | None]:
            found: dict[str, Mapping[str, str] | None] = {}
            resources = [ConfigResource(kind, name) for name in names]
            for resource, future in client.describe_configs(resources, request_timeout=seconds).items():
                try:
                    entries = future.result(seconds + 1)
                except KafkaException as exc:
                    if code_of(exc) not in DENIED:
                        raise
                    found[resource.name] = None
                else:
                    found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
            return found

        return self._admin.ask(f"{self._where}: reading configurations", question, timeout)

    def _try_making(self, topics: list[str], timeout: float) -> dict[str, str | None]:
        """Why each topic could not be made; None = it could. Only asked, nothing is made."""
        if not topics:
            return {}
        specifications = [
            NewTopic(
                topic,
                self._keeper.partitions_of(topic),
                self._config.replication_factor,
                config=self._keeper.settings_of(topic),
            )
            for topic in topics
        ]

        def question(client: AdminClient, seconds: float) -> dict[str, str | None]:
            asked = client.create_topics(specifications, validate_only=True, request_timeout=seconds)
            return {topic: _refusal(future.exception(seconds + 1)) for topic, future in asked.items()}

        return self._admin.ask(f"{self._where}: asking whether topics can be made", question, timeout)

    def _ask_rights(self, group: str, timeout: float) -> tuple[frozenset[str] | None, str | None]:
        def question(client: AdminClient, seconds: float) -> tuple[frozenset[str] | None, str | None]:
            asked = client.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=seconds
            )
            try:
                return _rights(asked[group].result(seconds + 1).authorized_operations), None
            except KafkaException as exc:
                if code_of(exc) not in DENIED:
                    raise
                return None, text_of(exc.args[0])

        return self._admin.ask(f"{self._where}: asking for the rights on group {group!r}", question, timeout)


def _rights(operations: Iterable[Any] | None) -> frozenset[str] | None:
    return None if operations is None else frozenset(operation.name for operation in operations)


def _refusal(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if not isinstance(error, KafkaException):
        raise error
    return text_of(error.args[0])
