"""Bad input and a server in trouble: one clear error each, within the stated time."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nova import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    PublishError,
    QueueFull,
    ReceivedTask,
    Task,
    TaskQueue,
    with_rabbitmq,
    with_topic_prefix,
)
from nova.brokers.base import DriverContext, Message
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rabbitmq.driver import RabbitMQDriver
from nova.brokers.rabbitmq.publisher import WINDOW
from tests.eventually import eventually
from tests.live.refusals import refused
from tests.servers.certificates import make_authority, make_client_certificate, make_server_certificate
from tests.servers.ports import free_ports
from tests.servers.rabbitmq.finding import private_node
from tests.servers.rabbitmq.server import HOST, RabbitServer, tls_listener

FRAME_MAX = 131_072
CAS = ("ca", "wrong-ca")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_server_certificate(directory, make_authority(directory, "ca"), HOST)
    make_authority(directory, "wrong-ca")
    return directory


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: Path, tls_port: int) -> Iterator[RabbitServer]:
    started = private_node(
        tmp_path_factory.mktemp("rabbitmq"),
        settings=tls_listener(tls_port, keys),
    )
    yield started
    started.stop()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A server that takes no body over 100,000 bytes; 4.x reads that at its start and never again."""
    started = private_node(tmp_path_factory.mktemp("narrow"), settings={"max_message_size": "100000"})
    yield started
    started.stop()


@contextmanager
def queue(url: str, prefix: str = "R", **options: object) -> Generator[TaskQueue]:
    made = TaskQueue(with_rabbitmq(url, **options), with_topic_prefix(prefix))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.stop(timeout=5)


def test_a_wrong_password(server: RabbitServer) -> None:
    with (
        queue(f"amqp://guest:secret@{HOST}:{server.port}/") as q,
        refused(BrokerUnavailable, f"{HOST}:{server.port}: no connection: ", "password"),
    ):
        q.enqueue(Task("t"))


def test_a_vhost_that_is_missing(server: RabbitServer) -> None:
    with queue(f"{server.address}shop") as q, refused(BrokerUnavailable, "'shop'", "create the vhost"):
        q.enqueue(Task("t"))


def test_nobody_listens() -> None:
    port = free_ports(1)[0]
    with (
        queue(f"amqp://{HOST}:{port}") as q,
        refused(BrokerUnavailable, f"{HOST}:{port}: no connection in ", "refused", "that the server runs"),
    ):
        q.enqueue(Task("t"))


def test_a_server_that_says_nothing() -> None:
    with (
        socket.create_server((HOST, 0)) as mute,
        queue(f"amqp://{HOST}:{mute.getsockname()[1]}") as q,
        refused(
            BrokerUnavailable, f"{HOST}:{mute.getsockname()[1]}", "says nothing", "expected", "check host and port"
        ),
    ):
        q.enqueue(Task("t"))


def test_the_second_node_is_taken_when_the_first_says_nothing(server: RabbitServer) -> None:
    with (
        socket.create_server((HOST, 0)) as mute,
        queue(f"amqp://guest:guest@{HOST}:{mute.getsockname()[1]},{HOST}:{server.port}") as q,
    ):
        q.enqueue(Task("t"))


def test_a_host_that_does_not_exist() -> None:
    with queue("amqp://nova.invalid") as q, refused(BrokerUnavailable, "nova.invalid:5672", "host names in the URL"):
        q.enqueue(Task("t"))


def test_an_exchange_of_another_type(server: RabbitServer) -> None:
    with (
        queue(server.address, exchange="amqp-direct") as q,
        refused(BrokerError, "exchange 'amqp-direct'", "inequivalent arg 'type'", "use another prefix or exchange"),
    ):
        server.control("eval", _declare_direct("amqp-direct"))
        q.enqueue(Task("t"))


def _declare_direct(name: str) -> str:
    exchange = f'rabbit_misc:r(<<"/">>, exchange, <<"{name}">>)'
    return f'rabbit_exchange:declare({exchange}, direct, true, false, false, [], <<"test">>).'


