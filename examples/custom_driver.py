"""A driver of your own in 60 lines: a table of a SQL database as the broker, for any number of processes.

$ python -m examples.custom_driver [FILE]

Two groups get the same five tasks; one task fails once and is retried, another can never work. `with_driver` takes any object
with the methods of `nova.brokers.base.Driver`; `docs/writing-a-driver.md` explains each. The table is SQLite's here because
Python brings that; the same statements do on any database that knows `UPDATE … RETURNING`.

What it keeps: all else that `tests/conformance` asks of a driver within one process, and the tasks of a killed worker come
back when their lease is over (`tests/examples/test_custom_driver.py` runs both). What it does not promise: speed (every call
is a commit, readers ask every 20 ms and sort all that waits), a list of groups (`q.groups` raises `NotSupported`), the dead
counted by queue, a queue that goes on after a fork. For real work there is `with_sqlite`.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from time import time as now
from typing import Any

import msgspec

from nova import (
    BrokerError,
    PublishError,
    ReceivedTask,
    Reject,
    Task,
    TaskQueue,
    with_driver,
    with_group_id,
    with_retry,
)
from nova.brokers.base import Capabilities, Confirmation, Delivery, DriverContext, Message, SubscribeRequest, TopicDepth

LEASE = 10.0  # seconds until the tasks of a silent process go to another
PAUSE = 0.02  # seconds between two looks
CAPABILITIES = Capabilities(
    name="sql", durable=True, shared=True, max_body_bytes=1 << 20, lease=LEASE, after_fork="refuse"
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS readers (topic TEXT, reader TEXT, PRIMARY KEY (topic, reader));
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT,
    reader TEXT,   -- a group; '' while no group has read the topic
    at REAL,       -- for nobody before: the due time, or the end of a lease
    claim TEXT,    -- whose it is now; a new word each time, so that who comes too late settles nothing
    claims INTEGER DEFAULT 0, message BLOB);
CREATE INDEX IF NOT EXISTS waiting ON messages (reader, topic, at);
"""
REGISTER = "INSERT OR IGNORE INTO readers VALUES (?, ?)"
TAKE_OVER = "UPDATE messages SET reader = ?2 WHERE topic = ?1 AND reader = ''"
PUBLISH = """
INSERT INTO messages (topic, reader, at, message) SELECT ?1, reader, coalesce(?3 / 1000.0, ?5), ?4 FROM (
    SELECT ?2 AS reader WHERE ?2 IS NOT NULL
    UNION SELECT reader FROM readers WHERE topic = ?1 AND ?2 IS NULL
    UNION SELECT '' WHERE ?2 IS NULL AND NOT EXISTS (SELECT * FROM readers WHERE topic = ?1))
"""
TAKE = """
UPDATE messages SET at = ?, claim = ?, claims = claims + 1 WHERE id IN (
    SELECT id FROM messages WHERE reader = ? AND topic IN (SELECT value FROM json_each(?)) AND at <= ?
    ORDER BY row_number() OVER (PARTITION BY topic ORDER BY at, id) LIMIT ?)
RETURNING id, claims, message
"""
ACK = "DELETE FROM messages WHERE id = ? AND claim = ?"
RELEASE = "UPDATE messages SET at = 0, claim = NULL, claims = claims - 1 WHERE id = ? AND claim = ?"
RELEASE_ALL = "UPDATE messages SET at = 0, claim = NULL, claims = claims - 1 WHERE claim GLOB ?"
EXTEND = "UPDATE messages SET at = ? WHERE id = ? AND claim = ? RETURNING id"
DEPTH = """
SELECT count(*) FILTER (WHERE at <= ?3), count(*) FILTER (WHERE at > ?3 AND claim IS NULL),
       count(*) FILTER (WHERE at > ?3 AND claim IS NOT NULL),
       NULL  -- the dead are not counted by queue
FROM messages WHERE topic = ?1 AND reader IN (?2, '')
"""
READ = """
SELECT id, message FROM messages WHERE reader = ? AND topic IN (SELECT value FROM json_each(?)) AND id > ?
ORDER BY id LIMIT ?
"""
REMOVE = "DELETE FROM messages WHERE id = ? RETURNING id"


