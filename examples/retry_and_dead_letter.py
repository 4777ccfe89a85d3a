"""What happens when a handler fails: retries with growing waits, then the dead letters, then a replay.

$ python -m examples.retry_and_dead_letter [URL]
"""

from __future__ import annotations

import threading
from collections import Counter

from examples.broker import broker_url
from nova import ReceivedTask, Reject, Retry, Task, TaskQueue, with_retry


class Shop:
    """A handler that fails in each of the ways a handler can."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.bug_is_fixed = False
        self.done = threading.Semaphore(0)

    def handle(self, task: ReceivedTask) -> None:
        self.runs[task.id] += 1
        if task.id == "flaky" and task.attempt < 3:
            raise ConnectionError("the mail server hung up")  # any exception: the retry policy decides
        if task.id == "busy" and task.attempt == 1:
            raise Retry(delay=0.2)  # not yet: again in 0.2 s; uses an attempt
        if task.id == "refused":
            raise Reject("no such customer")  # it can never work: straight to the dead letters
        if task.id == "buggy" and not self.bug_is_fixed:
            raise KeyError("amount")
        self.done.release()

    def wait(self, count: int) -> None:
        """Wait until `count` more tasks have succeeded."""
        for _ in range(count):
            if not self.done.acquire(timeout=10):
                raise TimeoutError("a task is missing")


def main() -> None:
    # Three runs in all, 0.1 s and then 0.2 s apart (the defaults are four runs: 1 s, 2 s, 4 s).
    retry = with_retry(max_retries=2, base=0.1, cap=5.0, jitter=0.1)
    with broker_url() as url, TaskQueue.from_url(url, retry) as queue:
        run(queue)


def run(queue: TaskQueue) -> None:
    shop = Shop()
    buried = threading.Semaphore(0)

    def on_error(task: ReceivedTask, error: BaseException) -> None:
        print(f"  attempt {task.attempt} of {task.id} failed: {type(error).__name__}")
        if isinstance(error, Reject) or task.attempt == 3:
            buried.release()

    queue.enqueue_batch([Task("order", {"n": 1}, id=name) for name in ("flaky", "busy", "refused", "buggy")])
    print("first run")
    queue.start(shop.handle, on_error=on_error)
    shop.wait(2)  # flaky and busy end well
    for _ in range(2):  # refused and buggy are buried
        buried.acquire(timeout=10)
    while len(queue.dead.list()) < 2:
        threading.Event().wait(0.02)  # the burial is written just after `on_error`

    print("runs:", ", ".join(f"{name} {count}" for name, count in sorted(shop.runs.items())))
    for dead in sorted(queue.dead.list(), key=lambda task: task.id):
        print(f"dead letter {dead.id}: {dead.reason}, attempt {dead.attempt}, {dead.error_type}")

    # The bug is fixed and deployed. What it buried is run again, from attempt 1.
    shop.bug_is_fixed = True
    print(f"requeued: {queue.dead.requeue(reason='retries exhausted')}")
    shop.wait(1)
    print(f"purged: {queue.dead.purge()}")
    print(f"dead letters left: {len(queue.dead.list())}")


if __name__ == "__main__":
    main()
