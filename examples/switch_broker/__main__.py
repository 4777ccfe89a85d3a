"""The same program on another broker: only the configuration file differs.

$ python -m examples.switch_broker examples/switch_broker/memory.toml
$ python -m examples.switch_broker examples/switch_broker/sqlite.toml
$ KAFKA=localhost:9092 python -m examples.switch_broker examples/switch_broker/kafka.toml
$ RABBITMQ=amqp://localhost python -m examples.switch_broker examples/switch_broker/rabbitmq.toml
$ ROCKETMQ=localhost:8081 ROCKETMQ_ADMIN=localhost:9876 python -m examples.switch_broker examples/switch_broker/rocketmq.toml

It sells in three shops: receipts in bulk, urgent refunds one at a time, one sale delayed, one that fails first, one that can
never work. It prints what each shop took and what is dead: the same on every broker.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

from nova import Batch, BatchResult, Priority, ReceivedTask, Reject, Task, TaskQueue, TimeCountAggregator

SHOPS = ("north", "south", "west")
RECEIPTS = 600
REFUNDS = 30


class Books:
    """What was taken, by shop. Keyed by task id: a task may come twice, its money may not."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, int]] = {}
        self._changed = threading.Condition()

    def load(self, batch: Batch) -> BatchResult:
        with self._changed:
            self._entries.update((task.id, (task.json()["shop"], task.json()["cents"])) for task in batch)
            self._changed.notify()
        return BatchResult()

    def refund(self, task: ReceivedTask) -> None:
        sale = task.json()
        if sale["shop"] not in SHOPS:
            raise Reject(f"no shop {sale['shop']!r}")
        if task.id == "refund-7" and task.attempt == 1:
            raise ConnectionError("the till hung up")
        with self._changed:
            self._entries[task.id] = (sale["shop"], -sale["cents"])
            self._changed.notify()

    def wait(self, count: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._entries) == count, timeout=60):
                raise TimeoutError(f"{len(self._entries)} of {count} sales came")

    def totals(self) -> dict[str, int]:
        totals: Counter[str] = Counter()
        for shop, cents in self._entries.values():
            totals[shop] += cents
        return dict(sorted(totals.items()))


def main(config: str) -> None:
    books = Books()
    with TaskQueue.from_config(config) as q:
        receipts = [{"shop": SHOPS[n % 3], "cents": 100 + n} for n in range(RECEIPTS)]
        tasks = [Task("receipt", row, id=f"receipt-{n}") for n, row in enumerate(receipts)]
        q.enqueue_batch(tasks, queue="receipts").raise_for_failures()
        for n in range(REFUNDS):
            refund = Task("refund", {"shop": SHOPS[n % 3], "cents": 50}, id=f"refund-{n}")
            q.enqueue(refund, priority=Priority.HIGH, process_in=0.5 if n == 0 else 0)
        q.enqueue(Task("refund", {"shop": "nowhere", "cents": 1}, id="refund-nowhere"))

        q.start_batch(books.load, TimeCountAggregator(max_count=200, window=0.5), queues=["receipts"])
        q.start(books.refund, queues=["default"])
        books.wait(RECEIPTS + REFUNDS)
        while not q.dead.list():
            threading.Event().wait(0.02)  # a dead letter is written just after the handler has returned
        for shop, cents in books.totals().items():
            print(f"{shop}: {cents / 100:.2f}")
        print("dead:", ", ".join(f"{dead.id} ({dead.error.strip().splitlines()[-1]})" for dead in q.dead.list()))
        q.dead.purge()  # so that the next run on this broker prints the same


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m examples.switch_broker CONFIG; there are five in examples/switch_broker")
    main(sys.argv[1])
