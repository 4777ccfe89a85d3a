"""What priorities do: the classes share the work 6:3:1, and an urgent task does not wait behind a backlog.

$ python -m examples.priorities [URL]
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from examples.broker import broker_url
from nova import Priority, ReceivedTask, Task, TaskQueue

MOST_URGENT_FIRST = sorted(Priority, reverse=True)


def main() -> None:
    with broker_url() as url:
        show_shares(url)
    with broker_url() as url:
        show_overtaking(url)


def show_shares(url: str) -> None:
    """60 tasks of each class, one at a time: while all classes have work, none starves and the urgent get more."""
    started: list[Priority] = []
    gate, done = threading.Event(), threading.Event()

    def work(task: ReceivedTask) -> None:
        gate.wait(timeout=10)
        started.append(task.priority)
        time.sleep(0.005)
        if len(started) == 180:
            done.set()

    with TaskQueue.from_url(url) as queue:
        for priority in sorted(Priority):  # the least urgent are enqueued first
            queue.enqueue_batch([Task("work")] * 60, priority=priority).raise_for_failures()
        queue.start(work, concurrency=1)
        time.sleep(0.2)  # let the worker see all three classes before the first one runs
        gate.set()
        done.wait(timeout=30)

    counts = Counter(started[:40])
    print("of the first 40 starts:", ", ".join(f"{p.name} {counts[p]}" for p in MOST_URGENT_FIRST))
    print(f"all {len(started)} ran")


def show_overtaking(url: str) -> None:
    """400 low tasks are waiting when one urgent task comes; two slots beside the concurrency are kept for it."""
    low_done = 0
    low_before_urgent = -1
    waited_ms = 0.0
    counting, under_way, done = threading.Lock(), threading.Event(), threading.Event()

    def work(task: ReceivedTask) -> None:
        nonlocal low_done, low_before_urgent, waited_ms
        if task.priority is Priority.HIGH:
            low_before_urgent = low_done
            waited_ms = 1000 * (time.monotonic() - sent_at)
            return
        time.sleep(0.01)
        with counting:
            low_done += 1
            if low_done == 20:
                under_way.set()
            if low_done == 400:
                done.set()

    with TaskQueue.from_url(url) as queue:
        queue.enqueue_batch([Task("report")] * 400, priority=Priority.LOW).raise_for_failures()
        queue.start(work, concurrency=4)
        under_way.wait(timeout=10)
        sent_at = time.monotonic()
        queue.enqueue(Task("password.reset"), priority=Priority.HIGH)
        done.wait(timeout=30)

    print(
        f"the urgent task started after {low_before_urgent} of {low_done} low ones, {waited_ms:.0f} ms after its enqueue"
    )


if __name__ == "__main__":
    main()
