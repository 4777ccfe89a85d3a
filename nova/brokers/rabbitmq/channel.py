"""One consuming channel on a link: opened, watched until every consumer is confirmed, opened anew after whatever ends it.

All on the link's thread, but for `call`. A consumer that the server does not confirm would be deaf for ever: after a crash of
the server a quorum queue may be without a leader for a while, and then answers nothing at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pika import exceptions, spec
from pika.channel import Channel
from pika.connection import Connection

from nova.brokers.rabbitmq.ackbook import AckBook
from nova.brokers.rabbitmq.cancelling import cancel
from nova.brokers.rabbitmq.failures import text_of
from nova.brokers.rabbitmq.frames import ack_frames
from nova.brokers.rabbitmq.link import Link

__all__ = ["ConsumerChannel", "Receiver"]

CONFIRMED_WITHIN = 5.0
AGAIN_FIRST = 0.2
AGAIN_MOST = 5.0

_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """Who gets what a channel brings. Called on the link's thread."""

    def bring(self, queue: str, epoch: int, tag: int, properties: spec.BasicProperties, body: bytes) -> None:
        """A message, held by this channel until it is settled."""
        ...

    def lost(self) -> None:
        """All that was brought before belongs to this channel no more."""
        ...


class ConsumerChannel:
    """A channel that comes back.

    Args:
        queues: those to consume.
        prefetch: of each consumer; 0 = consume nothing yet.
        prepare: makes sure of the queues before the channel is opened again, on another thread; calls back when that is done.
        all_served: told when every queue of a new channel has its consumer.

    Attributes:
        epoch: counts the channels; a tag is only good in its own.
        trouble: why nothing comes now, or None.
        serves_all: every queue of this channel has had its consumer confirmed.
    """

    def __init__(
        self,
        link: Link,
        receiver: Receiver,
        queues: Mapping[str, str] | list[str],
        prefetch: int,
        prepare: Callable[[Callable[[str | None], None]], None],
        all_served: Callable[[], None] = lambda: None,
    ) -> None:
        self.epoch = 0
        self.serves_all = False
        self.trouble: str | None = link.trouble
        self.book = AckBook()
        self._link = link
        self._receiver = receiver
        self._queues = list(queues)
        self._prefetch = prefetch
        self._prepare = prepare
        self._all_served = all_served
        self._channel: Channel | None = None
        self._consumers: dict[str, str] = {}
        self._wanted: set[str] = set()
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
        """The prefetch of the consumers now."""
        return self._in_force

    def want(self, prefetch: int) -> None:
        """Consume with another prefetch from now on: new consumers take the place of the old ones."""
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
            connection: Any = channel.connection
            connection._output_marshaled_frames([frames])

    def give_up(self, tags: list[int]) -> None:
        """Put these back as they are; counted."""
        channel = self._channel
        if channel is not None and channel.is_open:
            self.book.settle(tags)
            for tag in tags:
                channel.basic_nack(tag, requeue=True)

    def stop(self, done: Callable[[], None]) -> None:
        """Let nothing more come, then call back; what is held stays held."""
        self._closing = True
        channel, left = self._channel, set(self._consumers)
        if channel is None or not channel.is_open or not left:
            done()
            return

        def stopped(frame: Any) -> None:
            left.discard(frame.method.consumer_tag)
            if not left:
                done()

        for tag in list(self._consumers):
            cancel(channel, tag, stopped)
        self._consumers.clear()

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
        epoch = self.epoch
        self._link.later(CONFIRMED_WITHIN, lambda: self._check(epoch, "the server opened no channel"))

    def _on_open(self, channel: Channel) -> None:
        if channel is not self._channel:
            self._discard(channel)
            return
        if self._prefetch:
            self._consume()
        else:
            self._is_well()

    def _consume(self) -> None:
        """One new consumer per queue with the prefetch wanted; the old ones end when the new ones are confirmed."""
        channel = self._channel
        assert channel is not None
        epoch, old = self.epoch, dict(self._consumers)
        self._in_force = self._prefetch
        channel.basic_qos(prefetch_count=self._prefetch)
        for queue in self._queues:
            tag = self._consume_one(channel, queue)
            self._consumers[tag] = queue
            self._wanted.add(tag)
        for tag in old:
            self._consumers.pop(tag)
            cancel(channel, tag, lambda frame: None)
        self._link.later(CONFIRMED_WITHIN, lambda: self._check(epoch, "a consumer was not confirmed"))

    def _consume_one(self, channel: Channel, queue: str) -> str:
        epoch = self.epoch

        def bring(channel: Channel, method: Any, properties: spec.BasicProperties, body: bytes) -> None:
            if epoch != self.epoch:
                return  # this channel was given up; it is closed as soon as it answers
            tag: int = method.delivery_tag
            self.book.came(tag)
            self._receiver.bring(queue, epoch, tag, properties, body)

        tag: str = channel.basic_consume(queue, bring, callback=lambda frame: self._on_consuming(channel, frame))
        return tag

    def _on_consuming(self, channel: Channel, frame: Any) -> None:
        if channel is not self._channel:
            self._discard(channel)
            return
        self._wanted.discard(frame.method.consumer_tag)
        if not self._wanted:
            self._is_well()
            if not self.serves_all:
                self.serves_all = True
                self._all_served()

    def _is_well(self) -> None:
        self.trouble = None
        self._again = AGAIN_FIRST

    def _check(self, epoch: int, what: str) -> None:
        """Give a channel up on which something was not confirmed."""
        channel = self._channel
        if epoch != self.epoch or channel is None or self._closing:
            return
        if channel.is_open and not self._wanted:
            return
        queues = sorted(self._consumers[tag] for tag in self._wanted if tag in self._consumers)
        self.trouble = f"{self._link.where}: {what} in {CONFIRMED_WITHIN:g} s ({', '.join(queues) or 'no queue'})"
        _log.warning("%s; trying again", self.trouble)
        self._forget()
        self._discard(channel)
        self._start_over(self._next_wait())

    def _on_cancelled(self, frame: Any) -> None:
        """The server ended a consumer: its queue is gone, or its leader moved."""
        tag = frame.method.consumer_tag
        queue = self._consumers.pop(tag, None)
        channel = self._channel
        if queue is None or channel is None or self._closing:
            return
        self.trouble = f"{self._link.where}: the server ended the consumer of queue {queue!r}"
        _log.warning("%s; trying again", self.trouble)
        self._forget()
        self._discard(channel)
        self._start_over(self._next_wait())

    def _on_closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._forget()
        if self._closing or not isinstance(reason, exceptions.ChannelClosedByBroker):
            return
        self.trouble = f"{self._link.where}: {text_of(reason)}"
        _log.warning("%s; trying again", self.trouble)
        self._start_over(self._next_wait())

    def _next_wait(self) -> float:
        wait, self._again = self._again, min(2 * self._again, AGAIN_MOST)
        return wait

    def _forget(self) -> None:
        """Nothing of this channel counts any more."""
        self._channel = None
        self.epoch += 1
        self.book = AckBook()
        self._consumers.clear()
        self._wanted.clear()
        self._in_force = 0
        self.serves_all = False
        self._receiver.lost()

    def _discard(self, channel: Channel) -> None:
        """Close a channel that was given up; one that hangs is closed when it answers."""
        if channel.is_open:
            try:
                channel.close()
            except exceptions.AMQPError:
                _log.debug("closing a channel failed", exc_info=True)
