"""The options of Kafka reach its client and its server; docs/coming-from-go-nova.md says which are Go's."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from nova import Task, with_delay_slots
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    yield made
    made.close()


@pytest.fixture
def admin(kafka: Broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.section["bootstrap_servers"]})


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's lines as they come: Nova lets one that it heard lately pass once in a while only."""
    monkeypatch.setattr(logging.getLogger("nova.brokers.kafka.client"), "filters", [])


def topics(admin: AdminClient, prefix: str) -> dict[str, int]:
    """The topics of a prefix and how many partitions each has."""
    found = admin.list_topics(timeout=10).topics
    return {name: len(topic.partitions) for name, topic in found.items() if name.startswith(prefix)}


def told(caplog: pytest.LogCaptureFixture) -> dict[str, set[str]]:
    """What librdkafka says that it was told, by property: its own account, behind all layers above it."""
    found: dict[str, set[str]] = {}
    for name, value in re.findall(r"CONF \[.*?\] \[thrd:\w+\]:\s+([a-z.]+) = (.*)", caplog.text):
        found.setdefault(name, set()).add(value)
    return found


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"session_timeout": 7.5}, "session.timeout.ms", "7500"),
        ({"max_poll_interval": 11}, "max.poll.interval.ms", "11000"),
        ({"delivery_timeout": 4.5}, "message.timeout.ms", "4500"),
        ({"client_config": {"linger.ms": 6}}, "queue.buffering.max.ms", "6"),
        ({"client_config": {"compression.type": "zstd"}}, "compression.codec", "zstd"),
    ],
)
def test_an_option_reaches_the_client(
    kafka: Broker, caplog: pytest.LogCaptureFixture, options: dict[str, Any], name: str, value: str
) -> None:
    properties = {**options.get("client_config", {}), "debug": "conf"}
    kafka.section = {**kafka.section, **options, "client_config": properties}
    with caplog.at_level(logging.DEBUG, "nova.brokers.kafka.client"):
        q = kafka.queue()
        q.start(lambda task: None)
        q.enqueue(Task("t"))
        eventually(lambda: value in told(caplog).get(name, set()), timeout=10, what=f"{name} = {value}")


def test_the_client_acknowledges_nothing_by_itself(kafka: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Go's `auto_commit` has no counterpart: `test_properties_that_would_break_a_promise_are_refused_with_the_reason`."""
    kafka.section = {**kafka.section, "client_config": {"debug": "conf"}}
    with caplog.at_level(logging.DEBUG, "nova.brokers.kafka.client"):
        kafka.queue().start(lambda task: None)
        eventually(lambda: "enable.auto.commit" in told(caplog))
    assert told(caplog)["enable.auto.commit"] == told(caplog)["enable.auto.offset.store"] == {"false"}


def test_the_group_is_one_of_the_server(kafka: Broker, admin: AdminClient) -> None:
    kafka.queue(group="billing").start(lambda task: None)

    def groups() -> set[str]:
        return {group.group_id for group in admin.list_consumer_groups().result(10).valid}

    eventually(lambda: {f"{kafka.prefix}.billing.{name}" for name in ("high", "normal", "low")} <= groups())


def test_the_prefix_begins_every_topic_and_partitions_are_as_told(kafka: Broker, admin: AdminClient) -> None:
    kafka.section = {**kafka.section, "partitions": 3}
    kafka.queue().enqueue(Task("t"))
    assert topics(admin, kafka.prefix)[f"{kafka.prefix}_PRIORITY_NORMAL"] == 3


def test_delay_slots_are_lanes_of_the_server(kafka: Broker, admin: AdminClient) -> None:
    """Four slots of a minute: three lanes, for one, two and three minutes; longer delays wait in a coarser level."""
    q = kafka.queue(with_delay_slots(4, 60))
    q.enqueue(Task("t"), process_in=130)
    q.enqueue(Task("t"), process_in=3600)
    found = topics(admin, f"{kafka.prefix}_DELAY_")
    assert found[f"{kafka.prefix}_DELAY_1"] == 3
    assert f"{kafka.prefix}_DELAY_2" in found
