"""Ports for servers that are stopped and started again on the same one."""

from __future__ import annotations

import random
import socket

RANGE = range(20000, 32000)
"""Below what systems give to outgoing connections (32768 on, Linux): a client that tries to reach a stopped server on
a port of that range can be given this very port for its own end, and then blocks the server or talks to itself."""


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 on which nobody listens now."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(RANGE)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
