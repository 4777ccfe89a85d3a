"""The in-memory driver: same promises as the others except durability. Every method may be called from any thread.

A `MemoryBroker` is one lock around plain data: per topic and group a lane with a FIFO of what may run and a heap of what
is due later. Subscriptions wait on the broker's condition until something is published, released or falls due.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from nova import clock
from nova.brokers.base import (
    Capabilities,
    CheckRequest,
    Confirmation,
    Delivery,
    DriverContext,
    Finding,
    Group,
    Message,
    SubscribeRequest,
    TopicDepth,
)
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.prefixes import topics_of
from nova.brokers.refusals import group_in_use
from nova.envelope import TARGET
from nova.errors import PublishError, QueueFull

__all__ = ["MemoryDriver"]

NO_GROUP = ""


@dataclass(slots=True)
class _Stored:
    """A message in the broker. Ordered by `serial`, which is unique."""

    serial: int
    message: Message
    stored_ms: int
    charges: int = 0


@dataclass(slots=True)
class _Lane:
    """The messages of one topic for one group."""

    ready: deque[_Stored] = field(default_factory=deque)
    delayed: list[tuple[int, int, _Stored]] = field(default_factory=list)
    running: int = 0
    registered: bool = False

    @property
    def kept(self) -> int:
        return len(self.ready) + len(self.delayed) + self.running

    def wake_due(self, now_ms: int) -> None:
        while self.delayed and self.delayed[0][0] <= now_ms:
            self.ready.append(heapq.heappop(self.delayed)[2])

    def take_over(self, other: _Lane) -> None:
        """Have what waited in a lane of nobody."""
        self.ready = deque(sorted([*self.ready, *other.ready], key=lambda stored: stored.serial))
        self.delayed = [*self.delayed, *other.delayed]
        heapq.heapify(self.delayed)


class MemoryBroker:
    """What the driver objects of one name share."""

    def __init__(self, max_messages: int) -> None:
        self.changed = threading.Condition()
        self.lanes: dict[str, dict[str, _Lane]] = {}
        self.subscriptions: set[MemorySubscription] = set()
        self._max_messages = max_messages
        self._held = 0
        self._serials = itertools.count(1)
        self._sleepers = 0

    def put(self, messages: Sequence[Message]) -> list[PublishError | None]:
        now_ms = clock.now_ms()
        with self.changed:
            outcome: list[PublishError | None] = []
            for message in messages:
                lanes = self._targets(message)
                # A copy for one group takes the place its source is about to leave; refused, neither could ever go on.
                if message.group is None and self._held + len(lanes) > self._max_messages:
                    outcome.append(QueueFull(f"memory: holds {self._held} messages, its max_messages"))
                    continue
                for lane in lanes:
                    self._store(lane, _Stored(next(self._serials), message, now_ms), now_ms)
                outcome.append(None)
            self.wake()
        return outcome

    def register(self, topics: Sequence[str], group: str) -> None:
        with self.changed:
            for topic in topics:
                groups = self.lanes.setdefault(topic, {})
                lane = groups.setdefault(group, _Lane())
                lane.registered = True
                if NO_GROUP in groups:
                    lane.take_over(groups.pop(NO_GROUP))

    def groups(self, prefix: str) -> list[Group]:
        with self.changed:
            active = {subscription.group for subscription in self._subscribed(topics_of(prefix, self.lanes))}
            return [
                Group(
                    name,
                    tuple(sorted(topic for topic, lane in lanes.items() if lane.registered)),
                    sum(lane.kept for lane in lanes.values()),
                    name in active,
                )
                for name, lanes in sorted(self._by_group(prefix).items())
            ]

    def remove_group(self, prefix: str, group: str) -> bool:
        with self.changed:
            lanes = self._by_group(prefix).get(group, {})
            if any(subscription.group == group for subscription in self._subscribed(lanes)):
                raise group_in_use("memory", group)
            for topic, lane in lanes.items():
                del self.lanes[topic][group]
                self.forget(lane.kept)
        return bool(lanes)

    def _by_group(self, prefix: str) -> dict[str, dict[str, _Lane]]:
        found: dict[str, dict[str, _Lane]] = {}
        for topic in topics_of(prefix, self.lanes):
            for group, lane in self.lanes[topic].items():
                if group != NO_GROUP and (lane.registered or lane.kept):
                    found.setdefault(group, {})[topic] = lane
        return found

    def _subscribed(self, topics: Collection[str]) -> list[MemorySubscription]:
        return [subscription for subscription in self.subscriptions if not subscription.topics.isdisjoint(topics)]

    def lane(self, topic: str, group: str) -> _Lane:
        return self.lanes.setdefault(topic, {}).setdefault(group, _Lane())

    def forget(self, count: int) -> None:
        self._held -= count

    def wake(self) -> None:
        if self._sleepers:
            self.changed.notify_all()

    def sleep(self, timeout: float) -> None:
        self._sleepers += 1
        try:
            self.changed.wait(timeout)
        finally:
            self._sleepers -= 1

    def _targets(self, message: Message) -> list[_Lane]:
        if message.group is not None:
            return [self.lane(message.topic, message.group)]
        registered = [lane for lane in self.lanes.get(message.topic, {}).values() if lane.registered]
        return registered or [self.lane(message.topic, NO_GROUP)]

    def _store(self, lane: _Lane, stored: _Stored, now_ms: int) -> None:
        self._held += 1
        due_ms = stored.message.due_ms
        if due_ms is not None and due_ms > now_ms:
            heapq.heappush(lane.delayed, (due_ms, stored.serial, stored))
        else:
            lane.ready.append(stored)


class MemoryDriver:
    """A handle on a broker in this process's memory."""

    def __init__(self, config: MemoryConfig) -> None:
        self._config = config
        self._broker = _broker(config)
        self._closed = threading.Event()
        self._prefix = ""

    @property
    def capabilities(self) -> Capabilities:
        """Not durable, not shared, refused after a fork."""
        return Capabilities(
            name="memory",
            durable=False,
            shared=False,
            max_body_bytes=self._config.max_body_bytes,
            after_fork="refuse",
        )

    def open(self, context: DriverContext, timeout: float) -> None:
        """Nothing to connect to."""
        self._prefix = context.prefix

    def close(self, timeout: float = 10.0) -> None:
        """Wake everybody who waits; the messages stay with the broker."""
        self._closed.set()
        with self._broker.changed:
            self._broker.changed.notify_all()

    def ensure(self, topics: Sequence[str]) -> None:
        """Topics need no creation here."""

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        """Stored when this returns."""
        future: Confirmation = Future()
        future.set_result(self._broker.put(messages))
        return future

    def subscribe(self, request: SubscribeRequest) -> MemorySubscription:
        """Register the group and start to consume."""
        return MemorySubscription(self._broker, request, self._closed)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """Counted under the lock."""
        with self._broker.changed:
            return {topic: self._depth_of(topic, group) for topic in topics}

    def check(self, request: CheckRequest) -> list[Finding]:
        """Nothing survives, and nobody else sees it."""
        found = [
            Finding(
                "hint",
                "durability",
                f"in this process's memory, at most {self._config.max_messages} messages",
                "no task survives the end of the process",
                "with_sqlite(path) for one machine, a broker for several",
            )
        ]
        if request.workers > 1:
            found.append(
                Finding(
                    "harm",
                    "workers",
                    f"{request.workers} worker processes",
                    "each has a memory of its own: none sees what another enqueues",
                    "one process with more concurrency, or with_sqlite(path)",
                )
            )
        return found

    def browse_dead(self, topic: str, group: str) -> MemoryDeadLetters:
        """A reader that takes nothing out of its lane."""
        return MemoryDeadLetters(self._broker, topic, group)

    def groups(self) -> list[Group]:
        """Counted under the lock."""
        return self._broker.groups(self._prefix)

    def remove_group(self, group: str) -> bool:
        """Forget its lanes; exact about running workers."""
        return self._broker.remove_group(self._prefix, group)

    def housekeeping(self) -> None:
        """Nothing to do."""

    def _depth_of(self, topic: str, group: str) -> TopicDepth:
        groups = self._broker.lanes.get(topic, {})
        lane = groups.get(group) or groups.get(NO_GROUP) or _Lane()
        lane.wake_due(clock.now_ms())
        targets = Counter(stored.message.headers.get(TARGET, "") for stored in lane.ready)
        del targets[""]
        return TopicDepth(len(lane.ready), len(lane.delayed), lane.running, dict(targets))


