"""What only RocketMQ can show: timers, leases, groups' positions, and the defects of client and server that are worked round.

Scenarios that depend on the server's settings run twice: as the server comes (timers to the second, leases of ten seconds and
more), and tuned.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from nova import (
    BrokerError,
    EnqueueReport,
    PublishError,
    ReceivedTask,
    Reject,
    Task,
    TaskQueue,
    with_rocketmq,
    with_topic_prefix,
)
from nova.brokers.base import Confirmation, Delivery, DriverContext, Message, SubscribeRequest
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.client import Connection
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.dead import REMOVED, RocketDeadLetters
from nova.brokers.rocketmq.driver import RocketMQDriver
from nova.brokers.rocketmq.finished import Finished
from nova.brokers.rocketmq.log_format import Stored, read_messages
from nova.brokers.rocketmq.messages import Outgoing, new_id, request_of
from nova.brokers.rocketmq.names import Names
from nova.brokers.rocketmq.publisher import Publisher
from nova.brokers.rocketmq.stubs import definition, service
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never
from tests.servers.relay import Relay
from tests.servers.rocketmq.finding import private_java, shared_stock
from tests.servers.rocketmq.server import RocketServer, section
from tests.servers.rocketmq.settings import TUNED

AS_IT_COMES = {"invisible_duration": 10.0, "poll_timeout": 5.0}
"""The least that a server takes as it comes."""
POLL = 4.0
"""Seconds that a receive waits for a message, where a test looks at the end of it."""
NEAR = 0.4
"""Seconds by which half of the tasks may be late: timers alone would be late by 0.6 s on average."""
LATE = 2.0
"""And any one, on a busy machine on which a worker has just started."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("rocketmq", tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["tuned", "stock"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A broker on a tuned server, then one on a server as it comes."""
    stock = {**section(shared_stock()), **AS_IT_COMES} if request.param == "stock" else None
    made = make("rocketmq", tmp_path, stock)
    yield made
    made.close()


@pytest.fixture
def admin(broker: Broker) -> Iterator[Admin]:
    made = Admin(config_of(broker), "rocketmq", 10)
    yield made
    made.close()


def lateness(task: ReceivedTask) -> float:
    """Seconds since a task was due."""
    assert task.due_at is not None
    return time.time() - task.due_at.timestamp()


def config_of(broker: Broker) -> RocketMQConfig:
    return RocketMQConfig(**broker.section)


def stored(admin: Admin, topic: str) -> list[Stored]:
    """All that lies in a topic."""
    found: list[Stored] = []
    for server in admin.brokers("a test"):
        settings = server.topic(topic)
        for queue in range(settings["readQueueNums"] if settings else 0):
            at = server.start(topic, queue)
            while at < server.end(topic, queue):
                data, at = server.pull("g", topic, queue, at, 32)
                found += read_messages(data)
    return found


# --- delays and leases, on both kinds of server


