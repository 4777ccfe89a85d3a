"""The near hold: delayed messages that are due within the next second, held to the exact instant and sent on.

One consumer of the prefix's near queue per process, shared with the workers of all groups. A message is acked when its next
copy is confirmed, so a crash repeats at most what was on its way and loses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from nova import clock
from nova.brokers.base import Confirmation
from nova.brokers.due import DueQueue
from nova.brokers.rabbitmq import delay_levels as delays
from nova.brokers.rabbitmq.channel import ConsumerChannel
from nova.brokers.rabbitmq.incoming import Properties
from nova.brokers.rabbitmq.links import Links
from nova.brokers.rabbitmq.messages import DUE, Outgoing, released, texts_of
from nova.brokers.rabbitmq.names import Names
from nova.envelope import Headers, number
from nova.errors import PublishError

__all__ = ["Holder"]

PREFETCH = 2000
LATE = 60.0
"""Seconds by which the levels may be late before that is said: a level that hangs holds up all behind it."""
SAID_FOR = 60.0

_log = logging.getLogger(__name__)


class _Held:
    """A message until its next copy is confirmed."""

    __slots__ = ("body", "epoch", "headers", "id", "tag")

    def __init__(self, epoch: int, tag: int, headers: Headers, id: str, body: bytes) -> None:
        self.epoch = epoch
        self.tag = tag
        self.headers = headers
        self.id = id
        self.body = body


class Holder:
    """Runs from construction to `close`.

    Attributes:
        trouble: why nothing is sent on now, or None.
    """

    def __init__(
        self,
        links: Links,
        names: Names,
        guard_ms: int,
        publish: Callable[[Sequence[Outgoing]], Confirmation],
        prepare: Callable[[Callable[[str | None], None]], None],
    ) -> None:
        self._links = links
        self._names = names
        self._guard_ms = guard_ms
        self._publish = publish
        self._failing: str | None = None
        self._since_ms = clock.now_ms()
        self._late: tuple[float, str] | None = None
        self._closing = threading.Event()
        self._due: DueQueue[_Held] = DueQueue("nova-rabbitmq-delays", self._move, self._is_held)
        self._channel = ConsumerChannel(links, self, names.near, PREFETCH, prepare)
        self._due.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing is sent on now, or None."""
        late = self._late
        recent = late[1] if late is not None and time.monotonic() - late[0] < SAID_FOR else None
        return self._channel.trouble or self._failing or recent

    def close(self, timeout: float) -> None:
        """Stop; what is on its way is given a moment, the rest goes back. Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._due.close(timeout)
        closed = threading.Event()
        self._links.run(lambda: self._channel.close(closed.set))
        closed.wait(timeout)

    # --- the receiver, on the links' thread

    def bring(self, queue: str, epoch: int, tag: int, properties: Properties, body: bytes) -> None:
        """Into the heap, by the instant it is due."""
        del queue
        headers = texts_of(properties)
        due_ms = number(headers.get(DUE)) or 0
        # One that must go through the levels again leaves at once: it would take a place here for long.
        at_ms = due_ms if due_ms <= clock.now_ms() + 2 * self._guard_ms + 1000 else 0
        # What fell due while nobody was here to take it is late for that reason.
        if due_ms > self._since_ms and clock.now_ms() - due_ms > LATE * 1000:
            seconds = (clock.now_ms() - due_ms) / 1000
            text = f"delayed tasks leave the server's delay levels {seconds:.0f} s late; look at the queues nova_delay_v1_…"
            self._late = time.monotonic(), f"{self._links.asking.where}: {text}"
        self._due.put([(at_ms, _Held(epoch, tag, headers, properties.message_id or "", body))])

    def lost(self) -> None:
        """The server brings them again."""
        self._due.clear()
        self._since_ms = clock.now_ms()

    # --- the holder's thread

    def _is_held(self, held: _Held) -> bool:
        """Or the server has taken it back."""
        return held.epoch == self._channel.epoch

    def _move(self, due: Sequence[_Held]) -> None:
        now_ms = clock.now_ms()
        messages = [self._next_hop(held, now_ms) for held in due]
        self._publish(messages).add_done_callback(lambda done: self._moved(due, done.result()))

    def _next_hop(self, held: _Held, now_ms: int) -> Outgoing:
        message = released(self._names, held.body, held.headers, held.id, now_ms, self._guard_ms)
        if message is None:
            _log.error("queue %r holds a message that is no delayed task; moved to %r", self._names.near, delays.LOST)
            message = Outgoing("", delays.LOST, held.body, held.headers, held.id)
        return message

    def _moved(self, moving: Sequence[_Held], outcome: Sequence[PublishError | None]) -> None:
        arrived = [held for held, error in zip(moving, outcome, strict=True) if error is None]
        failed = [(held, error) for held, error in zip(moving, outcome, strict=True) if error is not None]
        self._failing = f"delayed tasks cannot be sent on: {failed[0][1]}" if failed else None
        if arrived:
            self._links.run(lambda: self._done(arrived))
        if failed:
            _log.warning("%d delayed tasks could not be sent on, trying again: %s", len(failed), failed[0][1])
            self._due.again([held for held, _ in failed])

    def _done(self, arrived: Sequence[_Held]) -> None:
        epoch = self._channel.epoch
        self._channel.ack([held.tag for held in arrived if held.epoch == epoch])
