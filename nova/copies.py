"""The copies a worker makes of a message: the next attempt, the quarantine, the dead letter, the replay. Pure.

A copy keeps the body and the other headers; it is for the worker's own group alone, whatever the original was for.
"""

from __future__ import annotations

import traceback

from nova import envelope as h
from nova.brokers.base import Delivery, Message
from nova.task import new_task_id

__all__ = ["bury", "error_text", "next_attempt", "postpone", "quarantine", "replay"]

MAX_ERROR_BYTES = 8 << 10
"""The tail of the traceback kept with a dead letter; brokers bound their headers."""

_BURIAL = (h.REASON, h.ERROR_TYPE, h.ERROR, h.DIED, h.WORKER)


def next_attempt(
    delivery: Delivery, group: str, *, attempt: int, run: int, due_ms: int | None, suspect: bool = False
) -> Message:
    """The same task once more, at `due_ms` (None = now).

    Args:
        suspect: it was in a part of a batch that failed while the sink was seen to work (see `bisection`).
    """
    headers = _headers_of(delivery)
    headers[h.ATTEMPT] = str(attempt)
    headers[h.RUN] = str(run)
    headers.pop(h.START_BY, None)  # it has started: the queue timeout is for the first start only
    headers.pop(h.DUE, None)
    if due_ms is not None:
        headers[h.DUE] = str(due_ms)
    if suspect:
        headers[h.SUSPECT] = "1"
    target = headers.pop(h.TARGET, delivery.topic)
    return _copy(delivery, target, headers, group, due_ms)


def postpone(delivery: Delivery, group: str, due_ms: int | None) -> Message:
    """The same task, unrun, for when it is due."""
    headers = _headers_of(delivery)
    target = headers.pop(h.TARGET, delivery.topic)
    return _copy(delivery, target, headers, group, due_ms)


def quarantine(delivery: Delivery, topic: str, group: str) -> Message:
    """The same task, to be run one at a time."""
    headers = _headers_of(delivery)
    headers.setdefault(h.TARGET, delivery.topic)
    return _copy(delivery, topic, headers, group, None)


def bury(
    delivery: Delivery, topic: str, group: str, *, reason: str, error: BaseException | None, now_ms: int, worker: str
) -> Message:
    """The dead letter of a message."""
    headers = _headers_of(delivery)
    headers.setdefault(h.TARGET, delivery.topic)
    headers[h.REASON] = reason
    headers[h.DIED] = str(now_ms)
    headers[h.WORKER] = worker
    if error is not None:
        headers[h.ERROR_TYPE] = type(error).__name__
        headers[h.ERROR] = error_text(error)
    if delivery.charges:
        headers[h.CRASHES] = str(delivery.charges - 1)
    return _copy(delivery, topic, headers, group, None)


def replay(delivery: Delivery, group: str) -> Message | None:
    """The task of a dead letter from the start: attempt 1, the next run; None if the letter does not say where from."""
    headers = _headers_of(delivery)
    target = headers.pop(h.TARGET, None)
    if target is None:
        return None
    for name in (*_BURIAL, h.ATTEMPT, h.CRASHES, h.DUE, h.EXPIRES, h.START_BY, h.SUSPECT):
        headers.pop(name, None)
    run = h.number(headers.get(h.RUN))
    headers[h.RUN] = str((1 if run is None else run) + 1)
    return _copy(delivery, target, headers, group, None)


def error_text(error: BaseException) -> str:
    """The traceback's tail, at most `MAX_ERROR_BYTES` of UTF-8."""
    text = "".join(traceback.format_exception(error)).encode(errors="replace")
    return text[-MAX_ERROR_BYTES:].decode(errors="replace")


def _headers_of(delivery: Delivery) -> dict[str, str]:
    """The headers of a copy: its key may be another, so they say the id."""
    headers = dict(delivery.headers)
    if delivery.id is not None:
        headers.setdefault(h.ID, delivery.id)
    return headers


def _copy(delivery: Delivery, topic: str, headers: dict[str, str], group: str, due_ms: int | None) -> Message:
    headers[h.GROUP] = group
    return Message(topic, delivery.body, headers, headers.get(h.ID) or new_task_id(), headers.get(h.KEY), due_ms, group)
