"""`q.check()` on a real Kafka: the numbers it reads are the broker's, it makes nothing, and what is wrong is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from nova import Finding, Task, TaskQueue
from tests.conformance.brokers import Broker, make


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    yield made
    made.close()


def create(kafka: Broker, topic: str, **settings: str) -> None:
    client = AdminClient({"bootstrap.servers": kafka.section["bootstrap_servers"]})
    named = {name.replace("_", "."): value for name, value in settings.items()}
    client.create_topics([NewTopic(topic, 2, 1, config=named)])[topic].result(10)


def topics(kafka: Broker) -> set[str]:
    client = AdminClient({"bootstrap.servers": kafka.section["bootstrap_servers"]})
    return {topic for topic in client.list_topics(timeout=10).topics if topic.startswith(kafka.prefix)}


def one(q: TaskQueue, name: str, workers: int = 1) -> Finding:
    (finding,) = [finding for finding in q.check(workers=workers).findings if finding.name == name]
    return finding


def test_a_new_prefix_is_well_and_nothing_is_made(kafka: Broker) -> None:
    report = kafka.queue().check()
    assert not report.will_hurt, report
    assert topics(kafka) == set()
    (missing,) = [finding for finding in report.findings if finding.name == "missing topics"]
    assert f"{kafka.prefix}_PRIORITY_NORMAL" in missing.found


def test_what_nova_made_itself_is_well(kafka: Broker) -> None:
    q = kafka.queue()
    q.start(lambda task: None)
    q.enqueue(Task("t"), process_in=60)
    report = q.check()
    assert not report.will_hurt, report
    assert one(q, f"topic {kafka.prefix}_PRIORITY_LOW").found.startswith("2 partitions, max.message.bytes=1310720")


@pytest.mark.parametrize(
    ("settings", "name", "found"),
    [
        ({"retention_ms": "3600000"}, "retention.ms", "3600000 (1 h)"),
        ({"retention_ms": "-1", "max_message_bytes": "2000"}, "max.message.bytes", "2000 bytes, 1310720 wanted"),
        ({"retention_ms": "-1", "cleanup_policy": "compact"}, "cleanup.policy", "compact"),
    ],
)
def test_a_ready_topic_that_loses_or_refuses_tasks_hurts(
    kafka: Broker, settings: dict[str, str], name: str, found: str
) -> None:
    topic = f"{kafka.prefix}_PRIORITY_NORMAL"
    create(kafka, topic, **{"retention_bytes": "-1", "max_message_bytes": "1310720", **settings})
    finding = one(kafka.queue(), f"{name} of {topic}")
    assert (finding.severity, finding.found.startswith(found)) == ("harm", True)
    assert "kafka-configs.sh --alter" in finding.fix


def test_a_delay_topic_that_forgets_hurts(kafka: Broker) -> None:
    create(kafka, f"{kafka.prefix}_DELAY_2", retention_ms="1000")
    q = kafka.queue()
    assert one(q, f"retention.ms of {kafka.prefix}_DELAY_2").severity == "harm"
    assert one(q, f"message.timestamp.type of {kafka.prefix}_DELAY_2").found == "CreateTime"


def test_more_replicas_in_sync_than_there_are_hurt(kafka: Broker) -> None:
    create(kafka, f"{kafka.prefix}_PRIORITY_HIGH", min_insync_replicas="2")
    findings = [finding for finding in kafka.queue().check().findings if finding.name == "replicas"]
    assert [finding.severity for finding in findings] == ["harm"]
    assert findings[0].found == f"1, min.insync.replicas=2: {kafka.prefix}_PRIORITY_HIGH"


def test_more_workers_than_partitions_hurt(kafka: Broker) -> None:
    q = kafka.queue()
    assert one(q, "partitions", workers=2).severity == "ok"
    assert one(q, "partitions", workers=3).severity == "harm"


def test_topics_that_cannot_be_made_hurt_before_a_task_is_lost(kafka: Broker) -> None:
    kafka.section["replication_factor"] = 3
    finding = next(finding for finding in kafka.queue().check().findings if finding.name == "missing topics")
    assert finding.severity == "harm"
    assert "lower with_kafka(replication_factor=…)" in finding.found
    assert topics(kafka) == set()


def test_a_session_that_the_broker_does_not_allow_hurts(kafka: Broker) -> None:
    kafka.section |= {"session_timeout": 3600.0, "max_poll_interval": 3600.0}
    finding = one(kafka.queue(), "session timeout")
    assert (finding.severity, finding.found) == ("harm", "1000 to 1800000 ms, with_kafka(session_timeout=3600)")
