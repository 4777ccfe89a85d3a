"""The connection to the proxy: calls by the official client's stubs, and sessions that the server pushes settings to.

This is the one module that knows what is wrong with the client or with the server's side of it, and works round it:

* The official client's own channels live on an event loop of the whole process, its receivers, acks and lease changes return
  nothing or raise on other threads, and it hangs in a forked child. So only its stubs are used, over plain gRPC channels.
* A consumer must have been told the group's settings before its first receive, or the server answers with a null pointer.
  `Session.await_ready` waits for that, also after the server was restarted.
* `startup()` of the client succeeds with nothing there. `Connection.probe` asks.
* A channel whose peer has vanished without a word waits for the kernel to find out, a quarter of an hour. The proxy ends
  connections that ask for a sign of life more than every five minutes, so `Connection.look` counts answers instead.
* The receipt that a proxy with the broker inside it gives for a renewed lease names the wrong place if the message was
  not the first of its receive: neither an ack nor the next renewal finds it, and the message comes again as often as it was
  renewed (5.4.0: 97 returns of 40 messages that were all acked). `renewed_receipt` mends it.
* Timed messages have whole seconds there; the server takes milliseconds (`messages.request_of`).

Threads: one per session, which reads what the server pushes. Any method from any thread.

Source: rocketmq-apis `service.proto`; `Signature` of rocketmq-python-client.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from nova.brokers.rocketmq.channels import Channels
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.failures import Failure, failure_of_call, failure_of_status
from nova.brokers.rocketmq.stubs import definition, service, stub
from nova.errors import BrokerUnavailable, ConfigError

__all__ = ["Connection", "Session", "consumer_settings", "producer_settings", "renewed_receipt", "until_answers"]

_VERSION = "5.1.2"
RECONNECT = 0.5
"""Seconds between two attempts of a session to speak to a server that is away."""
SILENT = 10.0
"""Seconds without an answer to anything after which the connection is taken for dead and made anew."""

_log = logging.getLogger(__name__)


class _Process:
    """Whether gRPC runs here, or did in the parent of a fork, where its threads have stayed."""

    opened_by = 0

    @classmethod
    def enter(cls) -> None:
        pid = os.getpid()
        if cls.opened_by not in (0, pid):
            raise ConfigError(
                "with_rocketmq: a RocketMQ queue was opened in the parent process before this one was forked, and gRPC "
                "cannot follow into a fork; open queues after the fork, or start processes with multiprocessing's 'spawn'"
            )
        cls.opened_by = pid


class Connection:
    """One gRPC channel to the proxies.

    Raises:
        BrokerUnavailable: none of several proxies' names is known.
        ConfigError: this process was forked from one that had opened a queue, or `ca_file` cannot be used.
    """

    def __init__(self, config: RocketMQConfig, where: str) -> None:
        _Process.enter()
        self.where = where
        self.client_id = f"nova@{uuid.uuid4().hex}"
        self._config = config
        self._using = threading.Lock()
        self._closed = False
        self._heard = 0.0
        self._asked: float | None = None
        """Since when nothing has been answered; None = something was."""
        self._channels = Channels(config, where)
        self._channel = self._channels.open()
        self._stub = stub.MessagingServiceStub(self._channel)
        self.endpoints = _endpoints(config)

    def metadata(self, client_id: str | None = None) -> list[tuple[str, str]]:
        """What goes with every call: who asks, signed if there are keys."""
        now = datetime.datetime.now().strftime("%Y%m%dT%H%M%SZ")
        found = [
            ("x-mq-language", "PYTHON"),
            ("x-mq-protocol", "GRPC_V2"),
            ("x-mq-client-version", _VERSION),
            ("x-mq-date-time", now),
            ("x-mq-request-id", str(uuid.uuid4())),
            ("x-mq-client-id", client_id or self.client_id),
        ]
        keys = self._config.keys
        if keys is not None:
            signature = hmac.new(keys[1].encode(), now.encode(), hashlib.sha1).hexdigest()
            signed = f"MQv2-HMAC-SHA1 Credential={keys[0]}, SignedHeaders=x-mq-date-time, Signature={signature}"
            found.append(("authorization", signed))
        return found

    def start(self, method: str, request: Any, timeout: float, client_id: str | None = None) -> Any:
        """Begin a call; the future's callbacks run on gRPC's thread and must not wait."""
        begun = time.monotonic()
        call = getattr(self._stub, method).future(request, timeout=timeout, metadata=self.metadata(client_id))
        call.add_done_callback(lambda done: self._note(done.code(), begun))
        return call

    def call(self, method: str, request: Any, timeout: float, client_id: str | None = None) -> Any:
        """A call and its answer.

        Raises:
            grpc.RpcError: there is none.
        """
        return getattr(self._stub, method)(request, timeout=timeout, metadata=self.metadata(client_id))

    def stream(self, method: str, request: Any, timeout: float | None, client_id: str) -> Any:
        """A call that is answered by several messages."""
        return getattr(self._stub, method)(request, timeout=timeout, metadata=self.metadata(client_id))

    def route(self, topic: str, timeout: float) -> tuple[Sequence[Any], Failure | None]:
        """The queues of a topic, or why they are not known."""
        request = service.QueryRouteRequest(topic=definition.Resource(name=topic), endpoints=self.endpoints)
        try:
            answer = self.call("QueryRoute", request, timeout)
        except grpc.RpcError as exc:
            return (), failure_of_call(exc)
        failure = failure_of_status(answer.status)
        return (() if failure is not None else tuple(answer.message_queues)), failure

    def probe(self, topic: str, timeout: float) -> Failure | None:
        """Ask for something; None = a server knows us, whether there is such a topic, and we may see it, or not."""
        _, failure = self.route(topic, timeout)
        if failure is None or failure.denied or failure.code == definition.Code.TOPIC_NOT_FOUND:
            return None
        return failure

    def heard(self) -> None:
        """A sign of life."""
        self._heard = time.monotonic()
        self._asked = None

    def look(self) -> None:
        """Connect anew where nothing is answered any more. Called every now and then by the driver's thread.

        Raises:
            BrokerUnavailable: none of the proxies' names is known.
        """
        asked = self._asked
        if asked is None or time.monotonic() - asked < SILENT:
            return
        _log.warning("%s: no answer to anything for %.0f s, connecting anew", self.where, time.monotonic() - asked)
        channel = self._channels.open()
        with self._using:
            if not self._closed:
                self._asked = None
                self._channel, channel = channel, self._channel
                self._stub = stub.MessagingServiceStub(self._channel)
        channel.close()

    def close(self) -> None:
        """Cancel what is under way and let go."""
        with self._using:
            self._closed = True
            self._channel.close()

    def _note(self, code: grpc.StatusCode, begun: float) -> None:
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            self.heard()
        elif self._heard < begun:
            self._asked = min(begun, self._asked or begun)


class Session:
    """What the server knows of one consumer: its group and settings, told on a stream that must stay open.

    Args:
        settings: what it is told, again after each loss of the stream.
        on_settings: told what the server answers, on the session's thread.
    """

    def __init__(self, connection: Connection, settings: Callable[[], Any], on_settings: Callable[[Any], None]) -> None:
        self.client_id = f"nova@{uuid.uuid4().hex}"
        self._connection = connection
        self._settings = settings
        self._on_settings = on_settings
        self._ready = threading.Event()
        self._answered = threading.Event()
        """It knows our settings, or us and does not want us."""
        self._closing = threading.Event()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stream: Any = None
        self.trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="nova-rocketmq-session", daemon=True)
        self._thread.start()

    def await_ready(self, timeout: float) -> bool:
        """Whether the server knows our settings, after at most so many seconds."""
        return self._ready.wait(timeout)

    def await_answer(self, timeout: float) -> bool:
        """The same, and no longer than until the server says that we may not: `trouble` is what it said."""
        self._answered.wait(timeout)
        return self._ready.is_set()

    def forget(self) -> None:
        """The server does not know us any more: tell it again."""
        self._unsettle()
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def update(self) -> None:
        """Tell changed settings."""
        self._outbox.put(service.TelemetryCommand(settings=self._settings()))

    def heartbeat(self, request: Any, timeout: float) -> None:
        """Say that we live; nobody waits for the answer."""
        self._connection.start("Heartbeat", request, timeout, self.client_id)

    def close(self, goodbye: Any, timeout: float) -> None:
        """Say that we leave, so that the server forgets us at once. Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._ready.is_set():
            with contextlib.suppress(grpc.RpcError):  # it notices by itself, later
                self._connection.call("NotifyClientTermination", goodbye, min(timeout, 2.0), self.client_id)
        stream = self._stream
        if stream is not None:
            stream.cancel()
        self._outbox.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._speak()
            except grpc.RpcError as exc:
                self.trouble = failure_of_call(exc).text
            except Exception:  # noqa: BLE001 - a thread's top: without a session nothing is received
                _log.exception("%s: a session failed, beginning anew", self._connection.where)
            self._unsettle()
            self._closing.wait(RECONNECT)

    def _unsettle(self) -> None:
        self._ready.clear()
        self._answered.clear()

    def _speak(self) -> None:
        outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        outbox.put(service.TelemetryCommand(settings=self._settings()))
        self._outbox = outbox
        stream = self._connection.stream("Telemetry", _drain(outbox), None, self.client_id)
        self._stream = stream
        try:
            for command in stream:
                if self._closing.is_set():
                    return
                self._connection.heard()
                self._hear(command)
        finally:
            stream.cancel()
            outbox.put(None)

    def _hear(self, command: Any) -> None:
        failure = failure_of_status(command.status) if command.HasField("status") else None
        if failure is not None and failure.code != 0:
            self.trouble = failure.text
            if failure.denied:
                self._answered.set()
        elif command.HasField("settings"):
            self.trouble = None
            self._on_settings(command.settings)
            self._ready.set()
            self._answered.set()


