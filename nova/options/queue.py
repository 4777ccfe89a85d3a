"""The options of a queue that are the same on every broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from nova.brokers.checks import Bounds, OptionChecks, Seconds, Share, Whole
from nova.clock import seconds
from nova.codecs import Codec, check_codec, find_codec
from nova.errors import ConfigError
from nova.middleware import Chain, Middleware
from nova.options.option import Option
from nova.retry import ExponentialBackoff, RetryPolicy
from nova.routing import check_name, check_prefix, check_queue

__all__ = [
    "DelaySlots",
    "Weights",
    "check_queues",
    "with_codec",
    "with_delay_slots",
    "with_group_id",
    "with_message_format",
    "with_middleware",
    "with_priority_weights",
    "with_queues",
    "with_retry",
    "with_topic_prefix",
]

RETRY: Bounds = {"max_retries": Whole(0, 1_000_000), "base": Seconds(0.0), "cap": Seconds(0.0), "jitter": Share()}
DELAY_SLOTS: Bounds = {
    "count": Whole(1, 64, hint="; leave with_delay_slots() out for the default"),
    "duration": Seconds(1.0, 30 * 86_400.0),
}
PRIORITY_WEIGHTS: Bounds = {
    "high": Whole(1, 1000),
    "normal": Whole(1, 1000),
    "low": Whole(1, 1000),
    "reserve": Whole(0, 1000),
}


@dataclass(frozen=True, slots=True)
class DelaySlots:
    """How brokers without exact delays cut time: `count` slots of `duration` seconds."""

    count: int
    duration: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of the priority classes, and the user's own reserve for high."""

    shares: tuple[int, int, int] = (6, 3, 1)
    reserve: int | None = None

    @property
    def high(self) -> int:
        """The share of high."""
        return self.shares[0]

    @property
    def normal(self) -> int:
        """The share of normal."""
        return self.shares[1]

    @property
    def low(self) -> int:
        """The share of low."""
        return self.shares[2]


def with_group_id(group_id: str) -> Option:
    """Workers of one group share the tasks; each group gets every task. 1 to 50 of `A-Za-z0-9_-`."""
    return Option("group_id", check_name("with_group_id", group_id), "with_group_id")


def with_topic_prefix(prefix: str) -> Option:
    """What all topic names begin with. 1 to 50 of `A-Za-z0-9_-`."""
    return Option("topic_prefix", check_prefix(prefix), "with_topic_prefix")


def with_message_format(name: str) -> Option:
    """The form of message bodies: `json`, `orjson` (alias `sonic`), `blob` or `protobuf`."""
    return Option("codec", find_codec(name), "with_message_format")


def with_codec(codec: Codec) -> Option:
    """A form of your own; every worker that should read it needs the same option."""
    return Option("codec", check_codec(codec), "with_codec")


def with_delay_slots(count: int, duration: float | timedelta) -> Option:
    """How brokers without exact delays cut time; memory and SQLite index due times and need no slots.

    Args:
        count: how many slots.
        duration: seconds of one slot.
    """
    slots = DelaySlots(count, seconds("with_delay_slots(duration)", duration))
    OptionChecks("with_delay_slots").bounds(slots, DELAY_SLOTS)
    return Option("delay_slots", slots, "with_delay_slots")


def with_retry(
    policy: RetryPolicy | None = None,
    *,
    max_retries: int = 3,
    base: float | timedelta = 1.0,
    cap: float | timedelta = 60.0,
    jitter: float = 0.1,
) -> Option:
    """When a failed task runs again: after `min(cap, base * 2 ** (attempt - 1))` seconds, spread by `jitter`.

    Args:
        policy: a policy of your own, instead of the other arguments.
        max_retries: runs after the first.
        base: seconds after the first failure.
        cap: seconds of the longest wait, before jitter.
        jitter: the share by which each wait is spread, up and down.
    """
    if policy is not None:
        if not callable(getattr(policy, "delay", None)) or not isinstance(getattr(policy, "max_retries", None), int):
            raise ConfigError(
                f"with_retry: expected an object with max_retries and delay(attempt, random), got {policy!r}"
            )
        return Option("retry", policy, "with_retry")
    backoff = ExponentialBackoff(
        max_retries, seconds("with_retry(base)", base), seconds("with_retry(cap)", cap), jitter
    )
    OptionChecks("with_retry").bounds(backoff, RETRY)
    return Option("retry", backoff, "with_retry")


def with_queues(*names: str) -> Option:
    """The queues workers read when `start` names none; default only `default`."""
    if not names:
        raise ConfigError("with_queues: expected at least one queue name")
    return Option("queues", check_queues(names), "with_queues")


def with_middleware(*middlewares: Middleware) -> Option:
    """Hooks around every task, in this order."""
    return Option("middleware", Chain(middlewares), "with_middleware")


def with_priority_weights(high: int = 6, normal: int = 3, low: int = 1, *, reserve: int | None = None) -> Option:
    """How the classes share the slots when all have work.

    Args:
        high: share of the tasks of high priority.
        normal: share of those of normal priority.
        low: share of those of low priority.
        reserve: slots on top of the concurrency that only high may take; None = 2 from concurrency 4 on, else 0. Below 4
            the default is strict: high then waits for one running task.
    """
    weights = Weights((high, normal, low), reserve)
    OptionChecks("with_priority_weights").bounds(weights, PRIORITY_WEIGHTS)
    return Option("weights", weights, "with_priority_weights")


def check_queues(names: Sequence[str]) -> tuple[str, ...]:
    """Legal queue names, each once.

    Raises:
        ConfigError: an illegal name, or one given twice.
    """
    if isinstance(names, str):
        raise ConfigError(
            f"queues: expected a list of names, got {names!r}; write {[name.strip() for name in names.split(',')]!r}"
        )
    if not isinstance(names, Sequence):
        raise ConfigError(f"queues: expected a list of names, got {names!r}; write [{names!r}]")
    checked = tuple(check_queue(name) for name in names)
    if not checked or len(set(checked)) != len(checked):
        raise ConfigError(f"queues: expected one or more different names, got {list(names)!r}")
    return checked
