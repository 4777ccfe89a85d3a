"""SIGINT and SIGTERM as something to look at. Main thread only."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Protocol, Self

__all__ = ["CountedSignals", "StopRequests"]


class StopRequests(Protocol):
    """How often a worker was asked to stop: once to drain, twice to end at once."""

    @property
    def seen(self) -> int:
        """Requests so far."""
        ...


class CountedSignals:
    """Counts SIGINT and SIGTERM while it is entered; restores the old handlers."""

    def __init__(self) -> None:
        self.seen = 0
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
        self.seen += 1
