"""Waiting for what must become true, without fixed sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], timeout: float = 20.0, what: str = "") -> None:
    """Return once `condition()` is true.

    Raises:
        AssertionError: it did not become true within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or condition}"
        time.sleep(0.005)


def soon(condition: Callable[[], object], what: str = "") -> None:
    """What the broker has confirmed must be seen by whoever looks: RocketMQ shows it up to 20 ms later (measured).

    Less than any lease of these tests, so that nothing comes back by running out.

    Raises:
        AssertionError: it is not seen within a second.
    """
    eventually(condition, timeout=1.0, what=what)


def never(condition: Callable[[], object], during: float, what: str = "") -> None:
    """Watch for `during` seconds that `condition()` stays false.

    Raises:
        AssertionError: it became true.
    """
    deadline = time.monotonic() + during
    while time.monotonic() < deadline:
        assert not condition(), what or f"became true: {condition}"
        time.sleep(0.01)
