"""Whether a worker process that ended is started again, and when. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from nova.cli.outcome import DONE, FAILED, USAGE
from nova.retry import ExponentialBackoff

__all__ = ["Again", "GiveUp", "Life", "how_it_ended", "verdict"]

HEALTHY = 60.0
"""Seconds after which a death no longer counts with the ones before."""
_WAITS = ExponentialBackoff(base=0.5, cap=30.0)


@dataclass(frozen=True, slots=True)
class Life:
    """A process from its start to its end.

    Attributes:
        code: as `subprocess` gives it: negative for a signal.
        was_starting: whether its module was loaded, and tasks may have come.
        was_ready: whether it came as far as handling tasks.
        seconds: how long it lived.
        deaths: how many had died soon in a row before it.
    """

    code: int
    was_starting: bool
    was_ready: bool
    seconds: float
    deaths: int


@dataclass(frozen=True, slots=True)
class Again:
    """Start it again after `delay` seconds; `deaths` are now in a row."""

    delay: float
    deaths: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It cannot start, and another could not either: end everything with this code."""

    code: int


def verdict(life: Life, *, proven: bool, random: float) -> Again | GiveUp:
    """What follows an end that nobody asked for.

    Args:
        proven: whether any process of this command ever became ready. If none did, what is wrong is not about to pass,
            unless it was no error of the start: a task may have killed the process as soon as it came.
        random: uniform in [0, 1).
    """
    may_be_a_task = life.was_starting and life.code not in (DONE, FAILED, USAGE)
    if not life.was_ready and (life.code == USAGE or not (proven or may_be_a_task)):
        return GiveUp(life.code if life.code > 0 else FAILED)
    deaths = 1 if life.seconds >= HEALTHY else life.deaths + 1
    return Again(_WAITS.delay(deaths, random), deaths)


def how_it_ended(code: int) -> str:
    """For the log: `was killed by SIGKILL`, `exited with 75`."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
