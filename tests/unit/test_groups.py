"""`q.groups`: names are checked first, and drivers without a register are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from nova import ConfigError, NotSupported, Task, TaskQueue, with_driver, with_group_id, with_memory, with_sqlite
from nova.brokers.base import (
    Capabilities,
    Confirmation,
    DeadLetters,
    Driver,
    DriverContext,
    GroupRegistry,
    Message,
    SubscribeRequest,
    Subscription,
    TopicDepth,
)
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver


class WithoutRegister:
    """Memory, without what is optional."""

    def __init__(self) -> None:
        self._inner = MemoryDriver(MemoryConfig())

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def open(self, context: DriverContext, timeout: float) -> None:
        self._inner.open(context, timeout)

    def close(self, timeout: float = 10.0) -> None:
        self._inner.close(timeout)

    def ensure(self, topics: Sequence[str]) -> None:
        self._inner.ensure(topics)

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        return self._inner.publish(messages)

    def subscribe(self, request: SubscribeRequest) -> Subscription:
        return self._inner.subscribe(request)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        return self._inner.depth(topics, group)

    def browse_dead(self, topic: str, group: str) -> DeadLetters:
        return self._inner.browse_dead(topic, group)

    def housekeeping(self) -> None:
        self._inner.housekeeping()


def test_a_driver_without_a_register_is_still_a_driver_and_says_so() -> None:
    driver = WithoutRegister()
    assert isinstance(driver, Driver)
    assert not isinstance(driver, GroupRegistry)
    q = TaskQueue(with_driver(driver))
    q.enqueue(Task("t"))
    assert q.drain(lambda task: None) == 1
    for ask in (q.groups.list, lambda: q.groups.remove("g")):
        with pytest.raises(NotSupported, match=r"'memory' cannot list or remove groups.*use the broker's own tools"):
            ask()


def test_an_illegal_name_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "n.db"
    q = TaskQueue(with_sqlite(file))
    for name in ("a.b", "", "!1", "x" * 51, 7, None):
        with pytest.raises(ConfigError, match=r"groups\.remove: expected 1 to 50 letters"):
            q.groups.remove(name)  # type: ignore[arg-type]
    assert not file.exists()


def test_a_group_that_only_has_messages_addressed_to_it_is_listed_and_removed() -> None:
    driver = MemoryDriver(MemoryConfig())
    q = TaskQueue(with_driver(driver), with_group_id("b"))
    q.connect()
    driver.publish([Message("TASK_QUEUE_DEAD", b"", {}, "m1", group="a")]).result()
    (group,) = q.groups.list()
    assert (group.name, group.queues, group.topics, group.waiting, group.active) == ("a", (), (), 1, False)
    assert q.groups.remove("a")
    assert q.groups.list() == []


def test_room_of_a_removed_group_is_free_again() -> None:
    q = TaskQueue(with_memory(max_messages=10))
    q.drain(lambda task: None)
    q.enqueue_batch([Task("t") for _ in range(10)])
    assert q.groups.remove("TASK_QUEUE_GROUP")
    assert len(q.enqueue_batch([Task("t") for _ in range(10)]).accepted) == 10
