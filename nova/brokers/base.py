"""The driver seam: what every broker adapter does, and the messages that cross it.

A driver moves bytes and headers between topics and consumers. It never sees codecs, handlers or another driver. What
differs between brokers is data (`Capabilities`), never a name. `docs/writing-a-driver.md` walks through it; the
conformance suite in `tests/conformance` is the judge.

Rules of the seam:

* A **topic** is a name. A message to a topic without `group` is for every group that consumes the topic; with `group` it
  is for that group alone. A topic without any group keeps its messages for the first group that subscribes.
  A group registered later gets what is published after its registration.
* A message with `due_ms` is durable at once and is delivered to nobody before that instant.
* A **delivery** is lent to one subscription until it is acked, released, or the subscription dies; then it comes back.
* The worker settles by the rule *publish the next copy, wait for its confirmation, then ack the source*, so a driver
  needs no transaction across topics.
* `Message.group` is the address; the header `nova-group` is the worker's record of it. A driver's own headers start with
  `nova-x-` and never show in `Delivery.headers`.
* Any method may be called from any thread, except `receive`, which one thread at a time calls per subscription. A call
  without a timeout of its own ends within `DriverContext.call_timeout`.
* From the first `subscribe` to `close` the driver runs its own chores (say, a delay forwarder) on its own threads;
  `housekeeping` raises what they failed with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from nova.envelope import ID, Headers
from nova.errors import PublishError

__all__ = [
    "Capabilities",
    "CheckRequest",
    "Checking",
    "Confirmation",
    "DeadLetters",
    "Delivery",
    "Driver",
    "DriverConfig",
    "DriverContext",
    "Finding",
    "Group",
    "GroupRegistry",
    "Message",
    "Severity",
    "SubscribeRequest",
    "Subscription",
    "TopicDepth",
]


class Message(msgspec.Struct, gc=False):
    """Bytes on their way to a topic. A struct for speed; nobody changes one after handing it over.

    Attributes:
        topic: where it goes.
        body: the codec's bytes, at most `Capabilities.max_body_bytes`.
        headers: str to str; they travel with the body unchanged.
        id: the task id (the broker's message key where it has one).
        key: partition key, None = the id.
        due_ms: deliver to nobody before this instant (epoch ms); None = at once.
        group: for this group alone; None = for every group.
    """

    topic: str
    body: bytes
    headers: Headers
    id: str
    key: str | None = None
    due_ms: int | None = None
    group: str | None = None


class Delivery(msgspec.Struct, gc=False, eq=False):
    """A message lent to one subscription.

    Attributes:
        topic: where it was received from.
        body: its bytes.
        headers: as published.
        timestamp_ms: when the broker stored it, if it says.
        suspect: the broker has seen it come back uncleanly so often that it may be killing its consumers.
        charges: on a charged subscription: how often it was handed out without a clean end, this time included.
        started: set by the worker when its handler starts, just before it looks at `lost`.
        lost: it no longer belongs to this subscription; settling it has no effect. Set once, never taken back. A driver
            that must give partitions away sets it on what has not started, then looks at `started` again: a race costs a
            duplicate, never a loss.
        handle: the driver's own.
        id: the task's id where the message's key says it and the headers leave it out. Then several deliveries may share
            one headers object, which is read once for all of them: nobody changes one.
    """

    topic: str
    body: bytes
    headers: Mapping[str, str]
    handle: Any = None
    timestamp_ms: int | None = None
    suspect: bool = False
    charges: int = 0
    started: bool = False
    lost: bool = False
    id: str | None = None

    @property
    def task_id(self) -> str | None:
        """The task's id as far as the broker knows it; a body may know it where the broker does not."""
        return self.headers.get(ID) or self.id


Confirmation = Future[list[PublishError | None]]
"""Resolves to one entry per message, in order: None = stored, else why not (`may_be_stored` tells failed from unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do; the worker and the conformance suite ask these, never a name.

    Attributes:
        name: for people.
        durable: an accepted message survives the death of every process of ours.
        shared: other processes see the same broker.
        max_body_bytes: larger bodies are refused before they are sent.
        max_unsettled: the most deliveries one subscription may hold; None = no bound.
        lease: seconds after which a delivery held by a silent process goes to another; None = the broker notices itself.
            The worker calls `extend` on everything it holds at least every third of it.
        after_fork: an open driver in a forked child is opened anew ("reopen") or refused ("refuse").
        housekeeping_every: seconds between calls of `housekeeping` by each worker.
        delay_p99: seconds by which a delayed task may be late at up to 200/s, 99 of 100 (never early).
    """

    name: str
    durable: bool
    shared: bool
    max_body_bytes: int
    max_unsettled: int | None = None
    lease: float | None = None
    after_fork: Literal["reopen", "refuse"] = "reopen"
    housekeeping_every: float = 1.0
    delay_p99: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """What the queue tells its driver when it opens it.

    Attributes:
        prefix: what all topic names begin with.
        call_timeout: seconds in which every method without a timeout of its own answers, or raises `BrokerUnavailable`.
        publish_timeout: seconds in which every entry of a confirmation is resolved, broker or no broker. Below the waits
            of the queue and of the settler, or they would publish again what the driver still sends.
        delay_slots: how many slots of how many seconds, if the user chose; None = the driver's own.
    """

    prefix: str
    call_timeout: float = 10.0
    publish_timeout: float = 25.0
    delay_slots: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeRequest:
    """What a worker wants to receive.

    Attributes:
        topics: one or more, all of one rank.
        group: who consumes; registered for these topics durably, before `subscribe` returns.
        prefetch: the most deliveries held unsettled, those the driver buffers included; `receive` is never asked for more
            than is left of it. The driver renews what it buffers, also while nobody calls `receive`.
        charged: count each hand-out durably before returning it (`Delivery.charges`), and take the count back when the
            delivery is released cleanly. Used for the quarantine.
    """

    topics: tuple[str, ...]
    group: str
    prefetch: int
    charged: bool = False


@dataclass(slots=True)
class TopicDepth:
    """How many messages of one group a topic holds; None = the broker does not say.

    Attributes:
        waiting: may be received now.
        delayed: due later.
        running: lent to some consumer.
        dead_by_target: for a dead-letter topic: the same messages by the topic they were buried from.
    """

    waiting: int = 0
    delayed: int | None = 0
    running: int | None = 0
    dead_by_target: dict[str, int] | None = field(default_factory=dict)


class Subscription(Protocol):
    """A stream of deliveries for one group from topics of one rank. Owned, and closed, by one worker."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """Up to `max_messages` deliveries, as soon as there is one; [] after `timeout` seconds or once closed.

        Raises:
            BrokerError: nothing can be received now; the subscription survives and the caller tries again later. Only
                after `timeout`, so that an outage is no hot loop.
        """
        ...

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done. Hands over and returns; `close` waits for the effect. No effect on lost deliveries."""
        ...

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back unharmed: they come again soon, here or elsewhere, uncounted. Hands over and returns."""
        ...

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Keep these for another lease; returns those that are lost already (and marks them).

        Raises:
            BrokerError: nothing was extended; the caller tries again before the lease runs out.
        """
        ...

    def close(self, timeout: float = 10.0) -> None:
        """Receive no more, wait at most `timeout` for acks and releases, release what is still held. Idempotent.

        What had no effect in that time comes again.
        """
        ...


class DeadLetters(Protocol):
    """A reader over one group's dead-letter topic that never wears its messages out.

    Cursors and deliveries belong to this reader. While it is open it may hide what it has read from other readers.
    """

    def read(self, limit: int, after: str | None = None) -> list[tuple[str, Delivery]]:
        """Up to `limit` messages, oldest first, each with a cursor that continues behind it.

        What was published a moment ago may be missing; what was removed is not shown again.

        Raises:
            BrokerError: they cannot be read now.
        """
        ...

    def remove(self, deliveries: Sequence[Delivery]) -> int:
        """Delete these for good and wait for it; returns how many were still there.

        Raises:
            BrokerError: perhaps not all were removed; removing again is harmless.
        """
        ...

    def close(self) -> None:
        """Release what it holds. Idempotent."""
        ...


@runtime_checkable
class Driver(Protocol):
    """Our adapter to one broker. Building one touches nothing; `open` does."""

    @property
    def capabilities(self) -> Capabilities:
        """Known before `open`."""
        ...

    def open(self, context: DriverContext, timeout: float) -> None:
        """Connect, within `timeout` seconds.

        Raises:
            BrokerUnavailable: not reachable in that time; the message names the address and the cause.
        """
        ...

    def close(self, timeout: float = 10.0) -> None:
        """Finish what was handed over, for at most `timeout` seconds, and let go of the broker. Idempotent.

        Publishes that are then unresolved resolve as unknown.
        """
        ...

    def ensure(self, topics: Sequence[str]) -> None:
        """Make sure that these topics can be published to. Never creates anything that belongs to a group.

        Raises:
            BrokerError: a topic is missing and cannot be created; the message says what must exist.
        """
        ...

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        """Hand messages over; the future resolves when the broker has confirmed or refused every one.

        Does not wait for the broker: what finds no room resolves as `QueueFull`. The future never raises; each message has
        its own entry. Order is not promised. Callbacks of the future run on the driver's own thread and must not wait. A
        driver calls `set_running_or_notify_cancel()` before it sends and leaves a cancelled future alone.
        """
        ...

    def subscribe(self, request: SubscribeRequest) -> Subscription:
        """Start to consume: ensures the topics, registers the group, does not wait until messages can come.

        Raises:
            BrokerError: the group or its topics cannot be set up.
        """
        ...

    def depth(self, topics: Sequence[str], group: str) -> dict[str, TopicDepth]:
        """Counts for the group from the broker, for each topic asked for; may be milliseconds behind what it confirmed.

        Raises:
            BrokerError: the broker does not tell now.
        """
        ...

    def browse_dead(self, topic: str, group: str) -> DeadLetters:
        """A reader over the group's messages in a dead-letter topic."""
        ...

    def housekeeping(self) -> None:
        """Whatever the broker needs done from time to time, for example give expired leases back.

        Raises:
            BrokerError: it could not be done now; the caller tries again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """One group that consumes topics of a prefix.

    Attributes:
        name: as in `SubscribeRequest.group`.
        topics: those it is registered for, sorted; () if messages are kept for it all the same (copies addressed to it).
        waiting: how many messages of this prefix are kept for it: waiting, delayed, lent and dead, which is what its removal
            drops. About right where the broker counts positions; None = the broker does not say.
        active: whether a consumer of it is connected now; one that died counts until the broker has noticed. None = the
            broker does not say.
    """

    name: str
    topics: tuple[str, ...]
    waiting: int | None = None
    active: bool | None = None


@runtime_checkable
class GroupRegistry(Protocol):
    """A driver whose broker keeps messages for every registered group, also for one that reads no more.

    Optional, beside `Driver`; `q.groups` asks for it. Everything here is about the topics of `DriverContext.prefix` (which
    those are: `nova.brokers.prefixes`), and about no other prefix on the same broker.
    """

    def groups(self) -> list[Group]:
        """Every group that is registered for a topic or that messages are kept for, sorted by name.

        Messages that wait for a first group are nobody's and are not listed.

        Raises:
            BrokerError: the broker does not tell now.
        """
        ...

    def remove_group(self, group: str) -> bool:
        """Forget that the group is registered, and drop what is kept for it alone, its dead letters included.

        * Other groups lose nothing: not what waits for them, not what was published for all.
        * A topic whose last group is removed is a topic without any group again: what was kept for the removed group is
          dropped, what is published from then on is kept for the next first one.
        * When it subscribes again it is a new group: it gets what is published from then on, or, if the topics have no group
          by then, what they kept meanwhile.
        * On return it is gone for every process; the room may be freed later. After an error it is there in full, or
          removing it again finishes the work.

        Returns:
            False if there is no such group.

        Raises:
            BrokerError: a consumer of it is connected now, nothing was removed (stop its workers first); or the broker
                could not do it.
        """
        ...


Severity = Literal["ok", "unread", "hint", "harm"]
"""How much a finding matters: all is well; the broker does not tell; worth knowing; it will hurt."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check looked at.

    Attributes:
        severity: only `harm` fails a check.
        name: what was looked at; the same each time.
        found: the number or state that was read, with its unit.
        meaning: what follows from it for tasks; "" if nothing does.
        fix: what to do, or for `unread` the command that tells; "" if nothing need be done.
    """

    severity: Severity
    name: str
    found: str
    meaning: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """For whom a broker is checked.

    Attributes:
        topics: the ready topics that its workers would read.
        own_topics: the topics for dead letters and quarantine that they would use.
        group: who consumes.
        workers: how many worker processes are to run at once.
        timeout: seconds one question may take.
    """

    topics: tuple[str, ...]
    own_topics: tuple[str, ...]
    group: str
    workers: int = 1
    timeout: float = 10.0


@runtime_checkable
class Checking(Protocol):
    """A driver that can say what on its broker will hurt.

    Optional, beside `Driver`; `q.check()` asks for it.
    """

    def check(self, request: CheckRequest) -> list[Finding]:
        """Read the broker's limits and settings, and judge them for this driver's options. The driver is open.

        Leaves nothing behind on the broker, and reads no task. What it may not or cannot read is a finding too (`unread`),
        never left out and never guessed. Decisions are pure functions of the numbers read.

        Raises:
            BrokerError: the broker went away meanwhile.
        """
        ...


class DriverConfig(Protocol):
    """What a `with_…` option holds: plain data that builds its driver when the queue is first used.

    Attributes:
        factory: `package.module:Class`, called with the config; imported only then.
        extra: the install extra that brings its client library, or "" if it needs none.
    """

    @property
    def factory(self) -> str:
        """`package.module:Class` of the driver."""
        ...

    @property
    def extra(self) -> str:
        """`kafka` for `pip install nova-taskqueue[kafka]`; "" if nothing is needed."""
        ...
