"""A task as its handler sees it. Made by the intake, read by handlers in any thread."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from nova.brokers.base import Delivery
from nova.clock import from_ms
from nova.envelope import KEY, Envelope, read_metadata
from nova.errors import DecodeError
from nova.payload import bind, load_json
from nova.task import Priority

__all__ = ["ReceivedTask"]

M = TypeVar("M")


class ReceivedTask(msgspec.Struct, gc=False, eq=False):
    """A task lent to a handler.

    Return from the handler to acknowledge it, raise `Retry` or `Reject` to steer it, raise anything else for the retry
    policy.

    Attributes:
        id: the id it was enqueued with.
        type: what picked the handler.
        payload: its bytes.
        content_type: what the bytes are.
        queue: the logical queue name.
        attempt: 1 for the first run under the policy, +1 for each failure; a replay resets it.
        run: 1, 2, 3… over the task's whole life.
    """

    id: str
    type: str
    payload: bytes
    content_type: str
    queue: str
    attempt: int
    run: int
    _envelope: Envelope
    _delivery: Delivery
    _source: Any

    @property
    def priority(self) -> Priority:
        """Its class."""
        return Priority(self._envelope.priority)

    @property
    def key(self) -> str | None:
        """The key it was enqueued with."""
        return self._delivery.headers.get(KEY)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata it was enqueued with, a fresh dict at each access."""
        return read_metadata(self._delivery.headers)

    @property
    def created_at(self) -> datetime | None:
        """When its id was minted (aware UTC); the broker's time for a producer that does not say; None if unknown."""
        ms = self._envelope.created_ms or self._delivery.timestamp_ms
        return None if ms is None else from_ms(ms)

    @property
    def due_at(self) -> datetime | None:
        """When this run was due (aware UTC); None = at once."""
        return None if self._envelope.due_ms is None else from_ms(self._envelope.due_ms)

    def json(self) -> Any:
        """The payload as a JSON value.

        Raises:
            DecodeError: the payload is of another content type or no JSON.
        """
        try:
            return load_json(self.payload, self.content_type)
        except DecodeError as exc:
            raise self._named(exc) from exc

    def bind(self, model: builtins.type[M]) -> M:
        """The payload as a checked instance of a dataclass, struct, pydantic model or protobuf message class.

        Raises:
            DecodeError: it does not fit; the message names the task and the place.
            ConfigError: nobody here knows how to read such a model.
        """
        try:
            return bind(self.payload, self.content_type, model)
        except DecodeError as exc:
            raise self._named(exc) from exc

    def _named(self, exc: DecodeError) -> DecodeError:
        return DecodeError(f"task {self.id} (type {self.type!r}): {exc}")

    def __repr__(self) -> str:
        return f"<ReceivedTask {self.id} type={self.type!r} queue={self.queue!r} attempt={self.attempt}>"
