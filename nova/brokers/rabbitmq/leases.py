"""Tasks that run longer than the server waits for an ack: from then on a copy in a private queue stands for them.

A server closes the channel of a delivery that is not acked within its `consumer_timeout`, 30 minutes by default, and gives
all of that channel to others. So a task that has run for `long_task_after` is published to a queue that only this process
reads, the copy is taken from there at once, and then the first delivery is acked; and so on, every `long_task_after`. What
lies in the private queue goes back to the group's queue after five seconds, unless somebody holds it: when the process dies
the server takes its copies back, finds them over their time, and another worker has them at once.

All on the links' thread, but for `LongTasks.covers` and `LongTasks.close`.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nova.brokers.base import Confirmation, Delivery
from nova.brokers.rabbitmq.channel import ConsumerChannel
from nova.brokers.rabbitmq.incoming import Properties
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.messages import COUNT, Outgoing, Place, texts_of
from nova.errors import PublishError

__all__ = ["LongTasks", "MakeLease", "lease_arguments"]

TIME_TO_LIVE_MS = 5000
GONE_AFTER_MS = 3_600_000
PREFETCH = 60_000
TOKEN = "nova-x-lease"
ON_THEIR_WAY = 0.02
"""Seconds between looks at whether the copies that are on their way have come."""

MakeLease = Callable[[str, str, Callable[[str | None], None]], None]
"""Makes a private queue, given its name and the queue its messages go back to; calls back when that is done."""

_log = logging.getLogger(__name__)


def lease_arguments(home: str) -> Mapping[str, Any]:
    """Of a private queue whose messages go back to the queue `home`; it goes away when it is unused for an hour."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1_000_000,
        "x-message-ttl": TIME_TO_LIVE_MS,
        "x-expires": GONE_AFTER_MS,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": home,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


class LongTasks:
    """The long tasks of a subscription.

    Args:
        make: makes a private queue, on another thread.
        covered: told a delivery whose copy is held now, so that the first one can be acked.
        lost: told a delivery whose copy is held no more.
    """

    def __init__(
        self,
        links: Links,
        publish: Callable[[Sequence[Outgoing]], Confirmation],
        make: MakeLease,
        covered: Callable[[Delivery], None],
        lost: Callable[[Delivery], None],
    ) -> None:
        self._links = links
        self._publish = publish
        self._make = make
        self._on_covered = covered
        self._on_lost = lost
        self._by_home: dict[str, _Leases] = {}
        self._covered: dict[Delivery, _Leases] = {}

    def __len__(self) -> int:
        """How many are covered."""
        return len(self._covered)

    def covers(self, delivery: Delivery) -> bool:
        """Whether a copy stands for it."""
        return delivery in self._covered

    def keep(self, delivery: Delivery, home: str, age: float, after: float) -> None:
        """Let a copy stand for it if it is that old, and a new one if the copy is; `home` is where a copy goes back to."""
        leases = self._by_home.get(home)
        if leases is None:
            leases = self._by_home[home] = _Leases(
                self._links,
                self._publish,
                home,
                lambda queue, done: self._make(queue, home, done),
                self._cover,
                self._lose,
            )
        if leases.is_due(delivery, age, after):
            leases.cover(delivery)

    def settle(self, delivery: Delivery) -> None:
        """It is done or given back: its copy is not needed any more."""
        leases = self._covered.pop(delivery, None)
        if leases is not None:
            leases.settle(delivery)

    def give_up(self, delivery: Delivery) -> None:
        """Let its copy go back as it is; counted."""
        leases = self._covered.pop(delivery, None)
        if leases is not None:
            leases.give_up(delivery)

    def close(self, deadline: float) -> None:
        """Let go of all; copies that are held go back. Any other thread; waits."""
        for leases in list(self._by_home.values()):
            done = threading.Event()
            self._links.run(lambda leases=leases, done=done: leases.close(done.set))  # type: ignore[misc]
            done.wait(max(0.1, deadline - time.monotonic()))

    def _cover(self, leases: _Leases, delivery: Delivery) -> None:
        self._covered[delivery] = leases
        self._on_covered(delivery)

    def _lose(self, delivery: Delivery) -> None:
        self._covered.pop(delivery, None)
        self._on_lost(delivery)


