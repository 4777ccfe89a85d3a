"""Runs batches: calls the handler, settles each task, and after an exception follows the steps of `bisection`.

Called by executor threads; never raises. What a run has resolved is settled at once, so a crash repeats little.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

from nova.batch import Batch, BatchResult
from nova.bisection import Heard, Pause, Verdict, isolate
from nova.envelope import SUSPECT
from nova.errors import Reject, Retry
from nova.execution import LoopThread, Slot
from nova.handlers import BatchHandler, is_async
from nova.outage import Outage
from nova.outcomes import Outcomes
from nova.received import ReceivedTask
from nova.retry import RetryPolicy

__all__ = ["BatchRunner"]

_log = logging.getLogger("nova.worker")


class BatchRunner:
    """Batches of one worker.

    Args:
        bisect: whether to look for the tasks at fault when the handler raises.
        loop: where an `async def` handler runs; None for `def`.
    """

    def __init__(
        self,
        handler: BatchHandler,
        outcomes: Outcomes,
        policy: RetryPolicy,
        *,
        bisect: bool,
        loop: LoopThread | None,
    ) -> None:
        self._handler: Callable[[Batch], Any] = handler
        self._is_async = is_async(handler)
        self._outcomes = outcomes
        self._policy = policy
        self._bisect = bisect
        self._loop = loop
        self.outage = Outage(outcomes.backoff)

    def run(self, job: list[ReceivedTask], slot: Slot) -> None:
        """Run a batch in this thread."""
        del slot
        try:
            self._run(job)
        except BaseException:  # noqa: BLE001 - a thread's top: the tasks must not stay here for ever
            _log.exception("settling a batch of %d tasks failed, they will run again", len(job))
            self.outage.give_up(job)
            self._release(job)

    def _run(self, job: list[ReceivedTask]) -> None:
        tasks = self._still_ours(job)
        if not self.outage.wait_turn(job):
            self._release(tasks)
            return
        successes = self.outage.successes
        error = self._attempt(tasks)
        if error is None:
            self.outage.give_up(job)
        elif self._bisect:
            self._isolate(job, tasks, error, successes)
        else:
            self._fail(tasks, error)

    def stop(self) -> None:
        """Wake what waits; unresolved tasks are released."""
        self.outage.stop()

    def _isolate(self, job: object, tasks: list[ReceivedTask], error: BaseException, successes: int) -> None:
        """Drive the steps of `isolate` and settle what they leave."""
        _log.warning("batch of %d tasks failed, looking for the cause: %r", len(tasks), error)
        unresolved: dict[ReceivedTask, BaseException] = dict.fromkeys(tasks, error)
        verdict = self._drive(job, unresolved, successes)
        delay = self.outage.retry_delay
        self.outage.give_up(job)
        if verdict is None:
            self._release(list(unresolved))
            return
        if verdict.outage:
            _log.error("the sink refuses everything: %d tasks go back, again in %.3g s: %r", len(tasks), delay, error)
        for task in verdict.charged:
            self._outcomes.failed(task, unresolved[task])
        for task in verdict.uncharged:
            self._outcomes.again(task, delay, attempt=task.attempt, suspect=not verdict.outage)

    def _drive(
        self, job: object, unresolved: dict[ReceivedTask, BaseException], successes: int
    ) -> Verdict[ReceivedTask] | None:
        """Take the steps; keeps the error of each unresolved task. None = stopping."""
        steps = isolate(list(unresolved), _was_accused, self._policy.max_retries)
        heard: Heard | None = None
        while True:
            try:
                step = next(steps) if heard is None else steps.send(heard)
            except StopIteration as stop:
                verdict: Verdict[ReceivedTask] = stop.value
                return verdict
            failure = None
            if isinstance(step, Pause):
                if not self._pause(job, step):
                    return None
            else:
                failure = self._attempt(self._still_ours(step.tasks))
                for task in step.tasks:
                    if failure is None:
                        del unresolved[task]
                    else:
                        unresolved[task] = failure
            heard = Heard(failure is None, self.outage.successes > successes)

    def _pause(self, job: object, step: Pause) -> bool:
        if step.outage:
            self.outage.declare(job)
            return self.outage.wait_turn(job)
        return self.outage.pause(self._outcomes.backoff(1))

    def _attempt(self, tasks: list[ReceivedTask]) -> BaseException | None:
        """Run the handler once; settles what that resolves, returns the exception that resolves nothing."""
        if not tasks:
            return None
        batch = Batch(tasks)
        for task in tasks:
            task._delivery.started = True
        try:
            result = self._call(batch)
            failed = _failures(batch, result)
        except (Retry, Reject) as exc:
            self._fail(tasks, exc)
        except BaseException as exc:  # noqa: BLE001 - user code: what it raises is the run's outcome
            return exc
        else:
            self.outage.over()
            self._outcomes.completed([task for task in tasks if task.id not in failed])
            for task in tasks if failed else ():
                if task.id in failed:
                    self._outcomes.failed(task, failed[task.id])
        return None

    def _call(self, batch: Batch) -> Any:
        if self._outcomes.chain:
            for task in batch:
                self._outcomes.chain.before_handle(task)
        if self._is_async and self._loop is not None:
            return self._loop.run(lambda: self._handler(batch))
        return self._handler(batch)

    def _fail(self, tasks: Sequence[ReceivedTask], error: BaseException) -> None:
        for task in tasks:
            self._outcomes.failed(task, error)

    def _still_ours(self, tasks: Sequence[ReceivedTask]) -> list[ReceivedTask]:
        lost = [task for task in tasks if task._delivery.lost]
        self._release(lost)
        return [task for task in tasks if not task._delivery.lost] if lost else list(tasks)

    def _release(self, tasks: Sequence[ReceivedTask]) -> None:
        by_source: dict[Any, list[ReceivedTask]] = {}
        for task in tasks:
            by_source.setdefault(task._source, []).append(task)
        for source, own in by_source.items():
            source.release([task._delivery for task in own])


def _was_accused(task: ReceivedTask) -> bool:
    """It failed before while the sink was seen to work, alone or in a part that was left unresolved."""
    return task.attempt > 1 or SUSPECT in task._delivery.headers


def _failures(batch: Batch, result: Any) -> dict[str, BaseException]:
    """The failed tasks of a handler's answer.

    Raises:
        TypeError: the answer is no answer; nothing of the batch counts as done.
        ValueError: it names a task that is not in the batch.
    """
    if result is None:
        return {}
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            "the batch handler returned a coroutine that was not awaited; make the handler itself async def"
        )
    if not isinstance(result, BatchResult):
        raise TypeError(f"the batch handler must return None or BatchResult, got {type(result).__name__}")
    strangers = sorted(set(result.failed) - set(batch.ids))
    if strangers:
        raise ValueError(f"BatchResult.failed names tasks that are not in the batch: {', '.join(strangers[:3])}")
    return {
        task_id: error if isinstance(error, BaseException) else RuntimeError(error)
        for task_id, error in result.failed.items()
    }
