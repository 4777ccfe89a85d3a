"""Two groups: each gets every task, and what one of them fails at is no concern of the other.

$ python -m examples.two_groups [URL]

Orders go to `billing` and to `shipping`. `billing` fails at one twice and rejects another; both are seen once by `shipping`.
Within a group, the workers share the tasks.
"""

from __future__ import annotations

import threading
from collections import Counter

from examples.broker import broker_url
from nova import ReceivedTask, Reject, Task, TaskQueue, with_group_id, with_retry

ORDERS = 8


class Desk:
    """One group's work: counts how often it has seen each order."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.queue = TaskQueue.from_url(url, with_group_id(name), with_retry(max_retries=3, base=0.1))
        self.runs: Counter[str] = Counter()
        self.finished = threading.Semaphore(0)

    def handle(self, task: ReceivedTask) -> None:
        self.runs[task.id] += 1
        if self.name == "billing" and task.id == "order-3" and task.attempt < 3:
            raise ConnectionError("the bank is closed")
        self.finished.release()
        if self.name == "billing" and task.id == "order-5":
            raise Reject("no such account")

    def wait(self) -> None:
        for _ in range(ORDERS):
            if not self.finished.acquire(timeout=20):
                raise TimeoutError(f"{self.name}: an order is missing")


def main() -> None:
    with broker_url() as url:
        billing, shipping = Desk("billing", url), Desk("shipping", url)
        with billing.queue, shipping.queue:
            # A group gets what is enqueued after it was first started; what came before any group waits for the first.
            billing.queue.start(billing.handle)
            shipping.queue.start(shipping.handle)
            billing.queue.enqueue_batch([Task("order", {"n": n}, id=f"order-{n}") for n in range(ORDERS)])
            for desk in (billing, shipping):
                desk.wait()
            while not billing.queue.dead.list():
                threading.Event().wait(0.02)  # a dead letter is written just after the handler has returned

            for desk in (billing, shipping):
                print(f"{desk.name}: {sum(desk.runs.values())} runs, order-3 ran {desk.runs['order-3']} times")
                print(f"{desk.name}: dead letters {[dead.id for dead in desk.queue.dead.list()]}")


if __name__ == "__main__":
    main()
