"""Forwarding delayed tasks: one consumer over the delay topics of a prefix, shared by the workers of all groups.

Three threads: the pump reads into the heap, "forwarder" sends on what is due, and "judge" decides on copies from the escrow
once there are any. A record counts as finished when its next copy is confirmed, so a crash repeats at most what was moved
since the last commit and loses nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from nova import clock
from nova.brokers.due import DueQueue
from nova.brokers.kafka.delay_lanes import DelayLanes
from nova.brokers.kafka.escrow import DONE, RELEASED, LeaseBook
from nova.brokers.kafka.names import Names
from nova.brokers.kafka.partition import KafkaDelivery
from nova.brokers.kafka.pump import Pump
from nova.brokers.kafka.receiving import PumpOptions
from nova.brokers.kafka.records import (
    DEATHS,
    DUE,
    ESCROW,
    HOLD,
    KEY,
    SENT,
    TARGET,
    ForeignRecord,
    Publish,
    Record,
    delayed,
    released,
)
from nova.envelope import ID, number
from nova.errors import PublishError

__all__ = ["NEAR_LIMIT", "Forwarder", "limits"]

NEAR_LIMIT = 4000
"""Records of a near partition held in the heap: 32,000 in all, some 50 MB; beyond it the partition waits."""
LANE_LIMIT = 250
"""Records of a lane held: they come in due order, so the first few are enough."""
NEAR_BYTES = 4 << 20
LANE_BYTES = 1 << 20
ROOM = 250
"""Records taken at once, so that a lane is not overfilled by one look."""
JUDGE_TIMEOUT = 5.0

_log = logging.getLogger(__name__)


def limits(names: Names) -> Callable[[str], tuple[int, int]]:
    """Records and bytes of one partition of a delay topic that are held at most."""
    return lambda topic: (NEAR_LIMIT, NEAR_BYTES) if topic == names.near else (LANE_LIMIT, LANE_BYTES)


class Forwarder:
    """Runs from construction to `close`.

    Args:
        publish: hands records to the broker.
        book: opens the forwarder's view of the escrow's leases, at first need.

    Attributes:
        trouble: why nothing is forwarded now, or None.
    """

    def __init__(
        self, options: PumpOptions, names: Names, lanes: DelayLanes, publish: Publish, book: Callable[[], LeaseBook]
    ) -> None:
        self._names = names
        self._lanes = lanes
        self._publish = publish
        self._open_book = book
        self._failing: str | None = None
        self._undecided: str | None = None
        self._due: DueQueue[KafkaDelivery] = DueQueue(
            "nova-kafka-forwarder", self._move, is_held=lambda delivery: not delivery.lost
        )
        self._closing = threading.Event()
        self._cases: queue.SimpleQueue[KafkaDelivery | None] = queue.SimpleQueue()
        self._judge: threading.Thread | None = None
        self.pump = Pump(options, self)
        self.pump.start()
        self._due.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing is forwarded now, or None."""
        return self.pump.trouble or self._failing or self._undecided

    def close(self, timeout: float) -> None:
        """Stop; what is on its way is given a moment, the rest waits for the next forwarder. Idempotent."""
        deadline = time.monotonic() + timeout
        self._closing.set()
        self._due.close(timeout)
        if self._judge is not None:
            self._cases.put(None)
            self._judge.join(max(0.1, deadline - time.monotonic()))
        self.pump.close(max(0.1, deadline - time.monotonic()))

    # --- the pump's receiver

    def room(self) -> int:
        """The limits are per partition."""
        return ROOM

    def put(self, deliveries: list[KafkaDelivery]) -> None:
        """Into the heap, by the instant of the next move."""
        now_ms = clock.now_ms()
        self._due.put([(_release_ms(delivery, now_ms), delivery) for delivery in deliveries])

    def give_away(self, deliveries: list[KafkaDelivery], deadline: float) -> list[KafkaDelivery]:
        """What is not confirmed yet is moved again by the next owner."""
        del deliveries, deadline
        return []

    def tick(self) -> None:
        """Nothing to renew."""

    # --- the forwarder's thread

    def _move(self, due: list[KafkaDelivery]) -> None:
        now_ms = clock.now_ms()
        moving: list[KafkaDelivery] = []
        records: list[Record] = []
        for delivery in due:
            delivery.started = True
            if delivery.lost:
                continue
            headers = delivery.headers
            if SENT not in headers and delivery.timestamp_ms is not None:
                headers = delivery.headers = {**headers, SENT: str(delivery.timestamp_ms)}
            try:
                record = released(self._names, self._lanes, delivery.body, headers, now_ms)
            except ForeignRecord:
                partition, offset = delivery.partition, delivery.offset
                _log.error(
                    "topic %r, partition %d, offset %d holds no delayed task of Nova's; passed over",
                    partition.topic, partition.number, offset,
                )  # fmt: skip
                self._done([delivery])
                continue
            if ESCROW in headers and record.topic == headers[TARGET]:
                self._bring_before_judge(delivery)
            else:
                moving.append(delivery)
                records.append(record)
        if records:
            self._publish(records).add_done_callback(lambda done: self._moved(moving, done.result()))

    def _moved(self, moving: Sequence[KafkaDelivery], outcome: Sequence[PublishError | None]) -> None:
        arrived = [delivery for delivery, error in zip(moving, outcome, strict=True) if error is None]
        failed = [(delivery, error) for delivery, error in zip(moving, outcome, strict=True) if error is not None]
        self._failing = f"delayed tasks cannot be moved: {failed[0][1]}" if failed else None
        if arrived:
            self._done(arrived)
        if failed:
            _log.warning("%d delayed tasks could not be moved, trying again: %s", len(failed), failed[0][1])
            self._due.again([delivery for delivery, _ in failed])

    def _done(self, deliveries: Sequence[KafkaDelivery]) -> None:
        self.pump.call(lambda: self.pump.ack(deliveries))

    # --- the judge's thread

    def _bring_before_judge(self, delivery: KafkaDelivery) -> None:
        self._cases.put(delivery)
        if self._judge is None:
            self._judge = threading.Thread(target=self._judge_all, name="nova-kafka-judge", daemon=True)
            self._judge.start()

    def _judge_all(self) -> None:
        book: LeaseBook | None = None
        case = self._cases.get()
        while case is not None and not self._closing.is_set():
            try:
                book = book or self._open_book()
                book.catch_up(JUDGE_TIMEOUT)
                self._decide(case, book)
                self._undecided = None
            except Exception as exc:  # noqa: BLE001 - a thread's top: without it no escrow would ever end
                self._undecided = f"the leases of long tasks cannot be read: {exc}"
                _log.warning("the leases of long tasks cannot be read, trying again: %r", exc)
                self._closing.wait(1.0)
                continue
            case = self._cases.get()
        if book is not None:
            book.close()

    def _decide(self, case: KafkaDelivery, book: LeaseBook) -> None:
        """Drop the copy, let it wait on, or let it run."""
        now_ms = clock.now_ms()
        headers = dict(case.headers)
        token = headers[ESCROW]
        lease = book.state(token)
        tombstone = Record(self._names.leases, token, None, {})
        if lease == DONE:
            self._publish([tombstone])
            self._done([case])
            return
        if isinstance(lease, int) and lease > now_ms:
            headers.pop(HOLD, None)
            records = [
                delayed(self._names, self._lanes, headers[TARGET], headers.get(KEY), case.body, headers, lease, now_ms)
            ]
        else:
            if lease != RELEASED:  # run out, or unknown: the holder did not end in order
                _log.warning("the worker of task %s is gone, it runs again", headers.get(ID) or headers.get(KEY))
                headers[DEATHS] = str((number(headers.get(DEATHS)) or 0) + 1)
            records = [released(self._names, self._lanes, case.body, headers, now_ms), tombstone]
        self._publish(records).add_done_callback(lambda done: self._moved([case], done.result()[:1]))


def _release_ms(delivery: KafkaDelivery, now_ms: int) -> int:
    """When a delay record moves: never after its due time, whatever the broker's clock says."""
    due_ms, hold_ms = number(delivery.headers.get(DUE)), number(delivery.headers.get(HOLD))
    if due_ms is None:
        return now_ms
    if hold_ms is None:
        return due_ms
    stored_ms = delivery.timestamp_ms
    return min(due_ms, (now_ms if stored_ms is None or stored_ms < 0 else stored_ms) + hold_ms)
