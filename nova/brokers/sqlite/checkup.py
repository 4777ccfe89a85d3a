"""Reads a file's place, room and settings for `limits` to judge. Changes nothing. Any thread."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from nova.brokers.sqlite.limits import FileFacts, kind_of_mount
from nova.brokers.sqlite.schema import translate

__all__ = ["look"]

MOUNTS = Path("/proc/self/mountinfo")


def look(connection: sqlite3.Connection, path: str) -> FileFacts:
    """The facts of an open file.

    Args:
        connection: one of Nova's, for this thread alone.
    """
    (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (unused,) = connection.execute("PRAGMA freelist_count").fetchone()
    return FileFacts(
        path=path,
        mount=kind_of_mount(os.path.realpath(path), MOUNTS.read_text("utf-8")) if MOUNTS.exists() else None,
        size=pages * page,
        unused=unused * page,
        free=shutil.disk_usage(os.path.dirname(path)).free,
        journal_mode=journal_mode,
        synchronous=synchronous,
        refusal=_refusal(connection, path),
    )


def _refusal(connection: sqlite3.Connection, path: str) -> str | None:
    """Why it cannot be written; another process that writes just now is no reason."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as exc:
        locked = exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        return None if locked else str(translate(path, exc))
    connection.execute("ROLLBACK")
    return None
