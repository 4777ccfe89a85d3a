"""With the Go Nova on one server: its forms by fixed bytes, both ways. What they are is in docs/wire.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from nova import Priority, ReceivedTask, Task
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never

GO_TASK = (
    b'{"task_id":"5f0c7a1e-3a53-4a0c-8c8e-0f6f2a0d6d11_TASKS","task":{"Type":"email.send","Payload":"eyJ0byI6ImFAYi5jIn0="},'
    b'"queue":"%s","priority":3}'
)
GO_DELAYED = (
    b'{"task_id":"0b9d3c52-9d3f-4f43-8d8e-3a1f0a6b7c22_TASKS","task":{"Type":"email.send","Payload":null},'
    b'"target_topic":"%s","target_queue":"","priority":2,"execute_at":"2026-11-21T14:00:00.123456789Z",'
    b'"created_at":"2026-11-21T13:00:00.123456789Z"}'
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("rabbitmq", tmp_path, {"go_compatible": True})
    yield made
    made.close()


@pytest.fixture
def channel(broker: Broker) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(broker.section["url"]))
    opened = connection.channel()
    yield opened
    for rank in ("HIGH", "NORMAL", "LOW"):
        opened.queue_delete(f"{broker.prefix}-{broker.prefix}_PRIORITY_{rank}")
    opened.queue_delete(f"{broker.prefix}-tasks_TARGET_QUEUE")
    connection.close()


def go_publish(channel: BlockingChannel, exchange: str, key: str, body: bytes, priority: str) -> None:
    """As Go's producer does it."""
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=json.loads(body)["task_id"],
        timestamp=int(datetime(2026, 11, 21, 13, tzinfo=UTC).timestamp()),
        headers={"queue": key, "priority": priority, "task_type": "email.send"},
    )
    channel.basic_publish(exchange, key, body, properties)


def go_consumer(channel: BlockingChannel, prefix: str, topic: str) -> str:
    """The queue that a Go consumer declares and binds."""
    exchange, queue = f"{prefix}-exchange", f"{prefix}-{topic}"
    channel.exchange_declare(exchange, "topic", durable=True)
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, exchange, topic)
    return queue


def test_what_a_go_producer_sends_is_handled(broker: Broker, channel: BlockingChannel) -> None:
    topic = f"{broker.prefix}_PRIORITY_HIGH"
    go_consumer(channel, broker.prefix, topic)
    seen: list[ReceivedTask] = []
    q = broker.queue()
    q.start(seen.append)
    go_publish(channel, f"{broker.prefix}-exchange", topic, GO_TASK % topic.encode(), "3")
    eventually(lambda: seen)
    (task,) = seen
    assert (task.id, task.type) == ("5f0c7a1e-3a53-4a0c-8c8e-0f6f2a0d6d11_TASKS", "email.send")
    assert (task.json(), task.priority, task.queue) == ({"to": "a@b.c"}, Priority.HIGH, "default")


def test_what_go_has_delayed_is_handled(broker: Broker, channel: BlockingChannel) -> None:
    queue = f"{broker.prefix}-tasks_TARGET_QUEUE"
    channel.queue_declare(queue, durable=True)
    go_publish(channel, "", queue, GO_DELAYED % f"{broker.prefix}-tasks".encode(), "2")
    seen: list[ReceivedTask] = []
    broker.queue().start(seen.append)
    eventually(lambda: seen)
    assert (seen[0].id, seen[0].queue) == ("0b9d3c52-9d3f-4f43-8d8e-3a1f0a6b7c22_TASKS", "default")
    assert seen[0].payload == b""


def test_a_go_consumer_gets_the_very_document_and_headers_it_knows(broker: Broker, channel: BlockingChannel) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    queue = go_consumer(channel, broker.prefix, topic)
    broker.queue().enqueue(Task("email.send", {"to": "a@b.c"}, id="mine"))
    got: list[tuple[Any, Any]] = []

    def fetch() -> bool:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is not None:
            got.append((properties, body))
        return bool(got)

    eventually(fetch)
    ((properties, body),) = got
    expected = (
        b'{"task_id":"mine","task":{"Type":"email.send","Payload":"eyJ0byI6ImFAYi5jIn0="},"queue":"%s","priority":2}'
    )
    assert body == expected % topic.encode()
    assert (properties.message_id, properties.content_type, properties.delivery_mode) == ("mine", "application/json", 2)
    assert properties.timestamp is not None
    headers = {name: properties.headers[name] for name in ("queue", "priority", "task_type")}
    assert headers == {"queue": topic, "priority": "2", "task_type": "email.send"}


def test_a_group_beside_go_consumers_retries_in_their_queue_and_buries_in_its_own(
    broker: Broker, channel: BlockingChannel
) -> None:
    go_consumer(channel, broker.prefix, f"{broker.prefix}_PRIORITY_NORMAL")
    q = broker.queue(retry={"max_retries": 1, "base": 0.01})
    attempts: list[int] = []

    def fail(task: ReceivedTask) -> None:
        attempts.append(task.attempt)
        raise RuntimeError

    q.start(fail)
    q.enqueue(Task("t"))
    eventually(lambda: len(q.dead.list()) == 1)
    assert attempts == [1, 2]
    never(lambda: len(attempts) > 2, during=0.3)
