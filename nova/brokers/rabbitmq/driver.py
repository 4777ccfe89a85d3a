"""The RabbitMQ driver: its connections, their threads and their ends around the parts of this package.

Threads: one for the publishing connection, one for all others; one for chores; from the first subscription on the near
hold's. Publishers and consumers never share a connection: a server that is short of memory stops reading from those that
publish, and would not see the acks either. Any method from any thread; `receive` from one thread at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from nova import clock
from nova.brokers.base import (
    Capabilities,
    CheckRequest,
    Confirmation,
    DriverContext,
    Finding,
    Group,
    Message,
    SubscribeRequest,
    TopicDepth,
)
from nova.brokers.rabbitmq.checkup import Checkup
from nova.brokers.rabbitmq.chores import Chores
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rabbitmq.dead import RabbitDeadLetters
from nova.brokers.rabbitmq.feed import Source
from nova.brokers.rabbitmq.groups import GroupKeeper
from nova.brokers.rabbitmq.holder import Holder
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.loop import Loop
from nova.brokers.rabbitmq.messages import SENT, Outgoing, as_outgoing
from nova.brokers.rabbitmq.names import Names
from nova.brokers.rabbitmq.outbox import Item
from nova.brokers.rabbitmq.publisher import Publisher
from nova.brokers.rabbitmq.quarantine import QuarantineSubscription
from nova.brokers.rabbitmq.registry import Registry
from nova.brokers.rabbitmq.subscription import RabbitSubscription
from nova.brokers.rabbitmq.topology import Topology
from nova.envelope import number
from nova.errors import BrokerError, BrokerUnavailable, NovaError, PublishError

__all__ = ["RabbitMQDriver"]

MOST_COUNTED = 10_000
"""Dead letters that are read to count them by topic; of more only their number is told."""

_log = logging.getLogger(__name__)


class RabbitMQDriver:
    """A handle on one vhost."""

    def __init__(self, config: RabbitMQConfig) -> None:
        self._config = config
        self._where = f"rabbitmq at {config.address.shown}"
        self._parts: _Parts | None = None
        self._told: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Durable, shared; the server notices a closed connection, so nothing is renewed."""
        return Capabilities(
            name="rabbitmq",
            durable=True,
            shared=True,
            max_body_bytes=self._config.max_body_bytes,
            max_unsettled=65_535,
            after_fork="reopen",
            delay_p99=0.3,
        )

    def open(self, context: DriverContext, timeout: float) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: no server lets us in in that time.
            ConfigError: a certificate or key cannot be used.
        """
        parts = _Parts(self._config, self._where, context)
        try:
            parts.await_server(timeout)
        except BaseException:
            parts.close(0.5)
            raise
        self._parts = parts

    def close(self, timeout: float = 10.0) -> None:
        """Finish what was handed over, then let go."""
        if self._parts is not None:
            self._parts.close(timeout)

    def ensure(self, topics: Sequence[str]) -> None:
        """The exchange and the way of delayed tasks; a topic needs nothing of its own."""
        del topics
        self._open_parts.topology.ensure()

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        """Stored by a majority of the queue's members when the future resolves."""
        parts = self._open_parts
        now_ms = clock.now_ms()
        return parts.publisher.send([as_outgoing(message, parts.names, now_ms, parts.guard_ms) for message in messages])

    def subscribe(self, request: SubscribeRequest) -> RabbitSubscription | QuarantineSubscription:
        """Register the group and make its queues."""
        return self._open_parts.subscribe(request)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """From the queues; what is lent or delayed AMQP does not tell."""
        return self._open_parts.depth(topics, group)

    def browse_dead(self, topic: str, group: str) -> RabbitDeadLetters:
        """A reader that holds what it shows."""
        return self._open_parts.browse_dead(topic, group)

    def groups(self) -> list[Group]:
        """From the registry and the queues."""
        return self._open_parts.keeper.list()

    def remove_group(self, group: str) -> bool:
        """Delete its queues and forget it.

        Raises:
            BrokerError: its workers run, or the server refuses.
        """
        return self._open_parts.keeper.remove(group)

    def check(self, request: CheckRequest) -> list[Finding]:
        """From what the server says at the connection, and from what it refuses."""
        return self._open_parts.check(request)

    def housekeeping(self) -> None:
        """Says once why delayed tasks are not sent on.

        Raises:
            BrokerError: they are not.
        """
        trouble, told = self._open_parts.trouble, self._told
        self._told = trouble
        if trouble is not None and trouble != told:
            raise BrokerError(trouble)

    @property
    def _open_parts(self) -> _Parts:
        if self._parts is None:
            raise BrokerUnavailable(f"{self._where} is not open")
        return self._parts


