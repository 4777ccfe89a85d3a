"""What every runner is given and what it answers. Standard library only: peers import this from their own environments."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

BODY_BYTES = 200
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
"""What SQLite's PRAGMA synchronous answers."""
BATCH = 100
STALL = 30.0
"""Seconds without progress after which a run is given up; what is missing then counts as lost."""


def bodies(tasks: int) -> list[dict[str, Any]]:
    """One body per task, numbered from 0, each 200 bytes as compact JSON."""
    return [{"n": n, "pad": "x" * (BODY_BYTES - len(f'{{"n":{n},"pad":""}}'))} for n in range(tasks)]


def chunks(items: Sequence[dict[str, Any]], size: int = BATCH) -> Iterable[Sequence[dict[str, Any]]]:
    """Consecutive slices."""
    return (items[start : start + size] for start in range(0, len(items), size))


class Tally:
    """Notes the tasks a worker was handed; the clock starts with the first of them.

    What a worker has to do before is measured apart: joining a consumer group costs a fixed time that has nothing to do with
    its rate.

    Args:
        tasks: how many there are; who waits for the last sleeps until then, for a look now and then costs those who work.
    """

    def __init__(self, tasks: int) -> None:
        self.seen: list[int] = []
        self.complete = threading.Event()
        self._tasks = tasks
        self._begun = self._first = self._last = time.perf_counter()
        self._cpu = 0.0

    def one(self, number: int) -> None:
        """A task was handed over."""
        if not self.seen:
            self._start()
        self.seen.append(number)
        if len(self.seen) >= self._tasks:
            self.complete.set()

    def many(self, numbers: list[int]) -> None:
        """Several were."""
        if not self.seen:
            self._start()
        self.seen += numbers
        if len(self.seen) >= self._tasks:
            self.complete.set()

    def wait(self) -> None:
        """Return when all were handed over, or none has come for `STALL` seconds."""
        seen = -1
        while seen < len(self.seen) and not self.complete.is_set():
            seen = len(self.seen)
            self.complete.wait(STALL)

    def handled(self) -> None:
        """All were, but the broker may not know yet."""
        self._last = time.perf_counter()

    def answer(self, tasks: int, **details: Any) -> None:
        """The broker knows: stop the clock and answer."""
        end, cpu = time.perf_counter(), time.process_time() - self._cpu
        details |= {
            "cpu_seconds": cpu,
            "start_seconds": self._first - self._begun,
            "last_commit_seconds": end - self._last,
        }
        answer(tasks, end - self._first, self.seen, **details)

    def _start(self) -> None:
        self._first, self._cpu = time.perf_counter(), time.process_time()


def numbered(stored: int, tasks: int) -> list[int]:
    """As `seen` of a run that can only count what is stored: too few are lost ones, too many are doubled ones."""
    return [min(number, tasks - 1) for number in range(stored)]


def wait_for(progress: Callable[[], int], wanted: int) -> None:
    """Return when `progress()` has reached `wanted`, or has not moved for `STALL` seconds."""
    best, since = -1, time.monotonic()
    while (now := progress()) < wanted:
        if now > best:
            best, since = now, time.monotonic()
        elif time.monotonic() - since > STALL:
            return
        time.sleep(0.002)


def answer(tasks: int, seconds: float, seen: Iterable[int], **details: Any) -> None:
    """Print the sample of this run: `seen` are the numbers that were handled (or are stored, for an enqueuing run).

    Each lone send's `ms` is kept to the microsecond.
    """
    times = Counter(seen)
    if "ms" in details:
        details["ms"] = [round(ms, 3) for ms in details["ms"]]
    sample = {
        "tasks": tasks,
        "seconds": seconds,
        "lost": sum(1 for n in range(tasks) if not times[n]),
        "duplicates": sum(count - 1 for count in times.values()),
        "details": details,
    }
    json.dump(sample, sys.stdout)
