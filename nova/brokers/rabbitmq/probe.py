"""One message on a channel of its own: the server may not answer there for long. On the link's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import spec
from pika.channel import Channel
from pika.connection import Connection

from nova.brokers.rabbitmq.writing import write

__all__ = ["Probe"]


class Probe:
    """Sends the message, and closes the channel when it has an answer.

    Args:
        frames: of the message, given the channel; b"" = it cannot be sent.
        ended: told once whether the server has answered, and whether it has stored the message.
    """

    def __init__(
        self, connection: Connection, frames: Callable[[Channel], bytes], ended: Callable[[bool, bool], None]
    ) -> None:
        self._frames = frames
        self._ended: Callable[[bool, bool], None] | None = ended
        self._returned = False
        channel = connection.channel(on_open_callback=self._on_open)
        channel.add_on_close_callback(lambda *_: self._end(False, False))

    def _on_open(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(
            lambda frame: self._on_confirm(channel, frame), callback=lambda frame: self._send(channel)
        )

    def _send(self, channel: Channel) -> None:
        frames = self._frames(channel)
        if frames:
            write(channel.connection, frames)
        else:
            channel.close()

    def _on_return(self, *_: object) -> None:
        self._returned = True

    def _on_confirm(self, channel: Channel, frame: Any) -> None:
        """A refusal says that the queue has no leader still."""
        is_ack = isinstance(frame.method, spec.Basic.Ack)
        self._end(is_ack, is_ack and not self._returned)
        channel.close()

    def _end(self, is_back: bool, is_stored: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(is_back, is_stored)
