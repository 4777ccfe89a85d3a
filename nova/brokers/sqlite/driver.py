"""The SQLite driver: connections, threads and waiting around `statements`.

Threads: one writer (all changes, group commit) and, once something is subscribed, one watcher that sees other processes'
commits within 50 ms. Each subscription and reader has a read connection of its own. Any method from any thread; `receive`
from one thread at a time.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

from nova import clock
from nova.brokers.base import (
    Capabilities,
    CheckRequest,
    Confirmation,
    Delivery,
    DriverContext,
    Finding,
    Group,
    Message,
    SubscribeRequest,
    TopicDepth,
)
from nova.brokers.refusals import group_in_use
from nova.brokers.sqlite import checkup, consumers, limits, schema, statements
from nova.brokers.sqlite.config import SQLiteConfig
from nova.brokers.sqlite.connection import Connection
from nova.brokers.sqlite.waking import Waker, Watcher
from nova.brokers.sqlite.writer import CommitUnclear, Writer
from nova.errors import BrokerError, BrokerUnavailable, PublishError, QueueFull

__all__ = ["SQLiteDriver"]

T = TypeVar("T")
Lanes: TypeAlias = list[tuple[str, int]]

MAX_BACKLOG = 10_000
"""Publishes that may wait for the writer; beyond it they fail with `QueueFull` at once."""

_log = logging.getLogger(__name__)


class SQLiteDriver:
    """A handle on one file."""

    def __init__(self, config: SQLiteConfig) -> None:
        self._config = config
        self.path = config.path
        self.lease_ms = int(config.lease * 1000)
        self._writer: Writer | None = None
        self._reader: Connection | None = None
        self.waker = Waker()
        self._watcher: Watcher | None = None
        self._opening = threading.Lock()
        self._call_timeout = 10.0
        self._prefix = ""
        self._subscriptions: set[SQLiteSubscription] = set()
        self._stayed = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """Durable, shared between the processes of one machine, leased."""
        return Capabilities(
            name="sqlite",
            durable=True,
            shared=True,
            max_body_bytes=self._config.max_body_bytes,
            lease=self._config.lease,
            housekeeping_every=min(1.0, self._config.lease / 3),
        )

    def open(self, context: DriverContext, timeout: float) -> None:
        """Open the file, made with its tables if missing.

        Raises:
            BrokerUnavailable: it cannot be opened, is no database, or stays locked.
        """
        self._call_timeout = context.call_timeout
        self._prefix = context.prefix
        connection = Connection(self.path, self._config.busy_timeout, self._limit_size)
        try:
            connection.query(lambda c: schema.create(c, self.path))
        except BrokerError as exc:
            connection.close()
            raise exc if isinstance(exc, BrokerUnavailable) else BrokerUnavailable(str(exc)) from exc
        self._reader = self.connect()
        self._writer = Writer(self.path, connection)
        self._writer.start()

    def close(self, timeout: float = 10.0) -> None:
        """Finish what was handed over, then close the file."""
        with self._opening:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()
        if self._writer is not None:
            self._writer.close(timeout)
        if self._reader is not None:
            self._reader.close()
        self.waker.wake()

    def ensure(self, topics: Sequence[str]) -> None:
        """Lanes are made when the first message comes."""

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        """Stored, with an fsync, when the future resolves."""
        if self.writer.backlog >= MAX_BACKLOG:
            refused: Confirmation = Future()
            refused.set_result([QueueFull(f"sqlite: {MAX_BACKLOG} writes wait already")] * len(messages))
            return refused

        def operation(connection: sqlite3.Connection) -> list[PublishError | None]:
            now_ms = clock.now_ms()
            statements.insert(connection, messages, now_ms)
            return [None] * len(messages)

        def on_error(error: BrokerError) -> list[PublishError | None]:
            kind = QueueFull if isinstance(error, schema.NoRoom) else PublishError
            return [kind(str(error), may_be_stored=isinstance(error, CommitUnclear)) for _ in messages]

        future = self.writer.submit(operation, on_error)
        topics = frozenset([message.topic for message in messages])
        future.add_done_callback(lambda _: self.waker.wake(topics))
        return future

    def subscribe(self, request: SubscribeRequest) -> SQLiteSubscription:
        """Register the group and start to consume."""
        seat = consumers.Seat(request.topics, request.group)
        lanes = self.run(lambda c: consumers.join(c, seat, clock.now_ms() + self.lease_ms))
        with self._opening:
            if self._watcher is None:
                self._watcher = Watcher(self.path, self.connect(), self.waker)
        subscription = SQLiteSubscription(self, seat, lanes, charged=request.charged)
        self._subscriptions.add(subscription)
        return subscription

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """Counted in one read transaction each."""
        now_ms = clock.now_ms()
        return self.read(lambda c: {topic: statements.depth(c, topic, group, now_ms) for topic in topics})

    def check(self, request: CheckRequest) -> list[Finding]:
        """From the file, its disk and its pragmas; any number of workers of one machine may share it."""
        del request
        facts = self.read(lambda connection: checkup.look(connection, self.path))
        return limits.judge(facts, self._config.max_bytes)

    def browse_dead(self, topic: str, group: str) -> SQLiteDeadLetters:
        """A reader that claims nothing."""
        return SQLiteDeadLetters(self, topic, group)

    def groups(self) -> list[Group]:
        """Counted on the read connection."""
        return self.read(lambda c: consumers.groups(c, self._prefix, clock.now_ms()))

    def remove_group(self, group: str) -> bool:
        """One short transaction; then rows are freed for half the time a call has. Housekeeping frees the rest."""
        deadline = time.monotonic() + self._call_timeout / 2
        removal = self.run(lambda c: consumers.remove(c, self._prefix, group, clock.now_ms()))
        if removal.consumed_until_ms is not None:
            counts = max(0.0, (removal.consumed_until_ms - clock.now_ms()) / 1000)
            raise group_in_use("sqlite", group, f"for up to {counts:.0f} s more")
        try:
            while time.monotonic() < deadline and self.run(consumers.free):
                pass
        except BrokerError as exc:
            _log.warning("sqlite: the group %s is removed, the room in %s is freed later: %s", group, self.path, exc)
        return removal.is_known

    def housekeeping(self) -> None:
        """Give back what dead processes held, let our subscriptions count on, free what removed groups left."""
        now = time.monotonic()
        is_due = now - self._stayed >= self._config.lease / 3
        subscriptions = tuple(self._subscriptions) if is_due else ()

        def operation(connection: sqlite3.Connection) -> tuple[int, list[tuple[SQLiteSubscription, Lanes]]]:
            moved = [(s, lanes) for s in subscriptions if (lanes := s.stay(connection, clock.now_ms()))]
            consumers.free(connection)
            return statements.sweep(connection, clock.now_ms()), moved

        swept, moved = self.run(operation)
        for subscription, lanes in moved:  # only now that they are committed
            subscription.read_from(lanes)
        if swept:
            self.waker.wake()
        if is_due:
            self._stayed = now

    def leave(self, subscription: SQLiteSubscription, seat: consumers.Seat) -> None:
        """A subscription ends. Hands over and returns, `close` waits; if it fails, it ends with the lease."""
        self._subscriptions.discard(subscription)
        self.writer.submit(lambda c: consumers.leave(c, seat))

    @property
    def writer(self) -> Writer:
        """The open writer."""
        if self._writer is None:
            raise BrokerUnavailable(f"sqlite: {self.path} is not open")
        return self._writer

    def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run a change and wait for its commit.

        Raises:
            BrokerError: nothing was changed.
        """
        future = self.writer.submit(operation)
        try:
            return future.result(self._call_timeout)
        except TimeoutError:
            if future.cancel():
                raise BrokerUnavailable(f"sqlite: {self.path}: no turn to write in {self._call_timeout:g} s") from None
            return future.result()  # it has begun, so it ends within busy_timeout

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on the shared read connection."""
        if self._reader is None:
            raise BrokerUnavailable(f"sqlite: {self.path} is not open")
        return self._reader.query(query)

    def connect(self) -> Connection:
        """A read connection for one owner."""
        return Connection(self.path, self._config.busy_timeout)

    def _limit_size(self, connection: sqlite3.Connection) -> None:
        if self._config.max_bytes is not None:
            page_size = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {max(1, self._config.max_bytes // page_size)}")


class SQLiteSubscription:
    """Claims rows of its lanes. `receive` is called by one thread at a time; the rest by any."""

    def __init__(self, driver: SQLiteDriver, seat: consumers.Seat, lanes: Lanes, *, charged: bool) -> None:
        self._driver = driver
        self._seat = seat
        self._lanes = deque(lanes)
        self._charged = int(charged)
        self._connection = driver.connect()
        self._topics = frozenset(seat.topics)
        self._woken = driver.waker.enter(self._topics)
        self._held: set[Delivery] = set()
        self._pending: Future[object] | None = None
        self._closed = False

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """Look with the read connection, claim with the writer, wait in between."""
        deadline = time.monotonic() + timeout
        while not self._closed:
            self._woken.clear()
            due_ms = self._next_due()
            wait = deadline - time.monotonic()
            if due_ms is not None:
                until_due = (due_ms - clock.now_ms()) / 1000
                if until_due <= 0 and (deliveries := self._claim(max_messages)):
                    return deliveries
                wait = min(wait, max(until_due, 0.0005))
            if deadline <= time.monotonic():
                break
            self._woken.wait(wait)
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Delete the rows; one fsync for all that settle meanwhile."""
        claims = self._let_go(deliveries)
        if claims:
            self._submit(lambda c: statements.delete(c, claims), "ack", claims)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Make the rows ready again, as if never claimed."""
        claims = self._let_go(deliveries)
        if claims:
            charged = self._charged
            self._submit(lambda c: statements.release(c, claims, charged), "release", claims)

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Move the leases on; rows claimed by another process meanwhile are lost."""
        held = [delivery for delivery in deliveries if delivery in self._held]
        claims: list[statements.Claim] = [delivery.handle for delivery in held]
        if not claims:
            return []
        kept = self._driver.run(lambda c: statements.extend(c, claims, clock.now_ms() + self._driver.lease_ms))
        lost = [delivery for delivery in held if delivery.handle.row not in kept and delivery in self._held]
        for delivery in lost:
            delivery.lost = True
        self._held.difference_update(lost)
        return lost

    def close(self, timeout: float = 10.0) -> None:
        """Wait for what was handed over; release the rest."""
        self._closed = True
        self._woken.set()
        self._driver.waker.leave(self._woken)
        self.release(list(self._held))
        self._driver.leave(self, self._seat)
        if self._pending is not None:
            concurrent.futures.wait([self._pending], timeout)
        self._connection.close()

    def stay(self, connection: sqlite3.Connection, now_ms: int) -> Lanes:
        """Count as a consumer for another lease; new lanes if the group was removed during a pause, else []."""
        return [] if self._closed else consumers.stay(connection, self._seat, now_ms + self._driver.lease_ms)

    def read_from(self, lanes: Lanes) -> None:
        """Read these lanes from now on."""
        self._lanes = deque(lanes)
        self._woken.set()

    def _next_due(self) -> int | None:
        query = "SELECT due FROM nova_messages WHERE lane = ? AND state = 0 ORDER BY due, id LIMIT 1"
        try:
            rows = self._connection.query(lambda c: [c.execute(query, (lane,)).fetchone() for _, lane in self._lanes])
        except BrokerUnavailable:
            if self._closed:
                return None
            raise
        return min((row[0] for row in rows if row is not None), default=None)

    def _claim(self, max_messages: int) -> list[Delivery]:
        self._lanes.rotate(-1)
        lanes, lease_ms = list(self._lanes), self._driver.lease_ms

        def operation(connection: sqlite3.Connection) -> list[Delivery]:
            now_ms = clock.now_ms()
            taken: list[Delivery] = []
            for topic, lane in lanes:
                room = max_messages - len(taken)
                if room:
                    taken += statements.claim(connection, lane, topic, room, now_ms, lease_ms, self._charged)
            return taken

        deliveries = self._driver.run(operation)
        self._held.update(deliveries)
        if self._closed:
            self.release(deliveries)
            return []
        return deliveries

    def _let_go(self, deliveries: Sequence[Delivery]) -> list[statements.Claim]:
        held = self._held
        claims = [delivery.handle for delivery in deliveries if delivery in held]
        held.difference_update(deliveries)
        return claims

    def _submit(
        self, operation: Callable[[sqlite3.Connection], object], what: str, claims: list[statements.Claim]
    ) -> None:
        """Change rows without waiting. Tried again while the file is locked; otherwise they come back with their lease."""

        def done(finished: Future[object]) -> None:
            error = finished.exception()
            if isinstance(error, schema.Locked) and not self._closed:
                self._submit(operation, what, claims)
            elif error is not None:
                _log.warning("sqlite: %s of %d tasks failed, they will run again: %s", what, len(claims), error)
            elif what == "release":
                self._driver.waker.wake(self._topics)

        self._pending = self._driver.writer.submit(operation)
        self._pending.add_done_callback(done)


