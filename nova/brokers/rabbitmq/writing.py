"""Writing to a connection below pika's loop. On the link's thread."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from pika.connection import Connection

__all__ = ["write"]


def write(connection: Connection, data: bytes) -> None:
    """Write frames, at once as far as the socket takes them.

    pika leaves each write to a turn of its loop: it asks to be told when the socket can be written to, waits for that,
    sends, and asks no more (figures in docs/performance.md). With TLS, or while older bytes wait, it goes that way.
    """
    internals: Any = connection
    transport = internals._transport
    if (
        transport is not None
        and transport._state == transport._STATE_ACTIVE
        and type(transport._sock) is socket.socket
        and not transport.get_write_buffer_size()
    ):
        with contextlib.suppress(OSError):  # it is full, or broken: pika finds that out, too
            data = data[transport._sock.send(data) :]
    if data:
        internals._output_marshaled_frames([data])
