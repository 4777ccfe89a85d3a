"""The one thread of a process that writes to the file, with group commit.

Callers hand over operations; the writer takes all that wait, runs them in one `BEGIN IMMEDIATE … COMMIT` and resolves their
futures after the commit. What comes in during a commit's fsync shares the next one, so durability costs one fsync per
group, not per operation. If a group fails, each of its operations is tried alone, so that none fails for another's sake;
only a file that another process keeps locked fails everything that waits, or the waits would add up.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from nova.brokers.sqlite.connection import Connection
from nova.brokers.sqlite.schema import NoRoom, translate
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["CommitUnclear", "Writer"]

T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    """One operation, its future, and what the future resolves to if the operation fails (None: the error)."""

    operation: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    on_error: Callable[[BrokerError], Any] | None

    def fail(self, error: BrokerError) -> None:
        if self.on_error is None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.on_error(error))


MAX_GROUP = 256
"""Operations in one transaction, so that nobody waits behind an endless one."""

_log = logging.getLogger(__name__)


class CommitUnclear(BrokerError):
    """The commit itself failed: after a power cut the data may be there or not."""


class Writer:
    """Owns the write connection and its thread from `start` to `close`."""

    def __init__(self, path: str, connection: Connection) -> None:
        self._path = path
        self._connection = connection
        self._waiting: deque[_Entry] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="nova-sqlite-writer", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Operations that wait for a transaction."""
        return len(self._waiting)

    def submit(
        self, operation: Callable[[sqlite3.Connection], T], on_error: Callable[[BrokerError], T] | None = None
    ) -> Future[T]:
        """Run `operation` in a transaction; the future resolves after its commit.

        The future fails with `BrokerError` if nothing was changed, `CommitUnclear` if nobody can tell; with `on_error`
        it resolves to what that makes of the error. An operation whose future is cancelled before its turn is left out.
        """
        entry = _Entry(operation, Future(), on_error)
        with self._wake:
            closed = self._closing
            if not closed:
                self._waiting.append(entry)
                self._wake.notify()
        if closed:
            entry.fail(BrokerUnavailable(f"sqlite: {self._path} is closed"))
        return entry.future

    def close(self, timeout: float) -> None:
        """Finish what was submitted, for at most `timeout` seconds, then close the connection."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning(
                "sqlite: %s is still writing after %g s; what it has not finished is unknown", self._path, timeout
            )
        else:
            self._connection.close()

    def _run(self) -> None:
        while self._work():
            pass

    def _work(self) -> bool:
        """Wait for operations and run one group; False when closed and empty."""
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            if not self._waiting:
                return False
            entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
        group = [entry for entry in entries if entry.future.set_running_or_notify_cancel()]
        if group and not self._commit(group, last_try=len(group) == 1):
            for entry in group:
                self._commit([entry], last_try=True)
        return True

    def _give_up_waiting(self, error: BrokerError) -> None:
        """The file stayed locked for the whole busy_timeout: what waits behind has waited as long. Nothing was changed."""
        with self._wake:
            entries = list(self._waiting)
            self._waiting.clear()
        for entry in entries:
            if entry.future.set_running_or_notify_cancel():
                entry.fail(error)

    def _commit(self, group: list[_Entry], *, last_try: bool) -> bool:
        """Run a group in one transaction; resolves its futures unless it failed and is not the last try."""
        error: BrokerError
        committing = False
        try:
            with self._connection.use() as connection, _rolled_back(connection):
                connection.execute("BEGIN IMMEDIATE")
                results = [entry.operation(connection) for entry in group]
                committing = True
                connection.execute("COMMIT")
        except BrokerUnavailable as exc:  # the file is gone
            error = exc
        except sqlite3.Error as exc:
            error = translate(self._path, exc)
            if committing and not isinstance(error, (BrokerUnavailable, NoRoom)):
                error = CommitUnclear(f"{error} (in the commit itself)")
            error.__cause__ = exc
        except Exception as exc:  # noqa: BLE001 - an operation's own fault: it fails alone, the thread lives on
            _log.exception("sqlite: an operation failed")
            error = BrokerError(f"sqlite: {self._path}: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
        else:
            for entry, result in zip(group, results, strict=True):
                entry.future.set_result(result)
            return True
        if last_try or isinstance(error, (CommitUnclear, BrokerUnavailable)):
            for entry in group:
                entry.fail(error)
            if isinstance(error, BrokerUnavailable):
                self._give_up_waiting(error)
            return True
        return False


@contextmanager
def _rolled_back(connection: sqlite3.Connection) -> Generator[None]:
    """Leave no transaction open behind an error."""
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                _log.exception("sqlite: rolling back failed")
        raise
