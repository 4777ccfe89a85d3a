"""Holding what is due later: never early, in order, and nothing is stuck behind a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from nova import clock
from nova.brokers.due import DueQueue
from tests.eventually import eventually, never

SOON_MS = 60


@contextmanager
def running(move: Callable[[list[str]], None], is_held: Callable[[str], bool] = bool) -> Generator[DueQueue[str]]:
    queue = DueQueue("test-due", move, is_held)
    queue.start()
    try:
        yield queue
    finally:
        queue.close(5)


def test_what_is_due_later_is_handed_on_then_in_order_and_never_early() -> None:
    moved: list[tuple[str, int]] = []
    now_ms = clock.now_ms()
    due = {name: now_ms + SOON_MS * place for place, name in enumerate(["a", "b", "c", "d"], start=1)}
    with running(lambda items: moved.extend((item, clock.now_ms()) for item in items)) as queue:
        queue.put([(due[name], name) for name in ("c", "a", "d", "b")])
        eventually(lambda: len(moved) == 4)
    assert [name for name, _ in moved] == ["a", "b", "c", "d"]
    assert all(at_ms >= due[name] for name, at_ms in moved)


def test_what_is_due_at_the_same_time_keeps_its_order() -> None:
    moved: list[str] = []
    names = [f"m{i:04d}" for i in range(2500)]
    due_ms = clock.now_ms() + SOON_MS
    with running(moved.extend) as queue:
        queue.put([(due_ms, name) for name in names])
        eventually(lambda: len(moved) == 2500)
    assert moved == names


def test_an_earlier_one_wakes_a_queue_that_waits_for_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nova.brokers.due.IDLE", 30.0)
    moved: list[str] = []
    with running(moved.extend) as queue:
        queue.put([(clock.now_ms() + 60_000, "late")])
        never(lambda: moved, during=0.1)
        queue.put([(clock.now_ms() + SOON_MS, "early")])
        eventually(lambda: moved == ["early"], timeout=5)


def test_a_failure_is_tried_again_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nova.brokers.due.RETRY_AFTER_MS", 100)
    monkeypatch.setattr("nova.brokers.due.IDLE", 0.05)
    moved: list[str] = []
    failures = iter([ValueError("no"), ValueError("no")])

    def move(items: list[str]) -> None:
        if "bad" in items and (failure := next(failures, None)) is not None:
            raise failure
        moved.extend(items)

    with running(move) as queue:
        queue.put([(clock.now_ms(), "bad")])
        never(lambda: moved, during=0.05)
        queue.put([(clock.now_ms() + 60, "good")])
        eventually(lambda: moved == ["good", "bad"], timeout=5)


def test_what_is_given_back_is_handed_on_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nova.brokers.due.RETRY_AFTER_MS", 100)
    moved: list[float] = []

    def move(items: list[str]) -> None:
        moved.append(time.monotonic())
        if len(moved) == 1:
            queue.again(items)

    with running(move) as queue:
        queue.put([(0, "a")])
        eventually(lambda: len(moved) == 2)
    assert moved[1] - moved[0] >= 0.099


def test_what_is_no_longer_held_is_dropped_when_it_falls_due() -> None:
    moved: list[str] = []
    lost: set[str] = set()
    with running(moved.extend, lambda item: item not in lost) as queue:
        queue.put([(clock.now_ms() + SOON_MS, "gone"), (clock.now_ms() + SOON_MS, "ours")])
        lost.add("gone")
        eventually(lambda: moved == ["ours"])
        queue.put([(clock.now_ms() + SOON_MS, "all")])
        queue.clear()
        never(lambda: len(moved) > 1, during=2 * SOON_MS / 1000)


def test_a_close_ends_the_thread_at_once_and_hands_on_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nova.brokers.due.IDLE", 30.0)
    moved: list[str] = []
    queue = DueQueue("test-due-closing", moved.extend, bool)
    queue.start()
    queue.put([(clock.now_ms() + 20_000, "late")])
    began = time.monotonic()
    queue.close(5)
    queue.close(5)
    assert time.monotonic() - began < 1
    assert not [thread for thread in threading.enumerate() if thread.name == "test-due-closing"]
    assert moved == []
