"""The file: its tables, its connections, and what SQLite's errors mean.

`nova_lanes` has one row per topic and group (group '' holds what came before any group); `nova_messages` one row per
message of a lane; `nova_consumers` says which lanes are read now (`consumers`). A message is ready (state 0) or claimed
(state 1). `claim` counts every claim and fences stale workers; ids are never used again (AUTOINCREMENT), or an old fence
could fit a new row.
"""

from __future__ import annotations

import sqlite3

from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["Locked", "NoRoom", "connect", "create", "translate"]

VERSION = 1


class NoRoom(BrokerError):
    """The disk, or the file's `max_bytes`, is full; nothing was changed."""


_DDL = (
    "CREATE TABLE IF NOT EXISTS nova_schema (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS nova_lanes (
        id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        grp TEXT NOT NULL,
        registered INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic, grp))""",
    """CREATE TABLE IF NOT EXISTS nova_messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        lane INTEGER NOT NULL,
        due INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        lease INTEGER NOT NULL DEFAULT 0,
        claim INTEGER NOT NULL DEFAULT 0,
        deliveries INTEGER NOT NULL DEFAULT 0,
        charges INTEGER NOT NULL DEFAULT 0,
        headers BLOB NOT NULL,
        body BLOB NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS nova_consumers (
        lane INTEGER NOT NULL,
        seat INTEGER NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (seat, lane)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS nova_ready ON nova_messages (lane, due, id) WHERE state = 0",
    "CREATE INDEX IF NOT EXISTS nova_leased ON nova_messages (lease) WHERE state = 1",
)


class Locked(BrokerUnavailable):
    """Another process held the file for the whole busy_timeout; nothing was changed."""


def connect(path: str, busy_timeout: float) -> sqlite3.Connection:
    """A connection with Nova's settings; usable by one thread at a time, whichever it is."""
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def create(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables if they are missing.

    Raises:
        BrokerUnavailable: the file was made by a newer Nova.
    """
    if _has_tables(connection) and (version := _version(connection)) is not None:
        if version != VERSION:
            raise BrokerUnavailable(
                f"sqlite: {path} has schema version {version}, this Nova knows {VERSION}; upgrade nova-taskqueue"
            )
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _DDL:
            connection.execute(statement)
        if _version(connection) is None:
            connection.execute("INSERT INTO nova_schema (version) VALUES (?)", (VERSION,))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def translate(path: str, exc: sqlite3.Error) -> BrokerError:
    """SQLite's error as ours."""
    code = getattr(exc, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Locked(f"sqlite: {path} was locked by another process for the whole busy_timeout")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOTADB):
        return BrokerUnavailable(f"sqlite: cannot use {path}: {exc}; give a path of a writable file on a local disk")
    if primary == sqlite3.SQLITE_FULL:
        return NoRoom(f"sqlite: no room for {path}: {exc}; free some disk or raise with_sqlite(max_bytes)")
    return BrokerError(f"sqlite: {path}: {exc}")


def _has_tables(connection: sqlite3.Connection) -> bool:
    names = "'nova_schema', 'nova_lanes', 'nova_messages', 'nova_consumers'"
    return bool(connection.execute(f"SELECT count(*) FROM sqlite_master WHERE name IN ({names})").fetchone()[0] == 4)


def _version(connection: sqlite3.Connection) -> int | None:
    row = connection.execute("SELECT version FROM nova_schema").fetchone()
    return None if row is None else int(row[0])
