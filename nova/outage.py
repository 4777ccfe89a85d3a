"""One batch at a time probes a sink that seems to be out; the others wait. Shared by the threads of one batch worker.

The turn goes round: after a failed probe another waiting batch tries, so that one batch of nothing but poison does not pass
for an outage any longer than it takes a healthy one to get its turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Outage"]


class Outage:
    """Whether the sink is taken to be out, who may probe it, and how long to wait before.

    Args:
        delay: seconds to wait before probe 1, 2, … in a row.
    """

    def __init__(self, delay: Callable[[int], float]) -> None:
        self._delay = delay
        self._changed = threading.Condition()
        self._failures = 0
        self._prober: object | None = None
        self._queue: list[object] = []
        self._stopping = False
        self.successes = 0

    def declare(self, batch: object) -> None:
        """This batch found the sink out; it becomes the prober unless another one is."""
        with self._changed:
            self._failures = max(self._failures, 1)
            self._prober = self._prober or batch

    def over(self) -> None:
        """A run has succeeded: everybody may go on."""
        self.successes += 1
        if self._failures or self._prober is not None:
            with self._changed:
                self._failures = 0
                self._prober = None
                self._changed.notify_all()

    def give_up(self, batch: object) -> None:
        """This batch goes back to the broker; another one may probe."""
        with self._changed:
            if self._prober is batch:
                self._prober = None
                self._changed.notify_all()

    def wait_turn(self, batch: object) -> bool:
        """Return at once while all is well; else wait to become the prober, then the delay. False = out, and stopping."""
        with self._changed:
            if self._prober is batch and self._queue:
                self._prober = None
                self._changed.notify_all()
            self._queue.append(batch)
            self._changed.wait_for(lambda: self._stopping or not self._failures or self._is_next(batch))
            self._queue.remove(batch)
            if self._failures and not self._stopping:
                self._prober = batch
                delay = self._delay(self._failures)
                self._failures += 1
                self._changed.wait_for(lambda: self._stopping or not self._failures, delay)
            return not (self._stopping and self._failures)

    def _is_next(self, batch: object) -> bool:
        return self._prober is batch or (self._prober is None and self._queue[0] is batch)

    def pause(self, seconds: float) -> bool:
        """Sleep; False = stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)
            return not self._stopping

    def stop(self) -> None:
        """Wake everybody who waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    @property
    def retry_delay(self) -> float:
        """Seconds after which a batch that gave up should come back."""
        return self._delay(max(self._failures, 1))