class _Leases:
    """The long tasks of one group's queue.

    Args:
        home: the queue to which a copy goes back.
        make: makes the private queue, on another thread; calls back when that is done.
        covered: told a delivery whose copy is held now, so that the first one can be acked.
        lost: told a delivery whose copy is held no more.
    """

    def __init__(
        self,
        links: Links,
        publish: Callable[[Sequence[Outgoing]], Confirmation],
        home: str,
        make: Callable[[str, Callable[[str | None], None]], None],
        covered: Callable[[_Leases, Delivery], None],
        lost: Callable[[Delivery], None],
    ) -> None:
        self._links = links
        self._publish = publish
        self._home = home
        self._queue = f"{home}_LEASE_{uuid.uuid4().hex[:12]}"
        self._make = make
        self._covered = covered
        self._lost = lost
        self._tokens = itertools.count(1)
        self._asked: dict[str, Delivery] = {}
        self._given_up: set[str] = set()
        """Copies that were not waited for; what they stand for is held by other means on this very channel."""
        self._held: dict[Delivery, int] = {}
        self._since: dict[Delivery, float] = {}
        self._channel: ConsumerChannel | None = None
        self._making = False
        self._closed = False

    def is_due(self, delivery: Delivery, age: float, after: float) -> bool:
        """Whether it needs a copy, or a new one."""
        if delivery in self._asked.values():
            return False
        return age >= after and time.monotonic() - self._since.get(delivery, -after) >= after

    def cover(self, delivery: Delivery) -> None:
        """Let a copy stand for it, soon; asked again if it does not come."""
        channel = self._channel
        if self._closed:
            return
        if channel is None:
            self._open()
        elif channel.is_open and channel.trouble is None and channel.in_force:
            token = str(next(self._tokens))
            self._asked[token] = delivery
            copy = self._copy(delivery, token)
            self._publish([copy]).add_done_callback(
                lambda done: self._links.run(lambda: self._published(token, done.result()[0]))
            )
            self._links.later(TIME_TO_LIVE_MS / 1000, lambda: self._give_up(token))

    def settle(self, delivery: Delivery) -> None:
        """Ack its copy."""
        self._since.pop(delivery, None)
        tag = self._held.pop(delivery, None)
        if tag is not None and self._channel is not None:
            self._channel.ack([tag])

    def give_up(self, delivery: Delivery) -> None:
        """Return its copy: its time is over, so it goes on to the group's queue at once."""
        self._since.pop(delivery, None)
        tag = self._held.pop(delivery, None)
        if tag is not None and self._channel is not None:
            self._channel.give_up([tag])

    def close(self, done: Callable[[], None]) -> None:
        """Let go, once the copies on their way have come: one that nobody takes would run a task again that is done."""
        self._closed = True
        channel = self._channel
        if channel is None:
            done()
        elif self._asked and channel.is_open:
            self._links.later(ON_THEIR_WAY, lambda: self.close(done))
        else:
            channel.close(done)

    # --- the receiver

    def bring(self, queue: str, epoch: int, tag: int, properties: Properties, body: bytes) -> None:
        """A copy came: it stands for its task from now on."""
        del queue
        channel = self._channel
        assert channel is not None
        token = str((properties.headers or {}).get(TOKEN))
        delivery = self._asked.pop(token, None)
        if delivery is None and token in self._given_up:
            self._given_up.discard(token)
            channel.ack([tag])  # too late: the first delivery still stands for the task, or another copy does
            return
        if delivery is None:
            self._send_home(epoch, tag, properties, body)
            return
        place: Place = delivery.handle
        before = self._held.get(delivery)
        if before is None and (place.settled or delivery.lost):
            channel.ack([tag])  # done, or the server has given the first delivery to another
            return
        self._held[delivery] = tag
        self._since[delivery] = time.monotonic()
        if before is not None:
            channel.ack([before])
        else:
            self._covered(self, delivery)

    def lost(self) -> None:
        """The server gives the tasks to others."""
        held = list(self._held)
        self._held.clear()
        self._since.clear()
        self._asked.clear()
        self._given_up.clear()
        for delivery in held:
            self._lost(delivery)

    # --- inside

    def _open(self) -> None:
        if self._making:
            return
        self._making = True

        def made(error: str | None) -> None:
            self._making = False
            if error is not None:
                _log.warning("%s; long tasks may be given to others, trying again", error)
            elif self._channel is None and not self._closed:
                self._channel = ConsumerChannel(self._links, self, self._queue, PREFETCH, self._prepare)

        self._prepare(lambda error: self._links.run(lambda: made(error)))

    def _prepare(self, done: Callable[[str | None], None]) -> None:
        self._make(self._queue, done)

    def _give_up(self, token: str) -> None:
        """It has not come: ask again."""
        if self._asked.pop(token, None) is not None:
            self._given_up.add(token)

    def _published(self, token: str, error: PublishError | None) -> None:
        if error is not None:
            self._give_up(token)
            _log.warning("a long task cannot be kept from the server's timeout, trying again: %s", error)

    def _send_home(self, epoch: int, tag: int, properties: Properties, body: bytes) -> None:
        """A copy from before the connection was lost, whose time was not over yet: nothing else stands for its task."""
        headers = {name: text for name, text in texts_of(properties).items() if name != TOKEN}
        home = Outgoing("", self._home, body, headers, properties.message_id or "")

        def sent(error: PublishError | None) -> None:
            channel = self._channel
            if error is None and channel is not None and channel.epoch == epoch:
                channel.ack([tag])

        self._publish([home]).add_done_callback(lambda done: self._links.run(lambda: sent(done.result()[0])))

    def _copy(self, delivery: Delivery, token: str) -> Outgoing:
        """If it goes back by itself its worker has died over it: that counts."""
        place: Place = delivery.handle
        headers = {**place.headers, COUNT: str(place.count + 1), TOKEN: token}
        return Outgoing("", self._queue, delivery.body, headers, place.id)
