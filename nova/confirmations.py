"""Waiting for a driver's confirmation, in a thread or on an event loop, never longer than `PUBLISH_TIMEOUT`."""

from __future__ import annotations

import asyncio
from concurrent.futures import TimeoutError as FutureTimeout

from nova.brokers.base import Confirmation
from nova.errors import PublishError

__all__ = ["PUBLISH_TIMEOUT", "await_for", "wait_for"]

PUBLISH_TIMEOUT = 30.0
"""Seconds after which an unanswered publish is unknown; drivers answer earlier (`DriverContext.publish_timeout`)."""


def wait_for(confirmation: Confirmation, count: int) -> list[PublishError | None]:
    """One entry per message; all unknown after the timeout."""
    try:
        return confirmation.result(PUBLISH_TIMEOUT)
    except FutureTimeout:
        return _unknown(count)


async def await_for(confirmation: Confirmation, count: int) -> list[PublishError | None]:
    """`wait_for` without holding up the event loop."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(confirmation), PUBLISH_TIMEOUT)
    except TimeoutError:
        return _unknown(count)


def _unknown(count: int) -> list[PublishError | None]:
    text = f"no confirmation within {PUBLISH_TIMEOUT:g} s; send again with the same task id"
    return [PublishError(text, may_be_stored=True) for _ in range(count)]
