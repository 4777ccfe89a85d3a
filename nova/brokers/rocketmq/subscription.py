"""The seam's `Subscription`: a small stock between the threads that receive and the worker that asks.

What is fetched ahead is what the last `receive` asked for and did not get; what lies in the stock for `STALE` goes
back, so that tasks wait in the broker, where any worker can have them. Giving back is a copy for this group alone,
published, confirmed, then the source is acked: any other way would count as a hand-out without a clean end.

On a charged subscription (the quarantine's) the hand-outs are the server's own count: it is durable, rises when a lease
runs out and never by a renewal, and a clean return is a copy that tells how many there were before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nova.brokers.base import Confirmation, Delivery
from nova.brokers.rocketmq.acks import Acker
from nova.brokers.rocketmq.consumer import Consumer
from nova.brokers.rocketmq.fetching import Fetcher
from nova.brokers.rocketmq.leases import Leases
from nova.brokers.rocketmq.messages import FOR, SENT, Outgoing, Place, copy_back, deliver
from nova.envelope import number
from nova.errors import BrokerUnavailable

__all__ = ["RocketSubscription"]

STALE = 1.5
"""Seconds after which what nobody has taken goes back."""
ASKED_FOR = 1.0
"""Seconds for which an unanswered `receive` stands."""

_log = logging.getLogger(__name__)


class RocketSubscription:
    """One group's messages from topics of one rank. `receive` is called by one thread at a time; the rest by any.

    Args:
        group: Nova's name of the consumer's group; None = it takes what is for any.
        brokers: of each topic.
        prefetch: the most deliveries held unsettled, the stock included.
        lease: seconds for which messages are lent; renewed while they are held.
        shown: the topic that a delivery of another one names.
        charged: count hand-outs.
    """

    def __init__(
        self,
        consumer: Consumer,
        group: str | None,
        brokers: Mapping[str, Sequence[str]],
        *,
        prefetch: int,
        lease: float,
        poll: float,
        acker: Acker,
        publish: Callable[[Sequence[Outgoing]], Confirmation],
        shown: Callable[[str], str],
        charged: bool = False,
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._prefetch = prefetch
        self._acker = acker
        self._publish = publish
        self._shown = shown
        self._charged = charged
        self._leases = Leases(consumer, lease, self._ack_place)
        self._stock: dict[str, deque[tuple[float, Delivery]]] = {topic: deque() for topic in brokers}
        self._turn = deque(brokers)
        self._changed = threading.Condition()
        self._wanted = 0
        self._asked = 0.0
        self._returning = 0
        self._closed = False
        self._fetchers = [
            Fetcher(consumer, topic, broker, self, self._changed, lease=lease, poll=poll)
            for topic, names in brokers.items()
            for broker in names
        ]

    # --- the seam

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """From the stock, the topics in turn."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                self._asked = time.monotonic()
                taken = self._take(max_messages)
                self._wanted = max_messages - len(taken)
                if taken:
                    return taken
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.notify_all()
                self._changed.wait(min(left, ASKED_FOR / 2))
            if self._closed:
                return []
        trouble = self.trouble
        if trouble is not None:
            raise BrokerUnavailable(f"{self._consumer.connection.where}: {trouble}")
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done."""
        mine = self._leases.take(deliveries)
        self._finish(deliveries)
        self._ack(mine)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """A fresh copy for this group, which comes at once, here or elsewhere."""
        self._give_back(self._leases.take(deliveries))

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """The driver renews by itself; told is what could not be."""
        return [delivery for delivery in deliveries if delivery.lost]

    def close(self, timeout: float = 10.0) -> None:
        """Receive no more, and give back what is held.

        A receive that is under way cannot be ended from here without loss: what it brings goes back when it comes, and
        `finish` waits for it, so that those of all topics end in one time.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            first, self._closed = not self._closed, True
            for fetcher in self._fetchers:
                fetcher.stop()
            for stock in self._stock.values():
                stock.clear()
            self._changed.notify_all()
        if first:
            self._give_back(self._leases.take(self._leases.everything()))
            self._await_settled(deadline)

    def finish(self, timeout: float) -> None:
        """After `close`: until the receives that were under way have ended, and what they brought has gone back."""
        deadline = time.monotonic() + timeout
        for fetcher in self._fetchers:
            fetcher.join(max(0.0, deadline - time.monotonic() - 0.5))
        self._await_settled(deadline)

    def _await_settled(self, deadline: float) -> None:
        with self._changed:
            while self._returning and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        self._acker.flush(self._consumer.group, max(0.0, deadline - time.monotonic()))

    # --- for the driver

    @property
    def ended(self) -> bool:
        """Closed, and no receive is under way any more."""
        return self._closed and not any(fetcher.is_alive for fetcher in self._fetchers)

    @property
    def trouble(self) -> str | None:
        """Why nothing is received, or None."""
        found = [fetcher.trouble for fetcher in self._fetchers]
        return next((trouble for trouble in found if trouble is not None), None)

    def look(self) -> None:
        """Renew leases, and give back what nobody takes. Called every now and then by the driver's thread."""
        self._leases.look()
        before = time.monotonic() - STALE
        stale: list[Delivery] = []
        with self._changed:
            for stock in self._stock.values():
                while stock and stock[0][0] < before:
                    stale.append(stock.popleft()[1])
        if stale:
            self._give_back(self._leases.take(stale))

    # --- the shelf, on the fetchers' threads

    def wanted(self, topic: str) -> int:
        """What the last receive asked for and is not at hand; `_changed` is held."""
        if self._closed or time.monotonic() - self._asked > ASKED_FOR:
            return 0
        return min(self._wanted - len(self._stock[topic]), self._prefetch - self._leases.count())

    def put(self, topic: str, found: list[Any], until: float) -> None:
        """Into the stock; what is not for this group, or was finished here before, is settled at once."""
        mine: list[Delivery] = []
        others: list[Place] = []
        for message in found:
            delivery = deliver(message, topic, self._shown(topic), until)
            if self._is_ours(topic, delivery.handle) and delivery.handle not in self._consumer.finished:
                if self._charged:
                    delivery.charges = delivery.handle.count + 1
                    delivery.suspect = False
                mine.append(delivery)
            else:
                others.append(delivery.handle)
        if others:
            self._acker.ack(self._consumer.group, others)
        if not mine:
            return
        self._leases.hold(mine)
        now = time.monotonic()
        with self._changed:
            closed = self._closed
            if not closed:
                self._stock[topic].extend([(now, delivery) for delivery in mine])
            self._changed.notify_all()
        if closed:
            self._give_back(self._leases.take(mine))

    def _is_ours(self, topic: str, place: Place) -> bool:
        if self._group is None:
            return True
        addressed = place.headers.get(FOR)
        if addressed is not None:
            return addressed == self._group
        sent = number(place.headers.get(SENT))
        return sent is None or sent >= self._consumer.since.get(topic, 0)

    def _take(self, most: int) -> list[Delivery]:
        taken: list[Delivery] = []
        topics = len(self._turn)
        for index in range(topics):
            topic = self._turn[0]
            self._turn.rotate(-1)
            stock = self._stock[topic]
            share = -(-(most - len(taken)) // (topics - index))
            while stock and share:
                delivery = stock.popleft()[1]
                if not delivery.lost:
                    taken.append(delivery)
                    share -= 1
        return taken

    def _ack(self, mine: Sequence[Delivery]) -> None:
        ready = self._leases.settled(mine)
        if ready:
            self._acker.ack(self._consumer.group, ready)

    def _finish(self, deliveries: Sequence[Delivery]) -> None:
        """They need nobody any more, whatever becomes of their acks."""
        self._consumer.finished.add([delivery.handle for delivery in deliveries])

    def _ack_place(self, place: Place) -> None:
        self._acker.ack(self._consumer.group, [place])

    def _give_back(self, mine: Sequence[Delivery]) -> None:
        if not mine:
            return
        with self._changed:
            self._returning += 1
        copies = [copy_back(delivery, self._group) for delivery in mine]

        def sent(outcome: Sequence[object]) -> None:
            copied = [delivery for delivery, error in zip(mine, outcome, strict=True) if error is None]
            self._finish(copied)
            self._ack(copied)
            with self._changed:
                self._returning -= 1
                self._changed.notify_all()

        self._publish(copies).add_done_callback(lambda done: sent(done.result()))
