"""One queue's consuming channel, on a connection of its own: opened, and opened anew after whatever ends it.

All on the link's thread. A quorum queue without a leader answers nothing at all. A channel that asks it for something waits
with all that it holds, and after some 95 s the server ends its connection (3.10.8, tried). Nothing is gained by giving the
channel up before: it stays in the server as long, and the requests of all that were given up are done when the leader is
back, which counts the queue's tasks each time. So a channel is waited for until the server gives it up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from pika import exceptions
from pika.channel import Channel
from pika.connection import Connection

from nova.brokers.rabbitmq.ackbook import AckBook
from nova.brokers.rabbitmq.cancelling import cancel
from nova.brokers.rabbitmq.failures import text_of
from nova.brokers.rabbitmq.frames import ack_frames
from nova.brokers.rabbitmq.incoming import Properties
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.writing import write

__all__ = ["ConsumerChannel", "Receiver"]

CONFIRMED_WITHIN = 5.0
"""Seconds after which it is said that a queue does not answer, and its neighbours are not kept waiting for it."""
HOPELESS_AFTER = 150.0
"""Seconds after which a server that has forgotten what it was asked is asked again, on another connection."""
AGAIN_FIRST = 0.2
AGAIN_MOST = 5.0

_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """Who gets what a channel brings. Called on the link's thread."""

    def bring(self, queue: str, epoch: int, tag: int, properties: Properties, body: bytes) -> None:
        """A message, held by this channel until it is settled."""
        ...

    def lost(self) -> None:
        """All that was brought before belongs to this channel no more."""
        ...


