"""The options of RabbitMQ reach its server; docs/coming-from-go-nova.md says which are Go's."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from nova import ConfigError, Task, TaskQueue, with_group_id, with_rabbitmq, with_topic_prefix
from tests.eventually import eventually
from tests.servers.rabbitmq.finding import private_node
from tests.servers.rabbitmq.server import HOST, RabbitServer

PASSWORD = "p@ss/w:rd?#%40"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    started = private_node(tmp_path_factory.mktemp("rabbitmq"))
    started.control("add_user", "shop", PASSWORD)
    started.control("set_permissions", "shop", ".*", ".*", ".*")
    yield started
    started.stop()


@contextmanager
def queue(
    server: RabbitServer, user: str = "", prefix: str = "O", vhost: str = "", **options: Any
) -> Generator[TaskQueue]:
    url = f"amqp://{user}{HOST}:{server.port}/{vhost}"
    made = TaskQueue(with_rabbitmq(url, **options), with_topic_prefix(prefix), with_group_id("g"))
    try:
        yield made
    finally:
        made.stop(timeout=5)


def users(server: RabbitServer) -> set[str]:
    """Who is connected, as the server sees it."""
    return set(server.control("list_connections", "user").split()) - {"user"}


def test_the_user_may_stand_in_the_url_apart_from_it_or_in_a_file(server: RabbitServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    ways: list[tuple[str, dict[str, str]]] = [
        (f"shop:{quote(PASSWORD, safe='')}@", {}),
        ("shop@", {"password": PASSWORD}),
        ("", {"username": "shop", "password": PASSWORD}),
        ("", {"username": "shop", "password_file": str(tmp_path / "password")}),
    ]
    for user, options in ways:
        with queue(server, user, **options) as q:
            assert q.enqueue(Task("t")).task_id
            assert users(server) == {"shop"}
        eventually(lambda: users(server) == set())


def test_a_password_file_that_is_missing_is_one_error_at_first_use(server: RabbitServer, tmp_path: Path) -> None:
    with queue(server, username="shop", password_file=str(tmp_path / "none")) as q:
        for use in (lambda: q.enqueue(Task("t")), lambda: q.start(lambda task: None)):
            with pytest.raises(
                ConfigError, match=r"with_rabbitmq\(password_file\): cannot read '.*none': No such file"
            ):
                use()


def test_tasks_go_through_the_exchange_that_was_named(server: RabbitServer) -> None:
    done = threading.Event()
    with queue(server, "guest:guest@", prefix="E", exchange="shop.tasks") as q:
        q.start(lambda task: done.set())
        q.enqueue(Task("t"))
        assert done.wait(10)
        exchanges = dict(line.split("\t") for line in server.control("list_exchanges", "name", "type").splitlines())
        bindings = server.control("list_bindings", "source_name", "destination_name").splitlines()
    assert exchanges["shop.tasks"] == "topic"
    assert "E-exchange" not in exchanges
    assert "shop.tasks\tg.E_PRIORITY_NORMAL" in bindings


@pytest.mark.parametrize("prefetch", [3, 17])
def test_the_server_lets_as_many_ahead_as_prefetch_says(server: RabbitServer, prefetch: int) -> None:
    def counts() -> set[str]:
        rows = server.control("list_consumers", "queue_name", "prefetch_count").splitlines()
        return {count for name, count in (row.split("\t") for row in rows) if name.startswith("g.O_PRIORITY_")}

    with queue(server, "guest:guest@", prefetch=prefetch) as q:
        q.start(lambda task: None, concurrency=32)
        eventually(lambda: counts() == {str(prefetch)}, what=f"consumers with a prefetch of {prefetch}")


def test_no_server_takes_a_prefetch_size(server: RabbitServer) -> None:
    """Why Go's prefetch size is refused: `test_wrong_parameters_of_a_url_are_named`."""
    connection = pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@{HOST}:{server.port}/"))
    with pytest.raises((ConnectionClosedByBroker, ChannelClosedByBroker), match="540"):
        connection.channel().basic_qos(prefetch_size=1_000_000)


def test_the_servers_lists_show_the_name_and_the_heartbeat(server: RabbitServer) -> None:
    with queue(server, "guest:guest@", connection_name="billing-7", heartbeat=9) as q:
        q.enqueue(Task("t"))
        shown = server.control("list_connections", "client_properties", "timeout")
    assert "billing-7" in shown
    assert "\t9" in shown


@pytest.mark.parametrize(("guard", "place"), [(1, "level"), (60, "O_DELAY_0")])
def test_a_task_that_is_due_within_delay_guard_is_not_left_to_the_levels(
    server: RabbitServer, guard: float, place: str
) -> None:
    # A vhost of its own: the server's counts lag, so it may still have to count what earlier tests left in theirs.
    vhost = f"guard-{guard}"
    server.control("add_vhost", vhost)
    server.control("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    found: list[str] = []

    def is_there() -> bool:
        rows = [row.split("\t") for row in server.control("list_queues", "-p", vhost, "name", "messages").splitlines()]
        found[:] = [name for name, count in rows if count not in ("messages", "0")]
        return found != []

    with queue(server, "guest:guest@", vhost=vhost, delay_guard=guard) as q:
        q.enqueue(Task("t"), process_in=50)
        eventually(is_there, timeout=30, what="the server counts the task")
    # On its way down the levels it may be counted in two of them.
    assert {"level" if name.startswith("nova_delay_") else name for name in found} == {place}
