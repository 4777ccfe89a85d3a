"""RabbitMQ with users, rights and mutual TLS: what is wrong with them is one clear error, and nobody storms the server."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nova import (
    BrokerError,
    BrokerUnavailable,
    ReceivedTask,
    Reject,
    Retry,
    Task,
    TaskQueue,
    with_group_id,
    with_rabbitmq,
    with_topic_prefix,
)
from tests.eventually import eventually
from tests.live.refusals import found, is_taken, refused
from tests.servers.certificates import make_authority, make_client_certificate, make_server_certificate
from tests.servers.ports import free_ports
from tests.servers.rabbitmq.finding import private_node
from tests.servers.rabbitmq.server import HOST, RabbitServer, tls_listener
from tests.servers.relay import Relay

WATCHED = 6.0
"""Seconds for which attempts are counted."""
MOST_TRIES = 100
"""Connections in that time of a worker that is refused: it has some ten, which wait 0.2 s, then up to 5 s between two
tries. One that did not wait would make thousands."""
PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
ADVISED = re.findall(r"^  '(\^.*)'", PAGE, re.MULTILINE)
"""What the page says of the prefix `SHOP`: configure, write, read; all are the same."""
RIGHTS = ADVISED[0].replace("SHOP", "SEC")

pytestmark = pytest.mark.xdist_group("rabbitmq-security")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    authority = make_authority(directory, "ca")
    make_server_certificate(directory, authority, HOST)
    make_server_certificate(directory, authority, HOST, "expired", expired=True)
    make_client_certificate(directory, authority, "client", "secret")
    make_client_certificate(directory, authority, "old-client", "secret", expired=True)
    for ending in ("crt", "key"):
        (directory / f"shown.{ending}").write_bytes((directory / f"server.{ending}").read_bytes())
    return directory


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: Path, tls_port: int) -> Iterator[RabbitServer]:
    started = private_node(
        tmp_path_factory.mktemp("rabbitmq"),
        settings=tls_listener(tls_port, keys, "shown", asks=True),
    )
    with queue(started.address) as q:  # makes everything of the prefix
        q.start(lambda task: None)
        q.enqueue(Task("t"))
    yield started
    started.stop()


@contextmanager
def queue(url: str, prefix: str = "SEC", **options: object) -> Generator[TaskQueue]:
    made = TaskQueue(with_rabbitmq(url, **options), with_topic_prefix(prefix), with_group_id("g"))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.stop(timeout=5)


def user(server: RabbitServer, name: str, configure: str, write: str, read: str) -> str:
    """A new user's URL."""
    server.control("add_user", name, "secret")
    server.control("set_permissions", name, configure, write, read)
    return f"amqp://{name}:secret@{HOST}:{server.port}/"


def tls(keys: Path, client: str) -> dict[str, str]:
    return {
        "ca_file": str(keys / "ca.pem"),
        "cert_file": str(keys / f"{client}.crt"),
        "key_file": str(keys / f"{client}.key"),
        "key_password": "secret",
    }


# --- certificates


def test_certificates_whose_time_is_over_are_named(server: RabbitServer, keys: Path, tls_port: int) -> None:
    url = f"amqps://guest:guest@{HOST}:{tls_port}/"
    with queue(url, **tls(keys, "client")) as q:
        assert q.enqueue(Task("t")).task_id
    with (
        queue(url, **tls(keys, "old-client")) as q,
        refused(BrokerUnavailable, f"{HOST}:{tls_port}", "TLS failed", "cert_file"),
    ):
        q.enqueue(Task("t"))
    _show(server, keys, "expired")
    try:
        with (
            queue(url, **tls(keys, "client")) as q,
            refused(BrokerUnavailable, f"{HOST}:{tls_port}", "certificate has expired"),
        ):
            q.enqueue(Task("t"))
    finally:
        _show(server, keys, "server")


def _show(server: RabbitServer, keys: Path, name: str) -> None:
    """Have the server show another certificate."""
    for ending in ("crt", "key"):
        (keys / f"shown.{ending}").write_bytes((keys / f"{name}.{ending}").read_bytes())
    server.control("eval", "ssl:clear_pem_cache().")


# --- rights


def test_the_advised_rights_are_enough_from_an_empty_vhost_on(server: RabbitServer) -> None:
    server.control("add_vhost", "shop")
    server.control("add_user", "shop", "secret")
    server.control("set_permissions", "-p", "shop", "shop", *ADVISED)
    runs: Counter[str] = Counter()

    def handle(task: ReceivedTask) -> None:
        runs[task.id] += 1
        if task.id == "refused":
            raise Reject("on purpose")
        if task.id == "flaky" and task.attempt == 1:
            raise Retry(delay=0.1)

    with queue(f"amqp://shop:secret@{HOST}:{server.port}/shop", "SHOP") as q:
        for name in ("plain", "flaky", "refused"):
            q.enqueue(Task("t", id=name))
        q.enqueue(Task("t", id="later"), process_in=0.3)
        q.enqueue(Task("t", id="imported"), queue="imports")
        q.start(handle, queues=["default", "imports"])
        done = {"plain": 1, "flaky": 2, "refused": 1, "later": 1, "imported": 1}
        eventually(lambda: runs == done, timeout=30, what="all ran")
        eventually(lambda: [dead.id for dead in q.dead.list()] == ["refused"], what="one is buried")
        assert not q.check().will_hurt, q.check()
    with queue(f"amqp://shop:secret@{HOST}:{server.port}/shop", "SHOP") as q:
        assert (q.dead.requeue(), [group.name for group in q.groups.list()]) == (1, ["g"])
        eventually(lambda: q.groups.remove("g"), what="the workers are gone")


