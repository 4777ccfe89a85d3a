"""Tasks that outlive the server's delivery timeout: they run once, and when their worker dies another has them at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from nova import BrokerError, PublishError, ReceivedTask, Task
from nova.brokers.base import Confirmation, Delivery, Message, SubscribeRequest
from nova.brokers.rabbitmq.conversation import Conversation
from nova.brokers.rabbitmq.messages import Outgoing
from nova.brokers.rabbitmq.quarantine import QuarantineSubscription
from nova.brokers.rabbitmq.subscription import RabbitSubscription
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never
from tests.servers.rabbitmq.finding import private_node
from tests.servers.rabbitmq.server import RabbitServer

TIMEOUT = 4.0
"""Seconds the server waits for an ack here; 30 minutes elsewhere."""
LONG = 3 * TIMEOUT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    started = private_node(
        tmp_path_factory.mktemp("rabbitmq"),
        erlang=f"-rabbit consumer_timeout {int(TIMEOUT * 1000)} -rabbit channel_tick_interval 500",
    )
    yield started
    started.stop()


@pytest.fixture
def broker(server: RabbitServer, request: pytest.FixtureRequest) -> Iterator[Broker]:
    section = {"url": server.address, "long_task_after": 1.0, "confirm_timeout": 5.0}
    made = Broker("rabbitmq", section, f"L{abs(hash(request.node.name)) % 10**8}")
    yield made
    for queue in made._queues:
        queue.stop(timeout=5)


def test_the_server_of_these_tests_does_take_late_deliveries_away(broker: Broker) -> None:
    """Or the other tests here would show nothing."""
    broker.section["long_task_after"] = 3600.0
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t")]).result(10) == [None]
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    (delivery,) = subscription.receive(1, 10)
    eventually(lambda: delivery.lost, timeout=LONG)
    driver.close()


def test_a_long_task_runs_once_and_short_ones_beside_it_too(broker: Broker) -> None:
    q = broker.queue()
    runs: list[str] = []
    ended = threading.Event()

    def handle(task: ReceivedTask) -> None:
        runs.append(task.id)
        if task.type == "long":
            time.sleep(LONG)
            ended.set()

    q.start(handle, concurrency=4)
    q.enqueue(Task("long", id="long"))
    eventually(lambda: runs == ["long"])
    for number in range(20):
        q.enqueue(Task("short", id=f"s{number}"))
        time.sleep(LONG / 30)
    assert ended.wait(LONG)
    eventually(lambda: len(runs) == 21)
    never(lambda: len(runs) > 21, during=TIMEOUT + 2)
    assert q.stop()
    assert broker.queue().depth().waiting == 0


def test_what_a_stop_gives_up_runs_again_elsewhere_uncounted(broker: Broker) -> None:
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t")]).result(10) == [None]
    request = SubscribeRequest(topics=(topic,), group="g", prefetch=10)
    subscription = driver.subscribe(request)
    (delivery,) = subscription.receive(1, 10)
    never(lambda: delivery.lost, during=TIMEOUT + 2)
    subscription.close()
    again = driver.subscribe(request)
    (delivery,) = again.receive(1, 10)
    assert delivery.handle.count == 0
    again.ack([delivery])
    driver.close()


@pytest.mark.parametrize("cut_after", [0.0, 0.5])
def test_the_long_task_of_a_lost_connection_comes_back_at_once_and_counted(broker: Broker, cut_after: float) -> None:
    """Also if its copy is so young that it is still in the private queue when the worker connects again."""
    driver, heir = broker.driver(), broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t")]).result(10) == [None]
    request = SubscribeRequest(topics=(topic,), group="g", prefetch=10)
    subscription = driver.subscribe(request)
    (delivery,) = subscription.receive(1, 10)
    never(lambda: delivery.lost, during=TIMEOUT + 2 + cut_after)
    waiting = heir.subscribe(request)
    assert waiting.receive(1, 0.1) == []
    _cut(driver)
    eventually(lambda: delivery.lost)
    got: list[Delivery] = []
    # The first one connects again and may have it as well as the other.
    deadline = time.monotonic() + LONG
    while not got and time.monotonic() < deadline:
        with contextlib.suppress(BrokerError):  # while it connects again
            got = waiting.receive(1, 0.1) or subscription.receive(1, 0.1)
    assert [found.headers["nova-id"] for found in got] == ["t"]
    assert got[0].handle.count == 1
    driver.close()
    heir.close()


def _cut(driver: object) -> None:
    """As if the machine had gone: no goodbye."""
    links = driver._parts._links  # type: ignore[attr-defined]
    for link in [*links._for_queues, links.asking]:
        link.run(partial(link.reset, "cut by the test"))
    never(lambda: False, during=0.1)


def test_a_long_suspect_is_not_charged_for_its_length(broker: Broker) -> None:
    driver = broker.driver()
    topic = f"{broker.prefix}_QUARANTINE"
    driver.ensure([topic])
    assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t", group="g")]).result(10) == [None]
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=1, charged=True))
    (delivery,) = subscription.receive(1, 10)
    assert delivery.charges == 1
    never(lambda: delivery.lost, during=LONG)
    subscription.ack([delivery])
    assert subscription.receive(1, TIMEOUT + 2) == []
    driver.close()


def test_what_waits_ahead_of_a_busy_worker_is_not_counted_for_waiting(broker: Broker) -> None:
    broker.section["prefetch"] = 5
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    sent = [Message(topic, b"x", {"nova-id": f"t{i}"}, f"t{i}") for i in range(5)]
    assert driver.publish(sent).result(10) == [None] * 5
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    (first,) = subscription.receive(1, 10)
    never(lambda: first.lost, during=2 * TIMEOUT, what="the server took back all that this worker held")
    found = {first.headers["nova-id"]: first}
    deadline = time.monotonic() + 10
    while len(found) < 5 and time.monotonic() < deadline:
        found |= {delivery.headers["nova-id"]: delivery for delivery in subscription.receive(5, 0.2)}
    assert sorted(found) == [f"t{i}" for i in range(5)]
    assert {delivery.handle.count for delivery in found.values()} == {0}
    driver.close()


def test_a_long_task_that_cannot_be_given_back_with_a_copy_harms_no_other(broker: Broker) -> None:
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    assert isinstance(subscription, RabbitSubscription)
    assert driver.publish([Message(topic, b"x", {"nova-id": "long"}, "long")]).result(10) == [None]
    (long,) = subscription.receive(1, 10)
    eventually(lambda: subscription._long.covers(long))
    assert driver.publish([Message(topic, b"x", {"nova-id": "short"}, "short")]).result(10) == [None]
    (short,) = subscription.receive(1, 10)
    send = subscription._publisher.send

    def refuse(messages: Sequence[Outgoing]) -> Confirmation:
        subscription._publisher.send = send  # type: ignore[method-assign]
        done: Confirmation = Future()
        done.set_result([PublishError("no room") for _ in messages])
        return done

    subscription._publisher.send = refuse  # type: ignore[method-assign]
    subscription.release([long])
    (again,) = subscription.receive(1, 3)
    assert (again.headers["nova-id"], again.handle.count) == ("long", 1), "its copy went back at once"
    assert not short.lost, "the channel was closed over a tag that was acked before"
    driver.close()


def test_a_copy_on_its_way_at_a_clean_stop_does_not_run_the_task_again(broker: Broker) -> None:
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    request = SubscribeRequest(topics=(topic,), group="g", prefetch=10)
    subscription = driver.subscribe(request)
    assert isinstance(subscription, RabbitSubscription)
    asked = threading.Event()

    def late(messages: Sequence[Outgoing]) -> Confirmation:
        asked.set()
        done: Confirmation = Future()

        def send() -> None:
            done.set_result(driver._parts.publisher.send(messages).result(10))  # type: ignore[attr-defined]

        threading.Timer(0.5, send).start()
        return done

    subscription._long._publish = late
    assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t")]).result(10) == [None]
    (delivery,) = subscription.receive(1, 10)
    assert asked.wait(10)
    subscription.ack([delivery])
    subscription.close(10)
    again = driver.subscribe(request)
    assert again.receive(1, 7.0) == [], "what nobody takes goes back to the group after five seconds"
    driver.close()


def test_a_copy_that_was_not_waited_for_does_not_run_its_task_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy stands for the task by the time it comes; sent home, the first would be a second task."""
    monkeypatch.setattr("nova.brokers.rabbitmq.leases.TIME_TO_LIVE_MS", 1000)
    broker.section["long_task_after"] = 1.5
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    assert isinstance(subscription, RabbitSubscription)
    publish, first = subscription._long._publish, list[Sequence[Outgoing]]()

    def first_one_late(messages: Sequence[Outgoing]) -> Confirmation:
        if first:
            return publish(messages)
        first.append(messages)
        return Future()

    subscription._long._publish = first_one_late
    assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t")]).result(10) == [None]
    (delivery,) = subscription.receive(1, 10)
    eventually(lambda: subscription._long.covers(delivery), what="by a second copy")
    assert publish(first[0]).result(10) == [None]
    assert subscription.receive(5, 2.0) == []
    assert not delivery.lost
    subscription.ack([delivery])
    driver.close()


