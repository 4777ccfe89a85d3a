"""The settling rule: publish, wait for the confirmation, then ack; what is refused is tried again, never dropped."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from nova.brokers.base import Confirmation, Delivery, Message
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.errors import PublishError, QueueFull
from nova.settlement import Move, Settler
from tests.eventually import eventually, never


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