def test_delays_are_never_early_and_exact_also_with_timers_to_the_second(either: Broker) -> None:
    q = either.queue()
    late: dict[float, float] = {}
    q.start(lambda task: late.update({task.json(): lateness(task)}))
    q.enqueue(Task("t", 0), process_in=0.1)  # a server that has just started is slow for a second or two
    eventually(lambda: late)
    late.clear()
    delays = [0.05, 0.3, 0.9, 1.7, 2.6, 4.2]
    for delay in delays:
        q.enqueue(Task("t", delay), process_in=delay)
    eventually(lambda: len(late) == len(delays))
    ordered = sorted(late.values())
    assert ordered[0] >= 0
    assert ordered[len(ordered) // 2] < NEAR, late
    assert ordered[-1] < LATE, late


def test_a_lease_is_renewed_for_ten_times_its_length(tmp_path: Path) -> None:
    """On a server as it comes that takes two minutes: see `tests/chaos/test_rocketmq.py`."""
    lease = 2.0
    made = make("rocketmq", tmp_path, {"invisible_duration": lease})
    try:
        q = made.queue()
        starts: list[float] = []
        done: list[str] = []

        def handle(task: ReceivedTask) -> None:
            starts.append(time.monotonic())
            time.sleep(10 * lease)
            done.append(task.id)

        q.start(handle, concurrency=4)
        sent = q.enqueue(Task("t")).task_id
        eventually(lambda: done == [sent], timeout=10 * lease + 20)
        never(lambda: len(starts) > 1, during=lease + 3, what="it came a second time")
    finally:
        made.close()


def test_a_small_lease_that_the_server_does_not_take_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = make("rocketmq", tmp_path, {**section(shared_stock()), "invisible_duration": 2.0, "poll_timeout": 5.0})
    try:
        made.queue().start(lambda task: None)
        eventually(lambda: "ILLEGAL_INVISIBLE_TIME" in caplog.text)
        assert "minInvisibleTimeMillsForRecv" in caplog.text
    finally:
        made.close()


def test_empty_topics_do_not_hold_up_the_others(either: Broker) -> None:
    """One consumer with several topics asks them in turn, and each empty one waits out its poll of five seconds."""
    q = either.queue(queues=["default", "mail", "sms"])
    seen: list[float] = []
    q.start(lambda task: seen.append(time.monotonic()))
    q.enqueue(Task("t"), queue="sms")
    eventually(lambda: seen)
    begin = time.monotonic()
    for _ in range(10):
        before = len(seen)
        q.enqueue(Task("t"), queue="sms")
        eventually(lambda: len(seen) > before)  # noqa: B023
    assert time.monotonic() - begin < 20.0  # in turn it would take 50 s at least


def test_a_stop_waits_once_for_all_receives_under_way(tmp_path: Path) -> None:
    """Those of the worker and of the delays last as long, and one that is cut off can lose what it brings."""
    made = make("rocketmq", tmp_path, {"poll_timeout": POLL})
    try:
        q = made.queue()
        seen: list[str] = []
        q.start(lambda task: seen.append(task.id))
        q.enqueue(Task("t"))
        eventually(lambda: seen)
        never(lambda: False, during=0.5)
        begin = time.monotonic()
        assert q.stop()
        assert time.monotonic() - begin < POLL + 1.5
    finally:
        made.close()


def test_what_a_receive_brings_after_the_stop_began_goes_to_another_worker(tmp_path: Path) -> None:
    made = make("rocketmq", tmp_path, {"poll_timeout": POLL, "invisible_duration": 60.0})
    try:
        q, other = made.queue(), made.queue()
        seen: Counter[str] = Counter()
        q.start(lambda task: seen.update([task.id]))
        q.enqueue(Task("t", id="first"))
        eventually(lambda: seen)
        stopping = threading.Thread(target=q.stop)
        stopping.start()
        never(lambda: False, during=0.5)
        other.enqueue_batch([Task("t", id=f"t{number}") for number in range(40)])
        stopping.join()
        other.start(lambda task: seen.update([task.id]))
        eventually(lambda: len(seen) == 41, timeout=20, what="tasks wait for the lease of who is gone")
        assert set(seen.values()) == {1}
    finally:
        made.close()


# --- chains


@pytest.fixture(scope="module")
def short_timers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RocketServer]:
    """A server that takes delays of up to two seconds, as others do of a day."""
    started = private_java(tmp_path_factory.mktemp("rocketmq"), TUNED.with_proxy(maxDelayTimeMills=2000))
    yield started
    started.stop()


def test_forty_days_are_chained_where_a_day_is_half_a_second(short_timers: RocketServer, tmp_path: Path) -> None:
    made = make("rocketmq", tmp_path, {**section(short_timers.address), "max_delay": 0.5, "delay_guard": 0.1})
    admin = Admin(config_of(made), "rocketmq", 10)
    try:
        q = made.queue()
        late: list[float] = []
        q.start(lambda task: late.append(lateness(task)))
        q.enqueue(Task("t"), process_in=20.0)
        eventually(lambda: late, timeout=40)
        never(lambda: len(late) > 1, during=1.0)
        assert 0 <= late[0] < LATE
        hops = len(stored(admin, Names(made.prefix).near))
        assert 25 <= hops <= 60, f"{hops} hops of half a second, each a little late"
    finally:
        admin.close()
        made.close()


def test_a_longer_delay_than_the_server_takes_says_which_option(short_timers: RocketServer, tmp_path: Path) -> None:
    made = make("rocketmq", tmp_path, section(short_timers.address))
    try:
        report = made.queue().enqueue_batch([Task("t")], process_in=60.0)
        (error,) = report.failed.values()
        assert "ILLEGAL_DELIVERY_TIME" in str(error)
        assert "max_delay" in str(error)
    finally:
        made.close()


# --- what is wrong with client or server


class _Recorded(Connection):
    """A connection that remembers what it sent."""

    def __init__(self, config: RocketMQConfig) -> None:
        super().__init__(config, "rocketmq")
        self.sent: list[Any] = []

    def start(self, method: str, request: Any, timeout: float, client_id: str | None = None) -> Any:
        self.sent.append(request)
        return super().start(method, request, timeout, client_id)


