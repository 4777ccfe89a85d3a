"""The threads that receive: one per priority class, each with its own small stock, and one for the quarantine.

An intake asks the broker only for what its worker can start soon. `TaskFeed` keeps about `STOCK_SECONDS` of work ready, by
the rate at which its class was taken lately, so short tasks come in hundreds and long ones singly: a task should wait in
the broker, where any worker can have it. `BatchFeed` holds what its aggregator needs.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from nova.admission import Admission
from nova.aggregators import Aggregator
from nova.brokers.base import Delivery, Subscription
from nova.errors import BrokerError
from nova.lanes import Lanes
from nova.received import ReceivedTask

__all__ = ["BatchFeed", "Feed", "Intake", "QuarantineFeed", "TaskFeed"]

WAIT = 0.2
"""The longest single wait of an intake, so that a stop is seen soon."""
STOCK_SECONDS = 0.2
MAX_STOCK = 1000
FIRST_LOOK = 50
"""Deliveries in the first receive, before their size is known."""
MAX_HELD_BYTES = 64 << 20
"""Bodies one intake aims to hold at most. Each receive is sized by the lately usual body, so that a sudden change of size may
overshoot once; memory and the broker's claims stay in proportion otherwise."""
STALE_AFTER = 1.0
"""Seconds without a start after which surplus stock goes back to the broker."""
BATCH_STOCK_SECONDS = 0.05
RATE_SECONDS = 0.1
"""Seconds over which a batch intake learns its rate."""
BACKOFF_FIRST = 0.2
BACKOFF_MOST = 10.0

_log = logging.getLogger(__name__)


class Feed(Protocol):
    """What an intake does with its tasks."""

    def room(self, held: int) -> int:
        """How many more deliveries are wanted now; `held` are unsettled."""
        ...

    def wait(self) -> float:
        """The longest the next `receive` may take, in seconds."""
        ...

    def put(self, tasks: list[ReceivedTask]) -> None:
        """Take tasks (also an empty list, when a wait has ended)."""
        ...

    def surplus(self) -> list[ReceivedTask]:
        """Ready tasks that should go back to the broker."""
        ...

    def full(self, held: int) -> None:
        """No more may be held until something settles; `held` are unsettled."""
        ...


