"""The bound on what waits to be sent, where Nova keeps the buffer itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from nova import QueueFull, Task
from nova.brokers.base import Message, SubscribeRequest
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually, never

BUFFERS = {"rabbitmq": "nova.brokers.rabbitmq.outbox", "rocketmq": "nova.brokers.rocketmq.publisher"}
SLOW = 3000
"""Tasks of a call that is still being sent when the next one comes: it takes the server tens of milliseconds at least."""


@pytest.fixture(params=BUFFERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker whose send buffer takes ten tasks or ten kilobytes."""
    buffer = import_module(BUFFERS[request.param])
    monkeypatch.setattr(buffer, "MOST_WAITING", 10)
    monkeypatch.setattr(buffer, "MOST_WAITING_BYTES", 10_000)
    made = make(request.param, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(("count", "size"), [(50, 10), (5, 10_000)], ids=["by count", "by bytes"])
def test_a_call_larger_than_the_buffer_is_taken_where_nothing_waits(broker: Broker, count: int, size: int) -> None:
    q = broker.queue()
    report = q.enqueue_batch(Task("t", b"x" * size) for _ in range(count))
    assert (len(report.accepted), report.failed, report.unknown) == (count, {}, {})


def test_what_comes_while_the_buffer_is_full_is_refused_and_not_stored(broker: Broker) -> None:
    driver = broker.driver()
    topic = f"{broker.prefix}_PRIORITY_NORMAL"

    def message(id_: str) -> Message:
        return Message(topic, b"x", {"nova-id": id_}, id_)

    driver.ensure([topic])
    many = driver.publish([message(f"m{n}") for n in range(SLOW)])
    (late,) = driver.publish([message("late")]).result(10)
    assert isinstance(late, QueueFull)
    assert "enqueue slower" in str(late)
    assert many.result(30) == [None] * SLOW

    subscription = driver.subscribe(SubscribeRequest(topics=(topic,), group="g", prefetch=2 * SLOW))
    seen: set[str | None] = set()

    def receive() -> int:
        seen.update(delivery.task_id for delivery in subscription.receive(SLOW, 0.1))
        return len(seen)

    eventually(lambda: receive() >= SLOW, timeout=60)
    never(lambda: receive() > SLOW, during=0.5)
    assert "late" not in seen
    subscription.close(10)
    driver.close()
