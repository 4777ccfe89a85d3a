"""Acks from any thread, together in one request per group and topic while others are on their way.

A proxy with `enableBatchAck` settles such a request at once, another one entry by entry; both take it and answer for
each entry (measured on 5.4.0). What the server did not hear is said again for as long as the lease holds; a lease that
is over cannot be acked, and its message comes again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import grpc

from nova.brokers.rocketmq.client import Connection
from nova.brokers.rocketmq.failures import (
    INVALID_RECEIPT_HANDLE,
    MULTIPLE_RESULTS,
    OK,
    failure_of_call,
    failure_of_status,
)
from nova.brokers.rocketmq.messages import Place
from nova.brokers.rocketmq.stubs import service

__all__ = ["Acker"]

MOST_TOGETHER = 128
MOST_OPEN = 4
AGAIN = 0.3
IDLE = 0.5

_log = logging.getLogger(__name__)

Key = tuple[str, str]
"""RocketMQ's group, and the topic."""


class Acker:
    """Acks until it is closed."""

    def __init__(self, connection: Connection, request_timeout: float) -> None:
        self._connection = connection
        self._timeout = request_timeout
        self._ready: dict[Key, deque[Place]] = {}
        self._again: list[tuple[float, Key, Place]] = []
        self._left: dict[str, int] = {}
        """Acks without an outcome, by group."""
        self._open = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="nova-rocketmq-acks", daemon=True)
        self._thread.start()

    def ack(self, group: str, places: Iterable[Place]) -> None:
        """These are done. Hands over and returns."""
        with self._changed:
            count = 0
            for place in places:
                self._ready.setdefault((group, place.topic), deque()).append(place)
                count += 1
            self._left[group] = self._left.get(group, 0) + count
            self._changed.notify_all()

    def flush(self, group: str, timeout: float) -> bool:
        """Wait until every ack of a group had its effect, for at most so long; False if some had not."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._left.get(group) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._left.get(group)

    def close(self, timeout: float) -> None:
        """Finish what was handed over, for at most so long."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while any(self._left.values()) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._closing = True
            self._changed.notify_all()
        self._thread.join(max(0.2, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._changed:
                found = self._next()
                if found is None:
                    if self._closing:
                        return
                    self._changed.wait(AGAIN if self._again else IDLE)
                    continue
                self._open += 1
            self._send(*found)

    def _next(self) -> tuple[Key, list[Place]] | None:
        now = time.monotonic()
        if self._again:
            for due, key, place in self._again:
                if due <= now:
                    self._ready.setdefault(key, deque()).append(place)
            self._again = [entry for entry in self._again if entry[0] > now]
        if self._open >= MOST_OPEN or not self._ready:
            return None
        key = next(iter(self._ready))
        places = self._ready[key]
        chunk = [places.popleft() for _ in range(min(len(places), MOST_TOGETHER))]
        del self._ready[key]
        if places:  # the topics in turn
            self._ready[key] = places
        return key, chunk

    def _send(self, key: Key, places: list[Place]) -> None:
        request = service.AckMessageRequest()
        request.group.name, request.topic.name = key
        for place in places:
            request.entries.add(message_id=place.message_id, receipt_handle=place.receipt)
        call = self._connection.start("AckMessage", request, self._timeout)
        call.add_done_callback(lambda done: self._answered(key, places, done))

    # --- gRPC's thread

    def _answered(self, key: Key, places: list[Place], call: Any) -> None:
        again: list[Place] = []
        try:
            answer = call.result()
        except (grpc.FutureCancelledError, grpc.RpcError) as exc:
            text = failure_of_call(exc).text if isinstance(exc, grpc.RpcError) else "closed"
            _log.debug("%s: %d acks without an answer: %s", self._connection.where, len(places), text)
            again = places
        else:
            again = self._unsettled(places, answer)
        now = time.monotonic()
        again = [place for place in again if place.until > now]
        with self._changed:
            self._open -= 1
            if self._closing:
                again = []
            self._again += [(now + AGAIN, key, place) for place in again]
            self._left[key[0]] -= len(places) - len(again)
            self._changed.notify_all()

    def _unsettled(self, places: list[Place], answer: Any) -> list[Place]:
        """Those that must be said again."""
        status = answer.status
        if len(answer.entries) != len(places):
            failure = failure_of_status(status)
            return [] if failure is None or status.code == MULTIPLE_RESULTS else places
        codes: dict[str, int] = {entry.receipt_handle: entry.status.code for entry in answer.entries}
        again: list[Place] = []
        for place in places:
            code = codes.get(place.receipt, OK)
            if code == INVALID_RECEIPT_HANDLE:
                _log.info("%s: an ack came after its lease; the message comes again", self._connection.where)
            elif code != OK:
                again.append(place)
        return again