class _Parts:
    """What an open driver consists of."""

    def __init__(self, config: RabbitMQConfig, where: str, context: DriverContext) -> None:
        self.names = Names(context.prefix, config.exchange or f"{context.prefix}-exchange", config.go_compatible)
        self.guard_ms = round(config.delay_guard * 1000)
        self._config = config
        self._where = where
        self._timeout = context.call_timeout
        self._chores = Chores()
        self._loop = Loop(
            name="nova-rabbitmq-publishing", failed=lambda: self._sending.abandon("an error in the driver")
        )
        self._sending = Link(self._loop, config, where, "publishing")
        self._links = Links(config, where)
        self.publisher = Publisher(
            self._sending,
            confirm_timeout=min(config.confirm_timeout, context.publish_timeout - 1),
            blocked_timeout=config.blocked_timeout,
            unclaimed=self.names.unclaimed,
            repair=self._repair,
        )
        self.topology = Topology(self._links.asking, self.names, self._timeout)
        registry = Registry(self.names, self.topology.talk, self.publisher.send, where, self._timeout)
        self.keeper = GroupKeeper(self.names, self.topology, registry, where)
        self._subscriptions: list[RabbitSubscription | QuarantineSubscription] = []
        self._holder: Holder | None = None
        self._made: dict[str, tuple[float, NovaError | None]] = {}
        """Places that were missing: when they were last made, and what went wrong with it."""
        self._removals: dict[str, tuple[float, int]] = {}
        self._turns: dict[str, threading.Lock] = {}
        self._starting = threading.Lock()
        self._closed = threading.Event()
        self._loop.start()
        self._sending.start()
        self._links.start()

    @property
    def trouble(self) -> str | None:
        """Why delayed tasks are not sent on."""
        holder = self._holder
        return holder.trouble if holder is not None else None

    def await_server(self, timeout: float) -> None:
        """Until both connections are there; a refusal ends the wait at once.

        Raises:
            BrokerUnavailable: they are not.
        """
        deadline = time.monotonic() + timeout
        for link in (self._sending, self._links.asking):
            try:
                link.await_up(deadline - time.monotonic(), patient=False)
            except BrokerUnavailable as exc:
                reason = str(exc).removeprefix(f"{self._where}: ")
                waited = f" in {timeout:g} s" if time.monotonic() >= deadline else ""
                raise BrokerUnavailable(f"{self._where}: no connection{waited}: {reason}") from exc

    def subscribe(self, request: SubscribeRequest) -> RabbitSubscription | QuarantineSubscription:
        """Registration, queues, near hold, consumers."""
        group, topics = request.group, request.topics

        def join() -> dict[str, Source]:
            return self.keeper.join(group, topics, for_all=not request.charged)

        sources = join()
        self._start_holder()
        subscription: RabbitSubscription | QuarantineSubscription
        if request.charged:
            subscription = QuarantineSubscription(
                self._links,
                self.publisher,
                list(sources.values()),
                join,
                timeout=self._timeout,
                long_after=self._config.long_task_after,
                make_lease=self._make_lease,
            )
        else:
            subscription = RabbitSubscription(
                self._links,
                self.publisher,
                sources,
                most=request.prefetch,
                fixed=min(self._config.prefetch, request.prefetch),
                long_after=self._config.long_task_after,
                prepare=self._again(join),
                make_lease=self._make_lease,
            )
        self._subscriptions = [*(open_ for open_ in self._subscriptions if not open_.closed), subscription]
        return subscription

    def check(self, request: CheckRequest) -> list[Finding]:
        """On a connection of its own, which a server short of room may block."""
        return Checkup(self._links, self.names, self._config.long_task_after).look(request)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """Counts, and dead letters by topic where asked for."""
        found = self.keeper.depth(topics, group)
        dead = found.get(self.names.dead)
        if dead is not None and dead.waiting > MOST_COUNTED:
            dead.dead_by_target = None
        elif dead is not None and dead.waiting:
            letters = self.browse_dead(self.names.dead, group)
            try:
                by_target = letters.count()
            finally:
                letters.close()
            dead.waiting = sum(by_target.values())
            dead.dead_by_target = {target: count for target, count in by_target.items() if target}
        return found

    def browse_dead(self, topic: str, group: str) -> RabbitDeadLetters:
        """A reader; those of one queue take turns."""
        queue = self.names.queue(group, topic)
        turn = self._turns.setdefault(queue, threading.Lock())
        return RabbitDeadLetters(queue, topic, self.topology.talk, self.publisher, self._where, self._timeout, turn)

    def close(self, timeout: float) -> None:
        """In the order in which they need each other."""
        if self._closed.is_set():
            return
        self._closed.set()
        deadline = time.monotonic() + timeout

        def left() -> float:
            return max(0.2, deadline - time.monotonic())

        for subscription in self._subscriptions:
            subscription.close(left())
        if self._holder is not None:
            self._holder.close(left())
        self.publisher.close(left())
        self._chores.close(left())
        self._sending.close(left())
        self._loop.close()
        self._links.close(left())

    def _start_holder(self) -> None:
        with self._starting:
            if self._holder is None:
                self._holder = Holder(
                    self._links, self.names, self.guard_ms, self.publisher.send, self._again(self.topology.ensure)
                )

    def _again(self, make: Callable[[], object]) -> Callable[[Callable[[str | None], None]], None]:
        """Make sure of something once more, on the chores' thread: the server may have come back without it."""

        def prepare(done: Callable[[str | None], None]) -> None:
            def attempt() -> None:
                self.topology.forget()
                make()

            self._chores.attempt(attempt, done)

        return prepare

    def _make_lease(self, queue: str, home: str, done: Callable[[str | None], None]) -> None:
        self._chores.attempt(lambda: self.topology.make_lease(queue, home), done)

    # --- places that are missing

    def _repair(self, item: Item) -> None:
        """A message came back: make the place it needs, then send it again. On the publishing link's thread."""
        came_back = time.monotonic()
        self._chores.do(lambda: self._make_place(item, came_back))

    def _make_place(self, item: Item, came_back: float) -> None:
        try:
            is_wanted = self._make(item[2], came_back)
        except NovaError as exc:
            self.publisher.give_up(item, PublishError(str(exc)))
        except BaseException as exc:
            self.publisher.give_up(item, PublishError(f"{self._where}: {exc!r}"))
            raise
        else:
            if is_wanted:
                self.publisher.again(item)
            else:
                self.publisher.drop(item)

    def _make(self, message: Outgoing, came_back: float) -> bool:
        """Make what is missing, once for all that came back before it was made; False = the message need not arrive."""
        address = self.names.topic_of(message.key) if message.exchange == "" and not message.topic else None
        sent_ms = number(message.headers.get(SENT))
        if address is not None and sent_ms is not None and sent_ms <= self._removed_at(address[0], came_back):
            _log.info("%s: a delayed copy of the removed group %r is dropped", self._where, address[0])
            return False
        place = message.key if message.exchange == "" else ""
        made_at, failure = self._made.get(place, (-1.0, None))
        if made_at < came_back:
            try:
                failure = None
                self._make_missing(message, address)
            except NovaError as exc:
                failure = exc
            if len(self._made) > 1000:
                self._made.clear()
            self._made[place] = time.monotonic(), failure
        if failure is not None:
            raise failure
        return True

    def _removed_at(self, group: str, came_back: float) -> int:
        """As the registry says it after that instant."""
        read_at, removed_ms = self._removals.get(group, (-1.0, -1))
        if read_at < came_back:
            removed_ms = self.keeper.removed_at(group)
            self._removals = {group: (time.monotonic(), removed_ms)}
        return removed_ms

    def _make_missing(self, message: Outgoing, address: tuple[str, str] | None) -> None:
        if address is not None:
            self.keeper.address(*address)
        elif message.topic and message.exchange == "":
            self.topology.make_unclaimed(message.topic)
        else:
            self.topology.forget()
            self.topology.ensure()