def test_no_request_has_two_timed_messages(broker: Broker) -> None:
    """The server says OK to them and never delivers a timed message again."""
    q = broker.queue()
    q.enqueue(Task("t"))  # makes the topics
    connection = _Recorded(config_of(broker))
    publisher = Publisher(connection, send_timeout=5, request_timeout=5)
    near, due = Names(broker.prefix).near, round(time.time() * 1000) + 500
    messages = [Outgoing(near, b"x", {}, f"t{i}", due, new_id()) for i in range(40)]
    messages += [Outgoing(f"{broker.prefix}_PRIORITY_NORMAL", b"x", {}, f"n{i}", None, new_id()) for i in range(300)]
    assert publisher.send(messages).result(10) == [None] * 340
    publisher.close(5)
    connection.close()
    timed = [r for r in connection.sent if any(m.system_properties.HasField("delivery_timestamp") for m in r.messages)]
    assert [len(request.messages) for request in timed] == [1] * 40
    assert max(len(request.messages) for request in connection.sent) == 128


def test_delays_have_milliseconds(broker: Broker, admin: Admin) -> None:
    """The official client sends whole seconds."""
    q = broker.queue()
    q.enqueue(Task("t", id="exact"), process_in=30.0)
    due = q.enqueue(Task("t", id="exact2"), process_in=30.0).due_at
    assert due is not None
    message = Outgoing(Names(broker.prefix).near, b"x", {}, "t", 1_700_000_000_123, new_id())
    assert request_of([message]).messages[0].system_properties.delivery_timestamp.ToMilliseconds() == 1_700_000_000_123


def test_the_first_receive_after_subscribing_is_not_refused(broker: Broker) -> None:
    """A server that has not had the consumer's settings answers a receive with a null pointer, which is shown first."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    broker.queue().enqueue(Task("t"))
    connection = Connection(config_of(broker), "rocketmq")
    request = service.ReceiveMessageRequest(batch_size=1)
    request.group.name, request.message_queue.topic.name = "nobody", topic
    request.invisible_duration.FromMilliseconds(5000)
    answers = list(connection.stream("ReceiveMessage", request, 10.0, "never-told"))
    connection.close()
    assert answers[0].status.code == definition.Code.INTERNAL_SERVER_ERROR
    for number in range(5):
        driver = RocketMQDriver(config_of(broker))
        driver.open(DriverContext(prefix=broker.prefix), 10)
        subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group=f"g{number}", prefetch=10))
        for _ in range(10):
            subscription.receive(1, 0.1)
            assert subscription.trouble is None
        driver.close()


def test_a_producer_that_connects_first_does_not_hide_the_topics_it_makes(broker: Broker) -> None:
    """The proxy remembers for 20 s that a topic is missing, if anybody asks for it before it is made."""
    q = broker.queue()
    q.connect()
    begin = time.monotonic()
    q.enqueue(Task("t"))
    assert time.monotonic() - begin < 5.0


def test_a_proxy_that_comes_back_takes_what_had_not_left(broker: Broker) -> None:
    """The official client tries three times within milliseconds, then gives up."""
    relay = Relay(broker.section["endpoints"])
    made = TaskQueue(
        with_rocketmq(relay.address, admin=broker.section["admin"], poll_timeout=0.3), with_topic_prefix(broker.prefix)
    )
    try:
        made.enqueue(Task("t", id="before"))
        relay.take_away()
        answers: list[EnqueueReport] = []
        sending = threading.Thread(target=lambda: answers.append(made.enqueue_batch([Task("t", id="meanwhile")])))
        sending.start()
        never(lambda: answers, during=2.0)
        relay.bring_back()
        sending.join(30)
        assert [done.task_id for done in answers[0].accepted] == ["meanwhile"]
        seen: Counter[str] = Counter()
        made.start(lambda task: seen.update([task.id]))
        eventually(lambda: set(seen) == {"before", "meanwhile"})
        relay.take_away()
        never(lambda: False, during=1.0)
        relay.bring_back()
        eventually(lambda: made.enqueue_batch([Task("t", id="after")]).accepted)
        eventually(lambda: "after" in seen, what="the worker is deaf")
    finally:
        made.stop(timeout=5)
        relay.take_away()


def test_acks_and_renewals_work_from_any_thread_while_they_cross(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's receipts of renewed leases are wrong, and an ack with one from before a renewal has no effect."""
    monkeypatch.setattr(Finished, "add", lambda finished, places: None)  # or what comes again is passed over
    q = broker.queue()
    seen: Counter[str] = Counter()

    def handle(task: ReceivedTask) -> None:
        seen.update([task.id])
        time.sleep(1.45 + int(task.id) % 20 / 100)  # leases are renewed at 1.5 s

    q.start(handle, concurrency=50)
    q.enqueue_batch([Task("t", id=str(i)) for i in range(100)])
    eventually(lambda: len(seen) == 100, timeout=40)
    eventually(lambda: q.depth().waiting == 0)
    never(lambda: sum(seen.values()) > 100, during=6.0, what="an ack was lost, the message came again")


