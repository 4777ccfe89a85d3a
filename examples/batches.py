"""Bulk work: a handler gets many tasks at once and names those that failed; all others are done.

$ python -m examples.batches [URL]
"""

from __future__ import annotations

import threading

from examples.broker import broker_url
from nova import Batch, BatchResult, Reject, Retry, Task, TaskQueue, TimeCountAggregator

ROWS = 230


class Table:
    """A stand-in for a database that takes rows in bulk. Keyed by task id, so a row that comes twice is one row."""

    def __init__(self) -> None:
        self.rows: dict[str, float] = {}
        self.batches: list[int] = []
        self.done = threading.Event()

    def load(self, batch: Batch) -> BatchResult:
        """Insert a batch; called by two threads at once, each with a batch of its own."""
        self.batches.append(len(batch))
        failed: dict[str, BaseException | str] = {}
        for task in batch:
            amount = task.json()["amount"]
            if amount is None:
                failed[task.id] = Reject("no amount")  # to the dead letters
            elif task.id == "row-7" and task.attempt == 1:
                failed[task.id] = Retry(delay=0.2, reason="row is locked")  # again, in a later batch
            else:
                self.rows[task.id] = amount
        if len(self.rows) == ROWS - 2:
            self.done.set()
        return BatchResult(failed=failed)


def main() -> None:
    table = Table()
    rows = [{"amount": None if number in (11, 99) else number * 1.5} for number in range(ROWS)]
    with broker_url() as url, TaskQueue.from_url(url) as queue:
        report = queue.enqueue_batch([Task("row", row, id=f"row-{n}") for n, row in enumerate(rows)])
        report.raise_for_failures()
        print(f"accepted: {len(report.accepted)}")

        # A batch goes when it has 100 tasks or 8 MiB, or half a second after its first task, whichever comes first.
        queue.start_batch(table.load, TimeCountAggregator(max_count=100, window=0.5, max_bytes=8 << 20))
        table.done.wait(timeout=20)
        while len(queue.dead.list()) < 2:
            threading.Event().wait(0.02)  # dead letters are written just after the handler has returned

        print(f"batches: {len(table.batches)}, the largest of {max(table.batches)} tasks")
        print(f"loaded: {len(table.rows)}")
        for dead in sorted(queue.dead.list(), key=lambda task: task.id):
            print(f"dead letter {dead.id}: {dead.reason}: {dead.error.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