def test_a_user_without_rights(server: RabbitServer) -> None:
    server.control("add_user", "stranger", "secret")
    server.control("set_permissions", "stranger", "^$", "^$", "^$")
    with (
        queue(f"amqp://stranger:secret@{HOST}:{server.port}/") as q,
        refused(BrokerError, "access to exchange 'R-exchange'", "refused for user 'stranger'", "grant this user"),
    ):
        q.enqueue(Task("t"))


def test_tls_and_plain_ports_mixed_up_and_a_wrong_authority(server: RabbitServer, keys: Path, tls_port: int) -> None:
    with (
        queue(f"amqps://guest:guest@{HOST}:{tls_port}/", ca_file=str(keys / "ca.pem")) as q,
    ):
        assert q.enqueue(Task("t")).task_id
    with (
        queue(f"amqps://guest:guest@{HOST}:{tls_port}/", ca_file=str(keys / "wrong-ca.pem")) as q,
        refused(BrokerUnavailable, "TLS failed", "ca_file"),
    ):
        q.enqueue(Task("t"))
    with queue(f"amqp://guest:guest@{HOST}:{tls_port}/") as q, refused(BrokerUnavailable, f"{HOST}:{tls_port}"):
        q.enqueue(Task("t"))
    with (
        queue(f"amqps://guest:guest@{HOST}:{server.port}/", ca_file=str(keys / "ca.pem")) as q,
        refused(BrokerUnavailable, "TLS failed"),
    ):
        q.enqueue(Task("t"))
    with (
        queue(f"amqps://guest:guest@{HOST}:{tls_port}/", ca_file=str(keys / "nothing.pem")) as q,
        refused(ConfigError, "ca_file"),
    ):
        q.enqueue(Task("t"))


