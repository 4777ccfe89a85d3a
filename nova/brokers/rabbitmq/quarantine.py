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
from nova.brokers.rabbitmq.leases import Leases
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.messages import Place, copy_back, deliver
from nova.brokers.rabbitmq.publisher import Publisher
from nova.brokers.rabbitmq.subscription import Source
from nova.errors import BrokerError

__all__ = ["QuarantineSubscription"]

LOOK_EVERY = 0.2
LOOK_AT_TIMES = 0.5


class QuarantineSubscription:
    """One group's suspects. `receive` is called by one thread at a time; the rest by any."""

    def __init__(
        self,
        talk: Callable[[], Conversation],
        publisher: Publisher,
        sources: Sequence[Source],
        rejoin: Callable[[], object],
        *,
        link: Link,
        long_after: float,
        make_lease: Callable[[str, str, Callable[[str | None], None]], None],
    ) -> None:
        self._talk = talk
        self._publisher = publisher
        self._sources = deque(sources)
        self._rejoin = rejoin
        self._link = link
        self._long_after = long_after
        self._make_lease = make_lease
        self._leases: dict[str, Leases] = {}
        self._lent: dict[Delivery, float] = {}
        """What the worker holds, and since when."""
        self._epoch = 0
        self._conversation: Conversation | None = None
        self._using = threading.Lock()
        self._returned = threading.Condition()
        self._returning = 0
        self._closing = threading.Event()
        link.run(self._look)

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
            mine = self._settle(deliveries)
        self._send_back(mine)

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Nothing runs out while the connection holds."""
        return [delivery for delivery in deliveries if delivery.lost]

    def close(self, timeout: float = 10.0) -> None:
        """Give back what is held."""
        if self._closing.is_set():
            return
        self._closing.set()
        with self._using:
            held = self._settle(list(self._lent))
        self._send_back(held)
        with self._returned:
            self._returned.wait_for(lambda: not self._returning, timeout)
        with self._using:
            if self._conversation is not None:
                self._conversation.close()
        for leases in self._leases.values():
            done = threading.Event()
            self._link.run(lambda leases=leases, done=done: leases.close(done.set))  # type: ignore[misc]
            done.wait(timeout)

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
                        self._lent[delivery] = time.monotonic()
                        return delivery
            except BrokerError as exc:
                self._forget()
                if isinstance(exc, Refused) and exc.code == NOT_FOUND:
                    self._rejoin()  # the group was removed meanwhile; it begins anew
                    return None
                raise
            return None

    def _look(self) -> None:
        """Keep long tasks from the server's timeout; on the link's thread."""
        if self._closing.is_set():
            return
        self._link.later(LOOK_AT_TIMES, self._look)
        now = time.monotonic()
        for delivery, since in list(self._lent.items()):
            leases = self._leases_of(delivery)
            if leases.is_due(delivery, now - since, self._long_after):
                leases.cover(delivery)

    def _leases_of(self, delivery: Delivery) -> Leases:
        home = delivery.handle.queue
        leases = self._leases.get(home)
        if leases is None:
            leases = self._leases[home] = Leases(
                self._link,
                self._publisher.send,
                home,
                lambda queue, done: self._make_lease(queue, home, done),
                self._covered,
                self._uncovered,
            )
        return leases

    def _covered(self, delivery: Delivery) -> None:
        place: Place = delivery.handle
        if place.epoch == self._epoch and self._conversation is not None:
            self._conversation.ack([place.tag])

    def _uncovered(self, delivery: Delivery) -> None:
        delivery.lost = True
        self._lent.pop(delivery, None)

    def _forget(self) -> None:
        """The channel is gone, and what it held with it."""
        if self._conversation is not None:
            self._conversation.close()
        self._conversation = None
        self._epoch += 1
        for delivery in [delivery for delivery in self._lent if not self._leases_of(delivery).covers(delivery)]:
            delivery.lost = True
            del self._lent[delivery]

    def _settle(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        settled = [delivery for delivery in deliveries if self._lent.pop(delivery, None) is not None]
        for delivery in settled:
            delivery.handle.settled = True
        return settled

    def _ack(self, deliveries: Sequence[Delivery]) -> None:
        """Of the delivery, or of the copy that stands for it."""
        for delivery in deliveries:
            place: Place = delivery.handle
            leases = self._leases_of(delivery)
            if leases.covers(delivery):
                self._link.run(lambda leases=leases, delivery=delivery: leases.settle(delivery))  # type: ignore[misc]
            elif place.epoch == self._epoch and self._conversation is not None:
                self._conversation.ack([place.tag])

    def _send_back(self, deliveries: Sequence[Delivery]) -> None:
        """Hand a copy over, and ack when it is confirmed; without a connection the server takes it back by itself."""
        talk = self._conversation
        if not deliveries or talk is None or not talk.is_open:
            return
        with self._returned:
            self._returning += 1
        copies = [copy_back(delivery, delivery.handle.queue) for delivery in deliveries]

        def sent(outcome: Sequence[object]) -> None:
            self._ack([delivery for delivery, error in zip(deliveries, outcome, strict=True) if error is None])
            with self._returned:
                self._returning -= 1
                self._returned.notify_all()

        self._publisher.send(copies).add_done_callback(lambda done: self._link.run(lambda: sent(done.result())))
