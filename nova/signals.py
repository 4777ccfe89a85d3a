"""SIGINT and SIGTERM as something to look at. Main thread only."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any, Protocol, Self

__all__ = ["CountedSignals", "StopRequests"]

TOGETHER = 0.25
"""Seconds in which signals are one request: `timeout` sends its own to the command and to the group, and a runner passes on
what the terminal has sent to all. Nobody who asks a second time is as quick."""


class StopRequests(Protocol):
    """How often a worker was asked to stop: once to drain, twice to end at once."""

    @property
    def seen(self) -> int:
        """Requests so far."""
        ...


class CountedSignals:
    """Counts SIGINT and SIGTERM while it is entered, those of one moment as one; restores the old handlers."""

    def __init__(self) -> None:
        self.seen = 0
        self._last = -TOGETHER
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        now = time.monotonic()
        if now - self._last >= TOGETHER:
            self.seen += 1
            self._last = now
