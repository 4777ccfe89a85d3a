"""The loading side: batches of flights into the sink.

May be killed at any moment and started again: a batch is acknowledged after its rows are stored, so one that was cut
off is delivered once more and its rows replace themselves. A row that cannot be read fails its batch; Nova then runs
halves of it until that row is alone, and buries it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from examples.flights_etl.settings import Settings
from examples.flights_etl.sink import Sink
from nova import Batch, TaskQueue, TimeCountAggregator

REPORT_EVERY = 0.25
STOP_TIMEOUT = 30.0


def run(settings: Settings, report: Callable[[int], None]) -> None:
    """Load flights until SIGTERM or SIGINT, then finish what is open and return.

    Args:
        settings: names the broker and the sink.
        report: called with the number of different rows stored, four times a second. An error it raises ends the run;
            so the loader does not outlive whoever reads its reports.
    """
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with Sink(settings.sink) as sink, settings.open_queue() as queue:
        with loading(queue, sink):
            while not stopping.wait(REPORT_EVERY):
                report(sink.count())
        report(sink.count())


@contextmanager
def loading(queue: TaskQueue, sink: Sink) -> Generator[None]:
    """Load batches into `sink` in the background for as long as the block runs; the open batch is loaded at its end."""

    def load(batch: Batch) -> None:
        sink.insert([task.id for task in batch], [task.json() for task in batch])

    queue.start_batch(load, TimeCountAggregator(max_count=5000, window=1.0, max_bytes=8 << 20), concurrency=2)
    try:
        yield
    finally:
        queue.stop(timeout=STOP_TIMEOUT)
