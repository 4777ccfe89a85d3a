"""What tests of passwords, certificates and rights ask of every broker: one clear error in time, and is a task taken."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from nova import BrokerError, Finding, NovaError, Task, TaskQueue

__all__ = ["STATED", "found", "is_taken", "refused"]

STATED = 12.0
"""Seconds within which a queue that cannot be opened says so."""


@contextmanager
def refused(kind: type[NovaError], *words: str, within: float = STATED) -> Generator[None]:
    """One error of this kind with these words and without a secret, in time."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        yield
    assert time.monotonic() - started < within
    for word in words:
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"
    assert not re.search(r"\bsecret\b", str(caught.value)), "each password of these tests ends so"


def found(q: TaskQueue, name: str) -> Finding:
    """What a check has found under this name; the first of them, for what hurts comes first."""
    return next(finding for finding in q.check().findings if finding.name == name)


def is_taken(q: TaskQueue, task_id: str) -> bool:
    """Whether the broker takes a task."""
    try:
        q.enqueue(Task("t", id=task_id))
    except BrokerError:
        return False
    return True