class Intake:
    """One subscription and the thread that reads it. A `Source` for the settler.

    Attributes:
        held: the deliveries not settled yet.
        last_receive: monotonic time of the last answer of the broker (health).
    """

    def __init__(self, name: str, subscription: Subscription, admission: Admission, feed: Feed) -> None:
        self.held: set[Delivery] = set()
        self.last_receive = time.monotonic()
        self.room_made = threading.Event()
        self._name = name
        self._subscription = subscription
        self._admission = admission
        self._feed = feed
        self._usual_bytes: float | None = None
        self._held_bytes = 0
        self._counting = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Receive from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Receive no more; `join` waits for the thread."""
        self._stopping.set()
        self.room_made.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread: at most one `receive`."""
        self._thread.join(timeout)

    def ack(self, deliveries: list[Delivery]) -> None:
        """Acknowledge and forget."""
        self._subscription.ack(deliveries)
        self._forget(deliveries)

    def release(self, deliveries: list[Delivery]) -> None:
        """Give back uncounted and forget."""
        self._subscription.release(deliveries)
        self._forget(deliveries)

    def extend(self) -> None:
        """Keep what is held; what another worker has taken meanwhile is marked lost and dropped.

        Raises:
            BrokerError: nothing was extended.
        """
        lost = self._subscription.extend(list(self.held))
        for delivery in lost:
            delivery.lost = True
            _log.warning("the lease of task %s was lost, its outcome here is ignored", delivery.task_id)
        self._forget(lost)

    def close(self, timeout: float = 10.0) -> None:
        """Close the subscription; what is still held goes back."""
        self._subscription.close(timeout)

    def step(self, wait: float) -> int:
        """Receive once and pass on; returns how many came."""
        room = self._room()
        return self._receive(room, wait) if room > 0 else 0

    def _receive(self, room: int, wait: float) -> int:
        deliveries = self._subscription.receive(room, wait)
        self.last_receive = time.monotonic()
        self._hold(deliveries)
        try:
            self._feed.put(self._admission.admit(deliveries, self) if deliveries else [])
        except BaseException:
            self.release(deliveries)  # a bug must not keep them here for ever
            raise
        return len(deliveries)

    def _run(self) -> None:
        backoff = BACKOFF_FIRST
        while not self._stopping.is_set():
            self.room_made.clear()
            try:
                room = self._room()
                if room > 0:
                    self._receive(room, self._feed.wait())
                else:
                    self.last_receive = time.monotonic()  # nothing is asked for, so nothing can be overdue
                    self._feed.full(len(self.held))
                    self.room_made.wait(self._feed.wait())
                    self._feed.put([])
                self._give_back(self._feed.surplus())
                backoff = BACKOFF_FIRST
            except BrokerError as exc:
                _log.warning("%s cannot receive, trying again in %.1f s: %s", self._name, backoff, exc)
                self._stopping.wait(backoff)
                backoff = min(2 * backoff, BACKOFF_MOST)
            except Exception:  # noqa: BLE001 - a thread's top: it must not die of a bug in a driver or a key function
                _log.exception("%s failed, going on in %.1f s", self._name, backoff)
                self._stopping.wait(backoff)
                backoff = min(2 * backoff, BACKOFF_MOST)

    def _give_back(self, tasks: list[ReceivedTask]) -> None:
        if tasks:
            self.release([task._delivery for task in tasks])

    def _room(self) -> int:
        """How many deliveries are wanted now, by count and by bytes."""
        return min(self._feed.room(len(self.held)), self._room_by_bytes())

    def _room_by_bytes(self) -> int:
        """How many more of the lately usual size may be held; a first look takes few, whatever they weigh."""
        if self._usual_bytes is None:
            return FIRST_LOOK
        return max(int((MAX_HELD_BYTES - self._held_bytes) / self._usual_bytes), 0 if self.held else 1)

    def _hold(self, deliveries: list[Delivery]) -> None:
        """Count what came, and learn the usual size: the mean of a receive, larger ones at once, smaller ones slowly."""
        if not deliveries:
            return
        size = sum([len(delivery.body) for delivery in deliveries])
        mean = max(size / len(deliveries), 1.0)
        self._usual_bytes = mean if self._usual_bytes is None else max(mean, 0.8 * self._usual_bytes)
        with self._counting:
            self.held.update(deliveries)
            self._held_bytes += size

    def _forget(self, deliveries: list[Delivery]) -> None:
        with self._counting:
            known = self.held.intersection(deliveries)
            self.held -= known
            self._held_bytes -= sum([len(delivery.body) for delivery in known])
        if not self.room_made.is_set():
            self.room_made.set()


class TaskFeed:
    """Keeps a class's lane stocked with single tasks.

    Args:
        floor: the least stock, for tasks of any length.
        prefetch: the most deliveries unsettled.
    """

    def __init__(self, lanes: Lanes[ReceivedTask], rank: int, floor: int, prefetch: int) -> None:
        self._lanes = lanes
        self._rank = rank
        self._floor = floor
        self._stock = floor
        self._prefetch = prefetch
        self._taken = 0
        self._since = time.monotonic()

    def room(self, held: int) -> int:
        """Nothing while the lane holds more than half its stock, so that tasks come in chunks."""
        ready = self._lanes.length(self._rank)
        if ready > self._stock // 2:
            return 0
        return min(self._stock + self._lanes.idle_slots(self._rank) - ready, self._prefetch - held)

    def wait(self) -> float:
        """A stop must be seen soon."""
        return WAIT

    def put(self, tasks: list[ReceivedTask]) -> None:
        """Make them ready and learn the rate."""
        if not tasks:
            return
        now, taken = time.monotonic(), self._lanes.taken[self._rank]
        rate = (taken - self._taken) / max(now - self._since, 1e-6)
        self._stock = max(self._floor, min(MAX_STOCK, math.ceil(rate * STOCK_SECONDS)))
        self._taken, self._since = taken, now
        self._lanes.low[self._rank] = self._stock // 2
        if not self._lanes.offer(self._rank, tasks):
            tasks[0]._source.release([task._delivery for task in tasks])

    def surplus(self) -> list[ReceivedTask]:
        """What lies ready beyond the floor while nothing was started for a while."""
        if self._lanes.taken[self._rank] != self._taken:
            return []
        if time.monotonic() - self._since < STALE_AFTER or self._lanes.length(self._rank) <= self._floor:
            return []
        self._stock = self._floor
        return self._lanes.take_back(self._rank, self._floor)

    def full(self, held: int) -> None:
        """What is held is ready or runs."""


