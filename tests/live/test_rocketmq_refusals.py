"""Bad input and a server in trouble: one clear error each, within the stated time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nova import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    EncodeError,
    NotSupported,
    PublishError,
    ReceivedTask,
    Task,
    TaskQueue,
    with_group_id,
    with_message_format,
    with_rocketmq,
    with_topic_prefix,
)
from nova.brokers.base import Message
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.names import Names
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually
from tests.live.refusals import refused
from tests.servers.ports import free_ports
from tests.servers.rocketmq.finding import private_java
from tests.servers.rocketmq.secured import ADMIN, make_user, secured
from tests.servers.rocketmq.server import RocketServer, section
from tests.servers.rocketmq.settings import HOST, TUNED

WELL_BEFORE_DEFAULT = 7.0
"""Seconds: a request that was given one has been given up, one that was told nothing has not."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("rocketmq", tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RocketServer]:
    directory = tmp_path_factory.mktemp("rocketmq")
    started = private_java(directory, secured(TUNED, str(directory / "auth")), ADMIN)
    yield started
    started.stop()


@contextmanager
def queue(endpoints: str, prefix: str = "R", **options: object) -> Generator[TaskQueue]:
    made = TaskQueue(
        with_rocketmq(endpoints, **{"poll_timeout": 0.3, **options}),  # type: ignore[arg-type]
        with_topic_prefix(prefix),
        with_group_id("g"),
        with_message_format("blob"),
    )
    try:
        yield made
    finally:
        made.stop(timeout=5)


def admin_of(broker: Broker) -> Admin:
    config = RocketMQConfig(endpoints=broker.section["endpoints"], admin=broker.section["admin"])
    return Admin(config, "rocketmq", 10)


def test_nobody_listens() -> None:
    port = free_ports(1)[0]
    with queue(f"{HOST}:{port}") as q, refused(BrokerUnavailable, f"{HOST}:{port}", "refused", "that the proxy runs"):
        q.connect(timeout=2.0)


def test_a_host_that_does_not_exist() -> None:
    with queue("nova.invalid") as q, refused(BrokerUnavailable, "nova.invalid:8081"):
        q.connect(timeout=2.0)


def test_a_port_that_speaks_another_protocol(broker: Broker) -> None:
    with queue(broker.section["admin"]) as q, refused(BrokerUnavailable, broker.section["admin"], "listens for gRPC"):
        q.connect(timeout=2.0)


def test_a_certificate_of_a_stranger(broker: Broker) -> None:
    with (
        queue(broker.section["endpoints"], tls=True) as q,
        refused(BrokerUnavailable, broker.section["endpoints"], "CERTIFICATE", "check tls and ca_file"),
    ):
        q.connect(timeout=2.0)


def test_no_name_server_where_one_was_named(broker: Broker) -> None:
    port = free_ports(1)[0]
    with (
        queue(broker.section["endpoints"], admin=f"{HOST}:{port}") as q,
        refused(BrokerUnavailable, "no name server answers", f"{HOST}:{port}"),
    ):
        q.enqueue(Task("t"))


@pytest.mark.parametrize("keys", [{}, {"access_key": ADMIN[0], "secret_key": "wrong-secret"}])
def test_wrong_keys_and_none(server: RocketServer, keys: dict[str, str]) -> None:
    place = section(server.address)
    with queue(**place, **keys) as q, refused(BrokerUnavailable, place["endpoints"], "UNAUTHORIZED", "access_key"):
        q.enqueue(Task("t"))


def test_right_keys_let_in(server: RocketServer) -> None:
    with queue(**section(server.address), access_key=ADMIN[0], secret_key=ADMIN[1]) as q:
        q.enqueue(Task("t", b"x"))
        seen: list[bytes] = []
        q.start(lambda task: seen.append(task.payload))
        eventually(lambda: seen == [b"x"])