class MemorySubscription:
    """Lends the messages of its lanes; what it holds goes back when it closes."""

    def __init__(self, broker: MemoryBroker, request: SubscribeRequest, driver_closed: threading.Event) -> None:
        self._broker = broker
        self._charged = request.charged
        self._driver_closed = driver_closed
        self._closed = False
        self.group = request.group
        self.topics = frozenset(request.topics)
        with broker.changed:
            broker.register(request.topics, request.group)
            broker.subscriptions.add(self)
            self._lanes = deque((topic, broker.lane(topic, request.group)) for topic in request.topics)
        self._held: dict[Delivery, tuple[_Lane, _Stored]] = {}

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """Wait on the broker's condition for something to hand out."""
        deadline = time.monotonic() + timeout
        with self._broker.changed:
            while not self._closed and not self._driver_closed.is_set():
                deliveries = self._take(max_messages)
                remaining = deadline - time.monotonic()
                if deliveries or remaining <= 0:
                    return deliveries
                self._broker.sleep(min(remaining, self._until_due()))
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Forget them."""
        with self._broker.changed:
            for delivery in deliveries:
                held = self._held.pop(delivery, None)
                if held is not None:
                    held[0].running -= 1
                    self._broker.forget(1)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Put them back at the head of their lanes."""
        with self._broker.changed:
            for delivery in reversed(deliveries):
                held = self._held.pop(delivery, None)
                if held is not None:
                    lane, stored = held
                    lane.running -= 1
                    stored.charges -= self._charged
                    lane.ready.appendleft(stored)
            self._broker.wake()

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Nothing runs out here."""
        del deliveries
        return []

    def close(self, timeout: float = 10.0) -> None:
        """Put back what is still held."""
        with self._broker.changed:
            self._closed = True
            self._broker.subscriptions.discard(self)
            self._broker.changed.notify_all()
        self.release(list(self._held))

    def _take(self, max_messages: int) -> list[Delivery]:
        now_ms = clock.now_ms()
        taken: list[Delivery] = []
        self._lanes.rotate(-1)
        for topic, lane in self._lanes:
            lane.wake_due(now_ms)
            while lane.ready and len(taken) < max_messages:
                stored = lane.ready.popleft()
                stored.charges += self._charged
                lane.running += 1
                message = stored.message
                delivery = Delivery(
                    topic, message.body, message.headers, None, stored.stored_ms, charges=stored.charges
                )
                self._held[delivery] = (lane, stored)
                taken.append(delivery)
        return taken

    def _until_due(self) -> float:
        heads = [lane.delayed[0][0] for _, lane in self._lanes if lane.delayed]
        return max(0.0, (min(heads) - clock.now_ms()) / 1000) + 0.0005 if heads else 3600.0


class MemoryDeadLetters:
    """Looks into a lane without taking anything."""

    def __init__(self, broker: MemoryBroker, topic: str, group: str) -> None:
        self._broker = broker
        self._topic = topic
        self._group = group

    def read(self, limit: int, after: str | None = None) -> list[tuple[str, Delivery]]:
        """The oldest messages behind the cursor, which is a serial number."""
        start = int(after) if after else 0
        with self._broker.changed:
            lane = self._broker.lane(self._topic, self._group)
            behind = (stored for stored in lane.ready if stored.serial > start)
            return [(str(stored.serial), self._show(stored)) for stored in itertools.islice(behind, limit)]

    def remove(self, deliveries: Sequence[Delivery]) -> int:
        """Drop them from the lane."""
        serials = {delivery.handle for delivery in deliveries}
        with self._broker.changed:
            lane = self._broker.lane(self._topic, self._group)
            kept = [stored for stored in lane.ready if stored.serial not in serials]
            removed = len(lane.ready) - len(kept)
            lane.ready = deque(kept)
            self._broker.forget(removed)
        return removed

    def close(self) -> None:
        """Holds nothing."""

    def _show(self, stored: _Stored) -> Delivery:
        message = stored.message
        return Delivery(self._topic, message.body, message.headers, stored.serial, stored.stored_ms)


def _broker(config: MemoryConfig) -> MemoryBroker:
    if config.name is None:
        return MemoryBroker(config.max_messages)
    with _named_lock:
        return _named.setdefault(config.name, MemoryBroker(config.max_messages))


_named: dict[str, MemoryBroker] = {}
_named_lock = threading.Lock()
