"""Runs single tasks: calls the handler, enforces its time, settles what comes of it. Called by executors; never raises."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

from nova.execution import Slot, in_daemon_thread
from nova.handlers import Handlers
from nova.middleware import Chain
from nova.outcomes import Outcomes
from nova.received import ReceivedTask
from nova.watchdog import Watchdog

__all__ = ["ProcessTimeout", "TaskRunner"]

_log = logging.getLogger(__name__)


class ProcessTimeout(TimeoutError):
    """The handler ran longer than its task's `process_timeout`."""


class TaskRunner:
    """Single tasks of one worker.

    Args:
        abandon: gives up on a thread slot.
        on_abandoned: told the number of abandoned handlers so far.
    """

    def __init__(
        self,
        handlers: Handlers,
        outcomes: Outcomes,
        watchdog: Watchdog,
        abandon: Callable[[Slot], None],
        on_abandoned: Callable[[int], None],
    ) -> None:
        self._handlers = handlers
        self._outcomes = outcomes
        self._chain: Chain = outcomes.chain
        self._watchdog = watchdog
        self._abandon = abandon
        self._on_abandoned = on_abandoned
        self._abandoned = 0
        self._counting = threading.Lock()

    def run(self, task: ReceivedTask, slot: Slot) -> None:
        """Run a task in this thread."""
        delivery = task._delivery
        delivery.started = True
        if delivery.lost:
            task._source.release([delivery])
            return
        timeout = task._envelope.process_timeout
        if timeout is None:
            error = self.call(task)
        else:
            slot.current = task
            deadline = self._watchdog.call_after(timeout, functools.partial(self._overdue, task, slot, timeout))
            error = self.call(task)
            self._watchdog.withdraw(deadline)
            with slot.lock:
                slot.current = None
            if slot.abandoned:
                _log.warning("abandoned handler of task %s ended after all, its outcome is ignored", task.id)
                return
        self._settle(task, error)

    async def run_async(self, task: ReceivedTask) -> None:
        """Run a task on this event loop; a `def` handler goes to a thread."""
        delivery = task._delivery
        delivery.started = True
        if delivery.lost:
            task._source.release([delivery])
            return
        timeout = task._envelope.process_timeout
        error: BaseException | None = None
        is_async = True
        try:
            handler, is_async = self._handlers.find(task)
            if self._chain:
                self._chain.before_handle(task)
            async with asyncio.timeout(timeout):
                if is_async:
                    await handler(task)
                else:
                    await self._in_thread(handler, task)
        except TimeoutError as exc:
            error = exc
            if timeout is not None and isinstance(
                exc.__cause__, asyncio.CancelledError
            ):  # our deadline, not the handler's
                error = self._timed_out(task, timeout)
                if not is_async:
                    self._count_abandoned()
        except asyncio.CancelledError as exc:
            if _is_being_cancelled():
                task._source.release([delivery])
                raise
            error = exc
        except BaseException as exc:  # noqa: BLE001 - user code: what it raises is the attempt's outcome
            error = exc
        self._settle(task, error)

    def call(self, task: ReceivedTask) -> BaseException | None:
        """Call the handler here; returns what it raised."""
        try:
            handler, is_async = self._handlers.find(task)
            if self._chain:
                self._chain.before_handle(task)
            result = handler(task)
            if result is not None and (is_async or inspect.isawaitable(result)):
                _refuse_awaitable(handler, result)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C while a user drains
            return exc
        return None

    def _settle(self, task: ReceivedTask, error: BaseException | None) -> None:
        try:
            if error is None:
                self._outcomes.completed((task,))
            else:
                self._outcomes.failed(task, error)
        except BaseException:  # noqa: BLE001 - a thread's top: the slot must live, and the task must not stay here for ever
            _log.exception("settling task %s failed, it will run again", task.id, extra={"task_id": task.id})
            task._source.release([task._delivery])

    async def _in_thread(self, handler: Callable[[ReceivedTask], Any], task: ReceivedTask) -> None:
        result = await in_daemon_thread(handler, task)
        if inspect.isawaitable(result):
            _refuse_awaitable(handler, result)

    def _overdue(self, task: ReceivedTask, slot: Slot, timeout: float) -> None:
        with slot.lock:
            if slot.current is not task:
                return
            slot.abandoned = True
        self._abandon(slot)
        self._settle(task, self._timed_out(task, timeout))
        self._count_abandoned()

    def _timed_out(self, task: ReceivedTask, timeout: float) -> ProcessTimeout:
        return ProcessTimeout(f"the handler of task {task.id} ran longer than its process_timeout of {timeout:g} s")

    def _count_abandoned(self) -> None:
        with self._counting:
            self._abandoned += 1
            abandoned = self._abandoned
        self._on_abandoned(abandoned)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _refuse_awaitable(handler: Callable[[ReceivedTask], Any], result: Any) -> None:
    if inspect.iscoroutine(result):
        result.close()
    raise TypeError(
        f"{getattr(handler, '__qualname__', handler)!r} returned {type(result).__name__}, which was not awaited; "
        "make the handler itself async def"
    )
