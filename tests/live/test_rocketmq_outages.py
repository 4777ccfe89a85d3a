"""RocketMQ in trouble that no error tells: connections that fall silent, a name server that is away, strange clocks."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from nova import ReceivedTask, Task, TaskQueue, clock, with_group_id, with_rocketmq, with_topic_prefix
from nova.brokers.base import Delivery, Message, SubscribeRequest
from nova.brokers.rocketmq import admin as administration
from nova.brokers.rocketmq import client
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.names import Names
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never
from tests.servers.relay import Relay

EARLY = 1.0
"""Seconds: the last try may be answered just before the end."""
LATE = 7.0
"""Seconds: the machine may be busy."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("rocketmq", tmp_path)
    yield made
    made.close()


@contextmanager
def queue(broker: Broker, endpoints: str, **options: object) -> Generator[TaskQueue]:
    """A queue with other addresses than the broker's."""
    section: dict[str, Any] = {**broker.section, "endpoints": endpoints, **options}
    made = TaskQueue(with_rocketmq(**section), with_topic_prefix(broker.prefix), with_group_id("g"))
    try:
        yield made
    finally:
        made.stop(timeout=5)


def test_a_connection_that_falls_silent_is_made_anew(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that vanishes closes no connection, and the kernel waits for a quarter of an hour."""
    monkeypatch.setattr(client, "SILENT", 4.0)
    relay = Relay(broker.section["endpoints"])
    seen: Counter[str] = Counter()
    with queue(broker, relay.address) as q:
        q.start(lambda task: seen.update([task.id]))
        q.enqueue(Task("t", id="before"))
        eventually(lambda: "before" in seen)
        relay.freeze()
        eventually(lambda: q.enqueue_batch([Task("t", id="after")]).accepted, timeout=30, what="the producer is mute")
        eventually(lambda: "after" in seen, timeout=30, what="the worker is deaf")
    relay.take_away()


def test_a_task_that_finds_nobody_is_tried_again_for_send_timeout(broker: Broker) -> None:
    relay = Relay(broker.section["endpoints"])
    with queue(broker, relay.address, send_timeout=3.0) as q:
        q.enqueue(Task("t"))
        relay.take_away()
        began = time.monotonic()
        report = q.enqueue_batch([Task("t")])
        took = time.monotonic() - began
    assert not report.accepted
    assert 3.0 - EARLY <= took <= 3.0 + LATE
    relay.take_away()


def test_leases_that_cannot_be_renewed_are_said_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    relay = Relay(broker.section["endpoints"])
    with queue(broker, relay.address) as q:
        begun, end = threading.Event(), threading.Event()

        def handle(task: ReceivedTask) -> None:
            begun.set()
            end.wait(20)

        q.start(handle)
        q.enqueue(Task("t"))
        assert begun.wait(10)
        relay.take_away()
        eventually(lambda: "leases cannot be renewed" in caplog.text)
        never(lambda: caplog.text.count("leases cannot be renewed") > 1, during=1.0)
        end.set()
    relay.take_away()


def test_a_slow_answer_keeps_the_connection(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has answered anything since is not silent: what is on its way must not be cut off."""
    monkeypatch.setattr(client, "SILENT", 0.3)
    connection = client.Connection(RocketMQConfig(**broker.section), "rocketmq")
    channel = connection._channel

    def is_made_anew() -> bool:
        connection.look()
        return connection._channel is not channel

    begun = time.monotonic()
    connection.heard()
    connection._note(grpc.StatusCode.DEADLINE_EXCEEDED, begun)
    never(is_made_anew, during=0.5)
    connection._note(grpc.StatusCode.DEADLINE_EXCEEDED, time.monotonic())
    eventually(is_made_anew)
    connection.close()


def test_several_proxies_are_named_by_their_hosts_and_one_may_be_away(broker: Broker) -> None:
    host, _, port = broker.section["endpoints"].partition(":")
    assert host == "127.0.0.1"
    for endpoints in (f"localhost:{port},127.0.0.1:{port}", f"localhost:1,localhost:{port},nova.invalid:{port}"):
        with queue(broker, endpoints) as q:
            q.enqueue(Task("t"))


def test_workers_go_on_without_a_name_server(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administration, "ASK_AGAIN", 0.1)
    names, proxy = Relay(broker.section["admin"]), Relay(broker.section["endpoints"])
    seen: Counter[str] = Counter()
    with queue(broker, proxy.address, admin=names.address) as q:
        q.start(lambda task: seen.update([task.id]))
        q.enqueue(Task("t", id="before"))
        eventually(lambda: "before" in seen)
        names.take_away()
        proxy.take_away()
        never(lambda: False, during=1.0)
        proxy.bring_back()
        eventually(lambda: q.enqueue_batch([Task("t", id="after")]).accepted)
        eventually(lambda: "after" in seen, timeout=15, what="the worker waits for the name server")
        assert q.depth().waiting == 0
    proxy.take_away()


def test_a_port_beside_the_proxy_that_never_answers_is_asked_once(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no name server is named the usual port is tried, and firewalls swallow what comes there."""
    producer = broker.queue()
    producer.start(lambda task: None)  # makes topics and groups
    producer.enqueue(Task("t"))
    producer.stop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("nova.brokers.rocketmq.config.NAME_SERVER_PORT", silent.getsockname()[1])
        config = RocketMQConfig(endpoints=broker.section["endpoints"])
        admin = Admin(config, "rocketmq", 1.0)
        begin = time.monotonic()
        assert [admin.reach() for _ in range(5)] == [None] * 5
        assert time.monotonic() - begin < 2.0
        admin.close()


def test_a_receive_asks_for_as_long_as_it_waits(broker: Broker) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver = broker.driver()
    driver.ensure([topic])
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    found: list[Delivery] = []
    begin = time.monotonic()
    receiving = threading.Thread(target=lambda: found.extend(subscription.receive(10, 20.0)))
    receiving.start()
    never(lambda: found, during=3.0)
    assert driver.publish([Message(topic, b"x", {}, "t")]).result(10) == [None]
    receiving.join()
    assert len(found) == 1
    assert time.monotonic() - begin < 10.0, "it was not asked for any more"
    driver.close()


def test_a_server_whose_clock_is_ahead_is_not_flooded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timers end early by our clock, and a task that goes back into them at once comes back at once."""
    real = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda: real() - 10_000)
    near = Names(broker.prefix).near
    admin = Admin(RocketMQConfig(**broker.section), "rocketmq", 10)

    def hops() -> int:
        (server,) = admin.brokers("a test")
        settings = server.topic(near)
        return sum(server.end(near, number) for number in range(settings["readQueueNums"] if settings else 0))

    q = broker.queue()
    seen: list[str] = []
    q.start(lambda task: seen.append(task.id))
    for number in range(5):
        q.enqueue(Task("t", id=f"t{number}"), process_in=9.0)
    eventually(lambda: len(seen) == 5, timeout=20)
    assert hops() < 5 * 10, "each went round and round"
    admin.close()


def test_what_was_finished_here_is_not_done_again_after_a_server_was_killed(tmp_path: Path) -> None:
    """A killed server remembers positions that are up to five seconds old, and hands out again what was acked since."""
    made = make("rocketmq", tmp_path, own_server=True)
    try:
        q = made.queue()
        seen: Counter[str] = Counter()
        q.start(lambda task: seen.update([task.id]), concurrency=4)
        q.enqueue_batch([Task("t", id=f"t{number}") for number in range(500)])
        eventually(lambda: len(seen) == 500, timeout=40)
        made.kill_server()
        eventually(lambda: q.enqueue_batch([Task("t", id="after")]).accepted, timeout=60)
        eventually(lambda: "after" in seen, timeout=60)
        eventually(lambda: q.depth().waiting == 0, timeout=30)
        never(lambda: sum(seen.values()) > 501, during=made.section["invisible_duration"] + 1, what="done again")
    finally:
        made.close()
