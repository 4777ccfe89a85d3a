"""A relay before a real Kafka that makes one defect of its protocol happen every time, instead of once in two hundred.

A broker learns of a new partition a moment after it has told clients of it, and refuses a record for it until then. With
several requests under way the first may be refused and the second stored; before Kafka 4.5 the broker then takes the second
as the first (KAFKA-15591), and the client counts the refused one as stored. The relay refuses the first produce request of
each partition itself, as the broker would, once the second is under way; everything else is the real server's.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass

__all__ = ["RefusingRelay"]

PRODUCE = 0
NOT_LEADER = 6
HOST = b"127.0.0.1"


class RefusingRelay:
    """Listens on a port of its own until `close`.

    Attributes:
        held: first requests that wait for the second of their partition.
        refused: those that were refused then.
    """

    def __init__(self, server: str) -> None:
        host, port = server.rsplit(":", 1)
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        self._seen: dict[tuple[bytes, int], int] = {}
        self.held: dict[tuple[bytes, int], bytes] = {}
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """What clients are told."""
        return f"127.0.0.1:{self._port}"

    def close(self) -> None:
        """Hang up."""
        for open_ in self._sockets:
            with contextlib.suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)
            open_.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                link = _Link(client, server, threading.Lock())
                threading.Thread(target=self._requests, args=(link,), daemon=True).start()
                threading.Thread(target=self._answers, args=(link,), daemon=True).start()

    def _answers(self, link: _Link) -> None:
        """From the server, with the relay's port instead of its own."""
        real, own = (HOST + struct.pack(">i", port) for port in (self._server[1], self._port))
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame = _frame(link.server)
                link.answer(frame.replace(real, own))

    def _requests(self, link: _Link) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame = _frame(link.client)
                if struct.unpack_from(">h", frame)[0] == PRODUCE:
                    place = _place(frame)
                    count = self._seen[place] = self._seen.get(place, 0) + 1
                    if count == 1:
                        self.held[place] = frame
                        continue
                    if place in self.held:
                        self.refused += 1
                        link.answer(_refusal(self.held.pop(place), place))
                link.server.sendall(struct.pack(">i", len(frame)) + frame)


@dataclass(frozen=True)
class _Link:
    client: socket.socket
    server: socket.socket
    writing: threading.Lock

    def answer(self, frame: bytes) -> None:
        with self.writing:
            self.client.sendall(struct.pack(">i", len(frame)) + frame)


def _frame(source: socket.socket) -> bytes:
    (size,) = struct.unpack(">i", _exactly(source, 4))
    return _exactly(source, size)


def _exactly(source: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = source.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


def _place(request: bytes) -> tuple[bytes, int]:
    """Topic and partition of a produce request, version 9 or 10, of one partition without a transaction."""
    (version,) = struct.unpack_from(">h", request, 2)
    assert version in (9, 10), f"the relay reads produce requests of version 9 and 10, this is {version}"
    (client_id,) = struct.unpack_from(">h", request, 8)
    at = 10 + client_id + 1  # client id, tagged fields
    assert request[at] == 0, "no transaction expected"
    at += 1 + 2 + 4  # transaction, acks, timeout
    assert request[at] == 2, "one topic expected"
    length = request[at + 1] - 1
    topic = request[at + 2 : at + 2 + length]
    at += 2 + length
    assert request[at] == 2, "one partition expected"
    (number,) = struct.unpack_from(">i", request, at + 1)
    return topic, number


def _refusal(request: bytes, place: tuple[bytes, int]) -> bytes:
    """What a broker answers that does not lead the partition yet."""
    topic, number = place
    return b"".join(
        (
            request[4:8],  # correlation
            b"\0",
            b"\2" + bytes([len(topic) + 1]) + topic,
            b"\2" + struct.pack(">ihqqq", number, NOT_LEADER, -1, -1, -1),
            b"\1\0\0",  # no record errors, no message, no tagged fields
            b"\0" + struct.pack(">i", 0) + b"\0",  # of the topic; throttle time; of the answer
        )
    )
