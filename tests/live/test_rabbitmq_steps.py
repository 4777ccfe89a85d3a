"""Steps of the RabbitMQ driver that must come before one another, and what they hold meanwhile; against a real server."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from nova import BrokerError, BrokerUnavailable, PublishError, ReceivedTask, Retry, Task
from nova.brokers.base import Confirmation, Delivery, DriverContext, Message, SubscribeRequest
from nova.brokers.due import RETRY_AFTER_MS
from nova.brokers.rabbitmq import publisher as publishing
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rabbitmq.conversation import Conversation
from nova.brokers.rabbitmq.driver import RabbitMQDriver, _Parts
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.loop import Loop
from nova.brokers.rabbitmq.messages import Outgoing
from nova.brokers.rabbitmq.names import QUORUM
from nova.brokers.rabbitmq.publisher import Publisher
from nova.brokers.rabbitmq.registry import Book
from nova.brokers.rabbitmq.subscription import STALE_AFTER, RabbitSubscription
from nova.brokers.rabbitmq.turns import give_back, holding, take
from nova.envelope import GROUP, TARGET
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never
from tests.live.opened import amqp_channel
from tests.live.test_rabbitmq import ready
from tests.servers.ports import free_ports

T = TypeVar("T")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("rabbitmq", tmp_path)
    yield made
    made.close()


@pytest.fixture
def channel(broker: Broker) -> Iterator[BlockingChannel]:
    with amqp_channel(broker) as opened:
        yield opened


@pytest.fixture
def driver(broker: Broker) -> Iterator[RabbitMQDriver]:
    made = RabbitMQDriver(RabbitMQConfig(**broker.section))
    made.open(DriverContext(prefix=broker.prefix, call_timeout=5.0), 10)
    yield made
    made.close(5)


@pytest.fixture
def parts(driver: RabbitMQDriver) -> _Parts:
    return driver._open_parts


def cut(link: Link) -> None:
    """As if the machine had gone: no goodbye. Returns when there is another connection."""
    before = link.await_up(10)
    link.run(lambda: link.reset("cut by the test"))
    eventually(lambda: link.connection not in (before, None))


def message(topic: str, name: str, group: str | None = None) -> Message:
    return Message(topic, b"x", {"nova-id": name}, name, group=group)


# --- conversations and turns


def test_a_conversation_in_which_messages_came_is_over_with_its_channel(
    broker: Broker, channel: BlockingChannel, parts: _Parts
) -> None:
    """On another channel its tags would mean other messages: a letter that nobody chose was deleted so."""
    queue = f"{broker.prefix}_DELAY_0"
    channel.queue_declare(queue, durable=True, arguments=dict(QUORUM))
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"x")
    with parts.topology.talk() as talk:
        found = talk.get(queue)
        assert found is not None
        cut(parts._links.asking)
        with pytest.raises(BrokerUnavailable, match="begin again"):
            talk.get(queue)
        talk.ack([found.tag])
    eventually(lambda: ready(channel, queue) == 1)


def test_what_belongs_to_a_connection_is_not_gone_on_with_on_another(broker: Broker, parts: _Parts) -> None:
    with parts.topology.talk() as talk:
        take(talk, f"{broker.prefix}_LOCK", 5, "a test")
        assert talk.look(f"{broker.prefix}_MISSING") is None, "a refusal costs a channel and no more"
        talk.flush()
        cut(parts._links.asking)
        with pytest.raises(BrokerUnavailable, match="lost in between"):
            talk.flush()


def test_a_turn_is_given_back_also_when_the_time_of_its_conversation_is_over(broker: Broker, parts: _Parts) -> None:
    name = f"{broker.prefix}_LOCK"
    with parts.topology.talk() as talk:
        take(talk, name, 5, "a test")
        talk._deadline = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="no answer"):
            talk.flush()
        give_back(talk, name)
    other = RabbitMQDriver(RabbitMQConfig(**broker.section))
    other.open(DriverContext(prefix=broker.prefix), 10)
    with other._open_parts.topology.talk() as talk:
        take(talk, name, 2, "another process")
    other.close()


def test_a_channel_that_opens_too_late_is_closed(parts: _Parts) -> None:
    connection: Any = parts._links.asking.await_up(5)
    before = len(connection._channels)
    busy, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        busy.set()
        go_on.wait(10)

    with Conversation(parts._links.asking, 0.3) as talk:
        opening = talk._open_on

        def slow(connection: Any, done: Callable[..., bool]) -> None:
            opening(connection, done)
            parts._links.asking.run(hold_up)  # so that its answer is read after the time is over

        talk._open_on = slow  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable, match=r"no answer in 0\.3 s"):
            talk.look("nothing")
        assert busy.is_set()
        go_on.set()
    eventually(lambda: len(connection._channels) == before, timeout=5)


def test_no_lock_is_waited_for_without_end(broker: Broker, driver: RabbitMQDriver, parts: _Parts) -> None:
    lock = threading.Lock()
    with (
        lock,
        pytest.raises(BrokerUnavailable, match=r"a thing: another thread has been at it for 0\.2 s"),
        holding(lock, 0.2, "a thing"),
    ):
        pass
    registry = parts.keeper._registry
    registry._timeout = 0.3
    with registry._turn, pytest.raises(BrokerUnavailable, match="list of groups"):
        driver.groups()
    topic = f"{broker.prefix}_QUARANTINE"
    suspects = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=1, charged=True))
    assert driver.publish([message(topic, "t", "g")]).result(10) == [None]
    (delivery,) = suspects.receive(1, 5)
    with suspects._fetching:  # type: ignore[union-attr]
        began = time.monotonic()
        suspects.ack([delivery])
        assert time.monotonic() - began < 0.2
        suspects.close(0.5)
        assert time.monotonic() - began < 3


# --- groups


def test_a_group_is_bound_before_it_is_registered(broker: Broker, channel: BlockingChannel, parts: _Parts) -> None:
    """What falls due between the two would come to later groups only, which pass it over."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    registry, seen = parts.keeper._registry, list[int | None]()
    change = registry.change

    def watched(apply: Callable[[Book], tuple[T, bool]]) -> T:
        def watching(book: Book) -> tuple[T, bool]:
            result, changed = apply(book)
            if topic in book.groups.get("g", ()):
                channel.basic_publish(f"{broker.prefix}-exchange", topic, b"x")
                eventually(lambda: ready(channel, f"g.{topic}") == 1, timeout=5)
                seen.append(ready(channel, f"g.{topic}"))
            return result, changed

        return change(watching)

    registry.change = watched  # type: ignore[method-assign, assignment]
    parts.keeper.join("g", [topic], for_all=True)
    assert seen == [1]


