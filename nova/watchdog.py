"""Calls back when a deadline has passed that nobody has withdrawn. One thread, started with the first deadline."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Deadline", "Watchdog"]

SWEEP_AT = 100
"""Withdrawn deadlines are swept when they are at least this many and more than half of all."""

_log = logging.getLogger(__name__)


class Deadline:
    """Something to call at a time, until it is withdrawn."""

    __slots__ = ("at", "callback")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback


class Watchdog:
    """Deadlines of running handlers. Any thread may add and withdraw; callbacks run on the watchdog's own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._deadlines: list[tuple[float, int, Deadline]] = []
        self._withdrawn = 0
        self._serials = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call_after(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Run `callback` in `seconds`, unless withdrawn."""
        deadline = Deadline(time.monotonic() + seconds, callback)
        with self._changed:
            heapq.heappush(self._deadlines, (deadline.at, next(self._serials), deadline))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            if self._deadlines[0][2] is deadline:
                self._changed.notify()
        return deadline

    def withdraw(self, deadline: Deadline) -> None:
        """Forget a deadline, and what its callback holds, at once."""
        with self._changed:
            if deadline.callback is None:
                return
            deadline.callback = None
            self._withdrawn += 1
            if self._withdrawn >= SWEEP_AT and 2 * self._withdrawn > len(self._deadlines):
                self._deadlines = [entry for entry in self._deadlines if entry[2].callback is not None]
                heapq.heapify(self._deadlines)
                self._withdrawn = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def close(self) -> None:
        """Forget all deadlines and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _run(self) -> None:
        while (callback := self._next()) is not None:
            try:
                callback()
            except Exception:  # noqa: BLE001 - a thread's top: the other deadlines still count
                _log.exception("%s: a callback failed", self._name)

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next deadline that is due; None when closed."""
        with self._changed:
            while not self._closed:
                if not self._deadlines:
                    self._changed.wait()
                elif (wait := self._deadlines[0][0] - time.monotonic()) > 0:
                    self._changed.wait(wait)
                else:
                    _, _, deadline = heapq.heappop(self._deadlines)
                    callback, deadline.callback = deadline.callback, None
                    if callback is not None:
                        return callback
                    self._withdrawn -= 1
        return None
