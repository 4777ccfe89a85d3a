"""A stateful model of lending and settling, run against the real memory and SQLite drivers.

Whatever the order of publishing, receiving, acking, releasing, closing and dying: every message is either waiting, lent to
one subscription, or acked, and an acked one never comes again.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nova.brokers.base import Delivery, Driver, DriverContext, Message, SubscribeRequest, Subscription
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.brokers.sqlite.config import SQLiteConfig
from nova.brokers.sqlite.driver import SQLiteDriver

TOPIC = "T"
GROUP = "g"
numbers = st.integers(0, 10**6)


class Lending(RuleBasedStateMachine):
    """Messages by where they are; the driver must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.driver = self.make()
        self.driver.open(DriverContext(prefix="P"), 5)
        self.numbers = itertools.count()
        self.waiting: set[str] = set()
        self.subscriptions: list[Subscription] = []
        self.held: dict[Subscription, dict[str, Delivery]] = {}
        self.given: list[tuple[Subscription, Delivery]] = []
        self.acked: set[str] = set()

    def make(self) -> Driver:
        raise AssertionError("a subclass names the driver")

    @initialize()
    def register(self) -> None:
        self.subscribe()

    @rule(count=st.integers(1, 150))
    def publish(self, count: int) -> None:
        ids = [f"m{next(self.numbers)}" for _ in range(count)]
        messages = [Message(TOPIC, b"x", {"nova-id": id_}, id_) for id_ in ids]
        assert self.driver.publish(messages).result(5) == [None] * count
        self.waiting |= set(ids)

    @rule()
    def subscribe(self) -> None:
        made = self.driver.subscribe(SubscribeRequest(topics=(TOPIC,), group=GROUP, prefetch=10_000))
        self.subscriptions.append(made)
        self.held[made] = {}

    @rule(which=numbers, count=st.integers(1, 40))
    def receive(self, which: int, count: int) -> None:
        subscription = self.subscriptions[which % len(self.subscriptions)]
        got = subscription.receive(count, 0.0 if not self.waiting else 5.0)
        if subscription not in self.held:
            assert got == [], "a closed subscription receives nothing"
            return
        ids = {delivery.headers["nova-id"] for delivery in got}
        assert ids <= self.waiting, "only what waits is handed out, and to one at a time"
        assert len(ids) == len(got) == min(count, len(self.waiting))
        self.waiting -= ids
        self.held[subscription].update({delivery.headers["nova-id"]: delivery for delivery in got})
        self.given += [(subscription, delivery) for delivery in got]

    @precondition(lambda self: self.given)
    @rule(picks=st.lists(numbers, min_size=1, max_size=8))
    def ack(self, picks: list[int]) -> None:
        """Also what was settled before, or belongs to a closed subscription: that must change nothing."""
        for subscription, delivery in self.choose(picks):
            subscription.ack([delivery])
            if self.let_go(subscription, delivery):
                self.acked.add(delivery.headers["nova-id"])

    @precondition(lambda self: self.given)
    @rule(picks=st.lists(numbers, min_size=1, max_size=8))
    def release(self, picks: list[int]) -> None:
        """As for ack."""
        for subscription, delivery in self.choose(picks):
            subscription.release([delivery])
            if self.let_go(subscription, delivery):
                self.waiting.add(delivery.headers["nova-id"])

    @rule(which=numbers)
    def extend(self, which: int) -> None:
        subscription = self.subscriptions[which % len(self.subscriptions)]
        if subscription in self.held:
            assert subscription.extend(list(self.held[subscription].values())) == []

    @rule(which=numbers)
    def close(self, which: int) -> None:
        subscription = self.subscriptions[which % len(self.subscriptions)]
        subscription.close()
        self.waiting |= set(self.held.pop(subscription, {}))

    def choose(self, picks: list[int]) -> list[tuple[Subscription, Delivery]]:
        return [self.given[pick % len(self.given)] for pick in picks]

    def let_go(self, subscription: Subscription, delivery: Delivery) -> bool:
        """Whether the subscription held just this delivery until now."""
        held = self.held.get(subscription, {})
        if held.get(delivery.headers["nova-id"]) is not delivery:
            return False
        del held[delivery.headers["nova-id"]]
        return True

    @invariant()
    def counts_agree(self) -> None:
        barrier = self.driver.subscribe(SubscribeRequest(topics=("other",), group=GROUP, prefetch=1))
        barrier.close()  # what was handed over before has taken effect: one writer, one lock
        depth = self.driver.depth([TOPIC], GROUP)[TOPIC]
        assert depth.waiting == len(self.waiting)
        assert depth.running == sum(map(len, self.held.values()))

    def teardown(self) -> None:
        for subscription in self.held:
            subscription.close()
        self.driver.close()
        shutil.rmtree(self.directory)


class MemoryLending(Lending):
    def make(self) -> Driver:
        return MemoryDriver(MemoryConfig())


class SQLiteLending(Lending):
    def make(self) -> Driver:
        return SQLiteDriver(SQLiteConfig(path=str(self.directory / "n.db")))


def test_memory_lends_as_the_model_says() -> None:
    run_state_machine_as_test(MemoryLending, settings=settings(max_examples=30, stateful_step_count=30, deadline=None))


def test_sqlite_lends_as_the_model_says() -> None:
    slow = [HealthCheck.too_slow]
    few = settings(max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(SQLiteLending, settings=few)