class ConsumerChannel:
    """A channel that comes back.

    Args:
        queue: to consume.
        prefetch: of the consumer; 0 = consume nothing yet.
        prepare: makes sure of the queue before the channel is opened again, on another thread; calls back when that is done.
        changed: told when the queue has its consumer, or will not have it for now.

    Attributes:
        epoch: counts the channels; a tag is only good in its own.
        trouble: why nothing comes now, or None.
        is_served: the consumer of this channel was confirmed.
    """

    def __init__(
        self,
        links: Links,
        receiver: Receiver,
        queue: str,
        prefetch: int,
        prepare: Callable[[Callable[[str | None], None]], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.epoch = 0
        self.is_served = False
        self.trouble: str | None = None
        self.book = AckBook()
        self._link = link = links.open_for(queue)
        self._receiver = receiver
        self._queue = queue
        self._prefetch = prefetch
        self._prepare = prepare
        self._changed = changed
        self._channel: Channel | None = None
        self._consumer: str | None = None
        self._unconfirmed: set[str] = set()
        self._in_force = 0
        self._closing = False
        self._again = AGAIN_FIRST
        self._is_first = True
        self._preparing = False
        self._pause = 0.0
        link.run(lambda: link.add(self))

    @property
    def is_open(self) -> bool:
        """Whether what was brought can be settled."""
        return self._channel is not None and self._channel.is_open

    @property
    def in_force(self) -> int:
        """The prefetch of the consumer now."""
        return self._in_force

    def want(self, prefetch: int) -> None:
        """Consume with another prefetch, once the last one is confirmed: a new consumer takes the place of the old one."""
        self._prefetch = prefetch
        if self.is_open and not self._unconfirmed and prefetch != self._in_force:
            self._consume()

    def ack(self, tags: list[int]) -> None:
        """These are done."""
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        through, singles = self.book.settle(tags)
        frames = ack_frames(channel.channel_number, through, singles)
        if frames:
            write(channel.connection, frames)

    def give_up(self, tags: list[int]) -> None:
        """Put these back as they are; counted."""
        channel = self._channel
        if channel is not None and channel.is_open:
            for tag in self.book.take(tags):
                channel.basic_nack(tag, requeue=True)

    def stop(self, done: Callable[[], None]) -> None:
        """Let nothing more come, then call back; what is held stays held."""
        self._closing = True
        channel, consumer = self._channel, self._consumer
        self._consumer = None
        if channel is None or not channel.is_open or consumer is None:
            done()
        else:
            cancel(channel, consumer, lambda frame: done())

    def close(self, done: Callable[[], None]) -> None:
        """Close channel and connection after all that was said on them, then call back."""
        self._closing = True
        self._link.remove(self)
        self._channel = None
        self._link.on_end(done)
        self._link.begin_close()

    # --- the link's user

    def up(self, connection: Connection) -> None:
        """Open, after what it needs was made sure of; the first time that was just done."""
        if self._closing:
            return
        if self._is_first:
            self._is_first = False
            self._open(connection)
        else:
            pause, self._pause = self._pause, 0.0
            self._start_over(pause)

    def down(self, reason: str) -> None:
        """The channel is gone."""
        self.trouble = reason
        self._forget()
        self._changed()

    # --- inside

    def _start_over(self, wait: float) -> None:
        if self._closing or self._preparing:
            return
        self._preparing = True

        def begin() -> None:
            self._prepare(lambda error: self._link.run(lambda: self._on_prepared(error)))

        self._link.later(wait, begin)

    def _on_prepared(self, error: str | None) -> None:
        self._preparing = False
        connection = self._link.connection
        if connection is None or self._closing:
            return  # `up` starts over
        if error is not None:
            self.trouble = error
            _log.warning("%s; trying again in %.1f s", error, self._again)
            self._start_over(self._next_wait())
            self._changed()
        else:
            self._open(connection)

    def _open(self, connection: Connection) -> None:
        self._forget()
        try:
            channel = connection.channel(on_open_callback=self._on_open)
        except exceptions.AMQPError as exc:
            self._start_over(self._next_wait())
            _log.warning("%s: no channel: %s", self._link.where, text_of(exc))
            return
        self._channel = channel
        channel.add_on_close_callback(self._on_closed)
        channel.add_on_cancel_callback(self._on_cancelled)
        self._watch(lambda: channel is self._channel and not self.is_open, "the server opened no channel for")

    def _on_open(self, channel: Channel) -> None:
        if channel is not self._channel:
            return  # closed meanwhile
        if self._prefetch:
            self._consume()
        else:
            self._is_well()

    def _consume(self) -> None:
        """A new consumer with the prefetch wanted, and an end of the old one."""
        channel, old = self._channel, self._consumer
        assert channel is not None
        self._in_force = self._prefetch
        channel.basic_qos(prefetch_count=self._prefetch)
        tag = self._consumer = self._consume_on(channel)
        self._unconfirmed.add(tag)
        if old is not None:
            cancel(channel, old, lambda frame: None)
        self._watch(lambda: tag in self._unconfirmed, "no consumer was confirmed by")

    def _consume_on(self, channel: Channel) -> str:
        epoch, queue, receiver = self.epoch, self._queue, self._receiver

        def bring(tag: int, properties: Properties, body: bytes) -> None:
            if epoch != self.epoch:
                return  # this channel was given up; it is closed as soon as it answers
            self.book.came(tag)
            receiver.bring(queue, epoch, tag, properties, body)

        def unexpected(*_: object) -> None:
            raise AssertionError(f"a delivery of queue {queue!r} was not read by its reader")

        assert self._link.reader is not None
        self._link.reader.takers[channel.channel_number] = bring
        tag: str = channel.basic_consume(queue, unexpected, callback=lambda frame: self._on_consuming(channel, frame))
        return tag

    def _on_consuming(self, channel: Channel, frame: Any) -> None:
        if channel is not self._channel:
            return
        self._unconfirmed.discard(frame.method.consumer_tag)
        if not self._unconfirmed:
            self._is_well()
            self.is_served = True
            self._changed()
            self.want(self._prefetch)

    def _is_well(self) -> None:
        self.trouble = None
        self._again = AGAIN_FIRST

    def _watch(self, waits: Callable[[], bool], what: str) -> None:
        """Say that the server does not answer, and ask it anew when that is all there is left to do."""
        text = f"{self._link.where}: {what} queue {self._queue!r}"

        def say() -> None:
            if waits() and not self._closing:
                self.trouble = f"{text} in {CONFIRMED_WITHIN:g} s; it may have no leader"
                _log.warning("%s; still waiting", self.trouble)
                self._changed()

        def reset() -> None:
            if waits() and not self._closing:
                self._link.reset(f"{what} queue {self._queue!r} in {HOPELESS_AFTER:g} s")

        self._link.later(CONFIRMED_WITHIN, say)
        self._link.later(HOPELESS_AFTER, reset)

    def _on_cancelled(self, frame: Any) -> None:
        """The server ended a consumer: its queue is gone, or its leader moved. The next channel waits for this one's end."""
        channel = self._channel
        if channel is not None and channel.is_open and frame.method.consumer_tag == self._consumer:
            self._watch(lambda: channel is self._channel, "the server has not closed the channel of")
            channel.close(reply_text="the server ended its consumer")

    def _on_closed(self, channel: Channel, reason: BaseException) -> None:
        if self._link.reader is not None:
            self._link.reader.takers.pop(channel.channel_number, None)
        if channel is not self._channel:
            return
        self._forget()
        if self._closing or not isinstance(reason, exceptions.ChannelClosed):
            return  # `down` is told, and then `up`
        self.trouble = f"{self._link.where}: queue {self._queue!r}: {text_of(reason)}"
        _log.warning("%s; trying again", self.trouble)
        self._start_over(self._next_wait())
        self._changed()

    def _next_wait(self) -> float:
        wait, self._again = self._again, min(2 * self._again, AGAIN_MOST)
        return wait

    def _forget(self) -> None:
        """Nothing of this channel counts any more. A queue that had not answered is left in peace for a while."""
        if self._unconfirmed:
            self._pause = self._next_wait()
        self._channel = None
        self.epoch += 1
        self.book = AckBook()
        self._consumer = None
        self._unconfirmed.clear()
        self._in_force = 0
        self.is_served = False
        self._receiver.lost()
