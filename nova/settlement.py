"""The end of every delivery: acknowledged, or moved on (next attempt, quarantine, dead letter) and then acknowledged.

The rule: publish the next copy, wait until the broker has confirmed it, then ack the source. A crash in between duplicates
a task and never loses one. A copy that the broker never takes as it is (`PublishError.is_permanent`) is not sent again: the
task is buried, in a smaller form if need be, and one that cannot be buried either stays with the broker, unacked.

One thread (`Settler.start`) does it in chunks; `drain` does without the thread and calls `flush`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nova.brokers.base import Delivery, Driver, Message
from nova.errors import BrokerError, PublishError

__all__ = ["Move", "Settler", "Source"]

RETRY_AFTER = 0.2
RETRY_AFTER_MOST = 5.0
CONFIRM_TIMEOUT = 30.0
"""Seconds until an unanswered copy is published again (the source is unacked: a duplicate at worst)."""
STUCK_FOR = 60.0
"""Seconds between tries to move on what the broker takes in no form: somebody may raise its limit."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where a delivery came from, and who counts it."""

    def ack(self, deliveries: list[Delivery]) -> None:
        """These are done."""
        ...

    def release(self, deliveries: list[Delivery]) -> None:
        """These go back uncounted."""
        ...


@dataclass(slots=True)
class Move:
    """A delivery that goes on as another message.

    Attributes:
        letters: dead letters to be sent instead of what the broker never takes, given why; the smallest last.
    """

    source: Source
    delivery: Delivery
    message: Message
    letters: Callable[[str], Sequence[Message]] = lambda why: ()


class Settler:
    """Settles what workers hand over. `ack` and `move` may be called from any thread and never block."""

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self._acks: deque[tuple[Source, Sequence[Delivery]]] = deque()
        self._moves: deque[Move] = deque()
        self._stuck: deque[tuple[float, Move]] = deque()
        """What the broker takes in no form, and when it is tried again."""
        self._work = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-settler", daemon=True)

    def start(self) -> None:
        """Settle in the background from now on."""
        self._thread.start()

    def ack(self, source: Source, deliveries: Sequence[Delivery]) -> None:
        """These are done."""
        self._acks.append((source, deliveries))
        if not self._work.is_set():
            self._work.set()

    def move(self, move: Move) -> None:
        """This one goes on as another message."""
        self._moves.append(move)
        if not self._work.is_set():
            self._work.set()

    def flush(self) -> bool:
        """Settle all that was handed over; False if copies could not be published (they are kept)."""
        self._ack_all()
        moves = self._take_moves()
        if not moves:
            return True
        failed = moves
        try:
            failed = self._publish(moves)
        finally:
            self._moves.extendleft(reversed(failed))
        self._ack_all()
        return not failed

    def close(self, timeout: float) -> bool:
        """Settle what was handed over, for at most `timeout` seconds; False if something is left (it comes back)."""
        self._closing.set()
        self._work.set()
        self._thread.join(timeout)
        left = len(self._moves) + len(self._stuck)
        if left:
            _log.warning("%d tasks could not be moved on before the stop; they will run again", left)
        return not self._thread.is_alive() and not left

    def _run(self) -> None:
        """Flush whenever there is work; ends after the flush that follows `close`, whether it managed all or not."""
        backoff = RETRY_AFTER
        while True:
            self._work.wait(STUCK_FOR if self._stuck else None)
            self._work.clear()
            closing = self._closing.is_set()
            try:
                managed = self.flush()
            except Exception:  # noqa: BLE001 - a thread's top: it must not die of a bug in a driver
                _log.exception("settling failed, trying again")
                managed = False
            if closing:
                return
            if managed:
                backoff = RETRY_AFTER
                continue
            self._closing.wait(backoff)
            backoff = min(2 * backoff, RETRY_AFTER_MOST)
            self._work.set()

    def _ack_all(self) -> None:
        by_source: dict[Source, list[Delivery]] = {}
        for source, deliveries in _drain(self._acks):
            by_source.setdefault(source, []).extend(deliveries)
        for source, done in by_source.items():
            source.ack(done)

    def _take_moves(self) -> list[Move]:
        while self._stuck and self._stuck[0][0] <= time.monotonic():
            self._moves.append(self._stuck.popleft()[1])
        moves = list(_drain(self._moves))
        for move in moves:
            if move.delivery.lost:  # its new owner decides
                move.source.release([move.delivery])
        return [move for move in moves if not move.delivery.lost]

    def _publish(self, moves: list[Move]) -> list[Move]:
        """Publish the copies, ack the sources of those confirmed; returns those to be tried again."""
        failed, refused = self._send([(move, move.message) for move in moves])
        for move, why in refused:
            if not move.delivery.lost:
                failed += self._bury(move, why)
        return failed

    def _bury(self, move: Move, why: PublishError) -> list[Move]:
        """Instead of a copy that the broker never takes; returns the move if it is to be tried again.

        The copy is sent alone before that is believed: Kafka refuses a whole batch over one large message in it.
        """
        task_id = move.delivery.task_id
        for message in (move.message, *move.letters(str(why))):
            failed, refused = self._send([(move, message)])
            if refused:
                continue
            if message is not move.message and not failed:
                _log.error("task %s buried, the broker took nothing else: %s", task_id, why, extra={"task_id": task_id})
            return failed
        _log.error(
            "task %s can be neither moved on nor buried: it stays unacknowledged and is tried again every %g s: %s",
            task_id, STUCK_FOR, why, extra={"task_id": task_id},
        )  # fmt: skip
        self._stuck.append((time.monotonic() + STUCK_FOR, move))
        return []

    def _send(self, copies: list[tuple[Move, Message]]) -> tuple[list[Move], list[tuple[Move, PublishError]]]:
        """Publish, and ack the sources of what is confirmed; returns what to try again, and what is never taken."""
        failed: list[Move] = []
        refused: list[tuple[Move, PublishError]] = []
        try:
            outcome = self._driver.publish([message for _, message in copies]).result(CONFIRM_TIMEOUT)
        except (BrokerError, TimeoutError) as exc:
            _log.warning("publishing %d copies failed, trying again: %s", len(copies), exc)
            return [move for move, _ in copies], refused
        last: PublishError | None = None
        for (move, _), error in zip(copies, outcome, strict=True):
            if error is None:
                self._acks.append((move.source, (move.delivery,)))
            elif error.is_permanent:
                refused.append((move, error))
            else:
                failed.append(move)
                last = error
        if failed:
            _log.warning("%d of %d copies were not confirmed, trying again: %s", len(failed), len(copies), last)
        return failed, refused


def _drain(items: deque[T]) -> Iterable[T]:
    while items:
        yield items.popleft()