@pytest.mark.parametrize(
    ("name", "rights", "words"),
    [
        ("no-configure", ("^$", RIGHTS, RIGHTS), "right to configure"),
        ("no-read", (RIGHTS, RIGHTS, "^$"), "right to read"),
        ("no-write", (RIGHTS, "^$", RIGHTS), "right to write"),
    ],
)
def test_one_missing_right_stops_a_worker_and_is_found_by_a_check(
    server: RabbitServer, name: str, rights: tuple[str, str, str], words: str
) -> None:
    url = user(server, name, *rights)
    with queue(url) as q, refused(BrokerError, "access", f"refused for user '{name}'", "grant this user"):
        q.start(lambda task: None)
        q.enqueue(Task("t"))
    with queue(url) as q:
        harm = [finding.name for finding in q.check().findings if finding.severity == "harm"]
    assert words in harm
    assert set(harm) <= {words, "queues"}


# --- no storm


def test_a_worker_whose_password_is_changed_tries_calmly_and_goes_on_when_it_is_back(
    server: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    user(server, "changing", RIGHTS, RIGHTS, RIGHTS)
    relay = Relay(f"{HOST}:{server.port}")
    seen: list[str] = []
    try:
        with queue(f"amqp://changing:secret@{relay.address}/") as q:
            q.start(lambda task: seen.append(task.id))
            q.enqueue(Task("t", id="before"))
            eventually(lambda: "before" in seen)
            server.control("change_password", "changing", "another-secret")
            caplog.clear()
            before = relay.accepted
            relay.cut()
            time.sleep(WATCHED)
            assert 0 < relay.accepted - before <= MOST_TRIES
            assert "the server refuses user or password" in caplog.text
            assert len(caplog.records) <= 2 * MOST_TRIES
            assert "secret" not in caplog.text
            server.control("change_password", "changing", "secret")
            eventually(lambda: is_taken(q, "after"), timeout=30, what="an enqueue is taken again")
            eventually(lambda: "after" in seen, timeout=30, what="the worker handles again")
    finally:
        relay.take_away()


# --- nova check


def test_a_check_reads_the_servers_numbers_and_leaves_nothing(server: RabbitServer) -> None:
    before = server.control("list_queues", "name")
    with queue(server.address, "NEW") as q:
        assert not q.check().will_hurt
        version = server.control("version").strip().splitlines()[-1]
        assert found(q, "version").found == f"RabbitMQ {version}"
        assert found(q, "frame_max").found == "131072 bytes"
        assert found(q, "channel_max").found == "2047 on a connection"
        assert found(q, "queues").found.startswith("0 of 5 there")
    assert server.control("list_queues", "name") == before


@pytest.mark.parametrize(
    ("raised", "ended", "reason"),
    [
        (["set_disk_free_limit", "mem_relative", "100000"], ["set_disk_free_limit", "50MB"], "low on disk"),
        (
            ["set_vm_memory_high_watermark", "absolute", "1MB"],
            ["set_vm_memory_high_watermark", "0.6"],
            "low on memory",
        ),
    ],
)
def test_a_server_under_an_alarm_hurts(server: RabbitServer, raised: list[str], ended: list[str], reason: str) -> None:
    with queue(server.address) as q:
        assert found(q, "alarms").severity == "ok"
        server.control(*raised)
        try:
            eventually(lambda: found(q, "alarms").severity == "harm")
            assert found(q, "alarms").found == reason
        finally:
            server.control(*ended)
        eventually(lambda: found(q, "alarms").severity == "ok")


def test_a_queue_that_was_declared_otherwise_hurts(server: RabbitServer) -> None:
    server.control("eval", _declare_classic("g.OTHER_PRIORITY_NORMAL"))
    with queue(server.address, "OTHER") as q:
        finding = found(q, "queues")
    assert finding.severity == "harm"
    assert "g.OTHER_PRIORITY_NORMAL" in finding.found
    assert "inequivalent arg" in finding.found


def _declare_classic(name: str) -> str:
    resource = f'rabbit_misc:r(<<"/">>, queue, <<"{name}">>)'
    return f'rabbit_amqqueue:declare({resource}, true, false, [], none, <<"test">>).'
