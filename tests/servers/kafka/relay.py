"""Relays before a real Kafka, each with one defect of its world made certain. Everything else is the real server's."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field

__all__ = ["ForgetfulRelay", "RefusingRelay", "Relay"]

PRODUCE, METADATA = 0, 3
NOT_LEADER, LEADER_NOT_AVAILABLE = 6, 5
HOST = b"127.0.0.1"

Place = tuple[bytes, int]


@dataclass(frozen=True, eq=False)
class _Link:
    """One client's connection. `asked`: correlation to (api, version) of what the server has still to answer."""

    client: socket.socket
    server: socket.socket
    writing: threading.Lock = field(default_factory=threading.Lock)
    asked: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def answer(self, frame: bytes) -> None:
        with self.writing:
            self.client.sendall(struct.pack(">i", len(frame)) + frame)

    def forward(self, frame: bytes) -> None:
        self.asked[frame[4:8]] = struct.unpack_from(">hh", frame)
        self.server.sendall(struct.pack(">i", len(frame)) + frame)

    def hang_up(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Relay:
    """Listens on a port of its own until `close`, and tells clients that the broker is there.

    Attributes:
        accepted: connections that were asked for so far.
    """

    def __init__(self, server: str) -> None:
        self.accepted = 0
        host, port = server.rsplit(":", 1)
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._links: list[_Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """What clients are told."""
        return f"127.0.0.1:{self._port}"

    def hang_up(self) -> None:
        """End all connections; clients may come again."""
        links, self._links = self._links, []
        for link in links:
            link.hang_up()

    def close(self) -> None:
        """End."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def request(self, link: _Link, frame: bytes) -> None:
        """What a client sends."""
        link.forward(frame)

    def response(self, api: int, version: int, frame: bytes) -> bytes:
        """What the server answers."""
        del api, version
        return frame

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                link = _Link(client, socket.create_connection(self._server))
                self._links.append(link)
                threading.Thread(target=self._requests, args=(link,), daemon=True).start()
                threading.Thread(target=self._responses, args=(link,), daemon=True).start()

    def _requests(self, link: _Link) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                self.request(link, _frame(link.client))
        link.hang_up()

    def _responses(self, link: _Link) -> None:
        real, own = (HOST + struct.pack(">i", port) for port in (self._server[1], self._port))
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame = _frame(link.server)
                link.answer(self.response(*link.asked.pop(frame[:4]), frame).replace(real, own))
        link.hang_up()


class RefusingRelay(Relay):
    """Refuses the first produce request of each partition once the second is under way.

    A broker learns of a new partition a moment after it has told clients of it, and refuses records for it until then. With
    several requests under way the first may be refused and the second stored; before Kafka 4.5 the broker then takes the
    second as the first (KAFKA-15591), and the client counts the refused one as stored.

    Attributes:
        held: first requests that wait for the second of their partition.
        refused: those that were refused then.
    """

    def __init__(self, server: str) -> None:
        self.held: dict[Place, bytes] = {}
        self.refused = 0
        self._seen: set[Place] = set()
        super().__init__(server)

    def request(self, link: _Link, frame: bytes) -> None:
        """Holds the first, then refuses it."""
        if struct.unpack_from(">h", frame)[0] == PRODUCE:
            place = _place(frame)
            if place not in self._seen:
                self._seen.add(place)
                self.held[place] = frame
                return
            if place in self.held:
                self.refused += 1
                link.answer(_refusal(self.held.pop(place), place))
        link.forward(frame)


class ForgetfulRelay(Relay):
    """While `forgets`, says that the cluster has no brokers, as one does that is being let in again after a pause.

    Attributes:
        forgets: set by the test.
        told: how many answers said so.
    """

    def __init__(self, server: str) -> None:
        self.forgets = False
        self.told = 0
        super().__init__(server)

    def response(self, api: int, version: int, frame: bytes) -> bytes:
        """Takes the brokers out of metadata."""
        if api != METADATA or not self.forgets:
            return frame
        assert version >= 10, f"the relay reads metadata of version 10 and more, this is {version}"
        self.told += 1
        return _without_brokers(frame)


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


def _place(request: bytes) -> Place:
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


def _without_brokers(frame: bytes) -> bytes:
    """Metadata with no broker, and no leader of any partition."""
    found = bytearray(frame)
    at = begin = 4 + 1 + 4  # correlation, tagged fields, throttle time
    at += 1
    for _ in range(frame[begin] - 1):
        at += 4  # node
        at += frame[at] + 4  # host, port
        at += max(1, frame[at])  # rack
        at += 1  # tagged fields
    end = at
    at += max(1, frame[at]) + 4  # cluster, controller
    topics, at = _varint(frame, at)
    for _ in range(topics - 1):
        at += 2  # error
        at += max(1, frame[at]) + 16 + 1  # name, id, whether internal
        partitions, at = _varint(frame, at)
        for _ in range(partitions - 1):
            struct.pack_into(">h", found, at, LEADER_NOT_AVAILABLE)
            struct.pack_into(">i", found, at + 6, -1)  # leader
            at += 2 + 4 + 4 + 4  # error, number, leader, its epoch
            for _ in range(3):  # replicas, those in sync, those away
                count, at = _varint(frame, at)
                at += 4 * (count - 1)
            at += 1
        at += 4 + 1  # rights, tagged fields
    return bytes(found[:begin]) + b"\1" + bytes(found[end:])


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next field begins."""
    value = shift = 0
    while True:
        value |= (frame[at] & 0x7F) << shift
        at += 1
        if frame[at - 1] < 0x80:
            return value, at
        shift += 7


def _refusal(request: bytes, place: Place) -> bytes:
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
