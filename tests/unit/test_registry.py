"""Decorated tasks: checked by their signature on both sides."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from nova import ConfigError, EncodeError, Priority, Task, TaskQueue, priority, with_memory, with_retry


@dataclasses.dataclass
class Item:
    sku: str
    count: int = 1


@pytest.fixture
def q() -> Any:
    with TaskQueue(with_memory(), with_retry(max_retries=0)) as made:
        yield made


def test_calling_runs_it_and_enqueue_sends_it(q: TaskQueue) -> None:
    seen: list[Any] = []

    @q.task("invoice.send", max_retries=5)
    def send_invoice(order_id: int, email: str, *, items: list[Item] | None = None) -> str:
        seen.append((order_id, email, items))
        return "sent"

    assert send_invoice(1, "a@b.c") == "sent"
    assert seen == [(1, "a@b.c", None)]
    seen.clear()
    send_invoice.enqueue(2, email="x@y.z", items=[Item("s")])
    send_invoice.options(priority(Priority.HIGH)).enqueue(3, "h@i.j")
    send_invoice.options(priority=Priority.LOW).options(priority=Priority.HIGH).enqueue(4, "k@l.m")
    asyncio.run(send_invoice.aenqueue(5, "async"))
    assert q.drain() == 4
    assert [entry[0] for entry in seen] == [3, 4, 2, 5]
    assert seen[2] == (2, "x@y.z", [Item("s")])


def test_the_default_type_is_module_and_name(q: TaskQueue) -> None:
    @q.task
    def plain() -> None: ...

    assert plain.type.endswith("plain")
    assert plain.type.startswith(__name__)


def test_arguments_are_checked_before_anything_is_sent(q: TaskQueue) -> None:
    @q.task("t")
    def handle(n: int, item: Item) -> None: ...

    with pytest.raises(EncodeError, match=r"task 't'.*Expected `int`, got `str` - at `\$.n`"):
        handle.enqueue("one", Item("s"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="item"):
        handle.enqueue(1)  # type: ignore[call-arg]
    with pytest.raises(EncodeError, match="no JSON form"):
        handle.enqueue(1, object())  # type: ignore[arg-type]
    assert q.depth().waiting == 0


def test_a_payload_that_does_not_fit_is_a_failed_attempt(q: TaskQueue) -> None:
    @q.task("t")
    def handle(n: int) -> None: ...

    q.enqueue(Task("t", {"n": 1, "unknown": 2}))
    q.enqueue(Task("t", {}))
    q.drain()
    assert [d.error_type for d in q.dead.list()] == ["DecodeError", "DecodeError"]
    assert "unknown" in q.dead.list()[0].error


@pytest.mark.parametrize("index", range(4))
def test_functions_no_payload_can_call_are_refused(q: TaskQueue, index: int) -> None:
    def star(*numbers: int) -> None: ...
    def double_star(**named: int) -> None: ...
    def positional(n: int, /) -> None: ...
    def taken() -> None: ...

    q.task("taken")(taken)
    functions: list[Any] = [star, double_star, positional, taken]
    function = functions[index]
    type_ = "taken" if function is taken else "new"
    with pytest.raises(ConfigError):
        q.task(type_)(function)


def test_wrong_decorator_options_are_refused_when_decorating(q: TaskQueue) -> None:
    def handle() -> None: ...

    for options, words in [({"max_retires": 1}, "max_retries"), ({"task_id": "x"}, "same for every call")]:
        with pytest.raises(ConfigError, match=words):
            q.task("t", **options)(handle)  # type: ignore[arg-type]
    q.task("t")(handle)
