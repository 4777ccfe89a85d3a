"""A relay before a server: it counts who comes, and is taken away and brought back in an instant, which no server can."""

from __future__ import annotations

import contextlib
import socket
import threading

HOST = "127.0.0.1"


class Relay:
    """Passes bytes on between clients and one server, from construction to `close`.

    Attributes:
        address: for clients.
        accepted: connections that were asked for so far.
    """

    def __init__(self, server: str) -> None:
        self.accepted = 0
        host, _, port = server.rpartition(":")
        self._server = host, int(port)
        self._sockets: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        self._listener = self._listen(0)
        self._port: int = self._listener.getsockname()[1]
        self.address = f"{HOST}:{self._port}"

    def freeze(self) -> None:
        """Pass nothing on any more on the connections there are, without a word; new ones work."""
        self._frozen.update(self._sockets)

    def take_away(self) -> None:
        """Cut every connection and refuse new ones."""
        for open_ in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)
            open_.close()
        self._sockets.clear()

    def bring_back(self) -> None:
        """Listen again at the same address."""
        self._listener = self._listen(self._port)

    def cut(self) -> None:
        """End every connection; clients may come again at once."""
        self.take_away()
        self.bring_back()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((HOST, port))
        threading.Thread(target=self._accept, args=(listener,), name="relay", daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), name="relay", daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if source not in self._frozen:
                    target.sendall(data)
        _end(source, target)


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
