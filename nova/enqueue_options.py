"""The options of one `enqueue`: each a function, each also a keyword of the same name. Checked when made."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from nova import clock
from nova import task as tasks
from nova.errors import ConfigError
from nova.routing import DEFAULT_QUEUE, check_queue
from nova.task import Priority

__all__ = [
    "EnqueueOption",
    "EnqueueSettings",
    "expires_at",
    "key",
    "max_retries",
    "metadata",
    "priority",
    "process_at",
    "process_in",
    "process_timeout",
    "queue",
    "queue_timeout",
    "resolve",
    "task_id",
]


@dataclass(frozen=True, slots=True)
class EnqueueOption:
    """One checked option; make it with the function of its name."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class EnqueueSettings:
    """All options of one enqueue, resolved. Times in epoch milliseconds and seconds."""

    queue: str = DEFAULT_QUEUE
    priority: Priority = Priority.NORMAL
    process_at: int | None = None
    process_in: float | None = None
    max_retries: int | None = None
    process_timeout: float | None = None
    queue_timeout: float | None = None
    expires_at: int | None = None
    key: str | None = None
    metadata: Mapping[str, str] | None = None
    task_id: str | None = None


def queue(name: str) -> EnqueueOption:
    """The queue to wait in; default `default`."""
    return EnqueueOption("queue", check_queue(name))


def priority(value: Priority | int) -> EnqueueOption:
    """The class; larger is more urgent. Default NORMAL."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in (1, 2, 3):
        raise ConfigError(f"priority: expected Priority.LOW, NORMAL or HIGH (1 to 3), got {value!r}")
    return EnqueueOption("priority", Priority(value))


def process_in(delay: float | timedelta) -> EnqueueOption:
    """Run no earlier than this many seconds from now."""
    return EnqueueOption("process_in", clock.seconds("process_in", delay))


def process_at(instant: datetime) -> EnqueueOption:
    """Run no earlier than this aware datetime; one in the past means now."""
    return EnqueueOption("process_at", clock.to_ms("process_at", instant))


def max_retries(count: int) -> EnqueueOption:
    """Runs after the first, instead of the queue's policy."""
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= 1_000_000:
        raise ConfigError(f"max_retries: expected an integer from 0 to 1000000, got {count!r}")
    return EnqueueOption("max_retries", count)


def process_timeout(limit: float | timedelta) -> EnqueueOption:
    """The longest one run may take; then it counts as failed (an overdue `def` handler cannot be stopped, only ignored)."""
    return EnqueueOption("process_timeout", clock.seconds("process_timeout", limit, strict=True))


def queue_timeout(limit: float | timedelta) -> EnqueueOption:
    """The longest the task may wait for its first start, from now or from when it is due; then it is dead-lettered."""
    return EnqueueOption("queue_timeout", clock.seconds("queue_timeout", limit, strict=True))


def expires_at(instant: datetime) -> EnqueueOption:
    """After this aware datetime the task is pointless: it is dropped with a log line instead of run."""
    return EnqueueOption("expires_at", clock.to_ms("expires_at", instant))


def key(value: str) -> EnqueueOption:
    """Partition key; tasks of one key go to one partition where the broker has partitions."""
    tasks.check_key(value)
    return EnqueueOption("key", value)


def metadata(values: Mapping[str, str]) -> EnqueueOption:
    """Text by name, carried beside the payload."""
    tasks.check_metadata(values)
    return EnqueueOption("metadata", dict(values))


def task_id(value: str) -> EnqueueOption:
    """Your own id for the task."""
    tasks.check_task_id(value)
    return EnqueueOption("task_id", value)


def resolve(options: Sequence[EnqueueOption], keywords: Mapping[str, Any]) -> EnqueueSettings:
    """One settings object from functions and keywords.

    Raises:
        ConfigError: unknown, illegal, or given twice.
    """
    if not options and not keywords:
        return _DEFAULTS
    values: dict[str, Any] = {}
    for option in [*options, *(_from_keyword(name, value) for name, value in keywords.items())]:
        if not isinstance(option, EnqueueOption):
            raise ConfigError(f"enqueue: expected options such as priority(…) or process_in(…), got {option!r}")
        if option.name in values:
            raise ConfigError(f"enqueue: the option {option.name!r} is given twice; keep one")
        values[option.name] = option.value
    if "process_in" in values and "process_at" in values:
        raise ConfigError("enqueue: process_in and process_at are both given; keep one")
    return EnqueueSettings(**values)


def _from_keyword(name: str, value: Any) -> EnqueueOption:
    make = _BY_NAME.get(name)
    if make is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(_BY_NAME))}"
        raise ConfigError(f"enqueue: unknown option {name!r}{hint}")
    option: EnqueueOption = make(value)
    return option


_BY_NAME: dict[str, Any] = {
    make.__name__: make
    for make in (
        expires_at, key, max_retries, metadata, priority, process_at, process_in, process_timeout, queue, queue_timeout,
        task_id,
    )
}  # fmt: skip
_DEFAULTS = EnqueueSettings()
