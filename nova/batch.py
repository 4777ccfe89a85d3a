"""Several tasks lent to a handler at once, and what it may answer. Pure data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

from nova.received import ReceivedTask

__all__ = ["Batch", "BatchResult"]


class Batch(Sequence[ReceivedTask]):
    """Tasks of one priority class, in the order they were received.

    Return None from the handler when all are done, `BatchResult(failed=…)` when some are not, or raise: `Retry` runs the
    whole batch later, `Reject` buries all of it, any other exception makes Nova find the tasks at fault (bisection).
    """

    def __init__(self, tasks: Sequence[ReceivedTask]) -> None:
        self._tasks = tuple(tasks)

    @cached_property
    def id(self) -> str:
        """A hash of the sorted task ids: the same when one batch runs again in the process.

        Not the same after a crash: the boundaries of batches move. Idempotent sinks use `task.id`.
        """
        digest = hashlib.sha256()
        for task_id in sorted(task.id for task in self._tasks):
            digest.update(task_id.encode())
            digest.update(b"\n")
        return digest.hexdigest()[:32]

    @property
    def ids(self) -> list[str]:
        """The task ids, in order."""
        return [task.id for task in self._tasks]

    def payloads(self) -> list[bytes]:
        """The payload bytes, in order."""
        return [task.payload for task in self._tasks]

    @overload
    def __getitem__(self, index: int) -> ReceivedTask: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReceivedTask]: ...
    def __getitem__(self, index: int | slice) -> ReceivedTask | Sequence[ReceivedTask]:
        return self._tasks[index]

    def __iter__(self) -> Iterator[ReceivedTask]:
        return iter(self._tasks)  # a Sequence's own goes by index, and costs as much as reading the envelope

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Batch {self.id} of {len(self._tasks)} tasks>"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a batch handler did not manage.

    Attributes:
        failed: task id to error (an exception or text). `Retry` and `Reject` steer the single task; anything else is
            one failed attempt of it. Every other task of the batch is done. An id that is not in the batch is a mistake
            of the handler: then nothing is done and the whole batch counts as failed.
    """

    failed: Mapping[str, BaseException | str] = field(default_factory=dict)