def test_a_writer_that_lost_its_turn_writes_nothing(broker: Broker, driver: RabbitMQDriver, parts: _Parts) -> None:
    """Another one has had it meanwhile; of two books of one version one was dropped, and a group with it."""
    other = RabbitMQDriver(RabbitMQConfig(**broker.section))
    other.open(DriverContext(prefix=broker.prefix), 10)

    def register(book: Book) -> tuple[None, bool]:
        cut(parts._links.asking)
        assert other._open_parts.keeper._registry.change(lambda book: (book.register("b", ["t"], 2), True))
        return None, book.register("a", ["t"], 1)

    with pytest.raises(BrokerUnavailable):
        parts.keeper._registry.change(register)
    assert [group.name for group in other.groups()] == ["b"]
    other.close()


def test_two_books_of_one_version_are_read_as_one(broker: Broker, driver: RabbitMQDriver, parts: _Parts) -> None:
    registry = parts.keeper._registry
    registry.change(lambda book: (None, True))
    version = registry.read().version
    first, second = Book(version=version), Book(version=version)
    first.register("a", ["t"], 1)
    second.register("b", ["t"], 2)
    for book in (first, second):
        registry._store(book)
    assert [group.name for group in driver.groups()] == ["a", "b"]
    assert registry.read().version > version, "one book again"


