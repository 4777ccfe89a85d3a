"""One queue's consuming channel: opened, watched until the consumer is confirmed, opened anew after whatever ends it.

All on the link's thread. A consumer that the server does not confirm would be deaf for ever: after a crash of the server a
quorum queue may be without a leader for a while, and then answers nothing at all. A channel that waits for such a queue does
nothing else any more, and what it holds of another queue stays with it even when its connection ends (3.10.8, tried). Hence a
channel for each queue.
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
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.writing import write

__all__ = ["ConsumerChannel", "Receiver"]

CONFIRMED_WITHIN = 5.0
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
        link: Link,
        receiver: Receiver,
        queue: str,
        prefetch: int,
        prepare: Callable[[Callable[[str | None], None]], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.epoch = 0
        self.is_served = False
        self.trouble: str | None = link.trouble
        self.book = AckBook()
        self._link = link
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
        """Consume with another prefetch from now on: a new consumer takes the place of the old one."""
        self._prefetch = prefetch
        if self.is_open and prefetch != self._in_force:
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
        """Close the channel after all that was said on it, then call back."""
        self._closing = True
        self._link.remove(self)
        channel = self._channel
        self._channel = None
        if channel is None or channel.is_closed:
            done()
            return
        channel.add_on_close_callback(lambda *_: done())
        if channel.is_open:
            channel.close()

    # --- the link's user

    def up(self, connection: Connection) -> None:
        """Open, after what it needs was made sure of; the first time that was just done."""
        if self._closing:
            return
        if self._is_first:
            self._is_first = False
            self._open(connection)
        else:
            self._start_over(0.0)

    def down(self, reason: str) -> None:
        """The channel is gone."""
        self.trouble = reason
        self._forget()

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
        self._link.later(CONFIRMED_WITHIN, lambda: self._check_open(channel))

    def _on_open(self, channel: Channel) -> None:
        if channel is not self._channel:
            self._discard(channel)
            return
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
        self._link.later(CONFIRMED_WITHIN, lambda: self._check_consumer(tag))

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
            self._discard(channel)
            return
        self._unconfirmed.discard(frame.method.consumer_tag)
        if not self._unconfirmed:
            self._is_well()
            self.is_served = True
            self._changed()

    def _is_well(self) -> None:
        self.trouble = None
        self._again = AGAIN_FIRST

    def _check_open(self, channel: Channel) -> None:
        if channel is self._channel and not self.is_open:
            self._replace(f"the server opened no channel for queue {self._queue!r} in {CONFIRMED_WITHIN:g} s")

    def _check_consumer(self, tag: str) -> None:
        """Of this consumer; a later one has a time of its own."""
        if tag in self._unconfirmed:
            self._replace(f"the consumer of queue {self._queue!r} was not confirmed in {CONFIRMED_WITHIN:g} s")

    def _replace(self, why: str) -> None:
        """Give this channel up for a new one."""
        channel = self._channel
        if channel is None or self._closing:
            return
        self.trouble = f"{self._link.where}: {why}"
        _log.warning("%s; trying again", self.trouble)
        self._forget()
        self._discard(channel)
        self._start_over(self._next_wait())
        self._changed()

    def _on_cancelled(self, frame: Any) -> None:
        """The server ended a consumer: its queue is gone, or its leader moved."""
        if frame.method.consumer_tag == self._consumer:
            self._replace(f"the server ended the consumer of queue {self._queue!r}")

    def _on_closed(self, channel: Channel, reason: BaseException) -> None:
        if self._link.reader is not None:
            self._link.reader.takers.pop(channel.channel_number, None)
        if channel is not self._channel:
            return
        self._forget()
        if self._closing or not isinstance(reason, exceptions.ChannelClosedByBroker):
            return
        self.trouble = f"{self._link.where}: {text_of(reason)}"
        _log.warning("%s; trying again", self.trouble)
        self._start_over(self._next_wait())
        self._changed()

    def _next_wait(self) -> float:
        wait, self._again = self._again, min(2 * self._again, AGAIN_MOST)
        return wait

    def _forget(self) -> None:
        """Nothing of this channel counts any more."""
        self._channel = None
        self.epoch += 1
        self.book = AckBook()
        self._consumer = None
        self._unconfirmed.clear()
        self._in_force = 0
        self.is_served = False
        self._receiver.lost()

    def _discard(self, channel: Channel) -> None:
        """Close a channel that was given up; one that hangs is closed when it answers."""
        if channel.is_open:
            try:
                channel.close()
            except exceptions.AMQPError:
                _log.debug("closing a channel failed", exc_info=True)
