"""The quarantine's subscription: messages are fetched one by one, when the worker asks, and never ahead.

The server counts every hand-out that has no clean end, and that count is the charge. A message that was brought ahead would
be charged for another's death, so nothing is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from nova.brokers.base import Delivery
from nova.brokers.rabbitmq.conversation import Conversation
from nova.brokers.rabbitmq.failures import NOT_FOUND, Refused
from nova.brokers.rabbitmq.messages import Place, copy_back, deliver
from nova.brokers.rabbitmq.publisher import Publisher
from nova.brokers.rabbitmq.subscription import Source
from nova.errors import BrokerError

__all__ = ["QuarantineSubscription"]

LOOK_EVERY = 0.2


class QuarantineSubscription:
    """One group's suspects. `receive` is called by one thread at a time; the rest by any."""

    def __init__(
        self,
        talk: Callable[[], Conversation],
        publisher: Publisher,
        sources: Sequence[Source],
        rejoin: Callable[[], object],
        timeout: float,
    ) -> None:
        self._talk = talk
        self._publisher = publisher
        self._sources = deque(sources)
        self._rejoin = rejoin
        self._timeout = timeout
        self._lent: dict[int, Delivery] = {}
        self._epoch = 0
        self._conversation: Conversation | None = None
        self._using = threading.Lock()
        self._closing = threading.Event()

    @property
    def closed(self) -> bool:
        """Receives no more."""
        return self._closing.is_set()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """One at most, looked for now and then."""
        del max_messages
        deadline = time.monotonic() + timeout
        while not self._closing.is_set():
            found = self._fetch()
            left = deadline - time.monotonic()
            if found is not None:
                return [found]
            if left <= 0:
                break
            self._closing.wait(min(left, LOOK_EVERY))
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done."""
        with self._using:
            self._ack(self._settle(deliveries))

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """A copy that says how often it was charged before."""
        with self._using:
            places = self._settle(deliveries)
        mine = [delivery for delivery in deliveries if delivery.handle in places]
        self._send_back(mine)

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Nothing runs out while the connection holds."""
        return [delivery for delivery in deliveries if delivery.lost]

    def close(self, timeout: float = 10.0) -> None:
        """Give back what is held."""
        del timeout
        if self._closing.is_set():
            return
        self._closing.set()
        with self._using:
            held = list(self._lent.values())
            self._settle(held)
        self._send_back(held)
        with self._using:
            if self._conversation is not None:
                self._conversation.close()

    def _fetch(self) -> Delivery | None:
        with self._using:
            talk = self._conversation
            if talk is None or not talk.is_open:
                self._forget()
                talk = self._conversation = self._talk()
            talk.extend()
            try:
                for source in list(self._sources):
                    self._sources.rotate(-1)
                    got = talk.get(source.queue)
                    if got is not None:
                        delivery = deliver(source.topic, source.queue, self._epoch, got.tag, got.properties, got.body)
                        place: Place = delivery.handle
                        delivery.charges = place.count + 1
                        delivery.suspect = False
                        self._lent[got.tag] = delivery
                        return delivery
            except BrokerError as exc:
                self._forget()
                if isinstance(exc, Refused) and exc.code == NOT_FOUND:
                    self._rejoin()  # the group was removed meanwhile; it begins anew
                    return None
                raise
            return None

    def _forget(self) -> None:
        """The channel is gone, and what it held with it."""
        if self._conversation is not None:
            self._conversation.close()
        self._conversation = None
        self._epoch += 1
        for delivery in self._lent.values():
            delivery.lost = True
        self._lent.clear()

    def _settle(self, deliveries: Sequence[Delivery]) -> list[Place]:
        places: list[Place] = []
        for delivery in deliveries:
            place: Place = delivery.handle
            if not place.settled and place.epoch == self._epoch:
                place.settled = True
                self._lent.pop(place.tag, None)
                places.append(place)
        return places

    def _ack(self, places: Sequence[Place]) -> None:
        tags = [place.tag for place in places if place.epoch == self._epoch]
        if tags and self._conversation is not None:
            self._conversation.ack(tags)

    def _send_back(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        copies = [copy_back(delivery, delivery.handle.queue) for delivery in deliveries]
        outcome = self._publisher.send(copies).result(self._timeout + 20)
        with self._using:
            self._ack([delivery.handle for delivery, error in zip(deliveries, outcome, strict=True) if error is None])
