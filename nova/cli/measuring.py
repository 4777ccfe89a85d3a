"""What a broker and this machine do with Nova: how fast tasks go in, come out, and get from one to the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nova.cli.target import TaskQueue
from nova.errors import NovaError
from nova.received import ReceivedTask
from nova.task import Task

__all__ = ["STALL", "Figures", "Latency", "measure"]

STALL = 150.0
"""Seconds without another task after which the rest counts as lost: longer than any broker's lease by default."""
LOOK_EVERY = 0.002
TYPE = "nova.bench"


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of the middle one, and of all but the slowest hundredth."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """From at least one."""
        ordered = sorted(seconds)
        middle, most = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
        return cls(round(1000 * middle, 3), round(1000 * most, 3))


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    Attributes:
        enqueued_per_s, handled_per_s: tasks a second, in batches in, one a call out.
        enqueue_ms: of a lone `enqueue`, until the broker has stored the task.
        start_ms: of the same tasks, until their handler was called, with an idle worker.
        lost, twice: tasks that were accepted and not handled, or handled more than once.
    """

    tasks: int
    enqueued_per_s: float
    handled_per_s: float
    enqueue_ms: Latency
    start_ms: Latency
    lost: int
    twice: int

    @property
    def is_sound(self) -> bool:
        """Whether every task was handled exactly once."""
        return self.lost == 0 and self.twice == 0


class _Calls:
    """When the handler was called for each task; any thread. It takes no lock, which would be most of a call's cost."""

    def __init__(self) -> None:
        self.at: list[tuple[str, float]] = []

    def note(self, task: ReceivedTask) -> None:
        """The handler: it does nothing else."""
        self.at.append((task.id, time.perf_counter()))

    def wait(self, count: int, shown: Callable[[int], None]) -> None:
        """Until so many different tasks were handled, or none came for `STALL` seconds."""
        calls, since = len(self.at), time.monotonic()
        while calls < count or len({id_ for id_, _ in self.at}) < count:
            time.sleep(LOOK_EVERY)
            if len(self.at) > calls:
                calls, since = len(self.at), time.monotonic()
                shown(min(calls, count))
            elif time.monotonic() - since > STALL:
                return


def measure(
    open_queue: Callable[[], TaskQueue],
    group: str,
    *,
    tasks: int,
    size: int,
    together: int,
    lone: int,
    concurrency: int,
    enqueued: Callable[[int], None],
    handled: Callable[[int], None],
) -> Figures:
    """Enqueue, handle, and time it, on queues that nobody else uses. What an earlier run left behind is dropped first.

    Args:
        open_queue: makes a queue of the group.
        size: bytes of a payload.
        together: tasks of one `enqueue_batch`.
        lone: tasks that are enqueued one by one, each when the one before was handled.
        enqueued, handled: told how many so far.

    Raises:
        NovaError: the broker is not there, or did not take a task.
    """
    with open_queue() as queue:  # the group must be known before its tasks, or they take another way
        queue.groups.remove(group)
        queue.start(lambda task: None, concurrency=1)
    calls = _Calls()
    payload = "x" * size
    with open_queue() as queue:
        begin = time.perf_counter()
        ids: list[str] = []
        for start in range(0, tasks, together):
            report = queue.enqueue_batch([Task(TYPE, payload) for _ in range(min(together, tasks - start))])
            for error in (*report.failed.values(), *report.unknown.values()):
                raise error
            ids += [accepted.task_id for accepted in report.accepted]
            enqueued(len(ids))
        enqueued_s = time.perf_counter() - begin
        queue.start(calls.note, concurrency=concurrency)
        calls.wait(tasks, handled)
        handled_s = calls.at[-1][1] - calls.at[0][1] if len(calls.at) > 1 else math.inf
        sent: dict[str, tuple[float, float]] = {}
        for _ in range(lone):
            begin = time.perf_counter()
            one = queue.enqueue(Task(TYPE, payload)).task_id
            sent[one] = (begin, time.perf_counter())
            ids.append(one)
            calls.wait(len(ids), lambda count: None)
    with open_queue() as queue:
        queue.groups.remove(group)
    return _figures(tasks, ids, calls.at, sent, enqueued_s, handled_s)


def _figures(
    tasks: int,
    ids: Sequence[str],
    calls: Sequence[tuple[str, float]],
    sent: dict[str, tuple[float, float]],
    enqueued_s: float,
    handled_s: float,
) -> Figures:
    first = dict(reversed(calls))
    missing = [id_ for id_ in ids if id_ not in first]
    starts = [first[id_] - begin for id_, (begin, _) in sent.items() if id_ in first]
    if not starts:
        raise NovaError("bench: no task was handled; see nova queues and the worker's log")
    return Figures(
        tasks=tasks,
        enqueued_per_s=round(tasks / enqueued_s, 1),
        handled_per_s=round((tasks - 1) / handled_s, 1),
        enqueue_ms=Latency.of([end - begin for begin, end in sent.values()]),
        start_ms=Latency.of(starts),
        lost=len(missing),
        twice=len(calls) - len(first),
    )