def test_a_removed_group_does_not_come_back_with_its_delayed_retry(broker: Broker, channel: BlockingChannel) -> None:
    def fail(task: ReceivedTask) -> None:
        raise Retry(delay=3)

    q, other = broker.queue(group="gone"), broker.queue(group="g")
    q.start(fail)
    other.start(lambda task: None)  # so that delays move
    q.enqueue(Task("t"))
    near = f"{broker.prefix}_DELAY_0"
    eventually(lambda: ready(channel, "nova_delay_v1_11") != 0, what="the retry is on its way")
    due = time.monotonic() + 3
    assert q.stop()
    keeper = broker.queue(group="g")
    assert keeper.groups.remove("gone")
    never(lambda: "gone" in [group.name for group in keeper.groups.list()], during=due + 1.5 - time.monotonic())
    eventually(lambda: ready(channel, near) == 0)
    assert ready(channel, f"gone.{broker.prefix}_PRIORITY_NORMAL") is None


def test_a_removal_leaves_the_queue_that_go_consumers_share(tmp_path: Path) -> None:
    broker = make("rabbitmq", tmp_path, {"go_compatible": True})
    shared = f"{broker.prefix}-{broker.prefix}_PRIORITY_NORMAL"
    connection = pika.BlockingConnection(pika.URLParameters(broker.section["url"]))
    try:
        q = broker.queue()
        q.start(lambda task: None)
        assert q.stop()
        keeper = broker.queue(group="other")
        keeper.enqueue(Task("t"))
        eventually(lambda: ready(connection.channel(), shared) == 1)
        assert keeper.groups.remove("g")
        assert ready(connection.channel(), shared) == 1
    finally:
        broker.close()
        opened = connection.channel()
        for rank in ("HIGH", "NORMAL", "LOW"):
            opened.queue_delete(f"{broker.prefix}-{broker.prefix}_PRIORITY_{rank}")
        connection.close()


# --- publishing


def test_an_exchange_that_is_missing_is_made_once_for_all_messages_that_missed_it(
    broker: Broker, channel: BlockingChannel, driver: RabbitMQDriver, parts: _Parts
) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.ensure([topic])
    parts.keeper.join("g", [topic], for_all=True)
    channel.exchange_delete(f"{broker.prefix}-exchange")
    made: list[float] = []
    ensure = parts.topology.ensure

    def counted() -> None:
        made.append(time.monotonic())
        ensure()

    parts.topology.ensure = counted  # type: ignore[method-assign]
    sent = [message(topic, f"m{i}") for i in range(1500)]
    copies = [message(topic, f"c{i}", "g") for i in range(50)]
    assert driver.publish(sent + copies).result(20) == [None] * 1550
    assert 1 <= len(made) <= 3


def test_a_place_that_cannot_be_made_is_tried_once_for_all_messages(
    broker: Broker, channel: BlockingChannel, driver: RabbitMQDriver, parts: _Parts
) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    tried: list[str] = []

    def refuse(group: str, topic: str) -> None:
        tried.append(topic)
        raise BrokerError("not allowed")

    parts.keeper.address = refuse  # type: ignore[method-assign]
    outcome = driver.publish([message(topic, f"c{i}", "g") for i in range(200)]).result(20)
    assert {str(error) for error in outcome} == {"not allowed"}
    assert len(tried) <= 20


def test_what_is_given_up_while_the_server_is_away_is_not_kept() -> None:
    config = RabbitMQConfig(url=f"amqp://127.0.0.1:{free_ports(1)[0]}")
    loop = Loop(name="nova-rabbitmq-test", failed=lambda: None)
    loop.start()
    link = Link(loop, config, "rabbitmq at nowhere", "publishing")
    publisher = Publisher(
        link, confirm_timeout=0.5, blocked_timeout=1, unclaimed=lambda topic: topic, repair=lambda item: None
    )
    link.start()
    try:
        for _ in range(3):
            (error,) = publisher.send([Outgoing("", "q", b"x" * 1000, {}, "t")]).result(5)
            assert error is not None
            assert not error.may_be_stored
        eventually(lambda: not (publisher._ready or publisher._outbox._open or len(publisher._outbox)))
    finally:
        publisher.close(0.1)
        link.close(1)
        loop.close()


