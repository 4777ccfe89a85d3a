"""One thread that receives from one topic of one broker: a topic polled together with others would wait for theirs.

A receive waits on the server for some seconds if there is nothing, and cannot be asked to wait less than the proxy's minimum
(5 s), so a thread asks only while its subscription wants something.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Protocol

import grpc

from nova.brokers.rocketmq.consumer import Consumer
from nova.brokers.rocketmq.failures import MESSAGE_NOT_FOUND, Failure, failure_of_call, failure_of_status
from nova.brokers.rocketmq.stubs import definition, service

__all__ = ["MOST_AT_ONCE", "Fetcher"]

MOST_AT_ONCE = 32
"""The server's own limit on one receive."""
BACKOFF = 0.5
IDLE = 0.5

_log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where what was received goes."""

    def wanted(self, topic: str) -> int:
        """How many more of a topic are wanted now."""
        ...

    def put(self, topic: str, found: list[Any], until: float) -> None:
        """Take messages whose lease lasts until a monotonic time."""
        ...


class Fetcher:
    """Runs from construction to `close`.

    Args:
        wanting: notified by the shelf when it wants something, and when it closes.
        lease: seconds for which messages are lent.
        poll: seconds that the server waits for a message.

    Attributes:
        trouble: why nothing can be received now, or None.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        broker: str,
        shelf: Shelf,
        wanting: threading.Condition,
        *,
        lease: float,
        poll: float,
    ) -> None:
        self.trouble: str | None = None
        self._consumer = consumer
        self._topic = topic
        self._broker = broker
        self._shelf = shelf
        self._wanting = wanting
        self._lease = lease
        self._poll = poll
        self._closing = threading.Event()
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name=f"nova-rocketmq-{topic}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it asks, or waits for what it asked for."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask no more; what is asked for is waited for by `join`."""
        self._closing.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread; after that time its receive is cut off, and what it brings comes again later."""
        self._thread.join(timeout)
        call = self._call
        if self._thread.is_alive() and call is not None:
            call.cancel()
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._step()
            except Exception as exc:  # noqa: BLE001 - a thread's top: a topic without its thread would be deaf
                _log.exception("receiving from %r failed, going on", self._topic)
                self._fail(Failure(0, repr(exc), mends=True, may_be_done=False, away=False))

    def _step(self) -> None:
        with self._wanting:
            count = min(MOST_AT_ONCE, self._shelf.wanted(self._topic))
            if count <= 0:
                if not self._closing.is_set():
                    self._wanting.wait(IDLE)
                return
        trouble = self._consumer.prepare(IDLE)
        if trouble is not None:
            self.trouble = trouble
            self._closing.wait(0.1)
            return
        self._receive(count)

    def _receive(self, count: int) -> None:
        found: list[Any] = []
        failure: Failure | None = None
        until = 0.0
        timeout = self._poll + self._consumer.request_timeout
        try:
            call = self._call = self._consumer.connection.stream(
                "ReceiveMessage", self._request(count), timeout, self._consumer.client_id
            )
            for answer in call:
                if answer.HasField("message"):
                    until = until or time.monotonic() + self._lease
                    found.append(answer.message)
                elif answer.HasField("status"):
                    failure = failure_of_status(answer.status)
            self._consumer.connection.heard()
        except grpc.RpcError as exc:
            failure = failure_of_call(exc)
            self._consumer.interrupted()
        finally:
            self._call = None
        if found:
            self._shelf.put(self._topic, found, until)
        if failure is not None and failure.code != MESSAGE_NOT_FOUND:
            self._fail(failure)
        else:
            self.trouble = None

    def _fail(self, failure: Failure) -> None:
        if self._closing.is_set():
            return
        if failure.code == definition.Code.INTERNAL_SERVER_ERROR:
            self._consumer.forgotten()  # a server that came back says so (a null pointer) until it has our settings again
        self.trouble = f"receiving from {self._topic!r}: {failure.text}"
        self._closing.wait(BACKOFF)

    def _request(self, count: int) -> Any:
        request = service.ReceiveMessageRequest(batch_size=count, auto_renew=False)
        request.group.name = self._consumer.group
        request.message_queue.topic.name = self._topic
        request.message_queue.broker.name = self._broker
        request.message_queue.id = -1
        request.filter_expression.type = definition.FilterType.TAG
        request.filter_expression.expression = "*"
        request.invisible_duration.FromMilliseconds(round(self._lease * 1000))
        request.long_polling_timeout.FromMilliseconds(round(self._poll * 1000))
        return request
