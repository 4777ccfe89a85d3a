"""The three aggregators: a batch is complete at the first limit it reaches, by count, by bytes or by time.

The window counts from the first item of a batch, whether or not another one comes. An item larger than `max_bytes` travels
alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

from nova.clock import seconds
from nova.errors import ConfigError

__all__ = ["CountAggregator", "TimeAggregator", "TimeCountAggregator"]

T = TypeVar("T")

MAX_OPEN = 1000
"""Open batches of one intake; beyond it the one used longest ago is flushed."""


@dataclass(frozen=True)
class _Limits:
    max_count: int
    window: float | timedelta | None
    max_bytes: int | None = field(default=None, kw_only=True)
    key: Callable[[Any], str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__
        _check_count(f"{name}(max_count)", self.max_count)
        if self.max_bytes is not None:
            _check_count(f"{name}(max_bytes)", self.max_bytes)
        if self.key is not None and not callable(self.key):
            raise ConfigError(f"{name}(key): expected a function of the task that returns text, got {self.key!r}")
        if self.window is not None:
            object.__setattr__(self, "window", seconds(f"{name}(window)", self.window, strict=True))

    def start(self) -> LimitAccumulator[Any]:
        """A fresh accumulator for one intake."""
        window = self.window.total_seconds() if isinstance(self.window, timedelta) else self.window
        return LimitAccumulator(self.max_count, window, self.max_bytes)

    def key_of(self, item: Any) -> str:
        """The key of an item."""
        return "" if self.key is None else self.key(item)


@dataclass(frozen=True)
class CountAggregator(_Limits):
    """Batches of `max_count` items; a smaller one goes after `window` seconds (None = only on purpose: it may wait for ever).

    Args:
        max_count: items in a batch at most.
        window: seconds from its first item after which a batch goes anyway.
        max_bytes: payload bytes in a batch at most.
        key: a function of the task; tasks of different keys never share a batch.

    Raises:
        ConfigError: a limit is not positive.
    """

    max_count: int = 100
    window: float | timedelta | None = 10.0


@dataclass(frozen=True)
class TimeAggregator(_Limits):
    """Batches of whatever comes within `window` seconds, at most `max_count` items.

    Args and errors as for `CountAggregator`; the window comes first and cannot be None.
    """

    window: float | timedelta | None = 10.0
    max_count: int = 10_000

    def __init__(
        self,
        window: float | timedelta = 10.0,
        max_count: int = 10_000,
        *,
        max_bytes: int | None = None,
        key: Callable[[Any], str] | None = None,
    ) -> None:
        if window is None:
            raise ConfigError("TimeAggregator(window): expected seconds or a timedelta, got None; use CountAggregator")
        _Limits.__init__(self, max_count, window, max_bytes=max_bytes, key=key)


@dataclass(frozen=True)
class TimeCountAggregator(_Limits):
    """Batches of `max_count` items or of what came within `window` seconds, whichever is first.

    Args and errors as for `CountAggregator`, without defaults for the first two.
    """


class _Open(Generic[T]):
    __slots__ = ("deadline", "items", "size")

    def __init__(self, deadline: float | None) -> None:
        self.items: list[T] = []
        self.size = 0
        self.deadline = deadline


class LimitAccumulator(Generic[T]):
    """The open batches of one intake, by key."""

    def __init__(self, max_count: int, window: float | None, max_bytes: int | None) -> None:
        self._max_count = max_count
        self._window = window
        self._max_bytes = max_bytes
        self._open: OrderedDict[str, _Open[T]] = OrderedDict()

    def add(self, item: T, size: int, key: str, now: float) -> list[list[T]]:
        """Take one item; returns the batches that are complete because of it."""
        limit = self._max_bytes
        if limit is not None and size > limit:
            return [[item]]
        complete: list[list[T]] = []
        batch = self._open.get(key)
        if batch is not None and limit is not None and batch.size + size > limit:
            complete.append(self._close(key))
            batch = None
        if batch is None:
            complete += self._make_room()
            batch = self._open[key] = _Open(None if self._window is None else now + self._window)
        elif key:
            self._open.move_to_end(key)
        batch.items.append(item)
        batch.size += size
        if len(batch.items) >= self._max_count or (limit is not None and batch.size >= limit):
            complete.append(self._close(key))
        return complete

    def due(self, now: float) -> list[list[T]]:
        """The batches whose window has ended."""
        ended = [key for key, batch in self._open.items() if batch.deadline is not None and batch.deadline <= now]
        return [self._close(key) for key in ended]

    def deadline(self) -> float | None:
        """When the next window ends."""
        return min((batch.deadline for batch in self._open.values() if batch.deadline is not None), default=None)

    def take(self) -> list[list[T]]:
        """All open batches."""
        return [self._close(key) for key in list(self._open)]

    def _close(self, key: str) -> list[T]:
        return self._open.pop(key).items

    def _make_room(self) -> list[list[T]]:
        return [self._close(next(iter(self._open)))] if len(self._open) >= MAX_OPEN else []


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}: expected an integer >= 1, got {value!r}")
