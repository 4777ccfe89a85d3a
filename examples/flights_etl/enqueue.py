"""The enqueuing side: one task a flight.

May be killed at any moment and started again: it writes down how many rows the broker has confirmed, after the
confirmation, and goes on from there. What was confirmed but not yet written down is sent twice under the same ids.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from examples.flights_etl import data
from examples.flights_etl.settings import Settings
from nova import Task, TaskQueue

BATCH = 1_000


def run(settings: Settings, report: Callable[[int], None]) -> None:
    """Enqueue all flights that the broker does not hold yet, then return; blocks until it has confirmed them.

    Args:
        settings: names the broker and the data.
        report: called with the number of rows confirmed so far, first and after each batch.

    Raises:
        DemoError: the flights could not be fetched.
        nova.NovaError: the broker refused tasks or could not be reached; run again to go on.
    """
    with settings.open_queue() as queue:
        enqueue_rest(queue, settings, report)


def enqueue_rest(queue: TaskQueue, settings: Settings, report: Callable[[int], None]) -> None:
    """Enqueue the flights after the checkpoint on a queue that is open already."""
    confirmed = settings.read_checkpoint()
    report(confirmed)
    rows = islice(data.read_flights(data.fetch(settings.cache)), confirmed, None)
    while chunk := list(islice(rows, BATCH)):
        tasks = [Task("flight", row, id=f"flight-{number}") for number, row in enumerate(chunk, start=confirmed)]
        queue.enqueue_batch(tasks).raise_for_failures()
        confirmed += len(chunk)
        settings.write_checkpoint(confirmed)
        report(confirmed)