def test_a_server_that_asks_for_a_certificate(keys: Path, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    names = {name: make_client_certificate(keys, keys / f"{name}.pem", f"client-{name}", "secret") for name in CAS}
    server = private_node(
        tmp_path,
        settings=tls_listener(port, keys, asks=True),
    )
    url, authority = f"amqps://guest:guest@{HOST}:{port}/", str(keys / "ca.pem")

    def options(name: str, password: str) -> dict[str, str]:
        key = str(names[name].with_suffix(".key"))
        return {"ca_file": authority, "cert_file": str(names[name]), "key_file": key, "key_password": password}

    try:
        with queue(url, **options("ca", "secret")) as q:
            assert q.enqueue(Task("t")).task_id
        with queue(url, ca_file=authority) as q, refused(BrokerUnavailable, "TLS failed", "cert_file"):
            q.enqueue(Task("t"))
        with queue(url, **options("wrong-ca", "secret")) as q, refused(BrokerUnavailable, "TLS failed", "cert_file"):
            q.enqueue(Task("t"))
        with queue(url, **options("ca", "wrong")) as q, refused(ConfigError, "key_password"):
            q.enqueue(Task("t"))
    finally:
        server.stop()


def test_the_second_node_is_taken_when_the_first_is_away(server: RabbitServer) -> None:
    with queue(f"amqp://guest:guest@{HOST}:{free_ports(1)[0]},{HOST}:{server.port}/") as q:
        assert q.enqueue(Task("t")).task_id


@pytest.mark.parametrize("alarm", ["memory", "disk"])
def test_a_server_without_room_refuses_in_time_and_takes_tasks_again(server: RabbitServer, alarm: str) -> None:
    limits = {
        "memory": (["set_vm_memory_high_watermark", "absolute", "1MB"], ["set_vm_memory_high_watermark", "0.6"]),
        "disk": (["set_disk_free_limit", "mem_relative", "100000"], ["set_disk_free_limit", "50MB"]),
    }
    raised, ended = limits[alarm]
    with queue(server.address) as first:
        first.start(lambda task: None)
    with queue(server.address, blocked_timeout=1.0) as q:
        seen: list[str] = []
        q.enqueue(Task("t", id="before"))
        try:
            server.control(*raised)
            # The first ones may be on their way before the server says so: nobody can tell whether it will have them.
            with refused(PublishError, "rabbitmq at", "blocks publishers", alarm, within=8):
                while True:
                    q.enqueue(Task("t"))
            # Four seconds: less than a queue would wait that was told nothing.
            with refused(QueueFull, "blocks publishers", "free memory or disk", within=4):
                q.enqueue(Task("t"))
            q.start(lambda task: seen.append(task.id))
            eventually(lambda: "before" in seen, what="a known group may start, and works on what is there")
            eventually(lambda: q.depth().waiting == 0)
        finally:
            server.control(*ended)
        eventually(lambda: _accepts(q), timeout=20)


def test_headers_that_leave_no_room_for_a_copys_bury_the_task(server: RabbitServer) -> None:
    """It was moved on again for ever; a copy has headers of its own, and the server takes a frame of them."""
    runs: list[str] = []

    def fail(task: ReceivedTask) -> None:
        runs.append(task.id)
        raise ValueError("again")

    with queue(server.address, "WIDE") as q:
        size = FRAME_MAX
        while not _takes(q, size):
            size -= 20
        q.start(fail)
        eventually(lambda: len(q.dead.list()) == 1)
        (letter,) = q.dead.list()
        assert (letter.id, letter.reason, runs) == ("wide", "refused by the broker", ["wide"])
        assert "its headers have" in letter.error
        assert q.dead.requeue() == 1
        eventually(lambda: len(runs) == 2, what="a replay")


def _takes(q: TaskQueue, size: int) -> bool:
    try:
        q.enqueue(Task("t", id="wide"), metadata={"note": "n" * size})
    except PublishError:
        return False
    return True


def _accepts(q: TaskQueue) -> bool:
    try:
        return bool(q.enqueue(Task("t")).task_id)
    except PublishError:
        return False


def test_a_body_beyond_the_servers_limit_harms_no_other_task(narrow: RabbitServer) -> None:
    with queue(narrow.address) as q:
        report = q.enqueue_batch([Task("t", b"x" * (200_000 if i == 7 else 10), id=f"t{i}") for i in range(20)])
        assert list(report.failed) == ["t7"]
        assert "larger than configured max size" in str(report.failed["t7"])
        assert len(report.accepted) == 19


def test_after_refusals_many_are_on_their_way_at_once_again(narrow: RabbitServer) -> None:
    driver = RabbitMQDriver(RabbitMQConfig(url=narrow.address))
    driver.open(DriverContext(prefix="R"), 10)
    topic, windows = "R_PRIORITY_NORMAL", list[int]()

    def send(*sizes: int) -> list[bool]:
        messages = [Message(topic, b"x" * size, {"nova-id": f"t{i}"}, f"t{i}") for i, size in enumerate(sizes)]
        return [error is None for error in driver.publish(messages).result(20)]

    publisher = driver._open_parts.publisher
    frames = publisher._frames

    def watched(*arguments: Any) -> bytes:
        windows.append(publisher._window)
        return frames(*arguments)

    try:
        driver.ensure([topic])
        assert send(*[10, 200_000] * 10) == [True, False] * 10
        publisher._frames = watched  # type: ignore[method-assign, assignment]
        assert send(10, 10, 10, 10) == [True] * 4
        assert set(windows) == {WINDOW}, "a new queue may refuse for a moment: then they are sent again"
    finally:
        driver.close(5)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://host", "amqp://user:password@host"),
        ("amqp://user:secret@host:99999", "host:99999"),
        ("amqp://user@host", "user:password"),
        ("amqp://user:se@cret@host/a@b", "%40"),
        ("amqp://user:secret@host/a/b", "%2F"),
        ("amqp://user:secret@host?heartbeat=3", "options as arguments"),
    ],
)
def test_a_url_that_is_none(url: str, word: str) -> None:
    with refused(ConfigError, word):
        TaskQueue(with_rabbitmq(url))
