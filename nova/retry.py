"""What happens after a failed attempt: again (when?) or buried (why?). Pure; the random number is an argument.

`delay = min(cap, base * 2 ** (attempt - 1)) * uniform(1 - jitter, 1 + jitter)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nova.errors import Reject, Retry

__all__ = ["Again", "Bury", "ExponentialBackoff", "RetryPolicy", "decide"]


class RetryPolicy(Protocol):
    """How often, and after what wait, a failed task runs again. Called from worker threads: keep it pure."""

    @property
    def max_retries(self) -> int:
        """Runs after the first."""
        ...

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after failed attempt 1, 2, …; `random` is uniform in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """The default policy.

    Attributes:
        max_retries: runs after the first.
        base: seconds after the first failure.
        cap: the longest wait in seconds, before jitter.
        jitter: the share by which each wait is spread, 0 to 1.
    """

    max_retries: int = 3
    base: float = 1.0
    cap: float = 60.0
    jitter: float = 0.1

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after failed attempt `attempt`."""
        doubled = self.base * 2.0 ** min(attempt - 1, 1000)
        return min(self.cap, doubled) * (1 + self.jitter * (2 * random - 1))


@dataclass(frozen=True, slots=True)
class Again:
    """Run it again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Bury:
    """Move it to the dead letters; `reason` is what `q.dead.list()` shows."""

    reason: str


def decide(
    policy: RetryPolicy, max_retries: int | None, attempt: int, error: BaseException, random: float
) -> Again | Bury:
    """The fate of a task whose attempt `attempt` ended with `error`.

    Args:
        max_retries: the task's own limit, or None for the policy's.
    """
    if isinstance(error, Reject):
        return Bury("rejected")
    limit = policy.max_retries if max_retries is None else max_retries
    if attempt > limit:
        return Bury(getattr(error, "burial_reason", "retries exhausted"))
    if isinstance(error, Retry) and error.delay is not None:
        return Again(error.delay)
    return Again(policy.delay(attempt, random))
