"""The `orjson` codec (alias `sonic`): the same document as `json`, written and read by orjson."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import orjson

from nova.envelope import Content
from nova.errors import DecodeError, EncodeError

__all__ = ["OrjsonCodec"]


class OrjsonCodec:
    """The Go Nova's `sonic` form: JSON without HTML escapes."""

    name = "orjson"

    def encode(self, content: Content) -> bytes:
        """The document, keys in Go's order.

        Raises:
            EncodeError: text that UTF-8 cannot hold (a lone surrogate).
        """
        payload = base64.b64encode(content.payload).decode()
        try:
            return orjson.dumps(
                {
                    "task_id": content.task_id,
                    "task": {"Type": content.type, "Payload": payload},
                    "queue": content.topic,
                    "priority": content.priority,
                }
            )
        except orjson.JSONEncodeError as exc:
            raise EncodeError(f"orjson: task {content.task_id!r} cannot be written: {exc}") from exc

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
        """The content of a document.

        Raises:
            DecodeError: no such document.
        """
        del headers
        try:
            document = orjson.loads(body)
            inner = document["task"]
            payload = inner.get("Payload")
            content = Content(
                document.get("task_id", ""),
                inner["Type"],
                b"" if payload is None else base64.b64decode(payload, validate=True),
                document.get("queue", ""),
                document.get("priority", 0),
            )
        except (
            orjson.JSONDecodeError,
            KeyError,
            TypeError,
            AttributeError,
            binascii.Error,
            ValueError,
            RecursionError,
        ) as exc:
            raise DecodeError(f"orjson: body is not a Nova document: {type(exc).__name__}: {exc}") from exc
        _check(content)
        return content


def _check(content: Content) -> None:
    texts = (content.task_id, content.type, content.topic)
    if not all(isinstance(text, str) for text in texts) or type(content.priority) is not int:
        raise DecodeError("orjson: body is not a Nova document: a field has the wrong type")
