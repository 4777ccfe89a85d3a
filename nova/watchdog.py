"""Calls back when a deadline has passed and nobody has withdrawn it. One thread, started with the first deadline."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

__all__ = ["Watchdog"]


class Watchdog:
    """Deadlines of running handlers. Withdrawing is the callback's affair: it must look whether it still matters."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._deadlines: list[tuple[float, int, Callable[[], None]]] = []
        self._serials = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call_after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run `callback` on the watchdog's thread in `seconds`."""
        with self._changed:
            heapq.heappush(self._deadlines, (time.monotonic() + seconds, next(self._serials), callback))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Forget all deadlines and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._is_due():
                    self._changed.wait(self._deadlines[0][0] - time.monotonic() if self._deadlines else None)
                if self._closed:
                    return
                _, _, callback = heapq.heappop(self._deadlines)
            callback()

    def _is_due(self) -> bool:
        return bool(self._deadlines) and self._deadlines[0][0] <= time.monotonic()
