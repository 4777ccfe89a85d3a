"""How long a stop may take."""

from __future__ import annotations

import threading
import time

from nova import Task, TaskQueue, with_driver
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver


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
