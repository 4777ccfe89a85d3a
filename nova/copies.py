"""The copies a worker makes of a message: the next attempt, the quarantine, the dead letter, the replay. Pure.

A copy keeps the body and the other headers; it is for the worker's own group alone, whatever the original was for.
"""

from __future__ import annotations

import traceback

from nova import envelope as h
from nova.brokers.base import Delivery, Message
from nova.task import new_task_id

__all__ = ["bury", "bury_small", "error_text", "next_attempt", "postpone", "quarantine", "replay"]

MAX_ERROR_BYTES = 8 << 10
"""The tail of the traceback kept with a dead letter; brokers bound their headers."""

MAX_SMALL_ERROR_BYTES = 300
"""The same of a letter that must be small."""

REFUSED = "refused by the broker"
"""The reason of a task whose next copy the broker does not take."""

_BURIAL = (h.REASON, h.ERROR_TYPE, h.ERROR, h.DIED, h.WORKER)
_NEEDED = frozenset(
    {
        *(h.QUEUE, h.PRIORITY, h.TASK_TYPE, h.STAMP, h.ID, h.KEY, h.ATTEMPT, h.RUN, h.CONTENT_TYPE, h.MAX_RETRIES),
        *(h.PROCESS_TIMEOUT, h.TARGET, h.REASON, h.DIED),
    }
)
"""What a dead letter must say to be listed and replayed."""


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


def bury_small(
    delivery: Delivery, topic: str, group: str, *, refused: Message, why: str, now_ms: int, worker: str
) -> list[Message]:
    """Dead letters for a delivery whose copy `refused` the broker does not take, the last one as small as can be.

    The first has the task's headers and the end of the error text, the second no metadata, the last what a replay needs.
    """
    full = bury(delivery, topic, group, reason=REFUSED, error=None, now_ms=now_ms, worker=worker)
    headers = full.headers
    headers[h.REASON] = refused.headers.get(h.REASON, REFUSED)
    headers[h.ERROR] = refused.headers.get(h.ERROR, why).encode()[-MAX_SMALL_ERROR_BYTES:].decode(errors="ignore")
    bare = {name: text for name, text in headers.items() if name in _NEEDED}
    told = {**bare, h.ERROR: headers[h.ERROR]}
    return [full, _copy(delivery, topic, told, group, None), _copy(delivery, topic, bare, group, None)]


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