class SQLiteDeadLetters:
    """Reads a lane by row id, claims nothing."""

    def __init__(self, driver: SQLiteDriver, topic: str, group: str) -> None:
        self._driver = driver
        self._topic = topic
        self._group = group

    def read(self, limit: int, after: str | None = None) -> list[tuple[str, Delivery]]:
        """The oldest rows behind the cursor, which is a row id."""

        def query(connection: sqlite3.Connection) -> list[tuple[int, int, int, bytes, bytes]]:
            return connection.execute(
                """SELECT m.id, m.claim, m.stored, m.headers, m.body FROM nova_messages m
                JOIN nova_lanes l ON l.id = m.lane WHERE l.topic = ? AND l.grp = ? AND m.id > ? ORDER BY m.id LIMIT ?""",
                (self._topic, self._group, int(after or 0), limit),
            ).fetchall()

        return [
            (
                str(row),
                Delivery(self._topic, body, statements.decode_headers(headers), statements.Claim(row, claim), stored),
            )
            for row, claim, stored, headers, body in self._driver.read(query)
        ]

    def remove(self, deliveries: Sequence[Delivery]) -> int:
        """Delete the rows and wait for the commit."""
        claims: list[statements.Claim] = [delivery.handle for delivery in deliveries]
        return self._driver.run(lambda c: statements.delete(c, claims))

    def close(self) -> None:
        """Holds nothing."""
