"""The `json` codec: one document, the form of the Go Nova.

`{"task_id":"…","task":{"Type":"…","Payload":"<standard base64>"|null},"queue":"<topic>","priority":2}`. Unknown keys are
ignored; a null payload is an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nova.envelope import Content
from nova.errors import DecodeError, EncodeError

__all__ = ["JsonCodec"]


class JsonCodec:
    """JSON as the Go Nova writes it, except that `<`, `>` and `&` are not escaped (any JSON reader takes both)."""

    name = "json"

    def encode(self, content: Content) -> bytes:
        """The document, keys in Go's order.

        Raises:
            EncodeError: text that UTF-8 cannot hold (a lone surrogate).
        """
        document = _Document(content.task_id, _Inner(content.type, content.payload), content.topic, content.priority)
        try:
            return _encode(document)
        except UnicodeEncodeError as exc:
            raise EncodeError(f"json: task {content.task_id!r} holds text that UTF-8 cannot: {exc}") from exc

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
        """The content of a document.

        Raises:
            DecodeError: no such document; the message says where.
        """
        del headers
        try:
            document = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise DecodeError(f"json: body is not a Nova document: {exc}") from exc
        inner = document.task
        return Content(document.task_id, inner.Type, inner.Payload or b"", document.queue, document.priority)


class _Inner(msgspec.Struct, gc=False):
    Type: str
    Payload: bytes | None = None


class _Document(msgspec.Struct, gc=False):
    task_id: str = ""
    task: _Inner = msgspec.field(default_factory=lambda: _Inner(""))
    queue: str = ""
    priority: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Document).decode
