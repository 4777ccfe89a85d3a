"""Asking the server from any thread: one channel on a link, one request after the other, each waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pika import exceptions, spec
from pika.channel import Channel
from pika.connection import Connection

from nova.brokers.rabbitmq.cancelling import cancel
from nova.brokers.rabbitmq.failures import NOT_FOUND, Refused, refused
from nova.brokers.rabbitmq.link import Link
from nova.errors import BrokerUnavailable

__all__ = ["Conversation", "Got"]


class Got:
    """A message taken by `get` or brought by a consumer."""

    __slots__ = ("body", "properties", "tag")

    def __init__(self, tag: int, properties: spec.BasicProperties, body: bytes) -> None:
        self.tag = tag
        self.properties = properties
        self.body = body


class Conversation:
    """One channel, for one thread at a time. A request that the server refuses closes it; the next one opens another.

    Unless messages came on it: their tags mean others on another channel, so then the conversation is over. And after `stay`
    it is over with its connection.

    Args:
        timeout: seconds for all requests until `close` together; `extend` gives more.
    """

    def __init__(self, link: Link, timeout: float) -> None:
        self._link = link
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._channel: Channel | None = None
        self._newest: Channel | None = None
        self._answered = threading.Condition()
        self._answer: Any = None
        self._failure: BaseException | None = None
        self._serial = 0
        self._waiting: int | None = None
        self._holds = False
        self._ended: threading.Event | None = None
        self._only: Connection | None = None

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def another(self) -> Conversation:
        """One on the same link, with a time of its own."""
        return Conversation(self._link, self._timeout)

    def extend(self) -> None:
        """The full time again from now on."""
        self._deadline = time.monotonic() + self._timeout

    def stay(self) -> None:
        """What was made is this connection's own: do not go on on another one."""
        channel = self._channel
        self._only = channel.connection if channel is not None else None

    @property
    def is_open(self) -> bool:
        """Whether the channel of the last request is still there, and what it holds with it."""
        channel = self._channel
        return channel is not None and channel.is_open

    @property
    def has_ended(self) -> bool:
        """Whether the server has closed the channel that was given up last: one that waits for a queue stays there."""
        return self._ended is None or self._ended.is_set()

    def declare_exchange(
        self, name: str, kind: str, arguments: Mapping[str, Any] | None = None, *, passive: bool = False
    ) -> None:
        """Make a durable exchange, or see that it is there."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.exchange_declare(
                name, kind, passive=passive, durable=True, arguments=dict(arguments or {}), callback=done
            )

        self._ask(f"exchange {name!r}", ask)

    def declare_queue(self, name: str, arguments: Mapping[str, Any], *, exclusive: bool = False) -> tuple[int, int]:
        """Make a durable queue (an exclusive one goes with the connection); returns its ready messages and consumers."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.queue_declare(
                name,
                durable=not exclusive,
                exclusive=exclusive,
                auto_delete=exclusive,
                arguments=dict(arguments),
                callback=done,
            )

        frame = self._ask(f"queue {name!r}", ask)
        return frame.method.message_count, frame.method.consumer_count

    def look(self, name: str) -> tuple[int, int] | None:
        """Ready messages and consumers of a queue; None = there is no such queue."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.queue_declare(name, passive=True, callback=done)

        try:
            frame = self._ask(f"queue {name!r}", ask)
        except Refused as exc:
            if exc.code == NOT_FOUND:
                return None
            raise
        return frame.method.message_count, frame.method.consumer_count

    def ready(self, name: str) -> int:
        """Ready messages of a queue; one that is not there has none."""
        found = self.look(name)
        return 0 if found is None else found[0]

    def bind_queue(self, queue: str, exchange: str, key: str) -> None:
        """Route to a queue."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.queue_bind(queue, exchange, key, callback=done)

        self._ask(f"binding queue {queue!r} to exchange {exchange!r}", ask)

    def bind_exchange(self, destination: str, source: str, key: str) -> None:
        """Route to an exchange."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.exchange_bind(destination, source, key, callback=done)

        self._ask(f"binding exchange {destination!r} to exchange {source!r}", ask)

    def delete_queue(self, name: str) -> None:
        """Delete it with what is in it; one that is not there is no error."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.queue_delete(name, callback=done)

        self._ask(f"deleting queue {name!r}", ask)

    def get(self, queue: str) -> Got | None:
        """The next message, held by this channel; None = nothing is ready."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            def empty(frame: object) -> None:
                del frame
                done(None)

            def got(channel: Channel, method: Any, properties: spec.BasicProperties, body: bytes) -> None:
                channel.callbacks.remove(channel.channel_number, spec.Basic.GetEmpty, empty)
                done(Got(method.delivery_tag, properties, body))

            channel.add_callback(empty, [spec.Basic.GetEmpty], True)
            channel.basic_get(queue, got)

        found: Got | None = self._ask(f"queue {queue!r}", ask)
        self._holds = self._holds or found is not None
        return found

    def consume(self, queue: str, prefetch: int, on_message: Callable[[Got], None]) -> str:
        """Let up to `prefetch` messages come; `on_message` is called on the link's thread. Returns the consumer's tag."""

        def bring(channel: Channel, method: Any, properties: spec.BasicProperties, body: bytes) -> None:
            del channel
            on_message(Got(method.delivery_tag, properties, body))

        def qos(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.basic_qos(prefetch_count=prefetch, callback=done)

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.basic_consume(queue, bring, callback=done)

        self._ask(f"queue {queue!r}", qos)
        self._holds = True
        return str(self._ask(f"queue {queue!r}", ask).method.consumer_tag)

    def cancel(self, consumer_tag: str) -> None:
        """Let no more come; what came is still held."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            cancel(channel, consumer_tag, done)

        self._ask("cancelling a consumer", ask)

    def ack(self, tags: list[int]) -> None:
        """These are done. Hands over; `flush` or `close` waits."""
        channel = self._channel

        def send() -> None:
            if channel is not None and channel.is_open:
                for tag in tags:
                    channel.basic_ack(tag)

        self._link.run(send)

    def give_up(self, tags: list[int]) -> None:
        """Put these back; counted. Hands over."""
        channel = self._channel

        def send() -> None:
            if channel is not None and channel.is_open:
                for tag in tags:
                    channel.basic_nack(tag, requeue=True)

        self._link.run(send)

    def nack_all(self) -> None:
        """Put back all that is held; counted. Hands over."""
        channel = self._channel

        def send() -> None:
            if channel is not None and channel.is_open:
                channel.basic_nack(0, multiple=True, requeue=True)

        self._link.run(send)

    def until_ready(self, queue: str, count: int, timeout: float) -> bool:
        """Wait until so many messages can be seen in a queue: what is put back takes a moment; False = they cannot."""
        deadline = time.monotonic() + timeout
        while self.ready(queue) < count:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def flush(self) -> None:
        """Wait until the server has read all acks so far."""

        def ask(channel: Channel, done: Callable[[Any], object]) -> None:
            channel.basic_qos(prefetch_count=0, callback=done)

        self._ask("acknowledging", ask)

    def close(self) -> None:
        """Close the channel; what it holds goes back. Idempotent."""
        closed = self._discard()
        if closed is not None:
            closed.wait(max(0.5, min(5.0, self._deadline - time.monotonic())))

    def _discard(self) -> threading.Event | None:
        """Begin to close the channel; the event is set when that is done."""
        channel, self._channel = self._channel, None
        if channel is None:
            return None
        closed = self._ended = threading.Event()

        def close() -> None:
            if channel.is_closed:
                closed.set()
                return
            channel.add_on_close_callback(lambda *_: closed.set())
            if channel.is_open:
                channel.close()

        self._link.run(close)
        return closed

    def _ask(self, what: str, request: Callable[[Channel, Callable[[Any], object]], None]) -> Any:
        if not self.is_open:
            if self._holds:
                raise BrokerUnavailable(f"{self._link.where}: {what}: the connection was lost; begin again")
            self._open()
        channel = self._channel
        assert channel is not None
        return self._wait(what, lambda done: request(channel, done))

    def _open(self) -> None:
        connection = self._link.await_up(max(0.0, self._deadline - time.monotonic()))
        if self._only is not None and self._only is not connection:
            raise BrokerUnavailable(f"{self._link.where}: the connection was lost in between; begin again")

        def open_channel(done: Callable[[Any], bool]) -> None:
            self._open_on(connection, done)

        self._channel = self._wait("a channel", open_channel)

    def _open_on(self, connection: Connection, done: Callable[[Channel], bool]) -> None:
        def opened(channel: Channel) -> None:
            if not done(channel):
                channel.close()  # too late, nobody waits for it any more

        channel = self._newest = connection.channel(on_open_callback=opened)
        channel.add_on_close_callback(self._on_closed)

    def _wait(self, what: str, start: Callable[[Callable[[Any], bool]], None]) -> Any:
        """Start a request on the link's thread and wait for its answer."""
        where = f"{self._link.where}: {what}"
        with self._answered:
            self._serial += 1
            serial = self._waiting = self._serial
            self._answer = self._failure = None

        def done(answer: Any) -> bool:
            return self._resolve(serial, answer, None)

        def begin() -> None:
            try:
                start(done)
            except exceptions.AMQPError as exc:
                self._resolve(serial, None, exc)

        self._link.run(begin)
        with self._answered:
            while self._waiting == serial:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._waiting = None
                    self._discard()
                    raise BrokerUnavailable(f"{where}: no answer in {self._timeout:g} s")
                self._answered.wait(left)
            failure = self._failure
        if isinstance(failure, exceptions.ChannelClosedByBroker):
            raise refused(where, failure) from failure
        if failure is not None:
            raise BrokerUnavailable(f"{where}: the connection was lost") from failure
        return self._answer

    def _on_closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is self._newest:
            with self._answered:
                serial = self._waiting
            if serial is not None:
                self._resolve(serial, None, reason)

    def _resolve(self, serial: int, answer: Any, failure: BaseException | None) -> bool:
        """Hand an answer over; False = nobody waits for it any more."""
        with self._answered:
            if self._waiting != serial:
                return False
            self._waiting = None
            self._answer, self._failure = answer, failure
            self._answered.notify_all()
            return True
