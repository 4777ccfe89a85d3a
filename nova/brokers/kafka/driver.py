"""The Kafka driver: clients, threads and their ends around the parts of this package.

Threads: one that serves delivery reports; per subscription a pump; from the first subscription on the forwarder's and one
for chores (space). Any method from any thread; `receive` from one thread at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from confluent_kafka import KafkaException

from nova import clock
from nova.brokers.base import (
    Capabilities,
    CheckRequest,
    Confirmation,
    DriverContext,
    Finding,
    Group,
    SubscribeRequest,
    TopicDepth,
)
from nova.brokers.base import Message as NovaMessage
from nova.brokers.kafka.admin import Admin
from nova.brokers.kafka.checkup import Checkup
from nova.brokers.kafka.compacted import RangeReader, TopicReader
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.credentials import check_credentials
from nova.brokers.kafka.dead import KafkaDeadLetters
from nova.brokers.kafka.delay_lanes import DEFAULT_LANES, DelayLanes
from nova.brokers.kafka.depth import DepthReader
from nova.brokers.kafka.escrow import Escrow, LeaseBook
from nova.brokers.kafka.failures import is_denied, text_of, was_denied
from nova.brokers.kafka.forwarder import Forwarder, limits
from nova.brokers.kafka.members import KILLED_COUNTS, Members
from nova.brokers.kafka.names import Names, Place
from nova.brokers.kafka.offsets import Offsets
from nova.brokers.kafka.publisher import Publisher
from nova.brokers.kafka.receiving import PumpOptions
from nova.brokers.kafka.reclaim import Reclaimer
from nova.brokers.kafka.records import as_record
from nova.brokers.kafka.registry import GroupBook, Registration
from nova.brokers.kafka.sending import Sender
from nova.brokers.kafka.settings import admin_settings, consumer_settings
from nova.brokers.kafka.subscription import KafkaSubscription
from nova.brokers.kafka.topics import TopicKeeper
from nova.brokers.refusals import group_in_use
from nova.errors import BrokerError, BrokerUnavailable, PublishError

__all__ = ["KafkaDriver"]

RECLAIM_EVERY = 60.0
PROBE = 0.5

_log = logging.getLogger(__name__)


class KafkaDriver:
    """A handle on one cluster."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._where = f"kafka at {config.bootstrap_servers}"
        self._parts: _Parts | None = None
        self._timeout = 10.0
        self._told: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Durable, shared; the group's coordinator notices the dead, so nothing is renewed."""
        return Capabilities(
            name="kafka",
            durable=True,
            shared=True,
            max_body_bytes=self._config.max_body_bytes,
            # librdkafka's locks may be held at the fork: a child that opened its own client hung once in some forty.
            after_fork="refuse",
            delay_p99=0.1,
        )

    def open(self, context: DriverContext, timeout: float) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: no broker answers in time, or the user or the certificate is refused.
            ConfigError: librdkafka refuses an option.
        """
        self._timeout = context.call_timeout
        check_credentials(self._config, self._where)
        parts = _Parts(self._config, self._where, context)
        try:
            parts.await_broker(timeout)
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
        self._open_parts.keeper.ensure(topics, self._timeout)

    def publish(self, messages: Sequence[NovaMessage]) -> Confirmation:
        """Stored by all in-sync replicas when the future resolves."""
        parts = self._open_parts
        now_ms = clock.now_ms()
        return parts.sender.send([as_record(message, parts.names, parts.lanes, now_ms) for message in messages])

    def subscribe(self, request: SubscribeRequest) -> KafkaSubscription:
        """Register the group and join its consumer group."""
        return self._open_parts.subscribe(request, self._timeout)

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """From committed offsets, maps and the ends of the partitions."""
        return self._open_parts.depth(topics, group, self._timeout)

    def browse_dead(self, topic: str, group: str) -> KafkaDeadLetters:
        """A reader of the compacted topic."""
        return self._open_parts.browse_dead(topic, group, self._timeout)

    def groups(self) -> list[Group]:
        """From the registrations and the consumer groups."""
        return self._open_parts.list_groups(self._timeout)

    def remove_group(self, group: str) -> bool:
        """Forget its offsets, its dead letters and its registration, in this order.

        Raises:
            BrokerError: its workers run, or the broker refuses.
        """
        return self._open_parts.remove_group(group, self._timeout)

    def check(self, request: CheckRequest) -> list[Finding]:
        """From the cluster's, topics' and groups' descriptions, and a rehearsal of making what is missing."""
        parts = self._open_parts
        return Checkup(parts.admin, parts.keeper, self._config, parts.names, self._where).look(request)

    def housekeeping(self) -> None:
        """Says once what the forwarder failed with.

        Raises:
            BrokerError: delayed tasks are not moved now.
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

    def __init__(self, config: KafkaConfig, where: str, context: DriverContext) -> None:
        slots = context.delay_slots
        self.names = Names(context.prefix)
        self.lanes = DEFAULT_LANES if slots is None else DelayLanes(slots[0], int(slots[1] * 1000))
        self._config = config
        self._where = where
        self._timeout = context.call_timeout
        self.admin = Admin(admin_settings(config))
        self.offsets = Offsets(self.admin, where)
        self.keeper = TopicKeeper(self.admin, self.offsets, config, self.names, self.lanes, where, self._agree_on_slots)
        self.publisher = Publisher(config, where, self.keeper.forget)
        self.sender = Sender(self.publisher, self.keeper, where)
        self.members = Members(self.admin, self.names, where)
        self._subscriptions: list[KafkaSubscription] = []
        self._forwarder: Forwarder | None = None
        self._groups: GroupBook | None = None
        self._chores: threading.Thread | None = None
        self._chores_trouble: str | None = None
        self._scanner = RangeReader(config, self.names.reader, where)
        self._starting = threading.Lock()
        self._closed = threading.Event()

    @property
    def trouble(self) -> str | None:
        """What the chores failed with."""
        forwarder = self._forwarder
        return (forwarder.trouble if forwarder is not None else None) or self._chores_trouble

    def await_broker(self, timeout: float) -> None:
        """Until a broker answers; a refusal ends the wait at once.

        Raises:
            BrokerUnavailable: it did not.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                self.publisher.producer.list_topics(timeout=max(0.05, min(PROBE, left)))
            except KafkaException as exc:
                error = self.publisher.last_error
                refused = error is not None and is_denied(error)
                if refused or left <= PROBE:
                    why = text_of(error) if error is not None else text_of(exc.args[0])
                    waited = "" if refused else f" in {timeout:g} s"
                    raise BrokerUnavailable(f"{self._where}: no connection{waited}: {why}") from exc
            else:
                return

    def subscribe(self, request: SubscribeRequest, timeout: float) -> KafkaSubscription:
        """Topics, registration, forwarder, consumer."""
        names, config = self.names, self._config
        topics = list(request.topics)
        self.keeper.ensure(topics, timeout)
        shown = {}
        if names.shown(names.go_delayed) in topics:
            topics.append(names.go_delayed)
            shown[names.go_delayed] = names.shown(names.go_delayed)
        claims = self.groups.register(request.group, topics, timeout)
        self._start_chores(timeout)
        kafka_group = names.consumer_group(request.group, request.topics[0])
        options = PumpOptions(
            name=f"nova-kafka-{kafka_group}",
            where=self._where,
            settings=consumer_settings(config, kafka_group),
            topics=topics,
            group=request.group,
            shown=shown,
            starts={topic: claim.starts for topic, claim in claims.items()},
            since_ms={topic: claim.since_ms for topic, claim in claims.items()},
            charged=request.charged,
            revoke_grace=config.revoke_grace,
        )
        escrow = Escrow(self.sender.send, names, self.lanes, request.group, config.escrow_lease)
        subscription = KafkaSubscription(options, request.prefetch, escrow, config.escrow_after)
        self._subscriptions = [*(open_ for open_ in self._subscriptions if not open_.closed), subscription]
        return subscription

    def depth(self, topics: Sequence[str], group: str, timeout: float) -> dict[str, TopicDepth]:
        """Counts of ready topics, and of dead letters where asked for."""
        ready = [topic for topic in topics if topic != self.names.dead]
        found = DepthReader(
            names=self.names,
            offsets=self.offsets,
            group=group,
            places=self.keeper.places(timeout),
            registrations=self._registrations(timeout),
            read=lambda place, start, end: self._scanner.read(*place, start, end, timeout),
            leases=self._caught_up_leases,
            timeout=timeout,
        ).count(ready)
        if self.names.dead in topics:
            letters = self.browse_dead(self.names.dead, group, timeout)
            try:
                by_target = letters.count()
            finally:
                letters.close()
            total = sum(by_target.values())
            found[self.names.dead] = TopicDepth(total, 0, 0, {target: n for target, n in by_target.items() if target})
        return found

    def list_groups(self, timeout: float) -> list[Group]:
        """Every registered group."""
        topics: dict[str, set[str]] = {}
        for entry in self._registrations(timeout):
            topics.setdefault(entry.group, set()).add(entry.topic)
        active = self.members.active(topics, timeout)
        return [
            Group(
                group,
                tuple(sorted(found - {self.names.go_delayed})),
                self._kept_for(group, found - {self.names.go_delayed}, timeout),
                group in active,
            )
            for group, found in sorted(topics.items())
        ]

    def remove_group(self, group: str, timeout: float) -> bool:
        """In an order in which a second call finishes what a first one did not, and what may be refused comes first."""
        if all(entry.group != group for entry in self._registrations(timeout)):
            return False
        if self.members.active([group], timeout):
            raise group_in_use(self._where, group, KILLED_COUNTS)
        self.members.forget(group, timeout)
        letters = self.browse_dead(self.names.dead, group, timeout)
        try:
            while page := letters.read(1000):
                letters.remove([delivery for _, delivery in page])
        finally:
            letters.close()
        self.groups.remove(group, timeout)
        return True

    def browse_dead(self, topic: str, group: str, timeout: float) -> KafkaDeadLetters:
        """A reader of its own."""
        return KafkaDeadLetters(
            topic,
            group,
            self._where,
            timeout,
            exists=lambda: topic in self.keeper.places(timeout),
            open_reader=lambda: TopicReader(self._config, topic, self.names.reader, self._where),
            scanner=RangeReader(self._config, self.names.reader, self._where),
            publish=self.sender.send,
        )

    @property
    def groups(self) -> GroupBook:
        """The registrations, opened at first need."""
        with self._starting:
            if self._groups is None:
                self.keeper.ensure([self.names.groups], self._timeout)
                reader = TopicReader(self._config, self.names.groups, self.names.reader, self._where)
                self._groups = GroupBook(reader, self.sender.send, self._ends, self.names)
            return self._groups

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
        if self._forwarder is not None:
            self._forwarder.close(left())
        if self._chores is not None:
            self._chores.join(left())
        self.sender.close(left())
        self.publisher.close(left())
        if self._groups is not None:
            self._groups.close()
        self._scanner.close()
        self.admin.close()

    def _agree_on_slots(self, timeout: float) -> None:
        """Compare the delay slots with the prefix's; a producer that may not read or write them there trusts its own."""
        try:
            self.groups.agree_on_slots(self.lanes.count, self.lanes.unit_ms, timeout)
        except BrokerError as exc:
            if not was_denied(exc) and not isinstance(exc, PublishError):
                raise
            _log.info("%s: the delay slots are not compared with those of the prefix: %s", self._where, exc)

    def _start_chores(self, timeout: float) -> None:
        with self._starting:
            if self._forwarder is not None:
                return
            self.keeper.ensure([self.names.near], timeout)
            names = self.names
            topics = [names.near, *(names.level(number) for number in range(1, 7))]
            options = PumpOptions(
                name="nova-kafka-delays",
                where=self._where,
                settings={
                    **consumer_settings(self._config, names.forwarder),
                    # A new level must be known before the first of its tasks is due.
                    "topic.metadata.refresh.interval.ms": max(1000, min(10_000, self.lanes.unit_ms // 2)),
                },
                topics=topics,
                group=None,
                watchful=False,
                partition_limit=limits(names),
                revoke_grace=self._config.revoke_grace,
            )
            self._forwarder = Forwarder(options, names, self.lanes, self.sender.send, self._open_leases)
            self._chores = threading.Thread(target=self._do_chores, name="nova-kafka-chores", daemon=True)
            self._chores.start()

    def _do_chores(self) -> None:
        reclaimer = Reclaimer(self.offsets, self.names, self.groups.registrations, self._where)
        while not self._closed.wait(RECLAIM_EVERY):
            if not self._config.reclaim:
                return
            try:
                reclaimer.run(self._owned(), self._timeout)
                self._chores_trouble = None
            except BrokerError as exc:
                self._chores_trouble = str(exc)
                _log.warning("%s: finished tasks could not be deleted, trying again: %s", self._where, exc)
            except Exception:  # noqa: BLE001 - a thread's top
                _log.exception("%s: deleting finished tasks failed", self._where)

    def _owned(self) -> list[Place]:
        pumps = [subscription.pump for subscription in self._subscriptions]
        if self._forwarder is not None:
            pumps.append(self._forwarder.pump)
        return [(partition.topic, partition.number) for pump in pumps for partition in pump.partitions()]

    def _kept_for(self, group: str, topics: set[str], timeout: float) -> int:
        counts = self.depth([*topics, self.names.dead], group, timeout).values()
        return sum(count.waiting + (count.delayed or 0) + (count.running or 0) for count in counts)

    def _registrations(self, timeout: float) -> Sequence[Registration]:
        if self._groups is None and self.names.groups not in self.keeper.places(timeout):
            return ()
        return self.groups.registrations(timeout)

    def _open_leases(self) -> LeaseBook:
        self.keeper.ensure([self.names.leases], self._timeout)
        return LeaseBook(TopicReader(self._config, self.names.leases, self.names.reader, self._where))

    def _caught_up_leases(self) -> LeaseBook:
        book = self._open_leases()
        try:
            book.catch_up(self._timeout)
        finally:
            book.close()
        return book

    def _ends(self, topics: Sequence[str], timeout: float) -> dict[str, dict[int, int]]:
        there = self.keeper.places(timeout)
        places = [place for topic in topics for place in there.get(topic, ())]
        ends: dict[str, dict[int, int]] = {}
        for (topic, number), end in self.offsets.ends(places, timeout).items():
            ends.setdefault(topic, {})[number] = end
        return ends