def test_the_secret_key_may_be_in_a_file(server: RocketServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{ADMIN[1]}\n")
    with queue(
        **section(server.address), prefix="F", access_key=ADMIN[0], secret_key_file=str(tmp_path / "secret")
    ) as q:
        assert q.enqueue(Task("t")).task_id


def test_a_user_needs_no_more_than_to_publish_and_receive_under_its_prefix(server: RocketServer) -> None:
    place = section(server.address)
    with queue(**place, prefix="OWN", access_key=ADMIN[0], secret_key=ADMIN[1]) as q:
        q.start(lambda task: None)  # makes topics and group
    key, secret = _user(server, "app", ["Topic:OWN*", "Group:OWN*", "Group:g%OWN*"])
    with queue(place["endpoints"], "OWN", admin="", access_key=key, secret_key=secret) as q:
        seen: list[bytes] = []
        q.start(lambda task: seen.append(task.payload))
        q.enqueue(Task("t", b"now"))
        q.enqueue(Task("t", b"later"), process_in=0.3)
        eventually(lambda: sorted(seen) == [b"later", b"now"])


def test_a_user_without_rights_is_told_which_and_where_to_get_them(server: RocketServer) -> None:
    place = section(server.address)
    key, secret = _user(server, "nobody", [])
    words = "User:nobody has no permission", "Topic:N_PRIORITY_NORMAL", "grant this user"
    with (
        queue(place["endpoints"], "N", admin="", access_key=key, secret_key=secret) as q,
        refused(BrokerError, *words, "mqadmin createAcl"),
    ):
        q.enqueue(Task("t"))
    with (
        queue(**place, prefix="N", access_key=key, secret_key=secret) as q,
        refused(BrokerError, *words, "with_rocketmq(admin='')"),
    ):
        q.enqueue(Task("t"))


def test_topics_that_are_missing_are_all_named(broker: Broker) -> None:
    with queue(broker.section["endpoints"], broker.prefix, admin="") as q:
        with refused(
            BrokerError, f"{broker.prefix}_PRIORITY_NORMAL", f"{broker.prefix}_DELAY_0", "mqadmin updateTopic"
        ):
            q.enqueue(Task("t"))
        with refused(NotSupported, "with_rocketmq(admin='host:9876')"):
            q.depth()


def test_a_group_that_is_missing_or_would_lose_tasks(broker: Broker, server: RocketServer) -> None:
    place, keys = section(server.address), {"access_key": ADMIN[0], "secret_key": ADMIN[1]}
    with queue(**place, prefix=broker.prefix, **keys) as q:
        q.start(lambda task: None)  # makes the topics
    stranger = TaskQueue(
        with_rocketmq(place["endpoints"], admin="", **keys),  # type: ignore[arg-type]
        with_topic_prefix(broker.prefix),
        with_group_id("stranger"),
    )
    with refused(BrokerError, f"'stranger%{broker.prefix}'", "is missing or has retryMaxTimes", "updateSubGroup"):
        stranger.start(lambda task: None)
    stranger.stop()
    admin = admin_of(broker)
    for found in admin.brokers("a test"):
        found.make_group(Names(broker.prefix).consumer_group("g"), 16)
    admin.close()
    with refused(BrokerError, f"'g%{broker.prefix}'", "retryMaxTimes=16", "at least 100000", "updateSubGroup"):
        broker.queue().start(lambda task: None)


def test_a_group_is_made_with_retries_out_of_reach(broker: Broker) -> None:
    broker.queue().start(lambda task: None)
    admin = admin_of(broker)
    name = Names(broker.prefix).consumer_group("g")
    groups = [found.group(name) for found in admin.brokers("a test")]
    admin.close()
    assert [group is not None and group["retryMaxTimes"] >= 100_000 for group in groups] == [True]


@pytest.mark.parametrize("with_admin", [True, False])
def test_a_topic_of_another_type(broker: Broker, with_admin: bool) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    admin = admin_of(broker)
    for found in admin.brokers("a test"):
        found.make_topic(topic, "FIFO", 1)
    eventually(lambda: admin.has_route(topic))
    admin.close()
    place = {"endpoints": broker.section["endpoints"], "admin": broker.section["admin"] if with_admin else ""}
    with (
        queue(**place, prefix=broker.prefix) as q,
        refused(BrokerError, f"topic '{topic}' is of the type FIFO", "expected NORMAL", "another topic prefix"),
    ):
        q.enqueue(Task("t"))


def test_a_body_that_is_too_large_is_refused_here_and_by_the_server(broker: Broker) -> None:
    with queue(**_place(broker), prefix=broker.prefix) as q, refused(EncodeError, "4194304", "enqueue a reference"):
        q.enqueue(Task("t", bytes((4 << 20) + 1)))
    with queue(**_place(broker), prefix=broker.prefix, max_body_bytes=16 << 20) as q:
        with refused(PublishError, broker.section["endpoints"], "MESSAGE_BODY_TOO_LARGE", "maxMessageSize"):
            q.enqueue(Task("t", bytes(5 << 20)))
        q.enqueue(Task("t", b"small"))


def test_an_empty_body_is_a_task_like_any_other(broker: Broker) -> None:
    seen: list[bytes] = []
    with queue(**_place(broker), prefix=broker.prefix) as q:
        q.enqueue(Task("t", b""))
        q.start(lambda task: seen.append(task.payload))
        eventually(lambda: seen == [b""])


def test_one_message_that_the_server_refuses_fails_alone(broker: Broker) -> None:
    topic, many = f"{broker.prefix}_PRIORITY_NORMAL", {f"h{number}": "x" for number in range(200)}
    driver = broker.driver()
    driver.ensure([topic])
    messages = [Message(topic, b"x", many if number == 7 else {}, f"t{number}") for number in range(50)]
    outcome = driver.publish(messages).result(20)
    driver.close()
    assert [number for number, error in enumerate(outcome) if error is not None] == [7]
    assert "MESSAGE_PROPERTIES_TOO_LARGE" in str(outcome[7])


def test_a_task_with_much_metadata_is_retried_and_buried_like_any_other(broker: Broker) -> None:
    """Each copy has more headers than the one before, up to a traceback, and the proxy takes 16 KiB of them."""
    metadata = [{"m": "x" * length} for length in (14_000, 15_900, 16_100, 100_000)]
    q = broker.queue()
    seen: Counter[str] = Counter()

    def fail(task: ReceivedTask) -> None:
        assert task.metadata == metadata[int(task.id)]
        seen.update([task.id])
        raise RuntimeError("\x01é\n" * 1000)

    q.start(fail)
    q.enqueue_batch([Task("t", b"x", id=str(number), metadata=found) for number, found in enumerate(metadata)])
    eventually(lambda: len(q.dead.list()) == 4, timeout=20, what="some are neither retried nor buried")
    assert set(seen.values()) == {3}
    assert sorted(letter.id for letter in q.dead.list()) == list("0123")


def test_a_server_that_freezes_leaves_an_unknown_outcome(server: RocketServer) -> None:
    place = section(server.address)
    with queue(**place, access_key=ADMIN[0], secret_key=ADMIN[1], request_timeout=1.0) as q:
        q.enqueue(Task("t"))
        server.pause()
        began = time.monotonic()
        try:
            with pytest.raises(PublishError, match="no answer in time") as caught:
                q.enqueue(Task("t"))
        finally:
            server.resume()
        assert time.monotonic() - began < WELL_BEFORE_DEFAULT
        assert caught.value.may_be_stored
        assert place["endpoints"] in str(caught.value)
        eventually(lambda: not q.enqueue_batch([Task("t")]).unknown)


def test_broadcasting_is_refused_with_the_way_out() -> None:
    with refused(ConfigError, "broadcasting", "group_id of its own"):
        with_rocketmq("localhost:8081", consumer_model="broadcasting")


def test_a_forked_child_is_refused_with_an_old_queue_and_with_a_new_one(broker: Broker) -> None:
    q = broker.queue()
    q.enqueue(Task("t"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for made in (q, TaskQueue(with_rocketmq("localhost:8081"))):
            try:
                made.enqueue(Task("t"))
                said.append("nothing")
            except ConfigError as exc:
                said.append("fork" if "fork" in str(exc) else str(exc))
            except BaseException as exc:  # noqa: BLE001 - whatever it is, the parent is told
                said.append(repr(exc))
        os.write(writer, ",".join(said).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"fork,fork"
    os.waitpid(child, 0)
    q.enqueue(Task("t"))  # the parent goes on


PROGRAM = """
import sys, threading
import nova
assert "grpc" not in sys.modules and "rocketmq" not in sys.modules, "import nova loads the client"
q = nova.TaskQueue(nova.with_rocketmq(sys.argv[1], admin=sys.argv[2], poll_timeout=0.3), nova.with_topic_prefix(sys.argv[3]))
q.enqueue(nova.Task("t"))
seen = threading.Event()
q.start(lambda task: seen.set())
assert seen.wait(20)
assert "rocketmq" not in sys.modules, "the bare package is left behind"
if sys.argv[4] == "stop":
    assert q.stop()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("nova")]
    assert not left, left
print("done")
"""


@pytest.mark.parametrize("end", ["stop", "exit"])
def test_a_process_leaves_no_log_in_the_home_no_thread_and_ends(broker: Broker, tmp_path: Path, end: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    place = [broker.section["endpoints"], broker.section["admin"], broker.prefix]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *place, end],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert list(home.iterdir()) == []


def _place(broker: Broker) -> dict[str, str]:
    return {"endpoints": broker.section["endpoints"], "admin": broker.section["admin"]}


def _user(server: RocketServer, name: str, resources: list[str]) -> tuple[str, str]:
    place: dict[str, Any] = section(server.address)
    admin = Admin(RocketMQConfig(**place, access_key=ADMIN[0], secret_key=ADMIN[1]), "rocketmq", 10)
    (broker,) = admin.brokers("a test")
    made = make_user(broker, name, resources)
    admin.close()
    return made
