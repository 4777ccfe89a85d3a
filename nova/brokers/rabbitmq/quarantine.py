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
from nova.brokers.rabbitmq.feed import Source
from nova.brokers.rabbitmq.leases import LongTasks, MakeLease
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.messages import Place, copy_back, deliver
from nova.brokers.rabbitmq.publisher import Publisher
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["QuarantineSubscription"]

LOOK_EVERY = 0.2
LOOK_AT_TIMES = 0.5


class QuarantineSubscription:
    """One group's suspects. `receive` is called by one thread at a time; the rest by any.

    Args:
        rejoin: registers the group again, after it was removed.
        timeout: seconds for one look at the queues.
        long_after: seconds after which a task is taken out of the server's delivery timeout.
        make_lease: makes the queue for that.
    """

    def __init__(
        self,
        links: Links,
        publisher: Publisher,
        sources: Sequence[Source],
        rejoin: Callable[[], object],
        *,
        timeout: float,
        long_after: float,
        make_lease: MakeLease,
    ) -> None:
        self._publisher = publisher
        self._sources = deque(sources)
        self._rejoin = rejoin
        self._links = links
        self._link = links.open_for(sources[0].queue)
        self._timeout = timeout
        self._long_after = long_after
        self._long = LongTasks(links, publisher.send, make_lease, self._covered, self._uncovered)
        self._lent: dict[Delivery, Conversation] = {}
        """What the worker holds, and the conversation in which it came; each change is one step, so no lock is needed."""
        self._conversation: Conversation | None = None
        self._last: Conversation | None = None
        """The one before, which the server may not have closed yet."""
        self._fetching = threading.Lock()
        """Held by whoever fetches, and by a close at its end."""
        self._returned = threading.Condition()
        self._returning = 0
        self._closing = threading.Event()
        links.run(self._look)

    @property
    def closed(self) -> bool:
        """Receives no more."""
        return self._closing.is_set()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """One at most, looked for now and then; not while the server still waits for a queue on the last channel."""
        del max_messages
        deadline = time.monotonic() + timeout
        while not self._closing.is_set():
            found = None if self._is_waiting else self._fetch()
            left = deadline - time.monotonic()
            if found is not None:
                return [found]
            if left <= 0:
                break
            self._closing.wait(min(left, LOOK_EVERY))
        if self._is_waiting and not self._closing.is_set():
            names = ", ".join(source.queue for source in self._sources)
            raise BrokerUnavailable(f"{self._link.where}: no answer from {names} yet; it may have no leader")
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done."""
        self._links.run(lambda: self._ack(self._settle(deliveries)))

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """A copy that says how often it was charged before."""
        self._links.run(lambda: self._send_back(self._settle(deliveries)))

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Nothing runs out while the connection holds."""
        return [delivery for delivery in deliveries if delivery.lost]

    def close(self, timeout: float = 10.0) -> None:
        """Give back what is held; what a fetch that outlasts the time brings goes back by itself, counted."""
        if self._closing.is_set():
            return
        self._closing.set()
        deadline = time.monotonic() + timeout
        has_ended = self._fetching.acquire(timeout=timeout)
        try:
            self._give_back_all(deadline)
            with self._returned:
                self._returned.wait_for(lambda: not self._returning, max(0.1, deadline - time.monotonic()))
            if self._conversation is not None:
                self._conversation.close()
        finally:
            if has_ended:
                self._fetching.release()
        self._link.close(max(0.1, deadline - time.monotonic()))
        self._long.close(deadline)

    @property
    def _is_waiting(self) -> bool:
        return self._last is not None and not self._last.has_ended

    def _fetch(self) -> Delivery | None:
        with self._fetching:  # a close takes it for good, and for its own time at most
            if self._closing.is_set():
                return None
            talk = self._conversation
            if talk is None or not talk.is_open:
                self._forget()
                talk = self._conversation = Conversation(self._link, self._timeout)
            talk.extend()
            try:
                for source in list(self._sources):
                    self._sources.rotate(-1)
                    got = talk.get(source.queue)
                    if got is not None:
                        delivery = deliver(source.topic, source.queue, 0, got.tag, got.properties, got.body)
                        place: Place = delivery.handle
                        place.came = time.monotonic()
                        delivery.charges = place.count + 1
                        delivery.suspect = False
                        self._lent[delivery] = talk
                        return delivery
            except BrokerError as exc:
                self._forget()
                if isinstance(exc, Refused) and exc.code == NOT_FOUND:
                    self._rejoin()  # the group was removed meanwhile; it begins anew
                    return None
                raise
            return None

    def _look(self) -> None:
        """Keep long tasks from the server's timeout; on the links' thread."""
        if self._closing.is_set():
            return
        self._links.later(LOOK_AT_TIMES, self._look)
        now = time.monotonic()
        for delivery in list(self._lent):
            place: Place = delivery.handle
            self._long.keep(delivery, place.queue, now - place.came, self._long_after)

    def _covered(self, delivery: Delivery) -> None:
        talk = self._lent.get(delivery)
        if talk is not None:
            talk.ack([delivery.handle.tag])

    def _uncovered(self, delivery: Delivery) -> None:
        delivery.lost = True
        self._lent.pop(delivery, None)

    def _forget(self) -> None:
        """The channel is gone, and what it held with it."""
        if self._conversation is not None:
            self._conversation.close()
            self._last = self._conversation
        self._conversation = None
        for delivery in list(self._lent):
            if not self._long.covers(delivery):
                delivery.lost = True
                self._lent.pop(delivery, None)

    def _give_back_all(self, deadline: float) -> None:
        begun = threading.Event()

        def begin() -> None:
            self._send_back(self._settle(list(self._lent)))
            begun.set()

        self._links.run(begin)
        begun.wait(max(0.1, deadline - time.monotonic()))

    # --- the links' thread: no copy of a long task can come to stand for one between these steps

    def _settle(self, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, Conversation]]:
        settled: list[tuple[Delivery, Conversation]] = []
        for delivery in deliveries:
            talk = self._lent.pop(delivery, None)
            if talk is not None:
                delivery.handle.settled = True
                settled.append((delivery, talk))
        return settled

    def _ack(self, settled: Sequence[tuple[Delivery, Conversation]]) -> None:
        """Of the delivery, or of the copy that stands for it."""
        for delivery, talk in settled:
            if self._long.covers(delivery):
                self._long.settle(delivery)
            else:
                talk.ack([delivery.handle.tag])

    def _send_back(self, settled: Sequence[tuple[Delivery, Conversation]]) -> None:
        """Hand a copy over, and ack when it is confirmed; without a connection the server takes it back by itself."""
        mine = [(delivery, talk) for delivery, talk in settled if talk.is_open or self._long.covers(delivery)]
        if not mine:
            return
        with self._returned:
            self._returning += 1
        copies = [copy_back(delivery, delivery.handle.queue) for delivery, _ in mine]

        def sent(outcome: Sequence[object]) -> None:
            self._ack([pair for pair, error in zip(mine, outcome, strict=True) if error is None])
            for (delivery, talk), error in zip(mine, outcome, strict=True):
                if error is not None and self._long.covers(delivery):
                    self._long.give_up(delivery)
                elif error is not None:
                    talk.give_up([delivery.handle.tag])
            with self._returned:
                self._returning -= 1
                self._returned.notify_all()

        self._publisher.send(copies).add_done_callback(lambda done: self._links.run(lambda: sent(done.result())))
