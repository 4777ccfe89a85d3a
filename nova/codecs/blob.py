"""The `blob` codec: the body is the payload, untouched; everything else is in the headers."""

from __future__ import annotations

from collections.abc import Mapping

from nova.envelope import ID, PRIORITY, QUEUE, TASK_TYPE, Content
from nova.errors import DecodeError

__all__ = ["BlobCodec"]


class BlobCodec:
    """No envelope at all: any tool reads the payload straight from the topic."""

    name = "blob"

    def encode(self, content: Content) -> bytes:
        """The payload."""
        return content.payload

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
        """The payload, with the rest from the headers.

        Raises:
            DecodeError: a header that should be a number is none.
        """
        try:
            priority = int(headers.get(PRIORITY) or 0)
        except ValueError as exc:
            raise DecodeError(f"blob: header {PRIORITY!r}: expected a number, got {headers.get(PRIORITY)!r}") from exc
        return Content(headers.get(ID, ""), headers.get(TASK_TYPE, ""), bytes(body), headers.get(QUEUE, ""), priority)
