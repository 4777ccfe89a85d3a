"""From how a run ended to what is done with the delivery, with its log line and its hooks. Called from worker threads."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nova import copies
from nova.brokers.base import Delivery, Message
from nova.clock import Clock, due_after, seconds
from nova.errors import DecodeError
from nova.middleware import Chain, Outcome
from nova.received import ReceivedTask
from nova.retry import Again, Bury, ExponentialBackoff, RetryPolicy, decide
from nova.routing import Topics
from nova.settlement import Move, Settler, Source

__all__ = ["OnError", "Outcomes"]

OnError = Callable[[ReceivedTask, BaseException], object]

_log = logging.getLogger("nova.worker")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Settles runs by the rules of one worker.

    Attributes:
        on_error: the user's hook for every failed attempt.
    """

    settler: Settler
    policy: RetryPolicy
    chain: Chain
    clock: Clock
    group: str
    topics: Topics
    worker: str
    on_error: OnError | None = None

    def completed(self, tasks: Sequence[ReceivedTask]) -> None:
        """The handler returned: one task's, or that of a batch, which comes from one source."""
        if not tasks:
            return
        self.settler.ack(tasks[0]._source, [task._delivery for task in tasks])
        if self.chain:
            for task in tasks:
                self.chain.after_handle(task, Outcome("completed"))

    def failed(self, task: ReceivedTask, error: BaseException) -> None:
        """The handler raised: the next attempt, or the dead letters."""
        self._tell(task, error)
        fate = self._decide(task, error)
        if isinstance(fate, Again):
            _log.warning(
                "task %s (%s) failed attempt %d, again in %.3g s: %r",
                task.id, task.type, task.attempt, fate.delay, error,
                extra={"task_id": task.id, "task_type": task.type, "attempt": task.attempt},
            )  # fmt: skip
            self.again(task, fate.delay, attempt=task.attempt + 1)
            outcome = Outcome("retrying", error, fate.delay)
        else:
            self.bury(task._source, task._delivery, fate.reason, error, task.id)
            outcome = Outcome("buried", error, reason=fate.reason)
        if self.chain:
            self.chain.after_handle(task, outcome)

    def again(self, task: ReceivedTask, delay: float, *, attempt: int, suspect: bool = False) -> None:
        """A copy `delay` seconds from now, as the given attempt; `suspect`: it failed, not alone, while the sink worked."""
        due_ms = due_after(self.clock.now_ms(), delay) if delay > 0 else None
        message = copies.next_attempt(
            task._delivery, self.group, attempt=attempt, run=task.run + 1, due_ms=due_ms, suspect=suspect
        )
        self._move(task._source, task._delivery, message)

    def bury(self, source: Source, delivery: Delivery, reason: str, error: BaseException | None, task_id: str) -> None:
        """Into the dead letters, with bytes and reason."""
        _log.error(
            "task %s buried (%s): %r", task_id, reason, error, extra={"task_id": task_id, "reason": reason}
        )  # fmt: skip
        message = copies.bury(
            delivery, self.topics.dead, self.group,
            reason=reason, error=error, now_ms=self.clock.now_ms(), worker=self.worker,
        )  # fmt: skip
        self._move(source, delivery, message)

    def bury_undecodable(self, source: Source, delivery: Delivery, error: DecodeError) -> None:
        """Bytes nobody can read: buried as they are."""
        self.bury(source, delivery, "undecodable", error, delivery.task_id or "without id")

    def bury_unstarted(self, task: ReceivedTask, reason: str) -> None:
        """Into the dead letters without a run."""
        self.bury(task._source, task._delivery, reason, None, task.id)
        if self.chain:
            self.chain.after_handle(task, Outcome("buried", reason=reason))

    def skip(self, task: ReceivedTask, reason: str) -> None:
        """Done without a run, because it has become pointless."""
        _log.warning("task %s skipped: %s", task.id, reason, extra={"task_id": task.id, "reason": reason})
        self.settler.ack(task._source, (task._delivery,))
        if self.chain:
            self.chain.after_handle(task, Outcome("skipped", reason=reason))

    def suspect(self, source: Source, delivery: Delivery) -> None:
        """To the quarantine of its queue, where it runs alone."""
        queue, _ = self.topics.read(delivery.topic)
        _log.warning("task %s may have killed its worker, to the quarantine", delivery.task_id)
        self._move(source, delivery, copies.quarantine(delivery, self.topics.quarantine(queue), self.group))

    def not_due(self, source: Source, task: ReceivedTask) -> None:
        """Early by this worker's clock: back with its due time, uncounted."""
        message = copies.postpone(task._delivery, self.group, task._envelope.due_ms)
        self._move(source, task._delivery, message)

    def backoff(self, failures: int) -> float:
        """The policy's wait after failure 1, 2, …; the default policy's if the user's fails."""
        try:
            return seconds("the retry policy's delay", self.policy.delay(failures, random.random()))
        except Exception:  # noqa: BLE001 - user code
            _log.exception("the retry policy failed, using the default")
            return ExponentialBackoff().delay(failures, random.random())

    def _move(self, source: Source, delivery: Delivery, message: Message) -> None:
        def letters(why: str) -> list[Message]:
            return copies.bury_small(
                delivery, self.topics.dead, self.group,
                refused=message, why=why, now_ms=self.clock.now_ms(), worker=self.worker,
            )  # fmt: skip

        self.settler.move(Move(source, delivery, message, letters))

    def _decide(self, task: ReceivedTask, error: BaseException) -> Again | Bury:
        """The policy's word; a policy of the user's that fails is replaced by the default for this once."""
        limit, attempt, chance = task._envelope.max_retries, task.attempt, random.random()
        try:
            fate = decide(self.policy, limit, attempt, error, chance)
            if isinstance(fate, Again):
                seconds("the retry policy's delay", fate.delay)
        except Exception:  # noqa: BLE001 - user code
            _log.exception(
                "the retry policy failed for task %s, using the default", task.id, extra={"task_id": task.id}
            )
            return decide(ExponentialBackoff(), limit, attempt, error, chance)
        return fate

    def _tell(self, task: ReceivedTask, error: BaseException) -> None:
        if self.on_error is None:
            return
        try:
            self.on_error(task, error)
        except BaseException:  # noqa: BLE001 - user code
            _log.exception("on_error failed for task %s", task.id, extra={"task_id": task.id})
