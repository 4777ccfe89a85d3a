"""The two clocks Nova reads: wall time for instants that leave the process, monotonic time for waits inside it.

Pure code takes a time as an argument; only edges hold a `Clock`, so a test can move time by hand.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from nova.errors import LONGEST_SECONDS, ConfigError

__all__ = ["Clock", "SystemClock", "due_after", "from_ms", "now_ms", "seconds", "to_ms"]


class Clock(Protocol):
    """Where a component reads the time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now_ms(self) -> int:
        """`now_ms()`."""
        return now_ms()

    def monotonic(self) -> float:
        """`time.monotonic()`."""
        return time.monotonic()


def now_ms() -> int:
    """Milliseconds since the epoch, cut (never rounded up)."""
    return time.time_ns() // 1_000_000


def to_ms(name: str, instant: datetime) -> int:
    """Epoch milliseconds of an aware datetime, rounded up: never before it.

    Raises:
        ConfigError: `instant` is no datetime, or has no time zone.
    """
    if not isinstance(instant, datetime):
        raise ConfigError(f"{name}: expected an aware datetime, got {instant!r}; use datetime.now(timezone.utc) + …")
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise ConfigError(
            f"{name}: expected an aware datetime, got the naive {instant.isoformat()}; "
            "add a time zone, for example .replace(tzinfo=timezone.utc)"
        )
    return -((_EPOCH - instant) // _MILLISECOND)


def due_after(now_ms: int, delay: float) -> int:
    """The first epoch millisecond that is surely `delay` seconds after an instant that was cut to `now_ms`."""
    return now_ms + math.ceil(delay * 1000) + 1


def from_ms(ms: int) -> datetime:
    """The aware UTC datetime of epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=ms)


def seconds(name: str, value: float | timedelta, *, minimum: float = 0.0, strict: bool = False) -> float:
    """A duration as float seconds.

    Args:
        name: what the error calls it.
        value: seconds or a `timedelta`.
        minimum: the least value allowed.
        strict: refuse `minimum` itself too.

    Raises:
        ConfigError: not a number of seconds, below `minimum`, infinite or NaN.
    """
    if isinstance(value, timedelta):
        length = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        length = float(value) if abs(value) < LONGEST_SECONDS else LONGEST_SECONDS * (1 if value > 0 else -1)
    else:
        raise ConfigError(f"{name}: expected seconds or a timedelta, got {value!r}")
    if not minimum <= length < LONGEST_SECONDS or (strict and length == minimum):
        bound = f"{'>' if strict else '>='} {minimum:g} and < {LONGEST_SECONDS:g}"
        shown = value if isinstance(value, float) else length  # not the bound that stands for infinity and NaN
        raise ConfigError(f"{name}: expected a duration {bound} seconds, got {shown:g}")
    return length


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
