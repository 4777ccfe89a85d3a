"""The seam's `Subscription` over a consuming channel: a small stock between the link's thread and the worker that asks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from pika import spec

from nova.brokers.base import Delivery
from nova.brokers.rabbitmq.channel import ConsumerChannel
from nova.brokers.rabbitmq.leases import Leases
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.messages import SENT, Place, copy_back, deliver, number
from nova.brokers.rabbitmq.publisher import Publisher
from nova.errors import BrokerUnavailable

__all__ = ["RabbitSubscription", "Source"]

STALE_AFTER = 1.5
"""Seconds without a receive after which what was brought ahead goes back, so that another worker can have it."""
LOOK_EVERY = 0.5


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


class RabbitSubscription:
    """Consumers of one group. `receive` is called by one thread at a time; the rest by any.

    It consumes from the first `receive` on, and lets no more come ahead than the worker has asked for lately: a task should
    wait where any worker can have it.

    Args:
        sources: what to read, by queue.
        most: the largest prefetch.
        fixed: the prefetch, if the user chose one; 0 = as asked for.
        long_after: seconds after which a task is taken out of the server's delivery timeout.
        make_lease: makes the queue for that, given its name and where its messages go back to.
        prepare: makes sure of the queues before a channel is opened again; may bring other sources.
    """

    def __init__(
        self,
        link: Link,
        publisher: Publisher,
        sources: Mapping[str, Source],
        *,
        most: int,
        fixed: int,
        long_after: float,
        prepare: Callable[[Callable[[str | None], None]], None],
        make_lease: Callable[[str, str, Callable[[str | None], None]], None],
    ) -> None:
        self._link = link
        self._publisher = publisher
        self._sources = dict(sources)
        self._most = min(most, 65_535)
        self._fixed = fixed
        self._arrived = threading.Condition()
        self._stock: dict[str, deque[Delivery]] = {queue: deque() for queue in sources}
        self._turn: deque[str] = deque(sources)
        self._stocked = 0
        self._fresh: list[Delivery] = []
        """Brought, and not yet in the stock; the link's thread alone."""
        self._held = 0
        self._long_after = long_after
        self._make_lease = make_lease
        self._leases: dict[str, Leases] = {}
        self._leased: set[Delivery] = set()
        self._lent: dict[Delivery, float] = {}
        """What the worker holds, and since when."""
        self._target = 0
        self._taken_at = time.monotonic()
        self._closed = False
        self._returning = 0
        self._acks: deque[Delivery] = deque()
        self._acks_told = False
        self._channel = ConsumerChannel(link, self, list(sources), 0, prepare, self._shelve)
        link.run(self._look)

    @property
    def closed(self) -> bool:
        """Receives no more."""
        return self._closed

    # --- the seam

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """From the stock, the queues in turn."""
        deadline = time.monotonic() + timeout
        self._ask_for(max_messages)
        with self._arrived:
            while not self._closed:
                if self._stocked:
                    return self._take(max_messages)
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._arrived.wait(remaining)
            if self._closed:
                return []
            self._taken_at = time.monotonic()
        trouble = self._channel.trouble
        if trouble is not None:
            raise BrokerUnavailable(trouble)
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Told to the link's thread, which says it in as few acks as it can."""
        with self._arrived:
            self._acks.extend(self._settle(deliveries))
            told, self._acks_told = self._acks_told, True
        if not told:
            self._link.run(self._flush)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """A copy to the end of the group's queue, then an ack: a return would count as a hand-out without a clean end."""
        with self._arrived:
            mine = self._settle(deliveries)
        self._send_back(mine)

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Nothing runs out while the connection holds."""
        return [delivery for delivery in deliveries if delivery.lost]

    def close(self, timeout: float = 10.0) -> None:
        """End the consumers, give back what is held, wait for the acks."""
        with self._arrived:
            first, self._closed = not self._closed, True
            self._arrived.notify_all()
        if not first:
            return
        deadline = time.monotonic() + timeout
        self._await(self._stop, deadline)
        with self._arrived:
            held = self._empty() + self._settle(list(self._lent))
        self._send_back(held)
        with self._arrived:
            while self._returning and time.monotonic() < deadline:
                self._arrived.wait(0.05)
        self._await(self._finish, deadline)
        for leases in self._leases.values():
            self._await(leases.close, deadline)

    # --- the receiver, on the link's thread

    def bring(self, queue: str, epoch: int, tag: int, properties: spec.BasicProperties, body: bytes) -> None:
        """Into the stock; what was not sent to this group is passed over."""
        source = self._sources[queue]
        delivery = deliver(source.topic, queue, epoch, tag, properties, body)
        if source.since_ms:
            sent_ms = number(delivery.handle.headers.get(SENT))
            if sent_ms is not None and sent_ms < source.since_ms:
                self._channel.ack([tag])
                return
        self._fresh.append(delivery)
        if len(self._fresh) == 1:
            self._link.run(
                self._shelve
            )  # when all that one read of the socket brought is here: chunks are cheap, wake-ups not

    def lost(self) -> None:
        """The server gives all that was brought to others."""
        with self._arrived:
            self._fresh.clear()
            for stock in self._stock.values():
                stock.clear()
            self._stocked = 0
            for delivery in [delivery for delivery in self._lent if delivery not in self._leased]:
                delivery.lost = True
                del self._lent[delivery]
            self._held = len(self._lent)

    # --- inside

    def _shelve(self) -> None:
        """What was brought, into the stock; not before every queue has its consumer, or the first ones are served alone."""
        if not self._channel.serves_all and not self._closed:
            return
        fresh, self._fresh = self._fresh, []
        if fresh:
            with self._arrived:
                for delivery in fresh:
                    self._stock[delivery.handle.queue].append(delivery)
                self._stocked += len(fresh)
                self._arrived.notify()

    def _take(self, count: int) -> list[Delivery]:
        taken: list[Delivery] = []
        turn = self._turn
        share = max(1, -(-min(count, self._stocked) // len(turn)))
        while len(taken) < count and self._stocked:
            queue = turn[0]
            turn.rotate(-1)
            stock = self._stock[queue]
            for _ in range(min(share, len(stock), count - len(taken))):
                taken.append(stock.popleft())
                self._stocked -= 1
        self._held += len(taken)
        self._taken_at = now = time.monotonic()
        for delivery in taken:
            self._lent[delivery] = now
        return taken

    def _settle(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Mark as settled; returns those that were held until now."""
        settled: list[Delivery] = []
        for delivery in deliveries:
            place: Place = delivery.handle
            if place.settled:
                continue
            place.settled = True
            if self._lent.pop(delivery, None) is not None:
                self._held -= 1
                settled.append(delivery)
        return settled

    def _ask_for(self, count: int) -> None:
        """Let as much come as the worker can hold now, if that is more than before."""
        wanted = self._fixed or min(self._most, self._held - len(self._leased) + count)
        if wanted > self._target and (wanted >= 1.25 * self._target or self._target < 16):
            self._target = wanted
            self._link.run(self._adjust)

    def _adjust(self) -> None:
        if not self._closed and self._channel.in_force != self._target:
            self._channel.want(self._target)

    def _look(self) -> None:
        """Give back what was brought ahead and is not fetched; keep long tasks from the server's timeout."""
        if self._closed:
            return
        self._link.later(LOOK_EVERY, self._look)
        now = time.monotonic()
        with self._arrived:
            stale = self._take_stale(now - self._taken_at)
            old = [delivery for delivery, since in self._lent.items() if now - since >= self._long_after]
        if stale:
            self._channel.want(self._target)
            self._send_back(stale)
        for delivery in old:
            leases = self._leases_of(delivery)
            if leases.is_due(delivery, now - self._lent.get(delivery, now), self._long_after):
                leases.cover(delivery)

    def _take_stale(self, idle: float) -> list[Delivery]:
        """All of the stock, if it is more than a look ahead, or has lain for long."""
        ahead = max(1, self._held // 4)
        if not self._stocked or self._fixed or idle < STALE_AFTER:
            return []
        if self._stocked <= ahead and idle < self._long_after / 2:
            return []
        self._target = max(1, self._held - len(self._leased) + ahead)
        self._taken_at = time.monotonic()
        return self._empty()

    def _empty(self) -> list[Delivery]:
        """Everything out of the stock, to be given back."""
        taken = [delivery for stock in self._stock.values() for delivery in stock]
        for stock in self._stock.values():
            stock.clear()
        self._stocked = 0
        for delivery in taken:
            delivery.handle.settled = True
        return taken

    def _leases_of(self, delivery: Delivery) -> Leases:
        home = self._sources[delivery.handle.queue].home
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
        """A copy stands for it: the server need not wait for this one any longer."""
        with self._arrived:
            self._leased.add(delivery)
        place: Place = delivery.handle
        if place.epoch == self._channel.epoch:
            self._channel.ack([place.tag])

    def _uncovered(self, delivery: Delivery) -> None:
        with self._arrived:
            self._leased.discard(delivery)
            delivery.lost = True
            if self._lent.pop(delivery, None) is not None:
                self._held -= 1

    def _flush(self) -> None:
        with self._arrived:
            self._acks_told = False
            deliveries, self._acks = self._acks, deque()
        self._ack_all(deliveries)

    def _ack_all(self, deliveries: Iterable[Delivery]) -> None:
        """The acks of what is settled: of a delivery, or of the copy that stands for it."""
        epoch = self._channel.epoch
        tags: list[int] = []
        for delivery in deliveries:
            place: Place = delivery.handle
            if delivery in self._leased:
                with self._arrived:
                    self._leased.discard(delivery)
                self._leases_of(delivery).settle(delivery)
            elif place.epoch == epoch:
                tags.append(place.tag)
        self._channel.ack(tags)

    def _send_back(self, deliveries: Sequence[Delivery]) -> None:
        epoch = self._channel.epoch
        is_open = self._channel.is_open
        mine = [
            delivery
            for delivery in deliveries
            if delivery in self._leased or (is_open and delivery.handle.epoch == epoch)
        ]
        if not mine:
            return  # the server gives them to others by itself
        with self._arrived:
            self._returning += 1
        copies = [copy_back(delivery, self._sources[delivery.handle.queue].home) for delivery in mine]

        def sent(outcome: Sequence[object]) -> None:
            done = [delivery for delivery, error in zip(mine, outcome, strict=True) if error is None]
            not_done = [delivery.handle.tag for delivery, error in zip(mine, outcome, strict=True) if error is not None]
            self._ack_all(done)
            if not_done and self._channel.epoch == epoch:
                self._channel.give_up(not_done)
            with self._arrived:
                self._returning -= 1
                self._arrived.notify_all()

        future = self._publisher.send(copies)
        future.add_done_callback(lambda done: self._link.run(lambda: sent(done.result())))

    def _await(self, begin: Callable[[Callable[[], None]], None], deadline: float) -> None:
        done = threading.Event()
        self._link.run(lambda: begin(done.set))
        done.wait(max(0.1, deadline - time.monotonic()))

    def _stop(self, done: Callable[[], None]) -> None:
        """End the consumers; what they had brought by then is in the stock."""

        def stopped() -> None:
            self._shelve()
            done()

        self._channel.stop(stopped)

    def _finish(self, done: Callable[[], None]) -> None:
        self._flush()
        self._channel.close(done)