def test_a_suspect_that_ends_while_its_copy_comes_is_over(broker: Broker) -> None:
    """The copy was acked and the suspect not, or the other way round: it came back, charged, after it was done."""
    driver = broker.driver()
    topic = f"{broker.prefix}_QUARANTINE"
    driver.ensure([topic])
    assert driver.publish([Message(topic, b"x", {"nova-id": "t"}, "t", group="g")]).result(10) == [None]
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=1, charged=True))
    assert isinstance(subscription, QuarantineSubscription)
    long, asked = subscription._long, threading.Event()
    publish = long._publish

    def told(messages: Sequence[Outgoing]) -> Confirmation:
        asked.set()
        return publish(messages)

    class Slow(dict[Delivery, Conversation]):
        """Leaves a copy the time to come while its delivery is being settled."""

        def pop(self, delivery: Delivery, *default: object) -> Any:
            found = super().pop(delivery, *default)
            with contextlib.suppress(AssertionError):  # what settles may be the thread on which it would come
                eventually(lambda: long.covers(delivery), timeout=1.0)
            return found

    long._publish = told
    subscription._lent = Slow()
    (delivery,) = subscription.receive(1, 10)
    assert asked.wait(10)
    subscription.ack([delivery])
    never(lambda: False, during=1.5)
    _cut(driver)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(BrokerError):  # while it connects again
            assert subscription.receive(1, 0.5) == []
    driver.close()
