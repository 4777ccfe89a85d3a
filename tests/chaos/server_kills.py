"""What several brokers' servers are put through alike."""

from __future__ import annotations

import threading
import time
from collections import Counter

from nova import ReceivedTask, Task
from tests.conformance.brokers import Broker
from tests.eventually import eventually

__all__ = ["three_kills_under_10_000_tasks_lose_nothing"]


def three_kills_under_10_000_tasks_lose_nothing(broker: Broker, *, catch_up: float, back: float) -> None:
    """Tasks that fail once, delays, and a producer that sends again what it was not told to be stored.

    A quarter is sent before each kill and goes on through it, or a quick worker is done before the last one.

    Args:
        catch_up: seconds until the next 2,000 are done.
        back: seconds after a kill until tasks are handled again.
    """
    q, producer = broker.queue(), broker.queue()
    done: Counter[str] = Counter()
    accepted: set[str] = set()
    unknown: set[str] = set()

    def handle(task: ReceivedTask) -> None:
        if task.type == "fail" and task.attempt == 1:
            raise RuntimeError("once")
        done.update([task.id])
        time.sleep(0.002)

    released = 2_500

    def send() -> None:
        waiting = [Task("fail" if i % 20 == 0 else "work", i, id=f"t{i}") for i in range(10_000)]
        while waiting:
            if 10_000 - len(waiting) >= released:
                time.sleep(0.005)
                continue
            report = producer.enqueue_batch(waiting[:100], process_in=0.5 if len(waiting) % 500 == 0 else 0.0)
            accepted.update(task.task_id for task in report.accepted)
            unknown.update(report.unknown)
            again = {*report.failed, *report.unknown}
            waiting = [task for task in waiting[:100] if task.id in again] + waiting[100:]

    q.start(handle, concurrency=8)
    sending = threading.Thread(target=send)
    sending.start()
    away: list[float] = []
    for kill in range(3):
        eventually(lambda: len(done) > 2000 * (kill + 1), timeout=catch_up)  # noqa: B023
        before = len(done)
        released += 2_500
        begin = time.monotonic()
        broker.kill_server()
        eventually(lambda: len(done) > before + 10, timeout=back, what="a worker is deaf")  # noqa: B023
        away.append(time.monotonic() - begin)
    sending.join()
    eventually(lambda: len(done) == 10_000, timeout=catch_up)
    twice = sum(done.values()) - len(done)
    print(
        f"\n{broker.name}: 3 SIGKILLs of the server, 10,000 tasks: lost {len(accepted - set(done))}, duplicates {twice}, "
        f"unknown and sent again {len(unknown)}, tasks again after {', '.join(f'{seconds:.1f}' for seconds in away)} s, "
        f"buried {q.depth().dead}"
    )
    assert accepted <= set(done)
    assert q.depth().dead == 0
