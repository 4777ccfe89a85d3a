"""How long a stop may take."""

from __future__ import annotations

import threading
import time

from nova import BrokerUnavailable, Task, TaskQueue, with_driver
from nova.brokers.base import Delivery, SubscribeRequest
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver, MemorySubscription


class Told(MemoryDriver):
    """Keeps the seconds it was given to close."""

    def __init__(self) -> None:
        super().__init__(MemoryConfig())
        self.seconds: list[float] = []

    def close(self, timeout: float = 10.0) -> None:
        self.seconds.append(timeout)
        super().close(timeout)


def test_the_driver_gets_what_the_handlers_have_left_of_the_time() -> None:
    """Supervisors kill what takes longer than it was told; each with all of the time, worker and driver took it twice."""
    driver, running = Told(), threading.Event()
    q = TaskQueue(with_driver(driver))

    def handle(_: object) -> None:
        running.set()
        time.sleep(1.0)

    q.start(handle)
    q.enqueue(Task("t"))
    assert running.wait(10)
    assert q.stop(10.0)
    assert 1.0 <= driver.seconds[0] < 9.5


def test_a_driver_gets_a_second_whatever_is_left() -> None:
    driver = Told()
    q = TaskQueue(with_driver(driver))
    q.enqueue(Task("t"))
    q.stop(0.0)
    assert driver.seconds == [1.0]


class Silent(MemoryDriver):
    """A broker that stops answering: a receive waits for as long as it waits for any answer."""

    def __init__(self, seconds: float) -> None:
        super().__init__(MemoryConfig())
        self.paused, self.waiting = threading.Event(), threading.Event()
        self.seconds = seconds

    def subscribe(self, request: SubscribeRequest) -> MemorySubscription:
        subscription = super().subscribe(request)
        receive = subscription.receive

        def wait(max_messages: int, timeout: float) -> list[Delivery]:
            if not self.paused.is_set():
                return receive(max_messages, timeout)
            self.waiting.set()
            time.sleep(self.seconds)
            raise BrokerUnavailable("no answer")

        subscription.receive = wait  # type: ignore[method-assign]
        return subscription


def test_an_idle_worker_stops_clean_though_its_broker_answers_too_late() -> None:
    """No handler runs, so nothing runs again elsewhere: the time went by while the broker was waited for."""
    driver, seen = Silent(2.0), threading.Event()
    q = TaskQueue(with_driver(driver))
    q.start(lambda task: seen.set())
    q.enqueue(Task("t"))
    assert seen.wait(10)
    driver.paused.set()
    assert driver.waiting.wait(10)
    assert q.stop(1.0)
