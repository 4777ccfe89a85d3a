"""Every error Nova raises, in one tree, and the two exceptions with which a handler steers its task.

Catching a parent is always meaningful: `NovaError` is everything, `BrokerError` is everything the broker's side refused or
could not say. No exception of a client library leaves its driver: drivers translate and keep the original as `__cause__`.
"""

from __future__ import annotations

from datetime import timedelta

__all__ = [
    "BrokerError",
    "BrokerUnavailable",
    "CodecError",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "NotSupported",
    "NovaError",
    "PublishError",
    "QueueClosed",
    "QueueFull",
    "Reject",
    "Retry",
    "Unroutable",
]


LONGEST_SECONDS = 3.2e9
"""A hundred years: the longest duration Nova takes, so that every due time fits every broker's number."""


class NovaError(Exception):
    """Anything Nova raises on purpose."""


class ConfigError(NovaError, ValueError):
    """An option, a name or a combination of them is wrong; nothing was sent, opened or lost."""


class BrokerError(NovaError):
    """The broker refused an operation or did not answer it."""


class BrokerUnavailable(BrokerError):
    """No connection to the broker could be had in the stated time; the operation did not happen."""


class PublishError(BrokerError):
    """A message was not confirmed.

    Attributes:
        may_be_stored: False when the broker surely does not hold the message (the report's `failed`); True when nobody
            can tell (the report's `unknown`): send again with the same task id.
        is_permanent: the broker does not take the message as it is (say, it is too large): to send it again does not help.
    """

    def __init__(self, message: str, *, may_be_stored: bool = False, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.may_be_stored = may_be_stored
        self.is_permanent = is_permanent


class QueueFull(PublishError):
    """The broker, its disk or the local send buffer has no room; nothing was stored."""


class Unroutable(PublishError):
    """The broker has no place for the message; nothing was stored."""


class NotSupported(BrokerError):
    """This driver cannot do what was asked; the message names a driver or an option that can."""


class CodecError(NovaError, ValueError):
    """Bytes and values do not fit each other."""


class EncodeError(CodecError):
    """A value cannot be turned into bytes; nothing was sent."""


class DecodeError(CodecError):
    """Bytes are not what their content type or the asked-for model says."""


class QueueClosed(NovaError):
    """The queue was stopped or closed; build a new `TaskQueue` to go on."""


class Retry(Exception):
    """Raised by a handler: run this task (or this whole batch) again later. Uses one attempt.

    Args:
        delay: seconds or a `timedelta` to wait; None takes the delay of the retry policy.
        reason: text kept with the failed attempt.
    """

    def __init__(self, delay: float | timedelta | None = None, reason: str = "") -> None:
        super().__init__(reason or "the handler asked for a retry")
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if seconds is not None and not 0 <= seconds < LONGEST_SECONDS:
            raise ConfigError(
                f"Retry(delay): expected seconds from 0 to a hundred years, got {delay!r}; leave it out for the policy's"
            )
        self.delay = seconds


class Reject(Exception):
    """Raised by a handler: this task (or this whole batch) can never succeed; bury it in the dead letters now."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "rejected by the handler")
