"""The RocketMQ driver: one connection to the proxies, one to the brokers' own port, and their ends around the parts.

Threads: one each for publishing, acks, and the upkeep of leases and heartbeats; per group one for its session; per
    topic that is read and broker one that receives; from the first subscription on two for delayed tasks and one for
    chores. Any method from any thread; `receive` from one thread at a time.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence

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

# First, before anything loads grpc: it silences gRPC's own log.
from nova.brokers.rocketmq import stubs  # noqa: F401  # pyright: ignore[reportUnusedImport]
from nova.brokers.rocketmq.acks import Acker
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.checkup import Checkup
from nova.brokers.rocketmq.client import Connection, until_answers
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.consumer import Consumer
from nova.brokers.rocketmq.dead import Graveyard, RocketDeadLetters
from nova.brokers.rocketmq.forwarder import MOST_HELD, Forwarder
from nova.brokers.rocketmq.limits import KEEPS_LONG
from nova.brokers.rocketmq.messages import as_outgoing
from nova.brokers.rocketmq.names import Names
from nova.brokers.rocketmq.publisher import Publisher
from nova.brokers.rocketmq.registry import Registry
from nova.brokers.rocketmq.subscription import RocketSubscription
from nova.brokers.rocketmq.topics import TopicKeeper
from nova.errors import BrokerError, BrokerUnavailable, ConfigError

__all__ = ["RocketMQDriver"]

LOOK_EVERY = 0.2
"""Seconds between two looks at leases and stocks."""
SKEW = 60.0
"""Seconds by which the server's clock may be behind ours when it judges whether a timer is too far away."""
RENEW_EVERY = 900.0
"""Seconds between two looks at the age of dead letters."""

_log = logging.getLogger(__name__)


class RocketMQDriver:
    """A handle on one cluster."""

    def __init__(self, config: RocketMQConfig) -> None:
        self._config = config
        self._where = f"rocketmq at {', '.join(str(node) for node in config.nodes)}"
        self._parts: _Parts | None = None
        self._told: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Durable, shared; what a silent process holds comes again when its lease is over."""
        return Capabilities(
            name="rocketmq",
            durable=True,
            shared=True,
            max_body_bytes=self._config.max_body_bytes,
            lease=self._config.invisible_duration,
            after_fork="refuse",
            delay_p99=1.5,
        )

    def open(self, context: DriverContext, timeout: float) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: no proxy lets us in in that time.
            ConfigError: this process was forked from one in which gRPC runs.
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
        """Make missing topics; check those that are there."""
        self._open_parts.keeper.ensure([*topics, self._open_parts.names.near])

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        """Stored as the broker's flush and replication settings say when the future resolves."""
        parts = self._open_parts
        now_ms = clock.now_ms()
        outgoing = [as_outgoing(message, parts.names, now_ms, parts.guard_ms, parts.longest_ms) for message in messages]
        return parts.publisher.send(outgoing)

    def subscribe(self, request: SubscribeRequest) -> RocketSubscription:
        """Register the group and begin to receive when asked."""
        return self._open_parts.subscribe(request)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """From the group's positions; what is lent or delayed the brokers do not tell."""
        return self._open_parts.depth(topics, group)

    def browse_dead(self, topic: str, group: str) -> RocketDeadLetters:
        """A reader that takes nothing."""
        return self._open_parts.browse_dead(topic, group)

    def groups(self) -> list[Group]:
        """From the brokers' consumer groups and their positions."""
        return self._open_parts.list_groups()

    def remove_group(self, group: str) -> bool:
        """Forget its dead letters, its positions and the group.

        Raises:
            BrokerError: its workers run, or the brokers refuse.
        """
        return self._open_parts.remove_group(group)

    def check(self, request: CheckRequest) -> list[Finding]:
        """From what the proxy refuses, and from the brokers' own port."""
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
        parts = self._parts
        if parts is None:
            raise BrokerUnavailable(f"{self._where} is not open")
        if parts.pid != os.getpid():
            raise ConfigError(
                f"{self._where} was opened before a fork; open a queue of its own in the child, started by 'spawn'"
            )
        return parts


