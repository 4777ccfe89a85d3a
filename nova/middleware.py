"""Hooks around every task, in the order given. Subclass `Middleware` and override what you need.

`before_…` hooks may raise: before enqueueing the error goes to the caller, before handling it is a failed attempt. Errors in
the other hooks are logged and change nothing. Handler hooks run in the handler's thread, or on its event loop: keep them
short there.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nova.errors import ConfigError
from nova.received import ReceivedTask
from nova.task import Enqueued, Task

__all__ = ["Chain", "Middleware", "Outcome"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of a task ended.

    Attributes:
        status: what happens to the task now.
        error: what the run ended with, if it failed.
        delay: seconds until the next run (`retrying`).
        reason: why it was buried or skipped.
    """

    status: Literal["completed", "retrying", "buried", "skipped"]
    error: BaseException | None = None
    delay: float | None = None
    reason: str = ""


class Middleware:
    """Does nothing; override the hooks you need. One object serves all threads of its queue."""

    def before_enqueue(self, task: Task) -> Task:
        """The task to enqueue instead, for example with more metadata."""
        return task

    def after_enqueue(self, accepted: Sequence[Enqueued]) -> None:
        """The broker has stored these."""

    def before_handle(self, task: ReceivedTask) -> None:
        """The handler is about to start."""

    def after_handle(self, task: ReceivedTask, outcome: Outcome) -> None:
        """A run has ended; the settling is under way."""


_HOOKS = ("before_enqueue", "after_enqueue", "before_handle", "after_handle")


class Chain:
    """The middlewares of one queue. Empty chains cost one truth test on the hot path."""

    def __init__(self, middlewares: Sequence[Middleware]) -> None:
        for middleware in middlewares:
            if not isinstance(middleware, Middleware):
                raise ConfigError(f"with_middleware: expected objects of a Middleware subclass, got {middleware!r}")
            for hook in _HOOKS:
                if inspect.iscoroutinefunction(getattr(middleware, hook)):
                    raise ConfigError(
                        f"with_middleware: {type(middleware).__name__}.{hook} is async and would never run; use def"
                    )
        self._all = tuple(middlewares)

    def __bool__(self) -> bool:
        return bool(self._all)

    def before_enqueue(self, task: Task) -> Task:
        """The task after every hook."""
        for middleware in self._all:
            task = middleware.before_enqueue(task)
        return task

    def after_enqueue(self, accepted: Sequence[Enqueued]) -> None:
        """Tell all; log what fails."""
        for middleware in self._all:
            try:
                middleware.after_enqueue(accepted)
            except BaseException:  # noqa: BLE001 - user code
                _log.exception("after_enqueue of %r failed", middleware)

    def before_handle(self, task: ReceivedTask) -> None:
        """Ask all."""
        for middleware in self._all:
            middleware.before_handle(task)

    def after_handle(self, task: ReceivedTask, outcome: Outcome) -> None:
        """Tell all; log what fails."""
        for middleware in self._all:
            try:
                middleware.after_handle(task, outcome)
            except BaseException:  # noqa: BLE001 - user code
                _log.exception("after_handle of %r failed", middleware, extra={"task_id": task.id})
