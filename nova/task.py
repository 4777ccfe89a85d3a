"""What a caller asks for: a task, its priority, its id, and what `enqueue` answers.

Pure data, safe in any thread. What travels on the wire is `envelope`; what a handler receives is `received`.
"""

from __future__ import annotations

import enum
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import msgspec

from nova.errors import ConfigError, PublishError

__all__ = ["EnqueueReport", "Enqueued", "Priority", "Task", "check_task_id", "check_type", "new_task_id"]


class Priority(enum.IntEnum):
    """How urgent a task is; larger is more urgent."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


class _Work(msgspec.Struct, frozen=True):
    type: str
    payload: Any = None


class Task(_Work, frozen=True, kw_only=True):
    """A unit of work to enqueue.

    Attributes:
        type: picks the handler; 1 to 200 printable characters without spaces at the ends.
        payload: bytes as they are, `str` as UTF-8, protobuf messages serialised, everything else as JSON (dataclasses,
            msgspec structs, pydantic models, datetimes, UUIDs and decimals included).
        id: your own id, 1 to 200 printable ASCII characters; default: a UUIDv7 minted by the producer. It is never
            changed on any hop. Two tasks with one id are two tasks: idempotent handlers tell them by it.
        key: tasks of one key go to one partition where the broker has partitions.
        metadata: text by name, carried beside the payload.

    Raises:
        ConfigError: a field is not of this form.
    """

    id: str | None = None
    key: str | None = None
    metadata: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_type(self.type)
        if self.id is not None:
            check_task_id(self.id)
        if self.key is not None:
            check_key(self.key)
        if self.metadata:
            check_metadata(self.metadata)


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """The broker has stored this task.

    Attributes:
        task_id: the task's id on every hop.
        queue: the logical queue name.
        priority: its class.
        due_at: when it may run first (aware UTC); None = at once.
    """

    task_id: str
    queue: str
    priority: Priority
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EnqueueReport:
    """What became of each task of one `enqueue_batch`, in the order given.

    Attributes:
        accepted: stored by the broker.
        failed: task id to error; surely not stored.
        unknown: task id to error; may be stored (timeout, cut connection). Send again with the same id.
    """

    accepted: list[Enqueued]
    failed: dict[str, PublishError]
    unknown: dict[str, PublishError]

    def raise_for_failures(self) -> Self:
        """Return the report itself if every task was accepted.

        Raises:
            PublishError: some were not; `may_be_stored` is True if any is unknown.
        """
        if not self.failed and not self.unknown:
            return self
        total = len(self.accepted) + len(self.failed) + len(self.unknown)
        first_id, first = next(iter((self.failed or self.unknown).items()))
        raise PublishError(
            f"enqueue_batch: {len(self.failed)} of {total} tasks failed and {len(self.unknown)} are unknown; "
            f"first: {first_id}: {first}",
            may_be_stored=bool(self.unknown),
        ) from first


def new_task_id() -> str:
    """A fresh UUIDv7: 48 bits of epoch milliseconds, then 74 random bits. Source: RFC 9562 section 5.7."""
    return uuid7s(time.time_ns() // 1_000_000, 1)[0]


def uuid7s(now_ms: int, count: int) -> list[str]:
    """So many different UUIDv7 of one instant, each 36 characters.

    As text, and with one call for the noise of all: 0.3 µs each, where integers and a call for each took 1.0 (measured).
    """
    instant = f"{now_ms & _48_BITS:012x}"
    head = f"{instant[:8]}-{instant[8:]}-7"
    noise = os.urandom(10 * count).hex()
    return [
        f"{head}{noise[at : at + 3]}-{_VARIANT[noise[at + 3]]}{noise[at + 4 : at + 7]}-{noise[at + 7 : at + 19]}"
        for at in range(0, 20 * count, 20)
    ]


def check_task_id(task_id: object) -> None:
    """Refuse an id that some broker could not carry as a key.

    Raises:
        ConfigError: not 1 to 200 printable ASCII characters without spaces.
    """
    if not isinstance(task_id, str) or not _TASK_ID.fullmatch(task_id):
        raise ConfigError(f"task id: expected 1 to 200 printable ASCII characters without spaces, got {task_id!r}")


def check_type(type: object) -> None:
    """Refuse a task type that a header could not carry.

    Raises:
        ConfigError: not 1 to 200 printable characters.
    """
    if not isinstance(type, str) or not 1 <= len(type) <= 200 or not type.isprintable() or type != type.strip():
        raise ConfigError(f"task type: expected 1 to 200 printable characters such as 'email.send', got {type!r}")


def check_key(key: object) -> None:
    """Refuse a key that some broker could not carry.

    Raises:
        ConfigError: not 1 to 200 printable characters.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= 200 or not key.isprintable():
        raise ConfigError(f"key: expected 1 to 200 printable characters, got {key!r}")


def check_metadata(metadata: object) -> None:
    """Refuse metadata that is not text by name.

    Raises:
        ConfigError: not a mapping of str to str.
    """
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"metadata: expected a mapping of text to text, got {metadata!r}")
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"metadata: expected text for every name and value, got {name!r}: {value!r}; use str()")


_48_BITS = (1 << 48) - 1
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""A random digit to the one that carries the variant's two bits, `10`, and two random ones."""
_TASK_ID = re.compile(r"[!-~]{1,200}")
