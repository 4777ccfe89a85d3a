"""Publishing: immediate messages of a topic together in one request, timed ones each in its own, several on their way.

One reply stands for all messages of a request. If the server refuses them, they are sent one by one, so that only the culprit
fails. NEVER put two timed messages into one request: the server says OK, and from then on its timers loop over the first and
deliver nothing at all, also after a restart (RocketMQ 5.4.0).

`send` appends to a bounded queue; one thread sends. What surely was not stored is sent again until its time is over; what may
have been is not, its entry says so.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import grpc

from nova.brokers.base import Confirmation
from nova.brokers.rocketmq.client import Connection
from nova.brokers.rocketmq.failures import Failure, failure_of_call, failure_of_status
from nova.brokers.rocketmq.messages import Outgoing, request_of
from nova.errors import PublishError, QueueFull

__all__ = ["Publisher"]

MOST_TOGETHER = 128
MOST_BYTES_TOGETHER = 3_500_000
"""Bodies of one request; the server refuses from 4 MiB on."""
MOST_OPEN = 4
"""Requests with immediate messages on their way: what comes meanwhile goes together."""
MOST_OPEN_TIMED = 128
MOST_WAITING = 200_000
MOST_WAITING_BYTES = 256 << 20
AGAIN = 0.2
IDLE = 0.5


class _Pending:
    """The messages of one call."""

    __slots__ = ("future", "left", "outcome")

    def __init__(self, count: int) -> None:
        self.future: Confirmation = Future()
        self.future.set_running_or_notify_cancel()
        self.outcome: list[PublishError | None] = [None] * count
        self.left = count


class _Item:
    """One message until its outcome is known. Only the publisher's lock guards it."""

    __slots__ = ("alone", "deadline", "index", "message", "not_before", "pending")

    def __init__(self, pending: _Pending, index: int, message: Outgoing, deadline: float) -> None:
        self.pending = pending
        self.index = index
        self.message = message
        self.deadline = deadline
        self.not_before = 0.0
        self.alone = False


