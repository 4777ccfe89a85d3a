"""What a Kafka cluster's numbers mean: each trouble has its finding, with the number and the command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from nova.brokers.base import Finding
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

WANTED = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "1310720"}
RIGHTS = frozenset({"READ", "WRITE", "DELETE", "DESCRIBE"})


def topic(settings: Mapping[str, str] | None = WANTED, **changed: Any) -> TopicFacts:
    usual: dict[str, Any] = {"is_ready": True, "partitions": 6, "replicas": 3, "wanted": WANTED, "rights": RIGHTS}
    return TopicFacts(name="T", settings=settings, **{**usual, **changed})


def only(findings: list[Finding]) -> Finding:
    (found,) = findings
    return found


def test_a_topic_as_nova_makes_it_is_one_line() -> None:
    found = only(judge_topic(topic(), reclaim=True))
    assert (found.severity, found.name) == ("ok", "topic T")
    assert found.found == "6 partitions, max.message.bytes=1310720, retention.bytes=-1, retention.ms=-1"


@pytest.mark.parametrize(
    ("settings", "name", "shown", "fix"),
    [
        ({"retention.ms": "604800000"}, "retention.ms of T", "604800000 (168 h)", "retention.ms=-1"),
        ({"retention.bytes": "1000"}, "retention.bytes of T", "1000", "retention.bytes=-1"),
        ({"max.message.bytes": "1048588"}, "max.message.bytes of T", "1048588 bytes, 1310720", "max_body_bytes"),
        ({"cleanup.policy": "compact"}, "cleanup.policy of T", "compact", "cleanup.policy=delete"),
    ],
)
def test_a_setting_that_loses_or_refuses_tasks_hurts(settings: dict[str, str], name: str, shown: str, fix: str) -> None:
    found = only(judge_topic(topic({**WANTED, **settings}), reclaim=True))
    assert (found.severity, found.name) == ("harm", name)
    assert found.found.startswith(shown)
    assert "kafka-configs.sh --alter --topic T" in found.fix
    assert fix in found.fix


@pytest.mark.parametrize(("setting", "meaning"), [("retention.ms", "wait longer"), ("retention.bytes", "oldest tasks")])
def test_what_is_lost_by_age_and_by_size_are_two_things(setting: str, meaning: str) -> None:
    assert meaning in only(judge_topic(topic({**WANTED, setting: "1000"}), reclaim=True)).meaning


def test_a_delay_topic_that_forgets_is_refused_and_its_clock_matters() -> None:
    wanted = {**WANTED, "message.timestamp.type": "LogAppendTime"}
    settings = {**WANTED, "retention.ms": "1000", "message.timestamp.type": "CreateTime"}
    found = judge_topic(topic(settings, wanted=wanted, is_ready=False), reclaim=True)
    assert [finding.name for finding in found] == ["retention.ms of T", "message.timestamp.type of T"]
    assert "Nova refuses" in found[0].meaning
    assert {finding.severity for finding in found} == {"harm"}


def test_a_compacted_topic_may_forget_by_age() -> None:
    compacted = {**WANTED, "cleanup.policy": "compact", "retention.ms": "604800000"}
    assert only(judge_topic(topic(compacted, wanted=compacted), reclaim=True)).severity == "ok"


def test_settings_that_may_not_be_read_are_told_with_the_command() -> None:
    found = only(judge_topic(topic(None), reclaim=True))
    assert found.severity == "unread"
    assert "kafka-configs.sh --describe --all --topic T" in found.fix


@pytest.mark.parametrize(
    ("missing", "reclaim", "severity", "word"),
    [
        ("READ", True, "harm", "workers"),
        ("WRITE", True, "harm", "enqueued"),
        ("DELETE", True, "hint", "disks"),
        ("DELETE", False, "ok", ""),
    ],
)
def test_a_missing_right_is_named_with_what_it_costs(missing: str, reclaim: bool, severity: str, word: str) -> None:
    found = only(judge_topic(topic(rights=RIGHTS - {missing}), reclaim=reclaim))
    assert found.severity == severity
    assert word in found.meaning


def test_a_cluster_without_rules_tells_no_rights() -> None:
    assert only(judge_topic(topic(rights=None), reclaim=True)).severity == "ok"


@pytest.mark.parametrize(
    ("replicas", "in_sync", "severity", "words"),
    [
        (1, 2, "harm", "every enqueue fails"),
        (1, 1, "hint", "one broker's disk"),
        (3, 1, "hint", "one replica alone"),
        (3, 3, "hint", "while one broker is down"),
        (3, 2, "ok", ""),
    ],
)
def test_replicas_against_those_in_sync(replicas: int, in_sync: int, severity: str, words: str) -> None:
    found = only(judge_replicas([topic({**WANTED, "min.insync.replicas": str(in_sync)}, replicas=replicas)]))
    assert found.severity == severity
    assert found.found.startswith(f"{replicas}, min.insync.replicas={in_sync}")
    assert words in found.meaning


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, 2), (2, 3), (3, 4), (3, 3), (2, 2), (3, 1)])
def test_whoever_follows_the_advice_on_replicas_can_enqueue(replicas: int, in_sync: int) -> None:
    def judged(number: int) -> Finding:
        return only(judge_replicas([topic({**WANTED, "min.insync.replicas": str(number)}, replicas=replicas)]))

    advised = re.search(r"min\.insync\.replicas=(\d+)", judged(in_sync).fix)
    assert advised is not None
    followed = judged(int(advised[1]))
    assert followed.severity == ("ok" if replicas > 2 else "hint")
    assert "nothing can be enqueued" not in followed.meaning


def test_topics_of_one_kind_are_one_finding_whose_fix_is_for_all() -> None:
    found = only(judge_replicas([topic({**WANTED, "min.insync.replicas": "1"}) for _ in range(2)]))
    assert "T, T" in found.found
    assert "likewise for the other topics" in found.fix


@pytest.mark.parametrize(("workers", "severity"), [(6, "ok"), (7, "harm")])
def test_more_workers_than_partitions_hurt(workers: int, severity: str) -> None:
    found = only(judge_workers({"A": 12, "B": 6}, workers))
    assert (found.severity, found.name) == (severity, "partitions")
    assert f"6 partitions in 'B', {workers} workers" in found.found


def cluster(settings: dict[str, str] | None, *, workers: int = 3) -> dict[str, Finding]:
    facts = ClusterFacts(brokers=3, settings=settings)
    return {found.name: found for found in judge_cluster(facts, session_timeout=10.0, workers=workers)}


def test_a_session_outside_of_the_brokers_bounds_hurts() -> None:
    bounds = {"group.min.session.timeout.ms": "6000", "group.max.session.timeout.ms": "1800000"}
    assert cluster(bounds)["session timeout"].severity == "ok"
    found = cluster({**bounds, "group.min.session.timeout.ms": "10001"})["session timeout"]
    assert (found.severity, found.found.split(",")[0]) == ("harm", "10001 to 1800000 ms")
    assert cluster({**bounds, "group.max.session.timeout.ms": "9999"})["session timeout"].severity == "harm"
    at_its_edges = {"group.min.session.timeout.ms": "10000", "group.max.session.timeout.ms": "10000"}
    assert cluster(at_its_edges)["session timeout"].severity == "ok"


def test_a_group_that_is_too_small_and_offsets_that_are_forgotten_soon() -> None:
    found = cluster({"group.max.size": "2", "offsets.retention.minutes": "1440"})
    assert (found["group size"].severity, found["group size"].found) == ("harm", "group.max.size=2, 3 workers")
    assert found["group size"].meaning == "1 workers are not let in"
    assert (found["offsets"].severity, found["offsets"].found) == ("hint", "offsets.retention.minutes=1440 (1 days)")
    assert "group size" not in cluster({"group.max.size": "3"})


@pytest.mark.parametrize(("minutes", "severity"), [("10080", "ok"), ("10079", "hint")])
def test_offsets_are_to_be_kept_for_a_week(minutes: str, severity: str) -> None:
    assert cluster({"offsets.retention.minutes": minutes})["offsets"].severity == severity


def test_broker_settings_that_may_not_be_read_are_told() -> None:
    found = cluster(None)
    assert found["broker settings"].severity == "unread"
    assert found["brokers"].found == "3 up"


def test_missing_topics_are_harmless_only_if_they_can_be_made() -> None:
    well, harm = judge_missing({"A": None, "B": "no right to create"})
    assert (well.severity, harm.severity) == ("ok", "harm")
    assert harm.found == "B: no right to create"
    assert judge_missing({}) == []


def test_a_group_this_user_may_not_read_hurts() -> None:
    assert only(judge_groups({"g": (frozenset({"READ"}), None), "h": (None, None)})).severity == "ok"
    found = judge_groups({"g": (frozenset({"DESCRIBE"}), None), "h": (None, "denied"), "i": (None, None)})
    assert [(finding.severity, finding.found) for finding in found] == [
        ("harm", "'g': DESCRIBE"),
        ("harm", "'h': denied"),
    ]