# --- dead letters


def test_counting_dead_letters_keeps_no_bodies(broker: Broker, driver: RabbitMQDriver) -> None:
    dead, topic = f"{broker.prefix}_DEAD", f"{broker.prefix}_PRIORITY_NORMAL"
    headers = {GROUP: "g", TARGET: topic}
    letters = [Message(dead, b"x" * (1 << 20), headers, f"t{i}", group="g") for i in range(60)]
    driver.ensure([dead])
    assert driver.publish(letters).result(20) == [None] * 60
    del letters
    tracemalloc.start()
    try:
        depth = driver.depth([dead], "g")[dead]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (depth.waiting, depth.dead_by_target) == (60, {topic: 60})
    assert peak < 20 << 20
    assert driver.depth([dead], "g")[dead].waiting == 60


# --- what the server says of what was published


def test_what_the_server_did_not_take_is_sent_again(
    driver: RabbitMQDriver, parts: _Parts, broker: Broker, channel: BlockingChannel
) -> None:
    """A nack counted as stored would lose an accepted task."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=1)).close(5)
    assert driver.publish([message(topic, "first")]).result(10) == [None]
    reader = parts._sending.reader
    assert reader is not None
    ((number, real),) = reader.confirmed.items()
    turned: list[int] = []

    def refused_once(tag: int, multiple: bool, is_ack: bool) -> None:
        turned.append(tag)
        real(tag, multiple, is_ack and len(turned) > 1)

    reader.confirmed[number] = refused_once
    assert driver.publish([message(topic, "second")]).result(10) == [None]
    assert len(turned) == 2, "told as stored only when the second try was"
    assert ready(channel, f"g.{topic}") == 3, "this server had stored the first try, too"


def test_what_was_on_its_way_when_the_connection_ended_is_sent_again(
    driver: RabbitMQDriver, parts: _Parts, broker: Broker, channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=1)).close(5)
    assert driver.publish([message(topic, "first")]).result(10) == [None]
    swallowed = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "write", lambda connection, data: swallowed.set())
        confirmation = driver.publish([message(topic, "second")])
        assert swallowed.wait(10)
    assert not confirmation.done()
    cut(parts._sending)
    assert confirmation.result(15) == [None]
    assert ready(channel, f"g.{topic}") == 2


def test_a_delayed_task_stays_with_the_server_until_the_copy_of_this_very_delivery_is_confirmed(
    driver: RabbitMQDriver, parts: _Parts, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged before, or by a confirmation of what an earlier connection had brought, a killed worker loses it."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=1))
    moves = held_moves(driver, parts, topic, monkeypatch)
    assert parts._holder is not None
    cut(parts._holder._channel._link)
    eventually(lambda: len(moves) == 2, what="brought again: it was not acknowledged")
    moves[0].set_result([None])
    cut(parts._holder._channel._link)
    eventually(lambda: len(moves) == 3, what="brought again: what was confirmed was another delivery's copy")
    subscription.close(5)


def test_one_connection_that_finds_the_server_again_tells_the_others(parts: _Parts) -> None:
    """Each with its own waits, the last of ten would be back seconds after the server."""
    link = parts._links.open_for("some queue")
    before = link.await_up(10), parts._links.asking.await_up(10)

    def cut_both() -> None:
        link._wait = 60.0
        link.reset("cut by the test")
        parts._links.asking.reset("cut by the test")

    link.run(cut_both)
    eventually(lambda: parts._links.asking.connection not in (before[1], None))
    eventually(lambda: link.connection not in (before[0], None), timeout=5)
    link.close(5)


def test_what_is_given_up_comes_again(driver: RabbitMQDriver, parts: _Parts, broker: Broker) -> None:
    """Its queues have no dead-letter exchange: not put back it would be gone."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    subscription: Any = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=5))
    assert driver.publish([message(topic, "m")]).result(10) == [None]
    got: list[Any] = []

    def received() -> int:
        got.extend(subscription.receive(5, 0.2))
        return len(got)

    eventually(lambda: received() == 1)
    parts._links.asking.run(lambda: subscription._give_up(got[0]))
    eventually(lambda: received() == 2)
    assert got[1].handle.count == got[0].handle.count + 1
    subscription.ack(got[1:])
    subscription.close(5)