def consumer_settings(connection: Connection, group: str, topics: Sequence[str], timeout: float) -> Any:
    """What a consumer tells the server."""
    settings = _settings(definition.ClientType.SIMPLE_CONSUMER, connection, timeout)
    settings.subscription.group.name = group
    for topic in topics:
        entry = settings.subscription.subscriptions.add()
        entry.topic.name = topic
        entry.expression.type = definition.FilterType.TAG
        entry.expression.expression = "*"
    return settings


def producer_settings(connection: Connection, topic: str, timeout: float) -> Any:
    """What a producer tells the server; the answer holds the longest body."""
    settings = _settings(definition.ClientType.PRODUCER, connection, timeout)
    settings.publishing.topics.add().name = topic
    return settings


def _settings(kind: Any, connection: Connection, timeout: float) -> Any:
    settings = definition.Settings(client_type=kind, access_point=connection.endpoints)
    settings.user_agent.language = definition.Language.PYTHON
    settings.user_agent.version = _VERSION
    settings.request_timeout.FromMilliseconds(round(timeout * 1000))
    return settings


def renewed_receipt(receipt: str) -> str:
    """The receipt of a renewed lease, with the place that the broker keeps it under. Pure.

    A receipt is `start popTime invisible reviveQueue kind broker queue offset …`. A renewal makes an entry of its own,
    which starts at the message; the proxy leaves the start of the receive in the receipt
    (`LocalMessageService.changeInvisibleTime`).
    """
    parts = receipt.split(" ")
    if len(parts) < 8 or not (parts[0].isdigit() and parts[7].isdigit()):
        return receipt
    return " ".join([parts[7], *parts[1:]])


def until_answers(connection: Connection, topic: str, timeout: float, wait: Callable[[float], object]) -> None:
    """Until the server lets us in.

    Raises:
        BrokerUnavailable: it does not, in that time or at all.
    """
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        failure = connection.probe(topic, max(0.1, min(5.0, left)))
        if failure is None:
            return
        if not failure.mends:
            raise BrokerUnavailable(f"{connection.where}: not let in: {failure.text}")
        if deadline - time.monotonic() < RECONNECT:
            raise BrokerUnavailable(f"{connection.where}: no connection in {timeout:g} s: {failure.text}")
        wait(0.1)


def _drain(outbox: queue.SimpleQueue[Any]) -> Iterator[Any]:
    while (command := outbox.get()) is not None:
        yield command


def _endpoints(config: RocketMQConfig) -> Any:
    found = definition.Endpoints(scheme=definition.AddressScheme.DOMAIN_NAME)
    if all(node.host.replace(".", "").isdigit() for node in config.nodes):
        found.scheme = definition.AddressScheme.IPv4
    for node in config.nodes[: 1 if found.scheme == definition.AddressScheme.DOMAIN_NAME else None]:
        found.addresses.add(host=node.host, port=node.port)
    return found
