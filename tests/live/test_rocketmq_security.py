"""RocketMQ with users, rights and TLS: what is wrong with them is one clear error, and nobody storms the server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nova import BrokerError, BrokerUnavailable, Task, TaskQueue, with_group_id, with_rocketmq, with_topic_prefix
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.client import Connection
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.names import Names
from nova.options import Option
from tests.eventually import eventually
from tests.live.refusals import found, is_taken
from tests.servers.certificates import make_authority, make_server_certificate
from tests.servers.rocketmq.finding import private_java
from tests.servers.rocketmq.secured import ADMIN, change_secret, make_user, secured
from tests.servers.rocketmq.server import RocketServer, section
from tests.servers.rocketmq.settings import HOST, TUNED

STATED = 5.0
"""Seconds within which a queue that may not do something says so; for a server that is away it would wait twice as long."""
WATCHED = 6.0
"""Seconds for which attempts are counted."""
MOST_TRIES = 400
"""Calls in that time of a worker that is refused: receives, heartbeats and sessions of two groups wait half a second or more
between two tries. One that did not wait would make thousands."""
MOST_LINES = 100
"""That it logs from then on: each part of the worker says it once."""

pytestmark = pytest.mark.xdist_group("rocketmq-security")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RocketServer]:
    directory = tmp_path_factory.mktemp("rocketmq")
    started = private_java(directory, secured(TUNED, str(directory / "auth")), ADMIN)
    with queue(started) as q:  # makes topics and groups
        q.start(lambda task: None)
    yield started
    started.stop()


@contextmanager
def queue(
    server: RocketServer, keys: tuple[str, str] = ADMIN, *, prefix: str = "SEC", **options: Any
) -> Generator[TaskQueue]:
    login: dict[str, Any] = {"access_key": keys[0], "secret_key": keys[1]}
    given: dict[str, Any] = {**section(server.address), "poll_timeout": 0.3, **login, **options}
    made = TaskQueue(with_rocketmq(**given), with_topic_prefix(prefix), with_group_id("g"))
    try:
        yield made
    finally:
        made.stop(timeout=5)


@contextmanager
def administrator(server: RocketServer) -> Generator[Any]:
    place: dict[str, Any] = section(server.address)
    config = RocketMQConfig(**place, access_key=ADMIN[0], secret_key=ADMIN[1])
    admin = Admin(config, "rocketmq", 10)
    (broker,) = admin.brokers("a test")
    yield broker
    admin.close()


# --- rights


def test_a_user_who_may_only_publish_may_not_consume(server: RocketServer) -> None:
    with administrator(server) as broker:
        keys = make_user(broker, "producer", ["Topic:SEC*"], ["Pub"])
    with queue(server, keys, admin="") as q:
        assert q.enqueue(Task("t")).task_id
        started = time.monotonic()
        with pytest.raises(BrokerError, match=r"User:producer has no permission to access Group:.*grant this user"):
            q.start(lambda task: None)
        assert time.monotonic() - started < STATED


def test_a_user_who_may_only_consume_may_not_publish(server: RocketServer) -> None:
    with administrator(server) as broker:
        keys = make_user(broker, "consumer", ["Topic:SEC*", "Group:g%SEC*", "Group:SEC*"], ["Sub"])
    started = time.monotonic()
    with (
        queue(server, keys, admin="") as q,
        pytest.raises(BrokerError, match=r"User:consumer has no permission.*grant this user"),
    ):
        q.enqueue(Task("t"))
    assert time.monotonic() - started < STATED


def test_a_user_who_may_not_create_is_told_to_leave_it_to_another(server: RocketServer) -> None:
    with administrator(server) as broker:
        keys = make_user(broker, "uncreative", ["Topic:MADE*", "Group:g%MADE*", "Group:MADE*"])
        uses: list[Callable[[TaskQueue], object]] = [
            lambda q: q.enqueue(Task("t")),
            lambda q: q.start(lambda task: None),
        ]
        for use in uses:
            started = time.monotonic()
            with (
                queue(server, keys, prefix="MADE") as q,
                pytest.raises(BrokerError, match=r"User:uncreative has no permission.*with_rocketmq\(admin=''\)"),
            ):
                use(q)
            assert time.monotonic() - started < STATED
        assert not [name for name in broker.topics() if name.startswith("MADE")]
        with queue(server, prefix="MADE") as other:
            other.start(lambda task: None)
    with queue(server, keys, prefix="MADE", admin="") as q:
        assert q.enqueue(Task("t")).task_id


# --- no storm


def test_a_worker_whose_secret_is_changed_tries_calmly_and_goes_on_when_it_is_back(
    server: RocketServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with administrator(server) as broker:
        keys = make_user(broker, "changing", ["Topic:SEC*", "Group:g%SEC*", "Group:SEC*"])
        calls: list[float] = []
        metadata = Connection.metadata

        def counted(connection: Connection, client_id: str | None = None) -> list[tuple[str, str]]:
            calls.append(time.monotonic())
            return metadata(connection, client_id)

        monkeypatch.setattr(Connection, "metadata", counted)
        seen: list[str] = []
        with queue(server, keys, admin="") as q:
            q.start(lambda task: seen.append(task.id))
            q.enqueue(Task("t", id="before"))
            eventually(lambda: "before" in seen, timeout=20)
            change_secret(broker, "changing", "another-secret")
            caplog.clear()
            eventually(lambda: not is_taken(q, "meanwhile"), timeout=20, what="the new secret rules")
            calls.clear()
            time.sleep(WATCHED)
            assert 0 < len(calls) <= MOST_TRIES
            assert "UNAUTHORIZED" in caplog.text
            assert "check access_key and secret_key" in caplog.text
            assert len(caplog.records) <= MOST_LINES
            assert keys[1] not in caplog.text
            change_secret(broker, "changing", keys[1])
            eventually(lambda: is_taken(q, "after"), timeout=30, what="an enqueue is taken again")
            eventually(lambda: "after" in seen, timeout=30, what="the worker handles again")


# --- certificates


@contextmanager
def encrypted(directory: Path, *, expired: bool = False) -> Generator[tuple[RocketServer, Path]]:
    """A server with a certificate, and the authority that signed it."""
    authority = make_authority(directory, "ca")
    make_server_certificate(directory, authority, HOST, expired=expired)
    settings = TUNED.with_proxy(
        tlsTestModeEnable=False, tlsCertPath=str(directory / "server.crt"), tlsKeyPath=str(directory / "server.key")
    )
    started = private_java(directory / "server", settings)
    try:
        yield started, authority
    finally:
        started.stop()


def test_the_authority_of_ca_file_is_trusted_and_no_other(tmp_path: Path) -> None:
    with encrypted(tmp_path) as (server, authority):
        given: dict[str, Any] = {**section(server.address), "tls": True, "poll_timeout": 0.3}
        q = TaskQueue(with_rocketmq(**given, ca_file=str(authority)), with_topic_prefix("TLS"))
        seen: list[str] = []
        try:
            q.enqueue(Task("t", id="a"))
            q.start(lambda task: seen.append(task.id))
            eventually(lambda: seen == ["a"], timeout=30)
        finally:
            q.stop(timeout=10)
        for other in (None, str(make_authority(tmp_path, "stranger"))):
            broker = with_rocketmq(**given, ca_file=other)
            assert_refused(
                broker, given["endpoints"], "not let in", "CERTIFICATE_VERIFY_FAILED", "check tls and ca_file"
            )


def test_a_certificate_counts_until_its_time_is_over(tmp_path: Path) -> None:
    with encrypted(tmp_path, expired=True) as (server, authority):
        given: dict[str, Any] = section(server.address)
        broker = with_rocketmq(**given, tls=True, ca_file=str(authority))
        assert_refused(broker, "not let in", "certificate has expired", "check tls and ca_file")


def assert_refused(broker: Option, *words: str) -> None:
    """An enqueue says these words, and does not wait for a certificate to get better."""
    q = TaskQueue(broker, with_topic_prefix("TLS"))
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        q.enqueue(Task("t"))
    assert time.monotonic() - started < STATED
    assert [word for word in words if word.lower() not in str(caught.value).lower()] == [], caught.value


# --- nova check


def test_a_check_reads_the_servers_numbers_and_makes_nothing(server: RocketServer) -> None:
    with administrator(server) as broker:
        before = broker.topics(), sorted(broker.groups())
        with queue(server, prefix="NEW") as q:
            assert found(q, "invisible duration").found.startswith("1000 to 43200000 ms")
            assert found(q, "delay").found.startswith("86400000 ms (24 h)")
            assert found(q, "body size").found.startswith("4194304 bytes")
            assert found(q, "timerPrecisionMs of broker-a").found.startswith("100 ms")
            assert found(q, "timerMaxDelaySec of broker-a").found.startswith("259200 s")
            assert (found(q, "fileReservedTime of broker-a").severity) == "harm"
            assert re.match(r"[1-9]\d? % used", found(q, "disk of broker-a").found)
            assert found(q, "topics").found.startswith("0 of 6 there; Nova makes NEW_PRIORITY_HIGH")
        assert (broker.topics(), sorted(broker.groups())) == before


def test_bounds_that_our_options_break_hurt(server: RocketServer) -> None:
    with queue(server, invisible_duration=43_200.0, max_delay=400_000.0, max_body_bytes=5 << 20) as q:
        assert found(q, "invisible duration").severity == "ok"
        assert found(q, "delay").severity == "harm"
        assert found(q, "timerMaxDelaySec of broker-a").severity == "harm"
        assert found(q, "body size").severity == "harm"


def test_a_group_with_few_retries_hurts(server: RocketServer) -> None:
    with administrator(server) as broker:
        broker.make_group(Names("FEW").consumer_group("g"), 16)
        with queue(server, prefix="FEW") as q:
            finding = found(q, "retryMaxTimes")
    assert (finding.severity, finding.found) == ("harm", "16 of 'g%FEW' on broker-a")


def test_a_user_who_may_not_ask_the_brokers_is_told_what_is_not_checked(server: RocketServer) -> None:
    with administrator(server) as broker:
        keys = make_user(broker, "asking", ["Topic:SEC*", "Group:g%SEC*", "Group:SEC*"])
    with queue(server, keys, admin="") as q:
        assert found(q, "brokers").severity == "unread"
        assert found(q, "topics").severity == "ok"
        assert found(q, "invisible duration").found.startswith("1000 to")
