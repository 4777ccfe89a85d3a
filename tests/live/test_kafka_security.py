"""Kafka with passwords, TLS and rights: what is wrong with them is one clear error, and nobody storms the broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nova import BrokerError, BrokerUnavailable, Finding, Task, TaskQueue, with_group_id, with_kafka, with_topic_prefix
from tests.eventually import eventually
from tests.servers.kafka.finding import needs_java
from tests.servers.kafka.relay import Relay
from tests.servers.kafka.secured import SecuredKafka

STATED = 4.0
"""Seconds within which a refusal is told, however long the caller would wait for a server that is away."""
WATCHED = 6.0
"""Seconds for which attempts are counted."""
MOST_TRIES = 400
"""Connections in that time of a worker that is refused: it has some nine clients, each with two ways to the broker, which
wait 0.1 s, then up to 2 s between two tries (118 measured). One that did not wait would make many thousands."""
MOST_LINES = 100
"""That it logs in that time: each client and each part of the worker says it once."""

pytestmark = pytest.mark.xdist_group("kafka-security")

Build = Callable[..., TaskQueue]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    needs_java()
    started = SecuredKafka(tmp_path_factory.mktemp("secured"))
    started.start()
    yield started
    started.stop()


@pytest.fixture
def prefix() -> str:
    return f"T{uuid.uuid4().hex[:8]}"


@pytest.fixture
def build(prefix: str) -> Iterator[Build]:
    """Builds queues that the end of the test stops."""
    built: list[TaskQueue] = []

    def make(servers: str, **options: Any) -> TaskQueue:
        given: dict[str, Any] = {"partitions": 2, "replication_factor": 1, "session_timeout": 3, "delivery_timeout": 5}
        driver = with_kafka(servers, **{**given, **options})
        built.append(TaskQueue(driver, with_topic_prefix(prefix), with_group_id("g")))
        return built[-1]

    yield make
    for queue in built:
        queue.stop(timeout=5)


def login(secured: SecuredKafka, user: str = "nova", **changed: str) -> dict[str, Any]:
    return {"sasl_mechanism": "SCRAM-SHA-256", "username": user, "password": secured.users[user], **changed}


def test_a_certificate_whose_time_is_over_is_named(secured: SecuredKafka, build: Build) -> None:
    started = time.monotonic()
    with pytest.raises(
        BrokerUnavailable, match=r"certificate verify failed.*that no certificate has expired"
    ) as refused:
        build(secured.expired, tls=True, ca_file=str(secured.ca)).connect(timeout=10.0)
    assert time.monotonic() - started < STATED
    assert secured.expired in str(refused.value)


def test_a_producer_that_is_refused_again_and_again_does_not_storm_the_broker(
    secured: SecuredKafka, build: Build
) -> None:
    relay = Relay(secured.sasl_plaintext)
    try:
        q = build(relay.address, **login(secured, password="wrong-secret"))
        started, calls = time.monotonic(), 0
        while time.monotonic() < started + WATCHED:
            with pytest.raises(BrokerUnavailable, match="check username, password and sasl_mechanism"):
                q.enqueue(Task("t"))
            calls += 1
        assert relay.accepted <= 8 * calls, "a handful of clients, and each call ends with the first refusal"
    finally:
        relay.close()


def test_a_worker_whose_password_is_changed_tries_calmly_and_goes_on_when_it_is_back(
    secured: SecuredKafka, build: Build, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    secured.allow("nova", topics=f"{prefix}_", groups=f"{prefix}.")
    relay = Relay(secured.sasl_plaintext)
    handled: list[str] = []
    try:
        q = build(relay.address, **login(secured))
        q.start(lambda task: handled.append(task.id))
        q.enqueue(Task("t", id="before"))
        eventually(lambda: handled == ["before"], timeout=20)
        secured.change_password("nova", "another-secret")
        try:
            caplog.clear()
            before = relay.accepted
            relay.hang_up()
            time.sleep(WATCHED)
            tries = relay.accepted - before
            assert 0 < tries <= MOST_TRIES
            assert "check username, password and sasl_mechanism" in caplog.text
            assert len(caplog.records) <= MOST_LINES
            assert secured.users["nova"] not in caplog.text
        finally:
            secured.change_password("nova", secured.users["nova"])
        eventually(lambda: _is_taken(q), timeout=30, what="an enqueue is taken again")
        eventually(lambda: "after" in handled, timeout=30, what="the worker handles again")
    finally:
        relay.close()


def _is_taken(q: TaskQueue) -> bool:
    try:
        q.enqueue(Task("t", id="after"))
    except BrokerError:
        return False
    return True


# --- nova check


def found(q: TaskQueue, name: str) -> Finding:
    """The first of this name; what hurts comes first."""
    return next(finding for finding in q.check().findings if finding.name == name)


def test_a_check_names_the_rights_that_are_missing(secured: SecuredKafka, build: Build, prefix: str) -> None:
    stranger = build(secured.sasl_plaintext, **login(secured, "stranger"))

    missing = [finding for finding in stranger.check().findings if finding.name == "missing topics"]
    assert {finding.severity for finding in missing} == {"harm"}
    assert "grant this user Write, Read, Describe and Create" in missing[0].found
    assert found(stranger, "group rights").severity == "harm"
    assert found(stranger, "broker settings").severity == "unread"

    secured.allow("stranger", topics=f"{prefix}_", groups=f"{prefix}.")
    eventually(lambda: found(stranger, "group rights").severity == "ok")
    assert found(stranger, "missing topics").severity == "ok"
    assert not stranger.check().will_hurt


def test_a_check_of_a_server_that_refuses_us_says_why(secured: SecuredKafka, build: Build) -> None:
    report = build(secured.sasl_plaintext, **login(secured, password="wrong-secret")).check()
    (finding,) = report.findings
    assert (report.will_hurt, finding.name) == (True, "connection")
    assert "check username, password" in finding.found
    assert "wrong-secret" not in finding.found


def test_tls_keys_are_checked_before_anything_is_sent(secured: SecuredKafka, build: Build, tmp_path: Path) -> None:
    q = build(secured.ssl, tls=True, ca_file=str(secured.ca))
    assert not q.check().will_hurt