class BatchFeed:
    """Collects the tasks of a class into batches.

    Args:
        prefetch: deliveries unsettled without which no batch could fill: `max_count * (inflight + 1)`.
        most: the most deliveries unsettled; more than `prefetch` are held only while they are handled so fast that it is
            about `BATCH_STOCK_SECONDS` of work.
        on_failure: told the task for which the user's key function raised.
    """

    def __init__(
        self,
        lanes: Lanes[list[ReceivedTask]],
        rank: int,
        aggregator: Aggregator,
        prefetch: int,
        most: int,
        on_failure: Callable[[ReceivedTask, BaseException], None],
    ) -> None:
        self._on_failure = on_failure
        self._lanes = lanes
        self._rank = rank
        self._aggregator = aggregator
        self._open = aggregator.start()
        self._prefetch = self._allowed = prefetch
        self._most = most
        self._counted = 0
        self._since = time.monotonic()
        self._collected = 0
        """Tasks in open batches."""

    def room(self, held: int) -> int:
        """Whatever is left of what the rate allows."""
        return self._allowed - held

    def wait(self) -> float:
        """Until the next window ends."""
        deadline = self._open.deadline()
        return WAIT if deadline is None else min(WAIT, max(0.0, deadline - time.monotonic()))

    def put(self, tasks: list[ReceivedTask]) -> None:
        """Add them and pass on what is complete."""
        now = time.monotonic()
        self._learn(len(tasks), now)
        batches: list[list[ReceivedTask]] = []
        for task in tasks:
            try:
                key = self._aggregator.key_of(task)
                if not isinstance(key, str):
                    raise TypeError(f"the aggregator's key must be text, got {type(key).__name__}")
            except Exception as exc:  # noqa: BLE001 - user code: its outcome is one failed attempt of this task
                self._on_failure(task, exc)
            else:
                self._collected += 1
                batches += self._open.add(task, len(task.payload), key, now)
        self._offer(batches + self._open.due(now))

    def surplus(self) -> list[ReceivedTask]:
        """A batch handler is given time."""
        return []

    def full(self, held: int) -> None:
        """If all that is held waits in open batches, they go as they are, or none ever would be complete.

        Batches of many keys, or of large tasks, can use up what may be held before any is. As long as anything else is held,
        it makes room when it settles; a batch cut short before that would leave one at the end that waits out its window.
        """
        if held <= self._collected:
            self.flush()

    def _learn(self, count: int, now: float) -> None:
        self._counted += count
        passed = now - self._since
        if passed >= RATE_SECONDS:
            wanted = int(self._counted / passed * BATCH_STOCK_SECONDS)
            self._allowed = max(self._prefetch, min(self._most, wanted))
            self._counted, self._since = 0, now

    def flush(self) -> None:
        """Pass on the open batches, for a stop."""
        self._offer(self._open.take())

    def _offer(self, batches: list[list[ReceivedTask]]) -> None:
        self._collected -= sum(map(len, batches))
        if batches and not self._lanes.offer(self._rank, batches):
            for batch in batches:
                batch[0]._source.release([task._delivery for task in batch])


class QuarantineFeed:
    """One task at a time, whatever its class.

    Args:
        offer: makes the task ready.
    """

    def __init__(self, offer: Callable[[ReceivedTask], None]) -> None:
        self._offer = offer

    def room(self, held: int) -> int:
        """One in flight."""
        return 1 - held

    def wait(self) -> float:
        """A stop must be seen soon."""
        return WAIT

    def put(self, tasks: list[ReceivedTask]) -> None:
        """Make it ready."""
        for task in tasks:
            self._offer(task)

    def surplus(self) -> list[ReceivedTask]:
        """Nothing."""
        return []

    def full(self, held: int) -> None:
        """Its task runs."""
