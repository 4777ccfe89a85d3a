"""The seam's `Subscription` over a channel per queue: a small stock between the links' thread and the worker that asks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from nova.brokers.base import Delivery
from nova.brokers.rabbitmq.channel import ConsumerChannel
from nova.brokers.rabbitmq.feed import Feed, Source
from nova.brokers.rabbitmq.leases import LongTasks, MakeLease
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.messages import Place, copy_back
from nova.brokers.rabbitmq.publisher import Publisher
from nova.errors import BrokerUnavailable

__all__ = ["RabbitSubscription"]

STALE_AFTER = 1.5
"""Seconds without a receive after which what was brought ahead goes back, so that another worker can have it."""
LOOK_EVERY = 0.5


class RabbitSubscription:
    """Consumers of one group. `receive` is called by one thread at a time; the rest by any.

    It consumes from the first `receive` on, and lets no more come ahead than the worker has asked for lately: a task should
    wait where any worker can have it.

    Args:
        sources: what to read, by queue.
        most: the largest prefetch.
        fixed: the prefetch, if the user chose one; 0 = as asked for.
        long_after: seconds after which a task is taken out of the server's delivery timeout.
        make_lease: makes the queue for that.
        prepare: makes sure of all the queues before a channel is opened again.
    """

    def __init__(
        self,
        links: Links,
        publisher: Publisher,
        sources: Mapping[str, Source],
        *,
        most: int,
        fixed: int,
        long_after: float,
        prepare: Callable[[Callable[[str | None], None]], None],
        make_lease: MakeLease,
    ) -> None:
        self._links = links
        self._publisher = publisher
        self._most = min(most, 65_535)
        self._fixed = fixed
        self._long_after = long_after
        self._prepare = prepare
        self._waiting: list[Callable[[str | None], None]] = []
        """Channels that wait for the queues to be made sure of; the links' thread alone."""
        self._arrived = threading.Condition()
        self._long = LongTasks(links, publisher.send, make_lease, self._covered, self._uncovered)
        self._lent: dict[Delivery, float] = {}
        """What the worker holds, and since when the server waits for it."""
        self._stocked = 0
        self._held = 0
        self._target = 0
        self._taken_at = time.monotonic()
        self._closed = False
        self._returning = 0
        self._acks: deque[Delivery] = deque()
        self._acks_told = False
        self._feeds: dict[str, Feed] = {}  # the links' thread may ask for them while they are made
        self._feeds = {
            queue: Feed(
                links, source, self._prepare_once, came=self._shelve, lost=self._take_back, changed=self._shelve
            )
            for queue, source in sources.items()
        }
        self._turn = deque(self._feeds.values())
        links.run(self._look)

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
        troubles = [feed.channel.trouble for feed in self._feeds.values()]
        if troubles[0] is not None and None not in troubles:
            raise BrokerUnavailable(troubles[0])
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Told to the links' thread, which says it in as few acks as it can."""
        with self._arrived:
            self._acks.extend(self._settle(deliveries))
            told, self._acks_told = self._acks_told, True
        if not told:
            self._links.run(self._flush)

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
        self._long.close(deadline)

    # --- inside

    def _shelve(self) -> None:
        """What was brought, into the stock; not before all queues have their consumers, or the first ones are served alone.

        One that will not have its consumer for now is not waited for.
        """
        feeds = self._feeds.values()
        if not (self._closed or all(feed.is_settled for feed in feeds)):
            return
        now = time.monotonic()
        for feed in feeds:
            fresh, feed.fresh = feed.fresh, []
            if fresh:
                for delivery in fresh:
                    delivery.handle.came = now
                with self._arrived:
                    feed.stock.extend(fresh)
                    self._stocked += len(fresh)
                    self._arrived.notify()

    def _take_back(self, feed: Feed) -> None:
        """The server gives all that a queue had brought to others."""
        queue = feed.source.queue
        with self._arrived:
            self._stocked -= len(feed.stock)
            feed.stock.clear()
            for delivery in [delivery for delivery in self._lent if delivery.handle.queue == queue]:
                if not self._long.covers(delivery):
                    delivery.lost = True
                    del self._lent[delivery]
            self._held = len(self._lent)

    def _prepare_once(self, done: Callable[[str | None], None]) -> None:
        """For all channels that ask for it meanwhile."""
        self._waiting.append(done)
        if len(self._waiting) == 1:
            self._prepare(lambda error: self._links.run(lambda: self._prepared(error)))

    def _prepared(self, error: str | None) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(error)

    def _take(self, count: int) -> list[Delivery]:
        taken: list[Delivery] = []
        turn = self._turn
        share = max(1, -(-min(count, self._stocked) // len(turn)))
        while len(taken) < count and self._stocked:
            stock = turn[0].stock
            turn.rotate(-1)
            for _ in range(min(share, len(stock), count - len(taken))):
                taken.append(stock.popleft())
                self._stocked -= 1
        self._held += len(taken)
        self._taken_at = time.monotonic()
        for delivery in taken:
            self._lent[delivery] = delivery.handle.came
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
        wanted = self._fixed or min(self._most, self._held - len(self._long) + count)
        if wanted > self._target and (wanted >= 1.25 * self._target or self._target < 16):
            self._target = wanted
            self._links.run(self._adjust)

    def _adjust(self) -> None:
        for feed in self._feeds.values():
            if not self._closed and feed.channel.in_force != self._target:
                feed.channel.want(self._target)

    def _look(self) -> None:
        """Give back what was brought ahead and is not fetched; keep long tasks from the server's timeout."""
        if self._closed:
            return
        self._links.later(LOOK_EVERY, self._look)
        now = time.monotonic()
        with self._arrived:
            stale = self._take_stale(now)
            old = [(delivery, since) for delivery, since in self._lent.items() if now - since >= self._long_after]
        self._adjust()
        self._send_back(stale)
        for delivery, since in old:
            self._long.keep(delivery, self._home_of(delivery), now - since, self._long_after)

    def _take_stale(self, now: float) -> list[Delivery]:
        """All of the stock, if it is more than a look ahead and nobody asks; else what the server has waited for too long."""
        ahead = max(1, self._held // 4)
        if self._stocked > ahead and now - self._taken_at >= STALE_AFTER and not self._fixed:
            self._target = max(1, self._held - len(self._long) + ahead)
            self._taken_at = now
            return self._empty()
        return self._empty(before=now - self._long_after / 2)

    def _empty(self, before: float = float("inf")) -> list[Delivery]:
        """What came before an instant, out of the stock, to be given back."""
        taken: list[Delivery] = []
        for feed in self._feeds.values():
            while feed.stock and feed.stock[0].handle.came < before:
                taken.append(feed.stock.popleft())
        self._stocked -= len(taken)
        for delivery in taken:
            delivery.handle.settled = True
        return taken

    def _home_of(self, delivery: Delivery) -> str:
        place: Place = delivery.handle
        return self._feeds[place.queue].source.home

    def _covered(self, delivery: Delivery) -> None:
        """A copy stands for it: the server need not wait for this one any longer."""
        place: Place = delivery.handle
        feed = self._feeds[place.queue]
        if feed.holds(delivery):
            feed.channel.ack([place.tag])

    def _uncovered(self, delivery: Delivery) -> None:
        with self._arrived:
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
        feeds, long = self._feeds, self._long
        some_are_long = len(long) > 0
        for delivery in deliveries:
            place: Place = delivery.handle
            feed = feeds[place.queue]
            if some_are_long and long.covers(delivery):
                long.settle(delivery)
            elif place.epoch == feed.channel.epoch:
                feed.done.append(place.tag)
        for feed in feeds.values():
            feed.ack_done()

    def _send_back(self, deliveries: Sequence[Delivery]) -> None:
        feeds, long = self._feeds, self._long
        mine = [
            delivery for delivery in deliveries if long.covers(delivery) or feeds[delivery.handle.queue].holds(delivery)
        ]
        if not mine:
            return  # the server gives them to others by itself
        with self._arrived:
            self._returning += 1
        copies = [copy_back(delivery, self._home_of(delivery)) for delivery in mine]

        def sent(outcome: Sequence[object]) -> None:
            self._ack_all([delivery for delivery, error in zip(mine, outcome, strict=True) if error is None])
            for delivery, error in zip(mine, outcome, strict=True):
                if error is not None:
                    self._give_up(delivery)
            with self._arrived:
                self._returning -= 1
                self._arrived.notify_all()

        future = self._publisher.send(copies)
        future.add_done_callback(lambda done: self._links.run(lambda: sent(done.result())))

    def _give_up(self, delivery: Delivery) -> None:
        """No copy can be sent: the server takes it back itself, and counts that."""
        place: Place = delivery.handle
        feed = self._feeds[place.queue]
        if self._long.covers(delivery):
            self._long.give_up(delivery)
        elif feed.holds(delivery):
            feed.channel.give_up([place.tag])

    def _await(self, begin: Callable[[Callable[[], None]], None], deadline: float) -> None:
        done = threading.Event()
        self._links.run(lambda: begin(done.set))
        done.wait(max(0.1, deadline - time.monotonic()))

    def _stop(self, done: Callable[[], None]) -> None:
        """End the consumers; what they had brought by then is in the stock."""

        def stopped() -> None:
            self._shelve()
            done()

        self._all_channels(lambda channel, each: channel.stop(each), stopped)

    def _finish(self, done: Callable[[], None]) -> None:
        self._flush()
        self._all_channels(lambda channel, each: channel.close(each), done)

    def _all_channels(
        self, act: Callable[[ConsumerChannel, Callable[[], None]], None], done: Callable[[], None]
    ) -> None:
        """Call back when each has."""
        left = set(self._feeds)

        def ended(queue: str) -> None:
            left.discard(queue)
            if not left:
                done()

        for queue, feed in self._feeds.items():
            act(feed.channel, lambda queue=queue: ended(queue))  # type: ignore[misc]
