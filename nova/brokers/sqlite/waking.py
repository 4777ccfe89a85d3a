"""Who waits for what: publishes, releases and other processes' commits wake the receivers whose topics they touch.

In process a publisher names its topics; other processes' commits are seen by `PRAGMA data_version` every 50 ms and wake
everybody. A receiver clears its event before it looks at the file, so nothing between the look and the wait is missed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from nova.brokers.sqlite.connection import Connection
from nova.errors import BrokerError

__all__ = ["Waker", "Watcher"]

POLL_OTHERS = 0.05
"""Seconds between looks at what other processes have committed."""

_log = logging.getLogger(__name__)


class Waker:
    """The receivers of one driver. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[frozenset[str], threading.Event]] = []

    def enter(self, topics: Iterable[str]) -> threading.Event:
        """An event that is set whenever one of these topics may have something new."""
        event = threading.Event()
        with self._lock:
            self._waiting.append((frozenset(topics), event))
        return event

    def leave(self, event: threading.Event) -> None:
        """Forget an event."""
        with self._lock:
            self._waiting = [entry for entry in self._waiting if entry[1] is not event]

    def wake(self, topics: Sequence[str] | frozenset[str] | None = None) -> None:
        """Set the events of these topics; None = of all."""
        for wanted, event in self._waiting:
            if topics is None or not wanted.isdisjoint(topics):
                event.set()


class Watcher:
    """Sees other processes' commits. Owns its connection and its thread until `close`."""

    def __init__(self, path: str, connection: Connection, waker: Waker) -> None:
        self._path = path
        self._connection = connection
        self._waker = waker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nova-sqlite-watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        version = None
        while not self._stop.wait(POLL_OTHERS):
            try:
                latest = self._connection.query(lambda c: c.execute("PRAGMA data_version").fetchone()[0])
            except BrokerError as exc:
                _log.warning("sqlite: cannot watch %s: %s", self._path, exc)
                continue
            if latest != version:
                version = latest
                self._waker.wake()