def test_what_an_earlier_connection_had_brought_is_not_moved_on_again(
    driver: RabbitMQDriver, parts: _Parts, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server brings it anew: moved on from before as well, a delayed task would run twice."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=1))
    moves = held_moves(driver, parts, topic, monkeypatch)
    assert parts._holder is not None
    cut(parts._holder._channel._link)
    eventually(lambda: len(moves) == 2)
    moves[0].set_result([PublishError("not now")])
    never(lambda: len(moves) > 2, during=2.5 * RETRY_AFTER_MS / 1000)
    subscription.close(5)


def test_a_copy_that_is_confirmed_after_its_connection_ended_acks_nothing_on_the_next(
    driver: RabbitMQDriver, broker: Broker
) -> None:
    """The same tag means another delivery there: that one would be lost."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=5))
    assert isinstance(subscription, RabbitSubscription)
    link = subscription._feeds[f"g.{topic}"].channel._link
    assert driver.publish([message(topic, "m")]).result(10) == [None]
    (first,) = subscription.receive(1, 10)
    sent: Confirmation = Future()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscription._publisher, "send", lambda messages: sent)
        subscription.release([first])
    cut(link)
    (second,) = subscription.receive(1, 10)
    assert second.handle.tag == first.handle.tag
    sent.set_result([None])
    never(lambda: second.lost, during=0.5)
    cut(link)
    (third,) = subscription.receive(1, 10)
    assert third.headers["nova-id"] == "m"
    subscription.close(5)


def test_what_a_busy_worker_has_ahead_is_anothers_after_a_while_and_not_before(
    driver: RabbitMQDriver, broker: Broker
) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    request = SubscribeRequest(topics=(topic,), group="g", prefetch=10)
    busy = driver.subscribe(request)
    assert isinstance(busy, RabbitSubscription)
    assert busy.receive(10, 0.5) == [], "its consumer takes ten from now on"
    assert driver.publish([message(topic, f"m{number}") for number in range(10)]).result(10) == [None] * 10
    eventually(lambda: busy._stocked == 10)
    (mine,) = busy.receive(1, 1)
    idle = driver.subscribe(request)
    assert idle.receive(10, STALE_AFTER - 0.5) == [], "it may ask again"
    found: list[Delivery] = []

    def all_came() -> bool:
        found.extend(idle.receive(10, 0.1))
        return len(found) == 9

    eventually(all_came, timeout=STALE_AFTER + 5)
    assert {delivery.handle.count for delivery in found} == {0}
    assert not mine.lost
    idle.close(5)
    busy.close(5)


def held_moves(
    driver: RabbitMQDriver, parts: _Parts, topic: str, monkeypatch: pytest.MonkeyPatch
) -> list[Confirmation]:
    """A delayed task has fallen due: the confirmations of its copies, none of which comes by itself."""
    moves: list[Confirmation] = []

    def no_answer_yet(messages: object) -> Confirmation:
        moves.append(Future())
        return moves[-1]

    assert parts._holder is not None
    monkeypatch.setattr(parts._holder, "_publish", no_answer_yet)
    due_ms = int(time.time() * 1000) + 100
    assert driver.publish([Message(topic, b"x", {"nova-id": "m"}, "m", due_ms=due_ms)]).result(10) == [None]
    eventually(lambda: len(moves) == 1)
    return moves
