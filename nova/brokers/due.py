"""Holding what is due later, and handing it on at that instant: for drivers whose broker does not tell the instant itself."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from nova import clock

__all__ = ["DueQueue"]

MOST_AT_ONCE = 1000
RETRY_AFTER_MS = 1000
IDLE = 0.5
"""The longest single wait, in seconds: the clock may be set, and a stop is seen soon."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class DueQueue(Generic[T]):
    """A heap and the thread that empties it. Any thread.

    Args:
        name: of the thread.
        move: given what is due, on that thread; if it raises, the same is due again a little later.
        is_held: whether something is still ours; what is not when it falls due is dropped.
    """

    def __init__(self, name: str, move: Callable[[list[T]], None], is_held: Callable[[T], bool]) -> None:
        self._name = name
        self._move = move
        self._is_held = is_held
        self._heap: list[tuple[int, int, T]] = []
        self._serials = itertools.count()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Hand on from now on."""
        self._thread.start()

    def put(self, items: Iterable[tuple[int, T]]) -> None:
        """Hold these, each with the instant (epoch ms) at which it is due."""
        with self._changed:
            first = self._heap[0][0] if self._heap else None
            for due_ms, item in items:
                heapq.heappush(self._heap, (due_ms, next(self._serials), item))
            if self._heap and (first is None or self._heap[0][0] < first):
                self._changed.notify()

    def again(self, items: Iterable[T]) -> None:
        """Hand these on once more, a little later."""
        due_ms = clock.now_ms() + RETRY_AFTER_MS
        self.put([(due_ms, item) for item in items])

    def clear(self) -> None:
        """Hold nothing any more."""
        with self._changed:
            self._heap.clear()

    def close(self, timeout: float) -> None:
        """Hand on nothing any more. Idempotent."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing.is_set():
            due: list[T] = []
            try:
                due = self._wait_for_due()
                if due:
                    self._move(due)
            except Exception:  # noqa: BLE001 - a thread's top: without it no delay would ever end
                _log.exception("%s: moving delayed tasks failed, trying again", self._name)
                self.again(due)
                self._closing.wait(IDLE)

    def _wait_for_due(self) -> list[T]:
        with self._changed:
            heap = self._heap
            wait = (heap[0][0] - clock.now_ms()) / 1000 if heap else IDLE
            if wait > 0:
                self._changed.wait(min(wait, IDLE))
            now_ms = clock.now_ms()
            due: list[T] = []
            while heap and heap[0][0] <= now_ms and len(due) < MOST_AT_ONCE:
                item = heapq.heappop(heap)[2]
                if self._is_held(item):
                    due.append(item)
        return due
