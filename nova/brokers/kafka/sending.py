"""Sending records whose topic may have to be made first, without making the sender wait."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from nova.brokers.base import Confirmation
from nova.brokers.kafka.failures import closed_error
from nova.brokers.kafka.publisher import Pending, Publisher
from nova.brokers.kafka.records import Record
from nova.brokers.kafka.topics import TopicKeeper
from nova.errors import NovaError, PublishError

__all__ = ["Sender"]

PREPARE_TIMEOUT = 4.0
"""Seconds for the topics of a call; with `delivery_timeout` below `DriverContext.publish_timeout`."""
REMEMBERED = 1.0
"""Seconds for which a failure counts for the calls that wait behind it, or they would wait one after the other."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A call whose topics are looked after first."""

    pending: Pending
    records: Sequence[Record]
    since: float


class Sender:
    """Publishes records from any thread; one thread of its own makes missing topics."""

    def __init__(self, publisher: Publisher, keeper: TopicKeeper, where: str) -> None:
        self._publisher = publisher
        self._keeper = keeper
        self._where = where
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._failed: dict[str, tuple[float, str]] = {}
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def send(self, records: Sequence[Record]) -> Confirmation:
        """Hand over and return; the future has one entry per record."""
        pending = Pending(records, self._where)
        if self._keeper.knows_all(records):
            self._publisher.send(pending, records)
        elif self._closed:
            pending.refuse(closed_error(self._where))
        else:
            self._start()
            self._waiting.put(_Waiting(pending, records, time.monotonic()))
        return pending.future

    def close(self, timeout: float) -> None:
        """Finish what waits. Idempotent."""
        self._closed = True
        thread = self._thread
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout)
            while not self._waiting.empty():
                left = self._waiting.get()
                if left is not None:
                    left.pending.refuse(closed_error(self._where))

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nova-kafka-topics", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            try:
                self._publisher.send(waiting.pending, waiting.records, self._prepare(waiting))
            except Exception as exc:  # noqa: BLE001 - a thread's top: the caller's future must resolve
                _log.exception("%s: preparing topics failed", self._where)
                waiting.pending.refuse(PublishError(f"{self._where}: {exc!r}"))

    def _prepare(self, waiting: _Waiting) -> dict[str, PublishError]:
        """Look after each topic; those that cannot be used, with the reason."""
        refused: dict[str, PublishError] = {}
        for topic in {record.topic for record in waiting.records}:
            failed = self._failed.get(topic)
            if failed is not None and (time.monotonic() - failed[0] < REMEMBERED or waiting.since < failed[0]):
                refused[topic] = PublishError(failed[1])
                continue
            left = max(0.5, waiting.since + PREPARE_TIMEOUT - time.monotonic())
            try:
                self._keeper.ensure([topic], left)
            except NovaError as exc:
                self._failed[topic] = (time.monotonic(), str(exc))
                refused[topic] = PublishError(str(exc))
            else:
                self._failed.pop(topic, None)
        return refused
