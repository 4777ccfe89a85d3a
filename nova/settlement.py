"""The end of every delivery: acknowledged, or moved on (next attempt, quarantine, dead letter) and then acknowledged.

The rule: publish the next copy, wait until the broker has confirmed it, then ack the source. A crash in between duplicates
a task and never loses one. One thread (`Settler.start`) does it in chunks; `drain` does without the thread and calls `flush`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nova.brokers.base import Delivery, Driver, Message
from nova.errors import BrokerError, PublishError

__all__ = ["Move", "Settler", "Source"]

RETRY_AFTER = 0.2
RETRY_AFTER_MOST = 5.0
CONFIRM_TIMEOUT = 30.0
"""Seconds until an unanswered copy is published again (the source is unacked: a duplicate at worst)."""

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
    """A delivery that goes on as another message."""

    source: Source
    delivery: Delivery
    message: Message


class Settler:
    """Settles what workers hand over. `ack` and `move` may be called from any thread and never block."""

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self._acks: deque[tuple[Source, Sequence[Delivery]]] = deque()
        self._moves: deque[Move] = deque()
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
        left = len(self._moves)
        if left:
            _log.warning("%d tasks could not be moved on before the stop; they will run again", left)
        return not self._thread.is_alive() and not left

    def _run(self) -> None:
        """Flush whenever there is work; ends after the flush that follows `close`, whether it managed all or not."""
        backoff = RETRY_AFTER
        while True:
            self._work.wait()
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
        moves = list(_drain(self._moves))
        for move in moves:
            if move.delivery.lost:  # its new owner decides
                move.source.release([move.delivery])
        return [move for move in moves if not move.delivery.lost]

    def _publish(self, moves: list[Move]) -> list[Move]:
        """Publish the copies, ack the sources of those confirmed; returns the others."""
        try:
            outcome = self._driver.publish([move.message for move in moves]).result(CONFIRM_TIMEOUT)
        except (BrokerError, TimeoutError) as exc:
            _log.warning("publishing %d copies failed, trying again: %s", len(moves), exc)
            return moves
        failed: list[Move] = []
        error: PublishError | None = None
        for move, refused in zip(moves, outcome, strict=True):
            if refused is None:
                self._acks.append((move.source, (move.delivery,)))
            else:
                failed.append(move)
                error = refused
        if failed:
            _log.warning("%d of %d copies were not confirmed, trying again: %s", len(failed), len(moves), error)
        return failed


def _drain(items: deque[T]) -> Iterable[T]:
    while items:
        yield items.popleft()
