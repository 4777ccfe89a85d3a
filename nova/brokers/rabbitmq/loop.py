"""The thread on which connections live: pika's loop, what other threads want done there, and timers.

pika is not thread-safe: everything that touches a connection or a channel runs on its loop's thread, through `run`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pika.adapters.select_connection import IOLoop

__all__ = ["Loop"]

_log = logging.getLogger(__name__)


class Loop:
    """Runs from `start` to `close`.

    Args:
        name: of the thread.
        failed: told, on the thread, after an error that nobody has caught: no connection can be trusted any more.

    Attributes:
        pika: the loop itself, for connections.
    """

    def __init__(self, *, name: str, failed: Callable[[], None]) -> None:
        self.pika = IOLoop()
        self._failed = failed
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Do what is asked from now on."""
        self._thread.start()

    def run(self, action: Callable[[], None]) -> None:
        """Do this on the thread, soon; after `close` never. Any thread."""
        self.pika.add_callback_threadsafe(action)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this later; only on the thread."""
        self.pika.call_later(seconds, action)

    def close(self) -> None:
        """End the thread. Idempotent."""
        self.pika.add_callback_threadsafe(self.pika.stop)
        self._thread.join(1.0)

    def _serve(self) -> None:
        while True:
            try:
                self.pika.start()
                break
            except Exception:  # noqa: BLE001 - a thread's top: without it nothing would be sent or received again
                _log.exception("%s failed, going on", self._thread.name)
                self._failed()
        self.pika.close()
