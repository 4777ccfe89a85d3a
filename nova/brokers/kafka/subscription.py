"""The seam's `Subscription` over a pump: a small stock between the thread that reads and the worker that asks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from nova.brokers.base import Delivery
from nova.brokers.kafka.escrow import RELEASED, Escrow, Lease
from nova.brokers.kafka.partition import KafkaDelivery
from nova.brokers.kafka.pump import Pump
from nova.brokers.kafka.receiving import PumpOptions
from nova.errors import BrokerUnavailable

__all__ = ["KafkaSubscription"]

STOCK = 2000
STOCK_BYTES = 16 << 20
"""What is read ahead of `receive`, in bodies."""


class KafkaSubscription:
    """One consumer of one group. `receive` is called by one thread at a time; the rest by any.

    Args:
        prefetch: the most deliveries held unsettled, the stock included.
        escrow_after: seconds after which a running task leaves its partition for the escrow.
    """

    def __init__(self, options: PumpOptions, prefetch: int, escrow: Escrow, escrow_after: float) -> None:
        self.starts = options.starts
        """Where it begins in partitions that nobody has committed, by topic."""
        self._prefetch = prefetch
        self._escrow = escrow
        self._escrow_after = escrow_after
        self._stock: dict[str, deque[KafkaDelivery]] = {}
        self._turn: deque[str] = deque()
        self._stocked = 0
        self._stocked_bytes = 0
        self._arrived = threading.Condition()
        self._closed = False
        self._running: dict[KafkaDelivery, float] = {}
        self._leases: dict[KafkaDelivery, Lease] = {}
        self._pump = Pump(options, self)
        self._pump.start()

    # --- the seam

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """From the stock, the topics in turn."""
        deadline = time.monotonic() + timeout
        with self._arrived:
            while not self._closed:
                taken = self._take(max_messages)
                remaining = deadline - time.monotonic()
                if taken:
                    self._pump.wake()
                    return taken
                if remaining <= 0:
                    break
                self._arrived.wait(remaining)
            if self._closed:
                return []
        trouble = self._pump.trouble
        if trouble is not None:
            raise BrokerUnavailable(trouble)
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Told to the pump; committed within `COMMIT_EVERY`."""
        mine = _own(deliveries)
        self._pump.call(lambda: self._settle(mine))

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Lent again by this process: Kafka takes no single record back."""
        mine = _own(deliveries)
        self._pump.call(lambda: self._give_back(mine))

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Nothing runs out while the group holds together."""
        return [delivery for delivery in deliveries if delivery.lost]

    def close(self, timeout: float = 10.0) -> None:
        """Commit what is done; the next owner of the partitions gets the rest."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
        self._pump.close(timeout)
        for lease in list(self._leases.values()):
            lease.end(RELEASED)

    @property
    def closed(self) -> bool:
        """Receives no more."""
        return self._closed

    @property
    def pump(self) -> Pump:
        """What it reads, for the driver's chores."""
        return self._pump

    # --- the receiver, on the pump's thread

    def room(self) -> int:
        """Up to the stock's size, the prefetch and the bytes; nothing while half of it is there: records come in chunks."""
        if self._stocked > STOCK // 2 or self._stocked_bytes >= STOCK_BYTES:
            return 0
        held = sum(len(partition.held) for partition in self._pump.partitions())
        return min(STOCK - self._stocked, self._prefetch - held)

    def put(self, deliveries: list[KafkaDelivery]) -> None:
        """Into the stock."""
        with self._arrived:
            for topic, arrived in groupby(deliveries, _topic):
                stock = self._stock.get(topic)
                if stock is None:
                    stock = self._stock[topic] = deque()
                    self._turn.append(topic)
                stock.extend(arrived)
            self._stocked += len(deliveries)
            self._stocked_bytes += _bytes(deliveries)
            self._arrived.notify()

    def give_away(self, deliveries: list[KafkaDelivery], deadline: float) -> list[KafkaDelivery]:
        """Into the escrow, and wait for it."""
        leases = {one: self._leases.get(one) or self._escrow.take_over(one) for one in deliveries}
        managed: list[KafkaDelivery] = []
        for delivery, lease in leases.items():
            if lease.wait(max(0.0, deadline - time.monotonic())):
                self._leases[delivery] = lease
                managed.append(delivery)
            else:  # its next owner runs it: the copy, should it be stored after all, is too much
                self._leases.pop(delivery, None)
                lease.end()
        return managed

    def tick(self) -> None:
        """Look for tasks that run long; renew what is in escrow."""
        now = time.monotonic()
        running: dict[KafkaDelivery, float] = {}
        for partition in self._pump.partitions():
            for delivery in partition.held.values():
                if delivery.started:
                    running[delivery] = self._running.get(delivery, now)
        self._running = running
        for delivery, since in running.items():
            if now - since >= self._escrow_after:
                self._begin_escrow(delivery)
        for delivery, lease in list(self._leases.items()):
            if lease.is_taken and (offsets := delivery.partition.settle((delivery,))):
                delivery.partition.finish(offsets)
            lease.renew()

    def _begin_escrow(self, delivery: KafkaDelivery) -> None:
        lease = self._leases.get(delivery)
        if lease is None or lease.has_failed:
            self._leases[delivery] = self._escrow.take_over(delivery)

    def _settle(self, deliveries: list[KafkaDelivery]) -> None:
        self._pump.ack(deliveries)
        for delivery in deliveries if self._leases else ():
            lease = self._leases.pop(delivery, None)
            if lease is not None:
                lease.end()

    def _give_back(self, deliveries: list[KafkaDelivery]) -> None:
        self._pump.give_back(deliveries)
        for delivery in deliveries if self._leases else ():
            lease = self._leases.pop(delivery, None)
            if lease is not None:
                lease.end(RELEASED)

    def _take(self, most: int) -> list[Delivery]:
        taken: list[Delivery] = []
        topics = len(self._turn)
        for index in range(topics):
            topic = self._turn[0]
            self._turn.rotate(-1)
            stock = self._stock[topic]
            share = -(-(most - len(taken)) // (topics - index))
            while stock and share:
                came = [stock.popleft() for _ in range(min(share, len(stock)))]
                self._stocked -= len(came)
                self._stocked_bytes -= _bytes(came)
                ours = [delivery for delivery in came if not delivery.lost]
                taken += ours
                share -= len(ours)
        return taken


_topic = attrgetter("topic")


def _bytes(deliveries: Sequence[Delivery]) -> int:
    return sum([len(delivery.body) for delivery in deliveries])


def _own(deliveries: Sequence[Delivery]) -> list[KafkaDelivery]:
    return [delivery for delivery in deliveries if isinstance(delivery, KafkaDelivery)]
