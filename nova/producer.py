"""From tasks to messages, and from confirmations to reports. Any thread; nothing is sent before every task is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from nova import envelope as h
from nova import payload
from nova.brokers.base import Message
from nova.clock import Clock, due_after, from_ms
from nova.codecs import Codec
from nova.enqueue_options import EnqueueSettings
from nova.envelope import Content, write_metadata
from nova.errors import ConfigError, EncodeError, PublishError
from nova.routing import Topics
from nova.task import Enqueued, EnqueueReport, Task, uuid7s

__all__ = ["Prepared", "Producer", "check_many", "check_single", "report_of"]

Prepared: TypeAlias = "tuple[list[Message], list[Enqueued]]"


class Producer:
    """Builds messages for one queue object.

    Args:
        max_body_bytes: the driver's limit.
    """

    def __init__(self, topics: Topics, codec: Codec, clock: Clock, max_body_bytes: int) -> None:
        self._topics = topics
        self._codec = codec
        self._clock = clock
        self._max_body_bytes = max_body_bytes

    def prepare(self, tasks: Sequence[Task], settings: EnqueueSettings) -> Prepared:
        """The messages of these tasks and what `enqueue` will answer for each.

        Raises:
            ConfigError: an object that is no task, or an option that is also set on a task.
            EncodeError: a payload that cannot be encoded, or a body over the driver's limit.
        """
        now_ms = self._clock.now_ms()
        topic = self._topics.ready(settings.queue, settings.priority)
        due_ms = _due(settings, now_ms)
        common = self._common_headers(topic, settings, now_ms, due_ms)
        due_at = None if due_ms is None else from_ms(due_ms)
        messages: list[Message] = []
        accepted: list[Enqueued] = []
        for task, fresh_id in zip(tasks, uuid7s(now_ms, len(tasks)), strict=True):
            message = self._message(task, settings, topic, common, fresh_id, due_ms)
            messages.append(message)
            accepted.append(Enqueued(message.id, settings.queue, settings.priority, due_at))
        return messages, accepted

    def _message(
        self,
        task: Task,
        settings: EnqueueSettings,
        topic: str,
        common: dict[str, str],
        fresh_id: str,
        due_ms: int | None,
    ) -> Message:
        if not isinstance(task, Task):
            raise ConfigError(f"enqueue: expected a Task, got {task!r}; wrap it: Task('some.type', payload)")
        task_id = task.id or settings.task_id or fresh_id
        try:
            data, content_type = payload.encode(task.payload)
        except EncodeError as exc:
            raise EncodeError(f"task {task_id} (type {task.type!r}): {exc}") from exc
        body = self._encode(Content(task_id, task.type, data, topic, settings.priority))
        if len(body) > self._max_body_bytes:
            raise EncodeError(
                f"task {task_id} (type {task.type!r}): its body has {len(body)} bytes, the driver takes at most "
                f"{self._max_body_bytes}; store the data elsewhere and enqueue a reference"
            )
        headers = common.copy()
        headers[h.ID] = task_id
        headers[h.TASK_TYPE] = task.type
        if content_type != h.JSON_TYPE:
            headers[h.CONTENT_TYPE] = content_type
        key = task.key or settings.key
        if key is not None:
            headers[h.KEY] = key
        if task.metadata:
            headers[h.METADATA] = write_metadata({**(settings.metadata or {}), **task.metadata})
        return Message(topic, body, headers, task_id, key, due_ms)

    def _encode(self, content: Content) -> bytes:
        try:
            body = self._codec.encode(content)
        except EncodeError:
            raise
        except Exception as exc:  # a codec of the user's
            raise EncodeError(f"task {content.task_id}: the codec {self._codec.name!r} raised {exc!r}") from exc
        if not isinstance(body, bytes):
            kind = type(body).__name__
            raise EncodeError(f"task {content.task_id}: the codec {self._codec.name!r} must return bytes, got {kind}")
        return body

    def _common_headers(self, topic: str, settings: EnqueueSettings, now_ms: int, due_ms: int | None) -> dict[str, str]:
        headers = {
            h.QUEUE: topic,
            h.PRIORITY: str(int(settings.priority)),
            h.STAMP: h.stamp(self._codec.name, now_ms),
        }
        if due_ms is not None:
            headers[h.DUE] = str(due_ms)
        if settings.max_retries is not None:
            headers[h.MAX_RETRIES] = str(settings.max_retries)
        if settings.process_timeout is not None:
            headers[h.PROCESS_TIMEOUT] = repr(settings.process_timeout)
        if settings.queue_timeout is not None:
            headers[h.START_BY] = str((due_ms or now_ms) + int(settings.queue_timeout * 1000))
        if settings.expires_at is not None:
            headers[h.EXPIRES] = str(max(settings.expires_at, 1))
        if settings.metadata:
            headers[h.METADATA] = write_metadata(settings.metadata)
        return headers


def check_single(task: Task, settings: EnqueueSettings) -> None:
    """Refuse what is said on the task and again as an option.

    Raises:
        ConfigError: it is.
    """
    if not isinstance(task, Task):
        raise ConfigError(f"enqueue: expected a Task, got {task!r}; wrap it: Task('some.type', payload)")
    for name, own, option in (("id", task.id, settings.task_id), ("key", task.key, settings.key)):
        if own is not None and option is not None:
            raise ConfigError(f"enqueue: the task's {name} is given twice, on the task and as an option; keep one")


def check_many(tasks: Sequence[Task], settings: EnqueueSettings) -> None:
    """Refuse one id for many tasks, and one id twice.

    Raises:
        ConfigError: the option `task_id`, or a task id that stands twice in the batch.
    """
    if settings.task_id is not None:
        raise ConfigError("enqueue_batch: task_id is for one task; give each Task its own id")
    own = [task.id for task in tasks if isinstance(task, Task) and task.id is not None]
    if len(own) != len(set(own)):
        twice = next(task_id for task_id in own if own.count(task_id) > 1)
        raise ConfigError(f"enqueue_batch: the id {twice!r} stands twice; its report could not tell the two apart")


def report_of(accepted: Sequence[Enqueued], outcome: Sequence[PublishError | None]) -> EnqueueReport:
    """The report of a batch from the driver's entries."""
    report = EnqueueReport([], {}, {})
    for enqueued, error in zip(accepted, outcome, strict=True):
        if error is None:
            report.accepted.append(enqueued)
        else:
            (report.unknown if error.may_be_stored else report.failed)[enqueued.task_id] = error
    return report


def _due(settings: EnqueueSettings, now_ms: int) -> int | None:
    due_ms = settings.process_at
    if settings.process_in:
        due_ms = due_after(now_ms, settings.process_in)
    return due_ms if due_ms is not None and due_ms > now_ms else None