def test_what_was_renewed_and_acked_does_not_come_again(either: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server as it comes the receipts of renewed leases are wrong, but for the first message of a receive."""
    monkeypatch.setattr(Finished, "add", lambda finished, places: None)
    topic, lease = f"{either.prefix}_PRIORITY_NORMAL", either.section["invisible_duration"]
    driver = either.driver()
    driver.ensure([topic])
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=100))
    assert driver.publish([Message(topic, b"x", {}, f"t{number}") for number in range(40)]).result(10) == [None] * 40
    held: list[Delivery] = []

    def receive() -> int:
        held.extend(subscription.receive(40, 0.5))
        return len(held)

    eventually(lambda: receive() == 40)
    never(lambda: any(delivery.lost for delivery in held), during=0.5 * lease + 1)
    subscription.ack(held)
    never(lambda: receive() > 40, during=lease + 5, what="an ack had no effect")
    driver.close()


def test_headers_of_any_text_arrive(broker: Broker) -> None:
    """The proxy refuses control characters, empty values and names of its own."""
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    headers = {"nova-id": "a b\n", "KEYS": "mine", "TAGS": "x", "e": "", "odd name": "\x01\x02\u2028", "p": " "}
    driver.ensure([topic])
    assert driver.publish([Message(topic, b"", headers, "a b\n")]).result(10) == [None]
    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=10))
    got: list[Delivery] = []

    def receive() -> bool:
        got.extend(subscription.receive(10, 0.2))
        return bool(got)

    eventually(receive)
    assert (got[0].body, dict(got[0].headers)) == (b"", headers)
    driver.close()


def test_the_message_key_is_the_task_id(broker: Broker, admin: Admin) -> None:
    broker.queue().enqueue(Task("t", id="order-42"))
    (found,) = stored(admin, f"{broker.prefix}_PRIORITY_NORMAL")
    assert found.properties["KEYS"] == "order-42"
    assert found.properties["task_type"] == "t"


def test_what_a_go_producer_delays_is_read_as_the_default_queue(broker: Broker, admin: Admin) -> None:
    topic = f"{broker.prefix}-tasks"
    for server in admin.brokers("a test"):
        server.make_topic(topic, "NORMAL", 1)
    eventually(lambda: admin.has_route(topic))
    q = broker.queue()
    seen: list[tuple[str, str]] = []
    q.start(lambda task: seen.append((task.type, task.queue)))
    body = b'{"task_id":"g1","task":{"Type":"go","Payload":"e30="},"queue":"","priority":2}'
    connection = Connection(config_of(broker), "rocketmq")
    request = request_of([Outgoing(topic, body, {"task_type": "go"}, "g1", None, new_id())])
    eventually(lambda: connection.call("SendMessage", request, 5).status.code == definition.Code.OK)
    connection.close()
    eventually(lambda: seen == [("go", "default")])


def test_two_processes_see_the_same_dead_letters_at_once(broker: Broker) -> None:
    def reject(task: ReceivedTask) -> None:
        raise Reject("no")

    q, other = broker.queue(), broker.queue()
    q.start(reject)
    q.enqueue_batch([Task("t", id=f"t{i}") for i in range(300)])
    eventually(lambda: len(q.dead.list(limit=1000)) == 300)
    assert len(other.dead.list(limit=1000)) == 300
    assert other.dead.purge(limit=250) == 250
    assert len(q.dead.list(limit=1000)) == 50
    assert len(other.dead.list(limit=1000)) == 50


def test_dead_letters_are_written_anew_before_the_broker_deletes_them(broker: Broker, admin: Admin) -> None:
    """Two workers look after the same letters at the same time."""
    drivers = [RocketMQDriver(config_of(broker)) for _ in range(2)]
    for driver in drivers:
        driver.open(DriverContext(prefix=broker.prefix), 10)
        driver.subscribe(SubscribeRequest(topics=(f"{broker.prefix}_PRIORITY_NORMAL",), group="g", prefetch=10))
    dead = f"{broker.prefix}_DEAD"
    headers = {"nova-target": "t", "nova-error": "line\nline"}
    letters = [Message(dead, b"body %d" % i, {**headers, "nova-id": f"t{i}"}, f"t{i}", group="g") for i in range(700)]
    assert drivers[0].publish(letters).result(20) == [None] * 700
    reader = drivers[0].browse_dead(dead, "g")
    eventually(lambda: len(reader.read(1000)) == 700)  # a broker shows what it has confirmed a moment later
    before = {delivery.headers["nova-id"]: (delivery.body, dict(delivery.headers)) for _, delivery in reader.read(1000)}
    now_ms = round(time.time() * 1000) + 1
    looking = [threading.Thread(target=driver._open_parts.renew_letters, args=(now_ms,)) for driver in drivers]
    for thread in looking:
        thread.start()
    for thread in looking:
        thread.join()
    after = reader.read(2000)
    assert len(after) == len(before) == 700
    assert {d.headers["nova-id"]: (d.body, dict(d.headers)) for _, d in after} == before
    assert min(int(cursor[:15]) for cursor, _ in after) >= now_ms - 1000
    assert sum("nova-x-removed" not in found.properties for found in stored(admin, dead)) == 1400
    for driver in drivers:
        driver.close()


def test_letters_that_cannot_be_written_anew_are_still_there(broker: Broker) -> None:
    driver, dead = RocketMQDriver(config_of(broker)), Names(broker.prefix).dead
    driver.open(DriverContext(prefix=broker.prefix), 10)
    driver.ensure([dead])
    letters = [Message(dead, b"x", {"nova-id": f"t{i}"}, f"t{i}", group="g") for i in range(5)]
    assert driver.publish(letters).result(10) == [None] * 5
    eventually(lambda: len(driver.browse_dead(dead, "g").read(10)) == 5)
    parts = driver._open_parts

    def refuse(messages: Sequence[Outgoing]) -> Confirmation:
        if any(REMOVED in message.headers for message in messages):
            return parts.publisher.send(messages)
        refused: Confirmation = Future()
        refused.set_result([PublishError("no")] * len(messages))
        return refused

    with pytest.raises(BrokerError, match="no"):
        RocketDeadLetters(parts._graveyard, dead, "g", refuse, 5.0).renew(round(time.time() * 1000) + 1)
    assert len(driver.browse_dead(dead, "g").read(10)) == 5
    driver.close()


def test_groups_that_begin_at_the_same_time_agree_on_the_first(broker: Broker) -> None:
    producer = broker.queue(group="p")
    producer.enqueue_batch([Task("t", i) for i in range(20)])
    seen: dict[str, Counter[str]] = {group: Counter() for group in ("a", "b", "c")}

    def begin(group: str) -> None:
        broker.queue(group=group).start(lambda task: seen[group].update([task.id]))

    starting = [threading.Thread(target=begin, args=(group,)) for group in seen]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    eventually(lambda: any(len(found) == 20 for found in seen.values()))
    never(lambda: sum(len(found) for found in seen.values()) > 20, during=0.5)


# --- dead letters in a topic that others made or wrote to


def test_dead_letters_are_found_in_every_queue_of_their_topic(broker: Broker, admin: Admin) -> None:
    """mqadmin makes eight of them, also when it is called as Nova's own error says."""
    dead = Names(broker.prefix).dead
    for server in admin.brokers("a test"):
        server.make_topic(dead, "NORMAL", 8)
    eventually(lambda: admin.has_route(dead))

    def reject(task: ReceivedTask) -> None:
        raise Reject("no")

    q = broker.queue()
    q.start(reject)
    for number in range(30):
        q.enqueue(Task("t", id=f"t{number}"))
    eventually(lambda: len(q.dead.list(limit=100)) == 30)
    assert q.dead.purge(limit=12) == 12
    assert q.depth().dead == 18
    assert len(broker.queue().dead.list(limit=100)) == 18


@pytest.mark.parametrize("places", ["garbage", "a/b/c", "broker-a/0", "broker-a/0/" + "9" * 5000, "/ //"])
def test_a_strange_message_among_the_dead_letters_hides_none(broker: Broker, places: str) -> None:
    driver, dead = broker.driver(), Names(broker.prefix).dead
    driver.ensure([dead])
    letter = Message(dead, b"x", {"nova-id": "t", "TRACE": "kept"}, "t", group="g")
    assert driver.publish([Message(dead, b"x", {"nova-x-removed": places}, "s"), letter]).result(10) == [None, None]
    eventually(lambda: len(driver.browse_dead(dead, "g").read(10)) == 1)
    ((_, found),) = driver.browse_dead(dead, "g").read(10)
    assert found.headers["TRACE"] == "kept"
    driver.close()
