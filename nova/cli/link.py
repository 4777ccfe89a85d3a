"""What a supervisor and its worker process tell each other: a pair of sockets, one byte a word.

The worker says when it begins to start, from when on tasks may come, and when it is ready. The supervisor asks it to
drain, or to end at once; where its end closes, the supervisor is gone, which means drain. It is no matter of signals, because
systemd and a terminal send theirs to both: a worker would then take the supervisor's for the second one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from nova.signals import CountedSignals

__all__ = ["DRAIN", "NOW", "READY", "STARTING", "Supervised"]

STARTING = b"s"
READY = b"r"
DRAIN = b"d"
NOW = b"n"


class Supervised:
    """The worker's end: requests to stop, from the supervisor and from signals. Owns the thread `nova-link`.

    Args:
        descriptor: the socket that the process was started with.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)  # what handlers start must not keep it open
        self._signals = CountedSignals()
        self._asked = 0
        self._thread = threading.Thread(target=self._listen, name="nova-link", daemon=True)

    @property
    def seen(self) -> int:
        """1 = drain, 2 = end at once. However many signals came, they mean drain: only the supervisor says the other."""
        return max(self._asked, min(self._signals.seen, 1))

    def tell(self, word: bytes) -> None:
        """Tell the supervisor how far this process has come."""
        with contextlib.suppress(OSError):  # it is gone: the thread sees it too, and asks for a drain
            self._socket.send(word)

    def __enter__(self) -> Self:
        self._signals.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._signals.__exit__(kind, error, at)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(1.0)
        self._socket.close()

    def _listen(self) -> None:
        while self._asked < 2:
            try:
                word = self._socket.recv(1)
            except OSError:
                word = b""
            self._asked = max(self._asked, 2 if word == NOW else 1)
            if not word:
                return
