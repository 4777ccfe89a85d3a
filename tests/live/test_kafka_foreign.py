"""What others may write into Nova's topics: it harms nobody else's task."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import Producer

from nova import ReceivedTask, Task
from nova.brokers.base import DriverContext, SubscribeRequest
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.driver import KafkaDriver
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never

Headers = dict[str, str | bytes | None]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path, {"escrow_after": 1.0, "escrow_lease": 3.0, "revoke_grace": 0.5})
    yield made
    made.close()


SENT = 30.0
"""Seconds in which a new client has sent a record, on a busy machine; an idle one takes some 0.1."""


def produce(broker: Broker, topic: str, headers: Headers, *, key: bytes = b"k", value: bytes | None = b"x") -> None:
    producer = Producer({"bootstrap.servers": broker.section["bootstrap_servers"]})
    producer.produce(topic, value, key, 0, headers=headers)
    assert producer.flush(SENT) == 0


NUMBERS = ["²", "-1", "", "9" * 5000, "1.5", "x"]


@pytest.mark.parametrize("header", ["nova-x-sent", "nova-x-deaths"])
def test_headers_that_are_no_numbers_stop_no_other_task(broker: Broker, header: str) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    q = broker.queue()
    seen: set[str] = set()
    q.enqueue_batch([Task("t", i, id=f"a{i}") for i in range(50)])
    for text in NUMBERS:
        produce(broker, topic, {header: text})
    q.enqueue_batch([Task("t", i, id=f"b{i}") for i in range(50)])
    q.start(lambda task: seen.add(task.id))
    eventually(lambda: len(seen) == 100)
    eventually(lambda: q.depth().running + q.depth().waiting == 0)
    assert len(q.dead.list(limit=100)) == len(NUMBERS), "bytes that are no task are buried"


def test_foreign_records_in_a_delay_topic_stop_no_other_delay(broker: Broker) -> None:
    near = f"{broker.prefix}_DELAY_0"
    q = broker.queue()
    q.enqueue_batch([Task("t", i, id=f"a{i}") for i in range(20)], process_in=0.5)
    target = f"{broker.prefix}_PRIORITY_NORMAL"
    foreign: list[Headers] = [
        {},
        {"nova-x-escrow": "token"},
        {"nova-x-due": "1", "nova-x-target": "not a topic!"},
        {"nova-x-due": "1", "nova-x-target": "somebody-elses"},
        {"nova-x-due": "9" * 400, "nova-x-target": target},
        {"nova-x-due": "²", "nova-x-target": target},
        {"nova-x-due": "1"},
    ]
    for headers in foreign:
        produce(broker, near, headers)
    q.enqueue_batch([Task("t", i, id=f"b{i}") for i in range(20)], process_in=0.5)
    seen: set[str] = set()
    q.start(lambda task: seen.add(task.id))
    eventually(lambda: len(seen) == 40)


def test_a_delay_whose_target_cannot_be_made_holds_up_no_other(broker: Broker) -> None:
    near = f"{broker.prefix}_DELAY_0"
    q = broker.queue()
    q.enqueue(Task("t", id="first"), process_in=0.2)
    produce(broker, near, {"nova-x-due": "1", "nova-x-target": f"{broker.prefix}_not a topic!"})
    q.enqueue_batch([Task("t", i, id=f"b{i}") for i in range(20)], process_in=0.5)
    seen: set[str] = set()
    q.start(lambda task: seen.add(task.id))
    eventually(lambda: len(seen) == 21)


@pytest.mark.parametrize(("lease", "runs"), [(b"done", False), (b"released", True), (None, True), (b"garbage", True)])
def test_a_copy_in_escrow_is_dropped_only_if_its_lease_says_done(
    broker: Broker, lease: bytes | None, runs: bool
) -> None:
    q = broker.queue()
    seen: list[str] = []
    q.start(lambda task: seen.append(task.id))
    q.enqueue(Task("t", id="warm"), process_in=0.1)
    eventually(lambda: seen == ["warm"])
    topic, leases = f"{broker.prefix}_PRIORITY_NORMAL", f"{broker.prefix}_LEASE"
    broker.driver().ensure([leases])
    produce(broker, leases, {}, key=b"long", value=b"9" * 5000)
    if lease is not None:
        produce(broker, leases, {}, key=b"token", value=lease)
    body = b'{"task_id":"copy","task":{"Type":"t","Payload":"MQ=="},"queue":"","priority":2}'
    due = {"nova-x-due": str(time.time_ns() // 1_000_000 + 300), "nova-x-target": topic, "nova-x-escrow": "token"}
    produce(broker, f"{broker.prefix}_DELAY_0", {**due, "nova-group": "g"}, value=body)
    if runs:
        eventually(lambda: seen == ["warm", "copy"])
    else:
        never(lambda: "copy" in seen, during=2.0)


def test_clean_stops_charge_no_task_in_escrow(broker: Broker) -> None:
    ends = threading.Event()
    starts: list[str] = []

    def handle(task: ReceivedTask) -> None:
        starts.append(task.queue)
        ends.wait(60)

    broker.queue().enqueue(Task("t", id="long"))
    for stop in range(4):
        q = broker.queue()
        q.start(handle, concurrency=1)
        eventually(lambda: len(starts) == stop + 1, timeout=30)  # noqa: B023
        never(lambda: False, during=1.8, what="long enough to be in escrow")
        assert not q.stop(timeout=0.5), "its handler still runs"
    q = broker.queue()
    assert q.depth().quarantined == 0
    ends.set()
    q.start(handle)
    eventually(lambda: len(starts) == 5, timeout=30)
    assert q.dead.list() == []


def test_workers_of_a_new_group_that_start_together_get_what_was_sent_before(broker: Broker) -> None:
    for number in range(4):
        prefix = f"{broker.prefix}-{number}"
        queue = broker.queue(topic_prefix=prefix)
        queue.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(100)])
        starts = start_together(broker, prefix, ["g"] * 4)
        assert all(found == {} for found in starts), "the first group begins at the beginning, in every process"


def test_of_groups_that_start_together_exactly_one_is_the_first(broker: Broker) -> None:
    for number in range(4):
        prefix = f"{broker.prefix}-{number}"
        broker.queue(topic_prefix=prefix).enqueue_batch([Task("t", i, id=f"t{i}") for i in range(10)])
        starts = start_together(broker, prefix, ["a", "b", "c"])
        assert sorted(found == {} for found in starts) == [False, False, True]
        assert sorted(sum(found.values()) for found in starts) == [0, 10, 10]


def start_together(broker: Broker, prefix: str, groups: list[str]) -> list[dict[int, int]]:
    """Register each of the groups on a driver of its own at the same moment; returns where each begins."""
    topic = f"{prefix}_PRIORITY_NORMAL"
    drivers = [KafkaDriver(KafkaConfig(**broker.section)) for _ in groups]
    barrier = threading.Barrier(len(groups))
    starts: list[dict[int, int]] = []

    def start(driver: KafkaDriver, group: str) -> None:
        barrier.wait(10)
        subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group=group, prefetch=10))
        starts.append(dict(subscription.starts[topic]))
        subscription.close(5)

    for driver in drivers:
        driver.open(DriverContext(prefix=prefix), 10)
    threads = [
        threading.Thread(target=start, args=(driver, group)) for driver, group in zip(drivers, groups, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for driver in drivers:
        driver.close(5)
    assert len(starts) == len(groups)
    return starts


def test_a_header_whose_name_is_no_utf8_harms_nobody(broker: Broker) -> None:
    """Clients of other languages write any bytes; this one's `headers()` then crashed the interpreter once it was warm."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    q = broker.queue()
    q.enqueue_batch([Task("t", i, id=f"a{i}") for i in range(50)])
    produce_with_header_name(broker, topic, b"\xff\xfe")
    q.enqueue_batch([Task("t", i, id=f"b{i}") for i in range(50)])
    seen: set[str] = set()
    q.start(lambda task: seen.add(task.id))
    eventually(lambda: len(seen) == 100)
    eventually(lambda: q.depth().running + q.depth().waiting == 0)
    assert [letter.reason for letter in q.dead.list()] == ["undecodable"]


def produce_with_header_name(broker: Broker, topic: str, name: bytes) -> None:
    """Through librdkafka itself: its Python client takes text only."""
    (path,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka-*.so*")
    library = ctypes.CDLL(str(path))
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    settings = ctypes.c_void_p(library.rd_kafka_conf_new())
    error = ctypes.create_string_buffer(512)
    servers = broker.section["bootstrap_servers"].encode()
    assert library.rd_kafka_conf_set(settings, b"bootstrap.servers", servers, error, len(error)) == 0
    producer = ctypes.c_void_p(library.rd_kafka_new(0, settings, error, len(error)))
    of_topic, of_value, of_header, end = 1, 4, 9, 0
    arguments = (
        of_topic,
        topic.encode(),
        of_value,
        b"x",
        ctypes.c_size_t(1),
        of_header,
        name,
        b"v",
        ctypes.c_ssize_t(1),
    )
    assert library.rd_kafka_producev(producer, *arguments, end) == 0
    assert library.rd_kafka_flush(producer, 10_000) == 0
    library.rd_kafka_destroy(producer)
