"""One connection that speaks RocketMQ's remoting protocol: to a name server or to a broker's admin port.

The gRPC proxy makes no topics and no groups and tells no counts; the brokers' own port does. A frame is a length, the length
of a JSON header, that header and a body; requests are answered in their order on one connection. Any thread; the next waits.

Source: RocketMQ `RemotingCommand`, `RequestCode`, `ResponseCode`; `AclUtils.calSignature` for the signature.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["NO_PERMISSION", "SUCCESS", "Answer", "Refused", "Remoting"]

SUCCESS = 0
NO_PERMISSION = 16
UNKNOWN_REQUEST = 3
_HINTS = {
    UNKNOWN_REQUEST: "; this is no name server: with_rocketmq(admin=…) takes the address of one, with port 9876 unless set",
    NO_PERMISSION: "; check access_key and secret_key, and grant this user all on the prefix's topics and groups, or give "
    "with_rocketmq(admin='') if they exist already",
}
LONGEST = 1 << 28
"""Bytes of an answer; servers write at most 16 MiB, the first four letters of another protocol are a larger number."""
_VERSION = 500
_HEADER_LENGTH = 0x00FFFFFF
"""The upper byte of a header's length says how it is written; 0 = JSON, which an answer to JSON is."""


class Refused(BrokerError):
    """The server answered with an error.

    Attributes:
        code: RocketMQ's response code.
        fields: what else it said.
    """

    def __init__(self, code: int, text: str, fields: Mapping[str, str]) -> None:
        super().__init__(text)
        self.code = code
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    fields: Mapping[str, str]
    body: bytes


class Remoting:
    """A connection that is opened by the first call, and anew after it broke.

    Args:
        address: `host:port`.
        keys: access key and secret key; None = the server asks for none.
        timeout: seconds a call may take.
    """

    def __init__(self, address: str, keys: tuple[str, str] | None, timeout: float) -> None:
        self.address = address
        self._keys = keys
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._serial = 0
        self._using = threading.Lock()

    def call(self, code: int, fields: Mapping[str, Any] | None = None, body: bytes = b"") -> Answer:
        """Ask, and wait for the answer.

        Raises:
            Refused: the server says no.
            BrokerUnavailable: it does not answer.
        """
        with self._using:
            was_open = self._socket is not None
            try:
                return self._exchange(code, fields or {}, body)
            except OSError as exc:
                self._drop()
                if not was_open or isinstance(exc, TimeoutError):
                    raise BrokerUnavailable(f"rocketmq at {self.address}: {str(exc) or type(exc).__name__}") from exc
            try:  # the connection had been cut while nobody used it
                return self._exchange(code, fields or {}, body)
            except OSError as exc:
                self._drop()
                raise BrokerUnavailable(f"rocketmq at {self.address}: {str(exc) or type(exc).__name__}") from exc

    def close(self) -> None:
        """Let go of the server; another call connects anew."""
        with self._using:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket = None

    def _exchange(self, code: int, fields: Mapping[str, Any], body: bytes) -> Answer:
        if self._socket is None:
            host, _, port = self.address.rpartition(":")
            self._socket = socket.create_connection((host.strip("[]"), int(port)), self._timeout)
            self._socket.settimeout(self._timeout)
        self._serial += 1
        header = json.dumps(
            {
                "code": code,
                "language": "PYTHON",
                "version": _VERSION,
                "opaque": self._serial,
                "flag": 0,
                "serializeTypeCurrentRPC": "JSON",
                "extFields": self._signed({name: _text(value) for name, value in fields.items()}, body),
            }
        ).encode()
        self._socket.sendall(struct.pack(">ii", 4 + len(header) + len(body), len(header)) + header + body)
        return self._answer(self._socket)

    def _signed(self, fields: dict[str, str], body: bytes) -> dict[str, str]:
        if self._keys is None:
            return fields
        access_key, secret_key = self._keys
        fields["AccessKey"] = access_key
        text = "".join(fields[name] for name in sorted(fields)).encode() + body
        fields["Signature"] = base64.b64encode(hmac.new(secret_key.encode(), text, hashlib.sha1).digest()).decode()
        return fields

    def _answer(self, connection: socket.socket) -> Answer:
        while True:
            (length,) = struct.unpack(">i", _read(connection, 4))
            if not 4 <= length <= LONGEST:
                raise ConnectionError("what answers there is no RocketMQ server")
            frame = _read(connection, length)
            size = struct.unpack(">i", frame[:4])[0] & _HEADER_LENGTH
            try:
                header = json.loads(frame[4 : 4 + size])
            except ValueError as exc:
                raise ConnectionError("what answers there is no RocketMQ server") from exc
            if header.get("opaque") != self._serial or not header.get("flag", 0) & 1:
                continue  # a request of the server's own, such as news about a group; it wants no answer
            if header["code"] != SUCCESS:
                code, remark = header["code"], (header.get("remark") or "refused").strip().splitlines()[0]
                text = f"rocketmq at {self.address}: {remark} ({code}){_HINTS.get(code, '')}"
                raise Refused(code, text, header.get("extFields") or {})
            return Answer(header.get("extFields") or {}, frame[4 + size :])


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise ConnectionResetError("the server closed the connection")
        parts += part
    return bytes(parts)
