"""Connections that one thread uses at a time, and that a fork never inherits.

SQLite must not be carried across a fork: a child that inherits an open file also inherits SQLite's in-process record of its
locks, takes none of its own, and loses or damages what it writes (measured: 100 accepted tasks gone after the parent closed
its side). So before every `os.fork` of the process all connections are closed between two transactions, and both sides open
them again when they next need them. `subprocess` does not fork through these hooks and needs none.

Source: SQLite, "How To Corrupt An SQLite Database File", section 2.6.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from nova.brokers.sqlite.schema import connect, translate
from nova.errors import BrokerUnavailable

__all__ = ["Connection"]

T = TypeVar("T")


class Connection:
    """A connection to one file, opened at first use and again after a fork.

    Args:
        path: the file.
        busy_timeout: seconds to wait for another process's write.
        prepare: settings for each fresh connection.
    """

    def __init__(
        self, path: str, busy_timeout: float, prepare: Callable[[sqlite3.Connection], None] | None = None
    ) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._prepare = prepare
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._closed = False
        with _opening:
            _all.add(self)

    @contextmanager
    def use(self) -> Generator[sqlite3.Connection]:
        """The open connection, for this thread alone inside the block. SQLite's own errors pass through.

        Raises:
            BrokerUnavailable: closed, or the file was deleted or replaced since it was opened.
        """
        while _fork_wanted:  # or a busy writer would take the lock again and again before the fork gets it
            time.sleep(0.0005)
        with self._lock:
            if self._closed:
                raise BrokerUnavailable(f"sqlite: {self._path} is closed")
            if self._connection is None:
                self._open()
            self._check_file()
            assert self._connection is not None
            yield self._connection

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask something, with SQLite's errors translated.

        Raises:
            BrokerError: it cannot be answered now.
        """
        try:
            with self.use() as connection:
                return question(connection)
        except sqlite3.Error as exc:
            raise translate(self._path, exc) from exc

    def close(self) -> None:
        """Close it for good. Idempotent; waits for the block that uses it."""
        with self._lock:
            self._closed = True
            self._release()
        with _opening:
            _all.discard(self)

    def suspend(self) -> None:
        """Close it and keep everybody out, until `resume`."""
        self._lock.acquire()
        self._release()

    def resume(self) -> None:
        """Let users in again; the next one opens it."""
        self._lock.release()

    def _open(self) -> None:
        with _opening:  # never in the middle of a fork
            if self._file is not None:
                self._check_file()
            connection = connect(self._path, self._busy_timeout)
        try:
            if self._prepare is not None:
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._file = self._file or _identity(self._path)

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_file(self) -> None:
        if _identity(self._path) != self._file:
            raise BrokerUnavailable(
                f"sqlite: {self._path} was deleted or replaced while it was open; stop every process that uses it, "
                "restore the file and start again"
            )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _before_fork() -> None:
    """Suspend every connection, also those made meanwhile, and let nobody make another until the fork is done."""
    global _fork_wanted
    _one_fork.acquire()
    _fork_wanted = True
    while True:
        _opening.acquire()
        missing = set(_all) - _suspended
        if not missing:
            return
        _opening.release()
        for connection in missing:
            connection.suspend()
            _suspended.add(connection)


def _after_fork() -> None:
    global _fork_wanted
    _fork_wanted = False
    _opening.release()
    while _suspended:
        _suspended.pop().resume()
    _one_fork.release()


_one_fork = threading.Lock()
_fork_wanted = False
_opening = threading.Lock()
_all: weakref.WeakSet[Connection] = weakref.WeakSet()
_suspended: set[Connection] = set()
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
