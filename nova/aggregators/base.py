"""What an aggregator is: limits, and the accumulator that applies them for one intake."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

__all__ = ["Accumulator", "Aggregator"]

T = TypeVar("T")


class Accumulator(Protocol, Generic[T]):
    """Collects items into batches. Touched by one thread; pure, the time is an argument (monotonic seconds)."""

    def add(self, item: T, size: int, key: str, now: float) -> list[list[T]]:
        """Take one item of `size` bytes; returns the batches that are complete because of it."""
        ...

    def due(self, now: float) -> list[list[T]]:
        """The batches whose window has ended."""
        ...

    def deadline(self) -> float | None:
        """When `due` has something next; None = nothing is open or nothing ends by time."""
        ...

    def take(self) -> list[list[T]]:
        """All open batches, for a stop."""
        ...


@runtime_checkable
class Aggregator(Protocol):
    """Limits of a batch. One object serves many intakes: `start` makes the state."""

    @property
    def max_count(self) -> int:
        """The most items in a batch; what a worker may hold is derived from it."""
        ...

    def start(self) -> Accumulator[Any]:
        """A fresh accumulator for one intake."""
        ...

    def key_of(self, item: Any) -> str:
        """Items of different keys never share a batch; "" for all where keys do not matter."""
        ...
