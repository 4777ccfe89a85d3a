"""What must be made or looked up on the server while others wait for it: one thread, one after the other."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from nova.errors import NovaError

__all__ = ["Chores"]

_log = logging.getLogger(__name__)


class Chores:
    """A thread that starts at its first job."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], None]) -> None:
        """Do this soon. Any thread."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nova-rabbitmq-chores", daemon=True)
                self._thread.start()
        self._jobs.put(job)

    def attempt(self, job: Callable[[], object], done: Callable[[str | None], None]) -> None:
        """Do this soon, and say what went wrong with it; None = nothing."""

        def attempt() -> None:
            try:
                job()
            except NovaError as exc:
                done(str(exc))
            except Exception as exc:  # whoever waits must hear of it
                done(repr(exc))
                raise
            else:
                done(None)

        self.do(attempt)

    def close(self, timeout: float) -> None:
        """End after the present job. Idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - a thread's top: the next job is another's
                _log.exception("a chore of the RabbitMQ driver failed")