class Publisher:
    """Sends messages from any thread.

    Args:
        send_timeout: seconds until a message is given up.
        request_timeout: seconds one request may take.
    """

    def __init__(self, connection: Connection, *, send_timeout: float, request_timeout: float) -> None:
        self._connection = connection
        self._send_timeout = send_timeout
        self._request_timeout = request_timeout
        self._ready: dict[str, deque[_Item]] = {}
        self._timed: deque[_Item] = deque()
        self._again: list[_Item] = []
        self._waiting = 0
        self._waiting_bytes = 0
        self._open = 0
        self._open_timed = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="nova-rocketmq-publisher", daemon=True)
        self._thread.start()

    def send(self, messages: Sequence[Outgoing]) -> Confirmation:
        """Hand over and return; the future has one entry per message. Any thread."""
        pending = _Pending(len(messages))
        refusal: PublishError | None = None
        size = sum([len(message.body) for message in messages])
        deadline = time.monotonic() + self._send_timeout
        with self._changed:
            if self._closed:
                refusal = PublishError(f"{self._connection.where}: the driver is closed")
            elif self._waiting and (  # a call larger than the buffer is taken where it is the only one
                self._waiting + len(messages) > MOST_WAITING or self._waiting_bytes + size > MOST_WAITING_BYTES
            ):
                refusal = QueueFull(f"{self._connection.where}: the send buffer is full; enqueue slower")
            else:
                for index, message in enumerate(messages):
                    self._add(_Item(pending, index, message, deadline))
                self._waiting += len(messages)
                self._waiting_bytes += size
                self._changed.notify()
        if refusal is not None:
            pending.future.set_result([refusal] * len(messages))
        elif not messages:
            pending.future.set_result([])
        return pending.future

    def close(self, timeout: float) -> None:
        """Finish what was handed over, for at most so long; what is left then is unknown. Idempotent."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify()
            while self._waiting and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            unsent = [*self._timed, *self._again, *(item for items in self._ready.values() for item in items)]
            self._timed.clear()
            self._again.clear()
            self._ready.clear()
            stopped = PublishError(f"{self._connection.where}: the driver was closed before it was sent")
            done = self._settle(unsent, stopped)
            self._changed.notify_all()
        _resolve(done)
        self._thread.join(max(0.2, deadline - time.monotonic()))

    # --- the publisher's thread

    def _run(self) -> None:
        while True:
            with self._changed:
                chunk = self._next()
                if chunk is None:
                    if self._closed and not self._waiting:
                        return
                    self._changed.wait(AGAIN if self._again else IDLE)
                    continue
                if chunk and chunk[0].message.deliver_ms is not None:
                    self._open_timed += 1
                else:
                    self._open += 1
            self._send(chunk)

    def _next(self) -> list[_Item] | None:
        """What may leave now; None = nothing."""
        now = time.monotonic()
        if self._again:
            due = [item for item in self._again if item.not_before <= now]
            if due:
                self._again = [item for item in self._again if item.not_before > now]
                for item in due:
                    self._add(item)
        if self._timed and self._open_timed < MOST_OPEN_TIMED:
            return [self._timed.popleft()]
        if self._open >= MOST_OPEN:
            return None
        for topic in self._ready:
            chunk = _take(self._ready[topic])
            if not self._ready[topic]:
                del self._ready[topic]
            else:  # the topics in turn
                self._ready[topic] = self._ready.pop(topic)
            return chunk
        return None

    def _add(self, item: _Item) -> None:
        if item.message.deliver_ms is not None:
            self._timed.append(item)
        else:
            self._ready.setdefault(item.message.topic, deque()).append(item)

    def _send(self, chunk: list[_Item]) -> None:
        timeout = min(self._request_timeout, max(0.1, min(item.deadline for item in chunk) - time.monotonic()))
        try:
            request = request_of([item.message for item in chunk])
            call = self._connection.start("SendMessage", request, timeout)
        except Exception as exc:  # noqa: BLE001 - one message that cannot be written must not end this thread
            self._failed(chunk, Failure(0, repr(exc), mends=False, may_be_done=False, away=False))
            return
        call.add_done_callback(lambda done: self._answered(chunk, done))

    # --- gRPC's thread

    def _answered(self, chunk: list[_Item], call: Any) -> None:
        try:
            answer = call.result()
        except grpc.FutureCancelledError:
            self._failed(chunk, Failure(0, "the connection was given up", mends=False, may_be_done=True, away=True))
            return
        except grpc.RpcError as exc:
            self._failed(chunk, failure_of_call(exc))
            return
        failure = failure_of_status(answer.status)
        for entry in answer.entries:
            failure = failure or failure_of_status(entry.status)
        if failure is None:
            self._finish(chunk, None)
        else:
            self._failed(chunk, failure)

    def _failed(self, chunk: list[_Item], failure: Failure) -> None:
        now = time.monotonic()
        later: list[_Item] = []
        over: list[_Item] = []
        for item in chunk:
            again = not failure.may_be_done and (failure.mends or (len(chunk) > 1 and not failure.away))
            (later if again and item.deadline - now > AGAIN else over).append(item)
        if len(chunk) > 1 and not failure.mends:
            for item in later:
                item.alone = True
        else:
            for item in later:
                item.not_before = now + AGAIN
        with self._changed:
            if self._closed:
                over += later
                later = []
            self._again += later
        self._finish(over, failure.as_publish_error(self._connection.where), chunk)

    def _finish(self, items: list[_Item], error: PublishError | None, sent: list[_Item] | None = None) -> None:
        chunk = items if sent is None else sent
        with self._changed:
            if chunk[0].message.deliver_ms is not None:
                self._open_timed -= 1
            else:
                self._open -= 1
            done = self._settle(items, error)
            self._changed.notify_all()
        _resolve(done)

    def _settle(self, items: Sequence[_Item], error: PublishError | None) -> list[_Pending]:
        done: list[_Pending] = []
        for item in items:
            pending = item.pending
            pending.outcome[item.index] = error
            pending.left -= 1
            self._waiting -= 1
            self._waiting_bytes -= len(item.message.body)
            if pending.left == 0:
                done.append(pending)
        return done


def _take(items: deque[_Item]) -> list[_Item]:
    """The next messages that may go together."""
    chunk = [items.popleft()]
    size = len(chunk[0].message.body)
    while items and not chunk[0].alone and not items[0].alone and len(chunk) < MOST_TOGETHER:
        size += len(items[0].message.body)
        if size > MOST_BYTES_TOGETHER:
            break
        chunk.append(items.popleft())
    return chunk


def _resolve(done: Sequence[_Pending]) -> None:
    for pending in done:
        pending.future.set_result(pending.outcome)
