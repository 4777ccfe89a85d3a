"""The dead letters of one group: list, requeue, purge. Any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from nova import envelope as h
from nova.brokers.base import DeadLetters, Delivery, Driver
from nova.clock import from_ms
from nova.confirmations import wait_for
from nova.copies import replay
from nova.errors import ConfigError, PublishError
from nova.routing import Topics

__all__ = ["Dead", "DeadTask"]

PAGE = 100


@dataclass(frozen=True, slots=True)
class DeadTask:
    """A task in the dead letters.

    Attributes:
        id: the task id; "" for an undecodable message without one.
        type: the task type, as far as the headers say.
        queue: the logical queue it was buried from.
        reason: `retries exhausted`, `rejected`, `unknown type`, `undecodable`, `queue timeout`,
            `crashed its worker 3 times`, `refused by the broker`.
        error_type: the last exception's class name, or "".
        error: the tail of its traceback, or "".
        attempt: the attempt it died in.
        died_at: when it was buried (aware UTC).
        worker: who buried it.
        body: the message body, untouched.
        headers: all headers of the dead letter.
    """

    id: str
    type: str
    queue: str
    reason: str
    error_type: str
    error: str
    attempt: int
    died_at: datetime | None
    worker: str
    body: bytes
    headers: dict[str, str]


class Dead:
    """`queue.dead`: what this group has buried.

    Args:
        driver: called at each use; opens the driver if need be.
    """

    def __init__(self, driver: Callable[[], Driver], topics: Topics, group: str) -> None:
        self._driver = driver
        self._topics = topics
        self._group = group

    def list(
        self,
        *,
        type: str | None = None,
        queue: str | None = None,
        reason: str | None = None,
        id: str | None = None,
        limit: int = 50,
    ) -> list[DeadTask]:
        """Up to `limit` dead tasks, oldest first; looking never wears them out.

        Args:
            id: only the task of this id.
            type: only this task type.
            queue: only what was buried from this queue.
            reason: only this reason.
            limit: the most to return.

        Raises:
            ConfigError: `limit` is no integer >= 1.
            BrokerError: they cannot be read now.
        """
        _check_limit(limit)
        reader = self._driver().browse_dead(self._topics.dead, self._group)
        try:
            found: list[DeadTask] = []
            for _, task in self._matching(reader, min(limit, PAGE), type=type, queue=queue, reason=reason, id=id):
                found.append(task)
                if len(found) == limit:
                    break
            return found
        finally:
            reader.close()

    def requeue(
        self,
        *,
        type: str | None = None,
        queue: str | None = None,
        reason: str | None = None,
        id: str | None = None,
        limit: int = 1000,
    ) -> int:
        """Send up to `limit` dead tasks back to their queues, for this group alone, attempt 1; returns how many.

        Each is published and confirmed before its dead letter is removed: a crash in between runs it twice at worst.

        Args:
            id: only the task of this id.
            type, queue, reason, limit: as for `list`.

        Raises:
            ConfigError: `limit` is no integer >= 1.
            PublishError: the broker refused some; they stay dead.
            BrokerError: they cannot be read now.
        """
        _check_limit(limit)
        driver = self._driver()
        reader = driver.browse_dead(self._topics.dead, self._group)
        try:
            chosen: list[Delivery] = []
            for delivery, _ in self._matching(reader, min(limit, PAGE), type=type, queue=queue, reason=reason, id=id):
                chosen.append(delivery)
                if len(chosen) == limit:
                    break
            return sum(self._send_back(driver, reader, chosen[i : i + PAGE]) for i in range(0, len(chosen), PAGE))
        finally:
            reader.close()

    def purge(
        self,
        *,
        type: str | None = None,
        queue: str | None = None,
        reason: str | None = None,
        id: str | None = None,
        limit: int | None = None,
    ) -> int:
        """Delete dead tasks for good; returns how many. Filters as for `list`; `limit=None` = all that match.

        Raises:
            BrokerError: they cannot be read or removed now.
        """
        if limit is not None:
            _check_limit(limit)
        reader = self._driver().browse_dead(self._topics.dead, self._group)
        try:
            removed = 0
            chosen: list[Delivery] = []
            for delivery, _ in self._matching(reader, PAGE, type=type, queue=queue, reason=reason, id=id):
                chosen.append(delivery)
                if len(chosen) == PAGE:
                    removed += reader.remove(chosen)
                    chosen = []
                if limit is not None and removed + len(chosen) == limit:
                    break
            return removed + (reader.remove(chosen) if chosen else 0)
        finally:
            reader.close()

    def _matching(
        self,
        reader: DeadLetters,
        page_size: int,
        *,
        type: str | None,
        queue: str | None,
        reason: str | None,
        id: str | None,
    ) -> Iterator[tuple[Delivery, DeadTask]]:
        wanted = {"type": type, "queue": queue, "reason": reason, "id": id}
        asked = {name: value for name, value in wanted.items() if value is not None}
        after: str | None = None
        while page := reader.read(page_size, after):
            after = page[-1][0]
            for _, delivery in page:
                task = self._show(delivery)
                if all(getattr(task, name) == value for name, value in asked.items()):
                    yield delivery, task

    def _send_back(self, driver: Driver, reader: DeadLetters, deliveries: Sequence[Delivery]) -> int:
        pairs = [(d, copy) for d in deliveries if (copy := replay(d, self._group)) is not None]
        outcome = wait_for(driver.publish([copy for _, copy in pairs]), len(pairs))
        confirmed = [delivery for (delivery, _), error in zip(pairs, outcome, strict=True) if error is None]
        reader.remove(confirmed)
        refused = [error for error in outcome if error is not None]
        if refused:
            raise PublishError(
                f"dead.requeue: {len(refused)} tasks were refused and stay dead: {refused[0]}",
                may_be_stored=any(error.may_be_stored for error in refused),
            ) from refused[0]
        return len(confirmed)

    def _show(self, delivery: Delivery) -> DeadTask:
        headers = dict(delivery.headers)
        died, attempt = headers.get(h.DIED, ""), headers.get(h.ATTEMPT, "")
        return DeadTask(
            id=headers.get(h.ID, ""),
            type=headers.get(h.TASK_TYPE, ""),
            queue=self._queue_of(headers.get(h.TARGET, "")),
            reason=headers.get(h.REASON, ""),
            error_type=headers.get(h.ERROR_TYPE, ""),
            error=headers.get(h.ERROR, ""),
            attempt=_plausible(attempt) or 1,
            died_at=None if (died_ms := _plausible(died)) is None else from_ms(died_ms),
            worker=headers.get(h.WORKER, ""),
            body=delivery.body,
            headers=headers,
        )

    def _queue_of(self, topic: str) -> str:
        try:
            return self._topics.read(topic)[0]
        except ConfigError:
            return topic


def _plausible(text: str) -> int | None:
    """A number, and none that a datetime could not show."""
    return h.number(text) if len(text) <= 14 else None


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ConfigError(f"dead(limit): expected an integer >= 1, got {limit!r}")
