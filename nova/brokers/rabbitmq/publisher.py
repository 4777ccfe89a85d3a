"""Publishing: one channel with confirms, up to `WINDOW` messages on their way, one future per call.

`publish` appends to a bounded queue; the link's thread sends. What was on its way when the connection broke is sent again
on the next one, so that a message ends as stored, as surely refused, or as unknown within `confirm_timeout`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pika import exceptions, spec
from pika.channel import Channel
from pika.connection import Connection

from nova.brokers.base import Confirmation
from nova.brokers.rabbitmq.failures import NOT_FOUND, PRECONDITION_FAILED, text_of
from nova.brokers.rabbitmq.frames import publish_frames
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.messages import Outgoing, named
from nova.brokers.rabbitmq.outbox import Item, Outbox
from nova.brokers.rabbitmq.probe import Probe
from nova.brokers.rabbitmq.silent import SilentPlaces
from nova.brokers.rabbitmq.writing import write
from nova.envelope import codec_of
from nova.errors import PublishError, QueueFull, Unroutable

__all__ = ["Publisher"]

WINDOW = 2000
CHUNK = 1 << 16
"""Bytes written at once, about."""
LOOK_EVERY = 0.1
MOST_TRIES = 4
SILENT_AFTER = 0.75
"""Of the time that a message has: what is left must do for the others on another connection."""
NACKED_AGAIN = 0.05
"""Seconds after which a message that the server could not store is sent again."""

_log = logging.getLogger(__name__)


class Publisher:
    """Sends messages from any thread over a link.

    Args:
        confirm_timeout: seconds until a message without a confirmation is given up.
        blocked_timeout: seconds until messages are given up while the server blocks publishers.
        unclaimed: the queue in which a topic's messages wait for its first group.
        repair: told a message whose place is missing; makes it on another thread, then calls `again` or `give_up`.
    """

    def __init__(
        self,
        link: Link,
        *,
        confirm_timeout: float,
        blocked_timeout: float,
        unclaimed: Callable[[str], str],
        repair: Callable[[Item], None],
    ) -> None:
        self._link = link
        self._confirm_timeout = confirm_timeout
        self._blocked_timeout = blocked_timeout
        self._unclaimed = unclaimed
        self._repair = repair
        self._outbox = Outbox(link.where)
        # The rest belongs to the link's thread.
        self._channel: Channel | None = None
        self._ready: deque[Item] = deque()
        self._unconfirmed: dict[int, Item] = {}
        self._next_tag = 1
        self._window = WINDOW
        self._careful = 0
        """Messages that go one by one, before the window is opened again."""
        self._silent: SilentPlaces[Item] = SilentPlaces(SILENT_AFTER * confirm_timeout)
        self._confirms = 0
        self._blocked: str | None = None
        self._blocked_since = 0.0
        self._trouble: str | None = None
        link.run(self._begin)

    def send(self, messages: Sequence[Outgoing]) -> Confirmation:
        """Hand over and return; the future has one entry per message. Any thread."""
        future, is_first = self._outbox.add(messages)
        if is_first:
            self._link.run(self._pump)
        return future

    def again(self, item: Item) -> None:
        """Send a message whose place was made. Any thread."""
        self._link.run(lambda: self._put_back(item))

    def give_up(self, item: Item, error: PublishError) -> None:
        """The place of a message cannot be made. Any thread."""
        self._link.run(lambda: self._outbox.settle(item, error))

    def drop(self, item: Item) -> None:
        """A message need not arrive any more: it counts as stored. Any thread."""
        self._link.run(lambda: self._outbox.settle(item, None))

    def close(self, timeout: float) -> None:
        """Wait for confirmations, then give up what has none. Idempotent."""
        if not self._outbox.close():
            return
        deadline = time.monotonic() + timeout
        while len(self._outbox) and time.monotonic() < deadline:
            time.sleep(0.005)
        ended = threading.Event()

        def end() -> None:
            self._expire(time.monotonic() + 1e9, "the driver is closed")
            ended.set()

        self._link.run(end)
        ended.wait(1.0)

    # --- the link's user

    def up(self, connection: Connection) -> None:
        """A new channel; what was on its way goes again."""
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._open_channel(connection)

    def down(self, reason: str) -> None:
        """Nothing is sent until there is another connection."""
        self._trouble = reason
        self._blocked = None
        self._forget_channel()

    # --- the link's thread

    def _begin(self) -> None:
        self._link.add(self)
        self._look()

    def _open_channel(self, connection: Connection) -> None:
        channel = connection.channel(on_open_callback=self._on_channel_open)
        channel.add_on_close_callback(self._on_channel_closed)

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        assert self._link.reader is not None
        self._link.reader.confirmed = {channel.channel_number: self._on_confirmed}
        self._next_tag = 1
        self._channel = channel
        self._trouble = None
        self._pump()

    def _on_channel_closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel and self._channel is not None:
            return
        if isinstance(reason, exceptions.ChannelClosedByBroker):
            self._on_refused(reason)
        self._forget_channel()
        connection = self._link.connection
        if connection is not None and connection.is_open and not self._outbox.is_closed:
            self._open_channel(connection)

    def _on_refused(self, reason: exceptions.ChannelClosedByBroker) -> None:
        """The server closed the channel over one message: if only one was on its way it is that one, else go one by one."""
        text = f"{self._link.where}: {text_of(reason)}"
        items = list(self._unconfirmed.values())
        if reason.reply_code == NOT_FOUND:
            # An exchange: to a queue that is missing nothing is refused, it comes back.
            self._unconfirmed = {tag: item for tag, item in self._unconfirmed.items() if not item[2].exchange}
            for item in items:
                if item[2].exchange:
                    self._have_made(item)
        elif len(items) == 1:
            self._unconfirmed.clear()
            self._outbox.settle(items[0], PublishError(text, is_permanent=reason.reply_code == PRECONDITION_FAILED))
        else:
            _log.warning("%s; sending %d messages again, one by one", text, len(items))
            self._window, self._careful = 1, len(items)

    def _forget_channel(self) -> None:
        self._channel = None
        self._ready.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        self._silent.start_over()

    def _pump(self) -> None:
        """Send what there is room for."""
        self._outbox.is_told = False
        ready = self._ready
        ready.extend(self._outbox.take_new())
        channel = self._channel
        if channel is None or not channel.is_open or self._blocked is not None:
            return
        unconfirmed = self._unconfirmed
        if not (self._careful or unconfirmed):
            self._window = WINDOW
        silent = self._silent if len(self._silent) else None
        chunk: list[bytes] = []
        size = 0
        while ready and size < CHUNK and len(unconfirmed) < self._window:
            item = ready.popleft()
            message = item[2]
            if self._careful:
                self._careful -= 1
            if message.done or (silent is not None and silent.hold(item)):
                continue
            tag = self._next_tag
            frames = self._build(channel, item, tag)
            if frames is None:
                continue
            message.sent, message.returned = True, False
            unconfirmed[tag] = item
            self._next_tag = tag + 1
            chunk.append(frames)
            size += len(frames)
        if chunk:
            write(channel.connection, b"".join(chunk))
        if size >= CHUNK and not self._outbox.is_told:
            self._outbox.is_told = True
            self._link.run(self._pump)  # so that the server works on this while the next ones are written

    def _build(self, channel: Channel, item: Item, tag: int) -> bytes | None:
        """The frames of a message; None = it cannot be sent, which is settled."""
        try:
            return self._frames(channel, item[2], tag)
        except ValueError as exc:  # a name that is too long, or text that UTF-8 cannot hold: this message's own fault
            self._outbox.settle(item, PublishError(f"{self._link.where}: not sent: {exc}", is_permanent=True))
            return None

    def _frames(self, channel: Channel, message: Outgoing, tag: int) -> bytes:
        """The correlation id tells which message it was, if the server has no place for it."""
        connection: Any = channel.connection
        headers, message_id = named(message)
        is_json = codec_of(headers) in ("json", "orjson")
        return publish_frames(
            channel.channel_number,
            connection._body_max_length,
            message.exchange,
            message.key,
            headers,
            message.body,
            content_type="application/json" if is_json else "application/octet-stream",
            correlation_id=str(tag),
            message_id=message_id,
            timestamp=int(time.time()),
        )

    def _on_return(
        self, channel: Channel, method: spec.Basic.Return, properties: spec.BasicProperties, body: bytes
    ) -> None:
        """No place; comes before the confirmation of the same message."""
        del channel, method, body
        tag = properties.correlation_id
        item = self._unconfirmed.get(int(tag)) if tag and tag.isdigit() else None
        if item is not None:
            item[2].returned = True

    def _on_confirm(self, frame: Any) -> None:
        """What pika reads itself, at the beginning of a connection."""
        method = frame.method
        self._on_confirmed(method.delivery_tag, method.multiple, isinstance(method, spec.Basic.Ack))

    def _on_confirmed(self, tag: int, multiple: bool, is_ack: bool) -> None:
        unconfirmed = self._unconfirmed
        tags = [tag]
        if multiple:
            tags = []
            for known in unconfirmed:
                if known > tag:
                    break
                tags.append(known)
        self._confirms += 1
        for known in tags:
            item = unconfirmed.pop(known, None)
            if item is None:
                continue
            if is_ack and len(self._silent):
                self._ready.extend(self._silent.confirmed(item))
            if not is_ack:
                # A quorum queue does so for a moment after it was made, and while it looks for a leader.
                self._link.later(NACKED_AGAIN, lambda item=item: self._put_back(item))  # type: ignore[misc]
            elif item[2].returned:
                item[2].sent = False  # the server surely has not kept it
                self._make_place(item)
            else:
                self._outbox.settle(item, None)
        if self._ready:
            self._pump()

    def _make_place(self, item: Item) -> None:
        message = item[2]
        if message.topic and message.exchange and not message.done:
            # No group reads the topic yet: the first one will find it here.
            message.exchange, message.key = "", self._unclaimed(message.topic)
            self._ready.append(item)
        else:
            self._have_made(item)

    def _have_made(self, item: Item) -> None:
        message = item[2]
        message.tries += 1
        if message.done:
            return
        if message.tries > MOST_TRIES:
            text = f"{self._link.where}: exchange {message.exchange!r} has no place for {message.key!r}"
            self._outbox.settle(item, Unroutable(text))
        else:
            self._repair(item)

    def _put_back(self, item: Item) -> None:
        self._ready.append(item)
        self._pump()

    def _on_blocked(self, connection: Connection, frame: Any) -> None:
        del connection
        self._blocked = str(frame.method.reason)
        self._blocked_since = time.monotonic()
        _log.warning("%s: the server blocks publishers: %s", self._link.where, self._blocked)

    def _on_unblocked(self, connection: Connection, frame: Any) -> None:
        del connection, frame
        self._blocked = None
        self._silent.start_over()  # it has its time from now on
        _log.info("%s: the server takes tasks again", self._link.where)
        self._pump()

    def _look(self) -> None:
        """Give up what is over its time; now and then."""
        now = time.monotonic()
        try:
            if self._blocked is not None and now - self._blocked_since >= self._blocked_timeout:
                text = f"the server blocks publishers ({self._blocked}); free memory or disk there, or raise its limits"
                self._expire(now - self._blocked_timeout, text)
            reason = self._trouble or self._link.trouble
            text = reason.removeprefix(f"{self._link.where}: ") if reason else "no confirmation"
            self._expire(now - self._confirm_timeout, f"{text} (waited {self._confirm_timeout:g} s)")
            if self._channel is not None and self._blocked is None:
                self._look_for_silent(self._channel.connection, now)
        finally:
            self._link.later(LOOK_EVERY, self._look)

    def _look_for_silent(self, connection: Connection, now: float) -> None:
        found = self._silent.look(self._unconfirmed, self._confirms, now)
        if found is not None:
            place, nothing = found
            _log.warning("%s: %r confirms nothing; what is sent there is held back", self._link.where, place)
        else:
            given_up = sum(item[2].done for item in self._unconfirmed.values())
            nothing = given_up > self._window // 2
        if nothing:
            self._forget_channel()
            self._link.reset("nothing is confirmed any more")
        elif connection.is_open:
            for item in self._silent.to_try():
                self._try(connection, item)

    def _try(self, connection: Connection, item: Item) -> None:
        """See whether a silent place takes one message."""

        def frames(channel: Channel) -> bytes:
            item[2].sent = True
            return self._build(channel, item, 1) or b""

        def ended(is_back: bool, is_stored: bool) -> None:
            if is_stored:
                self._outbox.settle(item, None)
            self._ready.extend(self._silent.tried(item, is_back=is_back))
            if is_back and not is_stored:
                item[2].sent = False
                self._make_place(item)
            self._pump()

        Probe(connection, frames, ended)

    def _expire(self, before: float, why: str) -> None:
        kind = QueueFull if self._blocked is not None else PublishError
        if self._outbox.expire(before, why, kind):
            self._ready = deque(item for item in self._ready if not item[2].done)
            self._silent.forget_done()
