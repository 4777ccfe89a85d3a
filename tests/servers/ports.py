"""Ports for servers that are stopped and started again on the same one.

A server takes seconds until it listens on what it was given, so nobody else may be given that meanwhile: each process of a
test run has ports of its own, and goes through them one after the other.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator

RANGE = range(20000, 32000, 4)
"""Below what systems give to outgoing connections (32768 on, Linux): a client that tries to reach a stopped server on
a port of that range can be given this very port for its own end, and then blocks the server or talks to itself. Every
fourth, because a broker of RocketMQ's also listens two below its port and one above."""


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 on which nobody listens now, and which this process was not given lately."""
    return list(itertools.islice(filter(_is_free, _turn), count))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _own_ports() -> Iterator[int]:
    """This process's part of `RANGE`, again and again from a place that differs from run to run."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw"))  # by pytest-xdist, from gw0 on
    own = RANGE[number + 1 :: workers + 1]
    start = random.randrange(len(own))
    return itertools.cycle((*own[start:], *own[:start]))


_turn = _own_ports()
