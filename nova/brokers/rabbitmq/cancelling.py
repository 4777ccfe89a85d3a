"""Ending a consumer without harm to what is on its way. On the link's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import spec
from pika.channel import Channel

__all__ = ["cancel"]


def cancel(channel: Channel, tag: str, done: Callable[[Any], object]) -> None:
    """End a consumer, and take what still comes until the server has said so.

    `basic_cancel` of pika rejects that, and each rejected message has one more hand-out without a clean end. So this goes one
    layer below it (pika 1.3 and 1.4).
    """
    internals: Any = channel

    def cancelled(frame: Any) -> None:
        internals._cleanup_consumer_ref(tag)
        done(frame)

    internals._rpc(
        spec.Basic.Cancel(consumer_tag=tag, nowait=False),
        cancelled,
        [(spec.Basic.CancelOk, {"consumer_tag": tag})],
    )