class TableDriver:
    capabilities = CAPABILITIES

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()

    def open(self, context: DriverContext, timeout: float) -> None:
        self._db = sqlite3.connect(self._file, timeout=timeout, isolation_level="IMMEDIATE", check_same_thread=False)
        self._db.executescript(SCHEMA)

    def close(self, timeout: float = 10.0) -> None:
        with self._lock:  # a reader's last call may still be in the library, which would crash
            self._db.close()

    def ensure(self, topics: Sequence[str]) -> None: ...

    def housekeeping(self) -> None: ...

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        confirmation: Confirmation = Future()
        try:
            self.run((PUBLISH, (m.topic, m.group, m.due_ms, msgspec.msgpack.encode(m), now())) for m in messages)
            confirmation.set_result([None] * len(messages))
        except BrokerError as error:
            confirmation.set_result([PublishError(str(error), may_be_stored=True)] * len(messages))
        return confirmation

    def subscribe(self, request: SubscribeRequest) -> TableReader:
        self.run((statement, (topic, request.group)) for topic in request.topics for statement in (REGISTER, TAKE_OVER))
        return TableReader(self, request.group, request.topics)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        return {t: TopicDepth(*self.run([(DEPTH, (t, group, now()))])[0][0]) for t in topics}

    def browse_dead(self, topic: str, group: str) -> TableReader:
        return TableReader(self, group, (topic,))

    def run(self, statements: Iterable[tuple[str, tuple[Any, ...]]]) -> list[list[Any]]:
        try:
            with self._lock, self._db:  # one transaction
                return [self._db.execute(*statement).fetchall() for statement in statements]
        except sqlite3.Error as error:
            raise BrokerError(f"table in {self._file}: {error}") from error


class TableReader:
    """Both of what a driver hands out: a `Subscription`, and a `DeadLetters` that takes nothing."""

    def __init__(self, driver: TableDriver, group: str, topics: Sequence[str]) -> None:
        self._run, self._of = driver.run, (group, msgspec.json.encode(topics).decode())
        self._name, self._closed = uuid.uuid4().hex, threading.Event()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        ends, claim, rows = now() + max(timeout, PAUSE), f"{self._name}-{uuid.uuid4()}", list[Any]()
        while not rows and not self._closed.wait(min(timeout, PAUSE)) and now() < ends:
            rows = self._run([(TAKE, (now() + LEASE, claim, *self._of, now(), max_messages))])[0]
        return [delivery(packed, (number, claim), claims) for number, claims, packed in sorted(rows)]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._run((ACK, one.handle) for one in deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._run((RELEASE, one.handle) for one in deliveries)

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        for d, row in zip(deliveries, self._run((EXTEND, (now() + LEASE, *d.handle)) for d in deliveries), strict=True):
            d.lost = not row
        return [d for d in deliveries if d.lost]

    def close(self, timeout: float = 10.0) -> None:
        self._closed.set()
        self._run([(RELEASE_ALL, (f"{self._name}-*",))])

    def read(self, limit: int, after: str | None = None) -> list[tuple[str, Delivery]]:
        return [(str(n), delivery(p, (n,))) for n, p in self._run([(READ, (*self._of, int(after or 0), limit))])[0]]

    def remove(self, deliveries: Sequence[Delivery]) -> int:
        return sum(map(len, self._run((REMOVE, one.handle) for one in deliveries)))


def delivery(packed: bytes, handle: tuple[Any, ...], claims: int = 0) -> Delivery:
    message = msgspec.msgpack.decode(packed, type=Message)
    return Delivery(message.topic, message.body, message.headers, handle, suspect=claims >= 3, charges=claims)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nova-example-") as directory:
        file = Path(sys.argv[1] if len(sys.argv) > 1 else f"{directory}/broker.db")
        groups = {name: Group(name, file) for name in ("shipping", "billing")}
        for group in groups.values():
            group.queue.start(group.handle)
        groups["shipping"].queue.enqueue_batch([Task("order", {"n": n}, id=f"order-{n}") for n in range(5)])
        for name, group in groups.items():
            if not group.done.wait(timeout=20):
                raise SystemExit(f"{name}: not all tasks came")
        for name, group in groups.items():
            group.queue.stop()
            print(f"{name}: {dict(sorted(group.runs.items()))}")


class Group:
    def __init__(self, name: str, file: Path) -> None:
        retry = with_retry(max_retries=2, base=0.05)
        self.queue = TaskQueue(with_driver(TableDriver(file)), with_group_id(name), retry)
        self.runs: dict[str, int] = {}
        self.done = threading.Event()

    def handle(self, task: ReceivedTask) -> None:
        self.runs[task.id] = task.attempt
        if len(self.runs) == 5 and self.runs["order-1"] == 2:
            self.done.set()
        if task.id == "order-1" and task.attempt == 1:
            raise ConnectionError("the first time it fails")
        if task.id == "order-3":
            raise Reject("it can never work")


if __name__ == "__main__":
    main()
