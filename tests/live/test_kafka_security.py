"""Kafka with passwords, TLS and rights: what is wrong with them is one clear error, and nobody storms the broker."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType

from nova import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    ReceivedTask,
    Reject,
    Retry,
    Task,
    TaskQueue,
    with_group_id,
    with_kafka,
    with_topic_prefix,
)
from nova.brokers.kafka import driver
from tests.eventually import eventually
from tests.live.refusals import found, is_taken
from tests.servers.certificates import make_client_certificate
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
        chosen = with_kafka(servers, **{**given, **options})
        built.append(TaskQueue(chosen, with_topic_prefix(prefix), with_group_id("g")))
        return built[-1]

    yield make
    for queue in built:
        queue.stop(timeout=5)


def login(secured: SecuredKafka, user: str = "nova", **changed: str) -> dict[str, Any]:
    return {"sasl_mechanism": "SCRAM-SHA-256", "username": user, "password": secured.users[user], **changed}


def test_a_certificate_whose_time_is_over_is_named(secured: SecuredKafka, build: Build) -> None:
    started = time.monotonic()
    with pytest.raises(
        BrokerUnavailable, match=r": no connection: .*certificate verify failed.*that no certificate has expired"
    ) as refused:
        build(secured.expired, tls=True, ca_file=str(secured.ca)).connect(timeout=10.0)
    assert time.monotonic() - started < STATED
    assert secured.expired in str(refused.value)


def test_a_client_shows_its_certificate_where_the_server_asks_for_one(
    secured: SecuredKafka, build: Build, tmp_path: Path
) -> None:
    certificate = make_client_certificate(tmp_path, secured.ca, "client", "secret")
    (tmp_path / "password").write_text("secret\n", encoding="utf-8")
    tls: dict[str, Any] = {"tls": True, "ca_file": str(secured.ca)}
    mine: dict[str, Any] = {**tls, "cert_file": str(certificate), "key_file": str(certificate.with_suffix(".key"))}
    assert build(secured.mutual, **mine, key_password="secret").enqueue(Task("t")).task_id
    assert build(secured.mutual, **mine, key_password_file=str(tmp_path / "password")).enqueue(Task("t")).task_id
    with pytest.raises(BrokerUnavailable, match=f"{secured.mutual}: no connection: .*certificate.*check .*cert_file"):
        build(secured.mutual, **tls).connect(timeout=6.0)  # said at once: no "in 6 s"
    with pytest.raises(ConfigError, match="check key_file, and key_password") as refused:
        build(secured.mutual, **mine, key_password="hunter2").connect(timeout=6.0)
    assert "hunter2" not in str(refused.value)


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
        eventually(lambda: is_taken(q, "after"), timeout=30, what="an enqueue is taken again")
        eventually(lambda: "after" in handled, timeout=30, what="the worker handles again")
    finally:
        relay.close()


# --- rights

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ADVISED = re.compile(r"--resource-pattern-type prefixed --(topic|group) (\S+)((?:[\s\\]+--operation \w+)+)")


def grant_what_the_page_advises(secured: SecuredKafka, user: str, prefix: str) -> None:
    """The commands of docs/security.md, and the first of them once more for queues other than `default`."""
    text = PAGE.read_text(encoding="utf-8")
    commands = [(kind, name, re.findall(r"--operation (\w+)", rest)) for kind, name, rest in ADVISED.findall(text)]
    assert [(kind, name) for kind, name, _ in commands] == [("topic", "SHOP_"), ("group", "SHOP.")]
    for kind, name, words in [*commands, ("topic", "SHOP-", commands[0][2])]:
        operations = [AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).upper()] for word in words]
        secured.grant(user, ResourceType[kind.upper()], name.replace("SHOP", prefix, 1), *operations)


def test_the_advised_rights_are_enough_from_the_first_topic_to_the_reclaimed_one(
    secured: SecuredKafka,
    build: Build,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "RECLAIM_EVERY", 0.3)
    grant_what_the_page_advises(secured, "nova", prefix)
    q = build(secured.sasl_plaintext, **login(secured))
    runs: Counter[str] = Counter()

    def handle(task: ReceivedTask) -> None:
        runs[task.id] += 1
        if task.id == "refused":
            raise Reject("on purpose")
        if task.id == "flaky" and task.attempt == 1:
            raise Retry(delay=0.1)

    for name in ("plain", "flaky", "refused"):
        q.enqueue(Task("t", id=name))
    q.enqueue(Task("t", id="later"), process_in=0.5)
    q.enqueue(Task("t", id="imported"), queue="imports")
    q.start(handle, queues=["default", "imports"])
    done = {"plain": 1, "flaky": 2, "refused": 1, "later": 1, "imported": 1}
    eventually(lambda: runs == done, timeout=30, what="all ran")
    eventually(lambda: [dead.id for dead in q.dead.list()] == ["refused"], what="one is buried")
    eventually(lambda: kept(secured, f"{prefix}_PRIORITY_NORMAL") == 0, timeout=30, what="the space is given back")
    assert not q.check().will_hurt
    assert "authorization failed" not in caplog.text

    q.stop(timeout=5)
    other = build(secured.sasl_plaintext, **login(secured))
    with pytest.raises(BrokerError, match="grant this user Delete on the consumer groups that begin with the prefix"):
        eventually(lambda: other.groups.remove("g"), timeout=20)
    assert [dead.id for dead in other.dead.list()] == ["refused"], "what is refused changes nothing"
    secured.grant("nova", ResourceType.GROUP, f"{prefix}.", AclOperation.DELETE)
    eventually(lambda: _is_removed(other), timeout=20, what="the right counts")
    assert other.groups.list() == []


def kept(secured: SecuredKafka, topic: str) -> int:
    """How many records the log of a topic of two partitions still holds."""
    consumer = Consumer({"bootstrap.servers": secured.address, "group.id": "looking"})
    try:
        marks = [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in range(2)]
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


def _is_removed(q: TaskQueue) -> bool:
    try:
        return q.groups.remove("g")
    except BrokerError:
        return False


# --- nova check


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


def test_a_check_through_tls_needs_no_user(secured: SecuredKafka, build: Build) -> None:
    assert not build(secured.ssl, tls=True, ca_file=str(secured.ca)).check().will_hurt
