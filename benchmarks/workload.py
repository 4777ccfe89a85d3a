"""What every runner is given and what it answers. Standard library only: peers import this from their own environments."""

from __future__ import annotations

import json
import sys
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
    """Print the sample of this run: `seen` are the numbers that were handled (or are stored, for an enqueuing run)."""
    times = Counter(seen)
    sample = {
        "tasks": tasks,
        "seconds": seconds,
        "lost": sum(1 for n in range(tasks) if not times[n]),
        "duplicates": sum(count - 1 for count in times.values()),
        "details": details,
    }
    json.dump(sample, sys.stdout)