class _Parts:
    """What an open driver consists of."""

    def __init__(self, config: RocketMQConfig, where: str, context: DriverContext) -> None:
        self.pid = os.getpid()
        self.names = Names(context.prefix)
        self.guard_ms = round(config.delay_guard * 1000)
        self.longest_ms = round(max(config.max_delay - SKEW, config.max_delay * 0.9) * 1000)
        self._config = config
        self._where = where
        self._timeout = context.call_timeout
        self._connection = Connection(config, where)
        self._admin = Admin(config, where, min(self._timeout, config.request_timeout))
        self.keeper = TopicKeeper(self._admin, self._connection, self.names, config.queues_per_topic, self._timeout)
        self.registry = Registry(self._admin, self.names, where, self._timeout)
        send_timeout = min(config.send_timeout, context.publish_timeout - 1)
        self.publisher = Publisher(self._connection, send_timeout=send_timeout, request_timeout=config.request_timeout)
        self._acker = Acker(self._connection, config.request_timeout)
        self._consumers: dict[str, Consumer] = {}
        self._subscriptions: list[RocketSubscription] = []
        self._forwarder: Forwarder | None = None
        self._graveyard = Graveyard(self._admin, self.names.dead, self.names.ended)
        self._starting = threading.Lock()
        self._closed = threading.Event()
        self._upkeep = threading.Thread(target=self._keep, name="nova-rocketmq-upkeep", daemon=True)
        self._upkeep.start()
        self._chores: threading.Thread | None = None

    @property
    def trouble(self) -> str | None:
        """Why delayed tasks are not sent on."""
        forwarder = self._forwarder
        return forwarder.trouble if forwarder is not None else None

    def await_server(self, timeout: float) -> None:
        """Until a proxy lets us in.

        Raises:
            BrokerUnavailable: it does not.
        """
        until_answers(self._connection, self.names.probe, timeout, self._closed.wait)

    def subscribe(self, request: SubscribeRequest) -> RocketSubscription:
        """Topics, registration, forwarder, receivers."""
        names = self.names
        topics = list(request.topics)
        self.keeper.ensure([*topics, names.near, names.dead])
        if names.default_topic in topics and not request.charged and self.keeper.exists(names.go_delayed):
            topics.append(names.go_delayed)
        consumer = self._consumer(names.consumer_group(request.group), topics, for_all=not request.charged)
        self._start_forwarder()
        subscription = self._subscription(
            consumer, request.group, topics, prefetch=request.prefetch, charged=request.charged
        )
        with self._starting:
            self._subscriptions = [*(known for known in self._subscriptions if not known.ended), subscription]
        return subscription

    def check(self, request: CheckRequest) -> list[Finding]:
        """Nothing is made."""
        return Checkup(self._connection, self._admin, self.keeper, self.names, self._config).look(request)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """Counts, and dead letters by topic where asked for."""
        found = self.registry.depth(
            [topic for topic in topics if topic != self.names.dead], self.names.consumer_group(group)
        )
        if self.names.dead in topics:
            by_target = self.browse_dead(self.names.dead, group).count()
            targets = {target: count for target, count in by_target.items() if target}
            found[self.names.dead] = TopicDepth(sum(by_target.values()), None, None, targets)
        return found

    def browse_dead(self, topic: str, group: str) -> RocketDeadLetters:
        """A reader."""
        return RocketDeadLetters(self._graveyard, topic, group, self.publisher.send, self._timeout)

    def list_groups(self) -> list[Group]:
        """Every group, its dead letters counted in."""
        return [
            Group(
                group.name,
                group.topics,
                (group.waiting or 0) + self.browse_dead(self.names.dead, group.name).count().total(),
                group.active,
            )
            for group in self.registry.list()
        ]

    def remove_group(self, group: str) -> bool:
        """In an order in which a second call finishes what a first one did not."""
        self.registry.check_idle(group)
        letters = self.browse_dead(self.names.dead, group)
        while page := letters.read(1000):
            letters.remove([delivery for _, delivery in page])
        return self.registry.remove(group)

    def close(self, timeout: float) -> None:
        """In the order in which they need each other."""
        if self._closed.is_set():
            return
        deadline = time.monotonic() + timeout

        def left() -> float:
            return max(0.2, deadline - time.monotonic())

        for subscription in self._subscriptions:
            subscription.close(left())
        if self._forwarder is not None:
            self._forwarder.close(left())
        for part in (*self._subscriptions, self._forwarder):
            if part is not None:
                part.finish(left())
        self._closed.set()
        if self._chores is not None:
            self._chores.join(left())
        self._upkeep.join(left())
        self.publisher.close(left())
        self._acker.close(left())
        for consumer in self._consumers.values():
            consumer.close(left())
        self._connection.close()
        self._admin.close()

    def _consumer(self, group: str, topics: Sequence[str], *, for_all: bool) -> Consumer:
        """The one of a group; topics for all and topics of its own are registered differently."""
        key = group if for_all else f"{group} charged"
        with self._starting:
            consumer = self._consumers.get(key)
            if consumer is None:
                consumer = self._consumers[key] = Consumer(
                    self._connection,
                    group,
                    join=lambda wanted: self._join(group, wanted, for_all=for_all),
                    is_registered=lambda known: self.registry.is_registered(group, known),
                    request_timeout=self._config.request_timeout,
                )
        consumer.read(topics)
        if self._admin.reach() is None:
            consumer.await_settings(self._timeout)
        return consumer

    def _join(self, group: str, topics: Sequence[str], *, for_all: bool) -> Mapping[str, int]:
        self.keeper.forget(topics)
        self.keeper.ensure(topics)
        return self.registry.join(group, topics, for_all=for_all)

    def _subscription(
        self, consumer: Consumer, group: str | None, topics: Sequence[str], *, prefetch: int, charged: bool = False
    ) -> RocketSubscription:
        return RocketSubscription(
            consumer,
            group,
            {topic: self.keeper.brokers_of(topic) for topic in topics},
            prefetch=prefetch,
            lease=self._config.invisible_duration,
            poll=self._config.poll_timeout,
            acker=self._acker,
            publish=self.publisher.send,
            shown=self.names.shown,
            charged=charged,
        )

    def _start_forwarder(self) -> None:
        names = self.names
        consumer = self._consumer(names.forwarder, [names.near], for_all=False)
        with self._starting:
            if self._forwarder is None and not self._closed.is_set():
                self._chores = threading.Thread(target=self._do_chores, name="nova-rocketmq-chores", daemon=True)
                self._chores.start()
                self._forwarder = Forwarder(
                    self._subscription(consumer, None, [names.near], prefetch=MOST_HELD),
                    names,
                    self.publisher.send,
                    lambda: self.keeper.ensure([names.lost]),
                    guard_ms=self.guard_ms,
                    longest_ms=self.longest_ms,
                )

    def renew_letters(self, before_ms: int) -> None:
        """Write anew what was buried before an instant, of the groups that are consumed here."""
        groups = {self.names.group_of(consumer.group) for consumer in list(self._consumers.values())} - {None}
        for group in groups:
            letters = self.browse_dead(self.names.dead, group or "")
            renewed = 1
            while renewed and not self._closed.is_set():
                with self.registry.alone():
                    renewed = letters.renew(before_ms)

    def _do_chores(self) -> None:
        """Brokers delete by age, whether anybody has read a message or not: say so, and keep dead letters from it."""
        kept: int | None = None
        wait = 0.0
        while not self._closed.wait(wait):
            wait = RENEW_EVERY
            try:
                if kept is None:
                    self._look_at_handing_out()
                    kept = self._hours_kept()
                if kept is not None:
                    self.renew_letters(clock.now_ms() - kept * 3600 * 1000 // 2)
            except BrokerError as exc:
                _log.warning("%s: dead letters could not be looked after, trying again: %s", self._where, exc)
            except Exception:  # noqa: BLE001 - a thread's top
                _log.exception("%s: looking after dead letters failed, trying again", self._where)

    def _look_at_handing_out(self) -> None:
        """A broker with the older bookkeeping can lose what it hands to a client that has just died.

        Its proxy gives that back at once; when both fall into one millisecond they have the same name in its books, and the
        message is probably taken for acked (not traced; 5.4.0: 4 of 10,000 tasks with 20 kills, and up to 4 of 8 messages
        to dead clients, on a server that had run for an hour; 0 of 61 on another).
        """
        for broker in self._admin.reach() or ():
            if broker.settings().get("popConsumerKVServiceEnable") != "true":
                _log.warning(
                    "%s: the broker %s can lose a task that arrives while a worker that was just killed still counts as "
                    "waiting; set popConsumerKVServiceInit=true and popConsumerKVServiceEnable=true there",
                    *(self._where, broker.name),
                )

    def _hours_kept(self) -> int | None:
        """For how long the brokers keep messages; None = nobody tells."""
        hours: list[int] = []
        for broker in self._admin.reach() or ():
            text = broker.settings().get("fileReservedTime", "")
            if text.isdigit():
                hours.append(int(text))
                if int(text) < KEEPS_LONG:
                    _log.warning(
                        "%s: the broker %s deletes messages after %s hours, also tasks that still wait for a worker; "
                        "raise its fileReservedTime",
                        *(self._where, broker.name, text),
                    )
        return min(hours, default=None)

    def _keep(self) -> None:
        while not self._closed.wait(LOOK_EVERY):
            try:
                self._connection.look()
            except BrokerUnavailable as exc:
                _log.warning("%s", exc)
            try:
                for subscription in self._subscriptions:
                    subscription.look()
                if self._forwarder is not None:
                    self._forwarder.look()
                for consumer in list(self._consumers.values()):
                    consumer.beat()
            except Exception:  # noqa: BLE001 - a thread's top: without it every lease would run out
                _log.exception("%s: the upkeep of leases failed, going on", self._where)
