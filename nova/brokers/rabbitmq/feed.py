"""One queue of a subscription: its channel, and what that has brought and nobody has asked for yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from nova.brokers.base import Delivery
from nova.brokers.rabbitmq.channel import ConsumerChannel
from nova.brokers.rabbitmq.incoming import Properties
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.messages import SENT, Place, deliver
from nova.envelope import GROUP, number

__all__ = ["Feed", "Source"]


class Source:
    """A queue that a subscription reads.

    Attributes:
        home: the queue to which a message is given back.
        since_ms: what was sent before, to all groups, is passed over (delayed tasks come long after).
    """

    __slots__ = ("home", "queue", "since_ms", "topic")

    def __init__(self, queue: str, topic: str, home: str, since_ms: int = 0) -> None:
        self.queue = queue
        self.topic = topic
        self.home = home
        self.since_ms = since_ms


class Feed:
    """On the links' thread, but for `stock`, which its subscription guards.

    Args:
        prepare: makes sure of the queue before the channel is opened again.
        came: told once for all that one read of the socket has brought: chunks are cheap, wake-ups not.
        lost: told when the server has taken back all that was brought.
        changed: told when the queue has its consumer, or will not have it for now.

    Attributes:
        fresh: brought, and not yet in the stock.
        stock: what may be handed out, the oldest first.
        done: tags to be acked together.
    """

    def __init__(
        self,
        links: Links,
        source: Source,
        prepare: Callable[[Callable[[str | None], None]], None],
        *,
        came: Callable[[], None],
        lost: Callable[[Feed], None],
        changed: Callable[[], None],
    ) -> None:
        self.source = source
        self.fresh: list[Delivery] = []
        self.stock: deque[Delivery] = deque()
        self.done: list[int] = []
        self._links = links
        self._came = came
        self._lost = lost
        self.channel = ConsumerChannel(links, self, source.queue, 0, prepare, changed)

    @property
    def is_settled(self) -> bool:
        """Whether it is known if the queue has a consumer."""
        return self.channel.is_served or self.channel.trouble is not None

    def holds(self, delivery: Delivery) -> bool:
        """Whether a delivery of this queue is held by the channel that is open now."""
        place: Place = delivery.handle
        return place.epoch == self.channel.epoch and self.channel.is_open

    def ack_done(self) -> None:
        """Say all that is done."""
        done, self.done = self.done, []
        if done:
            self.channel.ack(done)

    # --- the receiver

    def bring(self, queue: str, epoch: int, tag: int, properties: Properties, body: bytes) -> None:
        """What was not sent to this group is passed over."""
        source = self.source
        delivery = deliver(source.topic, queue, epoch, tag, properties, body)
        if source.since_ms:
            headers = delivery.handle.headers
            sent_ms = number(headers.get(SENT))
            if sent_ms is not None and sent_ms < source.since_ms and GROUP not in headers:
                self.channel.ack([tag])
                return
        self.fresh.append(delivery)
        if len(self.fresh) == 1:
            self._links.run(self._came)

    def lost(self) -> None:
        """The server gives all that was brought to others."""
        self.fresh.clear()
        self.done.clear()
        self._lost(self)
