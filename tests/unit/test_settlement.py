"""The settling rule: publish, wait for the confirmation, then ack; what is refused is tried again, never dropped."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import pytest

from nova import ReceivedTask, Task, TaskQueue, with_driver, with_message_format, with_retry
from nova.brokers.base import Confirmation, Delivery, Message
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.envelope import METADATA
from nova.errors import PublishError, QueueFull
from nova.settlement import Move, Settler
from tests.eventually import eventually, never

FORMS = 5
"""Tries of what is taken in no form: the copy, the copy alone, three letters."""


class Source:
    """Remembers what was settled."""

    def __init__(self) -> None:
        self.acked: list[str] = []
        self.released: list[str] = []

    def ack(self, deliveries: list[Delivery]) -> None:
        self.acked += [delivery.headers["nova-id"] for delivery in deliveries]

    def release(self, deliveries: list[Delivery]) -> None:
        self.released += [delivery.headers["nova-id"] for delivery in deliveries]


class Moody(MemoryDriver):
    """The memory driver, whose answers a test holds back or turns down."""

    def __init__(self) -> None:
        super().__init__(MemoryConfig())
        self.answers: list[tuple[list[Message], Confirmation]] = []

    def publish(self, messages: object) -> Confirmation:
        future: Confirmation = Future()
        self.answers.append((list(messages), future))  # type: ignore[call-overload]
        return future


def delivery(number: int) -> Delivery:
    return Delivery("T", b"x", {"nova-id": f"m{number}"})


class Picky(MemoryDriver):
    """The memory driver, with a limit for what a message's headers hold together."""

    def __init__(self, most: int) -> None:
        super().__init__(MemoryConfig())
        self.most = most
        self.refused = 0

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        sizes = [sum(map(len, message.headers.values())) for message in messages]
        if all(size <= self.most for size in sizes):
            return super().publish(messages)
        self.refused += 1
        future: Confirmation = Future()
        future.set_result([PublishError("too large", is_permanent=True)] * len(messages))
        return future


def move(source: Source, number: int) -> Move:
    return Move(source, delivery(number), Message("T", b"x", {}, f"copy{number}"))


def test_a_source_is_acked_only_after_its_copy_is_confirmed() -> None:
    driver, source = Moody(), Source()
    settler = Settler(driver, "test")
    settler.start()
    settler.move(move(source, 1))
    eventually(lambda: driver.answers)
    never(lambda: source.acked, during=0.2)
    driver.answers[0][1].set_result([None])
    eventually(lambda: source.acked == ["m1"])
    assert settler.close(5)


def test_refused_copies_are_published_again_until_they_are_taken() -> None:
    driver, source = Moody(), Source()
    settler = Settler(driver, "test")
    settler.start()
    for number in range(3):
        settler.move(move(source, number))
    taken: set[str] = set()

    def answer() -> bool:
        while driver.answers:
            messages, future = driver.answers.pop(0)
            refuse: list[PublishError | None] = [
                None if message.id in taken else QueueFull("no room") for message in messages
            ]
            taken.update(message.id for message in messages)
            future.set_result(refuse)
        return sorted(source.acked) == ["m0", "m1", "m2"]

    eventually(answer)
    assert settler.close(5)


def test_a_lost_delivery_is_given_up_and_not_copied() -> None:
    driver, source = Moody(), Source()
    settler = Settler(driver, "test")
    lost = move(source, 1)
    lost.delivery.lost = True
    settler.move(lost)
    assert settler.flush()
    assert (driver.answers, source.acked, source.released) == ([], [], ["m1"])


def test_close_settles_what_was_handed_over_and_tells_what_is_left() -> None:
    driver, source = Moody(), Source()
    settler = Settler(driver, "test")
    settler.start()
    for number in range(100):
        settler.ack(source, [delivery(number)])
    assert settler.close(5)
    assert len(source.acked) == 100

    stuck = Settler(driver, "stuck")
    stuck.start()
    stuck.move(move(source, 500))
    eventually(lambda: driver.answers)
    threading.Timer(0.2, lambda: driver.answers[0][1].set_result([QueueFull("no room")])).start()
    assert not stuck.close(5)
    assert "m500" not in source.acked


@contextmanager
def failing(driver: Picky, most: int, **retry: float) -> Generator[tuple[TaskQueue, list[str]]]:
    """A queue on this broker whose handler fails always, with one task; then the broker's limit; and the runs.

    A body of the codec `blob` can only be read by what its headers say.
    """
    runs: list[str] = []
    q = TaskQueue(with_driver(driver), with_message_format("blob"), with_retry(base=0.01, **retry))  # type: ignore[arg-type]

    def fail(task: ReceivedTask) -> None:
        runs.append(task.id)
        raise ValueError("x" * 5000)

    q.enqueue(Task("t", b"payload", id="large"), metadata={"note": "n" * 850})
    driver.most = most
    q.start(fail, concurrency=4)
    try:
        yield q, runs
    finally:
        q.stop(timeout=5)


def test_a_dead_letter_that_is_too_large_says_less_of_the_error() -> None:
    with failing(Picky(1 << 20), 3000, max_retries=0) as (q, runs):
        eventually(lambda: len(q.dead.list()) == 1)
        (letter,) = q.dead.list()
    assert (letter.id, letter.reason, runs) == ("large", "retries exhausted", ["large"])
    assert "n" * 850 in letter.headers[METADATA]
    assert 0 < len(letter.error) <= 300


def test_a_task_whose_next_copy_is_too_large_is_buried_without_its_metadata_and_can_be_replayed() -> None:
    driver = Picky(1 << 20)
    with failing(driver, 900) as (q, runs):
        eventually(lambda: len(q.dead.list()) == 1)
        (letter,) = q.dead.list()
        assert (letter.reason, letter.headers.get(METADATA), runs) == ("refused by the broker", None, ["large"])
        assert q.dead.requeue() == 1
        eventually(lambda: runs == ["large"] * 2)


def test_what_can_be_neither_moved_nor_buried_stays_and_is_tried_again_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nova.settlement.STUCK_FOR", 1.5)
    driver = Picky(1 << 20)
    with failing(driver, 10) as (_, runs):
        eventually(lambda: driver.refused == FORMS)
        never(lambda: driver.refused > FORMS, during=1.0, what="a hot loop")
        eventually(lambda: driver.refused > FORMS, what="tried again")
        assert runs == ["large"]
        driver.most = 1 << 20
        eventually(lambda: len(runs) == 4, what="its next attempts, once the broker takes them")


def test_what_was_refused_among_others_is_sent_alone_before_it_is_buried() -> None:
    """Kafka refuses a whole batch over one large message in it."""
    driver, source = Moody(), Source()
    settler = Settler(driver, "test")
    settler.start()
    for number in range(2):
        settler.move(replace(move(source, number), letters=lambda why: [Message("DEAD", b"x", {}, "letter")]))

    def answer() -> bool:
        while driver.answers:
            messages, future = driver.answers.pop(0)
            error = PublishError("too large", is_permanent=True) if len(messages) > 1 else None
            assert "letter" not in [message.id for message in messages]
            future.set_result([error] * len(messages))
        return sorted(source.acked) == ["m0", "m1"]

    eventually(answer)
    assert settler.close(5)
