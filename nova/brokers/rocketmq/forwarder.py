"""Delayed tasks: the server's timers hold them until just before they are due, this process until the very instant.

Timers are right to a second only (`timerPrecisionMs`), so a task is asked for `delay_guard` earlier and held here,
leased and renewed, then published to its topic, confirmed, and acked. One that is due later than the server takes is
sent into the timers again. All processes with workers share the work; a crash repeats at most what was on its way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from nova import clock
from nova.brokers.base import Confirmation, Delivery
from nova.brokers.due import DueQueue
from nova.brokers.rocketmq.messages import Outgoing, as_lost, due_of, released
from nova.brokers.rocketmq.names import Names
from nova.brokers.rocketmq.subscription import RocketSubscription
from nova.errors import BrokerError, NovaError, PublishError

__all__ = ["MOST_HELD", "Forwarder"]

MOST_HELD = 2000
WAIT = 0.2
BACKOFF = 1.0
LEAST_APART_MS = 100
"""Between two hops of one task."""

_log = logging.getLogger(__name__)


class Forwarder:
    """Runs from construction to `close`.

    Args:
        make_lost: makes the topic for what is no delayed task.
    """

    def __init__(
        self,
        subscription: RocketSubscription,
        names: Names,
        publish: Callable[[Sequence[Outgoing]], Confirmation],
        make_lost: Callable[[], None],
        *,
        guard_ms: int,
        longest_ms: int,
    ) -> None:
        self._subscription = subscription
        self._names = names
        self._publish = publish
        self._make_lost = make_lost
        self._guard_ms = guard_ms
        self._longest_ms = longest_ms
        self._failing: str | None = None
        self._moving = 0
        self._counting = threading.Condition()
        self._closing = threading.Event()
        self._due: DueQueue[Delivery] = DueQueue("nova-rocketmq-due", self._move, lambda delivery: not delivery.lost)
        self._due.start()
        self._thread = threading.Thread(target=self._run, name="nova-rocketmq-delays", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why delayed tasks are not sent on, or None."""
        return self._failing or self._subscription.trouble

    def look(self) -> None:
        """Renew the leases of what is held; see `RocketSubscription.look`."""
        self._subscription.look()

    def close(self, timeout: float) -> None:
        """Stop; what is held goes back to the timers of the server. `finish` waits for the rest. Idempotent."""
        self._closing.set()
        self._thread.join(timeout)
        self._due.close(timeout)
        with self._counting:
            self._counting.wait_for(lambda: not self._moving, min(timeout, 2.0))
        self._subscription.close(timeout)

    def finish(self, timeout: float) -> None:
        """See `RocketSubscription.finish`."""
        self._subscription.finish(timeout)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                found = self._subscription.receive(MOST_HELD, WAIT)
            except BrokerError as exc:
                _log.warning("delayed tasks cannot be received, trying again: %s", exc)
                self._closing.wait(BACKOFF)
                continue
            now_ms = clock.now_ms()
            self._due.put([(self._at(delivery, now_ms), delivery) for delivery in found])

    def _at(self, delivery: Delivery, now_ms: int) -> int:
        """When to move it: at its instant, or after a moment if it must go through the timers again.

        It would take a place here for long. Not at once: a server whose clock is ahead of ours brings it back at once.
        """
        due_ms = due_of(delivery)
        if due_ms is None or due_ms <= now_ms + 2 * self._guard_ms + 2000:
            return due_ms or 0
        return now_ms + max(self._guard_ms, LEAST_APART_MS)

    def _move(self, due: list[Delivery]) -> None:
        now_ms = clock.now_ms()
        messages: list[Outgoing] = []
        for delivery in due:
            message = released(self._names, delivery, now_ms, self._guard_ms, self._longest_ms)
            if message is None:
                _log.error(
                    "topic %r holds a message that is no delayed task; moved to %r", self._names.near, self._names.lost
                )
                self._prepare_lost()
                message = as_lost(delivery, self._names.lost)
            messages.append(message)
        with self._counting:
            self._moving += len(due)
        self._publish(messages).add_done_callback(lambda done: self._moved(due, done.result()))

    def _prepare_lost(self) -> None:
        try:
            self._make_lost()
        except NovaError as exc:
            _log.warning("%s", exc)  # then it is not published either, and tried again

    def _moved(self, moving: Sequence[Delivery], outcome: Sequence[PublishError | None]) -> None:
        self._subscription.ack([delivery for delivery, error in zip(moving, outcome, strict=True) if error is None])
        failed = [(delivery, error) for delivery, error in zip(moving, outcome, strict=True) if error is not None]
        self._failing = f"delayed tasks cannot be sent on: {failed[0][1]}" if failed else None
        if failed:
            _log.warning("%d delayed tasks could not be sent on, trying again: %s", len(failed), failed[0][1])
            self._due.again([delivery for delivery, _ in failed])
        with self._counting:
            self._moving -= len(moving)
            self._counting.notify_all()
