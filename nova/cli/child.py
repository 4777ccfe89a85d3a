"""One worker process, as its supervisor sees it. Used by the supervisor's thread alone."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from nova.cli.link import DRAIN, NOW, READY, STARTING

__all__ = ["Child"]

_log = logging.getLogger(__name__)


class Child:
    """A process that runs `nova worker` under a supervisor, started now: by exec, so that it inherits no thread or socket.

    Args:
        arguments: those of `nova`, to which the descriptor of the link is added.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptor = theirs.fileno()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "nova.cli.main", *arguments, "--supervised", str(descriptor)],
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor],
                process_group=0,  # Ctrl-C reaches the supervisor alone
            )
        self._socket = ours
        self.pid = self._process.pid
        self.started = time.monotonic()
        self.is_starting = False
        """Its module is loaded and its broker being opened: from then on a task may end it."""
        self.is_ready = False
        self.is_asked = False
        self._deadline = math.inf

    def look(self) -> int | None:
        """Take in what it said, kill it if its time is over; its exit code if it has ended."""
        code = self._process.poll()
        if code is None and time.monotonic() > self._deadline:
            _log.error("worker process with pid %d did not end in its time, killing it", self.pid)
            self._process.kill()
            self._deadline = math.inf
        with contextlib.suppress(OSError):  # nothing said, or gone
            said = self._socket.recv(16)
            self.is_starting = self.is_starting or STARTING in said
            self.is_ready = self.is_ready or READY in said
        if code is not None:
            self._socket.close()
        return code

    def drain(self, timeout: float) -> None:
        """Ask it to finish what it does, in this time. One that does nothing yet, say imports, is ended by a signal."""
        self.is_asked = True
        self._deadline = time.monotonic() + timeout
        self._say(DRAIN)
        if not self.is_ready:
            self._process.terminate()

    def end(self, timeout: float) -> None:
        """Ask it to end at once."""
        self._deadline = time.monotonic() + timeout
        self._say(NOW)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended, as the next look shows
            self._socket.send(word)
