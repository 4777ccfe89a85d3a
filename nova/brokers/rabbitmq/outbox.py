"""What was handed over to be published and has no outcome yet: who waits for it, how much there is, when its time is over.

`add` and `close` come from any thread. The rest belongs to the link's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from nova.brokers.base import Confirmation
from nova.brokers.rabbitmq.messages import Outgoing
from nova.errors import PublishError, QueueFull

__all__ = ["Item", "Outbox"]

MOST_WAITING = 200_000
MOST_WAITING_BYTES = 256 << 20


class _Pending:
    """The messages of one call. Only the link's thread changes it once it was handed over."""

    __slots__ = ("future", "left", "messages", "outcome", "since", "size")

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self.future: Confirmation = Future()
        self.future.set_running_or_notify_cancel()
        self.messages = messages
        self.outcome: list[PublishError | None] = [None] * len(messages)
        self.left = len(messages)
        self.since = time.monotonic()
        self.size = sum([len(message.body) for message in messages])

    def settle(self, index: int, error: PublishError | None) -> None:
        message = self.messages[index]
        if not message.done:
            message.done = True
            self.outcome[index] = error
            self.left -= 1

    def refuse(self, error: PublishError) -> None:
        self.outcome = [error] * len(self.messages)
        self.future.set_result(self.outcome)


Item = tuple[_Pending, int, Outgoing]


class Outbox:
    """Bounded, by messages and by bytes.

    Args:
        where: the address, for messages.

    Attributes:
        is_told: the link's thread has been told that something came, and will take it; it says when it does.
        is_closed: takes nothing in any more.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._handing_over = threading.Lock()
        self._inbox: deque[_Pending] = deque()
        self._open: deque[_Pending] = deque()
        self._waiting = 0
        self._waiting_bytes = 0
        self.is_closed = False
        self.is_told = False

    def __len__(self) -> int:
        """Messages without an outcome."""
        return self._waiting

    def add(self, messages: Sequence[Outgoing]) -> tuple[Confirmation, bool]:
        """Take messages in; returns their future, and whether the link's thread must be told."""
        pending = _Pending(messages)
        if not messages:
            pending.refuse(PublishError(""))
            return pending.future, False
        with self._handing_over:
            error, told = self._refusal(pending), self.is_told
            if error is None:
                self._waiting += len(messages)
                self._waiting_bytes += pending.size
                self._inbox.append(pending)
                self.is_told = True
        if error is not None:
            pending.refuse(error)
        return pending.future, error is None and not told

    def close(self) -> bool:
        """Take nothing in any more; False = that was so before."""
        with self._handing_over:
            was_closed, self.is_closed = self.is_closed, True
            return not was_closed

    def take_new(self) -> list[Item]:
        """What came since the last time."""
        found: list[Item] = []
        while self._inbox:
            pending = self._inbox.popleft()
            self._open.append(pending)
            found += [(pending, index, message) for index, message in enumerate(pending.messages)]
        return found

    def settle(self, item: Item, error: PublishError | None) -> None:
        """The outcome of a message; the call's future has its own with its last one."""
        pending, index, _ = item
        pending.settle(index, error)
        if pending.left == 0 and not pending.future.done():
            self._finish(pending)

    def expire(self, before: float, why: str, kind: type[PublishError]) -> bool:
        """End what was handed over before an instant: unknown if it was sent, else failed, which is an error of that kind.

        Returns:
            Whether there was any.
        """
        self._forget_finished()
        oldest = self._open or self._inbox
        if not oldest or oldest[0].since > before:
            return False
        text = f"{self._where}: {why}"
        for pending in [*self._open, *self._inbox]:
            if pending.since > before:
                break
            if pending.left == 0:
                continue
            for index, message in enumerate(pending.messages):
                if not message.done:
                    pending.settle(index, PublishError(text, may_be_stored=True) if message.sent else kind(text))
            if not pending.future.done():
                self._finish(pending)
        return True

    def _refusal(self, pending: _Pending) -> PublishError | None:
        if self.is_closed:
            return PublishError(f"{self._where}: the driver is closed")
        if self._waiting and (
            self._waiting + len(pending.messages) > MOST_WAITING
            or self._waiting_bytes + pending.size > MOST_WAITING_BYTES
        ):
            return QueueFull(f"{self._where}: {self._waiting} tasks wait to be sent; enqueue slower")
        return None

    def _finish(self, pending: _Pending) -> None:
        with self._handing_over:
            self._waiting -= len(pending.messages)
            self._waiting_bytes -= pending.size
        self._forget_finished()
        pending.future.set_result(pending.outcome)

    def _forget_finished(self) -> None:
        while self._open and self._open[0].left == 0:
            self._open.popleft()
